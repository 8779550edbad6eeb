//go:build qemu

package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pazinit/pazinit/initramfs"
	"github.com/pazinit/pazinit/tests/rig"
)

// served is what pazinit supervises where somebody else supervises it.
const served = `applications:
  app:
    workers:
      db: {run: /bin/worker, priority: 1}
      web: {run: /bin/worker, priority: 2}
`

// bootBelow boots a machine whose init is one of scripts/fetch-inits: its folder is
// laid over the image, start is what becomes it, and pazinit stands where its unit
// files expect it.
func bootBelow(t *testing.T, init, start string, files Files) *machine {
	t.Helper()
	kernel := bookworm(t)
	h, err := host()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(h.cache, "amd64", init)
	if _, err := os.Stat(root); err != nil {
		rig.Need(t, init, fmt.Errorf("find Debian's %s: %w; scripts/fetch-inits brings it", init, err))
	}
	parts := h.parts
	parts.Kernel = kernel
	image, err := NewImage(parts, Files{"/start": []byte("chmod 755 /\n" + agentAlone + start)})
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(image.AddFolder(root, "/"), image.Add("/usr/local/bin/pazinit", image.Get("/bin/pazinit")))
	files["/etc/pazinit/pazinit.yaml"], files["/bin/worker"] = []byte(served), []byte(ending["/bin/worker"])
	for name, text := range files {
		mode := uint32(0o644)
		if strings.HasPrefix(string(text), "#!") {
			mode = 0o755
		}
		err = errors.Join(err, image.Add(name, initramfs.Data(mode, text)))
	}
	if err != nil {
		t.Fatal(err)
	}
	m := bootAs(t, Config{Arch: AMD64, Kernel: kernel.Image, Image: image, Cmdline: "cgroups=v2 cgroup_no_v1=all", Accel: h.accel, Limit: patience, Memory: 768, Panic: "-1"}, "")
	m.must(m.Ready(1))
	return m
}

// bookworm is the kernel that must be there, where CI runs.
func bookworm(t *testing.T) Kernel {
	t.Helper()
	cache, err := Cache()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := Bookworm(cache)
	rig.Need(t, kernel.Release, err)
	return kernel
}

// deployed is a file of deploy/.
func deployed(t *testing.T, name string) []byte {
	t.Helper()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A keeper is a supervisor of pazinit. The commands are its own.
type keeper struct {
	start, stop, restart, reload string
	pid, status                  string // print pazinit's pid, and "run" or "down"
}

// keeps goes through all that a service is for. pazinit runs already.
func (m *machine) keeps(k keeper) {
	m.t.Helper()
	up := func() (pazinit, web string) {
		m.t.Helper()
		m.run("until [ \"$(%s)\" = run ] && pazinit status web | grep -q RUNNING && pazinit status db | grep -q RUNNING; do sleep 0.1; done", k.status)
		pazinit = m.run("%s", k.pid)
		if comm := m.run("cat /proc/%s/comm", pazinit); comm != "pazinit" {
			m.t.Errorf("process %s is %s, want pazinit", pazinit, comm)
		}
		return pazinit, fmt.Sprint(m.state("app:web.1", "RUNNING").PID)
	}
	pazinit, web := up()
	m.run("%s", k.reload)
	if p, w := up(); p != pazinit || w != web {
		m.t.Errorf("after %s pazinit is %s and web %s, want %s and %s", k.reload, p, w, pazinit, web)
	}
	m.run("%s", k.stop)
	m.gone(pazinit, web)
	if got := m.run("%s", k.status); got != "down" {
		m.t.Errorf("after %s it is %s, want down", k.stop, got)
	}
	m.run("%s", k.start)
	pazinit, web = up()
	m.run("%s", k.restart)
	m.gone(pazinit, web)
	pazinit, web = up()
	m.run("kill -9 %s; while [ -e /proc/%[1]s ]; do sleep 0.1; done", pazinit)
	if p, w := up(); p == pazinit || w == web {
		m.t.Errorf("after SIGKILL pazinit is %s and web %s, want others", p, w)
	}
	m.gone(web)
}

func testRunit(t *testing.T) {
	m := bootBelow(t, "runit", "exec /sbin/runit\n", Files{
		"/etc/runit/1":            []byte("#!/bin/sh\n"),
		"/etc/runit/2":            []byte("#!/bin/sh\nexport PATH=/usr/local/bin:/usr/bin:/bin\nexec runsvdir /service\n"),
		"/etc/runit/3":            []byte("#!/bin/sh\n/usr/bin/sv -w 30 force-stop /service/pazinit\n"),
		"/service/pazinit/run":    deployed(t, "runit/run"),
		"/service/pazinit/finish": []byte("#!/bin/sh\necho pazinit ended with $1\n"),
	})
	const sv = "/usr/bin/sv -w 60 "
	const service = " /service/pazinit"
	m.keeps(keeper{
		start: sv + "start" + service, stop: sv + "stop" + service, restart: sv + "restart" + service, reload: sv + "hup" + service,
		pid: "cat /service/pazinit/supervise/pid", status: "cat /service/pazinit/supervise/stat",
	})
	if got := m.see(`^pazinit ended with (-?\d+)`, 1); got != "0" {
		t.Errorf("exit status after sv stop = %s, want 0", got)
	}
	stops := m.count(`app:\w+\.1 +\| stops$`)
	// As Debian's runit-init has it.
	m.must(m.Post("touch /run/runit.stopit && chmod 100 /run/runit.stopit && kill -CONT 1"))
	m.see(`app:db\.1 +\| stops$`, stops/2+1)
	m.see(`reboot: Power down`, 1)
	m.ends()
}

// testS6 runs the script that is runit's.
func testS6(t *testing.T) {
	m := bootBelow(t, "s6", "export PATH=/usr/bin:/bin\nexec s6-svscan /service\n", Files{"/service/pazinit/run": deployed(t, "runit/run")})
	const service = " /service/pazinit"
	m.keeps(keeper{
		start: "/usr/bin/s6-svc -wu -u" + service, stop: "/usr/bin/s6-svc -wD -d" + service, restart: "/usr/bin/s6-svc -wR -r" + service, reload: "/usr/bin/s6-svc -h" + service,
		pid: "/usr/bin/s6-svstat -o pid" + service, status: "/usr/bin/s6-svstat -o up" + service + " | sed 's/true/run/; s/false/down/'",
	})
	m.powerOff()
}

func testSystemd(t *testing.T) {
	m := bootBelow(t, "systemd", "exec /lib/systemd/systemd\n", Files{
		"/etc/systemd/system/pazinit.service": deployed(t, "systemd/pazinit.service"),
		"/etc/systemd/system.conf":            []byte("[Manager]\nLogTarget=console\nDefaultStandardOutput=journal+console\n"),
		"/etc/systemd/system/getty.target":    nil, // there is no agetty
		"/etc/os-release":                     []byte("NAME=test\n"),
		"/etc/hostname":                       []byte("machine\n"),
		"/etc/machine-id":                     []byte(strings.Repeat("0123456789abcdef", 2) + "\n"),
	})
	m.run("until systemctl is-system-running 2>/dev/null | grep -q 'running\\|degraded'; do sleep 0.5; done")
	// By the name that it has when it is enabled.
	m.run("systemctl enable --now pazinit")
	if got := m.run("readlink /etc/systemd/system/multi-user.target.wants/pazinit.service"); !strings.HasSuffix(got, "/pazinit.service") {
		t.Errorf("enabled as %q", got)
	}
	m.keeps(keeper{
		start: "systemctl start pazinit", stop: "systemctl stop pazinit", restart: "systemctl restart pazinit", reload: "systemctl reload pazinit",
		pid:    "systemctl show -P MainPID pazinit",
		status: "systemctl is-active pazinit | sed 's/^active$/run/; s/^inactive$/down/'",
	})
	m.run("systemctl stop pazinit")
	if got := m.run("systemctl show -P Result pazinit; systemctl show -P ExecMainStatus pazinit"); got != "success\n0" {
		t.Errorf("result and exit status after systemctl stop = %q, want success and 0", got)
	}
	// A configuration that it cannot take is no reason to try again.
	m.run("echo nonsense >/etc/pazinit/pazinit.yaml; systemctl start pazinit; while [ $(systemctl is-active pazinit) != failed ]; do sleep 0.1; done")
	if got := m.run("systemctl show -P ExecMainStatus pazinit; systemctl show -P NRestarts pazinit"); got != "2\n0" {
		t.Errorf("exit status and restarts after a bad configuration = %q, want 2 and 0", got)
	}
	m.must(m.Post("systemctl poweroff"))
	m.see(`reboot: Power down`, 1)
	m.ends()
}
