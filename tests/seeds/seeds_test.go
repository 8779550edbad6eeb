package seeds

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given { // they wait more than they work
		_ = flag.Set("test.parallel", "8")
	}
	rig.Main(m)
}

// A row is one line of the list.
type row struct {
	id    string
	check func(*testing.T)
}

func TestSeeds(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range slices.Concat(pazuzu, diprocd, circus, supervisor, quirks) {
		if seen[r.id] {
			t.Errorf("%s is there twice", r.id)
		}
		seen[r.id] = true
		t.Run(r.id, func(t *testing.T) { r.check(t) })
	}
}

// alone is in for what fills the machine: nothing else runs meanwhile.
func alone(c rig.Config, check func(*testing.T, *rig.Rig)) func(*testing.T) {
	return func(t *testing.T) {
		for name, mode := range map[string]rig.Mode{"daemon": rig.Daemon, "pid1": rig.PID1} {
			t.Run(name, func(t *testing.T) {
				c := c
				c.Mode = mode
				check(t, rig.New(t, c))
			})
		}
	}
}

// in makes a check of one that is run in both places.
func in(c rig.Config, check func(*testing.T, *rig.Rig)) func(*testing.T) {
	return func(t *testing.T) {
		t.Parallel()
		rig.Both(t, c, check)
	}
}

// asRoot is in for what an ordinary user cannot even start.
func asRoot(c rig.Config, check func(*testing.T, *rig.Rig)) func(*testing.T) {
	return func(t *testing.T) {
		rig.NeedRoot(t)
		t.Parallel()
		rig.Both(t, c, check)
	}
}

// places makes a check of one that starts its supervisors itself.
func places(check func(*testing.T, rig.Mode)) func(*testing.T) {
	return func(t *testing.T) {
		t.Parallel()
		for name, mode := range map[string]rig.Mode{"daemon": rig.Daemon, "pid1": rig.PID1} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				check(t, mode)
			})
		}
	}
}

// all makes a row's check of several.
func all(checks map[string]func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		t.Parallel()
		for name, check := range checks {
			t.Run(name, check)
		}
	}
}

// instances are the names of a worker's first n instances.
func instances(worker string, n int) (out []string) {
	for i := range n {
		out = append(out, worker+"."+strconv.Itoa(i+1))
	}
	return out
}

// running waits until all of names run and reports their pids.
func running(r *rig.Rig, names ...string) map[string]int {
	r.T.Helper()
	out := map[string]int{}
	for _, name := range names {
		out[name] = r.WaitState(name, "RUNNING").PID
	}
	return out
}

// pids are those of all instances that run.
func pids(r *rig.Rig) map[string]int {
	r.T.Helper()
	out := map[string]int{}
	for _, st := range r.Status() {
		if st.PID != 0 {
			out[st.Name] = st.PID
		}
	}
	return out
}

// host is the pid, seen from here, of an instance that runs.
func host(r *rig.Rig, name string) int {
	r.T.Helper()
	pid := r.HostPID(r.WaitState(name, "RUNNING").PID)
	if pid == 0 {
		r.T.Fatalf("%s is gone", name)
	}
	// The kernel lets the parent go on before it has set up what /proc shows.
	r.Until("the program has begun", func() bool { return cmdline(pid) != "" || !rig.Alive(pid) })
	return pid
}

// kill sends a signal to the first process of an instance.
func kill(r *rig.Rig, name string, sig syscall.Signal) {
	r.T.Helper()
	if err := syscall.Kill(host(r, name), sig); err != nil {
		r.T.Fatal(err)
	}
}

// history are all events from the first one on, as far as they are remembered.
func history(r *rig.Rig) (out []control.Event) {
	r.T.Helper()
	r.Ask(&control.Request{Verb: "events"}, func(l *control.Reply) {
		if l.Event != nil {
			out = append(out, *l.Event)
		}
	})
	return out
}

// states are those that an instance entered, in order.
func states(r *rig.Rig, name string) (out []string) {
	r.T.Helper()
	for _, e := range history(r) {
		if e.Name == name && e.Kind == "state" {
			out = append(out, e.To)
		}
	}
	return out
}

func count(list []string, what string) (n int) {
	for _, s := range list {
		if s == what {
			n++
		}
	}
	return n
}

// entered meets the event that name entered a state.
func entered(name, state string) func(control.Event) bool {
	return func(e control.Event) bool { return e.Kind == "state" && e.Name == name && e.To == state }
}

// did is the client's verb, which must succeed; it reports what was printed.
func did(r *rig.Rig, verb string, args ...string) string {
	r.T.Helper()
	out, errs, code := r.Cmd(verb, args...)
	if code != 0 {
		r.T.Fatalf("pazinit %s %s = %d\n%s%s", verb, strings.Join(args, " "), code, out, errs)
	}
	return out + errs
}

// exits is the client's verb, which must end with code.
func exits(r *rig.Rig, code int, verb string, args ...string) string {
	r.T.Helper()
	out, errs, got := r.Cmd(verb, args...)
	if got != code {
		r.T.Errorf("pazinit %s %s = %d, want %d\n%s%s", verb, strings.Join(args, " "), got, code, out, errs)
	}
	return out + errs
}

// says fails the test unless text has all of want.
func says(t testing.TB, what, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s = %q, want %q in it", what, text, w)
		}
	}
}

// alive counts the rig's processes whose command line has text.
func alive(r *rig.Rig, text string) (n int) {
	for _, pid := range r.Processes() {
		if strings.Contains(cmdline(pid), text) {
			n++
		}
	}
	return n
}

func cmdline(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.ReplaceAll(string(b), "\x00", " ")
}

// environ is a process's.
func environ(t testing.TB, pid int) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for kv := range strings.SplitSeq(string(b), "\x00") {
		if k, v, ok := strings.Cut(kv, "="); ok {
			out[k] = v
		}
	}
	return out
}

// files makes a folder of files; {D} in them stands for it.
func files(t testing.TB, list map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range list {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(strings.ReplaceAll(text, "{D}", dir)), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// program runs the binary in a folder.
func program(t testing.TB, dir string, args ...string) (text string, code int) {
	t.Helper()
	cmd := exec.Command(rig.Binary, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// good and bad check configurations: the file p.yaml of a folder.
func good(t testing.TB, list map[string]string) {
	t.Helper()
	dir := files(t, list)
	if out, code := program(t, dir, "check", "-c", filepath.Join(dir, "p.yaml")); code != 0 {
		t.Errorf("check = %d\n%s\n%s", code, out, list["p.yaml"])
	}
}

func bad(t testing.TB, list map[string]string, want ...string) string {
	t.Helper()
	dir := files(t, list)
	out, code := program(t, dir, "check", "-c", filepath.Join(dir, "p.yaml"))
	if code != 2 {
		t.Errorf("check = %d, want 2\n%s\n%s", code, out, list["p.yaml"])
	}
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], "{D}", dir)
	}
	says(t, "check", out, want...)
	return out
}

// idle waits until nothing has woken the supervisor for d. The runtime hands
// memory back for some time, and a thread may wait for a processor for as long.
func idle(r *rig.Rig, d time.Duration) {
	r.T.Helper()
	r.Until(fmt.Sprintf("nothing wakes the supervisor for %v", d), func() bool {
		cpu, n := r.CPU(), r.Switches()
		time.Sleep(d) // what is measured is this time
		again, ticks := r.Switches()-n, r.CPU()-cpu
		if again != 0 || ticks > 1 {
			r.T.Logf("it ran %d times and used %d ticks in %v", again, ticks, d)
		}
		return again == 0 && ticks <= 1
	})
}
