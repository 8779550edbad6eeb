package main

import (
	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/reaper"
)

// lookForTerminal finds our controlling terminal, and whether the command is to
// have its foreground from the beginning. PID 1's and tini's has it if we have. Below
// a shell others may stand in our group: a pager, a script. There it does if both
// stdin and stdout are the terminal, else when it asks for it (stopsForTerminal).
func (x *sole) lookForTerminal() {
	x.tty = -1
	mine := 0 // of 0 and 1
	for fd := range 3 {
		if _, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil {
			continue
		}
		if fd < 2 {
			mine++
		}
		if x.tty < 0 {
			x.tty = fd
		}
	}
	if x.tty < 0 {
		fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		x.tty = fd
	}
	if x.foreground() == unix.Getpgrp() && (x.self == 1 || x.dialect == tini || mine == 2) {
		x.cmd.Terminal, x.front = x.tty, true
	}
}

// foreground is the group in the foreground of our terminal, -1 for none.
func (x *sole) foreground() int {
	if x.tty < 0 {
		return -1
	}
	pgrp, err := unix.IoctlGetInt(x.tty, unix.TIOCGPGRP)
	if err != nil {
		return -1
	}
	return pgrp
}

// stopsForTerminal is a stop of the command. What asks for the terminal gets it
// if it is ours to give. Else a stop by the terminal, or of one who has it (nano
// and mutt take SIGSTOP), is ours, too: the shell that waits for us goes on then.
func (x *sole) stopsForTerminal(s unix.Signal) (done bool) {
	if x.dialect != own || x.tty < 0 {
		return false
	}
	asks := s == unix.SIGTTIN || s == unix.SIGTTOU
	switch front := x.foreground(); {
	case asks && front == unix.Getpgrp():
		x.wants = true
		x.goesOn()
		_ = reaper.SignalSole(x.child, unix.SIGCONT, x.toGroup())
		return true
	case front != x.child && !asks:
		return false
	}
	if sid, err := unix.Getsid(0); x.self == 1 || err != nil || sid == x.self {
		if s != unix.SIGTSTP {
			return false
		}
		// Ctrl-Z where nobody waits who could continue it: the kernel spares a group
		// without a parent in its session (orphaned, as dumb-init's is), and so do we.
		x.stopped = false
		_ = reaper.SignalSole(x.child, unix.SIGCONT, x.toGroup())
		return true
	}
	x.wants, x.front = true, false
	_ = unix.Kill(0, unix.SIGSTOP) // with those that stand in our pipeline
	return true
}

// goesOn is a continuation: the command's group has the foreground that a shell
// has given us.
func (x *sole) goesOn() {
	x.stopped = false
	if x.wants && x.child != 0 {
		if x.foreground() == unix.Getpgrp() {
			reaper.GiveTerminal(x.tty, x.child)
		}
		x.front = x.foreground() == x.child
	}
	x.sendOn()
}

// takeBack has the foreground again after the command's end, for a script that
// goes on in our group.
func (x *sole) takeBack() {
	if x.front && x.dialect == own && x.self != 1 {
		reaper.ReclaimTerminal(x.tty)
	}
	x.front = false
}

// leaveTerminal gives the terminal up for the command's session, as dumb-init
// does. The kernel then sends the session's leader two signals that mean nothing.
func (x *sole) leaveTerminal() {
	x.cmd.Terminal = 0
	_, _, e := unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCNOTTY, 0)
	sid, err := unix.Getsid(0)
	switch {
	case e != 0:
		x.say(sayNotLeft, int(e), capital(e.Error()))
	case err == nil && sid == x.self:
		x.say(sayLeft)
		x.swallowed = 1<<(unix.SIGHUP-1) | 1<<(unix.SIGCONT-1)
	default:
		x.say(sayLeftNoLeader)
	}
}
