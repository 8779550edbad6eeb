package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// now is CLOCK_MONOTONIC in nanoseconds, as the workers stamp it.
func now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// tree is root and all that descends from it.
func tree(root int) []int {
	children := make(map[int][]int)
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		b, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		pid, _ := strconv.Atoi(filepath.Base(d))
		ppid, _ := strconv.Atoi(f[1])
		children[ppid] = append(children[ppid], pid)
	}
	out := []int{root}
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out
}

// killDescendants ends what is left below this process.
func killDescendants() {
	for range 50 {
		left := 0
		for _, pid := range tree(os.Getpid())[1:] {
			if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); !bytes.Contains(b, []byte(") Z ")) && len(b) > 0 {
				left++
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if left == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// supervisors are root and those of its descendants that execute none of workers.
func supervisors(root int, workers ...string) (out []int) {
	for _, pid := range tree(root) {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		worker := err != nil
		for _, w := range workers {
			worker = worker || exe == w
		}
		if !worker {
			out = append(out, pid)
		}
	}
	return out
}

// A use is what processes have, or had, of the machine.
type use struct {
	pss, anon    float64 // KiB
	threads, fds int
	switches     int
	cpu          time.Duration
}

func field(text, key string) float64 {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return n
		}
	}
	return 0
}

func text(format string, args ...any) string {
	b, _ := os.ReadFile(fmt.Sprintf(format, args...))
	return string(b)
}

// usage sums up what the processes use. Memory is asked for only if wanted: the
// kernel walks the pages for it.
func usage(pids []int, memory bool) (u use) {
	for _, pid := range pids {
		if memory {
			rollup := text("/proc/%d/smaps_rollup", pid)
			u.pss += field(rollup, "Pss")
			u.anon += field(rollup, "Anonymous")
			fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			u.fds += len(fds)
		}
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		for _, t := range tasks {
			u.threads++
			status := text("/proc/%d/task/%s/status", pid, t.Name())
			u.switches += int(field(status, "voluntary_ctxt_switches") + field(status, "nonvoluntary_ctxt_switches"))
			ns, _ := strconv.ParseInt(strings.SplitN(text("/proc/%d/task/%s/schedstat", pid, t.Name()), " ", 2)[0], 10, 64)
			u.cpu += time.Duration(ns)
		}
	}
	return u
}

// settledCPU waits until the processes use no more, and reports how much it was.
func settledCPU(pids []int) time.Duration {
	last := usage(pids, false).cpu
	for range 100 {
		time.Sleep(30 * time.Millisecond)
		next := usage(pids, false).cpu
		if next == last {
			break
		}
		last = next
	}
	return last
}
