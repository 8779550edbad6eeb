package control

import (
	"context"
	"errors"
	"math"
	"sync"
)

// busSize is how many past events a Bus remembers.
const busSize = 1024

// FromNow is the argument of [Bus.Subscribe] of who wants no past events.
const FromNow = math.MaxUint64

// ErrClosed is what a closed subscription, or one of a closed bus, returns.
var ErrClosed = errors.New("closed")

// A Bus numbers the events, remembers the last 1,024 of them, and lets readers
// follow, each at its own pace: a publisher never waits for one. Its zero value
// is ready to use.
type Bus struct {
	mu     sync.Mutex
	ring   []Event // grows up to busSize; event seq lies at (seq-1) % busSize
	last   uint64  // seq of the newest; 0 before the first
	subs   map[*Subscription]struct{}
	closed bool
}

// A Subscription is one reader's place in the stream. One goroutine at a time
// may use it. Close it.
type Subscription struct {
	bus    *Bus
	next   uint64 // the seq that it reads next
	lag    uint64 // how far it may fall behind
	missed uint64 // events lost since the last one read
	wake   chan struct{}
}

// Publish gives e the next seq, which it returns, and wakes the readers. It
// never blocks and, once the ring is full, never allocates.
func (b *Bus) Publish(e Event) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	e.Seq = b.last
	if i := int((e.Seq - 1) % busSize); i < len(b.ring) {
		b.ring[i] = e
	} else {
		b.ring = append(b.ring, e)
	}
	for s := range b.subs {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return e.Seq
}

// Last returns the seq of the newest event, 0 before the first.
func (b *Bus) Last() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

// Subscribe begins to read after the event numbered after: 0 for all that is
// remembered, [FromNow] for none of it. An after that has not been yet is of an
// earlier supervisor and means 0. A reader that falls further behind than buffer
// events (when buffer is 0: than are remembered) loses the oldest.
func (b *Bus) Subscribe(after uint64, buffer int) *Subscription {
	s := &Subscription{bus: b, lag: busSize, wake: make(chan struct{}, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	oldest := b.oldest()
	switch {
	case after == FromNow:
		s.next = b.last + 1
	case after == 0 || after > b.last:
		s.next = oldest
	case after+1 < oldest:
		s.next, s.missed = oldest, oldest-after-1
	default:
		s.next = after + 1
	}
	if backlog := b.last + 1 - s.next; buffer > 0 && backlog+uint64(buffer) < busSize {
		s.lag = backlog + uint64(buffer)
	}
	if !b.closed {
		if b.subs == nil {
			b.subs = make(map[*Subscription]struct{})
		}
		b.subs[s] = struct{}{}
	}
	return s
}

// oldest returns the seq of the oldest event that is remembered; b.mu is held.
func (b *Bus) oldest() uint64 { return b.last + 1 - uint64(len(b.ring)) }

// Close wakes all readers: they read what is left, then get ErrClosed.
func (b *Bus) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for s := range b.subs {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Next returns the next event and how many were lost just before it. It waits
// for one until ctx is done, and then returns ctx's error.
func (s *Subscription) Next(ctx context.Context) (e Event, missed uint64, err error) {
	for {
		e, missed, ok := s.TryNext()
		if ok {
			return e, missed, nil
		}
		s.bus.mu.Lock()
		_, open := s.bus.subs[s]
		done := !open || s.bus.closed && s.next > s.bus.last
		s.bus.mu.Unlock()
		if done {
			return Event{}, 0, ErrClosed
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Event{}, 0, ctx.Err()
		}
	}
}

// TryNext is [Subscription.Next] for who does not wait: ok is false when there
// is nothing to read now.
func (s *Subscription) TryNext() (e Event, missed uint64, ok bool) {
	b := s.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.next > b.last {
		return Event{}, 0, false
	}
	from := b.oldest()
	if b.last-s.next >= s.lag {
		from = max(from, b.last+1-s.lag)
	}
	if s.next < from {
		s.missed += from - s.next
		s.next = from
	}
	e, missed = b.ring[(s.next-1)%busSize], s.missed
	s.next++
	s.missed = 0
	return e, missed, true
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	delete(s.bus.subs, s)
	s.bus.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
