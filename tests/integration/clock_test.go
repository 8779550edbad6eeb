package integration

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mayTouchClock: the wall clock is the whole machine's, and no name space gives a
// test one of its own. It is set only where PAZINIT_TEST_CLOCK says that nobody
// else needs it, as in a virtual machine made for the test.
func mayTouchClock() error {
	if os.Getenv("PAZINIT_TEST_CLOCK") == "" {
		return errors.New("the machine's clock is set only with PAZINIT_TEST_CLOCK=1")
	}
	return nil
}

// shiftClock sets the wall clock, and back when it is restored or the test ends.
func shiftClock(t *testing.T, by time.Duration) (restore func()) {
	t.Helper()
	begin := time.Now() // with the monotonic clock
	set := func(to time.Time) {
		tv := unix.NsecToTimeval(to.UnixNano())
		if err := unix.Settimeofday(&tv); err != nil {
			t.Errorf("set the clock: %v", err)
		}
	}
	done := false
	restore = func() {
		if !done {
			done = true
			set(begin.Add(time.Since(begin)))
		}
	}
	t.Cleanup(restore)
	set(begin.Add(by))
	return restore
}
