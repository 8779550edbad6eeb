package reaper

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	// storm makes orphans, each of its own code, and says nothing until all are made.
	children["storm"] = func() {
		n, _ := strconv.Atoi(os.Args[1])
		for range n {
			// vforkRun needs no exec: its child just ends.
			f := &flight{}
			f.add("", opOptional, unix.SYS_GETPID)
			if _, _, err := f.fork(-1); err != nil {
				os.Exit(1)
			}
			unix.Close(int(f.pidfd))
		}
	}
}

// TestOrphanStorm leaves 10,000 zombies to this process at once, and more come
// while runs start and end.
func TestOrphanStorm(t *testing.T) {
	if !rerun(t, nil) {
		return
	}
	const orphans, runs = 10000, 300
	b := newBench(t, Options{Subreaper: true})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var storms []uint64
	for range 4 {
		s := spec(exe, strconv.Itoa(orphans/4))
		s.Env = []string{"REAPER_CHILD=storm", "GORACE=atexit_sleep_ms=0"}
		storms = append(storms, b.start(s))
	}
	code := make(map[uint64]int)
	for i := range runs {
		code[b.start(spec("/bin/sh", "-c", "exit "+strconv.Itoa(i%256)))] = i % 256
	}
	for _, run := range storms {
		code[run] = 0
	}
	exited, adopted := 0, 0
	for exited < runs+len(storms) || adopted < orphans {
		switch e := b.next(func(Event) bool { return true }); e.Kind {
		case Exited:
			exited++
			if e.Status.ExitStatus() != code[e.Run] {
				t.Errorf("run %d ended with %#x, want %d", e.Run, e.Status, code[e.Run])
			}
		case Orphan:
			adopted++
			if e.Run != 0 || e.Status.ExitStatus() != 127 {
				t.Fatalf("orphan %+v", e)
			}
		case Failed:
			t.Fatalf("%+v", e.Err)
		case Started:
		}
	}
	if b.Orphans() != orphans {
		t.Errorf("Orphans() = %d, want %d", b.Orphans(), orphans)
	}
	if n, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("children left: %d, %v", n, err)
	}
	if n := cap(b.Events(nil)); n > 2*keepEvents {
		t.Errorf("a list of %d events is kept after the storm, want at most %d", n, 2*keepEvents)
	}
}

// TestOrphanAtRest has a run end before the orphan that it left, so that the
// waiter knows of no child; time and again.
func TestOrphanAtRest(t *testing.T) {
	if !rerun(t, nil) {
		return
	}
	b := newBench(t, Options{Subreaper: true})
	for range 300 {
		run := b.start(spec("/bin/sh", "-c", "setsid true &"))
		b.up(run)
		b.down(run)
		b.next(func(e Event) bool { return e.Kind == Orphan && e.Status == 0 })
	}
}

// TestNumbersAgain lives in a PID namespace, as its PID 1, where the numbers from
// 300 to 399 go round (those below 300 are given once: RESERVED_PIDS).
func TestNumbersAgain(t *testing.T) {
	needRoot(t)
	if !rerun(t, func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	}) {
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	// Before Linux 6.14 that is the whole machine's.
	if !ownPIDMax() {
		need(t, "pid_max of a namespace", unix.ENOSYS)
	}
	if err := os.WriteFile("/proc/sys/kernel/pid_max", []byte("400"), 0); err != nil {
		need(t, "pid_max of a namespace", err)
	}

	for _, fallback := range []bool{false, true} {
		noClone3.Store(fallback)
		b := newBench(t, Options{})
		// Ones that must live through it all.
		keep := make(map[uint64]int)
		for range 20 {
			run := b.start(spec("/bin/sleep", "1000"))
			keep[run] = b.up(run)
		}
		var old []Proc
		seen := make(map[int]int)
		for range 1500 {
			run := b.start(spec("/bin/true"))
			for {
				e := b.of(run)
				if e.Kind == Exited {
					break
				}
				seen[e.PID]++
				if s, err := readStat(e.PID); err == nil {
					old = append(old, s.Proc)
				}
				// While it ends, and after: to whom its number goes is not hit.
				for range 3 {
					_ = b.Signal(run, unix.SIGKILL, true)
				}
			}
			if err := b.Signal(run, unix.SIGKILL, true); err == nil {
				t.Errorf("Signal of run %d, which has ended, = nil", run)
			}
		}
		again := 0
		for _, n := range seen {
			if n > 1 {
				again++
			}
		}
		if again < 50 {
			t.Fatalf("%d numbers were given twice, want at least 50", again)
		}
		// Those who have the numbers now.
		var now []uint64
		for range 40 {
			run := b.start(spec("/bin/sleep", "1000"))
			b.up(run)
			now = append(now, run)
		}
		if err := SignalProcs(old, unix.SIGKILL, nil); err != nil {
			t.Error(err)
		}
		for _, run := range now {
			if err := b.Signal(run, unix.SIGTERM, true); err != nil {
				t.Error(err)
			}
		}
		for _, run := range now {
			if ws := b.down(run); ws.Signal() != unix.SIGTERM {
				t.Errorf("run %d ended with %#x, want SIGTERM: it was hit by its number", run, ws)
			}
		}
		for run, pid := range keep {
			if b.PID(run) != pid {
				t.Errorf("PID(%d) = %d, want %d", run, b.PID(run), pid)
			}
			if err := b.Signal(run, unix.SIGTERM, false); err != nil {
				t.Error(err)
			}
			if ws := b.down(run); ws.Signal() != unix.SIGTERM {
				t.Errorf("run %d ended with %#x, want SIGTERM", run, ws)
			}
		}
		b.Close()
	}
}

// ownPIDMax reports whether the kernel has a pid_max for each namespace (6.14).
func ownPIDMax() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	parts := strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3)
	major, _ := strconv.Atoi(parts[0])
	minor, _ := strconv.Atoi(parts[1])
	return major > 6 || major == 6 && minor >= 14
}
