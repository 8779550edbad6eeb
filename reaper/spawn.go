package reaper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Spec says what to execute and as what. The zero value of a field leaves
// what this process has, unless the field says otherwise.
type Spec struct {
	Run  uint64   // names the run for ever; not 0
	Argv []string // Argv[0] is looked up in the PATH of Env unless it has a slash
	Env  []string
	Dir  string // "" is /

	Files [3]int // descriptors for 0, 1 and 2; -1 is /dev/null

	Cgroup      int   // a folder of cgroup v2 to be born in, or -1 (Linux 5.7)
	CgroupProcs []int // cgroup.procs files of cgroup v1 that the child enters by itself before it executes

	User     *User
	Umask    int  // -1 leaves it
	Terminal bool // Files[0] is a terminal: make it the child's, with the child's group in its foreground

	// Prepare, if set, runs on the spawner's thread before the fork, and may fill
	// in the rest; it may block. Release runs there when the fork is over.
	Prepare func(*Spec) error
	Release func()
}

// A User is the identity of a child. All groups that it has are named here.
type User struct {
	UID, GID uint32
	Groups   []uint32
	SetUID   bool // UID is to be set
	SetGID   bool // GID and Groups are to be set
}

// A StartError says that a program did not start, at which step and why.
type StartError struct {
	Step string // "execute", "change to folder", "set user", …
	What string // the path or name of that step
	Err  error
	Hint string // what stands behind it: a missing interpreter, a folder that is not searchable
}

func (e *StartError) Error() string {
	s := e.Step
	if e.What != "" {
		s += " " + e.What
	}
	s += ": " + e.Err.Error()
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns what the kernel said.
func (e *StartError) Unwrap() error { return e.Err }

// Code is the exit status that a shell gives for it: 127 for a program that
// is not there, 126 for everything else.
func (e *StartError) Code() int {
	if e.Step == stepExec && errors.Is(e.Err, unix.ENOENT) {
		return 127
	}
	return 126
}

const (
	stepExec = "execute"
	stepDir  = "change to folder"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// flight writes down what the child of s has to do, in this order: what needs
// privilege before the change of user, what the user must be able to do after.
func (r *Reaper) flight(s *Spec) (*flight, error) {
	if len(s.Argv) == 0 || s.Argv[0] == "" {
		return nil, &StartError{Step: stepExec, Err: unix.ENOENT, Hint: "the command is empty"}
	}
	f := &flight{pidfd: -1}
	switch {
	case s.Terminal && ownsTerminal(s.Files[0]):
		// It is our session's: the child stays in it, in a group of its own, which
		// is put into the foreground (SIGTTOU is blocked, so that it may). The
		// kernel has written the group's number, the child's pid, where we point.
		f.add("start a group", 0, unix.SYS_SETPGID, 0, 0)
		f.add("take the terminal", opOptional, unix.SYS_IOCTL, uintptr(s.Files[0]), unix.TIOCSPGRP, uintptr(unsafe.Pointer(&f.pid)))
	case s.Terminal:
		f.add("start a session", 0, unix.SYS_SETSID)
		f.add("take the terminal", opOptional, unix.SYS_IOCTL, uintptr(s.Files[0]), unix.TIOCSCTTY, 0)
	case r.terminal:
		f.add("start a session", 0, unix.SYS_SETSID)
	default:
		// A session of its own only where ours has a terminal that must not be the
		// child's: each new one is a scheduling group of its own (sched_autogroup,
		// kernel/sched/autogroup.c), and the child has to queue for a processor again
		// before its exec. On a loaded machine that is milliseconds.
		f.add("start a group", 0, unix.SYS_SETPGID, 0, 0)
	}
	for _, fd := range s.CgroupProcs {
		f.add("enter cgroup", 0, unix.SYS_WRITE, uintptr(fd), f.bytes("0"), 1)
	}
	// Sources below 3 would be overwritten by an earlier dup: move them up first.
	var src [3]int
	for i, fd := range s.Files {
		if fd < 0 {
			fd = r.null
		}
		if fd < 3 && fd != i {
			fd = r.std[fd]
		}
		src[i] = fd
	}
	r.lend(f, &src)
	if f.share {
		f.add("copy descriptors", 0, unix.SYS_CLOSE_RANGE, uintptr(r.low), 1<<32-1, unix.CLOSE_RANGE_UNSHARE)
	}
	o := &r.own
	if o.oomScoreAdj != "" {
		f.add("", opOptional, unix.SYS_OPENAT, dirFD, f.bytes("/proc/self/oom_score_adj"), unix.O_WRONLY|unix.O_CLOEXEC)
		f.add("", opOptional|opResult, unix.SYS_WRITE, 0, f.bytes(o.oomScoreAdj), uintptr(len(o.oomScoreAdj)))
	}
	if o.niceRaised {
		f.add("set nice", opOptional, unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(o.nice))
	}
	f.restoreLimits(o)
	if u := s.User; u != nil {
		if u.SetGID {
			flags, list := uintptr(0), uintptr(0)
			if len(u.Groups) > 0 {
				groups := slices.Clone(u.Groups)
				f.keep = append(f.keep, groups)
				list = uintptr(unsafe.Pointer(&groups[0]))
			} else if os.Geteuid() != 0 {
				flags = opOptional // nothing to drop that this process could
			}
			f.add(fmt.Sprint("set groups ", u.Groups), flags, unix.SYS_SETGROUPS, uintptr(len(u.Groups)), list)
			f.add(fmt.Sprint("set group ", u.GID), 0, unix.SYS_SETGID, uintptr(u.GID))
		}
		if u.SetUID {
			f.add(fmt.Sprint("set user ", u.UID), 0, unix.SYS_SETUID, uintptr(u.UID))
		}
	}
	if s.Umask >= 0 {
		f.add("set umask", 0, unix.SYS_UMASK, uintptr(s.Umask))
	}
	dir := s.Dir
	if dir == "" {
		dir = "/"
	}
	f.add(stepDir+" "+dir, 0, unix.SYS_CHDIR, f.bytes(dir))

	for i, fd := range src {
		if fd == i {
			f.add("clear close-on-exec", 0, unix.SYS_FCNTL, uintptr(i), unix.F_SETFD, 0)
		} else {
			f.add("set descriptor", 0, unix.SYS_DUP3, uintptr(fd), uintptr(i), 0)
		}
	}
	// What we were started with, or a library opened, may not be close-on-exec.
	f.add("", opOptional, unix.SYS_CLOSE_RANGE, 3, 1<<32-1, r.closeHow)
	ops := resetOps(r.ignored)
	f.ops = append(f.ops, ops...)
	f.steps = append(f.steps, make([]string, len(ops))...)
	none := new(uint64)
	f.keep = append(f.keep, none)
	f.add("set signal mask", 0, unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(none)), 0, 8)

	argv, envp := f.strings(s.Argv), f.strings(s.Env)
	for _, path := range candidates(s.Argv[0], s.Env) {
		f.add(stepExec+" "+path, opExec, unix.SYS_EXECVE, f.bytes(path), argv, envp)
	}
	return f, f.err
}

// ownsTerminal reports whether fd is the controlling terminal of our session.
func ownsTerminal(fd int) bool {
	sid, err := unix.IoctlGetInt(fd, unix.TIOCGSID)
	own, err2 := unix.Getsid(0)
	return err == nil && err2 == nil && sid == own
}

// closeOthers finds out how a child closes what is above its descriptor 2: by the
// exec, which does it after the parent is set free (CLOSE_RANGE_CLOEXEC, Linux
// 5.11), or before. Where the kernel or a seccomp filter knows no close_range
// (Linux 5.9), our own descriptors of now are made close-on-exec instead.
func closeOthers() (how uintptr, known bool) {
	const none = 1<<31 - 1 // no descriptor has this number
	if unix.CloseRange(none, none, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return unix.CLOSE_RANGE_CLOEXEC, true
	}
	if unix.CloseRange(none, none, 0) == nil {
		return 0, true
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, e := range fds {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return 0, false
}

const dirFD = ^uintptr(99) // AT_FDCWD, -100

// candidates are the paths that name can stand for, in the order of PATH.
func candidates(name string, env []string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	path := defaultPath
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	var out []string
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		out = append(out, filepath.Join(dir, name))
	}
	return out
}

// startError turns the op that failed into words. It runs after the child is
// gone and may look at the file system.
func startError(s *Spec, f *flight, failed int, errno error) *StartError {
	if failed < 0 {
		return &StartError{Step: "fork", Err: errno}
	}
	step := f.steps[failed]
	if path, ok := strings.CutPrefix(step, stepExec+" "); ok {
		e := &StartError{Step: stepExec, What: path, Err: errno}
		inDir := func(path string) string {
			if filepath.IsAbs(path) {
				return path
			}
			return filepath.Join("/", s.Dir, path)
		}
		search := !strings.Contains(s.Argv[0], "/")
		if search && errors.Is(errno, unix.ENOTDIR) { // a part of PATH, not the program
			e.Err, errno = unix.ENOENT, unix.ENOENT
		}
		if search && errors.Is(errno, unix.ENOENT) {
			// The first that is there at all is the one that lacks its interpreter.
			all := candidates(s.Argv[0], s.Env)
			i := slices.IndexFunc(all, func(p string) bool { _, err := os.Stat(inDir(p)); return err == nil })
			if i < 0 {
				e.What, e.Hint = s.Argv[0], "not found in PATH"
				return e
			}
			e.What, path = all[i], all[i]
		}
		path = inDir(path)
		switch {
		case errors.Is(errno, unix.ENOENT):
			if _, err := os.Stat(path); err == nil { // 127 all the same, as shells have it
				e.Hint = "its interpreter is missing"
				if i := interpreter(path); i != "" {
					e.Hint = "its interpreter " + i + " is missing"
				}
			}
		case errors.Is(errno, unix.ENOEXEC):
			e.Hint = "neither a program of this machine nor a script with a #! line"
		case errors.Is(errno, unix.EACCES):
			if st, err := os.Stat(path); err == nil && st.IsDir() {
				e.Hint = "it is a folder"
			} else if err == nil && st.Mode()&0o111 == 0 {
				e.Hint = "not executable"
			}
		}
		return e
	}
	if dir, ok := strings.CutPrefix(step, stepDir+" "); ok {
		e := &StartError{Step: stepDir, What: dir, Err: errno}
		if s.User != nil && s.User.SetUID && errors.Is(errno, unix.EACCES) {
			e.Hint = fmt.Sprintf("as user %d", s.User.UID)
		}
		return e
	}
	return &StartError{Step: step, Err: errno}
}

// interpreter reads the #! line of a script.
func interpreter(path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 256)
	n, _ := f.Read(b)
	line, _, _ := strings.Cut(string(b[:n]), "\n")
	line, ok := strings.CutPrefix(line, "#!")
	if !ok {
		return ""
	}
	if w := strings.Fields(line); len(w) > 0 {
		return strings.ToValidUTF8(w[0], "?")
	}
	return ""
}
