package pazinit

import (
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Place is where this process runs, as far as it matters to a supervisor.
type Place struct {
	PID1     bool // of some PID namespace
	Initial  bool // in the machine's own PID namespace
	Daemon   bool // a service of the host's init, which stays when no worker can run again
	Shared   bool // in a container that has the machine's own PID namespace (--pid=host)
	Terminal bool // it has a controlling terminal
}

// The inodes of the machine's first namespaces, include/linux/proc_ns.h:
// PROC_PID_INIT_INO, PROC_UTS_INIT_INO and PROC_IPC_INIT_INO.
const (
	initialPIDNamespace = "pid:[4026531836]"
	initialUTSNamespace = "uts:[4026531838]"
	initialIPCNamespace = "ipc:[4026531839]"
)

// FindPlace looks where this process runs.
func FindPlace() Place {
	p := Place{PID1: os.Getpid() == 1}
	p.Initial = namespace("pid") == initialPIDNamespace
	if p.Initial && !p.PID1 {
		// A container has a host name and an IPC namespace of its own; a service of
		// the host may have one of them.
		uts, ipc := namespace("uts"), namespace("ipc")
		p.Shared = uts != "" && uts != initialUTSNamespace && ipc != "" && ipc != initialIPCNamespace
	}
	if fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0); err == nil {
		p.Terminal = true
		unix.Close(fd)
	}
	p.Daemon = p.Initial && !p.PID1 && !p.Shared && os.Getppid() == 1 && !p.Terminal
	return p
}

// namespace names that of this process, as "pid:[4026531836]"; "" if it is not
// known, or the kernel has none of that kind.
func namespace(kind string) string {
	ns, _ := os.Readlink("/proc/self/ns/" + kind)
	return ns
}

// ends reports whether the end of all workers is the end of the supervisor: in
// a container and in the foreground, but not as a host's service.
func (p Place) ends() bool { return !p.Daemon }

func (p Place) String() string {
	switch {
	case p.PID1 && p.Initial:
		return "the init of a machine"
	case p.PID1:
		return "PID 1 of a container"
	case p.Daemon:
		return "a daemon of the host"
	case p.Shared:
		return "in a container with the host's PID namespace"
	case p.Initial:
		return "in the foreground of the host"
	}
	return "within a container, below another init"
}

// cpuQuota is the number of processors that the own cgroup may use, rounded up,
// 0 for no quota.
func cpuQuota() int {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	least := math.Inf(1)
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch {
		case f[0] == "0":
			for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
				eachParent(f[2], func(dir string) {
					if w := strings.Fields(readText(mount + dir + "/cpu.max")); len(w) == 2 {
						least = min(least, quota(w[0], w[1]))
					}
				})
			}
		case strings.Contains(","+f[1]+",", ",cpu,"):
			for _, mount := range []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"} {
				eachParent(f[2], func(dir string) {
					least = min(least, quota(readText(mount+dir+"/cpu.cfs_quota_us"), readText(mount+dir+"/cpu.cfs_period_us")))
				})
			}
		}
	}
	if math.IsInf(least, 1) {
		return 0
	}
	return max(1, int(math.Ceil(least)))
}

// eachParent calls f with dir and all that are above it, the last one "".
func eachParent(dir string, f func(dir string)) {
	dir = strings.TrimRight(dir, "/")
	for {
		f(dir)
		i := strings.LastIndexByte(dir, '/')
		if i < 0 {
			return
		}
		dir = dir[:i]
	}
}

func readText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func quota(of, period string) float64 {
	q, err1 := strconv.ParseFloat(of, 64)
	p, err2 := strconv.ParseFloat(period, 64)
	if err1 != nil || err2 != nil || q <= 0 || p <= 0 {
		return math.Inf(1)
	}
	return q / p
}
