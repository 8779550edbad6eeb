package procconn

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An Error is why there is no proc connector here. It is [errors.ErrUnsupported].
type Error struct {
	Reason string // what it is, in a few words
	Remedy string // what would give it, "" if nothing is known
	Err    error  // what the kernel said
}

func (e *Error) Error() string { return e.Err.Error() + ": " + e.Reason }

// Unwrap is the kernel's error.
func (e *Error) Unwrap() error { return e.Err }

// Is makes every refusal an [errors.ErrUnsupported].
func (e *Error) Is(err error) bool { return err == errors.ErrUnsupported }

var errNoProc = errors.New("/proc does not have this process")

// What would give it, and where. The engines' words are those of docker and podman,
// Kubernetes and systemd.
const (
	giveNetwork = "docker, podman: --network=host; Kubernetes: hostNetwork: true; systemd: PrivateNetwork=no"
	givePID     = "docker, podman: --pid=host; Kubernetes: hostPID: true"
	giveUser    = "docker: --userns=host; podman: --userns=host, as root; Kubernetes: hostUsers: true; systemd: PrivateUsers=no"
	giveAdmin   = "docker, podman: --cap-add=NET_ADMIN; Kubernetes: securityContext.capabilities.add: [NET_ADMIN]; systemd: CAP_NET_ADMIN in CapabilityBoundingSet= and AmbientCapabilities="
	giveKernel  = "a kernel with CONFIG_CONNECTOR=y and CONFIG_PROC_EVENTS=y"
	giveProc    = "mount /proc, without hidepid for this user"
)

// The numbers of the initial namespaces: include/linux/proc_ns.h.
const (
	initialUser = 0xeffffffd
	initialPID  = 0xeffffffc
)

// refusal says what an error of Open means.
func refusal(err error) *Error {
	e := &Error{Err: err}
	switch {
	case errors.Is(err, errNoProc):
		e.Reason, e.Remedy = "processes cannot be looked up", giveProc
	case errors.Is(err, unix.ECONNREFUSED):
		e.Reason, e.Remedy = "this is not the initial network namespace", all(giveNetwork, outside())
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		e.Reason, e.Remedy = "CAP_NET_ADMIN is missing", all(giveAdmin, outside())
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.ESOCKTNOSUPPORT):
		e.Reason, e.Remedy = "this kernel has no connector", giveKernel
	case errors.Is(err, errIgnored):
		e.Reason, e.Remedy = "nobody knows why", ""
		switch user, pid := namespace("user", initialUser), namespace("pid", initialPID); {
		case user && pid:
			e.Reason = "this is neither the initial PID namespace nor the initial user namespace"
		case user:
			e.Reason = "this is not the initial user namespace"
		case pid:
			e.Reason = "this is not the initial PID namespace"
		case withoutEvents():
			e.Reason, e.Remedy = "this kernel's connector has no process events", giveKernel
			return e
		case !hasAdmin():
			e.Reason, e.Remedy = "CAP_NET_ADMIN is missing", giveAdmin
			return e
		}
		e.Remedy = outside()
	default:
		e.Reason = "it cannot be listened to"
	}
	return e
}

// outside says what else is in the way.
func outside() string {
	var list []string
	if namespace("pid", initialPID) {
		list = append(list, givePID)
	}
	if namespace("user", initialUser) {
		list = append(list, giveUser)
	}
	return all(list...)
}

func all(list ...string) string {
	var given []string
	for _, s := range list {
		if s != "" {
			given = append(given, s)
		}
	}
	return strings.Join(given, "; and ")
}

// namespace reports whether this process is known to be in another one than the
// initial.
func namespace(kind string, initial uint64) (other bool) {
	link, err := os.Readlink("/proc/self/ns/" + kind)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(link, kind+":["), "]"), 10, 64)
	return err == nil && n != initial
}

// withoutEvents reports whether the connector is known to have no process events: its
// list has each callback's numbers.
func withoutEvents() bool {
	b, err := os.ReadFile("/proc/net/connector")
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	return err == nil && !bytes.Contains(b, []byte("cn_proc"))
}

func hasAdmin() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return err == nil && data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}
