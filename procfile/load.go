package procfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
)

// Options say what to read and as whom.
type Options struct {
	Config   string   // the configuration's path; "" is none
	Procfile string   // a Procfile's path or its directory; "" is none
	Dir      string   // where relative paths begin and files are looked for; "" is the working directory
	System   string   // the configuration looked for first; "" is /etc/pazinit/pazinit.yaml
	UID, GID int      // the supervisor's effective ones
	Passwd   string   // "" is /etc/passwd
	Group    string   // "" is /etc/group
	Set      []string // PATH=VALUE: put over the files, see Load
	Beside   bool     // look for a Procfile beside System, too
}

// Load reads the configuration with its includes and all Procfiles and .env
// files. Its error is an [Errors] that holds everything that is wrong; there is
// no configuration then.
//
// Config and Procfile together: the Procfile's application, named after its
// folder, is added to those of the configuration, or its Procfile takes the
// place of the one that the configuration gives an application of this name.
// With neither, the first file found of System, pazinit.yaml and Procfile in Dir
// is read. A file found in Dir that is not root's, or that others can write, or
// whose folder they can write, is an error if UID is 0. [ErrNotFound] says that
// there was none.
//
// Set is put over what the files say, as a further file would be, before anything
// is checked: each is PATH=VALUE, as in machine.hostname=a, shop.env.MODE=test or
// shop.web.num_instances=2.
//
// Load blocks as long as the file system does.
func Load(opts Options) (*Config, error) {
	l := newLoader(opts)
	if err := l.load(); err != nil {
		return nil, err
	}
	return l.cfg, nil
}

func newLoader(opts Options) *loader {
	return &loader{
		opts: opts,
		keys: table,
		accounts: accounts{
			passwd: cmpOr(opts.Passwd, "/etc/passwd"), group: cmpOr(opts.Group, "/etc/group"),
		},
		cfg: &Config{
			ConsoleFull: "block",
			OutputRing:  64 << 10,
			EndWhen:     "any",
			Machine:     newMachine(),
			Cgroups: Cgroups{
				HierarchyRoot: "pazinit",
				Subsystems:    []string{"memory", "cpu", "cpuacct", "blkio"},
				FSRoot:        "/sys/fs/cgroup",
			},
		},
	}
}

// SocketPath reads socket_path alone from the configuration at path, with its
// includes; "" if it says nothing of it.
func SocketPath(path string) (string, error) {
	l := &loader{cfg: &Config{}, keys: table}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	r := reader{errs: &l.errs, files: &l.cfg.Files}
	tree := r.read(path, Position{}, nil)
	if e := tree.get("socket_path"); e != nil {
		l.at = e.key
		l.readSocketPath(e.value)
	}
	if errs := l.errs.errors(); len(errs) > 0 {
		return "", errs
	}
	return l.cfg.SocketPath, nil
}

// A loader holds one load and what is being read in it.
type loader struct {
	opts     Options
	keys     []Key
	accounts accounts
	errs     errorList
	cfg      *Config
	found    bool // the configuration or the Procfile was found, not named
	early    bool // only what LoadMachine reads

	level     Level
	at        string // the key being read, from the top: "cgroups.fs_root"
	hierarchy *node  // the first of its two spellings
	app       *Application
	lost      bool     // app's Procfile is not known
	portPos   Position // where app's PortBase is
	w         *Worker  // the worker, or its application's defaults
	mount     *Mount
	iface     *Interface
	sc        *scratch // what else is known of w
	out       *Target
	keep      *node

	dotenv  map[*Application][]variable
	workers int // so far
	claims  []claim
	ports   []block
}

func cmpOr(s, or string) string {
	if s == "" {
		return or
	}
	return s
}

func (l *loader) load() error {
	dir := l.opts.Dir
	if dir == "" {
		var err error
		if dir, err = os.Getwd(); err != nil {
			return Errors{{What: fmt.Sprintf("find the working directory: %v", bare(err)), Cause: err}}
		}
	}
	config, procfile := l.opts.Config, l.opts.Procfile
	if config == "" && procfile == "" {
		config, procfile = l.find(dir)
	}
	tree := &node{kind: mapping}
	r := reader{errs: &l.errs, files: &l.cfg.Files}
	if config != "" {
		if t := r.read(absolute(config, dir), Position{}, nil); t != nil {
			tree = t
		}
		if l.opts.Beside && procfile == "" && tree.get("applications") == nil {
			// A Procfile beside it is the application.
			if path := filepath.Join(filepath.Dir(absolute(config, dir)), "Procfile"); exists(path) {
				procfile = path
			}
		}
	}
	if procfile != "" {
		addProcfile(tree, absolute(procfile, dir))
	}
	if config != "" || procfile != "" || l.early {
		l.applySets(&r, tree)
		l.section(tree, AtTop)
		l.checkTogether()
	}
	if errs := l.errs.errors(); len(errs) > 0 {
		sortErrors(errs, l.cfg.Files)
		return errs
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// sortErrors orders by file, line and column; files that could not be read and
// what has no place keep theirs, in front.
func sortErrors(errs Errors, files []string) {
	rank := make(map[string]int)
	for i, f := range files {
		if _, ok := rank[f]; !ok {
			rank[f] = i + 1
		}
	}
	more := len(errs)
	if errs[more-1].File == "" && strings.HasPrefix(errs[more-1].What, "and ") {
		more-- // stays the last
	}
	sort.SliceStable(errs[:more], func(i, j int) bool {
		a, b := errs[i].Position, errs[j].Position
		if rank[a.File] != rank[b.File] {
			return rank[a.File] < rank[b.File]
		}
		return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
	})
}

// find looks for the first configuration or Procfile.
func (l *loader) find(dir string) (config, procfile string) {
	system := cmpOr(l.opts.System, "/etc/pazinit/pazinit.yaml")
	local := []string{filepath.Join(dir, "pazinit.yaml"), filepath.Join(dir, "Procfile")}
	places := []string{system}
	beside := ""
	if l.opts.Beside {
		beside = filepath.Join(filepath.Dir(system), "Procfile")
		places = append(places, beside)
	}
	for _, path := range append(places, local...) {
		_, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			l.errs.put(&Error{Position: Position{File: path}, What: fmt.Sprintf("look at it: %v", bare(err)), Cause: err})
			return "", ""
		}
		switch path {
		case system:
			return path, ""
		case beside:
			return "", path
		}
		l.found = true
		if !l.trusted(path) {
			return "", ""
		}
		if path == local[0] {
			return path, ""
		}
		return "", path
	}
	if l.early {
		return "", ""
	}
	l.errs.put(&Error{
		What:  fmt.Sprintf("found neither %s nor %s nor %s", system, local[0], local[1]),
		Meant: "name a configuration with -c or a Procfile with -f",
		Cause: ErrNotFound,
	})
	return "", ""
}

// trusted says whether root may use a file that it merely found.
func (l *loader) trusted(path string) bool {
	if l.opts.UID != 0 {
		return true
	}
	look := []string{path, filepath.Dir(path)}
	if real, err := filepath.EvalSymlinks(path); err == nil && filepath.Dir(real) != filepath.Dir(path) {
		look = append(look, filepath.Dir(real))
	}
	for _, p := range look {
		info, err := os.Stat(p)
		if err != nil {
			l.errs.add(Position{File: p}, "", "look at it: %v", bare(err))
			return false
		}
		who := ""
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
			who = fmt.Sprintf("user %d owns %s", st.Uid, p)
		} else if mode := info.Mode().Perm(); mode&0o022 != 0 {
			who = fmt.Sprintf("others than root can write %s, mode %04o", p, mode)
		}
		if who != "" {
			l.errs.add(Position{File: path}, "name it with -c or -f to use it all the same", "not used by root: %s", who)
			return false
		}
	}
	return true
}

// addProcfile makes tree say what a Procfile given by name says.
func addProcfile(tree *node, path string) {
	dir := filepath.Dir(path)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		dir = path
	}
	at := Position{File: path}
	value := &node{kind: scalar, text: path, pos: at}
	app := &node{kind: mapping, pos: at, keys: []entry{{"procfile", at, value}}}
	apps := &node{kind: mapping, pos: at, keys: []entry{{AppName(dir), at, app}}}
	merge(tree, &node{kind: mapping, keys: []entry{{"applications", at, apps}}}, 0)
}

// AppName is the name of the application whose Procfile lies in dir: the
// folder's, with - in the place of each character that no name may have.
func AppName(dir string) string {
	name := strings.Trim(cleanName(filepath.Base(dir), '-'), "-")
	if len(name) > maxName {
		name = name[:maxName]
	}
	return cmpOr(name, "app")
}

// section reads every key of a map that stands at a level.
func (l *loader) section(n *node, level Level) {
	if n.null {
		return
	}
	if n.kind != mapping {
		l.refuse(n, strings.Join(keyNames(l.keys, level), ", "))
		return
	}
	wasLevel, wasAt := l.level, l.at
	l.level = level
	if !l.early || level != AtTop {
		l.unknown(n, level)
	}
	for i := range l.keys {
		k := &l.keys[i]
		if k.At&level == 0 || k.read == nil {
			continue
		}
		if e := n.get(k.Name); e != nil {
			l.at = join(wasAt, k.Name)
			k.read(l, e.value)
		}
	}
	l.level, l.at = wasLevel, wasAt
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

// unknown refuses the keys that do not exist at a level.
func (l *loader) unknown(n *node, level Level) {
	names := keyNames(l.keys, level)
	for _, e := range n.keys {
		if slices.Contains(names, e.key) {
			continue
		}
		meant := didYouMean(e.key, names)
		if meant == "" {
			for i := range l.keys {
				if l.keys[i].Name == e.key {
					meant = "it belongs to: " + strings.Join(l.keys[i].At.Names(), ", ")
				}
			}
		}
		what := "unknown key " + quote(e.key)
		if l.at != "" {
			what += " in " + l.at
		}
		l.errs.add(e.pos, meant, "%s", what)
	}
}

func (l *loader) readApplications(n *node) {
	if n.null {
		return
	}
	if n.kind != mapping {
		l.refuse(n, "NAME: {procfile: PATH}")
		return
	}
	for _, e := range n.keys {
		if meant := badName(e.key); meant != "" {
			l.errs.add(e.pos, meant, "bad application name %s", quote(e.key))
			continue
		}
		l.at = "applications." + e.key
		l.readApplication(e)
	}
}

func (l *loader) readApplication(e entry) {
	at, n := l.at, e.value
	if n.kind != mapping && !n.null {
		l.fail(n, "procfile, user, workers, ...", "%s is no application", n.describe())
		return
	}
	l.app = &Application{Name: e.key, Pos: e.pos, Dir: filepath.Dir(e.pos.File)}
	lines, ok := l.readProcfile(n, at)
	l.lost = !ok

	base := NewWorker(e.key, "", Command{})
	base.Dir = l.app.Dir
	l.w, l.sc, l.at = base, &scratch{stopTimeout: base.Stop[0].Wait}, at
	l.section(n, AtApplication)
	defaults := *l.sc
	l.finish(&defaults, at, at)
	defaults.userIsOwn, defaults.envIsOwn = false, false

	workers := &node{kind: mapping}
	if w := n.get("workers"); w != nil && !w.value.null {
		workers = w.value
		if workers.kind != mapping {
			l.at = at + ".workers"
			l.refuse(workers, "NAME: {num_instances: 2}")
			return
		}
	}
	if !ok {
		// What the workers are is not known: only check what is said of them.
		for _, we := range workers.keys {
			if badName(we.key) == "" {
				l.readWorker(we.key, Line{Name: we.key, Pos: we.pos}, we.value, base, &defaults, at)
			}
		}
		return
	}
	if lines == nil {
		if len(workers.keys) == 0 {
			l.errs.add(e.pos, "procfile: PATH", "%s has no procfile", at)
		}
		for _, we := range workers.keys {
			lines = append(lines, Line{Name: we.key, Pos: we.pos})
		}
	} else {
		l.checkWorkerNames(workers, lines, at)
	}
	if l.workers += len(lines); l.workers > maxWorkers {
		l.errs.add(e.pos, "", "more than %d workers", maxWorkers)
		return
	}
	index := make(map[string]*node, len(workers.keys))
	for _, we := range workers.keys {
		index[we.key] = we.value
	}
	l.app.Workers = make([]*Worker, 0, len(lines))
	for _, line := range lines {
		if meant := badName(line.Name); meant != "" {
			l.errs.add(line.Pos, meant, "bad worker name %s", quote(line.Name))
			continue
		}
		w := l.readWorker(line.Name, line, index[line.Name], base, &defaults, at)
		l.app.Workers = append(l.app.Workers, w)
	}
	l.claimPorts()
	l.cfg.Applications = append(l.cfg.Applications, l.app)
}

// checkWorkerNames refuses settings of workers that are not in the Procfile.
func (l *loader) checkWorkerNames(workers *node, lines []Line, at string) {
	var names []string
	known := make(map[string]bool, len(lines))
	for _, line := range lines {
		known[line.Name] = true
		names = append(names, line.Name)
	}
	for _, we := range workers.keys {
		if known[we.key] {
			continue
		}
		meant := didYouMean(we.key, names)
		if meant == "" && len(names) <= 10 {
			meant = "it has " + strings.Join(names, ", ")
		}
		l.errs.add(we.pos, meant, "%s.workers: no worker %s in %s", at, quote(we.key), l.app.Procfile)
	}
}

// readProcfile reads the application's Procfile and the .env beside it. No lines
// without an error mean that it has none.
func (l *loader) readProcfile(n *node, at string) (lines []Line, ok bool) {
	e := n.get("procfile")
	if e == nil {
		return nil, true
	}
	l.at = at + ".procfile"
	path, ok := l.path(e.value, l.dirOf(e.value))
	if !ok {
		return nil, false
	}
	// A directory holds a Procfile.
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "Procfile")
	}
	data, _, err := readFile(path)
	if err != nil {
		l.errs.put(&Error{Position: e.value.pos, What: fmt.Sprintf("%s: read %s: %v", l.at, path, err), Cause: err})
		return nil, false
	}
	l.cfg.Files = append(l.cfg.Files, path)
	l.app.Procfile, l.app.Dir = path, filepath.Dir(path)
	lines, errs := ParseProcfile(path, bytes.NewReader(data))
	for _, err := range errs {
		l.errs.put(err)
	}
	if len(lines) == 0 && len(errs) == 0 {
		l.errs.add(Position{path, 1, 1}, "name: command line", "it has no workers")
	}
	l.readDotenv()
	return lines, len(errs) == 0 && len(lines) > 0
}

// readDotenv reads .env beside the Procfile, if there is one. As Foreman does,
// it takes PORT as the first port.
func (l *loader) readDotenv() {
	path := filepath.Join(l.app.Dir, ".env")
	data, _, err := readFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		l.errs.put(&Error{Position: Position{File: path}, What: fmt.Sprintf("read it: %v", err), Cause: err})
		return
	}
	if l.found && !l.trusted(path) {
		return
	}
	l.cfg.Files = append(l.cfg.Files, path)
	var vars []variable
	for _, v := range parseEnv(&l.errs, path, data, false) {
		if v.key != "PORT" {
			vars = append(vars, v)
			continue
		}
		port, err := strconv.Atoi(v.value)
		if err != nil || port < 1 || port > 65535 {
			l.errs.add(v.pos, "a number from 1 to 65535", "bad PORT")
			continue
		}
		l.app.PortBase, l.portPos = port, v.pos
	}
	if l.dotenv == nil {
		l.dotenv = make(map[*Application][]variable)
	}
	l.dotenv[l.app] = vars
}

// readWorker makes a worker of a line and its settings, which may be nil.
func (l *loader) readWorker(name string, line Line, n *node, base *Worker, defaults *scratch, appAt string) *Worker {
	w := *base
	sc := *defaults
	w.Name, w.Pos = name, line.Pos
	l.w, l.sc = &w, &sc
	at := appAt + ".workers." + name
	if n != nil {
		l.at = at
		l.section(n, AtWorker)
	}
	l.readCommand(line, at)
	l.finish(defaults, appAt, at)
	return &w
}

// readCommand settles how the worker in hand is started.
func (l *loader) readCommand(line Line, at string) {
	sc := l.sc
	switch {
	case sc.run != nil:
		l.at = at + ".run"
		if sc.command != nil {
			l.fail(sc.run, "only one of run and command_line", "command_line is given too")
			return
		}
		path, ok := l.text(sc.run, "an absolute path")
		if !ok {
			return
		}
		if !filepath.IsAbs(path) {
			l.fail(sc.run, "an absolute path; command_line is looked up in PATH", "%s is not absolute", quote(path))
			return
		}
		argv := []string{path}
		if sc.args != nil {
			l.at = at + ".args"
			if sc.args.kind != list {
				l.refuse(sc.args, "a list of texts")
				return
			}
			for _, item := range sc.args.items {
				if item.kind != scalar || item.null {
					l.fail(item, `a text; "" is an empty one`, "an argument is %s", item.describe())
					continue
				}
				argv = append(argv, item.text)
			}
		}
		l.w.Command = Command{Line: joinWords(argv), Argv: argv}
		return
	case sc.args != nil:
		l.at = at + ".args"
		l.fail(sc.args, "run: /the/program", "args needs run")
		return
	}
	command, pos := line.Command, line.CommandPos
	if sc.command != nil {
		l.at = at + ".command_line"
		var ok bool
		if command, ok = l.text(sc.command, "a command line"); !ok {
			return
		}
		pos = sc.command.pos
	}
	if pos.File == "" {
		if l.app.Procfile == "" && !l.lost {
			l.errs.add(line.Pos, "command_line: COMMAND, or a procfile for the application", "%s has no command", at)
		}
		return
	}
	c, err := ParseCommand(command)
	if err != nil {
		l.errs.add(pos, "", "%s: %v", l.w.Name, err)
		return
	}
	l.w.Command = c
}

// finish settles what needs several keys. Errors about what the application
// said name the application.
func (l *loader) finish(defaults *scratch, appAt, at string) {
	sc, w := l.sc, l.w
	key := func(n, inherited *node, name string) {
		l.at = at + "." + name
		if n == inherited {
			l.at = appAt + "." + name
		}
	}
	first := w.Name == "" // the application's own turn

	if first || sc.user != defaults.user || sc.group != defaults.group {
		w.User = nil
		if sc.user != nil {
			key(sc.user, defaults.user, "user")
			w.User = l.readUser(sc.user)
		}
		if sc.group != nil {
			key(sc.group, defaults.group, "group")
			l.readGroup(sc.group)
		}
	}
	if sc.stopSignal != nil {
		key(sc.stopSignal, defaults.stopSignal, "stop_signal")
		if steps, ok := l.stopSteps(sc.stopSignal, sc.stopTimeout); ok {
			w.Stop = steps
		}
	} else {
		w.Stop = []StopStep{{syscall.SIGTERM, sc.stopTimeout}}
	}
	if first || sc.envIsOwn {
		l.finishEnv()
	}
	if first {
		return
	}
	if w.TTY {
		l.finishTTY(key, defaults)
	}
	l.claimFiles()
	for _, only := range []struct {
		n, inherited *node
		name         string
		is           bool
	}{
		{sc.pidFile, defaults.pidFile, "pid_file", w.PIDFile != ""},
		{sc.stdin, defaults.stdin, "stdin", w.Stdin == "inherit" && !w.TTY},
		{sc.tty, defaults.tty, "tty", w.TTY},
	} {
		if only.is && only.n != nil && (w.NumInstances > 1 || w.PerCPU) {
			key(only.n, defaults.instances, only.name)
			l.fail(only.n, "num_instances: 1", "only a worker with one instance can have it")
		}
	}
}

// finishTTY gives the worker with the terminal the rest of it.
func (l *loader) finishTTY(key func(n, inherited *node, name string), defaults *scratch) {
	if l.sc.stdin == nil {
		l.w.Stdin = "inherit"
	} else if l.w.Stdin != "inherit" {
		key(l.sc.stdin, defaults.stdin, "stdin")
		l.fail(l.sc.stdin, "stdin: inherit, or without stdin", "a worker with tty reads from the terminal")
	}
	if l.sc.stdout == nil {
		l.w.Stdout = Target{Kind: "inherit"}
	}
	if l.sc.stderr == nil {
		l.w.Stderr = Target{Kind: "inherit"}
	}
}

func (l *loader) readUser(n *node) *User {
	s, ok := l.text(n, "a name or a number")
	if !ok {
		return nil
	}
	u, err := l.accounts.user(s)
	if err != nil {
		l.failErr(n, err)
		return nil
	}
	if l.opts.UID != 0 && u.UID != uint32(l.opts.UID) {
		l.fail(n, "", "only root can start a worker as %s, pazinit is user %d", s, l.opts.UID)
	}
	return u
}

func (l *loader) readGroup(n *node) {
	s, ok := l.text(n, "a name or a number")
	if !ok {
		return
	}
	gid, err := l.accounts.groupID(s)
	if err != nil {
		l.failErr(n, err)
		return
	}
	if l.opts.UID != 0 && gid != uint32(l.opts.GID) {
		l.fail(n, "", "only root can start a worker in group %s, pazinit's is %d", s, l.opts.GID)
		return
	}
	l.w.User = withGroup(l.w.User, uint32(l.opts.UID), gid)
}

// finishEnv puts .env, env_file and env together.
func (l *loader) finishEnv() {
	var env environment
	for _, v := range l.dotenv[l.app] {
		env.set(v.key, v.value)
	}
	for _, n := range l.sc.envFiles {
		path := absolute(n.text, l.app.Dir)
		data, _, err := readFile(path)
		if err != nil {
			l.errs.put(&Error{Position: n.pos, What: fmt.Sprintf("env_file: read %s: %v", path, err), Cause: err})
			continue
		}
		if !slices.Contains(l.cfg.Files, path) {
			l.cfg.Files = append(l.cfg.Files, path)
		}
		for _, v := range parseEnv(&l.errs, path, data, true) {
			env.set(v.key, v.value)
		}
	}
	for _, n := range l.sc.env {
		for _, e := range n.keys {
			env.set(e.key, e.value.text)
		}
	}
	slices.Sort(env.list) // their order means nothing, so it is no change either
	l.w.Env = env.list
}

// joinWords writes words as a command line.
func joinWords(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+%@") != "" {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
