// Package signals receives this process's signals below the Go runtime: all that
// can be caught, each with its sender, and without a thread or a goroutine that
// wakes for nothing.
//
// os/signal knows neither senders nor the signals 27 and 32 to 34, ends the
// process by a fault's signal that somebody sends, and takes three times as long.
// Here one thread, which must be locked, blocks every signal and waits for them
// in rt_sigtimedwait(2). Go unblocks some of them on every thread that it makes;
// what one of those gets is queued to the thread that waits (reaper/internal/early).
package signals

import (
	"errors"
	"fmt"
	bits64 "math/bits"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/reaper/internal/early"
)

// Info is a signal and where it came from (sigaction(2), siginfo_t).
type Info struct {
	Signal unix.Signal
	Code   int // SI_USER (0), SI_QUEUE, SI_TKILL: from a process; SI_KERNEL (128) and the other positive ones from the kernel
	PID    int // of the sender, 0 where the kernel sent it or the sender is in no PID namespace of ours
	UID    int
}

// Sent reports whether a process sent the signal, and not the kernel.
func (i Info) Sent() bool { return i.Code <= 0 }

// MaxSignal is the highest signal there is.
const MaxSignal = 64

// A waitArgs is what signals_*.s reads and writes; it knows the offsets.
type waitArgs struct {
	info    [128]byte // 0: siginfo_t
	set     uint64    // 128: what is waited for
	block   uint64    // 136: the mask while waiting
	unblock uint64    // 144: the mask of the thread otherwise
	timeout uintptr   // 152: *unix.Timespec or 0
	target  int64     // 160: as of kill(2)
	sent    uint64    // 168: bit n-1: signal n has been sent on
	action  [72]uint8 // 176: signal n is sent on to target as action[n]; 0: wait returns it
	budget  int64     // 248: so many are sent on, at most
}

// None of it moves: the assembly and the kernel go by the address.
var (
	waiter  int32
	pid     int
	args    waitArgs
	timeout unix.Timespec
	all     uint64      // that are caught
	last    unix.Signal // that had its turn
)

// faults are the signals that stay unblocked while Go code runs: a true one is a
// panic.
var faults = bits(unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS)

func bits(signals ...unix.Signal) (set uint64) {
	for _, s := range signals {
		set |= 1 << (s - 1)
	}
	return set
}

// wait waits for a signal whose action is 0 and reports its number, a negated
// errno, or 0 when budget signals were sent on.
func wait(a *waitArgs) int64

//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// blockingWait is wait with the scheduler told.
//
//go:nosplit
func blockingWait(a *waitArgs) int64 {
	entersyscall()
	r := wait(a)
	exitsyscall()
	return r
}

// Catch takes all signals that can be caught but those of except from Go and
// from os/signal, for good. The calling goroutine must have locked its thread:
// it is the one that [Wait] is called on from now on.
func Catch(except ...unix.Signal) error {
	if waiter != 0 {
		return errors.New("catch signals: they are caught already")
	}
	pid = os.Getpid()
	all = ^bits(except...)
	args.block = all
	args.unblock = all &^ faults
	if err := setMask(args.unblock); err != nil {
		return fmt.Errorf("catch signals: %w", err)
	}
	// A seccomp filter may have refused it: better no start than to be deaf.
	if err := unix.Errno(-await(0, 0)); err != unix.EAGAIN && err != unix.EINTR {
		return fmt.Errorf("wait for signals: %w", err)
	}
	waiter = int32(unix.Gettid())
	early.Install(all)
	arrived, info := early.Await(waiter)
	for s := range unix.Signal(MaxSignal + 1) {
		if s > 0 && arrived&bits(s)&all != 0 {
			requeue(s, info[s])
		}
	}
	return nil
}

// requeue queues what the handler has written down to this thread, as the
// handler itself would.
func requeue(s unix.Signal, first [8]uint64) {
	var info [16]uint64
	copy(info[:], first[:4])
	code := (*int32)(unsafe.Pointer(&info[1]))
	*code -= queuedCode
	_, _, e := unix.RawSyscall6(unix.SYS_RT_TGSIGQUEUEINFO, uintptr(pid), uintptr(waiter), uintptr(s), uintptr(unsafe.Pointer(&info)), 0, 0)
	if e != 0 { // without its sender
		_ = unix.Kill(pid, s)
	}
}

func setMask(set uint64) error {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&set)), 0, 8, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// SendOn has [Wait] send signal s on to target, as kill(2) has it, as the signal
// as, at once and without returning; as 0 ends that. The target's process must
// be a child that is not reaped, else the number may be somebody else's.
func SendOn(s, as unix.Signal) { args.action[s] = uint8(as) }

// Target sets whom SendOn's signals go to.
func Target(pid int) { args.target = int64(pid) }

// SentOn reports the signals that were sent on by SendOn since the last call,
// bit n-1 for signal n.
func SentOn() uint64 {
	s := args.sent
	args.sent = 0
	return s
}

// turn is how many signals are sent on before the others get theirs.
const turn = 64

// Wait waits for the next signal that is not one of SendOn's, for ever if limit
// is negative. ok is false when there was none in that time, and earlier when
// there is a limit and one was sent on. The kernel hands out the lowest first;
// here each gets its turn, so that who sends one of them without end, and a
// command may do that, keeps no other from us. It does not allocate.
func Wait(limit time.Duration) (i Info, ok bool) {
	for {
		set, most := all&^(1<<last-1), time.Duration(0)
		if last == 0 || set == 0 {
			last, set, most = 0, all, limit
		}
		n := await(set, most)
		switch {
		case n < 0 && last != 0: // from the lowest on
			last = 0
			continue
		case n == 0 && limit < 0:
			continue
		case n <= 0:
			return Info{}, false // the time is over, or a stop and a continuation
		}
		last = unix.Signal(n)
		i = decode(last, &args.info)
		if i.Signal == unix.SIGURG && i.Code == siTkill && i.PID == pid {
			continue // Go's preemption of this thread
		}
		return i, true
	}
}

// await is wait for the signals of set. When it is 0, last is the highest of those
// that were sent on.
func await(set uint64, limit time.Duration) int64 {
	before := args.sent
	args.set, args.sent, args.budget, args.timeout = set, 0, turn, 0
	if limit >= 0 {
		timeout = unix.NsecToTimespec(int64(limit))
		args.timeout = uintptr(unsafe.Pointer(&timeout))
	}
	if limit > 0 {
		args.budget = 1 // each would begin the time anew
	}
	n := blockingWait(&args)
	if n == 0 {
		last = unix.Signal(bits64.Len64(args.sent))
	}
	args.sent |= before
	return n
}

const (
	siTkill    = -6      // SI_TKILL, include/uapi/asm-generic/siginfo.h
	queuedCode = 0x10000 // see early.Await
)

// decode reads a siginfo_t: si_signo, si_errno, si_code, padding, si_pid, si_uid.
func decode(s unix.Signal, b *[128]byte) Info {
	word := func(at int) int32 { return *(*int32)(unsafe.Pointer(&b[at])) }
	i := Info{Signal: s, Code: int(word(8))}
	for i.Code < -queuedCode/2 { // queued by the handler, which may have run in this thread, too
		i.Code += queuedCode
	}
	if i.Code <= 0 || s == unix.SIGCHLD {
		i.PID, i.UID = int(word(16)), int(uint32(word(20)))
	}
	return i
}
