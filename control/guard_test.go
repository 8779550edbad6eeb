package control

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

// TestPanics: a panic while a connection is taken, a line of the FIFO is read or
// a verb is carried out costs that one alone.
func TestPanics(t *testing.T) {
	var next atomic.Value // where the next one is
	next.Store("")
	var mu sync.Mutex
	told := map[string]int{}
	fault := func(at string) {
		if next.CompareAndSwap(at, "") {
			panic("a fault at " + at)
		}
	}
	lines := make(chan string, 10)
	s := serve(t, ServerOptions{
		Handler: func(_ context.Context, p Peer, req *Request, send func(*Reply) error) {
			fault("verb")
			if p.FIFO {
				lines <- req.Verb
			}
			_ = send(&Reply{Done: true, Message: "pong"})
		},
		faults: fault,
		Panicked: func(where string, _ any) {
			mu.Lock()
			defer mu.Unlock()
			told[where]++
		},
	})
	ask := func() (string, error) {
		c, err := Dial(s.Path())
		if err != nil {
			return "", err
		}
		defer c.Close()
		r, err := c.Do(t.Context(), &Request{Verb: "status"}, nil)
		if err != nil {
			return "", err
		}
		return r.Message, nil
	}
	for _, place := range []string{"admit", "verb"} {
		next.Store(place)
		if got, err := ask(); err == nil && got == "pong" {
			t.Errorf("%s: answered %q, want a panic", place, got)
		}
		for range 3 {
			if got, err := ask(); err != nil || got != "pong" {
				t.Errorf("after a panic at %s: %q, %v", place, got, err)
			}
		}
	}
	f, err := os.OpenFile(s.FIFO(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	next.Store("line")
	if _, err := f.WriteString("reload\nreopen\n"); err != nil {
		t.Fatal(err)
	}
	if got := <-lines; got != "reopen" {
		t.Errorf("verb %s of the FIFO, want the second line's", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if told["the socket"] != 1 || told["the FIFO"] != 1 || told[`the verb "status"`] != 1 {
		t.Errorf("told %v", told)
	}
}
