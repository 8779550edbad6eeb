package machine

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Watchdog is an open hardware watchdog. It is running from [OpenWatchdog] on
// and resets the machine if it is not fed in time.
// Documentation/watchdog/watchdog-api.rst
type Watchdog struct {
	// Say is told what is worth a line: that nobody answers, that feeding is
	// refused. It is called in a goroutine of its own, for a console can block; it
	// is set before [Watchdog.Run] and may be nil.
	Say func(error)

	name    string
	options uint32 // WDIOF_*
	control func(request uint, arg unsafe.Pointer) error
	ended   chan struct{}

	mu      sync.Mutex
	manual  bool // Run has been ended
	fd      int
	over    bool // nobody feeds any more
	timeout time.Duration
}

// OpenWatchdog opens and starts the watchdog at path ("" is /dev/watchdog0, then
// /dev/watchdog) with the given timeout, in whole seconds, or the one that it
// has if that is refused. No watchdog is [errors.ErrUnsupported].
func OpenWatchdog(path string, timeout time.Duration) (*Watchdog, error) {
	paths := []string{path}
	if path == "" {
		paths = []string{"/dev/watchdog0", "/dev/watchdog"}
	}
	for _, path := range paths {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT || err == unix.ENODEV || err == unix.ENXIO {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open watchdog %s: %w", path, err)
		}
		return newWatchdog(fd, timeout, func(request uint, arg unsafe.Pointer) error {
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); errno != 0 {
				return errno
			}
			return nil
		}), nil
	}
	return nil, fmt.Errorf("open watchdog: no %s: %w", paths[len(paths)-1], errors.ErrUnsupported)
}

func newWatchdog(fd int, timeout time.Duration, control func(uint, unsafe.Pointer) error) *Watchdog {
	w := &Watchdog{fd: fd, control: control, ended: make(chan struct{}), name: "watchdog"}
	var info unix.WatchdogInfo
	if control(unix.WDIOC_GETSUPPORT, unsafe.Pointer(&info)) == nil {
		w.options, w.name = info.Options, unix.ByteSliceToString(info.Identity[:])
	}
	if w.set(timeout) != nil {
		w.timeout = time.Minute // what most have, if they do not say it
		var has int32
		if control(unix.WDIOC_GETTIMEOUT, unsafe.Pointer(&has)) == nil && has > 0 {
			w.timeout = time.Duration(has) * time.Second
		}
	}
	_ = w.Feed()
	return w
}

// set sets the timeout, up to whole seconds; the driver answers with what it has
// made of it.
func (w *Watchdog) set(timeout time.Duration) error {
	seconds := int32(min(max((timeout+time.Second-1)/time.Second, 1), 1<<30))
	if err := w.control(unix.WDIOC_SETTIMEOUT, unsafe.Pointer(&seconds)); err != nil {
		return err
	}
	w.timeout = time.Duration(seconds) * time.Second
	return nil
}

// setLongest sets the longest timeout up to the given one that the driver takes: it
// refuses with EINVAL what its hardware cannot count (watchdog_timeout_invalid,
// include/linux/watchdog.h). What it has is not made shorter. The error is that of
// another refusal.
func (w *Watchdog) setLongest(timeout time.Duration) error {
	timeout = (timeout + time.Second - 1).Truncate(time.Second)
	has := w.timeout
	err := w.set(timeout)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	good, bad := max(has, time.Second), timeout
	for bad-good > time.Second {
		middle := (good + (bad-good)/2).Truncate(time.Second)
		if w.set(middle) == nil {
			good = middle
		} else {
			bad = middle
		}
	}
	if w.timeout < has { // a driver that rounds
		_ = w.set(has)
	}
	return nil
}

// Name is what the driver calls itself.
func (w *Watchdog) Name() string { return w.name }

// Timeout is the time from one feeding to the bite.
func (w *Watchdog) Timeout() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.timeout
}

// Run feeds the watchdog four times in each timeout, until [Watchdog.HandOver]
// or [Watchdog.Close]. Before each feeding it asks alive, in a goroutine of its
// own, and feeds only if the answer is yes: alive sends a message to the loop
// that must not hang and waits for the reply, for as long as that takes. A loop
// that does not answer is bitten, and so is a process that is stopped or frozen.
func (w *Watchdog) Run(alive func() bool) {
	var asked chan bool // nil: nobody is being asked
	fed, told := time.Now(), false
	hungry := func(what string) {
		if !told {
			w.say("the supervisor %s: the watchdog bites in %v", what,
				max(w.Timeout()-time.Since(fed), 0).Round(time.Second))
		}
		told = true
	}
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-w.ended:
			return
		case <-t.C:
			t.Reset(w.Timeout() / 4)
			if asked != nil {
				hungry("does not answer")
				continue
			}
			asked = make(chan bool, 1)
			go w.ask(alive, asked)
		case yes := <-asked:
			if asked = nil; !yes {
				hungry("does not go on")
				continue
			}
			if err := w.Feed(); err != nil {
				hungry(err.Error())
				continue
			}
			fed, told = time.Now(), false
		}
	}
}

func (w *Watchdog) say(format string, args ...any) {
	if w.Say != nil {
		err := fmt.Errorf(format, args...)
		go func() { _ = caught(func() error { w.Say(err); return nil }) }()
	}
}

func (w *Watchdog) ask(alive func() bool, answer chan<- bool) {
	defer func() {
		if p := recover(); p != nil {
			w.say("bug: %v\n%s", p, debug.Stack())
			answer <- false
		}
	}()
	answer <- alive()
}

// Feed feeds it now. After [Watchdog.HandOver] it does nothing.
func (w *Watchdog) Feed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return nil
	}
	return w.feed()
}

func (w *Watchdog) feed() error {
	var none int32
	if err := w.control(unix.WDIOC_KEEPALIVE, unsafe.Pointer(&none)); err != nil {
		return fmt.Errorf("feed watchdog: %w", err)
	}
	return nil
}

// Take ends [Watchdog.Run]: from here on only [Watchdog.Feed] feeds.
func (w *Watchdog) Take() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.take()
}

func (w *Watchdog) take() {
	if !w.manual {
		w.manual = true
		close(w.ended)
	}
}

// end ends the feeding, and says whether it had ended before.
func (w *Watchdog) end() (before bool) {
	before, w.over = w.over, true
	w.take()
	return before
}

// HandOver feeds it for the last time and leaves it running with one more
// timeout (0 leaves the one it has), or the longest that the hardware takes: an end
// that hangs is bitten, too. The
// descriptor stays open, so that the driver stops it at a power-off where it
// does that, and closes with the next exec: the program after this one takes the
// device over, still running.
func (w *Watchdog) HandOver(timeout time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.end() {
		return nil
	}
	var err error
	if timeout > 0 {
		if err = w.setLongest(timeout); err != nil {
			err = fmt.Errorf("set watchdog to %v: %w", timeout, err)
		}
	}
	return errors.Join(err, w.feed())
}

// Close stops the watchdog and closes it. One that cannot be stopped (nowayout)
// goes on, and will bite: that is the error.
func (w *Watchdog) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end()
	if w.fd < 0 {
		return nil
	}
	stop := int32(unix.WDIOS_DISABLECARD)
	err := w.control(unix.WDIOC_SETOPTIONS, unsafe.Pointer(&stop))
	if w.options&unix.WDIOF_MAGICCLOSE != 0 {
		_, _ = unix.Write(w.fd, []byte("V"))
	}
	unix.Close(w.fd)
	w.fd = -1
	if err != nil {
		return fmt.Errorf("stop watchdog %s: %w: it bites in %v", w.name, err, w.timeout)
	}
	return nil
}
