package cgroupfs

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A View is a mounted hierarchy as [Look] found it.
type View struct {
	Mount    string // where it is mounted
	Version  int    // 1 or 2
	ReadOnly bool   // the mount, or its file system (statfs(2), ST_RDONLY)

	// Own is the absolute path of the caller's own group, "" where it is not
	// visible below Mount. Group is its name in the hierarchy, as /proc/self/cgroup
	// has it.
	Own, Group string

	Controllers []string // of the own group, or of Mount; v1: those of this hierarchy
	Delegated   []string // v2: those that groups in Base have: cgroup.subtree_control
	KillFile    bool     // the own group, or one below Mount, has cgroup.kill (5.14)

	Base   string // the folder in which Open would make its own, "" for none
	Folder string // that one
	Holder int    // who holds it already, 0 for none or one that cannot be seen
	Err    error  // why there is no Base
}

// Look finds what [Open] would, best first, and makes and locks nothing: what
// may be written is asked of faccessat(2), which knows of read-only mounts, user
// namespaces and security modules. The error is an [UnavailableError] where Open
// would return one; the views are what there is all the same.
func Look(o Options) ([]View, error) {
	if o.FSRoot == "" {
		o.FSRoot = "/sys/fs/cgroup"
	}
	if o.Root == "" {
		o.Root = "pazinit"
	}
	if err := checkName(o.Root); err != nil {
		return nil, fmt.Errorf("hierarchy root: %w", err)
	}
	fsRoot, err := filepath.EvalSymlinks(o.FSRoot)
	if err == nil {
		fsRoot, err = filepath.Abs(fsRoot)
	}
	if err != nil {
		return nil, unavailable([]error{fmt.Errorf("find %s: %w", o.FSRoot, err)})
	}
	var views []View
	var causes []error
	own := readProc("/proc/self/cgroup")
	for _, m := range preferred(mounts(readProc("/proc/self/mountinfo"), fsRoot), o.Subsystems) {
		if o.Version != 0 && m.version != o.Version {
			continue
		}
		v := look(m, own, o)
		views = append(views, v)
		if v.Err != nil {
			causes = append(causes, v.Err)
		}
	}
	if views == nil {
		causes = []error{fmt.Errorf("nothing of type cgroup2 or cgroup is mounted at or below %s", fsRoot)}
	}
	if len(causes) == len(views) || views == nil {
		return views, unavailable(causes)
	}
	return views, nil
}

func look(m mount, procSelfCgroup []byte, o Options) View {
	v := View{Mount: m.point, Version: m.version}
	top, err := unix.Open(m.point, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		v.Err = fmt.Errorf("open %s: %w", m.point, err)
		return v
	}
	defer unix.Close(top)
	if err := checkMagic(top, m.version); err != nil {
		v.Err = fmt.Errorf("%s: %w", m.point, err)
		return v
	}
	var fs unix.Statfs_t
	v.ReadOnly = unix.Fstatfs(top, &fs) == nil && fs.Flags&unix.ST_RDONLY != 0

	v.Group, v.Controllers = ownGroup(procSelfCgroup, m)
	rel, seen := m.ownPath(procSelfCgroup)
	h := &Hierarchy{mount: m}
	if seen {
		if fd, err := h.openAt(top, rel, unix.O_PATH|unix.O_DIRECTORY); err == nil {
			unix.Close(fd)
			v.Own = path.Join(m.point, rel)
		}
	}
	at := m.point
	if v.Own != "" {
		at = v.Own
	}
	if m.version == 2 {
		v.Controllers = strings.Fields(string(readProc(path.Join(at, "cgroup.controllers"))))
		v.KillFile = hasKillFile(at)
	}

	v.Err = h.lookBase(top, ".", o, &v)
	if v.Err != nil && (errors.Is(v.Err, os.ErrPermission) || errors.Is(v.Err, unix.EROFS)) && v.Own != "" && rel != "." {
		if err := h.lookBase(top, rel, o, &v); err != nil {
			v.Err = errors.Join(v.Err, err)
		} else {
			v.Err = nil
		}
	}
	if m.version == 2 {
		if v.Base != "" {
			at = v.Base
		}
		v.Delegated = strings.Fields(string(readProc(path.Join(at, "cgroup.subtree_control"))))
	}
	return v
}

// lookBase is [openBase] without its hands.
func (h *Hierarchy) lookBase(top int, base string, o Options, v *View) error {
	at := path.Join(h.mount.point, base)
	dir, err := h.openAt(top, base, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open %s: %w", at, err)
	}
	defer unix.Close(dir)
	if h.mount.version == 2 {
		if err := unix.Faccessat(dir, "cgroup.procs", unix.W_OK, unix.AT_EACCESS); err != nil {
			return fmt.Errorf("write %s: %w", path.Join(at, "cgroup.procs"), err)
		}
	}
	folder, holder := path.Join(at, o.Root), 0
	if fd, err := h.openAt(dir, o.Root, unix.O_RDONLY|unix.O_DIRECTORY); err == nil {
		holder = lockHolder(fd)
		err = writable(fd)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("write cgroup %s: %w", folder, err)
		}
	} else if err := unix.Faccessat(dir, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("make cgroup %s: %w", folder, err)
	}
	v.Base, v.Folder, v.Holder = at, folder, holder
	return nil
}

// ownGroup finds the caller's group in the hierarchy of m, by name, and on v1
// the hierarchy's controllers, in the text of /proc/self/cgroup (cgroups(7)).
func ownGroup(procSelfCgroup []byte, m mount) (group string, controllers []string) {
	for line := range strings.Lines(string(procSelfCgroup)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		names := strings.Split(f[1], ",")
		switch {
		case m.version == 2 && f[0] == "0" && f[1] == "":
			return f[2], nil
		case m.version == 1 && f[1] != "" && m.has(names[0]):
			return f[2], slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "name=") })
		}
	}
	return "", nil
}

// hasKillFile looks for cgroup.kill in a group, or in one below it where it is
// the root of all, which has none.
func hasKillFile(dir string) bool {
	var st unix.Stat_t
	if unix.Stat(path.Join(dir, "cgroup.kill"), &st) == nil {
		return true
	}
	if unix.Stat(path.Join(dir, "cgroup.events"), &st) == nil {
		return false // no root
	}
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	for {
		names, err := f.ReadDir(64)
		for _, e := range names {
			if e.IsDir() && unix.Stat(path.Join(dir, e.Name(), "cgroup.kill"), &st) == nil {
				return true
			}
		}
		if len(names) == 0 || err != nil {
			return false
		}
	}
}

// Least reads a limit such as pids.max from the own group and all above it that
// are visible, and how much of the least one is used, from the file current
// beside it. max is -1 where nothing limits; ok is false where no group has
// that file, or the own one is not visible.
func (v View) Least(limit, current string) (max, used int64, ok bool) {
	max = math.MaxInt64
	for dir := v.Own; dir != ""; dir = path.Dir(dir) {
		if n, err := readLimit(path.Join(dir, limit)); err == nil {
			if u, err := readLimit(path.Join(dir, current)); err == nil && (!ok || n < max) {
				used = u
			}
			max, ok = min(max, n), true
		}
		if dir == v.Mount {
			break
		}
	}
	if max >= math.MaxInt64>>1 { // v1's memory has no word for it, but PAGE_COUNTER_MAX
		max = -1
	}
	return max, used, ok
}

func readLimit(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(b))
	if text == "max" {
		return math.MaxInt64, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

// Of names the group that process pid lives in, relative to our folder and as
// [Hierarchy.Group] takes it, perhaps with a group behind it that the process
// made itself: shop/web.1/own. It is false for one that lives elsewhere or is
// gone. A zombie still has its group on v2, not on v1.
func (h *Hierarchy) Of(pid int) (name string, ok bool) {
	at, ok := h.mount.ownPath(readProc("/proc/" + strconv.Itoa(pid) + "/cgroup"))
	if !ok {
		return "", false
	}
	at = strings.TrimSuffix(at, " (deleted)")
	name, ok = below(path.Join(h.mount.point, at), h.path)
	return name, ok && name != "."
}
