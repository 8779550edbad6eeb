// Package pazinit supervises workers: it starts them, sees them die, starts them
// again, stops them with everything that they started, and tells what happened.
// It is what the program pazinit is made of, and can be used from any Go program
// on Linux:
//
//	s, err := pazinit.New(pazinit.Options{})
//	w, err := pazinit.NewWorker("trainer", "train --fast")
//	w.NumInstances = 3
//	err = s.Add(w)
//	code, err := s.Run(ctx) // until ctx ends; then nothing of them is left
//
// While a Supervisor runs it collects every child of the process: programs
// started by os/exec in the same process would lose their exit statuses to it.
//
// The folder is named init; the clause cannot be, since the Go specification
// keeps that identifier for functions.
package pazinit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/cgroupfs"
	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/init/internal/lifecycle"
	"github.com/pazinit/pazinit/output"
	"github.com/pazinit/pazinit/procfile"
	"github.com/pazinit/pazinit/reaper"
)

// Options says how a Supervisor works. The zero value is usable.
type Options struct {
	Config *procfile.Config                 // nil: no worker but those that are added
	Reload func() (*procfile.Config, error) // reads the configuration again; nil: reload is refused
	Only   []string                         // names: only these workers of the configuration

	Stdout, Stderr *os.File  // the console; nil is the process's own
	Format         string    // of the console: auto, plain, json or raw
	LogWriter      io.Writer // pazinit's own messages go here instead of the console

	Place     Place // where this process runs; see FindPlace
	Raise     bool  // give this process a higher priority; its workers do not get it
	NoCgroups bool  // follow processes by other means, see package reaper's Tree

	// Syslog makes a receiver of what programs say by syslog(3) and of the kernel's
	// messages, where the configuration asks for one; nil: there is none. serves says
	// that it has the socket. stop ends it, and is nil if it has not begun; err is
	// what could not be done, and is said.
	Syslog func(SyslogOptions) (stop func(deadline time.Time), serves bool, err error)

	// Ends says why the supervisor cannot be ended in this way, which is one of the
	// verbs poweroff, reboot, halt and kexec; nil is yes. Without a function they
	// are refused.
	Ends func(what string) error

	// Conditions are what a worker's wait_for names: they hold when their channel is
	// closed. One that is not here holds.
	Conditions map[string]<-chan struct{}

	faults func(at string) // of tests, which panic

	Version string
	Settled func() // called once, on a goroutine of its own, when what was to be started at first has been
}

// A Worker is what to run and how.
type Worker struct {
	procfile.Worker
	Stdout, Stderr io.Writer // where its output goes, whole lines at a time, instead of the console

	env atomic.Pointer[[]string] // see environ
}

// NewWorker returns a worker with every default filled in. name is "app:worker",
// or "worker" for one of the application "app"; commandLine is a Procfile's.
func NewWorker(name, commandLine string) (*Worker, error) {
	app, worker := splitName(name)
	if err := procfile.CheckName(app); err != nil {
		return nil, err
	}
	if err := procfile.CheckName(worker); err != nil {
		return nil, err
	}
	cmd, err := procfile.ParseCommand(commandLine)
	if err != nil {
		return nil, fmt.Errorf("command of %s: %w", name, err)
	}
	w := procfile.NewWorker(app, worker, cmd)
	if dir, err := os.Getwd(); err == nil {
		w.Dir = dir
	}
	return &Worker{Worker: *w}, nil
}

// processes is the loop's hands: *reaper.Reaper, or a recorder in tests.
type processes interface {
	Start(*reaper.Spec)
	Signal(run uint64, sig unix.Signal, group bool) error
	Ready() <-chan struct{}
	Events(buf []reaper.Event) []reaper.Event
	Adopted() bool
	TellOrphans(bool)
	Orphans() uint64
	Dismiss(until time.Time, told func([]reaper.Stranger)) []reaper.Stranger
	Close()
}

// A Supervisor owns its workers. One goroutine, the loop in [Supervisor.Run],
// touches them; all methods may be called from any goroutine.
type Supervisor struct {
	opt   Options
	cfg   *procfile.Config
	procs processes
	hub   *output.Hub // when early is over
	early early
	tree  *cgroupfs.Hierarchy // nil: without cgroups
	bus   control.Bus
	nonce string // makes the token of a run unique on this machine

	reloading sync.Mutex // one at a time
	clients   clients
	senders   senders
	panics    panics
	syslog    syslog            // setSyslog's
	whys      map[string]string // of conditions, the loop's

	calls chan func() // carried out by the loop
	done  chan struct{}

	mu      sync.Mutex
	running bool          // Run was called; mu
	opened  chan struct{} // closed when Run's loop is about to begin

	// Everything below is the loop's.
	apps      []*app
	byRun     map[uint64]*instance
	lastID    uint64
	seed      uint64 // of the jitter: machines that start together must not try together
	batches   []*batch
	first     *batch // of them: the one that starts what is to be started at first
	waiters   []*waiter
	tells     bool               // the reaper tells of orphans
	draining  map[*instance]bool // leader dead, tree not; without cgroups
	looks     int                // into /proc, for what is left of a run, that are under way
	end       ending
	over      int       // instances that have ended for good
	rest      time.Time // no deadline before it
	leaving   bool      // something is to be forgotten when it has stopped
	began     time.Time
	interrupt bool // one INT came
	hup, usr1 errand
	files     *background
	loggers   map[*instance]*loggerPair
	buf       []reaper.Event
}

// New makes a Supervisor with the workers of opt.Config. Nothing runs before
// Run; there can be one at a time in a process.
func New(opt Options) (*Supervisor, error) {
	if opt.Place == (Place{}) {
		opt.Place = FindPlace()
	}
	s := &Supervisor{
		opt: opt, cfg: opt.Config,
		calls: make(chan func()), done: make(chan struct{}), opened: make(chan struct{}),
		byRun: make(map[uint64]*instance), draining: make(map[*instance]bool), loggers: make(map[*instance]*loggerPair),
		seed:  uint64(time.Now().UnixNano()),
		nonce: fmt.Sprintf("%x.%x", os.Getpid(), time.Now().UnixNano()),
	}
	if s.cfg == nil {
		s.cfg = &procfile.Config{Cgroups: procfile.Cgroups{HierarchyRoot: "pazinit", FSRoot: "/sys/fs/cgroup"}, EndWhen: "any"}
	}
	if err := s.adopt(s.cfg); err != nil {
		return nil, err
	}
	return s, nil
}

// Check reports what is wrong with cfg beyond what its reader saw: ports that
// overlap, names in only that nobody has.
func Check(cfg *procfile.Config, only []string) error {
	s := &Supervisor{opt: Options{Only: only}, cfg: cfg}
	return s.adopt(cfg)
}

// Add adds a worker, which is started if its Autostart says so. Before Run it
// only joins those that Run will start.
func (s *Supervisor) Add(w *Worker) error {
	return s.ask(func() error { return s.addWorker(w, false) })
}

// Events begins to read what happens after the event numbered after; 0 is from
// the first one that is remembered.
func (s *Supervisor) Events(after uint64) *control.Subscription { return s.bus.Subscribe(after, 0) }

// Shutdown begins to stop everything; Run returns when it is done.
func (s *Supervisor) Shutdown(reason string) { s.post(func() { s.shutdown(reason, 0) }) }

// ask has the loop carry out f and waits for it. Before Run there is no loop,
// and f is carried out here.
func (s *Supervisor) ask(f func() error) error {
	s.mu.Lock()
	if !s.running {
		defer s.mu.Unlock()
		return f()
	}
	s.mu.Unlock()
	reply := make(chan error, 1)
	if !s.post(func() {
		err := errPanic // else
		defer func() { reply <- err }()
		s.fault("ask")
		err = f()
	}) {
		return errEnded
	}
	select {
	case err := <-reply:
		return err
	case <-s.done:
		return errEnded
	}
}

// post has the loop carry out f, and does not wait for that. It reports whether
// there is a loop.
func (s *Supervisor) post(f func()) bool {
	select {
	case s.calls <- f:
		return true
	case <-s.done:
		return false
	}
}

// Run starts the workers and supervises them until ctx ends, Shutdown is called
// or, where [Options.Place] says that this is the end, none of them can ever run
// again. When it returns nothing of them is left. It reports the exit status
// that the process should have.
func (s *Supervisor) Run(ctx context.Context) (code int, err error) {
	s.mu.Lock()
	again := s.running
	s.running = true
	s.mu.Unlock()
	if again {
		return 1, errors.New("the supervisor was run before")
	}
	defer close(s.done)
	if err := s.open(); err != nil {
		return 1, err
	}
	close(s.opened)
	s.loop(ctx)
	s.close()
	return s.end.code, nil
}

// open makes what the loop needs of the machine.
func (s *Supervisor) open() error {
	color := ""
	if s.opt.Format == "plain" {
		color = "never"
	}
	hub, err := output.New(output.Options{
		Color:  color,
		Stdout: s.opt.Stdout, Stderr: s.opt.Stderr, OpenConsole: !s.opt.Place.Initial, Format: s.opt.Format,
		ConsoleFull: s.cfg.ConsoleFull, RingSize: s.cfg.OutputRing, LogPath: s.cfg.LogPath, Panicked: s.Panicked,
	})
	if err != nil {
		s.early.mu.Lock()
		defer s.early.mu.Unlock()
		for _, l := range s.early.lines {
			s.lastResort(l[1])
		}
		s.early.lines = nil
		return err
	}
	s.hub = hub
	before := s.early.end()
	s.began = time.Now()
	if s.opt.Place.PID1 {
		for in := range s.visible() {
			if in.spec.TTY {
				reaper.TakeTerminal(0)
				break
			}
		}
	}
	if s.procs == nil {
		r, err := reaper.New(reaper.Options{Raise: s.opt.Raise, Subreaper: true, Panicked: s.Panicked})
		if err != nil {
			_ = hub.Close(time.Now())
			return err
		}
		s.procs = r
	}
	if !s.opt.NoCgroups {
		h, err := cgroupfs.Open(cgroupfs.Options{
			FSRoot: s.cfg.Cgroups.FSRoot, Root: s.cfg.Cgroups.HierarchyRoot,
			RootSet: s.cfg.Cgroups.HierarchyRootSet, Subsystems: s.cfg.Cgroups.Subsystems,
			Panicked: s.Panicked,
		})
		var inUse *cgroupfs.InUseError
		switch {
		case errors.As(err, &inUse):
			s.procs.Close()
			_ = hub.Close(time.Now().Add(time.Second))
			return err
		case err != nil:
			s.logf("without cgroups: %s", whyNone(err))
		default:
			s.tree = h
		}
	}
	names := 0
	for in := range s.visible() {
		names = max(names, len(in.name))
	}
	hub.NameWidth(names)
	s.logf("started, pid %d, %s%s", os.Getpid(), s.opt.Place, s.versionText())
	for _, l := range before {
		hub.Log(l[0], l[1])
	}
	if names == 0 {
		s.logf("there is no worker to run")
	}
	s.files = newBackground(s)
	s.setSyslog(s.wantsSyslog(s.cfg))
	return nil
}

// whyNone is the first of the reasons why there are no cgroups.
func whyNone(err error) string {
	if no := (*cgroupfs.UnavailableError)(nil); errors.As(err, &no) {
		err = no.Causes[0]
	}
	why, _, _ := strings.Cut(err.Error(), "\n")
	return why + "; pazinit doctor says more"
}

func (s *Supervisor) versionText() string {
	if s.opt.Version == "" {
		return ""
	}
	return ", version " + s.opt.Version
}

// close gives back what open took. Nothing of the workers is left.
func (s *Supervisor) close() {
	s.files.do(func() { s.setSyslog(false) })
	s.files.close(s.endBy(time.Second))
	s.procs.Close()
	if s.tree != nil {
		_ = s.tree.Close() // and every group in it
	}
	s.hub.Flush(s.endBy(time.Second))
	s.lastWords()
	_ = s.hub.Close(s.endBy(2 * time.Second))
	s.bus.Close()
}

// loop is the only goroutine that touches instances. A turn: receive, decide,
// act, look at the batches, the waiters and the end, arm the one timer.
func (s *Supervisor) loop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	ended := ctx.Done()
	s.must(s.awaitConditions)
	s.must(s.autostart)
	for {
		s.turn(time.Now())
		if s.end.over {
			return
		}
		var due <-chan time.Time // nil: no deadline is armed
		if d := s.nextDeadline(); !d.IsZero() {
			timer.Reset(time.Until(d))
			due = timer.C
		}
		select {
		case <-s.procs.Ready():
			s.buf = s.procs.Events(s.buf)
			for i := range s.buf {
				s.reapedSafely(&s.buf[i])
			}
		case f := <-s.calls:
			s.call(f)
		case <-due:
			s.deadlines(time.Now())
		case <-ended:
			ended = nil
			s.must(func() { s.shutdown("the context has ended", 0) })
		}
	}
}

// turn carries on what is under way after each message, until nothing moves.
func (s *Supervisor) turn(now time.Time) {
	defer s.loopCaught()
	s.fault("turn")
	for again := true; again && !s.end.over; {
		again = false
		s.batches = slices.DeleteFunc(s.batches, func(b *batch) bool {
			moved, over := s.advanceSafely(b, now)
			again = again || moved
			return over
		})
		s.forgetRemoved()
		s.forgetLoggers()
		again = s.lookAtEndSafely(now) || again
	}
	if s.first != nil && !slices.Contains(s.batches, s.first) {
		s.first = nil
		if s.opt.Settled != nil {
			s.begin("what comes after the start", s.opt.Settled)
		}
	}
	if s.tells && len(s.draining) == 0 && s.looks == 0 {
		s.tellOrphans(false)
	}
	s.waiters = slices.DeleteFunc(s.waiters, func(w *waiter) bool { return w.look() })
}

// tellOrphans says whether the deaths of adopted processes matter: while
// something may be left of a run that has no cgroup.
func (s *Supervisor) tellOrphans(on bool) {
	s.tells = on
	s.procs.TellOrphans(on)
}

// earliest reports the next deadline, zero for none.
func (s *Supervisor) earliest() time.Time {
	var first time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	for in := range s.all() {
		sooner(in.life.Deadline())
	}
	for _, b := range s.batches {
		sooner(b.hold)
	}
	sooner(s.nextOfEnd())
	return first
}

// nextDeadline is earliest, but not so soon after a panic.
func (s *Supervisor) nextDeadline() (d time.Time) {
	defer func() {
		if v := recover(); v != nil {
			s.loopPanicked(v)
			d = s.rest
		}
	}()
	if d = s.earliest(); d.IsZero() || s.rest.IsZero() {
		return d
	}
	return later(d, s.rest)
}

// deadlines tells those whose deadline has passed.
func (s *Supervisor) deadlines(now time.Time) {
	defer s.loopCaught()
	for in := range s.all() {
		if d := in.life.Deadline(); !d.IsZero() && !now.Before(d) {
			s.call(func() { s.step(in, lifecycle.Event{Kind: lifecycle.Deadline}) })
		}
	}
}

// step puts an event to an instance and carries out what it decides.
func (s *Supervisor) step(in *instance, ev lifecycle.Event) {
	for _, a := range in.life.Step(time.Now(), ev) {
		s.doSafely(in, a)
	}
}

// reaped is one event of the reaper.
func (s *Supervisor) reaped(e *reaper.Event) {
	// What a run left behind comes to us to die, and may not be told from others
	// while it does.
	for in := range s.draining {
		s.lookForLeft(in, in.life.Run())
	}
	if e.Kind == reaper.Orphan {
		return
	}
	in := s.byRun[e.Run]
	if in == nil {
		return
	}
	switch e.Kind {
	case reaper.Started:
		in.started(s, e)
	case reaper.Failed:
		delete(s.byRun, e.Run)
		in.failed(s, e)
	case reaper.Exited:
		delete(s.byRun, e.Run)
		in.exited(s, e)
	case reaper.Orphan: // handled above
	}
}

// logf writes one of pazinit's own messages.
func (s *Supervisor) logf(format string, args ...any) {
	s.log("info", fmt.Sprintf(format, args...))
}

func (s *Supervisor) log(level, msg string) {
	if s.opt.LogWriter != nil {
		_, _ = io.WriteString(s.opt.LogWriter, msg+"\n")
		return
	}
	if !s.early.keep(level, msg) {
		s.hub.Log(level, msg)
	}
}

// Log writes one of pazinit's own messages to its log; what comes before Run has
// one is kept for it, as far as it is not very much.
func (s *Supervisor) Log(msg string) { s.logf("%s", msg) }

// early is what was said before there was a log.
type early struct {
	mu    sync.Mutex
	over  bool
	lines [][2]string // level, message
}

const mostEarly = 100

// keep reports whether it keeps a message: there is no log yet.
func (e *early) keep(level, msg string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.over && len(e.lines) < mostEarly {
		e.lines = append(e.lines, [2]string{level, msg})
	}
	return !e.over
}

// end is when there is a log, and never again.
func (e *early) end() [][2]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	lines := e.lines
	e.over, e.lines = true, nil
	return lines
}

// lastResort writes where the console is, when there is no log.
func (s *Supervisor) lastResort(text string) {
	fd := 2
	if s.opt.Stderr != nil {
		fd = int(s.opt.Stderr.Fd())
	}
	_, _ = unix.Write(fd, []byte("pazinit: "+text+"\n")) // os.Stderr ends the program when nobody reads it
}
