package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type gate struct {
	bytes.Buffer
	open chan struct{}
}

func (g *gate) Write(p []byte) (int, error) { <-g.open; return g.Buffer.Write(p) }

type broken struct{}

func (broken) Write([]byte) (int, error) { panic("a slip") }

// TestPatient drops and counts what a console does not take, and goes on when it
// takes something again.
func TestPatient(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	w := &patient{to: g, limit: time.Millisecond}
	line := []byte("one\n")
	fmt.Fprintf(w, "%s", line)
	line[0] = 'X'
	for _, s := range []string{"two\n", "three\n"} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	}
	stuck := w.stuck
	if stuck == nil {
		t.Fatal("nothing is stuck")
	}
	close(g.open)
	<-stuck
	w.limit = time.Minute
	fmt.Fprintln(w, "four")
	fmt.Fprintln(w, "five")
	want := "one\npazinit: the console took nothing for a while: 2 lines are lost\nfour\nfive\n"
	if got := g.String(); got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	w = &patient{to: broken{}, limit: time.Minute}
	if _, err := w.Write(line); err != nil || w.stuck != nil {
		t.Errorf("a writer that panics: %v, stuck %t", err, w.stuck != nil)
	}
}

// openPTY is both sides of a new pseudo-terminal; they are closed by the test's end.
func openPTY(t *testing.T) (ptmx, tty *os.File) {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ptmx.Close() })
	if err := unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return ptmx, tty
}

// TestStoppedConsole is a terminal that somebody has stopped by Ctrl-S.
func TestStoppedConsole(t *testing.T) {
	ptmx, tty := openPTY(t)
	seen := make(chan bool)
	go func() {
		lines := bufio.NewScanner(ptmx)
		for lines.Scan() && lines.Text() != "the result" {
		}
		seen <- lines.Text() == "the result"
	}()
	if _, err := ptmx.Write([]byte{'S' & 31}); err != nil {
		t.Fatal(err)
	}
	w := &patient{to: tty, limit: 10 * time.Millisecond}
	for w.stuck == nil { // the key takes its time
		fmt.Fprintln(w, "stopped")
	}
	stuck := w.stuck
	letGo(int(tty.Fd()))
	<-stuck
	w.limit = time.Minute
	fmt.Fprintln(w, "the result")
	if !<-seen {
		t.Error("the line did not come")
	}
}
