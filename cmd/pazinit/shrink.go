package main

import (
	"bufio"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

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

// dropText gives back the pages of the program's own file.
func dropText() {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// 00400000-0060e000 r-xp 00000000 fe:00 1234 /sbin/pazinit
		w := strings.Fields(sc.Text())
		if len(w) < 6 || w[5] != self || w[1][1] != '-' { // not what was written to: that would be lost
			continue
		}
		from, to, _ := strings.Cut(w[0], "-")
		first, err1 := strconv.ParseUint(from, 16, 64)
		last, err2 := strconv.ParseUint(to, 16, 64)
		if err1 != nil || err2 != nil || last <= first {
			continue
		}
		_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, uintptr(first), uintptr(last-first), unix.MADV_DONTNEED)
	}
}
