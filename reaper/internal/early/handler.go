package early

// A handler of a few lines of assembly (handler_*.s) stands between the kernel
// and Go for all signals but SIGCHLD. It never lets one that somebody sent have
// Go's answer: it queues the signal, siginfo and all, to the thread that waits
// for signals ([Await]), or writes it down as long as there is none, and blocks
// the rest, but for faults, in the thread that it interrupted. Only a true fault goes on to Go's
// handler, which makes a panic of it, and so does Go's preemption.
//
// The entry point puts it in place, and Go's runtime then its own one, which ends
// the process by a SIGTERM; init here, the first of all, takes that back. In
// between lies a fraction of a millisecond, in which such a signal still ends it,
// before anything was read or started: by the signal, or, since the kernel spares
// PID 1, with 128 and its number for a status. (Go raises the signal once more,
// and forwards it to the handler of before.)

// What the assembly reads and writes by name. None of it moves, and what has a
// value has it ahead of init.
//
//nolint:unused // see above
var (
	faults    uint64 = faultSet
	ahead     uint64 = ^uint64(faultSet | 1<<31 | 1<<32 | 1<<(sigkill-1) | 1<<(sigstop-1) | 1<<(sigchld-1)) // caught ahead of Go
	goHandler uintptr
	pid       int32
	waiter    int32         // the thread to queue to, 0 for none yet
	released  int32         // 1: it does nothing
	arrived   uint64        // bit n-1: recorded[n] is there
	recorded  [65][8]uint64 // the first 32 bytes of siginfo_t
	action    [4]uintptr    // ours, as rt_sigaction(2) takes it
	goActions [65]sigaction // what was there before
)

// A sigaction is the kernel's struct, as rt_sigaction(2) takes it on amd64 and
// arm64 (include/linux/signal_types.h, with sa_restorer on both).
//
//nolint:unused // the kernel reads them
type sigaction struct{ handler, flags, restorer, mask uintptr }

// SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV and SIGSYS: of the kernel they are
// faults.
//
//nolint:unused // the value of a variable of the assembly's
const faultSet = 1<<3 | 1<<4 | 1<<6 | 1<<7 | 1<<10 | 1<<30

// install has the handler answer the signals of set.
func install(set uint64)

// restore has them answered as before.
func restore(set uint64)

func getpid() int32

const (
	sigkill = 9
	sigsegv = 11
	sigchld = 17
	sigstop = 19
)

// Install puts the handler in place for the signals of set, bit n-1 for signal n.
func Install(set uint64) {
	set &^= 1<<(sigkill-1) | 1<<(sigstop-1)
	before := goActions
	install(set)
	for s := range goActions {
		if goActions[s].handler == action[0] { // it was in place already
			goActions[s] = before[s]
		}
	}
	pid, goHandler = getpid(), goActions[sigsegv].handler
}

// Await names the thread that signals are queued to from now on, and hands over
// what has arrived before: for each bit of set the beginning of a siginfo_t in
// info. A siginfo_t that the handler has queued has 0x10000 less in its si_code,
// since the kernel takes only negative ones from a process (rt_tgsigqueueinfo(2)).
func Await(thread int32) (set uint64, info *[65][8]uint64) {
	waiter, released = thread, 0
	set, arrived = arrived, 0
	return set, &recorded
}

func release() uint64 {
	restore(^uint64(1<<(sigkill-1) | 1<<(sigstop-1) | 1<<(sigchld-1)))
	released = 1
	return arrived
}
