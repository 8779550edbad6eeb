// Package integration tests the built program against real processes.
package integration

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// decode reads a line of JSON that the helper printed.
func decode[T any](t *testing.T, line string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		t.Fatalf("decode %q: %v", line, err)
	}
	return v
}

// a status is what the helper prints of itself, as far as it is looked at.
type status struct {
	PID, PPID, PGID, SID int
	TTY, Foreground      bool
	StdinTTY             bool `json:"stdin_tty"`
	UID, GID             [3]int
	Groups               []int
	Umask                int
	Cwd                  string
	Nice                 int
	OOMScoreAdj          string `json:"oom_score_adj"`
	THP                  string `json:"thp_enabled"`
	Subreaper            bool
	PDeathSig            int
	Blocked, Ignored     []int
	Limits               map[string][2]int64
}

// to matches the event that an instance came into a state.
func to(name, state string) func(control.Event) bool {
	return func(e control.Event) bool { return e.Kind == "state" && e.Name == name && e.To == state }
}

// gone fails the test when one of the processes, by their numbers for the
// supervisor, lives.
func gone(t *testing.T, r *rig.Rig, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if r.Lives(pid) {
			t.Errorf("process %d lives, want it gone", pid)
		}
	}
}

func results(reply *control.Reply) string {
	text := fmt.Sprintf("%d %s", reply.Code, reply.Error)
	for _, res := range reply.Results {
		text += fmt.Sprintf(" [%s %v %d %s %s]", res.Name, res.OK, res.Code, res.State, res.Message)
	}
	return text
}
