package output

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLast(t *testing.T) {
	h, _ := newHub(t, Options{})
	src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: filepath.Join(t.TempDir(), "log")}})
	if got := src.Last(10); len(got) != 0 {
		t.Errorf("Last of a silent one = %s, want nothing", text(got))
	}
	out, errs := src.Files()
	say(t, out, "one\ntwo\n")
	await(t, "flush", src.Flush())
	say(t, errs, "three\nand a half")
	await(t, "flush", src.Flush())
	if got, want := text(src.Last(3)), "two\nthree\nand a half\n"; got != want {
		t.Errorf("Last(3) = %q, want %q", got, want)
	}
	if got := len(src.Last(100)); got != 4 {
		t.Errorf("Last(100) has %d lines, want 4", got)
	}
}

// TestHubFlush waits for all, but not beyond the deadline.
func TestHubFlush(t *testing.T) {
	h, console := newHub(t, Options{})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	say(t, out, "without a newline")
	h.Flush(time.Now().Add(patience))
	if got := text(src.Last(1)); got != "without a newline\n" {
		t.Errorf("after Flush the ring has %q", got)
	}
	closeHub(t, h)
	if got := read(t, console); !strings.Contains(got, "without a newline\n") {
		t.Errorf("console = %q", got)
	}
}

func TestLogTwice(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		opt := Options{Format: "json"}
		if elsewhere {
			opt.LogPath = filepath.Join(t.TempDir(), "own")
		}
		h, console := newHub(t, opt)
		h.LogTwice("error", "the end\nof it")
		closeHub(t, h)
		places := []string{console}
		if elsewhere {
			places = append(places, opt.LogPath)
		}
		for _, place := range places {
			got := read(t, place)
			if strings.Count(got, "\n") != 1 || !strings.Contains(got, `"level":"error","line":"the end\\x0aof it"`) {
				t.Errorf("log elsewhere %v: %s has %q, want the message once", elsewhere, filepath.Base(place), got)
			}
		}
	}
}
