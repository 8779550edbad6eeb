// Package containers runs the built program in real containers, by runc and by
// podman, at every place of the table in tests/bundle.
package containers

import (
	"cmp"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pazinit/pazinit/tests/bundle"
	"github.com/pazinit/pazinit/tests/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// runtime is the one to test in the place of runc and podman, if it is not "".
var runtime = os.Getenv("PAZINIT_RUNTIME")

// A root is what a container's file system begins with.
type root struct {
	name  string
	files func() map[string]bundle.File
	web   string // the command line of a worker that prints and stays
}

func roots(t *testing.T) []root {
	busybox := program(t, "busybox")
	return []root{
		{
			name:  "scratch",
			files: func() map[string]bundle.File { return bundle.Scratch(rig.Binary, rig.Helper) },
			web:   "helper print-status hold",
		},
		{
			name:  "busybox",
			files: func() map[string]bundle.File { return bundle.Busybox(rig.Binary, rig.Helper, busybox) },
			web:   `for word in a shell; do echo "from $word"; done; exec helper print-status hold`,
		},
	}
}

// program finds one that the tests need.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	rig.Need(t, "containers", err)
	return path
}

// only says where a test is of interest; what is empty means everywhere.
type only struct {
	root     string
	places   []string
	noPodman bool
}

// each runs a test with the engines and roots, at the places.
func each(t *testing.T, where only, test func(*testing.T, engine, root, bundle.Place)) {
	rig.NeedRoot(t)
	tini := program(t, "tini-static")
	roots := slices.DeleteFunc(roots(t), func(r root) bool { return where.root != "" && r.name != where.root })
	direct := cmp.Or(runtime, "runc")
	program(t, direct)
	engines := func(root, bundle.Place) []engine { return []engine{oci(direct)} }
	if runtime == "" && !where.noPodman {
		program(t, "podman")
		stores := map[bool]store{false: newStore(t, roots, false)}
		if where.places == nil || slices.Contains(where.places, "rootless") {
			stores[true] = newStore(t, roots, true)
		}
		engines = func(r root, p bundle.Place) []engine {
			return []engine{oci(direct), podman(stores[p.ByUser], image(r))}
		}
	}
	for _, r := range roots {
		for _, p := range bundle.Places(tini) {
			if where.places != nil && !slices.Contains(where.places, p.Name) {
				continue
			}
			for _, e := range engines(r, p) {
				if e.name == "podman" && !podmanHas(p) {
					continue
				}
				t.Run(e.name+"/"+r.name+"/"+p.Name, func(t *testing.T) {
					t.Parallel()
					test(t, e, r, p)
				})
			}
		}
	}
}

// spec is the container at a place: the image's files, and more.
func spec(e engine, r root, p bundle.Place, files map[string]bundle.File, args ...string) bundle.Spec {
	s := bundle.Spec{Args: args, Files: map[string]bundle.File{}}
	if e.name != "podman" {
		s.Files = r.files()
	}
	for name, file := range files {
		s.Files[name] = file
	}
	p.Set(&s)
	if p.NoStdin && r.name == "busybox" { // some engines make another one
		s.Args = append([]string{"sh", "-c", `exec "$0" "$@" <&-`}, s.Args...)
	}
	return s
}

func podmanHas(p bundle.Place) bool {
	s := bundle.Spec{Files: map[string]bundle.File{}}
	p.Set(&s)
	_, err := s.Podman()
	return err == nil
}

// The settings of an application whose stop would take ten minutes if it were not
// over with its last process.
const settings = `
    stop_timeout: 10m
    backoff: {base: 10m, max: 10m}
`

func config(procfile, settings string) map[string]bundle.File {
	return map[string]bundle.File{
		"/Procfile":                 {Text: procfile},
		"/etc/pazinit/pazinit.yaml": {Text: "applications:\n  app:\n    procfile: /Procfile\n" + strings.TrimLeft(settings, "\n")},
	}
}

func TestPlaces(t *testing.T) {
	each(t, only{}, func(t *testing.T, e engine, r root, p bundle.Place) {
		supervise(t, e, r, p)
		command(t, e, r, p)
		if e.name != "podman" || r.name == "scratch" { // podman takes ten times as long as runc
			statuses(t, e, r, p)
		}
	})
}

// supervise: workers start, crash and come back, and the container ends with the
// last one of them.
func supervise(t *testing.T, e engine, r root, p bundle.Place) {
	s := spec(e, r, p, config("web: "+r.web+"\njob: helper crash-after 1\nslow: helper on-signal TERM 0 100\n", settings), "pazinit")
	c := e.start(t, p, s)
	c.until("| ready", 3) // slow once, job twice
	c.until(`| {"pid":`, 1)
	c.until(place(s), 1)
	writable := s.Cgroups == bundle.CgroupsWritable || s.Cgroups == bundle.Cgroups2
	if out, _ := c.output(); strings.Contains(out, "without cgroups") == writable {
		t.Errorf("pazinit has no cgroups: %v, want %v", !writable, writable)
	}
	if r.name == "busybox" {
		c.until("| from shell", 1)
	}
	c.signal(syscall.SIGKILL, "helper print-status hold")
	c.until("web.1: killed by SIGKILL; restarted at once", 1)
	c.until(`| {"pid":`, 2)
	c.stop()
	c.want(0)
	c.until("slow.1 is STOPPED: exited with status 0", 1)
}

// place is what pazinit says of where it is.
func place(s bundle.Spec) string {
	switch {
	case s.HostPID:
		return "in a container with the host's PID namespace"
	case s.Parent != nil:
		return "within a container, below another init"
	}
	return "PID 1 of a container"
}

// command: one command gets the signals.
func command(t *testing.T, e engine, r root, p bundle.Place) {
	c := e.start(t, p, spec(e, r, p, nil, "pazinit", "--", "helper", "on-signal", "TERM", "5", "0"))
	c.until("ready", 1)
	c.stop()
	c.want(5)
}

// statuses: the container's is the essential worker's, or the command's.
func statuses(t *testing.T, e engine, r root, p bundle.Place) {
	for _, end := range []struct {
		command string
		code    int
	}{{"helper exit 3", 3}, {"helper kill-self KILL", 137}, {"helper kill-self SEGV", 139}, {"/none", 127}, {"/Procfile", 126}} {
		files := config("web: helper sleep\njob: "+end.command+"\n", "    retry_after: off\n    workers: {job: {essential: true, restart: never}}\n")
		e.start(t, p, spec(e, r, p, files, "pazinit")).want(end.code)
		args := append([]string{"pazinit", "--"}, strings.Fields(end.command)...)
		e.start(t, p, spec(e, r, p, files, args...)).want(end.code)
	}
}

// TestNames: as the image's tini, docker-init or dumb-init, it is that.
func TestNames(t *testing.T) {
	each(t, only{places: []string{"default", "hardened", "tty"}}, func(t *testing.T, e engine, r root, p bundle.Place) {
		for _, end := range []struct {
			args string
			code int
		}{
			{"tini -s -e 143 -- helper kill-self TERM", 0},
			{"docker-init -- helper kill-self TERM", 143},
			{"dumb-init --rewrite 15:10 helper on-signal USR1 5 0", 5},
		} {
			args := strings.Fields(end.args)
			files := map[string]bundle.File{"/bin/" + args[0]: {Link: "pazinit"}}
			if e.name == "podman" {
				files["/bin/"+args[0]] = bundle.File{From: rig.Binary}
			}
			c := e.start(t, p, spec(e, r, p, files, args...))
			if end.code == 5 {
				c.until("ready", 1)
				c.stop()
			}
			c.want(end.code)
		}
	})
}
