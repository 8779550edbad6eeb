package pazinit

import (
	"os"
	"syscall"
	"time"

	"github.com/pazinit/pazinit/init/internal/lifecycle"
	"github.com/pazinit/pazinit/output"
	"github.com/pazinit/pazinit/procfile"
)

// A loggerPair is the logger process of one stream of a worker (pipe_to) and the
// pipe that it reads. The process is an instance like others, but nobody's
// worker: it is started before the worker, kept running at any price, and ended
// after it, by the end of its input.
type loggerPair struct {
	pipe *output.Logger
	in   *instance
}

func needsLogger(specs ...*Worker) bool {
	for _, w := range specs {
		if w.Worker.Stdout.Kind == "pipe" || w.Worker.Stderr.Kind == "pipe" {
			return true
		}
	}
	return false
}

func (w *worker) loggerOf(stream string) *output.Logger {
	p := w.loggers[0]
	if stream == "stderr" {
		p = w.loggers[1]
	}
	if p == nil {
		return nil
	}
	return p.pipe
}

// startLoggers starts the loggers of w that do not run yet.
func (s *Supervisor) startLoggers(w *worker) {
	for i, t := range []*procfile.Target{&w.spec.Worker.Stdout, &w.spec.Worker.Stderr} {
		if t.Kind != "pipe" || w.loggers[i] != nil {
			continue
		}
		name := w.fullName() + "/" + [2]string{"stdout", "stderr"}[i]
		uid, gid := os.Geteuid(), os.Getegid()
		if u := w.spec.User; u != nil {
			uid, gid = int(u.UID), int(u.GID)
		}
		pipe, err := s.hub.Logger(name, uid, gid)
		if err != nil {
			s.logf("%v", err)
			continue
		}
		spec := procfile.NewWorker(w.spec.App, w.spec.Name, t.Pipe)
		spec.Env, spec.EnvInherit, spec.Dir, spec.User, spec.Umask = w.spec.Env, w.spec.EnvInherit, w.spec.Dir, w.spec.User, w.spec.Umask
		spec.MaxRestarts = 0 // it is never given up
		spec.Backoff.Max = 5 * time.Second
		spec.Stop = []procfile.StopStep{{Signal: 0, Wait: 5 * time.Second}, {Signal: syscall.SIGTERM, Wait: 5 * time.Second}}
		s.lastID++
		in := &instance{id: s.lastID, w: w, n: 0, name: name, spec: &Worker{Worker: *spec}, hidden: true, input: pipe}
		in.life.Policy = policy(in.spec)
		w.loggers[i] = &loggerPair{pipe, in}
		s.loggers[in] = w.loggers[i]
		s.step(in, lifecycle.Event{Kind: lifecycle.Start, Reason: "logger of " + w.fullName()})
	}
}

// end closes the logger's input, so that it reads to the end and exits.
func (s *Supervisor) endLogger(p *loggerPair) {
	p.pipe.End()
	p.in.removing = true
	s.step(p.in, lifecycle.Event{Kind: lifecycle.Stop, Within: s.timeLeft(), Reason: "its input has ended"})
}

func (s *Supervisor) endLoggers(w *worker) {
	for _, p := range w.loggers {
		if p != nil {
			s.endLogger(p)
		}
	}
	for _, p := range w.retired {
		s.endLogger(p)
	}
	w.loggers, w.retired = [2]*loggerPair{}, nil
}

func (w *worker) ownLoggers() (out []*loggerPair) {
	for _, p := range w.loggers {
		if p != nil {
			out = append(out, p)
		}
	}
	return out
}

// forgetLoggers drops those that have ended, and ends those that no instance
// writes to any more after a reload.
func (s *Supervisor) forgetLoggers() {
	for _, a := range s.apps {
		for _, w := range a.workers {
			if len(w.retired) > 0 && !w.behind() {
				for _, p := range w.retired {
					s.endLogger(p)
				}
				w.retired = nil
			}
		}
	}
	for in, p := range s.loggers {
		if in.removing && in.life.State() == lifecycle.Stopped {
			delete(s.loggers, in)
			p.pipe.Close()
			s.forget(in)
		}
	}
}

// behind reports whether an instance still has older settings or their output.
func (w *worker) behind() bool {
	for _, in := range w.instances {
		if in.spec != w.spec || in.stale {
			return true
		}
	}
	return false
}
