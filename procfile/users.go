package procfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// maxAccounts bounds a passwd or group file.
const maxAccounts = 16 << 20

// accounts looks users and groups up, each once a load. It reads the files
// itself: that works without cgo and in an image that has none, and an entry
// whose number is damaged is nobody, where the usual libraries read it as root.
type accounts struct {
	passwd, group string // the files
	users         map[string]*User
	groups        map[string]uint32
}

// user finds a user by name or number.
//
// A name must be in the passwd file; its groups are those of the group file. A
// number needs no file and gets no supplementary groups; its group is that of
// its passwd entry, or without one the same number.
func (a *accounts) user(spec string) (*User, error) {
	if u, ok := a.users[spec]; ok {
		return u, nil
	}
	id, numeric, err := number(spec)
	if err != nil {
		return nil, err
	}
	u := &User{Name: spec, UID: id, GID: id, Home: "/", Shell: "/bin/sh", UIDSet: true}
	var names []string
	found := false
	err = eachAccount(a.passwd, 7, func(f []string) bool {
		uid, ok1, err1 := number(f[2])
		gid, ok2, err2 := number(f[3])
		if !ok1 || !ok2 || err1 != nil || err2 != nil {
			return true
		}
		names = append(names, f[0])
		if numeric && uid != id || !numeric && f[0] != spec {
			return true
		}
		found = true
		u.UID, u.GID, u.Login = uid, gid, f[0]
		if f[5] != "" {
			u.Home = f[5]
		}
		if f[6] != "" {
			u.Shell = f[6]
		}
		return false
	})
	switch {
	case numeric && (err == nil || errors.Is(err, os.ErrNotExist)):
	case err != nil:
		return nil, fmt.Errorf("look up user %s: %w", quote(spec), err)
	case !found:
		return nil, noSuch("user", spec, names)
	default:
		err := eachAccount(a.group, 4, func(f []string) bool {
			gid, ok, err := number(f[2])
			if ok && err == nil && gid != u.GID && !slices.Contains(u.Groups, gid) &&
				slices.Contains(strings.Split(f[3], ","), u.Login) {
				u.Groups = append(u.Groups, gid)
			}
			return true
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("look up groups of user %s: %w", quote(spec), err)
		}
	}
	if a.users == nil {
		a.users = make(map[string]*User)
	}
	a.users[spec] = u
	return u, nil
}

// groupID finds a group by name or number; a number need not be in any file.
func (a *accounts) groupID(spec string) (uint32, error) {
	id, numeric, err := number(spec)
	if numeric || err != nil {
		return id, err
	}
	if id, ok := a.groups[spec]; ok {
		return id, nil
	}
	var names []string
	found := false
	err = eachAccount(a.group, 4, func(f []string) bool {
		names = append(names, f[0])
		gid, ok, err := number(f[2])
		if f[0] == spec && ok && err == nil {
			id, found = gid, true
		}
		return !found
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("look up group %s: %w", quote(spec), err)
	case !found:
		return 0, noSuch("group", spec, names)
	}
	if a.groups == nil {
		a.groups = make(map[string]uint32)
	}
	a.groups[spec] = id
	return id, nil
}

// eachAccount calls f with the fields of each line that has enough of them,
// until it returns false.
func eachAccount(path string, fields int, f func([]string) bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxAccounts))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		parts := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(parts) >= fields && !f(parts) {
			return nil
		}
	}
	return nil
}

// withGroup is u with another primary group; u may be nil for the supervisor's
// own user, uid.
func withGroup(u *User, uid, gid uint32) *User {
	if u == nil {
		return &User{UID: uid, GID: gid, GIDSet: true, Home: "/", Shell: "/bin/sh"}
	}
	v := *u
	v.GID, v.GIDSet = gid, true
	v.Groups = nil
	for _, g := range u.Groups {
		if g != gid {
			v.Groups = append(v.Groups, g)
		}
	}
	return &v
}

// number reads an id; the greatest number is the kernel's "no id".
func number(spec string) (id uint32, ok bool, err error) {
	if spec == "" {
		return 0, false, fmt.Errorf("name is empty")
	}
	for _, c := range spec {
		if c < '0' || c > '9' {
			return 0, false, nil
		}
	}
	n, err := strconv.ParseUint(spec, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, true, fmt.Errorf("%s is no id, they end at %d", quote(spec), uint32(1<<32-2))
	}
	return uint32(n), true, nil
}
