package main

import (
	"io"
	"os"
	"strings"

	"github.com/pazinit/pazinit/machine"
)

func (h *host) readLine() error {
	line, err := machine.ReadCmdline("")
	h.line = line
	for _, e := range line.Unknown {
		h.say("%v", e)
	}
	return err
}

// machineArgs sorts the arguments of a machine's init. The kernel gives it every
// word of its command line that it does not know itself (Documentation/admin-guide/
// kernel-parameters.rst), so that what makes no sense here is no error. Whoever
// executes this program on a machine as another init does may say run, flags and
// names, or -- and a command.
func (c *command) machineArgs(args []string) (kept, ignored []string) {
	if len(args) == 0 {
		return nil, nil
	}
	if _, _, ok := c.parseQuietly(args); ok {
		return args, nil
	}
	return nil, args
}

// parseQuietly reads the arguments of supervising; ok is false when they are none.
func (c *command) parseQuietly(args []string) (o options, names bool, ok bool) {
	quiet := &command{stdout: io.Discard, stderr: io.Discard}
	if len(args) > 0 && args[0] == "run" {
		o, _, ok = quiet.parse(args[1:], true)
		return o, true, ok
	}
	o, _, ok = quiet.parse(args, false)
	return o, false, ok && len(o.names) == 0
}

// kept are the variables that the kernel's command line may give to everybody.
var kept = []string{"HOME", "LANG", "PATH", "TERM", "TZ"}

// cleanEnvironment takes away what the kernel made of words of its command line,
// such as BOOT_IMAGE=/vmlinuz, and sets what every program expects.
func (h *host) cleanEnvironment() error {
	line, err := os.ReadFile("/proc/cmdline")
	if err == nil {
		words := " " + strings.Join(strings.Fields(string(line)), " ")
		for _, kv := range os.Environ() {
			key, _, _ := strings.Cut(kv, "=")
			if !contains(kept, key) && strings.Contains(words, " "+key+"=") {
				_ = os.Unsetenv(key)
			}
		}
	}
	for _, v := range [][2]string{
		{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		{"HOME", "/"},
		{"TERM", terminalType(h.console)},
	} {
		if os.Getenv(v[0]) == "" {
			_ = os.Setenv(v[0], v[1])
		}
	}
	// The kernel says TERM=linux whatever the console is (init/main.c).
	if os.Getenv("TERM") == "linux" && terminalType(h.console) != "linux" && !strings.Contains(" "+string(line), " TERM=") {
		_ = os.Setenv("TERM", terminalType(h.console))
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// terminalType is what TERM should say of a console: the kernel's own terminals
// are named tty and a number, what is behind others is mostly an emulator.
func terminalType(console string) string {
	if n, ok := strings.CutPrefix(console, "/dev/tty"); ok && (n == "" || n[0] >= '0' && n[0] <= '9') {
		return "linux"
	}
	return "vt220"
}
