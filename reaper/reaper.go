// Package reaper starts, signals and collects every child of this process. It
// is the only place that forks, signals or waits: a second waiter anywhere in
// the process (os/exec, say) would steal its exit statuses.
package reaper

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kind says what an [Event] tells.
type Kind uint8

// The kinds of event. Every Start is answered by Started and later Exited, or
// by Failed alone.
const (
	Started Kind = iota // the program was executed
	Failed              // it could not be; Err says why
	Exited              // the run's process ended and was reaped
	Orphan              // an adopted process, of no run, ended and was reaped; see TellOrphans
)

// An Event is what the reaper has to tell, in the order in which it happened.
type Event struct {
	Kind   Kind
	Run    uint64 // 0 for an orphan
	PID    int
	Status unix.WaitStatus // Exited, Orphan
	Usage  unix.Rusage     // Exited
	At     time.Time       // when it was noticed; for Started, when exec was through
	Err    *StartError     // Failed
}

// A child is one run that was started and has not been reported to its end.
type child struct {
	run    uint64
	flight *flight // until the spawner has reported
	pid    int
	pidfd  int // -1 when the kernel has none
	since  time.Time
	stuck  bool   // counted out of the spawners: its exec hangs
	later  uint64 // bit n-1: signal n is to be sent as soon as there is a process
	early  bool   // it was signalled before its spawner has reported
	unborn bool   // and, reaped before that too, it was killed before its exec
	exit   *Event // it was reaped before its spawner has reported
	err    *StartError
}

// Reaper owns the table of children. One goroutine waits for all of them; a few
// more fork, one for each start that is under way, since fork and exec block
// until the program is found.
//
// The table has one lock instead of one goroutine: the waiter's thread lies in
// waitid(2) and could not take requests, and a lock that is never held across
// anything that blocks costs a death no switch between threads. A signal is
// sent and a child is reaped only under it, so that no pid is signalled after
// the kernel may have given it to somebody else.
type Reaper struct {
	mu       sync.Mutex
	runs     map[uint64]*child
	pids     map[int]*child
	flying   map[*child]struct{} // with a spawner at work
	pending  []*Spec
	spawning int // spawners at work, the stuck ones aside
	stuck    int
	watching bool
	events   []Event
	orphans  uint64
	tell     bool      // of orphans
	through  time.Time // when a start came through last

	opt Options

	closed bool
	last   *flight // Close's own child
	ended  bool    // it was reaped: the waiter has nothing to wait for

	ready chan struct{} // holds one: there are events
	wake  chan struct{} // holds one: there may be children again
	done  chan struct{} // closed when the waiter has ended

	terminal bool // our session has a controlling one
	own      own
	ignored  []int
	null     int    // /dev/null, read and write
	std      [3]int // copies of our own 0, 1 and 2 above 2, or null
	actChld  sigaction

	closeHow uintptr // close_range's flags

	shares bool     // children may share our descriptors at first: files.go
	low    int      // above all of the places, null and std
	places []*place // the free ones
}

const (
	maxSpawners = 4                      // forks at a time; more only queue for the kernel's own locks
	stuckAfter  = 200 * time.Millisecond // an exec that takes longer leaves its place to another
	keepEvents  = 1024                   // a longer list of events is not kept for the next ones
)

// Options says how a Reaper treats its own process.
type Options struct {
	Raise     bool // a higher priority, less likely to be killed for want of memory, no huge pages; children get none of it
	Subreaper bool // orphaned descendants come to this process (PR_SET_CHILD_SUBREAPER, Linux 3.4)

	// Panicked is told of a panic, which has been recovered, by the goroutine that
	// it was in, so that its stack is there. It must not wait. nil prints it.
	Panicked func(where string, value any)

	faults func(at string) // of tests, which panic
}

// New starts to wait. There can be one Reaper in a process. Close it to end.
func New(o Options) (*Reaper, error) {
	r := &Reaper{
		runs: make(map[uint64]*child), pids: make(map[int]*child), flying: make(map[*child]struct{}),
		ready: make(chan struct{}, 1), wake: make(chan struct{}, 1), done: make(chan struct{}),
		ignored: ignored(), opt: o,
	}
	var err error
	if r.null, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		// An image may lack it: a pipe that nobody writes to is at its end as well.
		var p [2]int
		if unix.Pipe2(p[:], unix.O_CLOEXEC) != nil {
			return nil, fmt.Errorf("open /dev/null: %w", err)
		}
		unix.Close(p[1])
		r.null = p[0]
	}
	r.std = [3]int{r.null, r.null, r.null} // for what was closed when we were started
	for i := range r.std {
		fd, err := unix.FcntlInt(uintptr(i), unix.F_DUPFD_CLOEXEC, 3)
		if err == nil {
			r.std[i] = fd
		} else if !errors.Is(err, unix.EBADF) {
			r.ended = true
			r.closeFiles()
			return nil, fmt.Errorf("copy descriptor %d: %w", i, err)
		}
	}
	r.closeHow, r.shares = closeOthers()
	if r.shares {
		r.makePlaces()
	}
	rtSigaction(unix.SIGCHLD, nil, &r.actChld)
	r.terminal = hasTerminal()
	r.own.early()
	if o.Raise {
		r.own.raise()
	}
	if o.Subreaper {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			r.ended = true
			r.closeFiles()
			return nil, fmt.Errorf("become a subreaper: %w", err)
		}
	}
	r.begin("the reaper", r.wait)
	return r, nil
}

// Ready is signalled when Events has something.
func (r *Reaper) Ready() <-chan struct{} { return r.ready }

// Events takes what has happened since the last call. buf is used again.
func (r *Reaper) Events(buf []Event) []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.events
	if cap(buf) > keepEvents { // of a storm
		buf = nil
	}
	clear(buf)
	r.events = buf[:0]
	return out
}

// TellOrphans says whether orphans are to be told of as events. A storm of them
// is cheaper when nobody listens; they are counted all the same.
func (r *Reaper) TellOrphans(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell = on
}

// Orphans counts the adopted processes that were reaped.
func (r *Reaper) Orphans() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.orphans
}

// emit queues an event. The queue has no bound: a bounded one lets the loop and
// the reaper wait for each other. Called with mu held.
func (r *Reaper) emit(e Event) {
	r.events = append(r.events, e)
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

// Start begins a run; its answer is an event. It never blocks.
func (r *Reaper) Start(s *Spec) {
	if !r.enqueue(s) {
		return
	}
	// The spawner has this thread at once: what the caller still has to tell of
	// the death before is told while the kernel forks.
	runtime.Gosched()
}

func (r *Reaper) enqueue(s *Spec) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		r.refuse(s)
		return false
	}
	c := &child{run: s.Run, pidfd: -1}
	r.runs[s.Run] = c
	r.pending = append(r.pending, s)
	r.dispatch()
	return true
}

// refuse answers a start that will not be. Called with mu held.
func (r *Reaper) refuse(s *Spec) {
	r.emit(Event{Kind: Failed, Run: s.Run, At: time.Now(), Err: &StartError{Step: "start", Err: unix.ECANCELED}})
}

// dispatch hands out pending starts while there are spawners. Called with mu held.
func (r *Reaper) dispatch() {
	for len(r.pending) > 0 && r.spawning < maxSpawners+r.stuck {
		s := r.pending[0]
		r.pending[0] = nil
		r.pending = r.pending[1:]
		c := r.runs[s.Run]
		c.since = time.Now()
		r.flying[c] = struct{}{}
		r.spawning++
		r.begin("a start", func() { r.spawn(s, c) })
	}
	if len(r.pending) > 0 && !r.watching {
		r.watching = true
		r.begin("the watch of starts", r.unstick)
	}
}

// unstick gives the places of hung spawners to those that wait for one. While
// any start comes through, or waits for no more than a processor, none hangs: the
// machine is slow, and more threads would make it slower.
func (r *Reaper) unstick() {
	for wait := stuckAfter; wait > 0; {
		t := time.NewTimer(wait)
		<-t.C
		wait = r.unstickOnce()
	}
}

// unstickOnce reports when to look again, 0 for never.
func (r *Reaper) unstickOnce() (wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if wait = stuckAfter - time.Since(r.through); wait > 0 {
		return wait
	}
	r.watching = false // also after a panic
	for c := range r.flying {
		if !c.stuck && time.Since(c.since) >= stuckAfter && c.hangs() {
			c.stuck = true
			r.spawning--
			r.stuck++ // as many more at a time, lest a hundred that hang take long
		}
	}
	r.dispatch() // starts another watch if it must
	return 0
}

// hangs reports whether a start waits for something that may never come. Called
// with the Reaper's mu held.
func (c *child) hangs() bool {
	if c.exit != nil {
		return false
	}
	if c.flight == nil || c.flight.started() == 0 || !procIsOurs() {
		return true // for all that can be known
	}
	s, err := readStat(c.flight.started())
	return err != nil || s.unborn && !s.ready && !s.dead
}

// guarded calls f, whose panic is told and is no more than its end.
func (r *Reaper) guarded(f func()) {
	defer r.caught("a start")
	f()
}

// launch prepares a child and forks it. f is nil if it came not so far, pid 0 if
// there is no child. After a panic the start has failed, unless there is a child.
func (r *Reaper) launch(s *Spec, c *child) (f *flight, pid int, serr *StartError) {
	defer func() {
		if v := recover(); v != nil {
			r.panicked("a start", v)
			if f != nil {
				pid = f.started()
			}
			if pid == 0 {
				serr = &StartError{Step: "start", Err: errPanic}
			}
		}
	}()
	var err error
	if s.Prepare != nil {
		err = s.Prepare(s)
	}
	if err == nil {
		f, err = r.flight(s)
	}
	if err != nil {
		if !errors.As(err, &serr) {
			serr = &StartError{Step: "prepare", Err: err}
		}
		return f, 0, serr
	}
	r.mu.Lock()
	c.flight = f
	stop := c.later
	r.mu.Unlock()
	if stop&bit(unix.SIGKILL) != 0 {
		return f, 0, &StartError{Step: "start", Err: unix.ECANCELED}
	}
	r.fault("launch")
	r.own.lendMemory()
	defer r.own.takeMemory()
	pid, failed, err := f.fork(s.Cgroup)
	if err != nil {
		serr = startError(s, f, failed, err)
	}
	return f, pid, serr
}

// spawn is one start, from the preparation to the exec.
func (r *Reaper) spawn(s *Spec, c *child) {
	f, pid, serr := r.launch(s, c)
	now := time.Now()
	if s.Release != nil {
		r.guarded(s.Release)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		if v := recover(); v != nil {
			r.panicked("a start", v)
			r.rescueStart(c, pid)
		}
	}()
	r.through = now
	delete(r.flying, c)
	defer r.closeFiles()
	r.takeBack(f)
	if c.stuck {
		r.stuck--
	} else {
		r.spawning--
	}
	r.dispatch()
	if serr == nil && (c.unborn || c.early && c.exit == nil && killedEarly(pid)) {
		// A kill ends the vfork as an exec does, without an errno.
		serr = &StartError{Step: "start", Err: unix.ECANCELED, Hint: "killed before it was executed"}
	}
	c.err = serr
	if pid != 0 {
		c.pidfd = int(f.pidfd)
	}
	r.fault("started")
	if pid == 0 {
		delete(r.runs, c.run)
		r.emit(Event{Kind: Failed, Run: c.run, At: now, Err: serr})
		return
	}
	select { // the waiter may rest, for want of children
	case r.wake <- struct{}{}:
	default:
	}
	c.flight = nil
	if serr == nil {
		r.emit(Event{Kind: Started, Run: c.run, PID: pid, At: now})
	}
	if c.exit != nil { // reaped already
		r.finish(c)
		return
	}
	c.pid = pid
	if r.ended { // nobody waits for it
		if serr != nil {
			r.emit(Event{Kind: Failed, Run: c.run, PID: pid, At: now, Err: serr})
		}
		r.forget(c)
		return
	}
	r.pids[pid] = c
	r.sendLater(c)
}

// sendLater signals a child that was started as it was to be before. Called with
// mu held.
func (r *Reaper) sendLater(c *child) {
	if c.err != nil {
		return
	}
	for sig := unix.Signal(1); c.later != 0; sig++ {
		if c.later&bit(sig) != 0 {
			c.later &^= bit(sig)
			_ = r.send(c, sig, true)
		}
	}
}

// rescueStart tells of a start what a panic may have kept from being told. Called
// with mu held.
func (r *Reaper) rescueStart(c *child, pid int) {
	c.flight = nil
	told := func(kinds ...Kind) bool {
		return slices.ContainsFunc(r.events, func(e Event) bool { return e.Run == c.run && slices.Contains(kinds, e.Kind) })
	}
	switch {
	case r.runs[c.run] != c:
	case pid == 0 || c.exit != nil && c.err != nil:
		delete(r.runs, c.run)
		if c.pidfd >= 0 {
			unix.Close(c.pidfd)
			c.pidfd = -1
		}
		if !told(Failed) {
			r.emit(Event{Kind: Failed, Run: c.run, PID: pid, At: time.Now(), Err: &StartError{Step: "start", Err: errPanic}})
		}
	default:
		if c.err == nil && !told(Started) {
			r.emit(Event{Kind: Started, Run: c.run, PID: pid, At: time.Now()})
		}
		if c.exit != nil {
			r.finish(c)
			return
		}
		c.pid = pid
		r.pids[pid] = c
		select {
		case r.wake <- struct{}{}:
		default:
		}
		r.sendLater(c)
	}
}

// finish reports the end of c, which is reaped and whose spawner has reported.
// Called with mu held.
func (r *Reaper) finish(c *child) {
	if c.err != nil {
		r.emit(Event{Kind: Failed, Run: c.run, PID: c.exit.PID, At: c.exit.At, Err: c.err})
	} else {
		r.emit(*c.exit)
	}
	delete(r.runs, c.run)
	if c.pidfd >= 0 {
		unix.Close(c.pidfd)
		c.pidfd = -1
	}
}

// A storm of orphans is collected by the heap: one that comes so soon after
// another lets the waiter pause before it looks again, since to be woken costs
// more than to collect. A run's death is told that much later, in a storm only.
const (
	stormGap   = 200 * time.Microsecond
	stormPause = 500 * time.Microsecond
)

// waiting is what the waiter knows from one turn to the next.
type waiting struct {
	ru     unix.Rusage
	orphan time.Time // when the last one was collected
	storm  bool
	paused bool
	panics int // in a row
}

// wait is the only waiter of this process.
func (r *Reaper) wait() {
	defer close(r.done)
	rtSigaction(unix.SIGCHLD, &defaultAction, nil)
	var w waiting
	for r.waitOnce(&w) {
	}
}

// waitOnce waits for a child and collects it. It reports whether to go on, which
// a panic is no reason not to.
func (r *Reaper) waitOnce(w *waiting) (more bool) {
	defer func() {
		if v := recover(); v != nil {
			more = true
			r.panicked("the reaper", v)
			w.panics++
			nap(pauseAfter(w.panics))
		}
	}()
	flags := uintptr(0)
	if w.storm {
		flags = unix.WNOHANG
	}
	pid, killed, err := peek(flags)
	r.fault("wait")
	if errors.Is(err, unix.EINTR) {
		return true
	}
	if err != nil { // ECHILD
		w.storm = false
		return r.rest()
	}
	if pid == 0 { // nothing more for now
		w.storm = !w.paused
		if w.storm {
			nap(stormPause)
		}
		w.paused = w.storm
		return true
	}
	w.paused = false
	news, ended := r.collect(w, pid, killed)
	if ended {
		collectLast()
		return false
	}
	w.panics = 0
	// The loop is ready now: let it have this thread at once, rather than wake
	// another one for it; the next wait is picked up by whoever is free.
	if news {
		runtime.Gosched()
	}
	return true
}

// collect reaps the child pid, and tells of it. news says that there are events,
// ended that it was the last one.
func (r *Reaper) collect(w *waiting, pid int, killed bool) (news, ended bool) {
	at := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if killed {
		for c := range r.flying {
			if c.flight != nil && c.flight.started() == pid && c.exit == nil {
				c.unborn = killedEarly(pid)
			}
		}
	}
	var ws unix.WaitStatus
	n, err := unix.Wait4(pid, &ws, unix.WNOHANG, &w.ru)
	if err != nil || n != pid {
		return false, false
	}
	if ws.Stopped() {
		// It has made us its tracer (PTRACE_TRACEME), and waits for us to let it go
		// on; the kernel tells of that unasked. It lives: only its end is an end.
		return false, false
	}
	if r.reapedSafely(Event{Kind: Exited, PID: pid, Status: ws, Usage: w.ru, At: at}) {
		w.storm = at.Sub(w.orphan) < stormGap
		w.orphan = at
	}
	return len(r.events) > 0, r.ended
}

// reapedSafely is reaped, whose panic must not cost a death: nobody could wait for
// it once more. Called with mu held.
func (r *Reaper) reapedSafely(e Event) (orphan bool) {
	defer func() {
		if v := recover(); v != nil {
			r.panicked("the reaper", v)
			r.rescue(e)
		}
	}()
	r.fault("reaped")
	return r.reaped(e)
}

// rescue tells of a death that a panic may have kept from being told. Called with
// mu held.
func (r *Reaper) rescue(e Event) {
	if r.last != nil && r.last.started() == e.PID {
		r.ended = true
		return
	}
	for run, c := range r.runs {
		switch {
		case c.pid == e.PID, c.exit != nil && c.exit.PID == e.PID && c.pid != 0:
			e.Run = run
			if c.err != nil {
				e = Event{Kind: Failed, Run: run, PID: e.PID, At: e.At, Err: c.err}
			}
			delete(r.pids, e.PID)
			delete(r.runs, run)
			if c.pidfd >= 0 {
				unix.Close(c.pidfd)
				c.pidfd = -1
			}
			for i := range r.events {
				if o := &r.events[i]; o.Run == run && (o.Kind == Exited || o.Kind == Failed) {
					return
				}
			}
			r.emit(e)
			return
		case c.flight != nil && c.flight.started() == e.PID && c.exit == nil:
			e.Run = run
			c.exit = &e // its spawner will tell
			return
		}
	}
}

// collectLast collects who is dying when nobody will wait any more, and who
// would stay a zombie while the program goes on: a cgroup is empty a moment
// before its last processes can be collected. Who lives on is not waited for.
func collectLast() {
	for patience := 20; patience > 0; { // milliseconds
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR || pid > 0:
		case err != nil: // ECHILD
			return
		default:
			_, _ = unix.Poll(nil, 1)
			patience--
		}
	}
}

// reaped says whose process that was. Called with mu held.
func (r *Reaper) reaped(e Event) (orphan bool) {
	if c := r.pids[e.PID]; c != nil {
		delete(r.pids, e.PID)
		e.Run = c.run
		c.exit = &e
		r.finish(c)
		return false
	}
	if r.last != nil && r.last.started() == e.PID {
		r.ended = true
		return false
	}
	for c := range r.flying {
		if c.flight != nil && c.flight.started() == e.PID && c.exit == nil {
			e.Run = c.run
			c.exit = &e // parked until its spawner reports
			return false
		}
	}
	r.orphans++
	if r.tell {
		e.Kind = Orphan
		r.emit(e)
	}
	return true
}

// peek waits until a child has ended, unless flags has WNOHANG, and leaves it a
// zombie. It reports its pid, 0 for none, and whether a signal killed it.
func peek(flags uintptr) (pid int, killed bool, err error) {
	var si siginfoChild
	_, _, e := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&si)), unix.WEXITED|unix.WNOWAIT|flags, 0, 0)
	if e != 0 {
		return 0, false, e
	}
	return int(si.pid), si.code != cldExited, nil
}

// A siginfoChild is siginfo_t as waitid(2) fills it in on 64-bit Linux.
type siginfoChild struct {
	signo, errno, code int32
	_                  int32
	pid, uid, status   int32
	_                  [100]byte
}

// What si_code is then: include/uapi/asm-generic/siginfo.h.
const (
	cldExited    = 1
	cldDumped    = 3
	cldStopped   = 5
	cldContinued = 6
)

// rest waits until there may be children again, one of our own or one that was
// adopted: only SIGCHLD tells of those. Otherwise the kernel need not send it:
// under its default action it is dropped before it costs anything. rest reports
// whether to go on.
func (r *Reaper) rest() bool {
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, unix.SIGCHLD)
	defer signal.Stop(chld)
	rtSigaction(unix.SIGCHLD, &r.actChld, nil)
	defer rtSigaction(unix.SIGCHLD, &defaultAction, nil)
	if _, _, err := peek(unix.WNOHANG); err == nil { // came before the handler did
		return true
	}
	r.mu.Lock()
	ended := r.ended
	r.mu.Unlock()
	if ended {
		return false
	}
	select {
	case <-r.wake:
	case <-chld:
	}
	return true
}

func rtSigaction(sig unix.Signal, act, old *sigaction) {
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(act)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
}

// Close ends the waiting. Children that still run are left alone, starts that
// were not begun are answered with ECANCELED; a spawner that hangs stays until
// its exec is over. The priority is as before again; that this is a subreaper stays.
func (r *Reaper) Close() {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.closed = true
	for _, s := range r.pending {
		delete(r.runs, s.Run)
		r.refuse(s)
	}
	r.pending = nil
	// A child that does nothing ends the waiter's wait. Its end alone: if the
	// waiter left after any other, this one would stay a zombie.
	f := &flight{}
	f.add("", opOptional, unix.SYS_GETPID)
	r.last = f
	r.mu.Unlock()

	_, _, err := f.fork(-1)
	if f.pidfd >= 0 {
		unix.Close(int(f.pidfd))
	}
	if err != nil { // no process to be had: the waiter ends with its next child
		r.mu.Lock()
		r.ended = true
		r.mu.Unlock()
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
	if err == nil {
		<-r.done
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	rtSigaction(unix.SIGCHLD, &r.actChld, nil)
	for _, c := range r.pids {
		r.forget(c)
	}
	r.own.lower()
	r.closeFiles()
}

// forget leaves a running child to itself. Called with mu held.
func (r *Reaper) forget(c *child) {
	delete(r.pids, c.pid)
	delete(r.runs, c.run)
	if c.pidfd >= 0 {
		unix.Close(c.pidfd)
		c.pidfd = -1
	}
}

// closeFiles closes what children are given, once no fork can need it any more.
// Called with mu held.
func (r *Reaper) closeFiles() {
	if !r.ended || len(r.flying) > 0 || r.null < 0 {
		return
	}
	for _, fd := range r.std {
		if fd != r.null {
			unix.Close(fd)
		}
	}
	for _, p := range r.places {
		for _, fd := range p {
			unix.Close(fd)
		}
	}
	r.places = nil
	unix.Close(r.null)
	r.null = -1
}
