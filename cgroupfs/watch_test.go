package cgroupfs

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
)

func TestNotifyEmpty(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		g := group(t, h, "web.1")
		empty := make(chan struct{}, 2)
		tell := func() { empty <- struct{}{} }

		if err := g.NotifyEmpty(tell); err != nil {
			t.Fatal(err)
		}
		<-empty // it was empty already

		// The leader's end is not the group's.
		cmd := start(t, g, "setsid sh -c 'trap \"\" HUP; sleep 1000 & echo up'; exit 7")
		if err := g.NotifyEmpty(tell); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if got, err := g.Populated(); !got || err != nil {
			t.Fatalf("Populated() after the leader's end = %v, %v, want true", got, err)
		}
		if len(empty) != 0 {
			t.Error("NotifyEmpty told of an end while something lives")
		}
		if err := g.Kill(); err != nil {
			t.Fatal(err)
		}
		<-empty
		if got, err := g.Populated(); got || err != nil {
			t.Errorf("Populated() when told = %v, %v, want false", got, err)
		}
	})
}

func TestNotifyEmptyOnce(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		g := group(t, h, "web.1")
		var first, second atomic.Int32
		start(t, g, "echo up; read x")
		if err := g.NotifyEmpty(func() { first.Add(1) }); err != nil {
			t.Fatal(err)
		}
		told := make(chan struct{})
		if err := g.NotifyEmpty(func() { second.Add(1); close(told) }); err != nil {
			t.Fatal(err)
		}
		g.Kill()
		<-told

		// Taken back: the next end is told to the one that asks last.
		g = group(t, h, g.Name())
		start(t, g, "echo up; read x")
		g.NotifyEmpty(func() { first.Add(1) })
		g.NotifyEmpty(nil)
		g.Kill()
		last := make(chan struct{})
		g.NotifyEmpty(func() { close(last) })
		<-last
		if first.Load() != 0 || second.Load() != 1 {
			t.Errorf("calls = %d replaced, %d kept, want 0 and 1", first.Load(), second.Load())
		}
	})
}

func TestNotifyEmptyMany(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		const n = 40
		told := make(chan string, 2*n)
		var groups []*Group
		for i := range n {
			g := group(t, h, fmt.Sprintf("app/web.%d", i))
			start(t, g, "sleep 1000 & echo up; read x")
			if err := g.NotifyEmpty(func() { told <- g.Name() }); err != nil {
				t.Fatal(err)
			}
			groups = append(groups, g)
		}
		for _, g := range groups {
			if err := g.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		seen := map[string]bool{}
		for range n {
			seen[<-told] = true
		}
		if len(seen) != n {
			t.Errorf("groups told of = %d, want %d", len(seen), n)
		}
	})
}

// Without inotify (its limit is reached, or /proc is missing) pidfds do it.
func TestNotifyEmptyWithoutInotify(t *testing.T) {
	h := open(t, 2)
	h.watcher.inotify, h.watcher.fd = os.Stdin, -1
	defer func() { h.watcher.inotify = nil }() // not ours to close
	g := group(t, h, "web.1")
	start(t, g, "sleep 1000 & echo up; read x")
	told := make(chan struct{})
	if err := g.NotifyEmpty(func() { close(told) }); err != nil {
		t.Fatal(err)
	}
	g.Kill()
	<-told
}

func TestNotifyEmptyAfterClose(t *testing.T) {
	versions(t, func(t *testing.T, opened *Hierarchy) {
		o := Options{Root: testRoot(t) + "-closed", RootSet: true, Version: opened.Version()}
		h, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		g := group(t, h, "web.1")
		cmd := start(t, g, "echo up; read x")
		var calls atomic.Int32
		if err := g.NotifyEmpty(func() { calls.Add(1) }); err != nil {
			t.Fatal(err)
		}
		dir := h.Path()
		h.watcher.close()
		if err := g.NotifyEmpty(func() {}); !errors.Is(err, os.ErrClosed) {
			t.Errorf("NotifyEmpty() after close = %v, want closed", err)
		}
		h.watcher.inotify = nil // closed once
		if err := h.Close(); err != nil {
			t.Errorf("Close() while something lives = %v, want nil", err)
		}
		cmd.Process.Kill()
		cmd.Wait()
		if calls.Load() != 0 {
			t.Error("NotifyEmpty told after Close")
		}
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("Stat(%s) = %v, want kept while something lived", dir, err)
		}
		again, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Stat(%s) = %v, want not exist", dir, err)
		}
	})
}
