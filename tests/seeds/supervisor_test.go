package seeds

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

var supervisor = []row{
	{"SU-01", in(rig.Config{
		Procfile: "web: echo out; echo err >&2; exec {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {stdout: {file: out.log}, stderr: {file: out.log}}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		pid := host(r, "app:web.1")
		r.Until("the output is there", func() bool { return r.Read("out.log") == "out\nerr\n" || r.Read("out.log") == "err\nout\n" })
		// A group of its own and no terminal: no hang-up of the starter's reaches it.
		if got := rig.Field(pid, "NSpgid"); got != rig.Field(pid, "NSpid") {
			t.Errorf("NSpgid = %s, want %s", got, rig.Field(pid, "NSpid"))
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); f[4] != "0" {
			t.Errorf("its terminal is %s, want none", f[4])
		}
		seq := r.Seq()
		r.Signal(syscall.SIGHUP)
		r.WaitEventAfter(seq, func(e control.Event) bool { return e.Kind == "reload" })
		if host(r, "app:web.1") != pid {
			t.Error("a hang-up of the supervisor ended the worker")
		}
	})},
	{"SU-02", schema},
	{"SU-03", all(map[string]func(*testing.T){"include": includeErrors, "snippets": in(rig.Config{
		YAML:  "include: conf.d/*.yaml\napplications: {}\n",
		Files: map[string]string{"conf.d/app.yaml": "applications: {app: {workers: {web: {command_line: '{H} sleep'}}}}\n"},
	}, func(t *testing.T, r *rig.Rig) {
		before := running(r, "app:web.1")
		r.Write("conf.d/graphite.yaml", "applications: {graphite: {workers: {carbon: {command_line: '{H} sleep'}}}}\n")
		did(r, "reload")
		if got := running(r, "app:web.1", "graphite:carbon.1"); got["app:web.1"] != before["app:web.1"] || r.Of("app:web.1").Run != 1 {
			t.Errorf("pids = %v, want web as %v", got, before)
		}
	})})},
	{"SU-04", all(map[string]func(*testing.T){"include": includeErrors, "relative": in(rig.Config{
		YAML: "include: conf.d/one.yaml\napplications: {}\n",
		Files: map[string]string{
			"conf.d/one.yaml":     "include: [../more/*.yaml, two.yaml]\n",
			"conf.d/two.yaml":     "applications: {two: {workers: {w: {command_line: '{H} sleep'}}}}\n",
			"more/a.yaml":         "applications: {a: {procfile: a/Procfile}}\n",
			"more/a/Procfile":     "w: {H} sleep\n",
			"more/b.yaml":         "applications: {b: {procfile: b}}\n",
			"more/b/Procfile":     "w: {H} sleep\n",
			"conf.d/a/Procfile":   "wrong: {H} sleep\n",
			"conf.d/more/no.yaml": "applications: {wrong: {procfile: nowhere}}\n",
		},
		Wrap: []string{"env", "-C", "/"}, Argv: []string{"run", "-c", "{D}/p.yaml", "--socket", "{D}/s"},
	}, func(t *testing.T, r *rig.Rig) {
		running(r, "two:w.1", "a:w.1", "b:w.1")
		if n := len(r.Status()); n != 3 {
			t.Errorf("%d instances, want 3", n)
		}
	})})},
	{"SU-05", places(socketMode)},
	{"SU-06", all(map[string]func(*testing.T){"stderr": places(logToStderr), "file": in(rig.Config{
		Procfile: "web: {H} sleep\n",
		YAML:     "log_path: own.log\n",
	}, logToFile), "syslog": places(logToSyslog)})},
	{"SU-07", in(rig.Config{
		Procfile: "web: {H} sleep\n", YAML: "pid_file: pazinit.pid\n",
		Files: map[string]string{"pazinit.pid": "4194303\n"},
	}, func(t *testing.T, r *rig.Rig) {
		running(r, "app:web.1")
		want := fmt.Sprintln(r.PID)
		if r.Cfg.Mode == rig.PID1 {
			want = "1\n"
		}
		if got := r.Read("pazinit.pid"); got != want {
			t.Errorf("pid file = %q, want %q", got, want)
		}
		did(r, "shutdown")
		r.Wait()
		if _, err := os.Stat(r.Path("pazinit.pid")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the pid file is still there: %v", err)
		}
	})},
	{"SU-08", in(rig.Config{
		Procfile: "web: echo out; echo err >&2; exec {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, stdout: {dir: logs}, stderr: {dir: logs}, workers: {web: {num_instances: 2}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		for i := range 2 {
			for _, stream := range []string{"out", "err"} {
				r.Until("the file has the line", func() bool { return r.Read(fmt.Sprintf("logs/app.web.%d.std%s.log", i+1, stream)) == stream+"\n" })
			}
		}
	})},
	{"SU-09", in(rig.Config{Procfile: "web: {H} sleep\n"}, protocol)},
	{"SU-10", socketOrder},
	{"SU-11", in(rig.Config{Procfile: "web: {H} sleep", Argv: []string{"--socket", "{D}/s"}}, func(t *testing.T, r *rig.Rig) {
		running(r, filepath.Base(r.Dir)+":web.1")
	})},
	{"SU-12", in(rig.Config{
		Procfile: "graphite: sub/gunicorn_django -u www-data -w 2 --log-level=info\n" +
			"carbon: python3 -u carbon.py --debug start\n" +
			"statsd: node statsd.js local.js\n" +
			"unicorn: cd sub && ./rvm 1.9.3 do bundle exec unicorn\n" +
			"c: {H} double-fork\n" +
			"long: {H} print-args " + strings.Repeat("argument ", 5000) + " end\n",
		YAML: "applications: {app: {procfile: Procfile, workers: {long: {restart: never}}}}",
		Files: map[string]string{
			"carbon.py":           "import sys, time\nprint('python', *sys.argv[1:])\ntime.sleep(1e6)\n",
			"statsd.js":           "console.log('node', process.argv[2]); setInterval(() => {}, 1e6)\n",
			"sub/gunicorn_django": "#!/bin/sh\necho gunicorn \"$@\"\nexec {H} sleep\n",
			"sub/rvm":             "#!/bin/sh\nshift 2\necho rvm \"$@\"\n{H} sleep &\nwait\n",
		},
		Setup: func(dir string) {
			_ = os.Chmod(filepath.Join(dir, "sub/gunicorn_django"), 0o755)
			_ = os.Chmod(filepath.Join(dir, "sub/rvm"), 0o755)
		},
	}, hodgepodge)},
	{"SU-13", in(rig.Config{
		Procfile: "c: {H} sleep\na: {H} sleep\nb: {H} sleep\n",
		YAML: `
applications:
  app: {procfile: Procfile, workers: {a: {priority: 1}, b: {priority: 2}, c: {priority: 3}}}
  other: {workers: {w: {command_line: '{H} sleep'}}}
`,
	}, sets)},
	{"SU-14", all(map[string]func(*testing.T){"status": in(rig.Config{
		Procfile: "a: {H} sleep\nlonger_name: {H} sleep\nstopped: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {stopped: {autostart: false}}}}",
	}, columns), "uptime": uptimes})},
	{"SU-16a", in(rig.Config{Procfile: "web: {H} double-fork\nkeep: {H} sleep\n"}, startAndStop)},
	{"SU-16b", in(rig.Config{Procfile: "web: {H} sleep\n"}, addAndRemove)},
	{"SU-16c", in(reloading, planned)},
	{"SU-16d", in(reloading, reloaded)},
	{"SU-16f", in(rig.Config{
		Procfile: "on: {H} sleep\noff: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {off: {autostart: false}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		running(r, "app:on.1")
		on, off := r.Of("app:on.1"), r.Of("app:off.1")
		if !on.Autostart || off.Autostart || off.State != "STOPPED" {
			t.Errorf("status = %+v and %+v, want off STOPPED and without autostart", on, off)
		}
		says(t, "status", did(r, "status"), "app:off.1", "STOPPED")
	})},
	{"SU-16g", in(rig.Config{
		Procfile: "web: echo out; echo err >&2; exec {H} count-signal USR1 /dev/null\n",
	}, tails)},
	{"SU-16h", in(rig.Config{
		Procfile: "web: {H} count-signal USR1 /dev/null\n",
		YAML:     "applications: {app: {procfile: Procfile, stdout: {file: out.log}}}",
	}, cleared)},
	{"SU-16k", in(rig.Config{
		Procfile: "web: {H} sleep\nb: {H} sleep\noff: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {off: {autostart: false}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		p := running(r, "app:web.1", "app:b.1")
		own := fmt.Sprintln(r.PID)
		if r.Cfg.Mode == rig.PID1 {
			own = "1\n"
		}
		if got := did(r, "pid"); got != own {
			t.Errorf("pid = %q, want %q", got, own)
		}
		if got, want := did(r, "pid", "app:web.1"), fmt.Sprintln(p["app:web.1"]); got != want {
			t.Errorf("pid app:web.1 = %q, want %q", got, want)
		}
		if got, want := did(r, "pid", "web", "b"), fmt.Sprintf("%d\n%d\n", p["app:web.1"], p["app:b.1"]); got != want {
			t.Errorf("pid web b = %q, want %q", got, want)
		}
		out, _, code := r.Cmd("pid", "all")
		if want := fmt.Sprintf("%d\n%d\n", p["app:web.1"], p["app:b.1"]); out != want || code != control.ExitNotRunning {
			t.Errorf("pid all = %d %q, want %q and that one does not run", code, out, want)
		}
	})},
	{"SU-16l", in(rig.Config{ // and tests/qemu
		Procfile: "db: {D}/worker db\nweb: {D}/worker web\nfront: {D}/worker front\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {db: {priority: 1}, web: {priority: 2}, front: {priority: 3}}}}",
		Files:    map[string]string{"worker": "#!/bin/sh\ntrap 'echo $1 >>{D}/order; exit 0' TERM\necho ready\nwhile :; do {H} sleep & wait; done\n"},
		Setup:    func(dir string) { _ = os.Chmod(filepath.Join(dir, "worker"), 0o755) },
	}, func(t *testing.T, r *rig.Rig) {
		names := []string{"app:db.1", "app:web.1", "app:front.1"}
		running(r, names...)
		for _, name := range names { // the traps are set
			r.Until(name+" is ready", func() bool { return did(r, "logs", name) != "" })
		}
		did(r, "shutdown")
		if code := r.Wait(); code != 0 {
			t.Errorf("exit status after shutdown = %d, want 0", code)
		}
		if got, want := r.Read("order"), "front\nweb\ndb\n"; got != want {
			t.Errorf("stopped in the order %q, want %q", got, want)
		}
	})},
	{"SU-16m", in(rig.Config{Procfile: "web: {H} sleep\n"}, func(t *testing.T, r *rig.Rig) {
		alone, _ := program(t, "/", "--version")
		version := strings.Fields(alone)[1]
		if got := did(r, "version"); strings.Count(got, version) != 2 {
			t.Errorf("version = %q, want %s of the client and of the supervisor", got, version)
		}
	})},
	{"SU-17", manual},
	{"SU-18", in(rig.Config{
		Procfile: "web: {H} sleep\nfalse: false\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {false: {restart: never, autostart: false}}}}",
	}, statuses)},
	{"SU-20", in(rig.Config{
		YAML: "applications: {a: {workers: {v: {command_line: '{H} sleep'}, w: {command_line: '{H} sleep'}}}, b: {workers: {x: {command_line: '{H} sleep'}}}}",
	}, restarts)},
	{"SU-22", places(empowered)},
	{"SU-24", in(rig.Config{
		Procfile: "default: false\nown: false\nslow: false\nhealthy: {H} on-signal USR1 1 5\nwindow: false\nterm: {H} ignore-term\nlong: {H} on-signal TERM 0 300\nkeep: {H} sleep\n",
		YAML: `
applications:
  app:
    procfile: Procfile
    max_restarts: 3
    stop_timeout: 100ms
    retry_after: off
    backoff: {base: 10ms, jitter: 0%}
    workers:
      own: {max_restarts: 4, backoff: {factor: 2}}
      slow: {max_restarts: 4, backoff: {max: 20ms}}
      healthy: {healthy_after: 1ms}
      window: {restart_window: 1ms, backoff: {max: 10ms}, autostart: false}
      long: {stop_timeout: 60s}
`,
	}, fineGrained)},
	{"SU-25", in(rig.Config{Procfile: "web: {H} sleep\n"}, func(t *testing.T, r *rig.Rig) {
		running(r, "app:web.1")
		idle(r, 10*time.Second)
		if got := pss(t, r); got >= 8<<10 {
			t.Errorf("PSS = %d KiB, want less than 8 MiB", got)
		}
	})},
	{"SU-26", all(map[string]func(*testing.T){"closed": places(refusedBySocket), "open": places(refusedByRequest), "network": in(rig.Config{Procfile: "web: {H} sleep\n"}, noNetwork)})},
	{"SU-27", in(soakConfig, soaked)},
}

func schema(t *testing.T) {
	t.Parallel()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "docs/pazinit.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var published struct {
		Schema     string `json:"$schema"`
		Properties map[string]any
	}
	if err := json.Unmarshal(b, &published); err != nil || published.Schema == "" || published.Properties["applications"] == nil {
		t.Errorf("schema = %v %.80s", err, b)
	}
	// A program generates a configuration: of every kind of value one.
	config, err := json.Marshal(map[string]any{
		"include": []string{}, "shutdown_timeout": "1m",
		"applications": map[string]any{"shop": map[string]any{
			"env": map[string]string{"A": "b: c # d", "N": "1"},
			"workers": map[string]any{"web": map[string]any{
				"command_line": "sleep 1", "num_instances": 3, "essential": true, "stop_signal": []string{"QUIT 30s", "TERM 5s", "KILL"},
				"backoff": map[string]any{"base": "1s", "factor": 1.5}, "success_codes": []int{0, 3},
			}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	good(t, map[string]string{"p.yaml": string(config)})
	dir := files(t, map[string]string{"p.yaml": "applications:\n  shop:\n    procfil: x\n"})
	out, code := program(t, dir, "check", "--json", "-c", "p.yaml")
	var found []struct {
		File         string
		Line, Column int
		Message      string
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil || code != 2 || len(found) == 0 {
		t.Fatalf("check --json = %d %v %s", code, err, out)
	}
	ok := false
	for _, f := range found {
		ok = ok || filepath.Base(f.File) == "p.yaml" && f.Line == 3 && f.Column == 5 && strings.Contains(f.Message, `"procfil"`)
	}
	if !ok {
		t.Errorf("check --json = %+v, want the key at 3:5", found)
	}
	out, code = program(t, files(t, map[string]string{"p.yaml": string(config)}), "check", "--json", "-c", "p.yaml")
	if strings.TrimSpace(out) != "[]" || code != 0 {
		t.Errorf("check --json = %d %s, want an empty list", code, out)
	}
}

func socketMode(t *testing.T, mode rig.Mode) {
	rig.NeedRoot(t)
	var watch *os.File
	defer func() { watch.Close() }() // ends who reads it
	want := func(st *unix.Stat_t, gid uint32) bool {
		return st.Mode == unix.S_IFSOCK|0o700 && st.Uid == rig.Nobody && st.Gid == gid
	}
	r := rig.New(t, rig.Config{
		Mode: mode, Procfile: "web: {H} sleep\n", YAML: "socket_mode: '0700'\nsocket_owner: nobody:daemon\n",
		Setup: func(dir string) {
			fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
			if err != nil {
				t.Fatal(err)
			}
			watch = os.NewFile(uintptr(fd), "inotify")
			if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
				t.Fatal(err)
			}
			go func() { // whoever looks at once sees no other mode either
				buf := make([]byte, 4096)
				for {
					if _, err := watch.Read(buf); err != nil {
						return
					}
					var st unix.Stat_t
					if unix.Lstat(filepath.Join(dir, "s"), &st) == nil {
						if !want(&st, 1) {
							t.Errorf("the new socket has mode %o, owner %d:%d", st.Mode, st.Uid, st.Gid)
						}
						return
					}
				}
			}()
		},
	})
	running(r, "app:web.1")
	var st unix.Stat_t
	if err := unix.Lstat(r.Socket, &st); err != nil || !want(&st, 1) {
		t.Errorf("socket = %v, mode %o, owner %d:%d, want 0700 nobody:daemon", err, st.Mode, st.Uid, st.Gid)
	}
}

func protocol(t *testing.T, r *rig.Rig) {
	pid := running(r, "app:web.1")["app:web.1"]
	curl := func(args ...string) []byte {
		t.Helper()
		out, err := exec.Command("curl", append([]string{"-sf", "--unix-socket", r.Socket}, args...)...).Output()
		if err != nil {
			t.Fatalf("curl %v: %v", args, err)
		}
		return out
	}
	var list []control.Status
	if err := json.Unmarshal(curl("http://x/v1/status"), &list); err != nil || len(list) != 1 || list[0].PID != pid {
		t.Errorf("status = %+v %v", list, err)
	}
	var reply control.Reply
	if err := json.Unmarshal(curl("-d", "name=app:web", "http://x/v1/restart"), &reply); err != nil || len(reply.Results) != 1 || !reply.Results[0].OK || reply.Results[0].PID == pid {
		t.Errorf("restart = %+v %v", reply, err)
	}
	c, err := net.Dial("unix", r.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(rig.Patience))
	fmt.Fprintln(c, `{"verb":"status"}`)
	line, err := bufio.NewReader(c).ReadBytes('\n')
	reply = control.Reply{}
	if err != nil || json.Unmarshal(line, &reply) != nil || !reply.Done || len(reply.Status) != 1 || reply.Status[0].State != "RUNNING" {
		t.Errorf("status = %s %v", line, err)
	}
}

func socketOrder(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{"p.yaml": "socket_path: {D}/config\napplications: {}\n"})
	_ = os.Chmod(dir, 0o755)
	ask := func(env []string, args ...string) string {
		cmd := exec.Command(rig.Binary, append([]string{"status"}, args...)...)
		cmd.Env = env
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != control.ExitNoServer {
			t.Errorf("status %v = %d, want %d", args, got, control.ExitNoServer)
		}
		return string(out)
	}
	env := []string{"PAZINIT_SOCKET=" + dir + "/env"}
	config := []string{"-c", dir + "/p.yaml"}
	says(t, "with all", ask(env, "-c", dir+"/p.yaml", "--socket", dir+"/flag"), dir+"/flag:")
	says(t, "without the flag", ask(env, config...), dir+"/env:")
	says(t, "without the variable", ask(nil, config...), dir+"/config:")
	// The same order for the supervisor: a socket where the next one would be is not its.
	for place, c := range map[string]rig.Config{
		"flag":   {Argv: []string{"run", "-c", "p.yaml", "--socket", "{D}/x/flag"}, Env: []string{"PAZINIT_SOCKET={D}/x/env"}},
		"env":    {Argv: []string{"run", "-c", "p.yaml"}, Env: []string{"PAZINIT_SOCKET={D}/x/env"}},
		"config": {Argv: []string{"run", "-c", "p.yaml"}},
	} {
		c.Procfile, c.YAML, c.Socket = "web: {H} sleep\n", "socket_path: x/config\n", "{D}/x/"+place
		c.Setup = func(dir string) { _ = os.Mkdir(filepath.Join(dir, "x"), 0o700) }
		r := rig.New(t, c)
		running(r, "app:web.1")
		for _, other := range []string{"flag", "env", "config"} {
			if _, err := os.Stat(r.Path("x/" + other)); (err == nil) != (other == place) {
				t.Errorf("with %s: socket %s: %v", place, other, err)
			}
		}
		if got := environ(t, host(r, "app:web.1"))["PAZINIT_SOCKET"]; got != "" {
			t.Errorf("the worker has PAZINIT_SOCKET=%s", got)
		}
	}
	if _, err := os.Stat("/run/pazinit/pazinit.sock"); err != nil && os.Geteuid() == 0 {
		says(t, "default", ask(nil), "/run/pazinit/pazinit.sock:")
	}
}

func hodgepodge(t *testing.T, r *rig.Rig) {
	for _, program := range []string{"python3", "node"} {
		_, err := exec.LookPath(program)
		rig.Need(t, program, err)
	}
	if got, want := r.Line("app:graphite.1", "gunicorn "), "-u www-data -w 2 --log-level=info"; got != want {
		t.Errorf("graphite got %q, want %q", got, want)
	}
	if got, want := r.Line("app:carbon.1", "python "), "--debug start"; got != want {
		t.Errorf("carbon got %q, want %q", got, want)
	}
	if got, want := r.Line("app:statsd.1", "node "), "local.js"; got != want {
		t.Errorf("statsd got %q, want %q", got, want)
	}
	if got, want := r.Line("app:unicorn.1", "rvm "), "bundle exec unicorn"; got != want {
		t.Errorf("unicorn got %q, want %q", got, want)
	}
	r.Number("app:c.1", "grandchild ")
	r.WaitState("app:long.1", "EXITED")
	if got := strings.Join(r.Logs("app:long.1"), ""); strings.Count(got, `"argument"`) != 5000 || !strings.Contains(got, `"end"`) {
		t.Errorf("long got %d arguments", strings.Count(got, `"argument"`))
	}
	names := []string{"app:graphite.1", "app:carbon.1", "app:statsd.1", "app:unicorn.1", "app:c.1"}
	for _, name := range names {
		before := r.WaitState(name, "RUNNING")
		kill(r, name, syscall.SIGKILL)
		r.WaitStatus(name, func(st control.Status) bool { return st.Run == before.Run+1 && st.State == "RUNNING" })
	}
	did(r, "stop", "all")
	if left := r.Processes(); len(left) > 1+r.Extra() {
		t.Errorf("%d processes are left", len(left)-1-r.Extra())
	}
}

func sets(t *testing.T, r *rig.Rig) {
	names := []string{"app:a.1", "app:b.1", "app:c.1"}
	down := []string{"app:c.1", "app:b.1", "app:a.1"}
	before := running(r, append(slices.Clone(names), "other:w.1")...)
	order := func(after uint64, to string) (out []string) {
		for _, e := range history(r) {
			if e.Seq > after && e.Kind == "state" && e.To == to && strings.HasPrefix(e.Name, "app:") {
				out = append(out, e.Name)
			}
		}
		return out
	}
	if got := order(0, "RUNNING"); !slices.Equal(got, names) {
		t.Errorf("started %v, want %v", got, names)
	}
	seq := r.Seq()
	did(r, "stop", "app:*")
	if got := order(seq, "STOPPED"); !slices.Equal(got, down) {
		t.Errorf("stopped %v, want %v", got, down)
	}
	did(r, "start", "app:*")
	if got := order(seq, "RUNNING"); !slices.Equal(got, names) {
		t.Errorf("started %v, want %v", got, names)
	}
	did(r, "restart", "app:*")
	after := pids(r)
	for _, name := range names {
		if after[name] == 0 || after[name] == before[name] {
			t.Errorf("%s was not restarted", name)
		}
	}
	if after["other:w.1"] != before["other:w.1"] {
		t.Error("another application was touched")
	}
	r.Signal(syscall.SIGTERM)
	r.Wait()
	r.WaitConsole("ended with status")
	_, end, _ := strings.Cut(r.Console(), "stopping: SIGTERM")
	var got []string
	for line := range strings.Lines(end) {
		for _, name := range names {
			if strings.Contains(line, name+" is STOPPED") {
				got = append(got, name)
			}
		}
	}
	if !slices.Equal(got, down) {
		t.Errorf("the supervisor stops %v, want %v", got, down)
	}
}

func columns(t *testing.T, r *rig.Rig) {
	p := running(r, "app:a.1", "app:longer_name.1")
	lines := strings.Split(strings.TrimSpace(did(r, "status")), "\n")
	if len(lines) != 4 {
		t.Fatalf("status = %q, want a head and three lines", lines)
	}
	head := strings.Fields(lines[0])
	if len(head) < 4 || !slices.Equal(head[:4], []string{"NAME", "STATE", "PID", "UPTIME"}) {
		t.Errorf("head = %q", head)
	}
	state, pid := strings.Index(lines[0], "STATE"), strings.Index(lines[0], "PID")+3
	for i, name := range []string{"app:a.1", "app:longer_name.1", "app:stopped.1"} {
		line, want := lines[i+1], []string{name, "RUNNING", strconv.Itoa(p[name])}
		if name == "app:stopped.1" {
			want = []string{name, "STOPPED", "-"}
		}
		f := strings.Fields(line)
		if len(f) < 4 || !slices.Equal(f[:3], want) || strings.Index(line, f[1]) != state || strings.LastIndex(line[:pid], f[2])+len(f[2]) != pid {
			t.Errorf("line %q below %q, want %v aligned", line, lines[0], want)
		}
		if _, err := time.Parse("15:04:05", f[3]); err != nil && f[3] != "-" {
			t.Errorf("uptime of %s = %q", name, f[3])
		}
	}
}

// uptimes asks a supervisor of our own making, which has been up for long.
func uptimes(t *testing.T) {
	t.Parallel()
	want := map[float64]string{
		0.9: "00:00:00", 59.9: "00:00:59", 3600: "01:00:00", 86399: "23:59:59", 86400: "1d 00:00:00",
		(19*24+6)*3600 + 53*60 + 57: "19d 06:53:57", (3*24 + 3) * 3600: "3d 03:00:00", 1000 * 86400: "1000d 00:00:00",
	}
	dir, err := os.MkdirTemp("", "pz")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	srv, err := control.Listen(control.ServerOptions{
		Path: filepath.Join(dir, "s"), OwnerUID: -1, OwnerGID: -1, Log: func(string) {},
		Handler: func(_ context.Context, _ control.Peer, _ *control.Request, send func(*control.Reply) error) {
			r := &control.Reply{Done: true}
			for up := range want {
				r.Status = append(r.Status, control.Status{Name: fmt.Sprint("app:", up), State: "RUNNING", Ready: true, PID: 1672, UptimeS: up, InFile: true})
			}
			_ = send(r)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve() //nolint:errcheck // it ends with the test
	defer srv.Close()
	out, code := program(t, dir, "status", "--socket", filepath.Join(dir, "s"))
	if code != 0 {
		t.Fatalf("status = %d\n%s", code, out)
	}
	for up, text := range want {
		found := false
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); f[0] == fmt.Sprint("app:", up) {
				found = strings.HasPrefix(strings.Join(f[3:], " "), text+" ")
			}
		}
		if !found {
			t.Errorf("uptime of %.1f s is not %q in\n%s", up, text, out)
		}
	}
}

var reloading = rig.Config{
	Procfile: "same: {H} sleep\nchanged: {H} sleep\nremoved: {H} sleep\n",
	YAML:     "applications: {app: {procfile: Procfile, workers: {same: {num_instances: 2}}}}",
}

func editProcfile(r *rig.Rig) map[string]int {
	r.T.Helper()
	before := running(r, "app:same.1", "app:same.2", "app:changed.1", "app:removed.1")
	r.Write("Procfile", "same: {H} sleep\nchanged: {H} sleep 3600008\nadded: {H} sleep\n")
	return before
}

func planned(t *testing.T, r *rig.Rig) {
	running(r, "app:same.1", "app:same.2", "app:changed.1", "app:removed.1")
	nothing, _, none := r.Cmd("plan")
	before := editProcfile(r)
	out, _, some := r.Cmd("plan")
	says(t, "plan", out, "+ app:added", "app:changed", "command", "- app:removed")
	if strings.Contains(out, "app:same") || strings.Contains(nothing, "app:") {
		t.Errorf("plan = %q, was %q: want only what changes", out, nothing)
	}
	if got := pids(r); !maps.Equal(got, before) {
		t.Errorf("pids = %v after plan, were %v", got, before)
	}
	says(t, "reread", exits(r, some, "reread"), "+ app:added")
	if none != 0 || some != control.ExitChanges {
		t.Errorf("plan = %d when nothing would change and %d when something would, want 0 and %d", none, some, control.ExitChanges)
	}
}

func reloaded(t *testing.T, r *rig.Rig) {
	before := editProcfile(r)
	did(r, "update")
	after := running(r, "app:same.1", "app:same.2", "app:changed.1", "app:added.1")
	if len(pids(r)) != 4 || after["app:same.1"] != before["app:same.1"] || after["app:same.2"] != before["app:same.2"] || after["app:changed.1"] == before["app:changed.1"] {
		t.Errorf("pids = %v, were %v", pids(r), before)
	}
	says(t, "cmdline", cmdline(host(r, "app:changed.1")), "3600008")
}

func tails(t *testing.T, r *rig.Rig) {
	r.Line("app:web.1", "ready")
	r.Line("app:web.1", "err")
	for _, c := range []struct {
		args       []string
		want, miss string
	}{
		{[]string{"app:web"}, "out", ""},
		{[]string{"app:web"}, "err", ""},
		{[]string{"--stream", "stderr", "app:web"}, "err", "out"},
		{[]string{"--stream", "stdout", "app:web"}, "ready", "err"},
		{[]string{"-n", "1", "--stream", "stdout", "app:web"}, "ready", "out"},
		{[]string{"--self"}, "app:web.1 is RUNNING", "| ready"},
	} {
		out := did(r, "logs", c.args...)
		if !strings.Contains(out, c.want) || c.miss != "" && strings.Contains(out, c.miss) {
			t.Errorf("logs %v = %q, want %q and not %q in it", c.args, out, c.want, c.miss)
		}
	}
	says(t, "tail", did(r, "tail", "app:web.1"), "ready")
	says(t, "maintail", did(r, "maintail"), "app:web.1 is RUNNING")
	follow := exec.Command(rig.Binary, "logs", "-f", "-n", "1", "--stream", "stdout", "--socket", r.Socket, "app:web")
	pipe, err := follow.StdoutPipe()
	if err == nil {
		err = follow.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	if !lines.Scan() || !strings.Contains(lines.Text(), "ready") {
		t.Errorf("logs -f begins with %q", lines.Text())
	}
	kill(r, "app:web.1", syscall.SIGUSR1)
	if !lines.Scan() || !strings.Contains(lines.Text(), "got USR1") {
		t.Errorf("logs -f goes on with %q", lines.Text())
	}
	_ = follow.Process.Signal(syscall.SIGINT)
	if err := follow.Wait(); err != nil {
		t.Errorf("logs -f ends with %v", err)
	}
}

func cleared(t *testing.T, r *rig.Rig) {
	r.Line("app:web.1", "ready")
	r.Until("the file has it", func() bool { return r.Read("out.log") == "ready\n" })
	did(r, "logs", "--clear", "app:web")
	if got := r.Read("out.log"); got != "" || len(r.Logs("app:web")) != 0 {
		t.Errorf("file %q, ring %q, want both empty", got, r.Logs("app:web"))
	}
	kill(r, "app:web.1", syscall.SIGUSR1)
	r.Until("what comes is there", func() bool { return r.Read("out.log") == "got USR1\n" && len(r.Logs("app:web")) == 1 })
	did(r, "clear", "app:web")
	if got := r.Read("out.log"); got != "" {
		t.Errorf("file = %q, want it empty", got)
	}
}

func manual(t *testing.T) {
	t.Parallel()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "cmd/pazinit/pazinit.8"))
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.NewReplacer("\\-", "-", "\\&", "", "\\(cq", "'").Replace(string(page))
	for _, v := range control.Verbs() {
		out, code := program(t, "/", "help", v.Name)
		if code != 0 {
			t.Errorf("help %s = %d", v.Name, code)
		}
		says(t, "help "+v.Name, strings.Join(strings.Fields(out), " "), v.Short, strings.Join(strings.Fields(v.Long), " "))
		for _, f := range v.Flags {
			says(t, "help "+v.Name, out, "--"+f.Name)
			says(t, "the manual", plain, "--"+f.Name)
		}
		says(t, "the manual", strings.Join(strings.Fields(plain), " "), v.Name)
	}
	out, code := program(t, "/", "help", "statos")
	if code == 0 {
		t.Error("help of an unknown verb = 0")
	}
	says(t, "help statos", out, "status")
}

func statuses(t *testing.T, r *rig.Rig) {
	running(r, "app:web.1")
	did(r, "status", "web")
	says(t, "status", exits(r, control.ExitNotRunning, "status", "false"), "STOPPED")
	did(r, "stop", "web")
	exits(r, control.ExitNotRunning, "status", "app:web.1")
	exits(r, control.ExitNotRunning, "signal", "HUP", "web")
	exits(r, control.ExitNotRunning, "pid", "web")
	did(r, "status") // of all: it was not asked whether they run
	did(r, "start", "web")
	exits(r, control.ExitUsage, "signal", "NOSUCH", "web")
	exits(r, control.ExitUsage, "stop")
	exits(r, control.ExitUsage, "scale", "web=many")
	exits(r, control.ExitNoName, "status", "wbe")
	exits(r, control.ExitDone, "events")
	if _, code := program(t, "/", "status", "--socket", "/nowhere/s"); code != control.ExitNoServer {
		t.Errorf("status without a supervisor = %d, want %d", code, control.ExitNoServer)
	}
	if _, code := program(t, "/", "frobnicate"); code != control.ExitUsage {
		t.Errorf("an unknown verb = %d, want %d", code, control.ExitUsage)
	}
}

func restarts(t *testing.T, r *rig.Rig) {
	names := []string{"a:v.1", "a:w.1", "b:x.1"}
	before := running(r, names...)
	changed := func(want ...string) {
		t.Helper()
		after := pids(r)
		for _, name := range names {
			if (after[name] != before[name]) != slices.Contains(want, name) || after[name] == 0 {
				t.Errorf("%s has pid %d, had %d; want %v restarted", name, after[name], before[name], want)
			}
		}
		before = after
	}
	did(r, "restart", "a:v")
	changed("a:v.1")
	did(r, "restart", "a:*")
	changed("a:v.1", "a:w.1")
	did(r, "restart", "a:w.1", "b:x")
	changed("a:w.1", "b:x.1")
	did(r, "restart", "all")
	changed(names...)
	says(t, "restart", exits(r, control.ExitNoName, "restart", "a:w", "a:nobody", "b:x"), "a:nobody", "no such name")
	changed("a:w.1", "b:x.1")
}

// open is the configuration of a supervisor that others can reach.
func open(mode rig.Mode, yaml string) rig.Config {
	return rig.Config{
		Mode: mode, Parent: "/run", YAML: yaml, Socket: "{D}/sock/s",
		Argv:  []string{"run", "-c", "p.yaml", "--socket", "{D}/sock/s"},
		Setup: func(dir string) { _ = os.Chmod(dir, 0o755) },
	}
}

func empowered(t *testing.T, mode rig.Mode) {
	rig.NeedRoot(t)
	r := rig.New(t, open(mode, `
applications:
  shop: {workers: {web: {command_line: '{H} sleep'}}, access: {restart: [group:daemon]}}
  other: {workers: {web: {command_line: '{H} sleep'}}}
`))
	const daemon = 1
	before := running(r, "shop:web.1", "other:web.1")
	out, errs, code := r.CmdAs(daemon, "restart", "shop:web")
	after := pids(r)
	if code != 0 || after["shop:web.1"] == before["shop:web.1"] || after["shop:web.1"] == 0 {
		t.Errorf("restart by one of the group = %d %s%s, pids %v, were %v", code, out, errs, after, before)
	}
	for uid, list := range map[int][][]string{
		daemon:     {{"shutdown"}, {"restart", "other:web"}, {"stop", "shop:web"}, {"restart", "all"}, {"reload"}, {"add", "shop:x", "id"}, {"signal", "KILL", "shop:web"}, {"scale", "shop:web=0"}},
		rig.Nobody: {{"restart", "shop:web"}, {"shutdown"}, {"status"}},
	} {
		for _, args := range list {
			before := pids(r)["other:web.1"]
			if _, errs, code := r.CmdAs(uid, args[0], args[1:]...); code != control.ExitDenied {
				t.Errorf("%v by uid %d = %d %s, want %d", args, uid, code, errs, control.ExitDenied)
			}
			if got := pids(r); got["other:web.1"] != before || got["shop:web.1"] == 0 {
				t.Errorf("%v by uid %d: pids = %v", args, uid, got)
			}
		}
	}
}

func refusedBySocket(t *testing.T, mode rig.Mode) {
	rig.NeedRoot(t)
	c := open(mode, "applications: {app: {workers: {web: {command_line: '{H} sleep'}}}}")
	c.Setup = func(dir string) {
		_ = os.Chmod(dir, 0o755)
		_ = os.Mkdir(filepath.Join(dir, "sock"), 0o755)
	}
	r := rig.New(t, c)
	before := running(r, "app:web.1")
	_, errs, code := r.CmdAs(rig.Nobody, "stop", "all")
	if code != control.ExitDenied {
		t.Errorf("stop by another user = %d, want %d", code, control.ExitDenied)
	}
	says(t, "stop by another user", errs, "permission denied")
	if got := pids(r); !maps.Equal(got, before) {
		t.Errorf("pids = %v, want %v", got, before)
	}
	did(r, "stop", "all")
}

func refusedByRequest(t *testing.T, mode rig.Mode) {
	rig.NeedRoot(t)
	r := rig.New(t, open(mode, "access: {status: [user:nobody]}\napplications: {app: {workers: {web: {command_line: '{H} sleep'}}}}"))
	before := running(r, "app:web.1")
	if _, errs, code := r.CmdAs(rig.Nobody, "status"); code != 0 {
		t.Errorf("status = %d %s, want 0", code, errs)
	}
	_, errs, code := r.CmdAs(rig.Nobody, "stop", "all")
	if code != control.ExitDenied {
		t.Errorf("stop by another user = %d, want %d", code, control.ExitDenied)
	}
	says(t, "stop by another user", errs, "65534", "stop")
	if got := pids(r); !maps.Equal(got, before) {
		t.Errorf("pids = %v, want %v", got, before)
	}
	r.WaitConsole("65534")
}

func fineGrained(t *testing.T, r *rig.Rig) {
	delays := func(name string) (out []float64) {
		for _, e := range history(r) {
			if e.Name == name && e.To == "BACKOFF" {
				out = append(out, e.Delay)
			}
		}
		return out
	}
	for name, want := range map[string]struct {
		starts int
		delays []float64
	}{
		"app:default.1": {3, []float64{0.01}},
		"app:own.1":     {4, []float64{0.01, 0.02}},
		"app:slow.1":    {4, []float64{0.01, 0.02}},
	} {
		r.WaitState(name, "FATAL")
		if got := count(states(r, name), "STARTING"); got != want.starts {
			t.Errorf("%s was started %d times, want %d", name, got, want.starts)
		}
		if got := delays(name); !slices.Equal(got, want.delays) {
			t.Errorf("delays of %s = %v, want %v", name, got, want.delays)
		}
	}
	// The signal comes when the run is known to be executed: it lives 5 ms from there.
	for n := range 6 {
		r.LineAfter("app:healthy.1", "ready", n)
		did(r, "signal", "USR1", "healthy")
	}
	if got := delays("app:healthy.1"); len(got) > 0 {
		t.Errorf("delays of healthy = %v, want none", got)
	}
	did(r, "start", "window", "--no-wait") // last: it fills the list of events
	for _, name := range []string{"app:healthy.1", "app:window.1"} {
		if st := r.WaitStatus(name, func(st control.Status) bool { return st.State == "FATAL" || st.Run > 6 }); st.State == "FATAL" {
			t.Errorf("%s = %+v, want it to go on", name, st)
		}
	}
	if len(delays("app:window.1")) == 0 {
		t.Error("window has no delays")
	}
	did(r, "stop", "healthy", "window")
	r.Line("app:term.1", "ready")
	r.Line("app:long.1", "ready")
	did(r, "stop", "term", "long")
	if st := r.Of("app:term.1"); st.LastExit == nil || st.LastExit.Signal != "SIGKILL" {
		t.Errorf("term = %+v, want it killed after its stop_timeout", st)
	}
	if st := r.Of("app:long.1"); st.LastExit == nil || st.LastExit.Signal != "" || st.LastExit.Code != 0 {
		t.Errorf("long = %+v, want it to have had its time", st)
	}
}
