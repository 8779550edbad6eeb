package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// TestExecFaults: what goes wrong with a command has its exit status, and nothing
// hangs.
func TestExecFaults(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"missing": "#!/no/such/interpreter\n", "bare": "echo by a shell: $1\nexit 4\n", "empty": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", os.Getenv("PATH")+":"+dir)
	for name, wrap := range places(t) {
		t.Run(name, func(t *testing.T) {
			for _, c := range []struct {
				argv []string
				want int
				text string
			}{
				{[]string{"/no/such/program"}, 127, "pazinit: execute /no/such/program: no such file or directory\n"},
				{[]string{"no-such-program"}, 127, "not found in PATH"},
				{[]string{"/etc/passwd"}, 126, "not executable"},
				{[]string{"/etc"}, 126, "it is a folder"},
				{[]string{"/etc/passwd/x"}, 126, "not a directory"},
				{[]string{filepath.Join(dir, "missing")}, 127, "its interpreter /no/such/interpreter is missing"},
				{[]string{"missing"}, 127, "its interpreter /no/such/interpreter is missing"},
				{[]string{filepath.Join(dir, "bare"), "a b"}, 4, "by a shell: a b\n"},
				{[]string{"bare", "c"}, 4, "by a shell: c\n"},
				{[]string{"empty"}, 0, ""},
				{[]string{""}, 127, "the command is empty"},
				{[]string{"sh", "-c", "kill -9 0"}, 137, ""},
				{[]string{"sh", "-c", "kill -9 $$"}, 137, ""},
				{[]string{"{H}", "exit", "9"}, 9, ""},
			} {
				out, got := plain(t, wrap, append([]string{"--"}, c.argv...)...)
				if got != c.want || !strings.Contains(out, c.text) || c.text == "" && out != "" {
					t.Errorf("%q = %d, %q, want %d, %q", c.argv, got, out, c.want, c.text)
				}
			}
		})
	}
}

// TestExecNoName: without arguments, or with an empty one for its name, it says
// what it wants.
func TestExecNoName(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"none", "empty"} {
		out, got := plain(t, []string{"{H}", "exec-empty", how})
		if got != 2 || !strings.HasPrefix(out, "pazinit: ") {
			t.Errorf("argv[0] %s: %d, %q, want 2 and a reason", how, got, out)
		}
	}
}

// TestExecQuickEnd: a command that ends before anything else is done.
func TestExecQuickEnd(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for _, flags := range [][]string{{"--"}, {"-w", "-s", "--kill-orphans", "--grace=1h", "--"}} {
		all.Go(func() {
			for i := range 256 {
				if out, got := plain(t, nil, append(flags, "{H}", "exit", strconv.Itoa(i))...); got != i || out != "" {
					t.Errorf("run %d of %v: %d, %q", i, flags, got, out)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestExecEarlySignal: a signal that comes at any time of the start ends the
// command or pazinit, with the status for it.
func TestExecEarlySignal(t *testing.T) {
	t.Parallel()
	for i := range 200 {
		cmd := exec.Command(rig.Binary, "--", rig.Helper, "sleep")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 15 * time.Microsecond)
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
		ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if ws.ExitStatus() != 143 && (!ws.Signaled() || ws.Signal() != unix.SIGTERM) {
			t.Errorf("after %d µs: %v, want 143", 15*i, cmd.ProcessState)
		}
	}
}

// TestExecStopped: a command that stops itself when it is to end is continued,
// also one that stood still before.
func TestExecStopped(t *testing.T) {
	for name, flags := range map[string][]string{"plain": {"--"}, "grace": {"--grace=1h", "--"}, "told": {"-v", "--"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{Argv: append(flags, "{H}", "stop-on", "TERM", "8"), NoWait: true}, func(t *testing.T, r *rig.Rig) {
				r.WaitConsole("ready\n")
				r.Signal(unix.SIGTERM)
				if got := r.Wait(); got != 8 {
					t.Errorf("exit status = %d, want 8", got)
				}
			})
			rig.Both(t, rig.Config{Argv: append(flags, "{H}", "count-all", "{D}/leader"), NoWait: true}, func(t *testing.T, r *rig.Rig) {
				r.Until("it counts", func() bool { return counts(r, "leader")[0] != 0 })
				pid := r.HostPID(counts(r, "leader")[0])
				if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				r.Until("it is stopped", func() bool { return strings.HasPrefix(rig.Field(pid, "State"), "T") })
				r.Signal(unix.SIGUSR1) // does not continue it
				r.Signal(unix.SIGTERM)
				r.Until("TERM", func() bool { n := counts(r, "leader"); return n[unix.SIGTERM] == 1 && n[unix.SIGUSR1] == 1 })
				killCounter(t, r)
			})
		})
	}
	t.Run("continued", func(t *testing.T) { // by somebody else: a TERM then is no CONT
		t.Parallel()
		rig.Both(t, rig.Config{Exec: []string{"{H}", "count-all", "{D}/leader"}}, func(t *testing.T, r *rig.Rig) {
			r.Until("it counts", func() bool { return counts(r, "leader")[0] != 0 })
			pid := r.HostPID(counts(r, "leader")[0])
			for i := 1; i <= 3; i++ {
				_ = unix.Kill(pid, unix.SIGSTOP)
				r.Until("it is stopped", func() bool { return strings.HasPrefix(rig.Field(pid, "State"), "T") })
				_ = unix.Kill(pid, unix.SIGCONT)
				r.Until("it goes on", func() bool { return counts(r, "leader")[unix.SIGCONT] == i })
			}
			r.Signal(unix.SIGTERM)
			r.Signal(unix.SIGUSR1)
			r.Until("TERM", func() bool { n := counts(r, "leader"); return n[unix.SIGTERM] == 1 && n[unix.SIGUSR1] == 1 })
			if got := counts(r, "leader")[unix.SIGCONT]; got != 3 {
				t.Errorf("%d SIGCONT, want the three of ours", got)
			}
			killCounter(t, r)
		})
	})
}

// TestExecManyOrphans: 30,000, faster than they are reaped, the last thousands at
// the command's end.
func TestExecManyOrphans(t *testing.T) {
	rig.Both(t, rig.Config{Argv: []string{"-s", "--", "sh", "-c", "for i in 0 1 2 3 4 5 6 7 8; do {H} orphans 3000; done; exec {H} orphans 3000"}, NoWait: true}, func(t *testing.T, r *rig.Rig) {
		if got := r.Wait(); got != 0 || strings.Count(r.Console(), "made 3000\n") != 10 {
			t.Errorf("exit status = %d, %s", got, r.Console())
		}
	})
}

// TestExecHeldPipe: the process decides about the end, not who holds its pipe.
func TestExecHeldPipe(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); out.Close() })
	rig.Both(t, rig.Config{Exec: []string{"sh", "-c", "{H} sleep & exit 3"}, Stdout: out, Left: true}, func(t *testing.T, r *rig.Rig) {
		if got := r.Wait(); got != 3 {
			t.Errorf("exit status = %d, want 3", got)
		}
	})
}

// TestExecDeafConsole: nobody takes what it says, and signals come through still.
func TestExecDeafConsole(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { full.Close() })
	pipe := func() (in, out *os.File) {
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); out.Close() })
		return in, out
	}
	in, broken := pipe()
	in.Close()
	_, stuffed := pipe()
	fd := int(stuffed.Fd()) // which makes it block
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil; {
		_, err = unix.Write(fd, make([]byte, 4096))
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	for name, out := range map[string]*os.File{"full": full, "broken": broken, "stuffed": stuffed} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{
				// The helper's own words would end it.
				Argv: []string{"-vvv", "-w", "-s", "--", "sh", "-c", "exec {H} count-all {D}/leader >/dev/null 2>&1"}, NoWait: true, Stdout: out,
			}, func(t *testing.T, r *rig.Rig) {
				r.Until("it counts", func() bool { return counts(r, "leader")[0] != 0 })
				for i := 1; i <= 50; i++ {
					r.Signal(unix.SIGUSR1)
					r.Until("SIGUSR1", func() bool { return counts(r, "leader")[unix.SIGUSR1] == i })
				}
				if got := counts(r, "leader")[unix.SIGPIPE]; got != 0 {
					t.Errorf("%d SIGPIPE of our own", got)
				}
				killCounter(t, r)
			})
		})
	}
}

// TestExecFewDescriptors: a limit that leaves nothing but 0, 1 and 2, almost.
func TestExecFewDescriptors(t *testing.T) {
	for _, limit := range []string{"4", "16"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{
				Wrap: []string{"sh", "-c", "ulimit -n " + limit + `; exec "$@"`, "sh"},
				Argv: []string{"-vv", "-w", "-s", "--kill-orphans", "--", "{H}", "on-signal", "TERM", "7", "0"}, NoWait: true,
			}, func(t *testing.T, r *rig.Rig) {
				r.WaitConsole("ready\n")
				r.Signal(unix.SIGTERM)
				if got := r.Wait(); got != 7 {
					t.Errorf("exit status = %d, %s", got, r.Console())
				}
			})
		})
	}
}

// TestExecNoProcesses: where no process can be made any more, signals come
// through still.
func TestExecNoProcesses(t *testing.T) {
	rig.NeedRoot(t)
	t.Parallel()
	r := rig.New(t, rig.Config{
		User: 54378, // has no other processes
		Wrap: []string{"prlimit", "--nproc=25:25"},
		Exec: []string{"sh", "-c", "sh -c 'i=0; while [ $i -lt 40 ]; do {H} sleep & i=$((i+1)); done' 2>/dev/null; echo full; exec {H} count-all {D}/leader"}, Left: true,
	})
	r.WaitConsole("full\n")
	r.Until("it counts", func() bool { return counts(r, "leader")[0] != 0 })
	for i := 1; i <= 50; i++ {
		for _, s := range []unix.Signal{unix.SIGUSR1, unix.SIGSEGV, unix.SIGPROF, 34} {
			r.Signal(s)
			r.Until(fmt.Sprint("signal ", s), func() bool { return counts(r, "leader")[s] == i })
		}
	}
	killCounter(t, r)
}

// TestExecWrap: where numbers of processes wrap around all the time, nobody but
// what is left of the command is signalled.
func TestExecWrap(t *testing.T) {
	rig.NeedRoot(t)
	needPIDMax(t)
	t.Parallel()
	r := rig.New(t, rig.Config{
		Wrap: []string{"unshare", "-fp", "--mount-proc", "--kill-child", "sh", "-c",
			`echo 420 > /proc/sys/kernel/pid_max || exit 1; setsid {H} churn {D}/hit & "$@"; echo status $?; kill -9 -1`, "sh"},
		Argv: []string{"--kill-orphans", "--grace=1m", "--", "sh", "-c", "i=0; while [ $i -lt 40 ]; do {H} orphans 50; " +
			"while set -- /proc/[0-9]*; [ $# -gt 20 ]; do :; done; i=$((i+1)); done; " + // of 120 numbers some must be free for what the shell forks
			"{H} remain 50 {D}/done 6"}, NoWait: true,
	})
	r.WaitConsole("status 6\n")
	r.Wait()
	if hit := r.Read("hit"); hit != "" {
		t.Errorf("a neighbour was signalled: %q", hit)
	}
	if _, err := os.Stat(r.Path("done")); err != nil {
		t.Errorf("what was left was not waited for: %v", err)
	}
}

func needPIDMax(t *testing.T) {
	t.Helper()
	var u unix.Utsname
	var major, minor int
	_ = unix.Uname(&u)
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil || major < 6 || major == 6 && minor < 14 {
		rig.Need(t, "pid_max of a namespace", fmt.Errorf("it takes Linux 6.14: %w", unix.ENOSYS))
	}
}

// TestExecOneNumber: with a pid_max of 301 each new process has, after the first
// 300, the number 300 (RESERVED_PIDS, kernel/pid.c).
func TestExecOneNumber(t *testing.T) {
	rig.NeedRoot(t)
	needPIDMax(t)
	t.Parallel()
	r := rig.New(t, rig.Config{
		Mode: rig.PID1, Wrap: []string{"sh", "-c", `echo 301 > /proc/sys/kernel/pid_max || exit 1; exec "$@"`, "sh"},
		Argv: []string{"--kill-orphans", "-w", "--", "sh", "-c", `
			i=0; while [ $i -lt 400 ]; do {H} exit 5 || :; i=$((i+1)); done
			(sh -c 'echo $$; exec {H} sleep 100' &) # an orphan, with that number
			exit 6`}, NoWait: true,
	})
	if got := r.Wait(); got != 6 {
		t.Errorf("exit status = %d, want 6; %s", got, r.Console())
	}
}

// TestExecCosts: it never wakes, and is small, while its command runs.
func TestExecCosts(t *testing.T) {
	rig.Both(t, rig.Config{Exec: []string{"{H}", "count-all", "{D}/leader"}}, func(t *testing.T, r *rig.Rig) {
		r.Until("it counts", func() bool { return counts(r, "leader")[0] != 0 })
		quiet(r)
		least := 1 << 30
		for range 3 {
			before := r.Switches()
			time.Sleep(3 * time.Second) // what is measured is this time
			least = min(least, r.Switches()-before)
			if least == 0 {
				break
			}
		}
		if least != 0 {
			t.Errorf("%d context switches in 3 s, want none", least)
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", r.PID))
		if err != nil {
			t.Fatal(err)
		}
		for key, most := range map[string]int{"Pss": 3 << 10, "Anonymous": 1 << 10} {
			_, rest, _ := strings.Cut(string(b), "\n"+key+":")
			kib, err := strconv.Atoi(strings.Fields(rest + " ?")[0])
			if err != nil || kib >= most {
				t.Errorf("%s: %d KiB, %v, want less than %d", key, kib, err, most)
			}
		}
		fds := func(pid int) (out []string) {
			names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, name.Name()))
				if to != r.Path("leader") {
					out = append(out, name.Name()+" "+to)
				}
			}
			return out
		}
		if got, want := fmt.Sprint(fds(r.PID)), fmt.Sprint(fds(r.HostPID(counts(r, "leader")[0]))); got != want {
			t.Errorf("descriptors %s, want the command's, %s", got, want)
		}
		killCounter(t, r)
	})
}
