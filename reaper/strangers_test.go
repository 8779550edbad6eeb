package reaper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func ownNamespace(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
}

func ownProc(t *testing.T) {
	t.Helper()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
}

// leave has a run end and leave a shell behind that runs a script, and reports
// the shell's pid when it is adopted and the script has called ready.
func (b *bench) leave(script string) int {
	b.Helper()
	file := filepath.Join(b.TempDir(), "pid")
	script = `ready() { echo $$ >"` + file + `.new"; mv "` + file + `.new" "` + file + `"; }; ` + script
	run := b.start(spec("/bin/sh", "-c", `setsid sh -c "$1" & exit 0`, "sh", script))
	b.up(run)
	b.down(run)
	for {
		if text, err := os.ReadFile(file); err == nil {
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				b.Fatal(err)
			}
			return pid
		}
		time.Sleep(time.Millisecond)
	}
}

func pidsOf(list []Stranger) (pids []int) {
	for _, s := range list {
		pids = append(pids, s.PID)
	}
	return pids
}

func TestDismiss(t *testing.T) {
	needRoot(t)
	if !rerun(t, ownNamespace) {
		return
	}
	ownProc(t)
	b := newBench(t, Options{})
	run := b.start(spec("/bin/sh", "-c", "sleep 1000 & sleep 1000")) // and what is below it
	own := b.up(run)

	if got := b.Dismiss(time.Now().Add(time.Hour), nil); got != nil { // at once, or the test hangs
		t.Fatalf("Dismiss with nobody there = %v, want none", got)
	}

	willing := b.leave("ready; exec sleep 1000")
	for Name(willing) != "sleep" {
		time.Sleep(time.Millisecond)
	}
	var told []Stranger
	left := b.Dismiss(time.Now().Add(time.Hour), func(list []Stranger) { told = list })
	if len(told) != 1 || told[0].PID != willing || told[0].Name != "sleep" || told[0].Entered || told[0].Err != nil {
		t.Errorf("Dismiss told %+v, want sleep %d, adopted", told, willing)
	}
	if len(left) != 0 {
		t.Errorf("Dismiss = %+v, want none", left)
	}
	b.next(func(e Event) bool { return e.Kind == Orphan && e.PID == willing && e.Status.Signal() == unix.SIGTERM })

	stubborn := b.leave("trap '' TERM; ready; exec sleep 1000")
	left = b.Dismiss(time.Now().Add(100*time.Millisecond), nil)
	if got := pidsOf(left); !slices.Equal(got, []int{stubborn}) {
		t.Errorf("Dismiss = %v, want %d", got, stubborn)
	}
	if !slices.Equal(pidsOf(b.Strangers()), []int{stubborn}) {
		t.Errorf("Strangers() = %+v, want only %d", b.Strangers(), stubborn)
	}
	if err := unix.Kill(stubborn, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.next(func(e Event) bool { return e.Kind == Orphan && e.PID == stubborn })

	// Each is told once, though others come and go, and are waited for, meanwhile.
	count := filepath.Join(t.TempDir(), "count")
	busy := b.leave("trap 'echo TERM >>" + count + "' TERM; ready; while :; do sleep 0.01; done")
	left = b.Dismiss(time.Now().Add(300*time.Millisecond), nil)
	if got := pidsOf(left); !slices.Contains(got, busy) {
		t.Errorf("Dismiss = %v, want %d among them", got, busy)
	}
	// Another one, when it has handled what it got, tells how many those were.
	waitLines(t, count, 1)
	if err := unix.Kill(busy, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if text := waitLines(t, count, 2); text != "TERM\nTERM\n" {
		t.Errorf("it got %q, want one TERM before ours", text)
	}
	_ = unix.Kill(busy, unix.SIGKILL)
	b.next(func(e Event) bool { return e.Kind == Orphan && e.PID == busy })

	if b.PID(run) != own {
		t.Errorf("PID(run) = %d, want %d: it was hit", b.PID(run), own)
	}
	if err := b.Signal(run, unix.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	if ws := b.down(run); ws.Signal() != unix.SIGKILL {
		t.Errorf("the run ended with %#x, want SIGKILL", ws)
	}
}

// TestNoFirstProcess has no strangers, neither its orphans nor its neighbours.
func TestNoFirstProcess(t *testing.T) {
	b := newBench(t, Options{Subreaper: true})
	orphan := b.leave("ready; exec sleep 1000")
	if got := b.Dismiss(time.Now().Add(time.Hour), nil); got != nil {
		t.Errorf("Dismiss by a process that is not the first = %+v, want none", got)
	}
	if err := unix.Kill(orphan, 0); err != nil {
		t.Errorf("the orphan is gone: %v", err)
	}
	_ = unix.Kill(orphan, unix.SIGKILL)
	b.next(func(e Event) bool { return e.Kind == Orphan && e.PID == orphan })
}

// TestForeignProc: /proc is another namespace's, and its numbers mean somebody
// else.
func TestForeignProc(t *testing.T) {
	needRoot(t)
	if !rerun(t, ownNamespace) {
		return
	}
	b := newBench(t, Options{})
	orphan := b.leave("ready; exec sleep 1000")
	if got := b.Strangers(); got != nil {
		t.Errorf("Strangers() = %+v, want none", got)
	}
	_ = unix.Kill(orphan, unix.SIGKILL)
	b.next(func(e Event) bool { return e.Kind == Orphan && e.PID == orphan })
}

// TestRest leaves no zombie, neither one that there was nor those that come, and
// no signal ends it.
func TestRest(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "REAPER_CHILD=rest")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func init() {
	children["rest"] = func() {
		check := func(err error) {
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
		}
		check(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
		dead := exec.Command("/bin/true")
		check(dead.Start())
		check(unix.Waitid(unix.P_PID, dead.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
		go Rest()
		for {
			if err := unix.Kill(dead.Process.Pid, 0); err == unix.ESRCH {
				break
			}
			time.Sleep(time.Millisecond)
		}
		// Five orphans, which end when they are ours.
		later := exec.Command("/bin/sh", "-c", "for i in 1 2 3 4 5; do setsid sleep 0.05 & done")
		check(later.Start())
		if err := later.Wait(); !errors.Is(err, unix.ECHILD) {
			check(fmt.Errorf("Wait of a child that the kernel reaped: %w, want ECHILD", err))
		}
		check(unix.Kill(os.Getpid(), unix.SIGTERM))
		for {
			list, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
			check(err)
			if len(list) == 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// waitLines waits until a file has at least so many lines, and returns it.
func waitLines(t *testing.T, path string, n int) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if strings.Count(string(b), "\n") >= n {
			return string(b)
		}
	}
	t.Fatalf("%s has no %d lines", path, n)
	return ""
}
