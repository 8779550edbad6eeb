//go:build qemu

package qemu

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pazinit/pazinit/tests/rig"
)

// arm64 is a kernel for machines with an arm64 processor, emulated, and what they are
// made from.
func arm64(t *testing.T) (Kernel, Parts) {
	t.Helper()
	cache, err := Cache()
	if err != nil {
		t.Fatal(err)
	}
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	kernel := Kernels(cache, ARM64)[0]
	rig.Need(t, "arm64", kernel.Err)
	dir := t.TempDir()
	parts := Parts{
		Pazinit: filepath.Join(dir, "pazinit"), Busybox: Busybox(cache, ARM64), Kernel: kernel, Modules: agentModules,
		Bin: map[string]string{"helper": filepath.Join(dir, "helper"), "guest": filepath.Join(dir, "guest")},
	}
	t.Setenv("GOARCH", "arm64")
	if err := rig.Build(parts.Pazinit); err != nil {
		t.Fatal(err)
	}
	compile(t, parts.Bin["guest"], "tests/qemu", "-tags", "qemu")
	cc := exec.Command("aarch64-linux-gnu-gcc", "-static", "-O2", "-o", parts.Bin["helper"], filepath.Join(root, "tests/helpers/helper.c"))
	if out, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("build the helper (scripts/fetch-kernel arm64 installs the compiler): %v\n%s", err, out)
	}
	return kernel, parts
}

// TestARM64 has pazinit be the init of a machine of the other architecture, whose
// assembly runs nowhere else.
func TestARM64(t *testing.T) {
	_, parts := arm64(t)
	m := bootARM64(t, parts, supervised)
	m.starts()
	if got := m.run("uname -m"); got != "aarch64" {
		t.Errorf("machine = %s, want aarch64", got)
	}
	if got := m.run("cat /proc/%d/cgroup", m.state("app:web.1", "RUNNING").PID); got != "0::/pazinit/app/web.1" {
		t.Errorf("control group of web = %s, want 0::/pazinit/app/web.1", got)
	}
	m.restarts()
	m.stops()
	if !testing.Short() {
		m.reaps()
		m.clock()
		m.endings()
	}
	m.powerOff()
}

// bootARM64 boots a machine of these parts.
func bootARM64(t *testing.T, parts Parts, files Files) *machine {
	t.Helper()
	image, err := NewImage(parts, withAgent(files))
	if err != nil {
		t.Fatal(err)
	}
	return bootAs(t, Config{Arch: ARM64, Kernel: parts.Kernel.Image, Image: image, Cmdline: cgroups["v2"], Accel: "tcg", Limit: patience, Panic: "-1"}, "")
}

// endings has a supervisor of one worker for each way to end, and to begin.
func (m *machine) endings() {
	m.t.Helper()
	for _, test := range []struct {
		settings string
		status   int
		says     string
	}{
		{`run: /nope/missing`, 127, `execute /nope/missing: no such file or directory`},
		{`command_line: missing`, 127, `execute missing: .*no such file or directory`},
		{`run: /etc/passwd`, 126, `execute /etc/passwd: permission denied \(not executable\)`},
		{`run: /bin/true, cwd: /nowhere`, 126, `change to folder /nowhere: no such file or directory`},
		{`run: /bin/sh, args: [-c, exit 7]`, 7, `exited with status 7`},
		{`run: /bin/sh, args: [-c, kill -SEGV $$]`, 128 + 11, `killed by SIGSEGV`},
		{`run: /bin/id, user: www`, 0, `uid=33\(www\) gid=33\(www\) groups=44\(extra\)`},
		{`run: /bin/sh, args: [-c, ulimit -n]`, 0, `\| 777$`},
	} {
		out, status, err := m.Sh(`cat >/tmp/end.yaml <<'end'
applications: {app: {workers: {job: {restart: never, essential: true, ` + test.settings + `}}}}
end
ulimit -Sn 777 && exec pazinit run -c /tmp/end.yaml --socket /run/end/sock --log-format plain`)
		m.must(err)
		if status != test.status || !regexp.MustCompile("(?m)"+test.says).MatchString(out) {
			m.t.Errorf("{%s} ended with %d, want %d and a match of %s:\n%s", test.settings, status, test.status, test.says, out)
		}
	}
}

// compile builds the tests of a package as file, entered as the release is.
func compile(t *testing.T, file, pkg string, flags ...string) {
	t.Helper()
	cmd := exec.Command("go", slices.Concat([]string{"test", "-c", "-ldflags", "-s -w", "-o", file}, flags, []string{"github.com/pazinit/pazinit/" + pkg})...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the tests of %s: %v\n%s", pkg, err, out)
	}
}

// tests adds those of a package, as /bin/NAME.test.
func (f Files) tests(t *testing.T, pkg string, flags ...string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "test")
	compile(t, out, pkg, flags...)
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	f["/bin/"+filepath.Base(pkg)+".test"] = data
}

// TestARM64Reaper runs the tests of package reaper there, but for those that need
// FUSE, which is a module.
func TestARM64Reaper(t *testing.T) {
	portedTests(t, "reaper", `-test.skip 'TestHungFileSystem|TestCloseHung'`).powerOff()
}

// TestARM64Signals runs the tests of package signals there, and looks at what the
// program knows of its start.
func TestARM64Signals(t *testing.T) {
	m := portedTests(t, "reaper/signals", "")
	for _, inside := range []string{"", "busybox unshare -f -p --mount-proc "} { // a child, and PID 1
		m.enters(inside)
	}
	m.powerOff()
}

// portedTests boots a machine and runs the tests of a package there.
func portedTests(t *testing.T, pkg, flags string) *machine {
	t.Helper()
	long(t)
	_, parts := arm64(t)
	files := Files{
		"/bin/bash": []byte("#!/bin/sh\nexec sh \"$@\"\n"), // which ignores neither CHLD nor RTMIN+3
		"/start":    []byte(agentAlone + "while :; do sleep 3600; done\n"),
	}
	files.tests(t, pkg)
	m := bootARM64(t, parts, files)
	m.allowed = "segfault"
	m.run(`echo 20000 >/proc/sys/kernel/threads-max
mkdir /usr /dev/pts; ln -s /bin /usr/bin; mount -t devpts devpts /dev/pts; chmod 1777 /tmp; ln -s pazinit /bin/tini; ln -s pazinit /bin/dumb-init`)
	out, status, err := m.Sh("cd /tmp; PAZINIT_TEST_MUST=root,seccomp,cgroup2 " + filepath.Base(pkg) + ".test -test.v -test.timeout 15m " + flags)
	m.must(err)
	t.Log(out)
	if status != 0 || !strings.HasSuffix(out, "PASS\n") {
		t.Errorf("the tests of %s did not pass", pkg)
	}
	return m
}

// told is a shell function: it runs a command, tells it to stop when it is ready,
// and ends as it does.
const told = `told() {
	"$@" >/tmp/told 2>&1 &
	until grep -q ready /tmp/told; do usleep 1000; done
	kill -TERM $(pidof pazinit tini dumb-init)
	wait $!
	set -- $?
	cat /tmp/told
	return $1
}
`

// soon is a shell function: it tells pazinit to stop, each time a little later
// after its start, and counts how that ends.
const soon = `soon() {
	for i in $(seq 80); do
		"$@" pazinit -- helper exit 0 >>/tmp/soon 2>&1 &
		usleep $((i * 100))
		if [ $# = 0 ]; then pid=$!; else pid=$(cat /proc/$!/task/$!/children); fi
		[ -z "$pid" ] || kill -TERM $pid 2>/dev/null
		wait $!
		echo ended with $?
	done | sort | uniq -c
	cat /tmp/soon
}
`

// enters looks at what the program knows of its start, which is assembly. inside
// is a command that it is started by.
func (m *machine) enters(inside string) {
	m.t.Helper()
	sender := `\d+ \((?:sh|busybox)\), uid 0`
	if inside != "" {
		sender = "outside of this PID namespace"
	}
	for _, test := range []struct {
		script string
		status int
		says   string // all of it
	}{
		// 1, 15, 23, 34 and 64 are blocked, 2, 10, 13, 27, 34 and 63 ignored.
		{`helper exec-with 8000000200404001 4000000204001202 IN pazinit -- helper print-status`, 0,
			`.*"blocked":\[1,15,23,34,64\],"ignored":\[2,10,13,27,34,63\].*`},
		{`IN pazinit -- helper print-status`, 0, `.*"blocked":\[\],"ignored":\[(?:2(?:,3)?)?\].*`}, // a shell's background
		{`IN pazinit -- helper print-fds <&-`, 0, `\[{"fd":1,[^}]*},{"fd":2,[^}]*}\]`},
		{`IN sh -c 'LISTEN_PID=$$ exec pazinit -- sh -c "echo \$((LISTEN_PID - \$\$))"'`, 0, `0`},
		{`LISTEN_PID=77777 IN pazinit -- sh -c 'echo $LISTEN_PID'`, 0, `77777`},
		{`IN tini -s -e 7 -- helper exit 7`, 0, ``},
		{`told IN tini -s -- helper on-signal TERM 5 0`, 5, `ready`},
		{`told IN dumb-init --rewrite 15:10 helper on-signal USR1 5 0`, 5, `ready`},
		{`told IN pazinit -v -- helper on-signal TERM 5 0`, 5,
			`(?:ready\n)?pazinit: helper is process \d+\n(?:ready\n)?pazinit: SIGTERM from ` + sender + ` is sent on to \d+\npazinit: helper .*5`},
		{`echo 'web: helper on-signal TERM 5 0' >/tmp/Procfile
told IN pazinit run -f /tmp/Procfile --socket /run/told/sock --log-format plain`, 0,
			`(?s).*stopping: SIGTERM from ` + sender + `.*`},
		{`soon IN `, 0, `(?:Terminated\n| *\d+ ended with (?:0|143)\n?)+`},
	} {
		out, status, err := m.Sh(told + soon + strings.ReplaceAll(test.script, "IN ", inside))
		m.must(err)
		if status != test.status || !regexp.MustCompile(`^(?:`+test.says+`)\n?$`).MatchString(out) {
			m.t.Errorf("%s\n(IN: %q) ended with %d, want %d and %s:\n%s", test.script, inside, status, test.status, test.says, out)
		} else {
			m.t.Logf("%s (IN: %q): %s", test.script, inside, out)
		}
	}
}
