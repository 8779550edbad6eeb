package output

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A Logger is the pipe into a logger process (pipe_to). The process itself is
// the caller's to start and supervise, with Stdin as its descriptor 0. Both ends
// are held open here, so that nothing in the pipe is lost when the logger dies.
// While the logger is slow or away, its workers wait once the pipe is full.
type Logger struct {
	hub  *Hub
	name string
	id   int32
	rfd  int
	wfd  int // O_NONBLOCK

	// Hub.mu
	users   int
	busy    bool
	full    bool // rest is not empty: epoll says when to go on
	closing bool
	waiting []*stream

	// owned with busy
	rest  []byte // what the pipe did not take
	owner *stream
	mid   bool
}

// Logger makes the pipe of one logger; several streams, and several instances
// of a worker, may use it: then each writes whole lines. uid and gid are the
// identity that the logger process runs as. Close it after the Sources that
// use it.
func (h *Hub) Logger(name string, uid, gid int) (*Logger, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make pipe of logger %s: %w", name, err)
	}
	l := &Logger{hub: h, name: name, rfd: p[0], wfd: p[1]}
	err := unix.SetNonblock(l.wfd, true)
	if err == nil && (uid != unix.Geteuid() || gid != unix.Getegid()) {
		if err = unix.Fchown(l.rfd, uid, gid); errors.Is(err, unix.EPERM) {
			err = nil
		}
	}
	if err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, fmt.Errorf("set pipe of logger %s: %w", name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		l.id, err = h.watch(l.wfd, l, 0)
	} else {
		err = fmt.Errorf("output is closed")
	}
	if err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, fmt.Errorf("make pipe of logger %s: %w", name, err)
	}
	h.loggers[l] = struct{}{}
	return l, nil
}

// Stdin is the descriptor to make the logger's 0 of: it belongs to the Logger,
// has close-on-exec set and stays the same over restarts; -1 after Close.
func (l *Logger) Stdin() int {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	return l.rfd
}

// End closes our writing end once nothing is left to write, so that the logger
// reads to the end and exits by itself: call it at shutdown, after the workers'
// Flush. It does not wait.
func (l *Logger) End() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.closing = true
	l.end()
}

func (l *Logger) end() {
	if l.closing && !l.busy && !l.full && l.wfd >= 0 {
		l.hub.unwatch(l.wfd, l.id)
		unix.Close(l.wfd)
		l.wfd = -1
	}
}

// Close closes both ends, whatever is in the pipe.
func (l *Logger) Close() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	l.close()
}

func (l *Logger) close() {
	l.closing, l.full = true, false
	if !l.busy {
		l.end()
	}
	if l.rfd >= 0 {
		unix.Close(l.rfd)
		l.rfd = -1
	}
	delete(l.hub.loggers, l)
	list := l.waiting
	l.waiting = nil
	l.hub.wake(list) // what they have is lost, and counted
}

// ready is called when the pipe has room again. Hub.mu is held.
func (l *Logger) ready() {
	if !l.full || l.busy {
		return
	}
	n, err := unix.Write(l.wfd, l.rest)
	if n > 0 {
		l.rest = l.rest[n:]
	}
	if len(l.rest) > 0 && (err == nil || err == unix.EAGAIN || err == unix.EINTR) {
		l.hub.rearm(l.wfd, l.id, unix.EPOLLOUT)
		return
	}
	l.hub.lost.writers.Add(uint64(len(l.rest)))
	l.rest, l.full = nil, false
	list := l.waiting
	l.waiting = nil
	l.hub.wake(list)
	l.end()
}

func (l *Logger) acquire(s *stream) bool {
	if l.busy || l.full {
		l.waiting = append(l.waiting, s)
		return false
	}
	l.busy = true
	return true
}

func (l *Logger) release(*stream) {
	l.busy = false
	if l.full = len(l.rest) > 0 && l.wfd >= 0; l.full {
		l.hub.rearm(l.wfd, l.id, unix.EPOLLOUT)
		if l.closing && l.rfd < 0 {
			l.full = false
			l.end()
		}
		return
	}
	list := l.waiting
	l.waiting = nil
	l.hub.wake(list)
	l.end()
}

// waits is false: a turn reads no more than rest may hold, and the write does
// not block.
func (l *Logger) waits() bool { return false }

func (l *Logger) detach(s *stream) {
	l.users--
	if !l.busy && l.owner == s {
		l.owner = nil
	}
}

func (l *Logger) write(s *stream, data []byte, _ int64, _ ending) {
	if l.mid && l.owner != s {
		l.put([]byte("\\\n"))
	}
	l.put(data)
	l.owner, l.mid = s, data[len(data)-1] != '\n'
}

func (l *Logger) put(p []byte) {
	for len(l.rest) == 0 && len(p) > 0 {
		n, err := unix.Write(l.wfd, p)
		if n > 0 {
			p = p[n:]
			continue
		}
		if err == unix.EINTR {
			continue
		}
		if err != unix.EAGAIN { // closed: the caller ended it before its workers
			l.hub.lost.writers.Add(uint64(len(p)))
			return
		}
		break
	}
	l.rest = append(l.rest, p...)
}
