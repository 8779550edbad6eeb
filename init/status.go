package pazinit

import (
	"context"
	"errors"
	"time"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/init/internal/lifecycle"
)

// Status tells of every instance, in the order of the files, and of each worker
// that has none.
func (s *Supervisor) Status() ([]control.Status, error) {
	var out []control.Status
	err := s.ask(func() error {
		now := time.Now()
		for _, a := range s.apps {
			for _, w := range a.workers {
				for _, in := range w.instances {
					out = append(out, in.status(now))
				}
				if len(w.instances) == 0 {
					out = append(out, w.status())
				}
			}
		}
		return nil
	})
	return out, err
}

func (in *instance) status(now time.Time) control.Status {
	st := in.life.State()
	r := control.Status{
		Name: in.name, App: in.w.app.name, Worker: in.w.name, Instance: in.n,
		State: st.String(), Ready: st == lifecycle.Running, PID: in.pid, Run: in.life.Run(),
		Since: in.since, Restarts: in.restarts, Command: in.spec.Command.Line, LastExit: in.last, Reason: in.reason,
		Failures: in.life.Deaths(now), Autostart: in.spec.Autostart, Port: in.port(), InFile: in.w.inFile,
	}
	if in.pid != 0 && !in.life.Executed().IsZero() {
		r.UptimeS = now.Sub(in.life.Executed()).Seconds()
	}
	if d := in.life.Deadline(); !d.IsZero() && (st == lifecycle.Backoff || st == lifecycle.Fatal) {
		next := now.Round(0).Add(d.Sub(now)) // by the wall clock as it is now
		r.NextTry = &next
	}
	return r
}

// status of a worker without instances.
func (w *worker) status() control.Status {
	return control.Status{
		Name: w.fullName(), App: w.app.name, Worker: w.name, State: lifecycle.Stopped.String(),
		Command: w.spec.Command.Line, Autostart: w.spec.Autostart, InFile: w.inFile, Reason: "has no instances",
	}
}

func (s *Supervisor) verbStatus(ctx context.Context, p control.Peer, req *control.Request, send func(*control.Reply) error) (*control.Reply, error) {
	sub := s.bus.Subscribe(control.FromNow, 0)
	defer sub.Close()
	for shown := false; ; shown = true {
		r, err := s.statusReply(p, req)
		if shown && errors.Is(err, errEnded) {
			return &control.Reply{}, nil
		}
		if err != nil || !req.Follow {
			return r, err
		}
		if err := send(r); err != nil {
			return &control.Reply{}, nil
		}
		if _, _, err := sub.Next(ctx); err != nil {
			return &control.Reply{}, nil
		}
		for { // what came with it is shown with it
			if _, _, ok := sub.TryNext(); !ok {
				break
			}
		}
	}
}

func (s *Supervisor) statusReply(p control.Peer, req *control.Request) (*control.Reply, error) {
	r := &control.Reply{Status: []control.Status{}}
	err := s.ask(func() error {
		sel := s.choose(p, req)
		now := time.Now()
		for _, in := range sel.instances {
			st := in.status(now)
			r.Status = append(r.Status, st)
			if len(req.Names) > 0 && st.State != "RUNNING" && r.Code == 0 {
				r.Code = control.ExitNotRunning
			}
		}
		for _, w := range sel.workers {
			r.Status = append(r.Status, w.status())
			if len(req.Names) > 0 && r.Code == 0 {
				r.Code = control.ExitNotRunning
			}
		}
		for _, bad := range sel.bad {
			r.Results = append(r.Results, bad)
			r.Code = bad.Code
		}
		return nil
	})
	return r, err
}
