package cgroupfs

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// UnavailableError says that no hierarchy can be used here. It is
// [errors.ErrUnsupported], and each cause can be asked for by errors.Is.
type UnavailableError struct {
	Causes  []error // what was tried, in that order; never empty
	Setting string  // what would give one
}

// Error names the first cause, one line: v1 alone has a dozen hierarchies.
func (e *UnavailableError) Error() string {
	why := strings.ReplaceAll(e.Causes[0].Error(), "\n", "; ")
	if more := len(e.Causes) - 1; more > 0 {
		why += fmt.Sprintf("; and %d more", more)
	}
	return "no writable cgroup hierarchy: " + why + " (" + e.Setting + ")"
}

// Unwrap gives the causes and [errors.ErrUnsupported].
func (e *UnavailableError) Unwrap() []error {
	return append([]error{errors.ErrUnsupported}, e.Causes...)
}

// setting names what an operator has to change, judged by why the kernel said no.
func setting(causes []error) string {
	err := errors.Join(causes...)
	switch {
	case errors.Is(err, unix.EROFS):
		return "the hierarchy is mounted read-only: --privileged, on cgroup v2 podman's --security-opt unmask=/sys/fs/cgroup, or mount it writable"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "run as root, or delegate the own group to this user: chown its folder and its cgroup.procs"
	}
	return "mount one, mount -t cgroup2 none /sys/fs/cgroup, or say where one is with cgroups.fs_root"
}

// InUseError says that another live process holds the hierarchy's folder.
type InUseError struct {
	PID  int    // its holder; 0 where it cannot be seen from here
	Path string // the folder
}

func (e *InUseError) Error() string {
	who := "a process outside of this pid namespace"
	if e.PID > 0 {
		who = fmt.Sprintf("pid %d", e.PID)
	}
	return fmt.Sprintf("cgroup %s is in use by %s", e.Path, who)
}
