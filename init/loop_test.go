package pazinit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/procfile"
	"github.com/pazinit/pazinit/reaper"
)

// host is a machine on which nothing happens but what the test says: it
// remembers what it was told, starts everything at once and lets it die of the
// first signal, unless the names below say otherwise.
type host struct {
	s       *Supervisor
	ready   chan struct{}
	events  []reaper.Event
	log     []string
	pids    int
	hang    map[string]bool // its exec does not come through
	ignore  map[string]bool // of all signals but KILL
	missing map[string]bool // cannot be executed
	foreign []reaper.Stranger
	deaf    bool // they do not end by SIGTERM

	immortal bool        // nothing dies
	barred   bool        // no signal is permitted
	times    []time.Time // of log
	pidOf    map[string]int
	running  map[uint64]int
}

func (h *host) name(run uint64) string { return h.s.byRun[run].name }

func (h *host) emit(e reaper.Event) {
	e.At = time.Now()
	h.events = append(h.events, e)
	select {
	case h.ready <- struct{}{}:
	default:
	}
}

func (h *host) note(what string) {
	h.log, h.times = append(h.log, what), append(h.times, time.Now())
}

func (h *host) Start(sp *reaper.Spec) {
	name := h.name(sp.Run)
	h.note("start " + name)
	switch {
	case h.hang[name]:
	case h.missing[name]:
		h.emit(reaper.Event{Kind: reaper.Failed, Run: sp.Run, Err: &reaper.StartError{Step: "execute", What: "x", Err: unix.ENOENT}})
	default:
		h.pids++
		h.running[sp.Run], h.pidOf[name] = h.pids, h.pids
		h.emit(reaper.Event{Kind: reaper.Started, Run: sp.Run, PID: h.pids})
	}
}

func (h *host) Signal(run uint64, sig unix.Signal, group bool) error {
	if h.s.byRun[run] == nil {
		return reaper.ErrGone
	}
	name := h.name(run)
	if h.barred {
		return fmt.Errorf("signal pid %d: %w", h.running[run], unix.EPERM)
	}
	h.note(fmt.Sprintf("%s %s", strings.TrimPrefix(unix.SignalName(sig), "SIG"), name))
	if h.immortal {
		return nil
	}
	if sig == unix.SIGKILL || !h.ignore[name] {
		h.die(run, unix.WaitStatus(sig))
	}
	return nil
}

func (h *host) die(run uint64, ws unix.WaitStatus) {
	pid, ok := h.running[run]
	if !ok && !h.hang[h.name(run)] {
		return
	}
	delete(h.running, run)
	h.emit(reaper.Event{Kind: reaper.Exited, Run: run, PID: pid, Status: ws})
}

func (h *host) Ready() <-chan struct{} { return h.ready }
func (h *host) Adopted() bool          { return false }
func (h *host) TellOrphans(bool)       {}
func (h *host) Orphans() uint64        { return 0 }
func (h *host) Close()                 {}

func (h *host) Dismiss(until time.Time, told func([]reaper.Stranger)) []reaper.Stranger {
	if len(h.foreign) > 0 {
		told(h.foreign)
	}
	if h.deaf {
		time.Sleep(time.Until(until))
		return h.foreign
	}
	return nil
}

func (h *host) Events([]reaper.Event) []reaper.Event {
	out := h.events
	h.events = nil
	return out
}

// crash ends the present run of an instance with a status.
func (h *host) crash(name string, status int) { h.end(name, unix.WaitStatus(status<<8)) }

// kill ends it by a signal.
func (h *host) kill(name string, sig unix.Signal) { h.end(name, unix.WaitStatus(sig)) }

func (h *host) end(name string, ws unix.WaitStatus) {
	_ = h.s.ask(func() error {
		for run := range h.running {
			if h.name(run) == name {
				h.die(run, ws)
				return nil
			}
		}
		panic(name + " does not run")
	})
	synctest.Wait()
}

// take gives what the host was told since the last call.
func (h *host) take() string {
	var out []string
	_ = h.s.ask(func() error { out, h.log, h.times = h.log, nil, nil; return nil })
	return strings.Join(out, ", ")
}

func config(workers ...*procfile.Worker) *procfile.Config {
	app := &procfile.Application{Name: "a", Workers: workers}
	return &procfile.Config{EndWhen: "any", Applications: []*procfile.Application{app}}
}

func plain(name string, set ...func(*procfile.Worker)) *procfile.Worker {
	w := procfile.NewWorker("a", name, procfile.Command{Line: "run " + name, Argv: []string{"run", name}})
	for _, f := range set {
		f(w)
	}
	return w
}

// simulate runs f beside the loop of a supervisor on a fake host and a fake
// clock, and reports the exit status. The loop must end by what f does.
func simulate(t *testing.T, opt Options, prepare func(*host), f func(s *Supervisor, h *host)) (code int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := New(opt)
		if err != nil {
			t.Fatal(err)
		}
		h := &host{s: s, ready: make(chan struct{}, 1), running: map[uint64]int{}, hang: map[string]bool{}, ignore: map[string]bool{}, missing: map[string]bool{}, pidOf: map[string]int{}}
		if prepare != nil {
			prepare(h)
		}
		s.procs = h
		s.files = newBackground(s)
		s.running = true
		close(s.opened)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			s.loop(ctx)
			close(s.done)
		}()
		synctest.Wait()
		f(s, h)
		<-s.done
		code = s.end.code
	})
	return code
}

func states(s *Supervisor) string {
	list, err := s.Status()
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, st := range list {
		out = append(out, strings.TrimPrefix(st.Name, "a:")+" "+st.State)
	}
	return strings.Join(out, ", ")
}

func TestPriorityOrdersStartAndShutdown(t *testing.T) {
	prio := func(n int) func(*procfile.Worker) { return func(w *procfile.Worker) { w.Priority = n } }
	cfg := config(plain("web", prio(20)), plain("db", prio(1)), plain("queue", prio(20)))
	code := simulate(t, Options{Config: cfg}, func(h *host) { h.ignore["a:web.1"] = true }, func(s *Supervisor, h *host) {
		if got, want := h.take(), "start a:db.1, start a:web.1, start a:queue.1"; got != want {
			t.Errorf("started %s, want %s", got, want)
		}
		s.Shutdown("test")
		synctest.Wait()
		if got, want := h.take(), "TERM a:queue.1, TERM a:web.1"; got != want {
			t.Errorf("after Shutdown the host saw %s, want %s", got, want)
		}
		time.Sleep(10 * time.Second) // web's stop_timeout; fake
		<-s.done
		if got, want := strings.Join(h.log, ", "), "KILL a:web.1, TERM a:db.1"; got != want {
			t.Errorf("then %s, want %s", got, want)
		}
	})
	if code != 0 {
		t.Errorf("exit status = %d, want 0: it was asked to stop", code)
	}
}

func TestHungStartHoldsNobody(t *testing.T) {
	cfg := config(plain("hung", func(w *procfile.Worker) { w.Priority = 1 }), plain("web"))
	simulate(t, Options{Config: cfg}, func(h *host) { h.hang["a:hung.1"] = true }, func(s *Supervisor, h *host) {
		if got, want := h.take(), "start a:hung.1"; got != want {
			t.Errorf("started %s, want %s", got, want)
		}
		time.Sleep(holdStart)
		synctest.Wait()
		if got, want := h.take(), "start a:web.1"; got != want {
			t.Errorf("after %s: %s, want %s", holdStart, got, want)
		}
		s.Shutdown("test")
	})
}

func TestEnds(t *testing.T) {
	essential := func(w *procfile.Worker) { w.Essential = true }
	never := func(w *procfile.Worker) { w.Restart = "never" }
	noRetry := func(w *procfile.Worker) { w.RetryAfter = 0; w.MaxRestarts = 1 }
	tests := []struct {
		name    string
		place   Place
		when    string
		workers []*procfile.Worker
		missing string
		crash   map[string]int
		order   []string
		want    int // exit status; -1: it goes on
	}{
		{name: "essential ends", workers: []*procfile.Worker{plain("x"), plain("y", essential, never)}, order: []string{"y"}, crash: map[string]int{"y": 7}, want: 7},
		{name: "essential ends well", workers: []*procfile.Worker{plain("x"), plain("y", essential, never)}, order: []string{"y"}, crash: map[string]int{"y": 0}, want: 0},
		{name: "another ends", workers: []*procfile.Worker{plain("x", never), plain("y", essential)}, order: []string{"x"}, crash: map[string]int{"x": 7}, want: -1},
		{name: "all: one of two", when: "all", workers: []*procfile.Worker{plain("x", essential, never), plain("y", essential, never)}, order: []string{"x"}, crash: map[string]int{"x": 7}, want: -1},
		{name: "all: both", when: "all", workers: []*procfile.Worker{plain("x", essential, never), plain("y", essential, never)}, order: []string{"y", "x"}, crash: map[string]int{"x": 7, "y": 8}, want: 7},
		{name: "FATAL with status 0 is 1", workers: []*procfile.Worker{plain("y", essential, noRetry)}, order: []string{"y"}, crash: map[string]int{"y": 0}, want: 1},
		{name: "FATAL keeps its status", workers: []*procfile.Worker{plain("y", essential, noRetry)}, order: []string{"y"}, crash: map[string]int{"y": 9}, want: 9},
		{name: "not to be executed", workers: []*procfile.Worker{plain("y", essential, noRetry)}, missing: "y", want: 127},
		{name: "FATAL that is tried again goes on", workers: []*procfile.Worker{plain("y", essential, func(w *procfile.Worker) { w.MaxRestarts = 1 })}, order: []string{"y"}, crash: map[string]int{"y": 9}, want: -1},
		{name: "none can run again", workers: []*procfile.Worker{plain("x", never), plain("y", never), plain("z", never)}, order: []string{"z", "y", "x"}, crash: map[string]int{"x": 0, "y": 4, "z": 5}, want: 4},
		{name: "none can run again, all well", workers: []*procfile.Worker{plain("x", never), plain("y", never)}, order: []string{"x", "y"}, crash: map[string]int{"x": 0, "y": 0}, want: 0},
		{name: "one that nobody started does not count", workers: []*procfile.Worker{plain("x", never), plain("y", func(w *procfile.Worker) { w.Autostart = false })}, order: []string{"x"}, crash: map[string]int{"x": 3}, want: 3},
		{name: "a daemon stays", place: Place{Daemon: true}, workers: []*procfile.Worker{plain("x", never)}, order: []string{"x"}, crash: map[string]int{"x": 3}, want: -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(tt.workers...)
			if tt.when != "" {
				cfg.EndWhen = tt.when
			}
			ended := false
			code := simulate(t, Options{Config: cfg, Place: tt.place}, func(h *host) { h.missing["a:"+tt.missing+".1"] = true }, func(s *Supervisor, h *host) {
				for _, name := range tt.order {
					h.crash("a:"+name+".1", tt.crash[name])
				}
				select {
				case <-s.done:
					ended = true
				default:
					s.Shutdown("the test is over")
				}
			})
			if !ended {
				code = -1
			}
			if code != tt.want {
				t.Errorf("exit status = %d, want %d", code, tt.want)
			}
		})
	}
}

func TestOperatorStopKeepsTheSupervisor(t *testing.T) {
	cfg := config(plain("x", func(w *procfile.Worker) { w.Restart = "never" }), plain("y"))
	simulate(t, Options{Config: cfg}, nil, func(s *Supervisor, h *host) {
		do(t, s, &control.Request{Verb: "stop", Names: []string{"y"}})
		h.crash("a:x.1", 3)
		if got, want := states(s), "x.1 EXITED, y.1 STOPPED"; got != want {
			t.Fatalf("states = %s, want %s", got, want)
		}
		do(t, s, &control.Request{Verb: "start", Names: []string{"y"}})
		if got, want := states(s), "x.1 EXITED, y.1 RUNNING"; got != want {
			t.Errorf("states = %s, want %s", got, want)
		}
		s.Shutdown("test")
	})
}

// do carries out a request as root and gives its last line.
func do(t *testing.T, s *Supervisor, req *control.Request) *control.Reply {
	t.Helper()
	var last *control.Reply
	s.Handle(context.Background(), control.Peer{}, req, func(r *control.Reply) error { last = r; return nil })
	if last == nil || !last.Done {
		t.Fatalf("%s: no answer", req.Verb)
	}
	return last
}

func TestShutdownTimeoutCapsTheWhole(t *testing.T) {
	cfg := config(plain("x", func(w *procfile.Worker) { w.Priority = 1 }), plain("y"))
	cfg.ShutdownTimeout = 3 * time.Second
	simulate(t, Options{Config: cfg}, func(h *host) { h.ignore["a:x.1"], h.ignore["a:y.1"] = true, true }, func(s *Supervisor, h *host) {
		h.take()
		began := time.Now()
		s.Shutdown("test")
		<-s.done
		if got := time.Since(began); got != 2700*time.Millisecond {
			t.Errorf("the shutdown took %s, want 2.7s: a tenth is kept", got)
		}
		slices.Sort(h.log)
		if got := strings.Join(h.log, ", "); !strings.Contains(got, "KILL a:x.1") || !strings.Contains(got, "KILL a:y.1") {
			t.Errorf("the host saw %s, want both killed", got)
		}
	})
}

func TestScaleStopsTheHighestFirst(t *testing.T) {
	cfg := config(plain("web", func(w *procfile.Worker) { w.NumInstances = 2 }))
	simulate(t, Options{Config: cfg}, nil, func(s *Supervisor, h *host) {
		do(t, s, &control.Request{Verb: "scale", Names: []string{"web"}, Count: "5"})
		h.take()
		r := do(t, s, &control.Request{Verb: "scale", Names: []string{"a:web"}, Count: "1"})
		if got, want := h.take(), "TERM a:web.5, TERM a:web.4, TERM a:web.3, TERM a:web.2"; got != want || r.Code != 0 {
			t.Errorf("scale to 1: %s, code %d; want %s", got, r.Code, want)
		}
		if got, want := states(s), "web.1 RUNNING"; got != want {
			t.Errorf("states = %s, want %s", got, want)
		}
		do(t, s, &control.Request{Verb: "scale", Names: []string{"web"}, Count: "-1"})
		r = do(t, s, &control.Request{Verb: "scale", Names: []string{"web"}, Count: "+2"})
		if got, want := states(s), "web.1 RUNNING, web.2 RUNNING"; got != want || r.Code != 0 {
			t.Errorf("states = %s, code %d; want %s", got, r.Code, want)
		}
		s.Shutdown("test")
	})
}

func TestReload(t *testing.T) {
	cfg := config(plain("web", func(w *procfile.Worker) { w.NumInstances = 2 }), plain("queue"), plain("old"), plain("quiet"))
	next := cfg
	var bad error
	simulate(t, Options{Config: cfg, Reload: func() (*procfile.Config, error) { return next, bad }}, nil, func(s *Supervisor, h *host) {
		do(t, s, &control.Request{Verb: "stop", Names: []string{"quiet"}})
		h.take()
		reload := func() *control.Reply { return do(t, s, &control.Request{Verb: "reload"}) }

		if r := reload(); r.Code != 0 || len(r.Plan.Changes) != 0 || h.take() != "" {
			t.Errorf("reload of the same = %+v, want nothing", r)
		}
		bad = procfile.Errors{{What: "it is bad"}}
		if r := reload(); r.Code != control.ExitUsage || !strings.Contains(r.Error, "it is bad") {
			t.Errorf("reload of a bad file = %+v, want its error and code 2", r)
		}
		bad = nil
		next = config(plain("web", func(w *procfile.Worker) { w.NumInstances = 2; w.Env = []string{"A=1"} }), plain("queue"), plain("new"), plain("quiet", func(w *procfile.Worker) { w.Env = []string{"A=1"} }))
		p := do(t, s, &control.Request{Verb: "plan"})
		if got := h.take(); got != "" {
			t.Errorf("plan did %s", got)
		}
		var lines []string
		for _, c := range p.Plan.Changes {
			lines = append(lines, c.Op+" "+c.Name)
		}
		if got, want := strings.Join(lines, ", "), "change a:web, add a:new, change a:quiet, remove a:old"; got != want {
			t.Errorf("plan = %s, want %s", got, want)
		}
		r := reload()
		got := strings.Split(h.take(), ", ")
		slices.Sort(got)
		if want := "TERM a:old.1, TERM a:web.1, TERM a:web.2, start a:new.1, start a:web.1, start a:web.2"; strings.Join(got, ", ") != want || r.Code != 0 {
			t.Errorf("reload: %s, code %d; want %s", got, r.Code, want)
		}
		if got, want := states(s), "web.1 RUNNING, web.2 RUNNING, queue.1 RUNNING, new.1 RUNNING, quiet.1 STOPPED"; got != want {
			t.Errorf("states = %s, want %s", got, want)
		}
		s.Shutdown("test")
	})
}

func TestReloadStopsAtTheFirstThatFails(t *testing.T) {
	three := func(w *procfile.Worker) { w.NumInstances = 3 }
	cfg := config(plain("web", three))
	next := config(plain("web", three, func(w *procfile.Worker) { w.Command.Argv = []string{"nowhere"} }))
	simulate(t, Options{Config: cfg, Reload: func() (*procfile.Config, error) { return next, nil }}, nil, func(s *Supervisor, h *host) {
		h.take()
		_ = s.ask(func() error { h.missing["a:web.1"] = true; return nil })
		r := do(t, s, &control.Request{Verb: "reload"})
		if r.Code != control.ExitFailed || len(r.Results) != 3 || r.Results[0].OK || r.Results[2].Message != "left as it was" {
			t.Errorf("reload = code %d, %+v; want the first to fail and the rest left", r.Code, r.Results)
		}
		if got := h.take(); strings.Contains(got, "web.2") || strings.Contains(got, "web.3") {
			t.Errorf("the host saw %s, want nothing of web.2 and web.3", got)
		}
		s.Shutdown("test")
	})
}

func TestLiveScaleOutlivesAReload(t *testing.T) {
	n := func(i int) *procfile.Config {
		return config(plain("web", func(w *procfile.Worker) { w.NumInstances = i }))
	}
	next := n(2)
	simulate(t, Options{Config: n(2), Reload: func() (*procfile.Config, error) { return next, nil }}, nil, func(s *Supervisor, h *host) {
		do(t, s, &control.Request{Verb: "scale", Names: []string{"web"}, Count: "4"})
		do(t, s, &control.Request{Verb: "reload"})
		if got := strings.Count(states(s), "RUNNING"); got != 4 {
			t.Errorf("%d instances after a reload of the same number, want 4", got)
		}
		next = n(3)
		do(t, s, &control.Request{Verb: "reload"})
		if got := strings.Count(states(s), "RUNNING"); got != 3 {
			t.Errorf("%d instances after a reload with 3, want 3", got)
		}
		s.Shutdown("test")
	})
}

func TestPorts(t *testing.T) {
	app := func(name string, base int, workers ...*procfile.Worker) *procfile.Application {
		for _, w := range workers {
			w.App = name
		}
		return &procfile.Application{Name: name, PortBase: base, Workers: workers}
	}
	many := func(n int) func(*procfile.Worker) { return func(w *procfile.Worker) { w.NumInstances = n } }
	s, err := New(Options{Config: &procfile.Config{Applications: []*procfile.Application{
		app("a", 0, plain("web", many(2)), plain("job")), app("b", 0, plain("web")), app("c", 9000, plain("web")),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for in := range s.visible() {
		got = append(got, fmt.Sprintf("%s %d", in.name, in.port()))
	}
	if want := "a:web.1 5000, a:web.2 5001, a:job.1 5100, b:web.1 6000, c:web.1 9000"; strings.Join(got, ", ") != want {
		t.Errorf("ports %s, want %s", strings.Join(got, ", "), want)
	}
	for name, apps := range map[string][]*procfile.Application{
		"101 instances before another worker": {app("a", 0, plain("web", many(101)), plain("job"))},
		"two bases that overlap":              {app("a", 8000, plain("web")), app("b", 8000, plain("web"))},
		"beyond 65535":                        {app("a", 65500, plain("web", many(50)))},
	} {
		if _, err := New(Options{Config: &procfile.Config{Applications: apps}}); err == nil || !strings.Contains(err.Error(), "port_base") {
			t.Errorf("%s: New = %v, want an error that names port_base", name, err)
		}
	}
}
