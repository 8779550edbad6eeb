package reaper

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"
)

// errPanic is the cause of what a panic kept from being done.
var errPanic = errors.New("a panic in pazinit itself")

// begin starts f on a goroutine of its own. A panic in it is told, and ends
// nothing but f.
func (r *Reaper) begin(where string, f func()) {
	go func() {
		defer r.caught(where)
		f()
	}()
}

// caught, deferred, ends a panic by telling of it.
func (r *Reaper) caught(where string) {
	if v := recover(); v != nil {
		r.panicked(where, v)
	}
}

// panicked tells of a panic. It is called by the function that recovered it, and
// perhaps with mu held.
func (r *Reaper) panicked(where string, v any) {
	if r.opt.Panicked != nil {
		r.opt.Panicked(where, v)
		return
	}
	fmt.Fprintf(os.Stderr, "pazinit: panic in %s: %v\n%s", where, v, debug.Stack())
}

// fault lets a test panic here.
func (r *Reaper) fault(at string) {
	if r.opt.faults != nil {
		r.opt.faults(at)
	}
}

// pauseAfter is how long one that has panicked so often in a row rests, so that
// it never spins.
func pauseAfter(panics int) time.Duration {
	return min(time.Millisecond<<min(panics, 10), time.Second)
}
