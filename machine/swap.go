package machine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SwapOn starts swapping to devices and files. A spec is "DEVICE" or "DEVICE
// OPTIONS": a device as in [FindDevice] or the path of a file, blanks in it as
// \040, and the words of fstab(5): pri=5, discard, discard=once, discard=pages,
// nofail. Devices that are late are waited for, all of them together no longer
// than wait. What is in use already stays. Each error is one swap that is not
// used and that is not nofail.
func SwapOn(specs []string, wait time.Duration) []error {
	return kernel.swapOn(system, "/proc/swaps", specs, wait)
}

func (h hands) swapOn(f finder, list string, specs []string, wait time.Duration) (errs []error) {
	begin := time.Now()
	for _, spec := range specs {
		fields := strings.Fields(spec)
		if len(fields) == 0 || len(fields) > 2 {
			errs = append(errs, fmt.Errorf("swap on %q: neither a device nor a device and its options", spec))
			continue
		}
		var options string
		if len(fields) == 2 {
			options = fields[1]
		}
		optional, err := h.swapOnOne(f, list, unescape(fields[0]), options, rest(begin, wait))
		if err != nil && !optional {
			errs = append(errs, fmt.Errorf("swap on %s: %w", fields[0], err))
		}
	}
	return errs
}

// rest is what is left of a wait; negative is for ever.
func rest(begin time.Time, wait time.Duration) time.Duration {
	if wait < 0 {
		return wait
	}
	return max(0, wait-time.Since(begin))
}

func (h hands) swapOnOne(f finder, list, source, options string, wait time.Duration) (optional bool, err error) {
	flags := 0
	for _, word := range splitOptions(options) {
		k, v, _ := strings.Cut(word, "=")
		switch k {
		case "pri":
			n, ok := number(v)
			if v != "-1" && (!ok || n > swapPriorities) {
				return optional, fmt.Errorf("priority %q is none of 0 to %d", v, swapPriorities)
			}
			if ok {
				flags |= swapPrefer | n
			}
		case "discard":
			flags |= swapDiscard
			switch v {
			case "":
			case "once":
				flags |= swapDiscardOnce
			case "pages":
				flags |= swapDiscardPages
			default:
				return optional, fmt.Errorf("discard=%q is neither once nor pages", v)
			}
		case "nofail":
			optional = true
		case "noauto":
			return true, nil
		}
	}
	path := source
	if isDeviceSpec(source) {
		d, err := f.find(source, wait, sayNothing)
		if err != nil {
			return optional, err
		}
		if t := d.content.Type; t != "swap" && t != "" {
			return optional, fmt.Errorf("%s holds %s and no swap", d.Path, t)
		}
		path = d.Path
	} else if !strings.HasPrefix(source, "/") {
		return optional, errors.New("neither a device nor an absolute path")
	}
	used, err := swapsOf(list)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return optional, err
	}
	for _, name := range used {
		if sameFile(name, path) {
			return optional, nil
		}
	}
	return optional, within(h.limit, nil, nil, func() error { return h.swapon(path, flags) })
}

func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// SwapOffAll stops all swapping, the last one first. Memory that does not
// suffice, or a disk that hangs, is an error, and the others are stopped
// nevertheless. It is refused to whoever is not a machine's PID 1.
func SwapOffAll() []error {
	if err := inMachine(); err != nil {
		return []error{fmt.Errorf("swap off: %w", err)}
	}
	return kernel.swapOffAll("/proc/swaps")
}

func (h hands) swapOffAll(list string) (errs []error) {
	used, err := swapsOf(list)
	if errors.Is(err, os.ErrNotExist) { // a kernel without swap, or no /proc
		return nil
	}
	if err != nil {
		return []error{err}
	}
	for i := len(used) - 1; i >= 0; i-- {
		if err := within(h.limit, nil, nil, func() error { return h.swapoff(used[i]) }); err != nil {
			errs = append(errs, fmt.Errorf("swap off %s: %w", used[i], err))
		}
	}
	return errs
}

// swapsOf reads the names in proc_swaps(5).
func swapsOf(path string) (names []string, err error) {
	b, err := readBounded(path, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("list swaps: %w", err)
	}
	first := true
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 5 && !first {
			names = append(names, unescape(f[0]))
		}
		first = false
	}
	return names, nil
}

// include/linux/swap.h.
const (
	swapPriorities   = 0x7fff
	swapPrefer       = 0x8000
	swapDiscard      = 0x10000
	swapDiscardOnce  = 0x20000
	swapDiscardPages = 0x40000
)

func swapon(path string, flags int) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(p)), uintptr(flags), 0); errno != 0 {
		return errno
	}
	return nil
}

func swapoff(path string) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(p)), 0, 0); errno != 0 {
		return errno
	}
	return nil
}
