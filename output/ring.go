package output

import (
	"bytes"
	"math/bits"
	"sync"
)

// A ring keeps the tail of one instance's output. It grows as it is used, up to
// size; under pressure (see Hub.roomFor) it is smaller. What is evicted goes by
// whole lines.
type ring struct {
	size int // the most it may keep, its records included

	mu    sync.Mutex
	buf   []byte // circular
	start int
	n     int
	recs  []record // recs[head:]
	head  int
	pos   int64    // of the next byte, counted from the Source's first
	seen  [3]int64 // bytes of each stream ever
}

// A record is bytes that came at one time.
type record struct {
	t      int64 // unix nanoseconds
	n      int32
	stream uint8
	kind   ending
	level  uint8 // of levels; 0: none
}

const (
	recordCost = 16
	ringMin    = 1 << 10
)

// append keeps the tail of data and returns the position of its first byte.
func (r *ring) append(h *Hub, stream uint8, data []byte, t int64, kind ending, level uint8) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	pos := r.pos
	r.pos += int64(len(data))
	r.seen[stream] += int64(len(data))
	if r.size <= recordCost || len(data) == 0 {
		return pos
	}
	// The first append makes a small ring, so that its worker costs little.
	if want := r.n + len(data) + recordCost*(len(r.recs)-r.head+1); want > len(r.buf) && len(r.buf) < r.size {
		c := max(ringMin, len(r.buf))
		for c < want && c < r.size {
			c *= 2
		}
		h.roomFor(r, min(c, r.size))
	}
	limit := len(r.buf)
	if limit <= recordCost {
		return pos
	}
	if over := len(data) - (limit - recordCost); over > 0 {
		// Of what does not fit at all, the last whole lines; of a line that
		// does not fit, its end.
		if i := bytes.IndexByte(data[over-1:], '\n'); i >= 0 && over+i < len(data) {
			over += i
		}
		data = data[over:]
		r.start, r.n, r.recs, r.head = 0, 0, r.recs[:0], 0
	}
	for cost := len(data) + recordCost; r.used()+cost > limit; {
		r.evict(r.used() + cost - limit)
	}
	end := (r.start + r.n) % len(r.buf)
	k := copy(r.buf[end:], data)
	copy(r.buf, data[k:])
	r.n += len(data)
	if r.head > cap(r.recs)/2 && len(r.recs) == cap(r.recs) {
		r.recs = r.recs[:copy(r.recs, r.recs[r.head:])]
		r.head = 0
	}
	r.recs = append(r.recs, record{t, int32(len(data)), stream, kind, level})
	return pos
}

func (r *ring) used() int { return r.n + recordCost*(len(r.recs)-r.head) }

// evict drops lines of the oldest record until need bytes are free or it is empty.
func (r *ring) evict(need int) {
	if r.head == len(r.recs) {
		r.start, r.n = 0, 0
		return
	}
	o := &r.recs[r.head]
	drop := int(o.n)
	if need < drop {
		if i := r.newlineFrom(need-1, drop); i >= 0 {
			drop = i + 1
		}
	}
	r.start = (r.start + drop) % len(r.buf)
	r.n -= drop
	if o.n -= int32(drop); o.n == 0 {
		if r.head++; r.head == len(r.recs) {
			r.recs, r.head = r.recs[:0], 0
		}
	}
}

// newlineFrom finds the first newline of the oldest bytes at from or later,
// before to; -1 when there is none.
func (r *ring) newlineFrom(from, to int) int {
	for i := from; i < to; {
		at := (r.start + i) % len(r.buf)
		run := min(to-i, len(r.buf)-at)
		if k := bytes.IndexByte(r.buf[at:at+run], '\n'); k >= 0 {
			return i + k
		}
		i += run
	}
	return -1
}

// resize moves what fits into a buffer of c bytes. mu is held.
func (r *ring) resize(c int) {
	for r.used() > c && r.n > 0 {
		r.evict(r.used() - c)
	}
	buf := make([]byte, c)
	if r.n > 0 {
		k := copy(buf, r.buf[r.start:min(r.start+r.n, len(r.buf))])
		copy(buf[k:], r.buf[:r.n-k])
	}
	r.buf, r.start = buf, 0
}

// A snapshot is a copy of a ring.
type snapshot struct {
	data []byte
	recs []record
	pos  int64    // of the first byte of data
	end  int64    // of the byte after it
	seen [3]int64 // as in ring
}

func (r *ring) snapshot() snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := snapshot{pos: r.pos - int64(r.n), end: r.pos, seen: r.seen}
	if r.n > 0 {
		s.data = make([]byte, 0, r.n)
		s.data = append(s.data, r.buf[r.start:min(r.start+r.n, len(r.buf))]...)
		s.data = append(s.data, r.buf[:r.n-len(s.data)]...)
		s.recs = append(s.recs, r.recs[r.head:]...)
	}
	return s
}

func (r *ring) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start, r.n, r.recs, r.head = 0, 0, nil, 0
}

func (r *ring) drop(h *Hub) {
	r.clear()
	r.mu.Lock()
	defer r.mu.Unlock()
	h.ringUsed.Add(-int64(len(r.buf)))
	r.buf, r.size = nil, 0
}

// roomFor makes r's buffer bigger, up to c bytes, within the bound of all rings
// together. When that is reached, a ring gets its fair share of it from those
// that have more. r.mu is held.
func (h *Hub) roomFor(r *ring, c int) {
	delta := int64(c - len(r.buf))
	if h.ringUsed.Add(delta) <= h.opt.RingTotal {
		r.resize(c)
		return
	}
	h.ringUsed.Add(-delta)

	h.mu.Lock()
	defer h.mu.Unlock()
	// A power of two, so that a ring is not cut a little for each new one.
	fair := 1 << (bits.Len64(uint64(h.opt.RingTotal)/uint64(len(h.sources)+1)) - 1)
	c = min(c, fair)
	delta = int64(c - len(r.buf))
	if delta <= 0 {
		return
	}
	for src := range h.sources {
		if h.ringUsed.Load()+delta <= h.opt.RingTotal {
			break
		}
		// A ring that is in use right now is left alone: to wait for it
		// here, with ours held, could be for ever.
		if o := &src.ring; o != r && o.mu.TryLock() {
			if k := len(o.buf); k > fair {
				o.resize(fair)
				h.ringUsed.Add(int64(fair - k))
			}
			o.mu.Unlock()
		}
	}
	if h.ringUsed.Add(delta) > h.opt.RingTotal {
		h.ringUsed.Add(-delta)
		return
	}
	r.resize(c)
}
