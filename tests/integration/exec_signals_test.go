package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// counts are what the helper's count-all has counted, by signal; 0 is its pid.
func counts(r *rig.Rig, file string) (n [65]int) {
	b := r.Read(file)
	for i := 0; i < len(n) && 8*i+8 <= len(b); i++ {
		n[i] = int(binary.LittleEndian.Uint64([]byte(b[8*i:])))
	}
	return n
}

// forwarded are all signals that are sent on as they are: not SIGCHLD, not the
// three of job control, and 32 and 33 are nobody's.
func forwarded() (out []unix.Signal) {
	for s := unix.Signal(1); s <= 64; s++ {
		switch s {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, 32, 33:
		default:
			out = append(out, s)
		}
	}
	return out
}

// queue is sigqueue(3).
func queue(pid int, s unix.Signal) error {
	var si [128]byte
	put := func(at int, v int32) { *(*int32)(unsafe.Pointer(&si[at])) = v }
	put(0, int32(s))
	put(8, -1) // SI_QUEUE
	put(16, int32(os.Getpid()))
	put(20, int32(os.Getuid()))
	_, _, e := unix.RawSyscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(s), uintptr(unsafe.Pointer(&si)))
	if e != 0 {
		return e
	}
	return nil
}

// killCounter ends a command that no other signal ends, and with it pazinit.
func killCounter(t *testing.T, r *rig.Rig) {
	t.Helper()
	all := []int{r.HostPID(counts(r, "leader")[0])}
	if child := counts(r, "child")[0]; child != 0 {
		all = append(all, r.HostPID(child))
	}
	for _, pid := range all {
		if pid == 0 {
			t.Fatalf("a counter is gone: %v", all)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH { // the child goes by its parent's death
			t.Fatal(err)
		}
	}
	if got := r.Wait(); got != 137 {
		t.Errorf("exit status = %d, want 137", got)
	}
	r.Until("the counters are gone", func() bool { return !rig.Alive(all[0]) && !rig.Alive(all[len(all)-1]) })
}

// TestExecEverySignal reaches the command, or its group, once, and ends nothing.
func TestExecEverySignal(t *testing.T) {
	for name, flags := range map[string][]string{
		"group": {"--"}, "single": {"--single-child", "--"}, "told": {"-vvv", "-w", "--"}, "grace": {"--grace=1h", "--"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := rig.All
			if name != "group" {
				all = rig.Both
			}
			all(t, rig.Config{Argv: append(flags, "{H}", "count-all", "{D}/leader", "{D}/child"), NoWait: true}, func(t *testing.T, r *rig.Rig) {
				r.WaitConsole("child ready\n")
				r.Until("both count", func() bool { return counts(r, "leader")[0] != 0 && counts(r, "child")[0] != 0 })
				r.Until("its first thread, which tgkill means, waits for signals", func() bool {
					b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", r.PID))
					return err == nil && strings.HasPrefix(string(b), fmt.Sprintf("%d ", unix.SYS_RT_SIGTIMEDWAIT))
				})
				var want [65]int
				check := func(how string, s unix.Signal, err error) {
					t.Helper()
					if err != nil {
						t.Fatalf("%s %d: %v", how, s, err)
					}
					want[s]++
					r.Until(fmt.Sprintf("signal %d by %s", s, how), func() bool {
						return counts(r, "leader")[s] >= want[s] && (name == "single" || counts(r, "child")[s] >= want[s])
					})
				}
				for _, s := range forwarded() {
					check("kill", s, unix.Kill(r.PID, s))
					check("sigqueue", s, queue(r.PID, s))
					check("tgkill", s, unix.Tgkill(r.PID, r.PID, s))
				}
				r.Signal(unix.SIGCHLD) // is nobody's but ours
				check("kill", unix.SIGUSR1, unix.Kill(r.PID, unix.SIGUSR1))
				for file, want := range map[string][65]int{"leader": want, "child": want} {
					if file == "child" && name == "single" {
						want = [65]int{}
					}
					got := counts(r, file)
					want[0] = got[0]
					if got != want {
						t.Errorf("%s got %v,\nwant %v", file, got, want)
					}
				}
				killCounter(t, r)
			})
		})
	}
}

// TestExecEveryThread: what Go leaves unblocked on its threads is sent on, too.
func TestExecEveryThread(t *testing.T) {
	rig.Both(t, rig.Config{Exec: []string{"{H}", "count-all", "{D}/leader"}}, func(t *testing.T, r *rig.Rig) {
		r.WaitConsole("ready\n")
		r.Until("it counts", func() bool { return counts(r, "leader")[0] != 0 })
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", r.PID))
		if err != nil {
			t.Fatal(err)
		}
		deadly := []unix.Signal{unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSTKFLT, unix.SIGPROF, 34}
		for i, task := range tasks {
			tid, _ := strconv.Atoi(task.Name())
			s := deadly[i%len(deadly)]
			if err := unix.Tgkill(r.PID, tid, s); err != nil {
				t.Fatal(err)
			}
			r.Until(fmt.Sprintf("signal %d by thread %d", s, i), func() bool { return counts(r, "leader")[s] >= 1+i/len(deadly) })
		}
		killCounter(t, r)
	})
}

// TestExecStorm: four senders and thousands of orphans. What is queued is counted
// to the last one, and nothing of the runtime's own is sent on.
func TestExecStorm(t *testing.T) {
	rig.Both(t, rig.Config{
		Argv: []string{"--subreaper", "--", "sh", "-c", "setsid sh -c 'echo begun; exec {H} orphans 4000' & exec {H} count-all {D}/leader"}, NoWait: true,
	}, func(t *testing.T, r *rig.Rig) {
		r.WaitConsole("ready\n")
		r.WaitConsole("begun\n")
		r.Until("it counts", func() bool { return counts(r, "leader")[0] != 0 })
		const rounds = 50 // of each sender: 4 × 50 × 54 signals
		var senders sync.WaitGroup
		for range 4 {
			senders.Go(func() {
				for range rounds {
					for _, s := range forwarded() {
						if s == unix.SIGURG {
							continue
						}
						err := queue(r.PID, s)
						for errors.Is(err, unix.EAGAIN) { // RLIMIT_SIGPENDING
							runtime.Gosched()
							err = queue(r.PID, s)
						}
						if err != nil {
							t.Errorf("signal %d: %v", s, err)
							return
						}
					}
				}
			})
		}
		senders.Wait()
		r.WaitConsole("made 4000")
		r.Until("all have come", func() bool {
			n := counts(r, "leader")
			for s := 1; s <= 64; s++ {
				if n[s] == 0 && n[0] != 0 && slices.Contains(forwarded(), unix.Signal(s)) && s != int(unix.SIGURG) || s >= 34 && n[s] < 4*rounds {
					return false
				}
			}
			return true
		})
		r.Signal(unix.SIGURG)
		r.Until("a real SIGURG", func() bool { return counts(r, "leader")[unix.SIGURG] > 0 })
		n := counts(r, "leader")
		for s := 34; s <= 64; s++ {
			if n[s] != 4*rounds {
				t.Errorf("%d of signal %d, want %d", n[s], s, 4*rounds)
			}
		}
		if n[unix.SIGURG] != 1 {
			t.Errorf("%d SIGURG, want 1", n[unix.SIGURG])
		}
		r.Until("all orphans are reaped", func() bool { return len(r.Children()) == 1 })
		killCounter(t, r)
	})
}

// TestExecRewrite: pairs by number and by name, dropped ones, and the last wins.
func TestExecRewrite(t *testing.T) {
	rig.Both(t, rig.Config{
		Argv: []string{
			"--rewrite", "15:3", "--rewrite=HUP:0", "--rewrite", "SIGUSR1:TERM", "--rewrite", "usr1:USR2", "--rewrite", "64:35", "--rewrite", "WINCH:19",
			"--rewrite", "TSTP:40", "--", "{H}", "count-all", "{D}/leader",
		}, NoWait: true,
	}, func(t *testing.T, r *rig.Rig) {
		r.WaitConsole("ready\n")
		r.Until("it counts", func() bool { return counts(r, "leader")[0] != 0 })
		var want [65]int
		for _, p := range [][2]unix.Signal{{15, 3}, {1, 0}, {10, 12}, {64, 35}, {2, 2}, {20, 40}} {
			r.Signal(p[0])
			if p[1] == 0 {
				continue
			}
			want[p[1]]++
			r.Until(fmt.Sprint(p), func() bool { return counts(r, "leader")[p[1]] > 0 })
		}
		got := counts(r, "leader")
		want[0] = got[0]
		if got != want {
			t.Errorf("got %v,\nwant %v", got, want)
		}
		killCounter(t, r)
	})
}

// TestExecJobSignals: TSTP, TTIN and TTOU by kill stop the group, and pazinit if
// it is not PID 1; CONT continues all.
func TestExecJobSignals(t *testing.T) {
	for _, s := range []unix.Signal{unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU} {
		t.Run(unix.SignalName(s), func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{Exec: []string{"{H}", "count-all", "{D}/leader", "{D}/child"}}, func(t *testing.T, r *rig.Rig) {
				r.Until("both count", func() bool { return counts(r, "leader")[0] != 0 && counts(r, "child")[0] != 0 })
				group := []int{r.HostPID(counts(r, "leader")[0]), r.HostPID(counts(r, "child")[0])}
				if r.Cfg.Mode == rig.Daemon {
					group = append(group, r.PID)
				}
				state := func(what string, stopped bool) {
					t.Helper()
					r.Until(what, func() bool {
						for _, pid := range group {
							if strings.HasPrefix(rig.Field(pid, "State"), "T") != stopped {
								return false
							}
						}
						return true
					})
				}
				for range 3 {
					r.Signal(s)
					state("all are stopped", true)
					r.Signal(unix.SIGCONT)
					state("all are continued", false)
				}
				r.Until("SIGCONT is sent on", func() bool { return counts(r, "leader")[unix.SIGCONT] > 0 })
				r.Signal(unix.SIGUSR1)
				r.Until("SIGUSR1", func() bool { return counts(r, "child")[unix.SIGUSR1] == 1 })
				killCounter(t, r)
			})
		})
	}
}

// TestExecOutOfGroup: a command that has left its group gets its signals still.
func TestExecOutOfGroup(t *testing.T) {
	_, err := exec.LookPath("perl")
	rig.Need(t, "perl", err)
	rig.Both(t, rig.Config{Exec: []string{"perl", "-e", `
		$| = 1;
		$SIG{TERM} = sub { exit 33 };
		my $p = fork(); if (!$p) { setpgrp(0, 0); open(STDOUT, '>/dev/null'); open(STDERR, '>/dev/null'); sleep 1000; exit }
		select(undef, undef, undef, 0.01) until getpgrp($p) == $p;
		setpgrp(0, $p) or die $!;
		print "ready\n";
		sleep 1 while 1;
	`}, Left: true}, func(t *testing.T, r *rig.Rig) {
		r.WaitConsole("ready\n")
		r.Signal(unix.SIGTERM)
		if got := r.Wait(); got != 33 {
			t.Errorf("exit status = %d, want 33", got)
		}
	})
}
