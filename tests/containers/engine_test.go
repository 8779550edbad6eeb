package containers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/bundle"
	"github.com/pazinit/pazinit/tests/rig"
)

// An engine is a way to run a container in the foreground.
type engine struct {
	name string
	run  func(c *container, p bundle.Place, s bundle.Spec) []string // what follows c.cli
	stop func(c *container) []string                                // asks it to end
	rm   func(c *container) []string                                // whatever its state
}

// A process was started here. Its methods fail the test when what they wait for
// does not come.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	read  func()        // its terminal, until there is no more
	ended chan struct{} // and all that it printed has come

	mu   sync.Mutex
	news chan struct{} // closed and renewed whenever out grows
	out  strings.Builder
}

// A container is the engine's process that holds one.
type container struct {
	*process
	e     engine
	id    string
	dir   string // for everybody to look into
	cli   []string
	state string         // the engine's, where an ordinary user runs it
	keys  io.WriteCloser // what is typed, or its standard input
}

// colors and what else a terminal is sent.
var colors = regexp.MustCompile("\x1b\\[[0-9;?]*[a-zA-Z]|\r")

var count atomic.Int64

// start runs a container at a place, from s.
func (e engine) start(t *testing.T, p bundle.Place, s bundle.Spec) *container {
	t.Helper()
	c := &container{process: newProcess(t), e: e, dir: t.TempDir(), id: fmt.Sprintf("pazinit-test-%d-%d", os.Getpid(), count.Add(1))}
	// TempDir's own parent is not for everybody.
	c.must(errors.Join(os.Chmod(c.dir, 0o755), os.Chmod(filepath.Dir(c.dir), 0o755)))
	s.Env = append([]string{c.marker()}, s.Env...)
	args := e.run(c, p, s)
	if p.NoStdin && e.name != "crun" { // refuses that
		c.cli = append([]string{"sh", "-c", `exec "$0" "$@" <&-`}, c.cli...)
	}
	c.cmd = c.engine(args...)
	switch {
	case s.Terminal:
		c.terminal()
	case s.Interactive:
		in, out, err := os.Pipe()
		c.must(err)
		defer in.Close()
		c.cmd.Stdin, c.keys = in, out
		t.Cleanup(func() { out.Close() })
	}
	c.start()
	t.Cleanup(c.remove)
	return c
}

func newProcess(t *testing.T) *process {
	return &process{t: t, ended: make(chan struct{}), news: make(chan struct{})}
}

func (p *process) start() {
	p.t.Helper()
	if p.cmd.Stdout == nil {
		p.cmd.Stdout, p.cmd.Stderr = p, p
	}
	p.cmd.WaitDelay = rig.Patience
	p.must(p.cmd.Start())
	var reader sync.WaitGroup
	if p.read != nil {
		reader.Go(p.read)
	}
	go func() {
		_ = p.cmd.Wait()
		reader.Wait()
		close(p.ended)
	}()
}

// exec lets a command enter the container.
func (c *container) exec(args ...string) *process {
	c.t.Helper()
	p := newProcess(c.t)
	p.cmd = c.engine(append([]string{"exec", c.id}, args...)...)
	p.start()
	return p
}

func (c *container) marker() string { return "PAZINIT_TEST_CONTAINER=" + c.id }

func (p *process) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// remove deletes the container, which the engine has done if all went well.
func (c *container) remove() {
	if !c.ran() || c.t.Failed() {
		if out, err := c.engine(c.e.rm(c)...).CombinedOutput(); err != nil {
			c.t.Errorf("delete the container: %v: %s", err, out)
		}
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
	if c.t.Failed() {
		out, _ := c.output()
		c.t.Logf("the container's output:\n%s", out)
	}
}

func (p *process) ran() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// terminal gives the container a new one.
func (c *container) terminal() {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	c.must(err)
	c.must(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	c.must(err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	c.must(err)
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = slave, slave, slave
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	c.keys = master
	c.read = func() {
		slave.Close()
		_, _ = io.Copy(c, master) // ends with EIO
	}
	c.t.Cleanup(func() { master.Close() })
}

// Write takes the output.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Write(b)
	close(p.news)
	p.news = make(chan struct{})
	return len(b), nil
}

// output is what the container has printed, without colors, and a channel that is
// closed when there is more.
func (p *process) output() (string, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return colors.ReplaceAllString(p.out.String(), ""), p.news
}

// until waits for a text in the output, n times.
func (p *process) until(text string, n int) {
	p.t.Helper()
	limit := time.NewTimer(rig.Patience)
	defer limit.Stop()
	for ended := false; ; {
		out, news := p.output()
		got := strings.Count(out, text)
		if got >= n {
			return
		}
		if ended {
			p.t.Fatalf("it has ended and printed %q %d times, want %d", text, got, n)
		}
		select {
		case <-news:
		case <-p.ended:
			ended = true
		case <-limit.C:
			p.t.Fatalf("%q was printed %d times within %v, want %d", text, got, rig.Patience, n)
		}
	}
}

// want waits for the end and compares the status.
func (p *process) want(code int) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(rig.Patience):
		p.t.Fatalf("it has not ended within %v", rig.Patience)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit status = %d, want %d", got, code)
	}
}

// want waits for the container's end, compares its status, and looks that nothing
// of it is left.
func (c *container) want(code int) {
	c.t.Helper()
	c.process.want(code)
	if left := c.processes(); len(left) != 0 {
		c.t.Errorf("processes %v of the container live, want none", left)
	}
}

// engine is a command of the engine.
func (c *container) engine(args ...string) *exec.Cmd {
	return as(c.state, c.cli[0], append(c.cli[1:len(c.cli):len(c.cli)], args...)...)
}

// as is a command of the test's own user, or of an ordinary one whose files are in
// the folder home.
func as(home, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	if home != "" {
		cmd.Dir = home
		cmd.Env = append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+home)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: bundle.Nobody, Gid: bundle.Nobody}}
	}
	return cmd
}

// stop asks the container to end, as the engine's user does.
func (c *container) stop() {
	c.t.Helper()
	if out, err := c.engine(c.e.stop(c)...).CombinedOutput(); err != nil {
		c.t.Fatalf("stop: %v: %s", err, out)
	}
}

// processes are those that were started in the container, by their numbers here.
func (c *container) processes() (pids []int) {
	entries, err := os.ReadDir("/proc")
	c.must(err)
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			if string(kv) == c.marker() {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// signal sends one to the one process with this command line, from outside.
func (c *container) signal(sig syscall.Signal, command string) {
	c.t.Helper()
	var found []int
	for _, pid := range c.processes() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.ReplaceAll(strings.TrimSuffix(string(b), "\x00"), "\x00", " ") == command {
			found = append(found, pid)
		}
	}
	if len(found) != 1 {
		c.t.Fatalf("processes that are %q = %v, want one", command, found)
	}
	c.must(syscall.Kill(found[0], sig))
}

// oci is a program that runs bundles: runc, crun.
func oci(program string) engine {
	return engine{
		name: program,
		run: func(c *container, p bundle.Place, s bundle.Spec) []string {
			c.must(bundle.Write(c.dir, s))
			c.cli = []string{program}
			if p.ByUser {
				c.state = filepath.Join(c.dir, "state")
				c.must(errors.Join(os.Mkdir(c.state, 0o700), os.Chown(c.state, bundle.Nobody, bundle.Nobody)))
				c.cli = append(c.cli, "--root", c.state)
			}
			return []string{"run", "--bundle", c.dir, c.id}
		},
		stop: func(c *container) []string { return []string{"kill", c.id, "TERM"} },
		rm:   func(c *container) []string { return []string{"delete", "--force", c.id} },
	}
}

// podman runs an image of a store.
func podman(st store, image string) engine {
	return engine{
		name: "podman",
		run: func(c *container, p bundle.Place, s bundle.Spec) []string {
			if c.state = st.home; c.state != "" {
				s.Users = nil // podman makes the namespace itself
			}
			flags, err := s.Podman()
			c.must(err)
			// What differs from the image is mounted: making one takes longer.
			for name, file := range s.Files {
				from := file.From
				switch {
				case file.Link != "":
					continue
				case from == "":
					from = filepath.Join(c.dir, strings.ReplaceAll(name, "/", "_"))
					mode := file.Mode
					if mode == 0 {
						mode = 0o644
					}
					c.must(os.WriteFile(from, []byte(file.Text), mode))
				}
				flags = append(flags, "--volume="+from+":"+name+":ro")
			}
			c.cli = st.cli
			return slices.Concat([]string{"run", "--rm", "--name", c.id, "--log-driver=none"}, flags, []string{image}, s.Argv())
		},
		stop: func(c *container) []string { return []string{"stop", "--time", "600", c.id} },
		rm:   func(c *container) []string { return []string{"rm", "--force", "--time", "0", "--ignore", c.id} },
	}
}

// A store is where podman has everything that it keeps.
type store struct {
	home string // of an ordinary user; "": it is root's
	cli  []string
}

// newStore makes a store with an image for each root, its name.
func newStore(t *testing.T, roots []root, byUser bool) (st store) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pz") // the way to a socket below it is short
	if err != nil {
		t.Fatal(err)
	}
	st.cli = []string{
		"podman", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime=runc",
	}
	if byUser {
		st.home = dir
		st.cli = append(st.cli, "--storage-driver=vfs")
		if err := os.Chown(dir, bundle.Nobody, bundle.Nobody); err != nil {
			t.Fatal(err)
		}
	}
	podman := func(args ...string) {
		t.Helper()
		if out, err := as(st.home, st.cli[0], append(st.cli[1:len(st.cli):len(st.cli)], args...)...).CombinedOutput(); err != nil {
			t.Errorf("podman %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	t.Cleanup(func() {
		podman("system", "reset", "--force")
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for _, r := range roots {
		root, tar := filepath.Join(dir, r.name), filepath.Join(dir, r.name+".tar")
		if err := bundle.WriteRoot(root, r.files(), 0); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("tar", "--owner=0", "--group=0", "-C", root, "-cf", tar, ".").CombinedOutput(); err != nil {
			t.Fatalf("tar: %v: %s", err, out)
		}
		podman("import", tar, image(r))
	}
	return st
}

func image(r root) string { return "pazinit-test:" + r.name }
