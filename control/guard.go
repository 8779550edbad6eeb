package control

import (
	"fmt"
	"runtime/debug"
)

// begin starts f on a goroutine of its own. A panic in it is told, and ends
// nothing but f.
func (s *Server) begin(where string, f func()) {
	go func() {
		defer s.caught(where)
		f()
	}()
}

// caught, deferred, ends a panic by telling of it.
func (s *Server) caught(where string) {
	if v := recover(); v != nil {
		s.panicked(where, v)
	}
}

// panicked tells of a panic. It is called by the function that recovered it.
func (s *Server) panicked(where string, v any) {
	if s.opt.Panicked != nil {
		s.opt.Panicked(where, v)
		return
	}
	stack := debug.Stack()
	s.opt.Log(fmt.Sprintf("%s: panic: %v\n%s", where, v, stack[:min(len(stack), 4096)]))
}

// fault lets a test panic here.
func (s *Server) fault(at string) {
	if s.opt.faults != nil {
		s.opt.faults(at)
	}
}
