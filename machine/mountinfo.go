package machine

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPoint is a line of proc_pid_mountinfo(5).
type mountPoint struct {
	ID, Parent   int
	Device       string // MAJOR:MINOR
	Root         string // what of the file system is seen
	Target       string
	Options      string // of the mount
	Type         string
	Source       string
	SuperOptions string // of the file system
}

// mountsOf reads the mounts of this process, parents first.
func mountsOf() ([]mountPoint, error) {
	b, err := readBounded("/proc/self/mountinfo", 16<<20)
	if err != nil {
		return nil, err
	}
	return parseMountinfo(string(b)), nil
}

// parseMountinfo leaves out lines that it does not understand.
func parseMountinfo(s string) (out []mountPoint) {
	for line := range strings.Lines(s) {
		left, right, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		l, r := strings.Split(left, " "), strings.Split(right, " ")
		if !ok || len(l) < 6 || len(r) < 3 {
			continue
		}
		id, ok1 := number(l[0])
		parent, ok2 := number(l[1])
		if !ok1 || !ok2 {
			continue
		}
		out = append(out, mountPoint{
			ID: id, Parent: parent, Device: l[2], Root: unescape(l[3]), Target: unescape(l[4]), Options: l[5],
			Type: unescape(r[0]), Source: unescape(r[1]), SuperOptions: r[2],
		})
	}
	return out
}

// number reads a decimal number of at most nine digits.
func number(s string) (n int, ok bool) {
	if s == "" || len(s) > 9 {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// unescape puts \040 and the like back, as the kernel's mangle() and fstab(5)
// write blanks. What is no byte in three octal digits stays.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] <= '3' && isOctal(s[i+1]) && isOctal(s[i+2]) && isOctal(s[i+3]) {
			out = append(out, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

// isMountPoint says whether something is mounted right there. Linux 5.8 says so
// itself; before, the parent is on another device.
func isMountPoint(path string) bool {
	var sx unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_TYPE, &sx) == nil && sx.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return sx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	}
	var here, above unix.Stat_t
	return unix.Stat(path, &here) == nil && unix.Stat(path+"/..", &above) == nil && (here.Dev != above.Dev || here.Ino == above.Ino)
}

// readBounded reads a file of at most limit bytes; a longer one is EFBIG.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = &os.PathError{Op: "read", Path: path, Err: unix.EFBIG}
	}
	return b, err
}
