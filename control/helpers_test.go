package control

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

func lockThread() { runtime.LockOSThread() }

// setgroups sets this thread's supplementary groups alone.
func setgroups(gids []uint32) {
	var p *uint32
	if len(gids) > 0 {
		p = &gids[0]
	}
	unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(gids)), uintptr(unsafe.Pointer(p)), 0)
}
