package cgroupfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Group is a folder below a [Hierarchy]: a name that holds no descriptor.
type Group struct {
	h    *Hierarchy
	name string
	made bool
}

// Group makes the group of that name, such as "shop/web.1", and its parents,
// where they do not exist yet. Whether something lives in it already is told by
// [Group.Populated]. Call it before every start.
//
// A group that was killed, or that an earlier supervisor left, is made anew if
// nothing lives in it: Linux 6.18 kills everything that is cloned into a group
// after its cgroup.kill was written once, for good (the child is compared with
// the kill count of its parent's group).
func (h *Hierarchy) Group(name string) (*Group, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	made, err := h.makeSound(name)
	if err != nil {
		return nil, fmt.Errorf("make cgroup %s: %w", path.Join(h.path, name), err)
	}
	return &Group{h, name, made}, nil
}

func (h *Hierarchy) makeSound(name string) (made bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.sound[name] {
		if h.mkdirNew(h.dir, name) == nil {
			h.sound[name] = true
			return true, nil
		}
		if err := h.removeAll(h.dir, name); err != nil && !errors.Is(err, unix.EBUSY) {
			return false, err
		} else if err == nil {
			h.forget(name)
			h.sound[name] = true
		}
	}
	err = h.mkdirAll(h.dir, name)
	if errors.Is(err, unix.ENOENT) { // a parent was removed as empty meanwhile
		err = h.mkdirAll(h.dir, name)
	}
	if err != nil {
		return false, err
	}
	fd, err := h.open(name, unix.O_PATH|unix.O_DIRECTORY) // a file of the kernel may bear that name
	if err != nil {
		return false, err
	}
	return false, unix.Close(fd)
}

// Sound reports whether a child can be cloned into the group as it is: it was
// made by [Hierarchy.Group] and not killed or removed by us since. Someone else
// may have removed it: then [Group.OpenFD] fails.
func (g *Group) Sound() bool {
	g.h.mu.Lock()
	defer g.h.mu.Unlock()
	return g.h.sound[g.name]
}

// forget makes the group and those below it unsound: killed, or removed. h.mu
// is held.
func (h *Hierarchy) forget(name string) {
	for n := range h.sound {
		if _, ok := below(n, name); ok {
			delete(h.sound, n)
		}
	}
}

// Made reports whether [Hierarchy.Group] found no such group and made it: then
// nothing lives in it that was not put there since.
func (g *Group) Made() bool { return g.made }

// Name is the group's name below the hierarchy's folder.
func (g *Group) Name() string { return g.name }

// Path is the group's absolute name.
func (g *Group) Path() string { return path.Join(g.h.path, g.name) }

func (g *Group) fail(verb string, err error) error {
	return fmt.Errorf("%s cgroup %s: %w", verb, g.Path(), err)
}

// OpenFD opens the group's folder for CLONE_INTO_CGROUP (5.7, v2 only). The
// caller closes it after the clone. On v1 the error is [errors.ErrUnsupported]:
// use [Group.EnterFiles].
func (g *Group) OpenFD() (*os.File, error) {
	if g.h.mount.version != 2 {
		return nil, g.fail("clone into", errors.ErrUnsupported)
	}
	fd, err := g.h.open(g.name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, g.fail("open", err)
	}
	return os.NewFile(uintptr(fd), g.Path()), nil
}

// EnterFiles opens, for writing, each file into which a child writes "0" before
// its exec to enter the group: on v1, and on v2 where clone3 is refused. The
// caller closes them after the fork. The write waits for the kernel for
// milliseconds: never make it on a goroutine that must not block.
func (g *Group) EnterFiles() ([]*os.File, error) {
	name := path.Join(g.name, "cgroup.procs")
	fd, err := g.h.open(name, unix.O_WRONLY)
	if err != nil {
		return nil, g.fail("open", err)
	}
	return []*os.File{os.NewFile(uintptr(fd), name)}, nil
}

// Populated tells whether a process lives in the group or below it. A process
// that is dead and only waits to be reaped does not count; a group that does
// not exist has none. It costs three system calls on v2.
func (g *Group) Populated() (bool, error) {
	populated, err := g.h.populated(g.h.dir, g.name)
	if err != nil {
		return false, g.fail("look into", err)
	}
	return populated, nil
}

func (h *Hierarchy) populated(dir int, rel string) (bool, error) {
	if h.mount.version == 1 {
		pids, err := h.procs(dir, rel)
		return len(pids) > 0, err
	}
	var buf [256]byte
	n, err := h.read(dir, path.Join(rel, "cgroup.events"), buf[:])
	if err != nil {
		return false, vanished(err)
	}
	return bytes.Contains(buf[:n], []byte("populated 1")), nil
}

// read fills buf from a small file.
func (h *Hierarchy) read(dir int, rel string, buf []byte) (int, error) {
	fd, err := h.openAt(dir, rel, unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return retry(func() (int, error) { return unix.Read(fd, buf) })
}

// write writes data into a file that exists, in one write.
func (h *Hierarchy) write(dir int, rel, data string) error {
	fd, err := h.openAt(dir, rel, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = retry(func() (int, error) { return unix.Write(fd, []byte(data)) })
	return err
}

// Procs lists the processes in the group and below it, without those that are
// dead and wait to be reaped. One outside of our pid namespace reads as 0.
func (g *Group) Procs() ([]int, error) {
	pids, err := g.h.procs(g.h.dir, g.name)
	if err != nil {
		return pids, g.fail("list", err)
	}
	return pids, nil
}

func (h *Hierarchy) procs(dir int, rel string) ([]int, error) {
	var pids []int
	err := h.walk(dir, rel, func(rel string) error {
		fd, err := h.openAt(dir, path.Join(rel, "cgroup.procs"), unix.O_RDONLY)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), rel)
		defer f.Close()
		pids, err = appendPIDs(pids, f)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil // a threaded group: its processes are listed in the domain above
		}
		return err
	})
	return pids, err
}

// appendPIDs reads one number a line. At most the kernel's pid_max come.
func appendPIDs(pids []int, f *os.File) ([]int, error) {
	var buf [4096]byte
	n, kept := 0, 0 // kept: bytes of an unfinished line at the front
	var err error
	for {
		n, err = f.Read(buf[kept:])
		data := buf[:kept+n]
		for {
			line, rest, ok := bytes.Cut(data, []byte("\n"))
			if !ok {
				break
			}
			if pid, err := strconv.Atoi(string(line)); err == nil {
				pids = append(pids, pid)
			}
			data = rest
		}
		kept = copy(buf[:], data)
		if err != nil || n == 0 {
			break
		}
	}
	if err != nil && err != io.EOF {
		return pids, err
	}
	return pids, nil
}

// Remove removes the group and what is below it, children first, then those of
// its parents that are empty now. Where something lives the error is
// [unix.EBUSY] and says so. A group that does not exist is removed already.
func (g *Group) Remove() error {
	if err := g.h.removeAll(g.h.dir, g.name); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return g.fail("remove", fmt.Errorf("processes are left in it: %w", unix.EBUSY))
		}
		return g.fail("remove", err)
	}
	g.h.mu.Lock()
	g.h.forget(g.name)
	g.h.mu.Unlock()
	g.h.watcher.removed(g.name)
	for parent := path.Dir(g.name); parent != "."; parent = path.Dir(parent) {
		if unix.Unlinkat(g.h.dir, parent, unix.AT_REMOVEDIR) != nil {
			break // still in use by a sibling
		}
	}
	return nil
}
