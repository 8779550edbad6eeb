package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// environ is an environment as a map; a key that is there twice fails the test.
func environ(t *testing.T, list []string) map[string]string {
	t.Helper()
	m := map[string]string{}
	for _, kv := range list {
		k, v, _ := strings.Cut(kv, "=")
		if _, ok := m[k]; ok {
			t.Errorf("%s is twice in the environment", k)
		}
		m[k] = v
	}
	return m
}

// TestEnvironmentOrder: pazinit's own, .env, env_file, env, then PORT and PAZINIT_*.
func TestEnvironmentOrder(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "one: {H} print-env hold\ntwo: {H} print-env hold\n",
		YAML: `applications:
  app:
    procfile: Procfile
    env_file: more
    env: {D: app, E: app}
    workers:
      one: {env: {E: worker}}
      two: {num_instances: 2}
`,
		Files: map[string]string{".env": "B=dotenv\nC=dotenv\nD=dotenv\nE=dotenv\n", "more": "C=file\nD=file\nE=file\n"},
		Env:   []string{"A=own", "B=own", "C=own", "D=own", "E=own", "PORT=1", "PAZINIT_APP=no", "PAZINIT_SOCKET=/nowhere", "PAZINIT_RUN=other", "EMPTY="},
	})
	for name, want := range map[string]map[string]string{
		"app:one.1": {"A": "own", "B": "dotenv", "C": "file", "D": "app", "E": "worker", "EMPTY": "", "PORT": "5000", "PAZINIT_APP": "app", "PAZINIT_WORKER": "one", "PAZINIT_INSTANCE": "1"},
		"app:two.2": {"E": "app", "PORT": "5101", "PAZINIT_WORKER": "two", "PAZINIT_INSTANCE": "2"},
	} {
		got := environ(t, decode[[]string](t, "["+r.Line(name, "[")))
		for k, v := range want {
			if g, ok := got[k]; !ok || g != v {
				t.Errorf("%s: %s = %q, want %q", name, k, g, v)
			}
		}
		if v, ok := got["PAZINIT_SOCKET"]; ok {
			t.Errorf("%s: PAZINIT_SOCKET = %q, want none", name, v)
		}
		if v := got["PAZINIT_RUN"]; v == "" || v == "other" {
			t.Errorf("%s: PAZINIT_RUN = %q, want one of its own", name, v)
		}
	}
}

// TestEnvironmentInherit: nothing of pazinit's own, or what is listed.
func TestEnvironmentInherit(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "none: {H} print-env hold\nsome: {H} print-env hold\n",
		YAML: `applications:
  app:
    procfile: Procfile
    env: {X: x}
    workers:
      none: {env_inherit: false}
      some: {env_inherit: [KEEP]}
`,
		Env: []string{"KEEP=1", "DROP=1"},
	})
	for name, want := range map[string][]string{
		"app:none.1": {"PAZINIT_APP", "PAZINIT_INSTANCE", "PAZINIT_RUN", "PAZINIT_WORKER", "PORT", "X"},
		"app:some.1": {"KEEP", "PAZINIT_APP", "PAZINIT_INSTANCE", "PAZINIT_RUN", "PAZINIT_WORKER", "PORT", "X"},
	} {
		var got []string
		for k := range environ(t, decode[[]string](t, "["+r.Line(name, "["))) {
			got = append(got, k)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s has %v, want %v", name, got, want)
		}
	}
}

// TestIdentity: user, its groups, its variables; number without a passwd entry.
func TestIdentity(t *testing.T) {
	rig.NeedRoot(t)
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "name: sh -c 'cd /; {H} print-status; exec {H} print-env hold'\nnumber: {H} print-status hold\ngroup: {H} print-status hold\n",
		YAML: `applications:
  app:
    procfile: Procfile
    cwd: /
    workers:
      name: {user: nobody, env: {SHELL: mine}}
      number: {user: "54321", group: "54322"}
      group: {group: "54323"}
`,
	})
	st := decode[status](t, "{"+r.Line("app:name.1", "{"))
	if st.UID != [3]int{65534, 65534, 65534} || st.GID[0] != 65534 || slices.Contains(st.Groups, 0) {
		t.Errorf("nobody is %v %v %v", st.UID, st.GID, st.Groups)
	}
	env := environ(t, decode[[]string](t, "["+r.Line("app:name.1", "[")))
	if env["USER"] != "nobody" || env["LOGNAME"] != "nobody" || env["HOME"] != "/nonexistent" || env["SHELL"] != "mine" {
		t.Errorf("USER %q LOGNAME %q HOME %q SHELL %q", env["USER"], env["LOGNAME"], env["HOME"], env["SHELL"])
	}
	st = decode[status](t, "{"+r.Line("app:number.1", "{"))
	if st.UID[0] != 54321 || st.GID != [3]int{54322, 54322, 54322} || slices.Contains(st.Groups, 0) {
		t.Errorf("54321 is %v %v %v", st.UID, st.GID, st.Groups)
	}
	st = decode[status](t, "{"+r.Line("app:group.1", "{"))
	if st.UID[0] != 0 || st.GID[0] != 54323 {
		t.Errorf("group 54323 is %v %v", st.UID, st.GID)
	}
}

// TestNothingOfPazinitReachesWorkers: priority, limits, signals, descriptors,
// session, folder.
func TestNothingOfPazinitReachesWorkers(t *testing.T) {
	rig.All(t, rig.Config{
		Procfile: "web: {H} print-status hold\nfds: {H} print-fds hold\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {web: {umask: '027'}}}}",
	}, func(t *testing.T, r *rig.Rig) {
		st := decode[status](t, "{"+r.Line("app:web.1", "{"))
		var own syscall.Rlimit
		if err := syscall.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
			t.Fatal(err)
		}
		favour, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 less the niceness, getpriority(2)
		if err != nil {
			t.Fatal(err)
		}
		if st.Nice != 20-favour || st.OOMScoreAdj != strings.TrimSpace(ownFile(t, "/proc/self/oom_score_adj")) || st.THP != "1" {
			t.Errorf("nice %d, oom_score_adj %s, THP_enabled %s", st.Nice, st.OOMScoreAdj, st.THP)
		}
		// exec.Command gives a child the limit that this process was started with.
		if got := st.Limits["nofile"]; got[0] > int64(own.Cur) || strconv.Itoa(int(got[0])) != nofileOf(t) {
			t.Errorf("nofile = %v, want %s", got, nofileOf(t))
		}
		if len(st.Blocked) != 0 || len(st.Ignored) != 0 || st.Subreaper || st.PDeathSig != 0 {
			t.Errorf("blocked %v, ignored %v, subreaper %v, pdeathsig %d", st.Blocked, st.Ignored, st.Subreaper, st.PDeathSig)
		}
		if st.PGID != st.PID || st.TTY {
			t.Errorf("pid %d, group %d, terminal %t, want a group of its own and no terminal", st.PID, st.PGID, st.TTY)
		}
		if st.Cwd != r.Dir || st.Umask != 0o27 {
			t.Errorf("cwd %s, umask %o", st.Cwd, st.Umask)
		}
		type fd struct {
			FD     int
			Target string
		}
		fds := decode[[]fd](t, "["+r.Line("app:fds.1", "["))
		if len(fds) != 3 || fds[0].Target != "/dev/null" || !strings.HasPrefix(fds[1].Target, "pipe:") || !strings.HasPrefix(fds[2].Target, "pipe:") || fds[1].Target == fds[2].Target {
			t.Errorf("descriptors %v, want /dev/null and two pipes", fds)
		}
		if cwd, err := os.Readlink("/proc/" + strconv.Itoa(r.PID) + "/cwd"); err != nil || cwd != "/" {
			t.Errorf("pazinit's cwd = %q, %v, want /", cwd, err)
		}
	})
}

func ownFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// nofileOf is the soft limit of open files of the process that runs the tests.
func nofileOf(t *testing.T) string {
	t.Helper()
	for line := range strings.Lines(ownFile(t, "/proc/"+strconv.Itoa(os.Getppid())+"/limits")) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			return strings.Fields(rest)[0]
		}
	}
	return ""
}

// TestCannotExecute tells a command that cannot be executed from one that failed.
func TestCannotExecute(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "missing: /no/such/program\nforbidden: ./data\nscript: ./script\ncwd: {H} sleep\nfails: {H} exit 127\nbinary: ./junk\nfolder: ./\n",
		YAML:     "applications: {app: {procfile: Procfile, max_restarts: 1, workers: {cwd: {cwd: /no/such/folder}}}}",
		Files:    map[string]string{"data": "x", "script": "#!/no/such/interpreter\n", "junk": "\x01\x02\x03\x04"},
		Setup: func(dir string) {
			_ = os.Chmod(filepath.Join(dir, "script"), 0o755)
			_ = os.Chmod(filepath.Join(dir, "junk"), 0o755)
		},
		Left: false,
	})
	for name, want := range map[string]struct {
		code int
		text []string
	}{
		"missing":   {127, []string{"/no/such/program", "no such file or directory"}},
		"forbidden": {126, []string{"data", "permission denied"}},
		"script":    {127, []string{"script", "interpreter"}},
		"cwd":       {127, []string{"/no/such/folder", "no such file or directory"}},
		"binary":    {126, []string{"junk", "exec format error"}},
		"folder":    {126, []string{"permission denied"}},
	} {
		st := r.WaitState("app:"+name+".1", "FATAL")
		if st.LastExit == nil || st.LastExit.Error == "" {
			t.Errorf("%s: last_exit = %+v, want an error", name, st.LastExit)
			continue
		}
		if st.LastExit.Code != want.code && name != "cwd" {
			t.Errorf("%s: code = %d, want %d", name, st.LastExit.Code, want.code)
		}
		for _, text := range want.text {
			if !strings.Contains(st.LastExit.Error, text) {
				t.Errorf("%s: %q, want %q in it", name, st.LastExit.Error, text)
			}
		}
	}
	st := r.WaitState("app:fails.1", "FATAL")
	if st.LastExit.Error != "" || st.LastExit.Code != 127 {
		t.Errorf("fails: last_exit = %+v, want 127 without an error", st.LastExit)
	}
}

// TestPriorityOrder: lower ones are started first and stopped last, equal ones in parallel.
func TestPriorityOrder(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "c: {H} sleep\na: {H} sleep\nb: {H} sleep\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {a: {priority: 1}, b: {priority: 2}, c: {priority: 3}}}}",
	})
	r.WaitState("app:c.1", "RUNNING")
	r.Must("shutdown")
	r.Wait()
	var got []string
	for _, e := range r.Events() {
		if e.Kind == "state" {
			got = append(got, e.Name[4:5]+" "+e.To)
		}
	}
	want := "a STARTING,a RUNNING,b STARTING,b RUNNING,c STARTING,c RUNNING,c STOPPING,c STOPPED,b STOPPING,b STOPPED,a STOPPING,a STOPPED"
	if g := strings.Join(got, ","); g != want {
		t.Errorf("order\n%s, want\n%s", g, want)
	}
}

// TestPIDFiles are there while what they name runs.
func TestPIDFiles(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "web: {H} sleep\n",
		YAML:     "pid_file: own.pid\napplications: {app: {procfile: Procfile, workers: {web: {pid_file: web.pid}}}}",
	})
	st := r.WaitState("app:web.1", "RUNNING")
	r.Until("web.pid", func() bool { return r.Read("web.pid") == strconv.Itoa(st.PID)+"\n" })
	if got, want := r.Read("own.pid"), strconv.Itoa(r.PID)+"\n"; got != want {
		t.Errorf("own.pid = %q, want %q", got, want)
	}
	r.Must("stop", "web")
	r.Until("web.pid gone", func() bool { return r.Read("web.pid") == "" })
	r.Must("shutdown")
	r.Wait()
	if got := r.Read("own.pid"); got != "" {
		t.Errorf("own.pid after the end = %q", got)
	}
}
