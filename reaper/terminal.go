package reaper

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReclaimTerminal puts this process's own group into the foreground of the
// terminal fd again, after a child with [Spec.Terminal] has ended: else Ctrl-C
// would reach nobody. It does nothing when the terminal is not ours.
func ReclaimTerminal(fd int) {
	if !ownsTerminal(fd) {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// From the background the kernel answers with SIGTTOU, unless that is blocked.
	block, old := unix.Sigset_t{}, unix.Sigset_t{}
	block.Val[0] = 1 << (unix.SIGTTOU - 1)
	if unix.PthreadSigmask(unix.SIG_BLOCK, &block, &old) != nil {
		return
	}
	group := int32(unix.Getpgrp())
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSPGRP, uintptr(unsafe.Pointer(&group)))
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
}

// hasTerminal reports whether this process has a controlling terminal.
func hasTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// TakeTerminal makes fd the controlling terminal of this process, if it is a
// terminal that no session has and this process has none. Then a child with
// [Spec.Terminal] can stay in this session: the end of a session's leader hangs
// its terminal up, for everybody who has it open (disassociate_ctty,
// drivers/tty/tty_jobctrl.c). Call it before New.
func TakeTerminal(fd int) {
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil || ownsTerminal(fd) {
		return
	}
	_, _ = unix.Setsid() // refused to the leader of a group, who may be a session's already
	_ = unix.IoctlSetInt(fd, unix.TIOCSCTTY, 0)
}

// GiveTerminal puts the group of pid, a child that is not collected, into the
// foreground of the terminal fd, if this process's own group is there.
func GiveTerminal(fd, pid int) {
	if pgrp, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || pgrp != unix.Getpgrp() {
		return
	}
	group := int32(pid)
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSPGRP, uintptr(unsafe.Pointer(&group)))
}
