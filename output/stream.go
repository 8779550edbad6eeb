package output

import (
	"bytes"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// The states of a stream; Hub.mu guards them. It is owned by exactly one of
// epoll, the queue, a runner, a sink's waiting list and the timers.
const (
	idle   = iota // not in epoll: a file's own turn
	armed         // in epoll
	queued        // in the queue
	busy          // a runner has it
	parked        // in a sink's waiting list
	paused        // in the timers: hot, the pipe may fill meanwhile
	gone          // closed
)

// A hot stream is read at intervals in which its pipe about a third fills: that
// costs a tenth of reading each line at once. See adapt.
const (
	hotGap   = 2_000_000 // ns between two turns
	hotTurns = 4         // so many in a row
	pauseMin = 100_000
	pauseNew = 500_000
	pauseMax = 20_000_000 // a line is never later than this
	pipeBig  = 1 << 20
)

// A sink is where a stream goes besides the ring.
type sink interface {
	// acquire takes the sink for one turn. If it says no, it has kept s and
	// will wake it. Hub.mu is held.
	acquire(s *stream) bool
	release(s *stream) // Hub.mu is held
	waits() bool       // a write may block
	// write takes what was read, between acquire and release. t is in unix
	// nanoseconds; kind says how data ends.
	write(s *stream, data []byte, t int64, kind ending)
	detach(s *stream) // s will not come again. Hub.mu is held
}

// An ending says how a piece of output ends.
type ending uint8

const (
	whole ending = iota // with a newline
	cut                 // inside a line that is longer than maxLine
	last                // inside a line; the run is over
)

// A stream is the stdout or stderr of one instance.
type stream struct {
	src     *Source
	sink    sink
	upkeep  func() // not nil: no pipe, a file's own turn
	id      int32
	rfd     int // ours, O_NONBLOCK
	wfd     int // the worker's; held open, so that the pipe outlives its runs
	which   uint8
	raw     bool // the console takes bytes as they come
	grown   bool
	cont    bool // the next bytes continue a line that was cut
	state   uint8
	streak  uint8
	pause   int64
	due     int64
	lastRun int64
	size    int    // of the pipe
	carry   []byte // the unfinished last line

	said   *said      // what came another way, see Say; nil: nothing. Hub.mu
	saying []saidLine // what of it this turn delivers
	level  uint8      // of the line that is delivered

	filed    atomic.Int64 // bytes given to the file
	flushed  []*flushWait
	flushing []*flushWait // those that this turn serves
}

// A flushWait is one call of Flush: done is closed when left streams are.
type flushWait struct {
	left int
	done chan struct{}
}

func (w *flushWait) one() {
	if w.left--; w.left == 0 {
		close(w.done)
	}
}

var streamNames = [...]string{"", "stdout", "stderr"}

const (
	isStdout = 1
	isStderr = 2
)

// ready is called by the loop with Hub.mu held.
func (s *stream) ready() {
	if s.state == armed {
		s.src.hub.enqueue(s)
	}
}

// safeTurn is turn, whose panic costs what this turn has read and no more.
func (s *stream) safeTurn(b []byte) (more bool, total int, failed bool) {
	defer func() {
		if v := recover(); v != nil {
			s.src.hub.panicked("output of "+s.src.cfg.Name, v)
			s.level, s.saying, s.carry, s.cont = 0, nil, nil, false
			more, failed = false, true
		}
	}()
	s.src.hub.fault("turn")
	more, total = s.turn(b)
	return more, total, false
}

// turn reads and delivers. It says whether there may be more, and how much it read.
func (s *stream) turn(b []byte) (more bool, total int) {
	if s.upkeep != nil {
		s.upkeep()
		return false, 0
	}
	limit := turnSize
	flush := len(s.flushing) > 0
	if flush {
		// All that was in the pipe when Flush was called is in its first
		// size bytes; the worker may have changed that size.
		if n, err := unix.FcntlInt(uintptr(s.rfd), unix.F_GETPIPE_SZ, 0); err == nil {
			limit = max(limit, n)
		}
	}
	size := readSize
	if !s.sink.waits() {
		size = maxLine // what a console's queue may grow over its bound
	}
	s.sayAll()
	have := copy(b, s.carry)
	for {
		room := b[have:min(have+size, len(b))]
		n, err := unix.Read(s.rfd, room)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		total += n
		have = s.take(b, have, n)
		if n < len(room) {
			break
		}
		if total >= limit {
			more = true
			break
		}
		if !flush && !s.sink.waits() {
			more = true // look at the queue again
			break
		}
	}
	if flush && have > 0 {
		s.deliver(b[:have], time.Now().UnixNano(), last)
		have = 0
	}
	if have > 0 {
		s.carry = append(s.carry[:0], b[:have]...)
	} else if s.carry != nil {
		s.carry = nil
	}
	return more, total
}

// take delivers the whole lines of b[:have+n], of which the last n bytes are
// new, and returns how much of an unfinished line it moved to b's beginning.
func (s *stream) take(b []byte, have, n int) int {
	now := time.Now().UnixNano()
	if s.raw {
		s.sink.write(s, b[have:have+n], now, whole)
	}
	end := bytes.LastIndexByte(b[have:have+n], '\n')
	have += n
	if end >= 0 {
		end += have - n + 1
		s.deliver(b[:end], now, whole)
		have = copy(b, b[end:have])
	}
	for have > maxLine {
		s.deliver(b[:maxLine], now, cut)
		have = copy(b, b[maxLine:have])
	}
	return have
}

// deliver hands on bytes that end as kind says.
func (s *stream) deliver(data []byte, t int64, kind ending) {
	src := s.src
	pos := src.ring.append(src.hub, s.which, data, t, kind, s.level)
	if fs := src.hub.followers.Load(); fs != nil {
		for _, f := range *fs {
			f.take(src, s.which, data, t, kind, s.level, pos)
		}
	}
	if !s.raw {
		s.sink.write(s, data, t, kind)
	}
	s.cont = kind == cut
}

// eachLine calls f for every line of data, without its newline and cut as it
// was when it was read. It is false when f said stop.
func eachLine(data []byte, kind ending, f func(line []byte, partial bool) bool) bool {
	for len(data) > 0 {
		i := bytes.IndexByte(data, '\n')
		line, rest := data, []byte(nil)
		if i >= 0 {
			line, rest = data[:i], data[i+1:]
		}
		for len(line) > maxLine {
			if !f(line[:maxLine], true) {
				return false
			}
			line = line[maxLine:]
		}
		if !f(line, i < 0 && kind == cut) {
			return false
		}
		data = rest
	}
	return true
}

// countLines is how often eachLine would call.
func countLines(data []byte) uint64 {
	n := uint64(bytes.Count(data, []byte{'\n'}))
	if len(data) > 0 && data[len(data)-1] != '\n' {
		n++
	}
	return n
}

// after decides what s does after a turn. mu is held.
func (h *Hub) after(s *stream, more bool, n int) {
	for _, w := range s.flushing {
		w.one()
	}
	served := len(s.flushing) > 0
	s.flushing = nil
	if s.upkeep != nil {
		if s.state == busy {
			s.state = idle
		}
		if f := s.sink.(*file); f.hasUpkeep() {
			h.enqueue(s)
		} else {
			f.settle()
		}
		return
	}
	if h.wakefd < 0 || s.src.closing && served && len(s.flushed) == 0 && s.said == nil {
		s.finish()
		return
	}
	now := monotonic()
	gap := now - s.lastRun
	s.lastRun = now
	if more || len(s.flushed) > 0 || s.said != nil {
		h.enqueue(s)
		return
	}
	if s.pause == 0 {
		s.streak++
		if gap > hotGap || n == 0 {
			s.streak = 0
		}
		if s.streak >= hotTurns {
			s.pause = pauseNew
		}
	} else if n == 0 {
		s.pause, s.streak = 0, 0
	} else {
		s.pause = s.adapt(gap, n)
	}
	if s.streak > 0 && !s.grown && (n >= s.size/2 || s.pause > 0 && s.pause < hotGap) {
		s.grow()
	}
	if s.pause > 0 {
		h.pauseUntil(s, now+s.pause)
		return
	}
	s.state = armed
	h.rearm(s.rfd, s.id, unix.EPOLLIN)
}

// adapt returns the pause after which about a third of the pipe will have filled,
// when n bytes came in gap nanoseconds, the last pause and a turn's work.
func (s *stream) adapt(gap int64, n int) int64 {
	work := max(gap-s.pause, 0)
	p := int64(float64(gap)*float64(s.size/3)/float64(n)) - work
	return min(max(p, s.pause/4, pauseMin), 2*s.pause, pauseMax)
}

// quiet says that there is nothing to deliver, even if the sink is stalled.
// Hub.mu is held.
func (s *stream) quiet() bool {
	switch s.state {
	case armed, paused, parked:
		n, err := unix.IoctlGetInt(s.rfd, unix.TIOCINQ)
		return err == nil && n == 0 && len(s.carry) == 0 && len(s.flushed) == 0 && s.said == nil
	}
	return false
}

// grow makes the pipe of a hot stream bigger. EPERM, beyond a user's share, is
// no harm: it is only slower.
func (s *stream) grow() {
	s.grown = true
	if n, err := unix.FcntlInt(uintptr(s.rfd), unix.F_SETPIPE_SZ, pipeBig); err == nil {
		s.size = n
	}
}

// finish closes the pipe. Hub.mu is held and no runner has s.
func (s *stream) finish() {
	if s.state == gone {
		return
	}
	s.state = gone
	h := s.src.hub
	h.unwatch(s.rfd, s.id)
	unix.Close(s.rfd)
	unix.Close(s.wfd)
	s.rfd, s.wfd = -1, -1
	for _, w := range s.flushed {
		w.one()
	}
	s.flushed = nil
	s.takeSaid()
	s.sink.detach(s)
	s.src.finished()
}
