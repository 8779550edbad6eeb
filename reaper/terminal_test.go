package reaper

import (
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal makes a pseudo-terminal that is nobody's controlling one.
func openTerminal(t *testing.T) (master, tty int) {
	t.Helper()
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	need(t, "ptmx", err)
	t.Cleanup(func() { unix.Close(master) })
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(tty) })
	return master, tty
}

// terminalOf reads group, session, terminal and its foreground group of a process.
func terminalOf(t *testing.T, pid int) (group, session, terminal, foreground string) {
	t.Helper()
	var buf [1024]byte
	b, err := readSmall("/proc/"+strconv.Itoa(pid)+"/stat", buf[:])
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return f[2], f[3], f[4], f[5]
}

// TestTerminal hands a terminal to a child, from a process that has none and from
// one whose controlling terminal it is.
func TestTerminal(t *testing.T) {
	if !rerun(t, func(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }) {
		return
	}
	signal.Ignore(unix.SIGHUP) // the end of the terminal that is ours
	for _, ours := range []bool{false, true} {
		_, tty := openTerminal(t)
		if ours {
			if err := unix.IoctlSetInt(tty, unix.TIOCSCTTY, 0); err != nil {
				t.Fatal(err)
			}
		}
		b := newBench(t, Options{})
		s := spec("/bin/sleep", "1000")
		s.Files, s.Terminal = [3]int{tty, tty, tty}, true
		run := b.start(s)
		pid := b.up(run)
		session := pid
		if ours {
			session, _ = unix.Getsid(0)
		}
		if g, sid, term, fg := terminalOf(t, pid); g != strconv.Itoa(pid) || sid != strconv.Itoa(session) || term == "0" || fg != strconv.Itoa(pid) {
			t.Errorf("terminal ours %t: child %d has group %s, session %s, terminal %s, foreground %s; want group and foreground %[2]d, session %[7]d", ours, pid, g, sid, term, fg, session)
		}
		// Another child has none of it.
		other := b.start(spec("/bin/sleep", "1000"))
		if _, _, term, _ := terminalOf(t, b.up(other)); term != "0" {
			t.Errorf("terminal ours %t: another child has terminal %s, want none", ours, term)
		}
		for _, run := range []uint64{run, other} {
			if err := b.Signal(run, unix.SIGKILL, true); err != nil {
				t.Error(err)
			}
			b.down(run)
		}
		if ours {
			ReclaimTerminal(tty)
			if fg, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP); err != nil || fg != unix.Getpgrp() {
				t.Errorf("foreground group after ReclaimTerminal = %d, %v, want %d", fg, err, unix.Getpgrp())
			}
		}
		b.Close()
	}
}
