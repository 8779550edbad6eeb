package output

import (
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	logQueue       = 256 << 10 // bytes that may wait for the log's file
	maxMessage     = 8 << 10
	facilityDaemon = 3 << 3
)

// ownLog is where pazinit's own messages go: the console's stderr, a file, or
// the datagram socket of syslog.
type ownLog struct {
	hub    *Hub
	file   *file // not nil: log_path is a file
	queued int   // bytes; Hub.mu
	empty  []chan struct{}

	syslog string      // not "": the socket's path
	ours   atomic.Bool // it is served here
	mu     sync.Mutex
	fd     int
	buf    []byte
	closed bool
	missed uint64 // messages since the socket was last there
}

func (l *ownLog) init(h *Hub) {
	l.hub, l.fd = h, -1
	switch h.opt.LogPath {
	case "":
	case "syslog":
		l.syslog = h.opt.SyslogPath
		if l.syslog == "" {
			l.syslog = "/dev/log"
		}
	default:
		h.mu.Lock()
		l.file = h.attachFile(h.opt.LogPath, h.self, &Target{Kind: "file"})
		l.file.trouble.ours = true
		h.mu.Unlock()
	}
}

// Log writes one message of pazinit's own. level is info, warning, error or
// debug; msg is one sentence, and control characters in it are made harmless.
// It never waits: what does not fit anywhere is counted in [Lost].
func (h *Hub) Log(level, msg string) {
	h.say(h.self, level, clean(msg), false)
}

// say is Log of a clean line, which src keeps. quiet keeps it from the console.
func (h *Hub) say(src *Source, level string, line []byte, quiet bool) {
	now := time.Now()
	t := now.UnixNano()
	kept := line
	if level != "info" && level != "notice" && level != "" {
		kept = append([]byte(level+": "), line...)
	}
	kept = append(kept[:len(kept):len(kept)], '\n')
	pos := src.ring.append(h, 0, kept, t, whole, 0)
	if fs := h.followers.Load(); fs != nil {
		for _, f := range *fs {
			f.take(src, 0, kept, t, whole, 0, pos)
		}
	}
	if level == "" {
		level = "info"
	}
	switch {
	case h.log.file != nil:
		h.log.toFile(line, kept, t, now, level)
	case quiet:
	case h.log.syslog != "" && !h.log.ours.Load():
		if !h.log.send(line, now, level) {
			h.err.note(line, t, level)
		}
	default:
		h.err.note(line, t, level)
	}
}

// clean returns msg as one line that cannot pass for two, nor move a cursor.
func clean(msg string) []byte {
	if len(msg) > maxMessage {
		msg = msg[:maxMessage] + "..."
	}
	b := make([]byte, 0, len(msg)+1)
	for i := 0; i < len(msg); i++ {
		if c := msg[i]; c < ' ' && c != '\t' || c == 0x7f {
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

func (l *ownLog) toFile(line, kept []byte, t int64, now time.Time, level string) {
	h := l.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	f := l.file
	before := len(f.pending)
	if before > logQueue || h.wakefd < 0 {
		h.lost.log.Add(uint64(len(kept)))
		return
	}
	if h.opt.Format == "json" {
		f.pending = appendJSON(f.pending, selfName, 0, level, line, t, false)
	} else {
		f.pending = now.AppendFormat(f.pending, "2006-01-02T15:04:05.000Z07:00 ")
		f.pending = append(append(f.pending, selfName+" | "...), kept...)
	}
	l.queued += len(f.pending) - before
	f.ask()
}

// wrote is told by the file, without Hub.mu.
func (l *ownLog) wrote(n int) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if l.queued -= n; l.queued == 0 {
		for _, c := range l.empty {
			close(c)
		}
		l.empty = nil
	}
}

func (l *ownLog) drained() <-chan struct{} {
	c := make(chan struct{})
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if l.queued == 0 {
		close(c)
	} else {
		l.empty = append(l.empty, c)
	}
	return c
}

// close is called with Hub.mu held.
func (l *ownLog) close() {
	if l.file != nil {
		l.file.detach(&l.file.self)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
	l.closed = true
}

// send writes one datagram and connects again if the daemon was restarted.
func (l *ownLog) send(line []byte, now time.Time, level string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.missed > 0 {
		msg := strconv.FormatUint(l.missed, 10) + " messages did not reach syslog"
		if !l.datagram([]byte(msg), now, "warning") {
			l.missed++
			return false
		}
		l.missed = 0
	}
	if l.datagram(line, now, level) {
		return true
	}
	l.missed++
	l.hub.lost.log.Add(uint64(len(line)))
	return false
}

func (l *ownLog) datagram(line []byte, now time.Time, level string) bool {
	severity := 6
	switch level {
	case "error":
		severity = 3
	case "warning":
		severity = 4
	case "debug":
		severity = 7
	}
	b := append(l.buf[:0], '<')
	b = strconv.AppendInt(b, int64(facilityDaemon|severity), 10)
	b = now.AppendFormat(append(b, '>'), "Jan _2 15:04:05 ")
	b = append(b, selfName+"["...)
	b = strconv.AppendInt(b, int64(os.Getpid()), 10)
	b = append(append(b, "]: "...), line...)
	l.buf = b
	for range 2 {
		if l.fd < 0 && !l.connect() {
			return false
		}
		err := unix.Sendto(l.fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
		if err == nil {
			return true
		}
		if err == unix.EAGAIN || err == unix.ENOBUFS {
			return false
		}
		unix.Close(l.fd)
		l.fd = -1
	}
	return false
}

func (l *ownLog) connect() bool {
	if l.closed {
		return false
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: l.syslog}); err != nil {
		unix.Close(fd)
		return false
	}
	l.fd = fd
	return true
}
