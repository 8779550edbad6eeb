package machine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
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
// used and that is not nofail; of those, and that it waits, say is told, which
// may be nil.
func SwapOn(specs []string, wait time.Duration, say func(string)) []error {
	if say == nil {
		say = sayNothing
	}
	return kernel.swapOn(system, "/proc/swaps", specs, wait, say)
}

func (h hands) swapOn(f finder, list string, specs []string, wait time.Duration, say func(string)) (errs []error) {
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
		optional, err := h.swapOnOne(f, list, unescape(fields[0]), options, rest(begin, wait), say)
		if err == nil {
			continue
		}
		if err = fmt.Errorf("swap on %s: %w", printable(fields[0]), err); optional {
			say(err.Error())
		} else {
			errs = append(errs, err)
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

func (h hands) swapOnOne(f finder, list, source, options string, wait time.Duration, say func(string)) (optional bool, err error) {
	flags, words := 0, splitOptions(options)
	optional = slices.Contains(words, "nofail")
	for _, word := range words {
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
		case "noauto":
			return true, nil
		}
	}
	path := source
	if isDeviceSpec(source) {
		d, err := f.find(source, wait, say)
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

// SwapOffAll stops swapping before the file systems go, the last area first. Each
// error is an area that stays, with the reason:
//
//   - its content does not fit into the memory that is available. The kernel would
//     end everything for it, and with nothing left to end panics ("System is
//     deadlocked on memory", mm/oom_kill.c): a tmpfs that is full is no process's;
//   - it hangs, or there was no time left: it takes [SwapOffLimit] at most.
//
// zram is left alone: nothing lies on it, and nothing below it. A tmpfs that can be
// unmounted goes first, with what it had swapped out. It is refused to whoever is
// not a machine's PID 1.
func SwapOffAll() []error {
	if err := inMachine(); err != nil {
		return []error{fmt.Errorf("swap off: %w", err)}
	}
	h := kernel
	_ = unix.Chdir("/")
	return h.swapOffAll("/proc/swaps", "/proc/meminfo", SwapOffLimit)
}

// SwapOffLimit is what [SwapOffAll] takes at most.
const SwapOffLimit = time.Minute

func (h hands) swapOffAll(list, meminfo string, limit time.Duration) (errs []error) {
	end := time.Now().Add(limit)
	used, err := areasOf(list)
	if errors.Is(err, os.ErrNotExist) { // a kernel without swap, or no /proc
		return nil
	}
	if err != nil {
		return []error{err}
	}
	used = slices.DeleteFunc(used, func(a swapArea) bool { return strings.HasPrefix(a.name, "/dev/zram") })
	if len(used) == 0 {
		return nil
	}
	h.limit = min(h.limit, limit/3)
	h.unmountMemory(end.Add(-limit / 3))
	for i := len(used) - 1; i >= 0; i-- {
		name := used[i].name
		if err := h.swapOffOne(list, meminfo, name, time.Until(end)); err != nil {
			errs = append(errs, fmt.Errorf("swap off %s: %w", name, err))
		}
	}
	return errs
}

func (h hands) swapOffOne(list, meminfo, name string, left time.Duration) error {
	if left < time.Millisecond {
		return errNoTime
	}
	areas, err := areasOf(list) // those before have changed what is used
	if err != nil {
		return err
	}
	used := 0
	for _, a := range areas {
		if a.name == name {
			used = a.used
		}
	}
	info := memory(meminfo, "MemAvailable:", "MemTotal:")
	if free := info[0] - max(info[1]/16, swapReserve); used > 0 && used > free {
		return fmt.Errorf("it stays on: it holds %d MiB, and the memory has room for %d", (used+1023)>>10, max(free, 0)>>10)
	}
	return within(min(left, h.limit), nil, nil, func() error { return h.swapoff(name) })
}

// swapReserve is what no swapped content may take, in KiB, and at least a
// sixteenth of the memory: the kernel must go on, and so must this process.
const swapReserve = 16 << 10

// unmountMemory unmounts every tmpfs that nobody uses and nothing else stands on;
// what cannot be, stays. What comes to light below one has its turn, too.
func (h hands) unmountMemory(end time.Time) {
	for range 64 {
		list, err := mountsOf()
		if err != nil {
			return
		}
		gone := false
		for _, m := range deepestFirst(list) {
			if m.Type != "tmpfs" || !endsWithSwap(m.Target) || time.Now().After(end) {
				continue
			}
			gone = within(h.limit, nil, nil, func() error { return h.unmount(m.Target, unix.UMOUNT_NOFOLLOW) }) == nil || gone
		}
		if !gone {
			return
		}
	}
}

// endsWithSwap is false for the memory file systems that the end needs.
func endsWithSwap(target string) bool {
	switch target {
	case "/", "/dev", "/proc", "/sys", "/sys/fs/cgroup":
		return false
	}
	return true
}

// A swapArea is a line of proc_swaps(5).
type swapArea struct {
	name string
	used int // KiB
}

// swapsOf are the names of all areas.
func swapsOf(path string) (names []string, err error) {
	areas, err := areasOf(path)
	for _, a := range areas {
		names = append(names, a.name)
	}
	return names, err
}

// areasOf reads proc_swaps(5).
func areasOf(path string) (areas []swapArea, err error) {
	b, err := readBounded(path, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("list swaps: %w", err)
	}
	first := true
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 5 && !first {
			used, _ := strconv.Atoi(f[3])
			areas = append(areas, swapArea{unescape(f[0]), used})
		}
		first = false
	}
	return areas, nil
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
