package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/reaper"
	"github.com/pazinit/pazinit/reaper/signals"
)

// A dialect is whose flags, messages and exit statuses exec mode has.
type dialect int

const (
	own dialect = iota
	tini
	dumbInit
	numDialects
)

// A saying is what exec mode may say.
type saying int

const (
	sayStarted      saying = iota // command, pid
	saySubreaper                  // -
	sayLeft                       // -
	sayLeftNoLeader               // -
	sayNotLeft                    // errno, text
	sayReceived                   // Info
	saySwallowed                  // signal
	saySuspended                  // -
	sayDropped                    // Info
	saySent                       // Info, signal, error
	sayReaped                     // Change, name
	sayEnded                      // Change
	sayNoMore                     // whether there are children
	sayKilled                     // grace
	sayExit                       // status
	numSayings
)

// levels is the verbosity from which on each of them is said, 0 for never.
var levels = [numSayings][numDialects]int{
	sayStarted:      {2, 2, 2},
	saySubreaper:    {0, 4, 0},
	sayLeft:         {0, 0, 2},
	sayLeftNoLeader: {0, 0, 2},
	sayNotLeft:      {0, 0, 2},
	sayReceived:     {0, 3, 2},
	saySwallowed:    {0, 0, 2},
	saySuspended:    {2, 0, 2},
	sayDropped:      {2, 0, 2},
	saySent:         {2, 1, 2},
	sayReaped:       {3, 3, 2},
	sayEnded:        {2, 2, 2},
	sayNoMore:       {0, 4, 0},
	sayKilled:       {1, 1, 1},
	sayExit:         {0, 4, 0},
}

func (x *sole) tells(what saying) bool {
	level := levels[what][x.dialect]
	if what == sayReaped && x.tellReaped {
		level = 1
	}
	return level > 0 && x.verbosity >= level
}

// say says it if it is to be said. Nobody waits for a reader: what a pipe has no
// room for at this moment is not said.
func (x *sole) say(what saying, args ...any) {
	if !x.tells(what) {
		return
	}
	switch x.dialect {
	case tini:
		x.sayTini(what, args)
	case dumbInit:
		x.sayDumbInit(what, args)
	case own, numDialects:
		x.sayOwn(what, args)
	}
}

func (x *sole) sayOwn(what saying, args []any) {
	switch what {
	case sayStarted:
		x.line(2, "pazinit: %s is process %d", args...)
	case saySuspended:
		x.line(2, "pazinit: stopped until SIGCONT")
	case sayDropped:
		i := args[0].(signals.Info)
		x.line(2, "pazinit: %s from %s is not sent on", nameOf(i.Signal), sender(i))
	case saySent:
		i, s := args[0].(signals.Info), args[1].(unix.Signal)
		text, as := nameOf(i.Signal)+" from "+sender(i), ""
		if s != i.Signal {
			as = " as " + nameOf(s)
		}
		if err, _ := args[2].(error); err != nil {
			x.line(2, "pazinit: %s cannot be sent on%s to %d: %v", text, as, x.child, err)
			return
		}
		x.line(2, "pazinit: %s is sent on%s to %d", text, as, x.child)
	case sayReaped:
		c := args[0].(reaper.Change)
		x.line(2, "pazinit: reaped %d (%s): %s", c.PID, plain(args[1].(string)), how(c))
	case sayEnded:
		c := args[0].(reaper.Change)
		x.line(2, "pazinit: %s (%d): %s", x.argv[0], c.PID, how(c))
	case sayKilled:
		x.line(2, "pazinit: the grace of %v is over: what is left is killed", args[0].(time.Duration))
	case saySubreaper, sayLeft, sayLeftNoLeader, sayNotLeft, sayReceived, saySwallowed, sayNoMore, sayExit, numSayings: // nothing
	}
}

func (x *sole) sayTini(what saying, args []any) {
	switch what {
	case sayStarted:
		x.tiniLine("INFO ", "Spawned child process '%s' with pid '%d'", args...)
	case saySubreaper:
		x.tiniLine("TRACE", "Registered as child subreaper")
	case sayReceived:
		if i := args[0].(signals.Info); i.Signal == unix.SIGCHLD {
			x.tiniLine("DEBUG", "Received SIGCHLD")
		} else if i.Signal != unix.SIGTTIN && i.Signal != unix.SIGTTOU {
			x.tiniLine("DEBUG", "Passing signal: '%s'", signalText(i.Signal))
		}
	case saySent:
		if err, _ := args[2].(error); errors.Is(err, unix.ESRCH) {
			x.tiniLine("WARN ", "Child was dead when forwarding signal")
		} else if err != nil {
			x.tiniLine("WARN ", "Unexpected error when forwarding signal: '%s'", capital(err.Error()))
		}
	case sayReaped:
		c := args[0].(reaper.Change)
		if x.verbosity >= 3 {
			x.tiniLine("DEBUG", "Reaped child with pid: '%d'", c.PID)
		}
		if x.tellReaped {
			x.tiniLine("WARN ", "Reaped zombie process with pid=%d", c.PID)
		}
	case sayEnded:
		c := args[0].(reaper.Change)
		if x.verbosity >= 3 {
			x.tiniLine("DEBUG", "Reaped child with pid: '%d'", c.PID)
		}
		if c.Signal != 0 {
			x.tiniLine("INFO ", "Main child exited with signal (with signal '%s')", signalText(c.Signal))
		} else {
			x.tiniLine("INFO ", "Main child exited normally (with status '%d')", c.Code)
		}
	case sayNoMore:
		if args[0].(bool) {
			x.tiniLine("TRACE", "No child to reap")
		} else {
			x.tiniLine("TRACE", "No child to wait")
		}
	case sayExit:
		x.tiniLine("TRACE", "Exiting: child has exited")
	case sayLeft, sayLeftNoLeader, sayNotLeft, saySwallowed, saySuspended, sayDropped, sayKilled, numSayings: // nothing
	}
}

// tiniLine writes where tini writes: what is not a warning to standard output.
func (x *sole) tiniLine(level, format string, args ...any) {
	fd := 1
	if level == "WARN " || level == "FATAL" {
		fd = 2
	}
	x.line(fd, "["+level+" tini (%d)] "+format, append([]any{x.self}, args...)...)
}

func (x *sole) sayDumbInit(what saying, args []any) {
	line := func(format string, args ...any) { x.line(2, "[dumb-init] "+format, args...) }
	switch what {
	case sayStarted:
		line("Child spawned with PID %d.", args[1])
		if x.grouping == reaper.OwnSession {
			if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err != nil {
				line("Unable to attach to controlling tty (errno=%d %s).", int(errnoOf(err)), capital(err.Error()))
			}
			line("setsid complete.")
		}
	case sayLeft:
		line("Detached from controlling tty, ignoring the first SIGHUP and SIGCONT we receive.")
	case sayLeftNoLeader:
		line("Detached from controlling tty, but was not session leader.")
	case sayNotLeft:
		line("Unable to detach from controlling tty (errno=%d %s).", args...)
	case sayReceived:
		line("Received signal %d.", int(args[0].(signals.Info).Signal))
	case saySwallowed:
		line("Ignoring tty hand-off signal %d.", args...)
	case saySuspended:
		line("Suspending self due to TTY signal.")
	case saySent, sayDropped:
		i, s := args[0].(signals.Info), unix.Signal(0)
		if what == saySent {
			s = args[1].(unix.Signal)
		}
		if s != i.Signal || x.rewrite[i.Signal] >= 0 {
			line("Translating signal %d to %d.", int(i.Signal), int(s))
		}
		if s == 0 {
			line("Not forwarding signal 0 to children (ignored).")
		} else {
			line("Forwarded signal %d to children.", int(s))
		}
	case sayReaped:
		if c := args[0].(reaper.Change); c.Signal != 0 {
			line("A child with PID %d was terminated by signal %d.", c.PID, int(c.Signal))
		} else {
			line("A child with PID %d exited with exit status %d.", c.PID, c.Code)
		}
	case sayEnded:
		line("Child exited with status %d. Goodbye.", args[0].(reaper.Change).Code)
	case saySubreaper, sayNoMore, sayKilled, sayExit, numSayings: // nothing
	}
}

// warnOfPlace is tini's word to those who have nobody reap for them.
func (x *sole) warnOfPlace() {
	if x.dialect != tini || x.self == 1 || x.verbosity < 1 {
		return
	}
	var on int32
	if prctlGet(unix.PR_GET_CHILD_SUBREAPER, &on) == nil && on != 0 {
		return
	}
	x.tiniLine("WARN ", `Tini is not running as PID 1 and isn't registered as a child subreaper.
Zombie processes will not be re-parented to Tini, so zombie reaping won't work.
To fix the problem, use the -s option or set the environment variable TINI_SUBREAPER to register Tini as a child subreaper, or run Tini as PID 1.`)
}

// fail says what cannot be done at all and reports code.
func (x *sole) fail(code int, format string, args ...any) int {
	switch x.dialect {
	case tini:
		x.tiniLine("FATAL", format, args...)
	case dumbInit:
		x.line(2, "[dumb-init] "+format, args...)
	case own, numDialects:
		x.line(2, "pazinit: "+format, args...)
	}
	return code
}

// refused says why the command could not be executed, and reports the exit
// status that this dialect has for it.
func (x *sole) refused(err error, code int) int {
	errno := errnoOf(err)
	switch x.dialect {
	case tini:
		x.tiniLine("FATAL", "exec %s failed: %s", x.argv[0], capital(errno.Error()))
		if errno != unix.ENOENT && errno != unix.EACCES {
			return 1
		}
		return code
	case dumbInit:
		x.line(2, "[dumb-init] %s: %s", x.argv[0], capital(errno.Error()))
		return 2
	case own, numDialects:
		x.line(2, "pazinit: %v", err)
	}
	return code
}

// line writes one message to a descriptor, if there is room for it.
func (x *sole) line(fd int, format string, args ...any) {
	b := fmt.Appendf(nil, format+"\n", args...)
	for len(b) > 0 {
		// A pipe that is ready has room for PIPE_BUF bytes (pipe(7)).
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(p, 0); err != nil || n == 0 || p[0].Revents&unix.POLLOUT == 0 {
			return
		}
		n, err := unix.Write(fd, b[:min(len(b), 4096)])
		if err != nil && err != unix.EINTR {
			return
		}
		b = b[max(n, 0):]
	}
}

// sender says who sent a signal.
func sender(i signals.Info) string {
	switch {
	case !i.Sent():
		return "the kernel"
	case i.PID == 0:
		return "outside of this PID namespace"
	}
	if name := reaper.Name(i.PID); name != "" { // else it is gone already
		return fmt.Sprintf("%d (%s), uid %d", i.PID, plain(name), i.UID)
	}
	return fmt.Sprintf("%d, uid %d", i.PID, i.UID)
}

// plain is a process's name for a terminal: anybody may have chosen it.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
}

// how says how a process has ended.
func how(c reaper.Change) string {
	if c.Signal == 0 {
		return fmt.Sprintf("ended with status %d", c.Code)
	}
	s := "killed by " + nameOf(c.Signal)
	if c.Core {
		s += ", core dumped"
	}
	return s
}

// nameOf is SIGTERM; the real-time ones have numbers (signal(7)).
func nameOf(s unix.Signal) string {
	if n := unix.SignalName(s); n != "" {
		return n
	}
	return fmt.Sprintf("signal %d", int(s))
}

// signalText is a signal in words.
func signalText(s unix.Signal) string {
	if s >= 34 {
		return fmt.Sprintf("Real-time signal %d", int(s)-34)
	}
	return capital(s.String())
}

// capital is how the C library spells what Go has in lower case.
func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
