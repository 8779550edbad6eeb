package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("PAZINIT_TEST_LISTEN"); path != "" {
		listenUntilKilled(path)
	}
	if path := os.Getenv("PAZINIT_TEST_CROWD"); path != "" {
		crowd(path)
	}
	if path := os.Getenv("PAZINIT_TEST_LEAVE"); path != "" {
		leave(path)
	}
	goleak.VerifyTestMain(m)
}

// leave asks for the end, and takes its time to go.
func leave(path string) {
	c, err := Dial(path)
	if err == nil {
		_, err = c.Do(context.Background(), &Request{Verb: "shutdown"}, nil)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	time.Sleep(100 * time.Millisecond)
	os.Exit(0)
}

// TestCloseLetsGo: who has asked for the end has ended before it comes.
func TestCloseLetsGo(t *testing.T) {
	asked := make(chan struct{}, 1)
	s := serve(t, ServerOptions{Handler: func(ctx context.Context, p Peer, req *Request, send func(*Reply) error) {
		send(&Reply{Done: true})
		asked <- struct{}{}
	}})
	exe, err := os.Executable() // /proc/self/exe would give it that name
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	var out bytes.Buffer
	cmd.Stdout, cmd.Env = &out, append(os.Environ(), "PAZINIT_TEST_LEAVE="+s.opt.Path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
	}()
	select {
	case <-asked:
	case <-ended:
		err := cmd.Wait()
		t.Fatalf("the client ended without a word: %v: %s", err, out.Bytes())
	}
	began := time.Now()
	s.Close()
	took := time.Since(began)
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if info.Signo == 0 && took < closeGrace/2 {
		t.Errorf("Close returned after %v, and the client lives", took)
	}
	<-ended
	if err := cmd.Wait(); err != nil {
		t.Errorf("the client: %v: %s", err, out.Bytes())
	}
}

// echo answers every request with its verb and names, events with three of them.
func echo(ctx context.Context, p Peer, req *Request, send func(*Reply) error) {
	switch req.Verb {
	case "status":
		send(&Reply{Done: true, Status: []Status{{Name: "shop:web.1"}}})
		return
	case "events":
		for i := range 3 {
			send(&Reply{Event: &Event{Seq: uint64(i + 1), Kind: "state"}})
		}
		if req.Follow {
			<-ctx.Done()
			return
		}
	}
	send(&Reply{Done: true, Message: strings.Join(append([]string{req.Verb}, req.Names...), " ")})
}

const patience = time.Minute

// A logBook collects log lines and lets a test wait for one.
type logBook struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func newLog() *logBook { return &logBook{more: make(chan struct{}, 1)} }

func (l *logBook) add(s string) {
	l.mu.Lock()
	l.lines = append(l.lines, s)
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
}

func (l *logBook) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

func (l *logBook) wait(t *testing.T, part string) {
	t.Helper()
	late := time.After(patience)
	for !strings.Contains(l.text(), part) {
		select {
		case <-l.more:
		case <-late:
			t.Fatalf("log = %q, want %q in it", l.text(), part)
		}
	}
}

// serve runs a server in a folder of its own until the test ends.
func serve(t *testing.T, opt ServerOptions) *Server {
	t.Helper()
	if opt.Path == "" {
		opt.Path = filepath.Join(privateDir(t), "s")
	}
	if opt.Handler == nil {
		opt.Handler = echo
	}
	if opt.OwnerUID == 0 && opt.OwnerGID == 0 {
		opt.OwnerUID, opt.OwnerGID = -1, -1
	}
	s, err := Listen(opt)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve() = %v, want nil", err)
		}
	})
	return s
}

// privateDir is a temporary folder with mode 0700, as /tmp asks for.
func privateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// raw connects without the client.
func raw(t *testing.T, path string) *os.File {
	t.Helper()
	fd, err := connect(path)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestDo(t *testing.T) {
	s := serve(t, ServerOptions{})
	c := dial(t, s.Path())
	for range 3 { // one connection, several requests
		r, err := c.Do(t.Context(), &Request{Verb: "start", Names: []string{"shop:web"}}, nil)
		if err != nil || r.Message != "start shop:web" || !r.Done {
			t.Fatalf("Do(start shop:web) = %+v, %v", r, err)
		}
	}
	n := 0
	r, err := c.Do(t.Context(), &Request{Verb: "events"}, func(r *Reply) error {
		n++
		if r.Event == nil || r.Event.Seq != uint64(n) {
			t.Errorf("line %d = %+v", n, r)
		}
		return nil
	})
	if err != nil || n != 3 || r.Message != "events" {
		t.Errorf("Do(events) = %+v, %v after %d lines, want 3", r, err, n)
	}
	p, err := c.Server()
	if err != nil || p.PID != os.Getpid() || p.UID != uint32(os.Geteuid()) {
		t.Errorf("Server() = %+v, %v, want ourselves", p, err)
	}
}

func TestDoEndsWithItsContext(t *testing.T) {
	left := make(chan struct{})
	s := serve(t, ServerOptions{Handler: func(ctx context.Context, p Peer, req *Request, send func(*Reply) error) {
		send(&Reply{Message: "here"})
		<-ctx.Done()
		close(left)
	}})
	c := dial(t, s.Path())
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Do(ctx, &Request{Verb: "events", Follow: true}, func(*Reply) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Do() = %v, want %v", err, context.Canceled)
	}
	c.Close()
	<-left // the handler learns that the client is gone
}

func TestHandlerForgetsOrPanics(t *testing.T) {
	log := newLog()
	late := make(chan func(*Reply) error, 1)
	s := serve(t, ServerOptions{Log: log.add, Handler: func(_ context.Context, _ Peer, req *Request, send func(*Reply) error) {
		switch req.Verb {
		case "start":
			panic("oops")
		case "stop":
			send(&Reply{Done: true})
			if send(&Reply{Done: true, Code: 9}) == nil {
				t.Error("send after Done = nil, want an error")
			}
			panic("after the end")
		case "restart":
			late <- send
		}
	}})
	c := dial(t, s.Path())
	ask := func(verb string) *Reply {
		t.Helper()
		r, err := c.Do(t.Context(), &Request{Verb: verb, Names: []string{"x"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := ask("start"); r.Code != ExitFailed || r.Error == "" {
		t.Errorf("a panic answers %+v, want code %d and an error", r, ExitFailed)
	}
	log.wait(t, "panic: oops")
	if r := ask("stop"); r.Code != ExitDone {
		t.Errorf("a Done line, then more = %+v, want the first", r)
	}
	if r := ask("restart"); r.Code != ExitFailed || r.Error == "" {
		t.Errorf("nothing sent answers %+v, want code %d and an error", r, ExitFailed)
	}
	if err := (<-late)(&Reply{}); err == nil {
		t.Error("send after the handler's return = nil, want an error")
	}
	if r := ask("status"); !r.Done {
		t.Errorf("status afterwards = %+v", r)
	}
}

// talk sends in and returns all that comes back.
func talk(t *testing.T, path, in string) string {
	t.Helper()
	f := raw(t, path)
	go func() {
		io.WriteString(f, in)
		rc, err := f.SyscallConn()
		if err == nil {
			rc.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_WR) })
		}
	}()
	out, err := io.ReadAll(f)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	return string(out)
}

// The two requests that a client of any age may count on for ever.
func TestMinimalRequests(t *testing.T) {
	var got []string
	var mu sync.Mutex
	s := serve(t, ServerOptions{Handler: func(_ context.Context, _ Peer, req *Request, send func(*Reply) error) {
		mu.Lock()
		got = append(got, req.Verb)
		mu.Unlock()
		send(&Reply{Done: true})
	}})
	for _, in := range []string{`{"verb":"status"}`, `{"verb":"shutdown"}`, `{"verb":"status","of_a_newer_client":{"x":[1]},"names":null}`} {
		for _, end := range []string{"\n", "\r\n", ""} {
			if out := talk(t, s.Path(), in+end); out != `{"done":true,"code":0}`+"\n" {
				t.Errorf("%q answers %q", in+end, out)
			}
		}
	}
	if want := "status status status shutdown shutdown shutdown status status status"; strings.Join(got, " ") != want {
		t.Errorf("verbs = %q, want %q", got, want)
	}
}

func TestBadRequests(t *testing.T) {
	s := serve(t, ServerOptions{MaxRequest: 1000})
	for _, tt := range []struct{ in, want string }{
		{`{"verb":"frobnicate"}`, "there are status start"},
		{`{"verb":"stauts"}`, "did you mean status?"},
		{`{}`, "unknown verb"},
		{`{"verb":"check"}`, "by itself"},
		{`{"verb":"start"}`, "needs NAME"},
		{`{"verb":"start","names":["a\nb"]}`, "bad name"},
		{`{"verb":"status"`, "read request"},
		{`{"verb":7}`, "read request"},
		{`{"verb":"status"} {}`, "read request"},
		{`{"verb":"` + strings.Repeat("x", 1000) + `"}`, "over 1000 bytes"},
		{strings.Repeat(`{"a":`, 190), "read request"},
		{`{"verb":"scale","names":["a","b"],"counts":["1"]}`, "1 counts for 2 names"},
	} {
		var r Reply
		out := talk(t, s.Path(), tt.in+"\n")
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Errorf("%.60q answers %q: %v", tt.in, out, err)
		} else if !r.Done || r.Code != ExitUsage || !strings.Contains(r.Error, tt.want) {
			t.Errorf("%.60q answers %+v, want code %d and %q", tt.in, r, ExitUsage, tt.want)
		}
	}
	// After a refused request, the next is answered.
	if out := talk(t, s.Path(), "{}\n\n{\"verb\":\"pid\"}\n"); strings.Count(out, "\n") != 2 || !strings.HasSuffix(out, `"message":"pid"}`+"\n") {
		t.Errorf("two requests answer %q", out)
	}
}

// A line without end costs the server no more than its limit.
func TestEndlessLine(t *testing.T) {
	s := serve(t, ServerOptions{})
	f := raw(t, s.Path())
	io.WriteString(f, `{"verb":"`)
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	sent := 0
	for sent < 1<<30 {
		n, err := f.Write(chunk)
		sent += n
		if err != nil {
			break
		}
	}
	if sent > 8<<20 {
		t.Errorf("the server took %d bytes of a line", sent)
	}
	line, err := bufio.NewReader(f).ReadString('\n')
	if !strings.Contains(line, "over 65536 bytes") {
		t.Errorf("answer = %q, %v", line, err)
	}
}

func TestSilenceIsGivenUp(t *testing.T) {
	s := serve(t, ServerOptions{IdleTimeout: 50 * time.Millisecond})
	out, err := io.ReadAll(raw(t, s.Path())) // ends when the server closes
	if err != nil || len(out) > 0 {
		t.Errorf("silence is answered by %q, %v", out, err)
	}
}

func TestHalfARequestIsGivenUp(t *testing.T) {
	s := serve(t, ServerOptions{IdleTimeout: time.Hour})
	for in, want := range map[string]string{
		`{"verb":"sta`:                 "no whole request within 1h0m0s",
		"GET /v1/sta":                  "408 Request Timeout",
		"GET /v1/status HTTP/1.1\r\nA": "408 Request Timeout",
		"POST /v1/reload HTTP/1.1\r\nContent-Length: 9\r\n\r\n{": "408 Request Timeout",
	} {
		f := raw(t, s.Path())
		io.WriteString(f, in)
		awaitRead(t, f)
		s.mu.Lock()
		for c := range s.conns { // the hour is over
			c.f.SetReadDeadline(time.Unix(1, 0))
		}
		s.mu.Unlock()
		out, err := io.ReadAll(f)
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%q answers %q, %v, want %q", in, out, err, want)
		}
	}
}

// awaitRead waits until the server has read all that was written to f.
func awaitRead(t *testing.T, f *os.File) {
	t.Helper()
	rc, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		left := 0
		if e := rc.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes were not read", left)
		}
	}
}

func TestClientVanishes(t *testing.T) {
	ended := make(chan error, 1)
	s := serve(t, ServerOptions{Handler: func(ctx context.Context, _ Peer, req *Request, send func(*Reply) error) {
		if req.Verb == "start" { // waits without a word
			<-ctx.Done()
			ended <- ctx.Err()
			return
		}
		for {
			if err := send(&Reply{Message: strings.Repeat("x", 1000)}); err != nil {
				ended <- err
				return
			}
		}
	}})
	for _, verb := range []string{"start", "logs"} {
		f := raw(t, s.Path())
		fmt.Fprintf(f, `{"verb":"%s","names":["x"]}`+"\n", verb)
		if verb == "logs" {
			f.Read(make([]byte, 10))
		}
		f.Close()
		if err := <-ended; err == nil {
			t.Errorf("%s: the handler was not told", verb)
		}
	}
}

// Who has only finished sending still gets the answer.
func TestHalfClosedClient(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, ServerOptions{Handler: func(ctx context.Context, _ Peer, req *Request, send func(*Reply) error) {
		select {
		case <-release:
			send(&Reply{Done: true, Message: "answered"})
		case <-ctx.Done():
		}
	}})
	f := raw(t, s.Path())
	io.WriteString(f, `{"verb":"pid"}`)
	rc, _ := f.SyscallConn()
	rc.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_WR) })
	close(release)
	out, _ := io.ReadAll(f)
	if !strings.Contains(string(out), "answered") {
		t.Errorf("answer = %q", out)
	}
}

// A reader that does not read is dropped from an ordinary request.
func TestSlowReader(t *testing.T) {
	ended := make(chan error, 1)
	s := serve(t, ServerOptions{WriteTimeout: 50 * time.Millisecond, Handler: func(ctx context.Context, _ Peer, req *Request, send func(*Reply) error) {
		for {
			if err := send(&Reply{Message: strings.Repeat("x", 1000)}); err != nil {
				ended <- err
				return
			}
		}
	}})
	f := raw(t, s.Path())
	io.WriteString(f, `{"verb":"logs"}`+"\n")
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "does not read") {
		t.Errorf("send = %v, want that the client does not read", err)
	}
}

func TestCloseEndsAll(t *testing.T) {
	started := make(chan struct{}, 10)
	s, err := Listen(ServerOptions{Path: filepath.Join(privateDir(t), "s"), OwnerUID: -1, OwnerGID: -1,
		Handler: func(ctx context.Context, _ Peer, req *Request, send func(*Reply) error) {
			started <- struct{}{}
			<-ctx.Done()
			send(&Reply{Done: true, Code: ExitFailed, Error: "last word"})
		}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	idle, busy := raw(t, s.Path()), raw(t, s.Path())
	io.WriteString(busy, `{"verb":"pid"}`+"\n")
	<-started
	s.Close()
	if err := <-done; err != nil {
		t.Errorf("Serve() = %v", err)
	}
	if out, _ := io.ReadAll(busy); !strings.Contains(string(out), "last word") {
		t.Errorf("the busy one got %q", out)
	}
	if out, _ := io.ReadAll(idle); len(out) > 0 {
		t.Errorf("the idle one got %q", out)
	}
	if names, _ := filepath.Glob(filepath.Join(filepath.Dir(s.Path()), "*")); len(names) > 0 {
		t.Errorf("left over: %q", names)
	}
	if _, err := Dial(s.Path()); !errors.Is(err, ErrNoServer) || !strings.Contains(err.Error(), s.Path()) {
		t.Errorf("Dial() = %v, want ErrNoServer", err)
	}
	s.Close()
}

// Close's deadline comes after the connection's own, or the connection sees that
// the server ends.
func TestCloseMeetsAConnectionThatBeginsToWait(t *testing.T) {
	closing := make(chan func(), 1)
	s := serve(t, ServerOptions{IdleTimeout: time.Hour, faults: func(at string) {
		if at == "idle" {
			(<-closing)()
		}
	}})
	closing <- func() { // as Close does
		s.cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			c.f.SetReadDeadline(time.Now())
		}
	}
	f := raw(t, s.Path())
	if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(f); err != nil || len(out) > 0 {
		t.Errorf("the client reads %q, %v, want the end", out, err)
	}
}

// A handler that does not listen to its context holds Close up, but not for ever.
func TestCloseDoesNotHang(t *testing.T) {
	started, release, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := serve(t, ServerOptions{Handler: func(context.Context, Peer, *Request, func(*Reply) error) {
		close(started)
		<-release
		close(ended)
	}})
	f := raw(t, s.Path())
	io.WriteString(f, `{"verb":"pid"}`+"\n")
	<-started
	s.Close()
	if out, err := io.ReadAll(f); err != nil || len(out) > 0 {
		t.Errorf("the client reads %q, %v, want the end", out, err)
	}
	close(release)
	<-ended
}

// Without descriptors to spare nobody is let in, and afterwards all are.
func TestOutOfDescriptors(t *testing.T) {
	log := newLog()
	s := serve(t, ServerOptions{Log: log.add})
	c, waiting := dial(t, s.Path()), dial(t, s.Path())
	for _, c := range []*Client{c, waiting} {
		if _, err := c.Do(t.Context(), &Request{Verb: "pid"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	late, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(late), "late")
	defer f.Close()
	var old unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &old)
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err = unix.Connect(late, &unix.SockaddrUnix{Name: s.Path()})
	log.wait(t, "too many open files")
	if _, err := c.Do(t.Context(), &Request{Verb: "pid"}, nil); err != nil { // who is in is served
		t.Errorf("Do() = %v", err)
	}
	unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(f, `{"verb":"pid"}`+"\n")
	if line, err := bufio.NewReader(f).ReadString('\n'); err != nil || !strings.Contains(line, "pid") {
		t.Errorf("the late one reads %q, %v", line, err)
	}
}
