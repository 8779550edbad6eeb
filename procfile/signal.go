package procfile

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The first and last real-time signal as the C library counts them; it keeps
// 32 and 33 for itself.
const (
	sigrtmin = 34
	sigrtmax = 64
)

// ParseSignal reads a signal: a name with or without SIG, in any case, a number
// from 1 to 64, RTMIN+n or RTMAX-n.
func ParseSignal(name string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil {
		if n < 1 || n > sigrtmax {
			return 0, fmt.Errorf("signal %d is not from 1 to %d", n, sigrtmax)
		}
		return syscall.Signal(n), nil
	}
	short := strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if rest, ok := strings.CutPrefix(short, "RTMIN"); ok {
		if n, ok := offset(rest, "+"); ok {
			return syscall.Signal(sigrtmin + n), nil
		}
	}
	if rest, ok := strings.CutPrefix(short, "RTMAX"); ok {
		if n, ok := offset(rest, "-"); ok {
			return syscall.Signal(sigrtmax - n), nil
		}
	}
	if s := unix.SignalNum("SIG" + short); s != 0 {
		return s, nil
	}
	return 0, noSuch("signal", name, signalNames())
}

// offset reads "" as 0 and sign followed by a number that stays within the
// real-time signals.
func offset(s, sign string) (int, bool) {
	if s == "" {
		return 0, true
	}
	digits, ok := strings.CutPrefix(s, sign)
	n, err := strconv.ParseUint(digits, 10, 8)
	return int(n), ok && err == nil && n <= sigrtmax-sigrtmin
}

// signalNames lists the names that ParseSignal knows, without SIG.
func signalNames() []string {
	var names []string
	for s := syscall.Signal(1); s < 32; s++ {
		if name := unix.SignalName(s); name != "" {
			names = append(names, strings.TrimPrefix(name, "SIG"))
		}
	}
	return names
}
