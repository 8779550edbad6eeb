package integration

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// TestExecStatus: the command's exit status is ours.
func TestExecStatus(t *testing.T) {
	for _, code := range []int{0, 1, 2, 42, 77, 125, 126, 127, 128, 129, 130, 137, 143, 200, 254, 255} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{Exec: []string{"{H}", "exit", fmt.Sprint(code)}}, func(t *testing.T, r *rig.Rig) {
				if got := r.Wait(); got != code || r.Console() != "" {
					t.Errorf("exit %d = %d, %q", code, got, r.Console())
				}
			})
		})
	}
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGKILL, unix.SIGSEGV, unix.SIGTERM, unix.SIGUSR1, unix.SIGPIPE, unix.SIGALRM} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{Exec: []string{"{H}", "kill-self", fmt.Sprint(int(sig))}}, func(t *testing.T, r *rig.Rig) {
				if got, want := r.Wait(), 128+int(sig); got != want {
					t.Errorf("kill-self = %d, want %d", got, want)
				}
			})
		})
	}
	for _, c := range []struct {
		cmd, text string
		want      int
	}{
		{"/no/such/program", "/no/such/program", 127},
		{"no-such-program-anywhere", "no-such-program-anywhere", 127},
		{"/etc/passwd", "/etc/passwd", 126},
		{"/etc", "/etc", 126},
	} {
		t.Run(strings.ReplaceAll(c.cmd, "/", "_"), func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{Exec: []string{c.cmd}}, func(t *testing.T, r *rig.Rig) {
				if got := r.Wait(); got != c.want {
					t.Errorf("%s = %d, want %d", c.cmd, got, c.want)
				}
				r.WaitConsole(c.text)
			})
		})
	}
}

// TestExecSignals are handed on.
func TestExecSignals(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT, unix.SIGALRM, unix.SIGPWR} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			rig.All(t, rig.Config{Exec: []string{"{H}", "on-signal", fmt.Sprint(int(sig)), "33", "0"}}, func(t *testing.T, r *rig.Rig) {
				r.WaitConsole("ready")
				r.Signal(sig)
				if got := r.Wait(); got != 33 {
					t.Errorf("exit status = %d, want 33", got)
				}
			})
		})
	}
}

// TestExecPassesThrough: arguments, environment, folder, descriptors 0 to 2.
func TestExecPassesThrough(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{Exec: []string{"{H}", "print-args", "a b", "--", "$HOME", "", "*"}})
	r.Wait()
	r.WaitConsole(`["a b","--","$HOME","","*"]`)

	r = rig.New(t, rig.Config{Exec: []string{"{H}", "print-env"}, Env: []string{"A=1", "PORT=2"}})
	r.Wait()
	r.WaitConsole("]")
	for _, kv := range []string{`"A=1"`, `"PORT=2"`} {
		if !strings.Contains(r.Console(), kv) {
			t.Errorf("environment %s, want %s", r.Console(), kv)
		}
	}

	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r = rig.New(t, rig.Config{Exec: []string{"cat"}, Stdin: in})
	in.Close()
	_, _ = io.WriteString(out, "through and through\n")
	r.WaitConsole("through and through\n")
	out.Close()
	if got := r.Wait(); got != 0 {
		t.Errorf("cat = %d", got)
	}

	r = rig.New(t, rig.Config{Exec: []string{"{H}", "print-status"}})
	r.Wait()
	r.WaitConsole("}\n")
	line := r.Console()
	st := decode[status](t, line[strings.Index(line, "{"):])
	if st.Cwd != r.Dir {
		t.Errorf("cwd = %s, want %s", st.Cwd, r.Dir)
	}
}

// terminal makes a pseudo-terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	rig.Need(t, "pty", err)
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close(); master.Close() })
	return master, slave
}

func onTerminal(a *syscall.SysProcAttr) {
	a.Setpgid, a.Setsid, a.Setctty, a.Ctty = false, true, true, 0
}

// TestExecTerminal: the command has the terminal, in the foreground.
func TestExecTerminal(t *testing.T) {
	rig.NeedRoot(t)
	t.Parallel()
	_, err := exec.LookPath("stty")
	rig.Need(t, "stty", err)
	master, slave := terminal(t)
	r := rig.New(t, rig.Config{
		Exec:  []string{"sh", "-c", "stty -echo && {H} print-status && read line && echo got $line"},
		Stdin: slave, Stdout: slave, Attr: onTerminal,
	})
	buf := make([]byte, 64<<10)
	text := ""
	until := func(what string) {
		t.Helper()
		for !strings.Contains(text, what) {
			n, err := master.Read(buf)
			text += string(buf[:n])
			if err != nil {
				t.Fatalf("%v after %q", err, text)
			}
		}
	}
	until("}\r\n")
	st := decode[status](t, text[strings.Index(text, "{"):strings.Index(text, "}\r\n")+1])
	if !st.TTY || !st.Foreground || !st.StdinTTY {
		t.Errorf("tty %v, foreground %v, stdin_tty %v, want all", st.TTY, st.Foreground, st.StdinTTY)
	}
	if _, err := master.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	until("got hello")
	if got := r.Wait(); got != 0 {
		t.Errorf("exit status = %d", got)
	}
}

// TestExecInterrupt: Ctrl-C reaches the command once.
func TestExecInterrupt(t *testing.T) {
	rig.NeedRoot(t)
	t.Parallel()
	master, slave := terminal(t)
	r := rig.New(t, rig.Config{Exec: []string{"{H}", "count-signal", "INT", "{D}/count"}, Stdin: slave, Stdout: slave, Attr: onTerminal})
	buf := make([]byte, 4096)
	text := ""
	for i := range 3 {
		for strings.Count(text, "got INT") < i || !strings.Contains(text, "ready") {
			n, err := master.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			text += string(buf[:n])
		}
		if _, err := master.Write([]byte{3}); err != nil {
			t.Fatal(err)
		}
	}
	r.Until("three signals", func() bool { return strings.Count(r.Read("count"), "INT") >= 3 })
	if got := strings.Count(r.Read("count"), "INT"); got != 3 {
		t.Errorf("%d signals of three Ctrl-C", got)
	}
	r.Signal(unix.SIGTERM)
	if got := r.Wait(); got != 143 {
		t.Errorf("exit status = %d, want 143", got)
	}
}

// TestWorkerTerminal: a worker with tty has pazinit's, in the foreground.
func TestWorkerTerminal(t *testing.T) {
	rig.NeedRoot(t)
	t.Parallel()
	master, slave := terminal(t)
	go func() { _, _ = io.Copy(io.Discard, master) }()
	r := rig.New(t, rig.Config{
		Procfile: "shell: sh -c '{H} print-status > {D}/status; exec {H} sleep'\nother: {H} print-status hold\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {shell: {tty: true}}}}",
		Stdin:    slave, Stdout: slave, Attr: onTerminal,
	})
	other := decode[status](t, "{"+r.Line("app:other.1", "{"))
	if other.TTY || other.StdinTTY {
		t.Errorf("another worker has the terminal: %+v", other)
	}
	r.Until("the status", func() bool { return strings.HasSuffix(r.Read("status"), "}\n") })
	st := decode[status](t, r.Read("status"))
	if !st.TTY || !st.Foreground || !st.StdinTTY {
		t.Errorf("tty %v, foreground %v, stdin_tty %v, want all", st.TTY, st.Foreground, st.StdinTTY)
	}
}

// TestExecOrphans do not disturb the command.
func TestExecOrphans(t *testing.T) {
	rig.Both(t, rig.Config{Exec: []string{"{H}", "orphans", "1000"}}, func(t *testing.T, r *rig.Rig) {
		if got := r.Wait(); got != 0 {
			t.Errorf("exit status = %d, %s", got, r.Console())
		}
	})
}
