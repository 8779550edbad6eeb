package reaper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPathSearch(t *testing.T) {
	b := newBench(t, Options{})
	closed := t.TempDir()
	if err := os.WriteFile(filepath.Join(closed, "true"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/bin", "/nowhere:/bin", "/etc/passwd:/nowhere:/bin", "/nowhere:/etc/passwd:/bin:/usr/bin", closed + ":/bin"} {
		s := spec("true")
		s.Env = []string{"PATH=" + path}
		if ws := b.run(s); ws != 0 {
			t.Errorf("true in %s = %#x, want 0", path, ws)
		}
	}
	s := spec("true")
	s.Env = nil
	if ws := b.run(s); ws != 0 {
		t.Errorf("true without PATH = %#x, want 0", ws)
	}
	s = spec("true") // an empty entry is the child's folder, not ours
	s.Env, s.Dir = []string{"PATH=:/nowhere"}, "/bin"
	if ws := b.run(s); ws != 0 {
		t.Errorf("true in an empty entry of PATH = %#x, want 0", ws)
	}
}

func TestExitCodes(t *testing.T) {
	b := newBench(t, Options{})
	for code := range 256 {
		if ws := b.run(spec("/bin/sh", "-c", `exit "$0"`, strconv.Itoa(code))); !ws.Exited() || ws.ExitStatus() != code {
			t.Errorf("exit %d = %#x, want %#x", code, ws, code<<8)
		}
	}
}

func TestStartErrors(t *testing.T) {
	b := newBench(t, Options{})
	dir := t.TempDir()
	plain := write(t, 0o644, "#!/bin/sh\n")
	noInterpreter := write(t, 0o755, "#!/no/such/interpreter -x\n")
	noFormat := write(t, 0o755, "neither\n")
	noElf := write(t, 0o755, "\x7fELF\x02\x01\x01")
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	in := func(dir string, argv ...string) *Spec {
		s := spec(argv...)
		s.Dir = dir
		return s
	}
	path := func(path string, argv ...string) *Spec {
		s := spec(argv...)
		s.Env = []string{"PATH=" + path}
		return s
	}
	files := func(s *Spec, f [3]int) *Spec { s.Files = f; return s }
	tests := []struct {
		name string
		s    *Spec
		step string
		what string
		err  error
		hint string
		code int
	}{
		{"missing", spec("/no/such"), stepExec, "/no/such", unix.ENOENT, "", 127},
		{"missing, relative", in(dir, "./such"), stepExec, "./such", unix.ENOENT, "", 127},
		{"not in PATH", spec("no-such"), stepExec, "no-such", unix.ENOENT, "not found in PATH", 127},
		{"PATH of files", path("/etc/passwd", "no-such"), stepExec, "no-such", unix.ENOENT, "not found in PATH", 127},
		{"PATH of files and folders", path("/etc/passwd:/bin", "no-such"), stepExec, "no-such", unix.ENOENT, "not found in PATH", 127},
		{"not executable", spec(plain), stepExec, plain, unix.EACCES, "not executable", 126},
		{"not executable in PATH", path("/nowhere:"+filepath.Dir(plain)+":/bin", "file-x"), stepExec, "file-x", unix.ENOENT, "not found in PATH", 127},
		{"not executable and missing", path(filepath.Dir(plain)+":/nowhere", "file"), stepExec, plain, unix.EACCES, "not executable", 126},
		{"missing and not executable", path("/nowhere:"+filepath.Dir(plain), "file"), stepExec, plain, unix.EACCES, "not executable", 126},
		{"folder", spec(dir), stepExec, dir, unix.EACCES, "it is a folder", 126},
		{"below a file", spec("/etc/passwd/x"), stepExec, "/etc/passwd/x", unix.ENOTDIR, "", 126},
		{"bad interpreter", spec(noInterpreter), stepExec, noInterpreter, unix.ENOENT, "its interpreter /no/such/interpreter is missing", 127},
		{"bad interpreter in PATH", path("/nowhere:"+filepath.Dir(noInterpreter), "file"), stepExec, noInterpreter, unix.ENOENT, "its interpreter /no/such/interpreter is missing", 127},
		{"bad interpreter, relative", in(filepath.Dir(noInterpreter), "./file"), stepExec, "./file", unix.ENOENT, "its interpreter /no/such/interpreter is missing", 127},
		{"no format", spec(noFormat), stepExec, noFormat, unix.ENOEXEC, "neither a program of this machine nor a script with a #! line", 126},
		{"cut ELF", spec(noElf), stepExec, noElf, unix.ENOEXEC, "neither a program of this machine nor a script with a #! line", 126},
		{"loop of links", spec(loop), stepExec, loop, unix.ELOOP, "", 126},
		{"no folder", in("/no/such", "/bin/true"), stepDir, "/no/such", unix.ENOENT, "", 126},
		{"a file as folder", in("/etc/passwd", "/bin/true"), stepDir, "/etc/passwd", unix.ENOTDIR, "", 126},
		{"bad descriptor", files(spec("/bin/true"), [3]int{-1, 99999, -1}), "set descriptor", "", unix.EBADF, "", 126},
		{"too long", spec("/bin/true", strings.Repeat("x", 1<<20)), stepExec, "/bin/true", unix.E2BIG, "", 126},
		{"no command", spec(), stepExec, "", unix.ENOENT, "the command is empty", 127},
		{"empty command", spec(""), stepExec, "", unix.ENOENT, "the command is empty", 127},
	}
	for _, test := range tests {
		e := b.fails(test.s)
		if e.Step != test.step || e.What != test.what || !errors.Is(e, test.err) || e.Hint != test.hint || e.Code() != test.code {
			t.Errorf("%s: %q (%#v), code %d; want %+v", test.name, e, *e, e.Code(), test)
		}
	}
	for _, s := range []*Spec{spec("/bin/true", "a\x00b"), in("/\x00", "/bin/true"), spec("/bin/\x00true")} {
		if e := b.fails(s); e.Step != "prepare" || !strings.Contains(e.Error(), "NUL") {
			t.Errorf("NUL byte: %v, want the step prepare", e)
		}
	}
	s := spec("/bin/true")
	s.Prepare = func(*Spec) error { return fmt.Errorf("no %w", os.ErrInvalid) }
	released := false
	s.Release = func() { released = true }
	if e := b.fails(s); e.Step != "prepare" || !errors.Is(e, os.ErrInvalid) || !released {
		t.Errorf("prepare: %v, released %t", e, released)
	}
}

// TestUnprivileged may not become anybody else.
func TestUnprivileged(t *testing.T) {
	if !rerun(t, func(c *exec.Cmd) {
		if os.Geteuid() == 0 {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
			c.Path, c.Dir = copyOf(t, c.Path), "/"
		}
	}) {
		return
	}
	b := newBench(t, Options{Raise: true})
	for _, test := range []struct {
		u    User
		step string
	}{
		{User{UID: 1, SetUID: true}, "set user 1"},
		{User{GID: 2, SetGID: true}, "set group 2"},
		{User{GID: uint32(os.Getgid()), Groups: []uint32{3}, SetGID: true}, "set groups [3]"},
	} {
		s := spec("/bin/true")
		s.User = &test.u
		if e := b.fails(s); e.Step != test.step || !errors.Is(e, unix.EPERM) || e.Code() != 126 {
			t.Errorf("%+v: %v, want %s: %v", test.u, e, test.step, unix.EPERM)
		}
	}
	s := spec("/usr/bin/id", "-u")
	s.User = &User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), SetUID: true, SetGID: true}
	if got := b.output(s); got != strconv.Itoa(os.Getuid())+"\n" {
		t.Errorf("id as ourselves = %q", got)
	}
	s = spec("/bin/true")
	s.Dir = "/root"
	if e := b.fails(s); e.Step != stepDir || !errors.Is(e, unix.EACCES) {
		t.Errorf("in /root: %v", e)
	}
}

// copyOf makes a program that everybody may execute.
func copyOf(t *testing.T, program string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "reaper-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "test")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(to, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestArguments(t *testing.T) {
	b := newBench(t, Options{})
	dir := t.TempDir()
	s := spec("/bin/sh", "-c", `unset SHLVL; printf '%s|' "$@"; pwd; env | sort; umask; cat /proc/self/cmdline | tr '\0' '~'`, "sh", "", "a b", "ü\n", strings.Repeat("y", 100000))
	s.Env = []string{"A=1", "PATH=/usr/bin:/bin", "B=x=y", "EMPTY="}
	s.Dir, s.Umask = dir, 0o027
	out := b.output(s)
	want := "|a b|ü\n|" + strings.Repeat("y", 100000) + "|" + dir + "\nA=1\nB=x=y\nEMPTY=\nPATH=/usr/bin:/bin\nPWD=" + dir + "\n0027\ncat~/proc/self/cmdline~"
	if out != want {
		t.Errorf("child says %.2000q, want %.2000q", strings.ReplaceAll(out, "yy", ""), strings.ReplaceAll(want, "yy", ""))
	}
	s = spec("/bin/pwd")
	if out := b.output(s); out != "/\n" {
		t.Errorf("default folder = %q, want /", out)
	}
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	if out := b.output(spec("/bin/sh", "-c", "umask")); out != "0077\n" {
		t.Errorf("umask left alone = %q, want 0077", out)
	}
}

func TestUser(t *testing.T) {
	needRoot(t)
	b := newBench(t, Options{})
	for _, test := range []struct {
		u                *User
		uid, gid, groups string
	}{
		{&User{UID: 1, GID: 2, Groups: []uint32{3, 70000, 4}, SetUID: true, SetGID: true}, "1 1 1 1", "2 2 2 2", "3 4 70000"},
		{&User{UID: 1, GID: 2, SetUID: true, SetGID: true}, "1 1 1 1", "2 2 2 2", ""},
		{&User{GID: 2, SetGID: true}, "0 0 0 0", "2 2 2 2", ""},
		{&User{UID: 4000000000, GID: 4000000001, SetUID: true, SetGID: true}, "4000000000 4000000000 4000000000 4000000000", "4000000001 4000000001 4000000001 4000000001", ""},
	} {
		s := spec("/bin/cat", "/proc/self/status")
		s.User = test.u
		out := b.output(s)
		for name, want := range map[string]string{"Uid": test.uid, "Gid": test.gid, "Groups": test.groups} {
			if got := strings.Join(strings.Fields(field(out, name)), " "); got != want {
				t.Errorf("%+v: %s = %q, want %q", *test.u, name, got, want)
			}
		}
		if got := field(out, "CapEff"); test.u.SetUID && strings.Trim(got, "0") != "" {
			t.Errorf("%+v: CapEff = %s, want none", *test.u, got)
		}
	}
	// The folder must be good for the user, not for us.
	s := spec("/bin/true")
	s.Dir = filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.User = &User{UID: 1, SetUID: true}
	if e := b.fails(s); e.Step != stepDir || !errors.Is(e, unix.EACCES) {
		t.Errorf("closed folder: %v, want %s: %v", e, stepDir, unix.EACCES)
	}
}

func init() {
	children["files"] = func() {
		_ = os.WriteFile(os.Args[1], []byte(strings.Join(openFiles(), "\n")), 0o600)
	}
}

// TestFilesOfChild passes every mix of our own 0, 1 and 2, of none and of another.
func TestFilesOfChild(t *testing.T) {
	if !rerun(t, func(c *exec.Cmd) { c.ExtraFiles = []*os.File{os.Stderr} }) {
		return
	}
	// What we were started with is open without close-on-exec, and so is this.
	loose, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(loose)
	b := newBench(t, Options{})
	other, err := os.Open("/etc/group")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var own [3]string
	for i := range own {
		own[i], _ = os.Readlink("/proc/self/fd/" + strconv.Itoa(i))
	}
	report := filepath.Join(t.TempDir(), "report")
	choices := []int{-1, 0, 1, 2, int(other.Fd())}
	for _, in := range choices {
		for _, out := range choices {
			for _, errs := range choices {
				s := spec("/proc/self/exe", report)
				s.Argv[0], _ = os.Executable()
				s.Env = []string{"REAPER_CHILD=files", "GORACE=atexit_sleep_ms=0"}
				s.Files = [3]int{in, out, errs}
				if ws := b.run(s); ws != 0 {
					t.Fatalf("Files %v: child ended with %#x", s.Files, ws)
				}
				text, _ := os.ReadFile(report)
				got := strings.Fields(string(text))
				if len(got) < 3 {
					t.Fatalf("Files %v: child has %q", s.Files, text)
				}
				for i, fd := range s.Files {
					want := "/dev/null"
					if fd >= 0 && fd < 3 {
						want = own[fd]
					} else if fd > 2 {
						want = "/etc/group"
					}
					if got[i] != strconv.Itoa(i)+"="+want {
						t.Errorf("Files %v: %s, want %s", s.Files, got[i], want)
					}
				}
				if len(got) > 3 {
					t.Errorf("Files %v: child has more: %v", s.Files, got)
				}
			}
		}
	}
}

func TestSession(t *testing.T) {
	b := newBench(t, Options{})
	run := b.start(spec("/bin/sleep", "1000"))
	pid := b.up(run)
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(stat))
	session := pid
	if !hasTerminal() { // then ours will do
		session, _ = unix.Getsid(0)
	}
	if f[4] != strconv.Itoa(pid) || f[5] != strconv.Itoa(session) || f[6] != "0" || f[3] != strconv.Itoa(os.Getpid()) {
		t.Errorf("parent %s, group %s, session %s, terminal %s; want %d, %d, %d, 0", f[3], f[4], f[5], f[6], os.Getpid(), pid, session)
	}
	if b.PID(run) != pid {
		t.Errorf("PID = %d, want %d", b.PID(run), pid)
	}
	if err := b.Signal(run, unix.SIGKILL, true); err != nil {
		t.Error(err)
	}
	b.down(run)
}

// TestSignalsOfChild starts from a process that ignores, catches and blocks.
func TestSignalsOfChild(t *testing.T) {
	const ignore = `trap '' HUP PIPE QUIT USR1 TERM CHLD RTMIN+3; exec "$0" "$@"`
	if !rerun(t, func(c *exec.Cmd) {
		c.Args = append([]string{"bash", "-c", ignore, c.Path}, c.Args[1:]...)
		c.Path = "/bin/bash"
	}) {
		return
	}
	signal.Ignore(unix.SIGTSTP, unix.SIGWINCH)
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGUSR2, unix.SIGINT)
	b := newBench(t, Options{})
	for _, fallback := range []bool{false, true} {
		noClone3.Store(fallback)
		for range 10 {
			out := b.output(spec("/bin/cat", "/proc/self/status"))
			for _, name := range []string{"SigIgn", "SigBlk", "SigCgt", "SigPnd", "ShdPnd"} {
				if got := field(out, name); got != "0000000000000000" {
					t.Errorf("clone3 %t: child's %s = %s, want none", !fallback, name, got)
				}
			}
		}
	}
	status, _ := os.ReadFile("/proc/thread-self/status")
	if got := field(string(status), "SigBlk"); got != "0000000000000000" {
		t.Errorf("our SigBlk = %s after the starts, want none", got)
	}
	noClone3.Store(false)
}

// TestQuick starts many children that end before their spawners report.
func TestQuick(t *testing.T) {
	b := newBench(t, Options{})
	for range 5 {
		seen := make(map[uint64]Kind)
		first := b.last + 1
		for range 200 {
			b.start(spec("/bin/true"))
		}
		for len(seen) < 200 || slices.Contains(values(seen), Started) {
			e := b.next(func(Event) bool { return true })
			switch {
			case e.Run < first || e.Err != nil || e.Kind == Orphan:
				t.Fatalf("event %+v, %v", e, e.Err)
			case e.Kind == Started && seen[e.Run] != 0, e.Kind == Exited && e.Status != 0:
				t.Fatalf("event %+v", e)
			}
			if _, ok := seen[e.Run]; !ok && e.Kind != Started {
				t.Fatalf("run %d: first event %+v, want Started", e.Run, e)
			}
			seen[e.Run] = e.Kind
		}
	}
	if len(b.runs)+len(b.pids)+len(b.flying)+len(b.pending) != 0 || b.spawning != 0 {
		t.Errorf("the table holds %d runs, %d pids, %d flying, %d pending, %d spawning; want nothing", len(b.runs), len(b.pids), len(b.flying), len(b.pending), b.spawning)
	}
}

func values(m map[uint64]Kind) []Kind {
	var out []Kind
	for _, v := range m {
		out = append(out, v)
	}
	return out
}
