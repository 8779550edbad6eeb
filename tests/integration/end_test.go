package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// TestContainerEnds: the exit status of PID 1 of a PID namespace, and its last
// words where that is a failure.
func TestContainerEnds(t *testing.T) {
	const essential = "applications: {app: {procfile: Procfile, workers: {b: {essential: true, restart: never}}}}"
	for name, c := range map[string]struct {
		procfile, yaml string
		want           int
		words          []string // in the line before the last output
	}{
		"exits 0":          {"a: {H} sleep\nb: {H} exit 0\n", essential, 0, nil},
		"exits 7":          {"a: {H} sleep\nb: {H} exit 7\n", essential, 7, []string{"app:b.1 exited with status 7 (pid ", " after its start"}},
		"killed by SEGV":   {"a: {H} sleep\nb: {H} kill-self SEGV\n", essential, 139, []string{"app:b.1 was killed by SIGSEGV"}},
		"killed by KILL":   {"a: {H} sleep\nb: {H} kill-self KILL\n", essential, 137, []string{"app:b.1 was killed by SIGKILL"}},
		"not there":        {"a: {H} sleep\nb: /no/such/program\n", essential, 127, []string{"app:b.1 could not be executed: ", "no such file or directory", "was given up"}},
		"not executable":   {"a: {H} sleep\nb: /etc/passwd\n", essential, 126, []string{"app:b.1 could not be executed: ", "permission denied"}},
		"no interpreter":   {"a: {H} sleep\nb: {D}/script\n", essential, 127, []string{"app:b.1 could not be executed: "}},
		"given up":         {"a: {H} sleep\nb: {H} exit 9\n", "applications: {app: {procfile: Procfile, workers: {b: {essential: true, max_restarts: 3, retry_after: off, backoff: {base: 1ms}}}}}", 9, []string{"app:b.1 exited with status 9", "restarted 2 times, and was given up"}},
		"all, both fail":   {"a: {H} exit 4\nb: {H} exit 5\nc: {H} sleep\n", "end_when: all\napplications: {app: {procfile: Procfile, workers: {a: {essential: true, restart: never}, b: {essential: true, restart: never}}}}", 4, []string{"app:a.1 exited with status 4", "failed too: app:b.1 (status 5)"}},
		"none can run":     {"a: {H} exit 0\nb: {H} exit 5\n", "applications: {app: {procfile: Procfile, restart: never}}", 5, []string{"app:b.1 exited with status 5"}},
		"none, all well":   {"a: {H} exit 0\nb: {H} exit 0\n", "applications: {app: {procfile: Procfile, restart: never}}", 0, nil},
		"status 0, FATAL":  {"a: {H} sleep\nb: {H} exit 0\n", "applications: {app: {procfile: Procfile, workers: {b: {essential: true, max_restarts: 1, retry_after: off}}}}", 1, []string{"app:b.1 exited with status 0", "was given up"}},
		"at once, silent":  {"a: sh -c 'exec >&- 2>&-; exit 3'\n", "applications: {app: {procfile: Procfile, restart: never}}", 3, []string{"app:a.1 exited with status 3"}},
		"a leftover holds": {"a: {H} double-fork exit\nb: {H} exit 6\n", essential, 6, []string{"app:b.1 exited with status 6"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t, rig.Config{
				Mode: rig.PID1, Procfile: c.procfile, YAML: c.yaml, NoWait: true,
				Setup: func(dir string) {
					if err := os.WriteFile(dir+"/script", []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
						t.Error(err)
					}
				},
			})
			if got := r.Wait(); got != c.want {
				t.Errorf("exit status = %d, want %d", got, c.want)
			}
			lines := strings.Split(strings.TrimSpace(r.Console()), "\n")
			if last := lines[len(lines)-1]; !strings.Contains(last, fmt.Sprintf("ended with status %d: ", c.want)) {
				t.Errorf("the last line is %q, want the status", last)
			}
			var words string
			for _, l := range lines[max(0, len(lines)-12):] {
				if _, text, ok := strings.Cut(l, "| error: app:"); ok {
					words = "app:" + text
				}
			}
			for _, w := range c.words {
				if !strings.Contains(words, w) {
					t.Errorf("the last words are %q, want %q in them", words, w)
				}
			}
			if c.words == nil && words != "" {
				t.Errorf("the last words are %q, want none", words)
			}
		})
	}
}

// TestLastWords hold the last output, made harmless and not too long of it, at
// the end of stderr, wherever pazinit's own log goes.
func TestLastWords(t *testing.T) {
	const script = `for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; done; while ! test -e {D}/go; do sleep 0.01; done; printf '\033[31mpanic: \377\033[0m' >&2; exit 3`
	config := rig.Config{
		Mode: rig.PID1, NoWait: true,
		Procfile: "web: sh {D}/script\nother: sh -c 'trap \"echo other stops; exit\" TERM; echo ready; while :; do sleep 0.01; done'\n",
		Files:    map[string]string{"script": script},
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {essential: true, restart: never}}}}",
	}
	// Of two streams the order is certain only when one has been read to its end.
	start := func(t *testing.T, c rig.Config) *rig.Rig {
		r := rig.New(t, c)
		r.WaitConsole("line 12")
		r.Write("go", "")
		return r
	}
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		r := start(t, config)
		if got := r.Wait(); got != 3 {
			t.Errorf("exit status = %d, want 3", got)
		}
		want := []string{"error: the last output of app:web.1:"}
		for i := 4; i <= 12; i++ {
			want = append(want, fmt.Sprintf("error:   line %d", i))
		}
		want = append(want, `error:   \x1b[31mpanic: \xff\x1b[0m`, "error: ended with status 3: essential worker app:web.1 has ended: exited with status 3")
		var got []string
		for _, l := range strings.Split(strings.TrimSpace(r.Console()), "\n") {
			_, text, _ := strings.Cut(l, "| ")
			got = append(got, text)
		}
		got = got[max(0, len(got)-len(want)):]
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("the end of the console is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
	t.Run("json", func(t *testing.T) {
		t.Parallel()
		c := config
		c.Args = []string{"--log-format", "json"}
		r := start(t, c)
		r.Wait()
		lines := strings.Split(strings.TrimSpace(r.Console()), "\n")
		var last struct{ Name, Level, Line string }
		for i, l := range lines {
			last.Name, last.Level, last.Line = "", "", ""
			if err := json.Unmarshal([]byte(l), &last); err != nil {
				t.Errorf("line %q: %v", l, err)
			}
			if want := `  \x1b[31mpanic: \xff\x1b[0m`; i == len(lines)-2 && last.Line != want {
				t.Errorf("the line before the last is %q, want %q", last.Line, want)
			}
		}
		if last.Name != "pazinit" || last.Level != "error" || !strings.HasPrefix(last.Line, "ended with status 3: ") {
			t.Errorf("the last line is %+v, want an error of pazinit's own", last)
		}
	})
	t.Run("a log of its own", func(t *testing.T) {
		t.Parallel()
		c := config
		c.YAML = "log_path: {D}/log\n" + c.YAML
		r := start(t, c)
		r.Wait()
		for where, text := range map[string]string{"the console": r.Console(), "the log": r.Read("log")} {
			if strings.Count(text, "error: ended with status 3: ") != 1 || strings.Count(text, `error:   \x1b[31mpanic`) != 1 {
				t.Errorf("%s has not the last words once:\n%s", where, text)
			}
		}
	})
	t.Run("bounded", func(t *testing.T) {
		t.Parallel()
		c := config
		c.Files = map[string]string{"script": "head -c 30000 /dev/zero | tr '\\0' x; echo; echo; exit 3"}
		r := rig.New(t, c)
		r.Wait()
		_, words, _ := strings.Cut(r.Console(), "the last output of app:web.1:")
		if n := strings.Count(words, "x"); n < 1000 || n > 3000 || !strings.Contains(words, "x …\n") {
			t.Errorf("%d of 30000 bytes are repeated, want about 2048 and a mark that more was there", n)
		}
	})
	t.Run("not on a requested stop", func(t *testing.T) {
		t.Parallel()
		r := rig.New(t, rig.Config{
			Mode: rig.PID1, Procfile: "web: {H} on-signal TERM 3 0\n",
			YAML: "applications: {app: {procfile: Procfile, essential: true}}",
		})
		r.Line("app:web.1", "ready")
		r.Signal(unix.SIGTERM)
		if got := r.Wait(); got != 0 || strings.Contains(r.Console(), "error:") {
			t.Errorf("status %d, console:\n%s", got, r.Console())
		}
	})
}

// TestDeadline: the last one in the stop order has its signal and its time, though
// the one before would take all of it.
func TestDeadline(t *testing.T) {
	trees(t, rig.Config{
		Procfile: "web: {H} ignore-term\ndb: {H} count-signal TERM got\n",
		YAML:     "shutdown_timeout: 10s\napplications: {app: {procfile: Procfile, stop_timeout: 1h, workers: {db: {priority: 1}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		r.Line("app:web.1", "ready")
		r.Line("app:db.1", "ready")
		r.Signal(unix.SIGTERM)
		if got := r.Wait(); got != 0 {
			t.Errorf("exit status = %d, want 0", got)
		}
		if got := strings.Count(r.Read("got"), "TERM"); got != 1 {
			t.Errorf("the last one got %d TERM, want 1", got)
		}
		for _, name := range []string{"web", "db"} {
			if want := "app:" + name + ".1: it has not ended within "; !strings.Contains(r.Console(), want) {
				t.Errorf("the console has not %q", want)
			}
		}
	})
}

// TestDeadlineOfAStuckConsole: nobody reads what is printed, and that keeps nobody.
func TestDeadlineOfAStuckConsole(t *testing.T) {
	t.Parallel()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r := rig.New(t, rig.Config{
		Mode: rig.PID1, Stdout: out, Procfile: "web: {H} flood 1000000000 100\n",
		YAML: "shutdown_timeout: 1s\napplications: {app: {procfile: Procfile}}",
	})
	out.Close()
	r.WaitState("app:web.1", "RUNNING")
	r.Signal(unix.SIGTERM)
	if got := r.Wait(); got != 0 {
		t.Errorf("exit status = %d, want 0", got)
	}
}

// TestLateOnesAreNamed, with what is left when the first process is gone.
func TestLateOnesAreNamed(t *testing.T) {
	trees(t, rig.Config{
		Procfile: "deaf: {H} ignore-term\nleft: sh -c '{H} ignore-term & exec {H} on-signal TERM 0 0'\n",
	}, func(t *testing.T, r *rig.Rig) {
		r.Line("app:deaf.1", "ready")
		r.Line("app:left.1", "ready")
		r.LineAfter("app:left.1", "ready", 1)
		pid := r.Of("app:deaf.1").PID
		r.Signal(unix.SIGTERM)
		// At 2 s, or later if they or it were late, and then again.
		want := regexp.MustCompile(fmt.Sprintf(`still waiting for app:deaf\.1 \(pid %d, has not ended [2-9][0-9.]*s after SIGTERM, of 10s\); `+
			`app:left\.1 \(its process has ended, what it started has not, for [2-9][0-9.]*s of 10s: \d+ helper\)`, pid))
		r.Until("both are named", func() bool { return want.MatchString(r.Console()) })
		r.Signal(unix.SIGQUIT)
		if got := r.Wait(); got != 0 {
			t.Errorf("exit status = %d, want 0", got)
		}
	})
}

// TestNoCapKill: a worker of another user that pazinit may not signal is told of
// as that; where there is a cgroup it is killed all the same.
func TestNoCapKill(t *testing.T) {
	rig.NeedRoot(t)
	for name, without := range map[string]bool{"cgroup": false, "nocgroup": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t, rig.Config{
				Mode: rig.PID1, NoCgroups: without, Wrap: []string{"setpriv", "--bounding-set", "-kill"},
				Procfile: "w: sleep 1000\n",
				YAML:     "shutdown_timeout: 4s\napplications: {app: {procfile: Procfile, cwd: /, user: 12345, stop_timeout: 3s}}",
			})
			pid := r.WaitState("app:w.1", "RUNNING").PID
			_, text, code := r.Cmd("signal", "HUP", "w")
			if want := fmt.Sprintf("signal pid %d: operation not permitted; it needs CAP_KILL", pid); !strings.Contains(text, want) || code == 0 {
				t.Errorf("signal HUP w said %q, status %d, want %q", text, code, want)
			}
			r.Signal(unix.SIGTERM)
			if got := r.Wait(); got != 0 {
				t.Errorf("exit status = %d, want 0", got)
			}
			said := r.Console()
			want := fmt.Sprintf("may not signal app:w.1 (pid %d, uid 12345): operation not permitted; it needs CAP_KILL", pid)
			if n := strings.Count(said, want); n != 1 {
				t.Errorf("%q is there %d times, want once", want, n)
			}
			if want := fmt.Sprintf("still waiting for app:w.1 (pid %d, may not be signalled (no CAP_KILL))", pid); !strings.Contains(said, want) {
				t.Errorf("%q is missing", want)
			}
			if got := strings.Contains(said, "app:w.1 is STOPPED: killed by SIGKILL"); got == without {
				t.Errorf("killed = %t, want %t", got, !without)
			}
			if got := strings.Contains(said, "app:w.1 could not be ended: it may not be signalled (no CAP_KILL)"); got != without {
				t.Errorf("could not be ended = %t, want %t", got, without)
			}
			if strings.Contains(said, "uninterruptible") {
				t.Error("it is said to sleep")
			}
			if t.Failed() {
				t.Log(said)
			}
		})
	}
}

// TestClientsAreNoStrangers: who asked for the end is not told of among those
// that no worker started.
func TestClientsAreNoStrangers(t *testing.T) {
	rig.NeedRoot(t)
	t.Parallel()
	r := rig.New(t, rig.Config{Mode: rig.PID1, Procfile: "web: {H} on-signal TERM 0 0\n"})
	r.Line("app:web.1", "ready")
	r.Inside(rig.Binary, "shutdown", "--socket", r.Socket)
	r.Wait()
	if said := r.Console(); !strings.Contains(said, "stopping: shutdown by uid 0") || strings.Contains(said, "no worker started") {
		t.Errorf("the console has\n%s", said)
	}
}

// TestStopComesEarly: TERM and INT again and again from the first moment on that
// they can be caught, before anything is read or started. While Go's runtime sets
// itself up they end it as signals do; then it is a stop.
func TestStopComesEarly(t *testing.T) {
	for i := range 10 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			r := rig.New(t, rig.Config{
				Mode: rig.PID1, NoWait: true, Procfile: "a: {H} sleep\nb: {H} exit 3\n",
				YAML: "applications: {app: {procfile: Procfile, workers: {a: {num_instances: 3}}}}",
			})
			r.Until("signals are caught", func() bool {
				// 34 is one that Go's runtime alone does not catch.
				caught, err := strconv.ParseUint(rig.Field(r.PID, "SigCgt"), 16, 64)
				return err == nil && caught&(1<<(34-1)) != 0
			})
			for sig := unix.SIGTERM; rig.Alive(r.PID); sig ^= unix.SIGTERM ^ unix.SIGINT {
				_ = unix.Kill(r.PID, sig)
			}
			if got := r.Wait(); got != 0 && got != 143 && got != 130 {
				t.Errorf("exit status = %d, want 0, 143 or 130", got)
			}
		})
	}
}

// TestStopInACrashLoop waits for no delay, and TERM twice is TERM.
func TestStopInACrashLoop(t *testing.T) {
	rig.Both(t, rig.Config{
		Procfile: "loop: {H} exit 3\nslow: {H} on-signal TERM 0 200\n",
		YAML:     "applications: {app: {procfile: Procfile, backoff: {base: 1h, max: 1h}}}",
	}, func(t *testing.T, r *rig.Rig) {
		r.WaitState("app:loop.1", "BACKOFF")
		r.Line("app:slow.1", "ready")
		r.Signal(unix.SIGTERM)
		r.WaitEvent(to("app:slow.1", "STOPPING"))
		r.Signal(unix.SIGTERM)
		if got := r.Wait(); got != 0 {
			t.Errorf("exit status = %d, want 0", got)
		}
		if strings.Contains(r.Console(), "killed by SIGKILL") {
			t.Errorf("something was killed:\n%s", r.Console())
		}
	})
}

// enter starts a process in the supervisor's namespaces, as docker exec does. It
// reports how it ended.
func enter(t *testing.T, r *rig.Rig, argv ...string) (ended chan syscall.WaitStatus) {
	t.Helper()
	cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(r.PID), "-p", "-m", "--"}, argv...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("ready\n"))
	if _, err := out.Read(line); err != nil {
		t.Fatal(err)
	}
	ended = make(chan syscall.WaitStatus, 1)
	go func() {
		_ = cmd.Wait()
		ended <- cmd.ProcessState.Sys().(syscall.WaitStatus)
	}()
	return ended
}

// TestStrangers: who came by docker exec is told to stop when the workers are
// gone, and waited for no longer than there is time; so are orphans of nobody.
func TestStrangers(t *testing.T) {
	rig.NeedRoot(t)
	t.Parallel()
	config := rig.Config{
		Mode: rig.PID1, Procfile: "web: {H} on-signal TERM 0 200\n",
		YAML: "shutdown_timeout: 3s\napplications: {app: {procfile: Procfile}}",
	}
	t.Run("they end", func(t *testing.T) {
		t.Parallel()
		r := rig.New(t, config)
		r.Line("app:web.1", "ready")
		entered := enter(t, r, r.Helper, "on-signal", "TERM", "9", "0")
		orphan, _, _ := r.Inside("sh", "-c", "setsid env -i "+r.Helper+" sleep >/dev/null & echo $!")
		orphan = strings.TrimSpace(orphan)
		r.Signal(unix.SIGTERM)
		if got := r.Wait(); got != 0 {
			t.Errorf("exit status = %d, want 0", got)
		}
		if ws := <-entered; ws.ExitStatus() != 9 {
			t.Errorf("the one who entered ended with %#x, want status 9: by TERM, at its own pace", ws)
		}
		_, line, ok := strings.Cut(r.Console(), "2 processes that no worker started: told to stop by SIGTERM: ")
		if !ok || !strings.Contains(line, " helper (entered from outside)") || !strings.Contains(line, orphan+" helper (an orphan)") {
			t.Errorf("the console has not both named (orphan %s):\n%s", orphan, r.Console())
		}
		if stopped := strings.Index(r.Console(), "app:web.1 is STOPPED"); stopped < 0 || stopped > strings.Index(r.Console(), "no worker started") {
			t.Error("they were told before the worker was gone")
		}
		if strings.Contains(r.Console(), "not gone") {
			t.Errorf("somebody is left:\n%s", r.Console())
		}
	})
	t.Run("they do not", func(t *testing.T) {
		t.Parallel()
		r := rig.New(t, config)
		r.Line("app:web.1", "ready")
		entered := enter(t, r, r.Helper, "ignore-term")
		r.Signal(unix.SIGTERM)
		if got := r.Wait(); got != 0 {
			t.Errorf("exit status = %d, want 0", got)
		}
		if ws := <-entered; ws.Signal() != unix.SIGKILL && ws.ExitStatus() != 128+9 {
			t.Errorf("the one who entered ended with %#x, want SIGKILL, with the namespace", ws)
		}
		for _, want := range []string{"1 process that no worker started: told to stop", "1 process is not gone and ends with this container: "} {
			if !strings.Contains(r.Console(), want) {
				t.Errorf("the console has not %q", want)
			}
		}
	})
	t.Run("nobody is there", func(t *testing.T) {
		t.Parallel()
		r := rig.New(t, config)
		r.Line("app:web.1", "ready")
		r.Signal(unix.SIGTERM)
		r.Wait()
		if strings.Contains(r.Console(), "no worker started") {
			t.Errorf("strangers were found:\n%s", r.Console())
		}
	})
}

// TestNeighboursSurvive: the end of a supervisor that is not the first process of
// a namespace of its own is the end of its workers alone.
func TestNeighboursSurvive(t *testing.T) {
	t.Run("in the namespace of the machine", func(t *testing.T) { // --pid=host is the same
		t.Parallel()
		neighbour := exec.Command(rig.Helper, "sleep")
		if err := neighbour.Start(); err != nil {
			t.Fatal(err)
		}
		r := rig.New(t, rig.Config{Procfile: "web: {H} sleep\n"})
		r.WaitState("app:web.1", "RUNNING")
		orphan, _, _ := r.Inside("sh", "-c", "setsid env -i "+r.Helper+" sleep >/dev/null & echo $!")
		r.Signal(unix.SIGTERM)
		if got := r.Wait(); got != 0 {
			t.Errorf("exit status = %d, want 0", got)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(orphan))
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range []int{neighbour.Process.Pid, pid} {
			if !rig.Alive(pid) {
				t.Errorf("process %d, which has nothing to do with it, is gone", pid)
			}
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		_ = neighbour.Wait()
		if strings.Contains(r.Console(), "no worker started") {
			t.Errorf("strangers were looked for:\n%s", r.Console())
		}
	})
	t.Run("below another init", func(t *testing.T) {
		rig.NeedRoot(t)
		t.Parallel()
		r := rig.New(t, rig.Config{
			Procfile: "web: {H} sleep\n",
			Wrap: []string{
				"unshare", "-fp", "--mount-proc", "--kill-child", "sh", "-c",
				`{H} sleep >/dev/null & "$@"; code=$?; kill -0 $! && ! grep -q ') Z' /proc/$!/stat && echo the neighbour lives; kill -9 $!; exit $code`, "sh",
			},
		})
		r.WaitState("app:web.1", "RUNNING")
		r.WaitConsole("within a container, below another init")
		r.Must("shutdown")
		if got := r.Wait(); got != 0 {
			t.Errorf("exit status = %d, want 0", got)
		}
		if !strings.Contains(r.Console(), "the neighbour lives") || strings.Contains(r.Console(), "no worker started") {
			t.Errorf("the console says\n%s", r.Console())
		}
	})
}

// TestOnEnd: what whoever started a container sees.
func TestOnEnd(t *testing.T) {
	rig.NeedRoot(t)
	t.Parallel()
	boot := func(onEnd string, set ...func(*rig.Config)) rig.Config {
		c := rig.Config{
			Mode: rig.PID1, NoWait: true, Procfile: "web: {H} exit 7\n",
			YAML: "on_end: " + onEnd + "\napplications: {app: {procfile: Procfile, restart: never}}",
		}
		for _, f := range set {
			f(&c)
		}
		return c
	}
	refused := func(c *rig.Config) { c.Wrap = []string{"setpriv", "--bounding-set", "-sys_boot"} }
	// Not as root: a mistake here would switch this machine off.
	daemon := func(c *rig.Config) { c.Mode, c.User = rig.Daemon, rig.Nobody }
	for name, tt := range map[string]struct {
		config rig.Config
		want   int
		says   string
	}{
		"exit":              {boot("exit"), 7, "ended with status 7"},
		"poweroff":          {boot("poweroff"), 128 + 2, "powering off, after an end with status 7"},
		"halt":              {boot("halt"), 128 + 2, "halting, after an end with status 7"},
		"reboot":            {boot("reboot"), 128 + 1, "rebooting, after an end with status 7"},
		"refused":           {boot("reboot", refused), 7, "reboot was refused: operation not permitted (it takes CAP_SYS_BOOT); ended with status 7"},
		"not PID 1":         {boot("poweroff", daemon), 7, "on_end: poweroff is left to PID 1, which this is not; ended with status 7"},
		"without a console": {boot("shell"), 7, "without a shell: stdin is no terminal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t, tt.config)
			if got := r.Wait(); got != tt.want {
				t.Errorf("exit status = %d, want %d", got, tt.want)
			}
			lines := strings.Split(strings.TrimSpace(r.Console()), "\n")
			if last := lines[len(lines)-1]; !strings.Contains(last, tt.says) {
				t.Errorf("the last line is %q, want %q", last, tt.says)
			}
		})
	}
	t.Run("shell", func(t *testing.T) {
		t.Parallel()
		master, slave := terminal(t)
		r := rig.New(t, boot("shell", func(c *rig.Config) {
			c.Stdin, c.Stdout, c.Attr = slave, slave, onTerminal
		}))
		slave.Close()
		seen := make(chan string, 1)
		go func() {
			var all strings.Builder
			buf := make([]byte, 4096)
			asked := false
			for {
				n, err := master.Read(buf)
				all.Write(buf[:n])
				if !asked && strings.Contains(all.String(), "a shell follows") {
					asked = true
					_, _ = master.WriteString("echo below $(cut -c 1-10 /proc/1/cmdline | tr '\\0' ' '), $((40 + 2))\nexit 5\n")
				}
				if err != nil {
					break
				}
			}
			seen <- all.String()
		}()
		if got := r.Wait(); got != 7 {
			t.Errorf("exit status = %d, want 7: the shell's is not the container's", got)
		}
		if got := <-seen; !strings.Contains(got, "below pazinit --, 42") {
			t.Errorf("the terminal shows\n%s", got)
		}
	})
}
