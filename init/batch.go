package pazinit

import (
	"cmp"
	"slices"
	"time"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/init/internal/lifecycle"
)

// A batch is a command to many instances, carried out level after level.
type batch struct {
	kind   lifecycle.Kind // Start, Stop or Restart
	levels [][]item
	reason string
	at     int       // the level that is under way; -1 before the first
	hold   time.Time // the level is not waited for any longer than this
	failed bool      // a restart one by one stops at the first that does not start
	strict bool      // … if this is set
	before func(in *instance)
	panics int
	within func(levels [][]item, now time.Time) time.Duration // how long the first of them may take to stop; nil, 0: its own time
}

// An item is an instance with the number of the command; a newer one to the
// same instance makes it void.
type item struct {
	in      *instance
	command uint64
	issued  bool
	stopped bool   // it was when its turn came
	run     uint64 // the run that it had
}

// A start that hangs before its exec keeps those of a later priority waiting no
// longer than this.
const holdStart = time.Second

// levels sorts instances by priority: equal ones are in one level.
func levels(ins []*instance, reverse bool) [][]*instance {
	sorted := slices.Clone(ins)
	slices.SortStableFunc(sorted, func(a, b *instance) int {
		if reverse {
			a, b = b, a
		}
		return cmp.Compare(a.spec.Priority, b.spec.Priority)
	})
	var out [][]*instance
	for i, in := range sorted {
		if i == 0 || in.spec.Priority != sorted[i-1].spec.Priority {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], in)
	}
	return out
}

// issue begins a command to many. It makes earlier ones to the same void.
func (s *Supervisor) issue(kind lifecycle.Kind, steps [][]*instance, reason string) *batch {
	b := &batch{kind: kind, reason: reason, at: -1}
	for _, step := range steps {
		var items []item
		for _, in := range step {
			in.waits = ""
			in.command++
			items = append(items, item{in: in, command: in.command})
		}
		b.levels = append(b.levels, items)
	}
	s.batches = append(s.batches, b)
	return b
}

// advance carries b on as far as it goes now.
func (s *Supervisor) advance(b *batch, now time.Time) (moved, over bool) {
	for b.at < 0 || b.settled(now) {
		if b.strict && b.at >= 0 && b.broken() {
			b.failed = true
			b.hold = time.Time{}
			return moved, true
		}
		b.at++
		b.hold = time.Time{}
		if b.at == len(b.levels) {
			return moved, true
		}
		if b.kind == lifecycle.Start && b.at < len(b.levels)-1 {
			b.hold = now.Add(holdStart)
		}
		moved = true
		ev := lifecycle.Event{Kind: b.kind, Reason: b.reason}
		if b.within != nil {
			ev.Within = b.within(b.levels[b.at:], now)
		}
		for i := range b.levels[b.at] {
			it := &b.levels[b.at][i]
			if it.command != it.in.command {
				continue
			}
			it.issued, it.run, it.stopped = true, it.in.life.Run(), it.in.life.State() == lifecycle.Stopped
			if b.before != nil {
				b.before(it.in)
			}
			s.step(it.in, ev)
		}
	}
	return moved, false
}

// settled reports whether the next level may begin.
func (b *batch) settled(now time.Time) bool {
	if !b.hold.IsZero() && !now.Before(b.hold) {
		return true
	}
	for _, it := range b.levels[b.at] {
		if it.command != it.in.command {
			continue
		}
		switch it.in.life.State() {
		case lifecycle.Stopping:
			return false
		case lifecycle.Starting:
			if b.kind != lifecycle.Stop {
				return false
			}
		case lifecycle.Stopped, lifecycle.Running, lifecycle.Backoff, lifecycle.Exited, lifecycle.Fatal:
		}
	}
	return true
}

// broken reports whether an instance of the level under way did not start.
func (b *batch) broken() bool {
	return slices.ContainsFunc(b.levels[b.at], func(it item) bool {
		st := it.in.life.State()
		return it.command == it.in.command && (st == lifecycle.Backoff || st == lifecycle.Fatal)
	})
}

// A waiter is somebody who waits for the outcome of a batch.
type waiter struct {
	b    *batch // nil: nothing was to be done
	done chan []control.Result
}

// await has w told the outcome of b by the loop.
func (s *Supervisor) await(b *batch) *waiter {
	w := &waiter{b: b, done: make(chan []control.Result, 1)}
	s.waiters = append(s.waiters, w)
	return w
}

// look answers if the outcome is known; then w is over.
func (w *waiter) look() bool {
	var out []control.Result
	if w.b != nil {
		for _, level := range w.b.levels {
			for i := range level {
				r, known := w.b.outcome(&level[i])
				if !known {
					return false
				}
				out = append(out, r)
			}
		}
	}
	w.done <- out
	return true
}

// outcome says what became of one instance.
func (b *batch) outcome(it *item) (r control.Result, known bool) {
	in := it.in
	st := in.life.State()
	r = control.Result{Name: in.name, State: st.String(), PID: in.pid}
	if it.command != in.command {
		r.Message, r.Code = "another command came in between", control.ExitFailed
		return r, true
	}
	if !it.issued {
		if b.failed {
			r.Message, r.Code = "left as it was", control.ExitFailed
		}
		return r, b.failed
	}
	if b.kind == lifecycle.Stop {
		r.OK = st == lifecycle.Stopped
		if r.OK && it.stopped {
			r.Message = "was not running"
		}
		return r, r.OK
	}
	switch st {
	case lifecycle.Starting, lifecycle.Stopping:
		return r, false
	case lifecycle.Running:
		r.OK = true
		if in.life.Run() == it.run {
			if b.kind == lifecycle.Restart {
				return r, false
			}
			r.Message = "runs already"
		}
	case lifecycle.Exited:
		r.OK = in.last == nil || in.last.Code == 0
		r.Message = in.reason
	case lifecycle.Stopped, lifecycle.Backoff, lifecycle.Fatal:
		r.Message = in.reason
	}
	if !r.OK {
		r.Code = control.ExitFailed
	}
	return r, true
}
