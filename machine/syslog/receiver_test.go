package syslog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 20 * time.Second

// taken collects what a Receiver brings.
type taken struct {
	mu    sync.Mutex
	lines []string
	msgs  []*Message
	said  []string
	full  chan struct{} // not nil: there is no room
	lost  bool
	news  chan struct{}
}

func newTaken() *taken { return &taken{news: make(chan struct{}, 1)} }

func (k *taken) take(m *Message) func() (<-chan struct{}, bool) {
	return func() (<-chan struct{}, bool) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.full != nil {
			return k.full, false
		}
		if k.lost {
			return nil, true
		}
		k.lines = append(k.lines, m.Level()+"|"+m.Line())
		k.msgs = append(k.msgs, m)
		k.tell()
		return nil, false
	}
}

func (k *taken) tell() {
	select {
	case k.news <- struct{}{}:
	default:
	}
}

func (k *taken) say(level, msg string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.said = append(k.said, level+": "+msg)
	k.tell()
}

// until waits for look, which is called with the lock.
func (k *taken) until(t *testing.T, what string, look func() bool) {
	t.Helper()
	end := time.After(patience)
	for {
		k.mu.Lock()
		ok := look()
		k.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-k.news:
		case <-end:
			t.Fatalf("%s: lines %q, said %q", what, k.lines, k.said)
		}
	}
}

// open serves a socket in a folder of its own.
func open(t *testing.T, k *taken) (*Receiver, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "syslog") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "log")
	r, err := Open(Options{Path: path, Kmsg: "-", Take: k.take, Say: k.say})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(time.Now().Add(patience)) })
	return r, path
}

// dial returns a socket that is connected to path and closed in the end.
func dial(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatalf("connect to %s: %v", path, err)
	}
	return fd
}

func send(t *testing.T, fd int, text string) {
	t.Helper()
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		t.Fatalf("send: %v", err)
	}
}

func TestReceive(t *testing.T) {
	k := newTaken()
	_, path := open(t, k)
	fd := dial(t, path, 0)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20); err != nil {
		t.Fatal(err)
	}
	send(t, fd, "<12>Nov 22 18:00:00 web: hello")
	send(t, fd, "")
	send(t, fd, "<13>nameless")
	send(t, fd, "<13>long: "+strings.Repeat("x", 100<<10))
	k.until(t, "four messages", func() bool { return len(k.lines) == 4 })
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	pid, name := os.Getpid(), strings.TrimSpace(string(comm))
	for i, want := range []string{
		fmt.Sprintf("warning|web[%d]: hello", pid),
		fmt.Sprintf("notice|%s[%d]: ", name, pid),
		fmt.Sprintf("notice|%s[%d]: nameless", name, pid),
		fmt.Sprintf("notice|long[%d]: %s... (%d bytes more)", pid, strings.Repeat("x", maxDatagram-10), 100<<10+10-maxDatagram),
	} {
		if k.lines[i] != want {
			t.Errorf("line %d = %.200q, want %.200q", i, k.lines[i], want)
		}
	}
	if m := k.msgs[0]; m.PID != pid || int(m.UID) != os.Getuid() {
		t.Errorf("sender = pid %d uid %d", m.PID, m.UID)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("socket: %v, %v; want mode 0666", st, err)
	}
}

// TestGroup: the kernel says in which control group a sender is.
func TestGroup(t *testing.T) {
	k := newTaken()
	r, path := open(t, k)
	if !r.pidfd {
		t.Skip("SO_PASSPIDFD: not before Linux 6.5")
	}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	want := groupOf(fd)
	unix.Close(fd)
	if want == 0 {
		t.Skip("PIDFD_GET_INFO: not before Linux 6.13")
	}
	send(t, dial(t, path, 0), "x")
	k.until(t, "a message", func() bool { return len(k.msgs) == 1 })
	if k.msgs[0].Group != want {
		t.Errorf("group = %d, want %d", k.msgs[0].Group, want)
	}
}

// TestDescriptors: what a sender passes along stays nowhere.
func TestDescriptors(t *testing.T) {
	k := newTaken()
	_, path := open(t, k)
	fd := dial(t, path, 0)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	n := int(null.Fd())
	send(t, fd, "first") // whatever is opened once
	k.until(t, "a message", func() bool { return len(k.lines) == 1 })
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := count()
	for i := range 50 {
		rights := unix.UnixRights(n, n, n, n)
		if i%2 == 0 { // together with credentials of its own
			rights = append(unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}), rights...)
		}
		if err := unix.Sendmsg(fd, []byte("x"), rights, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	k.until(t, "51 messages", func() bool { return len(k.lines) == 51 })
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func TestPath(t *testing.T) {
	k := newTaken()
	open := func(path string) (*Receiver, error) {
		return Open(Options{Path: path, Kmsg: "-", Take: k.take, Say: k.say})
	}
	socket := func(path string, kind int) (close func()) {
		fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
		}
		if err == nil && kind == unix.SOCK_STREAM {
			err = unix.Listen(fd, 1)
		}
		if err != nil {
			t.Fatal(err)
		}
		return func() { unix.Close(fd) }
	}
	dir := t.TempDir()
	for name, test := range map[string]struct {
		make func(path string) (cleanup func())
		want string // "": it is served
	}{
		"nothing":  {func(string) func() { return func() {} }, ""},
		"stale":    {func(p string) func() { socket(p, unix.SOCK_DGRAM)(); return func() {} }, ""},
		"stream":   {func(p string) func() { socket(p, unix.SOCK_STREAM)(); return func() {} }, ""},
		"served":   {func(p string) func() { return socket(p, unix.SOCK_DGRAM) }, "somebody else serves it"},
		"listened": {func(p string) func() { return socket(p, unix.SOCK_STREAM) }, "somebody else serves it"},
		"file": {func(p string) func() {
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return func() {}
		}, "it is there, and no socket"},
		"link": {func(p string) func() {
			if err := os.Symlink("nowhere", p); err != nil {
				t.Fatal(err)
			}
			return func() {}
		}, "it is a symbolic link to nothing"},
		"gone/folder": {func(string) func() { return func() {} }, "no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			defer test.make(path)()
			r, err := open(path)
			if test.want != "" {
				if r != nil || err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "serve "+path) {
					t.Errorf("Open = %v, %v; want %q", r, err, test.want)
				}
				if errors.Is(err, ErrServed) != strings.Contains(test.want, "serves") {
					t.Errorf("errors.Is(%v, ErrServed) is wrong", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := open(path); !errors.Is(err, ErrServed) {
				t.Errorf("a second Open = %v, want ErrServed", err)
			}
			r.Close(time.Now().Add(patience))
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after Close: %v, want it gone", err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestTaken: a socket that somebody else put in the place of ours is his.
func TestTaken(t *testing.T) {
	k := newTaken()
	r, path := open(t, k)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := Open(Options{Path: path, Kmsg: "-", Take: k.take, Say: k.say})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(time.Now().Add(patience))
	r.Close(time.Now().Add(patience))
	send(t, dial(t, path, 0), "still there")
	k.until(t, "a message", func() bool { return len(k.lines) == 1 })
}

// TestClose: what was sent before the end is taken.
func TestClose(t *testing.T) {
	k := newTaken()
	r, path := open(t, k)
	hold := make(chan struct{})
	k.mu.Lock()
	k.full = hold
	k.mu.Unlock()
	fd := dial(t, path, unix.SOCK_NONBLOCK)
	n := 0
	for ; n < 1000; n++ {
		if _, err := unix.Write(fd, []byte("x")); err != nil {
			break // the socket is full
		}
	}
	k.mu.Lock()
	k.full = nil
	k.mu.Unlock()
	close(hold)
	r.Close(time.Now().Add(patience))
	if len(k.lines) != n {
		t.Errorf("%d messages of %d", len(k.lines), n)
	}
}

// TestFull: a flood is slowed, and what finds no room in time is counted.
func TestFull(t *testing.T) {
	k := newTaken()
	r, path := open(t, k)
	k.full = make(chan struct{})
	fd := dial(t, path, unix.SOCK_NONBLOCK)
	n := 0
	for ; ; n++ {
		if _, err := unix.Write(fd, []byte("x")); err != nil {
			if err != unix.EAGAIN {
				t.Fatal(err)
			}
			break
		}
		if n > 10_000 {
			t.Fatal("the sender is not slowed")
		}
	}
	k.until(t, "what was lost is said", func() bool { return len(k.said) > 0 })
	if k.said[0] != "warning: 1 message sent to syslog was lost" {
		t.Errorf("said %q", k.said)
	}
	k.mu.Lock()
	full := k.full
	k.full = nil
	k.mu.Unlock()
	close(full)
	k.until(t, "the rest", func() bool { return len(k.lines) > 0 && len(k.lines)+1 <= n })
	r.Close(time.Now().Add(patience))
	if got := len(k.lines) + int(r.lost.messages.Load()); got > n {
		t.Errorf("%d messages of %d", got, n)
	}
}

// TestFullAtTheEnd: nothing holds Close up.
func TestFullAtTheEnd(t *testing.T) {
	k := newTaken()
	r, path := open(t, k)
	k.full = make(chan struct{})
	fd := dial(t, path, unix.SOCK_NONBLOCK)
	n := 0
	for ; n < 1000; n++ {
		if _, err := unix.Write(fd, []byte("x")); err != nil {
			break
		}
	}
	began := time.Now()
	r.Close(time.Now().Add(patience))
	if d := time.Since(began); d > slowest {
		t.Errorf("Close took %v", d)
	}
	if want := fmt.Sprintf("warning: %d messages sent to syslog were lost", n); len(k.said) == 0 || k.said[len(k.said)-1] != want && n > 1 {
		t.Errorf("said %q, want %q", k.said, want)
	}
}

// TestLost: what nobody has room for is counted, and said at most once a minute.
func TestLost(t *testing.T) {
	k := newTaken()
	k.lost = true
	r, path := open(t, k)
	fd := dial(t, path, 0)
	for range 100 {
		send(t, fd, "x")
	}
	k.until(t, "it is said", func() bool { return len(k.said) > 0 })
	r.Close(time.Now().Add(patience))
	if len(k.said) != 2 || k.said[1] != "warning: 99 messages sent to syslog were lost" {
		t.Errorf("said %q", k.said)
	}
}

// kernel is a Receiver of records that come from a socket: one a packet, as
// /dev/kmsg has one a read.
func kernel(t *testing.T, opt Options) (r *Receiver, w int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	opt.defaults()
	r = &Receiver{opt: opt, stop: make(chan struct{}), kmsg: os.NewFile(uintptr(p[0]), "kmsg")}
	r.start("kmsg", r.kmsg, r.readKernel)
	t.Cleanup(func() { unix.Close(p[1]) })
	return r, p[1]
}

func TestKernel(t *testing.T) {
	k := newTaken()
	r, w := kernel(t, Options{Take: k.take, Say: k.say})
	for _, rec := range []string{"6,10,1,-;one", "nonsense", "3,11,1,-;two", "14,14,1,-;user: three"} {
		send(t, w, rec)
	}
	k.until(t, "three records", func() bool { return len(k.lines) == 3 })
	r.Close(time.Now().Add(patience))
	if got := strings.Join(k.lines, " "); got != "info|kernel: one error|kernel: two info|user: three" {
		t.Errorf("lines %q", k.lines)
	}
	if !k.msgs[2].Kernel || k.msgs[2].PID != 0 {
		t.Errorf("message %+v", k.msgs[2])
	}
	if len(k.said) != 1 || k.said[0] != "warning: 2 messages of the kernel were lost" {
		t.Errorf("said %q, want what was overwritten", k.said)
	}
}

func TestKernelWithoutUsers(t *testing.T) {
	k := newTaken()
	r, w := kernel(t, Options{Take: k.take, Say: k.say, NoUser: true})
	send(t, w, "14,1,1,-;our own output")
	send(t, w, "6,2,1,-;one")
	k.until(t, "a record", func() bool { return len(k.lines) == 1 })
	r.Close(time.Now().Add(patience))
	if k.lines[0] != "info|kernel: one" || len(k.said) > 0 {
		t.Errorf("lines %q, said %q", k.lines, k.said)
	}
}

// TestKmsg reads what was written to the kernel's buffer, from its end and from
// its beginning.
func TestKmsg(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: writes /dev/kmsg")
	}
	w, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("needs /dev/kmsg: %v", err)
	}
	defer w.Close()
	mark := fmt.Sprintf("syslogtest[%d]: %d", os.Getpid(), time.Now().UnixNano())
	write := func(text string) {
		if _, err := w.WriteString("<12>" + mark + text + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	has := func(k *taken, text string) bool {
		for _, l := range k.lines {
			if l == "warning|"+mark+text {
				return true
			}
		}
		return false
	}
	write(" before ä")
	now, all := newTaken(), newTaken()
	for k, start := range map[*taken]bool{now: false, all: true} {
		r, err := Open(Options{Path: "-", Take: k.take, Say: k.say, FromStart: start})
		if err != nil || r == nil || r.Serves() {
			t.Fatalf("Open = %v, %v", r, err)
		}
		defer r.Close(time.Now().Add(patience))
	}
	write(" after")
	now.until(t, "what came", func() bool { return has(now, " after") })
	all.until(t, "what came", func() bool { return has(all, " after") })
	before := func(k *taken) bool { // others write there still
		k.mu.Lock()
		defer k.mu.Unlock()
		return has(k, " before ä")
	}
	if fromEnd, fromStart := before(now), before(all); fromEnd || !fromStart {
		t.Errorf("before: %v from the end, %v from the start", fromEnd, fromStart)
	}
}

// TestFaults: a socket, and a file of records, that can only say no are asked less
// and less often, which is said once, and work again when they do.
func TestFaults(t *testing.T) {
	k := newTaken()
	var asked atomic.Int32
	var works atomic.Bool
	fails := func() error {
		switch {
		case works.Load():
			return nil
		case asked.Add(1)%2 == 0:
			return unix.ENOBUFS
		}
		return unix.EIO
	}
	path := filepath.Join(t.TempDir(), "log")
	r, err := Open(Options{Path: path, Kmsg: "-", Take: k.take, Say: k.say, rest: time.Millisecond,
		recvmsg: func(fd int, p, oob []byte, flags int) (int, int, int, unix.Sockaddr, error) {
			if err := fails(); err != nil {
				return 0, 0, 0, nil, err
			}
			return unix.Recvmsg(fd, p, oob, flags)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(time.Now().Add(patience))
	began := time.Now()
	send(t, dial(t, path, 0), "<13>x: y")
	k.until(t, "what is wrong", func() bool { return len(k.said) == 2 })
	for asked.Load() < 6 { // its rests are 1, 2, 4, 8 and 16 ms
		<-time.After(time.Millisecond)
	}
	if since := time.Since(began); since < 20*time.Millisecond {
		t.Errorf("asked %d times in %v", asked.Load(), since)
	}
	works.Store(true)
	k.until(t, "the message", func() bool { return len(k.lines) == 1 })
	if got := strings.Join(k.said, " "); got != "error: receive at "+path+": input/output error; it is tried again"+
		" error: receive at "+path+": no buffer space available; it is tried again" {
		t.Errorf("said %q", k.said)
	}
}

// TestKernelFaults: what is usual is not said the first times, and what is not is.
func TestKernelFaults(t *testing.T) {
	k := newTaken()
	answers := []error{unix.EPIPE, unix.EINVAL, nil, unix.EPIPE, nil, unix.EINVAL, unix.EINVAL, unix.EINVAL, unix.EIO, unix.EIO, nil}
	r, w := kernel(t, Options{Kmsg: "kmsg", Take: k.take, Say: k.say, rest: time.Millisecond,
		read: func(fd int, p []byte) (int, error) {
			if len(answers) > 0 {
				if err := answers[0]; err != nil {
					answers = answers[1:]
					return -1, err
				}
			}
			n, err := unix.Read(fd, p)
			if err == nil {
				answers = answers[min(1, len(answers)):]
			}
			return n, err
		},
	})
	for i := range 4 {
		send(t, w, fmt.Sprintf("6,%d,1,-;one", i))
	}
	k.until(t, "the records", func() bool { return len(k.lines) == 4 })
	r.Close(time.Now().Add(patience))
	if got := strings.Join(k.said, " "); got != "error: read kmsg: invalid argument; it is tried again error: read kmsg: input/output error; it is tried again" {
		t.Errorf("said %q", k.said)
	}
}

// TestFaultAtTheEnd: Close does not wait for the rest after an error.
func TestFaultAtTheEnd(t *testing.T) {
	k := newTaken()
	r, w := kernel(t, Options{Take: k.take, Say: k.say, rest: time.Hour,
		read: func(int, []byte) (int, error) { return -1, unix.EIO }})
	send(t, w, "x")
	k.until(t, "what is wrong", func() bool { return len(k.said) == 1 })
	began := time.Now()
	r.Close(time.Now().Add(patience))
	if since := time.Since(began); since >= longestRest {
		t.Errorf("Close took %v", since)
	}
}

// TestNowhere: without anything to receive there is no Receiver, and no noise.
func TestNowhere(t *testing.T) {
	r, err := Open(Options{Path: "-", Kmsg: filepath.Join(t.TempDir(), "kmsg")})
	if r != nil || err != nil {
		t.Errorf("Open = %v, %v; want nothing", r, err)
	}
}

// TestPanics: a message that makes us panic costs that message.
func TestPanics(t *testing.T) {
	k := newTaken()
	var told atomic.Int32
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	r, err := Open(Options{Path: path, Kmsg: "-", Say: k.say,
		Take: func(m *Message) func() (<-chan struct{}, bool) {
			if m.Text == "bad" {
				panic("bad")
			}
			return k.take(m)
		},
		Panicked: func(string, any) { told.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	fd := dial(t, path, 0)
	for _, text := range []string{"a", "bad", "b", "bad", "c"} {
		send(t, fd, "<13>x: "+text)
	}
	k.until(t, "the others", func() bool { return len(k.lines) == 3 })
	send(t, fd, "<13>x: bad")
	send(t, fd, "<13>x: d")
	r.Close(time.Now().Add(patience))
	if len(k.lines) != 4 || told.Load() != 3 {
		t.Errorf("lines %q, %d panics told", k.lines, told.Load())
	}
}
