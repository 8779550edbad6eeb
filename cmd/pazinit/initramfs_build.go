package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pazinit/pazinit/initramfs"
	"github.com/pazinit/pazinit/procfile"
)

// A builder makes one image.
type builder struct {
	*command
	order     *imageOrder
	image     *initramfs.Image
	root      *initramfs.Root // where programs are that the folders do not have
	busybox   *initramfs.Node
	microcode []byte
	cwd       string

	cfg    *procfile.Config
	text   string            // of all files of the configuration, together
	home   string            // the folder of the configuration on this machine
	homeAt string            // and in the image
	done   map[string]string // what was said of a program, by its name
	said   map[string]bool
	errs   []error
}

const (
	etcPazinit = "/etc/pazinit"
	etcConfig  = etcPazinit + "/pazinit.yaml"
)

func (b *builder) say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if !b.said[line] {
		b.said[line] = true
		fmt.Fprintln(b.stdout, line)
	}
}

// wrong keeps an error, so that all are told at once.
func (b *builder) wrong(format string, args ...any) {
	b.errs = append(b.errs, fmt.Errorf(format, args...))
}

// build makes the image: what folders and files bring comes first, and whatever
// is added to it later gives way to that.
func (b *builder) build() (err error) {
	o := b.order
	b.done, b.said = map[string]string{}, map[string]bool{}
	b.root = &initramfs.Root{Dir: o.sysroot}
	if b.cwd, err = os.Getwd(); err != nil {
		return fmt.Errorf("find the current folder: %w", err)
	}
	if o.microcode != "" {
		if b.microcode, err = initramfs.Microcode(o.microcode); err != nil {
			return err
		}
	}
	if o.busybox != "" {
		if b.busybox, err = hostFile(o.busybox); err != nil {
			return fmt.Errorf("--busybox: %w", err)
		}
		b.busybox.Mode = initramfs.TypeFile | 0o755
	}
	if err := b.lay(); err != nil {
		return err
	}
	if err := b.files(); err != nil {
		return err
	}
	if err := b.workers(); err != nil {
		return err
	}
	if o.entries != "" {
		if err := b.entries(); err != nil {
			return err
		}
	}
	if err := b.needs(); err != nil {
		return err
	}
	if err := b.modules(); err != nil {
		return err
	}
	if len(b.errs) > 0 {
		return errors.Join(b.errs...)
	}
	if err := b.rest(); err != nil {
		return err
	}
	for _, p := range b.image.Check() {
		fmt.Fprintf(b.stderr, "pazinit: note: %s\n", p)
	}
	return b.write()
}

// hostFile is a file of this machine, behind symbolic links.
func hostFile(file string) (*initramfs.Node, error) {
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return nil, err
	}
	n, err := initramfs.FileNode(real)
	if err == nil && n.Type() != initramfs.TypeFile {
		err = fmt.Errorf("%s is no file", file)
	}
	return n, err
}

// lay lays the folders over the root.
func (b *builder) lay() error {
	for i, f := range b.order.folders {
		abs, err := filepath.Abs(f.host)
		if err != nil {
			return err
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			abs = real
		}
		out, err := filepath.EvalSymlinks(filepath.Dir(b.order.output))
		if err == nil {
			out, err = filepath.Abs(out)
		}
		if err == nil && isWithin(out, abs) {
			return fmt.Errorf("lay %s: the image %s would be written into it", f.host, b.order.output)
		}
		if err := b.image.AddFolder(abs, f.at); err != nil {
			return err
		}
		b.order.folders[i].host = abs
	}
	return nil
}

func isWithin(file, folder string) bool {
	rel, err := filepath.Rel(folder, file)
	return err == nil && filepath.IsLocal(rel)
}

// files adds what --file names.
func (b *builder) files() error {
	for i, f := range b.order.files {
		host, at, _ := strings.Cut(f, ":")
		if at == "" {
			abs, err := filepath.Abs(host)
			if err != nil {
				return err
			}
			at = abs
		}
		b.order.files[i] = at
		if err := b.image.AddFile(host, at); err != nil {
			return fmt.Errorf("--file %s: %w", f, err)
		}
	}
	return nil
}

// needs adds the libraries of what --file brought, where they can be found.
func (b *builder) needs() error {
	for _, at := range b.order.files {
		lacking, err := b.image.AddNeeded(at, initramfs.Search{Root: b.root, Path: strings.Split(initramfs.DefaultPath, ":")})
		if err != nil {
			return err
		}
		for _, e := range lacking {
			fmt.Fprintf(b.stderr, "pazinit: note: %v\n", e)
		}
	}
	return nil
}

func (b *builder) entries() error {
	f, err := os.Open(b.order.entries)
	if err != nil {
		return fmt.Errorf("--entries: %w", err)
	}
	defer f.Close()
	return b.image.AddList(f, b.order.entries, filepath.Dir(b.order.entries))
}

// find names the configuration: what was asked for, what a folder has at the usual
// place, or what pazinit would take in the current folder.
func (b *builder) find() (config, proc string) {
	o := b.order
	if o.config != "" || o.procfile != "" {
		return o.config, o.procfile
	}
	for _, name := range []string{etcConfig, etcPazinit + "/Procfile"} {
		if n := b.image.Get(name); n != nil && n.Type() == initramfs.TypeFile {
			if path.Base(name) == "Procfile" {
				return "", n.From
			}
			return n.From, ""
		}
	}
	if isThere("pazinit.yaml") {
		return "pazinit.yaml", ""
	}
	if isThere("Procfile") {
		return "", "Procfile"
	}
	return "", ""
}

// workers adds the configuration and what its workers name.
func (b *builder) workers() (err error) {
	config, proc := b.find()
	if config == "" && proc == "" {
		if len(b.order.folders) == 0 && b.order.entries == "" {
			return errors.New("there is no Procfile here, none in a FOLDER at /etc/pazinit, and none is given: -f PROCFILE or -c CONFIG")
		}
		b.say("no Procfile: the image has only what the folders have")
		return nil
	}
	opts := procfile.Options{Config: config, Procfile: proc, Dir: b.cwd}
	// Users are those of the machine that is made, if a folder says who they are.
	opts.Passwd, opts.Group = b.accounts("/etc/passwd"), b.accounts("/etc/group")
	if b.cfg, err = procfile.Load(opts); err != nil {
		return err
	}
	if err := b.configuration(config); err != nil {
		return err
	}
	for _, a := range b.cfg.Applications {
		for _, w := range a.Workers {
			if err := b.worker(w); err != nil {
				return fmt.Errorf("%s:%s: %w", a.Name, w.Name, err)
			}
		}
	}
	if b.cfg.Machine.Emergency == "shell" || b.cfg.OnEnd == "shell" {
		b.program("the emergency shell", "/bin/sh", "", nil, false)
	}
	return b.users(opts.Passwd, opts.Group)
}

// accounts is the file of users or groups of this machine that stands for the
// image's.
func (b *builder) accounts(name string) string {
	if at, err := b.image.Resolve(name, true); err == nil {
		if n := b.image.Get(at); n != nil && n.Type() == initramfs.TypeFile {
			return n.From
		}
	}
	return filepath.Join("/", b.order.sysroot, name)
}

// configuration puts the files of the configuration where pazinit looks for them.
func (b *builder) configuration(config string) error {
	first := b.cfg.Files[0]
	for _, f := range b.cfg.Files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		b.text += string(text) + "\n"
	}
	b.home, b.homeAt = filepath.Dir(first), etcPazinit
	laid, ok := b.laid(first)
	if ok {
		b.homeAt = path.Dir(laid)
	}
	for _, f := range b.cfg.Files {
		n, err := hostFile(f)
		if err != nil {
			return err
		}
		// Who else could write them would be refused by pazinit, and whether others
		// may read them is all that the umask of a checkout leaves open.
		n.Mode = initramfs.TypeFile | 0o600
		if st, err := os.Stat(f); err == nil && st.Mode()&0o044 != 0 {
			n.Mode |= 0o044
		}
		if err := b.image.Add(b.place(f), n); err != nil {
			return err
		}
	}
	at := b.place(first)
	if at == etcConfig {
		b.say("configuration: %s", first)
		return nil
	}
	// Under another name or in another place it is not found by itself.
	var text strings.Builder
	text.WriteString("# Written by pazinit initramfs.\n")
	if config == "" {
		a := b.cfg.Applications[0]
		fmt.Fprintf(&text, "applications:\n  %s:\n    procfile: %s\n", strconv.Quote(a.Name), strconv.Quote(at))
	} else {
		fmt.Fprintf(&text, "include: %s\n", strconv.Quote(at))
	}
	if b.image.Get(etcConfig) != nil {
		return fmt.Errorf("a folder brings %s, and %s is asked for: name one configuration", etcConfig, first)
	}
	n := initramfs.Data(0o644, []byte(text.String()))
	n.From = "pazinit initramfs"
	b.say("configuration: %s, at %s", first, at)
	return b.image.Add(etcConfig, n)
}

// laid is where a file lies in the image that is in one of the folders.
func (b *builder) laid(file string) (string, bool) {
	real, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		return "", false
	}
	real = filepath.Join(real, filepath.Base(file))
	for _, f := range slices.Backward(b.order.folders) {
		if rel, err := filepath.Rel(f.host, real); err == nil && filepath.IsLocal(rel) {
			return path.Join(f.at, rel), true
		}
	}
	return "", false
}

// place is where a file of this machine lies in the image: in a folder where that
// has it; where the configuration says by an absolute path; else as it lies to the
// configuration.
func (b *builder) place(file string) string {
	if at, ok := b.laid(file); ok {
		return at
	}
	rel, err := filepath.Rel(b.home, file)
	if err != nil || !filepath.IsLocal(rel) && strings.Contains(b.text, file) {
		return path.Clean(file)
	}
	return path.Join(b.homeAt, rel)
}

// worker adds what one worker names.
func (b *builder) worker(w *procfile.Worker) error {
	dir := b.place(w.Dir)
	if w.Dir != b.home {
		if err := b.folder(w.App+":"+w.Name, w.Dir, dir, isWithin(w.Dir, b.home)); err != nil {
			return err
		}
	} else if err := b.image.MakeFolder(dir); err != nil {
		return err
	}
	env := map[string]string{"PWD": "."}
	for _, kv := range w.Env {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	type line struct {
		what string
		procfile.Command
	}
	name := w.App + ":" + w.Name
	lines := []line{{name, w.Command}}
	for stream, t := range map[string]procfile.Target{"stdout": w.Stdout, "stderr": w.Stderr} {
		if t.Kind == "pipe" {
			lines = append(lines, line{name + ", " + stream, t.Pipe})
		}
		if t.Path != "" && (t.Kind == "file" || t.Kind == "dir") {
			if err := b.image.MakeFolder(path.Dir(b.place(t.Path))); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(lines[1:], func(x, y line) int { return strings.Compare(x.what, y.what) })
	for _, l := range lines {
		if !l.Shell {
			var c shellCommand
			for _, word := range l.Argv {
				c = append(c, shellWord{word, true})
			}
			b.commands(l.what, w, []shellCommand{c}, env, false)
			continue
		}
		b.program(l.what, "/bin/sh", "", w, false)
		b.commands(l.what, w, shellLine(l.Line, maps.Clone(env), 0), env, true)
	}
	return nil
}

// commands adds the programs of commands, and the files that stand behind them.
// What a shell is told may be misunderstood, and is then only noted.
func (b *builder) commands(what string, w *procfile.Worker, list []shellCommand, env map[string]string, shell bool) {
	type item struct {
		shellCommand
		shell, guessed bool
	}
	var todo []item
	for _, c := range list {
		todo = append(todo, item{c, shell, false})
	}
	for ; len(todo) > 0; todo = todo[1:] {
		c := todo[0]
		programs, direct, inner := commandsOf(c.shellCommand, c.shell, env)
		for _, d := range direct {
			todo = append(todo, item{d, false, true})
		}
		for _, i := range inner {
			todo = append(todo, item{i, true, true})
		}
		for i, p := range programs {
			guessed := c.guessed || i > 0
			switch {
			case !p.known:
				fmt.Fprintf(b.stderr, "pazinit: note: %s: what %s will be cannot be known here; --file adds it\n", what, p.text)
			case strings.Contains(p.text, "/") && !path.IsAbs(p.text):
				b.program(what, path.Join(b.place(w.Dir), p.text), filepath.Join(w.Dir, p.text), w, guessed)
			default:
				b.program(what, p.text, "", w, guessed)
			}
		}
		if len(direct) > 0 {
			continue // its arguments come with what it executes
		}
		for _, arg := range c.shellCommand[1:] {
			if arg.known {
				b.argument(what, w, arg.text)
			}
		}
	}
}

// argument adds the file or folder that an argument names.
func (b *builder) argument(what string, w *procfile.Worker, arg string) {
	if i := strings.IndexByte(arg, '='); i >= 0 {
		arg = arg[i+1:] // --config=FILE, FILE=…
	}
	if arg == "" || arg[0] == '-' || strings.ContainsAny(arg, "\x00\n") || strings.Trim(arg, "./") == "" {
		return
	}
	host, at := filepath.Join(w.Dir, arg), path.Join(b.place(w.Dir), arg)
	if path.IsAbs(arg) {
		host, at = path.Clean(arg), path.Clean(arg)
		for _, dir := range []string{"/dev", "/proc", "/sys", "/run", "/tmp"} {
			if isWithin(host, dir) {
				return
			}
		}
		host = filepath.Join("/", b.order.sysroot, host)
	}
	if to, err := b.image.Resolve(at, true); err == nil && b.image.Get(to) != nil {
		return
	}
	st, err := os.Stat(host)
	switch {
	case err != nil:
	case st.IsDir() && path.IsAbs(arg): // /, /var/lib: where it works
		if err := b.image.MakeFolder(at); err != nil {
			b.wrong("%s: %w", what, err)
		}
	case st.IsDir():
		if err := b.folder(what, host, at, isWithin(host, w.Dir) || isWithin(host, b.home)); err != nil {
			b.wrong("%s: %w", what, err)
		}
	case st.Mode().IsRegular():
		if err := b.image.AddFile(host, at); err != nil {
			b.wrong("%s: %w", what, err)
			return
		}
		b.say("%s: file %s%s", what, at, otherThan(host, at))
		if st.Mode()&0o111 != 0 {
			if _, err := b.image.AddProgram(at, b.search(w)); err != nil {
				fmt.Fprintf(b.stderr, "pazinit: note: %s: %v\n", what, err)
			}
		}
	}
}

// folder adds a folder that is named: with what is in it, or as an empty one.
func (b *builder) folder(what, host, at string, whole bool) error {
	if n := b.image.Get(at); n != nil {
		return nil
	}
	if !whole {
		b.say("%s: folder %s, empty", what, at)
		return b.image.MakeFolder(at)
	}
	b.say("%s: folder %s%s", what, at, otherThan(host, at))
	return b.image.AddFolder(host, at)
}

func otherThan(host, at string) string {
	if host == at {
		return ""
	}
	return " from " + host
}

// search is where the programs of a worker are looked for.
func (b *builder) search(w *procfile.Worker) initramfs.Search {
	s := initramfs.Search{Root: b.root, Path: strings.Split(initramfs.DefaultPath, ":")}
	if w == nil {
		return s
	}
	for _, kv := range w.Env {
		name, value, _ := strings.Cut(kv, "=")
		var dirs []string
		for dir := range strings.SplitSeq(value, ":") {
			if !path.IsAbs(dir) {
				dir = path.Join(b.place(w.Dir), dir)
			}
			dirs = append(dirs, dir)
		}
		switch name {
		case "PATH":
			s.Path = dirs
		case "LD_LIBRARY_PATH":
			s.Library = dirs
		}
	}
	return s
}

// program adds a program. With host, the file that is meant is known; else it is
// looked for: in the image, in busybox, and in the root.
func (b *builder) program(what, name, host string, w *procfile.Worker, guess bool) {
	if text, ok := b.done[name]; ok && (w == nil || len(w.Env) == 0) {
		b.say("%s: %s", what, text)
		return
	}
	s := b.search(w)
	text, err := b.tryProgram(name, host, s)
	if err == nil {
		b.done[name] = text
		b.say("%s: %s", what, text)
		return
	}
	short := path.Base(name)
	if guess || slices.Contains(b.order.missing, name) || slices.Contains(b.order.missing, short) {
		fmt.Fprintf(b.stderr, "pazinit: note: %s: %v\n", what, err)
		return
	}
	var missing *initramfs.MissingError
	hint := ""
	if errors.As(err, &missing) {
		hint = fmt.Sprintf("; install it here, put it into a FOLDER or --busybox, name it with --file HOST:PATH, or do without: --allow-missing %s", short)
	}
	b.wrong("%s: %w%s", what, err, hint)
}

func (b *builder) tryProgram(name, host string, s initramfs.Search) (string, error) {
	if host != "" && b.image.Get(name) == nil {
		n, err := hostFile(host)
		if errors.Is(err, fs.ErrNotExist) {
			return "", &initramfs.MissingError{What: "program " + host}
		}
		if err != nil {
			return "", err
		}
		if n.Mode&0o111 == 0 {
			return "", fmt.Errorf("%s is not executable", host)
		}
		if err := b.image.Add(name, n); err != nil {
			return "", err
		}
	}
	within := s
	within.Root = nil
	p, err := b.image.AddProgram(name, within)
	if errors.Is(err, fs.ErrNotExist) && b.hasApplet(path.Base(name)) && (!strings.Contains(name, "/") || path.Dir(name) == "/bin" || path.Dir(name) == "/usr/bin") {
		if b.image.Get("/bin/busybox") == nil {
			if err := b.image.Add("/bin/busybox", b.busybox); err != nil {
				return "", err
			}
		}
		at := path.Join("/bin", path.Base(name))
		if strings.Contains(name, "/") {
			at = name
		}
		if err := b.image.Add(at, initramfs.Symlink("/bin/busybox")); err != nil {
			return "", err
		}
		p, err = b.image.AddProgram(at, s)
	} else if err != nil {
		p, err = b.image.AddProgram(name, s)
	}
	if err != nil {
		return "", err
	}
	return describeProgram(p), nil
}

// describeProgram says what a program is and what came with it.
func describeProgram(p *initramfs.Program) string {
	text := p.Name + otherThan(p.From, p.File)
	switch n := len(p.Libraries); {
	case n == 2:
		text += ", with 1 library"
	case n > 2:
		text += fmt.Sprintf(", with %d libraries", n-1)
	}
	if p.Runs != nil {
		text += ", run by " + describeProgram(p.Runs)
	}
	return text
}

// hasApplet says whether busybox can be called by this name: it has the names of
// its applets in it, each between NULs.
func (b *builder) hasApplet(name string) bool {
	if b.busybox == nil {
		return false
	}
	ok, err := initramfs.Contains(b.busybox, "\x00"+name+"\x00")
	return err == nil && ok && name != ""
}

// modules adds what --module and the configuration name.
func (b *builder) modules() error {
	names := slices.Clone(b.order.modules)
	if b.cfg != nil {
		names = append(names, b.cfg.Machine.Modules...)
	}
	if len(names) == 0 {
		return nil
	}
	dir := b.order.moduleDir
	if dir == "" {
		var found []string
		for _, f := range b.order.folders {
			for _, pattern := range []string{"lib/modules/*/modules.dep", "usr/lib/modules/*/modules.dep"} {
				more, _ := filepath.Glob(filepath.Join(f.host, pattern))
				found = append(found, more...)
			}
		}
		if len(found) != 1 {
			return fmt.Errorf("modules %s are asked for: where they are is for --kernel-modules DIR, such as /lib/modules/6.1.0-40-amd64", strings.Join(names, ", "))
		}
		dir = filepath.Dir(found[0])
	}
	d, err := initramfs.OpenModules(dir)
	if err != nil {
		return err
	}
	loaded, builtin, err := b.image.AddModules(d, names)
	if err != nil {
		return err
	}
	for _, l := range loaded {
		text := ""
		if l.Compressed {
			text = ", compressed as it is: the kernel must have CONFIG_MODULE_DECOMPRESS (5.17); pazimage unpacks it"
		}
		b.say("module %s%s", l.Path, text)
	}
	for _, name := range builtin {
		b.say("module %s: built into the kernel", name)
	}
	return nil
}

// rest adds what every machine has, where nobody has brought it.
func (b *builder) rest() error {
	program := b.order.init
	if program == "" {
		program = "/proc/self/exe"
	}
	self, err := hostFile(program)
	if err != nil {
		return fmt.Errorf("add /init: %w", err)
	}
	if err := checkInit(self); err != nil {
		return err
	}
	self.Mode = initramfs.TypeFile | 0o755
	if err := b.image.AddInit(self); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"/etc/hosts":         "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
	} {
		if b.image.Get(name) != nil {
			continue
		}
		n := initramfs.Data(0o644, []byte(text))
		n.From = "pazinit initramfs"
		if err := b.image.Add(name, n); err != nil {
			return err
		}
	}
	return b.image.AddBase()
}

// checkInit says whether a file can be started by a kernel that has nothing else.
func checkInit(n *initramfs.Node) error {
	r, err := n.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil || !bytes.Equal(head, []byte("\x7fELF")) {
		return fmt.Errorf("add /init: %s is no program", n.From)
	}
	return nil
}
