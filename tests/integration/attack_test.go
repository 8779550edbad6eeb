package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

// TestSignalsOfFaults: nothing that a worker can send ends pazinit, but what is
// meant to.
func TestSignalsOfFaults(t *testing.T) {
	rig.Both(t, rig.Config{Procfile: "web: {H} sleep\n"}, func(t *testing.T, r *rig.Rig) {
		before := r.WaitState("app:web.1", "RUNNING")
		for sig := unix.Signal(1); sig <= 64; sig++ {
			switch sig {
			case unix.SIGKILL, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU,
				unix.SIGTERM, unix.SIGINT, unix.SIGQUIT,
				32, 34: // the C library's own: Go catches neither, PID 1 is safe from within
				continue
			}
			r.Signal(sig)
		}
		if after := r.Of("app:web.1"); after.PID != before.PID || after.State != "RUNNING" {
			t.Errorf("after the signals: %+v, want pid %d still", after, before.PID)
		}
	})
}

// TestUnknownNamesByStrangers: who may nothing gets no answer that costs, and
// learns no names.
func TestUnknownNamesByStrangers(t *testing.T) {
	rig.NeedRoot(t)
	r := rig.New(t, rig.Config{
		Procfile: "secret: {H} sleep\n",
		YAML:     "socket_mode: '0666'\napplications: {app: {procfile: Procfile, access: {pid: [user:1]}}}\n",
		Parent:   "/run", // others can reach nothing safe in /tmp
		Setup:    func(dir string) { _ = os.Chmod(dir, 0o755) },
	})
	r.WaitState("app:secret.1", "RUNNING")
	for _, verb := range []string{"stop", "status", "events", "logs", "signal", "scale", "remove"} {
		args := []string{"secre"}
		switch verb {
		case "signal":
			args = []string{"TERM", "secre"}
		case "scale":
			args = []string{"secre=1"}
		}
		out, errs, code := r.CmdAs(rig.Nobody, verb, args...)
		if code != control.ExitDenied || strings.Contains(out+errs, "secret") {
			t.Errorf("%s by nobody: status %d, %s%s", verb, code, out, errs)
		}
	}
	names := make([]string, 300)
	for i := range names {
		names[i] = fmt.Sprint("n", i)
	}
	if reply := r.Do(&control.Request{Verb: "stop", Names: names}); reply.Code != control.ExitUsage {
		t.Errorf("300 names: %s, want it refused", results(reply))
	}
}

// TestAddByOthersInheritsNoSecret: a worker that an ordinary user added.
func TestAddByOthersInheritsNoSecret(t *testing.T) {
	rig.NeedRoot(t)
	r := rig.New(t, rig.Config{
		Procfile: "web: {H} sleep\n",
		YAML:     fmt.Sprintf("socket_mode: '0666'\napplications: {app: {procfile: Procfile, access: {add: ['user:%d']}}}\n", rig.Nobody),
		Env:      []string{"DB_PASSWORD=hunter2"},
		Parent:   "/run", // others can reach nothing safe in /tmp
		Setup:    func(dir string) { _ = os.Chmod(dir, 0o755) },
	})
	for i := range 2 { // the second one: adding does not take the right away
		name := fmt.Sprint("app:mine", i)
		if out, errs, code := r.CmdAs(rig.Nobody, "add", name, "sh -c 'env; id -u; echo done; exec sleep 1000'"); code != 0 {
			t.Fatalf("add by nobody: status %d, %s%s", code, out, errs)
		}
		r.Line(name+".1", "done")
		text := strings.Join(r.Logs(name+".1"), "\n")
		if strings.Contains(text, "hunter2") || !strings.Contains(text, fmt.Sprint(rig.Nobody)) {
			t.Errorf("the worker of nobody printed\n%s", text)
		}
	}
}

// TestPIDFileThatNeverEnds: what a worker puts in the place of its pid file
// neither fills the memory nor holds up those of others.
func TestPIDFileThatNeverEnds(t *testing.T) {
	for what, put := range map[string]string{"link": "ln -sf /dev/zero pid", "fifo": "rm -f pid; mkfifo pid"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t, rig.Config{
				Procfile: "web: sh -c '" + put + "; exit 0'\nother: {H} sleep\n",
				YAML:     "applications: {app: {procfile: Procfile, workers: {web: {restart: never, autostart: false, pid_file: pid}, other: {pid_file: other}}}}",
			})
			r.WaitState("app:other.1", "RUNNING")
			r.Must("start", "web")
			r.WaitState("app:web.1", "EXITED")
			r.Must("restart", "other")
			want := fmt.Sprintln(r.Of("app:other.1").PID)
			r.Until("the pid file of the other is written", func() bool { return r.Read("other") == want })
		})
	}
}

// TestLogThatIsALink: a worker whose log's folder is its own does not make root
// write elsewhere.
func TestLogThatIsALink(t *testing.T) {
	rig.NeedRoot(t)
	r := rig.New(t, rig.Config{
		Procfile: "web: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {user: nobody, autostart: false, command_line: sh -c 'echo evil; exec sleep 1000', stdout: {file: logs/web.log}}}}}",
		Parent:   "/run",
		Files:    map[string]string{"precious": "precious\n"},
		Setup: func(dir string) {
			_ = os.Chmod(dir, 0o755)
			_ = os.Mkdir(dir+"/logs", 0o755)
			_ = os.Symlink("../precious", dir+"/logs/web.log")
			_ = os.Chown(dir+"/logs", rig.Nobody, rig.Nobody)
			_ = os.Lchown(dir+"/logs/web.log", rig.Nobody, rig.Nobody)
		},
	})
	r.Must("start", "web")
	r.WaitConsole("is a link")
	if got := r.Read("precious"); got != "precious\n" {
		t.Errorf("what the link leads to is now %q", got)
	}
}

const stubborn = "applications: {app: {procfile: Procfile, stop_timeout: 300ms%s}}"

// TestScaleThereAndBack: the numbers are those from 1 on, each once, and all run.
func TestScaleThereAndBack(t *testing.T) {
	rig.Both(t, rig.Config{Procfile: "web: {H} ignore-term\n", YAML: fmt.Sprintf(stubborn, "")}, func(t *testing.T, r *rig.Rig) {
		r.Must("start", "web")
		scale := func(count string, noWait bool) {
			t.Helper()
			r.Do(&control.Request{Verb: "scale", Names: []string{"web"}, Count: count, NoWait: noWait})
		}
		scale("4", false)
		scale("1", true)
		scale("4", true)
		for n := 1; n <= 4; n++ {
			name := fmt.Sprint("app:web.", n)
			r.Until(name+" runs and is not about to stop", func() bool {
				st := r.Of(name)
				return st.State == "RUNNING" && len(r.Status()) == 4
			})
		}
		scale("2", true)
		if reply := r.Do(&control.Request{Verb: "start", Names: []string{"app:web.4"}}); reply.Code == 0 {
			t.Errorf("start of what is being removed: %s, want it refused", results(reply))
		}
		scale("3", false)
		r.Until("there are three", func() bool { return len(r.Status()) == 3 })
		for i, st := range r.Status() {
			if st.Instance != i+1 {
				t.Errorf("instance %d has number %d", i+1, st.Instance)
			}
		}
	})
}

// TestRemovedComesBackOtherwise: while it still stops, with a logger now.
func TestRemovedComesBackOtherwise(t *testing.T) {
	r := rig.New(t, rig.Config{Procfile: "web: {H} ignore-term\no: {H} sleep\n", YAML: fmt.Sprintf(stubborn, "")})
	r.Line("app:web.1", "ready")
	r.Write("Procfile", "o: {H} sleep\n")
	r.Do(&control.Request{Verb: "reload", NoWait: true})
	if reply := r.Do(&control.Request{Verb: "scale", Names: []string{"web"}, Count: "3"}); reply.Code == 0 {
		t.Errorf("scale of what is being removed: %s, want it refused", results(reply))
	}
	r.Write("Procfile", "web: {H} ignore-term\no: {H} sleep\n")
	r.WriteYAML(fmt.Sprintf(stubborn, ", workers: {web: {stdout: {pipe_to: sh -c 'exec cat > logged'}}}"))
	r.Must("reload")
	r.Until("the logger has got the line", func() bool { return strings.Contains(r.Read("logged"), "ready") })
}

// TestAddRemoveManyNames: names that went leave nothing that others lack.
func TestAddRemoveManyNames(t *testing.T) {
	r := rig.New(t, rig.Config{Procfile: "web: {H} sleep\n"})
	for i := range 70 {
		name := fmt.Sprint("app", i, ":w")
		if reply := r.Do(&control.Request{Verb: "add", Names: []string{name}, Command: "sleep 1000", Count: "0"}); reply.Code != 0 {
			t.Fatalf("add %s: %s", name, results(reply))
		}
		if reply := r.Do(&control.Request{Verb: "remove", Names: []string{name}, Force: true}); reply.Code != 0 {
			t.Fatalf("remove %s: %s", name, results(reply))
		}
	}
	r.Write("Procfile", "web: {H} sleep\nnew: {H} sleep\n")
	r.Must("reload")
	if st := r.WaitState("app:new.1", "RUNNING"); st.Port != 5100 {
		t.Errorf("the new worker has port %d, want 5100", st.Port)
	}
}

// TestTracee: a worker that makes us its tracer and stops has not ended; a stop
// ends it.
func TestTracee(t *testing.T) {
	trees(t, rig.Config{Procfile: "web: {H} trace-me\n", YAML: quickStop}, func(t *testing.T, r *rig.Rig) {
		r.Line("app:web.1", "ready")
		before := r.Of("app:web.1")
		r.Until("it is a stopped tracee", func() bool {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.HostPID(before.PID)))
			return strings.Contains(string(b), ") t ")
		})
		r.Must("stop", "web")
		for _, e := range r.Events() {
			if e.Kind == "exit" && e.Exit.Signal != "SIGKILL" {
				t.Errorf("exit %+v, want only that by SIGKILL", e.Exit)
			}
		}
		gone(t, r, before.PID)
		if st := r.Of("app:web.1"); st.Run != 1 {
			t.Errorf("there were %d runs, want 1", st.Run)
		}
	})
}
