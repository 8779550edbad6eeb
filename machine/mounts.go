package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mount is one file system to be mounted: a line of fstab(5).
type Mount struct {
	Source   string        // a device as in [FindDevice], a tag (virtiofs, 9p), a folder or file (bind), a name
	Target   string        // an absolute path; made when it is missing
	Type     string        // "", "auto" and "none": what the device holds, or a bind mount
	Options  []string      // words of mount(8) and of the file system
	Wait     time.Duration // how long the device may be late; negative: for ever
	Optional bool          // nofail: what goes wrong is said and is no error
}

// Network says whether the file system needs the network: by its type, by its
// transport (9p's trans=) or by the option _netdev.
func (m Mount) Network() bool {
	switch m.Type {
	case "nfs", "nfs4", "cifs", "smb3", "ceph", "afs", "glusterfs":
		return true
	}
	o, err := parseOptions(m.Options)
	if err != nil {
		return false
	}
	data := splitOptions(o.data)
	return o.network || m.Type == "9p" && (slices.Contains(data, "trans=tcp") || slices.Contains(data, "trans=rdma"))
}

// early is a row of what every program expects of a machine.
type early struct {
	target, fstype, source string
	flags                  uintptr
	data                   string
	magic                  int64 // of statfs(2)
	required               bool
}

const strict = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// earlyMounts come in this order. Whatever the kernel may lack and a machine can
// do without is not required.
var earlyMounts = [...]early{
	{"/proc", "proc", "proc", strict, "", unix.PROC_SUPER_MAGIC, true},
	{"/sys", "sysfs", "sysfs", strict, "", unix.SYSFS_MAGIC, true},
	{"/dev", "devtmpfs", "devtmpfs", unix.MS_NOSUID, "mode=755", unix.TMPFS_MAGIC, true},
	{"/dev/pts", "devpts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=620,ptmxmode=666,gid=5", unix.DEVPTS_SUPER_MAGIC, false},
	{"/dev/shm", "tmpfs", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777", unix.TMPFS_MAGIC, false},
	{"/dev/mqueue", "mqueue", "mqueue", strict, "", mqueueMagic, false},
	{"/run", "tmpfs", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755", unix.TMPFS_MAGIC, true},
	{"/tmp", "tmpfs", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777", unix.TMPFS_MAGIC, false},
	{"/sys/kernel/tracing", "tracefs", "tracefs", strict, "mode=700", unix.TRACEFS_MAGIC, false},
	{"/sys/fs/bpf", "bpf", "bpf", strict, "mode=700", unix.BPF_FS_MAGIC, false},
	{"/sys/kernel/security", "securityfs", "securityfs", strict, "", unix.SECURITYFS_MAGIC, false},
	{"/sys/kernel/debug", "debugfs", "debugfs", strict, "mode=700", unix.DEBUGFS_MAGIC, false},
	// Read-only: deleting the wrong variable breaks some firmware for good.
	{"/sys/firmware/efi/efivars", "efivarfs", "efivarfs", strict | unix.MS_RDONLY, "", unix.EFIVARFS_MAGIC, false},
}

const mqueueMagic = 0x19800202 // include/uapi/linux/magic.h does not have it: ipc/mqueue.c

// devLinks are the names that programs know descriptors by.
var devLinks = [...][2]string{
	{"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"},
	{"/proc/self/fd/1", "/dev/stdout"},
	{"/proc/self/fd/2", "/dev/stderr"},
}

// MountEarly mounts what every program expects of a machine: /proc, /sys, /dev
// with all that is in it, /run, /tmp, and what the kernel has of tracefs, bpf,
// securityfs, debugfs and efivarfs. What is mounted already stays as it is.
//
// The notes are what a machine can do without; one is [errors.ErrUnsupported]
// if the kernel or the firmware does not have it. The error is what it cannot
// do without; the other rows are mounted nevertheless.
func MountEarly() (notes []error, err error) { return kernel.mountEarly("", earlyMounts[:]) }

// mountEarly mounts below root.
func (h hands) mountEarly(root string, rows []early) (notes []error, err error) {
	var bad []error
	for _, row := range rows {
		switch err := h.mountRow(root, row); {
		case err == nil:
		case row.required:
			bad = append(bad, err)
		default:
			notes = append(notes, err)
		}
	}
	for _, l := range devLinks {
		if err := os.Symlink(l[0], root+l[1]); err != nil && !errors.Is(err, fs.ErrExist) {
			notes = append(notes, fmt.Errorf("link %s: %w", l[1], errors.Unwrap(err)))
		}
	}
	return notes, errors.Join(bad...)
}

func (h hands) mountRow(root string, row early) error {
	target := root + row.target
	if isMountPoint(target) {
		return nil
	}
	fail := func(err error) error { return fmt.Errorf("mount %s on %s: %w", row.fstype, row.target, err) }
	inSys := strings.HasPrefix(row.target, "/sys/")
	if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		if inSys { // nobody but the kernel makes folders there
			return fail(fmt.Errorf("there is no such folder: %w", errors.ErrUnsupported))
		}
		return fail(err)
	}
	err := h.mount(row.source, target, row.fstype, row.flags, row.data)
	if errors.Is(err, unix.EINVAL) && row.data != "" { // an option that this kernel does not know
		err = h.mount(row.source, target, row.fstype, row.flags, "")
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENODEV):
		return fail(fmt.Errorf("the kernel has no %s: %w", row.fstype, errors.ErrUnsupported))
	case inSys && errors.Is(err, unix.EOPNOTSUPP): // efivarfs without runtime services
		return fail(fmt.Errorf("%w: %w", err, errors.ErrUnsupported))
	}
	return fail(err)
}

// MountCgroups mounts control groups at /sys/fs/cgroup: "v2" (also ""), "v1"
// (each controller that the kernel has there in a folder of its own), "hybrid"
// (v1, and v2 without controllers at unified) or "none". What is mounted there
// already stays. With v1 the error may be about some of the controllers: the
// others are mounted. Newer kernels have fewer of them (6.12: no memory, no
// cpuset unless built in).
func MountCgroups(version string) error { return kernel.mountCgroups("/sys/fs/cgroup", version) }

func (h hands) mountCgroups(dir, version string) error {
	switch version {
	case "", "v2", "v1", "hybrid":
	case "none":
		return nil
	default:
		return fmt.Errorf("mount cgroups: version %q is none of v2, v1, hybrid, none", version)
	}
	if isMountPoint(dir) {
		return nil
	}
	if version == "" || version == "v2" {
		return h.mountCgroup2(dir)
	}
	names, err := v1Controllers("/proc/cgroups")
	if err != nil {
		return fmt.Errorf("mount cgroups: %w", err)
	}
	if err := h.mount("cgroup", dir, "tmpfs", strict, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	var errs []error
	for _, name := range names {
		sub := filepath.Join(dir, name)
		if err := os.Mkdir(sub, 0o755); err != nil {
			errs = append(errs, fmt.Errorf("mount cgroup %s: %w", name, err))
			continue
		}
		if err := h.mount("cgroup", sub, "cgroup", strict, name); err != nil {
			errs = append(errs, fmt.Errorf("mount cgroup %s on %s: %w", name, sub, err))
			_ = os.Remove(sub)
		}
	}
	if version == "hybrid" {
		sub := filepath.Join(dir, "unified")
		if err := os.Mkdir(sub, 0o755); err != nil {
			errs = append(errs, err)
		} else if err := h.mountCgroup2(sub); err != nil {
			errs = append(errs, err)
		}
	}
	// A folder made here by mistake would be a group of nothing.
	if err := h.mount("", dir, "", unix.MS_REMOUNT|strict|unix.MS_RDONLY, "mode=755"); err != nil {
		errs = append(errs, fmt.Errorf("remount %s read-only: %w", dir, err))
	}
	return errors.Join(errs...)
}

// mountCgroup2 asks for what newer kernels have: nsdelegate (4.13),
// memory_recursiveprot (5.7).
func (h hands) mountCgroup2(dir string) error {
	var err error
	for _, data := range [...]string{"nsdelegate,memory_recursiveprot", "nsdelegate", ""} {
		if err = h.mount("cgroup2", dir, "cgroup2", strict, data); !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	switch {
	case errors.Is(err, unix.ENODEV):
		err = fmt.Errorf("the kernel has no cgroup2: %w", errors.ErrUnsupported)
	case err == nil:
		return nil
	}
	return fmt.Errorf("mount cgroup2 on %s: %w", dir, err)
}

// v1Controllers are the enabled ones of proc_cgroups(5).
func v1Controllers(path string) (names []string, err error) {
	b, err := readBounded(path, 64<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the kernel has no cgroup v1: %w", errors.ErrUnsupported)
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 4 && f[3] == "1" && f[0][0] != '#' && !strings.Contains(f[0], "/") {
			names = append(names, f[0])
		}
	}
	return names, nil
}

// MountAll mounts the list in its order. Say gets what is worth a line: that it
// waits, what was not clean, what went wrong with an optional one; it may be
// called from other goroutines and after MountAll has returned, and may be nil.
// Each error is one mount that is not optional.
//
// The times to wait for devices all begin now. A mount that hangs for 90
// seconds (x-systemd.mount-timeout= says otherwise) is an error and goes on by
// itself; what lies below a mount that failed is not mounted, for it would go
// to the wrong file system. A missing mount point is made: folders with mode
// 755, an empty file for a file that is bound, and the folders that an overlay
// writes to. A symbolic link in a target is followed, and where it leads is
// what counts: nothing but their own kind is mounted over /proc, /sys, /dev and
// /run. "/" is mounted again with its options, but not an initramfs, for which
// none are meant. What is mounted at a target already, from the same source, stays
// or gets its options.
//
// Programs like mount.nfs are not called: what needs one is a worker's task.
func MountAll(list []Mount, say func(string)) []error {
	if say == nil {
		say = sayNothing
	}
	return kernel.mountAll(system, list, say)
}

func (h hands) mountAll(f finder, list []Mount, say func(string)) (errs []error) {
	begin := time.Now()
	var failed []string
	for _, m := range list {
		o, err := parseOptions(m.Options)
		if err == nil && o.noauto {
			continue
		}
		if err == nil {
			err = checkTarget(m.Target)
		}
		where := m.Target
		if err == nil {
			where = h.realTarget(m.Target)
			if above := liesBelow(where, failed); above != "" {
				err = fmt.Errorf("%s is not mounted", above)
			}
		}
		if err == nil {
			err = h.mountOne(f, m, o, rest(begin, m.Wait), say)
		}
		if err == nil {
			continue
		}
		err = fmt.Errorf("mount %s on %s: %w", printable(m.Source), printable(m.Target), err)
		if m.Target != "/" {
			failed = append(failed, where)
		}
		if m.Optional || o.nofail {
			say(err.Error())
		} else {
			errs = append(errs, err)
		}
	}
	return errs
}

// realTarget follows the symbolic links of what there is of a path; it is only
// cleaned if that hangs.
func (h hands) realTarget(target string) string {
	found := make(chan string, 1)
	_ = within(h.limit, nil, nil, func() error {
		there, rest := filepath.Clean(target), ""
		for {
			real, err := filepath.EvalSymlinks(there)
			if err == nil {
				found <- filepath.Join(real, rest)
				return nil
			}
			if there == filepath.Dir(there) {
				return err
			}
			there, rest = filepath.Dir(there), filepath.Join(filepath.Base(there), rest)
		}
	})
	select {
	case path := <-found:
		return path
	default:
		return filepath.Clean(target)
	}
}

// printable quotes what has to be quoted on a console.
func printable(s string) string {
	if q := strconv.Quote(s); s == "" || q != `"`+s+`"` {
		return q
	}
	return s
}

// liesBelow returns the one of the paths that target lies below, or "".
func liesBelow(target string, paths []string) string {
	target = filepath.Clean(target)
	for _, p := range paths {
		if strings.HasPrefix(target, strings.TrimSuffix(filepath.Clean(p), "/")+"/") {
			return p
		}
	}
	return ""
}

// checkTarget looks at a mount point as it is written.
func checkTarget(target string) error {
	switch {
	case !strings.HasPrefix(target, "/"):
		return fmt.Errorf("mount point %q is no absolute path", target)
	case strings.ContainsAny(target, "\x00\n"):
		return fmt.Errorf("mount point %q has a zero byte or a line break in it", target)
	case len(target) >= unix.PathMax:
		return fmt.Errorf("mount point of %d bytes, the kernel takes %d", len(target), unix.PathMax-1)
	}
	for part := range strings.SplitSeq(target, "/") {
		if part == ".." {
			return fmt.Errorf("mount point %q goes upwards", target)
		}
	}
	return nil
}

// kindAt says which kind of file system alone may be mounted there, "" for any.
func kindAt(path string) string {
	switch path {
	case "/proc":
		return "proc"
	case "/sys":
		return "sysfs"
	case "/dev":
		return "devtmpfs"
	case "/run":
		return "tmpfs"
	}
	return ""
}

// mountOne mounts one, its options read and its target looked at.
func (h hands) mountOne(f finder, m Mount, o options, wait time.Duration, say func(string)) error {
	if filepath.Clean(m.Target) == "/" {
		if InInitramfs() { // the line is about another root
			say("the options of / are not for an initramfs: left as it is")
			return nil
		}
		return h.remount("/", o, true)
	}
	begin := time.Now()
	switch m.Type {
	case "", "auto", "none":
		m.Type = ""
	case "nfs", "nfs4":
		if !strings.Contains(o.data, "addr=") {
			return errors.New("it needs addr= in its options, or the program mount.nfs: let a worker run that")
		}
	}
	var held content
	switch {
	case o.bind != 0:
		if !strings.HasPrefix(m.Source, "/") {
			return fmt.Errorf("what is bound is no absolute path")
		}
	case wantsDevice(m), o.loop:
		if o.loop {
			if f.loopMounted(m) {
				return nil
			}
			fd, path, err := openLoop(m.Source, o.flags&unix.MS_RDONLY != 0)
			if err != nil {
				return fmt.Errorf("attach a loop device: %w", err)
			}
			defer unix.Close(fd) // what is mounted keeps it
			m.Source = path
		}
		d, err := f.find(m.Source, wait, say)
		if err != nil {
			return err
		}
		m.Source, held = d.Path, d.content
		if m.Type == "" {
			m.Type = held.Type
		}
		switch {
		case m.Type == "":
			return fmt.Errorf("%s holds no file system that is known here: name its type", d.Path)
		case m.Type == "swap", m.Type == "crypto_LUKS", m.Type == "jbd":
			return fmt.Errorf("%s holds %s and no file system", d.Path, held)
		case held.Dirty != "":
			say(fmt.Sprintf("%s (%s): %s", d.Path, m.Type, held.Dirty))
		}
	case m.Type == "":
		return errors.New("no type, and no device that would tell it")
	case m.Type == "9p" && !strings.Contains(","+o.data, ",trans="):
		o.data = strings.TrimPrefix(o.data+",trans=virtio", ",")
	}

	limit := h.limit
	if o.limit > 0 {
		limit = o.limit
	}
	type place struct {
		fd   int
		path string
	}
	got := make(chan place, 1)
	if err := within(limit, nil, nil, func() error {
		if m.Type == "overlay" {
			if err := makeOverlayDirs(o.data); err != nil {
				return err
			}
		}
		fd, path, err := openTarget(m, o)
		got <- place{fd, path}
		return err
	}); err != nil {
		return err
	}
	p := <-got
	fd, path := p.fd, p.path
	defer unix.Close(fd)
	if kind := kindAt(path); kind != "" && (kind != m.Type || o.bind != 0) {
		return fmt.Errorf("only %s is mounted on %s", kind, path)
	}
	if mounted, same := mountedAt(path, m); same && o.bind == 0 {
		if !o.remount {
			return nil
		}
		return h.remount(path, o, false)
	} else if mounted && kindAt(path) != "" {
		return nil
	}

	// The folder itself and not its name, which may lead elsewhere by now.
	target := "/proc/self/fd/" + strconv.Itoa(fd)
	if unix.Access(target, unix.F_OK) != nil {
		target = path
	}
	mount := func(source, fstype string, flags uintptr, data string) error {
		// The descriptor may be closed before a call that hangs ends.
		return within(limit,
			func(d time.Duration) { say(fmt.Sprintf("mounting %s on %s hangs for %v", source, path, d)) },
			func(err error) { say(fmt.Sprintf("mounting %s on %s has come back: %v", source, path, errText(err))) },
			func() error { return h.mount(source, target, fstype, flags, data) })
	}
	call := func() error { return mount(m.Source, m.Type, o.flags, o.data) }
	if o.bind != 0 {
		call = func() error { return mount(m.Source, "", o.bind, "") }
	}
	err := call()
	if (m.Type == "virtiofs" || m.Type == "9p") && isLate(err) && wait != 0 {
		err = h.retry(f, m, rest(begin, wait), say, call)
	}
	if o.bind == 0 && o.flags&unix.MS_RDONLY == 0 && (errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES)) {
		// As mount(8): what cannot be written is read.
		o.flags |= unix.MS_RDONLY
		if err = call(); err == nil {
			say(fmt.Sprintf("%s on %s is write-protected: mounted read-only", m.Source, path))
		}
	}
	if err != nil {
		return explain(err, m)
	}

	// What follows is about the new mount: its name, not the folder below it.
	return within(limit, nil, nil, func() error {
		if o.bind != 0 && o.flags != 0 {
			if err := h.mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|o.flags, ""); err != nil {
				_ = h.unmount(path, 0)
				return fmt.Errorf("set its flags: %w", err)
			}
		}
		for _, flag := range o.after {
			if err := h.mount("", path, "", flag, ""); err != nil {
				return fmt.Errorf("set its propagation: %w", err)
			}
		}
		return nil
	})
}

func errText(err error) string {
	if err == nil {
		return "it is mounted"
	}
	return err.Error()
}

// isLate says whether a tag may come yet.
func isLate(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV)
}

// retry calls again at each event of the kernel about devices.
func (h hands) retry(f finder, m Mount, wait time.Duration, say func(string), call func() error) error {
	ev, err := listen(f.dev)
	if err != nil {
		return err
	}
	defer ev.close()
	var until time.Time
	say(fmt.Sprintf("waiting for the %s tag %s", m.Type, m.Source))
	if wait > 0 {
		until = time.Now().Add(wait)
	}
	for {
		if err := call(); !isLate(err) || wait >= 0 && !time.Now().Before(until) {
			return err
		}
		if err := ev.wait(until); err != nil {
			return err
		}
	}
}

// explain says more where the kernel's word is poor.
func explain(err error, m Mount) error {
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("the kernel has no %s, is its module loaded? %w", m.Type, errors.ErrUnsupported)
	case m.Type == "virtiofs" && errors.Is(err, unix.EINVAL), m.Type == "9p" && errors.Is(err, unix.ENOENT):
		return fmt.Errorf("there is no tag %s: %w", m.Source, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("not a good %s, or an option that it does not know, see the kernel's messages: %w", m.Type, err)
	}
	return err
}

// loopMounted says whether a file is mounted at its target already.
func (f finder) loopMounted(m Mount) bool {
	list, err := mountsOf()
	if err != nil {
		return false
	}
	for _, p := range list {
		if name, ok := strings.CutPrefix(p.Source, "/dev/"); ok && p.Target == filepath.Clean(m.Target) {
			if b, err := readBounded(f.sys+"/class/block/"+name+"/loop/backing_file", unix.PathMax+1); err == nil && strings.TrimSuffix(string(b), "\n") == filepath.Clean(m.Source) {
				return true
			}
		}
	}
	return false
}

// openLoop makes a block device of a file (Linux 5.8). It is one until the last
// user closes it; the caller closes its own descriptor.
func openLoop(file string, readOnly bool) (fd int, path string, err error) {
	if !strings.HasPrefix(file, "/") {
		return -1, "", fmt.Errorf("%q is no absolute path", file)
	}
	mode := unix.O_RDWR
	if readOnly {
		mode = unix.O_RDONLY
	}
	back, err := unix.Open(file, mode|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		mode = unix.O_RDONLY
		back, err = unix.Open(file, mode|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return -1, "", fmt.Errorf("open %s: %w", file, err)
	}
	defer unix.Close(back)
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", fmt.Errorf("open /dev/loop-control: %w", err)
	}
	defer unix.Close(control)
	config := unix.LoopConfig{Fd: uint32(back), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	if mode == unix.O_RDONLY {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	for range 16 { // somebody else may be quicker
		n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return -1, "", fmt.Errorf("get a free one: %w", err)
		}
		path = "/dev/loop" + strconv.Itoa(n)
		if fd, err = unix.Open(path, mode|unix.O_CLOEXEC, 0); err != nil {
			return -1, "", fmt.Errorf("open %s: %w", path, err)
		}
		if err = unix.IoctlLoopConfigure(fd, &config); err == nil {
			return fd, path, nil
		}
		unix.Close(fd)
		if !errors.Is(err, unix.EBUSY) {
			return -1, "", fmt.Errorf("configure %s: %w", path, err)
		}
	}
	return -1, "", fmt.Errorf("configure %s: %w", path, unix.EBUSY)
}

// wantsDevice says whether a block device is meant.
func wantsDevice(m Mount) bool {
	switch m.Type {
	case "virtiofs", "9p", "overlay", "tmpfs", "proc", "sysfs", "devtmpfs", "devpts", "nfs", "nfs4", "cifs", "ramfs", "ubifs", "jffs2":
		return false
	}
	return isDeviceSpec(m.Source) && (strings.HasPrefix(m.Source, "/dev/") || strings.ContainsAny(m.Source, "=:"))
}

// openTarget makes the mount point where it is missing and opens it; path is
// where that really is. The caller closes it.
func openTarget(m Mount, o options) (fd int, path string, err error) {
	target := filepath.Clean(m.Target)
	file := false
	if o.bind != 0 {
		var st unix.Stat_t
		if err := unix.Stat(m.Source, &st); err != nil {
			return -1, "", fmt.Errorf("look at what is bound: %w", err)
		}
		file = st.Mode&unix.S_IFMT != unix.S_IFDIR
	}
	var st unix.Stat_t
	if err := unix.Stat(target, &st); errors.Is(err, unix.ENOENT) {
		dir := target
		if file {
			dir = filepath.Dir(target)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return -1, "", fmt.Errorf("make the mount point: %w", err)
		}
		if file {
			fd, err := unix.Open(target, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
			if err != nil {
				return -1, "", fmt.Errorf("make the mount point: %w", err)
			}
			unix.Close(fd)
		}
	}
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !file {
		flags |= unix.O_DIRECTORY
	}
	if fd, err = unix.Open(target, flags, 0); err != nil {
		return -1, "", fmt.Errorf("open the mount point: %w", err)
	}
	if path, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err != nil {
		if path, err = filepath.EvalSymlinks(target); err != nil {
			unix.Close(fd)
			return -1, "", fmt.Errorf("find the mount point: %w", err)
		}
	}
	return fd, path, nil
}

// mountedAt says whether something is mounted at a path, and whether that is m.
func mountedAt(path string, m Mount) (mounted, same bool) {
	list, err := mountsOf()
	if err != nil {
		return false, false
	}
	for _, p := range list { // the last one is on top
		if p.Target != path {
			continue
		}
		mounted = true
		same = p.Type == m.Type && (p.Source == m.Source || !m.hasSource() || sameDevice(p.Device, m.Source))
	}
	return mounted, same
}

// hasSource says whether the source tells one file system of the type from
// another: a device, a tag, a share. For others, as tmpfs, it is a mere name.
func (m Mount) hasSource() bool {
	return m.Type == "virtiofs" || m.Type == "9p" || strings.HasPrefix(m.Source, "/") || m.Network() && strings.Contains(m.Source, ":")
}

func sameDevice(number, path string) bool {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return false
	}
	return number == fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
}

// makeOverlayDirs makes the folders that an overlay writes to.
func makeOverlayDirs(data string) error {
	for _, word := range splitOptions(data) {
		k, dir, _ := strings.Cut(word, "=")
		if k != "upperdir" && k != "workdir" {
			continue
		}
		if !strings.HasPrefix(dir, "/") {
			return fmt.Errorf("%s %q is no absolute path", k, dir)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", k, err)
		}
	}
	return nil
}

// remount gives what is mounted at a path new options; flags that no word is
// about stay. With writable it becomes so unless it is to be ro.
func (h hands) remount(path string, o options, writable bool) error {
	flags, err := flagsOf(path)
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if writable {
		flags &^= unix.MS_RDONLY
	}
	flags = flags&^o.cleared | o.flags
	err = within(h.limit, nil, nil, func() error {
		return h.mount("", path, "", unix.MS_REMOUNT|flags, o.data)
	})
	if err != nil {
		return fmt.Errorf("mount it again: %w", err)
	}
	return nil
}

// flagsOf turns what statfs(2) says into flags of mount(2).
func flagsOf(path string) (flags uintptr, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	for _, f := range [...][2]uintptr{
		{unix.ST_RDONLY, unix.MS_RDONLY}, {unix.ST_NOSUID, unix.MS_NOSUID}, {unix.ST_NODEV, unix.MS_NODEV},
		{unix.ST_NOEXEC, unix.MS_NOEXEC}, {unix.ST_SYNCHRONOUS, unix.MS_SYNCHRONOUS}, {unix.ST_MANDLOCK, unix.MS_MANDLOCK},
		{unix.ST_NOATIME, unix.MS_NOATIME}, {unix.ST_NODIRATIME, unix.MS_NODIRATIME}, {unix.ST_RELATIME, unix.MS_RELATIME},
		{0x2000, unix.MS_NOSYMFOLLOW},
	} {
		if uintptr(st.Flags)&f[0] != 0 {
			flags |= f[1]
		}
	}
	return flags, nil
}

// RemountRoot makes the root writable, or read-only; its other flags stay. It
// is an error of 90 seconds if that hangs.
func RemountRoot(rw bool) error {
	o := options{flags: unix.MS_RDONLY}
	if rw {
		o = options{cleared: unix.MS_RDONLY}
	}
	if err := kernel.remount("/", o, rw); err != nil {
		return fmt.Errorf("make the root %s: %w", map[bool]string{true: "writable", false: "read-only"}[rw], err)
	}
	return nil
}
