// Package early reads what Go's own packages change before main: package
// syscall raises the soft limit of open files to the hard one when it is
// initialised. This package imports nothing and its path sorts before syscall's,
// so it is initialised first (Go specification, "Program initialization").
package early

import "unsafe"

// NoFile is RLIMIT_NOFILE as this process was started with: soft and hard.
var NoFile [2]uint64

// Known reports whether NoFile could be read.
var Known bool

// getrlimit is prlimit64(0, RLIMIT_NOFILE, NULL, to).
func getrlimit(to unsafe.Pointer) uintptr

func init() { Known = getrlimit(unsafe.Pointer(&NoFile)) == 0 }
