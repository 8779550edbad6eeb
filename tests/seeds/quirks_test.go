package seeds

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

var quirks = []row{
	{"Q-01", all(map[string]func(*testing.T){"cgroups": in(piling, piledUp), "without": in(without(piling), piledUp)})},
	{"Q-02", all(map[string]func(*testing.T){"cgroups": in(slow, slowToStop), "without": in(without(slow), slowToStop)})},
	{"Q-03", in(rig.Config{
		Procfile: "limited: /nonexistent\nunlimited: /nonexistent\nkeep: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {limited: {num_instances: 90}, unlimited: {num_instances: 100, max_restarts: unlimited, autostart: false}}}}",
	}, notSpinning)},
	{"Q-04", in(rig.Config{
		Procfile: "web: {H} on-signal USR1 1 300\nkeep: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {max_restarts: 3, healthy_after: 1h}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		for n := range 3 {
			r.LineAfter("app:web.1", "ready", n)
			did(r, "signal", "USR1", "web")
		}
		st := r.WaitState("app:web.1", "FATAL")
		if got := states(r, "app:web.1"); st.Run != 3 || count(got, "RUNNING") != 3 || count(got, "BACKOFF") != 1 {
			t.Errorf("run %d, states %v: want three, and a delay before the last", st.Run, got)
		}
	})},
	{"Q-05", in(rig.Config{
		Procfile: "resque: {H} resque 700\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {resque: {stop_signal: [QUIT 60s, TERM 5s, KILL], stop_to: leader}}}}",
	}, graceful)},
	{"Q-06", in(rig.Config{
		Procfile: "slow: {H} on-signal TERM 0 950\nquick: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, stop_timeout: 1s, workers: {quick: {stop_timeout: 1h}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		r.Line("app:slow.1", "ready")
		running(r, "app:slow.1", "app:quick.1")
		did(r, "stop", "all")
		for _, e := range history(r) {
			if e.Kind == "stop_slow" && e.Name != "app:slow.1" {
				t.Errorf("event = %+v", e)
			}
		}
		e := r.WaitEvent(func(e control.Event) bool { return e.Kind == "stop_slow" })
		says(t, "reason", e.Reason, "of 1s")
	})},
	{"Q-07", in(rig.Config{Procfile: "web: {H} sleep\n"}, func(t *testing.T, r *rig.Rig) {
		running(r, "app:web.1")
		if got := pss(t, r); got >= 8<<10 {
			t.Errorf("PSS = %d KiB, want less than 8 MiB", got)
		}
		idle(r, 2*time.Second)
	})},
	{"Q-08", in(rig.Config{
		Procfile: "web: {H} flood 104857600 100\nquiet: {H} count-signal USR1 /dev/null\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {restart: never, stdout: {file: out}}, quiet: {num_instances: 50}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		kill(r, "app:quiet.50", 0)
		r.WaitState("app:web.1", "EXITED")
		r.Until("all is written", func() bool { st, err := os.Stat(r.Path("out")); return err == nil && st.Size() == 104857600 })
		inOrder(t, "out", r.Read("out")[:100*1000000], 1000000, 100)
		for _, name := range instances("app:quiet", 50) {
			r.Until("a quiet one is heard", func() bool { return slices.Equal(r.Logs(name), []string{"ready"}) })
		}
	})},
	{"Q-12", in(rig.Config{
		Procfile: "web: {H} sleep 3600001\n",
	}, func(t *testing.T, r *rig.Rig) {
		running(r, "app:web.1")
		for i := 2; i < 9; i++ { // all within one second, of one length
			r.Write("Procfile", fmt.Sprintf("web: {H} sleep 360000%d\n", i))
			r.Signal(syscall.SIGHUP)
			time.Sleep(10 * time.Millisecond)
		}
		r.Until("the last one runs", func() bool {
			st := r.Of("app:web.1")
			return st.State == "RUNNING" && strings.Contains(cmdline(r.HostPID(st.PID)), "3600008")
		})
		says(t, "plan", did(r, "plan", "--json"), `"changes":[]`)
	})},
	{"Q-13", in(rig.Config{Procfile: "web: {H} sleep\n"}, malformed)},
	{"Q-16", places(stranger)},
	{"Q-19", asRoot(rig.Config{
		Procfile: "nobody: {H} sleep\nnumber: {H} sleep\ngroup: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, cwd: /, workers: {nobody: {user: nobody}, number: {user: 1234}, group: {group: 1234}}}}",
		Attr:     ownGroups,
	}, func(t *testing.T, r *rig.Rig) {
		if got := rig.Field(r.PID, "Groups"); got != "0 4 27" {
			t.Fatalf("our own groups = %q", got)
		}
		ids(t, r, "app:nobody.1", "65534", "65534", "65534")
		ids(t, r, "app:number.1", "1234", "1234", "1234")
		ids(t, r, "app:group.1", "0", "1234", "1234")
	})},
	{"Q-20", all(map[string]func(*testing.T){"reload": in(reloading, diffed), "semicolon": in(rig.Config{
		Procfile: "web: {H} print-args 'a ;b' \"c ; d\" e\\;f\nkeep: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {restart: never}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		if got, want := r.Line("app:web.1", ""), `["a ;b","c ; d","e;f"]`; got != want {
			t.Errorf("args = %s, want %s", got, want)
		}
	}), "reasons": in(rig.Config{
		Procfile: "code: sh -c 'echo last words; exit 3'\nsignal: {H} kill-self SEGV\nerrno: {D}/gone\ninterpreter: {D}/script\nkeep: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, restart: never}}",
		Files:    map[string]string{"script": "#!/no/such/interpreter\n"},
		Setup:    func(dir string) { _ = os.Chmod(filepath.Join(dir, "script"), 0o755) },
	}, reasons), "one writer": in(rig.Config{
		Procfile: "a: {H} flood 200000 100\nb: {H} flood 200000 100\nkeep: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, restart: never, stdout: {file: both.log, rotate_size: 100KiB, rotate_keep: 50}}}",
	}, oneWriter), "two writers": func(t *testing.T) {
		t.Parallel()
		bad(t, map[string]string{"Procfile": "a: sleep 1\nb: sleep 1\n", "p.yaml": "applications:\n  app:\n    procfile: Procfile\n    workers:\n      a:\n        stdout: {file: x.log, rotate_size: 1MiB}\n      b:\n        stdout: {file: x.log, rotate_size: 2MiB}\n"},
			"{D}/p.yaml:8:", "x.log")
	}})},
	{"Q-21", in(rig.Config{
		Procfile: "back: sh -c 'exit 7'\nfatal: sh -c 'exit 8'\nkeep: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {back: {max_restarts: 50, backoff: {base: 30s}}, fatal: {max_restarts: 2}}}}",
	}, visible)},
	{"Q-22", uptimes},
	{"Q-23", in(rig.Config{
		Procfile: "exit: {H} exit $PAZINIT_INSTANCE\nkill: {H} kill-self $PAZINIT_INSTANCE\nkeep: {H} sleep\n",
		YAML:     "applications: {app: {workers: {keep: {run: '{H}', args: [sleep]}}}, e: {procfile: exits, port_base: 10000, restart: never, workers: {exit: {num_instances: 99}}}, k: {procfile: kills, port_base: 11000, restart: never, workers: {kill: {num_instances: 31}}}}",
		Files:    map[string]string{"exits": "exit: exec {H} exit $PAZINIT_INSTANCE\n", "kills": "kill: exec {H} kill-self $PAZINIT_INSTANCE\n"},
	}, everyEnd)},
	{"Q-25", places(uninterruptible)},
}

// without is c as if there were no control groups.
func without(c rig.Config) rig.Config {
	c.NoCgroups = true
	return c
}

var piling = rig.Config{
	Procfile: "web: {H} sleep 3600011 & exit 0\nkeep: {H} sleep\n",
	YAML:     "applications: {app: {procfile: Procfile, workers: {web: {max_restarts: 4, backoff: {base: 100ms, factor: 2}}}}}",
}

func piledUp(t *testing.T, r *rig.Rig) {
	copies := func() (n int) { // not the shells that start them
		for _, pid := range r.Processes() {
			if cmdline(pid) == rig.Helper+" sleep 3600011 " {
				n++
			}
		}
		return n
	}
	most := 0
	r.Until("it is given up", func() bool {
		n := copies()
		if n > most {
			most = n
		}
		return r.Of("app:web.1").State == "FATAL"
	})
	if most > 1 {
		t.Errorf("%d copies were alive at a time, want one", most)
	}
	if n := copies(); n != 0 {
		t.Errorf("%d copies are left", n)
	}
	if st := r.Of("app:web.1"); st.Run != 4 {
		t.Errorf("web = %+v, want four runs", st)
	}
	told := 0
	for _, e := range history(r) {
		if e.Name == "app:web.1" && strings.Contains(e.Reason, "left processes behind") {
			told++
		}
	}
	if told == 0 {
		t.Error("nobody was told that it left processes behind")
	}
	did(r, "shutdown")
	r.Wait()
	if left := r.Processes(); len(left) > 0 {
		t.Errorf("%d processes are left", len(left))
	}
}

var slow = rig.Config{
	Procfile: "web: {H} setsid & exec {H} on-signal TERM 0 600000\n",
	YAML:     "applications: {app: {procfile: Procfile, stop_timeout: 100ms}}",
}

func slowToStop(t *testing.T, r *rig.Rig) {
	for i := range 11 {
		r.LineAfter("app:web.1", "child ", i)
		r.LineAfter("app:web.1", "ready", i)
		if i == 10 {
			break
		}
		did(r, "restart", "web")
	}
	if a, b := alive(r, "on-signal"), alive(r, "setsid"); a != 1 || b != 2 {
		t.Errorf("%d leaders and %d of its children, want 1 and 2", a, b)
	}
	told := 0
	for _, e := range history(r) {
		if e.Kind == "stop_slow" {
			told++
		}
	}
	if told != 10 {
		t.Errorf("%d stops were called slow, want 10", told)
	}
}

func notSpinning(t *testing.T, r *rig.Rig) {
	for _, name := range instances("app:limited", 90) {
		if st := r.WaitState(name, "FATAL"); st.Run != 5 {
			t.Errorf("%s = %+v, want five tries", name, st)
		}
	}
	st := r.Of("app:limited.1")
	says(t, "reason", st.Reason, "/nonexistent", "no such file or directory")
	if st.LastExit == nil || st.LastExit.Code != 127 || st.NextTry == nil {
		t.Errorf("limited = %+v, want 127 and a next try", st)
	}
	// A hundred that never give up, over a minute: 1 % of a core would be 60 ticks.
	before := r.CPU()
	r.Do(&control.Request{Verb: "start", Names: []string{"app:unlimited"}, NoWait: true})
	time.Sleep(time.Minute)
	if got := r.CPU() - before; got >= 60 && !rig.Emulated {
		t.Errorf("%d ticks of CPU in a minute, want less than 60", got)
	}
	for _, name := range instances("app:unlimited", 100) {
		if st := r.Of(name); st.State == "FATAL" || st.Run < 5 || st.Run > 9 {
			t.Errorf("%s = %+v, want some tries and another one to come", name, st)
			break
		}
	}
}

func graceful(t *testing.T, r *rig.Rig) {
	r.Line("app:resque.1", "job ")
	pid := r.HostPID(r.Of("app:resque.1").PID)
	did(r, "stop", "resque")
	var started, finished int
	for _, line := range r.Logs("app:resque.1") {
		switch {
		case strings.HasSuffix(line, " started"):
			started++
		case strings.HasSuffix(line, " finished"):
			finished++
		default:
			t.Errorf("resque says %q", line)
		}
	}
	if started == 0 || started != finished {
		t.Errorf("%d jobs were started, %d finished", started, finished)
	}
	if st := r.Of("app:resque.1"); st.LastExit == nil || st.LastExit.Code != 0 || rig.Alive(pid) || alive(r, "resque") != 0 {
		t.Errorf("resque = %+v, %d processes", st, alive(r, "resque"))
	}
}

func stranger(t *testing.T, mode rig.Mode) {
	other := exec.Command(rig.Helper, "sleep")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait() //nolint:errcheck // it is killed
	defer other.Process.Kill()
	stale := fmt.Sprintln(other.Process.Pid)
	r := rig.New(t, rig.Config{
		Mode: mode, Procfile: "web: {H} sleep\n",
		YAML:  "pid_file: own.pid\napplications: {app: {procfile: Procfile, workers: {web: {pid_file: web.pid}}}}",
		Files: map[string]string{"own.pid": stale, "web.pid": stale},
	})
	st := r.WaitState("app:web.1", "RUNNING")
	r.Until("the pid is written", func() bool { return r.Read("web.pid") == fmt.Sprintln(st.PID) })
	if r.Read("own.pid") == stale || r.HostPID(st.PID) == other.Process.Pid {
		t.Error("the stranger is taken for ours")
	}
	// While it runs, somebody writes the stranger's pid again.
	r.Write("web.pid", stale)
	did(r, "restart", "web")
	pid := r.Of("app:web.1").PID
	r.Until("the next pid is written", func() bool { return r.Read("web.pid") == fmt.Sprintln(pid) })
	r.Write("web.pid", stale)
	did(r, "stop", "web")
	did(r, "shutdown")
	r.Wait()
	if !rig.Alive(other.Process.Pid) {
		t.Error("the stranger was killed")
	}
	if got := r.Read("web.pid"); got != stale {
		t.Errorf("pid file = %q: that of somebody else was removed", got)
	}
}

func diffed(t *testing.T, r *rig.Rig) {
	before := editProcfile(r)
	r.Signal(syscall.SIGHUP)
	r.WaitStatus("app:changed.1", func(st control.Status) bool { return st.Run == 2 && st.State == "RUNNING" })
	r.WaitState("app:added.1", "RUNNING")
	r.Until("the removed one is gone", func() bool { _, there := pids(r)["app:removed.1"]; return !there })
	after := pids(r)
	for _, name := range []string{"app:same.1", "app:same.2"} {
		if after[name] != before[name] {
			t.Errorf("%s was restarted", name)
		}
	}
}

func reasons(t *testing.T, r *rig.Rig) {
	for name, want := range map[string]struct {
		state string
		exit  control.Exit
		says  []string
	}{
		"app:code.1":        {"EXITED", control.Exit{Code: 3}, []string{"exited with status 3"}},
		"app:signal.1":      {"EXITED", control.Exit{Code: 139, Signal: "SIGSEGV"}, []string{"killed by SIGSEGV"}},
		"app:errno.1":       {"FATAL", control.Exit{Code: 127}, []string{r.Path("gone"), "no such file or directory"}},
		"app:interpreter.1": {"FATAL", control.Exit{Code: 127}, []string{r.Path("script"), "/no/such/interpreter"}},
	} {
		st := r.WaitState(name, want.state)
		if x := st.LastExit; x == nil || x.Code != want.exit.Code || x.Signal != want.exit.Signal || (x.Error != "") != (want.state == "FATAL") {
			t.Errorf("last exit of %s = %+v, want %+v", name, x, want.exit)
		}
		says(t, "reason of "+name, st.Reason, want.says...)
		says(t, "status", did(r, "status"), want.says...)
		died := false
		for _, e := range history(r) {
			if e.Name == name && e.Kind == "exit" {
				died = true
				says(t, "event of "+name, e.Reason, want.says...)
			}
		}
		if !died {
			t.Errorf("no event of the death of %s", name)
		}
	}
	says(t, "logs", did(r, "logs", "app:code.1"), "last words")
}

func oneWriter(t *testing.T, r *rig.Rig) {
	r.WaitState("app:a.1", "EXITED")
	r.WaitState("app:b.1", "EXITED")
	read := func() (text string) {
		names, _ := filepath.Glob(r.Path("both.log*"))
		for _, name := range names {
			text += r.Read(filepath.Base(name))
		}
		return text
	}
	r.Until("all is written", func() bool { return len(read()) == 400000 })
	lines := map[string]int{}
	for line := range strings.Lines(read()) {
		lines[line]++
	}
	for line, n := range lines {
		if n != 2 || len(line) != 100 {
			t.Errorf("line %q is there %d times, want whole and twice", line, n)
		}
	}
	if names, _ := filepath.Glob(r.Path("both.log*")); len(names) < 4 {
		t.Errorf("files = %v, want rotated ones", names)
	}
}

func visible(t *testing.T, r *rig.Rig) {
	back := r.WaitState("app:back.1", "BACKOFF")
	fatal := r.WaitState("app:fatal.1", "FATAL")
	for _, c := range []struct {
		st       control.Status
		failures int
		reason   string
	}{{back, 2, "exited with status 7"}, {fatal, 2, "exited with status 8"}} {
		if c.st.Failures != c.failures || c.st.NextTry == nil || !c.st.NextTry.After(c.st.Since) || c.st.LastExit == nil || !strings.Contains(c.st.Reason, c.reason) {
			t.Errorf("status = %+v, want %d failures, %q and a next try", c.st, c.failures, c.reason)
		}
	}
	found := 0
	for line := range strings.Lines(did(r, "status")) {
		if strings.HasPrefix(line, "app:back.1 ") || strings.HasPrefix(line, "app:fatal.1 ") {
			found++
			says(t, "status", line, "exited with status", "next try in ")
		}
	}
	if found != 2 {
		t.Errorf("%d lines, want 2", found)
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(did(r, "status", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"failures", "reason", "next_try", "restarts", "last_exit"} {
		if list[0][key] == nil {
			t.Errorf("status --json has no %s: %v", key, list[0])
		}
	}
}

func everyEnd(t *testing.T, r *rig.Rig) {
	keep := host(r, "app:keep.1")
	if got := rig.Field(keep, "PPid"); got != strconv.Itoa(r.PID) || cmdline(keep) != rig.Helper+" sleep " {
		t.Errorf("parent %s, command %q: something is between", got, cmdline(keep))
	}
	for i, name := range instances("e:exit", 99) {
		st := r.WaitStatus(name, func(st control.Status) bool { return st.LastExit != nil })
		if st.LastExit.Code != i+1 || st.LastExit.Signal != "" {
			t.Errorf("%s = %+v, want %d", name, st.LastExit, i+1)
		}
	}
	for i, name := range instances("k:kill", 31) {
		switch sig := syscall.Signal(i + 1); sig {
		case syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU: // stops it
		case syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGURG, syscall.SIGWINCH: // nothing
			if st := r.WaitState(name, "EXITED"); st.LastExit.Code != 0 {
				t.Errorf("%s = %+v, want 0", name, st.LastExit)
			}
		default:
			st := r.WaitState(name, "EXITED")
			if st.LastExit.Code != 128+i+1 || st.LastExit.Signal == "" {
				t.Errorf("%s = %+v, want signal %d", name, st.LastExit, i+1)
			}
		}
	}
	if host(r, "app:keep.1") != keep {
		t.Error("keep was touched")
	}
}

// uninterruptible: a process in a frozen group of the old kind does not die of
// SIGKILL before it is thawed.
func uninterruptible(t *testing.T, mode rig.Mode) {
	rig.NeedRoot(t)
	dir, err := os.MkdirTemp("/sys/fs/cgroup/freezer", "rig")
	rig.Need(t, "freezer", err)
	set := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	thaw := func() { _ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0) }
	r := rig.New(t, rig.Config{
		Mode: mode, Procfile: "hung: {H} sleep\nweb: {H} sleep\n",
		YAML: "shutdown_timeout: 3s\napplications: {app: {procfile: Procfile, stop_timeout: 100ms}}",
		Left: true,
	})
	t.Cleanup(func() {
		thaw()
		r.Until("the group is empty", func() bool { err := os.Remove(dir); return err == nil || errors.Is(err, os.ErrNotExist) })
	})
	t.Cleanup(thaw) // before the rig looks for what is left
	hung := host(r, "app:hung.1")
	set("cgroup.procs", strconv.Itoa(hung))
	set("freezer.state", "FROZEN")
	r.Until("it is frozen", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "freezer.state"))
		return string(b) == "FROZEN\n"
	})
	before := running(r, "app:web.1")
	did(r, "stop", "--no-wait", "hung")
	e := r.WaitEvent(func(e control.Event) bool { return e.Name == "app:hung.1" && e.Kind == "uninterruptible" })
	says(t, "event", e.Reason, "SIGKILL", "uninterruptible")
	if st := r.Of("app:hung.1"); st.State != "STOPPING" {
		t.Errorf("hung = %+v, want STOPPING", st)
	}
	did(r, "restart", "web") // the loop is not held up
	if got := running(r, "app:web.1"); maps.Equal(got, before) {
		t.Error("web was not restarted")
	}
	if got := exits(r, control.ExitTimeout, "stop", "--timeout", "100ms", "hung"); got == "" {
		t.Error("a stop that takes too long says nothing")
	}
	r.Signal(syscall.SIGTERM)
	r.WaitConsole("ended with status")
	if mode == rig.Daemon {
		r.Wait() // while it is still frozen
	}
	if !rig.Alive(hung) {
		t.Error("it was not frozen at all")
	}
	thaw()
	if got := r.Wait(); got != 0 {
		t.Errorf("exit status = %d, want 0", got)
	}
}
