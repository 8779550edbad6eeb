package control

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestBusRemembers(t *testing.T) {
	for _, tt := range []struct {
		after         uint64
		first, missed uint64 // first 0: nothing
	}{
		{0, 477, 0}, // all that is remembered
		{1, 477, 475},
		{476, 477, 0},
		{475, 477, 1},
		{1000, 1001, 0},
		{1499, 1500, 0},
		{1500, 0, 0},
		{1501, 477, 0}, // of an earlier supervisor
		{FromNow, 0, 0},
	} {
		var b Bus
		if b.Last() != 0 {
			t.Errorf("Last() = %d, want 0", b.Last())
		}
		for i := range 1500 {
			if got := b.Publish(Event{Run: uint64(i + 1)}); got != uint64(i+1) {
				t.Fatalf("Publish() = %d, want %d", got, i+1)
			}
		}
		s := b.Subscribe(tt.after, 0)
		var got, missed, n uint64
		for {
			e, m, ok := s.TryNext()
			if !ok {
				break
			}
			if n++; n == 1 {
				got, missed = e.Seq, m
			} else if m != 0 || e.Seq != got+n-1 {
				t.Fatalf("after %d: event %d, missed %d", tt.after, e.Seq, m)
			}
			if e.Run != e.Seq {
				t.Fatalf("event %d is that of run %d", e.Seq, e.Run)
			}
		}
		if got != tt.first || missed != tt.missed || got > 0 && got+n-1 != 1500 {
			t.Errorf("Subscribe(%d): first %d (%d in all), missed %d, want %d, %d", tt.after, got, n, missed, tt.first, tt.missed)
		}
		b.Publish(Event{Run: 1501})
		if e, missed, err := s.Next(t.Context()); err != nil || e.Seq != 1501 || missed != 0 {
			t.Errorf("Subscribe(%d): then %d, %d, %v", tt.after, e.Seq, missed, err)
		}
		s.Close()
	}
}

// What a slow reader read and what it was told to have missed is everything.
func TestBusSlowReader(t *testing.T) {
	for _, buffer := range []int{0, 1, 10, 2000} {
		var b Bus
		b.Publish(Event{})
		s := b.Subscribe(0, buffer)
		for range 5000 {
			b.Publish(Event{})
		}
		e, missed, err := s.Next(t.Context())
		keep := uint64(busSize)
		if buffer == 1 || buffer == 10 {
			keep = uint64(buffer) + 1 // the one that was there
		}
		if err != nil || missed != 5001-keep || e.Seq != missed+1 {
			t.Errorf("buffer %d: event %d, missed %d, %v, want %d missed", buffer, e.Seq, missed, err, 5001-keep)
		}
		s.Close()
	}
}

func TestBusEnds(t *testing.T) {
	var b Bus
	ctx, cancel := context.WithCancel(t.Context())
	s := b.Subscribe(0, 0)
	cancel()
	if _, _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next() = %v, want %v", err, context.Canceled)
	}
	b.Publish(Event{})
	b.Close()
	if e, _, err := s.Next(t.Context()); err != nil || e.Seq != 1 {
		t.Errorf("Next() after Close = %d, %v, want what is left", e.Seq, err)
	}
	if _, _, err := s.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Next() = %v, want %v", err, ErrClosed)
	}
	s.Close()
	s.Close()
	if _, _, err := s.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Next() of a closed one = %v, want %v", err, ErrClosed)
	}
}

func TestBusManyReaders(t *testing.T) {
	var b Bus
	const total = 20000
	var wg sync.WaitGroup
	for i := range 8 {
		s := b.Subscribe(0, i*7)
		wg.Go(func() {
			defer s.Close()
			var read, missed, last uint64
			for last < total {
				e, m, err := s.Next(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if e.Seq != last+m+1 {
					t.Errorf("event %d after %d with %d missed", e.Seq, last, m)
				}
				last, read, missed = e.Seq, read+1, missed+m
			}
			if read+missed != total {
				t.Errorf("%d read and %d missed, want %d in all", read, missed, total)
			}
		})
	}
	for range total {
		b.Publish(Event{})
	}
	wg.Wait()
}

func TestPublishDoesNotAllocate(t *testing.T) {
	var b Bus
	for range busSize {
		b.Publish(Event{})
	}
	s := b.Subscribe(FromNow, 0)
	defer s.Close()
	if n := testing.AllocsPerRun(1000, func() { b.Publish(Event{Name: "shop:web.1"}) }); n != 0 {
		t.Errorf("Publish allocates %v times, want 0", n)
	}
}

func BenchmarkPublish(b *testing.B) {
	var bus Bus
	for b.Loop() {
		bus.Publish(Event{Name: "shop:web.1"})
	}
}

// Over the socket: a client that does not read never slows the publisher, and
// is told what it missed.
func TestSlowClientOfEvents(t *testing.T) {
	var b Bus
	subscribed := make(chan struct{})
	s := serve(t, ServerOptions{Handler: func(ctx context.Context, _ Peer, req *Request, send func(*Reply) error) {
		sub := b.Subscribe(req.After, 0)
		defer sub.Close()
		close(subscribed)
		for {
			e, missed, err := sub.Next(ctx)
			if err != nil || send(&Reply{Event: &e, Missed: missed}) != nil {
				return
			}
		}
	}})
	const total = 50000
	c := dial(t, s.Path())
	var read, missed, last uint64
	stop := errors.New("stop")
	go func() { <-subscribed; b.Publish(Event{}) }()
	_, err := c.Do(t.Context(), &Request{Verb: "events", Follow: true}, func(r *Reply) error {
		if read == 0 { // from now on it does not read, until all has happened
			for range total - 1 {
				b.Publish(Event{Reason: "so that the socket's buffer is full soon"})
			}
		}
		if r.Event.Seq != last+r.Missed+1 {
			t.Errorf("event %d after %d with %d missed", r.Event.Seq, last, r.Missed)
		}
		last, read, missed = r.Event.Seq, read+1, missed+r.Missed
		if last == total {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || read+missed != total || missed == 0 {
		t.Errorf("Do() = %v; %d read and %d missed, want %d in all and some missed", err, read, missed, total)
	}
}
