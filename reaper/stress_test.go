package reaper

import (
	"errors"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCollectorWhileForking moves stacks and frees memory as often as it can
// while children share it.
func TestCollectorWhileForking(t *testing.T) {
	if !rerun(t, func(c *exec.Cmd) { c.Env = append(c.Env, "GODEBUG=gcshrinkstackoff=0,clobberfree=1") }) {
		return
	}
	old := debug.SetGCPercent(1)
	defer debug.SetGCPercent(old)
	b := newBench(t, Options{Subreaper: true, Raise: true})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					deep(200)
					runtime.GC()
				}
			}
		})
	}
	long := make([]string, 500)
	for i := range long {
		long[i] = "NAME=value-that-must-arrive-whole"
	}
	const script = `test "$(env | grep -c '^NAME=value-that-must-arrive-whole$')" = 1 && test $# = 499 && exit 7`
	for range 10 {
		runs := make(map[uint64]int)
		for range 10 {
			s := spec(append([]string{"/bin/sh", "-c", script, "sh"}, long[1:]...)...)
			s.Env = append(s.Env, long[:1]...)
			runs[b.start(s)] = 7
			runs[b.start(spec("/no/such"))] = -1
			runs[b.start(spec("/bin/sleep", "1000"))] = -2
		}
		for run, want := range runs {
			e := b.of(run)
			if want == -1 {
				if e.Kind != Failed || !errors.Is(e.Err, unix.ENOENT) {
					t.Errorf("missing program = %+v, %v", e, e.Err)
				}
				continue
			}
			if e.Kind != Started {
				t.Fatalf("first event %+v, %v", e, e.Err)
			}
			if want == -2 {
				if err := b.Signal(run, unix.SIGKILL, true); err != nil {
					t.Error(err)
				}
				if ws := b.down(run); ws.Signal() != unix.SIGKILL {
					t.Errorf("killed = %#x", ws)
				}
			} else if ws := b.down(run); ws.ExitStatus() != want {
				t.Errorf("exit = %#x, want %d", ws, want)
			}
		}
	}
	close(stop)
	wg.Wait()
}

// deep grows the stack, which the collector then shrinks.
func deep(n int) int {
	var buf [512]byte
	if n == 0 {
		return int(buf[0])
	}
	return deep(n-1) + int(buf[n%len(buf)])
}

// TestManyCallers starts, signals and asks from many goroutines.
func TestManyCallers(t *testing.T) {
	b := newBench(t, Options{})
	const callers, each = 16, 20
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				s := spec("/bin/sleep", "1000")
				s.Run = uint64(c*each + i + 1)
				b.Start(s)
				if i%2 == 0 { // before, in and after its fork
					for range i * 20 {
						runtime.Gosched()
					}
				}
				if err := b.Signal(s.Run, unix.SIGKILL, i%3 == 0); err != nil {
					t.Errorf("Signal(%d) = %v", s.Run, err)
				}
				_ = b.PID(s.Run)
				_ = b.Adopted()
				_ = b.Orphans()
			}
		})
	}
	wg.Wait()
	started := make(map[uint64]bool)
	for ended := 0; ended < callers*each; {
		e := b.next(func(Event) bool { return true })
		switch e.Kind {
		case Started:
			started[e.Run] = true
		case Exited:
			ended++
			if !started[e.Run] || e.Status.Signal() != unix.SIGKILL {
				t.Errorf("run %d: %+v, want killed after its start", e.Run, e)
			}
		case Failed:
			ended++
			if started[e.Run] || !errors.Is(e.Err, unix.ECANCELED) {
				t.Errorf("run %d: %v, want ECANCELED", e.Run, e.Err)
			}
		case Orphan:
			t.Errorf("orphan %+v, want none", e)
		}
	}
}
