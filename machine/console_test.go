package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestConsoles(t *testing.T) {
	for _, c := range []struct{ name, active, tty0, want string }{
		{"", "tty0 ttyS0\n", "tty1\n", "ttyS0 tty1 console null"},
		{"", "ttyS0 tty0\n", "tty1\n", "tty1 ttyS0 console null"},
		{"", "hvc0\n", "", "hvc0 console null"},
		{"", "tty0\n", "", "tty0 console null"},
		{"", "", "", "console null"},
		{"ttyS1", "tty0 ttyS0\n", "tty2\n", "ttyS1 ttyS0 tty2 console null"},
		{"ttyS0", "tty0 ttyS0\n", "tty2\n", "ttyS0 tty2 console null"},
	} {
		root := t.TempDir()
		if c.active != "" {
			write(t, filepath.Join(root, "sys/class/tty/console/active"), c.active)
		}
		if c.tty0 != "" {
			write(t, filepath.Join(root, "sys/class/tty/tty0/active"), c.tty0)
		}
		var want []string
		for _, name := range strings.Fields(c.want) {
			want = append(want, filepath.Join(root, "dev", name))
		}
		if got := consoles(root, c.name); !slices.Equal(got, want) {
			t.Errorf("consoles(%q) with %q = %v, want %v", c.name, c.active, got, want)
		}
	}
	if got := consoles(t.TempDir(), "/dev/pts/3"); got[0] != "/dev/pts/3" {
		t.Errorf("consoles of a path = %v, want that path first", got)
	}
}

// pty makes a pair of terminals.
func pty(t *testing.T) (master *os.File, slave string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if cerr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return master, fmt.Sprintf("/dev/pts/%d", n)
}

// TestOpenConsole has a process of its own open a terminal that was left in a
// raw mode, with its standard input closed.
func TestOpenConsole(t *testing.T) {
	const env = "PAZINIT_TEST_CONSOLE"
	if slave := os.Getenv(env); slave != "" {
		openedConsole(slave)
	}
	master, slave := pty(t)
	fd, err := unix.Open(slave, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	modes, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	sane := *modes
	modes.Lflag, modes.Oflag, modes.Iflag = 0, 0, unix.IGNCR
	modes.Cc[unix.VINTR] = 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, modes); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestOpenConsole$")
	cmd.Env = append(os.Environ(), env+"="+slave)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []byte
	buf := make([]byte, 4096)
	for !strings.Contains(string(said), "end\r\n") { // \r\n: output is sane
		n, err := master.Read(buf)
		if err != nil {
			t.Fatalf("read console: %v, until now %q", err, said)
		}
		said = append(said, buf[:n]...)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the child: %v, it said %q", err, said)
	}
	if want := "path " + slave + " err <nil> session 0 nonblock [false false false] more []\r\nend\r\n"; string(said) != want {
		t.Errorf("the console says %q, want %q", said, want)
	}
	now, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	sane.Cflag |= unix.CLOCAL
	if now.Lflag != sane.Lflag || now.Oflag != sane.Oflag || now.Iflag != sane.Iflag || now.Cflag != sane.Cflag || now.Cc[unix.VINTR] != 3 {
		t.Errorf("the console's modes = %+v, want %+v", *now, sane)
	}
}

func openedConsole(slave string) {
	syscall.Close(0)
	path, err := OpenConsole(slave)
	var nonblock [3]bool
	for fd := range nonblock {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		nonblock[fd] = err != nil || flags&unix.O_NONBLOCK != 0
	}
	var more []string
	for fd := 3; fd < 100; fd++ {
		if name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); name == slave {
			more = append(more, name)
		}
	}
	session, _ := unix.IoctlGetInt(0, unix.TIOCGSID)
	fmt.Printf("path %s err %v session %d nonblock %v more %v\nend\n", path, err, session, nonblock, more)
	os.Exit(0)
}

// TestOpenConsoleFallsBack takes the next one if a device cannot be opened.
func TestOpenConsoleFallsBack(t *testing.T) {
	const env = "PAZINIT_TEST_FALLBACK"
	if root := os.Getenv(env); root != "" {
		path, err := openConsole(root, "ttyX")
		// Descriptor 2 is null by now.
		_ = os.WriteFile(filepath.Join(root, "said"), []byte(fmt.Sprintf("%s\n%v", path, err)), 0o600)
		os.Exit(0)
	}
	root := t.TempDir()
	write(t, filepath.Join(root, "sys/class/tty/console/active"), "ttyY\n")
	write(t, filepath.Join(root, "dev/x"), "")
	if err := os.Symlink("/dev/null", filepath.Join(root, "dev/null")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestOpenConsoleFallsBack$")
	cmd.Env = append(os.Environ(), env+"="+root)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(root, "said"))
	if err != nil {
		t.Fatal(err)
	}
	path, errs, _ := strings.Cut(string(b), "\n")
	if path != filepath.Join(root, "dev/null") {
		t.Errorf("the console is %q, want null", path)
	}
	for _, name := range []string{"ttyX", "ttyY", "console"} {
		if !strings.Contains(errs, "open console "+filepath.Join(root, "dev", name)+": no such file or directory") {
			t.Errorf("the error %q does not name %s", errs, name)
		}
	}
}
