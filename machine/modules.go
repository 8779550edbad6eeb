package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// LoadModules loads modules by name, alias or path, in that order, each after
// what it depends on: modules.dep, modules.softdep, modules.alias and
// modules.builtin below /lib/modules of the running release. What is loaded or
// built in already is fine. A name can have parameters after it ("softdog
// soft_margin=5"); those of the kernel command line (softdog.soft_margin=5) come
// before them. /etc/modprobe.d is not read.
//
// Each module that cannot be had is one error. In a kernel without modules, or
// with them switched off (nomodule), it is one error for all that are not built
// in, and it is [errors.ErrUnsupported]; so is a module that is compressed where
// the kernel cannot unpack it (before 5.17, or CONFIG_MODULE_DECOMPRESS off).
//
// It needs /proc and /sys, and may take as long as the drivers' start does.
func LoadModules(names []string) []error {
	m, err := newModules("/")
	if err != nil {
		return []error{err}
	}
	return m.load(names)
}

// LoadModuleList loads the modules that path names, one a line, in that order
// and nothing else: paths, absolute or below /lib/modules of the running release,
// parameters after a space; # begins a comment. The image's maker writes it
// (/lib/modules/pazinit.load). A file that is missing is an empty list.
func LoadModuleList(path string) []error {
	m, err := newModules("/")
	if err != nil {
		return []error{err}
	}
	return m.loadList(path)
}

const (
	maxModuleLine = 1 << 20
	maxModuleList = 1 << 20
)

// modules is one way through a folder of modules.
type modules struct {
	root    string // of proc, sys and lib
	release string
	insert  func(file, parameters string) error
	seen    map[string]bool // names that were tried
	cmdline string
}

func newModules(root string) (*modules, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("load modules: %w", err)
	}
	m := &modules{root: root, release: unix.ByteSliceToString(u.Release[:]), seen: map[string]bool{}}
	m.insert = m.insertFile
	line, err := readBounded(filepath.Join(root, "proc/cmdline"), maxCmdline)
	if err == nil {
		m.cmdline = string(line)
	}
	return m, nil
}

func (m *modules) dir() string { return filepath.Join(m.root, "lib/modules", m.release) }

// missing is nil, or why nothing can be loaded at all.
func (m *modules) missing() error {
	if _, err := os.Stat(filepath.Join(m.root, "proc/modules")); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("this kernel has no modules (CONFIG_MODULES): %w", errors.ErrUnsupported)
	}
	if b, err := readBounded(filepath.Join(m.root, "proc/sys/kernel/modules_disabled"), 16); err == nil && strings.TrimSpace(string(b)) == "1" {
		return fmt.Errorf("modules are switched off (nomodule, kernel.modules_disabled): %w", errors.ErrUnsupported)
	}
	return nil
}

func (m *modules) load(names []string) (errs []error) {
	missing := m.missing()
	var not []string
	for _, name := range names {
		name, parameters, _ := strings.Cut(strings.TrimSpace(name), " ")
		if name == "" {
			continue
		}
		if missing != nil {
			if !m.present(moduleName(name)) && !m.builtIn(moduleName(name)) {
				not = append(not, name)
			}
			continue
		}
		if err := m.loadOne(name, strings.TrimSpace(parameters)); err != nil {
			errs = append(errs, fmt.Errorf("load module %.80q: %w", name, err))
		}
	}
	if len(not) > 0 {
		errs = append(errs, fmt.Errorf("load modules %s: %w", strings.Join(not, ", "), missing))
	}
	return errs
}

func (m *modules) loadList(list string) (errs []error) {
	b, err := readBounded(list, maxModuleList)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []error{fmt.Errorf("read list of modules: %w", err)}
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		file, parameters, _ := strings.Cut(strings.TrimSpace(line), " ")
		if file == "" || file[0] == '#' {
			continue
		}
		if missing := m.missing(); missing != nil {
			return []error{fmt.Errorf("load modules of %s: %w", list, missing)}
		}
		if err := m.insertOne(m.file(file), strings.TrimSpace(parameters)); err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: load module %s: %w", list, n, file, err))
		}
	}
	return errs
}

// file is the path of a module that is written as in modules.dep.
func (m *modules) file(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Join(m.root, name)
	}
	return filepath.Join(m.dir(), name)
}

// moduleName is a module's name by its file or by what people write: the kernel
// has underscores only.
func moduleName(file string) string {
	name := path.Base(file)
	if name == "/" || name == "." {
		return ""
	}
	for _, end := range []string{".gz", ".xz", ".zst"} {
		name = strings.TrimSuffix(name, end)
	}
	return strings.ReplaceAll(strings.TrimSuffix(name, ".ko"), "-", "_")
}

// present reports whether a module is loaded, or built in and shown there.
func (m *modules) present(name string) bool {
	_, err := os.Stat(filepath.Join(m.root, "sys/module", name))
	return err == nil && name != "" && filepath.IsLocal(name)
}

func (m *modules) builtIn(name string) (found bool) {
	_ = m.lines("modules.builtin", func(line string) bool {
		found = moduleName(line) == name
		return !found
	})
	return found
}

// lines reads one of depmod(8)'s files until each says no.
func (m *modules) lines(name string, each func(line string) bool) error {
	f, err := os.Open(filepath.Join(m.dir(), name))
	if err != nil {
		return err
	}
	defer f.Close()
	return eachLine(f, each)
}

func eachLine(r io.Reader, each func(line string) bool) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxModuleLine)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' && !each(line) {
			return nil
		}
	}
	return s.Err()
}

// find looks a module up in modules.dep: its file and the files that it needs,
// the last one first to be loaded (modules.dep(5)).
func (m *modules) find(name string) (file string, needs []string, err error) {
	err = m.lines("modules.dep", func(line string) bool {
		f, rest, ok := strings.Cut(line, ":")
		if !ok || moduleName(f) != name {
			return true
		}
		file, needs = f, strings.Fields(rest)
		return false
	})
	return file, needs, err
}

// soft finds what is to be loaded before and after a module, if it is there.
func (m *modules) soft(name string) (before, after []string) {
	_ = m.lines("modules.softdep", func(line string) bool {
		if of, b, a, ok := parseSoftdep(line); ok && of == name {
			before, after = append(before, b...), append(after, a...)
		}
		return true
	})
	return before, after
}

// parseSoftdep reads a line of modules.softdep: softdep NAME pre: A B post: C, in
// which A, B and C are names or aliases.
func parseSoftdep(line string) (of string, before, after []string, ok bool) {
	f := strings.Fields(line)
	if len(f) < 2 || f[0] != "softdep" {
		return "", nil, nil, false
	}
	var to *[]string
	for _, word := range f[2:] {
		switch {
		case word == "pre:":
			to = &before
		case word == "post:":
			to = &after
		case to != nil && !strings.HasSuffix(word, ":"):
			*to = append(*to, word)
		}
	}
	return moduleName(f[1]), before, after, true
}

// aliased are the modules that have an alias which matches name.
func (m *modules) aliased(name string) (names []string) {
	_ = m.lines("modules.alias", func(line string) bool {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "alias" && matchAlias(f[1], name) {
			names = append(names, moduleName(f[2]))
		}
		return true
	})
	return names
}

// matchAlias is fnmatch(3), in which * is also for a slash; - and _ are the same
// but in brackets.
func matchAlias(pattern, name string) bool {
	var p strings.Builder
	within := false
	for _, c := range []byte(pattern) {
		switch {
		case c == '[':
			within = true
		case c == ']':
			within = false
		case c == '-' && !within:
			c = '_'
		}
		p.WriteByte(c)
	}
	noSlash := strings.NewReplacer("/", "\x01")
	ok, err := path.Match(noSlash.Replace(p.String()), noSlash.Replace(strings.ReplaceAll(name, "-", "_")))
	return ok && err == nil
}

// loadOne loads what somebody has named.
func (m *modules) loadOne(name, parameters string) error {
	if strings.Contains(name, "/") && moduleName(name) != strings.ReplaceAll(path.Base(name), "-", "_") { // .ko
		if _, needs, err := m.find(moduleName(name)); err == nil {
			if err := m.needed(needs); err != nil {
				return err
			}
		}
		return m.insertOne(m.file(name), parameters)
	}
	plain := moduleName(name)
	if m.present(plain) {
		return nil
	}
	found, err := m.loadNamed(plain, parameters)
	if found || err != nil {
		return err
	}
	if m.builtIn(plain) {
		return nil
	}
	names := m.aliased(name)
	if len(names) == 0 {
		return fmt.Errorf("neither a module nor an alias of %s: %w", m.dir(), fs.ErrNotExist)
	}
	var errs []error
	for _, n := range names { // any of them may be the device's
		if m.present(n) || m.builtIn(n) {
			return nil
		}
		if found, err := m.loadNamed(n, parameters); err != nil || !found {
			errs = append(errs, fmt.Errorf("%s: %w", n, orMissing(err)))
		}
	}
	if len(errs) < len(names) {
		return nil
	}
	return errors.Join(errs...)
}

func orMissing(err error) error {
	if err == nil {
		return fs.ErrNotExist
	}
	return err
}

// loadNamed loads a module of modules.dep with all that belongs to it.
func (m *modules) loadNamed(name, parameters string) (found bool, err error) {
	file, needs, err := m.find(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("no modules of this kernel: %w", err)
	}
	if file == "" || err != nil {
		return false, err
	}
	if m.seen[name] { // a circle of soft dependencies, or named twice
		return true, nil
	}
	m.seen[name] = true
	before, after := m.soft(name)
	m.wanted(before)
	if err := m.needed(needs); err != nil {
		return true, err
	}
	if err := m.insertOne(m.file(file), parameters); err != nil {
		return true, err
	}
	m.wanted(after)
	return true, nil
}

// wanted loads soft dependencies: what is not there is not missed.
func (m *modules) wanted(names []string) {
	for _, name := range names {
		plain := moduleName(name)
		if m.present(plain) {
			continue
		}
		if found, _ := m.loadNamed(plain, ""); found || m.builtIn(plain) {
			continue
		}
		for _, n := range m.aliased(name) {
			if !m.present(n) {
				_, _ = m.loadNamed(n, "")
			}
		}
	}
}

// needed loads the files of a dependency list, the last first, each with what it
// wants before and after it.
func (m *modules) needed(files []string) error {
	for i := len(files) - 1; i >= 0; i-- {
		name := moduleName(files[i])
		if m.present(name) {
			continue
		}
		before, after := m.soft(name)
		m.wanted(before)
		if err := m.insertOne(m.file(files[i]), ""); err != nil {
			return fmt.Errorf("what it needs, %s: %w", name, err)
		}
		m.wanted(after)
	}
	return nil
}

// insertOne loads one file with the parameters of the kernel command line and
// the given ones.
func (m *modules) insertOne(file, parameters string) error {
	given := commandLineParameters(m.cmdline, moduleName(file))
	err := m.insert(file, strings.TrimSpace(given+" "+parameters))
	switch {
	case errors.Is(err, unix.EEXIST): // loaded or built in already
		return nil
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%s is not for Linux %s: %w", file, m.release, err)
	case errors.Is(err, unix.ENOENT):
		if _, serr := os.Stat(file); serr == nil {
			return fmt.Errorf("%s has a parameter or a symbol that is not known, see the kernel's log: %w", file, err)
		}
	}
	return err
}

// commandLineParameters are the words NAME.PARAMETER=VALUE of the kernel's
// command line, without NAME, as modprobe(8) takes them.
func commandLineParameters(line, name string) string {
	var out []string
	for rest := strings.TrimLeft(line, spaces); rest != ""; {
		var word, value string
		var has bool
		if word, value, has, rest = nextArg(rest); word == "--" && !has {
			break
		}
		of, parameter, ok := strings.Cut(word, ".")
		if !ok || strings.ReplaceAll(of, "-", "_") != name {
			continue
		}
		if has {
			if strings.ContainsAny(value, spaces) {
				value = `"` + value + `"`
			}
			parameter += "=" + value
		}
		out = append(out, parameter)
	}
	return strings.Join(out, " ")
}

// decompress is MODULE_INIT_COMPRESSED_FILE (include/uapi/linux/module.h): the
// kernel unpacks the file.
const decompress = 4

// insertFile is finit_module(2).
func (m *modules) insertFile(file, parameters string) error {
	flags := 0
	if ext := filepath.Ext(file); ext != ".ko" && ext != "" {
		has, err := readBounded(filepath.Join(m.root, "sys/module/compression"), 64)
		if kind := strings.TrimSpace(string(has)); err != nil || "."+kind != map[string]string{".gz": ".gzip", ".xz": ".xz", ".zst": ".zstd"}[ext] {
			return fmt.Errorf("%s is compressed and this kernel cannot unpack %s (CONFIG_MODULE_DECOMPRESS, 5.17): %w", file, ext, errors.ErrUnsupported)
		}
		flags = decompress
	}
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	defer unix.Close(fd)
	if err := unix.FinitModule(fd, parameters, flags); err != nil {
		if err == unix.ENOSYS {
			return fmt.Errorf("this kernel has no modules: %w", errors.ErrUnsupported)
		}
		return err
	}
	return nil
}
