package output

import (
	"bytes"
	"slices"
	"sync"
	"time"
)

const followBytes = 256 << 10

// A Follower gets lines as they come. It never slows a worker: what does not
// fit into its buffer is lost to it, and counted.
type Follower struct {
	hub    *Hub
	match  func(name string) bool
	stream string

	mu     sync.Mutex
	lines  []Line
	bytes  int
	max    int
	missed uint64
	floor  map[*Source]int64 // older ones were in the backlog
	wake   chan struct{}     // holds one
	closed bool
}

// Follow begins to collect the lines of all Sources whose name match accepts
// (nil: all; pazinit's own are named pazinit), also of those made later, in a
// buffer of that many lines (at least 1) and 256 KiB. stream is stdout, stderr
// or "". The caller closes it. match must be quick, and is called often.
func (h *Hub) Follow(match func(name string) bool, stream string, lines int) *Follower {
	f := &Follower{hub: h, match: match, stream: stream, max: max(lines, 1), wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	var fs []*Follower
	if old := h.followers.Load(); old != nil {
		fs = slices.Clone(*old)
	}
	fs = append(fs, f)
	h.followers.Store(&fs)
	return f
}

// Backlog calls each with the lines that q asks for, like [Hub.Each], and makes
// sure that Take returns none of them again: together they have neither a gap
// nor a repetition.
func (f *Follower) Backlog(sources []*Source, q Query, each func(Line) error) error {
	floor := map[*Source]int64{}
	err := f.hub.each(sources, q, floor, each)
	f.mu.Lock()
	f.floor = floor
	f.mu.Unlock()
	return err
}

func (f *Follower) take(src *Source, which uint8, data []byte, t int64, kind ending, level uint8, pos int64) {
	if f.stream != "" && f.stream != streamNames[which] || f.match != nil && !f.match(src.cfg.Name) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	eachLine(data, kind, func(line []byte, partial bool) bool {
		at := cap(data) - cap(line) // line is a part of data
		// Once a line was lost all are, until Take: so missed comes after lines.
		if f.missed > 0 || len(f.lines) >= f.max || f.bytes >= followBytes {
			f.missed += countLines(data[at:])
			return false
		}
		f.lines = append(f.lines, Line{time.Unix(0, t), src.cfg.Name, streamNames[which], bytes.Clone(line), partial, levels[level], src, pos + int64(at)})
		f.bytes += len(line) + 100
		return true
	})
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Wake holds a value when there is something to Take.
func (f *Follower) Wake() <-chan struct{} { return f.wake }

// Take returns what has come since the last call, and how many lines after them
// were lost because the buffer was full.
func (f *Follower) Take() (lines []Line, missed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	lines, missed = f.lines, f.missed
	f.lines, f.bytes, f.missed = nil, 0, 0
	if f.floor != nil {
		lines = slices.DeleteFunc(lines, func(l Line) bool { return l.pos < f.floor[l.src] })
	}
	return lines, missed
}

// Close ends it; Take then returns what is left.
func (f *Follower) Close() {
	f.hub.mu.Lock()
	if old := f.hub.followers.Load(); old != nil {
		fs := slices.DeleteFunc(slices.Clone(*old), func(o *Follower) bool { return o == f })
		if len(fs) == 0 {
			f.hub.followers.Store(nil)
		} else {
			f.hub.followers.Store(&fs)
		}
	}
	f.hub.mu.Unlock()
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
}
