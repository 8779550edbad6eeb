package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxSunPath is the longest path that sockaddr_un takes, its NUL aside (unix(7)).
const maxSunPath = 107

// A Peer is who speaks: the process at the other end of the socket, as it was
// when it connected (SO_PEERCRED), or whoever wrote to the FIFO.
type Peer struct {
	PID    int // 0 when it lives in a PID namespace that cannot be seen from here
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary ones; none when the kernel does not tell (before 4.13)
	FIFO   bool     // a line of the FIFO, which only the owner can write to; UID and GID are then the supervisor's own
}

// peerOf asks the kernel who is at the other end of fd.
func peerOf(fd int) (Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	return Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid, Groups: peerGroups(fd)}, nil
}

// peerGroups returns the supplementary groups of fd's peer. /proc/PID/status is
// no substitute: the pid may be another process's by now, and groups are power.
func peerGroups(fd int) []uint32 {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		n := int(size / 4)
		switch {
		case errno == unix.ERANGE && n > len(groups) && n <= 1<<16: // NGROUPS_MAX
			groups = make([]uint32, n)
		case errno != 0 || n > len(groups):
			return nil
		default:
			return groups[:n:n]
		}
	}
}

// withSockaddr calls do with an address for path. A path too long for a
// sockaddr is reached through its folder's descriptor, which needs /proc.
func withSockaddr(path string, do func(unix.Sockaddr) error) error {
	if len(path) <= maxSunPath {
		return do(&unix.SockaddrUnix{Name: path})
	}
	dir, name := filepath.Split(path)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	short := "/proc/self/fd/" + strconv.Itoa(fd) + "/" + name
	if len(short) > maxSunPath {
		return unix.ENAMETOOLONG
	}
	return do(&unix.SockaddrUnix{Name: short})
}

// connect returns a connected, non-blocking socket.
func connect(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	err = withSockaddr(path, func(sa unix.Sockaddr) error {
		for {
			if err := unix.Connect(fd, sa); !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// gone reports whether nobody can read any more what is written to the stream
// socket fd. A peer that has only finished sending is still there.
func gone(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}

// DefaultSocket is where the supervisor of user uid has its socket when nothing
// else is said: /run/pazinit for root, else pazinit in $XDG_RUNTIME_DIR, else
// /tmp/pazinit-UID.
func DefaultSocket(uid int, env func(string) string) string {
	if uid == 0 {
		return "/run/pazinit/pazinit.sock"
	}
	if dir := env("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "pazinit", "pazinit.sock")
	}
	return "/tmp/pazinit-" + strconv.Itoa(uid) + "/pazinit.sock"
}

// A FolderError says that the socket's folder cannot be used. The supervisor
// can do without a socket when the folder is missing or read-only; Unsafe means
// that somebody else could put a socket of theirs in the place of ours.
type FolderError struct {
	Path   string
	Unsafe bool
	Err    error
}

func (e *FolderError) Error() string { return "use folder " + e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FolderError) Unwrap() error { return e.Err }

// openFolder makes dir if it is missing, checks that it can be trusted, and
// returns its descriptor. mode is for a folder that it makes.
func openFolder(dir string, mode uint32) (int, error) {
	fail := func(unsafe bool, err error) (int, error) {
		return -1, &FolderError{Path: dir, Unsafe: unsafe, Err: err}
	}
	shared, err := makeFolder(dir, mode)
	if err == nil {
		var real string
		if real, err = filepath.EvalSymlinks(dir); err == nil && real != dir {
			var there bool // a link of ours may lead to where everybody may write
			there, err = makeFolder(real, mode)
			shared = shared || there
			dir = real
		}
	}
	if err != nil {
		return fail(errors.As(err, new(unsafeError)), err)
	}
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	if shared {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(dir, flags, 0)
	if err != nil {
		return fail(false, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		err = trusted(&st, shared)
	}
	if err != nil {
		unix.Close(fd)
		return fail(errors.As(err, new(unsafeError)), err)
	}
	return fd, nil
}

type unsafeError string

func (e unsafeError) Error() string { return string(e) }

// trusted says why a folder with status st must not hold the socket. shared
// means that everybody may make names in a folder above it.
func trusted(st *unix.Stat_t, shared bool) error {
	own := uint32(unix.Geteuid())
	switch {
	case st.Mode&unix.S_IWOTH != 0:
		return unsafeError("everybody may write to it")
	case shared && st.Uid != own:
		return unsafeError(fmt.Sprintf("it lies where everybody may write, and belongs to uid %d, not %d", st.Uid, own))
	case shared && st.Mode&0o077 != 0:
		return unsafeError(fmt.Sprintf("it lies where everybody may write, and has mode %04o, not 0700", st.Mode&0o7777))
	}
	return nil
}

// makeFolder makes what is missing of dir (parents 0755, dir itself mode), and
// reports whether a folder above it can be written to by everybody.
func makeFolder(dir string, mode uint32) (shared bool, err error) {
	var st unix.Stat_t
	parent := filepath.Dir(dir)
	if parent != dir {
		if shared, err = makeFolder(parent, 0o755); err != nil {
			return shared, err
		}
		if err := unix.Stat(parent, &st); err != nil {
			return shared, err
		}
		if st.Mode&unix.S_IWOTH != 0 {
			shared = true
		} else if shared && st.Uid != 0 && st.Uid != uint32(unix.Geteuid()) {
			return shared, unsafeError(fmt.Sprintf("%s belongs to uid %d", parent, st.Uid))
		}
	}
	if shared {
		mode = 0o700
	}
	err = unix.Mkdir(dir, mode)
	switch {
	case err == nil:
		if shared { // somebody may have put a link in its place already
			return shared, nil
		}
		return shared, unix.Chmod(dir, mode) // what the umask took away
	case shared && unix.Lstat(dir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return shared, unsafeError(dir + " is a link where everybody may write")
	case unix.Stat(dir, &st) == nil: // EEXIST, or EROFS and EACCES for one that is there
		return shared, nil
	}
	return shared, err
}

// fileID names an inode.
type fileID struct{ dev, ino uint64 }

func idOf(st *unix.Stat_t) fileID { return fileID{st.Dev, st.Ino} }

// removeOwn removes name from the folder if it still is the inode id.
func removeOwn(dirfd int, name string, id fileID) {
	var st unix.Stat_t
	if unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && idOf(&st) == id {
		unix.Unlinkat(dirfd, name, 0)
	}
}

// InUseError says that another supervisor answers on the socket.
type InUseError struct {
	Path string
	PID  int // 0 when it cannot be told: it lives in another PID namespace
}

func (e *InUseError) Error() string {
	who := "a supervisor of another PID namespace"
	if e.PID > 0 {
		who = "pid " + strconv.Itoa(e.PID)
	}
	return "listen on " + e.Path + ": in use by " + who
}

// lockSocket takes the lock file beside the socket for as long as the
// descriptor is open. The file carries the owner's pid, for the moment in which
// a second supervisor meets a first that does not listen yet.
func lockSocket(dirfd int, path string) (fd int, id fileID, err error) {
	name := filepath.Base(path) + ".lock"
	for range 100 { // an owner that ends removes the file: then ours is not the one that others see
		fd, err = unix.Openat(dirfd, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return -1, id, fmt.Errorf("open %s: %w", path+".lock", err)
		}
		var st, now unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1 || st.Uid != uint32(unix.Geteuid())) {
			if st.Nlink == 0 {
				unix.Close(fd)
				continue
			}
			err = fmt.Errorf("open %s: no file of ours", path+".lock")
		}
		if err == nil {
			err = flock(fd)
			switch {
			case errors.Is(err, unix.EWOULDBLOCK):
				err = &InUseError{Path: path, PID: ownerPID(fd, path)}
			case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
				err = nil // a file system without locks: what is left is to ask the socket
			}
		}
		if err != nil {
			unix.Close(fd)
			return -1, id, err
		}
		if unix.Fstatat(dirfd, name, &now, unix.AT_SYMLINK_NOFOLLOW) == nil && idOf(&now) == idOf(&st) {
			unix.Ftruncate(fd, 0)
			unix.Pwrite(fd, strconv.AppendInt(nil, int64(unix.Getpid()), 10), 0)
			return fd, idOf(&st), nil
		}
		unix.Close(fd)
	}
	return -1, id, fmt.Errorf("lock %s: it changes all the time", path+".lock")
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// ownerPID finds the pid of the supervisor that holds the lock fd: from the
// socket, which the kernel vouches for, else from the lock file.
func ownerPID(fd int, path string) int {
	if pid, _ := listenerPID(path); pid > 0 {
		return pid
	}
	b := make([]byte, 16)
	n, _ := unix.Pread(fd, b, 0)
	pid, _ := strconv.Atoi(string(b[:max(n, 0)]))
	return pid
}

// listenerPID connects to path and returns the pid of who listens there.
func listenerPID(path string) (int, error) {
	fd, err := connect(path)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	p, err := peerOf(fd)
	return p.PID, err
}

// listenAt makes the socket at path: in one step, over a stale one if need be,
// with its mode and owner from the first instant, and listening already.
func listenAt(dirfd int, path string, mode uint32, uid, gid int) (fd int, id fileID, err error) {
	name := filepath.Base(path)
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
			return -1, id, fmt.Errorf("listen on %s: %w", path, errNoSocket)
		}
		pid, err := listenerPID(path)
		if err == nil || errors.Is(err, unix.EAGAIN) { // EAGAIN: its queue is full
			return -1, id, &InUseError{Path: path, PID: pid}
		}
	}

	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, id, fmt.Errorf("make socket: %w", err)
	}
	tmp := "." + name + ".new"
	tmpPath := filepath.Join(filepath.Dir(path), tmp)
	fail := func(what string, err error) (int, fileID, error) {
		unix.Close(fd)
		unix.Unlinkat(dirfd, tmp, 0)
		return -1, id, fmt.Errorf("%s socket %s: %w", what, path, err)
	}
	unix.Unlinkat(dirfd, tmp, 0) // left by a supervisor that was killed just here: the lock is ours
	// bind gives the name the mode of the socket's own inode, less the umask.
	if err := unix.Fchmod(fd, mode&0o600); err != nil {
		return fail("restrict", err)
	}
	if err := withSockaddr(tmpPath, func(sa unix.Sockaddr) error { return unix.Bind(fd, sa) }); err != nil {
		return fail("bind", err)
	}
	if err := unix.Fstatat(dirfd, tmp, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fail("bind", err)
	}
	id = idOf(&st)
	if uid >= 0 || gid >= 0 {
		if err := unix.Fchownat(dirfd, tmp, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fail("give away", err)
		}
	}
	if st.Mode&0o777 != mode {
		if err := unix.Fchmodat(dirfd, tmp, mode, 0); err != nil {
			return fail("set mode of", err)
		}
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return fail("listen on", err)
	}
	if err := unix.Renameat(dirfd, tmp, dirfd, name); err != nil {
		return fail("name", err)
	}
	return fd, id, nil
}

var errNoSocket = errors.New("there is something else than a socket")

// accept returns the next connection of l, non-blocking and close-on-exec.
func accept(l *os.File) (fd int, err error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return -1, err
	}
	var aerr error
	err = raw.Read(func(lfd uintptr) bool {
		for {
			fd, _, aerr = unix.Accept4(int(lfd), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if aerr != unix.EINTR && aerr != unix.ECONNABORTED {
				return aerr != unix.EAGAIN
			}
		}
	})
	runtime.KeepAlive(l)
	if err == nil {
		err = aerr
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}
