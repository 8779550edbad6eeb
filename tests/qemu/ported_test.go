//go:build qemu

package qemu

import (
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pazinit/pazinit/initramfs"
	"github.com/pazinit/pazinit/tests/rig"
)

// tools are this host's programs that the tests use, where busybox's are less.
var tools = []string{"bash", "perl", "unshare", "nsenter", "setpriv", "prlimit", "script", "setsid", "stty", "stdbuf"}

// errLong is why a test is not for `make test`, which runs with -short.
var errLong = errors.New("it takes minutes: make vm-test runs it")

// long skips a test where there is little time.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		rig.Need(t, "long", errLong)
	}
}

// TestPorted runs test binaries as a worker of pazinit: what they find on this host
// holds on other kernels and with other control groups, too.
func TestPorted(t *testing.T) {
	for _, ported := range []struct{ pkg, places, run, skip string }{
		{"reaper", "all/v2", "", "TestHungFileSystem|TestCloseHung"}, // FUSE is a module
		{"reaper/procconn", "all/v2", "", ""},
		{"reaper/signals", "bullseye/v2 trixie/v2", "", ""},
		{"tests/integration", "bullseye/v2 bookworm/v1 bookworm/none trixie/v2", "", ""},
	} {
		t.Run(filepath.Base(ported.pkg), func(t *testing.T) {
			long(t)
			test := filepath.Join(t.TempDir(), "ported.test")
			compile(t, test, ported.pkg)
			each(t, func(t *testing.T, kernel Kernel) {
				for _, version := range versions {
					if !regexp.MustCompile(`(all|` + kernel.Release + `)/` + version).MatchString(ported.places) {
						continue
					}
					t.Run(version, func(t *testing.T) {
						rig.Need(t, "cgroup "+version, kernel.Cgroups(version))
						runPorted(t, kernel, version, test, ported.run, ported.skip)
					})
				}
			})
		})
	}
}

// runPorted boots a machine whose worker tests is a test binary.
func runPorted(t *testing.T, kernel Kernel, version, test, run, skip string) {
	t.Helper()
	h, err := host()
	if err != nil {
		t.Fatal(err)
	}
	parts := h.parts
	parts.Kernel = kernel
	image, err := NewImage(parts, withAgent(Files{
		"/etc/pazinit/pazinit.yaml": []byte(`machine: {sysctls: {kernel.threads-max: "60000"}} # there are 10,000 zombies at once
applications:
  app:
    workers:
      tests:
        command_line: cd /tests && exec env PAZINIT_BIN=/bin/pazinit PAZINIT_HELPER=/bin/helper PAZINIT_TEST_MUST=root ported.test -test.v -test.timeout 40m -test.run '` + run + `' -test.skip '` + skip + `'
        restart: never
        env: {PATH: "/usr/bin:/bin", HOME: /root, TMPDIR: /tmp}
        stdout: {file: /root/tests.txt}
        stderr: {file: /root/tests.txt}
`),
		"/tests/go.mod": nil, // marks the folder that the tests are run in
	}))
	if err != nil {
		t.Fatal(err)
	}
	n, err := initramfs.FileNode(test)
	if err == nil {
		n.Mode |= 0o111
		err = image.Add("/bin/ported.test", n)
	}
	for _, name := range tools {
		_, e := image.AddProgram("/usr/bin/"+name, initramfs.Search{Root: &initramfs.Root{}})
		err = errors.Join(err, e)
	}
	if err != nil {
		t.Fatal(err)
	}
	// What misbehaves there says so to the kernel, too.
	m := bootAs(t, Config{Arch: AMD64, Kernel: kernel.Image, Image: image, Cmdline: cgroups[version], Accel: h.accel, Limit: 3 * patience, Memory: 1024, Panic: "-1"}, "segfault|Out of memory|general protection")
	m.run("until pazinit status tests | grep -q 'EXITED\\|FATAL'; do sleep 1; done")
	log := m.run("cat /root/tests.txt")
	name := keep(t.Name()+"-tests", log)
	failed := regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`).FindAllString(log, -1)
	if !strings.HasSuffix(log, "PASS") || len(failed) > 0 {
		t.Errorf("what failed there (%s):\n%s", name, strings.Join(failed, "\n"))
	}
	t.Logf("%d passed, %d were skipped", strings.Count(log, "--- PASS"), strings.Count(log, "--- SKIP"))
	m.must(m.Post("pazinit poweroff"))
	m.ends()
}
