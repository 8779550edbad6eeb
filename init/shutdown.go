package pazinit

import (
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/init/internal/lifecycle"
	"github.com/pazinit/pazinit/reaper"
)

// ending is the supervisor's own end, a small machine beside the instances':
// workers in reverse start order, then the loggers, then whoever else is in the
// container. At the deadline everything that is left is killed.
type ending struct {
	began    bool
	panics   int
	onEnd    string // what somebody asked for, in the place of the configuration's
	since    time.Time
	code     int
	reason   string
	failure  *failure // what it came from, if that is one
	whole    time.Duration
	last     time.Time // with shutdown_timeout: all is over by then, the last words written
	deadline time.Time // then what is left is killed; when it was, it is given up
	killed   bool
	over     bool

	workers    *batch
	loggers    bool              // their turn has come
	strangers  bool              // theirs has
	dismissing bool              // they are waited for
	asked      []reaper.Stranger // they, as they were told to stop

	speakAfter time.Duration // the late ones are named so long after the beginning
}

// killTime is how long the last SIGKILL is waited for at the very end.
const killTime = 2 * time.Second

// autostart starts what is to be started, the loggers first.
func (s *Supervisor) autostart() {
	var ins []*instance
	for in := range s.visible() {
		if in.spec.Autostart {
			ins = append(ins, in)
		}
	}
	for _, a := range s.apps {
		for _, w := range a.workers {
			s.startLoggers(w)
		}
	}
	s.first = s.issue(lifecycle.Start, levels(s.ready(ins), false), "started with the supervisor")
}

// shutdown begins to stop everything; code is the exit status then. A second
// wish changes nothing.
func (s *Supervisor) shutdown(reason string, code int) {
	if s.end.began {
		return
	}
	now := time.Now()
	s.end = ending{began: true, onEnd: s.end.onEnd, since: now, reason: reason, code: code, speakAfter: firstWord}
	var ins []*instance
	for in := range s.visible() {
		ins = append(ins, in)
	}
	steps := levels(ins, true)
	for _, step := range steps {
		slices.Reverse(step)
	}
	if s.end.whole = s.cfg.ShutdownTimeout; s.end.whole > 0 {
		s.end.last = now.Add(s.end.whole)
		s.end.deadline = s.end.last.Add(-reserve(s.end.whole))
	} else {
		limit := killTime // for the SIGKILL at the end of each
		for _, step := range steps {
			var longest time.Duration
			for _, in := range step {
				longest = max(longest, in.life.Policy.StopTime())
			}
			limit += longest
		}
		var longest time.Duration
		for in := range s.loggers {
			longest = max(longest, in.life.Policy.StopTime())
		}
		s.end.deadline = now.Add(limit + longest)
	}
	s.logf("stopping: %s", reason)
	s.event("stopping", reason)
	s.end.workers = s.issue(lifecycle.Stop, steps, "the supervisor stops: "+reason)
	s.end.workers.within = s.within
}

// kill ends everything at once.
func (s *Supervisor) kill(reason string) {
	s.shutdown(reason, 0)
	e := &s.end
	if e.killed {
		return
	}
	now := time.Now()
	e.killed, e.dismissing = true, false
	e.deadline = now.Add(killTime)
	if e.whole > 0 { // of what is left for the end, most is for this
		e.deadline = e.notLost(now, earlier(e.deadline, e.last.Add(-reserve(e.whole)/4)))
	}
	for in := range s.all() {
		switch in.life.State() {
		case lifecycle.Starting, lifecycle.Running, lifecycle.Stopping:
			switch h, ok := in.life.Halt(); {
			case !ok:
				s.logf("%s is killed: %s", in.name, reason)
			case h.Signal != int(unix.SIGKILL): // else that was said
				s.logf("%s is killed: %s, %s after it was asked to stop", in.name, reason, brief(now.Sub(h.Since)))
			}
		case lifecycle.Stopped, lifecycle.Backoff, lifecycle.Exited, lifecycle.Fatal:
		}
		// Whatever waits in the order is stopped now.
		in.command++
		s.step(in, lifecycle.Event{Kind: lifecycle.Stop, Kill: true, Reason: reason})
	}
}

// notLost is t, but a moment from now at least: what is killed only now cannot be
// gone yet. When t is past pazinit itself stood still, and everybody may be slow.
func (e *ending) notLost(now, t time.Time) time.Time {
	if now.Before(t) {
		return later(t, now.Add(20*time.Millisecond))
	}
	return now.Add(max(reserve(e.whole), 100*time.Millisecond))
}

// nextOfEnd is when the end has something to do next, zero for never.
func (s *Supervisor) nextOfEnd() time.Time {
	e := &s.end
	if !e.began {
		return time.Time{}
	}
	return earlier(e.deadline, e.since.Add(e.speakAfter))
}

// lookAtEnd carries the end on, or finds out that it has come. It reports
// whether there is more to do now.
func (s *Supervisor) lookAtEnd(now time.Time) (moved bool) {
	e := &s.end
	if !e.began {
		s.lookWhetherOver()
		return e.began
	}
	if !now.Before(e.deadline) {
		if e.killed || e.dismissing {
			for in := range s.all() {
				if in.life.State() == lifecycle.Stopping {
					why := "something of it is in uninterruptible sleep"
					if in.unkillable == in.life.Run() {
						why = "it " + noKill
					}
					s.logf("%s could not be ended: %s", in.name, why)
				}
			}
			if e.dismissing { // the last look at them is late
				s.outlived(e.asked, ", as far as is known")
			}
			e.over = true
			return false
		}
		if e.whole > 0 {
			s.kill("shutdown_timeout of " + brief(e.whole) + " is nearly over")
		} else {
			s.kill("its time to stop is over")
		}
		moved = true
	}
	if !now.Before(e.since.Add(e.speakAfter)) {
		s.nameLate(now)
	}
	for in := range s.visible() {
		if in.life.State() != lifecycle.Stopped {
			return moved
		}
	}
	if !e.loggers {
		e.loggers, moved = true, true
		for _, a := range s.apps {
			for _, w := range a.workers {
				for _, in := range w.instances {
					if src := in.source.Load(); src != nil {
						src.Flush()
					}
				}
				s.endLoggers(w)
			}
		}
	}
	for in := range s.loggers {
		if in.life.State() != lifecycle.Stopped {
			return moved
		}
	}
	if !e.strangers {
		e.strangers = true
		if s.opt.Place.EndsAll() {
			s.dismiss(now)
		}
	}
	if e.dismissing {
		return moved
	}
	e.over = true
	return moved
}

// timeLeft is what the step that is under way may still take, 0 if it has its own
// time.
func (s *Supervisor) timeLeft() time.Duration {
	if s.end.whole == 0 {
		return 0
	}
	return max(time.Until(s.end.deadline), 1)
}

// endBy is when something that takes at most d must be over that is done when the
// loop has ended: there is more to do after it, so it gets half of what is left of
// shutdown_timeout, and a moment in any case.
func (s *Supervisor) endBy(d time.Duration) time.Time {
	now := time.Now()
	if s.end.whole > 0 {
		d = min(d, max(s.end.last.Sub(now)/2, 20*time.Millisecond))
	}
	return now.Add(d)
}

// OnEnd is what the configuration wants to be done when Run has returned: exit,
// poweroff, reboot, halt, kexec or shell, or what somebody asked for instead; "" is
// what fits the place. It is for whoever called Run to do.
func (s *Supervisor) OnEnd() string {
	if s.end.onEnd != "" {
		return s.end.onEnd
	}
	return s.cfg.OnEnd
}

// End is Shutdown with something else to do at the end than on_end says: poweroff,
// reboot, halt or kexec. The last wish holds.
func (s *Supervisor) End(what, reason string) {
	s.post(func() { s.endAs(what, reason) })
}

func (s *Supervisor) endAs(what, reason string) {
	if s.end.began && s.end.onEnd != what {
		s.logf("%s: %s, when all is stopped", reason, what)
	}
	s.end.onEnd = what
	s.shutdown(reason, 0)
}

// Alive reports whether the loop answers. It waits until it does.
func (s *Supervisor) Alive() bool {
	err := s.ask(func() error { return nil })
	return err == nil || errors.Is(err, errEnded)
}

// lookWhetherOver begins the end when an essential worker has ended for good,
// or when nothing can ever run again without an operator.
func (s *Supervisor) lookWhetherOver() {
	if s.over == 0 {
		return
	}
	essential, essentialOver, over := 0, 0, 0
	var first *instance // the first essential one that is over, if it can be with a status that is not 0
	var worst *instance // the first one with a status that is not 0
	code := 0
	for in := range s.visible() {
		if in.w.app.own {
			continue
		}
		if in.spec.Essential {
			essential++
		}
		if !in.life.Over() || in.removing {
			continue
		}
		over++
		if worst == nil && in.finalCode() != 0 {
			worst, code = in, in.finalCode()
		}
		if in.spec.Essential {
			essentialOver++
			if first == nil || first.finalCode() == 0 && in.finalCode() != 0 {
				first = in
			}
		}
	}
	if over == 0 {
		return
	}
	switch {
	case first != nil && (s.cfg.EndWhen != "all" || essentialOver == essential):
		code = first.finalCode()
		s.endBecause("essential worker "+first.name+" has ended: "+first.reason, code, first)
	case s.opt.Place.ends() && !s.anyAlive():
		s.endBecause("no worker can run again", code, worst)
	}
}

// endBecause begins the end that came from in, nil if from none.
func (s *Supervisor) endBecause(reason string, code int, in *instance) {
	var f *failure
	if code != 0 && in != nil {
		f = s.failed(in)
	}
	s.shutdown(reason, code)
	s.end.failure = f
}

// countOver keeps the number of instances that have ended for good.
func (s *Supervisor) countOver(in *instance, over bool) {
	if in.over == over {
		return
	}
	in.over = over
	if over {
		s.over++
	} else {
		s.over--
	}
}

// anyAlive reports whether an instance runs, may run again by itself, or was
// stopped by an operator, who may start it again.
func (s *Supervisor) anyAlive() bool {
	for in := range s.visible() {
		if !in.life.Over() && !in.w.app.own && (in.life.State() != lifecycle.Stopped || in.byHand || in.waits != "" || in.pending(s)) {
			return true
		}
	}
	return false
}

// pending reports whether a command waits to be carried out on in.
func (in *instance) pending(s *Supervisor) bool {
	for _, b := range s.batches {
		for _, level := range b.levels[max(b.at, 0):] {
			for _, it := range level {
				if it.in == in && it.command == in.command && !it.issued && b.kind != lifecycle.Stop {
					return true
				}
			}
		}
	}
	return false
}

// finalCode is what the end of in counts for: a FATAL one is never a success.
func (in *instance) finalCode() int {
	if in.last == nil {
		return 1
	}
	if in.last.Code == 0 && in.life.State() == lifecycle.Fatal {
		return 1
	}
	return in.last.Code
}

// Signal is a signal to the supervisor itself: TERM and INT stop everything, a
// second INT at a terminal and QUIT kill it, HUP reloads, USR1 reopens the logs.
// All others, and those that terminals send (WINCH and the like), mean nothing.
func (s *Supervisor) Signal(sig os.Signal) { s.SignalFrom(sig, "") }

// SignalFrom is Signal by a sender that is known, as "17 (sh), uid 0": it is
// named where the signal is told of.
func (s *Supervisor) SignalFrom(sig os.Signal, from string) {
	n, ok := sig.(unix.Signal)
	if !ok {
		return
	}
	name := unix.SignalName(n)
	if from != "" {
		name += " from " + from
	}
	s.post(func() {
		switch n {
		case unix.SIGTERM:
			s.shutdown(name, 0)
		case unix.SIGINT:
			if s.interrupt && s.opt.Place.Terminal {
				s.kill("a second " + name)
			}
			s.interrupt = true
			s.shutdown(name, 0)
		case unix.SIGQUIT:
			s.kill(name)
		case unix.SIGHUP:
			s.soon(&s.hup, func() { s.reload(name) })
		case unix.SIGUSR1:
			s.soon(&s.usr1, func() { _ = s.reopen() })
		}
	})
}

// An errand is what a signal asks for: it is under way, and asked for again.
type errand struct{ busy, again bool }

// soon has f carried out away from the loop, and once more if it is asked for
// meanwhile: signals may come faster than they can be obeyed.
func (s *Supervisor) soon(e *errand, f func()) {
	if e.busy {
		e.again = true
		return
	}
	e.busy, e.again = true, false
	s.away("what a signal asked for", f, func() {
		e.busy = false
		if e.again {
			s.soon(e, f)
		}
	})
}
