package syslog

import (
	"fmt"
	"runtime/debug"
	"time"
)

// panicPause is how long a reader that has panicked rests, so that it never spins.
const panicPause = 100 * time.Millisecond

// begin starts f on a goroutine of its own. A panic in it is told, and ends
// nothing but f.
func (r *Receiver) begin(where string, f func()) {
	go func() {
		defer func() {
			if v := recover(); v != nil {
				r.panicked(where, v)
			}
		}()
		f()
	}()
}

// safely calls read, which goes on until it says no; a panic in it costs one
// message and is told.
func (r *Receiver) safely(where string, read func() bool) (more bool) {
	defer func() {
		if v := recover(); v != nil {
			more = true
			r.panicked(where, v)
			t := time.NewTimer(panicPause)
			defer t.Stop()
			select {
			case <-t.C:
			case <-r.stop:
			}
		}
	}()
	return read()
}

// panicked tells of a panic. It is called by the function that recovered it.
func (r *Receiver) panicked(where string, v any) {
	if r.opt.Panicked != nil {
		r.opt.Panicked(where, v)
		return
	}
	r.opt.Say("error", fmt.Sprintf("panic in %s: %.500v\n%s", where, v, debug.Stack()))
}
