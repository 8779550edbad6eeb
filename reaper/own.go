package reaper

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/reaper/internal/early"
)

// own is what this process was started with and has changed for itself. A child
// gets it back.
type own struct {
	nice        int
	niceRaised  bool
	nofile      unix.Rlimit
	nofileMoved bool
	oomScoreAdj string // "" when it was not changed
	thpDisabled bool

	mu    sync.Mutex
	forks int // under way, while huge pages are off
}

const (
	raisedNice = -15  // a third of a millisecond instead of tens under load
	raisedOOM  = -900 // still below what must never be killed
)

// raise gives this process the priority that it needs to answer a death at
// once, as far as it may: CAP_SYS_NICE and CAP_SYS_RESOURCE.
func (o *own) raise() {
	if n, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
		o.nice = 20 - n // the system call's own range is 1 to 40
	}
	if o.nice > raisedNice && unix.Setpriority(unix.PRIO_PROCESS, 0, raisedNice) == nil {
		o.niceRaised = true
		setNice(raisedNice)
	}
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		old := strings.TrimSpace(string(b))
		if n, err := strconv.Atoi(old); err == nil && n > raisedOOM &&
			os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(raisedOOM)), 0) == nil {
			o.oomScoreAdj = old
		}
	}
	// Huge pages would cost a small heap several MiB.
	if was, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0); err == nil && was == 0 {
		o.thpDisabled = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0) == nil
	}
}

// setNice is for all threads. A priority holds for one: the others of now are told,
// those of later take after the one that makes them. One that was not told yet may
// be making another: look until there is nothing new.
func setNice(nice int) {
	told := make(map[string]bool)
	for more := true; more; {
		more = false
		tasks, _ := os.ReadDir("/proc/self/task")
		for _, t := range tasks {
			if tid, err := strconv.Atoi(t.Name()); err == nil && !told[t.Name()] {
				told[t.Name()], more = true, true
				_ = unix.Setpriority(unix.PRIO_PROCESS, tid, nice)
			}
		}
	}
}

// lower takes back what raise did, for what becomes of this process.
func (o *own) lower() {
	if o.niceRaised {
		setNice(o.nice)
	}
	if o.oomScoreAdj != "" {
		_ = os.WriteFile("/proc/self/oom_score_adj", []byte(o.oomScoreAdj), 0)
	}
}

// early is what was changed before main.
func (o *own) early() {
	o.limits()
	o.thpDisabled = early.HugePages()
}

// lendMemory and takeMemory stand around a fork. Huge pages are off for a memory,
// and the new one that exec makes takes after the old one, which the child of a
// vfork shares with us: so ours has them until the last exec is through.
func (o *own) lendMemory() {
	if !o.thpDisabled {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.forks++; o.forks == 1 {
		_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0)
	}
}

func (o *own) takeMemory() {
	if !o.thpDisabled {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.forks--; o.forks == 0 {
		_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
	}
}

// limits remembers the limit of open files, which Go has raised before main.
func (o *own) limits() {
	var now unix.Rlimit
	if early.Known && unix.Getrlimit(unix.RLIMIT_NOFILE, &now) == nil && now.Cur != early.NoFile[0] {
		o.nofile = unix.Rlimit{Cur: early.NoFile[0], Max: now.Max}
		o.nofileMoved = true
	}
}

// restoreLimits gives the child that limit back.
func (f *flight) restoreLimits(o *own) {
	if o.nofileMoved {
		f.keep = append(f.keep, o)
		f.add("set limit of files", opOptional, unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&o.nofile)), 0)
	}
}
