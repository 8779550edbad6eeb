package reaper

import (
	"os"
	"testing"
)

// TestUntoldOrphans counts orphans without an event for each, and loses no run.
func TestUntoldOrphans(t *testing.T) {
	if !rerun(t, nil) {
		return
	}
	b := newBench(t, Options{Subreaper: true})
	b.TellOrphans(false)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := spec(exe, "50")
	s.Env = []string{"REAPER_CHILD=storm", "GORACE=atexit_sleep_ms=0"}
	ran := func(run uint64) {
		b.next(func(e Event) bool {
			if e.Kind == Orphan {
				t.Errorf("event %+v, want none of orphans", e)
			}
			return e.Kind == Exited && e.Run == run
		})
	}
	ran(b.start(s))
	for b.Orphans() < 50 { // they end by themselves
		ran(b.start(spec("/bin/true")))
	}
	if got := b.Orphans(); got != 50 {
		t.Errorf("Orphans() = %d, want 50", got)
	}
}
