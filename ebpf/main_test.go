package ebpf

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loadVar makes the test binary the loader of what its parent watches.
const loadVar = "PAZINIT_EBPF_LOAD"

const patience = time.Minute

func TestMain(m *testing.M) {
	if pid, _ := strconv.Atoi(os.Getenv(loadVar)); pid != 0 {
		if err := Load(3, pid); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A seen is a watch of this process, and what it told.
type seen struct {
	*Watch
	t    *testing.T
	list []Record
}

func watch(t *testing.T) *seen {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	w, err := open(patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if lost, untracked := w.Counts(); lost+untracked > 0 {
			t.Errorf("%d records were lost, %d processes not followed", lost, untracked)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return &seen{Watch: w, t: t}
}

func open(within time.Duration) (*Watch, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[0])
	far := os.NewFile(uintptr(pair[1]), "socket")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), loadVar+"="+strconv.Itoa(os.Getpid()))
	cmd.ExtraFiles = []*os.File{far}
	cmd.Stderr = os.Stderr
	err = cmd.Start()
	_ = far.Close()
	if err != nil {
		return nil, err
	}
	w, err := Receive(pair[0], within, Options{})
	if ended := cmd.Wait(); err == nil && ended != nil {
		return nil, errors.Join(ended, w.Close())
	}
	return w, err
}

func (s *seen) has(so func(Record) bool) (Record, bool) {
	for _, r := range s.list {
		if so(r) {
			return r, true
		}
	}
	return Record{}, false
}

// sh runs a shell's script to its end; what was seen of it must be there then.
func (s *seen) sh(script string, args ...string) (pid int, end Record) {
	s.t.Helper()
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, args...)...)
	began := time.Now()
	err := cmd.Run()
	if cmd.Process == nil {
		s.t.Fatal(err)
	}
	s.list = append(s.list, s.Records(nil)...)
	pid = cmd.Process.Pid
	end, ok := s.has(func(r Record) bool { return r.Kind == Ended && r.PID == pid })
	if !ok {
		s.t.Fatalf("the end of pid %d was not seen before it could be waited for", pid)
	}
	if want := unix.WaitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus)); end.Status != want {
		s.t.Errorf("status %#x, want %#x as waitpid(2) has it", end.Status, want)
	}
	if end.Forked.Before(began) || end.At.Before(end.Forked) || end.At.After(time.Now()) {
		s.t.Errorf("forked %v, ended %v, begun %v, now %v", end.Forked, end.At, began, time.Now())
	}
	return pid, end
}
