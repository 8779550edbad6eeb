package machine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Root is the root file system that an initramfs moves to.
type Root struct {
	Spec  string // as root= of the kernel command line, or the tag of Type virtiofs or 9p
	Type  string // rootfstype=, tried in their order if separated by commas; "": what the device holds
	Flags string // rootflags=
	RW    bool
	Wait  time.Duration // for a late device; negative: for ever (rootwait)
	Init  []string      // path in the new root and its arguments; empty: the first of /sbin/pazinit, /sbin/init, /etc/init, /bin/init
	Args  []string      // for init, after those of Init: what the kernel gave the initramfs's
	Env   []string      // for init; nil: the environment as it is
	Say   func(string)  // gets what is worth a line; may be nil

	// Exec replaces execve(2), for who has to put signals right before it; nil
	// is execve(2).
	Exec func(path string, argv, env []string) error
}

// InInitramfs says whether the root is the kernel's own in memory, where an
// initramfs was unpacked. A container's root in memory is none.
func InInitramfs() bool {
	list, err := mountsOf()
	return err == nil && isInitramfs(list)
}

// isInitramfs asks for the one file system of that type, whole, at the top.
func isInitramfs(list []mountPoint) bool {
	root := rootOf(list)
	return root.Type == "rootfs" && root.Root == "/" && inMemory("/")
}

func inMemory(path string) bool {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	return err == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC)
}

// moved are the mounts that go along to the new root.
var moved = [...]string{"/dev", "/proc", "/sys", "/run"}

const newRoot = "/sysroot"

// SwitchRoot leaves the initramfs: it finds the root, says what its superblock
// says of its state, mounts it at /sysroot, looks whether its init can be
// executed at all, moves /dev, /proc, /sys and /run there (lazily unmounts
// those that have no folder there, and everything else that is mounted), makes
// it the root, deletes the files of the initramfs, which frees their memory,
// and executes init. Every symbolic link of the new root is followed inside of
// it. Nothing is deleted, and that is said, if something that stays mounted
// still reads the initramfs: an overlay with a layer there, a bind mount of a
// part of it, a FUSE server. A file of it that is a loop device may go: its
// content lives as long as the device.
//
// It does so only as PID 1 and [InInitramfs]: whatever else there is, nothing
// of it can be deleted. Checking the file system is not done, only what it says
// of itself.
//
// It returns only on an error. Until the new root is the root everything is
// undone; after that only deleting and the execution can fail, and the caller
// stands in the new root. The thread must be the one that the caller wants to
// become the new init: Exec is called on it.
func SwitchRoot(r Root) error {
	if r.Say == nil {
		r.Say = sayNothing
	}
	h := kernel
	if r.Exec != nil {
		h.exec = r.Exec
	}
	if err := inMachine(); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	if !InInitramfs() {
		return errors.New("switch root: the root is no initramfs")
	}
	return h.switchRoot(system, r)
}

func (h hands) switchRoot(f finder, r Root) error {
	if err := h.mountRoot(f, r); err != nil {
		return fmt.Errorf("mount root=%s: %w", printable(r.Spec), err)
	}
	init, err := h.enterRoot(r)
	if err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	env := r.Env
	if env == nil {
		env = os.Environ()
	}
	if err := h.exec(init[0], append(slices.Clip(init), r.Args...), env); err != nil {
		return fmt.Errorf("execute %s of the new root: %w", init[0], err)
	}
	return nil
}

// mountRoot mounts the root at newRoot.
func (h hands) mountRoot(f finder, r Root) error {
	m := Mount{Source: r.Spec, Target: newRoot, Wait: r.Wait, Options: []string{r.Flags}}
	o, err := parseOptions(m.Options)
	if err != nil {
		return err
	}
	// ro and rw of the kernel command line beat rootflags=.
	if o.flags &^= unix.MS_RDONLY; !r.RW {
		o.flags |= unix.MS_RDONLY
	}
	if o.bind != 0 {
		return errors.New("the root cannot be bound")
	}
	if r.Spec == "" {
		return errors.New("no device is named")
	}
	begin := time.Now()
	types := strings.Split(r.Type, ",")
	if wantsDevice(Mount{Source: "/dev/x", Type: types[0]}) {
		d, err := f.find(r.Spec, r.Wait, r.Say)
		if err != nil {
			return err
		}
		m.Source = d.Path
	}
	var errs []error
	for _, t := range types {
		m.Type = t
		err := h.mountOne(f, m, o, rest(begin, r.Wait), r.Say)
		if err == nil {
			return nil
		}
		if len(types) > 1 {
			err = fmt.Errorf("as %s: %w", t, err)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// enterRoot makes newRoot the root and deletes the old one's files.
func (h hands) enterRoot(r Root) (init []string, err error) {
	undo := []func(){func() { _ = h.unmount(newRoot, unix.MNT_DETACH) }}
	old, err1 := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	root, err2 := unix.Open(newRoot, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(undo) {
				f()
			}
		}
		unix.Close(old)
		unix.Close(root)
	}()
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("open both roots: %w", err)
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(old, &a), unix.Fstat(root, &b)); err != nil {
		return nil, err
	}
	if a.Dev == b.Dev {
		return nil, errors.New("the new root is the initramfs itself")
	}
	if init, err = chooseInit(root, r.Init); err != nil {
		return nil, err
	}

	list, err := mountsOf()
	if err != nil {
		return nil, err
	}
	user := layerIn(list, a.Dev) // before /run moves, where others may lie
	stay := func(target string) bool { return target == "/" || under(target, newRoot) }
	for _, dir := range moved {
		if !slices.ContainsFunc(list, func(m mountPoint) bool { return m.Target == dir }) {
			continue
		}
		back, err := moveInto(root, dir)
		if err != nil {
			r.Say(fmt.Sprintf("move %s to the new root: %v; its init has to mount it", dir, err))
			continue
		}
		undo = append(undo, back)
		before := stay
		stay = func(target string) bool { return before(target) || under(target, dir) }
	}

	if user == "" {
		user = partOf(list, a.Dev, stay)
	}

	if err := unix.Fchdir(root); err != nil {
		return nil, fmt.Errorf("go to the new root: %w", err)
	}
	undo = append(undo, func() { _ = unix.Chdir("/") })
	if err := h.mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return nil, fmt.Errorf("move the new root: %w", err)
	}
	// From here there is no way back: the initramfs is covered.
	undo = nil
	if err := unix.Chroot("."); err != nil {
		return nil, fmt.Errorf("change to the new root: %w", err)
	}
	if err := unix.Fchdir(old); err == nil {
		for _, m := range list {
			if !stay(m.Target) {
				_ = h.unmount(strings.TrimPrefix(m.Target, "/"), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			}
		}
	}
	if err := unix.Chdir("/"); err != nil {
		return nil, fmt.Errorf("go to the new root: %w", err)
	}
	if user != "" {
		r.Say("the initramfs stays in memory: " + user)
		return init, nil
	}
	left, err := freeInitramfs(old)
	if err != nil {
		r.Say(fmt.Sprintf("the memory of the initramfs is not free: %v", err))
	} else if left > 0 {
		r.Say(fmt.Sprintf("the memory of the initramfs is not free: %d files cannot be deleted", left))
	}
	return init, nil
}

// layerIn returns the first overlay that has a layer on a device, "" if there is
// none. A layer that is not there any more may be anywhere.
func layerIn(list []mountPoint, dev uint64) string {
	for _, m := range list {
		if m.Type != "overlay" {
			continue
		}
		for _, word := range splitOptions(m.SuperOptions) {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir":
			default:
				continue
			}
			for _, dir := range layers(unescape(value)) {
				var st unix.Stat_t
				if unix.Stat(dir, &st) != nil || st.Dev == dev {
					return fmt.Sprintf("the overlay on %s has the layer %s there", printable(m.Target), printable(dir))
				}
			}
		}
	}
	return ""
}

// layers splits at colons that no backslash escapes (ovl_next_opt and
// ovl_split_lowerdirs, fs/overlayfs). Two colons come before a layer of data.
func layers(s string) (out []string) {
	var dir []byte
	for i := 0; i <= len(s); i++ {
		switch {
		case i == len(s) || s[i] == ':':
			if len(dir) > 0 {
				out = append(out, string(dir))
			}
			dir = nil
		case s[i] == '\\' && i+1 < len(s):
			i++
			fallthrough
		default:
			dir = append(dir, s[i])
		}
	}
	return out
}

// partOf returns the first mount that stays and is a part of a device that is not
// the root, or that a process serves which may live there; "" if there is none.
func partOf(list []mountPoint, dev uint64, stay func(target string) bool) string {
	number := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	for _, m := range list {
		switch {
		case m.Target == "/" || !stay(m.Target):
		case m.Device == number:
			return fmt.Sprintf("%s is a part of it", printable(m.Target))
		case m.Type == "fuse" || m.Type == "fuseblk" || strings.HasPrefix(m.Type, "fuse."):
			return fmt.Sprintf("a process of it serves %s (%s)", printable(m.Target), m.Type)
		}
	}
	return ""
}

func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// inRoot opens a path as a process in that root would, symbolic links and all
// (openat2(2), Linux 5.6).
func inRoot(root int, path string, flags uint64) (fd int, err error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range 100 { // while something is renamed
		if fd, err = unix.Openat2(root, path, how); !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return fd, err
}

// moveInto moves what is mounted on dir to the folder of that name in root; back
// moves it back.
func moveInto(root int, dir string) (back func(), err error) {
	to, err := inRoot(root, dir, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		if err = unix.Mkdirat(root, strings.TrimPrefix(dir, "/"), 0o755); err == nil {
			to, err = inRoot(root, dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		}
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(to)
	if err := unix.MoveMount(unix.AT_FDCWD, dir, to, "", unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return nil, err
	}
	return func() {
		if fd, err := inRoot(root, dir, unix.O_PATH|unix.O_DIRECTORY); err == nil {
			_ = unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
			unix.Close(fd)
		}
	}, nil
}

// chooseInit returns the first init that could be executed, and its arguments.
func chooseInit(root int, want []string) ([]string, error) {
	if len(want) > 0 {
		if err := checkProgram(root, want[0], 0); err != nil {
			return nil, fmt.Errorf("init %s: %w", want[0], err)
		}
		return want, nil
	}
	var errs []error
	for _, path := range [...]string{"/sbin/pazinit", "/sbin/init", "/etc/init", "/bin/init"} {
		err := checkProgram(root, path, 0)
		if err == nil {
			return []string{path}, nil
		}
		errs = append(errs, fmt.Errorf("init %s: %w", path, err))
	}
	return nil, errors.Join(errs...)
}

// checkProgram says what execve(2) would say of a program in root, and of the
// interpreters that it names: once the initramfs is deleted there is nobody left
// to say it to. It follows fs/binfmt_elf.c and fs/binfmt_script.c.
func checkProgram(root int, path string, depth int) error {
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("%q is no absolute path", path)
	}
	if depth > 4 {
		return unix.ELOOP
	}
	at, err := inRoot(root, path, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	var sfs unix.Statfs_t
	if err := errors.Join(unix.Fstat(at, &st), unix.Fstatfs(at, &sfs)); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("it is no file")
	case st.Mode&0o111 == 0:
		return errors.New("it is not executable")
	case sfs.Flags&unix.ST_NOEXEC != 0:
		return errors.New("its file system is mounted noexec")
	}
	fd, err := inRoot(root, path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	head := make([]byte, 4096)
	n, err := descriptor(fd).ReadAt(head, 0)
	if n == 0 && st.Size > 0 {
		return err
	}
	interpreter, err := interpreterOf(descriptor(fd), head[:n])
	if err != nil || interpreter == "" {
		return err
	}
	if err := checkProgram(root, interpreter, depth+1); err != nil {
		return fmt.Errorf("its interpreter %s: %w", interpreter, err)
	}
	return nil
}

// interpreterOf is what a program names to run it, or "". Head is its begin.
func interpreterOf(r descriptor, head []byte) (string, error) {
	if has(head, 0, "#!") {
		line, _, _ := strings.Cut(string(head[2:min(len(head), 256)]), "\n")
		if f := strings.Fields(line); len(f) > 0 {
			return f[0], nil
		}
		return "", unix.ENOEXEC
	}
	if !has(head, 0, "\x7fELF") || len(head) < 64 {
		return "", unix.ENOEXEC
	}
	if head[4] != 2 || head[5] != 1 { // not 64 bits, little endian: the kernel may be able to
		return "", nil
	}
	if machine := map[string]uint16{"amd64": 62, "arm64": 183}[runtime.GOARCH]; machine != 0 && machine != le16(head, 18) {
		return "", fmt.Errorf("it is a program for another processor (ELF machine %d, and not %d)", le16(head, 18), machine)
	}
	at, width, rows := le64(head, 32), int(le16(head, 54)), int(le16(head, 56))
	if width < 56 || width > 1024 || rows > 256 || at > 1<<40 {
		return "", unix.ENOEXEC
	}
	row := make([]byte, width)
	for i := range rows {
		if n, _ := r.ReadAt(row, int64(at)+int64(i*width)); n < width {
			return "", unix.ENOEXEC
		}
		if size := le64(row, 32); le32(row, 0) == 3 && size > 1 && size < unix.PathMax && le64(row, 8) < 1<<40 {
			name := make([]byte, size)
			if n, _ := r.ReadAt(name, int64(le64(row, 8))); n < len(name) {
				return "", unix.ENOEXEC
			}
			return text(name), nil
		}
	}
	return "", nil
}

// freeInitramfs deletes everything below a folder that must be the top of a file
// system in memory, and no longer the root. It goes to no other file system.
// Left is how many could not be deleted. The descriptor stays open.
func freeInitramfs(fd int) (left int, err error) {
	var old, root unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &old), unix.Stat("/", &root)); err != nil {
		return 0, err
	}
	if old.Dev == root.Dev {
		return 0, errors.New("it is still the root")
	}
	return deleteIn(fd, old.Dev)
}

// deleteIn deletes what is in the folder, as far as it is in memory and on the
// device.
func deleteIn(fd int, dev uint64) (left int, err error) {
	var st unix.Stat_t
	var sfs unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &sfs)); err != nil {
		return 0, err
	}
	if sfs.Type != unix.TMPFS_MAGIC && sfs.Type != unix.RAMFS_MAGIC || st.Dev != dev {
		return 0, errors.New("it is no file system in memory")
	}
	buf := make([]byte, 8<<10)
	for gone := 1; gone > 0; { // again, for what was skipped because others went
		gone, left = 0, 0
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			return 0, err
		}
		for {
			n, err := unix.ReadDirent(fd, buf)
			if err != nil {
				return left, err
			}
			if n == 0 {
				break
			}
			_, _, names := unix.ParseDirent(buf[:n], -1, nil)
			for _, name := range names {
				if deleteOne(fd, name, dev) {
					gone++
				} else {
					left++
				}
			}
		}
	}
	return left, nil
}

// deleteOne deletes a file, or a folder with what is in it.
func deleteOne(dir int, name string, dev uint64) bool {
	err := unix.Unlinkat(dir, name, 0)
	if !errors.Is(err, unix.EISDIR) {
		return err == nil
	}
	sub, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = deleteIn(sub, dev)
		unix.Close(sub)
	}
	if err != nil {
		return false
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) == nil
}

// execute is execve(2), with what Go has to do before it.
func execute(path string, argv, env []string) error { return syscall.Exec(path, argv, env) }
