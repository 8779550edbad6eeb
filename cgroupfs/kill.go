package cgroupfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Kill sends SIGKILL to everything in the group and below it, also to what it
// forks meanwhile. It does not wait for the deaths: [Group.NotifyEmpty] tells,
// and a process that the kernel does not let die cannot hold the caller up.
//
// cgroup.kill does it (5.14); the group must be given by [Hierarchy.Group] anew
// before a child is cloned into it. Without one, each process is killed by pidfd and
// named again by the group first, while forks are stopped: by cgroup.freeze
// (5.2), v1's freezer, or pids.max. Elsewhere a group that forks faster than it
// is killed is an error; call it again.
//
// A group in which we or our parent sit is refused.
func (g *Group) Kill() error {
	if err := g.kill(); err != nil {
		return g.fail("kill", err)
	}
	return nil
}

func (g *Group) kill() error {
	pids, err := g.h.procs(g.h.dir, g.name)
	if err != nil && len(pids) == 0 {
		return err
	}
	if slices.Contains(pids, os.Getpid()) || os.Getppid() > 0 && slices.Contains(pids, os.Getppid()) {
		return errors.New("pazinit or its parent sits in it")
	}
	if g.h.mount.version == 2 && !g.h.noKillFile {
		g.h.mu.Lock()
		g.h.forget(g.name)
		g.h.mu.Unlock()
		err := g.h.write(g.h.dir, path.Join(g.name, "cgroup.kill"), "1")
		if !errors.Is(err, unix.ENOENT) {
			return vanished(err)
		}
	}
	resume := g.stopForks()
	defer resume()
	return g.killEach()
}

// stopForks keeps the group from growing, as far as the hierarchy can, and
// returns what undoes it.
func (g *Group) stopForks() (resume func()) {
	file := func(name string) string { return path.Join(g.name, name) }
	switch {
	case g.h.mount.version == 2:
		if g.h.write(g.h.dir, file("cgroup.freeze"), "1") == nil {
			return func() { g.h.write(g.h.dir, file("cgroup.freeze"), "0") }
		}
	case g.h.mount.has("freezer"):
		// Frozen tasks of v1 die when thawed; no fork comes between, a pending
		// SIGKILL forbids it. What froze itself below is thawed too.
		g.h.write(g.h.dir, file("freezer.state"), "FROZEN")
		return func() {
			g.h.walk(g.h.dir, g.name, func(rel string) error {
				return g.h.write(g.h.dir, path.Join(rel, "freezer.state"), "THAWED")
			})
		}
	case g.h.mount.has("pids"):
		var old [32]byte
		n, err := g.h.read(g.h.dir, file("pids.max"), old[:])
		if err == nil && g.h.write(g.h.dir, file("pids.max"), "0") == nil {
			return func() { g.h.write(g.h.dir, file("pids.max"), strings.TrimSpace(string(old[:n]))) }
		}
	}
	return func() {}
}

// killPasses bounds how often a group is listed where forks cannot be stopped.
const killPasses = 100

// killEach signals everything that is listed, until a list holds nobody new: who
// has a SIGKILL pending cannot fork any more.
func (g *Group) killEach() error {
	seen := map[int]bool{}
	for range killPasses {
		pids, err := g.h.procs(g.h.dir, g.name)
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range pids {
			if pid > 0 && !seen[pid] {
				fresh, seen[pid] = true, true
			}
		}
		for chunk := range slices.Chunk(pids, 64) { // few descriptors at a time
			if err := g.signal(chunk); err != nil {
				return err
			}
		}
		if !fresh {
			return nil
		}
	}
	return fmt.Errorf("it forks faster than it can be killed, %d processes were", len(seen))
}

// signal kills those of pids that are in the group. A pid may have been given
// to a stranger since it was listed: it is pinned by a pidfd (5.3) first, then
// looked up in the group again.
func (g *Group) signal(pids []int) error {
	pinned := map[int]int{} // pid to pidfd, -1 where pidfds are refused
	defer func() {
		for _, fd := range pinned {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}()
	for _, pid := range pids {
		if pid <= 0 {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		switch err {
		case nil:
			pinned[pid] = fd
		case unix.ENOSYS, unix.EPERM:
			pinned[pid] = -1
		case unix.ESRCH:
		default:
			return fmt.Errorf("open pidfd of %d: %w", pid, err)
		}
	}
	members, err := g.h.procs(g.h.dir, g.name)
	if err != nil {
		return err
	}
	for _, pid := range members {
		fd, ok := pinned[pid]
		if !ok {
			continue
		}
		if fd < 0 {
			err = unix.Kill(pid, unix.SIGKILL)
		} else {
			err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill %d: %w", pid, err)
		}
	}
	return nil
}
