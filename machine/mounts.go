package machine

import (
	"errors"
	"time"
)

var errNotYet = errors.New("not written yet")

// Mount is one file system to be mounted: a line of fstab(5).
type Mount struct {
	Source   string        // a device, LABEL=, UUID=, PARTLABEL=, PARTUUID=, a tag (virtiofs, 9p), a folder (bind)
	Target   string        // an absolute path; made when it is missing
	Type     string        // "" and "auto": what the device holds
	Options  []string      // words of fstab(5)
	Wait     time.Duration // how long the device may be late
	Optional bool          // nofail: what goes wrong is said and no error
}

// MountEarly mounts what every program expects of a machine. Notes are what
// the kernel does not have and a machine can do without.
func MountEarly() (notes []error, err error) { return nil, errNotYet }

// MountCgroups mounts control groups at /sys/fs/cgroup. The version is "v2"
// (also ""), "v1", "hybrid" or "none".
func MountCgroups(version string) error { return errNotYet }

// MountAll mounts the list in its order, and returns the errors of those that
// are not optional. It waits for late devices and makes mount points.
func MountAll(list []Mount, say func(string)) []error { return []error{errNotYet} }

// RemountRoot makes the root writable, or read-only.
func RemountRoot(rw bool) error { return errNotYet }
