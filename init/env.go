package pazinit

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pazinit/pazinit/reaper"
)

// private are the variables that are for pazinit alone.
var private = []string{"PAZINIT_SOCKET", "PAZINIT_APP", "PAZINIT_WORKER", "PAZINIT_INSTANCE", reaper.RunVariable}

// environ is the environment of a run. But for three variables all runs of a
// worker have the same, which is made once.
func (s *Supervisor) environ(w *Worker, n, port int, token string) []string {
	base := w.env.Load()
	if base == nil {
		list := s.commonEnviron(w)
		base = &list
		w.env.Store(base)
	}
	env := slices.Clone(*base)
	env[0] = reaper.RunVariable + "=" + token
	env[1] = "PAZINIT_INSTANCE=" + strconv.Itoa(n)
	if port != 0 {
		env = append(env, "PORT="+strconv.Itoa(port))
	}
	return env
}

// commonEnviron is the environment of a worker: pazinit's own as far as it is
// inherited, the user's identity, .env, env_file, env, then PAZINIT_*; the later
// ones win. Its first entries are for what differs from run to run.
func (s *Supervisor) commonEnviron(w *Worker) []string {
	// First, for the readers of /proc that look for it.
	env := []string{reaper.RunVariable + "=", "PAZINIT_INSTANCE="}
	at := map[string]int{reaper.RunVariable: 0, "PAZINIT_INSTANCE": 1}
	set := func(kv string) {
		key, _, _ := strings.Cut(kv, "=")
		if i, ok := at[key]; ok {
			env[i] = kv
			return
		}
		at[key] = len(env)
		env = append(env, kv)
	}
	for _, kv := range os.Environ() {
		key, _, _ := strings.Cut(kv, "=")
		if slices.Contains(private, key) {
			continue
		}
		if w.EnvInherit.All || slices.Contains(w.EnvInherit.Names, key) {
			set(kv)
		}
	}
	if u := w.User; u != nil && u.UIDSet {
		set("HOME=" + u.Home)
		set("SHELL=" + u.Shell)
		if u.Login != "" {
			set("USER=" + u.Login)
			set("LOGNAME=" + u.Login)
		}
	}
	for _, kv := range w.Env {
		set(kv)
	}
	set("PAZINIT_APP=" + w.App)
	set("PAZINIT_WORKER=" + w.Name)
	return slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "PORT=") })
}
