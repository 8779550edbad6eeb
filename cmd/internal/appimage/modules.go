package appimage

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pazinit/pazinit/initramfs"
)

// moduleFolder is the folder of modules: the one that is named, or the only one
// that a FOLDER has; "" if there is none, or more.
func (m *Maker) moduleFolder() string {
	if m.order.moduleDir != "" {
		return m.order.moduleDir
	}
	var found []string
	for _, f := range m.order.folders {
		for _, pattern := range []string{"lib/modules/*/modules.dep", "usr/lib/modules/*/modules.dep"} {
			more, _ := filepath.Glob(filepath.Join(f.host, pattern))
			for _, file := range more {
				if real, err := filepath.EvalSymlinks(filepath.Dir(file)); err == nil && !slices.Contains(found, real) {
					found = append(found, real)
				}
			}
		}
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

// modules adds what --module and the configuration name, and what the rest of the
// configuration needs.
func (m *Maker) modules() error {
	names := slices.Clone(m.order.modules)
	if m.cfg != nil {
		names = append(names, m.cfg.Machine.Modules...)
	}
	dir := m.moduleFolder()
	switch {
	case dir == "" && len(names) > 0:
		return fmt.Errorf("modules %s are asked for: where they are is for --kernel-modules FOLDER, such as /lib/modules/6.1.0-40-amd64", strings.Join(names, ", "))
	case dir == "":
		return nil
	}
	d, err := initramfs.OpenModules(dir)
	if err != nil {
		return err
	}
	d.Unpack = map[string]func(io.Reader) (io.Reader, error){".xz": m.Unpack["xz"], ".zst": m.Unpack["zstd"]}
	asked := len(names)
	names = append(names, m.configured(d, names)...)
	if len(names) == 0 {
		return nil
	}
	loaded, builtin, err := m.image.AddModules(d, names)
	if err != nil {
		return err
	}
	for _, l := range loaded {
		text := ""
		if l.Compressed {
			text = ", compressed as it is: the kernel must have CONFIG_MODULE_DECOMPRESS (5.17); pazimage unpacks it"
		}
		m.say("module %s%s", l.Path, text)
	}
	for _, name := range builtin {
		if slices.Contains(names[:asked], name) {
			m.say("module %s: built into the kernel", name)
		}
	}
	return nil
}

// A need is what a setting of the configuration needs of the kernel.
type need struct {
	why     string   // the setting
	names   []string // modules or aliases; each is missed
	helpers []string // that are taken where they are
}

// noModules are types of file systems that a kernel has or has not: none of them
// can be a module.
const noModules = " tmpfs ramfs proc sysfs devtmpfs devpts mqueue hugetlbfs tracefs debugfs securityfs configfs bpf cgroup cgroup2 none auto "

// besides are modules that a file system uses and that nobody else would load: there
// is no modprobe(8) for the kernel to ask.
func besides(kind string) []string {
	switch kind {
	case "9p":
		return []string{"9pnet_virtio"}
	case "virtiofs":
		return []string{"virtio_pci"}
	case "vfat":
		return []string{"nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859-1"}
	}
	return nil
}

// watchdogs are the drivers of devices that bite, the software last: the first
// that is there is /dev/watchdog.
var watchdogs = [...]string{"i6300esb", "iTCO_wdt", "wdat_wdt", "softdog"}

// configured are the modules that the configuration needs without naming them. What
// the kernel has not is noted.
func (m *Maker) configured(d *initramfs.Modules, named []string) (names []string) {
	var needs []need
	power := "poweroff" // the default
	if m.cfg != nil {
		c := &m.cfg.Machine
		power = c.PowerButton
		if c.Zram > 0 || c.ZramShare > 0 {
			// What compresses is a module of its own until 6.12; which one is the kernel's
			// choice.
			needs = append(needs, need{"machine.zram", []string{"zram num_devices=0"}, []string{"lzo-rle", "zstd"}})
		}
		if c.Watchdog > 0 && !slices.ContainsFunc(named, func(name string) bool { return d.Within(name, "kernel/drivers/watchdog") }) {
			n := need{why: "machine.watchdog"}
			for _, name := range watchdogs {
				if there, _ := d.Has(name); there {
					n.helpers = append(n.helpers, name)
				}
			}
			if len(n.helpers) == 0 {
				n.names = watchdogs[len(watchdogs)-1:]
			}
			needs = append(needs, n)
		}
		for _, mount := range m.cfg.Mounts {
			kind := strings.TrimPrefix(strings.TrimPrefix(mount.Type, "fuse."), "fuseblk.")
			if kind != mount.Type {
				kind = "fuse"
			}
			if kind == "ext2" || kind == "ext3" {
				kind = "ext4" // has them, too
			}
			if kind == "" || strings.Contains(noModules, " "+kind+" ") || slices.Contains(mount.Options, "bind") || slices.Contains(mount.Options, "rbind") {
				continue
			}
			name := "fs-" + kind
			if there, builtin := d.Has(name); !there && !builtin {
				name = kind
			}
			needs = append(needs, need{"mounts of " + mount.Type, []string{name}, besides(kind)})
		}
	}
	if power != "ignore" && !m.order.noProcfile { // else the root has its own
		n := need{"machine.power_button", []string{"evdev", "button"}, nil}
		if strings.HasSuffix(d.Release, "arm64") || strings.HasSuffix(d.Release, "aarch64") {
			n.helpers = []string{"gpio_keys"} // the button of machines without ACPI
		}
		needs = append(needs, n)
	}
	for _, n := range needs {
		for _, name := range n.names {
			short, _, _ := strings.Cut(name, " ")
			switch there, builtin := d.Has(short); {
			case there:
				names = append(names, name)
			case !builtin:
				m.note("%s: %s has no module %s; without it in the kernel that will not work", n.why, d.Dir, short)
			}
		}
		for _, name := range n.helpers {
			if there, _ := d.Has(name); there {
				names = append(names, name)
			}
		}
	}
	return slices.DeleteFunc(names, func(name string) bool {
		short, _, _ := strings.Cut(name, " ")
		return slices.ContainsFunc(named, func(n string) bool { return d.Same(n, short) })
	})
}
