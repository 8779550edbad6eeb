package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Search says where programs and libraries come from.
type Search struct {
	Root    *Root    // what the image does not have; nil for nothing
	Path    []string // folders of programs without a slash in their name
	Library []string // LD_LIBRARY_PATH that the program will have
}

// roots are where to look, one after the other: in the image alone, and then where
// the root has what the image has not.
func (s *Search) roots() []*Root {
	if s.Root == nil {
		return []*Root{nil}
	}
	return []*Root{nil, s.Root}
}

// A Program is what was added for one.
type Program struct {
	Name      string   // its path, as it will be executed
	File      string   // the file that this is, without symbolic links
	From      string   // where that came from
	Libraries []string // paths of its libraries, its dynamic linker last
	Runs      *Program // the interpreter of a script, and its
}

// A MissingError says that something a program needs is neither in the image nor
// in the root.
type MissingError struct {
	What   string   // "program redis-server", "library libssl.so.3", "interpreter /bin/zsh"
	For    string   // the file that needs it, "" for the program itself
	Looked []string // the folders where it was looked for
	Other  string   // one that is there and does not fit, with the reason
}

func (e *MissingError) Error() string {
	text := e.What + " not found"
	if e.For != "" {
		text = e.For + " needs " + e.What + ", which is not found"
	}
	if len(e.Looked) > 0 {
		text += " in " + strings.Join(e.Looked, ", ")
	}
	if e.Other != "" {
		text += "; " + e.Other
	}
	return text
}

func (e *MissingError) Unwrap() error { return fs.ErrNotExist }

const (
	maxScripts = 5        // interpreters of interpreters: the kernel's limit, fs/exec.c
	maxLine    = 256      // bytes of a script's first line that count: BINPRM_BUF_SIZE
	maxObject  = 1 << 30  // bytes of a program that is searched as a whole
	maxConf    = 64 << 10 // bytes of a file of /etc/ld.so.conf.d
	maxDepth   = 8        // includes of includes in it
)

// AddProgram adds a program with all that it needs to be executed: its dynamic
// linker and libraries as ld.so would find them, the interpreter of a script and
// the program that /usr/bin/env is told to find. Whatever the image has already is
// taken from there; the way to a file is kept as it is in the root, symbolic links
// and all. What a program opens by itself later (plug-ins, modules of an
// interpreter, data) nobody can know: that is for AddFile and AddFolder.
func (m *Image) AddProgram(name string, s Search) (*Program, error) {
	return m.addProgram(name, s, "", 0)
}

func (m *Image) addProgram(name string, s Search, by string, depth int) (*Program, error) {
	if depth > maxScripts {
		return nil, fmt.Errorf("%s: the kernel follows %d interpreters of interpreters, no more", name, maxScripts)
	}
	named, w, err := m.findProgram(name, s, by)
	if err != nil {
		return nil, err
	}
	content, err := open(w.node)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	p := &Program{Name: named, File: w.name, From: from(w.node)}
	o, err := readObject(content)
	switch {
	case err == nil:
		m.take(w)
		if p.Libraries, err = m.addLibraries(o, w, s); err != nil {
			return nil, err
		}
		return p, nil
	case !errors.Is(err, errNotELF):
		return nil, fmt.Errorf("read %s: %w", from(w.node), err)
	}
	interpreter, arg, ok := scriptLine(content)
	if !ok {
		return nil, fmt.Errorf("%s is neither an ELF program nor a script with #!: the kernel cannot execute it", from(w.node))
	}
	m.take(w)
	if p.Runs, err = m.addProgram(interpreter, s, named, depth+1); err != nil {
		return nil, err
	}
	if path.Base(interpreter) != "env" {
		return p, nil
	}
	// env [-S] [NAME=VALUE…] PROGRAM, one argument or with -S several
	for word := range strings.FieldsSeq(strings.TrimPrefix(arg, "-S")) {
		if strings.HasPrefix(word, "-") || strings.Contains(word, "=") {
			continue
		}
		p.Runs, err = m.addProgram(word, s, named, depth+1)
		return p, err
	}
	return p, nil
}

// findProgram finds a program by its path or in the search's folders, first in
// the image alone.
func (m *Image) findProgram(name string, s Search, by string) (string, way, error) {
	missing := &MissingError{What: "program " + name, For: by}
	if by != "" {
		missing.What = "interpreter " + name
	}
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates, missing.Looked = nil, s.Path
		for _, dir := range s.Path {
			candidates = append(candidates, path.Join("/", dir, name))
		}
	} else if !path.IsAbs(name) {
		return "", way{}, fmt.Errorf("program %s: its path is not absolute", name)
	}
	for _, r := range s.roots() {
		for _, c := range candidates {
			w, err := m.find(r, c)
			switch {
			case isMissing(err):
			case err != nil:
				return "", way{}, err
			case w.node.Type() != TypeFile:
				missing.Other = c + " is no file"
			case w.node.Mode&0o111 == 0:
				missing.Other = from(w.node) + " is not executable"
			default:
				return path.Clean(c), w, nil
			}
		}
	}
	return "", way{}, missing
}

func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// scriptLine reads "#!INTERPRETER ARGUMENT" as the kernel does.
func scriptLine(r io.ReaderAt) (interpreter, arg string, ok bool) {
	b := make([]byte, maxLine)
	n, _ := r.ReadAt(b, 0)
	line, _, _ := strings.Cut(string(b[:n]), "\n")
	line, ok = strings.CutPrefix(line, "#!")
	if !ok {
		return "", "", false
	}
	line = strings.Trim(line, " \t")
	i := strings.IndexAny(line, " \t\x00")
	if i < 0 {
		return line, "", line != ""
	}
	return line[:i], strings.Trim(line[i:], " \t"), i > 0
}

// A contents is an open file that can be read anywhere.
type contents interface {
	io.ReaderAt
	io.Closer
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

func (f *sameFile) ReadAt(p []byte, at int64) (int, error) { return f.f.ReadAt(p, at) }

// open opens the content of a file.
func open(n *Node) (contents, error) {
	if n.Open == nil {
		return inMemory{bytes.NewReader(nil)}, nil
	}
	r, err := n.Open()
	if err != nil {
		return nil, err
	}
	if c, ok := r.(contents); ok {
		return c, nil
	}
	defer r.Close()
	if n.Size > maxObject {
		return nil, fmt.Errorf("read %s: %d bytes are too many", from(n), n.Size)
	}
	b := make([]byte, n.Size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", from(n), err)
	}
	return inMemory{bytes.NewReader(b)}, nil
}

// contains says whether a file has any of these texts in it.
func contains(n *Node, texts ...string) (bool, error) {
	c, err := open(n)
	if err != nil {
		return false, err
	}
	defer c.Close()
	const overlap = 1 << 10
	buf := make([]byte, 1<<18)
	for at := int64(0); at < n.Size; at += int64(len(buf) - overlap) {
		got, err := c.ReadAt(buf, at)
		for _, t := range texts {
			if bytes.Contains(buf[:got], []byte(t)) {
				return true, nil
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// A loaded is an object with who asked for it.
type loaded struct {
	*object
	way
	loader *loaded
}

// addLibraries adds the dynamic linker of a program, and every library that it
// would load at the start.
func (m *Image) addLibraries(o *object, at way, s Search) ([]string, error) {
	if o.interp == "" {
		return nil, nil
	}
	linker, err := m.findFirst(s.Root, o.interp)
	if isMissing(err) {
		return nil, &MissingError{What: "dynamic linker " + o.interp, For: at.name}
	}
	if err != nil {
		return nil, err
	}
	m.take(linker)
	m.linkers[o.machine] = o.interp
	l := &linking{image: m, search: s, linker: linker, program: &loaded{object: o, way: at}, have: map[string]*loaded{}}
	l.musl = strings.HasPrefix(path.Base(o.interp), "ld-musl-")
	if err := l.setFolders(); err != nil {
		return nil, err
	}
	if err := l.all(l.program); err != nil {
		return nil, err
	}
	if err := l.opened(); err != nil {
		return nil, err
	}
	return append(l.paths, o.interp), nil
}

// findFirst is find, in the image alone first.
func (m *Image) findFirst(r *Root, name string) (way, error) {
	if w, err := m.find(nil, name); !isMissing(err) || r == nil {
		return w, err
	}
	return m.find(r, name)
}

// A linking is the search for the libraries of one program, as ld.so(8) does it.
type linking struct {
	image   *Image
	search  Search
	program *loaded
	linker  way
	musl    bool
	conf    []string           // folders of ld.so.conf
	builtin []string           // folders that the dynamic linker knows itself
	have    map[string]*loaded // by the name that asks for it
	paths   []string
}

// triplets are the names of machines in Debian's folders of libraries.
func triplets(machine uint16) []string {
	switch machine {
	case 3:
		return []string{"i386-linux-gnu"}
	case 8:
		return []string{"mips64el-linux-gnuabi64", "mipsel-linux-gnu"}
	case 21:
		return []string{"powerpc64le-linux-gnu"}
	case 22:
		return []string{"s390x-linux-gnu"}
	case 40:
		return []string{"arm-linux-gnueabihf", "arm-linux-gnueabi"}
	case 62:
		return []string{"x86_64-linux-gnu"}
	case 183:
		return []string{"aarch64-linux-gnu"}
	case 243:
		return []string{"riscv64-linux-gnu"}
	case 258:
		return []string{"loongarch64-linux-gnu"}
	}
	return nil
}

// setFolders reads what the dynamic linker would read: its configuration, of whose
// cache an image has none, and the folders that it is built with.
func (l *linking) setFolders() error {
	if l.musl {
		arch := strings.TrimSuffix(strings.TrimPrefix(path.Base(l.program.interp), "ld-musl-"), ".so.1")
		text, err := l.conffile("/etc/ld-musl-" + arch + ".path")
		if err != nil {
			return err
		}
		l.builtin = strings.FieldsFunc(text, func(r rune) bool { return r == ':' || r == '\n' })
		if len(l.builtin) == 0 {
			l.builtin = []string{"/lib", "/usr/local/lib", "/usr/lib"}
		}
		return nil
	}
	var usual []string
	for _, t := range triplets(l.program.machine) {
		usual = append(usual, "/lib/"+t, "/usr/lib/"+t)
	}
	if l.program.class == 2 {
		usual = append(usual, "/lib64", "/usr/lib64")
	} else {
		usual = append(usual, "/lib32", "/usr/lib32")
	}
	for _, dir := range append(usual, "/lib", "/usr/lib") {
		known, err := contains(l.linker.node, dir+"/\x00")
		if err != nil {
			return err
		}
		if known {
			l.builtin = append(l.builtin, dir)
		} else {
			l.conf = append(l.conf, dir) // of a cache that another dynamic linker would read
		}
	}
	conf, err := l.readConf("/etc/ld.so.conf", 0)
	l.conf = slices.Concat(conf, l.conf)
	return err
}

// conffile is a configuration file, "" if there is none.
func (l *linking) conffile(name string) (string, error) {
	w, err := l.image.findFirst(l.search.Root, name)
	if isMissing(err) || err == nil && w.node.Type() != TypeFile {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if w.node.Size > maxConf {
		return "", fmt.Errorf("read %s: %d bytes are too many", from(w.node), w.node.Size)
	}
	c, err := open(w.node)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b := make([]byte, w.node.Size)
	if _, err := c.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(b), nil
}

// readConf reads the folders of an ld.so.conf, and of what it includes.
func (l *linking) readConf(name string, depth int) ([]string, error) {
	text, err := l.conffile(name)
	if err != nil || depth > maxDepth {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || f[0] == "hwcap":
		case f[0] == "include":
			for _, pattern := range f[1:] {
				if !path.IsAbs(pattern) {
					pattern = path.Join(path.Dir(name), pattern)
				}
				for _, file := range l.glob(pattern) {
					dirs, err := l.readConf(file, depth+1)
					if err != nil {
						return nil, err
					}
					out = append(out, dirs...)
				}
			}
		default:
			for _, dir := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\n:,", r) }) {
				if path.IsAbs(dir) {
					out = append(out, path.Clean(dir))
				}
			}
		}
	}
	return out, nil
}

// glob is the names that match, in the image and in the root, sorted.
func (l *linking) glob(pattern string) []string {
	var out []string
	for name := range l.image.nodes {
		if ok, _ := path.Match(pattern, name); ok {
			out = append(out, name)
		}
	}
	if l.search.Root == nil {
		slices.Sort(out)
		return out
	}
	top := cmpOr(l.search.Root.Dir, "/")
	found, _ := filepath.Glob(filepath.Join(top, pattern))
	for _, f := range found {
		if name, err := filepath.Rel(top, f); err == nil && !slices.Contains(out, "/"+name) {
			out = append(out, "/"+name)
		}
	}
	slices.Sort(out)
	return out
}

func cmpOr(s, or string) string {
	if s == "" {
		return or
	}
	return s
}

// all adds what an object needs, and what that needs.
func (l *linking) all(first *loaded) error {
	for queue := []*loaded{first}; len(queue) > 0; queue = queue[1:] {
		o := queue[0]
		for _, name := range o.needed {
			if l.have[name] != nil || l.isLinker(name) {
				continue
			}
			lib, err := l.library(o, name)
			if err != nil {
				return err
			}
			l.have[name] = lib
			queue = append(queue, lib)
		}
	}
	return nil
}

// isLinker says whether the dynamic linker itself is what name means.
func (l *linking) isLinker(name string) bool {
	if name == path.Base(l.program.interp) {
		return true
	}
	if !l.musl {
		return false
	}
	for _, own := range []string{"libc.", "libpthread.", "librt.", "libm.", "libdl.", "libutil.", "libxnet."} {
		if strings.HasPrefix(name, own) {
			return true // ldso/dynlink.c of musl
		}
	}
	return false
}

// library finds one library for an object and adds it.
func (l *linking) library(by *loaded, name string) (*loaded, error) {
	missing := &MissingError{What: "library " + name, For: by.name}
	if strings.Contains(name, "/") {
		if !path.IsAbs(name) {
			return nil, fmt.Errorf("%s needs library %s by a relative path, which means another file in each folder", by.name, name)
		}
		lib, err := l.try(by, name, missing)
		if lib == nil && err == nil {
			err = missing
		}
		return lib, err
	}
	own := l.ownFolders(by)
	dirs := slices.Concat(own, l.conf, l.builtin)
	for _, r := range l.search.roots() {
		for i, dir := range dirs {
			lib, err := l.tryIn(r, by, path.Join(dir, name), missing)
			if err != nil {
				return nil, err
			}
			if lib == nil {
				continue
			}
			if i >= len(own) && !slices.Contains(l.builtin, dir) && len(l.builtin) > 0 {
				if err := l.cached(path.Join(dir, name)); err != nil {
					return nil, err
				}
			}
			return lib, nil
		}
	}
	for _, dir := range dirs {
		if !slices.Contains(missing.Looked, dir) {
			missing.Looked = append(missing.Looked, dir)
		}
	}
	return nil, missing
}

// cached makes a library known that is in a folder of ld.so.conf: the image does
// without ld.so.cache, in which the dynamic linker would look for it.
func (l *linking) cached(name string) error {
	m := l.image
	if m.Get("/etc/ld.so.cache") != nil {
		return nil
	}
	dir := l.builtin[0]
	for _, d := range l.builtin {
		if w, err := m.findFirst(l.search.Root, d); err == nil && w.node.Type() == TypeFolder {
			m.take(w)
			dir = w.name
			break
		}
	}
	link := path.Join(dir, path.Base(name))
	if m.Get(link) != nil {
		return nil
	}
	n := Symlink(name)
	n.From = "a link in place of ld.so.cache"
	return m.Add(link, n)
}

// ownFolders are where the program and the environment say that libraries are.
func (l *linking) ownFolders(o *loaded) []string {
	var dirs []string
	if len(o.runpath) == 0 {
		for by := o; by != nil; by = by.loader {
			if len(by.runpath) == 0 {
				dirs = append(dirs, by.expand(by.rpath)...)
			}
		}
	}
	dirs = append(dirs, l.search.Library...)
	return append(dirs, o.expand(o.runpath)...)
}

// expand replaces $ORIGIN, $LIB and $PLATFORM, see ld.so(8).
func (o *loaded) expand(dirs []string) []string {
	var out []string
	replace := func(dir string, token, by string) string {
		return strings.ReplaceAll(strings.ReplaceAll(dir, "${"+token+"}", by), "$"+token, by)
	}
	for _, dir := range dirs {
		dir = replace(dir, "ORIGIN", path.Dir(o.name))
		platform, libs := "", []string{"lib64", "lib"}
		for _, t := range triplets(o.machine) {
			if platform == "" {
				platform, _, _ = strings.Cut(t, "-")
			}
			libs = append(libs, "lib/"+t)
		}
		dir = replace(dir, "PLATFORM", platform)
		if !path.IsAbs(dir) {
			continue // "" and relative ones are the working directory's
		}
		for _, lib := range libs {
			if d := path.Clean(replace(dir, "LIB", lib)); !slices.Contains(out, d) {
				out = append(out, d)
			}
		}
	}
	return out
}

func (l *linking) try(by *loaded, name string, missing *MissingError) (*loaded, error) {
	for _, r := range l.search.roots() {
		if lib, err := l.tryIn(r, by, name, missing); lib != nil || err != nil {
			return lib, err
		}
	}
	return nil, nil
}

// tryIn takes the file of this name if it is a library for the program.
func (l *linking) tryIn(r *Root, by *loaded, name string, missing *MissingError) (*loaded, error) {
	w, err := l.image.find(r, name)
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if w.node.Type() != TypeFile {
		missing.Other = name + " is no file"
		return nil, nil
	}
	c, err := open(w.node)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	o, err := readObject(c)
	if err != nil {
		missing.Other = from(w.node) + ": " + err.Error()
		return nil, nil
	}
	if p := l.program; o.class != p.class || o.order != p.order || o.machine != p.machine {
		missing.Other = from(w.node) + " is for another machine"
		return nil, nil
	}
	l.image.take(w)
	l.paths = append(l.paths, name)
	return &loaded{object: o, way: w, loader: by}, nil
}

// opened adds what glibc opens by itself while a program runs: the name services
// of those before 2.34, and what unwinds the stack when a thread is cancelled.
func (l *linking) opened() error {
	libc := l.have["libc.so.6"]
	if libc == nil || l.musl {
		return nil
	}
	within, err := contains(libc.node, "GLIBC_2.34\x00")
	if err != nil {
		return err
	}
	var wanted []string
	if !within {
		wanted = []string{"libnss_files.so.2", "libnss_dns.so.2"}
	}
	all := []*loaded{l.program}
	for name, o := range l.have {
		if name != "libc.so.6" && name != "libpthread.so.0" {
			all = append(all, o)
		}
	}
	for _, o := range all {
		cancels, err := contains(o.node, "\x00pthread_cancel\x00", "\x00pthread_exit\x00")
		if err != nil {
			return err
		}
		if cancels {
			wanted = append(wanted, "libgcc_s.so.1")
			break
		}
	}
	for _, name := range wanted {
		if l.have[name] != nil {
			continue
		}
		lib, err := l.library(libc, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the program runs without
		}
		if err == nil {
			l.have[name] = lib
			err = l.all(lib)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Contains says whether a file has any of these texts in it, each of at most 1024
// bytes.
func Contains(n *Node, texts ...string) (bool, error) { return contains(n, texts...) }

// AddNeeded adds the libraries and interpreters of a file, or of all files in a
// folder, that the image has already: of programs, and of libraries that are
// opened by name, where the image has a program of the same machine. What is not
// found is returned and no error: an interpreter's modules need many a library
// that nobody uses.
func (m *Image) AddNeeded(name string, s Search) (lacking []*MissingError, err error) {
	at, err := m.Resolve(name, true)
	if err != nil {
		return nil, err
	}
	prefix := strings.TrimSuffix(at, "/") + "/"
	for _, name := range m.Names() {
		n := m.nodes[name]
		if name != at && !strings.HasPrefix(name, prefix) || n.Type() != TypeFile || n.Size == 0 {
			continue
		}
		err := m.addNeeded(name, n, s)
		var missing *MissingError
		switch {
		case errors.As(err, &missing):
			lacking = append(lacking, missing)
		case err != nil:
			return lacking, err
		}
	}
	return lacking, nil
}

func (m *Image) addNeeded(name string, n *Node, s Search) error {
	c, err := open(n)
	if err != nil {
		return err
	}
	defer c.Close()
	o, err := readObject(c)
	switch _, _, script := scriptLine(c); {
	case errors.Is(err, errNotELF):
		if script && n.Mode&0o111 != 0 {
			_, err := m.AddProgram(name, s)
			return err
		}
		return nil
	case err != nil:
		return nil // looks like a program and is none: nobody's business
	}
	if o.interp == "" && len(o.needed) > 0 {
		o.interp = m.linkers[o.machine]
	}
	_, err = m.addLibraries(o, way{name: name, node: n}, s)
	return err
}

// MakeFolder makes a folder, and those above it.
func (m *Image) MakeFolder(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	_, err := m.makeFolder(name, "")
	return err
}
