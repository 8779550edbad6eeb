package main

import "testing"

// TestTurnPanics: a turn that panics is no end, and the next one looks at the
// children.
func TestTurnPanics(t *testing.T) {
	x := &sole{look: true} // without its options everything panics
	for range 2 {
		if over := x.turn(); over || !x.look {
			t.Fatalf("turn() = %v, look %v; want it to go on and to look", over, x.look)
		}
	}
}
