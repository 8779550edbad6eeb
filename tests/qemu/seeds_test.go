//go:build qemu

package qemu

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// TestSeeds are those rows of tests/seeds that want a machine.
func TestSeeds(t *testing.T) {
	for id, checks := range map[string]map[string]func(*testing.T){
		"DP-27":  {"systemd-analyze": analyze, "systemd": testSystemd, "runit": testRunit},
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
