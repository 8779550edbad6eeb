package reaper

import (
	"bytes"
	"errors"
	"iter"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A Stranger is a process of our PID namespace that no Start made.
type Stranger struct {
	Proc
	Name    string // as the kernel has it, at most 15 bytes; it may hold anything
	Entered bool   // from outside of the namespace (setns(2)), or below one that did; else it was adopted
	Err     error  // why it was not told to stop
}

// Name is the name of a process as the kernel has it, "" when it is gone.
func Name(pid int) string {
	var buf [64]byte
	b, err := readSmall("/proc/"+strconv.Itoa(pid)+"/comm", buf[:])
	if err != nil {
		return ""
	}
	return string(bytes.TrimSuffix(b, []byte("\n")))
}

// Strangers finds all living processes of a PID namespace but its first one,
// which the caller must be, the runs' own, and the kernel's. It finds none where /proc is not
// this namespace's: numbers mean somebody else there. It reads of /proc only what
// never waits for the process.
func (r *Reaper) Strangers() []Stranger {
	if os.Getpid() != 1 {
		return nil
	}
	all := processes()
	var out []Stranger
	for pid, p := range all {
		if pid == 1 || p.dead || p.kernel || r.below(all, pid) {
			continue
		}
		out = append(out, Stranger{Proc: p.Proc, Name: Name(pid), Entered: !descends(all, pid, 1)})
	}
	slices.SortFunc(out, func(a, b Stranger) int { return a.PID - b.PID })
	return out
}

// lineage is pid and its ancestors, the nearest first, as far as they can be seen.
// Numbers move while /proc is read: there may be circles.
func lineage(all map[int]stat, pid int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for range len(all) {
			p, ok := all[pid]
			if !ok || !yield(pid) {
				return
			}
			pid = p.ppid
		}
	}
}

// descends reports whether pid is ancestor or lives below it.
func descends(all map[int]stat, pid, ancestor int) bool {
	for at := range lineage(all, pid) {
		if at == ancestor {
			return true
		}
	}
	return false
}

// below reports whether pid is a run's process or a descendant of one.
func (r *Reaper) below(all map[int]stat, pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for at := range lineage(all, pid) {
		if at > 1 && r.knows(at) {
			return true
		}
	}
	return false
}

const (
	maxWatched   = 16                     // pidfds at a time: a process may have few descriptors
	lookAgain    = 20 * time.Millisecond  // where there is no pidfd to wait with
	maxLookAgain = 500 * time.Millisecond // and they take their time
)

// Dismiss asks the strangers to end: SIGTERM, once to each, by a pidfd that is
// compared with its start, so that none that took over a number is hit. Then it
// waits until all of them are gone, those that come meanwhile too, but no longer
// than until. told, if not nil, is called with those that were found at first,
// before it waits; Dismiss returns those that are left.
//
// Only the first process of a PID namespace may call it: elsewhere they are none
// of its business. Strangers are no children: the
// kernel reaps them, or the waiter does if they were adopted.
func (r *Reaper) Dismiss(until time.Time, told func([]Stranger)) []Stranger {
	var asked map[Proc]error
	for pause := lookAgain; ; {
		found := r.Strangers()
		now := make(map[Proc]error, len(found)) // only of those that live, lest it grow for ever
		for i := range found {
			s := &found[i]
			err, before := asked[s.Proc]
			if !before {
				err = signalProc(s.Proc, unix.SIGTERM, r.noRun)
				if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist) {
					err = nil // gone, or ours: the next look tells
				}
			}
			s.Err, now[s.Proc] = err, err
		}
		asked = now
		if told != nil && len(found) > 0 {
			told(found)
		}
		told = nil
		wait := false // for somebody who was told
		for _, s := range found {
			wait = wait || s.Err == nil
		}
		left := time.Until(until)
		if !wait || left <= 0 {
			return found
		}
		if !awaitProcs(found, left) {
			nap(min(pause, left))
			pause = min(2*pause, maxLookAgain)
		}
	}
}

// KillAll is the last of a machine's processes: SIGKILL to everybody but the
// caller, which must be the first process, and to whoever comes until nobody is
// left or limit is over. It collects the dead: close the Reaper before. It returns
// those that are left, as "42 name".
func KillAll(limit time.Duration) (left []string) {
	if os.Getpid() != 1 {
		return nil
	}
	end := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := unix.Kill(-1, unix.SIGKILL) // not to the kernel's threads, which have no use for it
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if err != unix.EINTR && pid <= 0 {
				break
			}
		}
		if err == unix.ESRCH {
			return nil
		}
		left = left[:0]
		for pid, p := range processes() {
			if pid != 1 && !p.dead && !p.kernel {
				left = append(left, strconv.Itoa(pid)+" "+strconv.Quote(Name(pid)))
			}
		}
		if len(left) == 0 || !time.Now().Before(end) {
			slices.Sort(left)
			return left
		}
		nap(pause)
	}
}

// noRun looks once more, when there is a pidfd of it: the number may have been
// given to a run meanwhile.
func (r *Reaper) noRun(pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return pid > 1 && !r.knows(pid)
}

// awaitProcs waits until some of them, all if they are few, are gone, at most
// for limit. It reports whether it could.
func awaitProcs(list []Stranger, limit time.Duration) bool {
	var fds []unix.PollFd
	defer func() {
		for _, f := range fds {
			unix.Close(int(f.Fd))
		}
	}()
	for _, s := range list {
		if s.Err != nil || len(fds) == maxWatched {
			continue
		}
		fd, err := unix.PidfdOpen(s.PID, 0)
		if err == unix.ESRCH {
			return true // the next look shows who is left
		}
		if err != nil {
			break
		}
		if p, err := readStat(s.PID); err != nil || p.Start != s.Start {
			unix.Close(fd)
			return true
		}
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if len(fds) == 0 {
		return false
	}
	end := time.Now().Add(limit)
	watched := append([]unix.PollFd(nil), fds...)
	for len(watched) > 0 {
		left := time.Until(end)
		if left <= 0 {
			return true
		}
		// A millisecond more than is left, rather than a few turns within the last one.
		if _, err := unix.Poll(watched, int(left/time.Millisecond)+1); err != nil && err != unix.EINTR {
			return false
		}
		rest := watched[:0]
		for _, f := range watched {
			if f.Revents == 0 {
				rest = append(rest, f)
			}
		}
		watched = rest
	}
	return true
}

// nap blocks this thread, not the runtime.
func nap(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil)
}

// Rest never returns: it is what is left to do for the first process of a
// machine that can neither go on nor end. Whatever dies is reaped by the kernel.
// Close the Reaper before.
func Rest() {
	// By SIG_IGN for SIGCHLD: a zombie is made no more, and those that there are
	// are collected here. Nothing wakes up for it.
	signal.Ignore() // of all others none ends it either
	ignore := sigaction{handler: sigIgn}
	rtSigaction(unix.SIGCHLD, &ignore, nil)
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err != unix.EINTR && pid <= 0 {
			break
		}
	}
	for {
		_, _ = unix.Poll(nil, -1)
	}
}
