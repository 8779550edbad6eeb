package reaper

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

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
	if c.exit != nil {
		return nil
	}
	c.killed = sig
	if c.flight != nil {
		if pid := c.flight.started(); pid != 0 {
			// Hangs before its exec: a child of ours that only we reap, under this lock.
			return unix.Kill(pid, sig)
		}
	}
	return nil
}

// PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal(2), Linux 6.9.
const pidfdSignalGroup = 1 << 2

var noPidfdGroup atomic.Bool

// send signals a child that is not reaped. Called with mu held.
func (r *Reaper) send(c *child, sig unix.Signal, group bool) error {
	var err error
	switch {
	case group && c.pidfd >= 0 && !noPidfdGroup.Load():
		err = unix.PidfdSendSignal(c.pidfd, sig, nil, pidfdSignalGroup)
		if err == unix.EINVAL && sig >= 0 && sig <= 64 {
			noPidfdGroup.Store(true)
			err = unix.Kill(-c.pid, sig)
		}
	case group:
		err = unix.Kill(-c.pid, sig) // the leader is unreaped: the number is still its own
	case c.pidfd >= 0:
		err = unix.PidfdSendSignal(c.pidfd, sig, nil, 0)
	default:
		err = unix.Kill(c.pid, sig)
	}
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal run %d: %w", c.run, ErrGone)
	}
	if err != nil {
		return fmt.Errorf("signal run %d: %w", c.run, err)
	}
	return nil
}

// PID reports the process of run, 0 when there is none.
func (r *Reaper) PID(run uint64) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.runs[run]; c != nil {
		if c.pid == 0 && c.flight != nil {
			return c.flight.started()
		}
		return c.pid
	}
	return 0
}
