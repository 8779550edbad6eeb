package initramfs

import "path"

// base are the folders that every machine needs, and the devices that the kernel
// and the first program open before there is a devtmpfs, or without one. Numbers:
// Documentation/admin-guide/devices.txt of the kernel.
func base() map[string]*Node {
	return map[string]*Node{
		"/dev": Folder(0o755), "/etc": Folder(0o755), "/proc": Folder(0o555), "/root": Folder(0o700),
		"/run": Folder(0o755), "/sys": Folder(0o555), "/tmp": Folder(0o1777), "/var": Folder(0o755),
		"/var/lib": Folder(0o755), "/var/log": Folder(0o755), "/var/tmp": Folder(0o1777),
		"/var/run":     Symlink("../run"),
		"/dev/console": Char(0o600, 5, 1), "/dev/kmsg": Char(0o644, 1, 11), "/dev/null": Char(0o666, 1, 3),
		"/dev/zero": Char(0o666, 1, 5), "/dev/full": Char(0o666, 1, 7), "/dev/random": Char(0o666, 1, 8),
		"/dev/urandom": Char(0o666, 1, 9), "/dev/tty": Char(0o666, 5, 0), "/dev/ptmx": Char(0o666, 5, 2),
	}
}

// AddBase adds the folders and the device nodes that every machine needs, where
// there is nothing yet.
func (m *Image) AddBase() error {
	all := base()
	whole := New()
	whole.nodes = all
	for _, name := range whole.Names() {
		if at, err := m.Resolve(name, false); err == nil && m.nodes[at] != nil {
			continue
		}
		n := all[name]
		n.From = "every image"
		if err := m.Add(name, n); err != nil {
			return err
		}
	}
	return nil
}

// AddInit adds the program that the kernel starts, /init, which a machine with a
// real root and people at a prompt know as /sbin/pazinit and /bin/pazinit: one
// file with three names.
func (m *Image) AddInit(n *Node) error {
	for _, name := range []string{"/init", "/sbin/pazinit", "/bin/pazinit"} {
		dir, err := m.makeFolder(path.Dir(name), n.From)
		if err != nil {
			return err
		}
		if m.nodes[path.Join(dir, path.Base(name))] != nil {
			continue // a folder has brought another
		}
		if err := m.Add(name, n); err != nil {
			return err
		}
	}
	return nil
}
