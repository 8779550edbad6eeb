package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// consoleLimit is how long a line waits for a console that takes nothing.
const consoleLimit = time.Second

// A patient writes to a console that may take nothing: a terminal that Ctrl-S has
// stopped, a serial line whose other side is not ready, a virtual one without a
// host. A machine must not stand there for that: a line waits for limit at most,
// and while one is stuck the others are dropped and counted. It writes in a
// goroutine, and one at most hangs.
type patient struct {
	to    io.Writer
	limit time.Duration

	mu      sync.Mutex
	stuck   chan struct{} // closed when what is stuck was taken; nil: nothing is
	dropped int
}

// Write never fails. p is copied where it is stuck.
func (w *patient) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stuck != nil {
		select {
		case <-w.stuck:
			w.stuck = nil
		default:
			w.dropped++
			return len(p), nil
		}
	}
	line := append([]byte(nil), p...)
	if n := w.dropped; n > 0 {
		w.dropped = 0
		line = append(fmt.Appendf(nil, "pazinit: the console took nothing for a while: %d lines are lost\n", n), line...)
	}
	done := make(chan struct{})
	go func() {
		defer func() { _ = recover() }() // there is nobody to tell
		defer close(done)
		_, _ = w.to.Write(line)
	}()
	limit := time.NewTimer(w.limit)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		w.stuck = done
	}
	return len(p), nil
}

// letGo starts a terminal that was stopped by Ctrl-S or tcflow(3). One that is
// stopped by its user is started by TCOON only after a TCOOFF
// (n_tty_ioctl_helper, drivers/tty/tty_ioctl.c). Nothing of it waits.
func letGo(fd int) {
	_ = unix.IoctlSetInt(fd, unix.TCXONC, unix.TCOOFF)
	_ = unix.IoctlSetInt(fd, unix.TCXONC, unix.TCOON)
}
