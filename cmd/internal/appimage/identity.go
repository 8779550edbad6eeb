package appimage

import (
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pazinit/pazinit/initramfs"
)

// identities are files that say which machine one is, or are its secrets: those of
// the machine where an image is made are no part of what the image is made of.
var identities = [...]string{
	"/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostid", "/etc/ssh/ssh_host_*", "/etc/dropbear/dropbear_*_host_key",
	"/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/var/lib/pazinit/seed", named,
}

// named is one that an image may well be given: all machines of it have one name.
const named = "/etc/hostname"

func matchIdentity(name string) string {
	i := slices.IndexFunc(identities[:], func(pattern string) bool {
		ok, _ := path.Match(pattern, name)
		return ok
	})
	if i < 0 {
		return ""
	}
	return identities[i]
}

// isIdentity says whether a file of this machine is one of those, by its own name,
// behind links, or by the name that it would get.
func (m *Maker) isIdentity(host, at string) bool {
	real, err := filepath.EvalSymlinks(host)
	if err != nil {
		real = host
	}
	for _, name := range []string{host, real} {
		if root := filepath.Join("/", m.order.sysroot); root != "/" && isWithin(name, root) {
			name = strings.TrimPrefix(name, root)
		}
		if matchIdentity(name) != "" {
			return true
		}
	}
	return matchIdentity(at) != ""
}

// shared notes what all machines that start from the image would have in common,
// and what it has of this machine.
func (m *Maker) shared() {
	for _, name := range m.image.Names() {
		n := m.image.Get(name)
		if n.Type() != initramfs.TypeFile || n.Size == 0 {
			continue
		}
		switch own := matchIdentity(n.From); {
		case own != "":
			m.note("%s: it is %s of this machine, which says which machine it is", name, n.From)
		case matchIdentity(name) != "" && matchIdentity(name) != named:
			m.note("%s: all machines that start from the image will have this one, of %s", name, n.From)
		}
	}
}
