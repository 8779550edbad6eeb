package machine

import "time"

// Sysctls writes values below /proc/sys, in the order of the names; a name has
// dots or slashes, as in sysctl.d(5), and one that begins with - is optional.
func Sysctls(values map[string]string) []error { return nil }

// SetKernelPanic makes the kernel reboot d after a panic (kernel.panic, whole
// seconds, rounded up); 0 is never, negative at once.
func SetKernelPanic(d time.Duration) error { return nil }
