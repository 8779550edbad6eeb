package cgroupfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watcher knows who waits for which group to become empty. On v2 it is one
// inotify descriptor and one goroutine for all groups, begun with the first
// one; elsewhere a goroutine and one pidfd a group while it is waited for.
type watcher struct {
	mu      sync.Mutex
	byName  map[string]*watch
	byWD    map[int32]*watch
	inotify *os.File // nil before the first one
	fd      int      // inotify's; File.Fd would make it block
	closed  bool
	running sync.WaitGroup // every goroutine; begun only under mu and before closed

	told   func(where string, value any) // Options.Panicked
	faults func(at string)
}

// A watch is one wait. It is over when it is in no map.
type watch struct {
	name  string
	fn    func()
	wd    int32    // 0 without inotify: the kernel counts from 1
	pidfd *os.File // the member that is waited for, without inotify
}

// NotifyEmpty has fn called once when nothing lives in the group any more, also
// when that is so already, always on another goroutine than the caller's. fn
// must neither block nor call Close. A group has one such wait: a new one takes the place of the
// earlier, nil takes it back.
//
// v2 tells by cgroup.events, at most 10 ms late (the kernel's own limit on how
// often it tells). On v1, and where inotify is refused, one member's pidfd after
// the other is waited for; where those are refused too (before 5.3, or by
// seccomp) the error is [errors.ErrUnsupported]. If the group can no longer be
// read fn is called as well: [Group.Populated] then says why.
func (g *Group) NotifyEmpty(fn func()) error {
	w := &g.h.watcher
	w.forget(g.name)
	if fn == nil {
		return nil
	}
	one := &watch{name: g.name, fn: fn}
	if g.h.mount.version == 2 {
		switch err := w.add(g.h, one); {
		case err == nil:
			if populated, err := g.Populated(); err != nil || !populated {
				w.spawn(func() { w.fire(one) })
			}
			return nil
		case errors.Is(err, os.ErrClosed):
			return g.fail("watch", err)
		}
	}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return g.fail("watch", fmt.Errorf("%w: open pidfd: %w", errors.ErrUnsupported, err))
	}
	unix.Close(fd)
	w.mu.Lock()
	if !w.closed {
		w.keep(one)
	}
	w.mu.Unlock()
	if !w.spawn(func() { w.awaitMembers(g, one) }) {
		return g.fail("watch", os.ErrClosed)
	}
	return nil
}

// spawn begins a goroutine; false after close.
func (w *watcher) spawn(f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.begin(f)
	}
	return !w.closed
}

// add begins an inotify watch.
func (w *watcher) add(h *Hierarchy, one *watch) error {
	target, err := h.open(path.Join(one.name, "cgroup.events"), unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(target)

	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return os.ErrClosed
	}
	if w.inotify == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return fmt.Errorf("make inotify: %w", err)
		}
		w.fd, w.inotify = fd, os.NewFile(uintptr(fd), "inotify")
		inotify := w.inotify
		w.begin(func() { w.serve(h, inotify) })
	}
	wd, err := unix.InotifyAddWatch(w.fd, fmt.Sprintf("/proc/self/fd/%d", target), unix.IN_MODIFY)
	if err != nil {
		return fmt.Errorf("watch cgroup.events: %w", err)
	}
	one.wd = int32(wd)
	w.keep(one)
	return nil
}

// keep enters one; w.mu is held.
func (w *watcher) keep(one *watch) {
	if w.byName == nil {
		w.byName, w.byWD = map[string]*watch{}, map[int32]*watch{}
	}
	w.byName[one.name] = one
	if one.wd != 0 {
		w.byWD[one.wd] = one
	}
}

// drop takes one out; w.mu is held. It is false if one was over before.
func (w *watcher) drop(one *watch) bool {
	if one == nil || w.byName[one.name] != one {
		return false
	}
	delete(w.byName, one.name)
	if one.wd != 0 {
		delete(w.byWD, one.wd)
		unix.InotifyRmWatch(w.fd, uint32(one.wd)) // fails if the group is gone: no matter
	}
	if one.pidfd != nil {
		one.pidfd.Close() // wakes its goroutine
	}
	return true
}

func (w *watcher) forget(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(w.byName[name])
}

// fire ends one and calls its function, unless it was over before.
func (w *watcher) fire(one *watch) {
	if w.over(one) {
		defer w.caught()
		one.fn()
	}
}

func (w *watcher) over(one *watch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.drop(one)
}

// removed ends the wait for a group that was removed, and so is empty.
func (w *watcher) removed(name string) {
	w.mu.Lock()
	one := w.byName[name]
	w.mu.Unlock()
	if one != nil {
		w.spawn(func() { w.fire(one) })
	}
}

// close ends every wait and waits for the goroutines.
func (w *watcher) close() {
	w.mu.Lock()
	for _, one := range w.byName {
		w.drop(one)
	}
	w.closed = true
	if w.inotify != nil {
		w.inotify.Close() // wakes serve
	}
	w.mu.Unlock()
	w.running.Wait()
}

// serve reads inotify(7) events until close. It waits in Go's poller and holds
// no thread.
func (w *watcher) serve(h *Hierarchy, inotify *os.File) {
	var buf [4096]byte
	for {
		n, err := inotify.Read(buf[:])
		if err != nil {
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(b))
			mask := binary.NativeEndian.Uint32(b[4:])
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			b = b[min(size, len(b)):]
			for _, one := range w.meant(wd, mask) {
				w.look(h, one)
			}
		}
	}
}

// look fires one if its group is empty, or if that cannot be told.
func (w *watcher) look(h *Hierarchy, one *watch) {
	defer w.rescue(one)
	w.fault("look")
	populated, err := h.populated(h.dir, one.name)
	if err != nil || !populated {
		w.fire(one)
	}
}

// rescue, deferred, ends a panic in the wait of one by firing it, after a while:
// whoever waits looks himself, and waits again.
func (w *watcher) rescue(one *watch) {
	if v := recover(); v != nil {
		w.tell(v)
		t := time.NewTimer(panicPause)
		<-t.C
		w.fire(one)
	}
}

// meant finds whom an event is about: all, when the kernel had to drop some.
func (w *watcher) meant(wd int32, mask uint32) []*watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*watch
	if mask&unix.IN_Q_OVERFLOW != 0 {
		for _, one := range w.byWD {
			all = append(all, one)
		}
	} else if one := w.byWD[wd]; one != nil {
		all = append(all, one)
	}
	return all
}

// awaitMembers waits for one member after the other until none is left.
func (w *watcher) awaitMembers(g *Group, one *watch) {
	defer w.rescue(one)
	for {
		w.fault("members")
		pids, err := g.Procs()
		if err != nil || len(pids) == 0 {
			w.fire(one)
			return
		}
		pid := 0
		for _, p := range pids {
			pid = max(pid, p)
		}
		if pid == 0 {
			return // only strangers of other pid namespaces: nobody can tell
		}
		fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			w.fire(one)
			return
		}
		if !w.awaitExit(one, os.NewFile(uintptr(fd), "pidfd")) {
			return
		}
	}
}

// awaitExit waits until a pidfd tells the process's end, and closes it. It is
// false if the watch is over.
func (w *watcher) awaitExit(one *watch, pidfd *os.File) bool {
	defer pidfd.Close()
	w.mu.Lock()
	live := w.byName[one.name] == one
	if live {
		one.pidfd = pidfd
	}
	w.mu.Unlock()
	if !live {
		return false
	}
	conn, err := pidfd.SyscallConn()
	if err == nil {
		err = conn.Read(func(fd uintptr) bool {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(poll, 0)
			return n > 0 || err != nil && err != unix.EINTR
		})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	one.pidfd = nil
	return err == nil && w.byName[one.name] == one
}
