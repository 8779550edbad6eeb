package reaper

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fatal are the signals that a process can catch and whose default action ends it.
func fatal() []unix.Signal {
	var out []unix.Signal
	for s := unix.Signal(1); s <= 64; s++ {
		switch s {
		case unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH, // ignored
			unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, // stop
			32, 33: // taken by the C library
			continue
		}
		out = append(out, s)
	}
	return out
}

func TestSignals(t *testing.T) {
	b := newBench(t, Options{})
	for _, sig := range fatal() {
		for _, group := range []bool{false, true} {
			run := b.start(spec("/bin/sleep", "1000"))
			b.up(run)
			if err := b.Signal(run, sig, group); err != nil {
				t.Errorf("Signal(%d, %t) = %v", sig, group, err)
			}
			if ws := b.down(run); !ws.Signaled() || ws.Signal() != sig {
				t.Errorf("ended by %d = %#x", sig, ws)
			}
		}
	}
}

func TestSignalGroup(t *testing.T) {
	b := newBench(t, Options{})
	for _, fallback := range []bool{false, true} {
		old := noPidfdGroup.Swap(fallback)
		for _, group := range []bool{false, true} {
			r, w := pipe(t)
			s := spec("/bin/sh", "-c", `trap 'exit 7' TERM; (trap 'echo child; exit 0' TERM; echo ready; while :; do sleep 1000 & wait; done) & wait; wait`)
			s.Files[1] = int(w.Fd())
			s.Release = func() { w.Close() }
			run := b.start(s)
			pid := b.up(run)
			expect(t, r, "ready\n")
			if err := b.Signal(run, unix.SIGTERM, group); err != nil {
				t.Error(err)
			}
			if ws := b.down(run); ws.ExitStatus() != 7 {
				t.Errorf("leader ended with %#x, want 7", ws)
			}
			if group {
				expect(t, r, "child\n")
			}
			r.Close()
			_ = unix.Kill(-pid, unix.SIGKILL) // the group outlives its leader
		}
		noPidfdGroup.Store(old)
	}
}

// expect reads text from r.
func expect(t testing.TB, r *os.File, text string) {
	t.Helper()
	var got strings.Builder
	buf := make([]byte, 1)
	for got.Len() < len(text) {
		n, err := r.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			t.Fatalf("read %q: %v, want %q", got.String(), err, text)
		}
	}
	if got.String() != text {
		t.Fatalf("read %q, want %q", got.String(), text)
	}
}

func TestSignalGone(t *testing.T) {
	b := newBench(t, Options{})
	run := b.start(spec("/bin/true"))
	b.up(run)
	b.down(run)
	if err := b.Signal(run, unix.SIGTERM, false); !errors.Is(err, ErrGone) {
		t.Errorf("Signal of an ended run = %v, want ErrGone", err)
	}
	if err := b.Signal(99, unix.SIGTERM, false); !errors.Is(err, ErrGone) {
		t.Errorf("Signal of no run = %v, want ErrGone", err)
	}
	if pid := b.PID(run); pid != 0 {
		t.Errorf("PID of an ended run = %d, want 0", pid)
	}
}

// TestSignalBeforeFork holds a run in its preparation.
func TestSignalBeforeFork(t *testing.T) {
	b := newBench(t, Options{})
	hold := func(argv ...string) (uint64, chan struct{}) {
		s, in, out := spec(argv...), make(chan struct{}), make(chan struct{})
		s.Prepare = func(*Spec) error { close(in); <-out; return nil }
		run := b.start(s)
		<-in
		return run, out
	}

	run, free := hold("/bin/sleep", "1000")
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGCONT} { // the later one must not replace it
		if err := b.Signal(run, sig, true); err != nil {
			t.Error(err)
		}
	}
	close(free)
	b.up(run)
	if ws := b.down(run); ws.Signal() != unix.SIGTERM {
		t.Errorf("ended with %#x, want SIGTERM", ws)
	}

	run, free = hold("/bin/sleep", "1000")
	if err := b.Signal(run, unix.SIGKILL, true); err != nil {
		t.Error(err)
	}
	close(free)
	if e := b.of(run); e.Kind != Failed || !errors.Is(e.Err, unix.ECANCELED) {
		t.Errorf("killed before its fork = %+v, want Failed with ECANCELED", e)
	}
}

func TestClose(t *testing.T) {
	before := openFiles()
	b := newBench(t, Options{})
	r, w := pipe(t)
	s := spec("/bin/cat")
	s.Files[0] = int(r.Fd())
	var pids []int
	for range 20 {
		c := *s
		pids = append(pids, b.up(b.start(&c)))
	}
	// Others end while Close does.
	var quick []uint64
	for range 20 {
		quick = append(quick, b.start(spec("/bin/true")))
	}
	b.Close()
	b.Close()
	for _, run := range quick { // forks that were under way end after Close
		b.of(run)
	}
	b.start(spec("/bin/true"))
	if e := b.next(func(e Event) bool { return e.Run == b.last }); e.Kind != Failed || !errors.Is(e.Err, unix.ECANCELED) {
		t.Errorf("start after Close = %+v, want ECANCELED", e)
	}
	if err := b.Signal(1, unix.SIGKILL, false); !errors.Is(err, ErrGone) {
		t.Errorf("Signal after Close = %v, want ErrGone", err)
	}
	r.Close()
	w.Close()
	for _, pid := range pids {
		var ws unix.WaitStatus
		if n, err := unix.Wait4(pid, &ws, 0, nil); n != pid || ws != 0 {
			t.Errorf("child %d after Close = %d, %#x, %v, want it to live on", pid, n, ws, err)
		}
	}
	for { // those that were quicker than Close are not ours to judge, but a zombie of Close's is
		var ws unix.WaitStatus
		n, err := unix.Wait4(-1, &ws, 0, nil)
		if err != nil {
			break
		}
		if ws.ExitStatus() == 127 {
			t.Errorf("Close left its child %d", n)
		}
	}
	if after := openFiles(); len(after) != len(before) {
		t.Errorf("descriptors: %v -> %v", before, after)
	}
	if b.Orphans() != 0 {
		t.Errorf("Orphans = %d, want 0", b.Orphans())
	}
}
