package pazinit

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
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

// An instance is one numbered copy of a worker. The loop owns it, but for what
// is marked otherwise.
type instance struct {
	id   uint64
	w    *worker
	n    int
	name string  // shop:web.1
	spec *Worker // its settings; those of the worker, but for a reload that stopped half-way
	life lifecycle.Instance

	pid       int
	since     time.Time // of the state
	restarts  int
	last      *control.Exit
	reason    string
	command   uint64 // grows with each command to it: one that waits in a batch is void then
	byHand    bool   // an operator stopped it
	waits     string // for these conditions, before its first start; "" for none
	over      bool   // counted among those that have ended for good
	removing  bool   // to be forgotten when it is stopped
	leader    int    // without cgroups: the pid that the dead run had
	looking   bool   // without cgroups: a look for what is left is under way
	lookAgain bool
	hidden    bool // a logger: not a worker of anybody's

	// Runs that pazinit may not signal: their process, by SIGKILL something of
	// their tree, and that it was said. No run is 0.
	barred, unkillable, toldBarred uint64

	input *output.Logger

	// The spawner makes both, the loop reads them.
	source atomic.Pointer[output.Source]
	group  atomic.Pointer[cgroupfs.Group]
	tenant tenant
	stale  bool // source was made for settings that are gone
}

// A tenant is the run that a group is of. Whoever signals a group holds it, so
// that a signal that was meant for one run cannot come late and hit the next.
type tenant struct {
	mu  sync.Mutex
	run uint64
}

func (t *tenant) enter(run uint64) {
	t.mu.Lock()
	t.run = run
	t.mu.Unlock()
}

// during calls f if the group still is of run, and keeps the next one out.
func (t *tenant) during(run uint64, f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.run == run {
		f()
	}
}

// key names a run of in among those of all instances.
func (in *instance) key(run uint64) uint64 { return in.id<<32 | run&(1<<32-1) }

// token is what PAZINIT_RUN says: unique on this machine.
func (in *instance) token(s *Supervisor, run uint64) string {
	return fmt.Sprintf("%s/%s/%d", s.nonce, in.name, run)
}

// do carries out one action of the life of in.
func (s *Supervisor) do(in *instance, a lifecycle.Action) {
	switch a.Op {
	case lifecycle.OpSpawn:
		if a.Run > 1 {
			in.restarts++
		}
		s.spawn(in, a.Run)
	case lifecycle.OpSignal:
		s.signal(in, a.Run, unix.Signal(a.Signal), a.Scope)
	case lifecycle.OpSweep:
		s.sweep(in, a.Run)
	case lifecycle.OpAnnounce:
		s.announce(in, a)
	case lifecycle.OpNote:
		if in.unkillable == a.Run {
			switch a.Note {
			case "stop_killed":
				a.Reason = strings.TrimSuffix(a.Reason, ", and is killed") + ", and " + noKill
			case "uninterruptible":
				a.Note, a.Reason = "not_permitted", "SIGKILL has not ended it yet: it "+noKill
			}
		}
		s.publish(control.Event{Kind: a.Note, Name: in.name, Run: a.Run, Reason: a.Reason})
		s.logf("%s: %s", in.name, a.Reason)
	}
}

// announce tells everybody that in has a new state.
func (s *Supervisor) announce(in *instance, a lifecycle.Action) {
	to := in.life.State()
	in.since, in.reason = time.Now(), a.Reason
	s.countOver(in, in.life.Over())
	if in.hidden {
		return
	}
	s.publish(control.Event{
		Kind: "state", Name: in.name, Run: a.Run, From: a.From.String(), To: to.String(),
		Reason: a.Reason, PID: in.pid, Delay: a.Delay.Seconds(), Try: a.Try,
	})
	switch to {
	case lifecycle.Running:
		s.logf("%s is RUNNING, pid %d", in.name, in.pid)
	case lifecycle.Backoff:
		s.logf("%s is in BACKOFF: %s; next try in %s", in.name, a.Reason, brief(a.Delay))
	case lifecycle.Fatal:
		next := "it is given up"
		if a.Delay != 0 {
			next = "next try in " + brief(a.Delay)
			if in.spec.Essential && s.cfg.EndWhen != "all" {
				next += "; essential, but tried again: retry_after: off would end pazinit"
			}
		}
		s.logf("%s is FATAL: %s; %s", in.name, a.Reason, next)
	case lifecycle.Starting:
		if a.From != lifecycle.Stopped && a.From != lifecycle.Backoff {
			s.logf("%s: %s", in.name, a.Reason)
		}
	case lifecycle.Exited:
		s.logf("%s is EXITED: %s", in.name, a.Reason)
	case lifecycle.Stopped:
		switch {
		case a.From == lifecycle.Stopping && in.last != nil:
			s.logf("%s is STOPPED: %s", in.name, exitText(in.last))
		case !s.end.began: // at the end, those that had ended before say no more
			s.logf("%s is STOPPED: %s", in.name, a.Reason)
		}
	case lifecycle.Stopping:
	}
}

func (s *Supervisor) publish(e control.Event) {
	e.Time = time.Now()
	s.bus.Publish(e)
}

// spawn has the reaper start a run of in. What may block, or costs, is done in
// Prepare, on the spawner's goroutine.
func (s *Supervisor) spawn(in *instance, run uint64) {
	key := in.key(run)
	s.byRun[key] = in
	w, port, token := in.spec, in.port(), in.token(s, run)
	stale := in.stale
	in.stale = false
	spec := &reaper.Spec{
		Run: key, Argv: w.Command.Argv, Dir: w.Dir, Umask: w.Umask,
		Files: [3]int{-1, -1, -1}, Cgroup: -1,
	}
	var open []*os.File
	spec.Prepare = func(rs *reaper.Spec) error {
		src, err := s.capture(in, w, stale)
		if err != nil {
			return &reaper.StartError{Step: "prepare output", Err: err}
		}
		rs.Files[1], rs.Files[2] = src.Files()
		switch {
		case in.input != nil:
			rs.Files[0] = in.input.Stdin()
		case w.Stdin == "inherit" || w.TTY:
			rs.Files[0] = 0
		}
		if w.TTY {
			rs.Files, rs.Terminal = [3]int{0, 1, 2}, true
		}
		rs.Env = s.environ(w, in.n, port, token)
		if w.User != nil && (os.Geteuid() == 0 || int(w.User.UID) != os.Geteuid()) {
			rs.User = &reaper.User{UID: w.User.UID, GID: w.User.GID, Groups: w.User.Groups, SetUID: w.User.UIDSet, SetGID: true}
		}
		in.tenant.enter(run)
		open = s.enterGroup(in, rs)
		return nil
	}
	spec.Release = func() {
		for _, f := range open {
			f.Close()
		}
	}
	s.procs.Start(spec)
}

// capture gives the output of in, made for w. It is the spawner's.
func (s *Supervisor) capture(in *instance, w *Worker, stale bool) (*output.Source, error) {
	src := in.source.Load()
	if src != nil && !stale {
		return src, nil
	}
	cfg := output.Config{Name: in.name, App: w.App, Worker: w.Name, Instance: in.n, UID: os.Geteuid(), GID: os.Getegid()}
	if w.User != nil {
		cfg.UID, cfg.GID = int(w.User.UID), int(w.User.GID)
	}
	cfg.Stdout, cfg.Stderr = in.target(&w.Worker.Stdout, "stdout"), in.target(&w.Worker.Stderr, "stderr")
	if w.Stdout != nil {
		cfg.Stdout = output.Target{Kind: "writer", Writer: w.Stdout}
	}
	if w.Stderr != nil {
		cfg.Stderr = output.Target{Kind: "writer", Writer: w.Stderr}
	}
	fresh, err := s.hub.Source(cfg)
	if err != nil {
		return nil, err
	}
	in.source.Store(fresh)
	s.senders.add(in)
	if src != nil {
		src.Close()
	}
	return fresh, nil
}

func (in *instance) target(t *procfile.Target, stream string) output.Target {
	return output.Target{Kind: t.Kind, Path: t.Path, RotateSize: t.RotateSize, RotateKeep: t.RotateKeep, Logger: in.w.loggerOf(stream)}
}

// enterGroup makes the cgroup of in and says how the child comes into it. It is
// the spawner's. Where it cannot be made the worker runs without one.
func (s *Supervisor) enterGroup(in *instance, rs *reaper.Spec) []*os.File {
	if s.tree == nil {
		return nil
	}
	if g := in.group.Load(); g != nil && g.Sound() {
		if f, err := g.OpenFD(); err == nil {
			rs.Cgroup = int(f.Fd())
			s.senders.enters(in, f)
			return []*os.File{f}
		}
	}
	g, err := s.emptyGroup(in)
	var open []*os.File
	if err == nil {
		if f, err := g.OpenFD(); err == nil {
			in.group.Store(g)
			rs.Cgroup = int(f.Fd())
			s.senders.enters(in, f)
			return []*os.File{f}
		}
	}
	if err == nil {
		open, err = g.EnterFiles()
	}
	if err != nil {
		in.group.Store(nil)
		s.logf("%s runs without a cgroup: %v", in.name, err)
		return nil
	}
	in.group.Store(g)
	for _, f := range open {
		rs.CgroupProcs = append(rs.CgroupProcs, int(f.Fd()))
	}
	return open
}

// emptyGroup makes the group of in. What lives in it is of a supervisor that is
// gone, and is killed: never two copies of one instance.
func (s *Supervisor) emptyGroup(in *instance) (*cgroupfs.Group, error) {
	name := in.w.app.name + "/" + in.w.name + "." + strconv.Itoa(in.n)
	g, err := s.tree.Group(name)
	if err != nil {
		return nil, err
	}
	if g.Made() {
		return g, nil
	}
	left, err := g.Populated()
	if err != nil || !left {
		return g, err
	}
	s.logf("%s: what an earlier supervisor left in %s is killed", in.name, g.Path())
	empty := make(chan struct{})
	if err := g.NotifyEmpty(func() { close(empty) }); err != nil {
		return nil, err
	}
	if err := g.Kill(); err != nil {
		return nil, err
	}
	select {
	case <-empty:
		return s.tree.Group(name)
	case <-time.After(leftTime):
		return nil, errors.New("what an earlier supervisor left there does not die")
	}
}

// leftTime is how long the end of an earlier supervisor's processes is waited for.
const leftTime = 5 * time.Second

func (in *instance) removeGroup() {
	if g := in.group.Swap(nil); g != nil {
		_ = g.Remove()
	}
}

// started is the exec of a run.
func (in *instance) started(s *Supervisor, e *reaper.Event) {
	in.pid = e.PID
	s.senders.begun(e.PID, in)
	if f := in.spec.PIDFile; f != "" {
		pid := e.PID
		s.files.do(func() {
			if err := WritePIDFile(f, pid); err != nil {
				s.logf("%s: %v", in.name, err)
			}
		})
	}
	s.step(in, lifecycle.Event{Kind: lifecycle.Spawned, Run: e.Run & (1<<32 - 1)})
}

// failed is a run that could not be executed.
func (in *instance) failed(s *Supervisor, e *reaper.Event) {
	msg := e.Err.Error()
	code := e.Err.Code()
	if in.spec.Command.Shell && e.Err.Step == "execute" && errors.Is(e.Err, unix.ENOENT) {
		msg = fmt.Sprintf("%q needs a shell, and there is no /bin/sh here: write it without variables and shell syntax", in.spec.Command.Line)
	}
	in.last = &control.Exit{Code: code, Error: msg, Time: e.At, Run: e.Run & (1<<32 - 1), PID: e.PID}
	in.died(s, e)
	s.step(in, lifecycle.Event{Kind: lifecycle.SpawnFailed, Run: in.last.Run, Code: code, Reason: msg})
}

// exited is the end of a run's process.
func (in *instance) exited(s *Supervisor, e *reaper.Event) {
	run := e.Run & (1<<32 - 1)
	x := &control.Exit{Code: exitCode(e.Status), Time: e.At, Run: run, PID: e.PID}
	if e.Status.Signaled() {
		x.Signal = unix.SignalName(e.Status.Signal())
		if x.Signal == "" {
			x.Signal = "SIG" + strconv.Itoa(int(e.Status.Signal()))
		}
		x.Core = e.Status.CoreDump()
	}
	in.last = x
	leader := in.pid
	in.died(s, e)
	s.ended(in, run, leader, x)
}

// died is common to both.
func (in *instance) died(s *Supervisor, e *reaper.Event) {
	s.senders.ended(in.pid)
	in.pid = 0
	if in.spec.TTY {
		reaper.ReclaimTerminal(0)
	}
	if src := in.source.Load(); src != nil {
		src.Flush()
	}
	if f := in.spec.PIDFile; f != "" {
		pid := e.PID
		s.files.do(func() { RemovePIDFile(f, pid) })
	}
	if !in.hidden {
		s.publish(control.Event{Kind: "exit", Name: in.name, Run: in.last.Run, PID: e.PID, Exit: in.last, Reason: exitText(in.last)})
	}
}

// ended tells the life of in that its process is gone, and whether something of
// its tree is left.
func (s *Supervisor) ended(in *instance, run uint64, leader int, x *control.Exit) {
	ev := lifecycle.Event{Kind: lifecycle.Ended, Run: run, Code: x.Code, Reason: exitText(x)}
	if g := in.group.Load(); g != nil {
		left, err := g.Populated()
		if err != nil {
			s.logf("%s: %v", in.name, err)
		}
		ev.Left = left
		if left {
			s.awaitEmpty(in, g, run)
		}
		s.step(in, ev)
		return
	}
	if !s.procs.Adopted() {
		s.step(in, ev)
		return
	}
	// Something came to us that we did not start. Whether it is of this run is
	// read from /proc, which may block on a process that hangs.
	token := in.token(s, run)
	s.looks++
	s.tellOrphans(true) // one that dies during the look is looked for again after it
	left := false       // also if it cannot be told
	s.away("a look into /proc", func() { left = len(reaper.Tree(leader, token)) > 0 }, func() {
		s.looks--
		ev.Left = left
		if left {
			in.leader = leader
			s.draining[in] = true
		}
		s.step(in, ev)
		if left {
			s.lookForLeft(in, run) // it may have gone before we waited for it
		}
	})
}

// awaitEmpty has the loop told when nothing lives in g any more.
func (s *Supervisor) awaitEmpty(in *instance, g *cgroupfs.Group, run uint64) {
	empty := func() {
		s.post(func() {
			if in.life.State() != lifecycle.Stopping || in.life.Run() != run {
				return
			}
			left, err := g.Populated()
			if err == nil && left {
				s.awaitEmpty(in, g, run)
				return
			}
			s.step(in, lifecycle.Event{Kind: lifecycle.Gone, Run: run})
		})
	}
	if err := g.NotifyEmpty(func() { s.begin("the watch of control groups", empty) }); err != nil {
		s.logf("%s: %v", in.name, err)
	}
}

// lookForLeft looks, without a cgroup, whether something of a run is left. One
// look at a time; a wish for another during it is remembered.
func (s *Supervisor) lookForLeft(in *instance, run uint64) {
	if in.looking {
		in.lookAgain = true
		return
	}
	in.looking, in.lookAgain = true, false
	leader, token := in.leader, in.token(s, run)
	left := false
	s.away("a look into /proc", func() { left = len(reaper.Tree(leader, token)) > 0 }, func() {
		in.looking = false
		switch {
		case in.lookAgain:
			s.lookForLeft(in, run)
		case !left:
			delete(s.draining, in)
			s.step(in, lifecycle.Event{Kind: lifecycle.Gone, Run: run})
		}
	})
}

// signal sends sig to a run or its tree.
func (s *Supervisor) signal(in *instance, run uint64, sig unix.Signal, to lifecycle.Scope) {
	if to == lifecycle.ToTree {
		s.signalTree(in, run, sig)
		return
	}
	err := s.procs.Signal(in.key(run), sig, to == lifecycle.ToGroup)
	if err != nil && !errors.Is(err, reaper.ErrGone) && !s.refused(in, run, sig, err) {
		s.logf("%s: %v", in.name, err)
	}
}

// members finds the processes of a run. It may block.
func (s *Supervisor) members(g *cgroupfs.Group, leader int, token string) (procs []reaper.Proc, keep func(int) bool) {
	if g == nil {
		procs = reaper.Tree(leader, token)
		return procs, reaper.StillOf(procs, leader, token)
	}
	pids, _ := g.Procs()
	for _, pid := range pids {
		procs = append(procs, reaper.Proc{PID: pid})
	}
	return procs, func(pid int) bool {
		now, _ := g.Procs()
		return slices.Contains(now, pid)
	}
}

func (s *Supervisor) signalTree(in *instance, run uint64, sig unix.Signal) {
	g, leader, token := in.group.Load(), in.leaderPID(), in.token(s, run)
	send := func() {
		procs, keep := s.members(g, leader, token)
		s.refusedLater(in, run, sig, reaper.SignalProcs(procs, sig, keep))
	}
	if g == nil {
		s.begin("a signal", send) // the token names the run
		return
	}
	s.begin("a signal", func() { in.tenant.during(run, send) })
}

// sweep kills everything that is left of a run. The kernel's answer may take
// its time, so that it is waited for elsewhere.
func (s *Supervisor) sweep(in *instance, run uint64) {
	err := s.procs.Signal(in.key(run), unix.SIGKILL, true)
	g := in.group.Load()
	if g == nil {
		s.refused(in, run, unix.SIGKILL, err)
		s.signalTree(in, run, unix.SIGKILL)
		if s.draining[in] {
			s.lookForLeft(in, run)
		}
		return
	}
	// cgroup.kill asks for no permission but to write to it.
	s.begin("a signal", func() { in.tenant.during(run, func() { s.refusedLater(in, run, unix.SIGKILL, g.Kill()) }) })
}

func (in *instance) leaderPID() int {
	if in.pid != 0 {
		return in.pid
	}
	return in.leader
}

// port is what PORT says, 0 for none.
func (in *instance) port() int {
	if in.w.port == 0 {
		return 0
	}
	return in.w.port + in.n - 1
}

// exitCode is the shell's convention: the status, or 128 plus the signal.
func exitCode(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// brief is a delay for people: 5m, not 5m0s.
func brief(d time.Duration) string {
	s := d.Round(time.Millisecond).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// exitText says how a run ended.
func exitText(x *control.Exit) string {
	switch {
	case x.Error != "":
		return "could not be executed: " + x.Error
	case x.Signal != "" && x.Core:
		return "killed by " + x.Signal + ", core dumped"
	case x.Signal != "":
		return "killed by " + x.Signal
	}
	return "exited with status " + strconv.Itoa(x.Code)
}
