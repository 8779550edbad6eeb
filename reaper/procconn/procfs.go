package procconn

import (
	"bytes"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A stat is what /proc/PID/stat says of a process, proc_pid_stat(5).
type stat struct {
	pid, ppid int32
	state     byte
	threads   int32
	start     uint64 // ns of CLOCK_BOOTTIME, in steps of a tick
	comm      string
}

// userTick is 1/USER_HZ, which is 100 on all that Go runs on.
const userTick = 10_000_000

// over reports whether the first thread of the process has ended.
func (s stat) over() bool { return s.state == 'Z' || s.state == 'X' }

var errStat = errors.New("not what /proc/PID/stat has")

// parseStat reads a line of /proc/PID/stat. A comm may have anything in it.
func parseStat(b []byte) (s stat, err error) {
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || shut < open {
		return s, errStat
	}
	pid, err := strconv.ParseInt(string(b[:open-1]), 10, 32)
	if err != nil || pid <= 0 {
		return s, errStat
	}
	s.pid, s.comm = int32(pid), string(b[open+1:shut])
	field := 3 // the next one, as the man page counts
	for word := range bytes.FieldsSeq(b[shut+1:]) {
		var n uint64
		if field != 3 && word[0] != '-' {
			if n, err = strconv.ParseUint(string(word), 10, 64); err != nil {
				return s, errStat
			}
		}
		switch field {
		case 3:
			s.state = word[0]
		case 4:
			s.ppid = int32(n)
		case 20:
			s.threads = int32(n)
		case 22:
			s.start = n * userTick
			return s, nil
		}
		field++
	}
	return s, errStat
}

// readFile reads the begin of a small file of /proc.
func readFile(buf []byte, name string) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	return buf[:max(n, 0)], err
}

// procfs asks /proc. Its buffer makes it one goroutine's.
type procfs struct {
	buf [4096]byte
}

// stat reports of a process; ok is false when it is gone.
func (p *procfs) stat(pid int32) (s stat, ok bool) {
	b, err := readFile(p.buf[:], "/proc/"+strconv.Itoa(int(pid))+"/stat")
	if err != nil {
		return s, false
	}
	s, err = parseStat(b)
	return s, err == nil
}

// comm is a process's name, "" when it is gone.
func (p *procfs) comm(pid int32) string {
	b, err := readFile(p.buf[:], "/proc/"+strconv.Itoa(int(pid))+"/comm")
	if err != nil {
		return ""
	}
	return text(bytes.TrimSuffix(b, []byte("\n")))
}

// uid is a process's real user, 0 when it is gone.
func (p *procfs) uid(pid int32) uint32 {
	b, err := readFile(p.buf[:], "/proc/"+strconv.Itoa(int(pid))+"/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("Uid:")); ok {
			for word := range bytes.FieldsSeq(rest) {
				n, _ := strconv.ParseUint(string(word), 10, 32)
				return uint32(n)
			}
		}
	}
	return 0
}

// all reports of every process. It takes some 10 µs for each.
func (p *procfs) all() (map[int32]stat, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	all := map[int32]stat{}
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			pid, err := strconv.ParseInt(name, 10, 32)
			if err != nil {
				continue
			}
			if s, ok := p.stat(int32(pid)); ok {
				all[s.pid] = s
			}
		}
		if err != nil || len(names) == 0 {
			return all, nil
		}
	}
}

// bootOffset is CLOCK_BOOTTIME less CLOCK_MONOTONIC in ns, or a little more.
func bootOffset() uint64 {
	var mono, boot unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono)
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot)
	return uint64(boot.Nano() - mono.Nano())
}
