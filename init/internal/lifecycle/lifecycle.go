// Package lifecycle decides what one instance does next.
//
// It holds no goroutine, timer, descriptor or lock and makes no system call:
// [Instance.Step] maps one event to a new state and the actions that the caller
// must carry out, in order. Time is an argument, a deadline is a field.
package lifecycle

import (
	"math"
	"slices"
	"time"
)

// State is where an instance stands.
type State uint8

// The states, as operators know them from Supervisor.
const (
	Stopped   State = iota // nothing runs and nothing is due, because nobody wants it to
	Starting               // a fork is under way or about to be
	Running                // the program was executed
	Backoff                // ended; the deadline starts it again
	Stopping               // something of the run still lives and must not
	Exited                 // ended, and the restart policy leaves it at that
	Fatal                  // given up; a deadline, if any, begins a new round
	numStates              // last: sizes every table below
)

var stateNames = [numStates]string{"STOPPED", "STARTING", "RUNNING", "BACKOFF", "STOPPING", "EXITED", "FATAL"}

func (s State) String() string { return stateNames[s] }

// Kind says what happened.
type Kind uint8

// The kinds of event.
const (
	Start       Kind = iota // somebody wants it to run
	Stop                    // somebody wants it not to run
	Restart                 // somebody wants another run
	Spawned                 // the program was executed
	SpawnFailed             // it could not be; there is no process
	Ended                   // the run's process was reaped
	Gone                    // nothing is left of the run's process tree
	Deadline                // the deadline may have passed
	numKinds
)

var kindNames = [numKinds]string{"start", "stop", "restart", "spawned", "spawn-failed", "ended", "gone", "deadline"}

func (k Kind) String() string { return kindNames[k] }

// Event is one input to [Instance.Step].
type Event struct {
	Kind   Kind
	Run    uint64 // the run that it speaks of; 0 for requests and deadlines
	Code   int    // Ended, SpawnFailed: exit status, or 128 plus the signal
	Left   bool   // Ended: something of the run's tree still lives
	Reason string // who asked, or how it ended; for people

	Within time.Duration // Stop: the stop signals get no more time than this; 0 is as much as the policy says
	Kill   bool          // Stop: by SIGKILL, at once
}

// Op is one kind of effect.
type Op uint8

// The effects that Step asks for.
const (
	OpSpawn    Op = iota // fork and execute Run
	OpSignal             // send Signal to Scope of Run
	OpSweep              // SIGKILL to everything that is left of Run's tree
	OpAnnounce           // the state changed from From to the present one
	OpNote               // Note happened, the state did not change
	numOps
)

var opNames = [numOps]string{"spawn", "signal", "sweep", "announce", "note"}

func (o Op) String() string { return opNames[o] }

// Scope is who gets a signal.
type Scope uint8

// The scopes.
const (
	ToGroup  Scope = iota // the process group of the run's process
	ToLeader              // the run's process
	ToTree                // everything that belongs to the run
	numScopes
)

var scopeNames = [numScopes]string{"group", "leader", "tree"}

func (s Scope) String() string { return scopeNames[s] }

// Action is one effect that the caller must carry out.
type Action struct {
	Op     Op
	Run    uint64
	Signal int
	Scope  Scope
	From   State
	Reason string
	Note   string        // OpNote: its kind, "stop_killed", "stop_slow" or "uninterruptible"
	Delay  time.Duration // OpAnnounce of Backoff, Fatal: until the next try; 0 for none
	Try    int           // OpAnnounce: unhealthy deaths in the window
}

// RestartPolicy says after which ends there is another run.
type RestartPolicy uint8

// The restart policies.
const (
	Always RestartPolicy = iota
	OnFailure
	Never
)

// StopStep is a signal and how long it is given.
type StopStep struct {
	Signal int
	Wait   time.Duration
}

// Policy is what the configuration says of an instance's life.
type Policy struct {
	Restart      RestartPolicy
	SuccessCodes []int         // for OnFailure
	HealthyAfter time.Duration // a run that lived so long was healthy
	MaxRestarts  int           // so many unhealthy deaths within Window end in Fatal; 0: no limit
	Window       time.Duration
	RetryAfter   time.Duration // Fatal to a new round; 0: never
	RetryTimes   int           // so many rounds; 0: no limit

	Base, Max time.Duration // backoff
	Factor    float64
	Jitter    float64

	Stop   []StopStep // what is tried before SIGKILL to the tree
	StopTo Scope
}

func brief(d time.Duration) string { return d.Round(time.Millisecond).String() }

// killPatience is how long a SIGKILL may take before it is said that it does
// not work; freeing 8 GiB takes a quarter of a second.
const killPatience = 5 * time.Second

// Instance is one numbered copy of a worker. It is not safe for concurrent use:
// the supervisor's loop owns it.
type Instance struct {
	Policy Policy
	Seed   uint64 // of the jitter

	state    State
	want     bool // desired: up
	run      uint64
	deadline time.Time // zero when none is armed

	executed  time.Time // of this run; zero before
	stopBegan time.Time
	stopWith  int     // a signal instead of the policy's, for one stop
	step      int     // of stops(); as many as those when the tree was killed
	squeeze   float64 // what is left of the policy's waits in this stop; 0 is all
	ended     bool    // Stopping: the run's process was reaped
	crashed   bool    // Stopping: nobody asked; what it left is being killed
	code      int
	reason    string // how the run ended
	asked     string // who asked for the stop that is under way, or for the restart
	warned    bool   // Stopping: said that SIGKILL does not work
	patience  time.Duration

	deaths      []time.Time // unhealthy ones within the window
	consecutive int         // unhealthy deaths since a healthy run
	rounds      int         // begun by RetryAfter
}

// State reports the present state.
func (in *Instance) State() State { return in.state }

// Wanted reports whether it is meant to run.
func (in *Instance) Wanted() bool { return in.want }

// Run reports the number of the present or last run, 0 before the first.
func (in *Instance) Run() uint64 { return in.run }

// Deadline reports when Step next needs a Deadline event; zero means never.
func (in *Instance) Deadline() time.Time { return in.deadline }

// Executed reports when the present run's program was executed.
func (in *Instance) Executed() time.Time { return in.executed }

// Deaths counts the unhealthy deaths that are within the window at now.
func (in *Instance) Deaths(now time.Time) int {
	n := 0
	for _, t := range in.deaths {
		if now.Sub(t) < in.Policy.Window {
			n++
		}
	}
	return n
}

// Over reports whether it ended for good: without an operator there is no
// further run.
func (in *Instance) Over() bool {
	return in.state == Exited || in.state == Fatal && in.deadline.IsZero()
}

// StopTime is the longest that a stop may take by p.
func (p *Policy) StopTime() time.Duration {
	var d time.Duration
	for _, s := range p.Stop {
		d += s.Wait
	}
	return d
}

// Step applies ev at now. An event about an earlier run changes nothing.
func (in *Instance) Step(now time.Time, ev Event) []Action {
	if ev.Run != 0 && ev.Run != in.run {
		return nil
	}
	switch ev.Kind {
	case Start:
		return in.start(ev)
	case Stop:
		return in.stop(now, ev)
	case Restart:
		switch in.state {
		case Starting, Running:
			in.want = true
			return in.beginStop(now, Event{Reason: ev.Reason})
		case Stopped, Backoff, Stopping, Exited, Fatal:
			return in.start(ev)
		}
	case Spawned:
		in.executed = now
		if in.state == Starting {
			return in.enter(Running, time.Time{}, "executed")
		}
	case SpawnFailed:
		in.code, in.reason = ev.Code, ev.Reason
		switch in.state {
		case Starting, Stopping:
			return in.decide(now, false)
		case Stopped, Running, Backoff, Exited, Fatal: // cannot happen: no start is under way
		}
	case Ended:
		in.code, in.reason = ev.Code, ev.Reason
		switch in.state {
		case Starting, Running:
			if !ev.Left {
				return in.decide(now, true)
			}
			in.ended, in.crashed = true, true
			in.stopBegan = now
			acts := in.sweep(now)
			return append(acts, in.enter(Stopping, in.deadline, ev.Reason+"; it left processes behind, which are killed")...)
		case Stopping:
			in.ended = true
			if !ev.Left {
				return in.decide(now, true)
			}
			if in.step < len(in.stops()) {
				// Those outside the group have not heard of it yet.
				return []Action{{Op: OpSignal, Run: in.run, Signal: in.stops()[in.step].Signal, Scope: ToTree}}
			}
			return []Action{{Op: OpSweep, Run: in.run}}
		case Stopped, Backoff, Exited, Fatal: // cannot happen: no process
		}
	case Gone:
		if in.state == Stopping && in.ended {
			return in.decide(now, true)
		}
	case Deadline:
		if in.deadline.IsZero() || now.Before(in.deadline) {
			return nil
		}
		return in.due(now)
	}
	return nil
}

func (in *Instance) start(ev Event) []Action {
	in.want = true
	switch in.state {
	case Stopped, Backoff, Exited, Fatal:
		in.deaths, in.consecutive, in.rounds = nil, 0, 0
		return in.spawn(ev.Reason)
	case Stopping: // another run follows when the tree is gone
		if in.crashed {
			in.crashed, in.asked = false, ev.Reason
		}
	case Starting, Running: // it is what it should be
	}
	return nil
}

func (in *Instance) stop(now time.Time, ev Event) []Action {
	in.want = false
	switch in.state {
	case Starting, Running:
		return in.beginStop(now, ev)
	case Backoff, Exited, Fatal:
		return in.enter(Stopped, time.Time{}, ev.Reason)
	case Stopping:
		in.asked = ev.Reason
		return in.hurry(now, ev)
	case Stopped: // it is what it should be
	}
	return nil
}

func (in *Instance) beginStop(now time.Time, ev Event) []Action {
	in.asked = ev.Reason
	in.step, in.ended, in.crashed, in.warned, in.stopBegan = 0, false, false, false, now
	in.squeeze = 0
	if all := in.waits(0); ev.Within > 0 && all > ev.Within {
		in.squeeze = float64(ev.Within) / float64(all)
	}
	var acts []Action
	if len(in.stops()) == 0 || ev.Kill {
		acts = in.sweep(now)
	} else {
		s := in.stops()[0]
		acts = []Action{{Op: OpSignal, Run: in.run, Signal: s.Signal, Scope: in.Policy.StopTo}}
		in.deadline = now.Add(in.wait(0))
	}
	return append(acts, in.enter(Stopping, in.deadline, ev.Reason)...)
}

// hurry gives a stop that is under way no more time than ev has for it.
func (in *Instance) hurry(now time.Time, ev Event) []Action {
	if in.step >= len(in.stops()) {
		return nil // it is being killed
	}
	if ev.Kill {
		return in.sweep(now)
	}
	now1 := max(in.deadline.Sub(now), 0)
	if left := now1 + in.waits(in.step+1); ev.Within > 0 && left > ev.Within {
		f := float64(ev.Within) / float64(left)
		if in.squeeze == 0 {
			in.squeeze = 1
		}
		in.squeeze *= f
		in.deadline = now.Add(time.Duration(f * float64(now1)))
	}
	return nil
}

// wait is how long the i-th of stops is given.
func (in *Instance) wait(i int) time.Duration {
	d := in.stops()[i].Wait
	if in.squeeze != 0 {
		d = time.Duration(in.squeeze * float64(d))
	}
	return d
}

// waits is how long those from the i-th on are given together.
func (in *Instance) waits(i int) (d time.Duration) {
	for ; i < len(in.stops()); i++ {
		d += in.wait(i)
	}
	return d
}

// A Halt is how far the stop of an instance has come.
type Halt struct {
	Signal int           // the last one that was sent; SIGKILL at the end
	Later  bool          // it is not the first one
	Since  time.Time     // when the stop began
	Within time.Duration // how long all signals before SIGKILL are given
	Leader bool          // the run's process has not been reaped yet
	Asked  bool          // somebody wanted it, rather than that it died and left processes behind
}

// Halt tells of the stop that is under way; ok is false when there is none.
func (in *Instance) Halt() (h Halt, ok bool) {
	if in.state != Stopping {
		return h, false
	}
	h = Halt{Signal: sigkill, Later: in.step > 0, Since: in.stopBegan, Leader: !in.ended, Asked: !in.crashed}
	if stops := in.stops(); in.step < len(stops) {
		h.Signal = stops[in.step].Signal
		h.Within = in.deadline.Sub(in.stopBegan) + in.waits(in.step+1)
	} else if !in.crashed {
		h.Within = in.waits(0)
	}
	return h, true
}

const sigkill = 9

// sweep kills the tree and arms the deadline that looks whether it worked.
func (in *Instance) sweep(now time.Time) []Action {
	in.step = len(in.stops())
	in.warned, in.patience = false, killPatience
	in.deadline = now.Add(in.patience)
	return []Action{{Op: OpSweep, Run: in.run}}
}

// StopWith makes sig the signal of the next stop: it is given as long as the policy's own take together.
func (in *Instance) StopWith(sig int) {
	if in.state != Stopping {
		in.stopWith = sig
	}
}

func (in *Instance) stops() []StopStep {
	if in.stopWith != 0 {
		return []StopStep{{in.stopWith, in.Policy.StopTime()}}
	}
	return in.Policy.Stop
}

// due is a deadline that has passed.
func (in *Instance) due(now time.Time) []Action {
	switch in.state {
	case Backoff:
		return in.spawn("the delay is over")
	case Fatal:
		in.rounds++
		in.deaths, in.consecutive = nil, 0
		return in.spawn("a new round of tries begins")
	case Stopping:
		if in.step+1 < len(in.stops()) {
			in.step++
			s := in.stops()[in.step]
			in.deadline = now.Add(in.wait(in.step))
			return []Action{{Op: OpSignal, Run: in.run, Signal: s.Signal, Scope: in.Policy.StopTo}}
		}
		if in.step < len(in.stops()) {
			acts := in.sweep(now)
			if had, own := in.waits(0), in.Policy.StopTime(); had > 0 {
				text := "it has not ended within " + brief(had)
				if own > had+time.Millisecond {
					text += ", its part of the time for everything (its own would be " + brief(own) + ")"
				}
				acts = append(acts, Action{Op: OpNote, Run: in.run, Note: "stop_killed", Reason: text + ", and is killed"})
			}
			return acts
		}
		// SIGKILL was not enough. Say so once, and try again now and then: without
		// a cgroup something may have been forked behind the last sweep.
		acts := []Action{{Op: OpSweep, Run: in.run}}
		if !in.warned {
			in.warned = true
			acts = append(acts, Action{Op: OpNote, Run: in.run, Note: "uninterruptible", Reason: "SIGKILL has not ended it yet: a process of it is in uninterruptible sleep"})
		}
		in.patience = min(2*in.patience, time.Minute)
		in.deadline = now.Add(in.patience)
		return acts
	case Stopped, Starting, Running, Exited: // cannot happen: none armed
		in.deadline = time.Time{}
	}
	return nil
}

func (in *Instance) spawn(reason string) []Action {
	in.run++
	in.executed = time.Time{}
	acts := []Action{{Op: OpSpawn, Run: in.run}}
	return append(acts, in.enter(Starting, time.Time{}, reason)...)
}

func (in *Instance) enter(s State, deadline time.Time, reason string) []Action {
	from := in.state
	in.state, in.deadline = s, deadline
	return []Action{{Op: OpAnnounce, Run: in.run, From: from, Reason: reason, Try: len(in.deaths)}}
}

// decide says what follows a run of which nothing is left; ran is false when
// the program could not be executed.
func (in *Instance) decide(now time.Time, ran bool) []Action {
	var acts []Action
	asked := in.state == Stopping && !in.crashed
	if asked {
		took, limit := now.Sub(in.stopBegan), in.waits(0)
		if limit > 0 && took > limit*4/5 {
			acts = append(acts, Action{Op: OpNote, Run: in.run, Note: "stop_slow", Reason: "the stop took " + brief(took) + " of " + brief(limit)})
		}
	}
	in.crashed, in.ended, in.stopWith = false, false, 0
	p := &in.Policy
	switch {
	case !in.want:
		return append(acts, in.enter(Stopped, time.Time{}, in.asked+": "+in.reason)...)
	case asked: // a restart
		in.deaths, in.consecutive, in.rounds = nil, 0, 0
		return append(acts, in.spawn(in.asked+": "+in.reason)...)
	case !ran && p.Restart == Never:
		return in.enter(Fatal, time.Time{}, in.reason)
	case ran && (p.Restart == Never || p.Restart == OnFailure && slices.Contains(p.SuccessCodes, in.code)):
		return in.enter(Exited, time.Time{}, in.reason)
	}
	if ran && !in.executed.IsZero() && now.Sub(in.executed) >= p.HealthyAfter {
		in.consecutive, in.rounds = 0, 0
		return in.spawn(in.reason + "; restarted at once")
	}
	in.consecutive++
	in.deaths = slices.DeleteFunc(in.deaths, func(t time.Time) bool { return now.Sub(t) >= p.Window })
	if p.MaxRestarts == 0 {
		// Only their number is shown: there is nothing to remember for ever.
		in.deaths = in.deaths[max(0, len(in.deaths)-99):]
	}
	in.deaths = append(in.deaths, now)
	if p.MaxRestarts > 0 && len(in.deaths) >= p.MaxRestarts {
		next := time.Time{}
		if p.RetryAfter > 0 && (p.RetryTimes == 0 || in.rounds < p.RetryTimes) {
			next = now.Add(p.RetryAfter)
		}
		a := in.enter(Fatal, next, in.reason)
		if !next.IsZero() {
			a[0].Delay = p.RetryAfter
		}
		return a
	}
	d := in.delay()
	if d == 0 {
		return in.spawn(in.reason + "; restarted at once")
	}
	a := in.enter(Backoff, now.Add(d), in.reason)
	a[0].Delay = d
	return a
}

// delay is the time before the next run: none after the first unhealthy death.
func (in *Instance) delay() time.Duration {
	p := &in.Policy
	if in.consecutive <= 1 {
		return 0
	}
	d := float64(p.Base) * math.Pow(max(p.Factor, 1), float64(in.consecutive-2))
	d = min(d, float64(p.Max))
	// xorshift64: a jitter need not be random, only different for each instance.
	in.Seed |= 1
	in.Seed ^= in.Seed << 13
	in.Seed ^= in.Seed >> 7
	in.Seed ^= in.Seed << 17
	d *= 1 + p.Jitter*(2*float64(in.Seed>>11)/(1<<53)-1)
	return max(time.Duration(d), time.Millisecond)
}

// Settings replaces the policy; it holds from the next decision on.
func (in *Instance) Settings(p Policy) { in.Policy = p }
