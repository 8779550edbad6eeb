package output

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// levels are those of syslog, behind none.
var levels = [...]string{"", "emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"}

const saidMost = 64 << 10 // bytes that may wait for a stream's turn

// said is what waits for a stream's turn besides what is in its pipe. Hub.mu
// guards it.
type said struct {
	lines []saidLine
	size  int
	full  chan struct{} // closed when it is taken; nil: nobody asked
}

type saidLine struct {
	t     int64
	level uint8
	line  []byte // with its newline
}

// takeSaid empties it. Hub.mu is held.
func (s *stream) takeSaid() []saidLine {
	q := s.said
	if q == nil {
		return nil
	}
	s.said = nil
	if q.full != nil {
		close(q.full)
	}
	return q.lines
}

// Say adds a line to what the instance has printed: it goes where its stderr
// goes or, if that is not captured, its stdout; ok is false where neither is.
// level is a word of syslog: emergency, alert, critical, error, warning, notice,
// info or debug. The line is clean and has no newline.
//
// Say never waits. When the console is full and console_full is block, full is
// not nil, the line was not taken, and full is closed when there may be room. When
// something else is full the line is lost.
func (src *Source) Say(level, line string) (full <-chan struct{}, lost, ok bool) {
	h := src.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if src.closing || h.wakefd < 0 {
		return nil, false, false
	}
	s := src.streams[isStderr]
	if s == nil || s.state == gone {
		s = src.streams[isStdout]
	}
	if s == nil || s.state == gone {
		return nil, false, false
	}
	if s.said == nil {
		s.said = &said{}
	}
	if s.said.size > 0 && s.said.size+len(line) > saidMost {
		if c, is := s.sink.(*console); !is || !c.block {
			return nil, true, true
		}
		if s.said.full == nil {
			s.said.full = make(chan struct{})
		}
		return s.said.full, false, true
	}
	n := max(slices.Index(levels[:], level), 0)
	s.said.lines = append(s.said.lines, saidLine{time.Now().UnixNano(), uint8(n), append([]byte(line), '\n')})
	s.said.size += len(line) + 1
	if s.state == armed || s.state == paused {
		h.enqueue(s)
	}
	return nil, false, true
}

// sayAll delivers what was said. Between two parts of a line that was cut it is a
// line of its own.
func (s *stream) sayAll() {
	if len(s.saying) == 0 {
		return
	}
	cont := s.cont
	s.cont = false
	for _, l := range s.saying {
		s.level = l.level
		if s.raw {
			s.sink.write(s, l.line, l.t, whole)
		}
		s.deliver(l.line, l.t, whole)
	}
	s.level, s.cont, s.saying = 0, cont, nil
}

// Foreign writes a message of somebody else into pazinit's own log, as [Hub.Log]
// does its own, from which it takes no room: in memory it is kept apart, in
// [Hub.Others]. quiet keeps it from the console, where
// it has been seen. The results are those of [Source.Say].
func (h *Hub) Foreign(level, line string, quiet bool) (full <-chan struct{}, lost bool) {
	if h.log.file != nil {
		h.mu.Lock()
		late := len(h.log.file.pending) > logQueue/2
		h.mu.Unlock()
		if late {
			return nil, true
		}
	} else if !quiet {
		c := h.err
		c.mu.Lock()
		if c.used >= consoleQueue {
			defer c.mu.Unlock()
			if !c.block {
				c.dropped++
				c.trouble.total.Add(uint64(len(line)))
				return nil, false
			}
			if c.room == nil {
				c.room = make(chan struct{})
			}
			return c.room, false
		}
		c.mu.Unlock()
	}
	h.say(h.others, level, []byte(line), quiet)
	return nil, false
}

// ServesSyslog says that this process serves the socket of "syslog" itself, or no
// longer: pazinit's own log would only come back from there, and goes to the
// console.
func (h *Hub) ServesSyslog(on bool) { h.log.ours.Store(on) }

// IsKernelLog reports whether what is written to the console or to pazinit's own
// log becomes a message of the kernel: to read those and write them there would
// have no end.
func (h *Hub) IsKernelLog() bool {
	kernel := func(st *unix.Stat_t) bool {
		kmsg, printk := unix.Mkdev(1, 11), unix.Mkdev(5, 3) // /dev/kmsg, /dev/ttyprintk
		return st.Mode&unix.S_IFMT == unix.S_IFCHR && (st.Rdev == kmsg || st.Rdev == printk)
	}
	var st unix.Stat_t
	for _, c := range []*console{h.out, h.err} {
		if unix.Fstat(c.fd, &st) == nil && kernel(&st) {
			return true
		}
	}
	return h.log.file != nil && unix.Stat(h.log.file.path, &st) == nil && kernel(&st)
}
