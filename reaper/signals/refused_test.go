package signals

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	plays["refused"] = func() { playRefused(true) }
	plays["full"] = func() { playRefused(false) }
	plays["deaf"] = func() {
		refuse(unix.SYS_RT_SIGTIMEDWAIT)
		fmt.Println("ready")
		fmt.Println(Catch())
	}
}

// refuse makes the kernel answer a system call with EPERM, in every thread.
func refuse(nr uint32) {
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	must(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f)))
	runtime.KeepAlive(prog)
	if e != 0 {
		must(e)
	}
}

// playRefused gets signals while it does not wait: other threads take them, and
// cannot queue them to this one.
func playRefused(filter bool) {
	threads(3)
	if filter {
		refuse(unix.SYS_RT_TGSIGQUEUEINFO)
	} else {
		must(unix.Setrlimit(unix.RLIMIT_SIGPENDING, &unix.Rlimit{}))
	}
	must(Catch())
	fmt.Println("ready")
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGCHLD, 34, 40} {
		must(unix.Kill(os.Getpid(), s))
		fmt.Println(int(next().Signal))
	}
}

// TestRefused: no signal is lost when it cannot be queued with its sender.
func TestRefused(t *testing.T) {
	for _, name := range []string{"refused", "full"} {
		t.Run(name, func(t *testing.T) {
			start(t, name).want("15", "17", "34", "40")
		})
	}
}

// TestDeaf: who cannot wait for signals says so at once.
func TestDeaf(t *testing.T) {
	start(t, "deaf").want("wait for signals: operation not permitted")
}
