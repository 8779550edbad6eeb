package pazinit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// background carries out, in order and away from the loop, what may block on a
// file system.
type background struct {
	begin, guarded func(where string, f func()) // of the Supervisor

	mu    sync.Mutex
	queue []func()
	busy  bool
	idle  chan struct{} // closed when the queue ran empty; renewed with the next one
}

func newBackground(s *Supervisor) *background {
	return &background{begin: s.begin, guarded: s.guarded}
}

// do has f carried out after those before it.
func (b *background) do(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue = append(b.queue, f)
	if !b.busy {
		b.busy = true
		b.idle = make(chan struct{})
		idle := b.idle
		b.begin("the background", func() { b.work(idle) })
	}
}

func (b *background) work(idle chan struct{}) {
	defer close(idle)
	for {
		b.mu.Lock()
		if len(b.queue) == 0 {
			b.busy = false
			b.mu.Unlock()
			return
		}
		f := b.queue[0]
		b.queue[0] = nil
		b.queue = b.queue[1:]
		b.mu.Unlock()
		b.guarded("the background", f)
	}
}

// close waits for the rest, but not beyond deadline.
func (b *background) close(deadline time.Time) {
	b.mu.Lock()
	idle, busy := b.idle, b.busy
	b.mu.Unlock()
	if !busy {
		return
	}
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case <-idle:
	case <-t.C:
	}
}

// WritePIDFile puts pid and a newline into path, at once or not at all.
func WritePIDFile(path string, pid int) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	_, err = fmt.Fprintf(f, "%d\n", pid)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write pid file %s: %w", path, err)
	}
	return nil
}

// RemovePIDFile removes path if it still names pid.
func RemovePIDFile(path string, pid int) {
	// The folder may be the worker's own, and what lies there now a FIFO that
	// never answers or a link to a file without end.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	var b [32]byte
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return
	}
	if n, _ := f.Read(b[:]); string(bytes.TrimSpace(b[:n])) == strconv.Itoa(pid) {
		_ = os.Remove(path)
	}
}
