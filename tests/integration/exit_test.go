package integration

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

// TestExitStatus is what the supervisor's end says of its workers.
func TestExitStatus(t *testing.T) {
	const never = "applications: {app: {procfile: Procfile, restart: never}}"
	for name, c := range map[string]struct {
		procfile, yaml string
		want           int
	}{
		"all end well":                 {"a: {H} exit 0\nb: {H} exit 0\n", never, 0},
		"first non-zero by file order": {"a: {H} sleep 30\nb: sh -c 'exec {H} exit 5'\nc: {H} exit 6\n", "applications: {app: {procfile: Procfile, restart: never, workers: {a: {command_line: '{H} exit 0'}}}}", 5},
		"by a signal":                  {"a: {H} kill-self KILL\n", never, 137},
		"by a signal that dumps":       {"a: {H} kill-self SEGV\n", never, 139},
		"not there":                    {"a: /no/such/program\n", never, 127},
		"not executable":               {"a: /etc/passwd\n", never, 126},
		"on-failure accepts":           {"a: {H} exit 3\n", "applications: {app: {procfile: Procfile, restart: on-failure, success_codes: [0, 3]}}", 3},
		"given up":                     {"a: {H} exit 9\n", "applications: {app: {procfile: Procfile, max_restarts: 2, retry_after: off}}", 9},
		"given up with 0":              {"a: {H} exit 0\n", "applications: {app: {procfile: Procfile, max_restarts: 2, retry_after: off}}", 1},
		"given up, not there":          {"a: /no/such/program\n", "applications: {app: {procfile: Procfile, max_restarts: 1, retry_after: off}}", 127},
		"essential":                    {"a: {H} sleep\nb: {H} exit 7\n", "applications: {app: {procfile: Procfile, workers: {b: {essential: true, restart: never}}}}", 7},
		"essential ends well":          {"a: {H} sleep\nb: {H} exit 0\n", "applications: {app: {procfile: Procfile, workers: {b: {essential: true, restart: never}}}}", 0},
		"essential by a signal":        {"a: {H} sleep\nb: {H} kill-self TERM\n", "applications: {app: {procfile: Procfile, workers: {b: {essential: true, restart: never}}}}", 143},
		"essential given up with 0":    {"a: {H} sleep\nb: {H} exit 0\n", "applications: {app: {procfile: Procfile, workers: {b: {essential: true, max_restarts: 1, retry_after: off}}}}", 1},
		"essential not there":          {"a: {H} sleep\nb: /no/such/program\n", "applications: {app: {procfile: Procfile, workers: {b: {essential: true, restart: never}}}}", 127},
		"all essential":                {"a: {H} exit 0\nb: {H} exit 4\n", "end_when: all\napplications: {app: {procfile: Procfile, restart: never, essential: true}}", 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{Procfile: c.procfile, YAML: c.yaml, NoWait: true}, func(t *testing.T, r *rig.Rig) {
				if got := r.Wait(); got != c.want {
					t.Errorf("exit status = %d, want %d", got, c.want)
				}
			})
		})
	}
}

// TestRequestedStop is a success, however the workers take it.
func TestRequestedStop(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGQUIT} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			rig.All(t, rig.Config{
				Procfile: "a: {H} sleep\nb: {H} on-signal TERM 3 0\n",
				YAML:     "applications: {app: {procfile: Procfile, essential: true}}",
			}, func(t *testing.T, r *rig.Rig) {
				r.WaitState("app:a.1", "RUNNING")
				r.Line("app:b.1", "ready")
				r.Signal(sig)
				if got := r.Wait(); got != 0 {
					t.Errorf("exit status = %d, want 0", got)
				}
			})
		})
	}
}

// TestEndWhenAll goes on while one of the essential ones does.
func TestEndWhenAll(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "a: {H} exit 3\nb: {H} on-signal USR1 4 0\nc: {H} sleep\n",
		YAML:     "end_when: all\napplications: {app: {procfile: Procfile, restart: never, workers: {a: {essential: true}, b: {essential: true}}}}",
	})
	r.WaitState("app:a.1", "EXITED")
	r.Line("app:b.1", "ready")
	r.WaitState("app:c.1", "RUNNING")
	if st := r.Of("app:c.1"); st.State != "RUNNING" {
		t.Errorf("c is %s when one of two has ended, want RUNNING", st.State)
	}
	r.Do(&control.Request{Verb: "signal", Names: []string{"b"}, Signal: "USR1"})
	if got := r.Wait(); got != 3 && got != 4 {
		t.Errorf("exit status = %d, want 3 or 4", got)
	}
}

// TestStaysWhileSomethingMayRun: a FATAL one with a next try, a stopped one.
func TestStaysWhileSomethingMayRun(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "fatal: {H} exit 1\nover: {H} exit 2\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {fatal: {max_restarts: 1}, over: {restart: never}}}}",
	})
	st := r.WaitState("app:fatal.1", "FATAL")
	if st.NextTry == nil {
		t.Error("no next try of a FATAL instance")
	}
	r.WaitState("app:over.1", "EXITED")
	if r.Of("app:fatal.1").State != "FATAL" {
		t.Error("it did not stay")
	}
}

// TestBadConfiguration is refused at once, with all that is wrong.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "a: {H} sleep\n", NoWait: true,
		YAML: "applications: {app: {procfile: Procfile, stop_timeuot: 1s, workers: {b: {}}}}",
	})
	if got := r.Wait(); got != 2 {
		t.Errorf("exit status = %d, want 2", got)
	}
	r.WaitConsole("stop_timeout") // did you mean
	r.WaitConsole("b")
	if n := strings.Count(r.Console(), r.Path("p.yaml")+":"); n < 2 {
		t.Errorf("%d places named, want 2:\n%s", n, r.Console())
	}
}

// TestOnlyNamed supervises the named workers alone.
func TestOnlyNamed(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{Procfile: "a: {H} sleep\nb: {H} sleep\nc: {H} sleep\n", Args: []string{"a", "app:c"}})
	r.WaitState("app:a.1", "RUNNING")
	r.WaitState("app:c.1", "RUNNING")
	if got := len(r.Status()); got != 2 {
		t.Errorf("%d instances, want 2", got)
	}
	r2 := rig.New(t, rig.Config{Procfile: "a: {H} sleep\n", Args: []string{"aa"}, NoWait: true})
	if got := r2.Wait(); got != 2 {
		t.Errorf("exit status for an unknown worker = %d, want 2", got)
	}
	r2.WaitConsole(`"aa"`)
}

// TestOrphanStorm: ten thousand orphans leave no zombie and lose no exit.
func TestOrphanStorm(t *testing.T) {
	rig.Both(t, rig.Config{
		Procfile: "storm: {H} orphans 10000\nquick: {H} exit 42\nlast: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {storm: {restart: never}, quick: {num_instances: 20, restart: never, autostart: false}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		r.Do(&control.Request{Verb: "start", Names: []string{"quick"}, NoWait: true})
		st := r.WaitState("app:storm.1", "EXITED")
		if st.LastExit.Code != 0 {
			t.Errorf("storm ended with %d", st.LastExit.Code)
		}
		for i := 1; i <= 20; i++ {
			if st := r.WaitState(fmt.Sprintf("app:quick.%d", i), "EXITED"); st.LastExit.Code != 42 || st.Run != 1 {
				t.Errorf("quick.%d: %+v", i, st.LastExit)
			}
		}
		want := len(r.Status()) - 21
		r.Until("no zombies", func() bool { return len(r.Children()) == want })
	})
}
