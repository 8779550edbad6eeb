package output

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"
)

// panicPause is how long a stream or a console that has panicked rests, so that
// it never spins.
const panicPause = 100 * time.Millisecond

// begin starts f on a goroutine of its own. A panic in it is told, and ends
// nothing but f.
func (h *Hub) begin(where string, f func()) {
	go func() {
		defer h.caught(where)
		f()
	}()
}

// caught, deferred, ends a panic by telling of it.
func (h *Hub) caught(where string) {
	if v := recover(); v != nil {
		h.panicked(where, v)
	}
}

// panicked tells of a panic. It is called by the function that recovered it, and
// perhaps with locks held.
func (h *Hub) panicked(where string, v any) {
	if h.opt.Panicked != nil {
		h.opt.Panicked(where, v)
		return
	}
	fmt.Fprintf(os.Stderr, "pazinit: panic in %s: %v\n%s", where, v, debug.Stack())
}

// fault lets a test panic here.
func (h *Hub) fault(at string) {
	if h.opt.faults != nil {
		h.opt.faults(at)
	}
}
