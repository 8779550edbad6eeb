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

// TestHungFileSystem has more hung programs and folders than spawners.
func TestHungFileSystem(t *testing.T) {
	needRoot(t)
	if !rerun(t, ownMounts) {
		return
	}
	dir, end := hang(t)
	b := newBench(t, Options{})
	const n = 3 * maxSpawners
	var hung []uint64
	for i := range n {
		s := spec(filepath.Join(dir, "program"))
		if i%2 == 0 {
			s = spec("/bin/true")
			s.Dir = filepath.Join(dir, "folder")
		}
		hung = append(hung, b.start(s))
	}
	for range 50 {
		if ws := b.run(spec("/bin/true")); ws != 0 {
			t.Errorf("true = %#x, want 0", ws)
		}
	}
	for _, run := range hung {
		for b.PID(run) == 0 { // in a spawner's queue until the others were seen to hang
			if ws := b.run(spec("/bin/true")); ws != 0 {
				t.Fatal(ws)
			}
		}
	}
	if b.Adopted() {
		t.Error("Adopted() = true with hung starts, want false")
	}

	// Half of them are killed while they hang, the rest are set free.
	for i, run := range hung[:n/2] {
		if err := b.Signal(run, unix.SIGKILL, i%2 == 0); err != nil {
			t.Error(err)
		}
	}
	for _, run := range hung[:n/2] {
		e := b.of(run)
		if e.Kind == Started {
			e = b.of(run)
		}
		if e.Kind != Exited || e.Status.Signal() != unix.SIGKILL {
			t.Errorf("killed while hung = %+v, want Exited by SIGKILL", e)
		}
	}
	end()
	for _, run := range hung[n/2:] {
		e := b.of(run)
		if e.Kind != Failed || e.Err.Err == nil || errors.Is(e.Err, unix.ECANCELED) {
			t.Errorf("hung start after the abort = %+v, want Failed", e)
		} else {
			t.Log(e.Err)
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
