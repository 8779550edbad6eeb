package machine

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// event is one struct input_event.
func event(kind, code uint16, value uint32) []byte {
	b := make([]byte, unsafe.Sizeof(unix.Timeval{})+8)
	e := b[len(b)-8:]
	binary.NativeEndian.PutUint16(e, kind)
	binary.NativeEndian.PutUint16(e[2:], code)
	binary.NativeEndian.PutUint32(e[4:], value)
	return b
}

// plug makes a device, which is a FIFO here, and opens its far end once somebody
// reads it.
func plug(t *testing.T, path string) *os.File {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0) // waits for the reader
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func send(t *testing.T, f *os.File, events ...[]byte) {
	t.Helper()
	for _, e := range events {
		if _, err := f.Write(e); err != nil {
			t.Fatal(err)
		}
	}
}

func next(t *testing.T, keys <-chan Key) Key {
	t.Helper()
	select {
	case k := <-keys:
		return k
	case <-time.After(10 * time.Second):
		t.Fatal("no key is reported")
	}
	return ""
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestButtons(t *testing.T) {
	before := openDescriptors(t)
	dev := t.TempDir()
	keys := make(chan Key)
	ignored := filepath.Join(dev, "input/event9")
	stop, err := buttons(&buttonWatch{dev: dev, wanted: func(fd int) bool {
		var st, other unix.Stat_t
		_ = unix.Fstat(fd, &st)
		_ = unix.Stat(ignored, &other)
		return st.Ino != other.Ino
	}, report: func(k Key) { keys <- k }, say: func(err error) { t.Errorf("said %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	// The folder itself comes later, too.
	first := plug(t, filepath.Join(dev, "input/event0"))
	send(t, first, event(evKey, 142, 1), event(0, 0, 0), event(4, 116, 1), event(evKey, 30, 1), // sleep, SYN, MSC, a
		event(evKey, 116, 1), event(evKey, 116, 2), event(evKey, 116, 0)) // pressed, repeated, released
	if k := next(t, keys); k != KeyPower {
		t.Errorf("the first key is %s, want power", k)
	}
	second := plug(t, filepath.Join(dev, "input/event1"))
	send(t, second, event(evKey, 0x198, 1))
	if k := next(t, keys); k != KeyRestart {
		t.Errorf("the second key is %s, want restart", k)
	}
	// One that is unplugged, and another with its name.
	second.Close()
	os.Remove(filepath.Join(dev, "input/event1"))
	send(t, first, event(evKey, 116, 1))
	if k := next(t, keys); k != KeyPower {
		t.Errorf("after an unplugged device: %s, want power", k)
	}
	third := plug(t, filepath.Join(dev, "input/event1"))
	send(t, third, event(evKey, 116, 1))
	if k := next(t, keys); k != KeyPower {
		t.Errorf("the device plugged again: %s, want power", k)
	}
	// Many at once, and one without our keys that is closed again.
	if err := unix.Mkfifo(ignored, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		send(t, third, event(evKey, 116, 1))
		next(t, keys)
	}
	stop()
	stop()
	if _, err := third.Write(event(evKey, 116, 1)); !errors.Is(err, unix.EPIPE) {
		t.Errorf("after stop a device is open: %v", err)
	}
	first.Close()
	third.Close()
	if after := openDescriptors(t); after > before+2 { // Go's own poller
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestButtonsGoOn has the one who is told fail, which is said, and tells again.
func TestButtonsGoOn(t *testing.T) {
	dev := t.TempDir()
	keys := make(chan Key)
	first := true
	said := make(chan error, 10)
	stop, err := buttons(&buttonWatch{dev: dev, wanted: func(int) bool { return true }, rest: time.Millisecond, say: func(err error) { said <- err }, report: func(k Key) {
		if first {
			first = false
			panic("on purpose")
		}
		keys <- k
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	f := plug(t, filepath.Join(dev, "input/event0"))
	defer f.Close()
	send(t, f, event(evKey, 116, 1))
	// Not in the same read: that one is lost.
	for waits := true; waits; {
		n, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		waits = n > 0
	}
	send(t, f, event(evKey, 0x198, 1))
	if k := next(t, keys); k != KeyRestart {
		t.Errorf("after a fault: %s, want restart", k)
	}
	if err := <-said; !strings.Contains(err.Error(), "on purpose") || !strings.Contains(err.Error(), "buttons_test.go") {
		t.Errorf("said %v, want the fault and where it was", err)
	}
}

// TestButtonsSameName: a device that has the name of one that is not yet known to be
// gone is heard.
func TestButtonsSameName(t *testing.T) {
	dev := t.TempDir()
	path := filepath.Join(dev, "input/event0")
	b := &buttonWatch{dev: dev, wanted: func(int) bool { return true }, report: func(Key) {}, devices: map[string]int{}}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.open(); err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if _, ok := b.devices["event0"]; !ok {
		t.Fatal("the device is not open")
	}
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	b.notified() // it is told of the second before it reads that the first is gone
	var st, now unix.Stat_t
	fd, ok := b.devices["event0"]
	if !ok {
		t.Fatal("the second device is not heard")
	}
	if err := errors.Join(unix.Fstat(fd, &now), unix.Stat(path, &st)); err != nil || st.Ino != now.Ino {
		t.Errorf("it listens to another: %v", err)
	}
}

// TestButtonsRest: an epoll that says no is asked less and less often, which is
// said once, and the buttons are heard when it answers again.
func TestButtonsRest(t *testing.T) {
	dev := t.TempDir()
	keys, said := make(chan Key), make(chan error, 10)
	asked := 0
	began := time.Now()
	var since time.Duration
	stop, err := buttons(&buttonWatch{dev: dev, wanted: func(int) bool { return true }, rest: time.Millisecond,
		say: func(err error) { said <- err }, report: func(k Key) { keys <- k },
		wait: func(epoll int, events []unix.EpollEvent, ms int) (int, error) {
			if asked++; asked <= 5 {
				return -1, unix.ENOMEM
			}
			if asked == 6 {
				since = time.Since(began)
			}
			return unix.EpollWait(epoll, events, ms)
		}})
	if err != nil {
		t.Fatal(err)
	}
	f := plug(t, filepath.Join(dev, "input/event0"))
	defer f.Close()
	send(t, f, event(evKey, 116, 1))
	if k := next(t, keys); k != KeyPower {
		t.Errorf("after a fault: %s, want power", k)
	}
	stop()
	if since < 31*time.Millisecond { // 1, 2, 4, 8 and 16 ms
		t.Errorf("asked 5 times in %v", since)
	}
	if err := <-said; !errors.Is(err, unix.ENOMEM) || len(said) > 0 {
		t.Errorf("said %v and %d more, want ENOMEM once", err, len(said))
	}
}

// TestButtonsStopAtRest: stop does not wait for the rest after a fault.
func TestButtonsStopAtRest(t *testing.T) {
	said := make(chan error, 10)
	stop, err := buttons(&buttonWatch{dev: t.TempDir(), rest: time.Hour, say: func(err error) { said <- err },
		wait: func(int, []unix.EpollEvent, int) (int, error) { return -1, unix.ENOMEM }})
	if err != nil {
		t.Fatal(err)
	}
	<-said
	stop()
}

func TestButtonsWithoutDev(t *testing.T) {
	if _, err := buttons(&buttonWatch{dev: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without /dev: %v", err)
	}
}

// TestHasButtons asks what is no input device.
func TestHasButtons(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if hasButtons(int(f.Fd())) {
		t.Error("/dev/null has a power button")
	}
}

// TestPowerButton makes an input device with a power key (uinput) and presses it.
func TestPowerButton(t *testing.T) {
	u, err := os.OpenFile("/dev/uinput", os.O_WRONLY, 0)
	need(t, "uinput", err)
	defer u.Close()
	keys := make(chan Key, 100)
	stop, err := Buttons(func(k Key) { keys <- k }, func(err error) { t.Error(err) })
	if errors.Is(err, errors.ErrUnsupported) {
		need(t, "evdev", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	// From include/uapi/linux/uinput.h.
	const setEventBit, setKeyBit, setup, create = 0x40045564, 0x40045565, 0x405c5503, 0x5501
	control := func(request, arg uintptr) {
		t.Helper()
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, u.Fd(), request, arg); errno != 0 {
			t.Fatalf("ioctl %#x: %v", request, errno)
		}
	}
	control(setEventBit, evKey)
	for _, key := range []uintptr{30, 116, 0x198} {
		control(setKeyBit, key)
	}
	what := make([]byte, 92) // struct uinput_setup: id, name, ff_effects_max
	copy(what[8:], "a test's buttons")
	control(setup, uintptr(unsafe.Pointer(&what[0])))
	control(create, 0)
	press := func(code uint16) {
		send(t, u, event(evKey, code, 1), event(0, 0, 0), event(evKey, code, 0), event(0, 0, 0))
	}
	// The device is there before somebody has opened it: press until it is heard.
	deadline := time.Now().Add(20 * time.Second)
	for heard := false; !heard; {
		press(116)
		select {
		case k := <-keys:
			if k != KeyPower {
				t.Errorf("the key is %s, want power", k)
			}
			heard = true
		case <-time.After(50 * time.Millisecond):
			if time.Now().After(deadline) {
				t.Fatal("the power key is not heard")
			}
		}
	}
	press(30)
	press(0x198)
	for {
		if k := next(t, keys); k == KeyRestart {
			return
		} else if k != KeyPower {
			t.Fatalf("the key is %s", k)
		}
	}
}
