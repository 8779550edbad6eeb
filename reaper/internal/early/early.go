// Package early knows what this process was started with, before Go changed it.
//
// Two parts of Go do so ahead of main. The runtime installs handlers for all
// signals, opens /dev/null for what is closed of 0, 1 and 2, and gives each new
// thread the mask of the first one. So the program is linked with
//
//	-ldflags "-E github.com/pazinit/pazinit/reaper/internal/early.entry"
//
// which names, as the place where the kernel begins to execute it, a few lines
// of assembly (entry_*.s): they write down the mask, the ignored signals and the
// closed descriptors, block every signal, so that none that comes early has its
// default action, turn huge pages off, which cost a small heap several MiB, and
// go on to Go's own entry point. A program that is linked without -E works, too,
// and does not know.
//
// Package syscall raises the soft limit of open files to the hard one when it is
// initialised. This package imports nothing but unsafe and its path sorts before
// syscall's, so it is initialised first (Go specification, "Program
// initialization").
package early

import "unsafe"

// NoFile is RLIMIT_NOFILE as this process was started with: soft and hard.
var NoFile [2]uint64

// Known reports whether NoFile could be read.
var Known bool

// getrlimit is prlimit64(0, RLIMIT_NOFILE, NULL, to).
func getrlimit(to unsafe.Pointer) uintptr

func init() {
	if entered.known != 0 {
		Install(^uint64(1 << (sigchld - 1)))
	}
	Known = getrlimit(unsafe.Pointer(&NoFile)) == 0
}

// Release gives all signals back to Go, as if the program had been entered
// without entry_*.s, and reports those that have arrived meanwhile. Which of them
// are blocked is the caller's business.
func Release() (arrived uint64) {
	if entered.known == 0 {
		return 0
	}
	return release()
}

// entered is what entry_*.s writes; it knows the offsets.
var entered struct {
	mask      uint64     // 0
	ignored   uint64     // 8
	closed    uint64     // 16: bit n for descriptor n
	hugePages uint64     // 24: 1 when they were on and are off now
	scratch   [4]uintptr // 32: an action
	known     uint64     // 64
}

var everySignal = ^uint64(0) //nolint:unused // entry_*.s reads it

// Entered reports whether the program was entered by way of entry_*.s. Without
// it the three below say nothing.
func Entered() bool { return entered.known != 0 }

// Mask reports the signals that were blocked, bit n-1 for signal n.
func Mask() uint64 { return entered.mask }

// Ignored reports the signals that were ignored, in the same way.
func Ignored() uint64 { return entered.ignored }

// Closed reports which of the descriptors 0, 1 and 2 were closed, bit n for n.
func Closed() uint64 { return entered.closed }

// HugePages reports whether transparent huge pages were on for this process and
// have been turned off (PR_SET_THP_DISABLE, Linux 3.15).
func HugePages() bool { return entered.hugePages != 0 }
