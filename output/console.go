package output

import (
	"encoding/base64"
	"errors"
	"os"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	consoleQueue = 1 << 20 // bytes that may wait, those in write(2) included
	consoleWrite = 64 << 10
	keepQueue    = 4 << 10 // of an empty queue's memory
	selfName     = "pazinit"
	othersName   = "syslog"
)

// A console is pazinit's own stdout or stderr, or both when they are one file.
// A goroutine writes while there is something to write, and ends then.
type console struct {
	hub    *Hub
	fd     int
	format string
	color  bool
	block  bool

	mu      sync.Mutex
	buf     []byte // queued
	used    int    // queued and being written
	writing bool
	waiting []*stream
	room    chan struct{} // closed when there is some; nil: nobody waits
	dropped uint64        // lines, not yet said
	torn    bool          // the last write ended within a line; of run alone
	second  int64         // clock is of it
	clock   []byte        // "15:04:05 "
	empty   []chan struct{}

	trouble trouble
}

func (h *Hub) openConsoles() {
	h.out = h.newConsole(h.opt.Stdout, "write stdout")
	h.err = h.out
	if !sameFile(h.opt.Stdout, h.opt.Stderr) {
		h.err = h.newConsole(h.opt.Stderr, "write stderr")
	}
}

func (h *Hub) newConsole(f *os.File, what string) *console {
	c := &console{hub: h, fd: int(f.Fd()), format: h.opt.Format, block: h.opt.ConsoleFull == "block"}
	c.trouble.what, c.trouble.total = what, &h.lost.console
	if c.format == "auto" {
		c.format = "plain"
	}
	switch h.opt.Color {
	case "always":
		c.color = true
	case "never":
	default:
		_, err := unix.IoctlGetTermios(c.fd, unix.TCGETS)
		c.color = err == nil && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return c
}

// letOpen lets everybody write to the console when they open it anew, as
// /dev/stdout of a worker that inherits it, where that harms nobody: only its
// holders come to a pipe without a name, and what is lost with a pseudo-terminal
// is what mesg(1) allows. A file's permissions are somebody else's.
func (c *console) letOpen() {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if !c.hub.opt.OpenConsole || unix.Fstat(c.fd, &st) != nil || unix.Fstatfs(c.fd, &fs) != nil {
		return
	}
	if fs.Type != unix.PIPEFS_MAGIC && fs.Type != unix.DEVPTS_SUPER_MAGIC || st.Mode&unix.S_IWOTH != 0 {
		return
	}
	_ = unix.Fchmod(c.fd, st.Mode&0o7777|unix.S_IWOTH) // if not, its worker says what it cannot do
}

func sameFile(a, b *os.File) bool {
	var x, y unix.Stat_t
	return unix.Fstat(int(a.Fd()), &x) == nil && unix.Fstat(int(b.Fd()), &y) == nil &&
		x.Dev == y.Dev && x.Ino == y.Ino && x.Mode&unix.S_IFMT == y.Mode&unix.S_IFMT
}

func (h *Hub) console(which uint8) *console {
	if which == isStdout {
		return h.out
	}
	return h.err
}

func (c *console) acquire(s *stream) bool {
	if !c.block {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used < consoleQueue {
		return true
	}
	c.waiting = append(c.waiting, s)
	return false
}

func (c *console) release(*stream) {}
func (c *console) detach(*stream)  {}
func (c *console) waits() bool     { return false }

func (c *console) write(s *stream, data []byte, t int64, kind ending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.block && c.used >= consoleQueue {
		c.dropped += countLines(data)
		c.trouble.total.Add(uint64(len(data)))
		return
	}
	c.sayDropped(t)
	before := len(c.buf)
	if s.raw {
		c.buf = append(c.buf, data...)
	} else {
		cont := s.cont
		eachLine(data, kind, func(line []byte, partial bool) bool {
			c.line(s.src, s.which, line, t, cont, partial, levels[s.level])
			cont = partial
			return true
		})
	}
	c.queued(len(c.buf) - before)
}

func (c *console) sayDropped(t int64) {
	if c.dropped > 0 {
		before := len(c.buf)
		msg := strconv.FormatUint(c.dropped, 10) + " lines were dropped: the console was full"
		c.dropped = 0
		c.line(c.hub.self, 0, []byte(msg), t, false, false, "warning")
		c.queued(len(c.buf) - before)
	}
}

func (c *console) queued(n int) {
	c.used += n
	if !c.writing && len(c.buf) > 0 {
		c.writing = true
		c.hub.begin("the console", c.run)
	}
}

// note queues a message of pazinit's own; it never waits. False when full.
func (c *console) note(msg []byte, t int64, level string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used >= consoleQueue+consoleQueue/16 { // a little more than workers may
		c.dropped++
		c.trouble.total.Add(uint64(len(msg)))
		return false
	}
	c.sayDropped(t)
	before := len(c.buf)
	c.line(c.hub.self, 0, msg, t, false, false, level)
	c.queued(len(c.buf) - before)
	return true
}

var colors = [...]string{"36", "33", "32", "35", "34", "96", "93", "92", "95", "94"}

// line appends one formatted line to buf.
func (c *console) line(src *Source, which uint8, line []byte, t int64, cont, partial bool, level string) {
	if c.format == "json" {
		c.buf = appendJSON(c.buf, src.cfg.Name, which, level, line, t, partial)
		return
	}
	if s := t / 1e9; s != c.second || c.clock == nil {
		c.second = s
		c.clock = time.Unix(s, 0).AppendFormat(c.clock[:0], "15:04:05 ")
	}
	b := c.buf
	if c.color {
		code := "1"
		if which != 0 {
			code = colors[src.color]
		}
		b = append(b, "\x1b["+code+"m"...)
	}
	b = append(b, c.clock...)
	b = append(b, src.cfg.Name...)
	for i := len(src.cfg.Name); i < int(c.hub.nameWidth.Load()); i++ {
		b = append(b, ' ')
	}
	b = append(b, ' ')
	if cont {
		b = append(b, '+') // the line before goes on here
	} else {
		b = append(b, '|')
	}
	if c.color {
		b = append(b, "\x1b[0m"...)
	}
	b = append(b, ' ')
	if which == 0 && level != "" && level != "info" && level != "notice" {
		b = append(b, level...)
		b = append(b, ": "...)
	}
	b = append(b, line...)
	c.buf = append(b, '\n')
}

// appendJSON appends {"time","name","stream","line"} and a newline. Bytes that
// are not UTF-8 go into "bytes" as base64 instead of "line".
func appendJSON(b []byte, name string, which uint8, level string, line []byte, t int64, partial bool) []byte {
	b = append(b, `{"time":"`...)
	b = time.Unix(0, t).AppendFormat(b, "2006-01-02T15:04:05.000000Z07:00")
	b = append(b, `","name":`...)
	b = appendString(b, []byte(name))
	if which != 0 {
		b = append(b, `,"stream":"`...)
		b = append(b, streamNames[which]...)
		b = append(b, '"')
	}
	if level != "" {
		b = append(b, `,"level":"`...)
		b = append(b, level...)
		b = append(b, '"')
	}
	if utf8.Valid(line) {
		b = append(b, `,"line":`...)
		b = appendString(b, line)
	} else {
		b = append(b, `,"bytes":"`...)
		b = base64.StdEncoding.AppendEncode(b, line)
		b = append(b, '"')
	}
	if partial {
		b = append(b, `,"partial":true`...)
	}
	return append(b, '}', '\n')
}

// appendString appends valid UTF-8 as a JSON string.
func appendString(b, s []byte) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for len(s) > 0 {
		i := 0
		for i < len(s) && s[i] >= ' ' && s[i] != '"' && s[i] != '\\' && s[i] != 0x7f {
			i++
		}
		b = append(b, s[:i]...)
		if i == len(s) {
			break
		}
		switch ch := s[i]; ch {
		case '"', '\\':
			b = append(b, '\\', ch)
		case '\t':
			b = append(b, '\\', 't')
		case '\r':
			b = append(b, '\\', 'r')
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[ch>>4], hex[ch&15])
		}
		s = s[i+1:]
	}
	return append(b, '"')
}

// run writes the queue until it is empty. If the console is stalled, it is this
// goroutine that waits.
func (c *console) run() {
	var spare []byte
	for {
		c.mu.Lock()
		if len(c.buf) == 0 {
			c.writing = false
			if cap(c.buf) > keepQueue {
				c.buf = nil
			}
			for _, e := range c.empty {
				close(e)
			}
			c.empty = nil
			c.mu.Unlock()
			return
		}
		out := c.buf
		c.buf = spare[:0]
		c.mu.Unlock()
		c.writeAll(out)
		spare = out
	}
}

// writeAll writes what was taken from the queue. After a panic the rest is lost.
func (c *console) writeAll(p []byte) {
	left := len(p)
	defer func() {
		if v := recover(); v != nil {
			c.hub.panicked("the console", v)
			c.trouble.total.Add(uint64(left))
			c.wrote(left)
			t := time.NewTimer(panicPause)
			<-t.C
		}
	}()
	for len(p) > 0 {
		n := min(len(p), consoleWrite)
		c.hub.fault("console")
		c.put(p[:n])
		p = p[n:]
		left -= n
		c.wrote(n)
	}
}

// wrote takes n bytes off the queue, and wakes those that wait for room.
func (c *console) wrote(n int) {
	c.mu.Lock()
	c.used -= n
	var list []*stream
	if c.used <= consoleQueue/2 {
		list, c.waiting = c.waiting, nil
		if c.room != nil {
			close(c.room)
			c.room = nil
		}
	}
	c.mu.Unlock()
	if list != nil {
		c.hub.mu.Lock()
		defer c.hub.mu.Unlock()
		c.hub.wake(list)
	}
}

// put writes p or counts what it could not write. It never tries again what
// failed for good, so a dead console costs nothing.
func (c *console) put(p []byte) {
	if c.torn && c.format != "raw" { // a full disk has room again, if this succeeds
		if _, err := c.send([]byte{'\n'}); err != nil {
			c.trouble.fail(c.hub, err, len(p))
			return
		}
	}
	c.torn = false
	n, err := c.send(p)
	if err != nil {
		c.torn = n > 0 && p[n-1] != '\n'
		c.trouble.fail(c.hub, err, len(p)-n)
		return
	}
	if c.trouble.lost.Load() > 0 {
		c.trouble.over(c.hub, time.Now().UnixNano())
	}
}

// send writes p, and waits if it must, but for what fails for good.
func (c *console) send(p []byte) (done int, err error) {
	for done < len(p) {
		n, err := unix.Write(c.fd, p[done:])
		switch {
		case n > 0:
			done += n
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN): // somebody else made it O_NONBLOCK
			fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLOUT}}
			if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
				return done, err
			}
		case err == nil:
			return done, errors.New("nothing was written")
		default:
			return done, err
		}
	}
	return done, nil
}

// drained is closed once nothing waits any more.
func (c *console) drained() <-chan struct{} {
	e := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.writing {
		close(e)
	} else {
		c.empty = append(c.empty, e)
	}
	return e
}
