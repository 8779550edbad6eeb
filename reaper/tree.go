package reaper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A Proc is a process: its number, and its start in clock ticks after boot. Both
// together name it for ever, the number alone only while it lives.
type Proc struct {
	PID   int
	Start uint64
}

// stat is what /proc/PID/stat says (proc(5)).
type stat struct {
	Proc
	ppid, pgrp, session int
	dead                bool // a zombie, or on its way to be one
	ready               bool // it has a processor or queues for one
	exiting             bool // its memory is gone, its descriptors may be there
	unborn              bool // forked and not executed since
	kernel              bool // a thread of the kernel's own
	memory              bool // it has some: it is neither a zombie nor nearly one
	noEnv               bool // its environment is there, and empty
}

// include/linux/sched.h
const (
	flagExiting    = 0x4      // PF_EXITING
	flagForkNoExec = 0x40     // PF_FORKNOEXEC
	flagKernel     = 0x200000 // PF_KTHREAD
)

// killedEarly reports whether pid, a child of ours that is not reaped, has never
// executed anything.
func killedEarly(pid int) bool {
	s, err := readStat(pid)
	return err == nil && s.unborn
}

func readStat(pid int) (stat, error) {
	var buf [1024]byte
	b, err := readSmall("/proc/"+strconv.Itoa(pid)+"/stat", buf[:])
	if err != nil {
		return stat{}, err
	}
	return parseStat(pid, b)
}

func parseStat(pid int, b []byte) (stat, error) {
	i := bytes.LastIndexByte(b, ')') // the name before it may hold anything
	f := bytes.Fields(b[i+1:])
	if i < 0 || len(f) < 20 {
		return stat{}, fmt.Errorf("parse stat of %d: %q", pid, b)
	}
	s := stat{Proc: Proc{PID: pid}}
	switch f[0][0] {
	case 'Z', 'X', 'x':
		s.dead = true
	case 'R':
		s.ready = true
	}
	var err error
	for _, n := range []struct {
		to *int
		at int
	}{{&s.ppid, 1}, {&s.pgrp, 2}, {&s.session, 3}} {
		if *n.to, err = strconv.Atoi(string(f[n.at])); err != nil {
			return stat{}, fmt.Errorf("parse stat of %d: %q", pid, b)
		}
	}
	flags, err := strconv.ParseUint(string(f[6]), 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("parse stat of %d: %q", pid, b)
	}
	s.unborn = flags&flagForkNoExec != 0
	s.kernel = flags&flagKernel != 0
	s.memory = len(f) > 20 && string(f[20]) != "0"                             // vsize
	s.noEnv = len(f) > 48 && bytes.Equal(f[47], f[48]) && string(f[48]) != "0" // env_start, env_end
	s.exiting = flags&flagExiting != 0 && f[0][0] != 'D'
	if s.Start, err = strconv.ParseUint(string(f[19]), 10, 64); err != nil {
		return stat{}, fmt.Errorf("parse stat of %d: %q", pid, b)
	}
	return s, nil
}

// procIsOurs reports whether /proc is that of our PID namespace: else its numbers mean
// somebody else here.
func procIsOurs() bool {
	self, err := os.Readlink("/proc/self")
	return err == nil && self == strconv.Itoa(os.Getpid())
}

// processes is what /proc says of all, nothing if it is another namespace's.
func processes() map[int]stat {
	if !procIsOurs() {
		return nil
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	names, _ := dir.Readdirnames(-1)
	dir.Close()
	all := make(map[int]stat, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil {
			all[pid] = s
		}
	}
	return all
}

func readSmall(path string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return buf[:n], nil
}

// RunVariable names the variable by which a process is known to belong to a
// run, where there is no cgroup to tell.
const RunVariable = "PAZINIT_RUN"

// Adopted reports whether this process has children that no Start made: what a
// run left behind is among them, since orphans come to a subreaper. It is cheap,
// reads only the kernel's own figures and never blocks. Without /proc, or
// without CONFIG_PROC_CHILDREN, it says yes.
func (r *Reaper) Adopted() bool {
	self := strconv.Itoa(os.Getpid())
	f, err := os.Open("/proc/self/task/" + self + "/children")
	if err != nil {
		return true
	}
	defer f.Close()
	var buf [4096]byte
	rest := 0
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		n, err := f.Read(buf[rest:])
		b := buf[:rest+n]
		for {
			i := bytes.IndexByte(b, ' ')
			if i < 0 {
				break
			}
			pid, _ := strconv.Atoi(string(b[:i]))
			b = b[i+1:]
			if !r.knows(pid) {
				return true
			}
		}
		rest = copy(buf[:], b)
		if err != nil || n == 0 {
			return false
		}
	}
}

// knows reports whether pid is a run's. Called with mu held.
func (r *Reaper) knows(pid int) bool {
	if r.pids[pid] != nil {
		return true
	}
	for c := range r.flying {
		if c.flight != nil && c.flight.started() == pid {
			return true
		}
	}
	return false
}

// Tree finds the living processes of a run without a cgroup: those descendants
// of ours that carry the run's token in their environment or, where the
// environment does not tell, are leader or in its session or group, and all that
// live below one of these, whatever their environment says (a supervisor below
// us has tokens of its own). It reads all of /proc and may block on a process
// that hangs.
//
// It is best effort: a program that clears its environment, leaves its session
// and is orphaned is not found.
func Tree(leader int, token string) []Proc {
	all := processes()
	below := make(map[int][]int, len(all))
	for pid, p := range all {
		below[p.ppid] = append(below[p.ppid], pid)
	}
	env := make([]byte, 256<<10)
	if l, ok := all[leader]; ok && (l.ppid != os.Getpid() || l.unborn || tokenOf(leader, token, env) == tokenOther) {
		leader = 0 // its number was given away, so nothing is left of its session and group
	}
	var out []Proc
	type look struct {
		pid  int
		mine bool
	}
	seen := map[int]bool{os.Getpid(): true} // numbers move while /proc is read: there may be circles
	todo := []look{{pid: os.Getpid()}}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, pid := range below[at.pid] {
			if seen[pid] {
				continue
			}
			seen[pid] = true
			p, mine := all[pid], at.mine
			if !mine {
				switch tokenOf(pid, token, env) {
				case tokenMine:
					mine = true
				case tokenNone:
					mine = leader > 0 && (pid == leader || p.session == leader || p.pgrp == leader)
					// One that is about to be a zombie has no environment any more. Whose
					// it is cannot be told, so everybody waits for it: it takes no time.
					mine = mine || p.exiting && p.ppid == os.Getpid()
				}
			}
			if mine && !p.dead {
				out = append(out, p.Proc)
			}
			todo = append(todo, look{pid, mine})
		}
	}
	return out
}

// StillOf returns what tells SignalProcs whether each of procs, which Tree has
// found, is still the one. An older one is told by its start; but a tick is long
// enough for a number to change hands, so a young one must show again that it is
// of the run.
func StillOf(procs []Proc, leader int, token string) func(pid int) bool {
	const tick, young = 10_000_000, 2 // USER_HZ is 100
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	old := make(map[int]bool, len(procs))
	for _, p := range procs {
		old[p.PID] = p.Start+young < uint64(now.Nano()/tick)
	}
	var env []byte
	return func(pid int) bool {
		if old[pid] {
			return true
		}
		if env == nil {
			env = make([]byte, 256<<10)
		}
		for depth := 0; pid > 1 && pid != os.Getpid() && depth < 1000; depth++ {
			s, err := readStat(pid)
			if err != nil {
				return false
			}
			switch tokenOf(pid, token, env) {
			case tokenMine:
				return true
			case tokenNone:
				if leader > 0 && !s.unborn && (pid == leader || s.session == leader || s.pgrp == leader) {
					return true
				}
			}
			pid = s.ppid
		}
		return false
	}
}

const (
	tokenNone = iota
	tokenMine
	tokenOther
)

// tokenOf looks for the run's variable in a process's environment as it was at
// its last exec. buf bounds what is read; the supervisor puts it first.
func tokenOf(pid int, token string, buf []byte) int {
	path := "/proc/" + strconv.Itoa(pid) + "/environ"
	b, err := readSmall(path, buf)
	for tries := 0; err == nil && len(b) == 0 && tries < execTries && executing(pid); tries++ {
		<-time.NewTimer(time.Millisecond << tries).C
		b, err = readSmall(path, buf)
	}
	if err != nil {
		return tokenNone
	}
	for kv := range bytes.SplitSeq(b, []byte{0}) {
		if v, ok := bytes.CutPrefix(kv, []byte(RunVariable+"=")); ok {
			if string(v) == token {
				return tokenMine
			}
			return tokenOther
		}
	}
	return tokenNone
}

// execTries is how often a process is looked at again that is executing something,
// after 1 ms and then twice as long each time: for two seconds, since it may have to
// wait for a processor or a disk.
const execTries = 11

// executing reports whether pid, which showed no environment, was in the middle of
// execve(2): a new memory gets its environment last (create_elf_tables,
// fs/binfmt_elf.c). One that was given none has one that is empty.
func executing(pid int) bool {
	s, err := readStat(pid)
	return err == nil && s.memory && !s.noEnv
}

// SignalProcs sends sig to processes that need not be our children, each by a
// pidfd whose start time is compared after it was opened, so that none that took
// over a number is hit. keep, if not nil, is asked once more at that time.
func SignalProcs(procs []Proc, sig unix.Signal, keep func(pid int) bool) error {
	var errs []error
	for _, p := range procs {
		if err := signalProc(p, sig, keep); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("signal process %d: %w", p.PID, err))
		}
	}
	return errors.Join(errs...)
}

func signalProc(p Proc, sig unix.Signal, keep func(int) bool) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err == nil {
		defer unix.Close(fd)
	} else if err != unix.ENOSYS && err != unix.EPERM {
		return err
	}
	if p.Start != 0 {
		if s, serr := readStat(p.PID); serr != nil || s.Start != p.Start {
			return unix.ESRCH
		}
	}
	if keep != nil && !keep(p.PID) {
		return unix.ESRCH
	}
	if err == nil {
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
	if err == unix.ENOSYS || err == unix.EPERM { // no such call here, or a seccomp filter says so
		err = unix.Kill(p.PID, sig)
	}
	return err
}
