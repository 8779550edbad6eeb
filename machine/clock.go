package machine

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetClock sets the system's clock where it is plainly wrong: before the time of
// this program's build, or before the modification time of a file in seen (the
// entropy seed, say: this machine was alive then; a time that is more than
// mostAhead after the build is that of a clock that was wrong, and is none). It
// takes the real-time
// clock's time (which is UTC), unless that is before those, too; then the newest
// of them. It returns what the clock was set by, "" if it was left as it is: the
// kernel sets it by itself on amd64 and wherever the clock's driver is built in
// (CONFIG_RTC_HCTOSYS).
//
// An error with a name is about a clock that could not be read.
func SetClock(seen ...string) (from string, err error) {
	return setClock(time.Now(), buildTime(), seen, readRTC, setTime)
}

// mostAhead is how long a program may be in use.
const mostAhead = 20 * 366 * 24 * time.Hour

func setClock(now, built time.Time, seen []string, rtc func() (time.Time, error), set func(time.Time) error) (string, error) {
	floor, by := built, "this program's build"
	for _, path := range seen {
		if st, err := os.Stat(path); err == nil && st.ModTime().After(floor) && (built.Unix() <= 0 || st.ModTime().Before(built.Add(mostAhead))) {
			floor, by = st.ModTime(), path
		}
	}
	if !now.Before(floor) {
		return "", nil
	}
	t, rtcErr := rtc()
	switch {
	case rtcErr != nil:
		t = floor
	case t.Before(floor):
		rtcErr = fmt.Errorf("real-time clock says %s, which is before %s", t.Format(time.RFC3339), floor.UTC().Format(time.RFC3339))
		t = floor
	default:
		by = "the real-time clock"
	}
	if err := set(t); err != nil {
		return "", errors.Join(fmt.Errorf("set clock to %s: %w", t.UTC().Format(time.RFC3339), err), rtcErr)
	}
	return by, rtcErr
}

// buildTime is the newer of the commit's time, which the Go command writes into
// a program, and the program file's; an image that is always the same, byte for
// byte, has no times of files.
func buildTime() (t time.Time) {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				t, _ = time.Parse(time.RFC3339, s.Value)
			}
		}
	}
	if st, err := os.Stat("/proc/self/exe"); err == nil && st.ModTime().After(t) {
		t = st.ModTime()
	}
	return t
}

func openRTC(flags int) (fd int, err error) {
	for _, path := range []string{"/dev/rtc0", "/dev/rtc"} {
		if fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0); err == nil {
			return fd, nil
		}
		if err != unix.ENOENT {
			return -1, fmt.Errorf("open real-time clock %s: %w", path, err)
		}
	}
	return -1, fmt.Errorf("open real-time clock: no /dev/rtc0: %w", errors.ErrUnsupported)
}

// readRTC is RTC_RD_TIME of rtc(4).
func readRTC() (time.Time, error) {
	fd, err := openRTC(unix.O_RDONLY)
	if err != nil {
		return time.Time{}, err
	}
	defer unix.Close(fd)
	r, err := unix.IoctlGetRTCTime(fd)
	if err != nil {
		return time.Time{}, fmt.Errorf("read real-time clock: %w", err)
	}
	return fromRTC(r), nil
}

func fromRTC(r *unix.RTCTime) time.Time {
	return time.Date(int(r.Year)+1900, time.Month(r.Mon+1), int(r.Mday), int(r.Hour), int(r.Min), int(r.Sec), 0, time.UTC)
}

func toRTC(t time.Time) *unix.RTCTime {
	t = t.UTC()
	return &unix.RTCTime{
		Sec: int32(t.Second()), Min: int32(t.Minute()), Hour: int32(t.Hour()),
		Mday: int32(t.Day()), Mon: int32(t.Month()) - 1, Year: int32(t.Year()) - 1900,
	}
}

func setTime(t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}

// SaveClock writes the system's time to the real-time clock, for the next boot,
// unless it is before this program's build, and so nobody's time. A kernel that
// is told the time by NTP does that itself (CONFIG_RTC_SYSTOHC).
func SaveClock() error {
	now := time.Now()
	if now.Before(buildTime()) {
		return nil
	}
	fd, err := openRTC(unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.RTC_SET_TIME, uintptr(unsafe.Pointer(toRTC(now)))); errno != 0 {
		return fmt.Errorf("set real-time clock: %w", errno)
	}
	return nil
}
