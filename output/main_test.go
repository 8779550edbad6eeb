package output

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	before := openFds()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		if after := openFds(); after > before+3 { // the runtime's own poller
			fmt.Fprintf(os.Stderr, "open descriptors = %d, want %d\n", after, before)
			code = 1
		}
	}
	os.Exit(code)
}

func openFds() int {
	ents, _ := os.ReadDir("/proc/self/fd")
	return len(ents)
}

const patience = 20 * time.Second

// newHub makes a Hub whose console is a file, unless opt says otherwise.
func newHub(t testing.TB, opt Options) (*Hub, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "console")
	if opt.Stdout == nil {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		opt.Stdout, opt.Stderr = f, f
	}
	h, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(time.Now().Add(patience)) })
	return h, path
}

func newSource(t testing.TB, h *Hub, cfg Config) *Source {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "shop:web.1"
	}
	src, err := h.Source(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// say writes all of s as a worker would.
func say(t testing.TB, fd int, s string) {
	t.Helper()
	if err := sayAll(fd, []byte(s)); err != nil {
		t.Fatal(err)
	}
}

func sayAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func await(t testing.TB, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s: not done", what)
	}
}

// closeHub delivers everything.
func closeHub(t testing.TB, h *Hub) {
	t.Helper()
	if err := h.Close(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// numbers is the lines from..to.
func numbers(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

func text(lines []Line) string {
	var b bytes.Buffer
	for _, l := range lines {
		b.Write(l.Bytes)
		b.WriteByte('\n')
	}
	return b.String()
}

// differ is got and want where they begin to differ.
func differ(got, want string) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	from := max(0, i-40)
	return fmt.Sprintf("%d bytes, want %d; from byte %d: %q, want %q",
		len(got), len(want), from, got[from:min(len(got), from+120)], want[from:min(len(want), from+120)])
}

func credential(uid, gid uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
}
