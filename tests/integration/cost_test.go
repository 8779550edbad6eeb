package integration

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

// quiet waits until the supervisor has nothing to do any more: its threads have
// not run in the last while.
func quiet(r *rig.Rig) {
	last := -1
	r.Until("the supervisor is idle", func() bool {
		n := r.Switches()
		if n == last && r.Asleep() {
			return true
		}
		last = n
		time.Sleep(300 * time.Millisecond)
		return false
	})
}

// TestIdle: an idle supervisor never wakes.
func TestIdle(t *testing.T) {
	rig.Both(t, rig.Config{
		Procfile: "web: {H} sleep\nstopped: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {num_instances: 5}, stopped: {autostart: false}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		for i := 1; i <= 5; i++ {
			r.WaitState(fmt.Sprintf("app:web.%d", i), "RUNNING")
		}
		// The runtime hands memory back and ends spare threads for some time.
		quiet(r)
		r.Until("nothing wakes it for two seconds", func() bool {
			before := r.Switches()
			time.Sleep(2 * time.Second) // what is measured is this time
			n := r.Switches() - before
			if n != 0 {
				t.Logf("%d context switches in 2 s", n)
			}
			return n == 0
		})
	})
}

// TestManyWorkers: threads and descriptors of two hundred.
func TestManyWorkers(t *testing.T) {
	rig.Both(t, rig.Config{
		Procfile: "web: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, port_base: 20000, workers: {web: {num_instances: 200}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		for i := 1; i <= 200; i++ {
			r.WaitState(fmt.Sprintf("app:web.%d", i), "RUNNING")
		}
		if n := r.Threads(); n >= 20 {
			t.Errorf("%d threads with 200 workers, want fewer than 20", n)
		}
		// Two pipes with both ends, a pidfd, a descriptor or two of the group.
		if n := r.FDs(); n > 200*8+50 {
			t.Errorf("%d descriptors with 200 workers", n)
		}
		r.Must("stop", "all")
		r.Must("start", "all")
		for _, st := range r.Status() {
			if st.State != "RUNNING" {
				t.Errorf("%s is %s", st.Name, st.State)
			}
		}
		r.Signal(unix.SIGTERM)
		if got := r.Wait(); got != 0 {
			t.Errorf("exit status = %d", got)
		}
	})
}

// TestNonexistentCommands cost next to nothing: under a hundredth of a processor.
func TestNonexistentCommands(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "web: /no/such/program\n",
		YAML:     "applications: {app: {procfile: Procfile, port_base: 20000, max_restarts: unlimited, workers: {web: {num_instances: 200}}}}",
	})
	for i := 1; i <= 200; i++ {
		r.WaitStatus(fmt.Sprintf("app:web.%d", i), func(st control.Status) bool { return st.Failures >= 6 })
	}
	before, begin := r.CPU(), time.Now()
	time.Sleep(30 * time.Second) // what is measured is this time, in which each is tried once or twice
	used, took := time.Duration(r.CPU()-before)*10*time.Millisecond, time.Since(begin)
	t.Logf("%v of %v", used, took)
	// Each is tried every 30 s by then; 4 % leaves room for a busy machine.
	if used > took/25 {
		t.Errorf("%v of processor time in %v", used, took)
	}
}

// TestTenThousandRestarts leak neither descriptors nor threads.
func TestTenThousandRestarts(t *testing.T) {
	for name, without := range map[string]bool{"cgroup": false, "nocgroup": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t, rig.Config{
				Procfile:  "web: {H} exit 1\n",
				NoCgroups: without,
				YAML:      "applications: {app: {procfile: Procfile, max_restarts: unlimited, backoff: {base: 1ms, factor: 1, max: 1ms}, workers: {web: {num_instances: 8}}}}",
			})
			total := func() (n int) {
				for _, st := range r.Status() {
					n += st.Restarts
				}
				return n
			}
			rest := func() (fds, threads int) {
				r.Must("stop", "all")
				quiet(r)
				return r.FDs(), r.Threads()
			}
			r.Until("the first restarts", func() bool { return total() >= 500 })
			fds, threads := rest()
			r.Do(&control.Request{Verb: "start", Names: []string{"all"}, NoWait: true})
			r.Until("ten thousand restarts", func() bool { return total() >= 10500 })
			fds2, threads2 := rest()
			if fds2 > fds+2 { // those of the last requests, if not a leak
				t.Logf("%d descriptors after 500 restarts, %d after 10,500", fds, fds2)
				r.Until("no more descriptors than before", func() bool { return r.FDs() <= fds+2 })
			}
			t.Logf("%d and %d threads", threads, threads2)
			if threads2 > threads+5 {
				t.Errorf("%d threads after 500 restarts, %d after 10,500", threads, threads2)
			}
			if n := len(r.Children()); n != 0 {
				t.Errorf("%d children are left", n)
			}
		})
	}
}

// TestClock: the wall clock set forward and back changes no deadline.
func TestClock(t *testing.T) {
	rig.NeedRoot(t)
	rig.Need(t, "clock", mayTouchClock())
	r := rig.New(t, rig.Config{
		Procfile: "web: {H} exit 1\nslow: {H} ignore-term\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {backoff: {base: 1h, max: 1h}}, slow: {stop_timeout: 1h}}}}",
	})
	r.WaitState("app:web.1", "BACKOFF")
	r.Line("app:slow.1", "ready")
	run := r.Of("app:web.1").Run
	r.Do(&control.Request{Verb: "stop", Names: []string{"slow"}, NoWait: true})
	r.WaitEvent(to("app:slow.1", "STOPPING"))
	for _, by := range []time.Duration{48 * time.Hour, -96 * time.Hour, -365 * 24 * time.Hour} {
		restore := shiftClock(t, by)
		if st := r.Of("app:web.1"); st.State != "BACKOFF" || st.Run != run {
			t.Errorf("clock set by %v: web is %s, run %d", by, st.State, st.Run)
		}
		if st := r.Of("app:slow.1"); st.State != "STOPPING" {
			t.Errorf("clock set by %v: slow is %s", by, st.State)
		}
		restore()
	}
}
