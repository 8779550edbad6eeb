package cgroupfs

import (
	"bytes"
	"os"
	"path"
	"slices"
	"strings"
)

// A mount is a cgroup hierarchy as /proc/self/mountinfo shows it.
type mount struct {
	point   string // where it is
	root    string // which folder of the hierarchy is visible there
	version int    // 1 or 2
	options []string
}

// has tells whether a v1 hierarchy carries a controller, or name=NAME.
func (m mount) has(controller string) bool {
	return m.version == 1 && slices.Contains(m.options, controller)
}

// mounts lists the cgroup mounts at and below fsRoot.
func mounts(mountinfo []byte, fsRoot string) []mount {
	var found []mount
	for line := range bytes.Lines(mountinfo) {
		// 41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
		before, after, ok := strings.Cut(strings.TrimSpace(string(line)), " - ")
		if !ok {
			continue
		}
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 6 || len(right) < 3 {
			continue
		}
		m := mount{point: unescape(left[4]), root: unescape(left[3])}
		switch right[0] {
		case "cgroup2":
			m.version = 2
		case "cgroup":
			m.version = 1
			m.options = strings.Split(right[2], ",")
		default:
			continue
		}
		if _, ok := below(m.point, fsRoot); ok {
			found = append(found, m)
		}
	}
	return found
}

// unescape undoes the octal escapes of mountinfo: \040 is a blank.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1:i+4]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(s string) bool {
	return strings.Trim(s, "01234567") == ""
}

// below gives name relative to dir, "." for dir itself.
func below(name, dir string) (string, bool) {
	if name == dir {
		return ".", true
	}
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(dir, "/")+"/")
	return rest, ok && rest != ""
}

// preferred orders what to try: v2 first, the one at the top before deeper
// ones; then v1's pids (forks can be stopped while killing), freezer (they can
// be frozen), the configured subsystems and any other.
func preferred(all []mount, subsystems []string) []mount {
	rank := func(m mount) int {
		if m.version == 2 {
			return 0
		}
		for i, s := range append([]string{"pids", "freezer"}, subsystems...) {
			if m.has(s) {
				return 1 + i
			}
		}
		return 3 + len(subsystems)
	}
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b mount) int { return rank(a) - rank(b) })
	return sorted
}

// ownPath finds the caller's own group in m, relative to the mount point, in
// the text of /proc/self/cgroup. It is false where the group is not visible
// there.
func (m mount) ownPath(procSelfCgroup []byte) (string, bool) {
	for line := range bytes.Lines(procSelfCgroup) {
		parts := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") {
			continue
		}
		if m.version == 2 && (parts[0] != "0" || parts[1] != "") {
			continue
		}
		if m.version == 1 && !m.has(strings.Split(parts[1], ",")[0]) {
			continue
		}
		if path.Clean(parts[2]) != parts[2] || strings.HasPrefix(parts[2], "/..") {
			return "", false // outside of our cgroup namespace
		}
		return below(parts[2], m.root)
	}
	return "", false
}

// readProc reads a file of /proc whole; missing is empty.
func readProc(name string) []byte {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	return data
}
