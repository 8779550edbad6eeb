package reaper

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/reaper/internal/early"
)

// Exec is execve(2) with signals as this process was started with. It returns
// only the error, with everything as it was.
//
// The first process of a PID namespace gets no signal in between that would end
// it, and with it the namespace or the machine: those that wait are dropped, as
// the kernel drops a signal to an init without a handler (SIGNAL_UNKILLABLE,
// kernel/signal.c). All others get those that wait, as by [GiveBack].
func Exec(path string, argv, env []string) error {
	if os.Getpid() != 1 || !early.Entered() {
		GiveBack()
		return unix.Exec(path, argv, env)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old [65]sigaction
	for s := unix.Signal(1); s <= 64; s++ {
		if s == unix.SIGKILL || s == unix.SIGSTOP {
			continue
		}
		act := sigaction{}
		if early.Ignored()&bit(s) != 0 {
			act.handler = sigIgn
		}
		rtSigaction(s, &act, &old[s])
	}
	mask, was := early.Mask(), uint64(0)
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&was)), 8, 0, 0)
	if early.HugePages() {
		_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0)
	}
	err := unix.Exec(path, argv, env)
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&was)), 0, 8, 0, 0)
	for s := unix.Signal(1); s <= 64; s++ {
		if s != unix.SIGKILL && s != unix.SIGSTOP {
			rtSigaction(s, &old[s], nil)
		}
	}
	return err
}
