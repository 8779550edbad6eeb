package output

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTailGoesOnInFiles(t *testing.T) {
	const lines = 20_000
	for _, kind := range []string{"file", "dir"} {
		t.Run(kind, func(t *testing.T) {
			h, _ := newHub(t, Options{})
			to := Target{Kind: kind, Path: filepath.Join(t.TempDir(), "log"), RotateSize: 50_000, RotateKeep: 20}
			src := newSource(t, h, Config{Stdout: to})
			out, _ := src.Files()
			say(t, out, numbers(1, lines))
			await(t, "flush", src.Flush())
			if ring := len(src.lines(src.ring.snapshot(), Query{Lines: -1}, 0)); ring > lines/2 {
				t.Fatalf("lines in the ring = %d, want fewer", ring)
			}
			for _, n := range []int{0, 1, 100, 5000, 7123, lines - 1, lines} {
				if got, want := text(src.Tail(Query{Lines: n})), numbers(lines-n+1, lines); got != want {
					t.Errorf("Tail(%d) = %s", n, differ(got, want))
				}
			}
			for _, q := range []Query{{Lines: -1}, {Lines: lines + 100}, {Lines: -1, Stream: "stdout"}, {Lines: -1, Since: time.Now().Add(-time.Hour)}} {
				if got, want := text(src.Tail(q)), numbers(1, lines); got != want {
					t.Errorf("Tail(%v) = %s", q, differ(got, want))
				}
			}
			for _, q := range []Query{{Lines: -1, Stream: "stderr"}, {Lines: -1, Since: time.Now().Add(time.Hour)}} {
				if got := src.Tail(q); len(got) != 0 {
					t.Errorf("Tail(%v) = %d lines, want none", q, len(got))
				}
			}
		})
	}
}

// What an earlier supervisor wrote is still there, and has no time.
func TestTailOfOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, from := range []int{1, 101} {
		h, _ := newHub(t, Options{})
		src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: path}})
		out, _ := src.Files()
		say(t, out, numbers(from, from+99))
		await(t, "flush", src.Flush())
		got := src.Tail(Query{Lines: -1})
		if got, want := text(got), numbers(1, from+99); got != want {
			t.Errorf("Tail = %s", differ(got, want))
		}
		if from == 101 && (!got[0].Time.IsZero() || got[199].Time.IsZero()) {
			t.Errorf("times = %v, %v, want none for the old line and one for the new", got[0].Time, got[199].Time)
		}
		if got, want := text(src.Tail(Query{Lines: -1, Since: time.Now().Add(-time.Hour)})), numbers(from, from+99); got != want {
			t.Errorf("Tail since = %s", differ(got, want))
		}
		closeHub(t, h)
	}
}

func TestTailSince(t *testing.T) {
	h, _ := newHub(t, Options{})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	say(t, out, "old\n")
	await(t, "flush", src.Flush())
	now := time.Now()
	say(t, out, "new\n")
	await(t, "flush", src.Flush())
	if got, want := text(src.Tail(Query{Lines: -1, Since: now})), "new\n"; got != want {
		t.Errorf("Tail since = %q, want %q", got, want)
	}
}

func TestTailMergesByTime(t *testing.T) {
	h, _ := newHub(t, Options{})
	var all []*Source
	for i := range 3 {
		all = append(all, newSource(t, h, Config{Name: fmt.Sprintf("shop:web.%d", i)}))
	}
	for i := range 30 {
		out, _ := all[i%3].Files()
		say(t, out, fmt.Sprintf("line %d\n", i+1))
		await(t, "flush", all[i%3].Flush())
	}
	lines := h.Tail(all, Query{Lines: 20})
	if got, want := text(lines), numbers(11, 30); got != want {
		t.Errorf("Tail = %q, want %q", got, want)
	}
	for i, l := range lines {
		if want := fmt.Sprintf("shop:web.%d", (i+10)%3); l.Name != want || l.Stream != "stdout" {
			t.Errorf("line %d is of %s %s, want %s stdout", i, l.Name, l.Stream, want)
		}
	}
}

func TestRingEvictsWholeLines(t *testing.T) {
	h, _ := newHub(t, Options{RingSize: 1000})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	for i := range 300 {
		say(t, out, fmt.Sprintf("line %d\n", i+1))
		await(t, "flush", src.Flush())
		got := text(src.Tail(Query{Lines: -1}))
		if !strings.HasSuffix(numbers(1, i+1), got) || !strings.HasPrefix(got, "line ") {
			t.Fatalf("ring = %q, want whole last lines", got)
		}
	}
	if got := len(src.Tail(Query{Lines: -1})); got < 25 {
		t.Errorf("lines in a ring of 1000 bytes = %d, want 25 or more", got)
	}
	say(t, out, strings.Repeat("y", 5000)+"\n")
	await(t, "flush", src.Flush())
	if got := text(src.Tail(Query{Lines: -1})); !strings.HasSuffix(got, "yyyy\n") || len(got) > 1001 {
		t.Errorf("ring after a line that does not fit = %d bytes, want its end", len(got))
	}
}

func TestRingsTogetherHaveABound(t *testing.T) {
	const total, sources = 256 << 10, 40
	h, _ := newHub(t, Options{RingTotal: total, Format: "raw"})
	var all []*Source
	for i := range sources {
		src := newSource(t, h, Config{Name: fmt.Sprintf("shop:web.%d", i)})
		all = append(all, src)
		out, _ := src.Files()
		say(t, out, numbers(1, 20_000))
		await(t, "flush", src.Flush())
		used := 0
		for _, s := range all {
			used += len(s.ring.buf)
		}
		if used > total || int64(used) != h.ringUsed.Load() {
			t.Fatalf("rings of %d = %d bytes, counted %d, want at most %d", i+1, used, h.ringUsed.Load(), total)
		}
	}
	for _, src := range all {
		got := text(src.Tail(Query{Lines: -1}))
		if !strings.HasSuffix(numbers(1, 20_000), got) || len(got) < total/sources/4 {
			t.Errorf("ring of %s = %d bytes, want a tail of some %d", src.Name(), len(got), total/sources)
		}
	}
	for _, src := range all {
		await(t, "close", src.Close())
	}
	h.mu.Lock()
	n := len(h.sources)
	h.mu.Unlock()
	if n > 0 {
		t.Fatalf("sources after Close = %d", n)
	}
	if got := h.ringUsed.Load(); got != 0 {
		t.Errorf("ring bytes after Close = %d, want 0", got)
	}
}

func TestFollow(t *testing.T) {
	h, _ := newHub(t, Options{})
	a := newSource(t, h, Config{Name: "shop:a.1"})
	b := newSource(t, h, Config{Name: "shop:b.1"})
	ao, _ := a.Files()
	bo, _ := b.Files()
	const lines = 1500 // fit into the follower's buffer
	done := make(chan error, 1)
	go func() {
		for i := 1; i <= lines; i++ {
			if err := sayAll(ao, []byte(fmt.Sprintf("line %d\n", i))); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	say(t, bo, "not wanted\n")
	for len(a.Tail(Query{Lines: 100})) < 100 {
		time.Sleep(time.Millisecond)
	}
	f := h.Follow(func(name string) bool { return name == "shop:a.1" }, "", 1_000_000)
	defer f.Close()
	var got strings.Builder
	add := func(l Line) error {
		fmt.Fprintf(&got, "%s\n", l.Bytes)
		return nil
	}
	if err := f.Backlog([]*Source{a}, Query{Lines: 50}, add); err != nil {
		t.Fatal(err)
	}
	for !strings.HasSuffix(got.String(), fmt.Sprintf("line %d\n", lines)) {
		await(t, "line", f.Wake())
		ls, missed := f.Take()
		if missed > 0 {
			t.Fatalf("missed = %d, want 0", missed)
		}
		for _, l := range ls {
			_ = add(l)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(numbers(1, lines), got.String()) || strings.Count(got.String(), "\n") < 50 {
		t.Errorf("followed = %s", differ(got.String(), numbers(1, lines)))
	}
}

func TestSlowFollowerIsTold(t *testing.T) {
	h, _ := newHub(t, Options{})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	f := h.Follow(nil, "stdout", 10)
	say(t, out, numbers(1, 100_000)) // nobody waits for the follower
	await(t, "flush", src.Flush())
	lines, missed := f.Take()
	if len(lines) != 10 || missed != 99_990 || text(lines) != numbers(1, 10) {
		t.Errorf("Take = %d lines, missed %d, want 10 and 99990", len(lines), missed)
	}
	say(t, out, "more\n")
	await(t, "flush", src.Flush())
	if lines, missed := f.Take(); text(lines) != "more\n" || missed != 0 {
		t.Errorf("Take = %q, missed %d, want more", text(lines), missed)
	}
	f.Close()
	if h.followers.Load() != nil {
		t.Error("followers remain after Close")
	}
}

// While the worker goes on printing, the files' part and the ring's part of a
// tail meet without a gap or a repetition.
func TestTailWhileWriting(t *testing.T) {
	h, _ := newHub(t, Options{RingSize: 4096})
	src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: filepath.Join(t.TempDir(), "log"), RotateSize: 20_000, RotateKeep: 100}})
	out, _ := src.Files()
	done := make(chan struct{})
	const lines = 50_000
	go func() {
		defer close(done)
		for i := 1; i <= lines; i++ {
			_ = sayAll(out, []byte(fmt.Sprintf("line %d\n", i)))
		}
	}()
	for n := 0; n < lines; {
		got := src.Tail(Query{Lines: -1})
		n = len(got)
		if want := numbers(1, n); text(got) != want {
			t.Fatalf("Tail = %s", differ(text(got), want))
		}
	}
	await(t, "worker", done)
}

// Marks get coarser, and still say what is younger.
func TestMarks(t *testing.T) {
	f := &file{}
	const s = int64(time.Second)
	for i := range int64(1000) {
		f.size = 10 * i
		f.mark(i * s)
		f.mark(i*s + s/2)
	}
	if len(f.marks) > maxMarks {
		t.Errorf("marks = %d, want at most %d", len(f.marks), maxMarks)
	}
	for _, at := range []int64{0, 3 * s, 500*s + 1, 999 * s} {
		p := oldPart{all: 10_000, marks: f.marks}
		p.since(at)
		want := 10_000 - 10*(at/s)
		if p.from < want || p.from > want+10*16 {
			t.Errorf("since(%d s) begins %d bytes before the end, want %d or a little more", at/s, p.from, want)
		}
	}
	p := oldPart{all: 10_000, marks: f.marks}
	if p.since(1000 * s); p.from != 0 {
		t.Errorf("since later begins %d bytes before the end, want 0", p.from)
	}
}
