package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	pazinit "github.com/pazinit/pazinit/init"
	"github.com/pazinit/pazinit/reaper"
	"github.com/pazinit/pazinit/reaper/signals"
)

// soleOptions are exec mode's flags.
type soleOptions struct {
	dialect     dialect
	name        string // that we were called by
	argv        []string
	grouping    reaper.Grouping
	single      bool                        // signals go to the command alone, not to its group
	rewrite     [signals.MaxSignal + 1]int8 // -1: as it came; 0: to nobody
	remap       map[int]int                 // exit statuses
	subreaper   bool
	killLeft    bool          // what is left after the command is ended, and waited for
	grace       time.Duration // 0: none
	parentDeath unix.Signal
	verbosity   int // 0 errors, 1 warnings, 2 signals and ends, 3 all, 4 more
	tellReaped  bool
}

func newSoleOptions(d dialect, name string) *soleOptions {
	o := &soleOptions{dialect: d, name: name, verbosity: 1, remap: map[int]int{}}
	for i := range o.rewrite {
		o.rewrite[i] = -1
	}
	return o
}

// A sole is exec mode: one command, its terminal, its signals and its exit
// status. It is one thread and no supervisor: nothing else is started, and
// nothing wakes while the command runs.
type sole struct {
	*soleOptions
	cmd       reaper.Sole
	self      int  // our pid
	namespace bool // all processes of our PID namespace are ours to end

	child     int       // the command's process, 0 when it is collected
	code      int       // its exit status
	end       time.Time // when it was collected
	stopped   bool
	tty       int           // our controlling terminal, -1 for none
	front     bool          // the command's group has its foreground
	wants     bool          // or had it, and is to have it again
	halted    bool          // it was us who stopped the command
	ending    bool          // it was asked to stop
	woken     int           // how often it was continued since
	deadline  time.Time     // of the grace
	killed    bool          // the grace is over
	pause     time.Duration // between two looks for those whose end nobody tells us
	swallowed uint64        // signals whose next one means nothing
	look      bool          // for children, whatever comes: a turn panicked
	reaped    string        // the name of the child that is collected
	peek      func(reaper.Change)
}

// execute runs the command of o and reports its exit status.
func execute(o *soleOptions) int {
	runtime.LockOSThread()
	x := &sole{soleOptions: o, self: os.Getpid(), tty: -1}
	x.cmd = reaper.Sole{Argv: o.argv, Env: os.Environ(), Grouping: o.grouping, Terminal: -1, Clear: o.dialect == dumbInit}
	// From here on a signal waits until there is somebody to send it to.
	if err := signals.Catch(); err != nil {
		return x.fail(1, "%v", err)
	}
	if err := x.prepare(); err != nil {
		return x.fail(1, "%v", err)
	}
	pid, err := x.cmd.Start()
	if err != nil {
		x.takeBack()
		return x.exit(x.notStarted(err))
	}
	if o.dialect == dumbInit || x.tellReaped || x.verbosity > 1 {
		x.peek = x.beforeCollect
	}
	x.child = pid
	x.say(sayStarted, o.argv[0], pid)
	x.sendOn()
	if o.dialect != tini {
		_ = os.Chdir("/") // no file system is kept busy
	}
	if x.killLeft || x.tellReaped || x.verbosity > 1 {
		// These make garbage, and Go wants a thread for each processor to collect it:
		// none can be had once the command has used up all numbers. It takes 0.3 MiB.
		runtime.GOMAXPROCS(1)
	}
	dropText()
	x.run()
	return x.exit(x.code)
}

// prepare does what comes before the fork.
func (x *sole) prepare() error {
	if x.parentDeath != 0 {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(x.parentDeath), 0, 0, 0); err != nil {
			return failed("ask for a signal at the parent's death", err)
		}
	}
	if x.subreaper || x.killLeft && x.self != 1 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return failed("become a subreaper", err)
		}
		x.say(saySubreaper)
	}
	if x.killLeft && x.self == 1 {
		x.namespace = !pazinit.FindPlace().Initial
	}
	x.warnOfPlace()
	switch x.grouping {
	case reaper.OwnSession:
		x.leaveTerminal()
	case reaper.OwnGroup:
		x.lookForTerminal()
	case reaper.SameGroup:
	}
	return nil
}

// sendOn has the signals that mean nothing to us sent on at once, without a
// thought: as long as there is a command, and nobody wants to be told.
func (x *sole) sendOn() {
	target := x.child
	if x.toGroup() {
		target = -x.child
	}
	signals.Target(target)
	for s := unix.Signal(1); s <= signals.MaxSignal; s++ {
		as := x.translate(s)
		if x.child == 0 || x.verbosity > 1 || x.special(s) {
			as = 0
		}
		signals.SendOn(s, as)
	}
}

func (x *sole) toGroup() bool { return !x.single && x.grouping != reaper.SameGroup }

func (x *sole) translate(s unix.Signal) unix.Signal {
	if n := x.rewrite[s]; n >= 0 {
		return unix.Signal(n)
	}
	return s
}

// special reports whether s takes more than to be sent on.
func (x *sole) special(s unix.Signal) bool {
	switch s {
	case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		return true
	case unix.SIGPIPE: // it may come of our own writing
		return true
	case unix.SIGCONT:
		if x.tty >= 0 || x.stopped {
			return true
		}
	}
	if x.swallowed&(1<<(s-1)) != 0 {
		return true
	}
	return asksToStop(s) && (x.stopped || x.grace > 0)
}

// asksToStop reports whether s is a wish that a program end.
func asksToStop(s unix.Signal) bool {
	return s == unix.SIGTERM || s == unix.SIGINT || s == unix.SIGQUIT
}

// run waits for signals until the command has ended, and what else it is to wait
// for.
func (x *sole) run() {
	for !x.turn() {
	}
}

// turn waits for one signal, and reports whether all is over. A panic is no end:
// it is told, and after a moment the children are looked at in any case.
func (x *sole) turn() (over bool) {
	defer func() {
		if v := recover(); v != nil {
			fmt.Fprintf(stderr{}, "pazinit: panic: %v\n%s", v, debug.Stack())
			x.look, over = true, false
			time.Sleep(panicPause)
		}
	}()
	limit := time.Duration(-1)
	if !x.deadline.IsZero() {
		limit = max(0, time.Until(x.deadline))
	}
	if x.pause > 0 && (limit < 0 || limit > x.pause) {
		limit = x.pause
	}
	if x.look {
		x.look, limit = false, 0
		if x.collect() {
			return true
		}
	}
	i, ok := signals.Wait(limit)
	switch {
	case !ok:
		if x.pause > 0 && x.collect() {
			return true
		}
	case i.Signal == unix.SIGCHLD:
		if x.tells(sayReceived) {
			x.say(sayReceived, i)
		}
		if x.collect() {
			return true
		}
	default:
		x.receive(i)
	}
	return x.late()
}

// panicPause is how long a turn that panicked rests, so that it never spins.
const panicPause = 100 * time.Millisecond

// receive is a signal that was not sent on without a thought.
func (x *sole) receive(i signals.Info) {
	s, as := i.Signal, x.translate(i.Signal)
	if s == unix.SIGPIPE && i.PID == x.self && i.Sent() {
		return // nobody reads what we say
	}
	if x.tells(sayReceived) { // else it makes no garbage
		x.say(sayReceived, i)
	}
	if bit := uint64(1) << (s - 1); x.swallowed&bit != 0 {
		x.swallowed &^= bit
		x.say(saySwallowed, int(s))
		x.sendOn()
		return
	}
	switch s {
	case unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		if x.dialect == tini {
			if s == unix.SIGTSTP {
				x.send(i, as)
			}
			return
		}
		if x.dialect == own && x.rewrite[s] >= 0 {
			break // it is another signal now, or none
		}
		if x.rewrite[s] < 0 && x.grouping != reaper.SameGroup {
			as = unix.SIGSTOP // an orphaned group would not be stopped by the others
		}
		x.send(i, as)
		x.say(saySuspended)
		x.halted, x.wants, x.front = true, x.wants || x.front, false
		if x.self != 1 { // whom it would not stop, but take a SIGCONT from that has just come
			_ = unix.Kill(x.self, unix.SIGSTOP)
		}
		return
	case unix.SIGCONT:
		x.goesOn()
	}
	x.send(i, as)
	if asksToStop(s) && as != 0 {
		x.ending = true
		x.wake()
		x.countdown()
	}
}

// send sends s to the command or its group, and after its end to what is left.
func (x *sole) send(i signals.Info, s unix.Signal) {
	switch {
	case s == 0:
		x.say(sayDropped, i)
	case x.child == 0:
		reaper.SignalLeft(s, x.namespace)
	default:
		err := reaper.SignalSole(x.child, s, x.toGroup())
		if x.tells(saySent) {
			x.say(saySent, i, s, err)
		}
	}
}

// countdown begins the grace. What is killed at its end has a tenth of it, at
// most a second, to be gone.
func (x *sole) countdown() {
	if x.grace > 0 && x.deadline.IsZero() {
		x.deadline = time.Now().Add(x.grace - min(x.grace/10, time.Second))
	}
}

// wake continues a command that stands still though it is to end. One that stops
// itself again and again is left so, and tini and dumb-init leave all of them.
func (x *sole) wake() {
	if x.dialect == own && x.ending && x.stopped && x.child != 0 && x.woken < 3 && !reaper.GoesOn(x.child) {
		x.woken++
		_ = reaper.SignalSole(x.child, unix.SIGCONT, x.toGroup())
	}
}

// collect looks after the children. It reports whether all is over. After the
// command's end those are collected, too, that are dead already: whoever gets ten
// thousands of zombies from us keeps the kernel busy for minutes, and all that
// fork or exit with it (will_become_orphaned_pgrp, kernel/exit.c, for each).
func (x *sole) collect() (over bool) {
	for n := 1; ; n++ {
		c, found, left := reaper.NextChange(x.peek)
		switch {
		case !found:
			if x.tells(sayNoMore) {
				x.say(sayNoMore, left)
			}
			return x.child == 0 && (!x.killLeft || !left && !x.othersLeft())
		case c.Continued:
			if c.PID == x.child {
				x.stopped = false
				x.sendOn()
			}
			continue
		case c.Stopped:
			x.standsStill(c)
			continue
		case c.PID == x.child:
			x.ended(c)
			if x.dialect == dumbInit {
				return true
			}
		case x.tells(sayReaped):
			x.say(sayReaped, c, x.reaped)
		}
		if n%256 == 0 { // orphans may come faster than they go
			for range 64 {
				i, ok := signals.Wait(0)
				if !ok {
					break
				}
				if i.Signal != unix.SIGCHLD {
					x.receive(i)
				}
			}
			if x.child == 0 && !x.killLeft && time.Since(x.end) > time.Second || x.late() {
				return true
			}
		}
	}
}

// othersLeft reports whether there is somebody in our PID namespace who is no
// child of ours: who has entered it from outside. Nobody tells us of their end.
func (x *sole) othersLeft() bool {
	if !x.namespace || !reaper.OthersLeft() {
		return false
	}
	x.pause = min(max(2*x.pause, 10*time.Millisecond), 500*time.Millisecond)
	return true
}

// late reports whether the grace is over and all is done that follows from it.
func (x *sole) late() bool {
	return !x.deadline.IsZero() && !time.Now().Before(x.deadline) && x.overdue()
}

// beforeCollect looks at a child while its number is still its own.
func (x *sole) beforeCollect(c reaper.Change) {
	if c.Stopped || c.Continued {
		return
	}
	if x.tellReaped || x.verbosity > 1 {
		x.reaped = reaper.Name(c.PID)
	}
	if x.dialect == dumbInit && c.PID == x.child { // it tells the rest of the group, and does not wait for it
		x.say(sayReaped, c, x.reaped)
		x.send(signals.Info{Signal: unix.SIGTERM}, x.translate(unix.SIGTERM))
	}
}

// standsStill is a child's stop.
func (x *sole) standsStill(c reaper.Change) {
	if c.PID != x.child {
		return
	}
	x.stopped = true
	if signals.SentOn()&(1<<(unix.SIGTERM-1)|1<<(unix.SIGINT-1)|1<<(unix.SIGQUIT-1)) != 0 {
		x.ending = true
	}
	x.sendOn()
	byUs := x.halted && c.Signal == unix.SIGSTOP
	x.halted = false
	if byUs || !x.stopsForTerminal(c.Signal) {
		x.wake()
	}
}

// ended is the command's end.
func (x *sole) ended(c reaper.Change) {
	x.code, x.end, x.child = c.Code, time.Now(), 0 // first, lest a panic lose it
	x.say(sayEnded, c)
	x.sendOn()
	x.takeBack()
	if x.killLeft {
		x.countdown()
		reaper.SignalLeft(unix.SIGTERM, x.namespace)
		reaper.SignalLeft(unix.SIGCONT, x.namespace)
	}
}

// overdue is the end of the grace: everything is killed, and what cannot be is
// not waited for.
func (x *sole) overdue() (over bool) {
	if x.killed {
		if x.child != 0 {
			x.code = 128 + int(unix.SIGKILL)
		}
		return true
	}
	x.killed = true
	x.say(sayKilled, x.grace)
	if x.child != 0 {
		_ = reaper.SignalSole(x.child, unix.SIGKILL, x.toGroup())
	}
	if x.killLeft {
		reaper.SignalLeft(unix.SIGKILL, x.namespace)
	}
	x.deadline = time.Now().Add(min(x.grace/10, time.Second))
	return false
}

// exit turns the status into the one to end with.
func (x *sole) exit(code int) int {
	x.say(sayExit, code)
	if to, ok := x.remap[code]; ok {
		return to
	}
	return code
}

// notStarted says why there is no command, and reports the status for it.
func (x *sole) notStarted(err error) int {
	code := 1
	var e *reaper.StartError
	if errors.As(err, &e) {
		code = e.Code()
	}
	return x.refused(err, code)
}

func failed(step string, err error) error { return fmt.Errorf("%s: %w", step, err) }

// errnoOf is what the kernel said.
func errnoOf(err error) unix.Errno {
	var e unix.Errno
	if !errors.As(err, &e) {
		return unix.EINVAL
	}
	return e
}

func prctlGet(option int, to *int32) error {
	return unix.Prctl(option, uintptr(unsafe.Pointer(to)), 0, 0, 0)
}
