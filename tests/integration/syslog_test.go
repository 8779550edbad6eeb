package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

// ownDev gives the supervisor a mount namespace with a /dev of its own, below
// which nobody serves anything.
var ownDev = []string{"unshare", "-m", "--propagation", "private", "sh", "-c", `
	mkdir -p {D}/dev && mount -t tmpfs -o mode=755 none {D}/dev &&
	for n in null zero full random urandom tty; do cp -a /dev/$n {D}/dev/ || exit; done &&
	[ -z "$KMSG" ] || cp -a /dev/kmsg {D}/dev/ && ln -s /proc/self/fd {D}/dev/fd &&
	mount --bind {D}/dev /dev && eval "$BEFORE" && unset BEFORE KMSG && exec "$@"`, "sh"}

// devLog is where the supervisor's namespace has /dev/log.
func devLog(r *rig.Rig) string { return fmt.Sprintf("/proc/%d/root/dev/log", r.PID) }

// logLines are the lines that logs has of a name, with stream and level.
func logLines(r *rig.Rig, name string) (out []string) {
	reqs := []*control.Request{{Verb: "logs", Names: []string{name}, Lines: -1}}
	if name == "pazinit" { // all of its log
		reqs = []*control.Request{{Verb: "logs", Self: true, Lines: -1}, {Verb: "logs", Stream: "syslog", Lines: -1}}
	}
	for _, req := range reqs {
		r.Ask(req, func(l *control.Reply) {
			if l.Log != nil {
				out = append(out, strings.TrimSpace(l.Log.Stream+" "+l.Log.Level)+"|"+l.Log.Line)
			}
		})
	}
	return out
}

// said waits until logs of a name has a line with this end.
func said(r *rig.Rig, name, end string) string {
	r.T.Helper()
	found := ""
	r.Until(name+" says "+end, func() bool {
		for _, l := range logLines(r, name) {
			if strings.HasSuffix(l, end) {
				found = l
			}
		}
		return found != ""
	})
	return found
}

// TestSyslog: what a worker says by syslog(3), through libc and by the programs
// of others, is its output; what a stranger says is in pazinit's own log.
func TestSyslog(t *testing.T) {
	rig.NeedRoot(t)
	for _, groups := range []bool{true, false} {
		t.Run(fmt.Sprintf("cgroups %v", groups), func(t *testing.T) {
			t.Parallel()
			r := rig.New(t, rig.Config{
				Procfile: "libc: {H} syslog prog 8 hello hold\n" +
					"shell: sh -c 'echo printed; logger -t tool from logger; logger --rfc5424 -p daemon.err -t modern from rfc5424; busybox logger -t box from busybox; sleep 1000'\n" +
					"py: python3 -c 'import syslog, time; syslog.openlog(\"snake\"); syslog.syslog(\"from python\"); time.sleep(1000)'\n" +
					"deep: sh -c '(setsid sh -c \"setsid {H} syslog deep 1 down hold & exec sleep 1000\" &) ; exec sleep 1000'\n",
				YAML: "syslog: true\n", Wrap: ownDev, NoCgroups: !groups,
			})
			pid := r.WaitState("app:libc.1", "RUNNING").PID
			for i, level := range []string{"emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"} {
				if got, want := said(r, "libc", fmt.Sprintf("hello %d", i)), fmt.Sprintf("stderr %s|prog[%d]: hello %d", level, pid, i); got != want {
					t.Errorf("line %q, want %q", got, want)
				}
			}
			said(r, "deep", ": down 0")
			if _, err := exec.LookPath("python3"); err == nil {
				if got := said(r, "py", ": from python"); !strings.HasPrefix(got, "stderr info|snake") {
					t.Errorf("line %q", got)
				}
			}
			// These are gone when they are asked for: whose they were is known for sure
			// only with a kernel that tells the control group of the dead (6.17).
			for text, want := range map[string]string{"from logger": "notice|tool[", "from rfc5424": "error|modern[", "from busybox": "notice|box["} {
				found := ""
				r.Until(text, func() bool {
					for _, l := range append(logLines(r, "shell"), logLines(r, "pazinit")...) {
						if strings.HasSuffix(l, ": "+text) && strings.Contains(l, "[") {
							found = l
						}
					}
					return found != ""
				})
				if !strings.Contains(found, strings.SplitN(want, "|", 2)[1]) {
					t.Errorf("line %q, want %q", found, want)
				}
				if groups && tellsDead() && !strings.HasPrefix(found, "stderr "+want) {
					t.Errorf("line %q is not the worker's", found)
				}
			}
			cmd := exec.Command("logger", "-u", devLog(r), "-d", "-t", "stranger", "-p", "user.crit", "from outside")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("logger: %v\n%s", err, out)
			}
			if got := said(r, "pazinit", ": from outside"); !strings.HasPrefix(got, "|critical: stranger[") && !strings.HasPrefix(got, "|critical: stranger:") {
				t.Errorf("line %q", got)
			}
			if st, err := os.Stat(devLog(r)); err != nil || st.Mode().Perm() != 0o666 {
				t.Errorf("/dev/log: %v, %v", st, err)
			}
		})
	}
}

// tellsDead reports whether this kernel tells the control group of a sender that
// is gone.
func tellsDead() bool {
	var u unix.Utsname
	var a, b int
	_ = unix.Uname(&u)
	n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	return n == 2 && (a > 6 || a == 6 && b >= 17)
}

// TestSyslogReload: the receiver comes and goes with the configuration, and the
// socket with it; at the end it is gone.
func TestSyslogReload(t *testing.T) {
	rig.NeedRoot(t)
	dev := t.TempDir()
	r := rig.New(t, rig.Config{
		Procfile: "web: {H} sleep\n", YAML: "console_full: drop\n",
		Env:  []string{"BEFORE=mkdir -p " + dev + "; mount --bind " + dev + " /dev; for n in null tty; do cp -a {D}/dev/$n /dev/; done"},
		Wrap: ownDev,
	})
	path := filepath.Join(dev, "log")
	is := func(want bool) func() bool {
		return func() bool { _, err := os.Lstat(path); return (err == nil) == want }
	}
	if !is(false)() {
		t.Fatal("/dev/log is there, and nobody asked for it")
	}
	for i, on := range []bool{true, false, true} {
		r.WriteYAML(fmt.Sprintf("syslog: %v\n", on))
		r.Must("reload")
		r.Until(fmt.Sprintf("/dev/log is there: %v", on), is(on))
		if on {
			text := fmt.Sprintf("round %d", i)
			if out, err := exec.Command("logger", "-u", path, "-d", "-t", "x", text).CombinedOutput(); err != nil {
				t.Fatalf("logger: %v\n%s", err, out)
			}
			said(r, "pazinit", ": "+text)
		}
	}
	pid := r.WaitState("app:web.1", "RUNNING").PID
	r.WriteYAML("syslog: true\noutput_ring: 64KiB\n")
	r.Must("reload")
	if got := r.Of("app:web.1").PID; got != pid {
		t.Errorf("web has pid %d, had %d", got, pid)
	}
	r.Signal(unix.SIGTERM)
	r.Wait()
	if !is(false)() {
		t.Error("/dev/log is there after the end")
	}
}

// TestSyslogRefused: without a place for the socket, and where somebody else has
// it, that is said once and all else works.
func TestSyslogRefused(t *testing.T) {
	rig.NeedRoot(t)
	for name, tt := range map[string]struct{ before, want string }{
		"read-only": {"mount -o remount,ro,bind /dev", "without a receiver of syslog: serve /dev/log: read-only file system"},
		"file":      {"echo mine > /dev/log", "without a receiver of syslog: serve /dev/log: it is there, and no socket"},
		"served":    {"busybox syslogd -n -O {D}/busy & while ! [ -S /dev/log ]; do sleep 0.01; done", "without a receiver of syslog: serve /dev/log: somebody else serves it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t, rig.Config{Procfile: "web: {H} sleep\n", YAML: "syslog: true\n", Wrap: ownDev, Env: []string{"BEFORE=" + tt.before}, Left: true})
			r.WaitState("app:web.1", "RUNNING")
			r.WaitConsole(tt.want)
			if n := strings.Count(r.Console(), "syslog"); n != 1 {
				t.Errorf("said %d times:\n%s", n, r.Console())
			}
			before, err := os.Lstat(devLog(r))
			r.Must("stop", "web")
			root := fmt.Sprintf("/proc/%d/root/dev", r.PID)
			dir, derr := os.Open(root)
			if derr != nil {
				t.Fatal(derr)
			}
			defer dir.Close()
			if name == "served" {
				if out, err := exec.Command("logger", "-u", devLog(r), "-d", "-t", "x", "to the other").CombinedOutput(); err != nil {
					t.Errorf("logger: %v\n%s", err, out)
				}
				r.Until("the other has it", func() bool {
					b, _ := os.ReadFile(r.Path("busy"))
					return strings.Contains(string(b), "to the other")
				})
			}
			r.Signal(unix.SIGTERM)
			r.Wait()
			if err == nil {
				var st unix.Stat_t
				if err := unix.Fstatat(int(dir.Fd()), "log", &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
					t.Errorf("%s is not there any more: %v", before.Name(), err)
				}
			}
		})
	}
}

// TestSyslogStale: a socket that is left of somebody who is gone is replaced.
func TestSyslogStale(t *testing.T) {
	rig.NeedRoot(t)
	r := rig.New(t, rig.Config{
		Procfile: "web: {H} syslog prog 1 hello hold\n", YAML: "syslog: true\n", Wrap: ownDev,
		Env: []string{"BEFORE=busybox syslogd -n -O /dev/null & while ! [ -S /dev/log ]; do sleep 0.01; done; kill -9 $!; wait"},
	})
	said(r, "web", ": hello 0")
}

// TestSyslogToItself: neither log_path: syslog nor a console that is the kernel's
// buffer makes a message go round.
func TestSyslogToItself(t *testing.T) {
	rig.NeedRoot(t)
	t.Run("log_path", func(t *testing.T) {
		r := rig.New(t, rig.Config{Procfile: "web: {H} syslog prog 1 hello hold\n", YAML: "syslog: true\nlog_path: syslog\n", Wrap: ownDev})
		said(r, "web", ": hello 0")
		r.Must("restart", "web")
		r.WaitConsole("RUNNING")
		still(r)
		if n := strings.Count(strings.Join(logLines(r, "pazinit"), "\n"), "started, pid"); n != 1 {
			t.Errorf("started is there %d times", n)
		}
	})
	t.Run("kmsg", func(t *testing.T) {
		kmsg, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
		if err != nil {
			t.Skipf("needs /dev/kmsg: %v", err)
		}
		defer kmsg.Close()
		mark := fmt.Sprintf("mark%d", time.Now().UnixNano())
		r := rig.New(t, rig.Config{
			Procfile: "web: sh -c 'echo " + mark + "; exec {H} sleep'\n", YAML: "syslog: true\n", Wrap: ownDev, Env: []string{"KMSG=1"},
			Stdout: kmsg, Stderr: kmsg,
		})
		r.Line("app:web.1", mark)
		still(r)
		for _, l := range logLines(r, "pazinit") {
			if strings.Contains(l, mark) {
				t.Errorf("it came back: %s", l)
			}
		}
	})
}

// still fails the test when pazinit's own log goes on growing by itself. Two
// requests through the loop, and through the receiver, stand for time.
func still(r *rig.Rig) {
	r.T.Helper()
	for i := range 20 {
		text := fmt.Sprintf("turn %d", i)
		if out, err := exec.Command("logger", "-u", devLog(r), "-d", "-t", "x", text).CombinedOutput(); err != nil {
			r.T.Fatalf("logger: %v\n%s", err, out)
		}
		said(r, "pazinit", ": "+text)
	}
	if n := len(logLines(r, "pazinit")); n > 60 {
		r.T.Errorf("pazinit's own log has %d lines", n)
	}
}

// TestSyslogFlood: a flood is bounded, and holds neither the loop nor the other
// workers up; with a console that is stuck nobody waits for ever.
func TestSyslogFlood(t *testing.T) {
	rig.NeedRoot(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s := rig.New(t, rig.Config{
		Procfile: "flood: {H} syslog prog 1000000 " + strings.Repeat("x", 1000) + "\n" + "web: {H} sleep\n",
		YAML:     "syslog: true\nconsole_full: block\n", Wrap: ownDev, Stdout: w, Stderr: w,
	})
	s.WaitState("app:flood.1", "RUNNING")
	s.Until("the console is full", func() bool { // a pipe and the queue before it
		var n int
		if lines := logLines(s, "flood"); len(lines) > 0 {
			last := lines[len(lines)-1]
			_, _ = fmt.Sscanf(last[strings.LastIndexByte(last, ' ')+1:], "%d", &n)
		}
		return n > 1000
	})
	for range 20 {
		began := time.Now()
		s.Must("restart", "web")
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("a restart took %v", d)
		}
	}
	if got := s.Of("app:flood.1").State; got != "RUNNING" {
		t.Errorf("flood is %s, want it held up", got)
	}
	if n := rss(t, s.PID); n > 64<<20 {
		t.Errorf("pazinit has %d MiB", n>>20)
	}
	s.Must("stop", "flood")
	go func() { // the console is read again
		b := make([]byte, 1<<16)
		for {
			if _, err := r.Read(b); err != nil {
				return
			}
		}
	}()
	s.Signal(unix.SIGTERM)
	s.Wait()
}

func rss(t *testing.T, pid int) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscanf(rig.Field(pid, "VmRSS"), "%d", &n); err != nil {
		t.Fatal(err)
	}
	return n << 10
}
