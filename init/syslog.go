package pazinit

import (
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/procfile"
	"github.com/pazinit/pazinit/reaper"
)

// SyslogOptions is what a receiver of syslog messages is begun with.
type SyslogOptions struct {
	Machine bool // this is the init of a machine, whose kernel's records are wanted from the first one
	NoUser  bool // what programs wrote to the kernel's buffer is left out: our own output goes there

	// Route finds out where messages of the process pid in the control group with
	// the number group go, each 0 if it is not known; kernel if they were read from
	// the kernel's buffer. The function that it returns
	// brings one there and does not wait: full is not nil when there is no room, and
	// closed when there may be some; lost says that the message is.
	Route func(pid int, group uint64, kernel bool) func(level, line string) (full <-chan struct{}, lost bool)

	Log func(level, msg string) // what the receiver itself has to say

	Panicked func(where string, value any) // Supervisor.Panicked
}

// senders finds the instance of a process. The loop, spawners and the receiver
// of syslog use it.
type senders struct {
	mu     sync.RWMutex
	names  map[string]*instance // with an output
	pids   map[int]*instance    // of the runs' processes
	groups map[uint64]*instance // by the number of a control group
	ids    map[*instance]uint64 // that number
}

func (d *senders) add(in *instance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names == nil {
		d.names, d.pids = map[string]*instance{}, map[int]*instance{}
		d.groups, d.ids = map[uint64]*instance{}, map[*instance]uint64{}
	}
	d.names[in.name] = in
}

func (d *senders) forget(in *instance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[in.name] == in {
		delete(d.names, in.name)
	}
	delete(d.groups, d.ids[in])
	delete(d.ids, in)
}

// enters says that in has the control group that dir is the folder of.
func (d *senders) enters(in *instance, dir *os.File) {
	var st unix.Stat_t
	if in.hidden || unix.Fstat(int(dir.Fd()), &st) != nil { // two loggers share a group
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.ids[in]; d.ids == nil || old == st.Ino {
		return
	} else if d.groups[old] == in {
		delete(d.groups, old)
	}
	d.groups[st.Ino], d.ids[in] = in, st.Ino
}

func (d *senders) byGroup(id uint64) *instance {
	if id == 0 {
		return nil
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.groups[id]
}

func (d *senders) begun(pid int, in *instance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pids != nil && pid > 0 {
		d.pids[pid] = in
	}
}

func (d *senders) ended(pid int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.pids, pid)
}

func (d *senders) byName(name string) *instance {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.names[name]
}

func (d *senders) byPID(pid int) *instance {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.pids[pid]
}

// instanceOf finds to which instance a process belongs, in the control group with
// that number or 0: by its control group, by
// its living ancestors, or by the run's variable in its environment. nil: to none,
// or it is gone and nothing tells. It may be called from any goroutine.
func (s *Supervisor) instanceOf(pid int, group uint64) *instance {
	if in := s.senders.byGroup(group); in != nil {
		return in
	}
	if pid <= 0 || pid == os.Getpid() {
		return nil
	}
	if in := s.senders.byPID(pid); in != nil {
		return in
	}
	if s.tree != nil {
		if group, ok := s.tree.Of(pid); ok {
			app, rest, _ := strings.Cut(group, "/")
			name, _, _ := strings.Cut(rest, "/") // it may have groups of its own
			if in := s.senders.byName(app + ":" + name); in != nil {
				return in
			}
		}
	}
	leader, token := reaper.Owner(pid, func(pid int) bool { return s.senders.byPID(pid) != nil })
	if leader > 0 {
		return s.senders.byPID(leader)
	}
	if rest, ok := strings.CutPrefix(token, s.nonce+"/"); ok {
		if i := strings.LastIndexByte(rest, '/'); i >= 0 {
			return s.senders.byName(rest[:i])
		}
	}
	return nil
}

// route is SyslogOptions.Route.
func (s *Supervisor) route(pid int, group uint64, kernel bool) func(level, line string) (<-chan struct{}, bool) {
	if in := s.instanceOf(pid, group); in != nil && !kernel {
		if src := in.source.Load(); src != nil {
			return func(level, line string) (<-chan struct{}, bool) {
				full, lost, ok := src.Say(level, line)
				if !ok { // its output is not captured
					return s.foreign(level, in.name+": "+line, false)
				}
				return full, lost
			}
		}
	}
	// What the kernel has on its console is not wanted there twice.
	quiet := kernel && s.opt.Place.machine()
	return func(level, line string) (<-chan struct{}, bool) { return s.foreign(level, line, quiet) }
}

func (s *Supervisor) foreign(level, line string, quiet bool) (<-chan struct{}, bool) {
	if s.opt.LogWriter != nil {
		s.logf("%s", line)
		return nil, false
	}
	return s.hub.Foreign(level, line, quiet)
}

// machine reports whether this is the init of a machine.
func (p Place) machine() bool { return p.PID1 && p.Initial }

// wantsSyslog reports whether cfg asks for a receiver of syslog here.
func (s *Supervisor) wantsSyslog(cfg *procfile.Config) bool {
	if cfg.Syslog != nil {
		return *cfg.Syslog
	}
	return s.opt.Place.machine()
}

// syslog is the receiver, if there is one. All of it is background's.
type syslog struct {
	stop func(deadline time.Time)
}

// setSyslog makes the receiver begin or end. It may block.
func (s *Supervisor) setSyslog(on bool) {
	r := &s.syslog
	switch {
	case on && r.stop == nil && s.opt.Syslog != nil:
		s.hub.ServesSyslog(true) // before it is there
		stop, serves, err := s.opt.Syslog(SyslogOptions{
			Machine: s.opt.Place.machine(), NoUser: s.hub.IsKernelLog(),
			Route: s.route, Log: func(level, msg string) { s.log(level, msg) }, Panicked: s.Panicked,
		})
		if err != nil {
			s.log("warning", "without a receiver of syslog: "+err.Error())
		}
		r.stop = stop
		s.hub.ServesSyslog(serves)
	case !on && r.stop != nil:
		r.stop(s.syslogUntil())
		r.stop = nil
		s.hub.ServesSyslog(false)
	}
}

// syslogUntil is how long the end of the receiver may take.
func (s *Supervisor) syslogUntil() time.Time { return time.Now().Add(time.Second) }
