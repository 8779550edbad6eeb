//go:build qemu

package qemu

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/initramfs"
	"github.com/pazinit/pazinit/tests/rig"
)

// TestSeeds are those rows of tests/seeds that want a machine.
func TestSeeds(t *testing.T) {
	for id, checks := range map[string]map[string]func(*testing.T){
		"DP-27":  {"systemd-analyze": analyze, "systemd": testSystemd, "runit": testRunit, "s6": testS6},
		"SU-01":  {"machine": logOut},
		"SU-16l": {"machine": shutdown},
	} {
		t.Run(id, func(t *testing.T) {
			for name, check := range checks {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					check(t)
				})
			}
		})
	}
}

// analyze has systemd read the unit. The program that it names must be there.
func analyze(t *testing.T) {
	program, err := exec.LookPath("systemd-analyze")
	rig.Need(t, "systemd", err)
	name := filepath.Join(t.TempDir(), "pazinit.service")
	unit := strings.ReplaceAll(string(deployed(t, "systemd/pazinit.service")), "/usr/local/bin/pazinit", rig.Binary)
	if err := os.WriteFile(name, []byte(unit), 0o600); err != nil {
		t.Fatal(err)
	}
	// It says what it does not understand, and has status 0.
	if out, err := exec.Command(program, "verify", "--man=no", name).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify = %v\n%s", err, out)
	}
}

// onBookworm boots a machine.
func onBookworm(t *testing.T, files Files) *machine {
	t.Helper()
	m := boot(t, bookworm(t), cgroups["v2"], "", files)
	m.must(m.Ready(1))
	return m
}

// logOut: a foreground program without a line of a daemon's code runs from the
// machine's boot, one that somebody starts outlives his terminal, and what they
// say is in files.
func logOut(t *testing.T) {
	m := onBookworm(t, Files{"/etc/pazinit/pazinit.yaml": []byte(`applications:
  app:
    workers:
      web: {command_line: 'echo out; echo err >&2; exec helper sleep', stdout: {file: /root/web.log}, stderr: {file: /root/web.log}}
      job: {command_line: 'echo job; exec helper sleep', autostart: false, stdout: {file: /root/job.log}}
`)})
	web := m.state("app:web.1", "RUNNING").PID
	m.run("until [ \"$(sort /root/web.log)\" = \"$(printf 'err\\nout')\" ]; do sleep 0.1; done")
	if got := m.run("guest login 'pazinit start job; tty; echo started; exec sleep 1000'"); !strings.Contains(got, "/dev/pts/") || !strings.HasSuffix(got, "signal: hangup") {
		t.Errorf("who logged in on a terminal said %q, want the terminal's name and an end by its hang-up", got)
	}
	job := m.state("app:job.1", "RUNNING")
	m.run("kill -0 %d && [ \"$(cat /root/job.log)\" = job ]", job.PID)
	if got := m.state("app:web.1", "RUNNING"); got.PID != web || job.Run != 1 {
		t.Errorf("after the log-out web is %+v and job %+v, want those from before", got, job)
	}
	m.powerOff()
}

// shutdown: the verb stops all in order, and the machine is off with status 0.
func shutdown(t *testing.T) {
	m := onBookworm(t, Files{
		"/etc/pazinit/pazinit.yaml": []byte(served), "/bin/worker": []byte(ending["/bin/worker"]),
	})
	m.see(`app:db\.1 +\| ready$`, 1)
	m.see(`app:web\.1 +\| ready$`, 1)
	m.must(m.Post("pazinit shutdown"))
	m.inOrder(1)
	m.see(`pazinit: powering off, after an end with status 0$`, 1)
	m.see(`reboot: Power down`, 1)
	m.ends()
}

// login has a shell with a terminal of its own carry out a script until that prints
// "started", and hangs the terminal up.
func login(args []string) error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer master.Close()
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return err
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	cmd := exec.Command("/bin/sh", "-c", strings.Join(args, " "))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := errors.Join(cmd.Start(), tty.Close()); err != nil {
		return err
	}
	for lines := bufio.NewScanner(master); lines.Scan(); {
		fmt.Println(lines.Text())
		if strings.TrimSpace(lines.Text()) == "started" {
			break
		}
	}
	if err := master.Close(); err != nil {
		return err
	}
	fmt.Println(cmd.Wait())
	return nil
}

// seedPrograms are those of this machine that the rows of tests/seeds use, beside
// busybox's.
var seedPrograms = []string{"unshare", "setpriv", "setsid", "env", "dash", "bash", "curl", "node", "python3", "ldd", "prlimit"}

// compiler stands for Go's in a machine, where nothing is compiled.
const compiler = `#!/bin/sh
case $1 in
build) exec cp /bin/library "$3" ;;
test) cd init && exec /bin/init.test -test.run '^Example' -test.v ;;
esac
exit 1
`

// TestSeedsInside runs all of tests/seeds in a machine, as a worker of its init.
// The machine's configuration is where no other pazinit looks for one.
func TestSeedsInside(t *testing.T) {
	long(t)
	kernel := bookworm(t)
	h, err := host()
	if err != nil {
		t.Fatal(err)
	}
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	parts := h.parts
	parts.Kernel, parts.Bin = kernel, maps.Clone(parts.Bin)
	for name, argv := range map[string][]string{
		"seeds.test": {"test", "-c", "-o", filepath.Join(dir, "seeds.test"), "./tests/seeds"},
		"init.test":  {"test", "-c", "-o", filepath.Join(dir, "init.test"), "./init"},
		"library":    {"build", "-o", filepath.Join(dir, "library"), "./tests/seeds/testdata/library"},
	} {
		cmd := exec.Command("go", argv...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
		parts.Bin[name] = filepath.Join(dir, name)
	}
	image, err := NewImage(parts, Files{"/bin/go": []byte(compiler), "/etc/machine.yaml": []byte(`applications:
  guest:
    workers:
      agent: {run: /bin/guest, args: [agent], priority: 0, restart: never}
  tests:
    workers:
      seeds:
        command_line: cd /src/tests/seeds && export PAZINIT_BIN=/bin/pazinit PAZINIT_HELPER=/bin/helper PAZINIT_PATIENCE=10m PAZINIT_EMULATED=$(cat /src/emulated) && exec seeds.test -test.v -test.timeout 2h -test.parallel 4 -test.run "$(cat /src/rows)"
        restart: never
        env: {HOME: /root, TMPDIR: /tmp, PATH: "/usr/bin:/bin"}
        stdout: {file: /root/seeds.log}
        stderr: {file: /root/seeds.log}
`)})
	if err != nil {
		t.Fatal(err)
	}
	emulated := ""
	if h.accel == "tcg" {
		emulated = "1"
	}
	rows := os.Getenv("PAZINIT_SEEDS") // a pattern, for who looks for a fault
	if rows == "" {
		rows = "."
	}
	err = errors.Join(image.Add("/srv", initramfs.Folder(0o755)), image.Add("/src/rows", initramfs.Data(0o644, []byte(rows))), image.Add("/src/emulated", initramfs.Data(0o644, []byte(emulated))), image.AddFile("/etc/passwd", "/etc/passwd"), image.AddFile("/etc/group", "/etc/group"))
	modules, e := filepath.Glob("/usr/lib/python3.*")
	err = errors.Join(err, e)
	for _, dir := range modules {
		err = errors.Join(err, image.AddFile(dir, dir))
	}
	tracked := exec.Command("git", "ls-files", "-z")
	tracked.Dir = root
	list, e := tracked.Output()
	err = errors.Join(err, e)
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		if _, e := os.Lstat(filepath.Join(root, name)); e == nil { // not deleted
			err = errors.Join(err, image.AddFile(filepath.Join(root, name), "/src/"+name))
		}
	}
	for _, name := range seedPrograms {
		_, e := image.AddProgram("/usr/bin/"+name, initramfs.Search{Root: &initramfs.Root{}})
		err = errors.Join(err, e)
	}
	if err != nil {
		t.Fatal(err)
	}
	m := bootAs(t, Config{Arch: AMD64, Kernel: kernel.Image, Image: image, Cmdline: cgroups["v2"] + " pazinit.config=/etc/machine.yaml", Accel: h.accel, Limit: patience * 3, Memory: 3072, Panic: "-1"}, "Out of memory|oom")
	m.must(m.Ready(1))
	file, err := os.Create(filepath.Join(root, "out/seeds-inside.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	log := ""
	for ended := false; !ended; { // what came until then is there, whatever comes
		ended = m.run("i=0; while [ $((i += 1)) -lt 100 ] && pazinit status seeds | grep -q RUNNING; do sleep 0.1; done; echo $i") != "100"
		more, _, err := m.Sh(fmt.Sprintf("tail -c +%d /root/seeds.log", len(log)+1))
		m.must(err)
		log += more
		if _, err := file.WriteString(more); err != nil {
			t.Fatal(err)
		}
	}
	bad, good := regexp.MustCompile(`(?m)^ *--- FAIL: (TestSeeds/\S+)`).FindAllString(log, -1), strings.Count(log, "    --- PASS: TestSeeds/")
	if !strings.HasSuffix(strings.TrimSpace(log), "PASS") || len(bad) > 0 {
		t.Errorf("rows that fail in a machine (out/seeds-inside.log): %s", strings.Join(bad, "\n"))
	}
	if rows == "." && good < 100 {
		t.Errorf("%d rows pass, want nearly all", good)
	}
	m.must(m.Post("pazinit poweroff"))
	m.ends()
}
