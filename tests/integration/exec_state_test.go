package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// ownKeys are what must differ: the command is another process, in a group of its own.
var ownKeys = regexp.MustCompile(`"(pid|ppid|pgid|sid)":\d+,?`)

// asWithout runs a command with and without pazinit before it, started in the same
// way, and fails the test unless it prints the same.
func asWithout(t *testing.T, wrap []string, files []*os.File, env []string, act ...string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	run := func(before ...string) string {
		out, err := os.OpenFile(filepath.Join(dir, "out"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		argv := append(append(append([]string{}, wrap...), before...), act...)
		for i := range argv {
			argv[i] = strings.ReplaceAll(argv[i], "{H}", rig.Helper)
		}
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = dir, out, out, files
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
		if err := cmd.Run(); err != nil {
			t.Errorf("%v: %v", argv, err)
		}
		b, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return ownKeys.ReplaceAllString(string(b), "")
	}
	want, got := run(), run(rig.Binary, "--")
	if got != want {
		t.Errorf("%v prints\n%swant, as without,\n%s", act, got, want)
	}
}

// places are how a command is started in the two places.
func places(t *testing.T) map[string][]string {
	all := map[string][]string{"daemon": nil}
	if os.Geteuid() == 0 {
		all["pid1"] = []string{"unshare", "-fp", "--mount-proc"}
	} else {
		t.Log("as an ordinary user not as PID 1")
	}
	return all
}

// TestExecMask: the command has the blocked and the ignored signals that pazinit
// was started with.
func TestExecMask(t *testing.T) {
	for name, before := range places(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := ^uint64(0)
			pairs := [][2]uint64{
				{0, 0}, {all, 0}, {0, all}, {all, all},
				{0, 1 << (unix.SIGHUP - 1)}, {0, 1 << (unix.SIGPIPE - 1)}, {0, 1 << (unix.SIGCHLD - 1)}, {1 << (unix.SIGCHLD - 1), 1 << (unix.SIGCHLD - 1)},
				{1 << 33, 1 << 63}, {1 << 31, 1 << 32},
			}
			for range 8 {
				pairs = append(pairs, [2]uint64{rand.Uint64(), rand.Uint64()})
			}
			for _, p := range pairs {
				asWithout(t, append(before[:len(before):len(before)], "{H}", "exec-with", fmt.Sprintf("%x", p[0]), fmt.Sprintf("%x", p[1])), nil, nil, "{H}", "print-status")
				if t.Failed() {
					t.Fatalf("blocked %x, ignored %x", p[0], p[1])
				}
			}
		})
	}
}

// TestExecState: limits, umask, nice, folder, the rest of what a process has, and
// the descriptors, no more and no less.
func TestExecState(t *testing.T) {
	const set = `ulimit -Sn 123; ulimit -Hn 456; ulimit -c 0; umask 027; cd /usr/lib; [ "$(id -u)" != 0 ] || echo 300 > /proc/self/oom_score_adj; exec nice -n 5 "$@"`
	for name, before := range places(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, out, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			defer out.Close()
			file, err := os.Open("/etc/passwd")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			wrap := append(before[:len(before):len(before)], "sh", "-c", set, "sh")
			asWithout(t, wrap, nil, nil, "{H}", "print-status")
			asWithout(t, before, nil, nil, "{H}", "print-status")
			for _, act := range []string{"print-fds", "print-env", "print-status"} {
				asWithout(t, before, []*os.File{in, file, out, file}, []string{"A=1", "EMPTY=", "LISTEN_FDS=1", "LISTEN_PID=1234567"}, "{H}", act)
			}
		})
	}
}

// TestExecHugePages: neither given to nor taken from the command.
func TestExecHugePages(t *testing.T) {
	_, err := exec.LookPath("perl")
	rig.Need(t, "perl", err)
	for _, off := range []int{0, 1} { // PR_SET_THP_DISABLE
		wrap := []string{"perl", "-e", fmt.Sprintf("syscall(%d, 41, %d, 0, 0, 0); exec @ARGV", unix.SYS_PRCTL, off)}
		asWithout(t, wrap, nil, nil, "{H}", "print-status")
	}
}

// TestExecClosed: what is closed of 0, 1 and 2 stays closed.
func TestExecClosed(t *testing.T) {
	for _, c := range []struct{ how, want string }{
		{"<&-", "1 2"}, {">&-", "0 2"}, {"2>&-", "0 1"}, {"<&- >&-", "2"}, {"<&- >&- 2>&-", ""},
	} {
		t.Run(c.how, func(t *testing.T) {
			t.Parallel()
			rig.Both(t, rig.Config{Wrap: []string{"sh", "-c", `exec "$@" ` + c.how, "sh"}, Exec: []string{"{H}", "sleep"}}, func(t *testing.T, r *rig.Rig) {
				var fds []string
				r.Until("the command is executed", func() bool {
					all := r.Children()
					if len(all) != 1 || rig.Field(all[0], "Name") != filepath.Base(rig.Helper) {
						return false
					}
					names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", all[0]))
					for _, name := range names {
						if len(name.Name()) == 1 && name.Name() < "3" { // the test's own may have more
							fds = append(fds, name.Name())
						}
					}
					return err == nil
				})
				if got := strings.Join(fds, " "); got != c.want {
					t.Errorf("descriptors %s, want %s", got, c.want)
				}
				r.Signal(unix.SIGTERM)
				if got := r.Wait(); got != 143 {
					t.Errorf("exit status = %d, want 143", got)
				}
			})
		})
	}
}

// TestExecListenPID names the command if it named pazinit.
func TestExecListenPID(t *testing.T) {
	rig.Both(t, rig.Config{
		Wrap: []string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh"}, Exec: []string{"sh", "-c", "echo pid $$ named $LISTEN_PID fds $LISTEN_FDS"},
	}, func(t *testing.T, r *rig.Rig) {
		r.Wait()
		pid := printedWord(r.Console(), "pid ")
		if want := fmt.Sprintf("pid %s named %s fds 1\n", pid, pid); r.Console() != want {
			t.Errorf("it prints %q, want %q", r.Console(), want)
		}
	})
}

func printedWord(text, after string) string {
	_, rest, _ := strings.Cut(text, after)
	word, _, _ := strings.Cut(rest, " ")
	return word
}

// TestExecMount: the folder that pazinit was started in can be unmounted, once
// the command has left it.
func TestExecMount(t *testing.T) {
	rig.NeedRoot(t)
	rig.Both(t, rig.Config{
		Wrap: []string{"unshare", "-m", "sh", "-c", `mkdir m && mount -t tmpfs none m && cd m && exec "$@"`, "sh"},
		Exec: []string{"sh", "-c", "{H} print-status; read line < {D}/fifo; cd /; echo left; exec {H} sleep"},
		Setup: func(dir string) {
			if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	}, func(t *testing.T, r *rig.Rig) {
		r.WaitConsole("}\n")
		if want := `"cwd":"` + r.Path("m") + `"`; !strings.Contains(r.Console(), want) {
			t.Errorf("it prints %s, want %s", r.Console(), want)
		}
		if _, _, code := r.Inside("umount", r.Path("m")); code == 0 {
			t.Error("it was unmounted below the command")
		}
		if err := os.WriteFile(r.Path("fifo"), []byte("go\n"), 0); err != nil {
			t.Fatal(err)
		}
		r.WaitConsole("left\n")
		if _, errs, code := r.Inside("umount", r.Path("m")); code != 0 {
			t.Errorf("umount: %s", errs)
		}
		r.Signal(unix.SIGTERM)
		r.Wait()
	})
}
