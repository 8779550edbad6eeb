package reaper

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// fewFiles runs cmd with a limit of 100 open files, and a hard one of 200.
func fewFiles(cmd *exec.Cmd) {
	cmd.Args = append([]string{"sh", "-c", `ulimit -Sn 100 && ulimit -Hn 200 && exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
}

// TestNothingOfOurs reads, in a child of a raised process, what that process has
// changed for itself.
func TestNothingOfOurs(t *testing.T) {
	needRoot(t)
	if !rerun(t, fewFiles) {
		return
	}
	const probe = `cat /proc/self/status /proc/self/limits; echo "oom: $(cat /proc/self/oom_score_adj)"; echo "nice: $(cut -d' ' -f19 /proc/self/stat)"`
	before, niceness, score := openFiles(), niceOf(t, "self"), oomScore(t)
	b := newBench(t, Options{Raise: true})
	want := map[string]string{"THP_enabled": "1", "oom": score, "nice": niceness, "Max open files": "100 200 files"}
	oom := "-900"
	if b.own.oomScoreAdj == "" { // no CAP_SYS_RESOURCE: less favour needs none
		oom = "500"
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte(oom), 0); err != nil {
			t.Fatal(err)
		}
		b.own.oomScoreAdj = score
	}
	for range 20 {
		out := b.output(spec("/bin/sh", "-c", probe))
		for name, w := range want {
			if got := strings.Join(strings.Fields(field(out, name)), " "); got != w {
				t.Errorf("child's %s = %q, want %q", name, got, w)
			}
		}
	}
	status, _ := os.ReadFile("/proc/self/status")
	if got := field(string(status), "THP_enabled"); got != "0" {
		t.Errorf("our THP_enabled = %s after the starts, want 0", got)
	}
	if got, _ := os.ReadFile("/proc/self/oom_score_adj"); strings.TrimSpace(string(got)) != oom {
		t.Errorf("our oom_score_adj = %q, want %s", got, oom)
	}
	nice(t, "-15")
	b.Close()
	if after := openFiles(); len(after) != len(before) {
		t.Errorf("descriptors: %v -> %v", before, after)
	}
	nice(t, niceness) // a shell may follow
	if got := oomScore(t); got != score {
		t.Errorf("our oom_score_adj = %q after the end, want %s", got, score)
	}
}

func oomScore(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// niceOf is the niceness of a process, as the folder of /proc has it.
func niceOf(t *testing.T, pid string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[16]
}

// nice compares that of all our threads.
func nice(t *testing.T, want string) {
	t.Helper()
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + task.Name() + "/stat")
		if err != nil {
			continue
		}
		if f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])); f[16] != want {
			t.Errorf("nice of our thread %s = %s, want %s", task.Name(), f[16], want)
		}
	}
}
