package pazinit

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/procfile"
)

func waits(w *procfile.Worker) { w.WaitFor = []string{"network"} }

// TestWaitFor is what a condition does to a start, and what it does not hold up.
func TestWaitFor(t *testing.T) {
	cfg := config(plain("web", waits), plain("db", waits), plain("late", waits), plain("log"), plain("other", func(w *procfile.Worker) { w.WaitFor = []string{"nobody's"} }))
	var network chan struct{}
	prepare := func(h *host) {
		network = make(chan struct{})
		h.s.opt.Conditions = map[string]<-chan struct{}{"network": network}
	}
	var d diary
	code := simulate(t, Options{Config: cfg, LogWriter: &d}, prepare, func(s *Supervisor, h *host) {
		if got, want := h.take(), "start a:log.1, start a:other.1"; got != want {
			t.Errorf("at first %s, want %s", got, want)
		}
		list, _ := s.Status()
		if list[0].State != "STOPPED" || list[0].Reason != "waits for network" {
			t.Errorf("status of one that waits: %+v", list[0])
		}
		s.WaitsFor("network", "eth0: no carrier")
		list, _ = s.Status()
		if list[0].Reason != "waits for network (eth0: no carrier)" || list[3].Reason == list[0].Reason {
			t.Errorf("status of one that waits, and of another: %+v, %+v", list[0], list[3])
		}
		s.WaitsFor("network", "eth0: no carrier")
		if got := strings.Count(d.text(), "a:web.1, a:db.1, a:late.1 wait for network: eth0: no carrier"); got != 1 {
			t.Errorf("said %d times:\n%s", got, d.text())
		}
		s.WaitsFor("network", "")
		if list, _ = s.Status(); list[0].Reason != "waits for network" {
			t.Errorf("status of one that waits: %+v", list[0])
		}
		// What an operator says is done, and is the last word.
		do(t, s, &control.Request{Verb: "start", Names: []string{"db"}})
		do(t, s, &control.Request{Verb: "stop", Names: []string{"late"}})
		if got, want := h.take(), "start a:db.1"; got != want {
			t.Errorf("an operator got %s, want %s", got, want)
		}
		close(network)
		synctest.Wait()
		if got, want := h.take(), "start a:web.1"; got != want {
			t.Errorf("with the network %s, want %s", got, want)
		}
		if got, want := states(s), "web.1 RUNNING, db.1 RUNNING, late.1 STOPPED, log.1 RUNNING, other.1 RUNNING"; got != want {
			t.Errorf("states = %s, want %s", got, want)
		}
		do(t, s, &control.Request{Verb: "scale", Names: []string{"web"}, Count: "2"})
		if got, want := h.take(), "start a:web.2"; got != want {
			t.Errorf("later %s, want %s", got, want)
		}
		s.Shutdown("test")
	})
	if code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// TestWaitForever ends all the same, and to wait is not to be over.
func TestWaitForever(t *testing.T) {
	cfg := config(plain("web", waits), plain("job", func(w *procfile.Worker) { w.Restart = "never" }))
	prepare := func(h *host) {
		h.s.opt.Conditions = map[string]<-chan struct{}{"network": make(chan struct{})}
	}
	simulate(t, Options{Config: cfg, Place: Place{PID1: true}}, prepare, func(s *Supervisor, h *host) {
		h.crash("a:job.1", 0)
		if got, want := states(s), "web.1 STOPPED, job.1 EXITED"; got != want {
			t.Errorf("states = %s, want %s", got, want)
		}
		if !s.Alive() {
			t.Error("it has ended, though web may start yet")
		}
		s.Signal(unix.SIGTERM)
	})
}

// TestEndAs is how the verbs and a machine's signals end it.
func TestEndAs(t *testing.T) {
	cfg := config(plain("web"))
	cfg.OnEnd = "poweroff"
	refuse := func(what string) error {
		if what == "kexec" {
			return unix.ENOEXEC
		}
		return nil
	}
	var d diary
	var s *Supervisor
	simulate(t, Options{Config: cfg, Ends: refuse, LogWriter: &d, Place: Place{PID1: true, Initial: true}}, nil, func(sup *Supervisor, h *host) {
		s = sup
		d.begin()
		if r := do(t, s, &control.Request{Verb: "kexec"}); r.Code != control.ExitFailed || !strings.Contains(r.Error, unix.ENOEXEC.Error()) {
			t.Errorf("kexec: %+v", r)
		}
		if r := do(t, s, &control.Request{Verb: "reboot"}); r.Code != 0 {
			t.Errorf("reboot: %+v", r)
		}
	})
	if got := s.OnEnd(); got != "reboot" {
		t.Errorf("OnEnd() = %s, want reboot", got)
	}
	if !strings.Contains(d.text(), "stopping: reboot by uid 0") {
		t.Errorf("it said %s", d.text())
	}
}

// TestEndAsIsRefused without a function that allows it, and to whom access does
// not give it.
func TestEndAsIsRefused(t *testing.T) {
	simulate(t, Options{Config: config(plain("web"))}, nil, func(s *Supervisor, h *host) {
		for _, verb := range []string{"poweroff", "reboot", "halt", "kexec"} {
			if r := do(t, s, &control.Request{Verb: verb}); r.Code != control.ExitFailed {
				t.Errorf("%s: %+v", verb, r)
			}
			var last *control.Reply
			s.Handle(context.Background(), control.Peer{UID: 4000}, &control.Request{Verb: verb}, func(r *control.Reply) error { last = r; return nil })
			if last.Code != control.ExitDenied {
				t.Errorf("%s by uid 4000: %+v", verb, last)
			}
		}
		if got, want := states(s), "web.1 RUNNING"; got != want {
			t.Errorf("states = %s, want %s", got, want)
		}
		s.Shutdown("test")
	})
}

// TestOwn is pazinit's own application: no ports, not meant by all, and no reason
// to live on.
func TestOwn(t *testing.T) {
	own := procfile.NewWorker("machine", "network", procfile.Command{Line: "n", Argv: []string{"n"}})
	own.Priority = -1 << 31
	cfg := config(plain("web", func(w *procfile.Worker) { w.Restart = "never" }))
	cfg.Applications = append([]*procfile.Application{{Name: "machine", Own: true, Workers: []*procfile.Worker{own}}}, cfg.Applications...)
	simulate(t, Options{Config: cfg, Only: []string{"web"}, Place: Place{PID1: true, Initial: true}}, nil, func(s *Supervisor, h *host) {
		if got, want := h.take(), "start machine:network.1, start a:web.1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		list, _ := s.Status()
		if len(list) != 2 || list[0].Port != 0 || list[1].Port != 5000 {
			t.Errorf("status %+v", list)
		}
		do(t, s, &control.Request{Verb: "restart", Names: []string{"all"}})
		if got, want := h.take(), "TERM a:web.1, start a:web.1"; got != want {
			t.Errorf("restart all: %s, want %s", got, want)
		}
		h.crash("a:web.1", 0)
		<-s.done
		if got, want := strings.Join(h.log, ", "), "TERM machine:network.1"; got != want {
			t.Errorf("at the end %s, want %s", got, want)
		}
	})
}
