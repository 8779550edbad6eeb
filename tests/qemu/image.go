package qemu

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pazinit/pazinit/initramfs"
)

// Files are added to an image: contents by absolute path. Those in /bin and /lib64
// are executable.
type Files map[string][]byte

//go:embed init.sh
var initScript []byte

// Parts are what an image is made of, but for its files. All are paths.
type Parts struct {
	Pazinit string
	Busybox string            // with all its applets in /bin
	Kernel  Kernel            // whose modules are taken
	Modules []string          // by name; what they depend on comes with them
	Bin     map[string]string // more programs, by their names in /bin
}

// NewImage makes an image.
func NewImage(parts Parts, files Files) (*initramfs.Image, error) {
	m := initramfs.New()
	programs := map[string]string{"pazinit": parts.Pazinit, "busybox": parts.Busybox}
	for name, file := range parts.Bin {
		programs[name] = file
	}
	for name, file := range programs {
		n, err := initramfs.FileNode(file)
		if err != nil {
			return nil, err
		}
		n.Mode |= 0o755
		if err := m.Add("/bin/"+name, n); err != nil {
			return nil, err
		}
	}
	applets, err := applets(parts.Busybox)
	if err != nil {
		return nil, err
	}
	for _, name := range applets {
		if programs[name] == "" {
			if err := m.Add("/bin/"+name, initramfs.Symlink("busybox")); err != nil {
				return nil, err
			}
		}
	}
	modules, err := loadOrder(parts.Kernel, parts.Modules)
	if err != nil {
		return nil, err
	}
	for _, name := range modules {
		n, err := initramfs.FileNode(filepath.Join(parts.Kernel.Modules, strings.TrimPrefix(name, "/lib/modules/"+parts.Kernel.Version)))
		if err != nil {
			return nil, err
		}
		if err := m.Add(name, n); err != nil {
			return nil, err
		}
	}
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "root", "mnt"} {
		mode := uint32(0o755)
		if dir == "root" {
			mode = 0o700
		}
		if err := m.Add(dir, initramfs.Folder(mode)); err != nil {
			return nil, err
		}
	}
	all := Files{
		"/lib/modules/pazinit.load": []byte(strings.Join(modules, "\n") + "\n"),
		"/etc/passwd":               []byte("root:x:0:0:root:/:/bin/sh\nwww:x:33:33:www:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
		"/etc/group":                []byte("root:x:0:\nwww:x:33:\nextra:x:44:www\nnogroup:x:65534:\n"),
	}
	for name, data := range files {
		all[name] = data
	}
	if all["/start"] != nil {
		all["/init"] = initScript
	} else if err := m.Add("/init", m.Get("/bin/pazinit")); err != nil { // a hard link
		return nil, err
	}
	for name, data := range all {
		mode := uint32(0o644)
		if dir := path.Dir(name); name == "/init" || dir == "/sbin" || dir == "/bin" || dir == "/lib64" || bytes.HasPrefix(data, []byte("#!")) {
			mode = 0o755
		}
		if err := m.Add(name, initramfs.Data(mode, data)); err != nil {
			return nil, err
		}
	}
	// What the kernel opens for /init, and Go's runtime when there is no such.
	return m, errors.Join(m.Add("/dev/console", initramfs.Char(0o600, 5, 1)), m.Add("/dev/null", initramfs.Char(0o666, 1, 3)))
}

// applets are the names by which a busybox can be called. One of another
// architecture has those of Debian's here, for it cannot be asked.
func applets(busybox string) ([]string, error) {
	out, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		cache, e := Cache()
		if e != nil {
			return nil, e
		}
		if out, err = exec.Command(Busybox(cache, AMD64), "--list").Output(); err != nil {
			return nil, fmt.Errorf("ask busybox for its applets: %w", err)
		}
	}
	return strings.Fields(string(out)), nil
}

// loadOrder are the paths of modules and of what they depend on, that first. One
// that is built in needs none.
func loadOrder(k Kernel, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	dep, err := os.ReadFile(filepath.Join(k.Modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	key := func(file string) string {
		name, _, _ := strings.Cut(path.Base(file), ".ko")
		return strings.ReplaceAll(name, "-", "_")
	}
	lines := map[string][]string{} // the file, then what it needs, the nearest first
	for line := range strings.Lines(string(dep)) {
		file, needs, _ := strings.Cut(strings.TrimSpace(line), ":")
		lines[key(file)] = append([]string{file}, strings.Fields(needs)...)
	}
	var order []string
	for _, name := range names {
		files := slices.Clone(lines[key(name)])
		if files == nil {
			if slices.ContainsFunc(strings.Fields(string(builtin)), func(file string) bool { return key(file) == key(name) }) {
				continue
			}
			return nil, &FeatureError{k.Version, "module " + name}
		}
		slices.Reverse(files)
		for _, file := range files {
			if name := path.Join("/lib/modules", k.Version, file); !slices.Contains(order, name) {
				order = append(order, name)
			}
		}
	}
	return order, nil
}
