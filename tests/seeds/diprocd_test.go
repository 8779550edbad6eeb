package seeds

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

var diprocd = []row{
	{"DP-06", in(rig.Config{Procfile: "web: {H} sleep\n"}, noNetwork)},
	{"DP-14", all(map[string]func(*testing.T){"check": func(t *testing.T) {
		t.Parallel()
		good(t, map[string]string{"p.yaml": strings.NewReplacer("{H}", rig.Helper, "nobody", strconv.Itoa(os.Geteuid())).Replace(dictionary)})
	}, "run": in(rig.Config{
		YAML:  "include: diprocd-worker.json\napplications: {}\n",
		Files: map[string]string{"diprocd-worker.json": dictionary, "run/x": ""},
	}, runDictionary)})},
	{"DP-16", all(map[string]func(*testing.T){"run": in(rig.Config{YAML: "applications: {app: {workers: {web: {run: '{H}', args: [sleep]}}}}"}, func(t *testing.T, r *rig.Rig) {
		pid := host(r, "app:web.1")
		if got := rig.Field(pid, "PPid"); got != strconv.Itoa(r.PID) {
			t.Errorf("parent = %s, want the supervisor, %d", got, r.PID)
		}
		if got, want := cmdline(pid), rig.Helper+" sleep "; got != want {
			t.Errorf("cmdline = %q, want %q", got, want)
		}
	}), "relative": func(t *testing.T) {
		t.Parallel()
		bad(t, map[string]string{"p.yaml": "applications:\n  app:\n    workers:\n      web:\n        run: bin/web\n"}, "{D}/p.yaml:5:14: ", "absolute")
	}})},
	{"DP-17", in(rig.Config{
		YAML: `applications: {app: {workers: {web: {run: '{H}', args: [print-args, "a b", "", "$HOME", "*"], restart: never}, keep: {command_line: '{H} sleep'}}}}`,
	}, func(t *testing.T, r *rig.Rig) {
		if got, want := r.Line("app:web.1", ""), `["a b","","$HOME","*"]`; got != want {
			t.Errorf("args = %s, want %s", got, want)
		}
	})},
	{"DP-18", all(map[string]func(*testing.T){"run": in(rig.Config{
		YAML: "applications: {app: {workers: {web: {run: '{H}', args: [sleep], user: nobody, cwd: /}}}}",
		Attr: ownGroups,
	}, func(t *testing.T, r *rig.Rig) {
		rig.NeedRoot(t)
		ids(t, r, "app:web.1", "65534", "65534", "65534")
	}), "unknown": func(t *testing.T) {
		t.Parallel()
		out := bad(t, map[string]string{"Procfile": "web: sleep 1\nb: sleep 1\n", "p.yaml": "applications:\n  app:\n    procfile: Procfile\n    user: nobodyy\n"},
			"{D}/p.yaml:4:11: ", "nobodyy")
		if n := strings.Count(out, "\n"); n != 1 {
			t.Errorf("check says %d lines, want one:\n%s", n, out)
		}
	}})},
	{"DP-19", in(rig.Config{
		Env: []string{"OUTER=1", "SECRET=x y"},
		YAML: `
applications:
  app:
    env: {LC_ALL: C, PATH: "/bin:/usr/bin"}
    workers:
      web: {run: "{H}", args: [sleep], env_inherit: false, env: {ODD: "a=b c  d='e'"}}
      some: {run: "{H}", args: [sleep], env_inherit: [SECRET, MISSING]}
      all: {run: "{H}", args: [sleep]}
`,
	}, environments)},
	{"DP-21", in(rig.Config{
		Procfile: "web: echo opened >>{D}/own; for i in 1 2 3; do echo out $i; echo err $i >&2; done; exec {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, stdout: {file: both.log}, stderr: {file: both.log}}}",
	}, logged)},
	{"DP-22", in(rig.Config{
		YAML: `
applications:
  app:
    procfile: srv
    restart: never
    workers:
      dot: {cwd: "."}
      sub: {cwd: sub}
      nodir: {cwd: gone}
      nocmd: {cwd: "."}
`,
		Files: map[string]string{"srv/Procfile": "dot: {H} sleep\nsub: {H} sleep\nnodir: {H} sleep\nnocmd: {D}/gone sleep\n", "srv/sub/x": ""},
	}, directories)},
	{"DP-25", in(rig.Config{
		Procfile: "yes: {H} on-signal USR1 3 0\nno: {H} on-signal USR1 3 0\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {yes: {restart: true}, no: {restart: false}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		r.Line("app:yes.1", "ready")
		r.Line("app:no.1", "ready")
		kill(r, "app:no.1", syscall.SIGUSR1)
		kill(r, "app:yes.1", syscall.SIGUSR1)
		r.WaitStatus("app:yes.1", func(st control.Status) bool { return st.State == "RUNNING" && st.Run == 2 })
		st := r.WaitState("app:no.1", "EXITED")
		if st.LastExit == nil || st.LastExit.Code != 3 || st.Run != 1 || st.NextTry != nil {
			t.Errorf("no = %+v, want it to stay EXITED with 3", st)
		}
	})},
	{"DP-26", in(rig.Config{
		// Twenty times as fast: a death each 13 s, healthy after 1, a window of a minute.
		Procfile: "false: /bin/false\nslow: {H} on-signal USR1 1 650\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {false: {max_restarts: 5, restart_window: 60s}, slow: {max_restarts: 5, restart_window: 3s, healthy_after: 50ms}}}}",
	}, limited)},
	{"DP-28", in(rig.Config{Procfile: "web: {H} sleep\n"}, runningAlready)},
	{"DP-30", in(rig.Config{
		Procfile: "web: {H} sleep\n",
	}, malformed)},
}

func noNetwork(t *testing.T, r *rig.Rig) {
	running(r, "app:web.1")
	did(r, "restart", "web")
	did(r, "scale", "web=2")
	var listening []string
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "packet"} {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", r.PID, proto))
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 9 {
				listening = append(listening, "socket:["+f[9]+"]")
			}
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", r.PID, fd.Name()))
		if slices.Contains(listening, to) {
			t.Errorf("the supervisor has the internet socket %s", to)
		}
	}
}

// dictionary has the keys of the document's example that are ours by another
// name or the same.
const dictionary = `{
  "applications": {
    "diprocd": {
      "workers": {
        "sleep": {
          "run": "{H}",
          "args": ["print-status", "hold"],
          "user": "nobody",
          "cwd": "/",
          "env": {"LC_ALL": "C", "PATH": "/bin:/usr/bin", "X": "1"},
          "pid_file": "run/sleep.pid",
          "stdout": {"file": "run/sleep.log"},
          "stderr": {"file": "run/sleep.log"},
          "restart": true
        }
      }
    }
  }
}
`

func runDictionary(t *testing.T, r *rig.Rig) {
	rig.NeedRoot(t)
	st := r.WaitState("diprocd:sleep.1", "RUNNING")
	ids(t, r, "diprocd:sleep.1", "65534", "65534", "65534")
	r.Until("the pid is written", func() bool { return r.Read("run/sleep.pid") == fmt.Sprintln(st.PID) })
	r.Until("the output is written", func() bool { return strings.Contains(r.Read("run/sleep.log"), `"cwd":"/"`) })
	if env := environ(t, host(r, "diprocd:sleep.1")); env["X"] != "1" || env["LC_ALL"] != "C" {
		t.Errorf("environment = %v", env)
	}
	did(r, "stop", "all")
	r.Until("the pid is removed", func() bool { return r.Read("run/sleep.pid") == "" })
}

func environments(t *testing.T, r *rig.Rig) {
	web := environ(t, host(r, "app:web.1"))
	delete(web, "PAZINIT_RUN")
	want := map[string]string{
		"LC_ALL": "C", "PATH": "/bin:/usr/bin", "ODD": "a=b c  d='e'",
		"PAZINIT_APP": "app", "PAZINIT_WORKER": "web", "PAZINIT_INSTANCE": "1", "PORT": web["PORT"],
	}
	if !maps.Equal(web, want) {
		t.Errorf("environment = %v, want %v", web, want)
	}
	some := environ(t, host(r, "app:some.1"))
	if _, there := some["MISSING"]; some["SECRET"] != "x y" || some["OUTER"] != "" || there {
		t.Errorf("environment = %v, want SECRET of ours alone", some)
	}
	if got := environ(t, host(r, "app:all.1")); got["OUTER"] != "1" || got["SECRET"] != "x y" || got["PATH"] != "/bin:/usr/bin" {
		t.Errorf("environment = %v, want ours, and PATH of env", got)
	}
}

func logged(t *testing.T, r *rig.Rig) {
	lines := func(stream string) (out []string) {
		for line := range strings.Lines(r.Read("both.log")) {
			if strings.HasPrefix(line, stream) {
				out = append(out, strings.TrimSpace(line))
			}
		}
		return out
	}
	for run := 1; run <= 3; run++ {
		r.Until("all lines are there", func() bool { return strings.Count(r.Read("both.log"), "\n") == 6*run })
		for _, stream := range []string{"out", "err"} {
			var want []string
			for range run {
				want = append(want, stream+" 1", stream+" 2", stream+" 3")
			}
			if got := lines(stream); !slices.Equal(got, want) {
				t.Errorf("lines = %q, want %q", got, want)
			}
		}
		did(r, "restart", "web")
	}
	did(r, "reopen")
	if got := strings.ReplaceAll(r.Read("own"), "opened\n", ""); got != "" || r.Read("own") == "" {
		t.Errorf("the worker's own file = %q", r.Read("own"))
	}
}

func directories(t *testing.T, r *rig.Rig) {
	for name, want := range map[string]string{"app:dot.1": "srv", "app:sub.1": "srv/sub"} {
		want, _ := filepath.EvalSymlinks(r.Path(want))
		if got, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", host(r, name))); got != want {
			t.Errorf("cwd of %s = %q, want %q", name, got, want)
		}
	}
	nodir, nocmd := r.WaitState("app:nodir.1", "FATAL"), r.WaitState("app:nocmd.1", "FATAL")
	if nodir.LastExit == nil || nocmd.LastExit == nil {
		t.Fatal("no last exit")
	}
	says(t, "missing folder", nodir.LastExit.Error, r.Path("srv/gone"), "no such file or directory", "folder")
	says(t, "missing command", nocmd.LastExit.Error, r.Path("gone"), "no such file or directory")
	if strings.Contains(nocmd.LastExit.Error, "folder") {
		t.Errorf("missing command = %q, want it told apart", nocmd.LastExit.Error)
	}
}

func limited(t *testing.T, r *rig.Rig) {
	st := r.WaitState("app:false.1", "FATAL")
	if got := count(states(r, "app:false.1"), "STARTING"); got != 5 || st.Failures != 5 || st.Run != 5 {
		t.Errorf("%d starts, %d failures, run %d, want 5 each", got, st.Failures, st.Run)
	}
	says(t, "reason", st.Reason, "status 1")
	for n := range 14 {
		r.LineAfter("app:slow.1", "ready", n)
		did(r, "signal", "USR1", "slow")
	}
	if st := r.WaitStatus("app:slow.1", func(st control.Status) bool { return st.State == "FATAL" || st.Run == 15 && st.State == "RUNNING" }); st.State == "FATAL" {
		t.Errorf("slow = %+v, want it to go on", st)
	}
	if got := states(r, "app:slow.1"); slices.Contains(got, "BACKOFF") {
		t.Errorf("states = %v, want no BACKOFF", got)
	}
	if st := r.Of("app:false.1"); st.Run != 5 || st.State != "FATAL" {
		t.Errorf("false = %+v, want no further start", st)
	}
}

func runningAlready(t *testing.T, r *rig.Rig) {
	running(r, "app:web.1")
	before := r.Status()
	out, code := program(t, r.Dir, "run", "-c", "p.yaml", "--socket", r.Socket)
	if code == 0 {
		t.Error("the second one ends with status 0")
	}
	says(t, "the second one", out, strconv.Itoa(r.PID))
	out, code = program(t, r.Dir, "run", "-c", "p.yaml", "--socket", r.Socket, "--if-not-running")
	if code != 0 {
		t.Errorf("with --if-not-running: %d, want 0", code)
	}
	says(t, "with --if-not-running", out, strconv.Itoa(r.PID))
	after := r.Status()
	if len(after) != 1 || after[0].PID != before[0].PID || after[0].Run != 1 || alive(r, "sleep") != 1 {
		t.Errorf("status = %+v, was %+v", after, before)
	}
}

func malformed(t *testing.T, r *rig.Rig) {
	before := running(r, "app:web.1")
	for _, text := range []string{
		"{\"applications\": {\"app\": [1,",
		"applications: {app: {procfile: Procfile, workers: {web: {num_instance: 2}}}}",
		"applications: {app: {procfile: nowhere}}",
		string(bytes.Repeat([]byte{'['}, 5000)) + " applications:",
	} {
		r.WriteYAML(text)
		seq := r.Seq()
		says(t, "reload", exits(r, control.ExitUsage, "reload"), "p.yaml:")
		e := r.WaitEventAfter(seq, func(e control.Event) bool { return e.Kind == "reload" })
		says(t, "event", e.Reason, "nothing was changed")
		if got := pids(r); !maps.Equal(got, before) {
			t.Errorf("pids = %v, want %v", got, before)
		}
	}
	seq := r.Seq()
	r.Signal(syscall.SIGHUP)
	r.WaitEventAfter(seq, func(e control.Event) bool {
		return e.Kind == "reload" && strings.Contains(e.Reason, "nothing was changed")
	})
	r.WaitConsole("nothing was changed")
	r.WriteYAML("applications: {app: {procfile: Procfile, workers: {web: {num_instances: 2}}}}")
	r.Signal(syscall.SIGHUP)
	if got := running(r, "app:web.1", "app:web.2"); got["app:web.1"] != before["app:web.1"] {
		t.Errorf("pids = %v, want web.1 as %v", got, before)
	}
}
