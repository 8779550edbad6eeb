package pazinit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
)

// TestPanics: whatever part of the loop panics, workers are started again and
// stopped, requests are answered, and the end comes with the right status.
func TestPanics(t *testing.T) {
	for _, place := range []string{"ask", "reaped", "do", "batch", "end", "turn"} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprint(place, seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				var count atomic.Int64
				var d diary
				var mu sync.Mutex
				off := false
				opt := Options{Config: config(plain("web"), plain("other")), LogWriter: &d, faults: func(at string) {
					mu.Lock()
					defer mu.Unlock()
					if at == place && !off && r.IntN(4) == 0 {
						count.Add(1)
						panic("a fault at " + at)
					}
				}}
				for _, a := range opt.Config.Applications {
					for _, w := range a.Workers {
						w.MaxRestarts = 0
					}
				}
				simulate(t, opt, nil, func(s *Supervisor, h *host) {
					state := func(name, want string) {
						t.Helper()
						got := ""
						for range 100_000 {
							err := s.ask(func() error {
								for in := range s.visible() {
									if in.name == name {
										got = in.life.State().String()
									}
								}
								return nil
							})
							if err == nil && got == want {
								return
							}
							time.Sleep(10 * time.Millisecond)
						}
						t.Fatalf("%s is %s, not %s:\n%s", name, got, want, d.text())
					}
					for range 10 {
						state("a:web.1", "RUNNING")
						_ = s.ask(func() error {
							for run := range h.running {
								if h.name(run) == "a:web.1" {
									h.die(run, 1<<8)
								}
							}
							return nil
						})
					}
					state("a:web.1", "RUNNING")
					ask := func(verb string) {
						for {
							var last *control.Reply
							s.Handle(context.Background(), control.Peer{}, &control.Request{Verb: verb, Names: []string{"web"}, NoWait: true}, func(r *control.Reply) error { last = r; return nil })
							if last.Code == 0 {
								return
							}
							if !strings.Contains(last.Error, "internal error") {
								t.Fatalf("%s: %+v", verb, last)
							}
							time.Sleep(10 * time.Millisecond)
						}
					}
					ask("stop")
					state("a:web.1", "STOPPED")
					ask("start")
					state("a:web.1", "RUNNING")
					for { // a request that panics is lost
						s.Signal(unix.SIGTERM)
						began := false
						if err := s.ask(func() error { began = s.end.began; return nil }); err != nil && strings.Contains(err.Error(), "ended") || began {
							break
						}
					}
					<-s.done
					if s.end.code != 0 {
						t.Errorf("status %d, want 0", s.end.code)
					}
					if len(h.running) > 0 {
						t.Errorf("runs are left: %v", h.running)
					}
				})
				if count.Load() > 0 && !strings.Contains(d.text(), "panic in the loop: a fault at "+place+", at ") {
					t.Errorf("%d panics, and none is told: %s", count.Load(), d.text())
				}
			})
		}
	}
}

// TestPanicEvent: a panic is told in one line and one event with where it was, and
// no more than a few of many.
func TestPanicEvent(t *testing.T) {
	var d diary
	simulate(t, Options{Config: config(plain("web")), LogWriter: &d}, nil, func(s *Supervisor, h *host) {
		d.begin()
		sub := s.Events(control.FromNow)
		defer sub.Close()
		var nothing []int
		s.post(func() { _ = nothing[3] })
		e, _, err := sub.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		const want = "panic in the loop: runtime error: index out of range [3] with length 0, at init.TestPanicEvent."
		if e.Kind != "panic" || !strings.HasPrefix(strings.ReplaceAll(e.Reason, "pazinit.Test", "init.Test"), want) || !strings.Contains(e.Reason, "guard_test.go:") || strings.Contains(e.Reason, "\n") {
			t.Errorf("event %+v, want %s", e, want)
		}
		for range 1000 {
			s.post(func() { panic("again") })
		}
		_ = s.ask(func() error { return nil })
		time.Sleep(time.Second)
		if n := strings.Count(d.text(), "panic in"); n > panicsTold {
			t.Errorf("%d panics told", n)
		}
		time.Sleep(panicsWhile)
		s.post(func() { panic("once more") })
		_ = s.ask(func() error { return nil })
		time.Sleep(time.Second)
		if got := d.text(); !strings.Contains(got, "once more") || !strings.Contains(got, fmt.Sprintf("(and %d more before)", 1001-panicsTold)) {
			t.Errorf("told %s", got)
		}
		if got := s.ask(func() error { panic("in a request") }); got == nil || !strings.Contains(got.Error(), "internal error") {
			t.Errorf("a request that panics is answered %v", got)
		}
		s.Shutdown("test")
		<-s.done
	})
}

// TestPanicsBeside: goroutines of the supervisor, and what it does in the
// background, one after the other.
func TestPanicsBeside(t *testing.T) {
	var d diary
	simulate(t, Options{Config: config(plain("web")), LogWriter: &d}, nil, func(s *Supervisor, h *host) {
		d.begin()
		then := make(chan string, 10)
		s.away("there", func() { panic("a") }, func() { then <- "after a" })
		if got := <-then; got != "after a" {
			t.Error(got)
		}
		for _, what := range []string{"b", "c"} {
			s.files.do(func() { panic(what) })
			s.files.do(func() { then <- "after " + what })
			if got := <-then; got != "after "+what {
				t.Error(got)
			}
		}
		s.begin("nowhere", func() { panic("d") })
		again := 0
		s.post(func() {
			s.soon(&s.hup, func() {
				if again++; again == 1 {
					panic("e")
				}
				then <- "after e"
			})
			s.soon(&s.hup, nil) // once more, the same
		})
		if got := <-then; got != "after e" {
			t.Error(got)
		}
		s.Shutdown("test")
		<-s.done
		for _, want := range []string{"panic in there: a, at", "panic in the background: b, at", "panic in nowhere: d, at", "panic in what a signal asked for: e, at"} {
			if !strings.Contains(d.text(), want) {
				t.Errorf("%q is not told: %s", want, d.text())
			}
		}
	})
}

// TestEarly: what is said before there is a log is in it afterwards, no more than
// a bounded number of lines, and a panic is among them.
func TestEarly(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s, err := New(Options{Config: config(plain("web")), NoCgroups: true, Stdout: out, Stderr: out, Format: "plain"})
	if err != nil {
		t.Fatal(err)
	}
	s.procs = &host{s: s}
	s.Panicked("a test", "a fault")
	for end := time.Now().Add(10 * time.Second); ; { // it is told elsewhere
		s.early.mu.Lock()
		n := len(s.early.lines)
		s.early.mu.Unlock()
		if n > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the panic is not told")
		}
		time.Sleep(time.Millisecond)
	}
	for i := range 2 * mostEarly {
		s.Log(fmt.Sprintf("line %d.", i))
	}
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	s.Log("after it.")
	s.close()
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, want := range []string{"panic in a test: a fault", "line 0.", "line 98.", "after it."} {
		if strings.Count(text, want) != 1 {
			t.Errorf("%q is there %d times", want, strings.Count(text, want))
		}
	}
	if strings.Contains(text, "line 99.") {
		t.Errorf("more than %d lines are kept", mostEarly)
	}
	if t.Failed() {
		t.Log(text)
	}
}
