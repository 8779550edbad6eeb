package machine

import "time"

// Root is the root file system that an initramfs moves to.
type Root struct {
	Spec  string // as root= of the kernel command line, or the tag of Type virtiofs or 9p
	Type  string // rootfstype=, separated by commas; "": what the device holds
	Flags string // rootflags=
	RW    bool
	Wait  time.Duration // for a late device; negative: for ever (rootwait)
	Init  []string      // path in the new root and its arguments; empty: /sbin/pazinit, /sbin/init
	Say   func(string)  // what is worth a line; may be nil

	// Exec replaces execve(2), for who has to put signals right before it.
	Exec func(path string, argv, env []string) error
}

// InInitramfs says whether the root is the kernel's own in memory, with files
// of an initramfs.
func InInitramfs() bool { return false }

// SwitchRoot leaves the initramfs for a root on a device. It returns only on
// an error, with what it did undone as far as that can be.
func SwitchRoot(r Root) error { return errNotYet }
