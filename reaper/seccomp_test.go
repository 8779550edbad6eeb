package reaper

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refuse makes the kernel answer these system calls with an error, in every
// thread of this process and in all that come from it, for good.
func refuse(t *testing.T, errno unix.Errno, calls ...uint32) {
	t.Helper()
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // seccomp_data.nr
	for _, nr := range calls {
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f)))
	runtime.KeepAlive(prog)
	if e != 0 {
		need(t, "seccomp", e)
	}
}

// TestRefused does everything once where calls are refused.
func TestRefused(t *testing.T) {
	pidfd := []uint32{unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL}
	for _, test := range []struct {
		name  string
		errno unix.Errno
		calls []uint32
	}{
		{"clone3-ENOSYS", unix.ENOSYS, []uint32{unix.SYS_CLONE3}},
		{"clone3-EPERM", unix.EPERM, []uint32{unix.SYS_CLONE3}},
		{"pidfd-ENOSYS", unix.ENOSYS, pidfd},
		{"pidfd-EPERM", unix.EPERM, pidfd},
		{"send-ENOSYS", unix.ENOSYS, pidfd[1:]},
		{"send-EPERM", unix.EPERM, pidfd[1:]},
		{"close_range-ENOSYS", unix.ENOSYS, []uint32{unix.SYS_CLOSE_RANGE}},
		{"all-ENOSYS", unix.ENOSYS, append([]uint32{unix.SYS_CLONE3, unix.SYS_CLOSE_RANGE}, pidfd...)},
		{"all-EPERM", unix.EPERM, append([]uint32{unix.SYS_CLONE3, unix.SYS_CLOSE_RANGE}, pidfd...)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if raceDetector && test.errno == unix.EPERM && test.calls[0] == unix.SYS_CLONE3 {
				t.Skip("needs no race detector: glibc, which it links, makes no thread when clone3 gives EPERM")
			}
			if !rerun(t, nil) {
				return
			}
			refuse(t, test.errno, test.calls...)
			everything(t, test.calls[0] == unix.SYS_CLONE3)
		})
	}
}

var raceDetector bool // linked in: race_test.go

func everything(t *testing.T, noClone bool) {
	loose, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	before := openFiles()
	b := newBench(t, Options{Subreaper: true})
	if got := b.output(spec("/bin/sh", "-c", "echo out; exec cat /proc/self/status")); field(got, "SigBlk") != "0000000000000000" || field(got, "SigIgn") != "0000000000000000" || field(got, "SigCgt") != "0000000000000000" {
		t.Errorf("child's signals: %s", got)
	}
	if noClone3.Load() != noClone {
		t.Errorf("noClone3 = %t, want %t", noClone3.Load(), noClone)
	}
	report := filepath.Join(t.TempDir(), "report")
	exe, _ := os.Executable()
	s := spec(exe, report)
	s.Env, s.Files = []string{"REAPER_CHILD=files", "GORACE=atexit_sleep_ms=0"}, [3]int{-1, -1, -1}
	b.run(s)
	if got, _ := os.ReadFile(report); string(got) != "0=/dev/null\n1=/dev/null\n2=/dev/null" {
		t.Errorf("child's descriptors = %q", got)
	}
	if e := b.fails(spec("/no/such")); e.Code() != 127 || e.Step != stepExec {
		t.Errorf("missing: %v", e)
	}
	s = spec("/bin/true")
	s.Dir = "/no/such"
	if e := b.fails(s); e.Step != stepDir || e.What != s.Dir {
		t.Errorf("no folder: %v", e)
	}
	for _, group := range []bool{false, true} {
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL, unix.Signal(40)} {
			run := b.start(spec("/bin/sleep", "1000"))
			b.up(run)
			if err := b.Signal(run, sig, group); err != nil {
				t.Errorf("Signal(%d, %t) = %v", sig, group, err)
			}
			if ws := b.down(run); ws.Signal() != sig {
				t.Errorf("ended with %#x, want %d", ws, sig)
			}
		}
	}
	r, w := pipe(t)
	s = spec("/bin/sh", "-c", "setsid sh -c 'echo $$; exec sleep 1000' &")
	s.Env, s.Files[1] = append(s.Env, RunVariable+"=mine"), int(w.Fd())
	b.run(s)
	pid := numbers(t, r, 1)[0]
	procs := Tree(0, "mine")
	if len(procs) != 1 || procs[0].PID != pid {
		t.Errorf("Tree = %v, want %d", procs, pid)
	}
	if err := SignalProcs(procs, unix.SIGTERM, nil); err != nil {
		t.Error(err)
	}
	if e := b.next(func(e Event) bool { return e.Kind == Orphan }); e.PID != pid || e.Status.Signal() != unix.SIGTERM {
		t.Errorf("orphan = %+v, want %d by SIGTERM", e, pid)
	}
	for range 200 {
		b.start(spec("/bin/true"))
	}
	for range 200 {
		b.next(func(e Event) bool { return e.Kind == Exited && e.Status == 0 })
	}
	r.Close()
	w.Close()
	b.Close()
	if after := openFiles(); len(after) != len(before) {
		t.Errorf("descriptors: %v -> %v", before, after)
	}
	unix.Close(loose)
}
