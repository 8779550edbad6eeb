package reaper

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary play a child (see children) and, after the
// tests, looks for what they left: goroutines, descriptors and children.
func TestMain(m *testing.M) {
	if role := os.Getenv("REAPER_CHILD"); role != "" {
		children[role]()
		os.Exit(0)
	}
	before := openFiles()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(goleak.IgnoreTopFunction("os/signal.loop"), goleak.IgnoreTopFunction("os/signal.signal_recv")); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left:", err)
			code = 1
		}
		if after := openFiles(); len(after) > len(before) {
			fmt.Fprintln(os.Stderr, "descriptors left:", before, "->", after)
			code = 1
		}
		if os.Getpid() != 1 {
			if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
				fmt.Fprintln(os.Stderr, "children left:", err)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// children are the parts that the test binary plays when REAPER_CHILD names one.
var children = map[string]func(){}

func openFiles() []string {
	names, _ := os.ReadDir("/proc/self/fd")
	var out []string
	for _, n := range names {
		to, err := os.Readlink("/proc/self/fd/" + n.Name())
		// The runtime's own come when they are first needed and stay.
		if err == nil && !strings.HasPrefix(to, "/sys/fs/cgroup/") && !strings.Contains(to, "eventpoll") && !strings.Contains(to, "eventfd") && !strings.HasPrefix(to, "/proc/") {
			out = append(out, n.Name()+"="+to)
		}
	}
	return out
}

const rerunEnv = "REAPER_RERUN"

// rerun runs the calling test again in a process of its own, which set may
// prepare, and reports whether this is that process.
func rerun(t *testing.T, set func(*exec.Cmd)) bool {
	t.Helper()
	if os.Getenv(rerunEnv) == t.Name() {
		return true
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.timeout=50s")
	cmd.Env = append(os.Environ(), rerunEnv+"="+t.Name())
	if set != nil {
		set(cmd)
	}
	cmd.WaitDelay = 10 * time.Second // a test that failed may have left somebody who has its output
	out, err := cmd.CombinedOutput()
	if bytes.Contains(out, []byte("--- SKIP: "+t.Name()+" ")) {
		t.Skipf("%s", out)
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name()+" ")) {
		t.Errorf("in its own process: %v\n%s", err, out)
	}
	return false
}

// need skips the test for want of a feature, unless PAZINIT_TEST_MUST names it.
func need(t *testing.T, feature string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("PAZINIT_TEST_MUST"), ","), feature) {
		t.Fatalf("%s: %v", feature, err)
	}
	t.Skipf("needs %s: %v", feature, err)
}

func needRoot(t *testing.T) {
	t.Helper()
	var err error
	if os.Geteuid() != 0 {
		err = unix.EPERM
	}
	need(t, "root", err)
}

// A bench is a Reaper with the events that it has told.
type bench struct {
	testing.TB
	*Reaper
	last uint64
	log  []Event
	buf  []Event
}

func newBench(t testing.TB, o Options) *bench {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	r.TellOrphans(true)
	return &bench{TB: t, Reaper: r}
}

// spec is a Spec for argv that leaves everything as it is.
func spec(argv ...string) *Spec {
	return &Spec{Argv: argv, Env: []string{"PATH=/usr/bin:/bin"}, Files: [3]int{-1, 2, 2}, Cgroup: -1, Umask: -1}
}

// start begins a run and reports its number.
func (b *bench) start(s *Spec) uint64 {
	b.last++
	s.Run = b.last
	b.Start(s)
	return s.Run
}

// next waits for the first event that ok accepts and takes it off the log.
func (b *bench) next(ok func(Event) bool) Event {
	b.Helper()
	for {
		if i := slices.IndexFunc(b.log, ok); i >= 0 {
			e := b.log[i]
			b.log = slices.Delete(b.log, i, i+1)
			return e
		}
		<-b.Ready()
		b.buf = b.Events(b.buf)
		b.log = append(b.log, b.buf...)
	}
}

// of waits for the next event of run, of whatever kind.
func (b *bench) of(run uint64) Event {
	b.Helper()
	return b.next(func(e Event) bool { return e.Run == run })
}

// up waits for run to be started and reports its process.
func (b *bench) up(run uint64) int {
	b.Helper()
	e := b.of(run)
	if e.Kind != Started {
		b.Fatalf("first event of run %d = %+v (%v), want Started", run, e, e.Err)
	}
	return e.PID
}

// down waits for the end of run.
func (b *bench) down(run uint64) unix.WaitStatus {
	b.Helper()
	e := b.of(run)
	if e.Kind != Exited {
		b.Fatalf("event of run %d = %+v (%v), want Exited", run, e, e.Err)
	}
	return e.Status
}

// run starts s and waits for its end.
func (b *bench) run(s *Spec) unix.WaitStatus {
	b.Helper()
	run := b.start(s)
	b.up(run)
	return b.down(run)
}

// output runs s and returns what it wrote to its standard output.
func (b *bench) output(s *Spec) string {
	b.Helper()
	r, w := pipe(b)
	s.Files[1] = int(w.Fd())
	s.Release = func() { w.Close() }
	run := b.start(s)
	b.up(run)
	var out bytes.Buffer
	if _, err := out.ReadFrom(r); err != nil {
		b.Error(err)
	}
	r.Close()
	if ws := b.down(run); ws != 0 {
		b.Errorf("%q = %#x, want 0; %s", s.Argv, ws, out.String())
	}
	return out.String()
}

// fails starts s, which must fail, and returns why.
func (b *bench) fails(s *Spec) *StartError {
	b.Helper()
	e := b.of(b.start(s))
	if e.Kind != Failed {
		b.Fatalf("start %q = %+v, want Failed", s.Argv, e)
	}
	return e.Err
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// write makes a file for a test and returns its path.
func write(t testing.TB, mode os.FileMode, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// field returns the value of a line "name: value" or "name value".
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(strings.TrimPrefix(v, ":"))
		}
	}
	return ""
}
