package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A seed file has seedSize bytes, and after them seedGood if they were taken
// from a pool that was ready and nobody has used them.
const (
	seedSize = 512
	seedGood = "pazinit seed, not used\n"
)

// LoadSeed gives the kernel the entropy that [SaveSeed] kept in path, once, and
// keeps new entropy there for the next boot: the file is replaced, on the disk,
// before its content is used, and it is credited only if that succeeded, if the
// file says that nobody used it and if nobody but root could read it. It is
// credited on a file system of a local disk alone: what is in memory (an
// initramfs's, or in an overlay, which may be) is the same at each boot, and what
// is shared (9p, virtiofs, NFS and the like) others may have read or use as well.
// A file that is missing is made.
//
// Call it when the file system is writable, and before anything that needs
// random numbers.
func LoadSeed(path string) error {
	return loadSeed(path, addEntropy, readyChance, staysOnDisk)
}

// SaveSeed writes a new seed to path, readable by root alone: at the end of a
// machine, so that the next boot does not begin with what this one began with.
func SaveSeed(path string) error {
	if err := saveSeed(path, readyChance); err != nil {
		return fmt.Errorf("save entropy seed: %w", err)
	}
	return nil
}

func loadSeed(path string, add func(bits int, b []byte) error, ready func(int) ([]byte, bool), stays func(string) bool) error {
	old, private, err := readSeed(path)
	if errors.Is(err, fs.ErrNotExist) {
		return saveSeedOf(path, ready)
	}
	if err != nil {
		return fmt.Errorf("read entropy seed: %w", err)
	}
	good := bytes.HasSuffix(old, []byte(seedGood)) && len(old) == seedSize+len(seedGood) && private && stays(path)
	// What replaces it is as hard to guess as it is itself, also while the
	// kernel's pool is empty.
	replaced := replaceFile(path, mixed(old, chance(seedSize)), 0o600)
	bits := 0
	if good && replaced == nil {
		bits = 256 // all that the pool can hold (POOL_BITS, drivers/char/random.c)
	}
	added := add(bits, old)
	if replaced != nil {
		return errors.Join(fmt.Errorf("replace entropy seed: %w; it is not credited", replaced), added)
	}
	if added != nil {
		return added
	}
	return saveSeedOf(path, ready)
}

func saveSeedOf(path string, ready func(int) ([]byte, bool)) error {
	if err := saveSeed(path, ready); err != nil {
		return fmt.Errorf("save entropy seed: %w", err)
	}
	return nil
}

func saveSeed(path string, ready func(int) ([]byte, bool)) error {
	b, good := ready(seedSize)
	if !good {
		b = chance(seedSize)
	}
	if old, _, err := readSeed(path); err == nil {
		b = mixed(b, old)
	}
	if good {
		b = append(b, seedGood...)
	}
	return replaceFile(path, b, 0o600)
}

// readSeed reads a seed, also another program's, and whether root alone could.
func readSeed(path string) (b []byte, private bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, false, fmt.Errorf("%s is no file: %w", path, os.ErrInvalid)
	}
	b, err = io.ReadAll(io.LimitReader(f, 4096))
	return b, st.Mode&0o077 == 0 && int(st.Uid) == os.Geteuid(), err
}

// mixed is seedSize bytes of a, each with one of b's.
func mixed(a, b []byte) []byte {
	c := make([]byte, seedSize)
	copy(c, a)
	for i := range min(len(b), seedSize) {
		c[i] ^= b[i]
	}
	return c
}

// staysOnDisk reports whether the file system of path is one that the next boot
// finds again, and nobody else.
func staysOnDisk(path string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false
	}
	return isLocalDisk(uint32(st.Type))
}

// isLocalDisk knows the file systems that are of one machine, by the magic number
// of statfs(2).
func isLocalDisk(magic uint32) bool {
	switch magic {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.NILFS_SUPER_MAGIC,
		unix.REISERFS_SUPER_MAGIC, unix.JFFS2_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC, unix.EXFAT_SUPER_MAGIC, ubifsMagic:
		return true
	}
	return false
}

const ubifsMagic = 0x24051905 // fs/ubifs/ubifs-media.h

// addEntropy mixes b into the kernel's pool and credits it with bits
// (RNDADDENTROPY, random(4), needs CAP_SYS_ADMIN).
func addEntropy(bits int, b []byte) error {
	fd, err := unix.Open("/dev/urandom", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("add entropy: %w", err)
	}
	defer unix.Close(fd)
	arg := make([]byte, 8+len(b)+4) // struct rand_pool_info: bits, bytes, bytes
	binary.NativeEndian.PutUint32(arg, uint32(bits))
	binary.NativeEndian.PutUint32(arg[4:], uint32(len(b)))
	copy(arg[8:], b)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&arg[0]))); errno != 0 {
		return fmt.Errorf("add entropy: %w", errno)
	}
	return nil
}

// readyChance returns n random bytes, if the kernel's pool is ready.
func readyChance(n int) ([]byte, bool) {
	b := make([]byte, n)
	return b, getRandom(b, unix.GRND_NONBLOCK) == nil
}

// chance returns n random bytes, good ones or not: it never waits.
func chance(n int) []byte {
	b := make([]byte, n)
	if getRandom(b, unix.GRND_INSECURE) == nil { // since 5.6
		return b
	}
	if fd, err := unix.Open("/dev/urandom", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		_, _ = unix.Read(fd, b)
		unix.Close(fd)
	}
	return b
}

func getRandom(b []byte, flags int) error {
	for len(b) > 0 {
		n, err := unix.Getrandom(b, flags)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// replaceFile puts a file with data in the place of path, on the disk, so that
// there is the old one or the new one, whatever happens.
func replaceFile(path string, data []byte, mode os.FileMode) error {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp)
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
