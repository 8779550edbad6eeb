package reaper

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// alone locks the thread, which is to make the child and to collect it, and wants
// that nobody else's child is there.
func alone(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
}

// startSole starts a command and fails the test if it cannot.
func startSole(t *testing.T, s *Sole) int {
	t.Helper()
	if s.Env == nil {
		s.Env = os.Environ()
	}
	if s.Terminal == 0 {
		s.Terminal = -1
	}
	pid, err := s.Start()
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// change waits for the next change of a child.
func change(t *testing.T, pid int, how int) Change {
	t.Helper()
	var si unix.Siginfo
	for unix.Waitid(unix.P_PID, pid, &si, how|unix.WNOWAIT, nil) == unix.EINTR {
	}
	c, found, left := waitid(unix.P_PID, pid, unix.WEXITED|unix.WSTOPPED|unix.WCONTINUED|unix.WNOHANG)
	if !found || !left {
		t.Fatalf("waitid(%d) = %+v, %v, %v, want a change", pid, c, found, left)
	}
	return c
}

// TestSoleChanges: a stop, a continuation and the end are told apart.
func TestSoleChanges(t *testing.T) {
	alone(t)
	pid := startSole(t, &Sole{Argv: []string{"sleep", "1000"}})
	for _, c := range []struct {
		signal unix.Signal
		how    int
		want   Change
	}{
		{unix.SIGSTOP, unix.WSTOPPED, Change{PID: pid, Stopped: true, Signal: unix.SIGSTOP}},
		{unix.SIGCONT, unix.WCONTINUED, Change{PID: pid, Continued: true}},
		{unix.SIGTSTP, unix.WSTOPPED, Change{PID: pid, Stopped: true, Signal: unix.SIGTSTP}},
		{unix.SIGKILL, unix.WEXITED, Change{PID: pid, Signal: unix.SIGKILL, Code: 137}},
	} {
		if err := SignalSole(pid, c.signal, true); err != nil {
			t.Fatal(err)
		}
		if got := change(t, pid, c.how); got != c.want {
			t.Errorf("after signal %d: %+v, want %+v", c.signal, got, c.want)
		}
	}
	pid = startSole(t, &Sole{Argv: []string{"sh", "-c", "exit 200"}})
	if got, want := change(t, pid, unix.WEXITED), (Change{PID: pid, Code: 200}); got != want {
		t.Errorf("exit 200: %+v, want %+v", got, want)
	}
}

// TestSoleGroupings: the command's group and session.
func TestSoleGroupings(t *testing.T) {
	alone(t)
	group := unix.Getpgrp()
	session, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	for grouping, name := range []string{OwnGroup: "own group", OwnSession: "own session", SameGroup: "same group"} {
		pid := startSole(t, &Sole{Argv: []string{"sleep", "1000"}, Grouping: Grouping(grouping)})
		wantGroup, wantSession := pid, session
		switch Grouping(grouping) {
		case OwnSession:
			wantSession = pid
		case SameGroup:
			wantGroup = group
		case OwnGroup:
		}
		if got, err := unix.Getpgid(pid); err != nil || got != wantGroup {
			t.Errorf("%s: group %d, %v, want %d", name, got, err, wantGroup)
		}
		if got, err := unix.Getsid(pid); err != nil || got != wantSession {
			t.Errorf("%s: session %d, %v, want %d", name, got, err, wantSession)
		}
		if err := SignalSole(pid, unix.SIGKILL, false); err != nil {
			t.Fatal(err)
		}
		change(t, pid, unix.WEXITED)
	}
}

// TestSoleRefused: what cannot be executed leaves no process, and its reason.
func TestSoleRefused(t *testing.T) {
	alone(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		argv []string
		err  error
		code int
	}{
		{nil, unix.ENOENT, 127},
		{[]string{""}, unix.ENOENT, 127},
		{[]string{"/no/such/program"}, unix.ENOENT, 127},
		{[]string{"no-such-program"}, unix.ENOENT, 127},
		{[]string{script}, unix.ENOENT, 127},
		{[]string{"/etc/passwd"}, unix.EACCES, 126},
		{[]string{"/etc"}, unix.EACCES, 126},
		{[]string{"/etc/passwd/x"}, unix.ENOTDIR, 126},
	} {
		s := &Sole{Argv: c.argv, Env: os.Environ(), Terminal: -1}
		pid, err := s.Start()
		var e *StartError
		if pid != 0 || !errors.As(err, &e) || !errors.Is(err, c.err) || e.Code() != c.code {
			t.Errorf("Start(%q) = %d, %v, want %v and %d", c.argv, pid, err, c.err, c.code)
		}
	}
	if _, _, left := waitid(unix.P_ALL, 0, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT); left {
		t.Error("there are children left")
	}
}

// TestSoleListenPID: only the variable that names us is for the child.
func TestSoleListenPID(t *testing.T) {
	s := &Sole{Env: []string{"A=1", "LISTEN_PID=" + strconv.Itoa(os.Getpid()), "LISTEN_PIDS=" + strconv.Itoa(os.Getpid()), "B="}}
	env, at := s.environ()
	if at == 0 || len(env) != 5 || env[4] != nil {
		t.Fatalf("environ() = %d entries, at %#x", len(env), at)
	}
	for i, want := range []string{"A=1", "LISTEN_PID=", "LISTEN_PIDS=" + strconv.Itoa(os.Getpid()), "B="} {
		if got := unix.BytePtrToString(env[i]); got != want {
			t.Errorf("variable %d = %q, want %q", i, got, want)
		}
	}
	s.Env[1] = "LISTEN_PID=1" + strconv.Itoa(os.Getpid())
	if _, at := s.environ(); at != 0 {
		t.Error("another's LISTEN_PID is rewritten")
	}
}

// TestSoleGone: a process that is collected is signalled no more.
func TestSoleGone(t *testing.T) {
	alone(t)
	pid := startSole(t, &Sole{Argv: []string{"true"}})
	change(t, pid, unix.WEXITED)
	if err := SignalSole(pid, unix.SIGCONT, true); !errors.Is(err, unix.ESRCH) {
		t.Errorf("SignalSole = %v, want %v", err, unix.ESRCH)
	}
}
