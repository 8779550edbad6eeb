package integration

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// plain runs the program to its end and reports what it printed and its exit
// status, or 128 and its signal.
func plain(t *testing.T, wrap []string, args ...string) (out string, code int) {
	t.Helper()
	argv := append(append(wrap[:len(wrap):len(wrap)], rig.Binary), args...)
	for i := range argv {
		argv[i] = strings.ReplaceAll(argv[i], "{H}", rig.Helper)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = t.TempDir()
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return string(b), 128 + int(ws.Signal())
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// TestExecEveryStatus is handed on: 0 to 255, and 128 and the signal.
func TestExecEveryStatus(t *testing.T) {
	t.Parallel()
	for code := range 256 {
		if out, got := plain(t, nil, "--", "{H}", "exit", fmt.Sprint(code)); got != code || out != "" {
			t.Errorf("exit %d = %d, %q", code, got, out)
		}
	}
	for s := unix.Signal(1); s <= 64; s++ {
		want := 128 + int(s)
		switch s {
		case unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH: // end nobody
			want = 0
		case unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, 32, 33:
			continue
		}
		if out, got := plain(t, nil, "--", "{H}", "kill-self", fmt.Sprint(int(s))); got != want || out != "" {
			t.Errorf("kill-self %d = %d, %q, want %d", s, got, out, want)
		}
	}
}

// TestExecRemap: other exit statuses, also of what does not start.
func TestExecRemap(t *testing.T) {
	t.Parallel()
	flags := []string{"--remap-exit", "143:0", "--remap-exit=3:4", "--remap-exit", "127:9", "--remap-exit", "5:6", "--remap-exit", "5:7", "--"}
	for _, c := range []struct {
		cmd  string
		want int
	}{
		{"{H} kill-self 15", 0}, {"{H} exit 3", 4}, {"{H} exit 4", 4}, {"/no/such/program", 9}, {"{H} exit 5", 7}, {"{H} exit 143", 0}, {"{H} exit 0", 0},
	} {
		if _, got := plain(t, nil, append(flags, strings.Fields(c.cmd)...)...); got != c.want {
			t.Errorf("%s = %d, want %d", c.cmd, got, c.want)
		}
	}
}

// TestExecSubreaper: an orphan is adopted, reaped and told of.
func TestExecSubreaper(t *testing.T) {
	for name, flags := range map[string][]string{"subreaper": {"--subreaper", "-w", "--"}, "short": {"-s", "-w", "--"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{
				Argv: append(flags, "sh", "-c", "(sh -c 'echo orphan $$; exec {H} on-signal USR1 3 0' &); exec {H} sleep"), NoWait: true,
			}, func(t *testing.T, r *rig.Rig) {
				r.WaitConsole("ready\n")
				pid := printed(t, r, "orphan ")
				r.Until("it is adopted", func() bool { return rig.Field(r.HostPID(pid), "PPid") == strconv.Itoa(r.PID) })
				if err := unix.Kill(r.HostPID(pid), unix.SIGUSR1); err != nil {
					t.Fatal(err)
				}
				r.WaitConsole(fmt.Sprintf("pazinit: reaped %d (helper): ended with status 3\n", pid))
				if got := r.Children(); len(got) != 1 {
					t.Errorf("children %v, want one", got)
				}
				r.Signal(unix.SIGTERM)
				if got := r.Wait(); got != 143 {
					t.Errorf("exit status = %d, want 143", got)
				}
			})
		})
	}
	t.Run("without", func(t *testing.T) { // it is somebody else's then
		t.Parallel()
		r := rig.New(t, rig.Config{Exec: []string{"{H}", "double-fork"}, NoWait: true, Left: true})
		r.WaitConsole("grandchild ")
		if got := r.Children(); len(got) != 1 {
			t.Errorf("children %v, want one", got)
		}
		_ = unix.Kill(printed(t, r, "grandchild "), unix.SIGKILL)
		r.Signal(unix.SIGTERM)
		r.Wait()
	})
}

// printed is the number that follows text on the console.
func printed(t *testing.T, r *rig.Rig, text string) int {
	t.Helper()
	_, rest, _ := strings.Cut(r.Console(), text)
	number, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestExecKillOrphans: what is left gets TERM and is waited for; the exit status
// is the command's. A neighbour is none of it.
func TestExecKillOrphans(t *testing.T) {
	rig.All(t, rig.Config{Argv: []string{"--kill-orphans", "--", "{H}", "remain", "300", "{D}/done", "42"}, NoWait: true}, func(t *testing.T, r *rig.Rig) {
		if got := r.Wait(); got != 42 {
			t.Errorf("exit status = %d, want 42", got)
		}
		if _, err := os.Stat(r.Path("done")); err != nil {
			t.Errorf("it was not waited for: %v", err)
		}
	})
	t.Run("neighbour", func(t *testing.T) {
		t.Parallel()
		neighbour := exec.Command(rig.Helper, "sleep")
		if err := neighbour.Start(); err != nil {
			t.Fatal(err)
		}
		r := rig.New(t, rig.Config{Argv: []string{"--kill-orphans", "--grace=30s", "--", "{H}", "remain", "0", "{D}/done", "0"}, NoWait: true})
		if got := r.Wait(); got != 0 {
			t.Errorf("exit status = %d, want 0", got)
		}
		_ = neighbour.Process.Kill()
		if err := neighbour.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Errorf("the neighbour ended by %v, want our SIGKILL", err)
		}
	})
	t.Run("stopped", func(t *testing.T) { // a signal reaches it by CONT
		t.Parallel()
		rig.Both(t, rig.Config{
			Argv: []string{"--kill-orphans", "--", "sh", "-c", "setsid sh -c 'kill -STOP $$' & while read line; do case $line in 'State:	T'*) exit 3;; esac; done <<E\n$(while ! grep '^State:.T' /proc/$!/status; do :; done)\nE\n"}, NoWait: true,
		}, func(t *testing.T, r *rig.Rig) {
			if got := r.Wait(); got != 3 {
				t.Errorf("exit status = %d, want 3", got)
			}
		})
	})
}

// TestExecEntered: who has entered PID 1's namespace is told to end, too, and is
// waited for, though nobody tells PID 1 of the end.
func TestExecEntered(t *testing.T) {
	rig.NeedRoot(t)
	t.Parallel()
	r := rig.New(t, rig.Config{Mode: rig.PID1, Argv: []string{"--kill-orphans", "--", "{H}", "on-signal", "USR1", "7", "0"}, NoWait: true})
	r.WaitConsole("ready\n")
	entered := exec.Command("nsenter", "-t", strconv.Itoa(r.PID), "-p", "-m", "--", rig.Helper, "on-signal", "TERM", "5", "400")
	out, err := entered.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := entered.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 6)
	if _, err := io.ReadFull(out, line); err != nil {
		t.Fatal(err)
	}
	r.Signal(unix.SIGUSR1)
	_ = entered.Wait()
	if got := entered.ProcessState.ExitCode(); got != 5 {
		t.Errorf("the one who entered ended by %v, want status 5", entered.ProcessState)
	}
	if got := r.Wait(); got != 7 {
		t.Errorf("exit status = %d, want 7", got)
	}
}

// TestExecGrace: what ignores a stop is killed, before the grace is over.
func TestExecGrace(t *testing.T) {
	const grace = 2 * time.Second
	for name, c := range map[string]struct {
		argv []string
		want int
	}{
		"command": {[]string{"--grace=2s", "--", "{H}", "ignore-term"}, 137},
		"orphans": {[]string{"--grace=2s", "--kill-orphans", "--", "sh", "-c", "(setsid {H} ignore-term &); echo ready; exec {H} on-signal TERM 9 0"}, 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{Argv: c.argv, NoWait: true}, func(t *testing.T, r *rig.Rig) {
				r.Until("all are ready", func() bool { return strings.Count(r.Console(), "ready") == 1+2*strings.Count(name, "orphans") })
				begin := time.Now()
				r.Signal(unix.SIGTERM)
				if got := r.Wait(); got != c.want {
					t.Errorf("exit status = %d, want %d", got, c.want)
				}
				if took := time.Since(begin); took < grace*8/10 {
					t.Errorf("it was killed after %v, want most of %v", took, grace)
				}
			})
		})
	}
}

// TestExecNoDeadline: without --grace a command takes the time that it takes.
func TestExecNoDeadline(t *testing.T) {
	rig.Both(t, rig.Config{Exec: []string{"{H}", "on-signal", "TERM", "6", "3000"}}, func(t *testing.T, r *rig.Rig) {
		r.WaitConsole("ready\n")
		r.Signal(unix.SIGTERM)
		if got := r.Wait(); got != 6 {
			t.Errorf("exit status = %d, want 6", got)
		}
	})
}

// TestExecParentDeath: the parent's death is a signal for the command.
func TestExecParentDeath(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Wrap: []string{"sh", "-c", `"$@" & wait`, "sh"}, NoWait: true, Left: true,
		Argv: []string{"--parent-death-signal", "USR2", "--", "{H}", "count-all", "{D}/leader"},
	})
	r.Until("it counts", func() bool { return counts(r, "leader")[0] != 0 })
	if got := counts(r, "leader")[unix.SIGUSR2]; got != 0 {
		t.Errorf("%d SIGUSR2 before", got)
	}
	_ = unix.Kill(r.PID, unix.SIGKILL) // the shell
	r.Until("SIGUSR2", func() bool { return counts(r, "leader")[unix.SIGUSR2] == 1 })
	_ = unix.Kill(counts(r, "leader")[0], unix.SIGKILL)
	r.Wait()
}

// TestExecTells: who sent what, to whom.
func TestExecTells(t *testing.T) {
	rig.NeedRoot(t)
	rig.Both(t, rig.Config{Argv: []string{"-v", "--rewrite", "HUP:USR1", "--rewrite", "ALRM:0", "--", "{H}", "count-all", "{D}/leader"}, NoWait: true}, func(t *testing.T, r *rig.Rig) {
		r.Until("it counts", func() bool { return counts(r, "leader")[0] != 0 })
		pid, self := counts(r, "leader")[0], 1
		if r.Cfg.Mode == rig.Daemon {
			self = r.PID
		}
		for _, s := range []string{"USR2", "HUP", "ALRM"} {
			sender := exec.Command("nsenter", "-t", strconv.Itoa(r.PID), "-p", "-m", "--", "sh", "-c", fmt.Sprintf("kill -%s %d; read line", s, self))
			in, err := sender.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := sender.Start(); err != nil {
				t.Fatal(err)
			}
			r.WaitConsole("SIG" + s + " from")
			in.Close() // until now it can be looked at
			_ = sender.Wait()
		}
		r.Until("they come", func() bool { n := counts(r, "leader"); return n[unix.SIGUSR2] == 1 && n[unix.SIGUSR1] == 1 })
		for _, want := range []string{
			"(sh), uid 0 is sent on to %d\n", "(sh), uid 0 is sent on as SIGUSR1 to %d\n", "(sh), uid 0 is not sent on\n",
		} {
			if strings.Contains(want, "%d") {
				want = fmt.Sprintf(want, pid)
			}
			if !strings.Contains(r.Console(), want) {
				t.Errorf("no %q in %q", want, r.Console())
			}
		}
		killCounter(t, r)
		r.WaitConsole(fmt.Sprintf("%s (%d): killed by SIGKILL\n", rig.Helper, pid))
	})
}
