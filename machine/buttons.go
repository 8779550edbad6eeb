package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Key is a button of the machine.
type Key string

// What [Buttons] reports. The sleep button is nobody's.
const (
	KeyPower   Key = "power"
	KeyRestart Key = "restart"
)

// buttonCodes are the keys' codes (include/uapi/linux/input-event-codes.h).
var buttonCodes = [...]struct {
	code uint16
	key  Key
}{{116, KeyPower}, {0x198, KeyRestart}}

// Buttons calls pressed for each press of the power and restart keys of any
// input device, also of those that come later: of an ACPI machine's power button
// (system_powerdown of QEMU), a board's gpio-keys, a keyboard. One call is made
// at a time, from a goroutine that holds a thread. A kernel without input
// devices is [errors.ErrUnsupported]; one that gets its drivers later has to be
// given them before. What goes wrong later is told by say, which is called from
// that goroutine, too; it is tried again, less and less often.
//
// stop ends it, and returns when no call is under way or follows; it must not be
// called from pressed or say.
func Buttons(pressed func(Key), say func(error)) (stop func(), err error) {
	if _, err := os.Stat("/sys/class/input"); err != nil {
		return nil, fmt.Errorf("listen to buttons: no input devices (CONFIG_INPUT_EVDEV): %w", errors.ErrUnsupported)
	}
	return buttons(&buttonWatch{dev: "/dev", wanted: hasButtons, report: pressed, say: say, rest: buttonRest})
}

// buttonRest is the first pause after a fault; it doubles up to longestButtonRest,
// until there is none.
const (
	buttonRest        = 100 * time.Millisecond
	longestButtonRest = 30 * time.Second
)

// A buttonWatch lies in epoll_wait for inotify of the folders, for the devices
// and for the end.
type buttonWatch struct {
	dev    string // has input/
	wanted func(fd int) bool
	report func(Key)
	say    func(error)
	rest   time.Duration
	wait   func(epoll int, events []unix.EpollEvent, ms int) (int, error) // nil: the kernel

	epoll, notify, end int
	folder             int            // the watch of dev/input, -1: there is none yet
	devices            map[string]int // event0 and so on
}

func buttons(b *buttonWatch) (func(), error) {
	b.epoll, b.notify, b.end, b.folder, b.devices = -1, -1, -1, -1, map[string]int{}
	if b.wait == nil {
		b.wait = unix.EpollWait
	}
	if err := b.open(); err != nil {
		b.close()
		return nil, fmt.Errorf("listen to buttons: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer b.close()
		b.run()
	}()
	var once sync.Once
	return func() {
		once.Do(func() {
			var one [8]byte
			binary.NativeEndian.PutUint64(one[:], 1)
			_, _ = unix.Write(b.end, one[:])
		})
		<-ended
	}, nil
}

func (b *buttonWatch) open() (err error) {
	if b.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if b.end, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	if b.notify, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return err
	}
	for _, fd := range []int{b.end, b.notify} {
		if err := b.add(fd); err != nil {
			return err
		}
	}
	if _, err := unix.InotifyAddWatch(b.notify, b.dev, unix.IN_CREATE|unix.IN_ONLYDIR); err != nil {
		return fmt.Errorf("watch %s: %w", b.dev, err)
	}
	b.look()
	return nil
}

func (b *buttonWatch) add(fd int) error {
	return unix.EpollCtl(b.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (b *buttonWatch) close() {
	for _, fd := range b.devices {
		unix.Close(fd)
	}
	for _, fd := range []int{b.notify, b.epoll, b.end} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// look opens every device that there is and is not open.
func (b *buttonWatch) look() {
	dir := filepath.Join(b.dev, "input")
	// A watch before the look: no device comes in between. The same folder again
	// is the same watch.
	wd, err := unix.InotifyAddWatch(b.notify, dir, unix.IN_CREATE|unix.IN_ATTRIB|unix.IN_DELETE_SELF|unix.IN_ONLYDIR)
	if err != nil {
		return
	}
	b.folder = wd
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "event") {
			b.open1(dir, e.Name())
		}
	}
}

// open1 opens a device, if it is not open yet and has one of our keys.
func (b *buttonWatch) open1(dir, name string) {
	path := filepath.Join(dir, name)
	if fd, is := b.devices[name]; is {
		var has, there unix.Stat_t
		if unix.Fstat(fd, &has) == nil && unix.Stat(path, &there) == nil && has.Dev == there.Dev && has.Ino == there.Ino {
			return
		}
		unix.Close(fd) // of one that is gone, and whose end was not read yet
		delete(b.devices, name)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	if !b.wanted(fd) || b.add(fd) != nil {
		unix.Close(fd)
		return
	}
	b.devices[name] = fd
}

// run turns until the end. Faults are said, each once in a row of them, and after
// each it rests, so that one that stays makes nobody spin.
func (b *buttonWatch) run() {
	said, rest := "", b.rest
	for {
		goOn, err := b.turn()
		switch {
		case !goOn:
			return
		case err == nil:
			said, rest = "", b.rest
			continue
		case err.Error() != said:
			said = err.Error()
			b.tell(fmt.Errorf("listen to buttons: %w; in %v again", err, rest))
		}
		if b.ends(rest) {
			return
		}
		rest = min(2*rest, longestButtonRest)
	}
}

// tell says err. A fault of who is told is nobody's matter any more.
func (b *buttonWatch) tell(err error) {
	defer func() { _ = recover() }()
	b.say(err)
}

// ends waits for the end, no longer than limit.
func (b *buttonWatch) ends(limit time.Duration) bool {
	began := time.Now()
	for left := limit; left > 0; left = limit - time.Since(began) {
		fds := []unix.PollFd{{Fd: int32(b.end), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(1, left/time.Millisecond)))
		if n > 0 {
			return fds[0].Revents&unix.POLLIN != 0
		}
		if err != nil && err != unix.EINTR {
			<-time.NewTimer(left).C
		}
	}
	return false
}

// turn handles what happens next, and says whether to go on. A fault of ours, or
// of who is told, is an error.
func (b *buttonWatch) turn() (goOn bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			goOn, err = true, fmt.Errorf("a fault of pazinit: %v\n%s", p, debug.Stack())
		}
	}()
	var events [16]unix.EpollEvent
	n, err := b.wait(b.epoll, events[:], -1)
	if errors.Is(err, unix.EINTR) {
		return true, nil
	}
	if err != nil {
		return true, fmt.Errorf("wait for input: %w", err)
	}
	for _, e := range events[:n] {
		switch int(e.Fd) {
		case b.end:
			return false, nil
		case b.notify:
			b.notified()
		default:
			for _, fd := range b.devices { // not one that was closed meanwhile
				if fd == int(e.Fd) {
					b.read(fd)
					break
				}
			}
		}
	}
	return true, nil
}

// notified empties inotify's queue: whatever it says, a look finds what is new,
// also if the queue was full.
func (b *buttonWatch) notified() {
	var buf [4096]byte
	for {
		if n, err := unix.Read(b.notify, buf[:]); n <= 0 || err != nil {
			break
		}
	}
	b.look()
}

// read reports the keys pressed on a device.
func (b *buttonWatch) read(fd int) {
	// struct input_event: the time, type, code, value.
	const size = int(unsafe.Sizeof(unix.Timeval{})) + 8
	var buf [64 * size]byte
	n, err := unix.Read(fd, buf[:])
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	if n <= 0 || err != nil { // ENODEV: unplugged
		for name, is := range b.devices {
			if is == fd {
				delete(b.devices, name)
			}
		}
		unix.Close(fd)
		return
	}
	for at := 0; at+size <= n; at += size {
		e := buf[at+size-8 : at+size]
		kind, code := binary.NativeEndian.Uint16(e), binary.NativeEndian.Uint16(e[2:])
		if kind != evKey || binary.NativeEndian.Uint32(e[4:]) != 1 { // pressed, not released or repeated
			continue
		}
		for _, c := range buttonCodes {
			if c.code == code {
				b.report(c.key)
			}
		}
	}
}

// From include/uapi/linux/input.h and input-event-codes.h.
const (
	evKey   = 1
	keyMax  = 0x2ff
	keySize = (keyMax + 8) / 8
)

func ioc(direction, size, number uintptr) uintptr { return direction<<30 | size<<16 | 'E'<<8 | number }

// hasButtons reports whether an input device has one of our keys (EVIOCGBIT), and
// has it send no others (EVIOCSMASK, since 4.4): a keyboard that has a power key
// would wake PID 1 at each letter.
func hasButtons(fd int) bool {
	var has, want [keySize]byte
	const read = 2
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioc(read, keySize, 0x20+evKey), uintptr(unsafe.Pointer(&has))); errno != 0 {
		return false
	}
	found := false
	for _, c := range buttonCodes {
		bit := byte(1) << (c.code % 8)
		want[c.code/8] |= bit
		found = found || has[c.code/8]&bit != 0
	}
	if found {
		mask(fd, evKey, want[:])
		// The types that are reported are a mask of type 0. A mask is whole longs.
		mask(fd, 0, []byte{1 << evKey, 0, 0, 0, 0, 0, 0, 0})
	}
	return found
}

func mask(fd int, kind uint32, codes []byte) {
	m := struct { // struct input_mask, whose last member is a number of 64 bits
		kind, size uint32
		codes      *byte
		_          [8 - unsafe.Sizeof(uintptr(0))]byte
	}{kind: kind, size: uint32(len(codes)), codes: &codes[0]}
	const write = 1
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioc(write, unsafe.Sizeof(m), 0x93), uintptr(unsafe.Pointer(&m)))
}
