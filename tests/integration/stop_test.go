package integration

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

const quickStop = "applications: {app: {procfile: Procfile, stop_timeout: 200ms}}"

// trees runs a test with control groups and without, in both modes, by both users.
func trees(t *testing.T, c rig.Config, test func(*testing.T, *rig.Rig)) {
	for name, without := range map[string]bool{"cgroup": false, "nocgroup": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := c
			c.NoCgroups = without
			rig.All(t, c, test)
		})
	}
}

// TestStopTakesTheWholeTree: what left the session, what lost its parents, what
// ignores TERM.
func TestStopTakesTheWholeTree(t *testing.T) {
	trees(t, rig.Config{
		Procfile: "setsid: {H} setsid\nfork: {H} double-fork\nignore: {H} ignore-term\n" +
			"many: sh -c 'for i in 1 2 3; do {H} double-fork & {H} ignore-term & done; wait'\n",
		YAML: quickStop,
	}, func(t *testing.T, r *rig.Rig) {
		pids := []int{r.Number("app:setsid.1", "child "), r.Number("app:fork.1", "grandchild ")}
		r.Line("app:ignore.1", "ready")
		for i := range 3 {
			n, err := strconv.Atoi(r.LineAfter("app:many.1", "grandchild ", i))
			if err != nil {
				t.Fatal(err)
			}
			r.LineAfter("app:many.1", "ready", i)
			pids = append(pids, n)
		}
		for _, pid := range pids {
			if !r.Lives(pid) {
				t.Fatalf("process %d is gone before the stop", pid)
			}
		}
		for _, st := range r.Status() {
			pids = append(pids, st.PID)
		}
		r.Must("stop", "all")
		gone(t, r, pids...)
		if left := r.Processes(); len(left) > 1+r.Extra() {
			t.Errorf("processes %v are left", left)
		}
		for _, st := range r.Status() {
			if st.State != "STOPPED" || st.PID != 0 {
				t.Errorf("%s is %s, pid %d", st.Name, st.State, st.PID)
			}
		}
	})
}

// TestLeaderExitsFirst: its end is not the end of its tree: what it left is
// killed before another run begins.
func TestLeaderExitsFirst(t *testing.T) {
	trees(t, rig.Config{
		Procfile: "web: {H} double-fork exit | head -n 1\nother: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {restart: never}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		pid := r.Number("app:web.1", "grandchild ")
		st := r.WaitState("app:web.1", "EXITED")
		gone(t, r, pid)
		if st.LastExit == nil || st.LastExit.Code != 0 {
			t.Errorf("last_exit = %+v, want 0", st.LastExit)
		}
	})
}

// TestLeaderKilled: the others of the tree go before the next run begins.
func TestLeaderKilled(t *testing.T) {
	trees(t, rig.Config{
		Procfile: "web: {H} setsid\n",
		YAML:     quickStop,
	}, func(t *testing.T, r *rig.Rig) {
		child := r.Number("app:web.1", "child ")
		before := r.WaitState("app:web.1", "RUNNING")
		if err := unix.Kill(r.HostPID(before.PID), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		after := r.WaitStatus("app:web.1", func(st control.Status) bool { return st.State == "RUNNING" && st.Run > before.Run })
		gone(t, r, child, before.PID)
		if after.PID == before.PID || after.LastExit.Signal != "SIGKILL" || after.LastExit.Code != 137 {
			t.Errorf("after the kill: pid %d, last_exit %+v", after.PID, after.LastExit)
		}
	})
}

// TestStopTo: who gets the first signal.
func TestStopTo(t *testing.T) {
	for to, want := range map[string]string{"leader": "leader", "group": "leader member", "tree": "leader member stranger"} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{
				Procfile: "web: sh -c 'setsid {H} count-signal USR1 stranger & {H} count-signal USR1 member & exec {H} count-signal USR1 leader'\n",
				YAML:     fmt.Sprintf("applications: {app: {procfile: Procfile, stop_signal: [USR1 1h, KILL], stop_to: %s}}", to),
			}, func(t *testing.T, r *rig.Rig) {
				for i := range 3 {
					r.LineAfter("app:web.1", "ready", i)
				}
				r.Do(&control.Request{Verb: "stop", Names: []string{"web"}, NoWait: true})
				n := len(strings.Fields(want))
				for i := range n {
					r.LineAfter("app:web.1", "got USR1", i)
				}
				// One more to each: what they had before has come by then.
				signal := func(name string) {
					t.Helper()
					if reply := r.Do(&control.Request{Verb: "signal", Names: []string{"web"}, Signal: name, To: "tree"}); reply.Code != 0 {
						t.Fatal(results(reply))
					}
				}
				signal("USR1")
				for i := range 3 {
					r.LineAfter("app:web.1", "got USR1", n+i)
				}
				signal("KILL")
				r.WaitState("app:web.1", "STOPPED")
				var got []string
				for _, who := range []string{"leader", "member", "stranger"} {
					if n := strings.Count(r.Read(who), "USR1"); n == 2 {
						got = append(got, who)
					} else if n != 1 {
						t.Errorf("%s got %d signals", who, n)
					}
				}
				if g := strings.Join(got, " "); g != want {
					t.Errorf("stop_to %s reached %q, want %q", to, g, want)
				}
			})
		})
	}
}

// TestStopSequence: each signal of the sequence, then KILL.
func TestStopSequence(t *testing.T) {
	rig.Both(t, rig.Config{
		Procfile: "web: sh -c '{H} count-signal QUIT quit & {H} count-signal TERM term & exec {H} count-signal INT int'\n",
		YAML:     "applications: {app: {procfile: Procfile, stop_signal: [WINCH 50ms, INT 50ms, CONT]}}",
	}, func(t *testing.T, r *rig.Rig) {
		for i := range 3 {
			r.LineAfter("app:web.1", "ready", i)
		}
		r.Must("stop", "web")
		if r.Read("int") == "" || r.Read("quit") != "" || r.Read("term") != "" {
			t.Errorf("int %q quit %q term %q", r.Read("int"), r.Read("quit"), r.Read("term"))
		}
		if st := r.Of("app:web.1"); st.LastExit.Signal != "SIGKILL" || st.State != "STOPPED" {
			t.Errorf("%s, last_exit %+v", st.State, st.LastExit)
		}
	})
}

// TestSignalVerb: to the leader, the group, the tree.
func TestSignalVerb(t *testing.T) {
	rig.Both(t, rig.Config{
		Procfile: "web: sh -c 'setsid {H} count-signal USR1 stranger & {H} count-signal USR1 member & exec {H} count-signal USR1 leader'\nnone: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, stop_timeout: 100ms, workers: {none: {autostart: false}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		for i := range 3 {
			r.LineAfter("app:web.1", "ready", i)
		}
		n := 0
		for _, c := range []struct {
			to, want string
			got      int
		}{{"", "1 0 0", 1}, {"group", "2 1 0", 2}, {"tree", "3 2 1", 3}} {
			if reply := r.Do(&control.Request{Verb: "signal", Names: []string{"web"}, Signal: "USR1", To: c.to}); reply.Code != 0 {
				t.Fatal(results(reply))
			}
			for range c.got {
				r.LineAfter("app:web.1", "got USR1", n)
				n++
			}
			count := func(who string) int { return strings.Count(r.Read(who), "USR1") }
			if g := fmt.Sprint(count("leader"), count("member"), count("stranger")); g != c.want {
				t.Errorf("signal to %q reached leader, member, stranger %s times, want %s", c.to, g, c.want)
			}
		}
		if reply := r.Do(&control.Request{Verb: "signal", Names: []string{"none"}, Signal: "USR1"}); reply.Code != control.ExitNotRunning {
			t.Errorf("signal to a stopped one: %s", results(reply))
		}
	})
}

// TestStopMeansStop in each state that is not at rest.
func TestStopMeansStop(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "backoff: {H} exit 1\nslow: {H} ignore-term\nfatal: {H} exit 1\n",
		YAML: `applications:
  app:
    procfile: Procfile
    workers:
      backoff: {backoff: {base: 1h, max: 1h}}
      slow: {stop_timeout: 1h}
      fatal: {max_restarts: 1}
`,
	})
	// BACKOFF
	r.WaitState("app:backoff.1", "BACKOFF")
	r.Must("stop", "backoff")
	if st := r.Of("app:backoff.1"); st.State != "STOPPED" {
		t.Errorf("stop in BACKOFF: %s", st.State)
	}
	run := r.Of("app:backoff.1").Run
	r.Do(&control.Request{Verb: "start", Names: []string{"backoff"}})
	if st := r.WaitState("app:backoff.1", "BACKOFF"); st.Run <= run {
		t.Errorf("start after it: run %d, want more than %d", st.Run, run)
	}
	// STOPPING, then start: another run follows
	r.Line("app:slow.1", "ready")
	before := r.Of("app:slow.1")
	r.Do(&control.Request{Verb: "stop", Names: []string{"slow"}, NoWait: true})
	r.WaitEvent(to("app:slow.1", "STOPPING"))
	kill := func() { // which the stop would do in an hour
		t.Helper()
		if reply := r.Do(&control.Request{Verb: "signal", Names: []string{"slow"}, Signal: "KILL"}); reply.Code != 0 {
			t.Fatal(results(reply))
		}
	}
	r.Do(&control.Request{Verb: "start", Names: []string{"slow"}, NoWait: true})
	kill()
	if after := r.WaitState("app:slow.1", "RUNNING"); after.State != "RUNNING" || after.Run != before.Run+1 || after.PID == before.PID {
		t.Errorf("start in STOPPING: %+v", after)
	}
	// STOPPING by a restart, then stop
	r.LineAfter("app:slow.1", "ready", 1)
	r.Do(&control.Request{Verb: "restart", Names: []string{"slow"}, NoWait: true})
	r.WaitEvent(func(e control.Event) bool {
		return e.Name == "app:slow.1" && e.Run == before.Run+1 && e.To == "STOPPING"
	})
	r.Do(&control.Request{Verb: "stop", Names: []string{"slow"}, NoWait: true})
	kill()
	if st := r.WaitState("app:slow.1", "STOPPED"); st.State != "STOPPED" || st.Run != before.Run+1 {
		t.Errorf("stop in a restart's STOPPING: %s, run %d", st.State, st.Run)
	}
	// FATAL
	r.WaitState("app:fatal.1", "FATAL")
	r.Must("stop", "fatal")
	if st := r.Of("app:fatal.1"); st.State != "STOPPED" {
		t.Errorf("stop in FATAL: %s", st.State)
	}
}

// TestShutdownTimeout caps the whole.
func TestShutdownTimeout(t *testing.T) {
	rig.Both(t, rig.Config{
		Procfile: "a: {H} ignore-term\nb: {H} ignore-term\n",
		YAML:     "shutdown_timeout: 300ms\napplications: {app: {procfile: Procfile, stop_timeout: 1h, workers: {a: {priority: 1}, b: {priority: 2}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		r.Line("app:a.1", "ready")
		r.Line("app:b.1", "ready")
		r.Signal(unix.SIGTERM)
		if got := r.Wait(); got != 0 {
			t.Errorf("exit status %d, want 0", got)
		}
	})
}

// TestStopLeavesOthersAlone: what belongs to no instance is not killed for one.
func TestStopLeavesOthersAlone(t *testing.T) {
	for name, without := range map[string]bool{"cgroup": false, "nocgroup": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{
				Procfile: "a: {H} double-fork\nb: {H} double-fork\n", YAML: quickStop, NoCgroups: without,
			}, func(t *testing.T, r *rig.Rig) {
				a, b := r.Number("app:a.1", "grandchild "), r.Number("app:b.1", "grandchild ")
				r.Must("stop", "a")
				gone(t, r, a)
				if !r.Lives(b) || r.Of("app:b.1").State != "RUNNING" {
					t.Error("the stop of a took something of b")
				}
			})
		})
	}
}

// TestHungFileSystem: a program and a folder that no one ever answers for delay
// no other worker.
func TestHungFileSystem(t *testing.T) {
	rig.NeedRoot(t)
	t.Parallel()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	rig.Need(t, "fuse", err)
	defer unix.Close(fd)
	dir := t.TempDir()
	if err := unix.Mount("hang", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		t.Fatal(err)
	}
	end := func() {
		_ = unix.Unmount(dir, unix.MNT_FORCE)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
	t.Cleanup(end)
	r := rig.New(t, rig.Config{
		Procfile: "program: " + dir + "/program\nfolder: {H} sleep\ngood: {H} sleep\n",
		YAML:     fmt.Sprintf("applications: {app: {procfile: Procfile, workers: {program: {num_instances: 5}, folder: {cwd: %s/x, num_instances: 5}, good: {num_instances: 3}}}}", dir),
	})
	for i := 1; i <= 3; i++ {
		r.WaitState(fmt.Sprintf("app:good.%d", i), "RUNNING")
	}
	r.Must("restart", "good")
	r.Must("stop", "good")
	r.Must("start", "good")
	if st := r.Of("app:program.1"); st.State != "STARTING" {
		t.Errorf("program is %s, want STARTING", st.State)
	}
	r.Do(&control.Request{Verb: "shutdown", NoWait: true})
	for i := 1; i <= 3; i++ {
		r.WaitEvent(to(fmt.Sprintf("app:good.%d", i), "STOPPED"))
	}
	if got := r.Wait(); got != 0 {
		t.Errorf("exit status %d, want 0", got)
	}
	end()
}

// TestPIDReuse: a process that only has the number of a dead one is not killed.
func TestPIDReuse(t *testing.T) {
	rig.NeedRoot(t)
	_, err := os.Stat("/proc/sys/kernel/ns_last_pid")
	rig.Need(t, "ns_last_pid", err)
	for name, without := range map[string]bool{"cgroup": false, "nocgroup": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t, rig.Config{Mode: rig.PID1, Procfile: "web: {H} double-fork\n", YAML: quickStop, NoCgroups: without})
			pid := r.Number("app:web.1", "grandchild ")
			if err := unix.Kill(r.HostPID(pid), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			r.Until("the grandchild is collected", func() bool { return r.HostPID(pid) == 0 })
			quiet(r) // or a new thread of the supervisor takes the number
			// The next process of the namespace takes the number.
			out, errs, code := r.Inside("sh", "-c", fmt.Sprintf("echo %d > /proc/sys/kernel/ns_last_pid; setsid env -i %s sleep & echo $!", pid-1, r.Helper))
			if code != 0 || strings.TrimSpace(out) != strconv.Itoa(pid) {
				t.Fatalf("the number %d could not be taken: %d %q %q", pid, code, out, errs)
			}
			r.Must("stop", "web")
			if !r.Lives(pid) {
				t.Error("a process that only has an old number was killed")
			}
		})
	}
}
