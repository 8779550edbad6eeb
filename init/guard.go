package pazinit

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/init/internal/lifecycle"
	"github.com/pazinit/pazinit/reaper"
)

// loopRest is how long deadlines wait after a panic in the loop, so that one that
// panics each time does not make it spin. Messages are taken all the same.
const loopRest = 100 * time.Millisecond

// mostPanics is how often in all something is tried again that the end waits for.
const mostPanics = 20

// errPanic is what somebody gets whose request made us panic.
var errPanic = refuse(control.ExitFailed, "internal error, see pazinit logs --self")

// panics counts, and bounds what is told: so many in a while.
type panics struct {
	mu     sync.Mutex
	total  uint64
	since  time.Time // of told
	told   int
	silent uint64 // not told
}

const (
	panicsTold  = 10
	panicsWhile = 10 * time.Second
)

// admit counts one and reports whether it is to be told, with how many others.
func (p *panics) admit(now time.Time) (others uint64, tell bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total++
	if now.Sub(p.since) > panicsWhile {
		p.since, p.told = now, 0
	}
	if p.told == panicsTold {
		p.silent++
		return 0, false
	}
	p.told++
	others, p.silent = p.silent, 0
	return others, true
}

func (p *panics) count() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

// begin starts f on a goroutine of its own. A panic in it is told, and ends
// nothing but f.
func (s *Supervisor) begin(where string, f func()) {
	go func() {
		defer s.caught(where)
		f()
	}()
}

// guarded calls f; a panic in it is told, and ends nothing but f.
func (s *Supervisor) guarded(where string, f func()) {
	defer s.caught(where)
	f()
}

// away does work, which may block, on a goroutine of its own and then has the loop
// carry out then, also after a panic.
func (s *Supervisor) away(where string, work, then func()) {
	s.begin(where, func() {
		s.guarded(where, work)
		s.post(then)
	})
}

// caught, deferred, ends a panic by telling of it.
func (s *Supervisor) caught(where string) {
	if v := recover(); v != nil {
		s.Panicked(where, v)
	}
}

// Panicked tells of a panic by the log and an event. It is called by a function
// that has recovered it and was deferred, so that the stack is there; it does not
// wait. The program goes on.
func (s *Supervisor) Panicked(where string, value any) {
	text := fmt.Sprintf("panic in %s: %.500v, at %s", where, value, stackText())
	others, tell := s.panics.admit(time.Now())
	if !tell {
		return
	}
	if others > 0 {
		text += fmt.Sprintf(" (and %d more before)", others)
	}
	// Elsewhere: whoever panicked may hold what it takes to tell.
	go func() {
		defer func() {
			if v := recover(); v != nil {
				s.lastResort(fmt.Sprintf("%s; and while it was told: %v", text, v))
			}
		}()
		s.log("error", text+"; pazinit goes on")
		s.publish(control.Event{Kind: "panic", Reason: text})
	}()
}

// stackText is where a panic came from, the place itself first.
func stackText() string {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	var out []string
	panicking := false
	for len(out) < 8 {
		f, more := frames.Next()
		name := f.Function[strings.LastIndexByte(f.Function, '/')+1:]
		switch {
		case strings.HasPrefix(name, "runtime."):
			if name == "runtime.gopanic" {
				panicking, out = true, nil // the innermost one
			}
		case panicking:
			out = append(out, fmt.Sprintf("%s %s:%d", name, f.File[strings.LastIndexByte(f.File, '/')+1:], f.Line))
		}
		if !more {
			break
		}
	}
	return strings.Join(out, " < ")
}

// fault lets a test panic here.
func (s *Supervisor) fault(at string) {
	if s.opt.faults != nil {
		s.opt.faults(at)
	}
}

// loopCaught, deferred, ends a panic in the loop.
func (s *Supervisor) loopCaught() {
	if v := recover(); v != nil {
		s.loopPanicked(v)
	}
}

func (s *Supervisor) loopPanicked(v any) {
	s.Panicked("the loop", v)
	s.rest = time.Now().Add(loopRest)
}

// call carries out what somebody asks of the loop. It reports whether that came to
// its end.
func (s *Supervisor) call(f func()) (done bool) {
	defer s.loopCaught()
	f()
	return true
}

// must is call of what has to be done once, at the start.
func (s *Supervisor) must(f func()) {
	for range mostPanics {
		if s.call(f) {
			return
		}
	}
}

// reapedSafely is reaped, whose panic must not cost the event: nobody tells it
// once more.
func (s *Supervisor) reapedSafely(e *reaper.Event) {
	in := s.byRun[e.Run]
	defer func() {
		if v := recover(); v != nil {
			s.loopPanicked(v)
			if in != nil {
				s.rescue(in, e)
			}
		}
	}()
	s.fault("reaped")
	s.reaped(e)
}

// rescue tells the life of in what it has to know of e. It makes no difference if
// it knows.
func (s *Supervisor) rescue(in *instance, e *reaper.Event) {
	defer s.loopCaught()
	run := e.Run & (1<<32 - 1)
	switch e.Kind {
	case reaper.Started:
		if in.life.Run() == run {
			in.pid = e.PID
			s.senders.begun(e.PID, in)
		}
		s.step(in, lifecycle.Event{Kind: lifecycle.Spawned, Run: run})
		return
	case reaper.Failed, reaper.Exited:
	case reaper.Orphan:
		return
	}
	delete(s.byRun, e.Run)
	s.senders.ended(e.PID)
	if in.pid == e.PID {
		in.pid = 0
	}
	x := &control.Exit{Code: exitCode(e.Status), Time: e.At, Run: run, PID: e.PID}
	ev := lifecycle.Event{Kind: lifecycle.Ended, Run: run, Code: x.Code}
	if e.Kind == reaper.Failed {
		x.Code, x.Error = e.Err.Code(), e.Err.Error()
		ev = lifecycle.Event{Kind: lifecycle.SpawnFailed, Run: run, Code: x.Code}
	}
	ev.Reason = exitText(x)
	if in.last == nil || in.last.Run != run {
		in.last = x
	}
	if g := in.group.Load(); g != nil && e.Kind == reaper.Exited {
		if left, err := g.Populated(); err == nil && left {
			ev.Left = true
			s.awaitEmpty(in, g, run)
		}
	}
	s.step(in, ev)
}

// doSafely is do. A start that panics has failed, a signal is sent a little later
// while it is the same run, and what is only told is lost.
func (s *Supervisor) doSafely(in *instance, a lifecycle.Action) {
	defer func() {
		if v := recover(); v != nil {
			s.loopPanicked(v)
			switch a.Op {
			case lifecycle.OpSpawn:
				s.abandon(in, a.Run)
			case lifecycle.OpSignal, lifecycle.OpSweep:
				s.doLater(in, a)
			case lifecycle.OpAnnounce, lifecycle.OpNote:
			}
		}
	}()
	s.fault("do")
	s.do(in, a)
}

func (s *Supervisor) doLater(in *instance, a lifecycle.Action) {
	s.away("a signal", func() {
		t := time.NewTimer(loopRest)
		defer t.Stop()
		select {
		case <-t.C:
		case <-s.done:
		}
	}, func() {
		if in.life.Run() == a.Run && in.life.State() == lifecycle.Stopping {
			s.doSafely(in, a)
		}
	})
}

// abandon makes a run of in one that could not be started, whatever there is of it.
func (s *Supervisor) abandon(in *instance, run uint64) {
	defer s.loopCaught()
	key := in.key(run)
	delete(s.byRun, key)
	_ = s.procs.Signal(key, unix.SIGKILL, true)
	s.away("a start", func() {}, func() { // when what the life has just decided is carried out
		s.step(in, lifecycle.Event{Kind: lifecycle.SpawnFailed, Run: run, Code: 1, Reason: "a panic in pazinit itself"})
	})
}

// advanceSafely is advance. A batch that panics again and again is given up.
func (s *Supervisor) advanceSafely(b *batch, now time.Time) (moved, over bool) {
	defer func() {
		if v := recover(); v != nil {
			s.loopPanicked(v)
			b.panics++
			moved, over = false, b.panics >= mostPanics
			b.failed = b.failed || over
		}
	}()
	s.fault("batch")
	return s.advance(b, now)
}

// lookAtEndSafely is lookAtEnd. An end that panics again and again is one.
func (s *Supervisor) lookAtEndSafely(now time.Time) (moved bool) {
	defer func() {
		if v := recover(); v != nil {
			s.loopPanicked(v)
			if s.end.panics++; s.end.began && s.end.panics >= mostPanics {
				s.end.over = true
			}
		}
	}()
	s.fault("end")
	return s.lookAtEnd(now)
}
