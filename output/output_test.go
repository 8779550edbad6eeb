package output

import (
	"strings"
	"testing"
)

func TestRingKeepsTail(t *testing.T) {
	h, _ := newHub(t, Options{})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	say(t, out, numbers(1, 5000))
	await(t, "flush", src.Flush())
	if got, want := text(src.Tail(Query{Lines: 100})), numbers(4901, 5000); got != want {
		t.Errorf("Tail(100) = %s", differ(got, want))
	}
	// The next run goes on in the same ring.
	say(t, out, numbers(5001, 5010))
	await(t, "flush", src.Flush())
	if got, want := text(src.Tail(Query{Lines: 20})), numbers(4991, 5010); got != want {
		t.Errorf("Tail(20) = %s", differ(got, want))
	}
}

func TestConsolePlain(t *testing.T) {
	h, console := newHub(t, Options{})
	a := newSource(t, h, Config{Name: "shop:web.1"})
	b := newSource(t, h, Config{Name: "shop:queue.10"})
	out, _ := a.Files()
	_, err := b.Files()
	say(t, out, "one\ntw")
	await(t, "flush", a.Flush())
	say(t, err, "three\n")
	await(t, "flush", b.Flush())
	closeHub(t, h)
	var got []string
	for l := range strings.Lines(read(t, console)) {
		if len(l) < 9 || l[2] != ':' || l[5] != ':' {
			t.Fatalf("line = %q, want HH:MM:SS first", l)
		}
		got = append(got, l[9:])
	}
	want := "shop:web.1    | one\nshop:web.1    | tw\nshop:queue.10 | three\n"
	if g := strings.Join(got, ""); g != want {
		t.Errorf("console = %q, want %q", g, want)
	}
}
