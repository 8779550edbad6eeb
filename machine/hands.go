package machine

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// hands are the calls that a test of one process must not make, or that it
// makes hang.
type hands struct {
	mount   func(source, target, fstype string, flags uintptr, data string) error
	unmount func(target string, flags int) error
	swapon  func(path string, flags int) error
	swapoff func(path string) error
	sync    func()
	trigger func(key byte) error // /proc/sysrq-trigger
	exec    func(path string, argv, env []string) error

	limit time.Duration // for one call that may hang
}

var kernel = hands{
	mount: unix.Mount, unmount: unix.Unmount, swapon: swapon, swapoff: swapoff, sync: unix.Sync, trigger: sysrq, exec: execute,
	limit: 90 * time.Second,
}

// errHung is a call that did not come back in time. It holds its thread until
// it does, and nothing else.
type errHung time.Duration

func (e errHung) Error() string { return fmt.Sprintf("hangs for %v", time.Duration(e)) }
func (e errHung) Timeout() bool { return true }

// within calls f on a goroutine of its own, for what a dead disk or server
// makes hang. After a tenth of the limit it says so, after the limit it returns
// errHung; late is called if f comes back after that. Both may be nil.
func within(limit time.Duration, hangs func(time.Duration), late func(error), f func() error) error {
	done := make(chan error, 1)
	go func() { done <- caught(f) }()
	soon := time.NewTimer(limit / 10)
	defer soon.Stop()
	over := time.NewTimer(limit)
	defer over.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-soon.C:
			if hangs != nil {
				hangs(limit / 10)
			}
		case <-over.C:
			if late != nil {
				go func() { _ = caught(func() error { late(<-done); return nil }) }()
			}
			return errHung(limit)
		}
	}
}

// caught calls f; a panic becomes an error with its stack.
func caught(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("bug: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}

func sayNothing(string) {}

// inMachine says whether this process is the first of a machine, or else why
// it must not do something to all of the machine.
func inMachine() error {
	if pid := os.Getpid(); pid != 1 {
		return fmt.Errorf("this is process %d and not 1", pid)
	}
	// PROC_PID_INIT_INO of include/linux/proc_ns.h. No /proc: a machine early on.
	if ns, err := os.Readlink("/proc/self/ns/pid"); err == nil && ns != "pid:[4026531836]" {
		return errors.New("this is a container's process 1 and not a machine's")
	}
	return nil
}
