package reaper

import (
	"bufio"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStuckStarts: a start that waits for a processor is not stuck, nor one that
// has executed its program; one that waits for anything else is.
func TestStuckStarts(t *testing.T) {
	b := newBench(t, Options{})
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r, w := pipe(t)
	// What it forks executes nothing: a shell's own loop, and its own wait.
	s := spec("/bin/sh", "-c", `(while :; do :; done) & a=$!; (read x <"$0") & echo $$ $a $!; wait`, fifo)
	s.Files[1] = int(w.Fd())
	run := b.start(s)
	var executed, busy, waits int32
	if _, err := fmt.Fscan(bufio.NewReader(r), &executed, &busy, &waits); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Signal(run, unix.SIGKILL, true); err != nil {
			t.Error(err)
		}
		b.of(run)
	}()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if s, err := readStat(int(waits)); err != nil {
			t.Fatal(err)
		} else if !s.ready {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the one that waits does not")
		}
	}
	for name, tt := range map[string]struct {
		pid  int32
		want bool
	}{"executed": {executed, false}, "busy": {busy, false}, "waits": {waits, true}, "not forked": {0, true}} {
		c := &child{flight: &flight{pid: tt.pid}}
		b.mu.Lock()
		b.through = time.Time{}
		b.flying[c] = struct{}{}
		b.spawning++
		b.mu.Unlock()
		b.unstickOnce()
		b.mu.Lock()
		if c.stuck != tt.want {
			t.Errorf("%s: stuck is %v, want %v", name, c.stuck, tt.want)
		}
		delete(b.flying, c)
		if c.stuck {
			b.stuck--
		} else {
			b.spawning--
		}
		b.mu.Unlock()
	}
}
