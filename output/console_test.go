package output

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestConsoleJSON(t *testing.T) {
	h, console := newHub(t, Options{Format: "json"})
	src := newSource(t, h, Config{})
	out, errs := src.Files()
	say(t, out, "quote \" back\\ tab\t esc\x1b \x7f é\n\n")
	await(t, "flush", src.Flush())
	say(t, errs, "\xff\xfe\n")
	await(t, "flush", src.Flush())
	say(t, out, strings.Repeat("z", maxLine+5)+"\n")
	await(t, "flush", src.Flush())
	h.Log("warning", "own\nline")
	closeHub(t, h)
	type line struct {
		Time                      time.Time
		Name, Stream, Level, Line string
		Bytes                     []byte
		Partial                   bool
	}
	want := []line{
		{Name: "shop:web.1", Stream: "stdout", Line: "quote \" back\\ tab\t esc\x1b \x7f é"},
		{Name: "shop:web.1", Stream: "stdout"},
		{Name: "shop:web.1", Stream: "stderr", Bytes: []byte("\xff\xfe")},
		{Name: "shop:web.1", Stream: "stdout", Line: strings.Repeat("z", maxLine), Partial: true},
		{Name: "shop:web.1", Stream: "stdout", Line: "zzzzz"},
		{Name: "pazinit", Level: "warning", Line: `own\x0aline`},
	}
	d := json.NewDecoder(strings.NewReader(read(t, console)))
	d.DisallowUnknownFields()
	for i, w := range want {
		var g line
		if err := d.Decode(&g); err != nil {
			t.Fatal(err)
		}
		if time.Since(g.Time) > time.Hour || g.Time.IsZero() {
			t.Errorf("line %d: time = %v, want now", i, g.Time)
		}
		if !bytes.Equal(g.Bytes, w.Bytes) {
			t.Errorf("line %d: bytes = %q, want %q", i, g.Bytes, w.Bytes)
		}
		g.Time, g.Bytes, w.Bytes = time.Time{}, nil, nil
		if g.Name != w.Name || g.Stream != w.Stream || g.Level != w.Level || g.Line != w.Line || g.Partial != w.Partial {
			t.Errorf("line %d = %.100v, want %.100v", i, g, w)
		}
	}
	if d.More() {
		t.Error("console has more lines than were printed")
	}
}

func TestLongLineIsSplitAndMarked(t *testing.T) {
	h, console := newHub(t, Options{RingSize: 1 << 20})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	long := strings.Repeat("0123456789", 20_000)
	say(t, out, long+"\nshort\n")
	await(t, "flush", src.Flush())
	tail := src.Tail(Query{Lines: -1})
	var marks []bool
	got := ""
	for _, l := range tail[:len(tail)-1] {
		marks = append(marks, l.Partial)
		got += string(l.Bytes)
	}
	if got != long || len(marks) != 4 || !marks[0] || !marks[1] || !marks[2] || marks[3] {
		t.Errorf("Tail = %d pieces %v, want 4, the last not partial", len(marks), marks)
	}
	closeHub(t, h)
	lines := strings.SplitAfter(read(t, console), "\n")
	var signs string
	for _, l := range lines[:len(lines)-1] {
		signs += l[len("15:04:05 shop:web.1 ") : len("15:04:05 shop:web.1 ")+1]
	}
	if signs != "|+++|" {
		t.Errorf("marks on the console = %q, want %q", signs, "|+++|")
	}
}

func TestConsoleRaw(t *testing.T) {
	h, console := newHub(t, Options{Format: "raw"})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	say(t, out, "prompt> ")
	for read(t, console) == "" { // without newline, and without Flush
		time.Sleep(time.Millisecond)
	}
	say(t, out, "\x00\xff\r\nx")
	closeHub(t, h)
	if got, want := read(t, console), "prompt> \x00\xff\r\nx"; got != want {
		t.Errorf("console = %q, want %q", got, want)
	}
}

func TestColor(t *testing.T) {
	h, console := newHub(t, Options{Color: "always"})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	say(t, out, "x\n")
	closeHub(t, h)
	got := read(t, console)
	if !strings.HasPrefix(got, "\x1b[36m") || !strings.HasSuffix(got, " shop:web.1 |\x1b[0m x\n") {
		t.Errorf("console = %q, want a coloured prefix", got)
	}
}

// stalled returns a console that nobody reads, and its reading end.
func stalled(t *testing.T) (w, r *os.File) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	w, r = os.NewFile(uintptr(p[1]), "console"), os.NewFile(uintptr(p[0]), "reader")
	t.Cleanup(func() { w.Close(); r.Close() })
	return w, r
}

func TestStalledConsoleBlocksOnlyItsWriters(t *testing.T) {
	w, r := stalled(t)
	h, _ := newHub(t, Options{Stdout: w, Stderr: w, RingSize: 8 << 20})
	noisy := newSource(t, h, Config{Name: "shop:noisy.1"})
	path := filepath.Join(t.TempDir(), "log")
	other := newSource(t, h, Config{Name: "shop:other.1", Stdout: Target{Kind: "file", Path: path}})
	out, _ := noisy.Files()
	done := make(chan struct{})
	const lines = 400_000
	go func() {
		defer close(done)
		_ = sayAll(out, []byte(numbers(1, lines)))
	}()
	for parkedStreams(h) == 0 {
		time.Sleep(time.Millisecond)
	}
	oout, _ := other.Files()
	say(t, oout, numbers(1, 10_000))
	await(t, "flush", other.Flush())
	if got, want := read(t, path), numbers(1, 10_000); got != want {
		t.Errorf("file = %s", differ(got, want))
	}
	if got, want := text(other.Tail(Query{Lines: 2})), numbers(9_999, 10_000); got != want {
		t.Errorf("Tail = %q, want %q", got, want)
	}
	h.Log("info", "still here")
	if got := text(h.Self().Tail(Query{Lines: 1})); got != "still here\n" {
		t.Errorf("own log = %q", got)
	}
	select {
	case <-done:
		t.Error("the noisy worker did not wait")
	default:
	}
	h.out.mu.Lock()
	if h.out.used > consoleQueue+1<<20 {
		t.Errorf("queue = %d bytes, want about %d", h.out.used, consoleQueue)
	}
	h.out.mu.Unlock()
	if err := h.Close(time.Now().Add(50 * time.Millisecond)); err == nil {
		t.Error("Close = nil, want that something was not written")
	}
	// Closing the pipes frees the worker.
	await(t, "worker", done)
	fd, read := int(r.Fd()), make(chan struct{})
	go func() { // and the console's goroutine ends once somebody reads
		defer close(read)
		b := make([]byte, 1<<20)
		for {
			if n, err := unix.Read(fd, b); n <= 0 || err != nil {
				return
			}
		}
	}()
	await(t, "console", h.out.drained())
	w.Close()
	await(t, "reader", read)
}

func parkedStreams(h *Hub) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for src := range h.sources {
		for _, s := range src.streams {
			if s != nil && s.state == parked {
				n++
			}
		}
	}
	return n
}

// A console that was stalled and is read again has every line once.
func TestStalledConsoleLosesNothing(t *testing.T) {
	w, r := stalled(t)
	h, _ := newHub(t, Options{Stdout: w, Stderr: w})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	const lines = 100_000
	go func() { _ = sayAll(out, []byte(numbers(1, lines))) }()
	for parkedStreams(h) == 0 {
		time.Sleep(time.Millisecond)
	}
	var got bytes.Buffer
	b := make([]byte, 1<<20)
	for strings.Count(got.String(), "\n") < lines {
		n, err := unix.Read(int(r.Fd()), b)
		if n <= 0 || err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(b[:n])) {
			got.WriteString(l)
		}
		if got.Len() > 10<<20 {
			t.Fatal("too much")
		}
	}
	var plain strings.Builder
	for l := range strings.Lines(got.String()) {
		plain.WriteString(l[len("15:04:05 shop:web.1 | "):])
	}
	if plain.String() != numbers(1, lines) {
		t.Errorf("console = %s", differ(plain.String(), numbers(1, lines)))
	}
}

func TestStalledConsoleDrops(t *testing.T) {
	w, r := stalled(t)
	h, _ := newHub(t, Options{Stdout: w, Stderr: w, ConsoleFull: "drop"})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	const lines = 300_000
	say(t, out, numbers(1, lines)) // does not wait for ever
	await(t, "flush", src.Flush())
	if h.Lost().Console == 0 {
		t.Error("Lost().Console = 0, want more")
	}
	all, fd := make(chan string), int(r.Fd())
	go func() {
		var got bytes.Buffer
		b := make([]byte, 64<<10)
		for !strings.Contains(got.String(), "last words") {
			n, err := unix.Read(fd, b)
			if n <= 0 || err != nil {
				break
			}
			got.Write(b[:n])
		}
		all <- got.String()
	}()
	await(t, "console", h.out.drained())
	say(t, out, "last words\n")
	got := <-all
	if !strings.Contains(got, " lines were dropped: the console was full\n") {
		t.Errorf("console ends with %q, want that lines were dropped", got[max(0, len(got)-300):])
	}
}

// Somebody else may have made our stdout O_NONBLOCK.
func TestNonblockingConsole(t *testing.T) {
	w, r := stalled(t)
	if err := unix.SetNonblock(int(w.Fd()), true); err != nil {
		t.Fatal(err)
	}
	h, _ := newHub(t, Options{Stdout: w, Stderr: w})
	if err := unix.SetNonblock(h.out.fd, true); err != nil { // File.Fd took it off
		t.Fatal(err)
	}
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	const lines = 50_000
	go func() { _ = sayAll(out, []byte(numbers(1, lines))) }()
	n := 0
	b := make([]byte, 64<<10)
	for n < lines {
		k, err := unix.Read(int(r.Fd()), b)
		if k <= 0 || err != nil {
			t.Fatal(err)
		}
		n += bytes.Count(b[:k], []byte{'\n'})
	}
	if got := h.Lost().Console; got != 0 {
		t.Errorf("Lost().Console = %d, want 0", got)
	}
}

func TestDeadConsole(t *testing.T) {
	w, r := stalled(t)
	r.Close()
	var said notices
	h, _ := newHub(t, Options{Stdout: w, Stderr: w, Notice: said.add})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	for range 5 {
		say(t, out, numbers(1, 50_000))
		await(t, "flush", src.Flush())
	}
	await(t, "console", h.out.drained())
	if got := said.get(); len(got) != 1 || !strings.Contains(got[0], "write stdout: broken pipe") {
		t.Errorf("notices = %q, want one of a broken pipe", got)
	}
	if got, want := text(src.Tail(Query{Lines: 1})), "line 50000\n"; got != want {
		t.Errorf("Tail(1) = %q, want %q", got, want)
	}
}

// A console on a full disk loses lines and says so; none that comes later is
// appended to half a line. Needs root: mounts a tmpfs of 64 KiB.
func TestConsoleOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		if err == unix.EPERM && os.Getenv("PAZINIT_TEST_MUST") == "" {
			t.Skip("mount tmpfs: needs root")
		}
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	path, room := filepath.Join(dir, "console"), filepath.Join(dir, "room")
	if err := os.WriteFile(room, make([]byte, 32<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, _ := newHub(t, Options{Stdout: f, Stderr: f})
	src := newSource(t, h, Config{})
	out, _ := src.Files()
	settle := func() {
		await(t, "flush", src.Flush())
		await(t, "console", h.out.drained())
	}
	all := numbers(1, 5_000)
	say(t, out, all)
	settle()
	lost := h.Lost().Console
	if lost == 0 {
		t.Fatal("Lost().Console = 0, want some")
	}
	if err := os.Remove(room); err != nil {
		t.Fatal(err)
	}
	say(t, out, "room again\n")
	settle()
	lines := strings.Split(strings.TrimSuffix(read(t, path), "\n"), "\n")
	for i, line := range lines[:len(lines)-2] {
		if want := "| line " + strconv.Itoa(i+1); !strings.HasSuffix(line, want) {
			t.Fatalf("line %d = %q, want %q", i, line, want)
		}
	}
	if line := lines[len(lines)-1]; len(line) < 8 || line[8:] != " shop:web.1 | room again" {
		t.Errorf("last line = %q, want it alone", line)
	}
}

// A console that was made O_NONBLOCK by somebody else loses nothing.
func TestConsoleNonBlocking(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	in, out := os.NewFile(uintptr(p[0]), "in"), os.NewFile(uintptr(p[1]), "out")
	defer in.Close()
	h, _ := newHub(t, Options{Stdout: out, Stderr: out, Format: "raw"})
	src := newSource(t, h, Config{})
	fd, _ := src.Files()
	all := numbers(1, 100_000)
	go func() { _ = sayAll(fd, []byte(all)) }()
	got := make([]byte, len(all))
	if _, err := io.ReadFull(in, got); err != nil || string(got) != all {
		t.Errorf("console = %v, %s", err, differ(string(got), all))
	}
	if flags, err := unix.FcntlInt(uintptr(p[1]), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags = %#x, %v, want it O_NONBLOCK still", flags, err)
	}
	closeHub(t, h)
	out.Close()
}

// A worker of another user may open what it inherits anew only where a container
// has it for itself, and where that opens no file.
func TestOpenConsole(t *testing.T) {
	for _, c := range []struct {
		kind        string
		open, other bool
		want        uint32
	}{
		{"pipe", true, true, 0o602},
		{"pipe", true, false, 0o600},
		{"pipe", false, true, 0o600},
		{"fifo", true, true, 0o600},
		{"file", true, true, 0o600},
		{"socket", true, true, 0o777},
	} {
		var f *os.File
		var err error
		path := filepath.Join(t.TempDir(), "x")
		switch c.kind {
		case "pipe":
			var in *os.File
			in, f, err = os.Pipe()
			defer in.Close()
		case "fifo":
			if err = unix.Mkfifo(path, 0o600); err == nil {
				f, err = os.OpenFile(path, os.O_RDWR, 0)
			}
		case "file":
			f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		case "socket":
			var p [2]int
			p, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			f = os.NewFile(uintptr(p[0]), "socket")
			defer unix.Close(p[1])
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h, _ := newHub(t, Options{Stdout: f, Stderr: f, OpenConsole: c.open})
		cfg := Config{UID: os.Geteuid(), Stdout: Target{Kind: "inherit"}}
		if c.other {
			cfg.UID++
		}
		newSource(t, h, cfg)
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&0o7777 != c.want {
			t.Errorf("%s, allowed %v, other user %v: mode = %o, %v, want %o", c.kind, c.open, c.other, st.Mode&0o7777, err, c.want)
		}
	}
}
