package procconn

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
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

func sh(script string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestStatuses: every exit code, and every signal that ends a process.
func TestStatuses(t *testing.T) {
	s := listen(t, Options{})
	for code := range 256 {
		if r := s.run(sh("exit " + strconv.Itoa(code))); r.Status.ExitStatus() != code || !r.Executed || r.Comm != "sh" && r.Comm != "" || r.Core {
			t.Errorf("exit %d: %+v", code, r)
		}
		s.list = nil
	}
	for sig := unix.Signal(1); sig < 32; sig++ {
		switch sig {
		case unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
			continue
		}
		cmd := exec.Command("sleep", "10000")
		began := time.Now()
		start(t, cmd)
		if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Process.Signal(sig)
		r := s.finish(cmd, began)
		_, core := s.has(Core, r.PID)
		if r.Status.Signal() != sig || r.Core != core || core != dumps(sig) {
			t.Errorf("signal %d: %+v, core %v", sig, r, core)
		}
		s.list = nil
	}
}

// dumps are the signals of which signal(7) says Core.
func dumps(sig unix.Signal) bool {
	switch sig {
	case unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGSYS:
		return true
	}
	return false
}

func (s *seen) has(k Kind, pid int) (Record, bool) {
	for _, r := range s.list {
		if r.Kind == k && r.PID == pid {
			return r, true
		}
	}
	return Record{}, false
}

// TestCore: a core that is dumped is in the status.
func TestCore(t *testing.T) {
	s := listen(t, Options{})
	cmd := sh("ulimit -c unlimited; kill -SEGV $$")
	cmd.Dir = t.TempDir()
	r := s.run(cmd)
	if !r.Core || r.Status.Signal() != unix.SIGSEGV {
		t.Errorf("%+v", r)
	}
	t.Logf("core dumped: %v", r.Status.CoreDump())
}

// TestThreadsCore: the one that dumps tells of the core, the others do not.
func TestThreadsCore(t *testing.T) {
	s := listen(t, Options{})
	for range 5 {
		cmd, in, _ := pipes(t, child(t, "thread-group"))
		cmd.Dir, cmd.Stderr = t.TempDir(), nil
		cmd.Env = append(cmd.Env, "GOTRACEBACK=crash")
		began := time.Now()
		start(t, cmd)
		if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}, nil); err != nil {
			t.Fatal(err)
		}
		threads(t, cmd.Process.Pid, 20)
		_ = cmd.Process.Signal(unix.SIGQUIT)
		if r := s.finish(cmd, began); !r.Core || r.Status.Signal() != unix.SIGABRT {
			t.Errorf("%+v", r)
		}
		_ = in.Close()
	}
}

// pipes makes a pipe to a child and one from it.
func pipes(t *testing.T, cmd *exec.Cmd) (*exec.Cmd, io.WriteCloser, *bufio.Reader) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return cmd, in, bufio.NewReader(out)
}

func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
}

// threads waits until a process has so many.
func threads(t *testing.T, pid, n int) {
	t.Helper()
	until(t, fmt.Sprintf("%d threads of %d", n, pid), func() bool {
		s, ok := new(procfs).stat(int32(pid))
		return ok && int(s.threads) >= n
	})
}

// until waits for what nobody tells of.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within %v", what, patience)
		}
	}
}

// TestDescendants: the child of a child is of the same run, with its own status and name.
func TestDescendants(t *testing.T) {
	s := listen(t, Options{})
	cmd, in, out := pipes(t, sh("exec 3<&0; (read x <&3; exec sh -c 'read x <&3; kill -9 $$') & echo $!; wait $!; exit 3"))
	began := time.Now()
	start(t, cmd)
	pid := number(t, out)
	if found := s.process(pid); found.Leader != cmd.Process.Pid || found.Parent != cmd.Process.Pid || found.Run == 0 {
		t.Errorf("%d is %+v", pid, found)
	}
	_ = in.Close()
	r := s.ended(pid)
	leader := s.finish(cmd, began)
	if r.Status.Signal() != unix.SIGKILL || r.Leader != leader.PID || r.Run != leader.Run || r.Parent != leader.PID || !r.Executed || r.Comm != "sh" && r.Comm != "" {
		t.Errorf("%+v of %+v", r, leader)
	}
	if leader.Status.ExitStatus() != 3 {
		t.Errorf("%+v", leader)
	}
}

func number(t *testing.T, out *bufio.Reader) int {
	t.Helper()
	line, err := out.ReadString('\n')
	n, e := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || e != nil {
		t.Fatalf("printed %q: %v %v", line, err, e)
	}
	return n
}

// process waits until a process is followed.
func (s *seen) process(pid int) (p Process) {
	s.t.Helper()
	until(s.t, fmt.Sprintf("following of %d", pid), func() bool {
		for _, p = range s.Processes() {
			if p.PID == pid {
				return true
			}
		}
		return false
	})
	return p
}

// TestDaemon: by a double fork a process comes to another parent, and stays of its run.
func TestDaemon(t *testing.T) {
	s := listen(t, Options{})
	r0, in, err := os.Pipe() // that exec.Cmd.Wait does not close
	if err != nil {
		t.Fatal(err)
	}
	defer r0.Close()
	cmd := sh("exec 3<&0; sh -c '(read x <&3; exit 42) & echo $!' & wait")
	cmd.Stdin = r0
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	start(t, cmd)
	pid := number(t, bufio.NewReader(stdout))
	leader := s.finish(cmd, began)
	p := s.process(pid)
	if p.Leader != leader.PID || p.Run != leader.Run || p.Run == 0 {
		t.Errorf("%+v of %+v", p, leader)
	}
	_ = in.Close()
	r := s.ended(pid)
	if r.Status.ExitStatus() != 42 || r.Leader != leader.PID || r.Run != leader.Run || r.Parent == leader.PID || r.Parent == 0 {
		t.Errorf("%+v of %+v", r, leader)
	}
}

// TestThreadsGroup: the end of all threads by another one than the first is one end.
func TestThreadsGroup(t *testing.T) {
	s := listen(t, Options{})
	for range 20 {
		cmd, in, _ := pipes(t, child(t, "thread-group"))
		began := time.Now()
		start(t, cmd)
		threads(t, cmd.Process.Pid, 20)
		_ = in.Close()
		if r := s.finish(cmd, began); r.Status.ExitStatus() != 9 {
			t.Errorf("%+v", r)
		}
	}
	s.once()
}

// once: no process has ended twice within a run.
func (s *seen) once() {
	s.t.Helper()
	type key struct {
		pid    int
		forked time.Duration
	}
	ends := map[key]int{}
	for _, r := range s.list {
		if r.Kind == Ended && !r.Forked.IsZero() {
			k := key{r.PID, r.At.Sub(r.Forked)}
			if ends[k]++; ends[k] > 1 {
				s.t.Errorf("ended twice: %+v", r)
			}
		}
	}
}

// TestThreadFirst: the end of the first thread is no death.
func TestThreadFirst(t *testing.T) {
	s := listen(t, Options{})
	cmd, in, _ := pipes(t, child(t, "thread-first"))
	began := time.Now()
	start(t, cmd)
	pid := cmd.Process.Pid
	until(t, "end of the first thread", func() bool {
		st, ok := new(procfs).stat(int32(pid))
		return ok && st.over()
	})
	s.run(sh("exit 0")) // by its end the other's was read
	if r, ok := s.has(Ended, pid); ok {
		t.Errorf("ended while threads live: %+v", r)
	}
	s.process(pid)
	_ = in.Close()
	if r := s.finish(cmd, began); r.Status.ExitStatus() != 7 {
		t.Errorf("%+v", r)
	}
}

// TestThreadExec: the end of the first thread by another's exec is no death.
func TestThreadExec(t *testing.T) {
	s := listen(t, Options{})
	for range 10 {
		cmd, in, out := pipes(t, child(t, "thread-exec"))
		began := time.Now()
		start(t, cmd)
		if line, err := out.ReadString('\n'); err != nil || line != "executed\n" {
			t.Fatalf("%q %v", line, err)
		}
		s.run(sh("exit 0"))
		if r, ok := s.has(Ended, cmd.Process.Pid); ok {
			t.Errorf("ended by an exec: %+v", r)
		}
		_ = in.Close()
		if r := s.finish(cmd, began); r.Status.ExitStatus() != 5 || r.Comm != "sh" {
			t.Errorf("%+v", r)
		}
	}
}

// TestSeeded: who was there before the listener is followed, with threads and all.
func TestSeeded(t *testing.T) {
	cmd, in, _ := pipes(t, child(t, "thread-first"))
	start(t, cmd)
	group, groupIn, _ := pipes(t, child(t, "thread-group"))
	start(t, group)
	threads(t, group.Process.Pid, 20)
	below, belowIn, out := pipes(t, sh("exec 3<&0; (read x <&3; exit 4) & echo $!; wait $!"))
	start(t, below)
	grandchild := number(t, out)
	until(t, "end of the first thread", func() bool {
		st, ok := new(procfs).stat(int32(cmd.Process.Pid))
		return ok && st.over()
	})

	s := listen(t, Options{})
	for _, pid := range []int{cmd.Process.Pid, group.Process.Pid} {
		if p := s.process(pid); p.Leader != pid || p.Run != 0 {
			t.Errorf("%+v", p)
		}
	}
	_, _, _ = in.Close(), groupIn.Close(), belowIn.Close()
	r := s.ended(grandchild)
	if !r.Seeded || r.Leader != below.Process.Pid || r.Status.ExitStatus() != 4 || r.Run != 0 {
		t.Errorf("%+v", r)
	}
	s.finish(below, time.Time{})
	if r := s.finish(cmd, time.Time{}); r.Status.ExitStatus() != 7 || !r.Seeded {
		t.Errorf("%+v", r)
	}
	if r := s.finish(group, time.Time{}); r.Status.ExitStatus() != 9 || !r.Seeded {
		t.Errorf("%+v", r)
	}
}

// TestUser: a change of the user, and of the name, is known at the end.
func TestUser(t *testing.T) {
	rig.NeedRoot(t)
	s := listen(t, Options{})
	cmd := child(t, "thread-rename")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4711, Gid: 4711}}
	if r := s.run(cmd); r.UID != 4711 || r.Comm != "renamed" {
		t.Errorf("%+v", r)
	}
}

// TestStorm: more than the socket holds is lost, counted, and made up for.
func TestStorm(t *testing.T) {
	n := 10000
	if testing.Short() || raceOn {
		n = 1000
	}
	for _, tt := range []struct{ plain, asleep bool }{{false, true}, {true, true}, {false, false}, {true, false}} {
		t.Run(fmt.Sprintf("plain=%v,asleep=%v", tt.plain, tt.asleep), func(t *testing.T) {
			hold, held, plain := make(chan struct{}), !tt.asleep, tt.plain
			s := listen(t, Options{Buffer: 4096, plain: plain, limit: 1 << 20, faults: func(at string) {
				if at == "read" && !held {
					held = true
					<-hold // as if there were no processor for us
				}
			}})
			cmd, in, out := pipes(t, sh(fmt.Sprintf("i=0; while [ $i -lt %d ]; do (exit 3); i=$((i+1)); done; echo done; read x; exit 5", n)))
			start(t, cmd)
			line := make(chan string, 1)
			go func() {
				l, _ := out.ReadString('\n')
				line <- l
			}()
			before, beforeIn, beforeOut := pipes(t, sh("echo $$; read x; exit 6"))
			start(t, before)
			number(t, beforeOut)
			if l := <-line; l != "done\n" {
				t.Fatalf("%q", l)
			}
			// What comes from now on must not be lost, however much others do.
			conn, err := s.file.SyscallConn()
			if err == nil {
				err = conn.Control(func(fd uintptr) { err = setBuffer(int(fd), defaultBuffer) })
			}
			if err != nil {
				t.Fatal(err)
			}
			close(hold)
			if tt.asleep {
				until(t, "resync", func() bool { return s.Counts().Resyncs >= 2 }) // one is the seed
			}
			// What lives is known again, and nothing else.
			alive := map[int]bool{cmd.Process.Pid: true, before.Process.Pid: true}
			until(t, "table of the living", func() bool {
				have := map[int]bool{}
				for _, p := range s.Processes() {
					have[p.PID] = true
				}
				return maps.Equal(have, alive)
			})
			_, _ = in.Close(), beforeIn.Close()
			for _, c := range []*exec.Cmd{cmd, before} {
				_ = c.Wait()
				r := s.ended(c.Process.Pid)
				if want := unix.WaitStatus(c.ProcessState.Sys().(syscall.WaitStatus)); r.Status != want || r.Leader != c.Process.Pid {
					t.Errorf("%+v, want status %#x", r, want)
				}
			}
			for _, r := range s.list {
				if r.Kind == Ended && r.Parent == cmd.Process.Pid && (r.Status.ExitStatus() != 3 || r.Leader != cmd.Process.Pid) {
					t.Errorf("%+v", r)
				}
			}
			c := s.Counts()
			t.Logf("filtered %v, %d records, %+v", s.Filtered(), len(s.list), c)
			if tt.asleep && c.Overflows == 0 || plain && s.Filtered() {
				t.Errorf("%+v", c)
			}
			s.once()
			s.run(sh("exit 0"))
		})
	}
}

// TestQueue: records that nobody takes are counted, not kept.
func TestQueue(t *testing.T) {
	s := listen(t, Options{limit: 10})
	for range 20 {
		if err := sh("exit 0").Run(); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "dropped record", func() bool { return s.Counts().Dropped >= 30 })
	if got := len(s.Records(nil)); got != 10 {
		t.Errorf("%d records, want 10", got)
	}
}

// TestPanic: a panic is told, and the listener is seen to be off.
func TestPanic(t *testing.T) {
	for _, place := range []string{"read", "look"} {
		t.Run(place, func(t *testing.T) {
			told := make(chan string, 1)
			looks := 0
			l, err := Open(Options{Buffer: 4096, Panicked: func(where string, v any) { told <- fmt.Sprint(where, ": ", v) }, faults: func(at string) {
				if at == "look" {
					looks++
				}
				if at == place && (at == "read" || looks > 1) {
					panic("a fault")
				}
			}})
			need(t, err)
			s := &seen{Listener: l, t: t}
			if place == "look" {
				l.following.Lock() // the reader waits, and its socket overflows
				for range 100 {
					if err := sh("exit 0").Run(); err != nil {
						t.Fatal(err)
					}
				}
				l.following.Unlock()
			}
			select {
			case got := <-told:
				if got != "the proc connector: a fault" {
					t.Errorf("told %q", got)
				}
			case <-time.After(patience):
				t.Fatal("nothing was told")
			}
			until(t, "error", func() bool { return s.Err() != nil })
			<-s.Ready()
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			l.Processes()
		})
	}
}

// TestDeaf: that the kernel stops to tell is noticed.
func TestDeaf(t *testing.T) {
	cmd, in, _ := pipes(t, sh("read x"))
	start(t, cmd)
	l, err := Open(Options{})
	need(t, err)
	conn, err := l.file.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) { ignore(int(fd)) })
	}
	if err != nil {
		t.Fatal(err)
	}
	until(t, "error", func() bool { return l.Err() != nil })
	if !errors.Is(l.Err(), errIgnored) {
		t.Error(l.Err())
	}
	_ = in.Close()
	_ = cmd.Wait()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestRefusals: what the kernel says gets a name and a remedy, and is no fault of ours.
func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		err    error
		reason string
	}{
		{unix.EPROTONOSUPPORT, "this kernel has no connector"},
		{unix.EPERM, "CAP_NET_ADMIN is missing"},
		{unix.ECONNREFUSED, "this is not the initial network namespace"},
		{errNoProc, "processes cannot be looked up"},
		{unix.EMFILE, "it cannot be listened to"},
	} {
		var err error = refusal(fmt.Errorf("join the proc connector: %w", tt.err))
		var e *Error
		if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, tt.err) || !errors.As(err, &e) || e.Reason != tt.reason || (e.Remedy == "") != (e.Reason == "it cannot be listened to") {
			t.Errorf("%v: %+v", tt.err, e)
		}
	}
}

// TestClose: it can be closed at any time, and twice.
func TestClose(t *testing.T) {
	for range 20 {
		l, err := Open(Options{})
		need(t, err)
		go l.Processes()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = l.Close()
		}()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-done
	}
}

// TestElsewhere: in other namespaces, or without the capability, the kernel says no, or
// nothing; which it is becomes an error that says what would help. One who listens here
// must not make it look as if it worked.
func TestElsewhere(t *testing.T) {
	rig.NeedRoot(t)
	listen(t, Options{})
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	mapped := []syscall.SysProcIDMap{{HostID: 0, ContainerID: 0, Size: 1}}
	for _, tt := range []struct {
		name   string
		attr   syscall.SysProcAttr
		reason []string
		remedy string
	}{
		{"pid", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, []string{"this is not the initial PID namespace"}, "--pid=host"},
		{"network", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, []string{"this is not the initial network namespace"}, "--network=host"},
		{"both", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID}, []string{"this is not the initial network namespace"}, "--pid=host"},
		{"user", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: mapped, GidMappings: mapped},
			[]string{"this is not the initial user namespace", "CAP_NET_ADMIN is missing"}, "--userns=host"},
		{"nobody", syscall.SysProcAttr{Credential: nobody}, []string{"open", "CAP_NET_ADMIN is missing"}, "--cap-add=NET_ADMIN"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := child(t, "open")
			cmd.SysProcAttr = &tt.attr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s", out)
			lines := strings.Split(string(out), "\n")
			for _, reason := range tt.reason {
				if lines[0] == reason && (reason == "open" || strings.Contains(lines[1], tt.remedy)) {
					return
				}
			}
			t.Errorf("want reason %q and remedy %q", tt.reason, tt.remedy)
		})
	}
}
