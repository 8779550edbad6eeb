package reaper

import (
	"strconv"
	"testing"
)

func TestPathSearch(t *testing.T) {
	b := newBench(t, Options{})
	for _, path := range []string{"/bin", "/nowhere:/bin", "/etc/passwd:/nowhere:/bin", "/nowhere:/etc/passwd:/bin:/usr/bin"} {
		s := spec("true")
		s.Env = []string{"PATH=" + path}
		if ws := b.run(s); ws != 0 {
			t.Errorf("true in %s = %#x, want 0", path, ws)
		}
	}
}

func TestExitCodes(t *testing.T) {
	b := newBench(t, Options{})
	for code := range 256 {
		if ws := b.run(spec("/bin/sh", "-c", `exit "$0"`, itoa(code))); !ws.Exited() || ws.ExitStatus() != code {
			t.Errorf("exit %d = %#x, want %#x", code, ws, code<<8)
		}
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
