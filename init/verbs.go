package pazinit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/init/internal/lifecycle"
	"github.com/pazinit/pazinit/procfile"
	"github.com/pazinit/pazinit/reaper"
)

// A verb's outcome before it is sent.
type refusal struct {
	code int
	msg  string
}

func (r *refusal) Error() string { return r.msg }

func refuse(code int, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// Handle is the [control.Handler] of a Supervisor: it carries out a request and
// sends its answer. It may be called from any goroutine.
func (s *Supervisor) Handle(ctx context.Context, p control.Peer, req *control.Request, send func(*control.Reply) error) {
	var r *control.Reply
	var err error
	leave := s.clients.enter(p)
	defer func() {
		if !control.EndsAll(req.Verb) || err != nil { // else it has its answer, and may live on for a moment
			leave()
		}
	}()
	select {
	case <-s.opened:
		r, err = s.handle(ctx, p, req, send)
	case <-s.done:
		err = errEnded
	case <-ctx.Done():
		err = ctx.Err()
	}
	if errors.Is(err, errEnded) && control.EndsAll(req.Verb) {
		r, err = &control.Reply{Message: "stopped", PID: os.Getpid()}, nil // what was wanted
	}
	if err != nil {
		r = &control.Reply{Code: control.ExitFailed, Error: err.Error()}
		var no *refusal
		var cfg procfile.Errors
		switch {
		case errors.As(err, &no):
			r.Code = no.code
		case errors.As(err, &cfg):
			r.Code = control.ExitUsage
		case errors.Is(err, context.DeadlineExceeded):
			r.Code, r.Error = control.ExitTimeout, "the time is over and the result not there yet"
		}
	}
	r.Done = true
	_ = send(r)
}

func (s *Supervisor) handle(ctx context.Context, p control.Peer, req *control.Request, send func(*control.Reply) error) (*control.Reply, error) {
	if err := req.Validate(); err != nil {
		return nil, refuse(control.ExitUsage, "%v", err)
	}
	if req.Timeout != "" {
		if d, err := time.ParseDuration(req.Timeout); err == nil {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, d)
			defer cancel()
		}
	}
	switch req.Verb {
	case "status":
		return s.verbStatus(ctx, p, req, send)
	case "start", "stop", "restart":
		return s.verbMove(ctx, p, req)
	case "signal":
		return s.verbSignal(p, req)
	case "scale":
		return s.verbScale(ctx, p, req)
	case "add":
		return s.verbAdd(ctx, p, req)
	case "remove":
		return s.verbRemove(ctx, p, req)
	case "logs":
		return s.verbLogs(ctx, p, req, send)
	case "events":
		return s.verbEvents(ctx, p, req, send)
	case "pid":
		return s.verbPID(p, req)
	}
	// The rest is about the supervisor itself.
	var allowed bool
	if err := s.ask(func() error { allowed = s.may(req, p, nil); return nil }); err != nil {
		return nil, err
	}
	if !allowed {
		return nil, denied(req, p)
	}
	switch req.Verb {
	case "plan":
		plan, err := s.Plan()
		if err != nil {
			return nil, err
		}
		r := &control.Reply{Plan: plan}
		if slices.ContainsFunc(plan.Changes, func(c control.Change) bool { return c.Op != "keep" }) {
			r.Code = control.ExitChanges
		}
		return r, nil
	case "reload":
		return s.verbReload(ctx, req)
	case "reopen":
		return &control.Reply{Message: "reopened"}, s.reopen()
	case "shutdown", "poweroff", "reboot", "halt", "kexec":
		return s.verbShutdown(ctx, p, req)
	case "version":
		r := &control.Reply{Version: s.opt.Version, Place: s.opt.Place.String(), PID: os.Getpid()}
		r.Panics = s.panics.count()
		return r, s.ask(func() error { r.Orphans = s.procs.Orphans(); return nil })
	}
	return nil, refuse(control.ExitUsage, "unknown verb %q", req.Verb)
}

// who names a peer for the log and for reasons.
func who(p control.Peer, verb string) string {
	if p.FIFO {
		return verb + " through the FIFO"
	}
	return fmt.Sprintf("%s by uid %d (pid %d)", verb, p.UID, p.PID)
}

func denied(req *control.Request, p control.Peer) error {
	return refuse(control.ExitDenied, "uid %d may not use the verb %s here: the configuration's access does not give it", p.UID, req.AccessKey())
}

// may reports whether p may do req to w, or to the supervisor if w is nil.
func (s *Supervisor) may(req *control.Request, p control.Peer, w *worker) bool {
	lists := []procfile.Access{s.cfg.Access}
	if w != nil {
		lists = append(lists, w.app.access, w.spec.Access)
	}
	var levels []control.Access
	for _, l := range lists {
		a := control.Access{}
		for verb, list := range l {
			for _, who := range list {
				a[verb] = append(a[verb], control.Principal{Group: who.Group, ID: who.ID})
			}
		}
		levels = append(levels, a)
	}
	return control.Allowed(req.AccessKey(), p, uint32(os.Geteuid()), levels...)
}

// A selection is what the names of a request stand for. What is wrong with one
// name is a result of its own: the others are done.
type selection struct {
	instances []*instance
	workers   []*worker
	bad       []control.Result
}

// choose resolves names; none means all if the verb allows it.
func (s *Supervisor) choose(p control.Peer, req *control.Request) (sel selection) {
	names := req.Names
	all := len(names) == 0
	if all {
		names = []string{"all"}
	}
	// What a peer may is found out once for each worker, and one who may nothing
	// learns nothing, not even which names there are.
	allowed := map[*worker]bool{}
	for _, a := range s.apps {
		for _, w := range a.workers {
			if s.may(req, p, w) {
				allowed[w] = true
			}
		}
	}
	if len(allowed) == 0 && !s.may(req, p, nil) {
		for _, name := range names {
			sel.bad = append(sel.bad, control.Result{Name: name, Message: denied(req, p).Error(), Code: control.ExitDenied})
		}
		return sel
	}
	seen := map[*instance]bool{}
	revives := req.Verb == "start" || req.Verb == "restart"
	for _, name := range names {
		ins, empty := s.match(name)
		if len(ins)+len(empty) == 0 && name != "all" && name != "*" {
			sel.bad = append(sel.bad, control.Result{Name: name, Message: "no such name" + s.suggestTo(p, req, name), Code: control.ExitNoName})
			continue
		}
		refused := false
		allow := func(w *worker) bool {
			if allowed[w] {
				return true
			}
			refused = true
			return false
		}
		for _, in := range ins {
			if (name == "all" || name == "*") && control.Lookup(req.Verb).Mutates && in.w.app.own {
				continue // pazinit's own is not meant
			}
			if !seen[in] && allow(in.w) {
				seen[in] = true
				if in.removing && revives {
					sel.bad = append(sel.bad, control.Result{Name: in.name, State: in.life.State().String(), Message: "is being removed", Code: control.ExitFailed})
					continue
				}
				sel.instances = append(sel.instances, in)
			}
		}
		for _, w := range empty {
			if !slices.Contains(sel.workers, w) && allow(w) {
				sel.workers = append(sel.workers, w)
			}
		}
		if refused && (!all || len(sel.instances)+len(sel.workers) == 0) {
			sel.bad = append(sel.bad, control.Result{Name: name, Message: denied(req, p).Error(), Code: control.ExitDenied})
		}
	}
	return sel
}

// maxSuggestions is how many names a request may have for the unknown ones to be
// compared with all that there are: it is the loop that does it.
const maxSuggestions = 3

// suggestTo is suggest for a peer: what he may not ask for is not named to him.
func (s *Supervisor) suggestTo(p control.Peer, req *control.Request, name string) string {
	if len(req.Names) > maxSuggestions {
		return ""
	}
	return s.suggest(name, func(w *worker) bool { return s.may(req, p, w) })
}

// mayAny reports whether p may do req to anything at all.
func (s *Supervisor) mayAny(req *control.Request, p control.Peer) bool {
	if s.may(req, p, nil) {
		return true
	}
	for _, a := range s.apps {
		for _, w := range a.workers {
			if s.may(req, p, w) {
				return true
			}
		}
	}
	return false
}

// suggest finds the name that was probably meant, among the workers that the
// asker knows; nil is all.
func (s *Supervisor) suggest(name string, knows func(*worker) bool) string {
	var known []string
	for _, a := range s.apps {
		named := false
		for _, w := range a.workers {
			if knows != nil && !knows(w) {
				continue
			}
			if !named {
				named = true
				known = append(known, a.name+":*")
			}
			known = append(known, w.fullName(), w.name)
			for _, in := range w.instances {
				known = append(known, in.name)
			}
		}
	}
	if best := control.Nearest(name, known); best != "" {
		return fmt.Sprintf(" (did you mean %s?)", best)
	}
	return ""
}

// reply makes an answer of results, with the code of the worst.
func reply(results []control.Result) *control.Reply {
	r := &control.Reply{Results: results}
	for _, x := range results {
		if !x.OK && r.Code == 0 {
			r.Code = max(x.Code, control.ExitFailed)
		}
	}
	return r
}

func (s *Supervisor) verbMove(ctx context.Context, p control.Peer, req *control.Request) (*control.Reply, error) {
	kind := map[string]lifecycle.Kind{"start": lifecycle.Start, "stop": lifecycle.Stop, "restart": lifecycle.Restart}[req.Verb]
	var sel selection
	var ws []*waiter
	err := s.ask(func() error {
		if s.end.began && kind != lifecycle.Stop {
			return refuse(control.ExitFailed, "the supervisor is stopping")
		}
		sel = s.choose(p, req)
		if len(sel.instances) == 0 {
			return nil
		}
		for _, in := range sel.instances {
			in.byHand = kind == lifecycle.Stop
			if sig := req.Signal; sig != "" && kind == lifecycle.Stop {
				n, _ := control.ParseSignal(sig)
				in.life.StopWith(int(n))
				if in.life.State() == lifecycle.Stopping { // that stop goes on, with this besides
					s.signalTree(in, in.life.Run(), n)
				}
			}
		}
		b := s.issue(kind, levels(sel.instances, kind == lifecycle.Stop), who(p, req.Verb))
		if !req.NoWait {
			ws = append(ws, s.await(b))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var results []control.Result
	for _, w := range sel.workers {
		results = append(results, control.Result{Name: w.fullName(), OK: true, Message: "has no instances (num_instances is 0)"})
	}
	if req.NoWait {
		for _, in := range sel.instances {
			results = append(results, control.Result{Name: in.name, OK: true, Message: "asked for"})
		}
		return reply(append(results, sel.bad...)), nil
	}
	out, err := s.outcome(ctx, ws)
	if err != nil {
		return nil, err
	}
	return reply(append(append(results, out...), sel.bad...)), nil
}

func (s *Supervisor) verbSignal(p control.Peer, req *control.Request) (*control.Reply, error) {
	sig, err := control.ParseSignal(req.Signal)
	if err != nil {
		return nil, refuse(control.ExitUsage, "%v", err)
	}
	var results []control.Result
	err = s.ask(func() error {
		sel := s.choose(p, req)
		for _, in := range sel.instances {
			r := control.Result{Name: in.name, State: in.life.State().String(), PID: in.pid}
			run := in.life.Run()
			switch {
			case in.pid == 0:
				r.Message, r.Code = "is not running", control.ExitNotRunning
			case req.To == "tree":
				s.signalTree(in, run, sig)
				r.OK = true
			default:
				err := s.procs.Signal(in.key(run), sig, req.To == "group")
				r.OK = err == nil
				if errors.Is(err, reaper.ErrGone) {
					r.Message, r.Code = "is not running", control.ExitNotRunning
				} else if err != nil {
					r.Message, r.Code = signalError(err), control.ExitFailed
				}
			}
			results = append(results, r)
		}
		for _, w := range sel.workers {
			results = append(results, control.Result{Name: w.fullName(), Message: "has no instances", Code: control.ExitNotRunning})
		}
		results = append(results, sel.bad...)
		return nil
	})
	return reply(results), err
}

// workersOf resolves names that must stand for whole workers.
func (s *Supervisor) workersOf(p control.Peer, req *control.Request, name string) ([]*worker, error) {
	var out []*worker
	for _, a := range s.apps {
		for _, w := range a.workers {
			if name == "all" && !a.own || matchWorker(name, a.name, w.name) && (strings.ContainsAny(name, ":*?[") || !s.ambiguous(w.name)) {
				out = append(out, w)
			}
		}
	}
	if len(out) == 0 {
		if !s.mayAny(req, p) {
			return nil, denied(req, p)
		}
		if ins, _ := s.match(name); len(ins) > 0 {
			return nil, refuse(control.ExitUsage, "%s is an instance: name its worker, %s", name, ins[0].w.fullName())
		}
		return nil, refuse(control.ExitNoName, "no such name%s", s.suggestTo(p, req, name))
	}
	for _, w := range out {
		if !s.may(req, p, w) {
			return nil, denied(req, p)
		}
	}
	return out, nil
}

func (s *Supervisor) verbScale(ctx context.Context, p control.Peer, req *control.Request) (*control.Reply, error) {
	var results []control.Result
	var ws []*waiter
	err := s.ask(func() error {
		if s.end.began {
			return refuse(control.ExitFailed, "the supervisor is stopping")
		}
		for i, name := range req.Names {
			list, err := s.workersOf(p, req, name)
			for _, w := range list {
				if w.removing {
					err = refuse(control.ExitFailed, "is being removed")
					break
				}
				var n int
				if n, err = countFrom(req.CountOf(i), w.count); err == nil {
					err = s.portRoom(w, n)
				}
				if err != nil {
					break
				}
				before := w.count
				b := s.scale(w, n, who(p, "scale"))
				w.live = true
				results = append(results, control.Result{Name: w.fullName(), OK: true, Message: fmt.Sprintf("%d to %d", before, n)})
				if b != nil && !req.NoWait {
					ws = append(ws, s.await(b))
				}
			}
			if err != nil {
				results = append(results, badName(name, err))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out, err := s.outcome(ctx, ws)
	return reply(append(results, out...)), err
}

func badName(name string, err error) control.Result {
	var no *refusal
	r := control.Result{Name: name, Message: err.Error(), Code: control.ExitFailed}
	if errors.As(err, &no) {
		r.Code = no.code
	}
	return r
}

// maxInstances bounds a count: a slip of the finger must not make a million.
const maxInstances = 10_000

// countFrom reads 4, +1, -1 and cpus; now is the present number.
func countFrom(text string, now int) (int, error) {
	if text == "cpus" {
		return cpus(), nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, refuse(control.ExitUsage, "%q is no number of instances (4, +1, -1 or cpus)", text)
	}
	if text[0] == '+' || text[0] == '-' {
		if now+n < 0 {
			return 0, refuse(control.ExitUsage, "%s of %d instances would be %d", text, now, now+n)
		}
		n += now
	}
	if n > maxInstances {
		return 0, refuse(control.ExitUsage, "%d instances are more than %d", n, maxInstances)
	}
	return n, nil
}

func (s *Supervisor) verbAdd(ctx context.Context, p control.Peer, req *control.Request) (*control.Reply, error) {
	name := req.Names[0]
	if !strings.Contains(name, ":") {
		return nil, refuse(control.ExitUsage, "name it APP:WORKER, not %q", name)
	}
	w, err := NewWorker(name, req.Command)
	if err != nil {
		return nil, refuse(control.ExitUsage, "%v", err)
	}
	w.Dir = "/"
	if req.Count != "" {
		if w.NumInstances, err = countFrom(req.Count, 0); err != nil {
			return nil, err
		}
	}
	if p.UID != 0 && p.UID != uint32(os.Geteuid()) {
		// Whoever may add a worker gains no power by it: it runs as he does.
		// What pazinit was started with may hold secrets.
		w.EnvInherit = procfile.Inherit{Names: []string{"PATH", "LANG", "TZ"}}
		w.User = &procfile.User{Name: strconv.Itoa(int(p.UID)), UID: p.UID, GID: p.GID, Groups: p.Groups, Home: "/", Shell: "/bin/sh", UIDSet: true, GIDSet: true}
	}
	var ws []*waiter
	err = s.ask(func() error {
		holder := &worker{app: &app{name: w.App}, spec: w}
		if a := s.findApp(w.App); a != nil {
			holder.app = a
		}
		if !s.may(req, p, holder) {
			return denied(req, p)
		}
		before := len(s.batches)
		if err := s.addWorker(w, false); err != nil {
			return err
		}
		if !req.NoWait {
			for _, b := range s.batches[before:] {
				ws = append(ws, s.await(b))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out, err := s.outcome(ctx, ws)
	return reply(append([]control.Result{{Name: name, OK: true, Message: "added"}}, out...)), err
}

func (s *Supervisor) verbRemove(ctx context.Context, p control.Peer, req *control.Request) (*control.Reply, error) {
	var results []control.Result
	var ws []*waiter
	err := s.ask(func() error {
		for _, name := range req.Names {
			list, err := s.workersOf(p, req, name)
			for _, w := range list {
				if running := w.running(); running != nil && !req.Force {
					results = append(results, control.Result{Name: w.fullName(), Message: running.name + " is " + running.life.State().String() + ": stop it first, or use --force", Code: control.ExitFailed})
					continue
				}
				if b := s.removeWorker(w, who(p, "remove")); b != nil && !req.NoWait {
					ws = append(ws, s.await(b))
				}
				results = append(results, control.Result{Name: w.fullName(), OK: true, Message: "removed"})
			}
			if err != nil {
				results = append(results, badName(name, err))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.outcome(ctx, ws); err != nil {
		return nil, err
	}
	return reply(results), nil
}

// running finds an instance that is not at rest.
func (w *worker) running() *instance {
	for _, in := range w.instances {
		switch in.life.State() {
		case lifecycle.Stopped, lifecycle.Exited, lifecycle.Fatal:
		case lifecycle.Starting, lifecycle.Running, lifecycle.Backoff, lifecycle.Stopping:
			return in
		}
	}
	return nil
}

func (s *Supervisor) verbPID(p control.Peer, req *control.Request) (*control.Reply, error) {
	if len(req.Names) == 0 {
		return &control.Reply{PID: os.Getpid()}, nil
	}
	var results []control.Result
	err := s.ask(func() error {
		sel := s.choose(p, req)
		for _, in := range sel.instances {
			r := control.Result{Name: in.name, State: in.life.State().String(), PID: in.pid, OK: in.pid != 0}
			if !r.OK {
				r.Message, r.Code = "is not running", control.ExitNotRunning
			}
			results = append(results, r)
		}
		for _, w := range sel.workers {
			results = append(results, control.Result{Name: w.fullName(), Message: "has no instances", Code: control.ExitNotRunning})
		}
		results = append(results, sel.bad...)
		return nil
	})
	return reply(results), err
}

func (s *Supervisor) verbReload(ctx context.Context, req *control.Request) (*control.Reply, error) {
	plan, ws, err := s.beginReload("reload")
	if err != nil {
		return nil, err
	}
	r := &control.Reply{}
	if !req.NoWait {
		results, err := s.outcome(ctx, ws)
		if err != nil {
			return nil, err
		}
		r = reply(results)
	}
	r.Plan = plan
	return r, nil
}

func (s *Supervisor) verbShutdown(ctx context.Context, p control.Peer, req *control.Request) (*control.Reply, error) {
	if req.Verb == "shutdown" {
		s.post(func() { s.shutdown(who(p, "shutdown"), 0) })
	} else {
		if s.opt.Ends == nil {
			return nil, refuse(control.ExitFailed, "this supervisor can only be shut down")
		}
		if err := s.opt.Ends(req.Verb); err != nil {
			return nil, refuse(control.ExitFailed, "%v", err)
		}
		s.End(req.Verb, who(p, req.Verb))
	}
	if !req.NoWait {
		// The answer is sent while there is still somebody to send it: when the last
		// worker is gone, just before the end.
		var ws []*waiter
		err := s.ask(func() error {
			if s.end.workers != nil {
				ws = append(ws, s.await(s.end.workers))
			}
			return nil
		})
		if err == nil {
			_, err = s.outcome(ctx, ws)
		}
		if err != nil && !errors.Is(err, errEnded) {
			return nil, err
		}
	}
	return &control.Reply{Message: "stopped", PID: os.Getpid()}, nil
}

func (s *Supervisor) verbEvents(ctx context.Context, p control.Peer, req *control.Request, send func(*control.Reply) error) (*control.Reply, error) {
	show, err := s.visibleTo(p, req)
	if err != nil {
		return nil, err
	}
	last := s.bus.Last()
	sub := s.bus.Subscribe(req.After, 0)
	if req.Follow && req.After == 0 {
		sub.Close()
		sub = s.bus.Subscribe(control.FromNow, 0)
	}
	defer sub.Close()
	for {
		if !req.Follow && last <= req.After {
			return &control.Reply{}, nil
		}
		e, missed, err := sub.Next(ctx)
		if err != nil {
			return &control.Reply{}, nil
		}
		if show(e.Name) {
			if err := send(&control.Reply{Event: &e, Missed: missed}); err != nil {
				return &control.Reply{}, nil
			}
		}
		if !req.Follow && e.Seq >= last {
			return &control.Reply{}, nil
		}
	}
}

// visibleTo makes the filter by name of a stream. A name need not exist yet.
func (s *Supervisor) visibleTo(p control.Peer, req *control.Request) (func(name string) bool, error) {
	all := false
	var patterns []string
	err := s.ask(func() error {
		all = s.may(req, p, nil)
		if !s.mayAny(req, p) {
			return denied(req, p)
		}
		for _, name := range req.Names {
			ins, empty := s.match(name)
			if len(ins)+len(empty) == 0 {
				return refuse(control.ExitNoName, "no such name %q%s", name, s.suggestTo(p, req, name))
			}
			patterns = append(patterns, name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return func(name string) bool {
		if len(patterns) == 0 && all {
			return true
		}
		if name == "" {
			return false
		}
		app, rest, _ := strings.Cut(name, ":")
		wname := rest
		if i := strings.LastIndexByte(rest, '.'); i >= 0 {
			wname = rest[:i]
		}
		if !all {
			ok := false
			_ = s.ask(func() error {
				if a := s.findApp(app); a != nil {
					if w := a.find(wname); w != nil {
						ok = s.may(req, p, w)
					}
				}
				return nil
			})
			if !ok {
				return false
			}
		}
		return len(patterns) == 0 || slices.ContainsFunc(patterns, func(pt string) bool {
			return pt == "all" || matchWorker(pt, app, wname) || glob(pt, name) || glob(pt, rest)
		})
	}, nil
}
