package reaper

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// hang mounts a file system that never answers, in a mount namespace of our own,
// and returns its folder. The test ends every wait for it by end.
func hang(t *testing.T) (dir string, end func()) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	need(t, "fuse", err)
	dir = t.TempDir()
	if err := unix.Mount("hang", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		t.Fatal(err)
	}
	mounted := true
	end = func() {
		if mounted {
			mounted = false
			_ = unix.Unmount(dir, unix.MNT_FORCE) // aborts the connection
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			unix.Close(fd)
		}
	}
	t.Cleanup(end)
	return dir, end
}

func ownMounts(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
}

// TestHungFileSystem has more hung programs and folders than spawners. Each has
// its own file system: those who wait for the same name in one cannot be killed
// (d_alloc_parallel, Linux 6.18), so that there a SIGKILL acts when it is freed.
func TestHungFileSystem(t *testing.T) {
	needRoot(t)
	if !rerun(t, ownMounts) {
		return
	}
	b := newBench(t, Options{})
	// A pipe of somebody else, which a hung child must not hold open.
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	high, err := unix.FcntlInt(uintptr(p[1]), unix.F_DUPFD_CLOEXEC, b.low)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(p[1])
	const n = 3 * maxSpawners
	var hung [n]uint64
	var free [n]func()
	for i := range n {
		dir, end := hang(t)
		s := spec(filepath.Join(dir, "program"))
		if i%2 == 0 {
			s = spec("/bin/true")
			s.Dir = filepath.Join(dir, "folder")
		}
		hung[i], free[i] = b.start(s), end
	}
	for range 50 {
		if ws := b.run(spec("/bin/true")); ws != 0 {
			t.Errorf("true = %#x, want 0", ws)
		}
	}
	for _, run := range hung {
		if b.PID(run) == 0 {
			t.Errorf("hung run %d has no process after later runs came and went", run)
		}
	}
	unix.Close(high)
	if n, err := unix.Read(p[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("read of a pipe without a writer = %d, %v, want its end", n, err)
	}
	if b.Adopted() {
		t.Error("Adopted() = true with hung starts, want false")
	}
	for i, run := range hung {
		if i < n/2 { // half of them are killed while they hang, in both ways
			sig := unix.SIGKILL
			if i%2 == 1 { // in its execve, where no handler of ours may run
				sig = unix.SIGTERM
			}
			if err := b.Signal(run, sig, i%4 < 2); err != nil {
				t.Error(err)
			}
			if e := b.of(run); e.Kind != Failed || !errors.Is(e.Err, unix.ECANCELED) {
				t.Errorf("killed while hung = %+v, want Failed with ECANCELED", e)
			}
			continue
		}
		free[i]()
		if e := b.of(run); e.Kind != Failed || !errors.Is(e.Err, unix.ECONNABORTED) && !errors.Is(e.Err, unix.ENOTCONN) {
			t.Errorf("hung start after the abort = %+v, %v, want Failed with ECONNABORTED", e, e.Err)
		}
	}
}

// TestCloseHung closes while a start hangs, which must hold nobody up.
func TestCloseHung(t *testing.T) {
	needRoot(t)
	if !rerun(t, ownMounts) {
		return
	}
	dir, end := hang(t)
	b := newBench(t, Options{})
	run := b.start(spec(filepath.Join(dir, "program")))
	for b.PID(run) == 0 {
		b.run(spec("/bin/true"))
	}
	pid := b.PID(run)
	b.Close()
	end()
	if e := b.next(func(e Event) bool { return e.Run == run }); e.Kind != Failed {
		t.Errorf("hung start after Close = %+v, want Failed", e)
	}
	_, _ = unix.Wait4(pid, nil, 0, nil)
}
