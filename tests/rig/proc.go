package rig

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// pids are all processes that are seen from here.
func pids() (out []int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

func read(pid int, file string) []byte {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	return b
}

func cmdline(pid int) string {
	return string(bytes.ReplaceAll(read(pid, "cmdline"), []byte{0}, []byte{' '}))
}

// Processes are those that were started by the rig and live, the supervisor too.
// They are known by a variable in their environment, which they have by default,
// or by their control group.
func (r *Rig) Processes() (out []int) {
	marker := []byte(r.marker)
	for _, pid := range pids() {
		mine := bytes.Contains(read(pid, "cgroup"), []byte("/"+r.Cgroup+"/"))
		for kv := range bytes.SplitSeq(read(pid, "environ"), []byte{0}) {
			mine = mine || bytes.Equal(kv, marker)
		}
		if mine && Alive(pid) {
			out = append(out, pid)
		}
	}
	return out
}

// Alive reports whether a process, by its number here, lives and is no zombie.
func Alive(pid int) bool {
	s := Field(pid, "State")
	return s != "" && s[0] != 'Z' && s[0] != 'X'
}

// Field is what /proc/PID/status says of a key, "" if nothing.
func Field(pid int, key string) string {
	for line := range strings.Lines(string(read(pid, "status"))) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// HostPID finds, by the number that a process has for the supervisor, the one
// that it has here; 0 if it is gone.
func (r *Rig) HostPID(pid int) int {
	if r.Cfg.Mode == Daemon {
		return pid
	}
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", r.PID))
	if err != nil {
		return 0
	}
	for _, host := range pids() {
		f := strings.Fields(Field(host, "NSpid"))
		if len(f) > 1 && f[len(f)-1] == strconv.Itoa(pid) {
			if its, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", host)); its == ns {
				return host
			}
		}
	}
	return 0
}

// Lives reports whether a process, by the number that it has for the supervisor,
// lives.
func (r *Rig) Lives(pid int) bool {
	host := r.HostPID(pid)
	return host != 0 && Alive(host)
}

// Children are the supervisor's, zombies included.
func (r *Rig) Children() (out []int) {
	ppid := strconv.Itoa(r.PID)
	for _, pid := range pids() {
		if Field(pid, "PPid") == ppid {
			out = append(out, pid)
		}
	}
	return out
}

// FDs counts the supervisor's open files.
func (r *Rig) FDs() int {
	r.T.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.PID))
	r.must(err)
	return len(names)
}

// Threads counts the supervisor's threads.
func (r *Rig) Threads() int {
	r.T.Helper()
	n, err := strconv.Atoi(Field(r.PID, "Threads"))
	r.must(err)
	return n
}

// CPU is the time that the supervisor has used, in clock ticks of 10 ms.
func (r *Rig) CPU() int {
	r.T.Helper()
	b := read(r.PID, "stat")
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, err := strconv.Atoi(f[11])
	r.must(err)
	system, err := strconv.Atoi(f[12])
	r.must(err)
	return user + system
}

// Switches counts how often the supervisor's threads have run, but for those
// that were switched away from against their will.
func (r *Rig) Switches() (n int) {
	r.T.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", r.PID))
	r.must(err)
	for _, task := range tasks {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", r.PID, task.Name()))
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				m, _ := strconv.Atoi(strings.TrimSpace(v))
				n += m
			}
		}
	}
	return n
}

// Asleep reports whether none of the supervisor's threads runs or waits for a
// processor.
func (r *Rig) Asleep() bool {
	r.T.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", r.PID))
	r.must(err)
	for _, task := range tasks {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", r.PID, task.Name()))
		if bytes.Contains(b, []byte(") R ")) {
			return false
		}
	}
	return true
}

// Extra is how many processes the rig has besides the supervisor and what it
// started.
func (r *Rig) Extra() int {
	if r.Cfg.Mode == PID1 {
		return 1 // unshare
	}
	return 0
}

// Inside runs a command in the namespaces of the supervisor, not as a worker.
func (r *Rig) Inside(argv ...string) (stdout, stderr string, code int) {
	r.T.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(r.PID), "-p", "-m", "--"}, argv...)...)
	out, errs := new(strings.Builder), new(strings.Builder)
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.WaitDelay = time.Second // what stays in the background may hold them
	_ = cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
