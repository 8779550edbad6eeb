package reaper

import (
	"errors"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/reaper/internal/early"
)

// A Sole is the one command of a process that does nothing but stand before it.
// It needs no Reaper and must not have one: everything here is done by the one
// thread that calls it, so that no process is signalled after it was collected.
// The child keeps the folder, the descriptors, the limits and the scheduling of
// this process, and gets back the signal mask and the ignored signals that it
// was started with, if [Inherited] knows them.
type Sole struct {
	Argv     []string
	Env      []string
	Grouping Grouping

	// Terminal is a descriptor of the controlling terminal whose foreground the
	// command's group is to have, -1 for none. In OwnSession it becomes the
	// session's controlling terminal, if it can.
	Terminal int

	// Clear gives the command an empty signal mask and no ignored signal but the
	// real-time ones, whatever this process was started with.
	Clear bool
}

// A Grouping says which process group and session a Sole's command is in.
type Grouping int

// What they are.
const (
	OwnGroup   Grouping = iota // a group of its own in our session
	OwnSession                 // a session of its own
	SameGroup                  // ours
)

// Inherited is what this process was started with, and Go has changed since.
type Inherited struct {
	Known         bool   // the program was linked with the entry point that writes it down
	Mask, Ignored uint64 // blocked and ignored signals, bit n-1 for signal n
	Closed        uint64 // bit n: descriptor n, of 0, 1 and 2, was closed
}

// StartedWith reports what this process was started with.
func StartedWith() Inherited {
	return Inherited{Known: early.Entered(), Mask: early.Mask(), Ignored: early.Ignored(), Closed: early.Closed()}
}

// GiveBack undoes what the entry point has changed for this process: Go answers
// the signals again, this thread has the mask of before, and huge pages are on.
// It is for a process that starts no children, and for a program that is to take
// its place. Without the entry point it does nothing.
func GiveBack() {
	if !early.Entered() {
		return
	}
	arrived := early.Release()
	mask := early.Mask()
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
	for s := unix.Signal(1); s <= 64; s++ {
		if arrived&bit(s) != 0 {
			_ = unix.Kill(os.Getpid(), s)
		}
	}
	if early.HugePages() {
		_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0)
	}
}

// Start executes the command and reports its process. The error is a
// [*StartError] when the command could not be executed.
func (s *Sole) Start() (pid int, err error) {
	pid, err = s.start(s.Argv)
	var e *StartError
	if errors.As(err, &e) && e.Step == stepExec && errors.Is(e.Err, unix.ENOEXEC) {
		// A script without a #! line is the shell's, as execvp(3) has it.
		if p, err2 := s.start(append([]string{"/bin/sh", e.What}, s.Argv[1:]...)); err2 == nil {
			return p, nil
		}
	}
	return pid, err
}

func (s *Sole) start(argv []string) (pid int, err error) {
	if len(argv) == 0 || argv[0] == "" {
		return 0, &StartError{Step: stepExec, Err: unix.ENOENT, Hint: "the command is empty"}
	}
	f := &flight{pidfd: -1}
	switch s.Grouping {
	case OwnGroup:
		f.add("start a group", 0, unix.SYS_SETPGID, 0, 0)
		if s.Terminal >= 0 {
			f.add("take the terminal", opOptional, unix.SYS_IOCTL, uintptr(s.Terminal), unix.TIOCSPGRP, uintptr(unsafe.Pointer(&f.pid)))
		}
	case OwnSession:
		f.add("start a session", 0, unix.SYS_SETSID)
		if s.Terminal >= 0 {
			f.add("take the terminal", opOptional, unix.SYS_IOCTL, uintptr(s.Terminal), unix.TIOCSCTTY, 0)
		}
	case SameGroup:
	}
	in := StartedWith()
	for fd := range uintptr(3) {
		if in.Known && in.Closed&(1<<fd) != 0 {
			f.add("", opOptional, unix.SYS_CLOSE, fd)
		}
	}
	var o own
	o.early()
	f.restoreLimits(&o)
	env, listen := s.environ()
	if listen != 0 {
		// The name of the child's own folder is its number, and it alone can ask.
		f.add("set LISTEN_PID", opOptional, unix.SYS_READLINKAT, dirFD, f.bytes("/proc/self"), listen, maxDigits)
	}
	mask := new(uint64)
	ignore := &sigaction{handler: sigIgn}
	f.keep = append(f.keep, mask, ignore, env)
	if in.Known {
		ignored := in.Ignored
		if s.Clear {
			ignored &^= 1<<31 - 1
		} else {
			*mask = in.Mask
		}
		for n := range uintptr(64) {
			if ignored&(1<<n) != 0 {
				f.add("", opOptional, unix.SYS_RT_SIGACTION, n+1, uintptr(unsafe.Pointer(ignore)), 0, 8)
			}
		}
	}
	f.add("set signal mask", 0, unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(mask)), 0, 8)

	args, envp := f.strings(argv), uintptr(unsafe.Pointer(&env[0]))
	for _, path := range candidates(argv[0], s.Env) {
		f.add(stepExec+" "+path, opExec, unix.SYS_EXECVE, f.bytes(path), args, envp)
	}
	if f.err != nil {
		return 0, &StartError{Step: stepExec, What: argv[0], Err: f.err}
	}
	o.lendMemory()
	pid, failed, errno := f.fork(-1)
	o.takeMemory()
	if f.pidfd >= 0 {
		unix.Close(int(f.pidfd))
	}
	if errno == nil {
		return pid, nil
	}
	if pid > 0 { // it ended without executing anything
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
				break
			}
		}
	}
	dir, _ := os.Getwd()
	return 0, startError(&Spec{Argv: argv, Env: s.Env, Dir: dir}, f, failed, errno)
}

const (
	listenPID = "LISTEN_PID="
	maxDigits = 10
)

// environ is Env as execve(2) takes it, and the address of LISTEN_PID's value,
// ten bytes and a NUL, when that names this process (sd_listen_fds(3)): it is to
// name the child instead.
func (s *Sole) environ() (env []*byte, listen uintptr) {
	self := strconv.Itoa(os.Getpid())
	n := 0
	for _, kv := range s.Env {
		n += len(kv) + 1
	}
	block := make([]byte, 0, n+maxDigits)
	env = make([]*byte, 0, len(s.Env)+1)
	for _, kv := range s.Env {
		at := len(block)
		if kv == listenPID+self {
			block = append(block, listenPID...)
			block = append(block, make([]byte, maxDigits+1)...)
			listen = uintptr(unsafe.Pointer(&block[at+len(listenPID)]))
		} else {
			block = append(append(block, kv...), 0)
		}
		env = append(env, &block[at])
	}
	return append(env, nil), listen
}

// A Change is what happened to a child: its end, its stop or its continuation.
type Change struct {
	PID       int
	Stopped   bool        // by Signal
	Continued bool        // neither: it has ended
	Signal    unix.Signal // that ended or stopped it, 0 for none
	Code      int         // exit status, or 128 and Signal
	Core      bool        // a core was dumped, or would have been but for its limits
}

// NextChange collects the next child that has changed, if there is one
// at this moment. peek, if not nil, is told before it is collected, while its
// number, and its group's, are its own. left is false when this process has no
// child. It does not allocate.
func NextChange(peek func(Change)) (c Change, found, left bool) {
	const how = unix.WEXITED | unix.WSTOPPED | unix.WCONTINUED | unix.WNOHANG
	if peek == nil {
		return waitid(unix.P_ALL, 0, how)
	}
	if c, found, left = waitid(unix.P_ALL, 0, how|unix.WNOWAIT); !found {
		return c, found, left
	}
	peek(c)
	c, found, _ = waitid(unix.P_PID, c.PID, how)
	return c, found, true
}

// GoesOn reports whether a child that had stopped was continued, and NextChange has
// yet to tell.
func GoesOn(pid int) bool {
	c, found, _ := waitid(unix.P_PID, pid, unix.WCONTINUED|unix.WNOHANG|unix.WNOWAIT)
	return found && c.Continued
}

// waitid(2), which never blocks: the scheduler is not told.
func waitid(kind, id, how int) (c Change, found, left bool) {
	var si siginfoChild
	for {
		_, _, e := unix.RawSyscall6(unix.SYS_WAITID, uintptr(kind), uintptr(id), uintptr(unsafe.Pointer(&si)), uintptr(how), 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 || si.pid == 0 {
			return Change{}, false, e == 0
		}
		break
	}
	c.PID = int(si.pid)
	switch si.code {
	case cldExited:
		c.Code = int(si.status)
	case cldStopped:
		c.Stopped, c.Signal = true, unix.Signal(si.status)
	case cldContinued:
		c.Continued = true
	default: // CLD_KILLED, CLD_DUMPED
		c.Signal, c.Code, c.Core = unix.Signal(si.status), 128+int(si.status), si.code == cldDumped
	}
	return c, true, true
}

// SignalSole signals the command's process, if group is set its group, and then the
// process itself too if it has left that. It must not have been collected by
// NextChange.
func SignalSole(pid int, sig unix.Signal, group bool) error {
	if group {
		err := unix.Kill(-pid, sig)
		if at, e := unix.Getpgid(pid); e != nil || at == pid {
			return err
		}
	}
	return unix.Kill(pid, sig)
}

// SignalLeft signals what is left after the command: as PID 1 of a PID namespace
// that is not the machine's everything in it, else our descendants.
func SignalLeft(sig unix.Signal, everything bool) {
	if everything {
		_ = unix.Kill(-1, sig)
		return
	}
	for range 10 { // what is killed may be forking
		list := descendants()
		_ = SignalProcs(list, sig, nil)
		if sig != unix.SIGKILL || len(list) == 0 {
			return
		}
	}
}

// OthersLeft reports whether there are processes besides the first one of a PID
// namespace, which the caller must be, and that it may signal one of them.
func OthersLeft() bool {
	if unix.Kill(-1, 0) != nil {
		return false
	}
	if !procIsOurs() {
		return true // perhaps dead, and not collected by those who have them
	}
	for pid, p := range processes() {
		if pid != 1 && !p.dead {
			return true
		}
	}
	return false
}

// descendants finds the living processes below this one.
func descendants() []Proc {
	all, self := processes(), os.Getpid()
	var out []Proc
	for pid, p := range all {
		if pid != self && !p.dead && descends(all, pid, self) {
			out = append(out, p.Proc)
		}
	}
	return out
}
