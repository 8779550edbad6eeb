package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

var update = flag.Bool("update", false, "write the golden files anew")

// program is the binary that is released, built once.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pazinit-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // other users run it, too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	program = filepath.Join(dir, "pazinit")
	if err := rig.Build(program); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// TestScripts runs testdata/script. Beside testscript's own, the commands are
//
//	pz STATUS ARG…       run pazinit, want this exit status; what changes from
//	                     run to run is masked in stdout and stderr
//	tty SIZE STATUS ARG… the same on a terminal of SIZE (60x24), stdout only
//	supervise ARG…       begin pazinit run ARG… and wait until it supervises
//	ended STATUS         wait for the end of what supervise began
//	await NAME STATE     wait until that instance is in that state
//	awaitlog TEXT        wait until some instance has printed a line with TEXT
//	console TEXT         wait until pazinit's console shows TEXT
//	follow NAME ARG…     begin pazinit ARG…
//	followed NAME TEXT   wait until it has printed TEXT
//	unfollow NAME STATUS send SIGINT if it runs still, and want this exit status
func TestScripts(t *testing.T) {
	deadline, ok := t.Deadline()
	if !ok {
		deadline = time.Now().Add(time.Hour)
	}
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: *update,
		Setup:         setup,
		Deadline:      deadline,
		Condition:     condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"pz": cmdPz, "tty": cmdTTY, "supervise": cmdSupervise, "ended": cmdEnded, "await": cmdAwait,
			"awaitlog": cmdAwaitLog, "console": cmdConsole, "follow": cmdFollow, "followed": cmdFollowed, "unfollow": cmdUnfollow,
		},
	})
}

// A process is one that a script has begun.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it was waited for

	mu   sync.Mutex
	text []byte
	more chan struct{} // closed and renewed with each output
}

// begin starts cmd and collects what it prints.
func begin(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{}), more: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = append(p.text, b...)
	close(p.more)
	p.more = make(chan struct{})
	return len(b), nil
}

// await waits until it has printed text.
func (p *process) await(ts *testscript.TestScript, text string) {
	for {
		p.mu.Lock()
		all, more := string(p.text), p.more
		p.mu.Unlock()
		if strings.Contains(all, text) {
			return
		}
		select {
		case <-more:
		case <-p.done:
			p.mu.Lock()
			all = string(p.text)
			p.mu.Unlock()
			if !strings.Contains(all, text) {
				ts.Fatalf("%v ended without printing %q:\n%s", p.cmd.Args, text, all)
			}
			return
		case <-limit(ts).Done():
			ts.Fatalf("%v never printed %q:\n%s", p.cmd.Args, text, all)
		}
	}
}

// end waits for the end and wants an exit status.
func (p *process) end(ts *testscript.TestScript, status string) {
	select {
	case <-p.done:
	case <-limit(ts).Done():
		ts.Fatalf("%v does not end:\n%s", p.cmd.Args, p.text)
	}
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != status {
		ts.Fatalf("%v: exit status %s, want %s\n%s", p.cmd.Args, got, status, p.text)
	}
}

// A world is what belongs to one script.
type world struct {
	ctx       context.Context
	socket    string
	super     *process
	followers map[string]*process
}

func worldOf(ts *testscript.TestScript) *world        { return ts.Value("world").(*world) }
func limit(ts *testscript.TestScript) context.Context { return worldOf(ts).ctx }

func setup(env *testscript.Env) error {
	w := &world{followers: map[string]*process{}}
	env.Values["world"] = w
	dir := filepath.Join(env.WorkDir, "run")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	w.socket = filepath.Join(dir, "pazinit.sock")
	env.Setenv("PAZINIT_SOCKET", w.socket)
	env.Setenv("SOCKET", w.socket)
	env.Setenv("PATH", filepath.Dir(program)+":"+os.Getenv("PATH"))
	env.Setenv("TZ", "UTC")
	env.Setenv("TERM", "xterm")
	env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, "xdg"))
	// Configurations include this file: scripts run at the same time.
	root := fmt.Sprintf("cgroups: {hierarchy_root: pazinit-test-%d-%s}\n", os.Getpid(), filepath.Base(env.WorkDir))
	if err := os.WriteFile(filepath.Join(env.WorkDir, "group.yaml"), []byte(root), 0o644); err != nil {
		return err
	}
	// A script that hangs says where before the whole test is killed.
	var cancel context.CancelFunc
	w.ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
	env.Defer(func() {
		defer cancel() // it kills what is left
		for _, p := range w.followers {
			_ = p.cmd.Process.Kill()
			<-p.done
		}
		if w.super != nil {
			_ = w.super.cmd.Process.Signal(unix.SIGQUIT)
			select {
			case <-w.super.done:
			case <-time.After(20 * time.Second):
				_ = w.super.cmd.Process.Kill()
				<-w.super.done
			}
		}
	})
	return nil
}

// condition is [have:PROGRAM]. PAZINIT_TEST_MUST makes an error of a program
// that is not there.
func condition(cond string) (bool, error) {
	name, ok := strings.CutPrefix(cond, "have:")
	if !ok {
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	if _, err := exec.LookPath(name); err != nil {
		if slices.Contains(strings.Split(os.Getenv("PAZINIT_TEST_MUST"), ","), name) {
			return false, err
		}
		return false, nil
	}
	return true, nil
}

// pazinitCmd is the program with its arguments in the script's world.
func pazinitCmd(ts *testscript.TestScript, args []string) *exec.Cmd {
	cmd := exec.CommandContext(limit(ts), program, args...)
	cmd.WaitDelay = time.Second
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "PAZINIT_SOCKET", "TZ", "TERM", "NO_COLOR", "XDG_RUNTIME_DIR", "HOME", "GREETING"} {
		if v := ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	return cmd
}

func cmdPz(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: pz STATUS ARG…")
	}
	var stdout, stderr bytes.Buffer
	cmd := pazinitCmd(ts, args[1:])
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	fmt.Fprint(ts.Stdout(), mask(ts, stdout.String()))
	fmt.Fprint(ts.Stderr(), mask(ts, stderr.String()))
	if got := strconv.Itoa(cmd.ProcessState.ExitCode()); got != args[0] {
		ts.Fatalf("exit status %s, want %s\nstdout: %s\nstderr: %s", got, args[0], stdout.String(), stderr.String())
	}
}

// masks are what differs from run to run. Several blanks become two: how tables
// are aligned is tested elsewhere.
var masks = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`\d\d:\d\d:\d\d(\.\d+)?`), "CLOCK"},
	{regexp.MustCompile(`(RUNNING|STARTING|STOPPING)((?:\^\[\[0m)?) +\d+`), "$1$2  PID"},
	{regexp.MustCompile(`\bpid \d+`), "pid PID"},
	{regexp.MustCompile(`"pid":[1-9]\d*`), `"pid":PID`},
	{regexp.MustCompile(`"(uptime_s|delay_s)":[-+.e\d]+`), `"$1":N`},
	{regexp.MustCompile(`\buid \d+`), "uid UID"},
	{regexp.MustCompile(`\b\d+[smhd] ago`), "AGO"},
	{regexp.MustCompile(`next try in [\da-zµ.]+`), "next try in DELAY"},
	{regexp.MustCompile(`pazinit \d+\.\d+\.\d+( \(\w+\))? go[\w.-]+`), "pazinit VERSION"},
	{regexp.MustCompile(`(?m) {2,}`), "  "},
}

func mask(ts *testscript.TestScript, text string) string {
	text = strings.ReplaceAll(text, ts.Getenv("WORK"), "$WORK")
	text = strings.ReplaceAll(text, "\x1b", "^[")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	for _, m := range masks {
		text = m.re.ReplaceAllString(text, m.to)
	}
	return text
}

func cmdSupervise(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	p, err := begin(pazinitCmd(ts, append([]string{"run"}, args...)))
	ts.Check(err)
	w.super = p
	p.await(ts, "started, pid")
}

func cmdEnded(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	w.super.end(ts, args[0])
}

func cmdConsole(ts *testscript.TestScript, _ bool, args []string) {
	worldOf(ts).super.await(ts, args[0])
}

func dial(ts *testscript.TestScript) *control.Client {
	cl, err := control.Dial(worldOf(ts).socket)
	ts.Check(err)
	return cl
}

var errFound = errors.New("found")

func cmdAwait(ts *testscript.TestScript, _ bool, args []string) {
	cl := dial(ts)
	defer cl.Close()
	_, err := cl.Do(limit(ts), &control.Request{Verb: "status", Names: args[:1], Follow: true}, func(r *control.Reply) error {
		for _, s := range r.Status {
			if s.State != args[1] {
				return nil
			}
		}
		return errFound
	})
	if !errors.Is(err, errFound) {
		ts.Fatalf("%s was never %s: %v", args[0], args[1], err)
	}
}

func cmdAwaitLog(ts *testscript.TestScript, _ bool, args []string) {
	cl := dial(ts)
	defer cl.Close()
	_, err := cl.Do(limit(ts), &control.Request{Verb: "logs", Follow: true, Lines: -1}, func(r *control.Reply) error {
		if r.Log != nil && strings.Contains(r.Log.Line, args[0]) {
			return errFound
		}
		return nil
	})
	if !errors.Is(err, errFound) {
		ts.Fatalf("nobody printed %q: %v", args[0], err)
	}
}

func cmdFollow(ts *testscript.TestScript, _ bool, args []string) {
	p, err := begin(pazinitCmd(ts, args[1:]))
	ts.Check(err)
	worldOf(ts).followers[args[0]] = p
}

func cmdFollowed(ts *testscript.TestScript, _ bool, args []string) {
	worldOf(ts).followers[args[0]].await(ts, args[1])
}

func cmdUnfollow(ts *testscript.TestScript, _ bool, args []string) {
	p := worldOf(ts).followers[args[0]]
	_ = p.cmd.Process.Signal(unix.SIGINT)
	p.end(ts, args[1])
	fmt.Fprint(ts.Stdout(), mask(ts, string(p.text)))
}

// cmdTTY runs pazinit on a terminal. With --watch it gets Ctrl-C once the table
// is there. A shell leads the session, as it does for people: when the leader
// ends, the kernel drops what nobody has read yet.
func cmdTTY(ts *testscript.TestScript, _ bool, args []string) {
	var cols, rows uint16
	if _, err := fmt.Sscanf(args[0], "%dx%d", &cols, &rows); err != nil {
		ts.Fatalf("%v", err)
	}
	master, slave, err := openTTY(cols, rows)
	ts.Check(err)
	defer master.Close()
	cmd := pazinitCmd(ts, nil)
	cmd.Path = "/bin/sh"
	cmd.Args = append([]string{"sh", "-c", `trap : INT; "$@"; echo "<end $?>"; read line`, "sh", program}, args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	slave.Close()
	ts.Check(err)
	var out bytes.Buffer
	watch, asked := slices.Contains(args, "--watch"), false
	in := bufio.NewReader(master)
	for !bytes.HasSuffix(out.Bytes(), []byte(">\r\n")) || !bytes.Contains(out.Bytes(), []byte("<end ")) {
		b, err := in.ReadByte()
		if err != nil {
			break
		}
		out.WriteByte(b)
		if watch && !asked && bytes.HasSuffix(out.Bytes(), []byte("\x1b[J")) {
			asked = true
			_, err := master.Write([]byte{3})
			ts.Check(err)
		}
	}
	_, _ = master.Write([]byte("\n"))
	_ = cmd.Wait()
	text, status, _ := strings.Cut(out.String(), "<end ")
	fmt.Fprint(ts.Stdout(), mask(ts, text))
	if got := strings.TrimSuffix(status, ">\r\n"); got != args[1] {
		ts.Fatalf("exit status %s, want %s\n%s", got, args[1], text)
	}
}

// openTTY makes a terminal of that size.
func openTTY(cols, rows uint16) (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	defer func() {
		if err != nil {
			master.Close()
		}
	}()
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	if err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}
