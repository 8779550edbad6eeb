package integration

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

// TestReloadAppliesTheLeast.
func TestReloadAppliesTheLeast(t *testing.T) {
	rig.Both(t, rig.Config{
		Procfile: "same: {H} sleep\nmore: {H} sleep\nless: {H} sleep\nchanged: {H} sleep 1000000\nremoved: {H} sleep\nstopped: {H} sleep\nscaled: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {less: {num_instances: 3}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		before := map[string]control.Status{}
		for _, st := range r.Status() {
			before[st.Name] = r.WaitState(st.Name, "RUNNING")
		}
		r.Must("stop", "stopped")
		if reply := r.Do(&control.Request{Verb: "scale", Names: []string{"scaled"}, Count: "2"}); reply.Code != 0 {
			t.Fatal(results(reply))
		}
		r.Write("Procfile", "same: {H} sleep\nmore: {H} sleep\nless: {H} sleep\nchanged: {H} sleep 2000000\nstopped: {H} sleep 3000000\nadded: {H} sleep\nscaled: {H} sleep\n")
		r.WriteYAML("applications: {app: {procfile: Procfile, workers: {less: {num_instances: 1}, more: {num_instances: 2}}}}")
		plan := r.Do(&control.Request{Verb: "plan"})
		if plan.Plan == nil || len(plan.Plan.Changes) == 0 {
			t.Fatalf("plan = %+v", plan)
		}
		if st := r.Of("app:less.3"); st.State != "RUNNING" {
			t.Error("plan did something")
		}
		reply := r.Must("reload")
		if reply.Plan == nil {
			t.Error("no plan in the reply of reload")
		}
		got := map[string]string{}
		for _, st := range r.Status() {
			got[st.Name] = st.State
			switch b := before[st.Name]; st.Name {
			case "app:same.1", "app:more.1", "app:less.1", "app:scaled.1":
				if st.PID != b.PID || st.Run != b.Run {
					t.Errorf("%s was touched: pid %d to %d", st.Name, b.PID, st.PID)
				}
			case "app:changed.1":
				if st.PID == b.PID || !strings.HasSuffix(st.Command, "2000000") {
					t.Errorf("changed was not restarted: %+v", st)
				}
			}
		}
		want := map[string]string{
			"app:same.1": "RUNNING", "app:more.1": "RUNNING", "app:more.2": "RUNNING", "app:less.1": "RUNNING",
			"app:changed.1": "RUNNING", "app:stopped.1": "STOPPED", "app:added.1": "RUNNING", "app:scaled.1": "RUNNING", "app:scaled.2": "RUNNING",
		}
		for name, state := range want {
			if got[name] != state {
				t.Errorf("%s is %q, want %s", name, got[name], state)
			}
			delete(got, name)
		}
		if len(got) != 0 {
			t.Errorf("still there: %v", got)
		}
		// The file's own number ends the live one.
		r.WriteYAML("applications: {app: {procfile: Procfile, workers: {less: {num_instances: 1}, more: {num_instances: 2}, scaled: {num_instances: 3}}}}")
		r.Must("reload")
		r.WaitState("app:scaled.3", "RUNNING")
		// Nothing to do.
		if reply := r.Must("reload"); len(reply.Plan.Changes) != 0 {
			t.Errorf("a second reload: %+v", reply.Plan)
		}
	})
}

// TestReloadOneAfterAnother stops at the first that fails to start.
func TestReloadOneAfterAnother(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "web: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {num_instances: 3}}}}",
	})
	var before []control.Status
	for _, st := range r.Status() {
		before = append(before, r.WaitState(st.Name, "RUNNING"))
	}
	// A good one: never two at a time.
	r.Write("Procfile", "web: {H} sleep 1000000\n")
	r.Must("reload")
	down := 0
	for _, e := range r.Events() {
		if e.Kind == "state" && e.Run > 0 {
			switch {
			case e.From == "RUNNING" && e.To == "STOPPING":
				down++
			case e.To == "RUNNING" && e.Run == 2:
				down--
			}
			if down > 1 {
				t.Errorf("two were down at once: %+v", e)
			}
		}
	}
	for i, st := range r.Status() {
		if st.PID == before[i].PID || st.State != "RUNNING" {
			t.Errorf("%s: %s, pid %d as before", st.Name, st.State, st.PID)
		}
		before[i] = st
	}
	// A bad one.
	r.Write("Procfile", "web: /no/such/program\n")
	reply := r.Do(&control.Request{Verb: "reload"})
	if reply.Code != control.ExitFailed || !strings.Contains(results(reply), "/no/such/program") {
		t.Errorf("reload with a bad command: %s", results(reply))
	}
	touched := 0
	for i, st := range r.Status() {
		if st.State != "RUNNING" || st.PID != before[i].PID {
			touched++
		}
	}
	if touched != 1 {
		t.Errorf("%d of 3 instances were touched, want 1", touched)
	}
	// Those left as they were run their old command when they die.
	r.Write("Procfile", "web: {H} sleep 1000000\n")
	r.Must("reload")
	for i := range 3 {
		r.WaitState(before[i].Name, "RUNNING")
	}
}

// TestReloadBadFile changes nothing and says why in the reply, in an event and on
// the console, by verb and by HUP.
func TestReloadBadFile(t *testing.T) {
	rig.Both(t, rig.Config{Procfile: "web: {H} sleep\n"}, func(t *testing.T, r *rig.Rig) {
		before := r.WaitState("app:web.1", "RUNNING")
		r.Write("Procfile", "web: {H} sleep\nweb: again\n")
		reply := r.Do(&control.Request{Verb: "reload"})
		if reply.Code != control.ExitUsage || !strings.Contains(reply.Error, "Procfile:2:") {
			t.Errorf("reload = %s, want code 2 with the place", results(reply))
		}
		e := r.WaitEvent(func(e control.Event) bool { return strings.Contains(e.Reason, "Procfile:2:") })
		r.WaitConsole("Procfile:2:")
		r.Signal(unix.SIGHUP)
		r.WaitEventAfter(e.Seq, func(e control.Event) bool { return strings.Contains(e.Reason, "Procfile:2:") })
		if reply := r.Do(&control.Request{Verb: "plan"}); reply.Code != control.ExitUsage {
			t.Errorf("plan = %s, want code 2", results(reply))
		}
		if err := os.Remove(r.Path("Procfile")); err != nil {
			t.Fatal(err)
		}
		if reply := r.Do(&control.Request{Verb: "reload"}); reply.Code != control.ExitUsage {
			t.Errorf("reload without a Procfile = %s, want code 2", results(reply))
		}
		if st := r.Of("app:web.1"); st.PID != before.PID || st.State != "RUNNING" {
			t.Errorf("web was touched: %+v", st)
		}
		r.Write("Procfile", "web: {H} sleep\nnew: {H} sleep\n")
		r.Signal(unix.SIGHUP)
		r.WaitState("app:new.1", "RUNNING")
		if st := r.Of("app:web.1"); st.PID != before.PID {
			t.Errorf("web was touched: %+v", st)
		}
	})
}

// TestReloadSettings: what a new setting needs no restart for gets none.
func TestReloadSettings(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{Procfile: "web: {H} ignore-term\nenv: {H} print-env hold\n", YAML: "applications: {app: {procfile: Procfile, stop_timeout: 1h}}"})
	r.Line("app:web.1", "ready")
	r.Line("app:env.1", "[")
	before, env := r.Of("app:web.1"), r.Of("app:env.1")
	r.WriteYAML("applications: {app: {procfile: Procfile, stop_timeout: 50ms, workers: {env: {env: {NEW: x}}}}}")
	r.Must("reload")
	if st := r.Of("app:web.1"); st.PID != before.PID {
		t.Error("a new stop_timeout restarted web")
	}
	if st := r.Of("app:env.1"); st.PID == env.PID {
		t.Error("a new env did not restart env")
	}
	if got := r.LineAfter("app:env.1", "[", 1); !strings.Contains(got, `"NEW=x"`) {
		t.Errorf("environment %s, want NEW=x", got)
	}
	r.Must("stop", "web") // by the new timeout, not in an hour
}

// TestAddRemove: workers that no file has.
func TestAddRemove(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{Procfile: "web: {H} sleep\n"})
	if reply := r.Do(&control.Request{Verb: "add", Names: []string{"more:job"}, Command: r.Helper + " sleep", Count: "2"}); reply.Code != 0 {
		t.Fatal(results(reply))
	}
	if st := r.Of("more:job.2"); st.State != "RUNNING" || st.InFile {
		t.Errorf("added: %+v", st)
	}
	plan := r.Do(&control.Request{Verb: "plan"})
	found := false
	for _, c := range plan.Plan.Changes {
		found = found || c.Name == "more:job" && c.Op == "keep"
	}
	if !found {
		t.Errorf("plan = %+v, want keep more:job", plan.Plan)
	}
	r.Must("reload")
	if st := r.Of("more:job.1"); st.State != "RUNNING" {
		t.Errorf("after a reload: %+v", st)
	}
	if reply := r.Do(&control.Request{Verb: "remove", Names: []string{"more:job"}}); reply.Code != control.ExitFailed {
		t.Errorf("remove of what runs: %s", results(reply))
	}
	if reply := r.Do(&control.Request{Verb: "remove", Names: []string{"more:job"}, Force: true}); reply.Code != 0 {
		t.Errorf("remove --force: %s", results(reply))
	}
	if got := len(r.Status()); got != 1 {
		t.Errorf("%d instances, want 1", got)
	}
}

// TestScale: the highest numbers stop first.
func TestScale(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{Procfile: "web: {H} sleep\n"})
	r.WaitState("app:web.1", "RUNNING")
	scale := func(count string, want int) {
		t.Helper()
		if reply := r.Do(&control.Request{Verb: "scale", Names: []string{"web"}, Count: count}); reply.Code != 0 {
			t.Fatal(results(reply))
		}
		n := 0
		for _, st := range r.Status() {
			if st.State == "RUNNING" {
				n++
			}
		}
		if n != want {
			t.Errorf("scale %s: %d run, want %d", count, n, want)
		}
	}
	scale("5", 5)
	scale("+1", 6)
	seq := r.Seq()
	scale("2", 2)
	var order []string
	for _, e := range r.Events() {
		if e.Seq > seq && e.To == "STOPPED" {
			order = append(order, e.Name)
		}
	}
	if got := strings.Join(order, " "); got != "app:web.6 app:web.5 app:web.4 app:web.3" {
		t.Errorf("stopped %s, want the highest numbers first", got)
	}
	scale("-1", 1)
	scale("0", 0)
	if st := r.Status(); len(st) != 1 || st[0].Instance != 0 {
		t.Errorf("status of none = %+v", st)
	}
	scale("1", 1)
}
