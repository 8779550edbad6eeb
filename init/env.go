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

// environ is the environment of a run. The later ones win: pazinit's own as far
// as it is inherited, the user's identity, .env, env_file, env, then PORT and
// PAZINIT_*.
func (s *Supervisor) environ(w *Worker, n, port int, token string) []string {
	// First, for the readers of /proc that look for it.
	env := []string{reaper.RunVariable + "=" + token}
	at := map[string]int{reaper.RunVariable: 0}
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
	if port != 0 {
		set("PORT=" + strconv.Itoa(port))
	}
	if !s.opt.Exec {
		set("PAZINIT_APP=" + w.App)
		set("PAZINIT_WORKER=" + w.Name)
		set("PAZINIT_INSTANCE=" + strconv.Itoa(n))
	}
	return env
}
