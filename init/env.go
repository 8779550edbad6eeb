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

// An environ is the environment that an instance had last, with what it was made
// of. It is the spawner's.
type environ struct {
	w    *Worker
	port int
	list []string
}

// environ is the environment of a run: but for the run's token it is the same
// each time.
func (in *instance) environ(s *Supervisor, w *Worker, port int, token string) []string {
	if in.env.w != w || in.env.port != port {
		in.env = environ{w, port, s.environ(w, in.n, port)}
	}
	list := in.env.list
	list[0] = reaper.RunVariable + "=" + token
	return list
}

// environ is the environment of a run, with a place for its token. The later ones win: pazinit's own as far
// as it is inherited, the user's identity, .env, env_file, env, then PORT and
// PAZINIT_*.
func (s *Supervisor) environ(w *Worker, n, port int) []string {
	// First, for the readers of /proc that look for it.
	env := []string{reaper.RunVariable + "="}
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
	if port != 0 && !s.opt.Exec {
		set("PORT=" + strconv.Itoa(port))
	}
	if !s.opt.Exec {
		set("PAZINIT_APP=" + w.App)
		set("PAZINIT_WORKER=" + w.Name)
		set("PAZINIT_INSTANCE=" + strconv.Itoa(n))
	}
	return env
}
