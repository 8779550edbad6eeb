package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// CI-24: a logger that dies and comes back loses nothing of what is in the pipe.
func TestLoggerGetsEveryByte(t *testing.T) {
	h, _ := newHub(t, Options{})
	l, err := h.Logger("shop:web", os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	src := newSource(t, h, Config{Stdout: Target{Kind: "pipe", Logger: l}})
	out, _ := src.Files()
	data := make([]byte, 3<<20)
	rand.New(rand.NewSource(1)).Read(data)
	end := "\nlast words\n"
	go func() {
		_ = sayAll(out, data)
		_ = sayAll(out, []byte(end))
	}()
	// Until the logger comes, the worker waits.
	for parkedStreams(h) == 0 {
		time.Sleep(time.Millisecond)
	}
	var got []byte
	b := make([]byte, 100_000)
	for len(got) < len(data)+len(end) {
		// Each read is by another logger.
		fd, err := unix.Dup(l.Stdin())
		if err != nil {
			t.Fatal(err)
		}
		n, err := unix.Read(fd, b[:1+len(got)%len(b)])
		unix.Close(fd)
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		got = append(got, b[:n]...)
	}
	if !bytes.Equal(got, append(data, end...)) {
		t.Errorf("logger got %s", differ(string(got), string(data)+end))
	}
	if got, want := text(src.Tail(Query{Lines: 1})), "last words\n"; got != want {
		t.Errorf("Tail(1) = %q, want %q", got, want)
	}
	await(t, "flush", src.Flush())
	fd, err := unix.Dup(l.Stdin())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	l.End()
	if n, err := unix.Read(fd, b); n != 0 || err != nil {
		t.Errorf("read after End = %d, %v, want the end", n, err)
	}
	await(t, "close", src.Close())
	l.Close()
}

func TestSharedLoggerKeepsLines(t *testing.T) {
	h, _ := newHub(t, Options{})
	l, err := h.Logger("shop:web", os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	const writers, lines = 10, 500
	for w := range writers {
		src := newSource(t, h, Config{Name: fmt.Sprintf("shop:web.%d", w), Stdout: Target{Kind: "pipe", Logger: l}})
		out, _ := src.Files()
		go func() {
			for i := range lines {
				_ = sayAll(out, []byte(fmt.Sprintf("writer %d ", w)))
				_ = sayAll(out, []byte(fmt.Sprintf("line %d\n", i)))
			}
		}()
	}
	var got bytes.Buffer
	b := make([]byte, 64<<10)
	for bytes.Count(got.Bytes(), []byte{'\n'}) < writers*lines {
		n, err := unix.Read(l.Stdin(), b)
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		got.Write(b[:n])
	}
	next := make([]int, writers)
	for line := range strings.Lines(got.String()) {
		var w, i int
		if _, err := fmt.Sscanf(line, "writer %d line %d\n", &w, &i); err != nil || next[w] != i {
			t.Fatalf("line = %q, want line %d", line, next[w])
		}
		next[w]++
	}
}

// lineWriter fails when it is called twice at a time, or without whole lines.
type lineWriter struct {
	in  atomic.Int32
	bad atomic.Int32
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *lineWriter) Write(p []byte) (int, error) {
	if w.in.Add(1) != 1 || len(p) == 0 || p[len(p)-1] != '\n' {
		w.bad.Add(1)
	}
	runtime.Gosched()
	w.mu.Lock()
	w.buf.Write(p)
	w.mu.Unlock()
	w.in.Add(-1)
	return len(p), nil
}

func TestWriter(t *testing.T) {
	h, _ := newHub(t, Options{})
	w := &lineWriter{}
	var wg sync.WaitGroup
	for i := range 10 {
		src := newSource(t, h, Config{Name: fmt.Sprintf("shop:web.%d", i), Stdout: Target{Kind: "writer", Writer: w}})
		out, _ := src.Files()
		wg.Go(func() {
			for range 1000 {
				_ = sayAll(out, []byte("some "))
				_ = sayAll(out, []byte("words\n"))
			}
		})
	}
	wg.Wait()
	closeHub(t, h)
	if w.bad.Load() != 0 || w.buf.String() != strings.Repeat("some words\n", 10_000) {
		t.Errorf("bad calls = %d, %d bytes, want 0, %d", w.bad.Load(), w.buf.Len(), 11*10_000)
	}
}

type badWriter struct{ io.Writer }

func (badWriter) Write([]byte) (int, error) { panic("oh") }

// blockedWriter waits in Write until it is closed.
type blockedWriter chan struct{}

func (w blockedWriter) Write(p []byte) (int, error) {
	<-w
	return len(p), errors.New("too late")
}

func TestBadWriters(t *testing.T) {
	var said notices
	h, _ := newHub(t, Options{Notice: said.add})
	bad := newSource(t, h, Config{Name: "shop:bad.1", Stdout: Target{Kind: "writer", Writer: badWriter{}}})
	out, _ := bad.Files()
	say(t, out, "one\n")
	await(t, "flush", bad.Flush())
	if got := said.get(); len(got) != 1 || !strings.Contains(got[0], "panic: oh") {
		t.Errorf("notices = %q, want one of the panic", got)
	}
	// Ten that hang: an eleventh goes on.
	block := make(blockedWriter)
	var hung []*Source
	for i := range 10 {
		// A distinct writer each, so that each hangs by itself.
		src := newSource(t, h, Config{Name: fmt.Sprintf("shop:hung.%d", i), Stdout: Target{Kind: "writer", Writer: struct{ io.Writer }{io.MultiWriter(block)}}})
		out, _ := src.Files()
		say(t, out, "one\n")
		hung = append(hung, src)
	}
	good := newSource(t, h, Config{Name: "shop:good.1"})
	out, _ = good.Files()
	say(t, out, "one\n")
	await(t, "flush", good.Flush())
	close(block)
	for _, src := range hung {
		await(t, "flush", src.Flush())
	}
}

func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	listen := func() int {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	hear := func(fd int, want string) {
		t.Helper()
		b := make([]byte, 9000)
		n, err := unix.Read(fd, b)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(b[:n]); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("datagram = %q, want %s", got, want)
		}
	}
	stamp := `[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d `
	pid := fmt.Sprintf(`pazinit\[%d\]: `, os.Getpid())
	fd := listen()
	h, console := newHub(t, Options{LogPath: "syslog", SyslogPath: path})
	h.Log("info", "one")
	hear(fd, `^<30>`+stamp+pid+`one$`)
	h.Log("error", "two\n<0>forged")
	hear(fd, `^<27>`+stamp+pid+`two\\x0a<0>forged$`)
	unix.Close(fd)
	os.Remove(path)
	h.Log("info", "nobody hears") // goes to the console instead
	fd = listen()
	h.Log("warning", "three")
	hear(fd, `^<28>`+stamp+pid+`1 messages did not reach syslog$`)
	hear(fd, `^<28>`+stamp+pid+`three$`)
	unix.Close(fd)
	closeHub(t, h)
	if got := read(t, console); !strings.HasSuffix(got, "pazinit | nobody hears\n") || strings.Count(got, "\n") != 1 {
		t.Errorf("console = %q, want what syslog did not get", got)
	}
	if got, want := text(h.Self().Tail(Query{Lines: -1})), "one\nerror: two\\x0a<0>forged\nnobody hears\nwarning: three\n"; got != want {
		t.Errorf("own ring = %q, want %q", got, want)
	}
}

func TestOwnLogFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pazinit.log")
	h, console := newHub(t, Options{LogPath: path})
	h.Log("info", "one")
	if err := h.Reopen(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := h.Reopen(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	h.Log("error", "two")
	closeHub(t, h)
	const stamp = "2006-01-02T15:04:05.000Z07:00"
	for p, want := range map[string]string{path + ".1": " pazinit | one\n", path: " pazinit | error: two\n"} {
		got := read(t, p)
		when, rest, _ := strings.Cut(got, " ")
		if _, err := time.Parse(stamp, when); err != nil || " "+rest != want {
			t.Errorf("%s = %q, want a time and %q", filepath.Base(p), got, want)
		}
	}
	if got := read(t, console); got != "" {
		t.Errorf("console = %q, want nothing", got)
	}
}

// A log that cannot be written says so where somebody may see it.
func TestOwnLogFileFails(t *testing.T) {
	h, console := newHub(t, Options{LogPath: "/dev/full"})
	h.Log("info", "one")
	closeHub(t, h)
	if got := read(t, console); !strings.Contains(got, "warning: write /dev/full: disk full: ") {
		t.Errorf("console = %q, want that the disk is full", got)
	}
}

func TestNullAndInherit(t *testing.T) {
	h, console := newHub(t, Options{})
	src := newSource(t, h, Config{Stdout: Target{Kind: "null"}, Stderr: Target{Kind: "inherit"}})
	out, errs := src.Files()
	say(t, out, "one\n")
	say(t, errs, "two\n")
	await(t, "flush", src.Flush())
	if got := read(t, console); got != "two\n" {
		t.Errorf("console = %q, want %q", got, "two\n")
	}
	await(t, "close", src.Close())
	if out, errs := src.Files(); out != -1 || errs != -1 {
		t.Errorf("Files after Close = %d, %d, want -1, -1", out, errs)
	}
}

func TestRefusedTargets(t *testing.T) {
	h, _ := newHub(t, Options{})
	before := openFds()
	for _, to := range []Target{
		{Kind: "file", Path: "relative"}, {Kind: "file", Path: "/a\x00b"}, {Kind: "file"}, {Kind: "other"},
		{Kind: "pipe"}, {Kind: "writer"}, {Kind: "file", Path: "/x", RotateKeep: -1},
	} {
		if _, err := h.Source(Config{Name: "shop:web.1", Stderr: to}); err == nil {
			t.Errorf("Source(%+v) = nil error", to)
		}
	}
	if after := openFds(); after != before || len(h.sources) != 0 {
		t.Errorf("descriptors = %d, want %d; sources = %d, want 0", after, before, len(h.sources))
	}
}

// The worker's user can open /dev/stdout. Needs root.
func TestPipesBelongToTheWorker(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("PAZINIT_TEST_MUST") != "" {
			t.Fatal("needs root")
		}
		t.Skip("fchown: needs root")
	}
	h, _ := newHub(t, Options{})
	src := newSource(t, h, Config{UID: 65534, GID: 65533})
	for _, fd := range []int{src.fds[1], src.fds[2]} {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Uid != 65534 || st.Gid != 65533 || st.Mode&0o777 != 0o622 {
			t.Errorf("pipe = %d:%d %o, %v, want 65534:65533 622", st.Uid, st.Gid, st.Mode&0o777, err)
		}
	}
	p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "echo one >/dev/stdout; echo two >/proc/self/fd/2"}, &os.ProcAttr{
		Files: []*os.File{nil, dup(t, src.fds[1]), dup(t, src.fds[2])},
		Sys:   credential(65534, 65533),
	})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(); err != nil || !st.Success() {
		t.Errorf("sh = %v, %v", st, err)
	}
	await(t, "flush", src.Flush())
	got := map[string]string{}
	for _, l := range src.Tail(Query{Lines: -1}) {
		got[l.Stream] += string(l.Bytes)
	}
	if got["stdout"] != "one" || got["stderr"] != "two" {
		t.Errorf("Tail = %q, want one and two", got)
	}
}

// CI-25: silent workers cost neither goroutines nor much memory; thousands of
// pipes work.
func TestManySilentWorkers(t *testing.T) {
	if n := unsafe.Sizeof(Source{}) + 2*unsafe.Sizeof(stream{}); n > 1000 {
		t.Errorf("size of a Source with two streams = %d, want at most 1000", n)
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	n := 2000
	if lim.Cur < 9000 {
		n = int(lim.Cur) / 5
	}
	h, _ := newHub(t, Options{})
	before, threads := runtime.NumGoroutine(), taskCount()
	var all []*Source
	for i := range n {
		all = append(all, newSource(t, h, Config{Name: fmt.Sprintf("shop:web.%d", i)}))
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("goroutines = %d, want %d", after, before)
	}
	for _, src := range all {
		out, errs := src.Files()
		say(t, out, "hello\n")
		say(t, errs, "world\n")
	}
	for _, src := range all {
		await(t, "flush", src.Flush())
		if got := len(src.Tail(Query{Lines: -1})); got != 2 {
			t.Fatalf("lines of %s = %d, want 2", src.Name(), got)
		}
	}
	if after := taskCount(); after > threads+10 {
		t.Errorf("threads = %d, want about %d", after, threads)
	}
	for _, src := range all {
		await(t, "close", src.Close())
	}
}

func taskCount() int {
	ents, _ := os.ReadDir("/proc/self/task")
	return len(ents)
}

// Last words come before the end of the run is told, and a line without
// newline is not lost.
func TestFlush(t *testing.T) {
	h, _ := newHub(t, Options{})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	for i := range 1000 {
		want := fmt.Sprintf("word %d", i)
		say(t, out, want)
		await(t, "flush", src.Flush())
		lines := src.Tail(Query{Lines: 1})
		if len(lines) != 1 || string(lines[0].Bytes) != want || lines[0].Partial {
			t.Fatalf("Tail(1) = %v, want %q", lines, want)
		}
	}
}

// Making and closing instances leaves nothing behind, whatever is in the pipes.
func TestNothingLeaks(t *testing.T) {
	h, _ := newHub(t, Options{})
	dir := t.TempDir()
	before := openFds()
	for i := range 300 {
		src := newSource(t, h, Config{Stdout: Target{Kind: "dir", Path: dir}, Stderr: Target{Kind: "file", Path: filepath.Join(dir, "all")}})
		out, errs := src.Files()
		say(t, out, numbers(1, 10))
		say(t, errs, "partial")
		c := src.Close()
		if i%2 == 0 {
			await(t, "close", c)
		}
	}
	closeHub(t, h)
	if after := openFds(); after > before-3 { // the Hub's own went, too
		t.Errorf("descriptors = %d, want %d", after, before-4)
	}
	if got, want := read(t, filepath.Join(dir, "shop.web.1.stdout.log")), strings.Repeat(numbers(1, 10), 300); got != want {
		t.Errorf("file = %s", differ(got, want))
	}
	if got, want := strings.ReplaceAll(read(t, filepath.Join(dir, "all")), "\n", ""), strings.Repeat("partial", 300); got != want {
		t.Errorf("file = %s", differ(got, want))
	}
}

func dup(t *testing.T, fd int) *os.File {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(n), "dup")
	t.Cleanup(func() { f.Close() })
	return f
}

// What a run did to its pipe does not meet the next one.
func TestFilesAreBlockingAgain(t *testing.T) {
	h, _ := newHub(t, Options{})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	if err := unix.SetNonblock(out, true); err != nil {
		t.Fatal(err)
	}
	out, _ = src.Files()
	if flags, err := unix.FcntlInt(uintptr(out), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags = %#x, %v, want no O_NONBLOCK", flags, err)
	}
}

// A line that is longer than 64 KiB, into a file that another uses meanwhile.
func TestLongLineInSharedFile(t *testing.T) {
	h, _ := newHub(t, Options{})
	path := filepath.Join(t.TempDir(), "log")
	to := Target{Kind: "file", Path: path}
	a := newSource(t, h, Config{Name: "shop:a.1", Stdout: to})
	b := newSource(t, h, Config{Name: "shop:b.1", Stdout: to})
	ao, _ := a.Files()
	bo, _ := b.Files()
	long := strings.Repeat("x", maxLine)
	say(t, ao, long+"rest")
	for len(a.Tail(Query{Lines: 1})) == 0 { // the piece is out
		runtime.Gosched()
	}
	say(t, bo, "other\n")
	await(t, "flush", b.Flush())
	say(t, ao, "\n")
	await(t, "flush", a.Flush())
	if got, want := read(t, path), long+"\\\nother\nrest\n"; got != want {
		t.Errorf("file = %s", differ(got, want))
	}
}

// A FIFO as a file: its reader's slowness is its worker's, its absence is said.
func TestFifo(t *testing.T) {
	var said notices
	h, _ := newHub(t, Options{Notice: said.add})
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: path, RotateSize: 10}})
	out, _ := src.Files()
	say(t, out, "lost\n")
	await(t, "flush", src.Flush())
	if got := said.get(); len(got) != 1 || !strings.Contains(got[0], path) || h.Lost().Files != 5 {
		t.Errorf("notices = %q, lost %d, want one of the FIFO, 5", got, h.Lost().Files)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	all := numbers(1, 50_000)
	go func() { _ = sayAll(out, []byte(all)) }()
	var got []byte
	b := make([]byte, 10_000)
	for len(got) < len(all) {
		n, err := unix.Read(fd, b)
		switch {
		case n > 0:
			got = append(got, b[:n]...)
		case err == unix.EAGAIN || n == 0:
			time.Sleep(time.Millisecond)
		default:
			t.Fatal(err)
		}
	}
	if string(got) != all {
		t.Errorf("reader got %s", differ(string(got), all))
	}
}

func TestTroubleIsSaidOnceAMinute(t *testing.T) {
	var said notices
	h, _ := newHub(t, Options{Notice: said.add})
	tr := trouble{what: "write x", total: &h.lost.files}
	tr.fail(h, unix.ENOSPC, 3)
	tr.fail(h, unix.ENOSPC, 4)
	tr.over(h, time.Now().UnixNano())
	tr.over(h, time.Now().Add(2*time.Minute).UnixNano())
	tr.over(h, time.Now().Add(4*time.Minute).UnixNano())
	want := []string{"write x: disk full: 3 bytes not written", "write x: goes on: 4 bytes not written"}
	if got := said.get(); !slices.Equal(got, want) {
		t.Errorf("notices = %q, want %q", got, want)
	}
}

// A clock that is set back by a year must not silence anything for a year.
func TestClockSetBack(t *testing.T) {
	var said notices
	h, _ := newHub(t, Options{Notice: said.add})
	tr := trouble{what: "write x", total: &h.lost.files}
	now := time.Now().UnixNano()
	tr.say(h, "before", now)
	tr.say(h, "after", now-365*24*int64(time.Hour))
	if got, want := said.get(), []string{"write x: before", "write x: after"}; !slices.Equal(got, want) {
		t.Errorf("notices = %q, want %q", got, want)
	}

	path := filepath.Join(t.TempDir(), "log")
	src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: path}})
	out, _ := src.Files()
	say(t, out, "one\n")
	await(t, "flush", src.Flush())
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.files[path].checked += 365 * 24 * int64(time.Hour) // looked at last by the clock of then
	h.mu.Unlock()
	say(t, out, "two\n")
	await(t, "flush", src.Flush())
	if got, want := read(t, path), "two\n"; got != want {
		t.Errorf("file = %q, want %q", got, want)
	}
}
