package pazinit

import (
	"errors"
	"fmt"
	"iter"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/pazinit/pazinit/init/internal/lifecycle"
	"github.com/pazinit/pazinit/procfile"
)

// An app is an application with its workers, in the order of the file.
type app struct {
	name    string
	index   int  // never given to another while it is there
	inFile  bool // it is, or was, in a file; others go with their last worker
	own     bool // pazinit's own, without ports
	base    int  // of its ports
	access  procfile.Access
	workers []*worker
	blocks  map[string]int // worker's name to its number; kept when the worker goes
}

// A worker is a line of a Procfile and its instances, in the order of numbers.
type worker struct {
	app       *app
	name      string
	spec      *Worker
	instances []*instance
	count     int  // how many there should be
	live      bool // count was set by a verb, and holds until the file's own number changes
	inFile    bool
	port      int // of instance 1
	removing  bool
	loggers   [2]*loggerPair // of stdout and stderr; nil without pipe_to
	retired   []*loggerPair  // of older settings, which some instance may still use
}

func (w *worker) fullName() string { return w.app.name + ":" + w.name }

// all are the instances, in the order of the files.
func (s *Supervisor) all() iter.Seq[*instance] {
	return func(yield func(*instance) bool) {
		for _, a := range s.apps {
			for _, w := range a.workers {
				for _, in := range w.instances {
					if !yield(in) {
						return
					}
				}
			}
		}
		for in := range s.loggers {
			if !yield(in) {
				return
			}
		}
	}
}

// visible are the instances but for the loggers.
func (s *Supervisor) visible() iter.Seq[*instance] {
	return func(yield func(*instance) bool) {
		for in := range s.all() {
			if !in.hidden && !yield(in) {
				return
			}
		}
	}
}

// splitName splits "app:worker"; what has no app is of the application "app".
func splitName(name string) (app, worker string) {
	if a, w, ok := strings.Cut(name, ":"); ok {
		return a, w
	}
	return "app", name
}

// policy is what the life of an instance needs of the settings.
func policy(w *Worker) lifecycle.Policy {
	p := lifecycle.Policy{
		SuccessCodes: w.SuccessCodes, HealthyAfter: w.HealthyAfter,
		MaxRestarts: w.MaxRestarts, Window: w.RestartWindow, RetryAfter: w.RetryAfter, RetryTimes: w.RetryTimes,
		Base: w.Backoff.Base, Max: w.Backoff.Max, Factor: w.Backoff.Factor, Jitter: w.Backoff.Jitter,
	}
	switch w.Restart {
	case "on-failure":
		p.Restart = lifecycle.OnFailure
	case "never":
		p.Restart = lifecycle.Never
	}
	switch w.StopTo {
	case "leader":
		p.StopTo = lifecycle.ToLeader
	case "tree":
		p.StopTo = lifecycle.ToTree
	}
	for _, st := range w.Stop {
		p.Stop = append(p.Stop, lifecycle.StopStep{Signal: int(st.Signal), Wait: st.Wait})
	}
	return p
}

// wanted is how many instances w asks for.
func wanted(w *Worker) int {
	if w.PerCPU {
		return cpus()
	}
	return w.NumInstances
}

// cpus is how many processors this process may use: Go reads the cgroup's quota
// and rounds it up; 0.5 processors are 1.
func cpus() int {
	n := runtime.NumCPU()
	if q := cpuQuota(); q > 0 && q < n {
		n = q
	}
	return max(n, 1)
}

// adopt makes the applications and workers of cfg; only for the first one.
func (s *Supervisor) adopt(cfg *procfile.Config) error {
	var errs []error
	for _, pa := range cfg.Applications {
		s.appOf(pa)
	}
	if err := s.layPorts(cfg); err != nil {
		errs = append(errs, err)
	}
	for _, pa := range cfg.Applications {
		for _, pw := range pa.Workers {
			if s.chosen(pa, pw.Name) {
				s.newWorker(&Worker{Worker: *pw}, true)
			}
		}
	}
	for _, name := range s.opt.Only {
		if ins, ws := s.match(name); len(ins)+len(ws) == 0 {
			errs = append(errs, fmt.Errorf("no worker %q in the configuration%s", name, s.suggest(name, nil)))
		}
	}
	return errors.Join(errs...)
}

// chosen reports whether a worker is among those that this run is for.
func (s *Supervisor) chosen(pa *procfile.Application, name string) bool {
	return pa.Own || len(s.opt.Only) == 0 || slices.ContainsFunc(s.opt.Only, func(o string) bool {
		return o == "all" || matchWorker(o, pa.Name, name)
	})
}

// appOf finds or makes the application.
func (s *Supervisor) appOf(pa *procfile.Application) *app {
	a := s.findApp(pa.Name)
	if a == nil {
		a = &app{name: pa.Name, index: -1, own: pa.Own, blocks: map[string]int{}}
		if !a.own {
			a.index = s.freeIndex()
		}
		s.apps = append(s.apps, a)
	}
	a.access = pa.Access
	return a
}

// freeIndex is the lowest that no application has.
func (s *Supervisor) freeIndex() int {
	for i := 0; ; i++ {
		if !slices.ContainsFunc(s.apps, func(a *app) bool { return a.index == i }) {
			return i
		}
	}
}

// freeBlock is the lowest that no worker has.
func (a *app) freeBlock() int {
	used := make(map[int]bool, len(a.blocks))
	for _, b := range a.blocks {
		used[b] = true
	}
	for i := 0; ; i++ {
		if !used[i] {
			return i
		}
	}
}

// forgetBlock gives back what a worker that is in no file had of the ports, and
// its application if nothing else is in it.
func (s *Supervisor) forgetBlock(a *app, name string) {
	delete(a.blocks, name)
	if !a.inFile && len(a.workers) == 0 {
		s.apps = slices.DeleteFunc(s.apps, func(o *app) bool { return o == a })
	}
}

func (s *Supervisor) findApp(name string) *app {
	for _, a := range s.apps {
		if a.name == name {
			return a
		}
	}
	return nil
}

func (a *app) find(name string) *worker {
	for _, w := range a.workers {
		if w.name == name {
			return w
		}
	}
	return nil
}

// newWorker makes a worker and its instances; nothing is started.
func (s *Supervisor) newWorker(spec *Worker, inFile bool) *worker {
	a := s.findApp(spec.App)
	w := &worker{app: a, name: spec.Name, spec: spec, inFile: inFile, port: a.portOf(spec.Name)}
	a.workers = append(a.workers, w)
	s.setCount(w, wanted(spec))
	return w
}

// setCount adds those of the instances 1 to n that w does not have; it removes
// none. One in the middle may be missing: of those that were too many each left
// when it had stopped.
func (s *Supervisor) setCount(w *worker, n int) (added []*instance) {
	w.count = n
	has := map[int]bool{}
	for _, in := range w.instances {
		has[in.n] = true
		if in.n <= n && in.removing {
			in.removing = false
			in.command++ // its stop may wait for its turn
		}
	}
	for i := 1; i <= n; i++ {
		if has[i] {
			continue
		}
		s.lastID++
		in := &instance{id: s.lastID, w: w, n: i, name: w.fullName() + "." + strconv.Itoa(i), spec: w.spec}
		in.life.Policy = policy(w.spec)
		in.life.Seed = s.seed + s.lastID*0x9e3779b97f4a7c15
		w.instances = append(w.instances, in)
		added = append(added, in)
	}
	slices.SortFunc(w.instances, func(a, b *instance) int { return a.n - b.n })
	return added
}

// addWorker adds a worker while others run.
func (s *Supervisor) addWorker(spec *Worker, inFile bool) error {
	if s.end.began {
		return errors.New("the supervisor is stopping")
	}
	if a := s.findApp(spec.App); a != nil && a.find(spec.Name) != nil {
		return fmt.Errorf("there is a worker %s:%s already", spec.App, spec.Name)
	}
	a := s.findApp(spec.App)
	if a == nil {
		a = s.appOf(&procfile.Application{Name: spec.App})
	}
	_, had := a.blocks[spec.Name]
	if err := s.layPorts(s.cfg, spec); err != nil {
		if !had {
			s.forgetBlock(a, spec.Name)
		}
		return err
	}
	w := s.newWorker(spec, inFile)
	if s.hub == nil {
		return nil // Run starts it
	}
	s.startLoggers(w)
	if spec.Autostart {
		s.issue(lifecycle.Start, levels(s.ready(w.instances), false), "added")
	}
	return nil
}

// Ports are given out as Foreman does: a base for each application, 100 for each
// worker in it, 1 for each instance.
const (
	firstPort   = 5000
	appPorts    = 1000
	workerPorts = 100
)

func (a *app) portOf(worker string) int {
	if a.base == 0 {
		return 0
	}
	return a.base + workerPorts*a.blocks[worker]
}

// layPorts gives each application and worker of cfg, and of more, a block of
// ports. What has one keeps it. Blocks that overlap are an error.
func (s *Supervisor) layPorts(cfg *procfile.Config, more ...*Worker) error {
	type block struct {
		first, last int
		name        string
	}
	var blocks []block
	lay := func(a *app, name string, n int) {
		if _, ok := a.blocks[name]; !ok {
			a.blocks[name] = a.freeBlock()
		}
		if n > 0 {
			first := a.portOf(name)
			blocks = append(blocks, block{first, first + n - 1, a.name + ":" + name})
		}
	}
	for _, pa := range cfg.Applications {
		a := s.findApp(pa.Name)
		a.inFile = true
		switch {
		case a.own:
			continue
		case pa.PortBase != 0:
			a.base = pa.PortBase
		case a.base == 0:
			a.base = firstPort + appPorts*a.index
		}
		for _, pw := range pa.Workers {
			n := wanted(&Worker{Worker: *pw})
			if w := a.find(pw.Name); w != nil && w.live {
				n = w.count
			}
			lay(a, pw.Name, n)
		}
	}
	for _, spec := range more {
		a := s.findApp(spec.App)
		if a.own {
			continue
		}
		if a.base == 0 {
			a.base = firstPort + appPorts*a.index
		}
		lay(a, spec.Name, wanted(spec))
	}
	for _, a := range s.apps { // those that no file has
		for _, w := range a.workers {
			if !w.inFile {
				lay(a, w.name, w.count)
			}
		}
	}
	var errs []error
	slices.SortStableFunc(blocks, func(a, b block) int { return a.first - b.first })
	for i, b := range blocks {
		if b.last > 65535 {
			errs = append(errs, fmt.Errorf("ports %d to %d of %s go beyond 65535: give its application another port_base", b.first, b.last, b.name))
		}
		if i > 0 && b.first <= blocks[i-1].last {
			o := blocks[i-1]
			errs = append(errs, fmt.Errorf("ports %d to %d of %s overlap %d to %d of %s: give one application another port_base", b.first, b.last, b.name, o.first, o.last, o.name))
		}
	}
	return errors.Join(errs...)
}

// portRoom reports whether w may have n instances.
func (s *Supervisor) portRoom(w *worker, n int) error {
	old, live := w.count, w.live
	w.count, w.live = n, true
	defer func() { w.count, w.live = old, live }()
	return s.layPorts(s.cfg)
}

// scale sets how many instances w has. Those that are too many stop, the
// highest number first.
func (s *Supervisor) scale(w *worker, n int, reason string) *batch {
	added := s.setCount(w, n)
	var steps [][]*instance
	for _, in := range slices.Backward(w.instances) {
		if in.n <= n {
			continue
		}
		in.removing, s.leaving = true, true
		steps = append(steps, []*instance{in})
	}
	if len(steps) > 0 {
		return s.issue(lifecycle.Stop, steps, reason)
	}
	if !w.spec.Autostart && len(w.instances) == len(added) {
		return nil
	}
	// An instance that was on its way out is wanted again.
	for _, in := range w.instances {
		if slices.Contains(added, in) {
			continue
		}
		if st := in.life.State(); st == lifecycle.Stopping && !in.life.Wanted() && !in.byHand {
			added = append(added, in)
		}
	}
	return s.issue(lifecycle.Start, levels(s.ready(added), false), reason)
}

// forgetRemoved drops what was removed and is stopped.
func (s *Supervisor) forgetRemoved() {
	if !s.leaving {
		return
	}
	s.leaving = false
	for _, a := range slices.Backward(s.apps) { // one may go
		for _, w := range a.workers {
			w.instances = slices.DeleteFunc(w.instances, func(in *instance) bool {
				if !in.removing || in.life.State() != lifecycle.Stopped {
					s.leaving = s.leaving || in.removing
					return false
				}
				s.forget(in)
				return true
			})
		}
		var gone []string
		a.workers = slices.DeleteFunc(a.workers, func(w *worker) bool {
			if !w.removing || len(w.instances) > 0 {
				s.leaving = s.leaving || w.removing
				return false
			}
			s.endLoggers(w)
			if !w.inFile {
				gone = append(gone, w.name)
			}
			return true
		})
		for _, name := range gone {
			s.forgetBlock(a, name)
		}
	}
}

func (s *Supervisor) forget(in *instance) {
	s.countOver(in, false)
	s.senders.forget(in)
	if src := in.source.Swap(nil); src != nil {
		src.Close()
	}
	if in.group.Load() != nil {
		s.files.do(in.removeGroup)
	}
}

// match finds what a name stands for: an instance shop:web.2, a worker shop:web
// or web where only one application has it, an application shop:*, a glob, all.
// Workers without instances are given by themselves.
func (s *Supervisor) match(name string) (ins []*instance, empty []*worker) {
	whole := name == "all" || name == "*"
	for _, a := range s.apps {
		for _, w := range a.workers {
			switch {
			case whole || matchWorker(name, a.name, w.name):
				if !strings.ContainsAny(name, ":*?[") && !whole && s.ambiguous(w.name) {
					continue
				}
				ins = append(ins, w.instances...)
				if len(w.instances) == 0 {
					empty = append(empty, w)
				}
			default:
				for _, in := range w.instances {
					short := strings.TrimPrefix(in.name, a.name+":")
					if glob(name, in.name) || glob(name, short) && (strings.ContainsAny(name, "*?[") || !s.ambiguous(w.name)) {
						ins = append(ins, in)
					}
				}
			}
		}
	}
	return ins, empty
}

// matchWorker reports whether name stands for the worker as a whole.
func matchWorker(name, app, worker string) bool {
	if a, w, ok := strings.Cut(name, ":"); ok {
		return glob(a, app) && glob(w, worker)
	}
	return glob(name, worker)
}

func glob(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}

// ambiguous reports whether several applications have a worker of that name.
func (s *Supervisor) ambiguous(worker string) bool {
	n := 0
	for _, a := range s.apps {
		if a.find(worker) != nil {
			n++
		}
	}
	return n > 1
}
