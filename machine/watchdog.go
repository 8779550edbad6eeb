package machine

import "time"

// Watchdog is an open hardware watchdog. It is running from [OpenWatchdog] on
// and resets the machine if it is not fed in time.
type Watchdog struct {
	fd int
}

// OpenWatchdog opens and starts the watchdog at path ("" is /dev/watchdog0, then
// /dev/watchdog) with the given timeout, in whole seconds, or the nearest that
// the device has.
func OpenWatchdog(path string, timeout time.Duration) (*Watchdog, error) { return nil, nil }

// Name is what the driver calls itself.
func (w *Watchdog) Name() string { return "" }

// Timeout is what the device has been set to.
func (w *Watchdog) Timeout() time.Duration { return 0 }

// Run feeds the watchdog until [Watchdog.HandOver] or [Watchdog.Close]. Before each feeding it
// asks alive, in a goroutine of its own, and feeds only if the answer is yes:
// alive sends a message to the loop that must not hang and waits for the reply.
// A loop that does not answer, and a process that is stopped, are bitten.
func (w *Watchdog) Run(alive func() bool) {}

// Feed feeds it now.
func (w *Watchdog) Feed() error { return nil }

// HandOver ends the feeding and leaves the watchdog running with one last
// timeout (0 leaves it): an end that hangs is bitten, too. The descriptor stays open; the next
// program or kernel takes the device over.
func (w *Watchdog) HandOver(timeout time.Duration) error { return nil }

// Close stops the watchdog ("magic close") where the driver allows that, and
// tells if it does not.
func (w *Watchdog) Close() error { return nil }
