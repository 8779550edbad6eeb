package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// A console is somebody at a terminal.
type console struct {
	*testing.T
	master *os.File
	text   string
}

// until waits until what has been printed since the last time.
func (c *console) until(what string) string {
	c.Helper()
	buf := make([]byte, 4096)
	for {
		if before, after, ok := strings.Cut(c.text, what); ok {
			c.text = after
			return before
		}
		p := []unix.PollFd{{Fd: int32(c.master.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, int(rig.Patience/time.Millisecond)/3); n == 0 && err == nil {
			c.Fatalf("%q was not printed, but %q", what, c.text)
		}
		n, err := c.master.Read(buf)
		c.text += string(buf[:n])
		if err != nil {
			c.Fatalf("%v, %q was not printed, but %q", err, what, c.text)
		}
	}
}

func (c *console) enter(text string) {
	c.Helper()
	if _, err := c.master.WriteString(text); err != nil {
		c.Fatal(err)
	}
}

// foreground is the group in the terminal's foreground.
func (c *console) foreground() int {
	pgrp, err := unix.IoctlGetInt(int(c.master.Fd()), unix.TIOCGPGRP)
	if err != nil {
		return -1
	}
	return pgrp
}

func (c *console) eventually(what string, look func() bool) {
	c.Helper()
	for begin := time.Now(); !look(); time.Sleep(2 * time.Millisecond) {
		if time.Since(begin) > rig.Patience/3 {
			c.Fatalf("%s: not within %v; %q", what, rig.Patience/3, c.text)
		}
	}
}

const prompt = "@@ "

// A shell is an interactive bash, with job control, on a terminal of its own.
type shell struct {
	console
	pid int
}

func newShell(t *testing.T) *shell {
	t.Helper()
	_, err := exec.LookPath("bash")
	rig.Need(t, "bash", err)
	master, slave := terminal(t)
	cmd := exec.Command("bash", "--norc", "--noprofile", "--noediting", "-i")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PS1=" + prompt, "P=" + rig.Binary, "H=" + rig.Helper, "HISTFILE="}
	cmd.Dir = t.TempDir()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &shell{console{T: t, master: master}, cmd.Process.Pid}
	t.Cleanup(func() {
		for _, pid := range s.session() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		_ = cmd.Wait()
	})
	s.until(prompt)
	s.run("stty -echo")
	return s
}

// session are all processes of the shell's session.
func (s *shell) session() (out []int) {
	names, _ := os.ReadDir("/proc")
	for _, name := range names {
		var pid int
		if _, err := fmt.Sscan(name.Name(), &pid); err != nil {
			continue
		}
		if sid, err := unix.Getsid(pid); err == nil && sid == s.pid {
			out = append(out, pid)
		}
	}
	return out
}

// run runs a command to its end, and reports what it printed.
func (s *shell) run(line string) string {
	s.Helper()
	s.enter(line + "\n")
	return strings.ReplaceAll(s.until(prompt), "\r\n", "\n")
}

// want fails the test unless a command prints that.
func (s *shell) want(line, want string) {
	s.Helper()
	if got := s.run(line); !strings.Contains(got, want) {
		s.Errorf("%s prints %q, want %q", line, got, want)
	}
}

// named finds the process of the session with a command line.
func (s *shell) named(line string) (found int) {
	s.Helper()
	s.eventually(line, func() bool {
		for _, pid := range s.session() {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if strings.ReplaceAll(strings.TrimRight(string(b), "\x00"), "\x00", " ") == line {
				found = pid
				return true
			}
		}
		return false
	})
	return found
}

// stopped waits until a process is stopped, or is not.
func (s *shell) stopped(pid int, want bool) {
	s.Helper()
	s.eventually(fmt.Sprint("stopped is ", want), func() bool { return strings.HasPrefix(rig.Field(pid, "State"), "T") == want })
}

// TestShellStop: Ctrl-Z, fg, bg and the end, below an interactive shell.
func TestShellStop(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.enter("$P -- $H sleep\n")
	pid := s.named(rig.Helper + " sleep")
	front := func() bool { return s.foreground() == pid }
	s.eventually("the command is in the foreground", front)
	for range 3 {
		s.enter("\x1a")
		s.until("Stopped")
		s.until(prompt)
		s.stopped(pid, true)
		s.want("echo alive", "alive")
		s.enter("fg\n")
		s.eventually("the command is in the foreground again", front)
		s.stopped(pid, false)
	}
	s.enter("\x1a")
	s.until("Stopped")
	s.until(prompt)
	s.run("bg")
	s.stopped(pid, false)
	if got := s.foreground(); got != s.pid {
		t.Errorf("in the foreground: %d, want the shell, %d", got, s.pid)
	}
	s.enter("fg\n")
	s.eventually("the shell waits", func() bool { return s.foreground() != s.pid })
	s.enter("\x03")
	s.until(prompt)
	s.want("echo \"<$?>\"", "<130>")
}

// TestShellEnd: a command that ends in the background takes the terminal from
// nobody.
func TestShellEnd(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.enter("$P -- $H sleep\n")
	pid := s.named(rig.Helper + " sleep")
	s.eventually("the command is in the foreground", func() bool { return s.foreground() == pid })
	s.enter("\x1a")
	s.until("Stopped")
	s.until(prompt)
	s.run("bg")
	s.stopped(pid, false)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.want("wait %1; echo \"<$?>\"", "<137>")
	if got := s.foreground(); got != s.pid {
		t.Errorf("in the foreground: %d, want the shell, %d", got, s.pid)
	}
	s.want("echo alive", "alive")
}

// TestShellBackground: what is started in the background leaves the terminal
// alone, is stopped when it reads, and has it after fg.
func TestShellBackground(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.run("$P -- cat &")
	pid := s.named("cat")
	if got := s.foreground(); got != s.pid {
		t.Errorf("in the foreground: %d, want the shell, %d", got, s.pid)
	}
	s.stopped(pid, true) // SIGTTIN
	s.want("echo alive", "alive")
	s.enter("fg\n")
	s.eventually("the command is in the foreground", func() bool { return s.foreground() == pid })
	s.stopped(pid, false)
	s.enter("hello\n")
	s.until("hello")
	s.enter("\x04")
	s.until(prompt)
	s.want("echo \"<$?>\"", "<0>")
}

// TestShellPipeline: neither side of a pipeline loses the terminal to the other.
func TestShellPipeline(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.enter("echo x | $P -- sh -c 'echo \"asks\"; read a </dev/tty; echo got $a'\n")
	s.until("asks")
	s.enter("this\n")
	s.until("got this")
	s.until(prompt)
	s.enter("$P -- seq 3 | sh -c 'cat; echo \"asks\"; read a </dev/tty; echo got $a'\n")
	s.until("asks")
	s.enter("that\n")
	s.until("got that")
	s.until(prompt)
	// While the left side runs on.
	s.enter("$P -- sh -c 'echo 1; exec $H sleep' | sh -c 'read x; echo \"asks\"; read a </dev/tty; echo got $a'\n")
	s.until("asks")
	s.enter("those\n")
	s.until("got those")
	s.enter("\x03")
	s.until(prompt)
	s.want("echo \"<${PIPESTATUS[0]}>\"", "<130>")
}

// TestShellScript: a script without job control has the terminal again after the
// command, also after one that does not start.
func TestShellScript(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	for _, cmd := range []string{"true", "/no/such/program", "/etc/passwd", "sh -c 'kill -9 0'"} {
		s.enter("sh -c '\"$P\" -- " + strings.ReplaceAll(cmd, "'", `'"'"'`) + "; echo \"asks\"; read a; echo got $a'\n")
		s.until("asks")
		s.enter("this\n")
		s.until("got this")
		s.until(prompt)
	}
}

// TestShellStopSelf: programs such as nano and mutt stop their group by SIGSTOP.
func TestShellStopSelf(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.enter("$P -- sh -c 'echo begin; kill -STOP 0; echo again'\n")
	s.until("begin")
	s.until("Stopped")
	s.until(prompt)
	s.enter("fg\n")
	s.until("again")
	s.until(prompt)
	s.want("echo \"<$?>\"", "<0>")
}

// leads makes pazinit the leader of a session with the terminal, as the runtimes
// of containers do.
func leads(c rig.Config, slave *os.File) rig.Config {
	c.Stdin, c.Stdout = slave, slave
	c.Wrap = []string{"setsid", "-c"}
	c.Attr = func(a *syscall.SysProcAttr) { a.Setpgid, a.Setsid = false, true }
	if c.Mode == rig.Daemon {
		c.Wrap, c.Attr = nil, onTerminal
	}
	return c
}

// TestTerminalShell: a shell that pazinit runs has job control.
func TestTerminalShell(t *testing.T) {
	rig.NeedRoot(t)
	_, err := exec.LookPath("bash")
	rig.Need(t, "bash", err)
	for name, mode := range map[string]rig.Mode{"daemon": rig.Daemon, "pid1": rig.PID1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			master, slave := terminal(t)
			r := rig.New(t, leads(rig.Config{
				Mode: mode, Exec: []string{"bash", "--norc", "--noprofile", "--noediting", "-i"}, Env: []string{"PS1=" + prompt, "H={H}", "HISTFILE="},
			}, slave))
			s := &shell{console{T: t, master: master}, r.PID}
			if got := s.until(prompt); strings.Contains(got, "no job control") {
				t.Errorf("the shell says %q", got)
			}
			s.run("stty -echo")
			s.enter("$H sleep\n")
			sleeps := func() bool {
				pid := s.foreground()
				return pid > 0 && rig.Field(pid, "Name") == filepath.Base(rig.Helper) && strings.HasPrefix(rig.Field(pid, "State"), "S")
			}
			s.eventually("it sleeps", sleeps)
			s.enter("\x1a")
			s.until("Stopped")
			s.until(prompt)
			s.want("jobs", "Stopped")
			s.enter("fg\n")
			s.eventually("it sleeps", sleeps)
			s.enter("\x03")
			s.until(prompt)
			s.want("echo \"<$?>\"", "<130>")
			s.enter("exit 5\n")
			if got := r.Wait(); got != 5 {
				t.Errorf("exit status = %d, want 5", got)
			}
		})
	}
}

// TestTerminalSignals: Ctrl-C comes once, and neither SIGHUP nor SIGCONT by
// itself, at the start and at the end.
func TestTerminalSignals(t *testing.T) {
	rig.NeedRoot(t)
	for name, mode := range map[string]rig.Mode{"daemon": rig.Daemon, "pid1": rig.PID1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			master, slave := terminal(t)
			r := rig.New(t, leads(rig.Config{Mode: mode, Exec: []string{"{H}", "count-all", "{D}/leader", "{D}/child"}}, slave))
			r.Until("both count", func() bool { return counts(r, "leader")[0] != 0 && counts(r, "child")[0] != 0 })
			for i := 1; i <= 3; i++ {
				if _, err := master.Write([]byte{3}); err != nil {
					t.Fatal(err)
				}
				r.Until("Ctrl-C", func() bool { return counts(r, "leader")[unix.SIGINT] == i && counts(r, "child")[unix.SIGINT] == i })
			}
			r.Signal(unix.SIGTERM)
			r.Until("SIGTERM", func() bool { return counts(r, "child")[unix.SIGTERM] == 1 && counts(r, "leader")[unix.SIGTERM] == 1 })
			var want [65]int
			want[unix.SIGINT], want[unix.SIGTERM] = 3, 1
			for _, file := range []string{"leader", "child"} {
				got := counts(r, file)
				want[0] = got[0]
				if got != want {
					t.Errorf("%s got %v,\nwant %v", file, got, want)
				}
			}
			killCounter(t, r)
		})
	}
}

// TestExecSuspend: Ctrl-Z stops nobody where there is no shell to continue it.
func TestExecSuspend(t *testing.T) {
	rig.NeedRoot(t)
	t.Parallel()
	master, slave := terminal(t)
	r := rig.New(t, rig.Config{Exec: []string{"{H}", "count-signal", "INT", "{D}/count"}, Stdin: slave, Stdout: slave, Attr: onTerminal})
	buf, text := make([]byte, 4096), ""
	for !strings.Contains(text, "ready") {
		n, err := master.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		text += string(buf[:n])
	}
	if _, err := master.Write([]byte{0x1a, 3}); err != nil {
		t.Fatal(err)
	}
	r.Until("the signal behind Ctrl-Z", func() bool { return strings.Contains(r.Read("count"), "INT") })
	r.Signal(unix.SIGTERM)
	if got := r.Wait(); got != 143 {
		t.Errorf("exit status = %d, want 143", got)
	}
}
