package pazinit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/cgroupfs"
	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/init/internal/lifecycle"
	"github.com/pazinit/pazinit/procfile"
	"github.com/pazinit/pazinit/reaper"
)

func TestShare(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		left  time.Duration
		needs []time.Duration
		want  time.Duration
	}{
		{10 * s, nil, 0},
		{0, []time.Duration{s}, 0},
		{-s, []time.Duration{s}, 0},
		{10 * s, []time.Duration{0, s}, 0},
		{10 * s, []time.Duration{4 * s}, 4 * s},           // more than there is need for
		{10 * s, []time.Duration{4 * s, 6 * s}, 4 * s},    // just enough
		{9 * s, []time.Duration{10 * s}, 9 * s},           // alone
		{9 * s, []time.Duration{9 * s, 9 * s}, 9 * s / 2}, // equal parts
		{10 * s, []time.Duration{10 * s, 5 * s, 5 * s}, 5 * s},
		{10 * s, []time.Duration{5 * s, 10 * s, 5 * s}, 10 * s / 4},
		{10 * s, []time.Duration{time.Hour, 10 * s}, 5 * s},  // beyond what is left counts as that
		{10 * s, []time.Duration{10 * s, time.Hour}, 5 * s},  // and leaves the others something
		{10 * s, []time.Duration{s, time.Hour}, 10 * s / 11}, // nearly all that it needs
		{9 * s, []time.Duration{10 * s, 10 * s, 10 * s}, 3 * s},
		{6 * s, []time.Duration{10 * s, 10 * s}, 3 * s}, // the second of the three, if the first used its part
		{9 * s, []time.Duration{-s, 9 * s}, 0},
		{1 << 62, []time.Duration{1 << 62, 1 << 62}, 1 << 61}, // no overflow
	} {
		if got := share(tt.left, tt.needs); got != tt.want {
			t.Errorf("share(%v, %v) = %v, want %v", tt.left, tt.needs, got, tt.want)
		}
	}
}

func TestReserve(t *testing.T) {
	for whole, want := range map[time.Duration]time.Duration{
		time.Millisecond: 100 * time.Microsecond, 300 * time.Millisecond: 30 * time.Millisecond,
		9 * time.Second: 900 * time.Millisecond, 10 * time.Second: time.Second, time.Hour: time.Second,
	} {
		if got := reserve(whole); got != want {
			t.Errorf("reserve(%v) = %v, want %v", whole, got, want)
		}
	}
}

// A diary is what pazinit says, each line with the time after began.
type diary struct {
	mu    sync.Mutex
	began time.Time
	lines []string
}

func (d *diary) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for line := range strings.Lines(string(b)) {
		at := ""
		if !d.began.IsZero() {
			at = time.Since(d.began).Round(time.Millisecond).String() + " "
		}
		d.lines = append(d.lines, at+strings.TrimSuffix(line, "\n"))
	}
	return len(b), nil
}

// begin forgets what was said before the end.
func (d *diary) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.began, d.lines = time.Now(), nil
}

func (d *diary) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, "\n")
}

// with are those of the lines that have a word.
func (d *diary) with(word string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, l := range d.lines {
		if strings.Contains(l, word) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

// timed are the signals that the host was told to send, with their time.
func (h *host) timed(began time.Time) string {
	var out []string
	for i, l := range h.log {
		out = append(out, h.times[i].Sub(began).Round(time.Millisecond).String()+" "+strings.ReplaceAll(l, "a:", ""))
	}
	return strings.Join(out, ", ")
}

func prio(n int) func(*procfile.Worker) { return func(w *procfile.Worker) { w.Priority = n } }

func stopTime(d time.Duration) func(*procfile.Worker) {
	return func(w *procfile.Worker) { w.Stop = []procfile.StopStep{{Signal: unix.SIGTERM, Wait: d}} }
}

// TestDeadlineIsDivided: who is late costs those after it nothing that is theirs.
func TestDeadlineIsDivided(t *testing.T) {
	three := func() []*procfile.Worker {
		return []*procfile.Worker{plain("web", prio(30)), plain("app", prio(20)), plain("db", prio(10))}
	}
	for _, tt := range []struct {
		name    string
		whole   time.Duration
		workers []*procfile.Worker
		ignore  []string
		want    string
	}{
		{"all are late", 10 * time.Second, three(), []string{"web", "app", "db"},
			"0s TERM web.1, 3s KILL web.1, 3s TERM app.1, 6s KILL app.1, 6s TERM db.1, 9s KILL db.1"},
		{"what is not used is the next one's", 10 * time.Second, three(), []string{"app", "db"},
			"0s TERM web.1, 0s TERM app.1, 4.5s KILL app.1, 4.5s TERM db.1, 9s KILL db.1"},
		{"the last one has nearly all", 10 * time.Second, three(), []string{"db"},
			"0s TERM web.1, 0s TERM app.1, 0s TERM db.1, 9s KILL db.1"},
		{"nobody gets more than its own", time.Minute, three(), []string{"web", "db"},
			"0s TERM web.1, 10s KILL web.1, 10s TERM app.1, 10s TERM db.1, 20s KILL db.1"},
		{"by their own times", 10 * time.Second, []*procfile.Worker{plain("web", prio(2), stopTime(2*time.Second)), plain("db", prio(1), stopTime(7*time.Second))}, []string{"web", "db"},
			"0s TERM web.1, 2s KILL web.1, 2s TERM db.1, 9s KILL db.1"},
		{"the longest of a step counts", 10 * time.Second, []*procfile.Worker{plain("web", prio(2), stopTime(time.Second)), plain("app", prio(2), stopTime(6*time.Second)), plain("db", prio(1), stopTime(12*time.Second))}, []string{"web", "app", "db"},
			"0s TERM app.1, 0s TERM web.1, 1s KILL web.1, 3.6s KILL app.1, 3.6s TERM db.1, 9s KILL db.1"},
		{"one that may take an hour", 10 * time.Second, []*procfile.Worker{plain("web", prio(2), stopTime(time.Hour)), plain("db", prio(1), stopTime(time.Hour))}, []string{"web", "db"},
			"0s TERM web.1, 4.5s KILL web.1, 4.5s TERM db.1, 9s KILL db.1"},
		{"without one", 0, three(), []string{"web", "app", "db"},
			"0s TERM web.1, 10s KILL web.1, 10s TERM app.1, 20s KILL app.1, 20s TERM db.1, 30s KILL db.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(tt.workers...)
			cfg.ShutdownTimeout = tt.whole
			code := simulate(t, Options{Config: cfg}, func(h *host) {
				for _, name := range tt.ignore {
					h.ignore["a:"+name+".1"] = true
				}
			}, func(s *Supervisor, h *host) {
				h.take()
				began := time.Now()
				s.Shutdown("test")
				<-s.done
				if got := h.timed(began); got != tt.want {
					t.Errorf("got  %s\nwant %s", got, tt.want)
				}
				if took := time.Since(began); tt.whole > 0 && took > tt.whole {
					t.Errorf("it took %v, want at most %v", took, tt.whole)
				}
			})
			if code != 0 {
				t.Errorf("status %d, want 0", code)
			}
		})
	}
}

// TestStopUnderWayIsHurried: an operator's stop that may take an hour does not
// outlast the end.
func TestStopUnderWayIsHurried(t *testing.T) {
	cfg := config(plain("web", stopTime(time.Hour)))
	cfg.ShutdownTimeout = 10 * time.Second
	simulate(t, Options{Config: cfg}, func(h *host) { h.ignore["a:web.1"] = true }, func(s *Supervisor, h *host) {
		h.take()
		began := time.Now()
		_ = s.ask(func() error {
			for in := range s.visible() {
				s.issue(lifecycle.Stop, levels([]*instance{in}, true), "an operator")
			}
			return nil
		})
		time.Sleep(time.Minute)
		s.Shutdown("test")
		<-s.done
		if got, want := h.timed(began), "0s TERM web.1, 1m9s KILL web.1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// TestKillAtTheDeadline: what cannot be ended is given up before shutdown_timeout
// is over, and everybody is named.
func TestKillAtTheDeadline(t *testing.T) {
	cfg := config(plain("web"))
	cfg.ShutdownTimeout = 10 * time.Second
	var d diary
	simulate(t, Options{Config: cfg, LogWriter: &d}, func(h *host) { h.immortal = true }, func(s *Supervisor, h *host) {
		d.begin()
		s.Shutdown("test")
		<-s.done
		if took := time.Since(d.began); took != 9750*time.Millisecond {
			t.Errorf("it took %v, want 9.75s", took)
		}
		want := `0s stopping: test
2s still waiting for a:web.1 (pid 1, has not ended 2s after SIGTERM, of 9s)
4s still waiting for a:web.1 (pid 1, has not ended 4s after SIGTERM, of 9s)
8s still waiting for a:web.1 (pid 1, has not ended 8s after SIGTERM, of 9s)
9s a:web.1: it has not ended within 9s, its part of the time for everything (its own would be 10s), and is killed
9.75s a:web.1 could not be ended: something of it is in uninterruptible sleep`
		if got := d.text(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// TestNotPermitted: a worker that may not be signalled is told of once, and is
// said neither to ignore a signal nor to sleep.
func TestNotPermitted(t *testing.T) {
	cfg := config(plain("web", func(w *procfile.Worker) { w.User = &procfile.User{UID: 1000} }))
	var d diary
	simulate(t, Options{Config: cfg, LogWriter: &d}, func(h *host) { h.barred = true }, func(s *Supervisor, h *host) {
		d.begin()
		_ = s.ask(func() error {
			for in := range s.visible() {
				s.issue(lifecycle.Stop, levels([]*instance{in}, true), "an operator")
			}
			return nil
		})
		time.Sleep(20 * time.Second)
		s.Shutdown("test")
		<-s.done
		want := `0s may not signal a:web.1 (pid 1, uid 1000): operation not permitted; it needs CAP_KILL
10s a:web.1: it has not ended within 10s, and may not be signalled (no CAP_KILL)
15s a:web.1: SIGKILL has not ended it yet: it may not be signalled (no CAP_KILL)
20s stopping: test
22s still waiting for a:web.1 (pid 1, may not be signalled (no CAP_KILL))`
		if got := d.text(); !strings.HasPrefix(got, want+"\n") || strings.Contains(got, "sleep") || strings.Contains(got, "ignores") {
			t.Errorf("got\n%s\nwant it to begin with\n%s", got, want)
		}
		if got := d.with("could not be ended"); !strings.HasSuffix(got, "a:web.1 could not be ended: it may not be signalled (no CAP_KILL)") {
			t.Errorf("at the end it said %q", got)
		}
	})
}

func TestClientsSignalIsNotPermitted(t *testing.T) {
	simulate(t, Options{Config: config(plain("x"), plain("web"))}, nil, func(s *Supervisor, h *host) {
		_ = s.ask(func() error { h.barred = true; return nil })
		r := do(t, s, &control.Request{Verb: "signal", Signal: "HUP", Names: []string{"web"}})
		want := fmt.Sprintf("a:web.1 signal pid %d: operation not permitted; it needs CAP_KILL", h.pidOf["a:web.1"])
		if got := r.Results[0].Name + " " + r.Results[0].Message; got != want || r.Code != control.ExitFailed {
			t.Errorf("signal HUP web = %q, code %d, want %q, code %d", got, r.Code, want, control.ExitFailed)
		}
		_ = s.ask(func() error { h.barred = false; return nil })
		s.Shutdown("test")
	})
}

// TestFatalAndEssential: it is told why pazinit goes on without an essential worker.
func TestFatalAndEssential(t *testing.T) {
	for _, tt := range []struct {
		name, when string
		essential  bool
		want       string
	}{
		{"essential", "any", true, "a:y.1 is FATAL: exited with status 9; next try in 5m; essential, but tried again: retry_after: off would end pazinit"},
		{"one of all", "all", true, "a:y.1 is FATAL: exited with status 9; next try in 5m"},
		{"another", "any", false, "a:y.1 is FATAL: exited with status 9; next try in 5m"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(plain("y", func(w *procfile.Worker) { w.Essential, w.MaxRestarts = tt.essential, 1 }))
			cfg.EndWhen = tt.when
			var d diary
			simulate(t, Options{Config: cfg, LogWriter: &d}, nil, func(s *Supervisor, h *host) {
				h.crash("a:y.1", 9)
				if got := d.with("FATAL"); got != tt.want {
					t.Errorf("got  %s\nwant %s", got, tt.want)
				}
				s.Shutdown("test")
			})
		})
	}
}

func TestWhyNone(t *testing.T) {
	err := &cgroupfs.UnavailableError{Setting: "do this and that", Causes: []error{
		errors.Join(fmt.Errorf("make /a: %w", unix.EROFS), fmt.Errorf("make /a/b: %w", unix.EROFS)), errors.New("another"),
	}}
	if got, want := whyNone(fmt.Errorf("open: %w", err)), "make /a: read-only file system; pazinit doctor says more"; got != want {
		t.Errorf("whyNone(%q) = %q, want %q", err, got, want)
	}
	if got, want := whyNone(errors.New("x")), "x; pazinit doctor says more"; got != want {
		t.Errorf("whyNone(x) = %q, want %q", got, want)
	}
}

// TestClientsAreNoStrangers: a pazinit that is answered, or was told of the end,
// is not named among the strangers, anything else at the socket is.
func TestClientsAreNoStrangers(t *testing.T) {
	cfg := config(plain("web"))
	var d diary
	simulate(t, Options{Config: cfg, Place: Place{PID1: true}, LogWriter: &d}, func(h *host) {
		for pid, name := range map[int]string{41: "pazinit", 42: "agent", 43: "pazinit", 44: "pazinit"} {
			h.foreign = append(h.foreign, reaper.Stranger{Proc: reaper.Proc{PID: pid}, Name: name, Entered: true})
		}
		slices.SortFunc(h.foreign, func(a, b reaper.Stranger) int { return a.PID - b.PID })
		h.deaf = true
	}, func(s *Supervisor, h *host) {
		ask := func(pid int, req *control.Request) {
			s.Handle(context.Background(), control.Peer{PID: pid}, req, func(*control.Reply) error { return nil })
		}
		for _, pid := range []int{41, 42} {
			go ask(pid, &control.Request{Verb: "events", Follow: true})
		}
		ask(44, &control.Request{Verb: "status"}) // over, and so some process that has its name
		synctest.Wait()
		ask(43, &control.Request{Verb: "shutdown"})
		<-s.done
		s.bus.Close()
		want := "2 processes that no worker started: told to stop by SIGTERM: 42 agent (entered from outside), 44 pazinit (entered from outside)\n" +
			"2 processes are not gone and end with this container: 42 agent (entered from outside), 44 pazinit (entered from outside)"
		if got := d.with("process"); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// TestLateOnesAreNamed, and only while there are any.
func TestLateOnesAreNamed(t *testing.T) {
	cfg := config(plain("web", prio(2)), plain("hung", prio(1)), plain("quick"))
	var d diary
	simulate(t, Options{Config: cfg, LogWriter: &d}, func(h *host) { h.ignore["a:web.1"], h.hang["a:hung.1"] = true, true }, func(s *Supervisor, h *host) {
		time.Sleep(time.Minute) // what comes after the hung one has its turn
		synctest.Wait()
		d.begin()
		s.Shutdown("test")
		<-s.done
		web := fmt.Sprintf("pid %d", h.pidOf["a:web.1"])
		want := "2s still waiting for a:web.1 (" + web + ", has not ended 2s after SIGTERM, of 10s)\n" +
			"4s still waiting for a:web.1 (" + web + ", has not ended 4s after SIGTERM, of 10s)\n" +
			"8s still waiting for a:web.1 (" + web + ", has not ended 8s after SIGTERM, of 10s)"
		if got := d.with("still waiting"); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestSecondWishChangesNothing(t *testing.T) {
	cfg := config(plain("web"))
	var d diary
	code := simulate(t, Options{Config: cfg, LogWriter: &d, Place: Place{PID1: true}}, func(h *host) { h.ignore["a:web.1"] = true }, func(s *Supervisor, h *host) {
		h.take()
		d.begin()
		s.Signal(unix.SIGTERM)
		time.Sleep(time.Second)
		s.Signal(unix.SIGTERM)
		s.Signal(unix.SIGINT)
		<-s.done
		if got, want := h.timed(d.began), "0s TERM web.1, 10s KILL web.1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := d.with("stopping"); got != "0s stopping: SIGTERM" {
			t.Errorf("it said %q", got)
		}
	})
	if code != 0 {
		t.Errorf("status %d, want 0", code)
	}
}

// TestInterruptKills at a terminal, when it comes a second time.
func TestInterruptKills(t *testing.T) {
	simulate(t, Options{Config: config(plain("web")), Place: Place{Terminal: true}}, func(h *host) { h.ignore["a:web.1"] = true }, func(s *Supervisor, h *host) {
		h.take()
		began := time.Now()
		s.Signal(unix.SIGINT)
		time.Sleep(time.Second)
		s.Signal(unix.SIGINT)
		<-s.done
		if got, want := h.timed(began), "0s TERM web.1, 1s KILL web.1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// TestStopDuringACrashLoop ends at once, whatever delay is due.
func TestStopDuringACrashLoop(t *testing.T) {
	code := simulate(t, Options{Config: config(plain("web"), plain("db"))}, nil, func(s *Supervisor, h *host) {
		for range 3 {
			for !strings.HasPrefix(states(s), "web.1 RUNNING") {
				time.Sleep(100 * time.Millisecond)
				synctest.Wait()
			}
			h.crash("a:web.1", 3)
		}
		if got, want := states(s), "web.1 BACKOFF, db.1 RUNNING"; got != want {
			t.Fatalf("states = %s, want %s", got, want)
		}
		h.take()
		began := time.Now()
		s.Signal(unix.SIGTERM)
		<-s.done
		if got, want := h.timed(began), "0s TERM db.1"; got != want || time.Since(began) != 0 {
			t.Errorf("got %s in %v, want %s at once", got, time.Since(began), want)
		}
	})
	if code != 0 {
		t.Errorf("status %d, want 0: it was asked to stop", code)
	}
}

func TestStrangers(t *testing.T) {
	container := Place{PID1: true}
	two := []reaper.Stranger{
		{Proc: reaper.Proc{PID: 41}, Name: "sh", Entered: true},
		{Proc: reaper.Proc{PID: 57}, Name: "sleep"},
	}
	const told = "2 processes that no worker started: told to stop by SIGTERM: 41 sh (entered from outside), 57 sleep (an orphan)"
	for _, tt := range []struct {
		name  string
		place Place
		whole time.Duration
		who   []reaper.Stranger
		deaf  bool
		quit  bool
		want  string // what is said of them
		took  time.Duration
	}{
		{"nobody is there", container, 0, nil, false, false, "", 0},
		{"they end", container, 0, two, false, false, "0s " + told, 0},
		{"they do not", container, 0, two, true, false, "0s " + told + "\n5s 2 processes are not gone and end with this container: 41 sh (entered from outside), 57 sleep (an orphan)", 5 * time.Second},
		{"as long as there is", container, 10 * time.Second, two, true, false, "0s " + told + "\n9s 2 processes are not gone and end with this container: 41 sh (entered from outside), 57 sleep (an orphan)", 9 * time.Second},
		{"when killed, no time", container, 10 * time.Second, two, true, true, "0s " + told + "\n0s 2 processes are not gone and end with this container: 41 sh (entered from outside), 57 sleep (an orphan)", 0},
		{"as the init of a machine", Place{PID1: true, Initial: true}, 0, two, true, false, "0s " + told + "\n5s 2 processes are not gone and end with this machine: 41 sh (entered from outside), 57 sleep (an orphan)", 5 * time.Second},
		{"as a daemon", Place{Initial: true, Daemon: true}, 0, two, true, false, "", 0},
		{"with --pid=host", Place{Initial: true, Terminal: true}, 0, two, true, false, "", 0},
		{"below another init", Place{}, 0, two, true, false, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(plain("web"))
			cfg.ShutdownTimeout = tt.whole
			var d diary
			if tt.place == (Place{}) {
				tt.place.Terminal = true // New would look for itself
			}
			simulate(t, Options{Config: cfg, Place: tt.place, LogWriter: &d}, func(h *host) { h.foreign, h.deaf = tt.who, tt.deaf }, func(s *Supervisor, h *host) {
				d.begin()
				if tt.quit {
					s.Signal(unix.SIGQUIT)
				} else {
					s.Signal(unix.SIGTERM)
				}
				<-s.done
				took := time.Since(d.began)
				if got := strings.TrimSpace(d.with("process")); got != tt.want {
					t.Errorf("it said\n%s\nwant\n%s", got, tt.want)
				}
				if took != tt.took {
					t.Errorf("it took %v, want %v", took, tt.took)
				}
			})
		})
	}
}

// TestStrangersComeLast: they are told when the workers are gone, and another
// signal ends the wait for them.
func TestStrangersComeLast(t *testing.T) {
	var d diary
	simulate(t, Options{Config: config(plain("web")), Place: Place{PID1: true}, LogWriter: &d}, func(h *host) {
		h.ignore["a:web.1"] = true
		h.foreign, h.deaf = []reaper.Stranger{{Proc: reaper.Proc{PID: 41}, Name: "sh", Entered: true}}, true
	}, func(s *Supervisor, h *host) {
		d.begin()
		s.Signal(unix.SIGTERM)
		time.Sleep(11 * time.Second)
		if got, want := d.with("no worker started"), "10s 1 process that no worker started: told to stop by SIGTERM: 41 sh (entered from outside)"; got != want {
			t.Errorf("it said %q, want %q", got, want)
		}
		s.Signal(unix.SIGQUIT)
		<-s.done
		if took := time.Since(d.began); took != 11*time.Second {
			t.Errorf("it took %v, want 11s", took)
		}
		time.Sleep(strangerTime) // for who waits for them, and whose answer nobody wants
	})
}

func TestLastWords(t *testing.T) {
	essential := func(w *procfile.Worker) { w.Essential, w.Restart = true, "never" }
	never := func(w *procfile.Worker) { w.Restart = "never" }
	twice := func(w *procfile.Worker) { w.Essential, w.MaxRestarts, w.RetryAfter = true, 2, 0 }
	at := func(sec int) string { // where synctest's clock begins
		return time.Date(2000, 1, 1, 0, 0, sec, 0, time.UTC).Local().Format(time.RFC3339)
	}
	for _, tt := range []struct {
		name    string
		workers []*procfile.Worker
		missing string
		do      func(s *Supervisor, h *host)
		want    []string // the last lines
	}{
		{"a signal", []*procfile.Worker{plain("x"), plain("y", essential)}, "", func(s *Supervisor, h *host) {
			time.Sleep(3500 * time.Millisecond)
			h.kill("a:y.1", unix.SIGSEGV)
		}, []string{
			"a:y.1 was killed by SIGSEGV (pid 2), at " + at(3) + ", 3.5s after its start",
			"nothing of its output is kept",
			"ended with status 139: essential worker a:y.1 has ended: killed by SIGSEGV",
		}},
		{"a status", []*procfile.Worker{plain("y", essential)}, "", func(s *Supervisor, h *host) { h.crash("a:y.1", 7) }, []string{
			"a:y.1 exited with status 7 (pid 1), at " + at(0) + ", 0s after its start",
			"nothing of its output is kept",
			"ended with status 7: essential worker a:y.1 has ended: exited with status 7",
		}},
		{"given up", []*procfile.Worker{plain("y", twice)}, "", func(s *Supervisor, h *host) { h.crash("a:y.1", 0); h.crash("a:y.1", 0) }, []string{
			"a:y.1 exited with status 0 (pid 2), at " + at(0) + ", 0s after its start; it had been restarted once, and was given up",
			"nothing of its output is kept",
			"ended with status 1: essential worker a:y.1 has ended: exited with status 0",
		}},
		{"not to be executed", []*procfile.Worker{plain("x"), plain("y", essential)}, "y", func(s *Supervisor, h *host) {}, []string{
			"a:y.1 could not be executed: execute x: no such file or directory, at " + at(0) + ", and was given up",
			"ended with status 127: essential worker a:y.1 has ended: execute x: no such file or directory",
		}},
		{"none can run again", []*procfile.Worker{plain("x", never), plain("y", never), plain("z", never)}, "", func(s *Supervisor, h *host) {
			h.crash("a:z.1", 5)
			h.crash("a:x.1", 0)
			h.crash("a:y.1", 4)
		}, []string{
			"a:y.1 exited with status 4 (pid 2), at " + at(0) + ", 0s after its start; failed too: a:z.1 (status 5)",
			"nothing of its output is kept",
			"ended with status 4: no worker can run again",
		}},
		{"no failure", []*procfile.Worker{plain("y", essential)}, "", func(s *Supervisor, h *host) { h.crash("a:y.1", 0) }, []string{
			"ended with status 0: essential worker a:y.1 has ended: exited with status 0",
		}},
		{"a requested stop", []*procfile.Worker{plain("x", never), plain("y", essential)}, "", func(s *Supervisor, h *host) {
			h.crash("a:x.1", 3)
			s.Signal(unix.SIGTERM)
		}, []string{"ended with status 0: SIGTERM"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d diary
			simulate(t, Options{Config: config(tt.workers...), LogWriter: &d}, func(h *host) { h.missing["a:"+tt.missing+".1"] = true }, func(s *Supervisor, h *host) {
				tt.do(s, h)
				<-s.done
				d.lines = nil
				s.lastWords()
			})
			if got, want := d.text(), strings.Join(tt.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestHarmless(t *testing.T) {
	for _, tt := range []struct {
		in   string
		size int
		want string
	}{
		{"plain, grün, 語\t✓", 100, "plain, grün, 語\t✓"},
		{"\x1b[31mred\x1b[0m\x07\r\n", 100, `\x1b[31mred\x1b[0m\x07`},
		{"a\u009bK\u202eb", 100, `a\xc2\x9bK\xe2\x80\xaeb`}, // a C1 control, a right-to-left override
		{"bad \xff\xfe utf8", 100, `bad \xff\xfe utf8`},
		{"one\rtwo", 100, `one\x0dtwo`},
		{strings.Repeat("x", 20), 8, "xxxxxxxx …"},
		{"12345678", 8, "12345678"},
		{"", 8, ""},
	} {
		if got := harmless([]byte(tt.in), tt.size); got != tt.want {
			t.Errorf("harmless(%q, %d) = %q, want %q", tt.in, tt.size, got, tt.want)
		}
	}
}

func TestEndBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct{ whole, left, d, want time.Duration }{
			{0, 0, 2 * time.Second, 2 * time.Second},
			{10 * time.Second, 8 * time.Second, 2 * time.Second, 2 * time.Second},
			{10 * time.Second, time.Second, 2 * time.Second, 500 * time.Millisecond},
			{10 * time.Second, -time.Second, 2 * time.Second, 20 * time.Millisecond},
		} {
			s := &Supervisor{end: ending{whole: tt.whole, last: time.Now().Add(tt.left)}}
			if got := time.Until(s.endBy(tt.d)); got != tt.want {
				t.Errorf("endBy(%v) with %v left of %v = %v, want %v", tt.d, tt.left, tt.whole, got, tt.want)
			}
		}
	})
}

func TestOnEnd(t *testing.T) {
	cfg := config(plain("web"))
	cfg.OnEnd = "reboot"
	s, err := New(Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.OnEnd(); got != "reboot" {
		t.Errorf("OnEnd() = %q, want reboot", got)
	}
}
