package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
)

// golden compares got with a file of testdata, which -update writes.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("%s = \n%s\nwant\n%s\n%v", name, got, want, err)
	}
}

func sample(now time.Time) []control.Status {
	next := now.Add(90*time.Second + 400*time.Millisecond)
	exit := func(e control.Exit) *control.Exit {
		e.Time = now.Add(-50 * time.Hour)
		return &e
	}
	return []control.Status{
		{Name: "shop:web.1", State: "RUNNING", Ready: true, PID: 1672, UptimeS: 19*86400 + 6*3600 + 53*60 + 57.9, InFile: true},
		{Name: "shop:web.10", State: "RUNNING", Ready: true, PID: 4194304, UptimeS: 59.99, Restarts: 12, InFile: true, LastExit: exit(control.Exit{Code: 139, Signal: "SIGSEGV", Core: true})},
		{Name: "shop:slow.1", State: "RUNNING", PID: 7, UptimeS: 86400, Restarts: 1, InFile: true, LastExit: exit(control.Exit{Code: 1})},
		{Name: "shop:db.1", State: "BACKOFF", Reason: "exited with status 1", Since: now.Add(-time.Second), NextTry: &next, Restarts: 3, InFile: true},
		{Name: "shop:job.1", State: "EXITED", Reason: "exited with status 0", Since: now.Add(-59 * time.Minute), InFile: true},
		{Name: "tools:clock.1", State: "STOPPED", Since: now.Add(-3 * time.Hour)},
		{Name: "tools:none", State: "FATAL", Reason: "execute /größe: no such file or directory", Since: now.Add(-time.Second), InFile: true},
		{Name: "tools:end.1", State: "STOPPING", PID: 99, UptimeS: 3600, Reason: "stop by uid 0", InFile: true},
	}
}

func TestTable(t *testing.T) {
	now := time.Now()
	list := sample(now)
	for width, name := range map[int]string{0: "table.txt", 100: "table-100.txt", 60: "table-60.txt", 48: "table-48.txt", 30: "table-30.txt"} {
		k := &client{screen: screen{width: width}}
		lines := k.table(list, now, 0)
		for _, line := range lines {
			if n := len([]rune(line)); width > 0 && n > width {
				t.Errorf("a line of %d on a terminal of %d: %s", n, width, line)
			}
		}
		golden(t, name, strings.Join(lines, "\n")+"\n")
	}
	k := &client{screen: screen{width: 100, color: true}}
	golden(t, "table-color.txt", strings.Join(k.table(list, now, 2*time.Second), "\n")+"\n")
}

// The time since the start neither wraps after a day nor takes hours twice.
func TestUptime(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                       "00:00:00",
		time.Second - 1:         "00:00:00",
		59*time.Minute + 1e9*59: "00:59:59",
		24*time.Hour - 1:        "23:59:59",
		24 * time.Hour:          "1d 00:00:00",
		75*time.Hour + 1e9*3:    "3d 03:00:03",
		19*24*time.Hour + 6*time.Hour + 53*time.Minute + 57*time.Second: "19d 06:53:57",
		1000 * 24 * time.Hour: "1000d 00:00:00",
	} {
		if got := uptime(d); got != want {
			t.Errorf("uptime(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 59 * time.Second: "59s", time.Minute: "1m", 2*time.Hour - 1: "1h", 49 * time.Hour: "2d",
	} {
		if got := ago(d); got != want {
			t.Errorf("ago(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestPrefix(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 5e6, time.Local)
	var b bytes.Buffer
	out := bufio.NewWriter(&b)
	line := func(p *prefixer, l control.LogLine) { l.Time = at; p.line(out, &control.Reply{Log: &l}) }
	var p prefixer
	line(&p, control.LogLine{Name: "a:b.1", Stream: "stdout", Line: "long", Partial: true})
	line(&p, control.LogLine{Name: "a:b.1", Stream: "stderr", Line: "other"})
	line(&p, control.LogLine{Name: "a:b.1", Stream: "stdout", Line: "er"})
	line(&p, control.LogLine{Name: "a:b.1", Stream: "stdout", Line: "new"})
	line(&p, control.LogLine{Name: "apple:b.12", Stream: "stdout", Bytes: []byte("\xff\x00")})
	line(&p, control.LogLine{Name: "a:b.1", Stream: "stdout"})
	p.event(out, &control.Reply{Event: &control.Event{Time: at, Kind: "state", Name: "a:b.1", From: "RUNNING", To: "BACKOFF", Reason: "killed by SIGSEGV", PID: 9, Delay: 0.4123, Try: 2}})
	p.event(out, &control.Reply{Event: &control.Event{Time: at, Kind: "reload", Reason: "nothing to change"}})
	out.Flush()
	golden(t, "prefix.txt", b.String())
}

// What a slow reader lost is said where it is missing.
func TestMissed(t *testing.T) {
	var stdout, stderr bytes.Buffer
	k := &client{command: &command{stdout: &stdout, stderr: &stderr}, req: &control.Request{Verb: "events"}, out: bufio.NewWriter(&stdout)}
	k.missed(3)
	if got, want := stderr.String(), "pazinit: 3 events missed here: this reader was too slow\n"; got != want {
		t.Errorf("missed = %q, want %q", got, want)
	}
	k.json = true
	k.missed(3)
	k.out.Flush()
	if got, want := stdout.String(), `{"missed":3}`+"\n"; got != want {
		t.Errorf("missed = %q, want %q", got, want)
	}
}

// A supervisor that hangs leaves the shell with no names, not hanging, and keeps
// no --timeout from ending.
func TestHungSupervisor(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := exec.Command(program, "complete", "--", "stop", "--socket", socket, "").Output()
	if err != nil || len(out) > 0 {
		t.Errorf("complete = %q, %v", out, err)
	}
	cmd := exec.Command(program, "stop", "all", "--socket", socket, "--timeout", "1ms")
	_, err = cmd.Output()
	if got := cmd.ProcessState.ExitCode(); got != control.ExitTimeout {
		t.Errorf("stop --timeout = %d, want %d, %v", got, control.ExitTimeout, err)
	}
}

// A supervisor that dies in the middle is told of; to who follows it is the end.
func TestBrokenConnection(t *testing.T) {
	for args, want := range map[string]int{"status": control.ExitFailed, "logs -f": 0, "events -f": 0, "status --watch": 0, "shutdown": 0} {
		socket := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, _ = bufio.NewReader(c).ReadString('\n')
				c.Close()
			}
		}()
		var stderr bytes.Buffer
		cmd := exec.Command(program, append(strings.Fields(args), "--socket", socket)...)
		cmd.Stderr = &stderr
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != want || args != "shutdown" && !strings.Contains(stderr.String(), "has ended") {
			t.Errorf("%s = %d, %q, want %d", args, got, stderr.String(), want)
		}
		l.Close()
	}
}

// Who may not reach the socket is told so. Needs root, to be somebody else.
func TestDenied(t *testing.T) {
	if os.Geteuid() != 0 {
		if strings.Contains(os.Getenv("PAZINIT_TEST_MUST"), "root") {
			t.Fatal("root: uid is not 0")
		}
		t.Skip("root: needed to be another user")
	}
	dir, err := os.MkdirTemp("", "pazinit-denied-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var stderr bytes.Buffer
	cmd := exec.Command(program, "status", "--socket", socket)
	cmd.Stderr, cmd.Dir = &stderr, "/"
	cmd.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	_ = cmd.Run()
	want := "pazinit: connect to " + socket + ": permission denied to uid 65534; socket_mode and access in the configuration give others some verbs\n"
	if got := cmd.ProcessState.ExitCode(); got != control.ExitDenied || stderr.String() != want {
		t.Errorf("status = %d, %q, want %d, %q", got, stderr.String(), control.ExitDenied, want)
	}
}

// A full disk is not taken for success.
func TestWriteError(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range [][]string{{"version", "--socket", "/nonexistent/s"}} {
		cmd := exec.Command(program, args...)
		cmd.Stdout = full
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != control.ExitFailed {
			t.Errorf("%v >/dev/full = %d, want %d", args, got, control.ExitFailed)
		}
	}
}

// Every verb has help, and an answer to -h, without a supervisor.
func TestHelp(t *testing.T) {
	for _, v := range control.Verbs() {
		for _, name := range append(v.Aliases, v.Name) {
			for _, args := range [][]string{{"help", name}, {name, "-h"}, {name, "--help"}} {
				var stdout bytes.Buffer
				code := run(append([]string{"pazinit"}, args...), &stdout, io.Discard)
				if code != 0 || !strings.Contains(stdout.String(), "pazinit "+v.Synopsis()+": "+v.Short) {
					t.Errorf("pazinit %v = %d, %q", args, code, stdout.String())
				}
				for _, f := range v.Flags {
					if !strings.Contains(stdout.String(), f.Synopsis()) {
						t.Errorf("pazinit %v does not tell of --%s", args, f.Name)
					}
				}
			}
		}
	}
}

// TestSize holds the binary under its budget: 4.8 MB are the supervisor, 0.4 what a
// machine's init does, 0.5 the maker of its image, 0.75 the network's process.
func TestSize(t *testing.T) {
	st, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() >= 7_000_000 {
		t.Errorf("the binary has %d bytes, want less than 7,000,000", st.Size())
	}
}

// TestShellHint: in the shell that stands where the supervisor would there is
// none, which is said with what leads to one.
func TestShellHint(t *testing.T) {
	for then, want := range map[string]string{
		thenBoot + argSeparator + "run": "nothing is supervised yet; exit ends this shell and goes on with the boot",
		thenReboot:                      "nothing is supervised yet; this shell is that of an emergency",
		"":                              "--socket, -c or PAZINIT_SOCKET",
	} {
		t.Setenv(thenVariable, then)
		var out bytes.Buffer
		c := &command{stdout: &out, stderr: &out}
		code := c.dispatch([]string{"status", "--socket", filepath.Join(t.TempDir(), "none")})
		if code != control.ExitNoServer || !strings.Contains(out.String(), want) {
			t.Errorf("%q: exit status %d, %s", then, code, out.String())
		}
	}
}
