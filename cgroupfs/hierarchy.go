package cgroupfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Options say where to look for a hierarchy and what to call our folder in it.
type Options struct {
	FSRoot     string   // where hierarchies are mounted, at it or below; default /sys/fs/cgroup
	Root       string   // our folder; default pazinit
	RootSet    bool     // Root was configured by hand: it or nothing
	Subsystems []string // v1 controllers to prefer after pids and freezer
	Version    int      // only this one, 1 or 2; 0 takes v2, else v1

	// Panicked is told of a panic, which has been recovered, by the goroutine that
	// it was in, so that its stack is there. It must not wait. nil prints it.
	Panicked func(where string, value any)

	faults func(at string) // of tests, which panic
}

// A Hierarchy is our folder in a mounted hierarchy. Its methods may be called
// from any goroutine until Close.
type Hierarchy struct {
	mount mount
	base  int    // the folder that holds our folder, O_PATH
	dir   int    // our folder; carries the lock
	root  string // our folder's name relative to base
	path  string // our folder's absolute name, for people

	noOpenat2  atomic.Bool // seccomp or an old kernel refuses openat2 (5.6)
	noKillFile bool        // tests: as if the kernel had no cgroup.kill

	mu      sync.Mutex
	sound   map[string]bool // groups made here and not killed since: see Group
	watcher watcher
}

// Open finds a writable hierarchy, makes our folder in it and locks it. v2 is
// taken before v1, also on a hybrid host, where it has no controllers but
// everything that a bare group needs. In each, the folder is made at the mount's
// root, or, where that is not permitted, in the caller's own group.
//
// A folder that another process holds is an [InUseError] if o.RootSet; else
// ROOT.PID is used instead. Folders of that kind that nobody holds and where
// nothing lives are removed. Where there is no writable hierarchy the error is
// an [UnavailableError].
func Open(o Options) (*Hierarchy, error) {
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
	if err != nil {
		return nil, unavailable([]error{fmt.Errorf("find %s: %w", o.FSRoot, err)})
	}
	if fsRoot, err = filepath.Abs(fsRoot); err != nil {
		return nil, unavailable([]error{err})
	}
	var causes []error
	for _, m := range preferred(mounts(readProc("/proc/self/mountinfo"), fsRoot), o.Subsystems) {
		if o.Version != 0 && m.version != o.Version {
			continue
		}
		h, err := openMount(m, o)
		if inUse := (*InUseError)(nil); err == nil || errors.As(err, &inUse) {
			return h, err
		}
		causes = append(causes, err)
	}
	if causes == nil {
		causes = []error{fmt.Errorf("nothing of type cgroup2 or cgroup is mounted at or below %s", fsRoot)}
	}
	return nil, unavailable(causes)
}

func unavailable(causes []error) error {
	return &UnavailableError{Causes: causes, Setting: setting(causes)}
}

// openMount tries the root of one mount, then the own group in it.
func openMount(m mount, o Options) (*Hierarchy, error) {
	h, err := openBase(m, ".", o)
	if err == nil || !errors.Is(err, os.ErrPermission) && !errors.Is(err, unix.EROFS) {
		return h, err
	}
	own, ok := m.ownPath(readProc("/proc/self/cgroup"))
	if !ok || own == "." {
		return nil, err
	}
	h, ownErr := openBase(m, own, o)
	if ownErr == nil {
		return h, nil
	}
	if inUse := (*InUseError)(nil); errors.As(ownErr, &inUse) {
		return nil, ownErr
	}
	return nil, errors.Join(err, ownErr)
}

// openBase makes and locks our folder in base, a folder below m.
func openBase(m mount, base string, o Options) (_ *Hierarchy, err error) {
	top, err := unix.Open(m.point, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", m.point, err)
	}
	defer unix.Close(top)
	if err := checkMagic(top, m.version); err != nil {
		return nil, fmt.Errorf("%s: %w", m.point, err)
	}
	h := &Hierarchy{mount: m, base: -1, dir: -1, sound: map[string]bool{}, watcher: watcher{told: o.Panicked, faults: o.faults}}
	defer func() {
		if err != nil {
			h.closeFDs()
		}
	}()
	at := path.Join(m.point, base)
	if h.base, err = h.openAt(top, base, unix.O_PATH|unix.O_DIRECTORY); err != nil {
		return nil, fmt.Errorf("open %s: %w", at, err)
	}
	// Whoever moves or clones a process on v2 needs write access to cgroup.procs
	// of the common ancestor too, which is this one.
	if m.version == 2 {
		if err := unix.Faccessat(h.base, "cgroup.procs", unix.W_OK, unix.AT_EACCESS); err != nil {
			return nil, fmt.Errorf("write %s: %w", path.Join(at, "cgroup.procs"), err)
		}
	}
	names := []string{o.Root}
	if !o.RootSet {
		// In another container our own pid may be taken as well.
		own := o.Root + "." + strconv.Itoa(os.Getpid())
		names = append(names, own, own+".2", own+".3", own+".4")
	}
	for _, h.root = range names {
		h.path = path.Join(at, h.root)
		err = h.claim()
		if inUse := (*InUseError)(nil); !errors.As(err, &inUse) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	h.removeStale(o.Root)
	return h, nil
}

// claim makes our folder, opens and locks it.
func (h *Hierarchy) claim() error {
	// Another supervisor may remove the folder as stale between our mkdir and
	// our lock: then the name leads elsewhere and all begins anew.
	for range 10 {
		if err := h.mkdirAll(h.base, h.root); err != nil {
			return fmt.Errorf("make cgroup %s: %w", h.path, err)
		}
		fd, err := h.openAt(h.base, h.root, unix.O_RDONLY|unix.O_DIRECTORY)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("open cgroup %s: %w", h.path, err)
		}
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			pid := lockHolder(fd)
			unix.Close(fd)
			if errors.Is(err, unix.EWOULDBLOCK) {
				return &InUseError{PID: pid, Path: h.path}
			}
			return fmt.Errorf("lock cgroup %s: %w", h.path, err)
		}
		// mkdir of a folder that exists says nothing of whether one may write.
		if err := writable(fd); err != nil {
			unix.Close(fd)
			return fmt.Errorf("write cgroup %s: %w", h.path, err)
		}
		if !sameFile(fd, h.base, h.root) {
			unix.Close(fd)
			continue
		}
		h.dir = fd
		return nil
	}
	return fmt.Errorf("lock cgroup %s: it is removed again and again", h.path)
}

func writable(dir int) error {
	if err := unix.Faccessat(dir, ".", unix.W_OK, unix.AT_EACCESS); err != nil {
		return err
	}
	return unix.Faccessat(dir, "cgroup.procs", unix.W_OK, unix.AT_EACCESS)
}

// sameFile tells whether name, from dir, still is the open file fd.
func sameFile(fd, dir int, name string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(fd, &a) == nil &&
		unix.Fstatat(dir, name, &b, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		a.Dev == b.Dev && a.Ino == b.Ino
}

// lockHolder finds who holds the lock on fd, 0 if it cannot be seen.
func lockHolder(fd int) int {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	return holderIn(readProc("/proc/locks"), file)
}

// holderIn finds the pid that holds an flock on file, MAJOR:MINOR:INODE, in
// the text of /proc/locks (proc_locks(5)).
func holderIn(locks []byte, file string) int {
	for line := range bytes.Lines(locks) {
		// 1: FLOCK  ADVISORY  WRITE 812 00:26:5 0 EOF; a waiting one has -> after the number.
		f := strings.Fields(string(line))
		if len(f) >= 6 && f[1] == "FLOCK" && f[5] == file {
			if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
				return pid
			}
		}
	}
	return 0
}

// removeStale removes the folders ROOT.PID that nobody holds and where nothing
// lives. What cannot be removed stays: it harms nobody.
func (h *Hierarchy) removeStale(root string) {
	parent, prefix := path.Split(root)
	if parent == "" {
		parent = "."
	}
	names, err := h.subgroups(h.base, path.Clean(parent))
	if err != nil {
		return
	}
	for _, name := range names {
		suffix, ok := strings.CutPrefix(name, prefix+".")
		rel := path.Join(parent, name)
		if !ok || strings.Trim(suffix, "0123456789.") != "" || rel == h.root {
			continue
		}
		fd, err := h.openAt(h.base, rel, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			continue
		}
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			if populated, err := h.populated(fd, "."); err == nil && !populated {
				h.removeAll(h.base, rel)
			}
		}
		unix.Close(fd)
	}
}

// Version is 1 or 2.
func (h *Hierarchy) Version() int { return h.mount.version }

// Path is the absolute name of our folder.
func (h *Hierarchy) Path() string { return h.path }

// Close removes our folder and every group in it where nothing lives, and gives
// the lock back. What still has processes stays. It waits for functions given to
// [Group.NotifyEmpty] that are just running; none is called later.
func (h *Hierarchy) Close() error {
	h.watcher.close()
	err := h.removeAll(h.base, h.root)
	h.closeFDs()
	if err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("remove cgroup %s: %w", h.path, err)
	}
	return nil
}

func (h *Hierarchy) closeFDs() {
	for _, fd := range []int{h.dir, h.base} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	h.dir, h.base = -1, -1
}

// checkMagic refuses a folder that is no cgroup's. On a hybrid host
// /sys/fs/cgroup is a tmpfs where every mkdir succeeds and means nothing.
func checkMagic(fd, version int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fmt.Errorf("ask for the file system: %w", err)
	}
	want := int64(unix.CGROUP2_SUPER_MAGIC)
	if version == 1 {
		want = unix.CGROUP_SUPER_MAGIC
	}
	if st.Type != want {
		return fmt.Errorf("not a cgroup v%d file system but of type %#x", version, st.Type)
	}
	return nil
}

// maxDepth bounds how deep groups nest, ours and what a worker makes in its own.
const maxDepth = 32

// checkName refuses what could lead out of a folder or break the kernel's lists.
func checkName(name string) error {
	parts := strings.Split(name, "/")
	if len(parts) > maxDepth {
		return fmt.Errorf("group name %q: more than %d parts", name, maxDepth)
	}
	for _, p := range parts {
		switch {
		case p == "":
			return fmt.Errorf("group name %q: empty part", name)
		case p == "." || p == "..":
			return fmt.Errorf("group name %q: part %q", name, p)
		case len(p) > unix.NAME_MAX:
			return fmt.Errorf("group name %q: part longer than %d bytes", name, unix.NAME_MAX)
		case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return fmt.Errorf("group name %q: control character", name)
		}
	}
	return nil
}

// open opens rel below our folder: no link, no .. and no other mount is
// followed. flags get O_CLOEXEC. The caller closes it.
func (h *Hierarchy) open(rel string, flags int) (int, error) {
	return h.openAt(h.dir, rel, flags)
}

func (h *Hierarchy) openAt(dir int, rel string, flags int) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	if !h.noOpenat2.Load() {
		how := unix.OpenHow{
			Flags:   uint64(flags),
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
		}
		// RESOLVE_BENEATH answers EAGAIN while something anywhere is renamed.
		for range 100 {
			fd, err := retry(func() (int, error) { return unix.Openat2(dir, rel, &how) })
			if err == nil {
				return fd, nil
			}
			if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
				h.noOpenat2.Store(true)
				break
			}
			if !errors.Is(err, unix.EAGAIN) {
				return -1, err
			}
		}
	}
	// Names are checked and a hierarchy has no links: what is left is a mount
	// on top of a group, which the magic tells.
	fd, err := retry(func() (int, error) { return unix.Openat(dir, rel, flags, 0) })
	if err != nil {
		return -1, err
	}
	if err := checkMagic(fd, h.mount.version); err != nil {
		unix.Close(fd)
		return -1, unix.EXDEV
	}
	return fd, nil
}

// retry repeats what a signal interrupted.
func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// mkdirAll makes rel and its parents below dir.
func (h *Hierarchy) mkdirAll(dir int, rel string) error {
	parent := "."
	for part := range strings.SplitSeq(rel, "/") {
		fd, err := h.openAt(dir, parent, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = unix.Mkdirat(fd, part, 0o755)
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		parent = path.Join(parent, part)
	}
	return nil
}

// mkdirNew makes the last folder of rel, in a parent that may have to be made.
// The error is EEXIST if it is there already.
func (h *Hierarchy) mkdirNew(dir int, rel string) error {
	parent, name := path.Split(rel)
	parent = path.Clean(parent)
	fd, err := h.openAt(dir, parent, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		if err = h.mkdirAll(dir, parent); err == nil {
			fd, err = h.openAt(dir, parent, unix.O_PATH|unix.O_DIRECTORY)
		}
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Mkdirat(fd, name, 0o755)
}

// subgroups lists the groups directly in rel.
func (h *Hierarchy) subgroups(dir int, rel string) ([]string, error) {
	fd, err := h.openAt(dir, rel, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), rel)
	defer f.Close()
	var names []string
	for {
		entries, err := f.ReadDir(128)
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
		if len(entries) == 0 || err != nil {
			return names, nil // end, or removed while reading
		}
	}
}

// walk visits rel and every group in it, children first. It goes on after an
// error and returns them all; a group that vanishes meanwhile is none.
func (h *Hierarchy) walk(dir int, rel string, visit func(rel string) error) error {
	return h.walkTo(dir, rel, visit, maxDepth)
}

func (h *Hierarchy) walkTo(dir int, rel string, visit func(rel string) error, depth int) error {
	if depth == 0 {
		return fmt.Errorf("groups nest deeper than %d", maxDepth)
	}
	children, err := h.subgroups(dir, rel)
	if err != nil {
		return vanished(err)
	}
	var errs []error
	for _, c := range children {
		errs = append(errs, h.walkTo(dir, path.Join(rel, c), visit, depth-1))
	}
	errs = append(errs, vanished(visit(rel)))
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	return errors.Join(errs...)
}

// vanished drops the errors that say that the group is gone.
func vanished(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// removeAll removes rel and the groups in it, as far as nothing lives in them.
func (h *Hierarchy) removeAll(dir int, rel string) error {
	// Most have nothing in them: what is, is looked for only where the kernel says so.
	if err := h.rmdir(dir, rel); !errors.Is(err, unix.EBUSY) {
		return vanished(err)
	}
	return h.walk(dir, rel, func(rel string) error { return h.rmdir(dir, rel) })
}

func (h *Hierarchy) rmdir(dir int, rel string) error {
	parent, name := path.Split(rel)
	fd, err := h.openAt(dir, path.Clean(parent), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
}
