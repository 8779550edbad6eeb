package pazinit

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// noKill is why a signal is refused where nothing else is known: kill(2) gives
// EPERM to one who has neither the target's uid nor CAP_KILL.
const noKill = "may not be signalled (no CAP_KILL)"

// refused notes that sig to a run was not permitted, and says so once for each.
// It reports whether err is that; all else is the caller's to tell.
func (s *Supervisor) refused(in *instance, run uint64, sig unix.Signal, err error) bool {
	if !errors.Is(err, unix.EPERM) {
		return false
	}
	said := in.toldBarred == run
	in.toldBarred = run
	if sig == unix.SIGKILL {
		in.unkillable = run
	}
	// Of a tree it may be another process: signal 0 asks for the permission alone.
	leader := in.pid != 0 && errors.Is(s.procs.Signal(in.key(run), 0, false), unix.EPERM)
	if leader {
		in.barred = run
	}
	switch {
	case said:
	case leader:
		s.logf("may not signal %s (%s): %v; it needs CAP_KILL", in.name, in.processText(), unix.EPERM)
	default:
		s.logf("%s: %v; it needs CAP_KILL", in.name, err)
	}
	return true
}

// processText is "pid 22, uid 1000", without the uid if it is pazinit's own.
func (in *instance) processText() string {
	text := fmt.Sprintf("pid %d", in.pid)
	if u := in.spec.User; u != nil {
		text += fmt.Sprintf(", uid %d", u.UID)
	}
	return text
}

// signalError is the answer to a client whose signal could not be sent.
func signalError(err error) string {
	if errors.Is(err, unix.EPERM) {
		return err.Error() + "; it needs CAP_KILL"
	}
	return err.Error()
}

// refusedLater is refused for those that are not the loop; err may be nil.
func (s *Supervisor) refusedLater(in *instance, run uint64, sig unix.Signal, err error) {
	switch {
	case err == nil:
	case errors.Is(err, unix.EPERM):
		s.post(func() {
			if in.life.Run() == run {
				s.refused(in, run, sig, err)
			}
		})
	default:
		s.logf("%s: %v", in.name, err)
	}
}
