package cgroupfs

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"
)

// panicPause is how long a wait that has panicked rests, so that it never spins.
const panicPause = 100 * time.Millisecond

// begin starts f on a goroutine of its own, which close waits for. A panic in it
// is told, and ends nothing but f. w.mu is held.
func (w *watcher) begin(f func()) {
	w.running.Go(func() {
		defer w.caught()
		f()
	})
}

// caught, deferred, ends a panic by telling of it.
func (w *watcher) caught() {
	if v := recover(); v != nil {
		w.tell(v)
	}
}

// tell tells of a panic. It is called by the function that recovered it.
func (w *watcher) tell(v any) {
	const where = "the watch of control groups"
	if w.told != nil {
		w.told(where, v)
		return
	}
	fmt.Fprintf(os.Stderr, "pazinit: panic in %s: %v\n%s", where, v, debug.Stack())
}

// fault lets a test panic here.
func (w *watcher) fault(at string) {
	if w.faults != nil {
		w.faults(at)
	}
}
