package main

import (
	"bytes"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// shrink gives back, once, what only the start needed: the heap of the parsers,
// and the pages of this program's own file, of which the kernel maps 16 for each
// one that is touched. What runs on is mapped again by the next touch, from the
// page cache.
func shrink() {
	debug.SetGCPercent(steadyGC)
	debug.FreeOSMemory()
	dropText()
}

// dropText gives back the pages of the program's own file. It allocates little:
// exec mode is to stay small.
func dropText() {
	var buf [8 << 10]byte // this program's mappings are the first ones
	n, err := unix.Readlink("/proc/self/exe", buf[:])
	if err != nil {
		return
	}
	self := string(buf[:n])
	fd, err := unix.Open("/proc/self/maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	n, err = unix.Read(fd, buf[:])
	unix.Close(fd)
	if err != nil {
		return
	}
	for line := range bytes.Lines(buf[:n]) {
		// 00400000-0060e000 r-xp 00000000 fe:00 1234 /sbin/pazinit
		w := bytes.Fields(line)
		if len(w) < 6 || string(w[5]) != self || w[1][1] != '-' { // not what was written to: that would be lost
			continue
		}
		from, to, _ := bytes.Cut(w[0], []byte("-"))
		first, err1 := strconv.ParseUint(string(from), 16, 64)
		last, err2 := strconv.ParseUint(string(to), 16, 64)
		if err1 != nil || err2 != nil || last <= first {
			continue
		}
		if first >= 1<<32 && w[1][2] != 'x' { // of a position-independent program, relocated: that would be lost, too
			continue
		}
		_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, uintptr(first), uintptr(last-first), unix.MADV_DONTNEED)
	}
}
