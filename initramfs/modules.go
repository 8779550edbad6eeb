package initramfs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// LoadList is the file that names the modules to load at the start, a path and
// perhaps parameters a line, in the order in which they must be loaded.
const LoadList = "/lib/modules/pazinit.load"

// maxModule is how many bytes an unpacked module may have.
const maxModule = 256 << 20

// Modules is a folder of kernel modules, such as /lib/modules/6.1.0-40-amd64, as
// depmod(8) left it.
type Modules struct {
	Dir     string
	Release string // the kernel's, which is the folder's name

	// Unpack opens compressed modules, by the ending of their names: .xz, .zst. One
	// without stays as it is, for a kernel that can unpack modules itself (5.17 with
	// CONFIG_MODULE_DECOMPRESS). .gz is always unpacked.
	Unpack map[string]func(io.Reader) (io.Reader, error)

	files   map[string]string   // path below Dir by name
	needs   map[string][]string // paths by path: modules.dep
	before  map[string][]string // names and aliases by name: modules.softdep
	after   map[string][]string
	aliases []alias
	builtin map[string]bool
}

type alias struct{ pattern, name string }

// OpenModules reads the indexes of a folder of modules.
func OpenModules(dir string) (*Modules, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return nil, fmt.Errorf("read modules: %w", err)
	}
	d := &Modules{
		Dir: real, Release: filepath.Base(real), files: map[string]string{}, needs: map[string][]string{},
		before: map[string][]string{}, after: map[string][]string{}, builtin: map[string]bool{},
	}
	text, err := os.ReadFile(filepath.Join(real, "modules.dep"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read modules: %s has no modules.dep: depmod(8) makes it", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read modules: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		file, needs, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		if err := checkName(file); err != nil || path.IsAbs(file) {
			return nil, fmt.Errorf("read %s/modules.dep: module %q is outside of it", real, file)
		}
		d.files[moduleName(file)] = file
		d.needs[file] = strings.Fields(needs)
	}
	d.each("modules.builtin", func(f []string) { d.builtin[moduleName(f[0])] = true })
	d.each("modules.alias", func(f []string) {
		if len(f) == 3 && f[0] == "alias" {
			d.aliases = append(d.aliases, alias{f[1], underscored(f[2])})
		}
	})
	d.each("modules.softdep", func(f []string) {
		if len(f) < 2 || f[0] != "softdep" {
			return
		}
		var to map[string][]string
		for _, w := range f[2:] {
			switch {
			case w == "pre:":
				to = d.before
			case w == "post:":
				to = d.after
			case to != nil && !strings.HasSuffix(w, ":"):
				of := underscored(f[1])
				to[of] = append(to[of], w)
			}
		}
	})
	return d, nil
}

// each reads a file of lines of words that may be missing.
func (d *Modules) each(name string, line func([]string)) {
	text, err := os.ReadFile(filepath.Join(d.Dir, name))
	if err != nil {
		return // of depmod, or of a kernel, that does not make it
	}
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) > 0 && f[0][0] != '#' {
			line(f)
		}
	}
}

func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }

// moduleName is the name of the module in a file: kernel/drivers/net/virtio_net.ko.xz.
// What package machine makes of the same indexes is the same, and
// testdata/modules/table holds both to that.
func moduleName(file string) string {
	name := path.Base(file)
	if name == "/" || name == "." {
		return ""
	}
	for _, end := range []string{".gz", ".xz", ".zst"} {
		name = strings.TrimSuffix(name, end)
	}
	return underscored(strings.TrimSuffix(name, ".ko"))
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
	ok, err := path.Match(noSlash.Replace(p.String()), noSlash.Replace(underscored(name)))
	return ok && err == nil
}

// find is the module that a name or an alias means; all of them, if more modules
// have the alias. Nothing is found of one that is built in.
func (d *Modules) find(name string) (files []string, builtin bool) {
	short := moduleName(name)
	if f, ok := d.files[short]; ok {
		return []string{f}, false
	}
	if d.builtin[short] {
		return nil, true
	}
	for _, a := range d.aliases {
		if !matchAlias(a.pattern, name) {
			continue
		}
		if f, ok := d.files[a.name]; ok && !slices.Contains(files, f) {
			files = append(files, f)
		}
		builtin = builtin || d.builtin[a.name]
	}
	return files, builtin
}

// Has says whether a name or an alias is that of a module, and whether it is built
// into the kernel.
func (d *Modules) Has(name string) (module, builtin bool) {
	files, builtin := d.find(name)
	return len(files) > 0, builtin
}

// Within says whether a name with its parameters means a module below a folder.
func (d *Modules) Within(name, folder string) bool {
	files, _ := d.find(firstWord(name))
	return slices.ContainsFunc(files, func(f string) bool { return strings.HasPrefix(f, folder+"/") })
}

// Same says whether two names with their parameters mean the same module.
func (d *Modules) Same(a, b string) bool {
	of, _ := d.find(firstWord(a))
	others, _ := d.find(firstWord(b))
	return len(of) > 0 && slices.Equal(of, others)
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	return word
}

// order are the modules to load for one, in the order of loading: what it wants
// before it, what it needs, it, and what it wants after it.
func (d *Modules) order(file string, seen map[string]bool) ([]string, error) {
	if seen[file] {
		return nil, nil
	}
	seen[file] = true
	needs, known := d.needs[file]
	if !known {
		return nil, fmt.Errorf("module %s is needed and not in modules.dep", file)
	}
	var out []string
	add := func(file string) error {
		more, err := d.order(file, seen)
		out = append(out, more...)
		return err
	}
	soft := func(names []string) error {
		for _, name := range names {
			files, _ := d.find(name)
			for _, f := range files {
				if err := add(f); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := soft(d.before[moduleName(file)]); err != nil {
		return nil, err
	}
	// modprobe(8) loads what stands last first.
	for _, f := range slices.Backward(needs) {
		if err := add(f); err != nil {
			return nil, err
		}
	}
	out = append(out, file)
	err := soft(d.after[moduleName(file)])
	return out, err
}

// A Loaded is a module that was added.
type Loaded struct {
	Path       string // in the image
	Parameters string
	Compressed bool // left so, for the kernel
}

// AddModules adds modules by name or alias, each perhaps with parameters behind it
// ("softdog soft_margin=5"), and those that they need; and the list of all of them
// in the order in which they must be loaded (LoadList). What is built into the
// kernel is returned, too.
func (m *Image) AddModules(d *Modules, names []string) (loaded []Loaded, builtin []string, err error) {
	seen, params := make(map[string]bool), make(map[string]string)
	var files []string
	for _, entry := range names {
		f := strings.Fields(entry)
		if len(f) == 0 {
			return nil, nil, errors.New("add modules: an empty name")
		}
		found, in := d.find(f[0])
		if len(found) == 0 && !in {
			return nil, nil, fmt.Errorf("add module %s: it is not in %s, neither a module nor built into the kernel nor an alias", f[0], d.Dir)
		}
		if len(found) == 0 {
			builtin = append(builtin, f[0])
		}
		for _, file := range found {
			more, err := d.order(file, seen)
			if err != nil {
				return nil, nil, fmt.Errorf("add module %s: %w", f[0], err)
			}
			files = append(files, more...)
			if len(f) > 1 {
				params[file] = strings.Join(f[1:], " ")
			}
		}
	}
	var list, dep strings.Builder
	at := make(map[string]string) // names below the folder in the image
	for _, file := range files {
		n, name, compressed, err := d.node(file)
		if err != nil {
			return nil, nil, fmt.Errorf("add module %s: %w", moduleName(file), err)
		}
		at[file] = name
		l := Loaded{Path: path.Join("/lib/modules", d.Release, name), Parameters: params[file], Compressed: compressed}
		if err := m.Add(l.Path, n); err != nil {
			return nil, nil, err
		}
		loaded = append(loaded, l)
		list.WriteString(strings.TrimSpace(l.Path+" "+l.Parameters) + "\n")
	}
	for _, file := range slices.Sorted(maps.Keys(at)) {
		dep.WriteString(at[file] + ":")
		for _, need := range d.needs[file] {
			dep.WriteString(" " + at[need])
		}
		dep.WriteString("\n")
	}
	// A folder that was laid with all of its modules keeps its own indexes.
	indexes := path.Join("/lib/modules", d.Release)
	made := map[string]string{LoadList: list.String()}
	laid, _ := m.Resolve(path.Join(indexes, "modules.dep"), true)
	if n := m.nodes[laid]; n == nil || n.From != filepath.Join(d.Dir, "modules.dep") {
		made[path.Join(indexes, "modules.dep")] = dep.String()
		n, err := FileNode(filepath.Join(d.Dir, "modules.builtin")) // so that its names are known
		if err == nil {
			n.Mode = TypeFile | 0o644
			err = m.Add(path.Join(indexes, "modules.builtin"), n)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(made)) {
		n := Data(0o644, []byte(made[name]))
		n.From = "the modules of " + d.Dir
		if err := m.Add(name, n); err != nil {
			return nil, nil, err
		}
	}
	return loaded, builtin, nil
}

// node is the module in a file, unpacked where that can be done.
func (d *Modules) node(file string) (n *Node, name string, compressed bool, err error) {
	host := filepath.Join(d.Dir, file)
	real, err := filepath.EvalSymlinks(host)
	if err != nil {
		return nil, "", false, err
	}
	n, err = FileNode(real)
	if err != nil {
		return nil, "", false, err
	}
	if n.Type() != TypeFile {
		return nil, "", false, fmt.Errorf("%s is no file", real)
	}
	n.Mode = TypeFile | 0o644
	ending := path.Ext(file)
	unpack := d.Unpack[ending]
	switch {
	case ending == ".ko":
		return n, file, false, nil
	case ending == ".gz":
		unpack = func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }
	case unpack == nil:
		return n, file, true, nil
	}
	packed, err := n.Open()
	if err != nil {
		return nil, "", false, err
	}
	defer packed.Close()
	r, err := unpack(packed)
	if err != nil {
		return nil, "", false, fmt.Errorf("unpack %s: %w", real, err)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, "", false, fmt.Errorf("unpack %s: %w", real, err)
	}
	if len(data) > maxModule {
		return nil, "", false, fmt.Errorf("unpack %s: it has more than %d bytes", real, maxModule)
	}
	if !bytes.HasPrefix(data, []byte("\x7fELF")) {
		return nil, "", false, fmt.Errorf("unpack %s: no module is in it", real)
	}
	u := Data(0o644, data)
	u.From = real
	return u, strings.TrimSuffix(file, ending), false, nil
}
