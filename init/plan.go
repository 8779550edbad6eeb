package pazinit

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/init/internal/lifecycle"
	"github.com/pazinit/pazinit/procfile"
)

// settings are the keys of a worker that a reload compares. Those with restart
// hold from the next run on, so that a change of them asks for one.
var settings = []struct {
	key     string
	restart bool
	of      func(*procfile.Worker) any
}{
	{"command_line", true, func(w *procfile.Worker) any { return w.Command }},
	{"env", true, func(w *procfile.Worker) any { return w.Env }},
	{"env_inherit", true, func(w *procfile.Worker) any { return w.EnvInherit }},
	{"cwd", true, func(w *procfile.Worker) any { return w.Dir }},
	{"user", true, func(w *procfile.Worker) any { return w.User }},
	{"umask", true, func(w *procfile.Worker) any { return w.Umask }},
	{"stdin", true, func(w *procfile.Worker) any { return w.Stdin }},
	{"tty", true, func(w *procfile.Worker) any { return w.TTY }},
	{"stdout", true, func(w *procfile.Worker) any { return w.Stdout }},
	{"stderr", true, func(w *procfile.Worker) any { return w.Stderr }},
	{"pid_file", true, func(w *procfile.Worker) any { return w.PIDFile }},
	{"priority", false, func(w *procfile.Worker) any { return w.Priority }},
	{"autostart", false, func(w *procfile.Worker) any { return w.Autostart }},
	{"wait_for", false, func(w *procfile.Worker) any { return w.WaitFor }},
	{"essential", false, func(w *procfile.Worker) any { return w.Essential }},
	{"restart", false, func(w *procfile.Worker) any { return w.Restart }},
	{"success_codes", false, func(w *procfile.Worker) any { return w.SuccessCodes }},
	{"backoff", false, func(w *procfile.Worker) any { return w.Backoff }},
	{"healthy_after", false, func(w *procfile.Worker) any { return w.HealthyAfter }},
	{"max_restarts", false, func(w *procfile.Worker) any { return w.MaxRestarts }},
	{"restart_window", false, func(w *procfile.Worker) any { return w.RestartWindow }},
	{"retry_after", false, func(w *procfile.Worker) any { return w.RetryAfter }},
	{"retry_times", false, func(w *procfile.Worker) any { return w.RetryTimes }},
	{"stop_signal", false, func(w *procfile.Worker) any { return w.Stop }},
	{"stop_to", false, func(w *procfile.Worker) any { return w.StopTo }},
	{"access", false, func(w *procfile.Worker) any { return w.Access }},
}

// differences are the keys in which two workers differ, and whether a run of the
// one must end for the other.
func differences(a, b *procfile.Worker) (keys []string, restart bool) {
	for _, k := range settings {
		if !reflect.DeepEqual(k.of(a), k.of(b)) {
			keys = append(keys, k.key)
			restart = restart || k.restart
		}
	}
	return keys, restart
}

// global are the keys of the whole configuration; those without live are read
// at the start alone.
var global = []struct {
	key  string
	live bool
	of   func(*procfile.Config) any
}{
	{"log_path", false, func(c *procfile.Config) any { return c.LogPath }},
	{"socket_path", false, func(c *procfile.Config) any { return c.SocketPath }},
	{"socket_mode", false, func(c *procfile.Config) any { return c.SocketMode }},
	{"socket_owner", false, func(c *procfile.Config) any { return c.SocketOwner }},
	{"pid_file", false, func(c *procfile.Config) any { return c.PIDFile }},
	{"console_full", false, func(c *procfile.Config) any { return c.ConsoleFull }},
	{"output_ring", false, func(c *procfile.Config) any { return c.OutputRing }},
	{"cgroups", false, func(c *procfile.Config) any { return c.Cgroups }},
	{"syslog", true, func(c *procfile.Config) any { return c.Syslog }},
	{"mounts", false, func(c *procfile.Config) any { return c.Mounts }},
	{"machine", false, func(c *procfile.Config) any {
		m := c.Machine // but for what is a worker's
		m.Network, m.DNS, m.Search = nil, nil, nil
		return m
	}},
	{"shutdown_timeout", true, func(c *procfile.Config) any { return c.ShutdownTimeout }},
	{"end_when", true, func(c *procfile.Config) any { return c.EndWhen }},
	{"access", true, func(c *procfile.Config) any { return c.Access }},
}

// A step is one line of a plan and what carries it out.
type planStep struct {
	control.Change
	apply func() *batch
}

// plan says what it takes to make cfg true. It changes nothing but the numbers
// of ports that workers new to it would have.
func (s *Supervisor) plan(cfg *procfile.Config) ([]planStep, error) {
	var steps []planStep
	add := func(op, name string, keys []string, message string, apply func() *batch) {
		steps = append(steps, planStep{control.Change{Op: op, Name: name, Keys: keys, Message: message}, apply})
	}
	for _, g := range global {
		if !reflect.DeepEqual(g.of(s.cfg), g.of(cfg)) {
			if g.live {
				add("change", "pazinit", []string{g.key}, "holds at once", nil)
			} else {
				add("change", "pazinit", []string{g.key}, "holds only after pazinit itself is started again", nil)
			}
		}
	}
	in := map[*worker]bool{}
	for _, pa := range cfg.Applications {
		a := s.findApp(pa.Name)
		for _, pw := range pa.Workers {
			if !s.chosen(pa, pw.Name) {
				continue
			}
			spec := &Worker{Worker: *pw}
			var w *worker
			if a != nil {
				w = a.find(pw.Name)
			}
			if w == nil || w.removing {
				add("add", pa.Name+":"+pw.Name, nil, fmt.Sprintf("start %d of %s", wanted(spec), pw.Command.Line), func() *batch {
					return s.applyAdd(pa, spec)
				})
				continue
			}
			in[w] = true
			steps = append(steps, s.planWorker(w, spec)...)
		}
	}
	for _, a := range s.apps {
		for _, w := range a.workers {
			switch {
			case in[w] || w.removing:
			case !w.inFile:
				add("keep", w.fullName(), nil, "not in the file; it was added at run time", nil)
			default:
				add("remove", w.fullName(), nil, fmt.Sprintf("stop %d", len(w.instances)), func() *batch {
					return s.removeWorker(w, "removed from the configuration")
				})
			}
		}
	}
	return steps, nil
}

func (s *Supervisor) applyAdd(pa *procfile.Application, spec *Worker) *batch {
	a := s.appOf(pa)
	if w := a.find(spec.Name); w != nil { // on its way out: wanted again
		w.removing, w.inFile, w.live = false, true, false
		s.renew(w, spec)
		s.setCount(w, wanted(spec))
		var ins []*instance
		for _, in := range w.instances {
			if !in.removing {
				s.settle(in, spec)
				in.byHand = false
				ins = append(ins, in)
			}
		}
		if !spec.Autostart {
			return nil
		}
		return s.issue(lifecycle.Restart, levels(s.ready(ins), false), "back in the configuration")
	}
	w := s.newWorker(spec, true)
	s.startLoggers(w)
	if !spec.Autostart {
		return nil
	}
	return s.issue(lifecycle.Start, levels(s.ready(w.instances), false), "new in the configuration")
}

// planWorker compares a worker with what the configuration now says of it.
func (s *Supervisor) planWorker(w *worker, spec *Worker) (steps []planStep) {
	name := w.fullName()
	keys, restart := differences(&w.spec.Worker, &spec.Worker)
	behind := false // a reload that stopped half-way left instances with older settings
	for _, in := range w.instances {
		if in.spec != w.spec && !in.removing {
			k, r := differences(&in.spec.Worker, &spec.Worker)
			behind = behind || len(k) > 0
			restart = restart || r
			for _, key := range k {
				if !slices.Contains(keys, key) {
					keys = append(keys, key)
				}
			}
		}
	}
	if len(keys) > 0 || behind {
		message := "holds at once"
		if restart {
			message = "restart one after another"
		}
		steps = append(steps, planStep{control.Change{Op: "change", Name: name, Keys: keys, Message: message}, func() *batch {
			return s.change(w, spec, restart)
		}})
	}
	before, after := wanted(w.spec), wanted(spec)
	if w.spec.PerCPU != spec.PerCPU || before != after {
		if after != w.count {
			st := planStep{control.Change{Op: "scale", Name: name, Keys: []string{"num_instances"}, Message: strconv.Itoa(w.count) + " to " + strconv.Itoa(after)}, func() *batch {
				w.live = false
				return s.scale(w, after, "num_instances was changed")
			}}
			if after < w.count {
				steps = append([]planStep{st}, steps...) // what goes is not restarted before
			} else {
				steps = append(steps, st)
			}
		}
	}
	if len(steps) == 0 && !reflect.DeepEqual(w.spec.Worker, spec.Worker) {
		// Nothing that shows: its place in the file, or the number that a live
		// scale has met already.
		steps = append(steps, planStep{apply: func() *batch { w.spec.Worker, w.live = spec.Worker, false; return nil }})
	}
	if len(steps) > 0 && !w.inFile {
		steps[0].apply = wrap(steps[0].apply, func() { w.inFile = true })
	}
	return steps
}

func wrap(f func() *batch, first func()) func() *batch {
	return func() *batch { first(); return f() }
}

// change gives w new settings. Where that needs another run, its instances are
// restarted one after another; the first that does not start ends it, and the
// rest go on as they were.
func (s *Supervisor) change(w *worker, spec *Worker, restart bool) *batch {
	s.renew(w, spec)
	if !restart {
		for _, in := range w.instances {
			s.settle(in, spec)
		}
		return nil
	}
	var steps [][]*instance
	for _, in := range w.instances {
		if in.removing {
			continue
		}
		switch in.life.State() {
		case lifecycle.Stopped:
			s.settle(in, spec) // what was stopped stays stopped
		case lifecycle.Starting, lifecycle.Running, lifecycle.Backoff, lifecycle.Stopping, lifecycle.Exited, lifecycle.Fatal:
			steps = append(steps, []*instance{in})
		}
	}
	if len(steps) == 0 {
		return nil
	}
	b := s.issue(lifecycle.Restart, steps, "the configuration was changed")
	b.strict = true
	b.before = func(in *instance) { s.settle(in, spec) }
	return b
}

// renew makes spec the settings of w, with the loggers that it asks for.
func (s *Supervisor) renew(w *worker, spec *Worker) {
	loggers := needsLogger(w.spec, spec) && !sameTargets(w.spec, spec)
	w.spec = spec
	if loggers {
		w.retired = append(w.retired, w.ownLoggers()...)
		w.loggers = [2]*loggerPair{}
		s.startLoggers(w)
	}
}

// sameTargets reports whether the output of a goes where that of b goes, as the
// same user.
func sameTargets(a, b *Worker) bool {
	return reflect.DeepEqual(a.Worker.Stdout, b.Worker.Stdout) && reflect.DeepEqual(a.Worker.Stderr, b.Worker.Stderr) && reflect.DeepEqual(a.User, b.User)
}

// settle makes spec the settings of one instance.
func (s *Supervisor) settle(in *instance, spec *Worker) {
	if !sameTargets(in.spec, spec) {
		switch in.life.State() {
		case lifecycle.Stopped, lifecycle.Exited, lifecycle.Fatal, lifecycle.Backoff:
			if src := in.source.Swap(nil); src != nil {
				src.Close()
			}
		case lifecycle.Starting, lifecycle.Running, lifecycle.Stopping:
			in.stale = true
		}
	}
	in.spec = spec
	in.life.Settings(policy(spec))
}

// removeWorker stops and forgets w.
func (s *Supervisor) removeWorker(w *worker, reason string) *batch {
	w.removing, s.leaving = true, true
	w.count = 0
	for _, in := range w.instances {
		in.removing = true
	}
	if len(w.instances) == 0 {
		return nil
	}
	return s.issue(lifecycle.Stop, levels(w.instances, true), reason)
}

// load reads the configuration again. It may block.
func (s *Supervisor) load() (*procfile.Config, error) {
	if s.opt.Reload == nil {
		return nil, errors.New("there is no configuration to read again")
	}
	return s.opt.Reload()
}

// Plan says what Reload would do.
func (s *Supervisor) Plan() (*control.Plan, error) {
	cfg, err := s.load()
	if err != nil {
		return nil, err
	}
	if err := s.checkAgainst(cfg); err != nil {
		return nil, err
	}
	var out *control.Plan
	err = s.ask(func() error {
		steps, err := s.plan(cfg)
		out = shown(steps)
		return err
	})
	return out, err
}

// checkAgainst says what cfg would do wrong beside what there is.
func (s *Supervisor) checkAgainst(cfg *procfile.Config) error {
	return s.ask(func() error {
		// Blocks of ports are given out for good, also to workers that a refused
		// file named: give them to a copy.
		c := &Supervisor{opt: s.opt, cfg: cfg}
		for _, a := range s.apps {
			k := *a
			k.blocks = map[string]int{}
			for n, b := range a.blocks {
				k.blocks[n] = b
			}
			c.apps = append(c.apps, &k)
		}
		for _, pa := range cfg.Applications {
			c.appOf(pa)
		}
		return c.layPorts(cfg)
	})
}

func shown(steps []planStep) *control.Plan {
	p := &control.Plan{Changes: []control.Change{}}
	for _, st := range steps {
		if st.Op != "" {
			p.Changes = append(p.Changes, st.Change)
		}
	}
	return p
}

// Reload reads the configuration again and applies the least that makes it
// true. A configuration with an error changes nothing. It waits until ctx ends
// for the outcome.
func (s *Supervisor) Reload(ctx context.Context) (*control.Plan, []control.Result, error) {
	plan, ws, err := s.beginReload("reload")
	if err != nil {
		return nil, nil, err
	}
	results, err := s.outcome(ctx, ws)
	return plan, results, err
}

// reload is Reload for a signal: nobody waits.
func (s *Supervisor) reload(reason string) { _, _, _ = s.beginReload(reason) }

func (s *Supervisor) beginReload(reason string) (*control.Plan, []*waiter, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	cfg, err := s.load()
	if err == nil {
		err = s.checkAgainst(cfg)
	}
	if err != nil {
		s.logf("nothing was changed: %v", err)
		s.event("reload", "nothing was changed: "+err.Error())
		return nil, nil, err
	}
	var plan *control.Plan
	var ws []*waiter
	err = s.ask(func() error {
		if s.end.began {
			return errors.New("the supervisor is stopping")
		}
		steps, err := s.plan(cfg)
		if err != nil {
			return err
		}
		plan = shown(steps)
		for _, pa := range cfg.Applications {
			s.appOf(pa)
		}
		if err := s.layPorts(cfg); err != nil {
			return err
		}
		s.movePorts()
		s.cfg = cfg
		if s.opt.Syslog != nil {
			on := s.wantsSyslog(cfg)
			s.files.do(func() { s.setSyslog(on) })
		}
		for _, st := range steps {
			if st.apply == nil {
				continue
			}
			if b := st.apply(); b != nil {
				ws = append(ws, s.await(b))
			}
		}
		s.sortWorkers(cfg)
		var lines []string
		for _, c := range plan.Changes {
			lines = append(lines, c.Op+" "+c.Name)
		}
		text := "nothing to change"
		if len(lines) > 0 {
			text = strings.Join(lines, ", ")
		}
		s.logf("%s: %s", reason, text)
		s.event("reload", text)
		return nil
	})
	return plan, ws, err
}

// sortWorkers puts applications and workers into the order of the files; what is
// in none comes last.
func (s *Supervisor) sortWorkers(cfg *procfile.Config) {
	place := map[string]int{}
	for i, pa := range cfg.Applications {
		place[pa.Name] = i - len(cfg.Applications)
		for j, pw := range pa.Workers {
			place[pa.Name+":"+pw.Name] = j - len(pa.Workers)
		}
	}
	slices.SortStableFunc(s.apps, func(a, b *app) int { return place[a.name] - place[b.name] })
	for _, a := range s.apps {
		slices.SortStableFunc(a.workers, func(v, w *worker) int { return place[v.fullName()] - place[w.fullName()] })
	}
}

// movePorts tells the workers the ports of their application's new base; a run
// that there is keeps its own.
func (s *Supervisor) movePorts() {
	for _, a := range s.apps {
		for _, w := range a.workers {
			w.port = a.portOf(w.name)
		}
	}
}

func (s *Supervisor) event(kind, reason string) {
	s.publish(control.Event{Kind: kind, Reason: reason})
}

// outcome waits for what the loop is doing for somebody.
func (s *Supervisor) outcome(ctx context.Context, ws []*waiter) ([]control.Result, error) {
	var out []control.Result
	for _, w := range ws {
		select {
		case r := <-w.done:
			out = append(out, r...)
		case <-ctx.Done():
			return out, ctx.Err()
		case <-s.done:
			return out, errEnded
		}
	}
	return out, nil
}

var errEnded = errors.New("the supervisor has ended")

// reopenTime is how long a verb waits for the files to be opened again.
const reopenTime = 5 * time.Second

func (s *Supervisor) reopen() error {
	err := s.hub.Reopen(time.Now().Add(reopenTime))
	if err != nil {
		s.logf("reopen: %v", err)
	}
	return err
}
