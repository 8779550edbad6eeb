package procconn

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
)

// errPanic is why a listener that has panicked is off.
var errPanic = errors.New("a panic in pazinit itself")

// begin starts f on a goroutine of its own. A panic in it is told, and ends nothing
// but the listener.
func (l *Listener) begin(where string, f func()) {
	go func() {
		defer l.caught(where)
		f()
	}()
}

// caught, deferred, ends the reader, also by a panic.
func (l *Listener) caught(where string) {
	if v := recover(); v != nil {
		l.stop(errPanic)
		if l.opt.Panicked != nil {
			l.opt.Panicked(where, v)
		} else {
			fmt.Fprintf(os.Stderr, "pazinit: panic in %s: %v\n%s", where, v, debug.Stack())
		}
	}
	close(l.done)
}

// fault lets a test panic here.
func (l *Listener) fault(at string) {
	if l.opt.faults != nil {
		l.opt.faults(at)
	}
}
