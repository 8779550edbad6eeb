package reaper

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// faulty makes a Reaper that panics at a place, in n of a hundred times.
func faulty(t *testing.T, n int, at ...string) (b *bench, panics *atomic.Int64) {
	t.Helper()
	var count, told atomic.Int64
	var mu sync.Mutex
	where := map[string]int{}
	b = newBench(t, Options{
		faults: func(place string) {
			if slices.Contains(at, place) && rand.IntN(100) < n {
				count.Add(1)
				panic("a fault at " + place)
			}
		},
		Panicked: func(w string, v any) {
			told.Add(1)
			mu.Lock()
			defer mu.Unlock()
			where[fmt.Sprint(w, ": ", v)]++
		},
	})
	t.Cleanup(func() {
		if c, n := count.Load(), told.Load(); c != n || c == 0 {
			t.Errorf("%d panics, %d told: %v", c, n, where)
		}
	})
	return b, &count
}

// end waits for the last event of run, whose first must be that it was started,
// unless it was not.
func (b *bench) end(run uint64) Event {
	b.Helper()
	e := b.of(run)
	switch e.Kind {
	case Started:
		if e = b.of(run); e.Kind == Started {
			b.Errorf("run %d was started twice", run)
		}
	case Exited:
		b.Errorf("run %d ended before it was started", run)
	case Failed, Orphan:
	}
	return e
}

// TestPanics: whatever panics costs no death and no answer, and statuses stay
// right.
func TestPanics(t *testing.T) {
	for _, tt := range []struct {
		at   string
		n    int
		fail bool // the start it is in fails
	}{{"wait", 30, false}, {"reaped", 30, false}, {"reaped", 100, false}, {"started", 30, false}, {"started", 100, false}, {"launch", 30, true}} {
		t.Run(fmt.Sprint(tt.at, tt.n), func(t *testing.T) {
			b, _ := faulty(t, tt.n, tt.at)
			failed := 0
			for code := range 100 {
				run := b.start(spec("/bin/sh", "-c", fmt.Sprintf("exit %d", code)))
				switch e := b.end(run); {
				case e.Kind == Failed && tt.fail:
					failed++
					if e.Err.Step != "start" {
						t.Errorf("error %v", e.Err)
					}
				case e.Kind != Exited || e.Status.ExitStatus() != code:
					t.Fatalf("exit %d = %+v", code, e)
				}
			}
			if tt.fail && (failed == 0 || failed == 100) {
				t.Errorf("%d of 100 starts failed", failed)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if len(b.runs)+len(b.pids)+len(b.flying)+b.spawning+b.stuck > 0 {
				t.Errorf("left: runs %v pids %v flying %v, %d spawning, %d stuck", b.runs, b.pids, b.flying, b.spawning, b.stuck)
			}
		})
	}
}

// TestPanicInPrepare: what the caller does for a start is no better.
func TestPanicInPrepare(t *testing.T) {
	told := make(chan string, 10)
	b := newBench(t, Options{Panicked: func(w string, v any) { told <- fmt.Sprint(w, ": ", v) }})
	for _, place := range []string{"prepare", "release"} {
		s := spec("/bin/true")
		if place == "prepare" {
			s.Prepare = func(*Spec) error { panic(place) }
		} else {
			s.Release = func() { panic(place) }
		}
		e := b.end(b.start(s))
		if (e.Kind == Failed) != (place == "prepare") {
			t.Errorf("%s: %+v", place, e)
		}
		if got := <-told; got != "a start: "+place {
			t.Errorf("told %q", got)
		}
	}
}

// TestPanicsUnderSignals: signals, kills and orphans while everything panics.
func TestPanicsUnderSignals(t *testing.T) {
	b, _ := faulty(t, 20, "wait", "reaped", "started")
	for range 50 {
		run := b.start(spec("/bin/sh", "-c", "(sleep 0.01 &) ; exec sleep 1000"))
		if err := b.Signal(run, unix.SIGKILL, true); err != nil && !errors.Is(err, ErrGone) {
			t.Fatal(err)
		}
		if e := b.end(run); e.Kind == Exited && e.Status.Signal() != unix.SIGKILL {
			t.Fatalf("%+v", e)
		}
	}
}
