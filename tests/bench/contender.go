package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A contender can keep n copies of the stamping worker alive. Its setUp writes
// what it needs into dir and says how to run it.
type contender struct {
	name  string
	setUp func(b *bench, dir string, n int, fifo string) (job, error)
	// A run must have lived this long for its death to count as healthy, and there
	// are to be so many at a time that the measuring needs not wait for that.
	rest    time.Duration
	copies  int
	atScale int // the most that it can supervise, 0 for any number
}

// A job is a command line, and how it is asked to stop.
type job struct {
	argv []string
	stop func(pid int) // nil: TERM
}

const (
	ours      = "pazinit"
	oursPlain = "pazinit -cgroups"
)

func isOurs(name string) bool { return strings.HasPrefix(name, ours) }

func (b *bench) contenders() []contender {
	const soon = 2 * time.Millisecond
	all := []contender{
		{name: "cref", rest: soon, copies: 1, setUp: func(b *bench, _ string, n int, fifo string) (job, error) {
			return job{argv: []string{b.ref, "loop", strconv.Itoa(n), b.stamp, fifo}}, nil
		}},
		{name: "goref", rest: soon, copies: 1, setUp: func(b *bench, _ string, n int, fifo string) (job, error) {
			return job{argv: []string{b.goref, "loop", strconv.Itoa(n), b.stamp, fifo}}, nil
		}},
		{name: ours, rest: soon, copies: 1, setUp: func(b *bench, dir string, n int, fifo string) (job, error) {
			return b.pazinitJob(dir, true, fmt.Sprintf("{run: %q, args: [%q], num_instances: %d}", b.stamp, fifo, n))
		}},
		{name: oursPlain, rest: soon, copies: 1, setUp: func(b *bench, dir string, n int, fifo string) (job, error) {
			return b.pazinitJob(dir, false, fmt.Sprintf("{run: %q, args: [%q], num_instances: %d}", b.stamp, fifo, n))
		}},
	}
	if b.against != "" {
		all = append(all, contender{name: "pazinit -against", rest: soon, copies: 1, setUp: func(b *bench, dir string, n int, fifo string) (job, error) {
			j, err := b.pazinitJob(dir, true, fmt.Sprintf("{run: %q, args: [%q], num_instances: %d}", b.stamp, fifo, n))
			j.argv[0] = b.against
			return j, err
		}})
	}
	if b.peers {
		all = append(all, peers()...)
	}
	return all
}

// pazinitJob writes a configuration with one worker.
func (b *bench) pazinitJob(dir string, cgroups bool, worker string) (job, error) {
	fs := ""
	if !cgroups { // none is to be found there
		fs = fmt.Sprintf(", fs_root: %q", filepath.Join(dir, "none"))
		if err := os.Mkdir(filepath.Join(dir, "none"), 0o700); err != nil {
			return job{}, err
		}
	}
	// Deaths of the measurement come at once and are healthy all the same.
	text := fmt.Sprintf(`socket_path: %q
cgroups: {hierarchy_root: %q%s}
applications:
  bench:
    healthy_after: 1ms
    max_restarts: unlimited
    stop_timeout: 60s
    workers:
      w: %s
`, filepath.Join(dir, "pazinit.sock"), "bench-"+strconv.Itoa(os.Getpid())+"-"+filepath.Base(dir), fs, worker)
	cfg := filepath.Join(dir, "pazinit.yaml")
	return job{argv: []string{b.pazinit, "run", "-c", cfg}}, os.WriteFile(cfg, []byte(text), 0o600)
}

// A runner is a supervisor that runs.
type runner struct {
	job  job
	dir  string
	cmd  *exec.Cmd
	fifo *fifo
	t0   int64 // when it was started

	done  chan struct{} // closed at its end
	ended int64         // when that was
}

// start runs a contender with n workers. ends: the FIFO ends with the last one.
func (b *bench) start(c *contender, n int, ends bool) (*runner, error) {
	dir, err := b.folder("run")
	if err != nil {
		return nil, err
	}
	f, err := openFIFO(dir, ends)
	if err != nil {
		return nil, err
	}
	j, err := c.setUp(b, dir, n, f.path)
	if err != nil {
		f.close()
		return nil, err
	}
	r, err := b.launch(j, dir, f)
	if err != nil {
		f.close()
	}
	return r, err
}

// launch runs a job. What it prints goes into a file.
func (b *bench) launch(j job, dir string, f *fifo) (*runner, error) {
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(j.argv[0], j.argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), "BENCH_FIFO="+f.path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r := &runner{job: j, dir: dir, cmd: cmd, fifo: f, done: make(chan struct{}), t0: now()}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait()
		r.ended = now()
		close(r.done)
	}()
	return r, nil
}

// log is what the supervisor printed, its end.
func (r *runner) log() string {
	s := text("%s/log", r.dir)
	return s[max(0, len(s)-1000):]
}

// read reads its FIFO's next record; an error has the end of the log.
func (r *runner) read(timeout time.Duration) (record, error) {
	rec, err := r.fifo.read(timeout)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, r.log())
	}
	return rec, err
}

// ask asks it to stop.
func (r *runner) ask() {
	if r.job.stop != nil {
		r.job.stop(r.cmd.Process.Pid)
	} else {
		_ = unix.Kill(r.cmd.Process.Pid, unix.SIGTERM)
	}
}

// end makes sure that nothing of it is left.
func (r *runner) end() {
	select {
	case <-r.done:
	default:
		r.ask()
	}
	select {
	case <-r.done:
	case <-time.After(20 * time.Second):
		for _, pid := range tree(r.cmd.Process.Pid) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		<-r.done
	}
	r.fifo.close()
}
