package output

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSay: what was said goes where stderr goes, else where stdout goes, between
// whole lines of what was printed.
func TestSay(t *testing.T) {
	for name, tt := range map[string]struct {
		out, err string // kinds
		ok       bool
		stream   string
	}{
		"both": {"capture", "capture", true, "stderr"}, "out alone": {"capture", "null", true, "stdout"},
		"none": {"null", "null", false, ""}, "inherit": {"inherit", "inherit", false, ""}, "a file": {"null", "file", true, "stderr"},
	} {
		t.Run(name, func(t *testing.T) {
			h, console := newHub(t, Options{})
			path := filepath.Join(t.TempDir(), "log")
			src := newSource(t, h, Config{Stdout: Target{Kind: tt.out, Path: path}, Stderr: Target{Kind: tt.err, Path: path}})
			f := h.Follow(nil, "", 10)
			defer f.Close()
			if tt.err == "capture" {
				_, e := src.Files()
				say(t, e, "half a ")
			}
			full, lost, ok := src.Say("warning", "web[1]: said")
			if full != nil || lost || ok != tt.ok {
				t.Fatalf("Say = %v, %v, %v; want ok %v", full, lost, ok, tt.ok)
			}
			await(t, "flush", src.Flush())
			var got []Line
			for _, l := range src.Tail(Query{Lines: -1}) {
				if l.Level != "" {
					got = append(got, l)
				}
			}
			if !tt.ok {
				if len(got) > 0 {
					t.Errorf("lines %v", got)
				}
				return
			}
			if len(got) != 1 || string(got[0].Bytes) != "web[1]: said" || got[0].Stream != tt.stream || got[0].Level != "warning" {
				t.Errorf("Tail = %v", got)
			}
			followed := false
			lines, _ := f.Take()
			for _, l := range lines {
				followed = followed || l.Level == "warning" && string(l.Bytes) == "web[1]: said"
			}
			if !followed {
				t.Errorf("Take = %v", lines)
			}
			where := console
			if tt.err == "file" {
				where = path
			}
			closeHub(t, h)
			if text := read(t, where); !strings.Contains(text, "web[1]: said\n") || tt.err == "capture" && !strings.Contains(text, "| half a \n") {
				t.Errorf("%s has %q", where, text)
			}
		})
	}
}

func TestSayJSON(t *testing.T) {
	h, console := newHub(t, Options{Format: "json"})
	src := newSource(t, h, Config{})
	src.Say("critical", `web[1]: "said"`)
	await(t, "flush", src.Flush())
	h.Foreign("notice", "cron[2]: own", false)
	h.Foreign("error", "kernel: quiet", true)
	closeHub(t, h)
	text := read(t, console)
	for _, want := range []string{
		`"name":"shop:web.1","stream":"stderr","level":"critical","line":"web[1]: \"said\""}`,
		`"name":"pazinit","level":"notice","line":"cron[2]: own"}`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("console has %q, want %s", text, want)
		}
	}
	if strings.Contains(text, "quiet") {
		t.Errorf("console has %q, want nothing of the kernel", text)
	}
}

func TestForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "own")
	h, console := newHub(t, Options{LogPath: path})
	h.Foreign("error", "kernel: a", true)
	h.Foreign("info", "cron[2]: b", false)
	h.Log("info", "own")
	for src, want := range map[*Source]string{h.Self(): "own", h.Others(): "error: kernel: a, cron[2]: b"} {
		var got []string
		for _, l := range src.Tail(Query{Lines: -1}) {
			got = append(got, string(l.Bytes))
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("Tail of %s = %q, want %s", src.Name(), got, want)
		}
	}
	closeHub(t, h)
	if text := read(t, path); !strings.Contains(text, "pazinit | error: kernel: a\n") || !strings.Contains(text, "pazinit | cron[2]: b\n") {
		t.Errorf("log has %q", text)
	}
	if text := read(t, console); text != "" {
		t.Errorf("console has %q", text)
	}
}

// stuck is a Hub whose console nobody reads.
func stuck(t *testing.T, full string) (h *Hub, r *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	h, _ = newHub(t, Options{Stdout: w, Stderr: w, ConsoleFull: full})
	t.Cleanup(func() { w.Close() })
	return h, r
}

// TestSayFull: with block who says too much is told to wait, with drop it is
// counted; what is said never takes the room of pazinit's own messages.
func TestSayFull(t *testing.T) {
	line := strings.Repeat("x", 1000)
	for _, full := range []string{"block", "drop"} {
		t.Run(full, func(t *testing.T) {
			h, r := stuck(t, full)
			src := newSource(t, h, Config{})
			const most = 20_000
			puts := map[string]func() <-chan struct{}{
				"Say": func() <-chan struct{} {
					c, lost, ok := src.Say("info", line)
					if !ok || lost && full == "block" {
						t.Fatalf("Say = %v, %v", lost, ok)
					}
					return c
				},
				"Foreign": func() <-chan struct{} { c, _ := h.Foreign("info", line, false); return c },
			}
			var waits []<-chan struct{}
			for name, put := range puts {
				n := 0
				var c <-chan struct{}
				for ; n < most && c == nil; n++ {
					c = put()
				}
				if (c != nil) != (full == "block") || full == "block" && n > 3000 {
					t.Errorf("%s: %d times, wait %v", name, n, c != nil)
				}
				if c != nil {
					waits = append(waits, c)
				}
			}
			before := h.Lost().Console
			h.Log("info", "own")
			if h.Lost().Console != before {
				t.Error("pazinit's own message had no room")
			}
			if full == "drop" && before == 0 {
				t.Error("nothing was counted")
			}
			go func() { _, _ = bytes.NewBuffer(nil).ReadFrom(r) }()
			for _, c := range waits {
				await(t, "room", c)
			}
			for name, put := range puts {
				if full == "block" && put() != nil {
					await(t, name, nil2closed(put))
				}
			}
		})
	}
}

// nil2closed is closed when put finds room.
func nil2closed(put func() <-chan struct{}) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c := put(); c != nil; c = put() {
			<-c
		}
	}()
	return done
}

// TestSayRaces: lines that are said while others are printed, and while all ends.
func TestSayRaces(t *testing.T) {
	h, console := newHub(t, Options{RingSize: 1 << 20})
	src := newSource(t, h, Config{})
	out, errs := src.Files()
	const n = 500
	done := make(chan struct{}, 3)
	go func() {
		for i := range n {
			for {
				full, _, _ := src.Say("info", fmt.Sprintf("said %d", i))
				if full == nil {
					break
				}
				<-full
			}
		}
		done <- struct{}{}
	}()
	for _, fd := range []int{out, errs} {
		go func() {
			for i := range n {
				_, _ = unix.Write(fd, []byte(fmt.Sprintf("printed %d %d\n", fd, i)))
			}
			done <- struct{}{}
		}()
	}
	for range 3 {
		<-done
	}
	await(t, "flush", src.Flush())
	closeHub(t, h)
	text := read(t, console)
	for _, what := range []string{"said", fmt.Sprintf("printed %d", out), fmt.Sprintf("printed %d", errs)} {
		at := 0
		for i := range n {
			k := strings.Index(text[at:], fmt.Sprintf("| %s %d\n", what, i))
			if k < 0 {
				t.Fatalf("%s %d is missing, or not in order", what, i)
			}
			at += k
		}
	}
	if full, _, ok := src.Say("info", "late"); full != nil || ok {
		t.Errorf("Say after Close = %v, %v", full, ok)
	}
}

// TestServesSyslog: what pazinit says itself does not come back to it.
func TestServesSyslog(t *testing.T) {
	dir, err := os.MkdirTemp("", "log")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "log")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	h, console := newHub(t, Options{LogPath: "syslog", SyslogPath: path})
	h.ServesSyslog(true)
	h.Log("info", "to the console")
	h.ServesSyslog(false)
	h.Log("info", "to syslog")
	h.Close(time.Now().Add(patience))
	buf := make([]byte, 1000)
	n, err := unix.Read(fd, buf)
	if err != nil || !bytes.HasSuffix(buf[:max(n, 0)], []byte("to syslog")) {
		t.Errorf("socket has %q, %v", buf[:max(n, 0)], err)
	}
	if n, err := unix.Read(fd, buf); err != unix.EAGAIN {
		t.Errorf("socket has %q, too", buf[:max(n, 0)])
	}
	if text := read(t, console); !strings.Contains(text, "to the console") || strings.Contains(text, "to syslog") {
		t.Errorf("console has %q", text)
	}
}

func TestIsKernelLog(t *testing.T) {
	for path, want := range map[string]bool{"/dev/kmsg": true, "/dev/null": false, "": false} {
		h, _ := newHub(t, Options{LogPath: path})
		if got := h.IsKernelLog(); got != want {
			t.Errorf("IsKernelLog with log_path %q = %v, want %v", path, got, want)
		}
	}
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("needs /dev/kmsg: %v", err)
	}
	defer f.Close()
	null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if h, _ := newHub(t, Options{Stdout: null, Stderr: f}); !h.IsKernelLog() {
		t.Error("IsKernelLog with stderr on /dev/kmsg = false")
	}
}
