package appimage

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pazinit/pazinit/procfile"
)

// The users and groups that programs ask for by name. The numbers are Debian's,
// which never change; those that the configuration names are the root's.
const (
	usualUsers = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`
	usualGroups = `root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
kmem:x:15:
www-data:x:33:
utmp:x:43:
nogroup:x:65534:
`
)

// users writes /etc/passwd and /etc/group, if no folder has brought them.
func (m *Maker) users(passwd, group string) error {
	var names []string
	var ids []uint32 // of groups
	add := func(u *procfile.User) {
		if u != nil {
			names = append(names, u.Login)
			ids = append(append(ids, u.GID), u.Groups...)
		}
	}
	allow := func(a procfile.Access) {
		for _, list := range a {
			for _, p := range list {
				if p.Group {
					ids = append(ids, p.ID)
				} else {
					names = append(names, p.Name)
				}
			}
		}
	}
	add(m.cfg.SocketOwner)
	allow(m.cfg.Access)
	for _, a := range m.cfg.Applications {
		allow(a.Access)
		for _, w := range a.Workers {
			add(w.User)
			allow(w.Access)
		}
	}
	users, err := withAccounts(usualUsers, passwd, func(f []string) bool { return slices.Contains(names, f[0]) })
	if err != nil {
		return err
	}
	groups, err := withAccounts(usualGroups, group, func(f []string) bool {
		id, err := strconv.ParseUint(f[2], 10, 32)
		return err == nil && slices.Contains(ids, uint32(id))
	})
	if err != nil {
		return err
	}
	return m.addAccounts(users, groups)
}

// addAccounts adds the files of users and groups that nobody has brought.
func (m *Maker) addAccounts(users, groups string) error {
	for name, text := range map[string]string{"/etc/passwd": users, "/etc/group": groups} {
		if at, err := m.image.Resolve(name, true); err == nil && m.image.Get(at) != nil {
			continue
		}
		if err := m.addText(name, text); err != nil {
			return err
		}
	}
	return nil
}

// withAccounts is the usual lines with those of a file that are wanted, which go
// before a usual one of the same name or number.
func withAccounts(usual, file string, wanted func([]string) bool) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var out strings.Builder
	names, ids := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 4 || names[f[0]] || !wanted(f) {
			continue
		}
		f[1] = "x" // passwords stay here
		names[f[0]], ids[f[2]] = true, true
		out.WriteString(strings.Join(f, ":") + "\n")
	}
	for line := range strings.Lines(usual) {
		if f := strings.Split(line, ":"); !names[f[0]] && !ids[f[2]] {
			out.WriteString(line)
		}
	}
	return out.String(), nil
}
