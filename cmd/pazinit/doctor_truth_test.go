package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What doctor says, held against the kernel: the built program in real
// namespaces, with real mounts and without capabilities. Needs root.

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if strings.Contains(os.Getenv("PAZINIT_TEST_MUST"), "root") {
			t.Fatal("root: uid is not 0")
		}
		t.Skip("root: needed to make namespaces and mounts")
	}
}

func needProgram(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		have, err := condition("have:" + name)
		if err != nil {
			t.Fatal(err)
		}
		if !have {
			t.Skipf("%s: not installed", name)
		}
	}
}

// doctorIn runs a shell script that ends with running "$@", behind the words of
// wrap, and reads what doctor says in it. The script may print lines before.
func doctorIn(t *testing.T, status int, wrap []string, script string, flags ...string) (d diagnosis, said string) {
	t.Helper()
	cmd := shell(t, wrap, script+"\n\"$@\"", append([]string{"doctor", "--json"}, flags...)...)
	out, err := cmd.Output()
	if got := cmd.ProcessState.ExitCode(); got != status {
		t.Fatalf("%v %s: exit status %d, want %d, %v\n%s", wrap, script, got, status, err, out)
	}
	i := bytes.Index(out, []byte(`{"version"`))
	if i < 0 {
		t.Fatalf("%v %s: no JSON in %q", wrap, script, out)
	}
	if err := json.Unmarshal(out[i:], &d); err != nil {
		t.Fatalf("%v %s: %v", wrap, script, err)
	}
	return d, string(out[:i])
}

// shell is a command that runs script, with pazinit and args as its "$@".
func shell(t *testing.T, wrap []string, script string, args ...string) *exec.Cmd {
	t.Helper()
	argv := append(slices.Clone(wrap), "/bin/sh", "-ec", script, "sh", program)
	cmd := exec.CommandContext(t.Context(), argv[0], append(argv[1:], args...)...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = time.Second
	return cmd
}

// console is the first lines that a supervisor prints in the same place, up to
// the one that says that it has started. It is then killed.
func console(t *testing.T, wrap []string, script, config string) string {
	t.Helper()
	cmd := shell(t, wrap, script+"\nexec \"$@\"", "run", "-c", config)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(text, []byte("started, pid")) {
		n, err := out.Read(buf)
		text = append(text, buf[:n]...)
		if err != nil {
			break
		}
	}
	_ = cmd.Process.Signal(unix.SIGTERM)
	rest, _ := io.ReadAll(out)
	_ = cmd.Wait()
	return string(text) + string(rest)
}

// config writes a configuration of its own cgroup, and returns its path.
func config(t *testing.T, text string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pazinit-doctor-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "p.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

const oneWorker = "applications: {shop: {workers: {web: {command_line: sleep 1000}}}}\n"

func key(d *diagnosis, key string) (mark string) {
	for _, f := range d.Findings {
		if f.Key == key {
			mark = f.Mark
		}
	}
	return mark
}

// Each namespace is the initial one or not, judged by its link here and there.
func TestTruthNamespaces(t *testing.T) {
	needRoot(t)
	needProgram(t, "unshare")
	const links = "for n in pid mnt net user uts ipc cgroup time; do echo $n $(readlink /proc/self/ns/$n); done"
	here, _ := doctorIn(t, 0, nil, "")
	for _, wrap := range [][]string{
		nil,
		{"unshare", "-n"},
		{"unshare", "-m"},
		{"unshare", "-u", "-C"},
		{"unshare", "-i", "-T", "-f"},
		{"unshare", "-p", "-f", "--mount-proc"},
		{"unshare", "-U", "-r"},
		{"unshare", "-U", "-r", "-p", "-m", "-n", "-u", "-i", "-C", "-T", "-f", "--mount-proc"},
	} {
		d, said := doctorIn(t, 0, wrap, links)
		for line := range strings.Lines(said) {
			f := strings.Fields(line)
			mine, err := os.Readlink("/proc/self/ns/" + f[0])
			if err != nil {
				t.Fatal(err)
			}
			want := here.Namespaces[f[0]]
			if f[1] != mine {
				want = nsOwn
			}
			if got := d.Namespaces[f[0]]; got != want {
				t.Errorf("%v: namespace %s = %s, want %s (%s, here %s)", wrap, f[0], got, want, f[1], mine)
			}
		}
	}
}

func TestTruthPlace(t *testing.T) {
	needRoot(t)
	needProgram(t, "unshare", "nsenter")
	for _, tt := range []struct {
		wrap   []string
		script string
		want   placeFacts
		needed bool
		ppid   bool // it has a parent that can be seen
	}{
		{nil, "", placeFacts{Text: "in the foreground of the host", Initial: true}, true, true},
		{[]string{"unshare", "-u", "-i"}, "", placeFacts{Text: "in a container with the host's PID namespace", Initial: true}, true, true},
		{[]string{"unshare", "-u", "-m"}, "", placeFacts{Text: "in the foreground of the host", Initial: true}, true, true},
		{[]string{"unshare", "-p", "-f", "--mount-proc"}, "exec", placeFacts{Text: "PID 1 of a container", PID1: true}, false, false},
		{[]string{"unshare", "-p", "-f", "--mount-proc"}, "true;", placeFacts{Text: "within a container, below another init"}, true, true},
		{[]string{"unshare", "-p", "-f", "--mount-proc"}, "nsenter -t 1 -p -m", placeFacts{Text: "within a container, below another init"}, true, true},
	} {
		cmd := shell(t, append(tt.wrap, "setsid", "-w"), tt.script+` "$@"; exit $?`, "doctor", "--json") // no terminal
		if len(tt.wrap) > 1 && tt.script == "exec" {
			cmd = shell(t, append([]string{"setsid", "-w"}, tt.wrap...), `exec "$@"`, "doctor", "--json")
		}
		out, err := cmd.Output()
		var d diagnosis
		if err != nil || json.Unmarshal(out, &d) != nil {
			t.Fatalf("%v %s: %v, %s", tt.wrap, tt.script, err, out)
		}
		if d.Place != tt.want || d.Process.SubreaperNeeded != tt.needed || !d.Process.SubreaperPossible && tt.needed || (d.Process.PPID > 0) != tt.ppid || tt.ppid && d.Process.Parent == "" {
			t.Errorf("%v %s: place = %+v, %+v, want %+v", tt.wrap, tt.script, d.Place, d.Process, tt.want)
		}
	}
}

// Entered from outside, its parent cannot be seen.
func TestTruthEntered(t *testing.T) {
	needRoot(t)
	needProgram(t, "unshare", "nsenter")
	init := exec.CommandContext(t.Context(), "unshare", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", "echo up; exec sleep 1000")
	up, err := init.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := init.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = init.Process.Kill(); _ = init.Wait() }()
	if _, err := io.ReadFull(up, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", init.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(children))
	out, err := exec.CommandContext(t.Context(), "nsenter", "-t", pid, "-p", "-m", program, "doctor", "--json").Output()
	var d diagnosis
	if err != nil || json.Unmarshal(out, &d) != nil {
		t.Fatalf("doctor: %v, %s", err, out)
	}
	if !d.Place.Entered || d.Process.PPID != 0 || d.Place.PID1 || !d.Process.SubreaperNeeded {
		t.Errorf("entered: place = %+v, %+v", d.Place, d.Process)
	}
}

// Entered where PID 1 is a pazinit of another user: it is said to be that, and
// how to reach it. The first way, and the second, do.
func TestTruthEnteredOther(t *testing.T) {
	needRoot(t)
	needProgram(t, "unshare", "nsenter", "setpriv")
	const uid, socket = "54323", "/tmp/pazinit-54323/pazinit.sock"
	defer os.RemoveAll(filepath.Dir(socket))
	cfg := config(t, oneWorker)
	p, err := begin(shell(t, []string{"unshare", "-p", "-f", "-m", "--mount-proc", "--kill-child"},
		`mount -t tmpfs t /run; exec setpriv --reuid `+uid+` --regid `+uid+` --clear-groups "$@"`, "run", "-c", cfg, "--log-format", "plain"))
	if err != nil {
		t.Fatal(err)
	}
	inner := func() int { // the namespace's first process
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", p.cmd.Process.Pid))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return pid
	}
	defer func() { // a change of uid takes --kill-child away
		if pid := inner(); pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		<-p.done
	}()
	for up := false; !up; {
		p.mu.Lock()
		text, more := string(p.text), p.more
		p.mu.Unlock()
		if up = strings.Contains(text, "RUNNING"); up {
			break
		}
		select {
		case <-more:
		case <-p.done:
			t.Fatalf("the supervisor ended: %s", text)
		}
	}
	enter := []string{"nsenter", "-t", strconv.Itoa(inner()), "-p", "-m"}
	inside := func(as []string, flags ...string) (d diagnosis) {
		t.Helper()
		argv := slices.Concat(enter, as, []string{program, "doctor", "--json"}, flags)
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		out, err := cmd.Output()
		if err != nil || json.Unmarshal(out, &d) != nil {
			t.Fatalf("%v: %v, %s", argv, err, out)
		}
		if want := (pid1Facts{true, 54323}); d.PID1 != want || d.Place.Text != "entered from outside; PID 1 of this container is pazinit" || d.Process.SubreaperNeeded {
			t.Errorf("%v: pid 1 = %+v, %+v, %+v, want %+v", argv, d.PID1, d.Place, d.Process, want)
		}
		return d
	}
	d := inside(nil)
	i := slices.IndexFunc(d.Findings, func(f doctorFinding) bool { return f.Key == "socket.supervisor" })
	if want := "none answers here, but PID 1 is a pazinit of uid " + uid + ": enter with --user " + uid + ", or, as root, --socket " + socket; d.Supervisor != nil || i < 0 || d.Findings[i].Text != want {
		t.Errorf("as root: findings = %+v, want %s", d.Findings, want)
	}
	for _, d := range []diagnosis{
		inside([]string{"setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"}),
		inside(nil, "--socket", socket),
	} {
		if d.Supervisor == nil || d.Supervisor.PID != 1 || key(&d, "socket.supervisor") != "" {
			t.Errorf("supervisor = %+v, %+v, want PID 1", d.Supervisor, d.Socket)
		}
	}
}

func TestTruthProc(t *testing.T) {
	needRoot(t)
	needProgram(t, "unshare")
	d, _ := doctorIn(t, 0, []string{"unshare", "-p", "-f"}, "")
	if !d.Proc.Mounted || d.Proc.OwnPIDNS || key(&d, "place.proc") != markLimited {
		t.Errorf("another namespace's /proc = %+v, %s", d.Proc, key(&d, "place.proc"))
	}
	d, _ = doctorIn(t, 0, []string{"unshare", "-m"}, "mount -t tmpfs none /proc")
	if d.Proc.Mounted || key(&d, "place.proc") != markMissing || d.Namespaces["pid"] != nsUnknown {
		t.Errorf("no /proc = %+v, %s, namespaces %v", d.Proc, key(&d, "place.proc"), d.Namespaces)
	}
	if len(d.Capabilities.Effective) == 0 || d.User.Seccomp == "unknown" || d.Stdio[1].Kind != "pipe" {
		t.Errorf("no /proc: %+v, %+v, %+v: what the kernel tells otherwise is missing", d.Capabilities, d.User, d.Stdio)
	}
	d, _ = doctorIn(t, 0, []string{"unshare", "-m", "-p", "-f", "--mount-proc"}, "mount -o remount,hidepid=2 /proc")
	if d.Proc.HidePID != "2" && d.Proc.HidePID != "invisible" {
		t.Errorf("hidepid = %q", d.Proc.HidePID)
	}
}

// The sets are those of /proc/self/status, and what they give is what works.
func TestTruthCapabilities(t *testing.T) {
	needRoot(t)
	needProgram(t, "setpriv", "unshare")
	cfg := config(t, "applications: {shop: {workers: {web: {command_line: sleep 1000, user: \"12345\", group: \"12345\", max_restarts: 1}}}}\n")
	for _, tt := range []struct {
		wrap []string
		fail bool // a worker cannot be another user
		free bool // it can, but cannot be signalled then
	}{
		{nil, false, false},
		{[]string{"setpriv", "--bounding-set", "-all", "--inh-caps", "-all"}, true, false},
		{[]string{"setpriv", "--bounding-set", "-setuid"}, true, false},
		{[]string{"setpriv", "--bounding-set", "-setgid"}, true, false},
		{[]string{"setpriv", "--bounding-set", "-kill,-sys_nice,-chown"}, false, true},
		{[]string{"setpriv", "--bounding-set", "+all", "--no-new-privs"}, false, false},
		{[]string{"unshare", "-U", "-r"}, true, false}, // 12345 does not exist in it
	} {
		status := 0
		if tt.fail || tt.free {
			status = 1
		}
		wrap := append([]string{"env", "PAZINIT_SOCKET=" + filepath.Join(filepath.Dir(cfg), "run", "s")}, tt.wrap...)
		d, said := doctorIn(t, status, wrap, "cat /proc/self/status", "-c", cfg)
		for field, got := range map[string][]string{"CapEff": d.Capabilities.Effective, "CapPrm": d.Capabilities.Permitted, "CapInh": d.Capabilities.Inheritable, "CapBnd": d.Capabilities.Bounding, "CapAmb": d.Capabilities.Ambient} {
			set, err := strconv.ParseUint(statusField(said, field), 16, 64)
			if want := capabilities(set); err != nil || !slices.Equal(got, want) {
				t.Errorf("%v: %s = %v, want %v", tt.wrap, field, got, want)
			}
		}
		if want := statusField(said, "NoNewPrivs") == "1"; d.User.NoNewPrivs != want {
			t.Errorf("%v: no_new_privs = %v, want %v", tt.wrap, d.User.NoNewPrivs, want)
		}
		if bad := key(&d, "configuration.shop:web.user") == markBad; bad != (tt.fail || tt.free) || bad != (len(d.Problems) > 0) {
			t.Errorf("%v: bad = %v, want %v: %v", tt.wrap, bad, tt.fail || tt.free, d.Problems)
		}
		text := starts(t, wrap, cfg)
		if strings.Contains(text, "FATAL") != tt.fail {
			t.Errorf("%v: want a start to fail %v:\n%s", tt.wrap, tt.fail, text)
		}
		// util-linux's renice, from the same place, is who knows of the priority.
		cmd := shell(t, tt.wrap, "renice -n -1 $$ >/dev/null 2>&1 && echo yes || echo no")
		out, _ := cmd.Output()
		if got, want := d.Features["raise_priority"] == "", string(out) == "yes\n"; got != want {
			t.Errorf("%v: raise_priority = %q, renice says %s", tt.wrap, d.Features["raise_priority"], out)
		}
	}
}

// starts supervises until a worker runs, or cannot.
func starts(t *testing.T, wrap []string, cfg string) string {
	t.Helper()
	cmd := shell(t, wrap, `exec "$@"`, "run", "-c", cfg, "--log-format", "plain")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(text, []byte("RUNNING")) && !bytes.Contains(text, []byte("FATAL")) {
		n, err := out.Read(buf)
		text = append(text, buf[:n]...)
		if err != nil {
			break
		}
	}
	_ = cmd.Process.Signal(unix.SIGQUIT)
	rest, _ := io.ReadAll(out)
	_ = cmd.Wait()
	return string(append(text, rest...))
}

func TestTruthUser(t *testing.T) {
	needRoot(t)
	needProgram(t, "setpriv", "unshare")
	d, _ := doctorIn(t, 0, []string{"setpriv", "--reuid", "54321", "--regid", "54322", "--groups", "7,8"}, "")
	u := d.User
	if u.UID != 54321 || u.EUID != 54321 || u.GID != 54322 || u.EGID != 54322 || !slices.Equal(u.Groups, []int{7, 8}) || u.Name != "" || u.Rootless {
		t.Errorf("user = %+v, want 54321:54322, groups 7 and 8, without a name", u)
	}
	if d.Socket.Path != "/tmp/pazinit-54321/pazinit.sock" || !d.Socket.Usable {
		t.Errorf("socket = %+v", d.Socket)
	}
	d, _ = doctorIn(t, 0, []string{"setpriv", "--reuid", "54321", "--regid", "54322", "--clear-groups", "unshare", "-U", "-r"}, "")
	if u = d.User; u.UID != 0 || u.Name != "root" || !u.Rootless || !slices.Equal(u.UIDMap, []idRange{{0, 54321, 1}}) || !slices.Equal(u.GIDMap, []idRange{{0, 54322, 1}}) {
		t.Errorf("user = %+v, want a rootless root", u)
	}
}

// What may be written, by the shell's own redirection in the same place.
func TestTruthPaths(t *testing.T) {
	needRoot(t)
	needProgram(t, "unshare", "setpriv")
	cfg := config(t, oneWorker)
	for _, tt := range []struct {
		wrap          []string
		mounts        string
		run, noexec   bool
		socket        bool
		kind, problem string
	}{
		{[]string{"unshare", "-m"}, "mount -t tmpfs -o mode=755 t /run", true, false, true, "tmpfs", ""},
		{[]string{"unshare", "-m"}, "mount -t tmpfs -o ro,mode=755 t /run", false, false, false, "tmpfs", "read-only file system"},
		{[]string{"unshare", "-m"}, "mount -t tmpfs -o mode=755 t /run; mount -o remount,bind,ro,noexec /run", false, true, false, "tmpfs", "read-only file system"},
		{[]string{"unshare", "-m"}, "mount -t tmpfs -o noexec,mode=755 t /run", true, true, true, "tmpfs", ""},
		{[]string{"unshare", "-m", "setpriv", "--bounding-set", "-all"}, "", true, false, true, "", ""},
	} {
		probe := tt.mounts + "\nif ( : >/run/pazinit-doctor-probe ) 2>/dev/null; then echo yes; rm /run/pazinit-doctor-probe; else echo no; fi"
		d, said := doctorIn(t, 0, tt.wrap, probe)
		if strings.TrimSpace(said) != map[bool]string{true: "yes", false: "no"}[tt.run] {
			t.Fatalf("%s: the shell says %q, the test %v", tt.mounts, said, tt.run)
		}
		i := slices.IndexFunc(d.Paths, func(f pathFacts) bool { return f.Path == "/run" })
		f := d.Paths[i]
		if f.Writable != tt.run || f.NoExec != tt.noexec || f.Error != tt.problem || f.ReadOnly == tt.run || tt.kind != "" && f.Type != tt.kind {
			t.Errorf("%s: /run = %+v", tt.mounts, f)
		}
		if d.Socket.Usable != tt.socket || key(&d, "socket.usable") != map[bool]string{true: "", false: markLimited}[tt.socket] {
			t.Errorf("%s: socket = %+v", tt.mounts, d.Socket)
		}
		if tt.mounts == "" {
			continue
		}
		if text := console(t, tt.wrap, tt.mounts, cfg); strings.Contains(text, "without a control socket") == tt.socket || !strings.Contains(text, "started") {
			t.Errorf("%s: want a socket %v:\n%s", tt.mounts, tt.socket, text)
		}
	}
}

// Whether there are cgroups is what a supervisor in the same place finds.
func TestTruthCgroups(t *testing.T) {
	needRoot(t)
	needProgram(t, "unshare", "setpriv")
	cfg := config(t, fmt.Sprintf("cgroups: {hierarchy_root: pazinit-doctor-%d}\n", os.Getpid())+oneWorker)
	free := config(t, oneWorker)
	for _, uid := range []string{"54321", "65534"} { // the empty folders of these users' sockets
		defer os.Remove("/tmp/pazinit-" + uid)
	}
	const each = "grep -E ' cgroup2? ' /proc/mounts | cut -d' ' -f2 | tac | while read d; do %s; done"
	for _, tt := range []struct {
		wrap   []string
		script string
		none   bool
		ro     bool
	}{
		{[]string{"unshare", "-m"}, "", false, false},
		{[]string{"unshare", "-m"}, fmt.Sprintf(each, "mount -o remount,bind,ro $d"), false, true},
		{[]string{"unshare", "-m"}, fmt.Sprintf(each, "umount -l $d") + "; umount -l /sys/fs/cgroup 2>/dev/null || :", true, false},
		{[]string{"setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"}, "", false, false},
		{[]string{"unshare", "-U"}, "", false, false}, // nobody of the machine
	} {
		d, _ := doctorIn(t, 0, tt.wrap, tt.script, "-c", free)
		c := d.Cgroups
		if (c.Version == "none") != tt.none || c.ReadOnly != tt.ro {
			t.Errorf("%v %s: cgroups = %+v, want none %v, read-only %v", tt.wrap, tt.script, c, tt.none, tt.ro)
		}
		text := console(t, tt.wrap, tt.script, free)
		if strings.Contains(text, "without cgroups") == c.Usable || !strings.Contains(text, "started") {
			t.Errorf("%v %s: usable = %v, %s, the supervisor says:\n%s", tt.wrap, tt.script, c.Usable, c.Error, text)
		}
		if (key(&d, "cgroups.usable") == "") != c.Usable || c.Usable == (c.Error != "") {
			t.Errorf("%v %s: findings = %+v", tt.wrap, tt.script, d.Findings)
		}
		// Nothing is refused for want of them, and nothing lasts.
		d, _ = doctorIn(t, 0, tt.wrap, tt.script, "-c", cfg)
		if d.Cgroups.Usable != c.Usable || len(d.Problems) > 0 {
			t.Errorf("%v %s: with hierarchy_root: cgroups = %+v, problems %v", tt.wrap, tt.script, d.Cgroups, d.Problems)
		}
		if c.Usable {
			if _, err := os.Stat(d.Cgroups.Folder); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("Stat(%s) = %v, want not exist", d.Cgroups.Folder, err)
			}
		}
	}
}

// A hierarchy_root that somebody else holds is no place for a second supervisor.
func TestTruthCgroupInUse(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("", "pazinit-doctor-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cfg := config(t, fmt.Sprintf("cgroups: {hierarchy_root: pazinit-doctor-%d}\n", os.Getpid())+oneWorker)
	p, err := begin(exec.CommandContext(t.Context(), program, "run", "-c", cfg, "--socket", filepath.Join(dir, "run", "s")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.cmd.Process.Signal(unix.SIGTERM); <-p.done }()
	for {
		p.mu.Lock()
		text, more := string(p.text), p.more
		p.mu.Unlock()
		if strings.Contains(text, "without cgroups") {
			t.Skipf("cgroups: %s", text)
		}
		if strings.Contains(text, "started, pid") {
			break
		}
		select {
		case <-more:
		case <-p.done:
			t.Fatalf("the supervisor ended: %s", text)
		}
	}
	d, _ := doctorIn(t, 1, nil, "", "-c", cfg, "--socket", filepath.Join(dir, "other", "s"))
	if key(&d, "cgroups.usable") != markBad || len(d.Problems) != 1 {
		t.Errorf("problems = %v, want the cgroup in use", d.Problems)
	}
	d, _ = doctorIn(t, 0, nil, "", "-c", cfg, "--socket", filepath.Join(dir, "run", "s"))
	if v := d.Supervisor; v == nil || v.PID != p.cmd.Process.Pid || len(v.Stdio) != 3 || v.Stdio[1].Kind != "pipe" || !d.Socket.Answers || d.Socket.Mode != "0600" {
		t.Errorf("supervisor = %+v, %+v, want pid %d with its pipes", v, d.Socket, p.cmd.Process.Pid)
	}
}

func TestTruthLimits(t *testing.T) {
	d, _ := doctorIn(t, 0, nil, "ulimit -Sn 200; ulimit -Hn 300")
	if got := d.Limits.NoFile; got == nil || *got != (limitPair{200, 300}) {
		t.Errorf("nofile = %+v, want 200 of 300, as it was started with", got)
	}
	d, _ = doctorIn(t, 0, nil, "ulimit -n 20")
	if key(&d, "limits.nofile") != markLimited {
		t.Errorf("nofile of 20: findings = %+v", d.Findings)
	}
	if max, err := os.ReadFile("/proc/sys/kernel/pid_max"); err == nil && strings.TrimSpace(string(max)) != strconv.FormatInt(d.Limits.PIDMax, 10) {
		t.Errorf("pid_max = %d, want %s", d.Limits.PIDMax, max)
	}
}

// Who may open /dev/stdout is tried: by the user itself, and by another.
func TestTruthStdio(t *testing.T) {
	needRoot(t)
	needProgram(t, "setpriv")
	dir, err := os.MkdirTemp("", "pazinit-doctor-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	open := func(f *os.File, err error) *os.File {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	r, w, err := os.Pipe()
	open(r, err)
	open(w, nil)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	open(os.NewFile(uintptr(pair[0]), "socket"), nil)
	socket := open(os.NewFile(uintptr(pair[1]), "socket"), nil)
	file := open(os.Create(filepath.Join(dir, "private")))
	public := open(os.Create(filepath.Join(dir, "public")))
	if err := errors.Join(file.Chmod(0o600), public.Chmod(0o666)); err != nil {
		t.Fatal(err)
	}
	null := open(os.OpenFile("/dev/null", os.O_WRONLY, 0))
	master, slave, err := openTTY(80, 24)
	open(master, err)
	open(slave, nil)
	for _, tt := range []struct {
		kind string
		f    *os.File
	}{{"pipe", w}, {"socket", socket}, {"file", file}, {"file", public}, {"null", null}, {"tty", slave}} {
		tries := func(wrap ...string) bool {
			t.Helper()
			argv := append(wrap, "/bin/sh", "-c", "exec 5>/proc/self/fd/1") // dash opens it without O_NOCTTY, but leads no session
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Stdout = tt.f
			return cmd.Run() == nil
		}
		// What doctor says of its stderr, since its stdout is needed to say it.
		cmd := exec.Command(program, "doctor", "--json")
		cmd.Dir, cmd.Stderr = "/", tt.f
		out, err := cmd.Output()
		var d diagnosis
		if err != nil || json.Unmarshal(out, &d) != nil {
			t.Fatalf("doctor: %v, %s", err, out)
		}
		s := d.Stdio[2]
		if s.Kind != tt.kind {
			t.Errorf("stderr = %+v, want a %s", s, tt.kind)
		}
		if want := tries("env"); s.SelfCanOpen != want {
			t.Errorf("%s %s: self_can_open = %v, want %v", tt.kind, s.Name, s.SelfCanOpen, want)
		}
		if want := tries("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"); s.OthersCanOpen != want {
			t.Errorf("%s %s, mode %s: others_can_open = %v, want %v", tt.kind, s.Name, s.Mode, s.OthersCanOpen, want)
		}
		if (key(&d, "stdio.stderr") == markLimited) != (tt.kind == "socket") {
			t.Errorf("%s: findings = %+v", tt.kind, d.Findings)
		}
	}
}

// What it was started with is not what Go has made of it.
func TestTruthStart(t *testing.T) {
	d, _ := doctorIn(t, 0, nil, "trap '' HUP USR1; exec 0<&-")
	// The C library starts programs with its own two ignored (posix_spawn(3)).
	ignored := slices.DeleteFunc(d.Signals.Ignored, func(s string) bool { return s == "32" || s == "33" })
	if !slices.Equal(ignored, []string{"SIGHUP", "SIGUSR1"}) || len(d.Signals.Blocked) > 0 {
		t.Errorf("signals = %+v, want SIGHUP and SIGUSR1 ignored", d.Signals)
	}
	if d.Stdio[0].Kind != "closed" || d.Stdio[1].Kind != "pipe" {
		t.Errorf("stdio = %+v, want stdin closed", d.Stdio)
	}
	d, _ = doctorIn(t, 0, nil, `set -- env --block-signal=TERM "$@"`) // a shell clears its mask
	if !slices.Equal(d.Signals.Blocked, []string{"SIGTERM"}) {
		t.Errorf("signals = %+v, want SIGTERM blocked", d.Signals)
	}
}

// A seccomp filter that knows nothing newer is seen through, call by call.
func TestTruthSeccomp(t *testing.T) {
	refused := []uint32{unix.SYS_CLONE3, unix.SYS_PIDFD_OPEN, unix.SYS_CLOSE_RANGE, unix.SYS_OPENAT2, unix.SYS_PIDFD_SEND_SIGNAL}
	out, err := underFilter(refused, program, "doctor", "--json")
	var d diagnosis
	if err != nil || json.Unmarshal(out, &d) != nil {
		t.Fatalf("doctor: %v, %s", err, out)
	}
	for name, got := range d.Features {
		switch name {
		case "clone3", "clone_into_cgroup", "pidfd_open", "pidfd_send_signal", "pidfd_signal_group", "pidfd_get_info", "close_range_cloexec", "close_range_unshare", "openat2":
			if got != "function not implemented" || key(&d, "features."+name) != markLimited {
				t.Errorf("%s = %q, %q, want what the filter says", name, got, key(&d, "features."+name))
			}
		case "waitid", "subreaper":
			if got != "" {
				t.Errorf("%s = %q, want that it works", name, got)
			}
		}
	}
	if d.User.Seccomp != "filter" || !d.User.NoNewPrivs {
		t.Errorf("user = %+v, want a filter and no new privileges", d.User)
	}
}

// underFilter runs a program with some system calls answered by ENOSYS. The
// filter is that of the thread that starts it, which ends with its goroutine.
func underFilter(calls []uint32, argv ...string) (out []byte, err error) {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // seccomp_data.nr
	for _, nr := range calls {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0x50000 | uint32(unix.ENOSYS)}) // SECCOMP_RET_ERRNO
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000}) // SECCOMP_RET_ALLOW
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stderr = "/", os.Stderr
	var buf bytes.Buffer
	cmd.Stdout = &buf
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
		}
		runtime.KeepAlive(filter)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	err = cmd.Wait()
	return buf.Bytes(), err
}
