//go:build qemu

package qemu

import (
	_ "embed"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pazinit/pazinit/tests/rig"
)

// ported plays the helper's parts that [supervised] needs, for want of a C compiler
// for arm64.
//
//go:embed testdata/helper.sh
var ported []byte

// arm64 is what machines with an arm64 processor, emulated, are made from.
func arm64(t *testing.T) Config {
	t.Helper()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	kernels, err := filepath.Glob(filepath.Join(root, "out/vm/arm64/*/boot/vmlinuz-*"))
	if err == nil && len(kernels) == 0 {
		err = errors.New("find a kernel below out/vm/arm64: there is none; scripts/fetch-kernel arm64 brings one")
	}
	rig.Need(t, "arm64", err)
	t.Setenv("GOARCH", "arm64")
	pazinit := filepath.Join(t.TempDir(), "pazinit")
	if err := rig.Build(pazinit); err != nil {
		t.Fatal(err)
	}
	c := Config{Arch: ARM64, Kernel: kernels[0], Cmdline: "cgroups=v2 cgroup_no_v1=all", Accel: "tcg", Limit: patience}
	if c.Files, err = Base(filepath.Join(root, "out/vm/arm64/busybox/bin/busybox"), pazinit); err != nil {
		t.Fatal(err)
	}
	c.Files["/etc/passwd"] = []byte("root:x:0:0:root:/:/bin/sh\nwww:x:33:33:www:/:/bin/sh\n")
	c.Files["/etc/group"] = []byte("root:x:0:\nwww:x:33:\nextra:x:44:www\n")
	return c
}

// TestARM64 has pazinit be the init of a machine of the other architecture, whose
// assembly runs nowhere else.
func TestARM64(t *testing.T) {
	c := arm64(t)
	for name, text := range supervised {
		c.Files[name] = []byte(text)
	}
	c.Files["/bin/helper"] = ported
	m := bootAs(t, c, "")
	m.starts()
	if got := m.run("uname -m"); got != "aarch64" {
		t.Errorf("machine = %s, want aarch64", got)
	}
	if got := m.run("cat /proc/%d/cgroup", m.state("app:web.1", "RUNNING").PID); got != "0::/pazinit/app/web.1" {
		t.Errorf("control group of web = %s, want 0::/pazinit/app/web.1", got)
	}
	m.restarts()
	m.stops()
	m.reaps()
	m.clock()
	m.ends()
	m.powerOff()
}

// ends has a supervisor of one worker for each way to end, and to begin.
func (m *machine) ends() {
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

// TestARM64Reaper runs the tests of package reaper there, but for those that need
// FUSE, which is a module.
func TestARM64Reaper(t *testing.T) {
	c := arm64(t)
	tests := filepath.Join(t.TempDir(), "reaper.test")
	cmd := exec.Command("go", "test", "-c", "-o", tests, "github.com/pazinit/pazinit/reaper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, out)
	}
	var err error
	if c.Files["/bin/reaper.test"], err = os.ReadFile(tests); err != nil {
		t.Fatal(err)
	}
	c.Files["/bin/bash"] = []byte("#!/bin/sh\nexec sh \"$@\"\n") // which ignores neither CHLD nor RTMIN+3
	c.Files["/start"] = []byte(Agent + "while :; do sleep 3600; done\n")
	m := bootAs(t, c, "segfault")
	out := m.run(`echo 20000 >/proc/sys/kernel/threads-max
mkdir /usr /dev/pts; ln -s /bin /usr/bin; mount -t devpts devpts /dev/pts; cd /tmp
PAZINIT_TEST_MUST=root,seccomp,cgroup2 reaper.test -test.v -test.timeout 15m -test.skip 'TestHungFileSystem|TestCloseHung'`)
	t.Log(out)
	if !strings.HasSuffix(out, "PASS") {
		t.Error("the tests of package reaper did not pass")
	}
	m.powerOff()
}
