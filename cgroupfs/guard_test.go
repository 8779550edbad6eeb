package cgroupfs

import (
	"sync/atomic"
	"testing"
)

// TestPanics: a wait whose watch panics, or whose function does, is told all the
// same, and so are the others.
func TestPanics(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		var panics, told atomic.Int32
		h.watcher.faults = func(at string) {
			if panics.Add(1) <= 3 {
				panic("a fault at " + at)
			}
		}
		h.watcher.told = func(string, any) { told.Add(1) }
		g := group(t, h, "web.1")
		start(t, g, "echo up; read x")
		empty := make(chan struct{}, 1)
		var wait func()
		wait = func() {
			if left, err := g.Populated(); err == nil && left {
				if err := g.NotifyEmpty(wait); err != nil {
					t.Error(err)
				}
				return
			}
			empty <- struct{}{}
		}
		if err := g.NotifyEmpty(wait); err != nil {
			t.Fatal(err)
		}
		if err := g.Kill(); err != nil {
			t.Fatal(err)
		}
		<-empty
		if told.Load() == 0 {
			t.Error("no panic was told")
		}

		g = group(t, h, "web.2")
		done := make(chan struct{})
		if err := g.NotifyEmpty(func() { defer close(done); panic("in the function") }); err != nil {
			t.Fatal(err)
		}
		<-done
		again := make(chan struct{})
		if err := g.NotifyEmpty(func() { close(again) }); err != nil {
			t.Fatal(err)
		}
		<-again
	})
}
