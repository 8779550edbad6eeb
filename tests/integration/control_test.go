package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

// TestSocketAndFIFO are nobody else's.
func TestSocketAndFIFO(t *testing.T) {
	rig.All(t, rig.Config{Procfile: "web: {H} sleep\n"}, func(t *testing.T, r *rig.Rig) {
		for name, kind := range map[string]os.FileMode{"s": os.ModeSocket, "control": os.ModeNamedPipe} {
			st, err := os.Lstat(r.Path(name))
			if err != nil {
				t.Fatal(err)
			}
			if st.Mode() != kind|0o600 || int(st.Sys().(*syscall.Stat_t).Uid) != max(r.Cfg.User, os.Geteuid()) {
				t.Errorf("%s: %v, uid %d", name, st.Mode(), st.Sys().(*syscall.Stat_t).Uid)
			}
		}
		before := r.WaitState("app:web.1", "RUNNING")
		r.FIFO("restart web")
		r.WaitStatus("app:web.1", func(st control.Status) bool { return st.State == "RUNNING" && st.Run > before.Run })
		r.FIFO("stop app:web.1")
		r.WaitState("app:web.1", "STOPPED")
		r.FIFO("make coffee")
		r.WaitConsole(`"make"`)
		r.FIFO("start wbe")
		r.WaitConsole("wbe")
		r.FIFO("start web")
		r.WaitState("app:web.1", "RUNNING")
		r.FIFO("shutdown")
		if got := r.Wait(); got != 0 {
			t.Errorf("exit status = %d", got)
		}
		for _, name := range []string{"s", "control"} {
			if _, err := os.Lstat(r.Path(name)); err == nil {
				t.Errorf("%s is left after the end", name)
			}
		}
	})
}

// TestSecondSupervisor refuses to start, names the first one's pid and harms
// nothing.
func TestSecondSupervisor(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{Procfile: "web: {H} sleep\n"})
	before := r.WaitState("app:web.1", "RUNNING")
	out, code := r.Another()
	if code != 1 || !strings.Contains(out, fmt.Sprint(r.PID)) {
		t.Errorf("a second supervisor = %d, %q, want 1 and pid %d", code, out, r.PID)
	}
	if out, code := r.Another("--if-not-running"); code != 0 {
		t.Errorf("--if-not-running = %d, %q, want 0", code, out)
	}
	if st := r.Of("app:web.1"); st.PID != before.PID {
		t.Error("the first one's worker was touched")
	}
	// The socket's file may be gone: the lock is not.
	if err := os.Remove(r.Socket); err != nil {
		t.Fatal(err)
	}
	if out, code := r.Another(); code != 1 {
		t.Errorf("a second supervisor without the socket's file = %d, %q, want 1", code, out)
	}
	r.Signal(unix.SIGTERM)
	r.Wait()
}

// TestStaleSocket is taken over.
func TestStaleSocket(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "web: {H} sleep\n",
		Setup: func(dir string) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				err = unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "s")})
			}
			if err != nil {
				t.Error(err)
			}
			unix.Close(fd)
			if err := unix.Mkfifo(filepath.Join(dir, "control"), 0o600); err != nil {
				t.Error(err)
			}
		},
	})
	r.WaitState("app:web.1", "RUNNING")
	r.FIFO("stop web")
	r.WaitState("app:web.1", "STOPPED")
}

// TestKilledSupervisor: the next one takes over its socket.
func TestKilledSupervisor(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{Procfile: "web: {H} exit 3\n", YAML: "applications: {app: {procfile: Procfile, restart: never, autostart: false}}"})
	r.Signal(unix.SIGKILL)
	if got := r.Wait(); got != 137 {
		t.Fatalf("exit status = %d", got)
	}
	r.WriteYAML("applications: {app: {procfile: Procfile, restart: never}}")
	if out, code := r.Another(); code != 3 {
		t.Errorf("the next supervisor = %d, %q, want its worker's 3", code, out)
	}
}

// TestAccess: others get the verbs that the configuration gives them.
func TestAccess(t *testing.T) {
	rig.NeedRoot(t)
	t.Parallel()
	dir, err := os.MkdirTemp("/run", "pz") // not in a folder where everybody may write
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := rig.New(t, rig.Config{
		Procfile: "web: {H} sleep\nsecret: {H} sleep\n", Socket: dir + "/s",
		YAML: `access: {version: [user:65534]}
applications:
  app:
    procfile: Procfile
    workers:
      web: {access: {restart: [user:65534], status: [group:65534]}}
`,
	})
	r.WaitState("app:secret.1", "RUNNING")
	for _, c := range []struct {
		args string
		want int
	}{
		{"version", 0}, {"restart web", 0}, {"status web", 0}, {"status", 0},
		{"restart secret", control.ExitDenied}, {"stop web", control.ExitDenied}, {"stop all", control.ExitDenied},
		{"shutdown", control.ExitDenied}, {"reload", control.ExitDenied}, {"add app:mine sleep 1", control.ExitDenied},
		{"scale web=2", control.ExitDenied}, {"logs secret", control.ExitDenied}, {"signal KILL web", control.ExitDenied},
	} {
		f := strings.Fields(c.args)
		out, errs, code := r.CmdAs(rig.Nobody, f[0], f[1:]...)
		if code != c.want {
			t.Errorf("%s by nobody = %d, want %d: %q %q", c.args, code, c.want, out, errs)
		}
		if c.args == "status" && strings.Contains(out, "secret") {
			t.Errorf("status shows what nobody may not see:\n%s", out)
		}
	}
	if _, _, code := r.CmdAs(54321, "version"); code != control.ExitDenied {
		t.Errorf("version by a stranger = %d, want 5", code)
	}
	r.Signal(unix.SIGTERM)
	r.Wait()
}

// TestClientAlone says plainly when nobody is there or may not be asked.
func TestClientAlone(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{Procfile: "web: {H} sleep\n"})
	r.WaitState("app:web.1", "RUNNING")
	if os.Geteuid() == 0 {
		if _, errs, code := r.CmdAs(rig.Nobody, "status"); code != control.ExitDenied || !strings.Contains(errs, r.Socket) {
			t.Errorf("status by nobody = %d, %q, want 5", code, errs)
		}
	}
	r.Must("shutdown")
	r.Wait()
	if _, errs, code := r.Cmd("status"); code != control.ExitNoServer || !strings.Contains(errs, r.Socket) {
		t.Errorf("status of nobody = %d, %q, want 6", code, errs)
	}
}

// TestVerbs: names, results and exit statuses.
func TestVerbs(t *testing.T) {
	rig.All(t, rig.Config{
		Procfile: "web: {H} sleep\nslow: {H} ignore-term\nfails: {H} exit 1\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {num_instances: 2}, slow: {stop_timeout: 1h}, fails: {autostart: false, restart: never}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		r.WaitState("app:web.1", "RUNNING")
		r.WaitState("app:web.2", "RUNNING")
		r.Line("app:slow.1", "ready")
		for _, c := range []struct {
			args       string
			want       int
			out, error string
		}{
			{"status", 0, "app:web.1", ""},
			{"status web", 0, "app:web.2", ""},
			{"status fails", 3, "STOPPED", ""},
			{"status wbe", 4, "", "web"},
			{"stop web.1 nothing", 4, "app:web.1", "nothing"},
			{"status web.1", 3, "STOPPED", ""},
			{"start app:*.1 --no-wait", 0, "", ""},
			{"pid web.2", 0, "", ""},
			{"stop slow --timeout 50ms", 7, "", ""},
			{"signal KILL --tree slow", 0, "", ""},
			{"start fails", -1, "", ""},
			{"stop -x", 2, "", "-x"},
			{"stop", 2, "", ""},
			{"version", 0, "pazinit", ""},
			{"signal NOSUCH web", 2, "", "NOSUCH"},
		} {
			f := strings.Fields(c.args)
			out, errs, code := r.Cmd(f[0], f[1:]...)
			if code != c.want && c.want >= 0 || !strings.Contains(out, c.out) && !strings.Contains(errs, c.out) || !strings.Contains(errs+out, c.error) {
				t.Errorf("%s = %d, want %d\n%s%s", c.args, code, c.want, out, errs)
			}
		}
		r.WaitState("app:slow.1", "STOPPED")
		out, _, _ := r.Cmd("status", "--json")
		var list []control.Status
		if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 4 || list[0].Name != "app:web.1" {
			t.Errorf("status --json: %v\n%s", err, out)
		}
	})
}

// TestHTTP: curl may ask too.
func TestHTTP(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	rig.Need(t, "curl", err)
	r := rig.New(t, rig.Config{Procfile: "web: {H} sleep\n"})
	r.WaitState("app:web.1", "RUNNING")
	out, err := exec.Command(curl, "-sS", "--max-time", "60", "--unix-socket", r.Socket, "http://x/v1/status").CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"app:web.1"`) {
		t.Errorf("curl /status: %v\n%s", err, out)
	}
}

// TestQuitStopsAtOnce, and a second INT at a terminal.
func TestQuitStopsAtOnce(t *testing.T) {
	rig.All(t, rig.Config{
		Procfile: "web: {H} ignore-term\nfork: {H} double-fork\n",
		YAML:     "applications: {app: {procfile: Procfile, stop_timeout: 1h}}",
	}, func(t *testing.T, r *rig.Rig) {
		r.Line("app:web.1", "ready")
		pid := r.Number("app:fork.1", "grandchild ")
		r.Signal(unix.SIGTERM)
		r.WaitEvent(to("app:web.1", "STOPPING"))
		r.Signal(unix.SIGINT) // one, and there is no terminal
		r.Signal(unix.SIGINT)
		r.Signal(unix.SIGQUIT)
		if got := r.Wait(); got != 0 {
			t.Errorf("exit status = %d", got)
		}
		gone(t, r, pid)
	})
}

// TestOtherSignals mean nothing.
func TestOtherSignals(t *testing.T) {
	rig.All(t, rig.Config{Procfile: "web: {H} sleep\n"}, func(t *testing.T, r *rig.Rig) {
		before := r.WaitState("app:web.1", "RUNNING")
		for _, sig := range []unix.Signal{unix.SIGWINCH, unix.SIGUSR2, unix.SIGPIPE, unix.SIGCHLD, unix.SIGURG, unix.SIGCONT, unix.SIGTTOU, unix.SIGTTIN, unix.SIGTSTP, unix.SIGALRM, unix.SIGVTALRM, unix.SIGPROF, unix.SIGIO, unix.SIGPWR} {
			r.Signal(sig)
			r.Signal(unix.SIGCONT)
			if st := r.Of("app:web.1"); st.PID != before.PID || st.State != "RUNNING" {
				t.Fatalf("after %s: %+v", unix.SignalName(sig), st)
			}
		}
	})
}
