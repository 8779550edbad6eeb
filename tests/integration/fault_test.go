package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

// calm fails the test if the supervisor works in the next two seconds, though it
// has nothing to do.
func calm(t *testing.T, r *rig.Rig) {
	t.Helper()
	quiet(r)
	cpu, switches := r.CPU(), r.Switches()
	time.Sleep(2 * time.Second) // what is measured is this time
	if n := r.CPU() - cpu; n > 5 {
		t.Errorf("%d ticks of processor time in 2 s", n)
	}
	if n := r.Switches() - switches; n > 100 {
		t.Errorf("%d context switches in 2 s", n)
	}
}

// A deaf is a stdout that every write fails to, and what the kernel says then.
type deaf struct {
	name string
	open func(t *testing.T) *os.File
}

var deafs = []deaf{
	{"EPIPE pipe", func(t *testing.T) *os.File {
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		in.Close()
		return out
	}},
	{"EPIPE socket", func(t *testing.T) *os.File {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fds[0])
		return os.NewFile(uintptr(fds[1]), "socket")
	}},
	{"EIO tty", func(t *testing.T) *os.File {
		master, slave := terminal(t)
		master.Close()
		return slave
	}},
	{"EBADF reading", func(t *testing.T) *os.File {
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}},
	{"ENOSPC full", func(t *testing.T) *os.File {
		f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}},
	{"ENOSPC tmpfs", func(t *testing.T) *os.File {
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		err := os.WriteFile(dir+"/console", make([]byte, 64<<10), 0o600)
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("fill the disk: %v, want ENOSPC", err)
		}
		f, err := os.OpenFile(dir+"/console", os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}},
}

// TestStdoutFails: what pazinit prints and what it captures goes nowhere, and
// nothing else is different.
func TestStdoutFails(t *testing.T) {
	rig.NeedRoot(t)
	for _, d := range deafs {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			out := d.open(t)
			defer out.Close()
			r := rig.New(t, rig.Config{
				Mode: rig.PID1, Stdout: out,
				Procfile: "flood: {H} flood 20000000 100\nweb: {H} count-signal USR1 count\nlast: {H} on-signal TERM 7 0\n",
				YAML:     "applications: {app: {procfile: Procfile, workers: {flood: {restart: never}, last: {restart: never, essential: true}}}}",
			})
			if st := r.WaitState("app:flood.1", "EXITED"); st.LastExit.Code != 0 {
				t.Errorf("flood: %+v, want 0", st.LastExit)
			}
			r.Line("app:web.1", "ready") // the ring has it
			calm(t, r)
			r.Must("restart", "web")
			r.LineAfter("app:web.1", "ready", 1)
			r.Do(&control.Request{Verb: "signal", Names: []string{"web"}, Signal: "USR1"})
			r.Line("app:web.1", "got USR1")
			if !strings.Contains(strings.Join(selfLog(r), "\n"), "write stdout: ") {
				t.Errorf("pazinit's own log has nothing of it: %q", selfLog(r))
			}
			r.Line("app:last.1", "ready")
			r.Do(&control.Request{Verb: "signal", Names: []string{"last"}, Signal: "TERM"})
			if code := r.Wait(); code != 7 {
				t.Errorf("exit status = %d, want 7", code)
			}
		})
	}
}

func selfLog(r *rig.Rig) (out []string) {
	r.Ask(&control.Request{Verb: "logs", Self: true, Lines: -1}, func(l *control.Reply) {
		if l.Log != nil {
			out = append(out, l.Log.Line)
		}
	})
	return out
}

// TestStdoutFailsAtTheStart: what is said before anything runs ends nothing, and
// the exit status of what cannot run is what it is otherwise.
func TestStdoutFailsAtTheStart(t *testing.T) {
	rig.NeedRoot(t)
	for _, d := range deafs {
		for _, c := range []struct {
			name string
			conf rig.Config
			want int
		}{
			{"no socket", rig.Config{
				Procfile: "web: sh -c 'exit 7'\n", YAML: "pid_file: /proc/none\napplications: {app: {procfile: Procfile, restart: never}}",
				Wrap: []string{"prlimit", "--nofile=24"},
			}, 7},
			{"bad configuration", rig.Config{YAML: "nonsense: 1"}, 2},
			{"bad flag", rig.Config{Argv: []string{"--nonsense"}}, 2},
			{"exec, not there", rig.Config{Exec: []string{"/no/such/program"}}, 127},
			{"exec, verbose", rig.Config{Argv: []string{"-v", "-v", "-v", "-w", "--", "{H}", "exit", "7"}}, 7},
			{"exec, as dumb-init", rig.Config{Argv: []string{"-v", "{H}", "exit", "7"}, Wrap: []string{"sh", "-c", `exec -a dumb-init "$@"`, "sh"}}, 7},
		} {
			for mode, m := range map[string]rig.Mode{"pid1": rig.PID1, "daemon": rig.Daemon} {
				t.Run(d.name+"/"+c.name+"/"+mode, func(t *testing.T) {
					t.Parallel()
					out := d.open(t)
					defer out.Close()
					conf := c.conf
					conf.Mode, conf.Stdout, conf.NoWait = m, out, true
					if len(conf.Wrap) > 0 && conf.Wrap[0] == "sh" {
						_, err := exec.LookPath("bash")
						rig.Need(t, "bash", err)
						conf.Wrap = append([]string{"bash"}, conf.Wrap[1:]...)
					}
					if got := rig.New(t, conf).Wait(); got != c.want {
						t.Errorf("exit status = %d, want %d", got, c.want)
					}
				})
			}
		}
	}
}

// strayed starts, in its first run, a process that leaves everything by which it
// could be told, but keeps the pipes; it ends with 3 when that is through. Later
// runs stay.
func strayed(script string) string {
	return `sh -c 'test -e {D}/up && exec {H} sleep; (exec env -i setsid sh -c "trap : TERM; echo I am \$\$; touch {D}/up; ` + script + `") & while ! test -e {D}/up; do sleep 0.01; done; exit 3'`
}

// TestGrandchildHoldsThePipe: the exit is decided by the process, not by the end
// of its output, and what the other one prints still comes.
func TestGrandchildHoldsThePipe(t *testing.T) {
	rig.Both(t, rig.Config{
		Procfile:  "web: " + strayed(`while ! test -e {D}/go; do sleep 0.01; done; echo late; while :; do sleep 1; done`) + "\n",
		YAML:      "shutdown_timeout: 2s\napplications: {app: {procfile: Procfile}}",
		NoCgroups: true,
		Left:      true, // a daemon leaves strangers alone
	}, func(t *testing.T, r *rig.Rig) {
		stray := r.HostPID(r.Number("app:web.1", "I am "))
		t.Cleanup(func() { _ = unix.Kill(stray, unix.SIGKILL) })
		if e := r.WaitEvent(func(e control.Event) bool { return e.Kind == "exit" }); e.Exit.Code != 3 {
			t.Errorf("exit = %+v, want 3", e.Exit)
		}
		if st := r.WaitStatus("app:web.1", func(st control.Status) bool { return st.State == "RUNNING" && st.Run == 2 }); st.Restarts != 1 {
			t.Errorf("%d restarts, want 1", st.Restarts)
		}
		if !rig.Alive(stray) {
			t.Error("the stranger is gone")
		}
		r.Write("go", "")
		r.Line("app:web.1", "late")
		r.Signal(unix.SIGTERM)
		if code := r.Wait(); code != 0 {
			t.Errorf("exit status = %d, want 0", code)
		}
	})
}

// TestGrandchildIsOfTheRun: where a control group tells, it goes with its leader.
func TestGrandchildIsOfTheRun(t *testing.T) {
	rig.NeedRoot(t)
	rig.Both(t, rig.Config{Procfile: "web: " + strayed(`while :; do sleep 1; done`) + "\n"}, func(t *testing.T, r *rig.Rig) {
		stray := r.HostPID(r.Number("app:web.1", "I am "))
		r.WaitStatus("app:web.1", func(st control.Status) bool { return st.State == "RUNNING" && st.Run == 2 })
		if stray != 0 && rig.Alive(stray) {
			t.Errorf("process %d lives, want it gone", stray)
		}
	})
}

// TestGrandchildDecidesNoStatus: it holds the pipe, or floods it, when its leader
// ends pazinit.
func TestGrandchildDecidesNoStatus(t *testing.T) {
	for name, script := range map[string]string{"holds": "while :; do sleep 1; done", "floods": "exec yes"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{
				Procfile:  "web: " + strayed(script) + "\n",
				YAML:      "shutdown_timeout: 2s\napplications: {app: {procfile: Procfile, restart: never, essential: true}}",
				NoCgroups: true, NoWait: true, Left: true,
			}, func(t *testing.T, r *rig.Rig) {
				if code := r.Wait(); code != 3 {
					t.Errorf("exit status = %d, want 3", code)
				}
				pid := 0
				for line := range strings.Lines(r.Console()) {
					if _, rest, ok := strings.Cut(line, "I am "); ok {
						pid, _ = strconv.Atoi(strings.TrimSpace(rest))
					}
				}
				if pid == 0 {
					t.Fatalf("the stranger said nothing:\n%.2000s", r.Console())
				}
				switch {
				case r.Cfg.Mode == rig.PID1: // went with the name space
				case name == "floods": // SIGPIPE, since nobody reads any more
					r.Until("the stranger is gone", func() bool { return !rig.Alive(pid) })
				default:
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			})
		})
	}
}

// TestExecGrandchildHoldsThePipe: as above, with one command.
func TestExecGrandchildHoldsThePipe(t *testing.T) {
	rig.Both(t, rig.Config{
		Exec: []string{"sh", "-c", `(exec env -i setsid sh -c 'echo $$ >up; while :; do sleep 1; done') & while ! test -s up; do sleep 0.01; done; exit 3`},
		Left: true,
	}, func(t *testing.T, r *rig.Rig) {
		if code := r.Wait(); code != 3 {
			t.Errorf("exit status = %d, want 3", code)
		}
		if r.Cfg.Mode == rig.Daemon { // it is nobody's now
			pid, err := strconv.Atoi(strings.TrimSpace(r.Read("up")))
			if err != nil || !rig.Alive(pid) {
				t.Fatalf("process %d is gone, %v", pid, err)
			}
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	})
}

// TestOrphansFasterThanReaped: 30,000 of them, in heaps of thousands, and no
// worker's exit is late or lost.
func TestOrphansFasterThanReaped(t *testing.T) {
	const storm = `sh -c 'for i in 1 2 3 4 5; do {H} orphans 3000 || exit 1; done; echo all; exec {H} sleep'`
	rig.Both(t, rig.Config{
		Procfile: "one: " + storm + "\ntwo: " + storm + "\nquick: sh -c 'exit 42'\nlast: {H} on-signal TERM 7 0\n",
		YAML: `applications:
  app:
    procfile: Procfile
    workers:
      quick: {max_restarts: unlimited, backoff: {base: 5ms, factor: 1, max: 5ms}}
      last: {restart: never, essential: true}
`,
	}, func(t *testing.T, r *rig.Rig) {
		r.Line("app:one.1", "all")
		r.Line("app:two.1", "all")
		r.Must("stop", "one", "two", "quick")
		deaths := 0
		for _, e := range r.Events() {
			if e.Kind == "exit" && e.Name == "app:quick.1" {
				deaths++
				if e.Exit.Code != 42 && e.Exit.Signal != "SIGTERM" && e.Exit.Error == "" { // the last one by the stop
					t.Errorf("exit = %+v, want 42", e.Exit)
				}
			}
		}
		if deaths < 5 {
			t.Errorf("quick died %d times, want it again and again", deaths)
		}
		r.Until("all are collected", func() bool { return len(r.Children()) == 1 })
		r.Do(&control.Request{Verb: "signal", Names: []string{"last"}, Signal: "TERM"})
		if code := r.Wait(); code != 7 {
			t.Errorf("exit status = %d, want 7", code)
		}
	})
}

// TestExecOrphansFasterThanReaped: as above, with one command.
func TestExecOrphansFasterThanReaped(t *testing.T) {
	const storm = `for i in 1 2 3 4 5; do {H} orphans 3000 || exit 1; done`
	rig.Both(t, rig.Config{
		Argv:   []string{"--subreaper", "--", "sh", "-c", "(" + storm + ") & " + storm + "; wait $! || exit 1; echo all; while ! test -e go; do sleep 0.02; done; exit 7"},
		NoWait: true,
	}, func(t *testing.T, r *rig.Rig) {
		r.WaitConsole("all\n")
		r.Until("all are collected", func() bool { return len(r.Children()) == 1 })
		r.Write("go", "")
		if code := r.Wait(); code != 7 {
			t.Errorf("exit status = %d, want 7", code)
		}
	})
}

// A foreigner is a process in the supervisor's PID namespace that is no
// descendant of it, blocks all signals, and so tells which it got.
type foreigner struct {
	cmd *exec.Cmd
	pid int
}

// enterAsForeigner is nil when there is no number left for one.
func enterAsForeigner(t *testing.T, r *rig.Rig) *foreigner {
	t.Helper()
	f := &foreigner{cmd: exec.Command("nsenter", "-t", strconv.Itoa(r.PID), "-p", "-m", "--", "env", "--block-signal", r.Helper, "sleep")}
	f.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	var errs strings.Builder
	f.cmd.Stderr = &errs
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	children := fmt.Sprintf("/proc/%d/task/%[1]d/children", f.cmd.Process.Pid)
	there := false
	r.Until("the foreigner is there, or nsenter has ended", func() bool {
		b, err := os.ReadFile(children)
		f.pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", f.pid))
		there = exe == r.Helper
		return there || err != nil || !rig.Alive(f.cmd.Process.Pid)
	})
	if there {
		return f
	}
	err := f.cmd.Wait()
	if !strings.Contains(errs.String(), "fork failed") {
		t.Fatalf("nsenter: %v, %s", err, errs.String())
	}
	return nil
}

// leave ends it, and fails the test if anybody else signalled it before.
func (f *foreigner) leave(t *testing.T) {
	t.Helper()
	for _, key := range []string{"SigPnd", "ShdPnd"} {
		if got := rig.Field(f.pid, key); strings.Trim(got, "0") != "" || got == "" {
			t.Errorf("foreign process %d: %s = %q, want no signal", f.pid, key, got)
		}
	}
	if !rig.Alive(f.pid) {
		t.Errorf("foreign process %d is dead", f.pid)
	}
	_ = unix.Kill(f.pid, unix.SIGKILL)
	_ = f.cmd.Wait()
}

// TestNumbersWrap: once the numbers have wrapped, the kernel gives only those from
// 300 on, the reserved ones aside. So a new process has that of one which has just
// died: with 301 there is a single one for all, with 340 there are forty. Nobody is
// signalled who is not meant.
func TestNumbersWrap(t *testing.T) {
	rig.NeedRoot(t)
	rig.Need(t, "pid_max", exec.Command("unshare", "-fp", "--mount-proc", "sh", "-c", "echo 301 >/proc/sys/kernel/pid_max").Run())
	for _, c := range []struct {
		max     int
		without bool // control groups
	}{{301, false}, {301, true}, {340, false}, {340, true}} {
		t.Run(fmt.Sprintf("%d/nocgroup=%v", c.max, c.without), func(t *testing.T) {
			t.Parallel()
			more := ""
			if c.max > 301 {
				more = "leaves: sh -c '{H} sleep & exit 2'\n" +
					"strays: sh -c 'env -i setsid sleep 0.02 & exit 3'\n" +
					"forks: sh -c 'while :; do /bin/true; done'\n"
			}
			r := rig.New(t, rig.Config{
				Mode: rig.PID1, NoCgroups: c.without,
				Wrap:     []string{"sh", "-c", fmt.Sprintf(`echo %d >/proc/sys/kernel/pid_max && exec "$@"`, c.max), "sh"},
				Procfile: "crash: {H} exit 1\nlong: {H} sleep 3\nstays: {H} sleep\n" + more,
				YAML: `console_full: drop
applications:
  app:
    procfile: Procfile
    max_restarts: unlimited
    stop_timeout: 1h
    backoff: {base: 1ms, factor: 1, max: 1ms}
    workers:
      crash: {num_instances: 2}
      stays: {num_instances: 2, restart: never, essential: true}
`,
			})
			restarts := func() (n int) {
				for _, st := range r.Status() {
					n += st.Restarts
				}
				return n
			}
			var alive []*foreigner
			numbers := map[string]int{}
			came := 0
			for i := 0; restarts() < 2000 || came < 50; i++ {
				if len(alive) > 0 && (c.max == 301 || len(alive) == 10) {
					alive[0].leave(t)
					alive = alive[1:]
				}
				if f := enterAsForeigner(t, r); f != nil {
					ns := strings.Fields(rig.Field(f.pid, "NSpid"))
					numbers[ns[len(ns)-1]]++
					came++
					alive = append(alive, f)
				}
				if i%3 == 0 { // signals are on their way while numbers change hands
					r.Do(&control.Request{Verb: "restart", Names: []string{"crash", "long"}, NoWait: true})
				}
			}
			for _, f := range alive {
				f.leave(t)
			}
			for _, e := range r.Events() {
				if e.Kind == "exit" && e.Exit.Signal != "" && e.Exit.Signal != "SIGTERM" {
					t.Errorf("%s: %+v, want none killed", e.Name, e.Exit)
				}
			}
			for i := 1; i <= 2; i++ {
				if st := r.Of(fmt.Sprint("app:stays.", i)); st.State != "RUNNING" || st.Run != 1 {
					t.Errorf("stays.%d is %s in run %d, want it undisturbed", i, st.State, st.Run)
				}
			}
			t.Logf("%d restarts, %d foreigners with %d numbers", restarts(), came, len(numbers))
			r.Signal(unix.SIGTERM)
			if code := r.Wait(); code != 0 {
				t.Errorf("exit status = %d", code)
			}
		})
	}
}

// TestExecNumbersWrap: as above, with one command that forks all the time and gets
// signals.
func TestExecNumbersWrap(t *testing.T) {
	rig.NeedRoot(t)
	rig.Need(t, "pid_max", exec.Command("unshare", "-fp", "--mount-proc", "sh", "-c", "echo 301 >/proc/sys/kernel/pid_max").Run())
	_, err := exec.LookPath("perl")
	rig.Need(t, "perl", err)
	for _, limit := range []int{301, 340} {
		t.Run(strconv.Itoa(limit), func(t *testing.T) {
			t.Parallel()
			r := rig.New(t, rig.Config{
				Mode: rig.PID1, NoWait: true,
				Wrap: []string{"sh", "-c", fmt.Sprintf(`echo %d >/proc/sys/kernel/pid_max && exec "$@"`, limit), "sh"},
				Exec: []string{"perl", "-e", `
					$SIG{USR1} = sub { $n++ }; $| = 1; print "ready\n";
					for ($i = 0; $i < 5000;) {
						$pid = fork;
						exit 0 if defined $pid && !$pid;
						select undef, undef, undef, 0.001 if !defined $pid;
						$i++ if defined $pid && waitpid $pid, 0;
					}
					print "all\n";
					select undef, undef, undef, 0.02 while !-e "go";
					print "got $n\n"; exit 7`},
			})
			r.WaitConsole("ready\n")
			came := 0
			for !strings.Contains(r.Console(), "all\n") || came < 30 {
				if f := enterAsForeigner(t, r); f != nil {
					r.Signal(unix.SIGUSR1)
					came++
					f.leave(t)
				}
			}
			r.Write("go", "")
			if code := r.Wait(); code != 7 {
				t.Errorf("exit status = %d, want 7", code)
			}
		})
	}
}

// TestFewDescriptors: with sixteen it supervises, and says what it does without.
func TestFewDescriptors(t *testing.T) {
	for _, limit := range []int{64, 32, 24, 20, 16} {
		for _, without := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/nocgroup=%v", limit, without), func(t *testing.T) {
				t.Parallel()
				rig.Both(t, rig.Config{
					Wrap:     []string{"prlimit", "--nofile=" + strconv.Itoa(limit)},
					Procfile: "crash: sh -c 'echo run >>{D}/runs; exit 1'\nlast: sh -c 'echo here I am; while ! test -e {D}/go; do sleep 0.02; done; exit 7'\n",
					YAML:     "applications: {app: {procfile: Procfile, workers: {crash: {max_restarts: unlimited, backoff: {base: 10ms, factor: 1, max: 10ms}}, last: {restart: never, essential: true}}}}",
					NoWait:   true, NoCgroups: without,
				}, func(t *testing.T, r *rig.Rig) {
					r.Until("twenty restarts", func() bool { return strings.Count(r.Read("runs"), "run") > 20 })
					r.WaitConsole("here I am")
					if limit < 32 {
						r.WaitConsole("without a control socket: the limit of open files is " + strconv.Itoa(limit))
					} else if out, errs, code := r.Cmd("status"); code != 0 || !strings.Contains(out, "app:last.1") {
						t.Errorf("status = %d, %s%s", code, out, errs)
					}
					if limit == 16 {
						r.WaitConsole("is not captured but inherited: too many open files")
					}
					r.Write("go", "")
					if code := r.Wait(); code != 7 {
						t.Errorf("exit status = %d, want 7", code)
					}
				})
			})
		}
	}
	t.Run("exec", func(t *testing.T) {
		for limit := 5; limit < 17; limit++ {
			r := rig.New(t, rig.Config{
				Mode: rig.PID1, Exec: []string{"sh", "-c", "echo here I am; exit 7"},
				Wrap: []string{"prlimit", "--nofile=" + strconv.Itoa(limit)},
			})
			if code := r.Wait(); code != 7 || r.Console() != "here I am\n" {
				t.Errorf("limit %d: exit status = %d, %s", limit, code, r.Console())
			}
		}
	})
	t.Run("too few", func(t *testing.T) {
		for limit := 4; limit < 15; limit++ {
			r := rig.New(t, rig.Config{
				Mode: rig.PID1, NoWait: true, Procfile: "last: sh -c 'exit 7'\n",
				YAML: "applications: {app: {procfile: Procfile, restart: never}}",
				Wrap: []string{"prlimit", "--nofile=" + strconv.Itoa(limit)},
			})
			code := r.Wait()
			if code == 0 || code != 7 && !strings.Contains(r.Console(), "too many open files") && !strings.Contains(r.Console(), "failed with 24") {
				t.Errorf("limit %d: exit status = %d, %s", limit, code, r.Console())
			}
		}
	})
}

// memoryGroup makes a memory group of v1 or v2 with a limit.
func memoryGroup(t *testing.T, limit int) (procs string, err error) {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	root, file := "", ""
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case f[1] == "memory":
			root, file = "/sys/fs/cgroup/memory"+f[2], "memory.limit_in_bytes"
		case f[0] == "0" && root == "":
			if _, err := os.Stat("/sys/fs/cgroup" + f[2] + "/memory.max"); err == nil {
				root, file = "/sys/fs/cgroup"+f[2], "memory.max"
			}
		}
	}
	if root == "" {
		return "", errors.New("no memory group")
	}
	dir, err := os.MkdirTemp(root, "pazinit-test")
	if err != nil {
		return "", err
	}
	t.Cleanup(func() {
		// The last of it may still be on its way out.
		err := os.Remove(dir)
		for end := time.Now().Add(time.Minute); errors.Is(err, unix.EBUSY) && time.Now().Before(end); err = os.Remove(dir) {
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			t.Error(err)
		}
	})
	return dir + "/cgroup.procs", os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0)
}

// TestLittleMemory: either it runs or it ends with a status that says so, and with
// words unless the kernel kills it. It never hangs. The least on 6.18 and amd64, the
// command's own memory included: in a control group 3 MiB, in exec mode 1.5; 48 MiB
// and 40 of RLIMIT_DATA; 768 MiB of RLIMIT_AS, most of which Go only reserves.
func TestLittleMemory(t *testing.T) {
	rig.NeedRoot(t)
	_, err := memoryGroup(t, 1<<30)
	rig.Need(t, "memory-cgroup", err)
	const KiB, MiB = 1 << 10, 1 << 20
	kinds := map[string][]int{
		"cgroup": {256 * KiB, 512 * KiB, 1 * MiB, 1536 * KiB, 2 * MiB, 3 * MiB, 4 * MiB, 6 * MiB, 8 * MiB, 16 * MiB},
		"data":   {1 * MiB, 4 * MiB, 16 * MiB, 32 * MiB, 40 * MiB, 48 * MiB, 64 * MiB, 96 * MiB},
		"as":     {4 * MiB, 64 * MiB, 256 * MiB, 512 * MiB, 768 * MiB, 1024 * MiB, 2048 * MiB, 4096 * MiB},
	}
	for kind, limits := range kinds {
		for mode, c := range map[string]rig.Config{
			"supervising": {Procfile: "last: sh -c 'exit 7'\n", YAML: "applications: {app: {procfile: Procfile, restart: never}}"},
			"exec":        {Exec: []string{"sh", "-c", "exit 7"}},
		} {
			t.Run(kind+"/"+mode, func(t *testing.T) {
				least := 0
				for _, limit := range limits {
					wrap := []string{"prlimit", fmt.Sprintf("--%s=%d", kind, limit)}
					if kind == "cgroup" {
						procs, err := memoryGroup(t, limit)
						if err != nil {
							t.Fatal(err)
						}
						wrap = []string{"sh", "-c", `echo 0 >` + procs + ` && exec "$@"`, "sh"}
					}
					c.Mode, c.NoWait, c.NoCgroups, c.Wrap = rig.PID1, true, true, wrap
					r := rig.New(t, c)
					code := r.Wait()
					switch {
					case code == 7:
						if least == 0 {
							least = limit
						}
					case code == 0:
						t.Errorf("%d bytes: exit status 0, want 7 or a failure", limit)
					case code < 128 && r.Console() == "":
						t.Errorf("%d bytes: exit status %d without a word", limit, code)
					}
					t.Logf("%5d KiB: exit status %d, %.150q", limit>>10, code, r.Console())
				}
				if least == 0 {
					t.Error("it never started")
				}
			})
		}
	}
}
