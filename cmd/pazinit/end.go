package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	pazinit "github.com/pazinit/pazinit/init"
	"github.com/pazinit/pazinit/reaper"
)

// end is the last thing that this program does: it carries out on_end, and
// reports the exit status. Only the first process of a PID namespace has anything
// to do, but for a shell that was asked for.
func (c *command) end(code int) int {
	if os.Getpid() != 1 && c.onEnd == "" {
		return code
	}
	_, known := initialPIDs()
	e := &ender{
		place: pazinit.FindPlace(), blind: !known, stderr: c.stderr,
		reboot: unix.Reboot, rest: reaper.Rest, machine: c.host.finish,
		shell: func(machine bool, code int) error {
			c.host.unwatch()
			return execShell(machine, code, "", c.host.port())
		},
	}
	if _, patiently := c.stderr.(*patient); !patiently && e.isMachine() {
		e.stderr = &patient{to: c.stderr, limit: consoleLimit}
	}
	if then := os.Getenv(thenVariable); then != "" && e.isMachine() { // this was a shell
		if strings.HasPrefix(then, thenBoot) {
			e.say("the boot goes on")
			e.say("without that: %v", bootAgain(then))
		}
		c.onEnd = "reboot"
	}
	return e.end(c.onEnd, code)
}

// An ender is what the end does to the machine.
type ender struct {
	place   pazinit.Place
	blind   bool // no /proc says which PID namespace this is
	stderr  io.Writer
	reboot  func(cmd int) error                // ends a container; returns if it is refused
	machine func(what string, code int) error  // ends a machine; returns if it is refused
	rest    func()                             // never returns
	shell   func(machine bool, code int) error // returns if there is none
}

// powers are the words of on_end that are reboot(2)'s. In a PID namespace that is
// not the first one it ends the namespace by SIGINT or, for a restart, by SIGHUP:
// so whoever made the namespace sees what was wanted.
var powers = map[string]struct {
	cmd   int
	doing string
}{
	"poweroff": {unix.LINUX_REBOOT_CMD_POWER_OFF, "powering off"},
	"reboot":   {unix.LINUX_REBOOT_CMD_RESTART, "rebooting"},
	"halt":     {unix.LINUX_REBOOT_CMD_HALT, "halting"},
	"kexec":    {unix.LINUX_REBOOT_CMD_KEXEC, "starting the loaded kernel"},
}

// machinePlace is the place of a machine's init.
var machinePlace = pazinit.Place{PID1: true, Initial: true}

// isMachine reports whether this is the init of a machine.
func (e *ender) isMachine() bool {
	if e.place.PID1 && e.blind {
		// Only in the first PID namespace the kernel knows this command, and to make
		// ctrl-alt-del a signal is what the init of a machine wants.
		return e.reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) == nil
	}
	return e.place.PID1 && e.place.Initial
}

func (e *ender) end(onEnd string, code int) int {
	machine := e.isMachine()
	if onEnd == "shell" {
		e.say("ended with status %d; a shell follows, as on_end has it", code)
		if err := e.shell(machine, code); err != nil {
			e.say("without a shell: %v", err)
		}
		onEnd = "exit"
	}
	if onEnd == "" || onEnd == "exit" {
		if !machine {
			return code
		}
		onEnd = "poweroff" // the kernel panics when its init exits
	}
	if !e.place.PID1 {
		e.say("on_end: %s is left to PID 1, which this is not; ended with status %d", onEnd, code)
		return code
	}
	p := powers[onEnd]
	e.say("%s, after an end with status %d", p.doing, code)
	if !machine {
		err := e.reboot(p.cmd)
		e.say("%s was refused: %v (it takes CAP_SYS_BOOT); ended with status %d", onEnd, err, code)
		return code
	}
	err := e.machine(onEnd, code)
	e.say("%s was refused: %v; ended with status %d, and waiting for ever", onEnd, err, code)
	e.rest()
	return code
}

func (e *ender) say(format string, args ...any) {
	fmt.Fprintf(e.stderr, "pazinit: "+format+"\n", args...)
}

// execShell lets somebody look at what is left, on the console: stdin if that is a
// terminal, in a machine /dev/console. This process becomes one that runs a shell
// alone, as pazinit -- does, and then ends with the status: so orphans are reaped
// and SIGTERM means what it did, and the end of the shell is no panic. then is what
// follows on a machine, "" the end of it. It returns if there is no shell or no
// console.
func execShell(machine bool, code int, then string, port uint16) error {
	shell := findShell()
	if shell == nil {
		return errors.New("there is neither /bin/sh nor a busybox in PATH")
	}
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err != nil {
		if !machine {
			return errors.New("stdin is no terminal")
		}
		if err := useConsole(); err != nil {
			return err
		}
	}
	script := fmt.Sprintf(`"$0" "$@"; exit %d`, code)
	argv := append([]string{"pazinit", "--"}, shell...)
	argv = append(append(argv, "-c", script), shell...)
	if machine {
		reaper.TakeTerminal(0) // for job control
	}
	if machine && then != "" {
		_ = os.Setenv(thenVariable, then)
	}
	if machine && port != 0 {
		_ = os.Setenv(portVariable, portText(port))
	}
	if err := reaper.Exec("/proc/self/exe", argv, os.Environ()); err != nil {
		return fmt.Errorf("execute /proc/self/exe: %w", err)
	}
	return nil
}

// findShell is the command line of a shell, nil if there is none.
func findShell() []string {
	if unix.Access("/bin/sh", unix.X_OK) == nil {
		return []string{"/bin/sh"}
	}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/bin", "/sbin", "/usr/bin") {
		if path := filepath.Join(dir, "busybox"); filepath.IsAbs(path) && unix.Access(path, unix.X_OK) == nil {
			return []string{path, "sh"}
		}
	}
	return nil
}

// useConsole makes /dev/console stdin, stdout and stderr.
func useConsole() error {
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open /dev/console: %w", err)
	}
	defer unix.Close(fd)
	for n := range 3 {
		if err := unix.Dup3(fd, n, 0); err != nil {
			return fmt.Errorf("use /dev/console: %w", err)
		}
	}
	return nil
}
