package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// needRoot skips what only root can set up; PAZINIT_TEST_MUST=root forbids that.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if strings.Contains(os.Getenv("PAZINIT_TEST_MUST"), "root") {
		t.Fatal("needs root")
	}
	t.Skip("needs root: other users' connections")
}

// listenUntilKilled is the test binary as another supervisor.
func listenUntilKilled(path string) {
	s, err := Listen(ServerOptions{Path: path, OwnerUID: -1, OwnerGID: -1, Handler: echo})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("listening")
	s.Serve()
}

// startOther starts the test binary as another supervisor on path.
func startOther(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PAZINIT_TEST_LISTEN="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	b := make([]byte, len("listening\n"))
	if _, err := io.ReadFull(out, b); err != nil || string(b) != "listening\n" {
		t.Fatalf("the other supervisor says %q, %v", b, err)
	}
	return cmd
}

func TestSecondSupervisorIsRefused(t *testing.T) {
	path := filepath.Join(privateDir(t), "s")
	other := startOther(t, path)
	_, err := Listen(ServerOptions{Path: path, OwnerUID: -1, OwnerGID: -1})
	var inUse *InUseError
	if !errors.As(err, &inUse) || inUse.PID != other.Process.Pid || !strings.Contains(err.Error(), fmt.Sprint("pid ", other.Process.Pid)) {
		t.Fatalf("Listen() = %v, want an InUseError of pid %d", err, other.Process.Pid)
	}
	if r, err := dial(t, path).Do(t.Context(), &Request{Verb: "pid"}, nil); err != nil || r.Message != "pid" {
		t.Errorf("the first one afterwards: %+v, %v", r, err)
	}

	// Killed, it leaves a stale socket and FIFO, which are taken over.
	other.Process.Kill()
	other.Wait()
	for _, name := range []string{"s", "control"} {
		if _, err := os.Lstat(filepath.Join(filepath.Dir(path), name)); err != nil {
			t.Fatalf("nothing stale to take over: %v", err)
		}
	}
	if _, err := Dial(path); !errors.Is(err, ErrNoServer) {
		t.Errorf("Dial(stale) = %v, want ErrNoServer", err)
	}
	log := newLog()
	s := serve(t, ServerOptions{Path: path, Log: log.add})
	if s.FIFO() == "" {
		t.Errorf("no FIFO: %s", log.text())
	}
	if r, err := dial(t, path).Do(t.Context(), &Request{Verb: "pid"}, nil); err != nil || r.Message != "pid" {
		t.Errorf("after the take-over: %+v, %v", r, err)
	}
}

func TestSecondInOneProcess(t *testing.T) {
	s := serve(t, ServerOptions{})
	_, err := Listen(ServerOptions{Path: s.Path(), OwnerUID: -1, OwnerGID: -1})
	var inUse *InUseError
	if !errors.As(err, &inUse) || inUse.PID != os.Getpid() {
		t.Errorf("Listen() = %v, want an InUseError of pid %d", err, os.Getpid())
	}
	if c, err := Dial(s.Path()); err != nil {
		t.Errorf("the refused one took the socket away: %v", err)
	} else {
		c.Close()
	}
}

// The lock is held before anybody listens: then the lock file names the pid.
func TestLockNamesThePID(t *testing.T) {
	dir := privateDir(t)
	fd, err := openFolder(dir, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lock, _, err := lockSocket(fd, filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(lock)
	_, err = Listen(ServerOptions{Path: filepath.Join(dir, "s"), OwnerUID: -1, OwnerGID: -1})
	var inUse *InUseError
	if !errors.As(err, &inUse) || inUse.PID != os.Getpid() {
		t.Errorf("Listen() = %v, want an InUseError of pid %d", err, os.Getpid())
	}
}

// Somebody who does not know of the lock listens: not taken over either.
func TestForeignListenerIsNotTakenOver(t *testing.T) {
	path := filepath.Join(privateDir(t), "s")
	fd, _ := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	unix.Listen(fd, 1)
	var inUse *InUseError
	if _, err := Listen(ServerOptions{Path: path, OwnerUID: -1, OwnerGID: -1}); !errors.As(err, &inUse) || inUse.PID != os.Getpid() {
		t.Errorf("Listen() = %v, want an InUseError", err)
	}
}

func TestNoSocketIsNotReplaced(t *testing.T) {
	path := filepath.Join(privateDir(t), "s")
	os.WriteFile(path, []byte("precious"), 0o600)
	if _, err := Listen(ServerOptions{Path: path, OwnerUID: -1, OwnerGID: -1}); err == nil {
		t.Error("Listen() over a file = nil, want an error")
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file is %q now", b)
	}
}

// Neither the socket nor its temporary name ever has more than its mode,
// whatever the umask.
func TestModeFromTheFirstInstant(t *testing.T) {
	dir := privateDir(t)
	path := filepath.Join(dir, "s")
	for _, mode := range []uint32{0o600, 0o660, 0o666, 0o700, 0o400} {
		for _, umask := range []int{0, 0o22, 0o77, 0o177} {
			var stop atomic.Bool
			seen := make(chan map[uint32]bool)
			ready := make(chan struct{})
			go func() {
				modes := make(map[uint32]bool)
				var st unix.Stat_t
				close(ready)
				for !stop.Load() {
					if unix.Lstat(path, &st) == nil {
						modes[st.Mode&0o7777] = true
					}
					if unix.Lstat(filepath.Join(dir, ".s.new"), &st) == nil && st.Mode&0o7777&^mode != 0 {
						t.Errorf("mode %04o, umask %03o: the temporary name has %04o", mode, umask, st.Mode&0o7777)
					}
				}
				seen <- modes
			}()
			<-ready
			old := unix.Umask(umask)
			for range 20 {
				s, err := Listen(ServerOptions{Path: path, Mode: mode, OwnerUID: -1, OwnerGID: -1})
				if err != nil {
					t.Fatal(err)
				}
				var st unix.Stat_t
				if err := unix.Lstat(path, &st); err != nil || st.Mode&0o7777 != mode {
					t.Errorf("umask %03o: mode = %04o, want %04o", umask, st.Mode&0o7777, mode)
				}
				if err := unix.Lstat(s.FIFO(), &st); err != nil || st.Mode != unix.S_IFIFO|0o600 {
					t.Errorf("umask %03o: the FIFO's mode = %o, want a FIFO's 0600", umask, st.Mode)
				}
				s.Close()
			}
			unix.Umask(old)
			stop.Store(true)
			for m := range <-seen {
				if m != mode {
					t.Errorf("umask %03o: seen with mode %04o, want only %04o", umask, m, mode)
				}
			}
		}
	}
}

func TestOwner(t *testing.T) {
	needRoot(t)
	s := serve(t, ServerOptions{Mode: 0o660, OwnerUID: 4242, OwnerGID: 4243})
	var st unix.Stat_t
	if err := unix.Lstat(s.Path(), &st); err != nil || st.Uid != 4242 || st.Gid != 4243 || st.Mode&0o7777 != 0o660 {
		t.Errorf("socket is %d:%d %04o, %v, want 4242:4243 0660", st.Uid, st.Gid, st.Mode&0o7777, err)
	}
	if err := unix.Lstat(s.FIFO(), &st); err != nil || st.Uid != 0 {
		t.Errorf("FIFO is of uid %d, %v, want 0", st.Uid, err)
	}
}

func TestFolder(t *testing.T) {
	base := privateDir(t)
	mkdir := func(name string, mode os.FileMode) string {
		t.Helper()
		dir := filepath.Join(base, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	shared := mkdir("shared", 0o777|os.ModeSticky)
	mkdir("shared/own", 0o700)
	mkdir("shared/open", 0o755)
	mkdir("safe", 0o700)
	os.Symlink(filepath.Join(base, "safe"), filepath.Join(shared, "link"))
	os.WriteFile(filepath.Join(base, "file"), nil, 0o600)
	for _, tt := range []struct {
		dir    string
		fail   bool
		unsafe bool
	}{
		{"shared", true, true},
		{"shared/own", false, false},
		{"shared/new", false, false},
		{"shared/own/new", false, false},
		{"shared/open", true, true},
		{"shared/link", true, true},
		{"shared/link/new", true, true},
		{"file", true, false},
		{"file/below", true, false},
	} {
		s, err := Listen(ServerOptions{Path: filepath.Join(base, tt.dir, "s"), OwnerUID: -1, OwnerGID: -1})
		var fe *FolderError
		switch {
		case !tt.fail && err != nil:
			t.Errorf("Listen in %s = %v, want nil", tt.dir, err)
		case tt.fail && (!errors.As(err, &fe) || fe.Unsafe != tt.unsafe):
			t.Errorf("Listen in %s = %v, want a FolderError with Unsafe %v", tt.dir, err, tt.unsafe)
		}
		if err == nil {
			s.Close()
		}
	}
	if st, err := os.Stat(filepath.Join(shared, "new")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the new folder has mode %v, %v, want 0700", st.Mode(), err)
	}
}

func TestFolderOfOthers(t *testing.T) {
	needRoot(t)
	shared := privateDir(t)
	os.Chmod(shared, 0o777|os.ModeSticky)
	for _, name := range []string{"safe", "open", "theirs"} {
		os.Mkdir(filepath.Join(shared, name), 0o700)
	}
	os.Chmod(filepath.Join(shared, "open"), 0o755)
	os.Chown(filepath.Join(shared, "theirs"), 4242, 4242)
	var fe *FolderError
	if _, err := Listen(ServerOptions{Path: filepath.Join(shared, "theirs", "s"), OwnerUID: -1, OwnerGID: -1}); !errors.As(err, &fe) || !fe.Unsafe {
		t.Errorf("Listen in another's folder = %v, want an unsafe FolderError", err)
	}
	// A link where only we can write is followed, but not into where others can.
	run := runDir(t)
	os.Symlink(filepath.Join(shared, "safe"), filepath.Join(run, "good"))
	os.Symlink(filepath.Join(shared, "open"), filepath.Join(run, "bad"))
	serve(t, ServerOptions{Path: filepath.Join(run, "good", "s")})
	if _, err := Listen(ServerOptions{Path: filepath.Join(run, "bad", "s"), OwnerUID: -1, OwnerGID: -1}); !errors.As(err, &fe) || !fe.Unsafe {
		t.Errorf("Listen behind a link into an open folder = %v, want an unsafe FolderError", err)
	}
}

// runDir is a folder above which nobody but root can write.
func runDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestNewFolderLetsOthersReachTheSocket(t *testing.T) {
	needRoot(t)
	dir := runDir(t)
	for mode, want := range map[uint32]os.FileMode{0o600: 0o700, 0o660: 0o711} {
		sub := filepath.Join(dir, fmt.Sprint(mode))
		serve(t, ServerOptions{Path: filepath.Join(sub, "s"), Mode: mode})
		if st, err := os.Stat(sub); err != nil || st.Mode().Perm() != want {
			t.Errorf("socket mode %04o: the folder has mode %v, %v, want %v", mode, st.Mode(), err, want)
		}
	}
	log := newLog()
	serve(t, ServerOptions{Path: filepath.Join(dir, "x"), Mode: 0o666, Log: log.add})
	if !strings.Contains(log.text(), "nobody else can reach the socket") {
		t.Errorf("log = %q, want a word about the folder's mode", log.text())
	}
}

// A read-only place is a FolderError, which the supervisor can live with.
func TestReadOnlyFolder(t *testing.T) {
	_, err := Listen(ServerOptions{Path: "/proc/self/pazinit/s", OwnerUID: -1, OwnerGID: -1})
	var fe *FolderError
	if !errors.As(err, &fe) || fe.Unsafe {
		t.Errorf("Listen in /proc/self/pazinit = %v, want a FolderError", err)
	}
	_, err = Listen(ServerOptions{Path: "/sys/s", OwnerUID: -1, OwnerGID: -1})
	if !errors.As(err, &fe) || fe.Unsafe {
		t.Errorf("Listen in /sys = %v, want a FolderError", err)
	}
}

func TestCloseLeavesWhatIsNotOurs(t *testing.T) {
	s := serve(t, ServerOptions{})
	os.Remove(s.Path())
	os.WriteFile(s.Path(), []byte("another's"), 0o600)
	fifo := s.FIFO()
	os.Remove(fifo)
	syscall.Mkfifo(fifo, 0o600)
	s.Close()
	for _, path := range []string{s.Path(), fifo} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("Close() removed what was not its own: %v", err)
		}
	}
}

func TestLongPath(t *testing.T) {
	dir := privateDir(t)
	for range 3 {
		dir = filepath.Join(dir, strings.Repeat("d", 100))
	}
	for _, name := range []string{"s", strings.Repeat("s", 60)} {
		s := serve(t, ServerOptions{Path: filepath.Join(dir, name), NoFIFO: name != "s"})
		if r, err := dial(t, s.Path()).Do(t.Context(), &Request{Verb: "pid"}, nil); err != nil || r.Message != "pid" {
			t.Errorf("a path of %d bytes: %+v, %v", len(s.Path()), r, err)
		}
		if _, err := Listen(ServerOptions{Path: s.Path(), OwnerUID: -1, OwnerGID: -1}); !errors.As(err, new(*InUseError)) {
			t.Errorf("a second one on a path of %d bytes: %v, want an InUseError", len(s.Path()), err)
		}
	}
	if _, err := Listen(ServerOptions{Path: filepath.Join(dir, strings.Repeat("s", 300)), OwnerUID: -1, OwnerGID: -1}); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("a name of 300 bytes: %v, want %v", err, unix.ENAMETOOLONG)
	}
	if _, err := Dial(filepath.Join(dir, "nobody")); !errors.Is(err, ErrNoServer) {
		t.Errorf("Dial(long path to nothing) = %v, want ErrNoServer", err)
	}
}

func TestDialErrors(t *testing.T) {
	dir := privateDir(t)
	for _, path := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "no", "folder")} {
		if _, err := Dial(path); !errors.Is(err, ErrNoServer) || !strings.Contains(err.Error(), path) {
			t.Errorf("Dial(%s) = %v, want ErrNoServer that names it", path, err)
		}
	}
}

func TestDialDenied(t *testing.T) {
	needRoot(t)
	s := serve(t, ServerOptions{})
	os.Chmod(filepath.Dir(s.Path()), 0o755)
	err := asUser(4242, func() error { _, err := Dial(s.Path()); return err })
	if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), s.Path()) || !strings.Contains(err.Error(), "4242") {
		t.Errorf("Dial as uid 4242 = %v, want ErrDenied that names path and uid", err)
	}
}

// asUser runs f on a thread with the file system rights of uid, and with its
// credentials on the wire.
func asUser(uid int, f func() error) error {
	done := make(chan error)
	go func() {
		done <- func() error {
			lockThread() // and never give it back: the thread ends with the goroutine
			if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
				return e
			}
			u := uintptr(uid)
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, u, u, u); e != 0 {
				return e
			}
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, u, u, u); e != 0 {
				return e
			}
			return f()
		}()
	}()
	return <-done
}

// crowd is the test binary as one user's 1,000 connections.
func crowd(path string) {
	n := 0
	for range 1000 {
		if _, err := connect(path); err == nil {
			n++
		}
	}
	fmt.Printf("crowd %4d\n", n)
	select {}
}

// One user's thousand connections lock out neither another user nor root.
func TestCrowd(t *testing.T) {
	needRoot(t)
	dir := runDir(t)
	os.Chmod(dir, 0o755)
	exe := filepath.Join(dir, "test") // the build's own folder may be closed to others
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	peers := make(chan Peer, 1)
	s := serve(t, ServerOptions{Path: filepath.Join(dir, "s"), Mode: 0o666, Handler: func(_ context.Context, p Peer, _ *Request, send func(*Reply) error) {
		peers <- p
		send(&Reply{Done: true})
	}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	cmd.Dir = "/"
	cmd.Env = []string{"PAZINIT_TEST_CROWD=" + s.Path()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4242, Gid: 4242, Groups: []uint32{4300, 4301}}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cancel()
	line := make([]byte, len("crowd 1000\n"))
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "crowd 1000\n" {
		t.Fatalf("the crowd says %q, %v", line, err)
	}
	// Each connection is let in or refused in turn: once ours is answered, all of theirs were looked at.
	if _, err := dial(t, s.Path()).Do(t.Context(), &Request{Verb: "pid"}, nil); err != nil {
		t.Fatalf("root: %v", err)
	}
	if p := <-peers; p.UID != 0 || p.PID != os.Getpid() {
		t.Errorf("peer = %+v, want root", p)
	}
	s.mu.Lock()
	n := s.perUID[4242]
	s.mu.Unlock()
	if n != 16 {
		t.Errorf("connections of the crowd = %d, want 16", n)
	}
	for _, uid := range []int{4343, 4242} {
		err := asUser(uid, func() error {
			c, err := Dial(s.Path())
			if err != nil {
				return err
			}
			defer c.Close()
			r, err := c.Do(context.Background(), &Request{Verb: "pid"}, nil)
			if err == nil && r.Code != 0 {
				err = errors.New(r.Error)
			}
			return err
		})
		switch {
		case uid == 4242 && (err == nil || !strings.Contains(err.Error(), "too many connections of uid 4242")):
			t.Errorf("one more of the crowd: %v, want too many", err)
		case uid == 4343:
			if err != nil {
				t.Errorf("another user: %v", err)
			} else if p := <-peers; p.UID != 4343 || p.GID != 4343 || len(p.Groups) != 0 {
				t.Errorf("peer = %+v, want uid 4343 without groups", p)
			}
		}
	}
}

// A quarter of the places is root's and our own user's, the last of it root's.
func TestReserve(t *testing.T) {
	own := uint32(os.Geteuid())
	s := &Server{opt: ServerOptions{MaxConns: 64, MaxPerUID: 16}, conns: make(map[*conn]struct{}), perUID: map[uint32]int{4242: 15, 4243: 16}}
	users := map[string]uint32{"root": 0, "own": own, "other": 4242, "other at the limit": 4243}
	if own == 0 {
		delete(users, "own")
	}
	for n := range 70 {
		for who, uid := range users {
			want := n < map[string]int{"root": 64, "own": 60, "other": 48, "other at the limit": 0}[who]
			if why := s.full(uid); (why == "") != want {
				t.Errorf("%s with %d connections: full() = %q, want room %v", who, n, why, want)
			}
		}
		s.conns[new(conn)] = struct{}{}
	}
}

// Supervisors that come and go never hold one socket at the same time.
func TestLockIsHeldByOne(t *testing.T) {
	path := filepath.Join(privateDir(t), "s")
	var holders, held atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for held.Load() < 500 && !t.Failed() {
				s, err := Listen(ServerOptions{Path: path, OwnerUID: -1, OwnerGID: -1, NoFIFO: true})
				if err != nil {
					if !errors.As(err, new(*InUseError)) {
						t.Errorf("Listen() = %v, want nil or an InUseError", err)
					}
					continue
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold the socket", n)
				}
				runtime.Gosched()
				held.Add(1)
				holders.Add(-1)
				s.Close()
			}
		})
	}
	wg.Wait()
}

// Nothing is left open by servers and connections that came and went.
func TestNoLeakOfDescriptors(t *testing.T) {
	open := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	path := filepath.Join(privateDir(t), "s")
	var before int
	for i := range 20 {
		s, err := Listen(ServerOptions{Path: path, OwnerUID: -1, OwnerGID: -1, Handler: echo})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- s.Serve() }()
		for range 10 {
			c, err := Dial(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Do(t.Context(), &Request{Verb: "events"}, nil); err != nil {
				t.Error(err)
			}
			c.Close()
		}
		if _, err := Listen(ServerOptions{Path: path, OwnerUID: -1, OwnerGID: -1}); err == nil {
			t.Error("a second Listen = nil, want an error")
		}
		s.Close()
		<-done
		if i == 0 {
			before = open()
		}
	}
	if after := open(); after > before {
		t.Errorf("open descriptors = %d, were %d", after, before)
	}
}

func TestPeerGroups(t *testing.T) {
	needRoot(t)
	for _, n := range []int{0, 2, 32, 33, 1000} {
		groups := make([]int, n)
		for i := range groups {
			groups[i] = 5000 + i
		}
		pair := make(chan [2]int)
		go func() {
			lockThread()
			gids := make([]uint32, n+1)
			for i, g := range groups {
				gids[i] = uint32(g)
			}
			setgroups(gids[:n])
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
			}
			pair <- fds
		}()
		fds := <-pair
		p, err := peerOf(fds[0])
		if err != nil || len(p.Groups) != n || n > 0 && p.Groups[n-1] != uint32(5000+n-1) {
			t.Errorf("%d groups: peer = %d groups, %v", n, len(p.Groups), err)
		}
		unix.Close(fds[0])
		unix.Close(fds[1])
	}
}

func TestDefaultSocket(t *testing.T) {
	for _, tt := range []struct {
		uid       int
		xdg, want string
	}{
		{0, "/run/user/0", "/run/pazinit/pazinit.sock"},
		{1000, "/run/user/1000", "/run/user/1000/pazinit/pazinit.sock"},
		{1000, "", "/tmp/pazinit-1000/pazinit.sock"},
		{1000, "relative", "/tmp/pazinit-1000/pazinit.sock"},
	} {
		env := func(name string) string { return map[string]string{"XDG_RUNTIME_DIR": tt.xdg}[name] }
		if got := DefaultSocket(tt.uid, env); got != tt.want {
			t.Errorf("DefaultSocket(%d, %q) = %s, want %s", tt.uid, tt.xdg, got, tt.want)
		}
	}
}
