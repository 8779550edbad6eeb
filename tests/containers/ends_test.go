package containers

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/pazinit/pazinit/tests/bundle"
	"github.com/pazinit/pazinit/tests/rig"
)

// TestStrangers: what entered by the engine's exec is told to stop and awaited,
// but only by the first process of a PID namespace of the container's own. (With
// --pid=host podman itself tells everybody, and loses statuses of podman exec.)
func TestStrangers(t *testing.T) {
	each(t, only{noPodman: true, root: "scratch", places: []string{"default", "user", "host-pid", "below-tini"}}, func(t *testing.T, e engine, r root, p bundle.Place) {
		s := spec(e, r, p, config("web: helper sleep\n", settings), "pazinit")
		told := 9
		if s.HostPID || s.Parent != nil {
			told = 137 // the engine or the kernel does it, when the container has ended
		}
		c := e.start(t, p, s)
		c.until("web.1 is RUNNING", 1)
		stranger := c.exec("helper", "on-signal", "TERM", "9", "100")
		stranger.until("ready", 1)
		c.stop()
		stranger.want(told)
		c.want(0)
	})
}

// TestDeadline: at the end of shutdown_timeout the container ends, whatever is
// left in it, and the late ones have been named.
func TestDeadline(t *testing.T) {
	each(t, only{noPodman: true, root: "scratch", places: []string{"default"}}, func(t *testing.T, e engine, r root, p bundle.Place) {
		files := config("web: helper ignore-term\n", settings)
		file := files["/etc/pazinit/pazinit.yaml"]
		file.Text = "shutdown_timeout: 1s\n" + file.Text
		files["/etc/pazinit/pazinit.yaml"] = file
		c := e.start(t, p, spec(e, r, p, files, "pazinit"))
		c.until("| ready", 1)
		stranger := c.exec("helper", "ignore-term")
		stranger.until("ready", 1)
		c.stop()
		stranger.want(137)
		c.want(0)
		c.until("app:web.1: it has not ended within", 1)
	})
}

// TestNeighbour: with --pid=host the container ends, and nobody else does.
func TestNeighbour(t *testing.T) {
	each(t, only{root: "scratch", places: []string{"host-pid"}}, func(t *testing.T, e engine, r root, p bundle.Place) {
		neighbour := newProcess(t)
		neighbour.cmd = exec.Command(rig.Helper, "on-signal", "USR1", "9", "0")
		neighbour.start()
		t.Cleanup(func() { _ = neighbour.cmd.Process.Kill(); <-neighbour.ended })
		neighbour.until("ready", 1)
		c := e.start(t, p, spec(e, r, p, config("web: helper sleep\ntwo: helper double-fork\n", settings), "pazinit"))
		c.until("grandchild", 1)
		c.until("web.1 is RUNNING", 1)
		c.stop()
		c.want(0)
		c.must(neighbour.cmd.Process.Signal(syscall.SIGUSR1))
		neighbour.want(9)
	})
}

// TestShutdown: who asks for the end from inside gets the answer.
func TestShutdown(t *testing.T) {
	each(t, only{noPodman: true, root: "scratch", places: []string{"default", "below-tini"}}, func(t *testing.T, e engine, r root, p bundle.Place) {
		c := e.start(t, p, spec(e, r, p, config("web: helper on-signal TERM 0 100\n", settings), "pazinit"))
		c.until("| ready", 1)
		c.exec("pazinit", "shutdown").want(0)
		c.want(0)
	})
}

// TestEndWhen: with "all" the container lives until the last essential worker.
func TestEndWhen(t *testing.T) {
	each(t, only{root: "scratch", places: []string{"default"}}, func(t *testing.T, e engine, r root, p bundle.Place) {
		files := config("one: helper exit 3\ntwo: helper on-signal USR1 3 0\nweb: helper sleep\n", "    essential: true\n    restart: never\n    workers: {web: {essential: false}}\n")
		file := files["/etc/pazinit/pazinit.yaml"]
		file.Text = "end_when: all\n" + file.Text
		files["/etc/pazinit/pazinit.yaml"] = file
		c := e.start(t, p, spec(e, r, p, files, "pazinit"))
		c.until("one.1 is EXITED", 1)
		c.until("| ready", 1)
		c.signal(syscall.SIGUSR1, "helper on-signal USR1 3 0")
		c.want(3)
	})
}

// TestLastWords: the end of the log tells what the container ended of.
func TestLastWords(t *testing.T) {
	each(t, only{root: "scratch", places: []string{"default", "read-only", "tty"}}, func(t *testing.T, e engine, r root, p bundle.Place) {
		files := config("web: helper sleep\njob: helper crash-after 1\n", "    workers: {job: {essential: true, restart: never}}\n")
		c := e.start(t, p, spec(e, r, p, files, "pazinit"))
		c.want(1)
		out, _ := c.output()
		lines := strings.Split(strings.TrimSpace(out), "\n")
		tail := strings.Join(lines[max(0, len(lines)-6):], "\n")
		for _, want := range []string{"app:job.1 exited with status 1", "ready", "ended with status 1"} {
			if !strings.Contains(tail, want) {
				t.Errorf("the last lines are\n%s\nwant %q in them", tail, want)
			}
		}
	})
}

// TestForkBomb: a worker that leaves no process number for anybody does not end
// the first process, and stops.
func TestForkBomb(t *testing.T) {
	each(t, only{root: "busybox", places: []string{"default", "cgroup-v2"}}, func(t *testing.T, e engine, r root, p bundle.Place) {
		s := spec(e, r, p, config("web: helper print-status hold\nbomb: while (sleep 1000 &); do :; done; helper sleep\n", settings+"    workers: {web: {priority: 1}}\n"), "pazinit") // web has its number before the bomb
		s.PIDs = 40
		c := e.start(t, p, s)
		c.until("can't fork", 1)
		c.signal(syscall.SIGKILL, "helper print-status hold")
		c.until("web.1: killed by SIGKILL", 1)
		c.stop()
		c.want(0)
	})
}
