package seeds

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

var pazuzu = []row{
	{"PZ-01", in(rig.Config{
		Procfile: "a: {H} sleep\nb: {H} sleep\nc: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {a: {num_instances: 4}, b: {num_instances: 4}, c: {num_instances: 4}}}}",
	}, pools)},
	{"PZ-02", in(rig.Config{Setup: stubs, Procfile: procfileLines, Env: stubEnv, YAML: "applications: {app: {procfile: Procfile, restart: never}}"}, commandLines)},
	{"PZ-04", in(rig.Config{
		YAML:  "applications: {a: {procfile: one, workers: {web: {num_instances: 2}}}, b: {procfile: two, workers: {web: {num_instances: 2}}}}",
		Files: map[string]string{"one": "web: {H} sleep\n", "two": "web: {H} sleep\n"},
	}, twoApplications)},
	{"PZ-05", all(map[string]func(*testing.T){"job": in(rig.Config{
		Procfile: "keep: {H} sleep\njob: date >> {D}/t\nlong: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {job: {restart: never, autostart: false}, long: {restart: never}}}}",
	}, job), "shop": shop})},
	{"PZ-06", in(rig.Config{Procfile: "web: {H} double-fork\nkeep: {H} sleep\n"}, startAndStop)},
	{"PZ-07", in(crashing, respawned)},
	{"PZ-08", in(rig.Config{
		Procfile: "web: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {num_instances: 2}}}}",
	}, scaled)},
	{"PZ-09", in(rig.Config{
		Procfile: "seq: seq 5000; exec {H} sleep\nshort: seq 5000\nkeep: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {short: {restart: never}}}}",
	}, recentOutput)},
	{"PZ-12", in(rig.Config{Procfile: "web: {H} sleep\n"}, scaledFromOutside)},
	{"PZ-13", places(minimal)},
	{"PZ-14", in(rig.Config{Procfile: "web: {H} double-fork\n", NoWait: true}, foreground)},
	{"PZ-15", all(map[string]func(*testing.T){"stderr": places(logToStderr), "file": in(rig.Config{
		Procfile: "web: {H} sleep\n",
		YAML:     "log_path: own.log\n",
	}, logToFile), "syslog": places(logToSyslog)})},
	{"PZ-16", all(map[string]func(*testing.T){"set": places(socketPath), "default": places(socketDefault)})},
	{"PZ-17", all(map[string]func(*testing.T){"run": in(rig.Config{
		YAML: "include: [a.yaml, conf.d/*.yaml]\n",
		Files: map[string]string{
			"Procfile":      "w: {H} sleep\nv: {H} sleep\n",
			"a.yaml":        "applications: {app: {procfile: Procfile, workers: {w: {num_instances: 1, stop_timeout: 1s}}}, first: {workers: {x: {command_line: '{H} sleep'}}}}\n",
			"conf.d/2.yaml": "applications: {app: {workers: {w: {num_instances: 3}}}}\n",
			"conf.d/1.yaml": "applications: {app: {workers: {w: {num_instances: 2}, v: {num_instances: 2}}}}\n",
		},
	}, included), "check": includeErrors})},
	{"PZ-21", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"a:b", "a/b", ".."} {
			bad(t, map[string]string{"Procfile": "web: sleep 1\n", "p.yaml": "applications:\n  '" + name + "':\n    procfile: Procfile\n"},
				"{D}/p.yaml:2:3: ", name)
		}
		good(t, map[string]string{"Procfile": "web: sleep 1\n", "p.yaml": "applications:\n  a-b_1:\n    procfile: Procfile\n"})
	}},
	{"PZ-22", all(map[string]func(*testing.T){"run": in(rig.Config{
		YAML: "applications: {f: {procfile: one/Procfile}, d: {procfile: two}}",
		Files: map[string]string{
			"one/Procfile": "web: {H} sleep\n",
			"two/Procfile": "web: {H} sleep\n",
		},
	}, func(t *testing.T, r *rig.Rig) { running(r, "f:web.1", "d:web.1") }), "missing": func(t *testing.T) {
		t.Parallel()
		out := bad(t, map[string]string{"p.yaml": "applications:\n  foo:\n    procfile: nowhere/Procfile\n"}, "applications.foo.procfile", "{D}/nowhere/Procfile")
		if n := strings.Count(out, "\n"); n != 1 {
			t.Errorf("check says %d lines, want one:\n%s", n, out)
		}
		bad(t, map[string]string{"p.yaml": "applications:\n  foo:\n    user: root\n"}, "applications.foo", "procfile")
	}})},
	{"PZ-23", all(map[string]func(*testing.T){"run": in(rig.Config{
		Procfile: "name: {H} print-status hold\nnumber: {H} print-status hold\nown: {H} print-status hold\n",
		YAML:     "applications: {app: {procfile: Procfile, cwd: /, workers: {name: {user: nobody}, number: {user: 65534}}}}",
		Attr:     ownGroups,
	}, users), "ordinary user": otherUserRefused})},
	{"PZ-24", asRoot(rig.Config{
		Procfile: "name: {H} sleep\nnumber: {H} sleep\nuser: {H} sleep\nboth: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, cwd: /, workers: {name: {group: daemon}, number: {group: 1234}, user: {user: daemon}, both: {user: daemon, group: 1234}}}}",
		Attr:     ownGroups,
	}, groups)},
	{"PZ-25", all(map[string]func(*testing.T){"run": in(rig.Config{
		Procfile: "bar: {H} sleep\nbaz: {H} sleep\n",
		YAML:     "applications:\n  foo:\n    procfile: Procfile\n    workers:\n      bar:\n        num_instances: 2\n",
	}, func(t *testing.T, r *rig.Rig) {
		running(r, "foo:bar.1", "foo:bar.2", "foo:baz.1")
		if n := len(r.Status()); n != 3 {
			t.Errorf("%d instances, want 3", n)
		}
	}), "unknown": func(t *testing.T) {
		t.Parallel()
		bad(t, map[string]string{"Procfile": "bar: sleep 1\n", "p.yaml": "applications:\n  foo:\n    procfile: Procfile\n    workers:\n      bra:\n        num_instances: 2\n"},
			"{D}/p.yaml:5:7: ", `"bra"`, "did you mean bar?")
	}})},
	{"PZ-26", in(rig.Config{
		Procfile: "web: {H} sleep 3600001\nother: {H} sleep 3600003\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {command_line: '{H} sleep 3600002'}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		before := running(r, "app:web.1", "app:other.1")
		says(t, "cmdline", cmdline(host(r, "app:web.1")), "sleep 3600002")
		r.WriteYAML("applications: {app: {procfile: Procfile}}")
		did(r, "reload")
		after := running(r, "app:web.1", "app:other.1")
		says(t, "cmdline", cmdline(host(r, "app:web.1")), "sleep 3600001")
		if after["app:web.1"] == before["app:web.1"] || after["app:other.1"] != before["app:other.1"] {
			t.Errorf("pids = %v, were %v: want another of web only", after, before)
		}
	})},
	{"PZ-27", all(map[string]func(*testing.T){"run": in(rig.Config{
		Procfile: "unset: {H} sleep\nnone: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {none: {num_instances: 0}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		running(r, "app:unset.1")
		sts := r.Status()
		if len(sts) != 2 {
			t.Fatalf("status = %+v, want two", sts)
		}
		if st := r.Of("app:none"); st.State != "STOPPED" || st.Instance != 0 || st.PID != 0 {
			t.Errorf("status = %+v, want none STOPPED without an instance", st)
		}
	}), "bad": func(t *testing.T) {
		t.Parallel()
		for _, n := range []string{"-1", "two", "1.5", "''"} {
			bad(t, map[string]string{"Procfile": "web: sleep 1\n", "p.yaml": "applications:\n  app:\n    procfile: Procfile\n    workers:\n      web:\n        num_instances: " + n + "\n"},
				"{D}/p.yaml:6:24: ", "num_instances")
		}
	}})},
	{"PZ-28", all(map[string]func(*testing.T){"static": static, "scratch": places(scratch)})},
	{"PZ-29", in(rig.Config{
		YAML: "applications: {app: {procfile: srv/Procfile}}",
		Files: map[string]string{
			"srv/Procfile":          "web: {H} sleep\nrelative: cat config/unicorn.rb; exec {H} sleep\n",
			"srv/config/unicorn.rb": "# unicorn\n",
		},
	}, func(t *testing.T, r *rig.Rig) {
		want, _ := filepath.EvalSymlinks(r.Path("srv"))
		if got, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", host(r, "app:web.1"))); got != want {
			t.Errorf("cwd = %q, want %q", got, want)
		}
		r.Line("app:relative.1", "# unicorn")
	})},
	{"PZ-30", in(rig.Config{
		Procfile: "web: {H} sleep\nother: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {num_instances: 3}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		ports := map[string]string{}
		for i, name := range append(instances("app:web", 3), "app:other.1") {
			env := environ(t, host(r, name))
			want := strconv.Itoa(i%3 + 1)
			if env["PAZINIT_INSTANCE"] != want || env["PAZINIT_APP"] != "app" || "app:"+env["PAZINIT_WORKER"]+"."+want != name {
				t.Errorf("environment of %s = %v", name, env)
			}
			if p := env["PORT"]; p == "" || ports[p] != "" {
				t.Errorf("PORT of %s = %q, that of %q", name, p, ports[p])
			} else {
				ports[p] = name
			}
		}
	})},
}

func pools(t *testing.T, r *rig.Rig) {
	names := slices.Concat(instances("app:a", 4), instances("app:b", 4), instances("app:c", 4))
	seen := map[int]string{}
	for name, pid := range running(r, names...) {
		if seen[pid] != "" {
			t.Errorf("%s and %s have pid %d both", name, seen[pid], pid)
		}
		seen[pid] = name
		hp := r.HostPID(pid)
		if err := syscall.Kill(hp, 0); err != nil {
			t.Errorf("kill -0 of %s: %v", name, err)
		}
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", hp))
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) < 5 || f[4] != "0" { // tty_nr, proc_pid_stat(5)
			t.Errorf("%s has a terminal: %q", name, b)
		}
	}
	if n := len(r.Status()); n != 12 {
		t.Errorf("%d instances, want 12", n)
	}
}

// The first line is the document's; the others are of its kind.
const procfileLines = "# a comment\r\n" +
	"main: bundle exec unicorn -c config/unicorn.rb config.ru\r\n" +
	"\r\n" +
	"websockets:node app/websockets.js   \r\n" +
	"  # another\r\n" +
	"queue: bundle exec app/queue_processor.rb --queue=\"mail list\" 'a  b' c\\ d\r\n" +
	"variables: node --name=\"$NAME x\" $NAME '$NAME' ~ *.rb\r\n" +
	"pipe: bundle exec one | cat; node \"two\"\r\n" +
	"assign: NAME=other bundle \"$NAME\" -- '#' x#y\r\n" +
	"keep: {H} on-signal USR1 0 0\r\n" +
	"last: node last"

var stubEnv = []string{"PATH={D}/bin:/usr/bin:/bin", "NAME=a  name", "HOME=/home/nobody"}

func stubs(dir string) {
	_ = os.Mkdir(filepath.Join(dir, "bin"), 0o755)
	for _, name := range []string{"bundle", "node"} {
		_ = os.WriteFile(filepath.Join(dir, "bin", name), []byte("#!/bin/sh\nexec "+rig.Helper+" print-args \"${0##*/}\" \"$@\"\n"), 0o755)
	}
	_ = os.WriteFile(filepath.Join(dir, "glob.rb"), nil, 0o644)
}

func commandLines(t *testing.T, r *rig.Rig) {
	n := 0
	for line := range strings.SplitSeq(procfileLines, "\n") {
		name, command, ok := strings.Cut(strings.TrimSuffix(line, "\r"), ":")
		if !ok || name == "keep" {
			continue
		}
		n++
		sh := exec.Command("sh", "-c", command)
		sh.Dir = r.Dir
		for _, kv := range stubEnv {
			sh.Env = append(sh.Env, r.Expand(kv))
		}
		want, err := sh.Output()
		if err != nil {
			t.Fatalf("sh -c %q: %v", command, err)
		}
		r.WaitState("app:"+name+".1", "EXITED")
		if got := strings.Join(r.Logs("app:"+name+".1"), "\n") + "\n"; got != string(want) {
			t.Errorf("%s prints %q, want %q as from sh -c", line, got, want)
		}
	}
	if n != 7 {
		t.Errorf("%d lines were looked at, want 7", n)
	}
}

func twoApplications(t *testing.T, r *rig.Rig) {
	before := running(r, "a:web.1", "a:web.2", "b:web.1", "b:web.2")
	if n := len(r.Status()); n != 4 {
		t.Errorf("%d instances, want 4", n)
	}
	did(r, "stop", "a:web")
	want := map[string]int{"b:web.1": before["b:web.1"], "b:web.2": before["b:web.2"]}
	if got := pids(r); !maps.Equal(got, want) {
		t.Errorf("pids = %v, want %v", got, want)
	}
}

func job(t *testing.T, r *rig.Rig) {
	running(r, "app:keep.1", "app:long.1")
	if st := r.Of("app:job.1"); st.State != "STOPPED" || st.Run != 0 {
		t.Errorf("job = %+v, want it not started", st)
	}
	for run := range 3 {
		did(r, "start", "job")
		st := r.WaitState("app:job.1", "EXITED")
		if st.LastExit == nil || st.LastExit.Code != 0 || st.Run != uint64(run+1) {
			t.Errorf("job = %+v, want exit 0 of run %d", st, run+1)
		}
		if got := strings.Count(r.Read("t"), "\n"); got != run+1 {
			t.Errorf("%d lines were written, want %d", got, run+1)
		}
	}
	if got := states(r, "app:job.1"); slices.Contains(got, "BACKOFF") || count(got, "STARTING") != 3 {
		t.Errorf("states = %v, want three runs and no BACKOFF", got)
	}
	// A run that is still there at the next time is not started twice.
	pid := r.Of("app:long.1").PID
	says(t, "start", did(r, "start", "long"), "already")
	if st := r.Of("app:long.1"); st.PID != pid || st.Run != 1 {
		t.Errorf("long = %+v, want pid %d as before", st, pid)
	}
}

func startAndStop(t *testing.T, r *rig.Rig) {
	grandchild := r.Number("app:web.1", "grandchild ")
	before := running(r, "app:web.1", "app:keep.1")
	did(r, "stop", "app:web")
	if st := r.Of("app:web.1"); st.State != "STOPPED" || st.PID != 0 {
		t.Errorf("status = %+v, want STOPPED", st)
	}
	if r.Lives(before["app:web.1"]) || r.Lives(grandchild) || alive(r, "double-fork") > 0 {
		t.Error("something of the tree is left")
	}
	says(t, "second stop", did(r, "stop", "app:web"), "app:web.1", "not running")
	did(r, "start", "app:web")
	if st := r.Of("app:web.1"); st.State != "RUNNING" || st.PID == before["app:web.1"] || !r.Lives(st.PID) {
		t.Errorf("status = %+v, want RUNNING with another pid than %d", st, before["app:web.1"])
	}
	for _, verb := range []string{"start", "stop", "restart"} {
		says(t, verb, exits(r, control.ExitNoName, verb, "app:wbe"), "app:wbe", "no such name", "web")
	}
	if got := r.Of("app:keep.1").PID; got != before["app:keep.1"] {
		t.Error("another worker was touched")
	}
}

var crashing = rig.Config{
	Procfile: "web: {H} sleep\none: {H} on-signal USR1 1 0\nzero: {H} on-signal USR1 0 0\n",
	YAML:     "applications: {app: {procfile: Procfile, workers: {web: {num_instances: 3}}}}",
}

func respawned(t *testing.T, r *rig.Rig) {
	names := append(instances("app:web", 3), "app:one.1", "app:zero.1")
	running(r, names...)
	for _, c := range []struct {
		name   string
		sig    syscall.Signal
		signal string
		code   int
	}{
		{"app:web.2", syscall.SIGKILL, "SIGKILL", 137},
		{"app:web.3", syscall.SIGSEGV, "SIGSEGV", 139},
		{"app:one.1", syscall.SIGUSR1, "", 1},
		{"app:zero.1", syscall.SIGUSR1, "", 0},
	} {
		if c.signal == "" {
			r.Line(c.name, "ready")
		}
		before, seq := pids(r), r.Seq()
		kill(r, c.name, c.sig)
		died := r.WaitEventAfter(seq, func(e control.Event) bool { return e.Name == c.name && e.Kind == "exit" })
		if x := died.Exit; x == nil || x.Signal != c.signal || x.Code != c.code || x.PID != before[c.name] {
			t.Errorf("death of %s = %+v, want signal %q, code %d, pid %d", c.name, x, c.signal, c.code, before[c.name])
		}
		again := r.WaitEventAfter(died.Seq, entered(c.name, "RUNNING"))
		after := pids(r)
		if again.PID == before[c.name] || after[c.name] != again.PID {
			t.Errorf("%s runs as %d (event: %d), was %d", c.name, after[c.name], again.PID, before[c.name])
		}
		delete(before, c.name)
		delete(after, c.name)
		if !maps.Equal(before, after) {
			t.Errorf("others = %v, were %v", after, before)
		}
	}
}

func scaled(t *testing.T, r *rig.Rig) {
	first := running(r, instances("app:web", 2)...)
	same := func(n int) {
		t.Helper()
		got := pids(r)
		if len(got) != n || got["app:web.1"] != first["app:web.1"] || n > 1 && got["app:web.2"] != first["app:web.2"] {
			t.Errorf("pids = %v, want %d with those of %v", got, n, first)
		}
	}
	stopped := func(after uint64) (out []string) {
		for _, e := range history(r) {
			if e.Seq > after && e.Kind == "state" && e.To == "STOPPED" {
				out = append(out, e.Name)
			}
		}
		return out
	}
	down := []string{"app:web.5", "app:web.4", "app:web.3", "app:web.2"}
	did(r, "scale", "app:web=5")
	running(r, instances("app:web", 5)...)
	same(5)
	seq := r.Seq()
	did(r, "scale", "app:web=1")
	same(1)
	if got := stopped(seq); !slices.Equal(got, down) {
		t.Errorf("stopped = %v, want %v", got, down)
	}
	did(r, "scale", "app:web=2")
	first["app:web.2"] = r.WaitState("app:web.2", "RUNNING").PID

	r.WriteYAML("applications: {app: {procfile: Procfile, workers: {web: {num_instances: 5}}}}")
	did(r, "reload")
	running(r, instances("app:web", 5)...)
	same(5)
	seq = r.Seq()
	r.WriteYAML("applications: {app: {procfile: Procfile, workers: {web: {num_instances: 1}}}}")
	did(r, "reload")
	same(1)
	if got := stopped(seq); !slices.Equal(got, down) {
		t.Errorf("stopped = %v, want %v", got, down)
	}
}

func numbers(from, to int) (out []string) {
	for i := from; i <= to; i++ {
		out = append(out, strconv.Itoa(i))
	}
	return out
}

func recentOutput(t *testing.T, r *rig.Rig) {
	last := func(name string) (out []string) {
		for line := range strings.Lines(did(r, "logs", "-n", "100", name)) {
			_, number, _ := strings.Cut(line, name+" | ")
			out = append(out, strings.TrimSpace(number))
		}
		return out
	}
	printed := func(times int) {
		t.Helper()
		r.Until("all numbers are printed", func() bool { return count(r.Logs("app:seq.1"), "5000") == times })
	}
	printed(1)
	want := numbers(4901, 5000)
	if got := last("app:seq.1"); !slices.Equal(got, want) {
		t.Errorf("logs -n 100 = %d lines %.60q, want 4901 to 5000", len(got), got)
	}
	kill(r, "app:seq.1", syscall.SIGKILL)
	r.WaitStatus("app:seq.1", func(st control.Status) bool { return st.Run == 2 && st.State == "RUNNING" })
	printed(2)
	got := r.Logs("app:seq.1")
	if want := append(want, numbers(1, 5000)...); len(got) < 5100 || !slices.Equal(got[len(got)-5100:], want) {
		t.Errorf("%d lines after the restart, want both runs' last 5100", len(got))
	}
	r.WaitState("app:short.1", "EXITED")
	if got := last("app:short.1"); !slices.Equal(got, want) {
		t.Errorf("logs of one that ended = %d lines, want its last", len(got))
	}
}

func scaledFromOutside(t *testing.T, r *rig.Rig) {
	running(r, "app:web.1")
	// The load is a file here; what matters is that a script can see and scale.
	loop := exec.Command("sh", "-ec", `
		while read load; do
			n=$("$BIN" status --json --socket "$S" | grep -o '"state": *"RUNNING"' | wc -l)
			if [ "$load" -gt "$n" ]; then "$BIN" scale app:web=+1 --socket "$S"; fi
			if [ "$load" -lt "$n" ]; then "$BIN" scale app:web=-1 --socket "$S"; fi
			"$BIN" status --json --socket "$S" | grep -o '"state": *"RUNNING"' | wc -l >>"$OUT"
		done`)
	loop.Stdin = strings.NewReader("3\n3\n3\n1\n1\n1\n")
	loop.Env = append(os.Environ(), "BIN="+rig.Binary, "S="+r.Socket, "OUT="+r.Path("counts"))
	if out, err := loop.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, want := strings.Fields(r.Read("counts")), []string{"2", "3", "3", "2", "1", "1"}; !slices.Equal(got, want) {
		t.Errorf("instances = %v, want %v", got, want)
	}
}

// ownMounts executes the rest of the command line in a mount namespace where a
// script has been run.
func ownMounts(script string) []string {
	return []string{"unshare", "-m", "--propagation", "private", "sh", "-ec", script + "\nexec \"$@\"", "sh"}
}

func minimal(t *testing.T, mode rig.Mode) {
	rig.NeedRoot(t)
	const config = "applications:\n  myapp:\n    procfile: /srv/myapp/Procfile\n"
	r := rig.New(t, rig.Config{
		Mode:  mode,
		YAML:  "include: pazuzu.conf\napplications: {}\n",
		Files: map[string]string{"pazuzu.conf": config, "myapp": "myworker: sleep 1h  \n"},
		Wrap:  ownMounts("mount -t tmpfs none /srv && mkdir /srv/myapp && cp {D}/myapp /srv/myapp/Procfile"),
	})
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", host(r, "myapp:myworker.1")))
	if got, want := string(b), "sleep\x001h\x00"; got != want {
		t.Errorf("cmdline = %q, want %q", got, want)
	}
}

func foreground(t *testing.T, r *rig.Rig) {
	r.WaitConsole("app:web.1 is RUNNING")
	if r.Cfg.Mode == rig.Daemon { // it did not detach
		if got := rig.Field(r.PID, "PPid"); got != strconv.Itoa(os.Getpid()) {
			t.Errorf("parent = %s, want this process", got)
		}
	}
	r.Signal(syscall.SIGINT)
	if got := r.Wait(); got != 0 {
		t.Errorf("exit status = %d, want 0", got)
	}
	if left := r.Processes(); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

func logToStderr(t *testing.T, mode rig.Mode) {
	var out [2]*os.File
	for i := range out {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		out[i] = f
	}
	r := rig.New(t, rig.Config{Mode: mode, Procfile: "web: {H} sleep\n", Stdout: out[0], Stderr: out[1]})
	running(r, "app:web.1")
	did(r, "shutdown")
	r.Wait()
	stdout, _ := os.ReadFile(out[0].Name())
	stderr, _ := os.ReadFile(out[1].Name())
	says(t, "stderr", string(stderr), "started, pid ")
	if strings.Contains(string(stdout), "started") {
		t.Errorf("stdout = %q, want pazinit's own log on stderr alone", stdout)
	}
}

func logToFile(t *testing.T, r *rig.Rig) {
	running(r, "app:web.1")
	r.Until("the file has the first line", func() bool { return strings.Contains(r.Read("own.log"), "started, pid ") })
	if err := os.Rename(r.Path("own.log"), r.Path("own.log.1")); err != nil {
		t.Fatal(err)
	}
	r.Signal(syscall.SIGUSR1)
	r.Until("the file is there again", func() bool { _, err := os.Stat(r.Path("own.log")); return err == nil })
	did(r, "restart", "web")
	r.Until("the new file has what came after", func() bool { return strings.Contains(r.Read("own.log"), "app:web.1 is RUNNING") })
	if strings.Contains(r.Console(), "started, pid") {
		t.Errorf("console = %q, want nothing of the log", r.Console())
	}
}

func logToSyslog(t *testing.T, mode rig.Mode) {
	rig.NeedRoot(t)
	dir := t.TempDir()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := rig.New(t, rig.Config{
		Mode: mode, Procfile: "web: {H} sleep\n", YAML: "log_path: syslog\n",
		Wrap: ownMounts(`
			mkdir {D}/dev; mount -t tmpfs none {D}/dev
			for n in null zero full random urandom tty; do touch {D}/dev/$n; mount --bind /dev/$n {D}/dev/$n; done
			ln -s ` + dir + `/log {D}/dev/log
			mount --move {D}/dev /dev`),
	})
	running(r, "app:web.1")
	_ = l.SetReadDeadline(time.Now().Add(rig.Patience))
	buf := make([]byte, 64<<10)
	for {
		n, err := l.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		line := string(buf[:n])
		if !strings.Contains(line, "started, pid ") {
			continue
		}
		end := strings.IndexByte(line, '>')
		pri, err := strconv.Atoi(line[1:max(end, 1)])
		if err != nil || line[0] != '<' || pri>>3 != 3 { // LOG_DAEMON, syslog(3)
			t.Errorf("datagram %q, want facility daemon", line)
		}
		pid := strconv.Itoa(r.PID)
		if mode == rig.PID1 {
			pid = "1"
		}
		says(t, "datagram", line, "pazinit["+pid+"]: ")
		return
	}
}

func socketPath(t *testing.T, mode rig.Mode) {
	c := rig.Config{
		Mode: mode, Procfile: "web: {H} sleep\n", YAML: "socket_path: x/sock\n", Socket: "{D}/x/sock",
		Argv: []string{"run", "-c", "p.yaml"},
		Setup: func(dir string) { // what a killed one leaves
			_ = os.Mkdir(filepath.Join(dir, "x"), 0o700)
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err == nil {
				err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: filepath.Join(dir, "x/sock")})
				syscall.Close(fd)
			}
			if err != nil {
				t.Error(err)
			}
		},
	}
	r := rig.New(t, c)
	running(r, "app:web.1")
	st, err := os.Stat(r.Socket)
	if err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket = %v %v, want one of mode 0600", st.Mode(), err)
	}
	did(r, "restart", "web")
	out, code := program(t, r.Dir, "run", "-c", "p.yaml")
	if code == 0 {
		t.Error("a second one on the same socket ends with status 0")
	}
	says(t, "the second one", out, strconv.Itoa(r.PID), r.Socket)
	did(r, "status")
}

func socketDefault(t *testing.T, mode rig.Mode) {
	rig.NeedRoot(t)
	// The client and we look into the supervisor's mount namespace by its /proc.
	r := rig.New(t, rig.Config{
		Mode: mode, Procfile: "web: {H} sleep\n", Argv: []string{"run", "-c", "p.yaml"},
		Wrap: ownMounts("mkdir {D}/run; mount --bind {D}/run /run"), Socket: "{D}/run/pazinit/pazinit.sock",
	})
	running(r, "app:web.1")
	st, err := os.Stat(r.Socket)
	if err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket = %v %v, want one of mode 0600", st, err)
	}
	if st, err = os.Stat(r.Path("run/pazinit")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("folder = %v %v, want mode 0700", st, err)
	}
	user := rig.New(t, rig.Config{
		Mode: mode, User: rig.Nobody, Procfile: "web: {H} sleep\n", Argv: []string{"run", "-c", "p.yaml"},
		Env: []string{"XDG_RUNTIME_DIR={D}/xdg"}, Socket: "{D}/xdg/pazinit/pazinit.sock",
		Setup: func(dir string) {
			_ = os.Mkdir(filepath.Join(dir, "xdg"), 0o700)
			_ = os.Chown(filepath.Join(dir, "xdg"), rig.Nobody, rig.Nobody)
		},
	})
	running(user, "app:web.1")
}

func included(t *testing.T, r *rig.Rig) {
	running(r, append(instances("app:w", 3), "app:v.1", "app:v.2", "first:x.1")...)
	if n := len(r.Status()); n != 6 {
		t.Errorf("%d instances, want 6", n)
	}
}

func includeErrors(t *testing.T) {
	t.Parallel()
	with := func(include string) map[string]string {
		return map[string]string{
			"p.yaml": include, "Procfile": "w: sleep 1\n", "a.yaml": "applications: {app: {procfile: Procfile}}\n",
			"cycle.yaml": "include: [a.yaml, again.yaml]\n", "again.yaml": "include: cycle.yaml\n",
		}
	}
	good(t, with("include: a.yaml\n"))
	good(t, with("include: [a.yaml]\n"))
	good(t, with("include: [a.yaml, none.d/*.yaml]\n"))
	bad(t, with("# one\ninclude: missing.yaml\n"), "{D}/p.yaml:2:10: ", "missing.yaml")
	bad(t, with("include:\n- a.yaml\n- missing.yaml\n"), "{D}/p.yaml:3:3: ", "missing.yaml")
	bad(t, with("include: cycle.yaml\n"), "{D}/again.yaml:1:10: ", "cycle.yaml")
	bad(t, with("include: p.yaml\n"), "{D}/p.yaml:1:10: ", "itself")
}

// ownGroups gives the supervisor groups that no worker of another user may have.
func ownGroups(a *syscall.SysProcAttr) {
	if os.Geteuid() == 0 {
		a.Credential = &syscall.Credential{Groups: []uint32{0, 4, 27}}
	}
}

func ids(t *testing.T, r *rig.Rig, name, uid, gid, groups string) {
	t.Helper()
	pid := host(r, name)
	four := func(id string) string { return strings.Join([]string{id, id, id, id}, "\t") }
	if got := rig.Field(pid, "Uid"); got != four(uid) {
		t.Errorf("Uid of %s = %q, want %s", name, got, uid)
	}
	if got := rig.Field(pid, "Gid"); got != four(gid) {
		t.Errorf("Gid of %s = %q, want %s", name, got, gid)
	}
	// The user's own group may be among them, as initgroups(3) has it.
	if got := rig.Field(pid, "Groups"); got != "" && got != groups {
		t.Errorf("Groups of %s = %q, want none or %q", name, got, groups)
	}
}

func users(t *testing.T, r *rig.Rig) {
	rig.NeedRoot(t)
	ids(t, r, "app:name.1", "65534", "65534", "65534")
	ids(t, r, "app:number.1", "65534", "65534", "")
	own := strconv.Itoa(os.Geteuid())
	if got := strings.Fields(rig.Field(host(r, "app:own.1"), "Uid")); !slices.Equal(got, []string{own, own, own, own}) {
		t.Errorf("Uid = %v, want our own", got)
	}
}

func otherUserRefused(t *testing.T) {
	t.Parallel()
	rig.NeedRoot(t)
	dir, err := os.MkdirTemp("", "pz")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	_ = os.Chmod(dir, 0o755)
	_ = os.WriteFile(filepath.Join(dir, "Procfile"), []byte("web: sleep 1\n"), 0o644)
	_ = os.WriteFile(filepath.Join(dir, "p.yaml"), []byte("applications:\n  app:\n    procfile: Procfile\n    user: daemon\n"), 0o644)
	cmd := exec.Command(rig.Binary, "check", "-c", filepath.Join(dir, "p.yaml"))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: rig.Nobody, Gid: rig.Nobody}}
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != 2 {
		t.Errorf("check = %d, want 2", got)
	}
	says(t, "check", string(out), "p.yaml:4:11: ", "root")
}

func groups(t *testing.T, r *rig.Rig) {
	uid := strconv.Itoa(os.Geteuid())
	ids(t, r, "app:name.1", uid, "1", "")
	ids(t, r, "app:number.1", uid, "1234", "")
	ids(t, r, "app:user.1", "1", "1", "1")
	ids(t, r, "app:both.1", "1", "1234", "")
}

func static(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("ldd", rig.Binary).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not a dynamic executable") {
		t.Errorf("ldd = %v %q", err, out)
	}
}

func scratch(t *testing.T, mode rig.Mode) {
	rig.NeedRoot(t)
	r := rig.New(t, rig.Config{
		Mode: mode, Procfile: "web: {H} sleep\nshell: {H} sleep $X\n",
		Wrap: []string{"chroot", "{D}/root"}, Argv: []string{"run", "-c", "/p.yaml", "--socket", "/s"},
		Setup: func(dir string) {
			root := filepath.Join(dir, "root")
			for from, to := range map[string]string{rig.Binary: rig.Binary, rig.Helper: rig.Helper, filepath.Join(dir, "Procfile"): "Procfile", filepath.Join(dir, "p.yaml"): "p.yaml"} {
				b, err := os.ReadFile(from)
				if err == nil {
					err = os.MkdirAll(filepath.Dir(filepath.Join(root, to)), 0o755)
				}
				if err == nil {
					err = os.WriteFile(filepath.Join(root, to), b, 0o755)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		},
		Socket: "{D}/root/s",
	})
	running(r, "app:web.1")
	st := r.WaitStatus("app:shell.1", func(st control.Status) bool { return st.LastExit != nil })
	says(t, "reason", st.LastExit.Error, "shell", "/bin/sh")
	did(r, "restart", "web")
	entries, err := os.ReadDir(r.Path("root"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	t.Logf("the image: %v", names)
}

// shop: the example has a web server, an application behind it, a daemon that
// works a queue off, and a job.
func shop(t *testing.T) {
	t.Parallel()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "examples/shop")
	if out, code := program(t, dir, "check", "-c", "pazinit.yaml"); code != 0 {
		t.Errorf("check = %d\n%s", code, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "Procfile"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		if name, _, ok := strings.Cut(line, ":"); ok && line[0] != '#' {
			names = append(names, name)
		}
	}
	if want := []string{"redis", "web", "consumer", "tidy", "nginx"}; !reflect.DeepEqual(names, want) {
		t.Errorf("workers = %v, want %v", names, want)
	}
}
