//go:build oracle

package differential

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience ends what hangs; nothing depends on its length.
const patience = 20 * time.Second

// A place is where the program runs.
type place struct {
	pid1 bool     // of a PID namespace
	tty  bool     // leads the session of a terminal
	jobs bool     // is a job of a shell with a terminal
	opts []string // of `probe start`
}

// A play is one run of a program, the real one or pazinit by its name.
type play struct {
	t      *testing.T
	cmd    *exec.Cmd
	pid    int // the program's, as seen from here
	mark   string
	ended  chan struct{}
	others []int    // processes older than the play
	told   []string // what the two are compared by

	out, err      stream
	master, slave *os.File // of the terminal, if there is one
}

// A stream is the reading end of what the play prints. It is read when it is
// looked at, so that nothing that was printed before is missed.
type stream struct {
	fd   int
	text []byte
}

func (s *stream) look() string {
	var b [4096]byte
	for {
		n, err := unix.Read(s.fd, b[:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			break
		}
		s.text = append(s.text, b[:n]...)
	}
	return string(s.text)
}

var marks int

// begin starts dir/name with args at a place. env is added to a bare environment.
func begin(t *testing.T, dir, name string, at place, env []string, args ...string) *play {
	t.Helper()
	marks++
	p := &play{t: t, mark: fmt.Sprintf("ORACLE=%d.%d", os.Getpid(), marks), ended: make(chan struct{}), others: pids()}
	line := append([]string{name}, args...) // found by PATH: argv[0] is in some messages
	if len(at.opts) > 0 {
		line = append(append([]string{probe, "start"}, at.opts...), line...)
	}
	if at.jobs {
		line = append([]string{probe, "jobs"}, line...)
	}
	if at.tty || at.jobs {
		line = append([]string{probe, "start", "session=1"}, line...)
	}
	if at.pid1 {
		line = append([]string{"/usr/bin/unshare", "-fp", "--mount-proc", "--kill-child"}, line...)
	}
	p.cmd = &exec.Cmd{Path: line[0], Args: line}
	if line[0] == name {
		p.cmd.Path = filepath.Join(dir, name)
	}
	p.cmd.Env = append([]string{"PATH=" + dir + ":/usr/bin:/bin", p.mark}, env...)
	p.cmd.Dir = "/usr"
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if at.tty || at.jobs { // only for input: what is printed comes late through a terminal
		p.openpty()
		p.cmd.Stdin = p.slave
	}
	var out, errout *os.File
	out, p.out.fd = pipe(t)
	defer out.Close()
	errout, p.err.fd = pipe(t)
	defer errout.Close()
	p.cmd.Stdout, p.cmd.Stderr = out, errout
	errs := make(chan error)
	starts <- func() { errs <- p.cmd.Start() }
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	p.pid = p.cmd.Process.Pid
	t.Cleanup(p.sweep)
	if at.pid1 || at.jobs {
		p.pid = p.descend(name, at)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	return p
}

// descend finds the program below unshare and the shell; 0 if it has ended already.
func (p *play) descend(name string, at place) int {
	pid := p.pid
	for _, deeper := range []bool{at.pid1, at.jobs} {
		if !deeper {
			continue
		}
		for end := time.Now().Add(patience); ; {
			if kids := children(pid); len(kids) > 0 {
				pid = kids[0]
				break
			}
			if stat(pid).state == "Z" || time.Now().After(end) {
				return 0
			}
			time.Sleep(time.Millisecond)
		}
	}
	return pid
}

// openpty makes a terminal without echo, of which signals throw nothing away.
func (p *play) openpty() {
	p.t.Helper()
	try := func(err error) {
		p.t.Helper()
		if err != nil {
			p.t.Fatal(err)
		}
	}
	var err error
	p.master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	try(err)
	fd := int(p.master.Fd())
	try(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	try(err)
	p.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	try(err)
	mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	try(err)
	mode.Lflag = mode.Lflag&^unix.ECHO | unix.NOFLSH
	try(unix.IoctlSetTermios(fd, unix.TCSETS, mode))
}

// pipe makes one whose reading end does not block.
func pipe(t *testing.T) (w *os.File, r int) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[1]), "pipe"), fds[0]
}

// output is the lines of stdout so far.
func (p *play) output() (lines []string) {
	for line := range strings.Lines(p.out.look()) {
		lines = append(lines, strings.TrimRight(line, "\r\n"))
	}
	return lines
}

func (p *play) errors() string { return p.err.look() }

// expect waits for a line of the output.
func (p *play) expect(want string) {
	p.t.Helper()
	for end := time.Now().Add(patience); !slices.Contains(p.output(), want); {
		if time.Now().After(end) {
			p.t.Fatalf("%q never came; output %q, errors %q", want, p.output(), p.errors())
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(p.out.fd), Events: unix.POLLIN}}, 100)
	}
}

func (p *play) tell(format string, args ...any) {
	p.told = append(p.told, fmt.Sprintf(format, args...))
}

// lately is the lines of the output from n on.
func (p *play) lately(n int) (out []string) {
	if all := p.output(); len(all) > n {
		return all[n:]
	}
	return nil
}

// send sends a signal to the program and waits until all is quiet again.
func (p *play) send(sig int) {
	p.t.Helper()
	if err := unix.Kill(p.pid, unix.Signal(sig)); err != nil && !errors.Is(err, unix.ESRCH) {
		p.t.Fatal(err)
	}
	p.quiet()
}

// quiet waits until the program and what is below it have nothing left to do: no
// thread runs and no signal is pending. The one that signals is looked at
// first, for what it does makes the next busy before it is idle itself.
func (p *play) quiet() {
	p.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		busy := ""
		family := p.family()
		for range 3 {
			for _, pid := range family {
				if s := stat(pid); s.busy && busy == "" {
					busy = s.text
				}
			}
		}
		if busy == "" {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("it never rests: %s", busy)
		}
	}
}

// family is all processes of this play, the oldest first.
func (p *play) family() (out []int) {
	for _, pid := range pids() {
		if _, old := slices.BinarySearch(p.others, pid); old {
			continue
		}
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if stat(pid).name != "unshare" && slices.ContainsFunc(bytes.Split(env, []byte{0}), func(kv []byte) bool { return string(kv) == p.mark }) {
			out = append(out, pid)
		}
	}
	return out
}

// sweep ends all that is left.
func (p *play) sweep() {
	for _, pid := range p.family() {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	<-p.ended
	unix.Close(p.out.fd)
	unix.Close(p.err.fd)
	if p.master != nil {
		p.master.Close()
		p.slave.Close()
	}
}

// end waits for the end and tells the status.
func (p *play) end() {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("it does not end; output %q, errors %q", p.output(), p.errors())
	}
	ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		p.tell("killed by %d", ws.Signal())
	} else {
		p.tell("exit %d", ws.ExitStatus())
	}
}

// texts tells what was printed, without what differs from run to run.
func (p *play) texts() {
	for _, line := range p.output() {
		p.tell("stdout: %s", p.plain(line))
	}
	for line := range strings.Lines(p.errors()) {
		p.tell("stderr: %s", p.plain(strings.TrimSuffix(line, "\n")))
	}
}

var numbers = regexp.MustCompile(`\(\d+\)|pid:? '\d+'|pid=\d+|PID \d+`)

func (p *play) plain(line string) string {
	line = numbers.ReplaceAllStringFunc(line, func(s string) string {
		return regexp.MustCompile(`\d+`).ReplaceAllString(s, "N")
	})
	for _, dir := range []string{real, ours} {
		line = strings.ReplaceAll(line, dir, "BIN")
	}
	return strings.ReplaceAll(line, p.mark, "ORACLE")
}

type status struct {
	name, state, text string
	busy              bool
}

// stat looks at all threads of a process.
func stat(pid int) (out status) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		s := string(b)
		state := field(s, "State")[:1]
		if out.state == "" {
			out.name, out.state = field(s, "Name"), state
		}
		pending := strings.Trim(field(s, "SigPnd")+field(s, "ShdPnd"), "0") != ""
		if state != "Z" && state != "X" && state != "T" && (state != "S" || pending) {
			out.busy, out.text = true, s
		}
	}
	return out
}

func field(status, key string) string {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "?"
}

func pids() (out []int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out
}

func children(of int) (out []int) {
	for _, pid := range pids() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if field(string(b), "PPid") == strconv.Itoa(of) {
			out = append(out, pid)
		}
	}
	return out
}

// resize changes the size of the terminal's window.
func (p *play) resize(rows int) {
	p.t.Helper()
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(rows), Col: 80}); err != nil {
		p.t.Fatal(err)
	}
}

// enter types a key at the terminal, and a line after it: when that has come to the
// other side, the key was dealt with.
func (p *play) enter(key string) {
	p.t.Helper()
	if _, err := p.master.WriteString(key + "x\n"); err != nil {
		p.t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		n, err := unix.IoctlGetInt(int(p.slave.Fd()), unix.TIOCINQ)
		if err != nil || time.Now().After(end) {
			p.t.Fatalf("the terminal has %d bytes, %v", n, err)
		}
		if n >= 2 {
			return
		}
	}
}

// starts are functions for the one thread that starts programs: they get a signal
// when it ends, which must not be before the test does.
var starts = make(chan func())
