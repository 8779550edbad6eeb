// Package rig starts the built program with a configuration of its own, as a
// daemon or as PID 1 of a new PID namespace, talks to it, and in the end looks
// that nothing of it is left. Its tests run in parallel.
package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
)

// Patience is how long anything is waited for: $PAZINIT_PATIENCE, or a minute. No
// test depends on its length, but a machine may be slow.
var Patience = func() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("PAZINIT_PATIENCE")); err == nil {
		return d
	}
	return time.Minute
}()

// Emulated says that this machine's processors are, by $PAZINIT_EMULATED: how much
// of them anything takes says nothing then.
var Emulated = os.Getenv("PAZINIT_EMULATED") != ""

// path has no folder that only some user may look into.
const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// A Mode is how the supervisor is started.
type Mode int

// The modes.
const (
	Daemon Mode = iota // a process like others
	PID1               // the first process of a PID namespace
)

// Nobody is an ordinary user, to run as.
const Nobody = 65534

// A Config says what to start. In Procfile, YAML, Args and Env {D} stands for the
// rig's folder and {H} for the helper.
type Config struct {
	Procfile string
	YAML     string // without a section "applications" there is one, app, with the Procfile
	Mode     Mode
	User     int      // its uid and gid; 0: the test's own
	Args     []string // after "run -c p.yaml --socket D/s"
	Exec     []string // instead: "-- CMD ARGS", exec mode
	Argv     []string // instead: everything after the program's name
	Wrap     []string // a command that executes what follows it, the program
	Parent   string   // where the rig's folder is made; "": the temporary folder
	Socket   string   // where the socket is to be expected; "": D/s
	Env      []string // of the supervisor, added to PATH
	Files    map[string]string

	NoCgroups bool     // as if there were no control groups
	NoWait    bool     // do not wait for the socket: it may end at once
	Left      bool     // do not fail when something is left in the end
	Stdin     *os.File // nil: /dev/null
	Stdout    *os.File // of it and stderr; nil: what Console shows
	Stderr    *os.File // nil: as Stdout
	Setup     func(dir string)
	Attr      func(*syscall.SysProcAttr)
}

// A Rig is a supervisor that was started. Its methods fail the test when what
// they wait for does not come.
type Rig struct {
	T      testing.TB
	Dir    string // its folder, 0700: Procfile, p.yaml, s (the socket), control (the FIFO)
	Socket string
	Helper string
	PID    int    // of the supervisor as this process sees it
	Cgroup string // the configured root of its control groups
	Cfg    Config

	marker string
	cmd    *exec.Cmd
	ended  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	news    chan struct{} // closed and renewed whenever one of these grows
	console bytes.Buffer
	events  []control.Event
	missed  uint64
	lines   []control.LogLine
	follows map[string]bool
	readers sync.WaitGroup
}

var count atomic.Int64

// New starts a supervisor.
func New(t testing.TB, c Config) *Rig {
	t.Helper()
	if Binary == "" {
		t.Fatal("rig.Main is not this package's TestMain")
	}
	if c.User != 0 && c.User != os.Geteuid() {
		NeedRoot(t)
	}
	n := count.Add(1)
	dir, err := os.MkdirTemp(c.Parent, "pz") // short enough for a socket, and another user may enter it
	if err != nil {
		t.Fatal(err)
	}
	r := &Rig{
		T: t, Dir: dir, Socket: filepath.Join(dir, "s"), Helper: Helper, Cfg: c,
		Cgroup: fmt.Sprintf("rig.%d-%d", os.Getpid(), n),
		marker: fmt.Sprintf("PAZINIT_TEST_RIG=%d.%d.%d", os.Getpid(), n, time.Now().UnixNano()),
		ended:  make(chan struct{}), news: make(chan struct{}), follows: map[string]bool{},
	}
	if c.Socket != "" {
		r.Socket = r.Expand(c.Socket)
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	t.Cleanup(r.cleanup)
	r.WriteYAML(c.YAML)
	if c.Procfile != "" || !strings.Contains(c.YAML, "applications:") {
		r.Write("Procfile", c.Procfile)
	}
	for name, text := range c.Files {
		r.Write(name, text)
	}
	if c.NoCgroups {
		r.must(os.Mkdir(filepath.Join(dir, "nocgroup"), 0o755))
	}
	if c.User != 0 {
		r.must(filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
			return errors.Join(err, os.Lchown(path, c.User, c.User))
		}))
	}
	if c.Setup != nil {
		c.Setup(dir)
	}
	r.start()
	if !c.NoWait && c.Exec == nil {
		r.Until("the socket answers", func() bool {
			cl, err := control.Dial(r.Socket)
			if err != nil {
				if r.hasEnded() {
					t.Fatalf("the supervisor ended at once: %d\n%s", r.Wait(), r.Console())
				}
				return false
			}
			cl.Close()
			return true
		})
		r.readers.Add(1)
		go r.readEvents()
	}
	return r
}

// Both runs a test in both modes.
func Both(t *testing.T, c Config, test func(*testing.T, *Rig)) {
	for name, mode := range map[string]Mode{"daemon": Daemon, "pid1": PID1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := c
			c.Mode = mode
			test(t, New(t, c))
		})
	}
}

// All runs a test in both modes, as root and as an ordinary user.
func All(t *testing.T, c Config, test func(*testing.T, *Rig)) {
	if os.Geteuid() != 0 {
		Both(t, c, test)
		return
	}
	for name, user := range map[string]int{"root": 0, "nobody": Nobody} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := c
			c.User = user
			Both(t, c, test)
		})
	}
}

func (r *Rig) must(err error) {
	r.T.Helper()
	if err != nil {
		r.T.Fatal(err)
	}
}

// Expand fills in {D} and {H}.
func (r *Rig) Expand(text string) string {
	return strings.NewReplacer("{D}", r.Dir, "{H}", Helper).Replace(text)
}

// Path is a file in the rig's folder.
func (r *Rig) Path(name string) string { return filepath.Join(r.Dir, name) }

// Write makes a file in the rig's folder.
func (r *Rig) Write(name, text string) {
	r.T.Helper()
	path := r.Path(name)
	r.must(os.MkdirAll(filepath.Dir(path), 0o755))
	r.must(os.WriteFile(path, []byte(r.Expand(text)), 0o644))
}

// Read reads a file of the rig's folder, "" if there is none.
func (r *Rig) Read(name string) string {
	r.T.Helper()
	b, err := os.ReadFile(r.Path(name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.T.Fatal(err)
	}
	return string(b)
}

// WriteYAML writes the configuration, with what a rig adds to it.
func (r *Rig) WriteYAML(text string) {
	r.T.Helper()
	if !strings.Contains(text, "applications:") {
		text += "\napplications: {app: {procfile: Procfile}}\n"
	}
	if !strings.Contains(text, "cgroups:") {
		root := ""
		if r.Cfg.NoCgroups {
			root = ", fs_root: nocgroup"
		}
		text += fmt.Sprintf("\ncgroups: {hierarchy_root: %s%s}\n", r.Cgroup, root)
	}
	r.Write("p.yaml", text)
}

func (r *Rig) start() {
	t, c := r.T, r.Cfg
	t.Helper()
	var argv []string
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if c.Mode == PID1 {
		attr.Pdeathsig = syscall.SIGKILL
		argv = []string{"unshare", "-fp", "--mount-proc", "--kill-child"}
		if os.Geteuid() != 0 {
			argv = append(argv, "-Ur")
			Need(t, "userns", exec.Command("unshare", "-Ur", "true").Run())
		}
		if c.User != 0 {
			id := strconv.Itoa(c.User)
			argv = append(argv, "setpriv", "--reuid", id, "--regid", id, "--clear-groups")
		}
	} else if c.User != 0 {
		attr.Credential = &syscall.Credential{Uid: uint32(c.User), Gid: uint32(c.User)}
	}
	argv = append(argv, c.Wrap...)
	switch {
	case c.Argv != nil:
		argv = append(append(argv, Binary), c.Argv...)
	case c.Exec != nil:
		argv = append(argv, Binary, "--")
		argv = append(argv, c.Exec...)
	default:
		argv = append(argv, Binary, "run", "-c", "p.yaml", "--socket", r.Socket)
		argv = append(argv, c.Args...)
	}
	for i := range argv {
		argv[i] = r.Expand(argv[i])
	}
	if c.Attr != nil {
		c.Attr(attr)
	}
	r.cmd = exec.Command(argv[0], argv[1:]...)
	r.cmd.Dir = r.Dir
	r.cmd.SysProcAttr = attr
	r.cmd.Env = []string{path, r.marker}
	for _, kv := range c.Env {
		r.cmd.Env = append(r.cmd.Env, r.Expand(kv))
	}
	if c.Stdin != nil {
		r.cmd.Stdin = c.Stdin
	}
	var in, out *os.File
	if c.Stdout != nil {
		r.cmd.Stdout = c.Stdout
	} else {
		var err error
		in, out, err = os.Pipe()
		r.must(err)
		if c.User != 0 { // /dev/stdout is opened anew by some
			r.must(out.Chown(c.User, c.User))
		}
		r.cmd.Stdout = out
	}
	r.cmd.Stderr = r.cmd.Stdout
	if c.Stderr != nil {
		r.cmd.Stderr = c.Stderr
	}
	failed := make(chan error)
	starts <- func() { failed <- r.cmd.Start() }
	r.must(<-failed)
	if in != nil {
		out.Close()
		r.readers.Add(1)
		go r.readConsole(in)
	}
	go func() {
		_ = r.cmd.Wait()
		close(r.ended)
		r.tell(func() {})
	}()
	r.PID = r.cmd.Process.Pid
	if c.Mode == PID1 {
		r.Until("unshare has a child", func() bool {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", r.cmd.Process.Pid))
			if err != nil || r.hasEnded() {
				return r.hasEnded()
			}
			n, err := strconv.Atoi(strings.TrimSpace(string(b)))
			r.PID = n
			return err == nil
		})
		// Until it has become the program, it would miss a signal.
		r.Until("the supervisor is executed", func() bool {
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.PID))
			return err == nil && strings.HasSuffix(exe, Binary) || r.hasEnded() // in a chroot, it is longer
		})
	}
}

func (r *Rig) hasEnded() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// tell changes what waiters look at.
func (r *Rig) tell(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	close(r.news)
	r.news = make(chan struct{})
}

// wait calls look, with mu held, until it says yes, each time something came.
func (r *Rig) wait(what string, look func() bool) {
	r.T.Helper()
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	for ended := false; ; {
		r.mu.Lock()
		ok, news := look(), r.news
		r.mu.Unlock()
		if ok {
			return
		}
		if ended {
			r.Dump()
			r.T.Fatalf("%s: the supervisor has ended", what)
		}
		select {
		case <-news:
		case <-r.ended:
			r.heard()
			ended = true
		case <-limit.C:
			r.Dump()
			r.T.Fatalf("%s: not within %v", what, Patience)
		}
	}
}

// heard waits until all that the supervisor said before its end has come. A
// process that it left behind may keep the console open.
func (r *Rig) heard() {
	done := make(chan struct{})
	go func() {
		r.readers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
	}
}

// Until calls look now and then until it says yes: for what nobody announces,
// as in /proc.
func (r *Rig) Until(what string, look func() bool) {
	r.T.Helper()
	for begin := time.Now(); !look(); time.Sleep(2 * time.Millisecond) {
		if time.Since(begin) > Patience {
			r.Dump()
			r.T.Fatalf("%s: not within %v", what, Patience)
		}
	}
}

// Dump writes to the test's log what is known.
func (r *Rig) Dump() {
	r.T.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.T.Logf("console:\n%s", r.console.String())
	for _, e := range r.events[max(0, len(r.events)-50):] {
		r.T.Logf("event %+v", e)
	}
}

func (r *Rig) readConsole(in *os.File) {
	defer r.readers.Done()
	defer in.Close()
	stop := context.AfterFunc(r.ctx, func() { _ = in.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		r.tell(func() { r.console.Write(buf[:n]) })
		if err != nil {
			return
		}
	}
}

func (r *Rig) readEvents() {
	defer r.readers.Done()
	cl, err := control.Dial(r.Socket)
	if err != nil {
		return
	}
	defer cl.Close()
	_, _ = cl.Do(r.ctx, &control.Request{Verb: "events", Follow: true, After: math.MaxInt64}, func(l *control.Reply) error {
		r.tell(func() {
			r.missed += l.Missed
			if l.Event != nil {
				r.events = append(r.events, *l.Event)
			}
		})
		return nil
	})
}

// readLines follows one instance, so that no other's flood comes between.
func (r *Rig) readLines(name string) {
	defer r.readers.Done()
	for {
		r.mu.Lock()
		news := r.news
		r.mu.Unlock()
		cl, err := control.Dial(r.Socket)
		if err != nil {
			return
		}
		reply, err := cl.Do(r.ctx, &control.Request{Verb: "logs", Names: []string{name}, Follow: true, Lines: -1}, func(l *control.Reply) error {
			if l.Log != nil && l.Log.Name == name {
				r.tell(func() { r.lines = append(r.lines, *l.Log) })
			}
			return nil
		})
		cl.Close()
		if err != nil || reply.Code != control.ExitNoName {
			return
		}
		select { // there is no such instance yet
		case <-news:
		case <-r.ended:
			return
		case <-r.ctx.Done():
			return
		}
	}
}

// Console is what the supervisor printed until now.
func (r *Rig) Console() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.console.String()
}

// WaitConsole waits until the supervisor has printed text.
func (r *Rig) WaitConsole(text string) {
	r.T.Helper()
	r.wait(fmt.Sprintf("%q on the console", text), func() bool { return strings.Contains(r.console.String(), text) })
}

// Events are all events until now; after Wait, all.
func (r *Rig) Events() []control.Event {
	r.T.Helper()
	if !r.hasEnded() {
		last := r.Seq()
		r.wait("the last event", func() bool { return last == 0 || len(r.events) > 0 && r.events[len(r.events)-1].Seq >= last })
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// WaitEvent waits for the first event, from the beginning on, that is meant.
func (r *Rig) WaitEvent(meant func(control.Event) bool) control.Event {
	r.T.Helper()
	return r.WaitEventAfter(0, meant)
}

// WaitEventAfter waits for the first event after the one with number seq that is
// meant.
func (r *Rig) WaitEventAfter(seq uint64, meant func(control.Event) bool) (found control.Event) {
	r.T.Helper()
	from := 0
	r.wait("an event", func() bool {
		for _, e := range r.events[from:] {
			if e.Seq > seq && meant(e) {
				found = e
				return true
			}
		}
		from = len(r.events)
		return false
	})
	return found
}

// Seq is the number of the last event until now.
func (r *Rig) Seq() uint64 {
	r.T.Helper()
	var last uint64
	r.Ask(&control.Request{Verb: "events"}, func(l *control.Reply) {
		if l.Event != nil {
			last = l.Event.Seq
		}
	})
	return last
}

// WaitState waits until an instance has a state, and reports it.
func (r *Rig) WaitState(name, state string) control.Status {
	r.T.Helper()
	return r.WaitStatus(name, func(st control.Status) bool { return st.State == state })
}

// WaitStatus waits until an instance is as it is meant to be.
func (r *Rig) WaitStatus(name string, meant func(control.Status) bool) control.Status {
	r.T.Helper()
	for {
		r.mu.Lock()
		n := len(r.events)
		r.mu.Unlock()
		for _, st := range r.Status() {
			if st.Name == name && meant(st) {
				return st
			}
		}
		r.wait("the wanted state of "+name, func() bool { return len(r.events) > n })
	}
}

// Line waits for a line that an instance printed and that begins with prefix,
// and reports what follows it. The supervisor knows by then that it was executed.
func (r *Rig) Line(name, prefix string) string {
	r.T.Helper()
	return r.LineAfter(name, prefix, 0)
}

// LineAfter is Line for the one after n others.
func (r *Rig) LineAfter(name, prefix string, n int) (rest string) {
	r.T.Helper()
	r.mu.Lock()
	begin := !r.follows[name]
	r.follows[name] = true
	r.mu.Unlock()
	if begin {
		r.readers.Add(1)
		go r.readLines(name)
	}
	r.wait(fmt.Sprintf("%s prints %q", name, prefix), func() bool {
		n := n
		for _, l := range r.lines {
			if s, ok := strings.CutPrefix(l.Line, prefix); ok && l.Name == name {
				if n--; n < 0 {
					rest = s
					return true
				}
			}
		}
		return false
	})
	// It may print before the supervisor knows that it was executed.
	if !r.hasEnded() {
		r.WaitStatus(name, func(st control.Status) bool { return st.State != "STARTING" })
	}
	return rest
}

// Number is a pid that the helper printed: Number("app:web.1", "child ").
func (r *Rig) Number(name, prefix string) int {
	r.T.Helper()
	n, err := strconv.Atoi(r.Line(name, prefix))
	r.must(err)
	return n
}

// Logs are the lines of an instance until now.
func (r *Rig) Logs(names ...string) (out []string) {
	r.T.Helper()
	r.Ask(&control.Request{Verb: "logs", Names: names, Lines: -1}, func(l *control.Reply) {
		if l.Log != nil {
			out = append(out, l.Log.Line)
		}
	})
	return out
}

// Do asks the supervisor. onLine, if there is one, gets the lines before the last.
func (r *Rig) Do(req *control.Request) *control.Reply {
	r.T.Helper()
	return r.Ask(req, nil)
}

// Ask is Do with what gets the lines before the last.
func (r *Rig) Ask(req *control.Request, onLine func(*control.Reply)) *control.Reply {
	r.T.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, Patience)
	defer cancel()
	cl, err := control.Dial(r.Socket)
	if err != nil {
		r.Dump()
		r.T.Fatal(err)
	}
	defer cl.Close()
	reply, err := cl.Do(ctx, req, func(l *control.Reply) error {
		if onLine != nil {
			onLine(l)
		}
		return nil
	})
	if err != nil {
		r.Dump()
		r.T.Fatalf("%+v: %v", *req, err)
	}
	return reply
}

// Must is Do for what must succeed.
func (r *Rig) Must(verb string, names ...string) *control.Reply {
	r.T.Helper()
	reply := r.Do(&control.Request{Verb: verb, Names: names})
	if reply.Code != 0 {
		r.Dump()
		r.T.Fatalf("%s %v = %+v, want done", verb, names, reply)
	}
	return reply
}

// Status is that of every instance.
func (r *Rig) Status() []control.Status {
	r.T.Helper()
	return r.Do(&control.Request{Verb: "status"}).Status
}

// Of is the status of one instance.
func (r *Rig) Of(name string) control.Status {
	r.T.Helper()
	for _, st := range r.Status() {
		if st.Name == name {
			return st
		}
	}
	r.T.Fatalf("no instance %s", name)
	return control.Status{}
}

// Cmd runs a verb of the client.
func (r *Rig) Cmd(verb string, args ...string) (stdout, stderr string, code int) {
	r.T.Helper()
	return r.CmdAs(0, verb, args...)
}

// CmdAs is Cmd as another user; 0 is the test's own.
func (r *Rig) CmdAs(uid int, verb string, args ...string) (stdout, stderr string, code int) {
	r.T.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary, append([]string{verb, "--socket", r.Socket}, args...)...)
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	var out, errs strings.Builder
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", &out, &errs
	cmd.Env = []string{path}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.T.Fatal(err)
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		fmt.Fprintf(&errs, "killed by %v\n", ws.Signal())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Another runs a second supervisor with the same configuration to its end.
func (r *Rig) Another(args ...string) (output string, code int) {
	r.T.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary, append([]string{"run", "-c", "p.yaml", "--socket", r.Socket}, args...)...)
	cmd.Dir, cmd.Env = r.Dir, r.cmd.Env
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.T.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// FIFO writes a line into the control FIFO.
func (r *Rig) FIFO(line string) {
	r.T.Helper()
	f, err := os.OpenFile(filepath.Join(filepath.Dir(r.Socket), "control"), os.O_WRONLY|unix.O_NONBLOCK, 0)
	r.must(err)
	defer f.Close()
	_, err = io.WriteString(f, line+"\n")
	r.must(err)
}

// Signal sends a signal to the supervisor.
func (r *Rig) Signal(sig syscall.Signal) {
	r.T.Helper()
	r.must(syscall.Kill(r.PID, sig))
}

// Wait waits for the end of the supervisor and reports its exit status, or 128
// plus its signal.
func (r *Rig) Wait() int {
	r.T.Helper()
	select {
	case <-r.ended:
	case <-time.After(Patience):
		r.Dump()
		r.T.Fatalf("the supervisor has not ended within %v", Patience)
	}
	r.heard()
	ws := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// cleanup stops the supervisor and looks for what is left.
func (r *Rig) cleanup() {
	t := r.T
	if r.cmd != nil && r.cmd.Process != nil {
		if !r.hasEnded() {
			_ = syscall.Kill(r.PID, syscall.SIGQUIT)
			select {
			case <-r.ended:
			case <-time.After(Patience):
				r.Dump()
				t.Errorf("the supervisor did not end by SIGQUIT")
				_ = syscall.Kill(r.PID, syscall.SIGABRT)
				_ = syscall.Kill(r.PID, syscall.SIGKILL)
				_ = r.cmd.Process.Kill()
				<-r.ended
			}
		}
		left := r.Processes()
		for _, pid := range left {
			if !r.Cfg.Left {
				t.Errorf("process %d is left: %q", pid, cmdline(pid))
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if dirs := r.CgroupDirs(); len(left) == 0 && len(dirs) > 0 && !r.Cfg.Left {
			t.Errorf("control groups are left: %v", dirs)
		}
		r.removeCgroups()
		if t.Failed() {
			r.Dump()
		}
	}
	r.cancel()
	r.readers.Wait()
	if err := os.RemoveAll(r.Dir); err != nil {
		t.Error(err)
	}
}

// CgroupDirs are the folders of the rig's control groups that there are.
func (r *Rig) CgroupDirs() []string {
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		dirs, _ := filepath.Glob(pattern + r.Cgroup)
		out = append(out, dirs...)
	}
	return out
}

func (r *Rig) removeCgroups() {
	for _, dir := range r.CgroupDirs() {
		var all []string
		_ = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			if err == nil && info.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		slices.Reverse(all)
		for _, d := range all {
			_ = os.Remove(d)
		}
	}
}
