package seeds

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

var circus = []row{
	{"CI-01", all(map[string]func(*testing.T){
		"start and stop": in(rig.Config{Procfile: "web: {H} double-fork\nkeep: {H} sleep\n"}, startAndStop),
		"respawn":        in(crashing, respawned),
		"signal": in(rig.Config{Procfile: "web: {H} count-signal HUP {D}/count\n"}, func(t *testing.T, r *rig.Rig) {
			r.Line("app:web.1", "ready")
			did(r, "signal", "HUP", "app:web")
			r.Line("app:web.1", "got HUP")
			did(r, "stop", "web")
			exits(r, control.ExitNotRunning, "signal", "HUP", "app:web")
		}),
	})},
	{"CI-02", func(t *testing.T) {
		t.Parallel()
		root, err := rig.Root()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "test", "-count=1", "-run", "^Example", "-v", "./init")
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: Example") {
			t.Errorf("%v: %v\n%s", cmd.Args, err, out)
		}
	}},
	{"CI-05", all(map[string]func(*testing.T){"scale": in(rig.Config{
		Procfile: "web: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {num_instances: 2}}}}",
	}, scaled), "add": in(rig.Config{Procfile: "web: {H} sleep\n"}, addAndRemove)})},
	{"CI-06", in(rig.Config{
		Procfile: "web: {H} sleep\nother: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {num_instances: 4}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		before := running(r, append(instances("app:web", 4), "app:other.1")...)
		did(r, "restart", "app:web")
		for name, pid := range pids(r) {
			if (pid == before[name]) != (name == "app:other.1") {
				t.Errorf("%s has pid %d, had %d", name, pid, before[name])
			}
		}
		if n := alive(r, "sleep"); n != 5 {
			t.Errorf("%d processes, want 5", n)
		}
	})},
	{"CI-07", in(rig.Config{
		Procfile: "web: {H} count-signal USR1 {D}/child.$PAZINIT_INSTANCE & exec {H} count-signal USR1 {D}/leader.$PAZINIT_INSTANCE\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {num_instances: 10}}}}",
	}, broadcast)},
	{"CI-09", in(rig.Config{Procfile: "false: false\nkeep: {H} sleep\n"}, abandoned)},
	{"CI-15", library},
	{"CI-17", in(rig.Config{
		Procfile: "web: {H} flood 1000000 50\nkeep: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {restart: never, stdout: {file: out}}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		r.WaitState("app:web.1", "EXITED")
		r.Until("all is written", func() bool { return len(r.Read("out")) == 1000000 })
		inOrder(t, "out", r.Read("out"), 20000, 50)
	})},
	{"CI-18", in(rig.Config{
		Procfile: "a: {H} sleep\nb: {H} sleep\nc: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {a: {num_instances: 4}, b: {num_instances: 4}, c: {num_instances: 4}}}}",
	}, pools)},
	{"CI-21", in(rig.Config{
		Procfile: "myprogram: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {myprogram: {num_instances: 100}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		did(r, "start", "all")
		seen := map[int]bool{}
		for _, pid := range running(r, instances("app:myprogram", 100)...) {
			seen[pid] = true
		}
		if len(seen) != 100 || alive(r, "sleep") != 100 {
			t.Errorf("%d pids, %d processes, want 100 each", len(seen), alive(r, "sleep"))
		}
	})},
	{"CI-22", in(rig.Config{
		Procfile: "keep: {H} sleep\nweb: {H} flood 100000 100\n",
		YAML:     "applications: {app: {procfile: Procfile, restart: never, stdout: {dir: logs}, workers: {web: {num_instances: 500}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		for _, name := range instances("app:web", 500) {
			r.WaitState(name, "EXITED")
			file := "logs/" + strings.ReplaceAll(name, ":", ".") + ".stdout.log"
			r.Until("all is written", func() bool { return len(r.Read(file)) == 100000 })
			inOrder(t, file, r.Read(file), 1000, 100)
		}
	})},
	{"CI-23", in(rig.Config{
		Procfile: "web: {H} flood 20000 100\none: {H} count-signal USR1 {D}/count\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {num_instances: 100, restart: never, stdout: {file: myprogram.log}}, one: {stdout: {file: one.log}}}}}",
	}, oneFile)},
	{"CI-24", in(rig.Config{
		Procfile: "web: {H} flood 1000000 100\none: {H} count-signal USR1 {D}/count\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {restart: never, stdout: {pipe_to: 'exec cat >>web.log'}}, one: {stdout: {pipe_to: 'exec cat >>one.log'}}}}}",
	}, ownLogger)},
	{"CI-25", alone(rig.Config{
		Procfile: "web: {H} count-signal USR1 /dev/null\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {num_instances: " + strconv.Itoa(many) + "}}}}",
	}, manyPipes)},
	{"CI-26", in(rig.Config{
		Procfile: "default: false\nagain: false\nkeep: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {again: {retry_after: 300ms, retry_times: 1, backoff: {base: 1ms}}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		if st := r.WaitState("app:default.1", "FATAL"); st.NextTry == nil {
			t.Errorf("default = %+v, want a next try", st)
		}
		st := r.WaitStatus("app:again.1", func(st control.Status) bool { return st.State == "FATAL" && st.NextTry == nil })
		got := states(r, "app:again.1")
		if st.Run != 10 || count(got, "FATAL") != 2 || count(got, "STARTING") != 10 {
			t.Errorf("run %d, states %v: want two rounds of five", st.Run, got)
		}
	})},
	{"CI-27", in(rig.Config{
		Procfile: "false: false\nping: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {false: {autostart: false, backoff: {base: 10ms}}}}}",
	}, alert)},
	{"CI-28", in(soakConfig, soaked)},
	{"CI-31", func(t *testing.T) {
		t.Parallel()
		help, code := program(t, "/", "help")
		if code != 0 {
			t.Errorf("help = %d", code)
		}
		for _, v := range control.Verbs() {
			says(t, "help", help, "  "+v.Name+" ", v.Short)
			out, code := program(t, "/", v.Name, "-h")
			if code != 0 || !strings.Contains(out, v.Short) {
				t.Errorf("%s -h = %d %q", v.Name, code, out)
			}
		}
		// What a configuration can change of what runs: its workers, their number,
		// whether they run, their files, the whole of it.
		for _, verb := range []string{"start", "stop", "restart", "signal", "scale", "add", "remove", "reload", "plan", "reopen", "logs", "events", "shutdown"} {
			if control.Lookup(verb) == nil {
				t.Errorf("there is no verb %s", verb)
			}
		}
	}},
}

func addAndRemove(t *testing.T, r *rig.Rig) {
	before := running(r, "app:web.1")
	did(r, "add", "--count", "2", "app:extra", rig.Helper+" sleep 3600007")
	running(r, "app:extra.1", "app:extra.2")
	if st := r.Of("app:extra.1"); st.InFile || !strings.Contains(st.Command, "3600007") {
		t.Errorf("extra = %+v, want it not in the file", st)
	}
	says(t, "plan", did(r, "plan"), "app:extra", "not in the file")
	says(t, "reload", did(r, "reload"))
	if got := r.Of("app:extra.1"); got.State != "RUNNING" || got.Run != 1 {
		t.Errorf("extra after a reload = %+v", got)
	}
	says(t, "remove", exits(r, control.ExitFailed, "remove", "app:extra"), "app:extra")
	did(r, "remove", "--force", "app:extra")
	if n := alive(r, "3600007"); n != 0 || len(r.Status()) != 1 {
		t.Errorf("%d processes of it, status %+v", n, r.Status())
	}
	did(r, "stop", "web")
	did(r, "remove", "app:web")
	if got := r.Status(); len(got) != 0 {
		t.Errorf("status = %+v, want nothing", got)
	}
	says(t, "plan", exits(r, 8, "plan"), "+ app:web")
	did(r, "reload")
	if got := running(r, "app:web.1"); maps.Equal(got, before) {
		t.Errorf("pids = %v, want others", got)
	}
}

func broadcast(t *testing.T, r *rig.Rig) {
	names := instances("app:web", 10)
	for _, name := range names {
		r.LineAfter(name, "ready", 1)
	}
	count := func(file string, i int) int { return strings.Count(r.Read(fmt.Sprintf("%s.%d", file, i)), "\n") }
	did(r, "signal", "USR1", "app:*")
	for i := range names {
		r.Until("the leader has counted", func() bool { return count("leader", i+1) > 0 })
	}
	did(r, "signal", "--tree", "USR1", "app:*")
	for i, name := range names {
		r.Until("both have counted", func() bool { return count("leader", i+1) > 1 && count("child", i+1) > 0 })
		if l, c := count("leader", i+1), count("child", i+1); l != 2 || c != 1 {
			t.Errorf("%s: leader counted %d, child %d, want 2 and 1", name, l, c)
		}
	}
}

func abandoned(t *testing.T, r *rig.Rig) {
	st := r.WaitState("app:false.1", "FATAL")
	var delays []float64
	for _, e := range history(r) {
		if e.Name == "app:false.1" && e.To == "BACKOFF" {
			delays = append(delays, e.Delay)
		}
	}
	if len(delays) != 3 || !slices.IsSorted(delays) || delays[2] < 2*delays[1] || delays[1] < 2*delays[0] {
		t.Errorf("delays = %v, want three growing ones", delays)
	}
	if got := count(states(r, "app:false.1"), "STARTING"); got != 5 {
		t.Errorf("%d tries, want 5", got)
	}
	if st.NextTry == nil || st.NextTry.Sub(st.Since).Round(time.Second) != 5*time.Minute {
		t.Errorf("next try = %v, want 5 minutes after %v", st.NextTry, st.Since)
	}
	idle(r, 3*time.Second)
}

func library(t *testing.T) {
	t.Parallel()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "library")
	build := exec.Command("go", "build", "-o", bin, "./tests/seeds/testdata/library")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for place, argv := range map[string][]string{"process": {bin}, "pid1": {"unshare", "-fp", "--mount-proc", "--kill-child", bin}} {
		if place == "pid1" {
			rig.NeedRoot(t)
		}
		out, err := exec.Command(argv[0], append(argv[1:], rig.Helper)...).CombinedOutput()
		if want := "code 0\nprocesses 6 left 0\ngoroutines 0\n"; err != nil || string(out) != want {
			t.Errorf("as %s = %v %q, want %q", place, err, out, want)
		}
	}
}

// inOrder looks for a flood's lines, all of them and whole.
func inOrder(t *testing.T, name, text string, lines, width int) {
	t.Helper()
	i := 0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, strconv.Itoa(i)+" x") || len(line) != width {
			t.Errorf("line %d of %s = %q", i, name, line)
			return
		}
		i++
	}
	if i != lines {
		t.Errorf("%s has %d lines, want %d", name, i, lines)
	}
}

func oneFile(t *testing.T, r *rig.Rig) {
	for _, name := range instances("app:web", 100) {
		r.WaitState(name, "EXITED")
	}
	r.Until("all is written", func() bool { return len(r.Read("myprogram.log")) >= 100*20000 })
	next := map[string]int{}
	whole := regexp.MustCompile(`^(\d+) x+\n$`)
	for line := range strings.Lines(r.Read("myprogram.log")) {
		m := whole.FindStringSubmatch(line)
		if m == nil || len(line) != 100 {
			t.Fatalf("line %q is not one that was written", line)
		}
		next[m[1]]++
	}
	for n, times := range next {
		if times != 100 {
			t.Errorf("line %s is there %d times, want 100", n, times)
		}
	}
	if len(next) != 200 {
		t.Errorf("%d different lines, want 200", len(next))
	}
	// A line is there when it was written, not at the end or at a tick.
	r.Until("a lone line is written", func() bool { return r.Read("one.log") == "ready\n" })
	kill(r, "app:one.1", syscall.SIGUSR1)
	r.Until("another line is written", func() bool { return r.Read("one.log") == "ready\ngot USR1\n" })
}

func ownLogger(t *testing.T, r *rig.Rig) {
	r.WaitState("app:web.1", "EXITED")
	r.Until("all is written", func() bool { return len(r.Read("web.log")) == 1000000 })
	inOrder(t, "web.log", r.Read("web.log"), 10000, 100)

	log := func() string { return r.Read("one.log") }
	r.Until("the logger writes", func() bool { return log() == "ready\n" })
	find := func(not int) (logger int) {
		r.Until("the logger runs", func() bool {
			for _, pid := range r.Processes() {
				to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/1", pid))
				if to == r.Path("one.log") && cmdline(pid) == "cat " && pid != not {
					logger = pid
				}
			}
			return logger != 0
		})
		return logger
	}
	worker := host(r, "app:one.1")
	want := "ready\n"
	for range 3 {
		logger := find(0)
		// While it is stopped, what comes stays in the pipe.
		if err := syscall.Kill(logger, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		r.Until("the logger is stopped", func() bool { return strings.HasPrefix(rig.Field(logger, "State"), "T") })
		for range 5 {
			before := strings.Count(r.Read("count"), "\n")
			kill(r, "app:one.1", syscall.SIGUSR1)
			r.Until("the signal is counted", func() bool { return strings.Count(r.Read("count"), "\n") == before+1 })
			want += "got USR1\n"
		}
		if err := syscall.Kill(logger, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.Until("the next logger has what was in the pipe", func() bool { return log() == want })
		find(logger)
	}
	if st := r.Of("app:one.1"); st.Run != 1 || r.HostPID(st.PID) != worker {
		t.Errorf("one = %+v, want it untouched", st)
	}
}

// many are as many instances as nobody has, but on an emulated processor.
var many = func() int {
	if rig.Emulated {
		return 200
	}
	return 2000
}()

func manyPipes(t *testing.T, r *rig.Rig) {
	did(r, "start", "all")
	if n := len(pids(r)); n != many {
		t.Errorf("%d instances run, want %d", n, many)
	}
	// Each says a word, the last one too.
	r.Until("all have said that they are ready", func() bool {
		n := 0
		r.Ask(&control.Request{Verb: "logs", Lines: -1}, func(l *control.Reply) {
			if l.Log != nil && l.Log.Line == "ready" {
				n++
			}
		})
		return n == many
	})
	kill(r, fmt.Sprintf("app:web.%d", many), syscall.SIGUSR1)
	r.Until("the last one is heard", func() bool {
		return slices.Equal(r.Logs(fmt.Sprintf("app:web.%d", many)), []string{"ready", "got USR1"})
	})
	threads := r.Threads()
	did(r, "stop", "all")
	if n := alive(r, "count-signal"); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	if threads >= 20 {
		t.Errorf("%d threads, want less than 20", threads)
	}
}

func alert(t *testing.T, r *rig.Rig) {
	running(r, "app:ping.1")
	// With what a script needs of the events: text to look at.
	script := exec.Command("sh", "-c", `"$BIN" events -f --json --socket "$S" | while read -r e; do
		printf '%s\n' "$e" >>seen
		case $e in *'"kind":"state"'*'"to":"FATAL"'*) echo mail >>mails;; esac
	done`)
	script.Dir = r.Dir
	script.Env = append(os.Environ(), "BIN="+rig.Binary, "S="+r.Socket)
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	defer script.Wait() //nolint:errcheck // it ends with the supervisor
	defer r.Signal(syscall.SIGTERM)
	r.Until("the script hears", func() bool {
		did(r, "restart", "ping")
		return r.Read("seen") != ""
	})
	r.Do(&control.Request{Verb: "start", Names: []string{"app:false"}})
	r.WaitState("app:false.1", "FATAL")
	r.Until("the mail is sent", func() bool { return r.Read("mails") != "" })
	did(r, "restart", "ping")
	r.Until("the script has all", func() bool {
		return strings.Count(r.Read("seen"), `"from":"STARTING","to":"RUNNING"`) >= strings.Count(r.Read("seen"), `"from":"STOPPING","to":"STARTING"`) && strings.Contains(r.Read("seen"), "FATAL")
	})
	var deaths, backoffs, fatals int
	for line := range strings.Lines(r.Read("seen")) {
		var e control.Event
		if err := json.NewDecoder(bytes.NewReader([]byte(line))).Decode(&e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		switch {
		case e.Name != "app:false.1":
		case e.Kind == "exit" && e.Exit != nil && e.Exit.Code == 1:
			deaths++
		case e.To == "BACKOFF":
			if backoffs++; e.Delay <= 0 || e.Try != backoffs+1 {
				t.Errorf("backoff = %+v, want a delay and try %d", e, backoffs+1)
			}
		case e.To == "FATAL":
			fatals++
		}
	}
	if deaths != 5 || backoffs != 3 || fatals != 1 || r.Read("mails") != "mail\n" {
		t.Errorf("%d deaths, %d backoffs, %d fatal, mails %q: want 5, 3, 1 and one mail", deaths, backoffs, fatals, r.Read("mails"))
	}
}

var soakConfig = rig.Config{
	Procfile: "web: {H} sleep\n",
	YAML:     "applications: {app: {procfile: Procfile, healthy_after: 1ms, max_restarts: unlimited, workers: {web: {num_instances: 150}}}}",
}

// pss is the supervisor's share of memory in KiB: pages that several processes
// map count in part.
func pss(t *testing.T, r *rig.Rig) int { return memory(t, r, "Pss:") }

// anonymous is the supervisor's own memory in KiB. Unlike its share of the
// binary's pages it does not grow when another supervisor ends.
func anonymous(t *testing.T, r *rig.Rig) int { return memory(t, r, "Anonymous:") }

func memory(t *testing.T, r *rig.Rig, field string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", r.PID))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == field {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in smaps_rollup", field)
	return 0
}

// soaked kills at random, for as long as soakTime says, and looks whether each
// death is answered and nothing grows.
func soaked(t *testing.T, r *rig.Rig) {
	did(r, "start", "all")
	kills := 0
	round := func() {
		for range 100 {
			name := fmt.Sprintf("app:web.%d", rand.IntN(150)+1)
			before := r.WaitState(name, "RUNNING")
			pid := r.HostPID(before.PID)
			if pid == 0 || syscall.Kill(pid, syscall.SIGKILL) != nil {
				t.Fatalf("%s, pid %d, is gone", name, before.PID)
			}
			kills++
			r.WaitStatus(name, func(st control.Status) bool { return st.State == "RUNNING" && st.Run == before.Run+1 })
		}
	}
	round()
	round()
	fds, before := r.FDs(), anonymous(t, r)
	for end := time.Now().Add(soakTime); ; {
		round()
		if time.Now().After(end) {
			break
		}
	}
	restarts := 0
	for _, st := range r.Status() {
		restarts += st.Restarts
	}
	if restarts != kills || len(pids(r)) != 150 || alive(r, "sleep") != 150 {
		t.Errorf("%d restarts for %d kills, %d run, %d processes", restarts, kills, len(pids(r)), alive(r, "sleep"))
	}
	r.Until("no descriptor is left over", func() bool { return r.FDs() <= fds+2 })
	if got := anonymous(t, r); got > before+1024 {
		t.Errorf("memory grew from %d KiB to %d KiB in %d restarts", before, got, kills)
	}
}
