package machine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dog is a watchdog's driver: it bites if it is not fed.
type dog struct {
	timeout int32
	refuse  error // to set a timeout
	longest int32 // 0: any
	stop    error // to stop
	fed     int
	last    time.Time
	stopped bool
}

func (d *dog) control(request uint, arg unsafe.Pointer) error {
	switch request {
	case unix.WDIOC_GETSUPPORT:
		info := (*unix.WatchdogInfo)(arg)
		info.Options = unix.WDIOF_MAGICCLOSE
		copy(info.Identity[:], "a dog")
	case unix.WDIOC_SETTIMEOUT:
		if d.refuse != nil {
			return d.refuse
		}
		if n := *(*int32)(arg); d.longest > 0 && n > d.longest {
			return unix.EINVAL
		}
		d.timeout = *(*int32)(arg)
	case unix.WDIOC_GETTIMEOUT:
		*(*int32)(arg) = d.timeout
	case unix.WDIOC_KEEPALIVE:
		d.fed, d.last = d.fed+1, time.Now()
	case unix.WDIOC_SETOPTIONS:
		d.stopped = d.stop == nil
		return d.stop
	}
	return nil
}

func (d *dog) bites() bool { return time.Since(d.last) >= time.Duration(d.timeout)*time.Second }

// TestWatchdogRun feeds while the supervisor answers, and only then.
func TestWatchdogRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dog{}
		w := newWatchdog(-1, 10*time.Second, d.control)
		var mu sync.Mutex
		var said []string
		w.Say = func(err error) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, err.Error())
		}
		var answer atomic.Pointer[func() bool]
		set := func(f func() bool) { answer.Store(&f) }
		set(func() bool { return true })
		go w.Run(func() bool { return (*answer.Load())() })

		time.Sleep(100 * time.Second)
		synctest.Wait()
		if d.bites() || d.fed < 40 || d.fed > 43 {
			t.Errorf("in 100 s it was fed %d times, bites %t, want about 41", d.fed, d.bites())
		}

		goOn := make(chan bool)
		set(func() bool { return <-goOn })
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if !d.bites() {
			t.Error("a loop that does not answer is fed")
		}
		if len(said) != 1 || said[0] != "the supervisor does not answer: the watchdog bites in 5s" {
			t.Errorf("it says %q", said)
		}
		set(func() bool { return true })
		goOn <- true
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if d.bites() {
			t.Error("a loop that answers again is not fed")
		}

		said = nil
		set(func() bool { return false })
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if !d.bites() || len(said) != 1 || !strings.HasPrefix(said[0], "the supervisor does not go on: the watchdog bites in ") {
			t.Errorf("a loop that says no: bites %t, %q", d.bites(), said)
		}

		said = nil
		set(func() bool { panic("broken") })
		time.Sleep(12 * time.Second)
		synctest.Wait()
		text := strings.Join(said, "\n")
		if !d.bites() || len(said) < 4 || !strings.Contains(text, "bug: broken\n") || !strings.Contains(text, "watchdog_test.go") {
			t.Errorf("a question that panics: bites %t, %.300q", d.bites(), said)
		}

		if err := w.HandOver(30 * time.Second); err != nil || d.timeout != 30 || d.bites() {
			t.Errorf("HandOver = %v, timeout %d, bites %t", err, d.timeout, d.bites())
		}
		set(func() bool { return true })
		fed := d.fed
		if err := w.Feed(); err != nil {
			t.Error(err)
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if d.fed != fed || !d.bites() {
			t.Error("it is fed after it was handed over")
		}
		if err := w.HandOver(time.Second); err != nil || d.timeout != 30 {
			t.Errorf("HandOver again = %v, timeout %d, want nothing done", err, d.timeout)
		}
	})
}

func TestWatchdogTimeout(t *testing.T) {
	for _, c := range []struct {
		d    dog
		ask  time.Duration
		want time.Duration
	}{
		{dog{}, 1500 * time.Millisecond, 2 * time.Second},
		{dog{}, 0, time.Second},
		{dog{timeout: 60, refuse: unix.EINVAL}, time.Hour, time.Minute},
		{dog{timeout: 0, refuse: unix.EOPNOTSUPP}, time.Hour, time.Minute},
	} {
		w := newWatchdog(-1, c.ask, c.d.control)
		if w.Timeout() != c.want || w.Name() != "a dog" || c.d.fed != 1 {
			t.Errorf("a watchdog of %v has %v, is %q, fed %d times, want %v", c.ask, w.Timeout(), w.Name(), c.d.fed, c.want)
		}
	}
}

// TestWatchdogLongest leaves as much time as there is where the hardware refuses.
func TestWatchdogLongest(t *testing.T) {
	for _, c := range []struct {
		longest, ask int32
		want         int32
	}{{0, 120, 120}, {120, 120, 120}, {119, 120, 119}, {63, 120, 63}, {10, 120, 10}, {11, 120, 11}, {63, 20, 20}} {
		d := &dog{longest: c.longest}
		w := newWatchdog(-1, 10*time.Second, d.control)
		if err := w.HandOver(time.Duration(c.ask) * time.Second); err != nil || d.timeout != c.want || w.Timeout() != time.Duration(c.want)*time.Second || d.fed != 2 {
			t.Errorf("at most %d, asked for %d: %d, fed %d times, %v, want %d", c.longest, c.ask, d.timeout, d.fed, err, c.want)
		}
	}
	d := &dog{timeout: 60, refuse: unix.EOPNOTSUPP}
	if err := newWatchdog(-1, time.Minute, d.control).HandOver(time.Hour); !errors.Is(err, unix.EOPNOTSUPP) || d.fed != 2 {
		t.Errorf("HandOver where no timeout can be set = %v, fed %d times", err, d.fed)
	}
}

// TestWatchdogTake has nobody but Feed feed.
func TestWatchdogTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dog{}
		w := newWatchdog(-1, 10*time.Second, d.control)
		go w.Run(func() bool { return true })
		w.Take()
		synctest.Wait()
		fed := d.fed
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if d.fed != fed {
			t.Error("it is fed by who does not have it")
		}
		if err := w.Feed(); err != nil || d.bites() {
			t.Errorf("Feed = %v, bites %t", err, d.bites())
		}
		if err := w.HandOver(30 * time.Second); err != nil || d.timeout != 30 {
			t.Errorf("HandOver = %v, timeout %d", err, d.timeout)
		}
	})
}

func TestWatchdogClose(t *testing.T) {
	for _, refused := range []error{nil, unix.EBUSY} {
		file := filepath.Join(t.TempDir(), "watchdog")
		fd, err := unix.Open(file, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		d := &dog{stop: refused}
		w := newWatchdog(fd, time.Second, d.control)
		err = w.Close()
		if !errors.Is(err, refused) || (refused != nil) != (err != nil && strings.Contains(err.Error(), "stop watchdog a dog: ")) {
			t.Errorf("Close = %v, want %v", err, refused)
		}
		if got := string(read(t, file)); got != "V" {
			t.Errorf("it was told %q, want V", got)
		}
		if err := w.Close(); err != nil {
			t.Errorf("Close again = %v", err)
		}
		if err := w.HandOver(time.Second); err != nil {
			t.Errorf("HandOver after Close = %v", err)
		}
	}
}

func TestOpenWatchdog(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenWatchdog(filepath.Join(dir, "none"), time.Second); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("OpenWatchdog of none = %v, want unsupported", err)
	}
	if _, err := OpenWatchdog(dir, time.Second); err == nil || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("OpenWatchdog of a folder = %v, want it refused", err)
	}
}

// TestSoftdog is for a virtual machine with softdog, and PAZINIT_TEST_MUST=softdog:
// a real watchdog would bite the machine of who runs the tests.
func TestSoftdog(t *testing.T) {
	if !must("softdog") {
		t.Skip("softdog: not asked for by PAZINIT_TEST_MUST")
	}
	w, err := OpenWatchdog("", 40*time.Second)
	need(t, "softdog", err)
	if w.Name() != "Software Watchdog" || w.Timeout() != 40*time.Second {
		t.Errorf("it is %q with %v", w.Name(), w.Timeout())
	}
	if _, err := OpenWatchdog("", time.Second); !errors.Is(err, unix.EBUSY) {
		t.Errorf("opened twice: %v, want EBUSY", err)
	}
	state := func(name string) string {
		b, err := os.ReadFile("/sys/class/watchdog/watchdog0/" + name)
		if err != nil {
			t.Logf("no %s: %v", name, err) // CONFIG_WATCHDOG_SYSFS
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	if s := state("state"); s != "" && s != "active" {
		t.Errorf("its state is %q, want active", s)
	}
	if err := w.Feed(); err != nil {
		t.Error(err)
	}
	if err := w.HandOver(50 * time.Second); err != nil {
		t.Error(err)
	}
	if s := state("timeout"); s != "" && s != "50" {
		t.Errorf("its timeout is %q, want 50", s)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if s := state("state"); s != "" && s != "inactive" {
		t.Errorf("closed, its state is %q, want inactive", s)
	}
}
