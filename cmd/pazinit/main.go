// Command pazinit is an init and a supervisor: the PID 1 of a container or a
// machine, or a daemon.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// commit is set by the linker.
var commit string

// version of this program; see CHANGELOG.md.
const version = "0.1.0"

// init keeps main in the first thread, which is the one that the kernel prefers for
// a signal to the process, and that tgkill(2) of its pid means.
func init() { runtime.LockOSThread() }

func main() {
	argv := os.Args
	if len(argv) == 0 { // execve(2) allows it
		argv = []string{"pazinit"}
	}
	os.Exit(run(argv, os.Stdout, stderr{}))
}

// stderr is os.Stderr without what Go does when nobody reads it: to end this
// program, by SIGPIPE or, as PID 1, with status 2.
type stderr struct{}

func (stderr) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := unix.Write(2, p[n:])
		if err == unix.EAGAIN { // somebody else made it O_NONBLOCK
			_, err = unix.Poll([]unix.PollFd{{Fd: 2, Events: unix.POLLOUT}}, -1)
		}
		if err != nil && err != unix.EINTR {
			return n, err
		}
		n += max(m, 0)
	}
	return n, nil
}

// run is main with its world passed in, and its exit status returned.
func run(argv []string, out, errs io.Writer) int {
	c := &command{stdout: out, stderr: errs}
	if d, ok := persona(argv[0]); ok {
		return c.end(c.asPersona(d, argv[0], argv[1:]))
	}
	if !isCommand(argv[1:]) && isMachine() {
		return c.boot(argv[1:])
	}
	return c.end(c.dispatch(argv[1:]))
}

// isCommand reports whether args begin with --, which is to run one command on a
// machine, too.
func isCommand(args []string) bool { return len(args) > 0 && args[0] == "--" }

// How much the heap may grow before it is collected, in percent: from 4 MiB times
// it/100 on while starting, and then as little as costs no time worth measuring.
const (
	startGC  = 400
	steadyGC = 25
)

// A command is one invocation of the program.
type command struct {
	stdout, stderr io.Writer
	onEnd          string // what follows, see end; "": as fits the place
	host           *host  // of a machine's init; else nil
	ran            bool   // the supervisor did
}

// exitUsage is the exit status for what cannot be understood, and for bad
// configuration.
const exitUsage = 2

func (c *command) fail(code int, format string, args ...any) int {
	fmt.Fprintf(c.stderr, "pazinit: "+format+"\n", args...)
	return code
}

func versionText() string {
	s := "pazinit " + version
	if commit != "" {
		s += " (" + commit + ")"
	}
	return s + " " + runtime.Version()
}
