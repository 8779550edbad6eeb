package rig

import (
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

func TestRig(t *testing.T) {
	All(t, Config{Procfile: "web: {H} ignore-term\n", YAML: "applications: {app: {procfile: ., stop_timeout: 100ms}}"}, func(t *testing.T, r *Rig) {
		st := r.WaitState("app:web.1", "RUNNING")
		r.Line("app:web.1", "ready")
		r.WaitConsole("app:web.1 | ready")
		if !r.Lives(st.PID) || cmdline(r.HostPID(st.PID)) != Helper+" ignore-term " {
			t.Errorf("process %d of web = %q", st.PID, cmdline(r.HostPID(st.PID)))
		}
		if got := len(r.Processes()); got < 2 {
			t.Errorf("%d processes, want supervisor and worker", got)
		}
		out, errs, code := r.Cmd("stop", "web")
		if code != 0 || errs != "" || !strings.Contains(out, "app:web.1") {
			t.Errorf("stop = %d %q %q", code, out, errs)
		}
		if r.Lives(st.PID) {
			t.Error("web lives after its stop")
		}
		r.Must("shutdown")
		if got := r.Wait(); got != 0 {
			t.Errorf("Wait() = %d, want 0", got)
		}
	})
}
