package main

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func subreaper() bool {
	var n int32
	return unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&n)), 0, 0, 0) == nil && n == 1
}

// Of the kernel's interfaces that pazinit uses where they are, since when there
// is each and what it does without.
var featureTable = []struct{ name, since, instead string }{
	{"clone3", "5.3", "clone, a child resets its signals and enters its cgroup itself"},
	{"clone_into_cgroup", "5.7", "a child enters its cgroup itself before it is executed"},
	{"pidfd_open", "5.3", "pids, whose start time is compared before they are signalled"},
	{"pidfd_send_signal", "5.1", "kill(2), while the process is not reaped"},
	{"pidfd_signal_group", "6.9", "kill(2) of the group, while its leader is not reaped"},
	{"pidfd_get_info", "6.13", "/proc and cgroup.procs"},
	{"close_range_cloexec", "5.11", "a child closes what it must not have before its exec, not by it"},
	{"close_range_unshare", "5.9", "children do not share descriptors while they start"},
	{"openat2", "5.6", "openat without following links, and a look at the file system"},
	{"waitid", "2.6.9", ""},
	{"subreaper", "3.4", "orphans of workers go to another init"},
	{"raise_priority", "", "the priority that it was started with"},
	{"lower_oom_score", "", "the score that it was started with: it may be killed for want of memory before its workers"},
}

// lookFeatures tries each, in a way that changes nothing that lasts, and says
// what the kernel, or a seccomp filter, answered; "" for what works.
func lookFeatures() map[string]string {
	runtime.LockOSThread() // priorities are those of threads
	defer runtime.UnlockOSThread()
	self, pidfdErr := unix.PidfdOpen(os.Getpid(), 0)
	if pidfdErr == nil {
		defer unix.Close(self)
	}
	out := map[string]string{}
	for i := range featureTable {
		name := featureTable[i].name
		out[name] = errText(tryFeature(name, self, pidfdErr))
	}
	return out
}

func tryFeature(name string, pidfd int, pidfdErr error) error {
	const none = 1<<31 - 1 // no descriptor has this number
	switch name {
	case "clone3":
		return expect(unix.EINVAL, clone3(nil, 0)) // no struct is that small
	case "clone_into_cgroup":
		return tryCloneIntoCgroup()
	case "close_range_cloexec":
		return unix.CloseRange(none, none, unix.CLOSE_RANGE_CLOEXEC)
	case "close_range_unshare": // the flag is as old as the call, and unsharing would last
		return unix.CloseRange(none, none, 0)
	case "openat2":
		fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC})
		if err == nil {
			unix.Close(fd)
		}
		return err
	case "waitid": // there is no child of ours
		_, _, e := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, 0, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, 0, 0)
		return expect(unix.ECHILD, e)
	case "subreaper":
		if subreaper() {
			return nil
		}
		err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
		if err == nil {
			err = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
		}
		return err
	case "raise_priority":
		return tryPriority()
	case "lower_oom_score":
		return tryOOMScore()
	}
	if pidfdErr != nil {
		return pidfdErr
	}
	switch name {
	case "pidfd_send_signal":
		return unix.PidfdSendSignal(pidfd, 0, nil, 0) // signal 0 is none
	case "pidfd_signal_group":
		const group = 1 << 2                                                      // PIDFD_SIGNAL_PROCESS_GROUP
		if err := unix.PidfdSendSignal(pidfd, 0, nil, group); err != unix.ESRCH { // it may lead no group
			return err
		}
	case "pidfd_get_info":
		return tryPidfdInfo(pidfd)
	}
	return nil
}

// expect is nil for success, and for the error by which a kernel shows that it
// knows a call.
func expect(want, got unix.Errno) error {
	if got == want || got == 0 {
		return nil
	}
	return got
}

func clone3(args *[11]uint64, size uintptr) unix.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), size, 0)
	return e
}

// tryCloneIntoCgroup asks for a child in a cgroup that cannot be: the descriptor
// is none. A kernel that knows the flag says EBADF, and no child is ever begun.
func tryCloneIntoCgroup() error {
	var a [11]uint64 // struct clone_args, clone3(2)
	a[0] = unix.CLONE_INTO_CGROUP | unix.CLONE_VM | unix.CLONE_VFORK
	a[4] = uint64(unix.SIGCHLD)
	a[10] = 1<<31 - 1
	return expect(unix.EBADF, clone3(&a, unsafe.Sizeof(a)))
}

func tryPidfdInfo(pidfd int) error {
	var info [8]uint64         // struct pidfd_info, PIDFD_INFO_SIZE_VER0
	const getInfo = 0xC040FF0B // PIDFD_GET_INFO, _IOWR(0xFF, 11, struct pidfd_info)
	info[0] = 1                // PIDFD_INFO_PID
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), getInfo, uintptr(unsafe.Pointer(&info))); e != 0 {
		return e
	}
	return nil
}

// tryPriority raises this thread's priority by one and puts it back: CAP_SYS_NICE
// of the first user namespace, or RLIMIT_NICE (can_nice, kernel/sched/syscalls.c).
func tryPriority() error {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return err
	}
	nice := 20 - n // the system call's own range is 1 to 40
	if nice <= -15 {
		return nil
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice-1); err != nil {
		return err
	}
	return unix.Setpriority(unix.PRIO_PROCESS, 0, nice)
}

// tryOOMScore lowers oom_score_adj by one and puts it back: CAP_SYS_RESOURCE of
// the first user namespace (__set_oom_adj, fs/proc/base.c).
func tryOOMScore() error {
	const file = "/proc/self/oom_score_adj"
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n <= -900 {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(strconv.Itoa(n - 1)); err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(n)) // proc's files have no offset to mind
	return err
}
