// Command pazinit is an init and a supervisor: the PID 1 of a container or a
// machine, or a daemon.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
)

// commit is set by the linker.
var commit string

// version of this program; see CHANGELOG.md.
const version = "0.1.0"

func main() {
	argv := os.Args
	if len(argv) == 0 { // execve(2) allows it
		argv = []string{"pazinit"}
	}
	os.Exit(run(argv, os.Stdout, os.Stderr))
}

// run is main with its world passed in, and its exit status returned.
func run(argv []string, stdout, stderr io.Writer) int {
	c := &command{stdout: stdout, stderr: stderr}
	if d, ok := persona(argv[0]); ok {
		return c.end(c.asPersona(d, argv[0], argv[1:]))
	}
	return c.end(c.dispatch(argv[1:]))
}

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
