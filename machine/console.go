package machine

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenConsole makes the console this process's standard input, output and error,
// and returns its path. name is a device below /dev or a path; "" is the last one
// of /sys/class/tty/console/active, which is /dev/console's
// (Documentation/ABI/testing/sysfs-tty) but, unlike that, can control a session.
// It controls none yet: a child can take it, and Ctrl-C is no signal to PID 1. Where it cannot be opened, the others of that file are
// tried, /dev/console, then /dev/null; err says what went wrong, and path is ""
// only if nothing could be opened.
//
// Every descriptor but 0 to 2 is closed again, and those are in blocking mode
// and unknown to Go's poller: a child that inherits them has the console whole.
func OpenConsole(name string) (path string, err error) { return openConsole("/", name) }

func openConsole(root, name string) (string, error) {
	var errs []error
	for _, path := range consoles(root, name) {
		fd, err := openQuiet(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("open console %s: %w", path, err))
			continue
		}
		errs = append(errs, takeConsole(fd, path))
		return path, errors.Join(errs...)
	}
	return "", errors.Join(errs...)
}

// consoles are the devices to try, the best one first.
func consoles(root, name string) (list []string) {
	dev := filepath.Join(root, "dev")
	add := func(name string) {
		if name == "tty0" { // whichever virtual terminal is seen
			if b, err := readBounded(filepath.Join(root, "sys/class/tty/tty0/active"), 256); err == nil && len(b) > 1 {
				name = strings.TrimSpace(string(b))
			}
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(dev, name)
		}
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	if name != "" {
		add(name)
	}
	if b, err := readBounded(filepath.Join(root, "sys/class/tty/console/active"), 4096); err == nil {
		active := strings.Fields(string(b))
		slices.Reverse(active)
		for _, name := range active {
			add(name)
		}
	}
	add("console")
	add("null")
	return list
}

// openQuiet opens a terminal without taking it for the session and without
// waiting for a carrier, as a blocking open of a serial line may.
func openQuiet(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// takeConsole puts fd, which it closes, at 0 to 2, and sets the terminal up.
func takeConsole(fd int, path string) error {
	if fd <= 2 { // one of them was closed
		high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("move console %s: %w", path, err)
		}
		fd = high
	}
	defer unix.Close(fd)
	for i := range 3 {
		if err := unix.Dup3(fd, i, 0); err != nil {
			return fmt.Errorf("make console %s descriptor %d: %w", path, i, err)
		}
	}
	if filepath.Base(path) == "null" {
		return nil
	}
	if err := makeSane(fd); err != nil {
		return fmt.Errorf("set up console %s: %w", path, err)
	}
	return nil
}

// makeSane gives a terminal the modes that tty_std_termios has
// (drivers/tty/tty_io.c): the one before may have died in another. Speed, size
// and parity stay.
func makeSane(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	old := *t
	t.Iflag = t.Iflag&^(unix.IGNBRK|unix.BRKINT|unix.PARMRK|unix.ISTRIP|unix.INLCR|unix.IGNCR) | unix.ICRNL | unix.IXON
	t.Oflag = t.Oflag&^(unix.OCRNL|unix.ONOCR|unix.ONLRET|unix.OLCUC) | unix.OPOST | unix.ONLCR
	t.Cflag |= unix.CREAD | unix.CLOCAL
	t.Lflag = t.Lflag&^(unix.ECHONL|unix.NOFLSH|unix.TOSTOP|unix.XCASE) |
		unix.ISIG | unix.ICANON | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ECHOCTL | unix.ECHOKE | unix.IEXTEN
	for at, c := range map[int]byte{
		unix.VINTR: 'C' & 31, unix.VQUIT: '\\' & 31, unix.VERASE: 0x7f, unix.VKILL: 'U' & 31, unix.VEOF: 'D' & 31,
		unix.VSUSP: 'Z' & 31, unix.VSTART: 'Q' & 31, unix.VSTOP: 'S' & 31, unix.VMIN: 1, unix.VTIME: 0,
	} {
		t.Cc[at] = c
	}
	if *t == old {
		return nil
	}
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
