package appimage

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

const (
	etcPazinit = "/etc/pazinit"
	etcConfig  = etcPazinit + "/pazinit.yaml"
)

func (m *Maker) say(format string, args ...any) { m.once(m.Stdout, "", format, args...) }

// note says what may be missed later. An image is made all the same.
func (m *Maker) note(format string, args ...any) {
	m.once(m.Stderr, m.Program+": note: ", format, args...)
}

// lack notes what something of the image has not, once for each file.
func (m *Maker) lack(what string, err error) {
	var missing *initramfs.MissingError
	if errors.As(err, &missing) && missing.For != "" {
		known := missing.For + ": it needs " + missing.What + ","
		if slices.Contains(m.lacking, known) {
			return
		}
		m.lacking = append(m.lacking, known)
	}
	m.note("%s%v", what, err)
}

func (m *Maker) once(w io.Writer, head, format string, args ...any) {
	line := head + Printable(fmt.Sprintf(format, args...))
	if !m.said[line] {
		m.said[line] = true
		fmt.Fprintln(w, line)
	}
}

// wrong keeps an error, so that all are told at once.
func (m *Maker) wrong(format string, args ...any) {
	m.errs = append(m.errs, fmt.Errorf(format, args...))
}

// build makes the image: what folders and files bring comes first, and whatever
// is added to it later gives way to that.
func (m *Maker) build() (err error) {
	o := &m.order
	m.done, m.said = map[string]string{}, map[string]bool{}
	if m.image = m.Base; m.image == nil {
		m.image = initramfs.New()
	}
	if m.Base == nil || o.sysroot != "" {
		m.root = &initramfs.Root{Dir: o.sysroot}
	}
	if m.cwd, err = os.Getwd(); err != nil {
		return fmt.Errorf("find the current folder: %w", err)
	}
	if o.microcode != "" {
		if m.microcode, err = initramfs.Microcode(o.microcode); err != nil {
			return err
		}
	}
	if o.busybox != "" {
		if m.busybox, err = hostFile(o.busybox); err != nil {
			return fmt.Errorf("--busybox: %w", err)
		}
		m.busybox.Mode = initramfs.TypeFile | 0o755
	}
	if err := m.lay(); err != nil {
		return err
	}
	if err := m.files(); err != nil {
		return err
	}
	if err := m.checkBusybox(); err != nil {
		return err
	}
	if err := m.workers(); err != nil {
		return err
	}
	if o.entries != "" {
		if err := m.entries(); err != nil {
			return err
		}
	}
	if err := m.needs(); err != nil {
		return err
	}
	if err := m.modules(); err != nil {
		return err
	}
	if len(m.errs) > 0 {
		return errors.Join(m.errs...)
	}
	if err := m.rest(); err != nil {
		return err
	}
	for _, p := range m.image.Check() {
		if !slices.ContainsFunc(m.lacking, func(known string) bool { return strings.HasPrefix(p.String(), known) }) {
			m.note("%s", p)
		}
	}
	m.shared()
	return m.write()
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
func (m *Maker) lay() error {
	for i, f := range m.order.folders {
		abs, err := filepath.Abs(f.host)
		if err != nil {
			return err
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			abs = real
		}
		out, err := filepath.EvalSymlinks(filepath.Dir(m.order.output))
		if err == nil {
			out, err = filepath.Abs(out)
		}
		if err == nil && isWithin(out, abs) {
			return fmt.Errorf("lay %s: the image %s would be written into it", f.host, m.order.output)
		}
		if err := m.image.AddFolder(abs, f.at); err != nil {
			return err
		}
		m.order.folders[i].host = abs
	}
	return nil
}

func isWithin(file, folder string) bool {
	rel, err := filepath.Rel(folder, file)
	return err == nil && filepath.IsLocal(rel)
}

// files adds what --file names.
func (m *Maker) files() error {
	for i, f := range m.order.files {
		host, at, _ := strings.Cut(f, ":")
		if at == "" {
			abs, err := filepath.Abs(host)
			if err != nil {
				return err
			}
			at = abs
		}
		m.order.files[i] = at
		if err := m.image.AddFile(host, at); err != nil {
			return fmt.Errorf("--file %s: %w", f, err)
		}
	}
	return nil
}

// needs adds the libraries of what --file brought, where they can be found.
func (m *Maker) needs() error {
	for _, at := range m.order.files {
		lacking, err := m.image.AddNeeded(at, initramfs.Search{Root: m.root, Path: strings.Split(initramfs.DefaultPath, ":")})
		if err != nil {
			return err
		}
		for _, e := range lacking {
			m.lack("", e)
		}
	}
	return nil
}

func (m *Maker) entries() error {
	f, err := os.Open(m.order.entries)
	if err != nil {
		return fmt.Errorf("--entries: %w", err)
	}
	defer f.Close()
	return m.image.AddList(f, m.order.entries, filepath.Dir(m.order.entries))
}

// find names the configuration: what was asked for, what a folder has at the usual
// place, or what pazinit would take in the current folder.
func (m *Maker) find() (config, proc string) {
	o := &m.order
	if o.config != "" || o.procfile != "" {
		return o.config, o.procfile
	}
	for _, name := range []string{etcConfig, etcPazinit + "/Procfile"} {
		if n := m.image.Get(name); n != nil && n.Type() == initramfs.TypeFile {
			if path.Base(name) == "Procfile" {
				return "", n.From
			}
			return n.From, ""
		}
	}
	switch {
	case m.Otherwise != nil:
	case isThere("pazinit.yaml"):
		return "pazinit.yaml", ""
	case isThere("Procfile"):
		return "", "Procfile"
	}
	return "", ""
}

// workers adds the configuration and what its workers name.
func (m *Maker) workers() (err error) {
	if m.order.noProcfile {
		m.say("no Procfile: the machine needs root= on the kernel's command line, and what is there")
		return nil
	}
	config, proc := m.find()
	switch given := config + proc; {
	case given == "" && m.Otherwise != nil:
		return m.Otherwise(m)
	case given == "" && len(m.order.folders) == 0 && m.order.entries == "":
		return errors.New("there is no Procfile here, none in a FOLDER at /etc/pazinit, and none is given: -f PROCFILE or -c CONFIG; --no-procfile is for an image that only leads to a root=")
	case given == "":
		m.say("no Procfile: the image has only what the folders have")
		return nil
	case m.Base != nil && m.order.config+m.order.procfile == "" && !isThere(given):
		m.say("configuration: the container image's own")
		return nil
	}
	opts := procfile.Options{Config: config, Procfile: proc, Dir: m.cwd, Beside: true}
	// Users are those of the machine that is made, if a folder says who they are.
	for name, to := range map[string]*string{"/etc/passwd": &opts.Passwd, "/etc/group": &opts.Group} {
		file, remove, err := m.accounts(name)
		if err != nil {
			return err
		}
		defer remove()
		*to = file
	}
	if m.cfg, err = procfile.Load(opts); err != nil {
		return err
	}
	var named []*procfile.Application // by the configuration alone
	if config != "" {
		opts.Procfile, opts.Beside = "", false
		alone, err := procfile.Load(opts)
		if err != nil {
			return err
		}
		named = alone.Applications
	}
	if err := m.configuration(config, named); err != nil {
		return err
	}
	for _, a := range m.cfg.Applications {
		for _, w := range a.Workers {
			if err := m.worker(w); err != nil {
				return fmt.Errorf("%s:%s: %w", a.Name, w.Name, err)
			}
		}
	}
	if m.cfg.Machine.Emergency == "shell" || m.cfg.OnEnd == "shell" {
		m.program("the emergency shell", "/bin/sh", "", nil, false)
	}
	return m.users(opts.Passwd, opts.Group)
}

// accounts is a file of users or groups of this machine that stands for the
// image's, and how to get rid of it.
func (m *Maker) accounts(name string) (file string, remove func(), err error) {
	text, err := m.content(name)
	if errors.Is(err, fs.ErrNotExist) {
		if m.Base != nil && m.root == nil {
			return "/dev/null", func() {}, nil // nobody, not who is known here
		}
		return filepath.Join("/", m.order.sysroot, name), func() {}, nil
	}
	if err != nil {
		return "", nil, err
	}
	f, err := os.CreateTemp("", "pazinit-accounts-")
	if err != nil {
		return "", nil, err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", nil, err
	}
	return f.Name(), func() { os.Remove(f.Name()) }, nil
}

// content is that of a file of the image.
func (m *Maker) content(name string) (string, error) {
	at, err := m.image.Resolve(name, true)
	if err != nil {
		return "", err
	}
	n := m.image.Get(at)
	if n == nil || n.Type() != initramfs.TypeFile {
		return "", &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	if n.Open == nil {
		return "", nil
	}
	r, err := n.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

// addText adds a file of ours.
func (m *Maker) addText(name, text string) error {
	n := initramfs.Data(0o644, []byte(text))
	n.From = m.Program
	return m.image.Add(name, n)
}

// configuration puts the files of the configuration where pazinit looks for them,
// and names there the application that the configuration does not name.
func (m *Maker) configuration(config string, named []*procfile.Application) error {
	first := m.cfg.Files[0]
	for _, f := range m.cfg.Files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		m.text += string(text) + "\n"
	}
	var lone *procfile.Application
	for _, a := range m.cfg.Applications {
		i := slices.IndexFunc(named, func(n *procfile.Application) bool { return n.Name == a.Name })
		switch {
		case i < 0:
			lone = a
		case named[i].Procfile != a.Procfile:
			return fmt.Errorf("%s has an application %s with the Procfile %s: name %s there instead", config, a.Name, named[i].Procfile, a.Procfile)
		}
	}
	m.home, m.homeAt = filepath.Dir(first), etcPazinit
	at, isLaid := m.laid(first)
	if isLaid {
		m.homeAt = path.Dir(at)
	} else {
		at = m.place(first)
	}
	found := at == etcConfig && (lone == nil || isLaid && m.place(lone.Procfile) == etcPazinit+"/Procfile")
	if !found && !isLaid && at == etcConfig {
		at = etcPazinit + "/configuration.yaml"
	}
	for _, f := range m.cfg.Files {
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
		to := m.place(f)
		if f == first {
			to = at
		}
		if err := m.image.Add(to, n); err != nil {
			return err
		}
	}
	if found {
		m.say("configuration: %s", first)
		return nil
	}
	// Under another name or in another place it is not found by itself.
	var text strings.Builder
	text.WriteString("# Written by " + m.Program + ".\n")
	if config != "" {
		fmt.Fprintf(&text, "include: %s\n", strconv.Quote(at))
	}
	if lone != nil {
		fmt.Fprintf(&text, "applications:\n  %s:\n    procfile: %s\n", strconv.Quote(lone.Name), strconv.Quote(m.place(lone.Procfile)))
	}
	if m.image.Get(etcConfig) != nil {
		return fmt.Errorf("a folder brings %s, and %s is asked for: name one configuration", etcConfig, first)
	}
	m.say("configuration: %s, at %s", first, at)
	return m.addText(etcConfig, text.String())
}

// laid is where a file lies in the image that is in one of the folders.
func (m *Maker) laid(file string) (string, bool) {
	real, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		return "", false
	}
	real = filepath.Join(real, filepath.Base(file))
	for _, f := range slices.Backward(m.order.folders) {
		if rel, err := filepath.Rel(f.host, real); err == nil && filepath.IsLocal(rel) {
			return path.Join(f.at, rel), true
		}
	}
	return "", false
}

// place is where a file of this machine lies in the image: in a folder where that
// has it; where the configuration says by an absolute path; else as it lies to the
// configuration.
func (m *Maker) place(file string) string {
	if at, ok := m.laid(file); ok {
		return at
	}
	rel, err := filepath.Rel(m.home, file)
	if err != nil || !filepath.IsLocal(rel) && strings.Contains(m.text, file) {
		return path.Clean(file)
	}
	return path.Join(m.homeAt, rel)
}

// worker adds what one worker names.
func (m *Maker) worker(w *procfile.Worker) error {
	dir := m.place(w.Dir)
	if w.Dir != m.home {
		if err := m.folder(w.App+":"+w.Name, w.Dir, dir, isWithin(w.Dir, m.home)); err != nil {
			return err
		}
	} else if err := m.image.MakeFolder(dir); err != nil {
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
	for i, t := range [...]procfile.Target{w.Stdout, w.Stderr} {
		stream := [...]string{"stdout", "stderr"}[i]
		if t.Kind == "pipe" {
			lines = append(lines, line{name + ", " + stream, t.Pipe})
		}
		if t.Path != "" && (t.Kind == "file" || t.Kind == "dir") {
			if err := m.image.MakeFolder(path.Dir(m.place(t.Path))); err != nil {
				return err
			}
		}
	}
	for _, l := range lines {
		if !l.Shell {
			var c shellCommand
			for _, word := range l.Argv {
				c = append(c, shellWord{word, true})
			}
			m.commands(l.what, w, []shellCommand{c}, env, false)
			continue
		}
		m.program(l.what, "/bin/sh", "", w, false)
		m.commands(l.what, w, shellLine(l.Line, maps.Clone(env), 0), env, true)
	}
	return nil
}

// commands adds the programs of commands, and the files that stand behind them.
// What a shell is told may be misunderstood, and is then only noted.
func (m *Maker) commands(what string, w *procfile.Worker, list []shellCommand, env map[string]string, shell bool) {
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
				m.note("%s: what %s will be cannot be known here; --file adds it", what, p.text)
			case strings.Contains(p.text, "/") && !path.IsAbs(p.text):
				m.program(what, path.Join(m.place(w.Dir), p.text), filepath.Join(w.Dir, p.text), w, guessed)
			default:
				m.program(what, p.text, "", w, guessed)
			}
		}
		if len(direct) > 0 {
			continue // its arguments come with what it executes
		}
		for _, arg := range c.shellCommand[1:] {
			if arg.known {
				m.argument(what, w, arg.text)
			}
		}
	}
}

// argument adds the file or folder that an argument names.
func (m *Maker) argument(what string, w *procfile.Worker, arg string) {
	if i := strings.IndexByte(arg, '='); i >= 0 {
		arg = arg[i+1:] // --config=FILE, FILE=…
	}
	if arg == "" || arg[0] == '-' || strings.ContainsAny(arg, "\x00\n") || strings.Trim(arg, "./") == "" {
		return
	}
	host, at := filepath.Join(w.Dir, arg), path.Join(m.place(w.Dir), arg)
	if path.IsAbs(arg) {
		host, at = path.Clean(arg), path.Clean(arg)
		for _, dir := range []string{"/dev", "/proc", "/sys", "/run", "/tmp"} {
			if isWithin(host, dir) {
				return
			}
		}
		host = filepath.Join("/", m.order.sysroot, host)
	}
	if to, err := m.image.Resolve(at, true); err == nil && m.image.Get(to) != nil {
		return
	}
	st, err := os.Stat(host)
	switch {
	case err != nil:
	case st.IsDir() && path.IsAbs(arg): // /, /var/lib: where it works
		if err := m.image.MakeFolder(at); err != nil {
			m.wrong("%s: %w", what, err)
		}
	case st.IsDir():
		if err := m.folder(what, host, at, isWithin(host, w.Dir) || isWithin(host, m.home)); err != nil {
			m.wrong("%s: %w", what, err)
		}
	case st.Mode().IsRegular() && m.isIdentity(host, at):
		m.note("%s: %s says which machine this is, and is left out; a FOLDER or --file brings another", what, host)
	case st.Mode().IsRegular():
		if err := m.image.AddFile(host, at); err != nil {
			m.wrong("%s: %w", what, err)
			return
		}
		m.say("%s: file %s%s", what, at, otherThan(host, at))
		if st.Mode()&0o111 != 0 {
			if _, err := m.image.AddProgram(at, m.search(w)); err != nil {
				m.lack(what+": ", err)
			}
		}
	}
}

// folder adds a folder that is named: with what is in it, or as an empty one.
func (m *Maker) folder(what, host, at string, whole bool) error {
	if n := m.image.Get(at); n != nil {
		return nil
	}
	if !whole {
		m.say("%s: folder %s, empty", what, at)
		return m.image.MakeFolder(at)
	}
	m.say("%s: folder %s%s", what, at, otherThan(host, at))
	return m.image.AddFolder(host, at)
}

func otherThan(host, at string) string {
	if host == at {
		return ""
	}
	return " from " + host
}

// search is where the programs of a worker are looked for.
func (m *Maker) search(w *procfile.Worker) initramfs.Search {
	s := initramfs.Search{Root: m.root, Path: strings.Split(initramfs.DefaultPath, ":")}
	if w == nil {
		return s
	}
	for _, kv := range w.Env {
		name, value, _ := strings.Cut(kv, "=")
		var dirs []string
		for dir := range strings.SplitSeq(value, ":") {
			if !path.IsAbs(dir) {
				dir = path.Join(m.place(w.Dir), dir)
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
func (m *Maker) program(what, name, host string, w *procfile.Worker, guess bool) {
	if text, ok := m.done[name]; ok && (w == nil || len(w.Env) == 0) {
		m.say("%s: %s", what, text)
		return
	}
	s := m.search(w)
	text, err := m.tryProgram(name, host, s)
	if err == nil {
		m.done[name] = text
		m.say("%s: %s", what, text)
		return
	}
	short := path.Base(name)
	if guess || slices.Contains(m.order.missing, name) || slices.Contains(m.order.missing, short) {
		m.lack(what+": ", err)
		return
	}
	var missing *initramfs.MissingError
	hint := ""
	if errors.As(err, &missing) {
		hint = fmt.Sprintf("; install it here, put it into a FOLDER or --busybox, name it with --file FILE:PATH, or do without: --allow-missing %s", short)
	}
	m.wrong("%s: %w%s", what, err, hint)
}

func (m *Maker) tryProgram(name, host string, s initramfs.Search) (string, error) {
	if host != "" && m.image.Get(name) == nil {
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
		if err := m.image.Add(name, n); err != nil {
			return "", err
		}
	}
	within := s
	within.Root = nil
	p, err := m.image.AddProgram(name, within)
	if errors.Is(err, fs.ErrNotExist) && m.hasApplet(path.Base(name)) && (!strings.Contains(name, "/") || path.Dir(name) == "/bin" || path.Dir(name) == "/usr/bin") {
		if m.image.Get("/bin/busybox") == nil {
			if err := m.image.Add("/bin/busybox", m.busybox); err != nil {
				return "", err
			}
		}
		at := path.Join("/bin", path.Base(name))
		if strings.Contains(name, "/") {
			at = name
		}
		if !m.isBusybox(at) {
			if err := m.image.Add(at, initramfs.Symlink("/bin/busybox")); err != nil {
				return "", err
			}
		}
		p, err = m.image.AddProgram(at, s)
	} else if err != nil {
		p, err = m.image.AddProgram(name, s)
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
func (m *Maker) hasApplet(name string) bool {
	if m.busybox == nil {
		return false
	}
	ok, err := initramfs.Contains(m.busybox, "\x00"+name+"\x00")
	return err == nil && ok && name != ""
}

// isBusybox says whether a name is where busybox itself is: by that name it is
// called, too, and a folder's /bin may be a link to /usr/bin.
func (m *Maker) isBusybox(name string) bool {
	at, err := m.image.Resolve(name, true)
	own, err2 := m.image.Resolve("/bin/busybox", true)
	return err == nil && err2 == nil && at == own
}

// rest adds what every machine has, where nobody has brought it.
func (m *Maker) rest() error {
	self, err := m.ownInit()
	if err != nil {
		return err
	}
	if err := checkInit(self); err != nil {
		return err
	}
	self.Mode = initramfs.TypeFile | 0o755
	if n := m.image.Get("/init"); n != nil {
		m.say("/init: that of %s", n.From)
	}
	if err := m.image.AddInit(self); err != nil {
		return err
	}
	if err := m.image.AddMarks(); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"/etc/hosts":         "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
	} {
		if m.image.Get(name) != nil {
			continue
		}
		if err := m.addText(name, text); err != nil {
			return err
		}
	}
	return m.image.AddBase()
}

// ownInit is the program that becomes /init where nobody has brought another.
func (m *Maker) ownInit() (*initramfs.Node, error) {
	n, err := hostFile(cmpOr(m.order.init, cmpOr(m.Init, "/proc/self/exe")))
	if err != nil {
		return nil, fmt.Errorf("add /init: %w", err)
	}
	return n, nil
}

// checkBusybox says that busybox is not for the machine that /init is for. One of 32
// bits is only told of: most kernels of its family can run it.
func (m *Maker) checkBusybox() error {
	if m.busybox == nil {
		return nil
	}
	init := (*initramfs.Node)(nil)
	if at, err := m.image.Resolve("/init", true); err == nil {
		init = m.image.Get(at)
	}
	if init == nil || init.Type() != initramfs.TypeFile {
		var err error
		if init, err = m.ownInit(); err != nil {
			return err
		}
	}
	has, err := initramfs.Machine(m.busybox)
	if err != nil {
		return fmt.Errorf("--busybox: %w", err)
	}
	want, err := initramfs.Machine(init)
	if err != nil {
		return fmt.Errorf("add /init: %w", err)
	}
	switch text := fmt.Sprintf("--busybox: %s is a program for %s, and /init, %s, one for %s", m.busybox.From, has, init.From, want); {
	case has == want || has == "" || want == "":
	case has == "386" && want == "amd64", has == "arm" && want == "arm64":
		m.note("%s; the kernel has to be able to run both", text)
	default:
		return errors.New(text)
	}
	return nil
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
