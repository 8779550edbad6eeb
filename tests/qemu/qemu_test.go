//go:build qemu

package qemu

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

func TestMain(m *testing.M) {
	name := filepath.Base(os.Args[0])
	if f := map[string]func() error{"guest": func() error { return guest(os.Args[1:]) }, "owner": owner}[name]; f != nil {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := possible(); err != nil {
		for _, must := range []string{"qemu", "bookworm"} {
			if slices.Contains(strings.Split(os.Getenv("PAZINIT_TEST_MUST"), ","), must) {
				fmt.Printf("FAIL: %s is needed: %v\n", must, err)
				os.Exit(1)
			}
		}
		fmt.Printf("SKIP all tests in machines: %v\n", err)
		os.Exit(0)
	}
	rig.Main(m)
}

// possible says why there can be no machine at all.
func possible() error {
	if _, err := exec.LookPath(AMD64.Program); err != nil {
		return fmt.Errorf("%w; scripts/fetch-kernel installs it", err)
	}
	cache, err := Cache()
	if err != nil {
		return err
	}
	for _, k := range Kernels(cache, AMD64) {
		if err = k.Err; err == nil {
			break
		}
	}
	return err
}

// patience is a machine's time; an emulated one on a busy host is slow. No test
// depends on its length. PAZINIT_VM_LIMIT is another one, for who looks for a fault.
var patience = func() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("PAZINIT_VM_LIMIT")); err == nil {
		return d
	}
	return 20 * time.Minute
}()

// agentModules are what the agent's port needs where it is not built in.
var agentModules = []string{"virtio_pci", "virtio_console"}

// host is what all machines are made from.
var host = sync.OnceValues(func() (h struct {
	cache   string
	kernels []Kernel
	accel   string
	parts   Parts
}, err error) {
	if h.cache, err = Cache(); err != nil {
		return h, err
	}
	h.kernels = Kernels(h.cache, AMD64)
	guest, err := static()
	if err != nil {
		return h, err
	}
	h.parts = Parts{
		Pazinit: rig.Binary, Busybox: Busybox(h.cache, AMD64), Modules: agentModules,
		Bin: map[string]string{"helper": rig.Helper, "guest": guest},
	}
	i := slices.IndexFunc(h.kernels, func(k Kernel) bool { return k.Err == nil })
	if i < 0 {
		return h, h.kernels[0].Err
	}
	none, err := NewImage(Parts{Pazinit: h.parts.Pazinit, Busybox: h.parts.Busybox}, nil)
	if err != nil {
		return h, err
	}
	var why string
	h.accel, why, err = Accel(Config{Arch: AMD64, Kernel: h.kernels[i].Image, Image: none})
	fmt.Printf("machines use %s: %s\n", h.accel, why)
	for _, k := range h.kernels { // tests that are skipped say nothing without -v
		if k.Err != nil {
			fmt.Printf("SKIP %s: %v\n", k.Release, k.Err)
			continue
		}
		fmt.Printf("%s is Linux %s\n", k.Release, k.Version)
		for _, version := range versions {
			if err := k.Cgroups(version); err != nil {
				fmt.Printf("SKIP %s/%s: %v\n", k.Release, version, err)
			}
		}
	}
	return h, err
})

// static is this test's binary, or one like it that needs no library.
func static() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := elf.Open(self)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, part := range f.Progs {
		if part.Type == elf.PT_INTERP {
			return "", errors.New("the test binary needs libraries, and runs in the machines, too: build it with CGO_ENABLED=0")
		}
	}
	return self, nil
}

// withAgent adds the agent to what a machine supervises.
func withAgent(files Files) Files {
	all := Files{"/etc/pazinit/agent.yaml": []byte(`applications:
  guest:
    workers:
      agent: {run: /bin/guest, args: [agent], priority: 0, restart: never}
`)}
	maps.Copy(all, files)
	config := string(files["/etc/pazinit/pazinit.yaml"])
	if files["/etc/pazinit/Procfile"] != nil && !strings.Contains(config, "applications:") {
		config += "applications: {app: {procfile: Procfile}}\n"
	}
	all["/etc/pazinit/pazinit.yaml"] = []byte("include: agent.yaml\n" + config)
	return all
}

// The control groups that machines can have, and what the kernel is told for them.
var (
	versions = []string{"v2", "v1", "hybrid", "none"}
	cgroups  = map[string]string{
		"v2":     "cgroups=v2 cgroup_no_v1=all pazinit.set=machine.cgroup_version=v2",
		"v1":     "cgroups=v1 pazinit.set=machine.cgroup_version=v1",
		"hybrid": "cgroups=hybrid pazinit.set=machine.cgroup_version=hybrid",
		"none":   "cgroups=none pazinit.set=machine.cgroup_version=none",
	}
)

// each runs a test for each kernel.
func each(t *testing.T, test func(t *testing.T, kernel Kernel)) {
	h, err := host()
	if err != nil {
		t.Fatal(err)
	}
	for _, kernel := range h.kernels {
		t.Run(kernel.Release, func(t *testing.T) {
			rig.Need(t, kernel.Release, kernel.Err)
			test(t, kernel)
		})
	}
}

// A machine is a VM whose failures are the test's.
type machine struct {
	*VM
	t       testing.TB
	allowed string // of what is wrong on its console, a pattern
	name    string // of one of several
}

// boot boots a machine with files added to the common ones. In the end, nothing
// may have gone wrong in its kernel but what allowed, a pattern, matches.
func boot(t testing.TB, kernel Kernel, cmdline, allowed string, files Files) *machine {
	t.Helper()
	h, err := host()
	if err != nil {
		t.Fatal(err)
	}
	parts := h.parts
	parts.Kernel = kernel
	image, err := NewImage(parts, withAgent(files))
	if err != nil {
		t.Fatal(err)
	}
	return bootAs(t, Config{Arch: AMD64, Kernel: kernel.Image, Image: image, Cmdline: cmdline, Accel: h.accel, Limit: patience, Panic: "-1"}, allowed)
}

// bootAs boots a machine of the test's own making, see [boot].
func bootAs(t testing.TB, c Config, allowed string) *machine {
	t.Helper()
	v, err := Boot(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{VM: v, t: t, allowed: allowed}
	t.Cleanup(func() {
		v.Kill()
		for line := range strings.Lines(v.Console()) {
			if wrong.MatchString(line) && (m.allowed == "" || !regexp.MustCompile(m.allowed).MatchString(line)) {
				t.Errorf("the kernel says %q", line)
			}
		}
		if t.Failed() {
			t.Logf("the console is in %s", keep(strings.TrimSuffix(t.Name()+"-"+m.name, "-"), v.Console()))
		}
	})
	return m
}

// keep writes what a machine printed where it outlives the test.
func keep(test, console string) string {
	root, err := rig.Root()
	name := filepath.Join(root, "out/vm-failed", strings.NewReplacer("/", "-", " ", "-").Replace(test)+".txt")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(name), 0o755)
	}
	if err == nil {
		err = os.WriteFile(name, []byte(console), 0o644)
	}
	if err != nil {
		return fmt.Sprintf("no file (%v):\n%s", err, console)
	}
	return name
}

// wrong is what a kernel says when something is.
var wrong = regexp.MustCompile(`Kernel panic|Oops|BUG:|general protection|segfault|Out of memory|blocked for more than`)

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// see waits until the console has the nth match of a pattern, and reports its
// first group, or all of it.
func (m *machine) see(pattern string, n int) string {
	m.t.Helper()
	groups, err := m.Until(pattern, n)
	m.must(err)
	return groups[min(1, len(groups)-1)]
}

// run runs a script that must succeed, and reports what it printed.
func (m *machine) run(format string, args ...any) string {
	m.t.Helper()
	script := fmt.Sprintf(format, args...)
	out, status, err := m.Sh(script)
	m.must(err)
	if status != 0 {
		m.t.Fatalf("%s: status %d\n%s", script, status, out)
	}
	return strings.TrimSpace(out)
}

// status is that of every instance.
func (m *machine) status() map[string]control.Status {
	m.t.Helper()
	var list []control.Status
	text := m.run("pazinit status --json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		m.t.Fatalf("read the status %q: %v", text, err)
	}
	all := map[string]control.Status{}
	for _, st := range list {
		all[st.Name] = st
	}
	return all
}

// state fails the test when an instance is not in a state, and reports what else
// it is.
func (m *machine) state(name, want string) control.Status {
	m.t.Helper()
	st := m.status()[name]
	if st.State != want {
		m.t.Errorf("%s is %q (%s), want %s", name, st.State, st.Reason, want)
	}
	return st
}

// gone fails the test when one of the processes is there, dead or alive.
func (m *machine) gone(pids ...string) {
	m.t.Helper()
	for _, pid := range pids {
		if out, status, err := m.Sh("cat /proc/" + pid + "/status"); err != nil || status == 0 {
			m.t.Errorf("process %s is there (%v), want it gone:\n%s", pid, err, out)
		}
	}
}

// powerOff ends a machine that has nothing to complain of.
func (m *machine) powerOff() {
	m.t.Helper()
	for line := range strings.Lines(m.run("dmesg")) {
		if wrong.MatchString(line) {
			m.t.Errorf("the kernel says %q", line)
		}
	}
	m.must(m.Post("poweroff -f"))
	m.ends()
}

// ends waits until the machine has ended by itself.
func (m *machine) ends() {
	m.t.Helper()
	_, err := m.Wait()
	m.must(err)
}

// agentAlone is a line of /start, for a machine whose pazinit has no agent.
const agentAlone = "setsid guest agent &\n"

var supervised = Files{
	"/etc/pazinit/Procfile": []byte(`web: helper sleep
shell: while :; do sleep 3600; done
session: helper setsid
daemon: helper double-fork
stubborn: helper ignore-term
storm: helper orphans 10000
patient: helper ignore-term
failing: helper exit 1
flapping: helper exit 1
`),
	"/etc/pazinit/pazinit.yaml": []byte(`applications:
  app:
    procfile: Procfile
    workers:
      session: {stop_timeout: 1s}
      daemon: {stop_timeout: 1s}
      stubborn: {stop_timeout: 3s}
      storm: {autostart: false, restart: never}
      patient: {stop_timeout: 1h}
      failing: {autostart: false, backoff: {base: 1h, max: 1h}}
      flapping: {autostart: false, max_restarts: unlimited, backoff: {base: 100ms, factor: 1}}
`),
}

// TestInit has pazinit be the init of machines with each kind of control groups.
func TestInit(t *testing.T) {
	groups := map[string]string{"v2": `(?m)^0::/pazinit/`, "v1": `(?m):pids:/pazinit/`, "hybrid": `(?m)^0::/pazinit/`}
	each(t, func(t *testing.T, kernel Kernel) {
		for _, version := range versions {
			t.Run(version, func(t *testing.T) {
				rig.Need(t, "cgroup "+version, kernel.Cgroups(version))
				t.Parallel()
				m := boot(t, kernel, cgroups[version], "", supervised)
				m.starts()
				if group := groups[version]; group == "" {
					m.see("without cgroups: ", 1)
				} else if got := m.run("cat /proc/%d/cgroup", m.state("app:web.1", "RUNNING").PID); !regexp.MustCompile(group).MatchString(got) {
					t.Errorf("control groups of web = %s, want a match of %s", got, group)
				}
				m.restarts()
				m.stops()
				m.reaps()
				m.clock()
				m.powerOff()
			})
		}
	})
}

func (m *machine) starts() {
	m.t.Helper()
	if got := m.see(`^.*started, pid .*$`, 1); !strings.Contains(got, "started, pid 1, the init of a machine") {
		m.t.Errorf("first line = %q, want pid 1, the init of a machine", got)
	}
	if got := m.run("cat /proc/1/comm"); got != "init" {
		m.t.Errorf("process 1 = %q, want init, which is pazinit", got)
	}
	for _, worker := range []string{"web", "shell", "session", "daemon", "stubborn", "patient"} {
		m.see("app:"+worker+`\.1 is RUNNING, pid \d+`, 1)
		m.state("app:"+worker+".1", "RUNNING")
	}
}

func (m *machine) restarts() {
	m.t.Helper()
	before := m.state("app:web.1", "RUNNING").PID
	m.run("kill -9 %d", before)
	after := m.see(`app:web\.1 is RUNNING, pid (\d+)$`, 2)
	if got := m.state("app:web.1", "RUNNING"); fmt.Sprint(got.PID) != after || got.LastExit == nil || got.LastExit.Signal != "SIGKILL" {
		m.t.Errorf("web after SIGKILL = %+v, want pid %s after one", got, after)
	}
	m.gone(fmt.Sprint(before))
}

// stops looks that what a worker made in sessions of its own is ended with it.
func (m *machine) stops() {
	m.t.Helper()
	child := m.see(`app:session\.1 +\| child (\d+)$`, 1)
	grandchild := m.see(`app:daemon\.1 +\| grandchild (\d+)$`, 1)
	m.see(`app:stubborn\.1 +\| ready$`, 1)
	stubborn := m.state("app:stubborn.1", "RUNNING").PID
	m.run("kill -0 %s && kill -0 %s && pazinit stop session daemon stubborn", child, grandchild)
	for _, worker := range []string{"session", "daemon", "stubborn"} {
		m.state("app:"+worker+".1", "STOPPED")
	}
	m.gone(child, grandchild, fmt.Sprint(stubborn))
}

// reaps has 10,000 orphans come while a worker dies.
func (m *machine) reaps() {
	m.t.Helper()
	m.run("echo 20000 >/proc/sys/kernel/threads-max") // all are zombies at once
	m.run("pazinit start --no-wait storm; pazinit signal KILL web")
	m.see(`app:web\.1 is RUNNING, pid \d+$`, 3)
	m.see(`app:storm\.1 +\| made 10000$`, 1)
	m.see(`app:storm\.1 is EXITED`, 1)
	if got := m.state("app:storm.1", "EXITED"); got.LastExit == nil || got.LastExit.Code != 0 {
		m.t.Errorf("storm = %+v, want exit status 0", got)
	}
	m.run("while grep -q '^State:.*Z' /proc/[0-9]*/status 2>/dev/null; do sleep 0.1; done")
}

// clock sets the wall clock, 19 days forward and then a year back. Deadlines of an
// hour must not come by the one, and short ones not stay away by the other.
func (m *machine) clock() {
	m.t.Helper()
	m.see(`app:patient\.1 +\| ready$`, 1)
	m.run("pazinit start --no-wait failing flapping")
	m.see(`app:failing\.1 is in BACKOFF`, 1)
	m.run("pazinit stop --no-wait patient")
	const day = 86400
	for _, jump := range []int{19 * day, -(19 + 365) * day, 365 * day} {
		ready := m.count(`app:stubborn\.1 +\| ready$`)
		m.run("pazinit start stubborn")
		m.see(`app:stubborn\.1 +\| ready$`, ready+1)
		// The second stop waits for what the first began.
		m.run("pazinit stop --no-wait stubborn && date -s @$(($(date +%%s) + %d)) && pazinit stop stubborn", jump)
		m.state("app:stubborn.1", "STOPPED")
		m.see(`app:flapping\.1 is in BACKOFF`, m.count(`app:flapping\.1 is in BACKOFF`)+1)
		m.state("app:patient.1", "STOPPING")
		next := m.state("app:failing.1", "BACKOFF").NextTry
		now, err := strconv.ParseInt(m.run("date +%%s"), 10, 64)
		m.must(err)
		if next == nil {
			m.t.Error("failing has no next try, want one")
		} else if in := next.Sub(time.Unix(now, 0)); in <= 0 || in > 70*time.Minute {
			m.t.Errorf("next try of failing after a jump of %d s = in %v, want within the hour", jump, in)
		}
		if up := m.state("app:web.1", "RUNNING").UptimeS; up < 0 || up > patience.Seconds() {
			m.t.Errorf("uptime after a jump of %d s = %g s", jump, up)
		}
		if table := m.run("pazinit status web shell"); regexp.MustCompile(`\dd \d\d:|-\d`).MatchString(table) {
			m.t.Errorf("uptime after a jump of %d s is of days:\n%s", jump, table)
		}
	}
	m.run("pazinit stop flapping failing")
}

// count is how often a pattern is on the console until now.
func (m *machine) count(pattern string) int {
	return len(regexp.MustCompile("(?m)"+pattern).FindAllString(m.Console(), -1))
}

// TestConsole gives a worker the console as its terminal. It must still be
// pazinit's when the worker has ended.
func TestConsole(t *testing.T) {
	each(t, func(t *testing.T, kernel Kernel) {
		t.Parallel()
		m := boot(t, kernel, "cgroups=v2", "", Files{
			"/etc/pazinit/pazinit.yaml": []byte(`applications:
  app:
    workers:
      web: {run: /bin/helper, args: [sleep]}
      login: {run: /bin/helper, args: [print-status], tty: true, restart: never, autostart: false}
`),
		})
		m.see(`app:web\.1 is RUNNING`, 1)
		for n := 1; n <= 2; n++ {
			m.run("pazinit start --no-wait login")
			m.see(`"tty":true,"foreground":true,"stdin_tty":true`, n)
			m.see(`app:login\.1 is EXITED: exited with status 0`, n)
		}
		m.powerOff()
	})
}

// ending are two runs: one is told to stop, in the other an essential worker ends.
// Its web starts after db and must be stopped before it.
var ending = map[string]string{
	"/etc/term.yaml": `applications:
  app:
    workers:
      db: {run: /bin/worker, priority: 1}
      web: {run: /bin/worker, priority: 2}
`,
	"/etc/essential.yaml": `applications:
  app:
    workers:
      db: {run: /bin/worker, priority: 1}
      web: {run: /bin/worker, priority: 2}
      job: {run: /bin/job, priority: 3, restart: never, essential: true}
`,
	"/bin/job": `#!/bin/sh
until [ $(ls /tmp/ready.* | wc -l) = 2 ]; do
	usleep 10000
done
exit 7
`,
	"/bin/worker": `#!/bin/sh
trap 'echo stops; rm /tmp/ready.$$; exit 0' TERM
echo ready
: >/tmp/ready.$$
while :; do
	sleep 7200 &
	wait
done
`,
}

// with is a file added to others.
func with(files map[string]string, name, text string) Files {
	all := Files{name: []byte(text)}
	for name, text := range files {
		all[name] = []byte(text)
	}
	return all
}

// inOrder looks that web was stopped before db, in the nth run.
func (m *machine) inOrder(n int) {
	m.t.Helper()
	for _, worker := range []string{"db", "web"} {
		m.see(`app:`+worker+`\.1 +\| stops$`, n)
	}
	order := regexp.MustCompile(`(?m)app:(\w+)\.1 +\| stops$`).FindAllStringSubmatch(m.Console(), -1)
	if first := order[2*n-2][1]; first != "web" {
		m.t.Errorf("first one to be stopped = %s, want web", first)
	}
}

// TestChildOfInit has pazinit run below another init, which sees its exit status.
func TestChildOfInit(t *testing.T) {
	each(t, func(t *testing.T, kernel Kernel) {
		t.Parallel()
		m := boot(t, kernel, "cgroups=v2", "", with(ending, "/start", agentAlone+`
for how in term essential; do
	pazinit run -c /etc/$how.yaml --log-format plain
	echo "$how ended with $?"
done
while :; do sleep 3600; done
`))
		m.see(`app:db\.1 +\| ready$`, 1)
		m.see(`app:web\.1 +\| ready$`, 1)
		m.run("kill -TERM $(pidof pazinit)")
		if got := m.see(`^term ended with (\d+)$`, 1); got != "0" {
			t.Errorf("exit status after TERM = %s, want 0", got)
		}
		m.inOrder(1)
		if got := m.see(`^essential ended with (\d+)$`, 1); got != "7" {
			t.Errorf("exit status after the essential worker's 7 = %s", got)
		}
		m.inOrder(2)
		if out := m.run("ps; ls -d /sys/fs/cgroup/pazinit* 2>/dev/null || true"); regexp.MustCompile(`bin/worker|bin/helper|sleep 7200|pazinit`).MatchString(out) {
			t.Errorf("something is left:\n%s", out)
		}
		m.powerOff()
	})
}

// TestEndOfInit has the first process of a machine end, in each way. It switches the
// machine off or starts it again, and never leaves that to the kernel, which would
// panic.
func TestEndOfInit(t *testing.T) {
	each(t, func(t *testing.T, kernel Kernel) {
		for how, end := range map[string]struct {
			config, onEnd string
			says          string // pazinit
			kernel        string
		}{
			"term":      {"term", "", "rebooting, after an end with status 0", "reboot: Restarting system"},
			"essential": {"essential", "exit", "powering off, after an end with status 7", "reboot: Power down"},
			"reboot":    {"essential", "reboot", "rebooting, after an end with status 7", "reboot: Restarting system"},
			"halt":      {"essential", "halt", "halting, after an end with status 7", "reboot: System halted"},
			"shell":     {"essential", "shell", "powering off, after an end with status 7", "reboot: Power down"},
		} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				config := ending["/etc/"+end.config+".yaml"]
				if end.onEnd != "" {
					config += "on_end: " + end.onEnd + "\n"
				}
				files := with(ending, "/etc/pazinit/pazinit.yaml", config)
				m := boot(t, kernel, "cgroups=v2", "", files)
				if how == "term" {
					m.see(`app:db\.1 +\| ready$`, 1)
					m.see(`app:web\.1 +\| ready$`, 1)
					m.must(m.Post("kill -TERM 1"))
				}
				m.inOrder(1)
				if how == "shell" {
					m.see(`ended with status 7; a shell follows`, 1)
					m.must(m.Type("echo $((6 * 7)) is typed; exit 3\n"))
					m.see(`42 is typed$`, 1)
				}
				m.see("pazinit: "+end.says+"$", 1)
				m.see(end.kernel, 1)
				if how != "halt" {
					m.ends()
				}
			})
		}
	})
}
