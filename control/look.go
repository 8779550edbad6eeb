package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// LongPath reports whether the path of a socket is longer than an address takes
// (unix(7)). pazinit reaches it all the same, through /proc; other programs may not.
func LongPath(path string) bool { return len(path) > maxSunPath }

// Look says why [Listen] could not make its socket at path, and makes nothing.
// It does not ask whether a supervisor is there already. A [FolderError] is about
// the folder, as Listen's is.
func Look(path string) error {
	dir, name := filepath.Split(path)
	dir = filepath.Clean(dir)
	if err := lookFolder(dir); err != nil {
		return err
	}
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("listen on %s: %w", path, errNoSocket)
	}
	if unix.Lstat(path+".lock", &st) == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1 || st.Uid != uint32(unix.Geteuid())) {
		return fmt.Errorf("open %s: no file of ours", path+".lock")
	}
	const short = "/proc/self/fd/1234567/" // as withSockaddr does, with what listenAt puts around the name
	if tmp := "." + name + ".new"; LongPath(filepath.Join(dir, tmp)) {
		if len(short)+len(tmp) > maxSunPath {
			return fmt.Errorf("bind socket %s: %w", path, unix.ENAMETOOLONG)
		}
		if err := unix.Access("/proc/self/fd", unix.X_OK); err != nil {
			return fmt.Errorf("bind socket %s, longer than %d bytes: /proc/self/fd: %w", path, maxSunPath, err)
		}
	}
	return nil
}

// lookFolder is [openFolder] without its hands.
func lookFolder(dir string) error {
	fail := func(err error) error {
		return &FolderError{Path: dir, Unsafe: errors.As(err, new(unsafeError)), Err: err}
	}
	shared, there, err := lookDown(dir)
	if err != nil {
		return fail(err)
	}
	if !there {
		return nil
	}
	if real, err := filepath.EvalSymlinks(dir); err != nil {
		return fail(err)
	} else if real != dir {
		again, _, err := lookDown(real)
		if err != nil {
			return fail(err)
		}
		shared = shared || again
	}
	var st unix.Stat_t
	if err = unix.Stat(dir, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err == nil {
		err = trusted(&st, shared)
	}
	if err == nil {
		err = unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// lookDown is makeFolder for a folder that is not to be made: there tells
// whether it exists, and the error also whether what is missing can be made.
func lookDown(dir string) (shared, there bool, err error) {
	var st unix.Stat_t
	parent := filepath.Dir(dir)
	if parent != dir {
		if shared, there, err = lookDown(parent); err != nil || !there {
			return shared, there, err
		}
		if err := unix.Stat(parent, &st); err != nil {
			return shared, false, err
		}
		if st.Mode&unix.S_IWOTH != 0 {
			shared = true
		} else if shared && st.Uid != 0 && st.Uid != uint32(unix.Geteuid()) {
			return shared, false, unsafeError(fmt.Sprintf("%s belongs to uid %d", parent, st.Uid))
		}
	}
	err = unix.Lstat(dir, &st)
	switch {
	case err == nil && shared && st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return shared, false, unsafeError(dir + " is a link where everybody may write")
	case err == nil:
		return shared, true, unix.Stat(dir, &st)
	case errors.Is(err, os.ErrNotExist):
		err = unix.Faccessat(unix.AT_FDCWD, parent, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}
	return shared, false, err
}
