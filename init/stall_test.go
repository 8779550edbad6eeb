package pazinit

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/reaper"
)

// TestKillGetsAMoment however short shutdown_timeout is.
func TestKillGetsAMoment(t *testing.T) {
	cfg := config(plain("web"))
	cfg.ShutdownTimeout = time.Millisecond
	simulate(t, Options{Config: cfg}, func(h *host) { h.immortal = true }, func(s *Supervisor, h *host) {
		began := time.Now()
		s.Shutdown("test")
		<-s.done
		if took, want := time.Since(began), 20900*time.Microsecond; took != want {
			t.Errorf("what cannot be killed was waited for %v, want %v", took, want)
		}
	})
}

// TestStall: pazinit stood still until all time was over. What it kills only then
// gets a moment to be gone, and strangers are told all the same.
func TestStall(t *testing.T) {
	cfg := config(plain("web"))
	cfg.ShutdownTimeout = time.Second
	var d diary
	simulate(t, Options{Config: cfg, LogWriter: &d, Place: Place{PID1: true}}, func(h *host) {
		h.ignore["a:web.1"] = true
		h.foreign = []reaper.Stranger{{Proc: reaper.Proc{PID: 41}, Name: "sh", Entered: true}}
	}, func(s *Supervisor, h *host) {
		d.begin()
		s.Signal(unix.SIGTERM)
		_ = s.ask(func() error { time.Sleep(4 * time.Second); return nil })
		<-s.done
		if got := d.with("could not be ended"); got != "" {
			t.Errorf("it said %q of who was only just killed", got)
		}
		if got, want := d.with("no worker started"), "4s 1 process that no worker started: told to stop by SIGTERM: 41 sh (entered from outside)"; got != want {
			t.Errorf("it said %q, want %q", got, want)
		}
	})
}
