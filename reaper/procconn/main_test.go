package procconn

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// roleVar makes the test binary one of the children.
const roleVar = "PROCCONN_CHILD"

const patience = 2 * time.Minute

func init() {
	if strings.HasPrefix(os.Getenv(roleVar), "thread-") {
		runtime.LockOSThread() // main is on the first thread
	}
}

// children are what the test binary can be.
var children = map[string]func(){
	// opens a listener, and prints what keeps it from that
	"open": func() {
		l, err := Open(Options{})
		var e *Error
		switch {
		case err == nil:
			fmt.Println("open")
			_ = l.Close()
		case errors.As(err, &e):
			fmt.Printf("%s\n%s\n%v\n", e.Reason, e.Remedy, err)
		default:
			fmt.Println("not typed:", err)
		}
	},
	// the first thread ends and the others live until they are told by a line
	"thread-first": func() {
		go func() {
			wait()
			os.Exit(7)
		}()
		unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	},
	// another thread than the first one executes
	"thread-exec": func() {
		failed := make(chan error)
		go func() {
			runtime.LockOSThread()
			failed <- syscall.Exec("/bin/sh", []string{"sh", "-c", "echo executed; read x; exit 5"}, []string{"PATH=/bin:/usr/bin"})
		}()
		fmt.Println(<-failed)
	},
	// has another name
	"thread-rename": func() {
		name := append([]byte("renamed"), 0)
		if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
			fmt.Println(err)
		}
	},
	// many threads, and one that is not the first ends all
	"thread-group": func() {
		for range 20 {
			go func() {
				runtime.LockOSThread()
				select {}
			}()
		}
		go func() {
			runtime.LockOSThread()
			wait()
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 9, 0, 0)
		}()
		select {}
	},
}

func wait() { _, _ = os.Stdin.Read(make([]byte, 1)) }

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		children[role]()
		os.Exit(0)
	}
	before := openFiles()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left:", err)
			code = 1
		}
		if after := openFiles(); after > before {
			fmt.Fprintln(os.Stderr, "descriptors left:", before, "->", after)
			code = 1
		}
	}
	os.Exit(code)
}

// openFiles counts sockets: the runtime opens a few others for itself.
func openFiles() (n int) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if to, _ := os.Readlink(link); strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// child is the test binary in a role.
func child(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.Stderr = os.Stderr
	return cmd
}

// A seen is a listener, and what it told.
type seen struct {
	*Listener
	t    *testing.T
	list []Record
}

// need skips the test where there cannot be a listener, which only the kernel knows.
func need(t testing.TB, err error) {
	t.Helper()
	var e *Error
	if err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 && !namespace("pid", initialPID) && !namespace("user", initialUser) && !errors.Is(err, unix.ECONNREFUSED) && err != nil && !withoutEvents() {
		t.Fatal(err) // nothing is in the way here
	}
	rig.Need(t, "procconn", err)
}

func listen(t *testing.T, o Options) *seen {
	t.Helper()
	l, err := Open(o)
	need(t, err)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if !errors.Is(l.Err(), os.ErrClosed) && !errors.Is(l.Err(), errPanic) {
			t.Errorf("ended by %v", l.Err())
		}
	})
	return &seen{Listener: l, t: t}
}

// wait reports the first record so far, or to come, of which that is so.
func (s *seen) wait(what string, so func(Record) bool) Record {
	s.t.Helper()
	timeout := time.After(patience)
	for {
		for _, r := range s.list {
			if so(r) {
				return r
			}
		}
		select {
		case <-s.Ready():
			s.list = append(s.list, s.Records(nil)...)
		case <-timeout:
			for _, r := range s.list {
				s.t.Logf("%+v", r)
			}
			s.t.Fatalf("%s was not seen; counts %+v", what, s.Counts())
		}
	}
}

// ended waits for the record of a process's end.
func (s *seen) ended(pid int) Record {
	s.t.Helper()
	return s.wait(fmt.Sprintf("the end of pid %d", pid), func(r Record) bool { return r.Kind == Ended && r.PID == pid })
}

// run runs a command to its end, which must be seen with the status that waitpid(2) has.
func (s *seen) run(cmd *exec.Cmd) Record {
	s.t.Helper()
	began := time.Now()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return s.finish(cmd, began)
}

func (s *seen) finish(cmd *exec.Cmd, began time.Time) Record {
	s.t.Helper()
	_ = cmd.Wait()
	r := s.ended(cmd.Process.Pid)
	if want := unix.WaitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus)); r.Status != want {
		s.t.Errorf("status %#x, want %#x as waitpid(2) has it", r.Status, want)
	}
	if r.Leader != r.PID || r.Parent != os.Getpid() {
		s.t.Errorf("leader %d, parent %d of our child %d", r.Leader, r.Parent, r.PID)
	}
	if !began.IsZero() {
		b := s.wait("the begin", func(b Record) bool { return b.Kind == Began && b.PID == r.PID })
		if b.Run == 0 || b.Run != r.Run || b.Leader != r.PID || r.Seeded {
			s.t.Errorf("began %+v, ended %+v", b, r)
		}
		if r.Forked.Before(began) || r.At.Before(r.Forked) || r.At.After(time.Now()) {
			s.t.Errorf("forked %v, ended %v, begun %v, now %v", r.Forked, r.At, began, time.Now())
		}
	}
	return r
}
