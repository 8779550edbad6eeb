package output

import (
	"bytes"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A Query says which lines are wanted.
type Query struct {
	Lines  int       // the last so many of all Sources together; -1: all
	Since  time.Time // not zero: only those that came then or later
	Stream string    // stdout, stderr, or "" for both
}

// A Line is one line of output, without its newline.
type Line struct {
	Time    time.Time // zero when it is not known: from a file, before this Hub
	Name    string
	Stream  string // stdout, stderr; "" for pazinit's own, and for a file that holds both
	Bytes   []byte
	Partial bool   // longer than 64 KiB: it goes on in the next one
	Level   string // of a line that was said by Say; else "", also from a file

	src *Source
	pos int64 // in the source; 0 from a file
}

// Self is the Source of pazinit's own log, for Tail, Each and Clear. It has no
// descriptors.
func (h *Hub) Self() *Source { return h.self }

// Others is the Source of what [Hub.Foreign] wrote into it, as far as that is in
// memory.
func (h *Hub) Others() *Source { return h.others }

// Tail collects what [Hub.Each] calls f with. For Lines -1 use Each: a file may
// be longer than the memory.
func (h *Hub) Tail(sources []*Source, q Query) []Line {
	var out []Line
	_ = h.Each(sources, q, func(l Line) error {
		l.Bytes = bytes.Clone(l.Bytes)
		out = append(out, l)
		return nil
	})
	return out
}

// Tail is [Hub.Tail] of one Source.
func (src *Source) Tail(q Query) []Line { return src.hub.Tail([]*Source{src}, q) }

// Each calls f with the lines that q asks for, the oldest first, and ends with
// f's first error. Lines come from the rings, merged by time; what a ring no
// longer has comes before them from the instance's file and its rotated ones,
// unless other instances write to that file too. Times from files are exact to
// a second or more. l.Bytes may be used until f returns. Each reads files: not
// from the loop.
func (h *Hub) Each(sources []*Source, q Query, f func(l Line) error) error {
	return h.each(sources, q, nil, f)
}

// each also notes in ends, if it is not nil, where each ring ended.
func (h *Hub) each(sources []*Source, q Query, ends map[*Source]int64, f func(l Line) error) error {
	var lines []Line
	var old []oldPart
	since := int64(0)
	if !q.Since.IsZero() {
		since = q.Since.UnixNano()
	}
	for _, src := range sources {
		snap := src.ring.snapshot()
		if ends != nil {
			ends[src] = snap.end
		}
		lines = append(lines, src.lines(snap, q, since)...)
		old = append(old, src.oldParts(snap, q, since)...)
	}
	defer func() {
		for _, o := range old {
			o.close()
		}
	}()
	slices.SortStableFunc(lines, func(a, b Line) int { return a.Time.Compare(b.Time) })
	if q.Lines >= 0 && len(lines) >= q.Lines {
		lines, old = lines[len(lines)-q.Lines:], closeAll(old)
	}
	// The files' lines, without times to merge them by, source after source.
	missing := -1
	if q.Lines >= 0 {
		missing = q.Lines - len(lines)
	}
	for i := len(old) - 1; i >= 0; i-- {
		missing = old[i].start(missing)
	}
	for i := range old {
		if err := old[i].each(f); err != nil {
			return err
		}
	}
	for _, l := range lines {
		if err := f(l); err != nil {
			return err
		}
	}
	return nil
}

// lines splits a snapshot.
func (src *Source) lines(snap snapshot, q Query, since int64) []Line {
	var out []Line
	at := 0
	for _, r := range snap.recs {
		data := snap.data[at : at+int(r.n)]
		pos := snap.pos + int64(at)
		at += int(r.n)
		if r.t < since || q.Stream != "" && streamNames[r.stream] != q.Stream {
			continue
		}
		out = src.split(out, r.stream, data, r.t, r.kind, r.level, pos)
	}
	return out
}

func (src *Source) split(out []Line, stream uint8, data []byte, t int64, kind ending, level uint8, pos int64) []Line {
	when := time.Unix(0, t)
	eachLine(data, kind, func(line []byte, partial bool) bool {
		at := pos + int64(cap(data)-cap(line)) // line is a part of data
		out = append(out, Line{when, src.cfg.Name, streamNames[stream], line, partial, levels[level], src, at})
		return true
	})
	return out
}

// An oldPart is what a file has beyond the ring.
type oldPart struct {
	src    *Source
	stream string
	fds    []int   // the youngest first
	sizes  []int64 // what of each is wanted
	from   int64   // offset from the end of all, in bytes: where to begin
	all    int64   // sum of sizes
	base   int64   // logical offset of the first byte, for marks
	marks  []mark
}

// oldParts opens the files of src, up to where snap begins.
func (src *Source) oldParts(snap snapshot, q Query, since int64) []oldPart {
	h := src.hub
	var out []oldPart
	done := map[*file]bool{}
	for _, s := range src.streams {
		if s == nil {
			continue
		}
		f, ok := s.sink.(*file)
		if !ok || done[f] {
			continue
		}
		done[f] = true
		both := src.streams[isStdout] != nil && src.streams[isStderr] != nil &&
			src.streams[isStdout].sink == src.streams[isStderr].sink
		name := streamNames[s.which]
		if both {
			name = ""
		}
		if q.Stream != "" && name != q.Stream {
			continue
		}
		h.mu.Lock()
		shared, keep, closed := f.usedByOthers(src), f.rotateKeep, s.state == gone
		h.mu.Unlock()
		if shared || closed {
			continue
		}
		// Bytes of this file that the ring has, too.
		have := int64(0)
		for _, r := range snap.recs {
			if both || r.stream == s.which {
				have += int64(r.n)
			}
		}
		p := oldPart{src: src, stream: name}
		var filed, seen int64
		for range 8 { // until nothing was written meanwhile
			turns := f.turns.Load()
			p.open(f, keep)
			filed, seen = 0, 0
			for _, o := range src.streams {
				if o != nil && o.sink == s.sink {
					filed += o.filed.Load()
					seen += snap.seen[o.which]
				}
			}
			if turns%2 == 0 && turns == f.turns.Load() {
				break
			}
			time.Sleep(time.Millisecond) //nolint:forbidigo // for a write to end; never on the loop, at most 8 times
		}
		p.cutEnd(max(0, have+filed-seen))
		p.from = p.all
		if since > 0 {
			p.since(since)
		}
		out = append(out, p)
	}
	return out
}

// open opens f and its rotated files.
func (p *oldPart) open(f *file, keep int) {
	p.close()
	p.sizes, p.all = nil, 0
	var ids [][2]uint64
	for n := 0; n <= keep; n++ {
		fd, err := openLog(f.name(n), unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			break
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		id := [2]uint64{st.Dev, st.Ino}
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || slices.Contains(ids, id) {
			unix.Close(fd) // rotated meanwhile: it is there already
			continue
		}
		ids = append(ids, id)
		p.fds = append(p.fds, fd)
		p.sizes = append(p.sizes, st.Size)
		p.all += st.Size
	}
	f.markMu.Lock()
	p.marks = slices.Clone(f.marks)
	p.base = f.end - p.all
	f.markMu.Unlock()
}

func closeAll(old []oldPart) []oldPart {
	for _, o := range old {
		o.close()
	}
	return nil
}

func (p *oldPart) close() {
	for _, fd := range p.fds {
		unix.Close(fd)
	}
	p.fds = nil
}

// cutEnd takes n bytes, and what is left of a line, off the youngest end.
func (p *oldPart) cutEnd(n int64) {
	if n == 0 {
		return
	}
	p.trim(n)
	// An inserted newline may have put us inside a line.
	p.trim(p.untilNewline())
}

// untilNewline is how many bytes stand after the last newline.
func (p *oldPart) untilNewline() int64 {
	n := p.all
	p.backward(func(b byte, after int64) bool {
		if b == '\n' {
			n = after
		}
		return b != '\n'
	})
	return n
}

func (p *oldPart) trim(n int64) {
	for i := range p.sizes {
		k := min(n, p.sizes[i])
		p.sizes[i] -= k
		p.all -= k
		n -= k
	}
}

// backward calls f with the bytes from the end, and how many bytes come after
// each one, until it is false.
func (p *oldPart) backward(f func(b byte, after int64) bool) {
	buf := make([]byte, 32<<10)
	after := int64(0)
	for i, fd := range p.fds {
		for end := p.sizes[i]; end > 0; {
			n := min(end, int64(len(buf)))
			k, err := unix.Pread(fd, buf[:n], end-n)
			if err != nil || int64(k) < n {
				return
			}
			for j := n - 1; j >= 0; j-- {
				if !f(buf[j], after) {
					return
				}
				after++
			}
			end -= n
		}
	}
}

// start finds where the last n lines begin (-1: all) and returns how many are
// still missing.
func (p *oldPart) start(n int) int {
	if n < 0 {
		return n
	}
	limit := p.from
	if n == 0 {
		p.from = 0
		return 0
	}
	left := n
	p.from = 0
	p.backward(func(b byte, after int64) bool {
		if after >= limit {
			return false
		}
		if b == '\n' && after > 0 {
			if left--; left == 0 {
				return false
			}
		}
		p.from = after + 1
		return true
	})
	if p.from > 0 && left > 0 {
		left-- // the first line has no newline before it
	}
	return left
}

// since begins at the mark in which t is, or the first one after it. What is
// older than this Hub has no time and is left out.
func (p *oldPart) since(t int64) {
	p.from = 0
	for _, m := range p.marks {
		if m.last >= t {
			p.from = min(max(p.base+p.all-m.off, 0), p.all)
			return
		}
	}
}

// each calls f with the lines from p.from on.
func (p *oldPart) each(f func(Line) error) error {
	if p.from == 0 {
		return nil
	}
	buf := make([]byte, 0, 2*maxLine)
	skip := p.all - p.from
	at := p.base
	var err error
	emit := func(data []byte, kind ending) {
		l := Line{Name: p.src.cfg.Name, Stream: p.stream, src: p.src}
		eachLine(data, kind, func(line []byte, partial bool) bool {
			l.Time = p.time(at)
			at += int64(len(line)) + 1
			l.Bytes, l.Partial = line, partial
			err = f(l)
			return err == nil
		})
	}
	for i := len(p.fds) - 1; i >= 0; i-- {
		off := min(skip, p.sizes[i])
		skip -= off
		at += off
		for off < p.sizes[i] {
			room := buf[len(buf):min(cap(buf), len(buf)+int(min(p.sizes[i]-off, maxLine)))]
			n, e := unix.Pread(p.fds[i], room, off)
			if e == unix.EINTR {
				continue
			}
			if e != nil {
				return e
			}
			if n == 0 {
				break // it was truncated meanwhile
			}
			off += int64(n)
			buf = buf[:len(buf)+n]
			if k := bytes.LastIndexByte(buf, '\n') + 1; k > 0 {
				emit(buf[:k], whole)
				buf = buf[:copy(buf, buf[k:])]
			}
			if len(buf) >= maxLine {
				emit(buf[:maxLine], cut)
				buf = buf[:copy(buf, buf[maxLine:])]
			}
			if err != nil {
				return err
			}
		}
	}
	if len(buf) > 0 {
		emit(buf, last)
	}
	return err
}

func (p *oldPart) time(off int64) time.Time {
	for i := len(p.marks) - 1; i >= 0; i-- {
		if p.marks[i].off <= off {
			return time.Unix(0, p.marks[i].t)
		}
	}
	return time.Time{}
}
