package reaper

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone says that a run's process has ended (and may be reaped already).
var ErrGone = os.ErrProcessDone

// Signal sends sig to the process of run, or to its process group, which is its
// session's first one. A run whose fork is under way gets it as soon as its
// process exists. It never blocks.
func (r *Reaper) Signal(run uint64, sig unix.Signal, group bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.runs[run]
	if c == nil {
		return fmt.Errorf("signal run %d: %w", run, ErrGone)
	}
	if c.pid != 0 {
		return r.send(c, sig, group)
	}
	if c.exit != nil || sig == 0 {
		return nil
	}
	if sig < 0 || sig > 64 {
		return fmt.Errorf("signal run %d: %w", run, unix.EINVAL)
	}
	if c.flight != nil && c.flight.started() != 0 {
		return r.sendEarly(c, sig, group)
	}
	c.later |= bit(sig)
	if c.flight != nil && sig == unix.SIGKILL {
		r.begin("a signal", func() { r.deliver(c) })
	}
	return nil
}

func bit(sig unix.Signal) uint64 { return 1 << (sig - 1) }

// sendEarly signals a child whose spawner has not reported: it may hang before
// its exec. It is a child of ours that only we reap, under the lock, so the
// number is its own. Called with mu held.
func (r *Reaper) sendEarly(c *child, sig unix.Signal, group bool) error {
	pid, err := c.flight.started(), error(unix.ESRCH)
	if group {
		err = unix.Kill(-pid, sig)
	}
	if errors.Is(err, unix.ESRCH) { // not in a group of its own yet, and so alone
		err = unix.Kill(pid, sig)
	}
	if err != nil {
		return fmt.Errorf("signal pid %d: %w", pid, err)
	}
	c.early = true
	return nil
}

// deliver kills a child whose fork is at this moment under way. The spawner
// would do it when it reports; a child that hangs before its exec lets it not.
func (r *Reaper) deliver(c *child) {
	for {
		time.Sleep(time.Millisecond) //nolint:forbidigo // a goroutine of its own, for as long as one clone takes
		if r.delivered(c) {
			return
		}
	}
}

func (r *Reaper) delivered(c *child) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait := r.runs[c.run] == c && c.pid == 0 && c.exit == nil && c.flight != nil
	if wait && c.flight.started() != 0 {
		_ = r.sendEarly(c, unix.SIGKILL, true)
		wait = false
	}
	return !wait
}

// PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal(2), Linux 6.9.
const pidfdSignalGroup = 1 << 2

var noPidfdGroup atomic.Bool

// send signals a child that is not reaped. Called with mu held.
func (r *Reaper) send(c *child, sig unix.Signal, group bool) error {
	pid, err := c.pid, error(unix.ENOSYS)
	if group {
		pid = -pid // the leader is unreaped: the number is still its own
		if c.pidfd >= 0 && !noPidfdGroup.Load() {
			err = unix.PidfdSendSignal(c.pidfd, sig, nil, pidfdSignalGroup)
			if errors.Is(err, unix.EINVAL) && sig >= 0 && sig <= 64 {
				noPidfdGroup.Store(true)
				err = unix.ENOSYS
			}
		}
	} else if c.pidfd >= 0 {
		err = unix.PidfdSendSignal(c.pidfd, sig, nil, 0)
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // no such call here, or a seccomp filter says so
		err = unix.Kill(pid, sig)
	}
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal run %d: %w", c.run, ErrGone)
	}
	if err != nil {
		return fmt.Errorf("signal pid %d: %w", c.pid, err)
	}
	return nil
}

// PID reports the process of run, 0 when there is none.
func (r *Reaper) PID(run uint64) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.runs[run]; c != nil && c.exit == nil {
		if c.pid == 0 && c.flight != nil {
			return c.flight.started()
		}
		return c.pid
	}
	return 0
}
