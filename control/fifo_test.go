package control

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// recorder hands out the requests that it gets.
func recorder() (Handler, chan Request, chan Peer) {
	reqs, peers := make(chan Request, 100), make(chan Peer, 100)
	return func(_ context.Context, p Peer, req *Request, send func(*Reply) error) {
		reqs <- *req
		peers <- p
		if len(req.Names) > 0 && req.Names[0] == "nobody" {
			send(&Reply{Done: true, Code: ExitNoName, Results: []Result{{Name: "nobody", Message: "no such name"}}})
			return
		}
		send(&Reply{Done: true})
	}, reqs, peers
}

func writeFIFO(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestFIFO(t *testing.T) {
	h, reqs, peers := recorder()
	log := newLog()
	s := serve(t, ServerOptions{Handler: h, Log: log.add})
	if s.FIFO() != filepath.Join(filepath.Dir(s.Path()), "control") {
		t.Fatalf("FIFO() = %q", s.FIFO())
	}
	writeFIFO(t, s.FIFO(), "restart shop:web\nscale shop:web=4\n\n  # a comment\nsignal HUP shop:web")
	writeFIFO(t, s.FIFO(), " shop:db\r\n") // a writer that ended in the middle of a line is no end
	writeFIFO(t, s.FIFO(), `{"verb":"stop","names":["a b'c"]}`+"\n"+`{"verb":"shutdown"}`+"\n")
	for _, want := range []string{"restart [shop:web]  ", "scale [shop:web] 4 ", "signal [shop:web shop:db]  HUP", "shutdown []  "} {
		r := <-reqs
		if got := fmt.Sprintf("%s %v %s %s", r.Verb, r.Names, r.Count, r.Signal); got != want || !r.NoWait {
			t.Errorf("request = %q, no_wait %v, want %q, no_wait", got, r.NoWait, want)
		}
		if p := <-peers; !p.FIFO || p.UID != uint32(os.Geteuid()) {
			t.Errorf("peer = %+v, want the FIFO's", p)
		}
	}
	log.wait(t, "bad name") // of the stop
}

func TestFIFOErrorsGoToTheLog(t *testing.T) {
	h, reqs, _ := recorder()
	log := newLog()
	s := serve(t, ServerOptions{Handler: h, Log: log.add})
	began := time.Now()
	for _, tt := range []struct{ line, want string }{
		{"frobnicate", "unknown verb"},
		{"start", "needs NAME"},
		{"start nobody", "nobody: no such name"},
		{"logs -f", "nothing can be followed"},
		{"status --json", "--json makes no sense"},
		{"start 'x", "unclosed quote"},
		{"\x00\xff\x01", "NUL byte"},
		{"{", "read request"},
	} {
		writeFIFO(t, s.FIFO(), tt.line+"\n")
		log.wait(t, tt.want)
	}
	<-reqs // nobody
	for i := range 1000 {
		writeFIFO(t, s.FIFO(), fmt.Sprintf("garbage%d\n", i))
		if i%100 == 99 { // the pipe holds 64 KiB
			writeFIFO(t, s.FIFO(), "reopen\n")
			<-reqs
		}
	}
	took := time.Since(began)
	most := 21 * (1 + int(took/(10*time.Second))) // 20, and one that counts the rest, in 10 seconds
	if n := strings.Count(log.text(), "\n") + 1; n > most {
		t.Errorf("1,000 lines of garbage in %v make %d lines of log, want at most %d", took, n, most)
	}
}

func TestFIFOLongLine(t *testing.T) {
	h, reqs, _ := recorder()
	log := newLog()
	s := serve(t, ServerOptions{Handler: h, Log: log.add})
	for _, n := range []int{fifoLine - 1, fifoLine, 5000, 3 * fifoLine, 60000} {
		line := "start " + strings.Repeat("names-of-15-bytes ", n)[:n-len("start ")]
		writeFIFO(t, s.FIFO(), line+"\npid\n")
		if n < fifoLine {
			if r := <-reqs; r.Verb != "start" {
				t.Errorf("a line of %d bytes: %s", n, r.Verb)
			}
		}
		if r := <-reqs; r.Verb != "pid" {
			t.Errorf("after a line of %d bytes comes %s, want pid", n, r.Verb)
		}
	}
	if got := strings.Count(log.text(), "line of over 4096 bytes"); got != 4 {
		t.Errorf("the log says %d times that a line is too long, want 4:\n%s", got, log.text())
	}
}

func TestFIFOThatIsNone(t *testing.T) {
	for what, prepare := range map[string]func(path string){
		"something else": func(path string) { os.WriteFile(path, []byte("precious"), 0o600) },
		"too many":       func(path string) { os.Symlink("/dev/null", path) },
		"directory":      func(path string) { os.Mkdir(path, 0o700) },
	} {
		dir := privateDir(t)
		path := filepath.Join(dir, "control")
		prepare(path)
		log := newLog()
		s := serve(t, ServerOptions{Path: filepath.Join(dir, "s"), Log: log.add})
		if s.FIFO() != "" || !strings.Contains(log.text(), what) {
			t.Errorf("FIFO() = %q, log = %q, want none and %q", s.FIFO(), log.text(), what)
		}
		s.Close()
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: %v, want it left alone", what, err)
		}
	}
}

// A FIFO that is left over is used again, with its mode put right; two
// supervisors do not share one.
func TestFIFOIsTakenOver(t *testing.T) {
	dir := privateDir(t)
	if err := unix.Mkfifo(filepath.Join(dir, "control"), 0o666); err != nil {
		t.Fatal(err)
	}
	s := serve(t, ServerOptions{Path: filepath.Join(dir, "s")})
	var st unix.Stat_t
	if err := unix.Lstat(s.FIFO(), &st); err != nil || st.Mode&0o7777 != 0o600 {
		t.Errorf("the FIFO's mode = %04o, %v, want 0600", st.Mode&0o7777, err)
	}
	log := newLog()
	other := serve(t, ServerOptions{Path: filepath.Join(dir, "s2"), Log: log.add})
	if other.FIFO() != "" || !strings.Contains(log.text(), "in use by another") {
		t.Errorf("FIFO() of a second socket = %q, log %q", other.FIFO(), log.text())
	}
}
