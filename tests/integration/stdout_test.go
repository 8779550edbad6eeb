package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// An end is what pazinit's stdout and stderr are: file goes to it, text is what
// came out at the other side.
type end struct {
	kind string
	file *os.File
	wrap []string // for pazinit, instead of file
	mu   sync.Mutex
	text bytes.Buffer
	path string
	done chan struct{} // the reader's end
}

func (e *end) got() string {
	if e.path != "" {
		b, _ := os.ReadFile(e.path)
		return string(b)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text.String()
}

// reads collects what arrives at in until the last writer is gone.
func (e *end) reads(in *os.File) {
	e.done = make(chan struct{})
	go func() {
		defer close(e.done)
		buf := make([]byte, 64<<10)
		for {
			n, err := unix.Read(int(in.Fd()), buf)
			e.mu.Lock()
			e.text.Write(buf[:max(n, 0)])
			e.mu.Unlock()
			if n <= 0 && err != unix.EINTR {
				return
			}
		}
	}()
}

var endKinds = []string{"pipe", "file", "tty", "socket", "null", "closed"}

// newEnd makes one that is read at once, unless held says that the test will
// call reads itself, with the file that comes back.
func newEnd(t *testing.T, kind string, held bool) (e *end, in *os.File) {
	t.Helper()
	e = &end{kind: kind}
	var err error
	switch kind {
	case "pipe":
		in, e.file, err = os.Pipe()
	case "file":
		e.path = t.TempDir() + "/console"
		e.file, err = os.OpenFile(e.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	case "tty":
		in, e.file = terminal(t)
	case "socket":
		var fds [2]int
		if fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
			in, e.file = os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket")
		}
	case "null":
		e.file, err = os.OpenFile("/dev/null", os.O_WRONLY, 0)
	case "closed":
		e.wrap = []string{"sh", "-c", `exec "$@" >&- 2>&-`, "sh"}
		e.file, err = os.OpenFile("/dev/null", os.O_WRONLY, 0) // of sh
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // when the supervisor, which came later, has ended
		if t.Failed() {
			text := e.got()
			t.Logf("%d bytes on the console, the last are\n%s", len(text), text[max(0, len(text)-2000):])
		}
		e.file.Close()
		if e.done != nil {
			<-e.done
		}
		if in != nil {
			in.Close()
		}
	})
	if in != nil && !held {
		e.reads(in)
	}
	return e, in
}

// silent says that nobody gets what is written to it.
func (e *end) silent() bool { return e.kind == "null" || e.kind == "closed" }

func flags(t *testing.T, f *os.File) int {
	t.Helper()
	n, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func mode(t *testing.T, f *os.File) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Mode & 0o7777
}

// opens prints to its stdout and stderr, and to both anew, as its own name says.
const opens = `%s: sh -c 'echo %[1]s one; echo %[1]s two >&2; echo %[1]s three >>/dev/stdout; echo %[1]s four >>/dev/stderr; echo done >{D}/w/%[1]s.done; exec {H} sleep'` + "\n"

// shared makes a folder w in the rig's, for every user's files.
func shared(t *testing.T) func(dir string) {
	return func(dir string) {
		err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(dir+"/w", 0o755), os.Chmod(dir+"/w", 0o777))
		if err != nil {
			t.Error(err)
		}
	}
}

// TestStdoutKinds: whatever pazinit's own stdout and stderr are, captured output
// arrives there, and a worker can open /dev/stdout anew, whoever it is. With
// inherit that is as the kernel has it, but for what a container may change.
func TestStdoutKinds(t *testing.T) {
	rig.NeedRoot(t)
	for _, kind := range endKinds {
		for name, m := range map[string]rig.Mode{"container": rig.PID1, "host": rig.Daemon} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				e, _ := newEnd(t, kind, false)
				before, perm := flags(t, e.file), mode(t, e.file)
				procs := ""
				for _, w := range []string{"captured", "capturedOther", "inherit", "inheritOther"} {
					procs += fmt.Sprintf(opens, w)
				}
				r := rig.New(t, rig.Config{
					Mode: m, Procfile: procs, Stdout: e.file, Wrap: e.wrap,
					YAML: `applications:
  app:
    procfile: Procfile
    workers:
      captured: {}
      capturedOther: {user: '65534'}
      inherit: {stdout: inherit, stderr: inherit}
      inheritOther: {user: '65534', stdout: inherit, stderr: inherit}
`,
					Env:    []string{"NO_COLOR=1"},
					Parent: "/run", // another user may enter it
					Setup:  shared(t),
				})
				for _, w := range []string{"captured", "capturedOther", "inherit", "inheritOther"} {
					r.Until(w+" is through", func() bool { return r.Read("w/"+w+".done") != "" })
				}
				for _, w := range []string{"captured", "capturedOther"} {
					for _, n := range []string{"one", "two", "three", "four"} {
						line := w + " " + n
						r.Line("app:"+w+".1", line)
						if !e.silent() {
							r.Until(line+" is on the console", func() bool { return strings.Contains(e.got(), "| "+line) })
						}
					}
				}
				for _, w := range []string{"inherit", "inheritOther"} {
					opened, why := true, ""
					switch {
					case kind == "socket":
						opened, why = false, "No such device or address"
					case w == "inheritOther" && (kind == "file" || m == rig.Daemon && !e.silent()):
						opened, why = false, "Permission denied"
					}
					want := []string{w + " one", w + " two"}
					if opened {
						want = append(want, w+" three", w+" four")
					}
					if e.silent() {
						want = nil
					}
					for _, line := range want {
						r.Until(line+" is on the console", func() bool { return strings.Contains(e.got(), line) })
					}
					if !opened {
						r.Until(why, func() bool { return strings.Contains(e.got(), why) })
						if got := e.got(); strings.Contains(got, w+" three") || strings.Contains(got, w+" four") {
							t.Errorf("%s opened it, want %s:\n%s", w, why, got)
						}
					}
					if strings.Contains(e.got(), "| "+w) {
						t.Errorf("%s was captured", w)
					}
					if got := r.Logs(w); len(got) != 0 {
						t.Errorf("logs %s = %q, want none", w, got)
					}
				}
				if after := flags(t, e.file); after != before {
					t.Errorf("flags of the open file = %#x, before %#x", after, before)
				}
				want := perm
				if m == rig.PID1 && (kind == "pipe" || kind == "tty") {
					want |= 0o002
				}
				if got := mode(t, e.file); got != want {
					t.Errorf("permissions = %o, want %o", got, want)
				}
				r.Signal(unix.SIGTERM)
				if code := r.Wait(); code != 0 {
					t.Errorf("exit status = %d", code)
				}
			})
		}
	}
}

// TestStdoutOfOrdinaryUser: the same where nobody is root.
func TestStdoutOfOrdinaryUser(t *testing.T) {
	rig.NeedRoot(t)
	for _, kind := range endKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			e, _ := newEnd(t, kind, false)
			r := rig.New(t, rig.Config{
				Mode: rig.PID1, User: rig.Nobody, Procfile: fmt.Sprintf(opens, "web"), Stdout: e.file, Wrap: e.wrap,
				Env: []string{"NO_COLOR=1"},
				Setup: func(dir string) {
					if err := errors.Join(os.Mkdir(dir+"/w", 0o700), os.Chown(dir+"/w", rig.Nobody, rig.Nobody)); err != nil {
						t.Error(err)
					}
				},
			})
			for _, n := range []string{"one", "two", "three", "four"} {
				r.Line("app:web.1", "web "+n)
				if !e.silent() {
					r.Until(n+" is on the console", func() bool { return strings.Contains(e.got(), "| web "+n) })
				}
			}
		})
	}
}

// TestStdoutOfAPartOfAWorker: what a worker starts as another user, as gosu does,
// can open /dev/stdout as well.
func TestStdoutOfAPartOfAWorker(t *testing.T) {
	rig.NeedRoot(t)
	rig.Both(t, rig.Config{
		Procfile: "web: setpriv --reuid 54321 --regid 54321 --clear-groups sh -c 'echo to a log that is truncated >/dev/stdout; exec sleep 1000'\n",
		YAML:     "applications: {app: {procfile: Procfile, cwd: /}}",
	}, func(t *testing.T, r *rig.Rig) {
		r.Line("app:web.1", "to a log that is truncated")
	})
}

// TestStdoutNonBlocking: somebody made it so, before or while pazinit runs. No
// line is lost, and it stays so.
func TestStdoutNonBlocking(t *testing.T) {
	for _, kind := range []string{"pipe", "socket", "tty"} {
		for name, early := range map[string]bool{"early": true, "late": false} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				e, in := newEnd(t, kind, true)
				fd := int(e.file.Fd())
				file := os.NewFile(uintptr(dup(t, fd)), "console") // one whose flags nobody changes when it is handed on
				defer file.Close()
				set := func() {
					if err := unix.SetNonblock(fd, true); err != nil {
						t.Error(err)
					}
				}
				if early {
					set()
				}
				r := rig.New(t, rig.Config{
					Mode: rig.PID1, Stdout: file, Env: []string{"NO_COLOR=1"},
					Procfile: "web: {H} sleep\nflood: {H} flood 3000000 100\n",
					YAML:     "applications: {app: {procfile: Procfile, restart: never, workers: {flood: {autostart: false}}}}",
				})
				r.WaitState("app:web.1", "RUNNING")
				set()
				r.Must("start", "flood")
				quiet(r) // it is full
				if st := r.Of("app:flood.1"); st.State != "RUNNING" {
					t.Errorf("flood is %s, want it to wait", st.State)
				}
				quiet(r)
				before := r.CPU()
				time.Sleep(time.Second) // what is measured is this time
				if used := r.CPU() - before; used > 10 {
					t.Errorf("%d ticks of processor time in a second while the console is full", used)
				}
				e.reads(in)
				r.WaitState("app:flood.1", "EXITED")
				want := fmt.Sprint("| ", 30000-1, " x")
				r.Until("the last line", func() bool { return strings.Contains(e.got(), want) })
				n := 0
				for line := range strings.Lines(e.got()) {
					if strings.Contains(line, "| "+fmt.Sprint(n)+" x") {
						n++
					}
				}
				if n != 30000 {
					t.Errorf("%d lines in order, want 30000", n)
				}
				if flags(t, file)&unix.O_NONBLOCK == 0 {
					t.Error("it is blocking again")
				}
			})
		}
	}
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestExecStdoutKinds: one command has pazinit's own, as it would have without it.
func TestExecStdoutKinds(t *testing.T) {
	rig.NeedRoot(t)
	for _, kind := range endKinds {
		for name, m := range map[string]rig.Mode{"pid1": rig.PID1, "daemon": rig.Daemon} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				e, _ := newEnd(t, kind, false)
				before, perm := flags(t, e.file), mode(t, e.file)
				r := rig.New(t, rig.Config{
					Mode: m, Stdout: e.file, Wrap: e.wrap,
					Exec: []string{"sh", "-c", "echo one; echo two >&2; echo three >>/dev/stdout; echo four >>/dev/stderr; exit 7"},
				})
				if code := r.Wait(); code != 7 {
					t.Errorf("exit status = %d, want 7", code)
				}
				want := []string{"one", "two", "three", "four"}
				switch {
				case e.silent():
					want = nil
				case kind == "socket":
					want = []string{"one", "two", "No such device or address"}
				}
				for _, line := range want {
					r.Until(line+" came", func() bool { return strings.Contains(e.got(), line) })
				}
				if after, now := flags(t, e.file), mode(t, e.file); after != before || now != perm {
					t.Errorf("flags %#x and permissions %o, before %#x and %o", after, now, before, perm)
				}
			})
		}
	}
}
