package reaper

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The child of a vfork shares our memory while its parent thread stands still,
// so nothing of Go may run in it. Instead the parent writes down, beforehand,
// the system calls that the child is to make, and a few lines of assembly
// (fork_*.s) make them one after the other. That needs no pipe to report an
// error (the memory is shared), no lock around the fork (unlike
// syscall.ForkExec, which holds ForkLock until the exec is through, so that one
// program on a hung file system stops every other start), and no second
// program between us and the worker: whatever a child has to do to itself is
// one more system call in the list.

// An op is one system call of the child.
type op struct {
	nr    uintptr
	a     [6]uintptr
	flags uintptr
}

const (
	opOptional = 1 << iota // its error does not matter
	opResult               // its first argument is the result of the op before
	opExec                 // an execve: ENOENT, ENOTDIR and EACCES go on to the next candidate
)

// A forkArgs is what fork_*.s reads and writes; it knows the offsets.
type forkArgs struct {
	clone  uintptr // 0: &unix.CloneArgs for clone3, or 0 for clone
	size   uintptr // 8: sizeof CloneArgs
	flags  uintptr // 16: clone's flags, when clone is 0
	ptid   uintptr // 24: clone's parent_tid, when clone is 0
	ops    uintptr // 32: *op
	nops   uintptr // 40
	errno  uintptr // 48: out: why the child gave up, 0 if it did not
	failed uintptr // 56: out: *op that failed
	all    uint64  // 64: every signal
	_      uint64  // 72: scratch, for the signal mask of before
}

// vforkRun makes the child and waits until it has executed a program or ended.
// It reports the pid, or a negated errno when there is no child.
func vforkRun(a *forkArgs) uintptr

//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// blockingVfork is vforkRun with the scheduler told, so that a child that hangs
// before its exec holds this thread and nothing else.
//
//go:nosplit
func blockingVfork(a *forkArgs) uintptr {
	entersyscall()
	r := vforkRun(a)
	exitsyscall()
	return r
}

// cloneArgs is struct clone_args of clone3(2), up to cgroup (Linux 5.7).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// A flight is one fork with everything that the kernel and the child read and
// write by address. It must be on the heap: stacks move.
type flight struct {
	args  forkArgs
	clone cloneArgs
	ops   []op
	steps []string // what each op does, for an error: "set group"
	keep  []any    // what the ops point to
	share bool     // the child shares our descriptors until it has copied them
	place *place   // the low ones that it was lent
	err   error    // an argument that cannot be passed on

	// The kernel writes both before the child's first instruction.
	pid   int32
	pidfd int32
}

// add appends a system call.
func (f *flight) add(step string, flags uintptr, nr uintptr, a ...uintptr) {
	o := op{nr: nr, flags: flags}
	copy(o.a[:], a)
	f.ops = append(f.ops, o)
	f.steps = append(f.steps, step)
}

// bytes reports the address of s with a NUL behind it, good as long as f is.
func (f *flight) bytes(s string) uintptr {
	p, err := unix.BytePtrFromString(s)
	if err != nil {
		f.err = fmt.Errorf("%q has a NUL byte", s)
		return 0
	}
	f.keep = append(f.keep, p)
	return uintptr(unsafe.Pointer(p))
}

// strings reports the address of a NULL-ended array, as execve(2) takes it.
func (f *flight) strings(list []string) uintptr {
	n := 0
	for _, s := range list {
		n += len(s) + 1
	}
	// One block for all: 1,000 small ones are dearer than the exec.
	block := make([]byte, 0, n)
	ptrs := make([]*byte, len(list)+1)
	for i, s := range list {
		if strings.IndexByte(s, 0) >= 0 {
			f.err = fmt.Errorf("%q has a NUL byte", s)
			return 0
		}
		block = append(append(block, s...), 0)
		ptrs[i] = &block[len(block)-len(s)-1]
	}
	f.keep = append(f.keep, ptrs)
	return uintptr(unsafe.Pointer(&ptrs[0]))
}

// started reports the child's pid as soon as there is one, 0 before.
func (f *flight) started() int { return int(atomic.LoadInt32(&f.pid)) }

// fork makes the child and waits until it has executed a program or given up;
// then failed is the op that did not work, else -1. cgroup is the descriptor of
// a cgroup v2 to be born in, or -1 (Linux 5.7).
func (f *flight) fork(cgroup int) (pid, failed int, err error) {
	f.pidfd = -1
	r := ^uintptr(unix.ENOSYS - 1) // -ENOSYS
	if !noClone3.Load() {
		f.clone = cloneArgs{
			flags:      unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PIDFD | unix.CLONE_PARENT_SETTID | unix.CLONE_CLEAR_SIGHAND,
			exitSignal: uint64(unix.SIGCHLD),
			pidfd:      uint64(uintptr(unsafe.Pointer(&f.pidfd))),
			parentTID:  uint64(uintptr(unsafe.Pointer(&f.pid))),
		}
		if f.share {
			f.clone.flags |= unix.CLONE_FILES
		}
		if cgroup >= 0 {
			f.clone.flags |= unix.CLONE_INTO_CGROUP
			f.clone.cgroup = uint64(cgroup)
		}
		f.args = forkArgs{clone: uintptr(unsafe.Pointer(&f.clone)), size: unsafe.Sizeof(f.clone)}
		r = f.run()
		if e := unix.Errno(-r); r > maxPID && (e == unix.EMFILE || e == unix.ENFILE) {
			f.clone.flags &^= unix.CLONE_PIDFD // the pid alone will do
			r = f.run()
		}
	}
	if e := unix.Errno(-r); r > maxPID && (e == unix.ENOSYS || e == unix.EPERM || e == unix.EINVAL || e == unix.E2BIG) {
		// A seccomp filter or an old kernel refuses clone3: the child then resets
		// its signals and enters its cgroup itself, and the parent finds the pidfd
		// by the pid.
		if cgroup < 0 || e == unix.ENOSYS { // else it may be the cgroup's fault
			noClone3.Store(true)
		}
		rest, steps := f.ops, f.steps
		f.ops = resetOps(allSignals())
		f.steps = make([]string, len(f.ops), len(f.ops)+2+len(steps))
		if cgroup >= 0 {
			f.add("enter cgroup", 0, unix.SYS_OPENAT, uintptr(cgroup), f.bytes("cgroup.procs"), unix.O_WRONLY|unix.O_CLOEXEC)
			f.add("enter cgroup", opResult, unix.SYS_WRITE, 0, f.bytes("0"), 1)
		}
		f.ops, f.steps = append(f.ops, rest...), append(f.steps, steps...)
		f.args = forkArgs{
			flags: unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PARENT_SETTID | uintptr(unix.SIGCHLD),
			ptid:  uintptr(unsafe.Pointer(&f.pid)),
		}
		if f.share && cgroup < 0 { // opening cgroup.procs would be seen by us
			f.args.flags |= unix.CLONE_FILES
		}
		if r = f.run(); r <= maxPID {
			if fd, err := unix.PidfdOpen(int(r), 0); err == nil {
				f.pidfd = int32(fd)
			}
		}
	}
	if r > maxPID {
		return 0, -1, unix.Errno(-r)
	}
	if f.args.errno != 0 {
		return int(r), int((f.args.failed - f.args.ops) / unsafe.Sizeof(op{})), unix.Errno(f.args.errno)
	}
	return int(r), -1, nil
}

func (f *flight) run() uintptr {
	f.args.ops, f.args.nops = uintptr(unsafe.Pointer(&f.ops[0])), uintptr(len(f.ops))
	f.args.all = ^uint64(0)
	r := blockingVfork(&f.args)
	runtime.KeepAlive(f)
	return r
}

const maxPID = 1 << 22 // PID_MAX_LIMIT, include/linux/threads.h

// noClone3 is set for good when the kernel refused clone3 once.
var noClone3 atomic.Bool

// A sigaction is the kernel's struct, as rt_sigaction(2) takes it on amd64 and
// arm64 (include/linux/signal_types.h, with sa_restorer on both).
type sigaction struct {
	handler, flags, restorer, mask uintptr
}

const sigIgn = 1

var defaultAction sigaction

// resetOps are the calls that put the given signals back to their default.
func resetOps(signals []int) []op {
	ops := make([]op, 0, len(signals))
	for _, s := range signals {
		ops = append(ops, op{nr: unix.SYS_RT_SIGACTION, a: [6]uintptr{uintptr(s), uintptr(unsafe.Pointer(&defaultAction)), 0, 8}, flags: opOptional})
	}
	return ops
}

func allSignals() []int {
	var all []int
	for s := 1; s <= 64; s++ {
		if s != int(unix.SIGKILL) && s != int(unix.SIGSTOP) {
			all = append(all, s)
		}
	}
	return all
}

// ignored reports the signals that this process ignores; exec hands those on,
// unless the child resets them.
func ignored() []int {
	var out []int
	for s := 1; s <= 64; s++ {
		var sa sigaction
		_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), 0, uintptr(unsafe.Pointer(&sa)), 8, 0, 0)
		if e == 0 && sa.handler == sigIgn {
			out = append(out, s)
		}
	}
	return out
}
