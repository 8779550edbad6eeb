package machine

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Sysctls writes values below /proc/sys, in the order of the names. A name is
// written as in sysctl.d(5): with dots or with slashes, and the first of either
// says which of them divides (net.ipv4.conf.eth0/100.forwarding is VLAN 100's);
// one that begins with - may fail. The others are tried in any case.
func Sysctls(values map[string]string) []error { return sysctls("/proc/sys", values) }

func sysctls(dir string, values map[string]string) (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		plain, optional := strings.CutPrefix(name, "-")
		if err := sysctl(dir, plain, values[name]); err != nil && !optional {
			errs = append(errs, fmt.Errorf("set %s to %.80q: %w", plain, values[name], err))
		}
	}
	return errs
}

func sysctl(dir, name, value string) error {
	path, err := sysctlPath(name)
	if err != nil {
		return err
	}
	// One write is one value (proc_sys_write), and no file is made here.
	fd, err := unix.Open(filepath.Join(dir, path), unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value+"\n"))
	return err
}

func sysctlPath(name string) (string, error) {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		name = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	if !filepath.IsLocal(name) || name == "." || filepath.Clean(name) != name {
		return "", fmt.Errorf("not a sysctl's name: %w", os.ErrInvalid)
	}
	return name, nil
}

// SetKernelPanic makes the kernel reboot d after a panic (kernel.panic, whole
// seconds, rounded up); 0 is never, negative at once.
func SetKernelPanic(d time.Duration) error {
	return setKernelPanic("/proc/sys", d)
}

func setKernelPanic(dir string, d time.Duration) error {
	seconds := int((d + time.Second - 1) / time.Second)
	if d < 0 {
		seconds = -1
	}
	if err := sysctl(dir, "kernel.panic", strconv.Itoa(seconds)); err != nil {
		return fmt.Errorf("set kernel.panic to %d s: %w", seconds, err)
	}
	return nil
}
