package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
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
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // then nothing is known to come of it
	}
	h.env = os.Environ()
	env := environment(h.env, string(line), h.console)
	os.Clearenv()
	for _, kv := range env {
		key, value, _ := strings.Cut(kv, "=")
		if e := os.Setenv(key, value); e != nil && err == nil {
			err = fmt.Errorf("set %q: %w", key, e)
		}
	}
	return err
}

// environment is that of a machine, made of what init was started with.
func environment(env []string, line, console string) []string {
	words := strings.Fields(line)
	given := func(key string) bool { // on the kernel's command line
		return slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(strings.TrimLeft(w, `"`), key+"=") })
	}
	value := map[string]string{}
	var out, keys []string
	for _, kv := range env {
		key, v, ok := strings.Cut(kv, "=")
		switch {
		case !ok || key == "" || given(key) && !slices.Contains(kept, key):
			continue
		case key == "TERM" && v == "linux" && !given(key):
			continue // the kernel says that whatever the console is (init/main.c)
		}
		keys = append(keys, key)
		value[key] = v
	}
	for _, d := range [][2]string{
		{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, {"HOME", "/"}, {"TERM", terminalType(console)},
	} {
		if value[d[0]] == "" {
			keys = append(keys, d[0])
			value[d[0]] = d[1]
		}
	}
	for i, key := range keys {
		if slices.Index(keys, key) == i {
			out = append(out, key+"="+value[key])
		}
	}
	return out
}

// terminalType is what TERM should say of a console: the kernel's own terminals
// are named tty and a number, what is behind others is mostly an emulator.
func terminalType(console string) string {
	if n, ok := strings.CutPrefix(console, "/dev/tty"); ok && (n == "" || n[0] >= '0' && n[0] <= '9') {
		return "linux"
	}
	return "vt220"
}
