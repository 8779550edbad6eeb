package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	pazinit "github.com/pazinit/pazinit/init"
)

// TestEnd is what on_end does at each place. Whatever it does is written down;
// reboot(2) and the shell return, as they do when they are refused.
func TestEnd(t *testing.T) {
	machine := pazinit.Place{PID1: true, Initial: true}
	container := pazinit.Place{PID1: true}
	daemon := pazinit.Place{Initial: true, Daemon: true}
	inside := pazinit.Place{Terminal: true} // below another init
	names := map[int]string{
		unix.LINUX_REBOOT_CMD_POWER_OFF: "poweroff", unix.LINUX_REBOOT_CMD_RESTART: "reboot",
		unix.LINUX_REBOOT_CMD_HALT: "halt", unix.LINUX_REBOOT_CMD_CAD_OFF: "cad",
	}
	const refused = "machine %s, rest"
	for _, tt := range []struct {
		place pazinit.Place
		blind bool
		onEnd string
		did   string
		says  string // of the last line
	}{
		{container, false, "", "", ""},
		{container, false, "exit", "", ""},
		{container, false, "poweroff", "poweroff", "poweroff was refused: operation not permitted (it takes CAP_SYS_BOOT); ended with status 7"},
		{container, false, "reboot", "reboot", "ended with status 7"},
		{container, false, "halt", "halt", "ended with status 7"},
		{container, false, "shell", "shell", "without a shell: there is none"},
		{machine, false, "", fmt.Sprintf(refused, "poweroff"), "poweroff was refused: operation not permitted; ended with status 7, and waiting for ever"},
		{machine, false, "exit", fmt.Sprintf(refused, "poweroff"), "ended with status 7"},
		{machine, false, "reboot", fmt.Sprintf(refused, "reboot"), "ended with status 7"},
		{machine, false, "halt", fmt.Sprintf(refused, "halt"), "ended with status 7"},
		{machine, false, "kexec", fmt.Sprintf(refused, "kexec"), "ended with status 7"},
		{machine, false, "shell", "shell, machine poweroff, rest", "ended with status 7"},
		{daemon, false, "", "", ""},
		{daemon, false, "exit", "", ""},
		{daemon, false, "poweroff", "", "on_end: poweroff is left to PID 1, which this is not; ended with status 7"},
		{daemon, false, "reboot", "", "ended with status 7"},
		{inside, false, "halt", "", "ended with status 7"},
		{inside, false, "shell", "shell", "without a shell: there is none"},
		{container, true, "", "cad", ""}, // refused: it is a container
	} {
		name := fmt.Sprintf("%+v %s", tt.place, tt.onEnd)
		var did []string
		var out bytes.Buffer
		note := func(what string) { did = append(did, what) }
		e := &ender{
			place: tt.place, blind: tt.blind, stderr: &out,
			reboot: func(cmd int) error { note(names[cmd]); return unix.EPERM },
			machine: func(what string, code int) error {
				note("machine " + what)
				if code != 7 {
					t.Errorf("%s: the machine's result is %d", name, code)
				}
				return unix.EPERM
			},
			rest:  func() { note("rest") },
			shell: func(bool, int) error { note("shell"); return errors.New("there is none") },
		}
		if got := e.end(tt.onEnd, 7); got != 7 {
			t.Errorf("%s: end = %d, want 7", name, got)
		}
		if got := strings.Join(did, ", "); got != tt.did {
			t.Errorf("%s: did %q, want %q", name, got, tt.did)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, tt.says) || tt.says == "" && last != "" {
			t.Errorf("%s: the last line is %q, want %q", name, last, tt.says)
		}
	}
}

// TestEndOfAMachineWithoutProc never returns to main before it has tried to
// switch it off.
func TestEndOfAMachineWithoutProc(t *testing.T) {
	var did []string
	e := &ender{
		place: pazinit.Place{PID1: true}, blind: true, stderr: new(bytes.Buffer),
		reboot: func(cmd int) error {
			if cmd != unix.LINUX_REBOOT_CMD_CAD_OFF {
				t.Errorf("reboot(%#x)", cmd)
			}
			return nil
		},
		machine: func(what string, _ int) error { did = append(did, what); return unix.EINVAL },
		rest:    func() { did = append(did, "rest") },
	}
	e.end("", 0)
	if want := []string{"poweroff", "rest"}; !slices.Equal(did, want) {
		t.Errorf("did %v, want %v", did, want)
	}
}

// TestEndBesides does nothing for a process that is not the first.
func TestEndBesides(t *testing.T) {
	var out bytes.Buffer
	c := &command{stdout: &out, stderr: &out}
	if got := c.end(3); got != 3 || out.Len() != 0 {
		t.Errorf("end(3) = %d, said %q", got, out.String())
	}
}
