package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/cgroupfs"
	"github.com/pazinit/pazinit/procfile"
)

func TestPasswdName(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/sh\n# 1000:x\nshort:x:1000\nweb:x:1000:1000::/:\nagain:x:1000:1::/:\n"
	for uid, want := range map[int]string{0: "root", 1000: "web", 1: "", 100: ""} {
		if got := passwdName(passwd, uid); got != want {
			t.Errorf("passwdName(%d) = %q, want %q", uid, got, want)
		}
	}
	if got := passwdName("", 0); got != "" {
		t.Errorf("passwdName of no file = %q, want none", got)
	}
}

func TestIDMap(t *testing.T) {
	for text, want := range map[string][]idRange{
		"         0          0 4294967295\n": {{0, 0, 4294967295}},
		"0 1000 1\n1 100000 65536\n":         {{0, 1000, 1}, {1, 100000, 65536}},
		"":                                   {},
		"0 0\nx 0 1\n0 0 4294967296\n7 8 9":  {{7, 8, 9}},
	} {
		if got := idMap(text); !slices.Equal(got, want) {
			t.Errorf("idMap(%q) = %v, want %v", text, got, want)
		}
	}
	rootless := []idRange{{0, 1000, 1}, {1, 100000, 65536}}
	for id, want := range map[uint32]bool{0: true, 1: true, 65536: true, 65537: false, 1<<32 - 1: false} {
		if got := mapped(rootless, id); got != want {
			t.Errorf("mapped(%d) = %v, want %v", id, got, want)
		}
	}
	if !mapped(nil, 5) || !mapped([]idRange{{0, 0, 1<<32 - 1}}, 1<<32-2) {
		t.Error("mapped() = false where all are, or nothing is known")
	}
}

func TestSeccompMode(t *testing.T) {
	for text, want := range map[string]string{
		"Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n": "filter",
		"Seccomp:\t0\n":         "off",
		"Seccomp:\t1\n":         "strict",
		"Seccomp_filters:\t1\n": "unknown",
		"":                      "unknown",
	} {
		if got := seccompMode(text); got != want {
			t.Errorf("seccompMode(%q) = %q, want %q", text, got, want)
		}
	}
}

// The names are those of the numbers that x/sys knows.
func TestCapabilities(t *testing.T) {
	for n, want := range map[int]string{
		unix.CAP_CHOWN: "CAP_CHOWN", unix.CAP_KILL: "CAP_KILL", unix.CAP_SETUID: "CAP_SETUID", unix.CAP_SETGID: "CAP_SETGID",
		unix.CAP_NET_ADMIN: "CAP_NET_ADMIN", unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN", unix.CAP_SYS_BOOT: "CAP_SYS_BOOT",
		unix.CAP_SYS_NICE: "CAP_SYS_NICE", unix.CAP_SYS_RESOURCE: "CAP_SYS_RESOURCE", unix.CAP_SYSLOG: "CAP_SYSLOG",
		unix.CAP_PERFMON: "CAP_PERFMON", unix.CAP_BPF: "CAP_BPF", unix.CAP_CHECKPOINT_RESTORE: "CAP_CHECKPOINT_RESTORE", 63: "CAP_63",
	} {
		if got := capabilities(1 << n); !slices.Equal(got, []string{want}) {
			t.Errorf("capabilities(1<<%d) = %v, want %s", n, got, want)
		}
	}
	if got := len(strings.Fields(capabilityNames)); got != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d names of capabilities, want %d", got, unix.CAP_LAST_CAP+1)
	}
	all := uint64(1)<<(unix.CAP_LAST_CAP+1) - 1
	for set, want := range map[uint64]string{
		0: "none", all: "all", all &^ (1 << unix.CAP_KILL): "all but KILL", 1<<unix.CAP_KILL | 1: "CHOWN KILL",
	} {
		if got := setText(capabilities(set)); got != want {
			t.Errorf("setText(%#x) = %q, want %q", set, got, want)
		}
	}
}

func TestMountOf(t *testing.T) {
	const table = `22 1 254:0 / / rw - overlay overlay rw,lowerdir=x
23 22 0:5 / /run rw,noexec shared:1 - tmpfs tmpfs rw,size=1k
24 22 0:6 / /proc rw - proc proc rw,hidepid=invisible
25 22 0:7 / /my\040logs rw - ext4 /dev/vdb rw
26 22 0:8 / /run rw - ramfs ramfs rw
bad line
27 22 0:9 / /running rw - xfs x rw
`
	for path, want := range map[string]string{
		"/": "overlay", "/etc": "overlay", "/run": "ramfs", "/run/pazinit": "ramfs", "/runner": "overlay", "/running/x": "xfs",
		"/proc": "proc", "/my logs/a": "ext4", "/my": "overlay",
	} {
		if got := mountOf(table, path).kind; got != want {
			t.Errorf("mountOf(%s) = %s, want %s", path, got, want)
		}
	}
	if got := mountOf(table, "/proc").options; got != "rw,hidepid=invisible" {
		t.Errorf("options of /proc = %q", got)
	}
	if got := mountOf("", "/"); got != (mountLine{}) {
		t.Errorf("mountOf no table = %v", got)
	}
}

func TestDescriptorKind(t *testing.T) {
	for _, tt := range []struct {
		mode, major, minor uint32
		anonymous          bool
		want               string
	}{
		{unix.S_IFIFO | 0o600, 0, 0, true, "pipe"},
		{unix.S_IFIFO | 0o600, 0, 0, false, "fifo"},
		{unix.S_IFREG | 0o644, 0, 0, false, "file"},
		{unix.S_IFSOCK | 0o777, 0, 0, false, "socket"},
		{unix.S_IFDIR | 0o755, 0, 0, false, "folder"},
		{unix.S_IFCHR | 0o666, 1, 3, false, "null"},
		{unix.S_IFCHR | 0o666, 1, 7, false, "device"},
		{unix.S_IFCHR | 0o620, 136, 0, false, "tty"},
		{unix.S_IFCHR | 0o620, 5, 1, false, "tty"},
		{unix.S_IFBLK | 0o660, 8, 0, false, "other"},
	} {
		if got := descriptorKind(tt.mode, tt.major, tt.minor, tt.anonymous); got != tt.want {
			t.Errorf("descriptorKind(%o, %d:%d, %v) = %q, want %q", tt.mode, tt.major, tt.minor, tt.anonymous, got, tt.want)
		}
	}
}

// good is a diagnosis with which nothing is wrong.
func good() *diagnosis {
	d := &diagnosis{Version: "pazinit", Namespaces: map[string]string{}, Features: map[string]string{}}
	for _, kind := range namespaceKinds {
		d.Namespaces[kind] = nsOwn
	}
	d.Place = placeFacts{Text: "PID 1 of a container", PID1: true}
	d.Process = processFacts{PID: 1}
	d.Proc = procFacts{Mounted: true, OwnPIDNS: true}
	d.User = userFacts{UIDMap: []idRange{{0, 0, 1<<32 - 1}}, GIDMap: []idRange{{0, 0, 1<<32 - 1}}, Name: "root", Seccomp: "filter"}
	d.Capabilities.Effective = capabilities(1<<(unix.CAP_LAST_CAP+1) - 1)
	d.Limits = limitFacts{Quota: -1, NoFile: &limitPair{1024, 4096}, PIDs: &limitUse{-1, 3}, Memory: &limitUse{1 << 30, 1 << 20}}
	d.Paths = []pathFacts{{Path: "/", Use: "root", Error: "read-only file system", Exists: true}, {Path: "/run", Use: "run", Exists: true, Writable: true}}
	d.Socket = socketFacts{Path: "/run/pazinit/pazinit.sock", From: "default", Usable: true}
	d.Cgroups = cgroupFacts{Version: "v2", Mount: "/sys/fs/cgroup", MountVersion: 2, Usable: true, Folder: "/sys/fs/cgroup/pazinit", Kill: true}
	for fd := range 3 {
		d.Stdio = append(d.Stdio, stdioFacts{FD: fd, Kind: "pipe", Mode: "0600", SelfCanOpen: true})
	}
	return d
}

// What is wrong is found, and nothing else with it.
func TestJudge(t *testing.T) {
	app := func(change func(w *procfile.Worker)) *procfile.Config {
		w := procfile.NewWorker("shop", "web", procfile.Command{Line: "web"})
		change(w)
		return &procfile.Config{Applications: []*procfile.Application{{Name: "shop", Workers: []*procfile.Worker{w}}}}
	}
	www := &procfile.User{Name: "www", UID: 33, GID: 33, UIDSet: true}
	drop := func(names ...string) func(*diagnosis) {
		return func(d *diagnosis) {
			d.Capabilities.Effective = slices.DeleteFunc(d.Capabilities.Effective, func(s string) bool { return slices.Contains(names, s) })
		}
	}
	old := func(release string) func(*diagnosis) { // what it lacks by its age is nothing to look at
		return func(d *diagnosis) {
			d.Kernel.Release, d.Cgroups.Kill = release, false
			d.Features["pidfd_signal_group"], d.Features["pidfd_get_info"] = "invalid argument", "inappropriate ioctl for device"
		}
	}
	asked := &procfile.Config{Cgroups: procfile.Cgroups{HierarchyRootSet: true}}
	for name, tt := range map[string]struct {
		change func(*diagnosis)
		cfg    *procfile.Config
		want   string // KEY MARK, …
	}{
		"nothing":             {func(*diagnosis) {}, nil, ""},
		"no proc":             {func(d *diagnosis) { d.Proc = procFacts{} }, nil, "place.proc missing"},
		"another's proc":      {func(d *diagnosis) { d.Proc.OwnPIDNS = false }, nil, "place.proc limited"},
		"no subreaper":        {func(d *diagnosis) { d.Process = processFacts{PID: 7, SubreaperNeeded: true} }, nil, "place.subreaper limited"},
		"cap-drop":            {drop("CAP_KILL", "CAP_SYS_BOOT", "CAP_BPF"), nil, "capabilities.CAP_KILL missing"},
		"cap-drop, a machine": {func(d *diagnosis) { drop("CAP_SYS_BOOT")(d); d.Place.Initial = true }, nil, "capabilities.CAP_SYS_BOOT missing"},
		"no priority":         {func(d *diagnosis) { d.Features["raise_priority"] = "permission denied" }, nil, "capabilities.CAP_SYS_NICE limited"},
		"no priority, none": {func(d *diagnosis) {
			drop("CAP_SYS_NICE")(d)
			d.Features["raise_priority"] = "permission denied"
		}, nil, "capabilities.CAP_SYS_NICE missing"},
		"priority by RLIMIT_NICE": {drop("CAP_SYS_NICE"), nil, ""},
		"few files":               {func(d *diagnosis) { d.Limits.NoFile = &limitPair{16, 16} }, nil, "limits.nofile limited"},
		"low, but to be raised":   {func(d *diagnosis) { d.Limits.NoFile = &limitPair{16, 4096} }, nil, ""},
		"few pids":                {func(d *diagnosis) { d.Limits.PIDs = &limitUse{40, 20} }, nil, "limits.pids.max limited"},
		"20 pids":                 {func(d *diagnosis) { d.Limits.PIDs = &limitUse{20, 3} }, nil, "limits.pids.max limited"},
		"19 pids":                 {func(d *diagnosis) { d.Limits.PIDs = &limitUse{19, 3} }, nil, "limits.pids.max bad"},
		"little memory":           {func(d *diagnosis) { d.Limits.Memory = &limitUse{8 << 20, 0} }, nil, "limits.memory limited"},
		"nothing known":           {func(d *diagnosis) { d.Limits = limitFacts{} }, nil, ""},
		"socket":                  {func(d *diagnosis) { d.Socket.Usable, d.Socket.Error = false, "read-only" }, nil, "socket.usable limited"},
		"socket, asked for":       {func(d *diagnosis) { d.Socket.Usable, d.Socket.From = false, "configuration" }, nil, "socket.usable bad"},
		"long socket":             {func(d *diagnosis) { d.Socket.Long = true }, nil, "socket.long limited"},
		"log":                     {func(d *diagnosis) { d.Paths = append(d.Paths, pathFacts{Path: "/x", Use: "log_path", asked: true}) }, nil, "paths./x bad"},
		"cgroups read-only":       {func(d *diagnosis) { d.Cgroups.Usable, d.Cgroups.ReadOnly = false, true }, nil, "cgroups.usable limited"},
		"no cgroups":              {func(d *diagnosis) { d.Cgroups = cgroupFacts{Version: "none"} }, nil, "cgroups.usable missing"},
		"no cgroups, asked for":   {func(d *diagnosis) { d.Cgroups = cgroupFacts{Version: "none"} }, asked, "cgroups.usable missing"},
		"cgroup in use":           {func(d *diagnosis) { d.Cgroups.holder = 9 }, asked, "cgroups.usable bad"},
		"cgroup in use by it":     {func(d *diagnosis) { d.Cgroups.holder = 9; d.Supervisor = &supervisorFacts{PID: 9} }, asked, ""},
		"cgroup in use, not told": {func(d *diagnosis) { d.Cgroups.holder = 9 }, nil, ""},
		"no cgroup.kill":          {func(d *diagnosis) { d.Cgroups.Kill = false }, nil, "cgroups.cgroup.kill limited"},
		"a filter of calls":       {func(d *diagnosis) { d.Features["clone3"] = "function not implemented" }, nil, "features.clone3 limited"},
		"a filter, 6.9":           {old("6.9.0-1-amd64"), nil, "cgroups.cgroup.kill limited, features.pidfd_signal_group limited"},
		"old kernel, 5.10":        {old("5.10.0-46-amd64"), nil, ""},
		"old kernel, not known":   {old("x"), nil, "cgroups.cgroup.kill limited, features.pidfd_signal_group limited, features.pidfd_get_info limited"},
		"stdout a socket":         {func(d *diagnosis) { d.Stdio[1].Kind = "socket" }, nil, "stdio.stdout limited"},
		"stdin a socket":          {func(d *diagnosis) { d.Stdio[0].Kind = "socket" }, nil, ""},
		"supervisor's a socket": {func(d *diagnosis) {
			d.Supervisor = &supervisorFacts{PID: 9, Stdio: []stdioFacts{{FD: 2, Kind: "socket"}}}
		}, nil, "supervisor's stdio.stderr limited"},
		"another's pipe":      {func(d *diagnosis) { d.Stdio[2].SelfCanOpen = false }, nil, "stdio.stderr limited"},
		"user":                {func(*diagnosis) {}, app(func(w *procfile.Worker) { w.User = www }), ""},
		"user, no SETUID":     {drop("CAP_SETUID"), app(func(w *procfile.Worker) { w.User = www }), "capabilities.CAP_SETUID missing, configuration.shop:web.user bad"},
		"user, not mapped":    {func(d *diagnosis) { d.User.UIDMap = []idRange{{0, 1000, 1}} }, app(func(w *procfile.Worker) { w.User = www }), "configuration.shop:web.user bad"},
		"own user, not root":  {func(d *diagnosis) { drop("CAP_SETUID", "CAP_SETGID")(d); d.User.UID, d.User.EUID = 33, 33 }, app(func(w *procfile.Worker) { w.User = www }), ""},
		"user, no KILL":       {drop("CAP_KILL"), app(func(w *procfile.Worker) { w.User = www }), "capabilities.CAP_KILL missing, configuration.shop:web.user bad"},
		"user, none at all":   {drop("CAP_SETUID", "CAP_SETGID", "CAP_KILL"), app(func(w *procfile.Worker) { w.User = www }), "capabilities.CAP_KILL missing, capabilities.CAP_SETUID missing, capabilities.CAP_SETGID missing, configuration.shop:web.user bad"},
		"group alone":         {drop("CAP_SETUID", "CAP_KILL"), app(func(w *procfile.Worker) { w.User = &procfile.User{Name: ":www", GID: 33} }), ""},
		"no user":             {drop("CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_CHOWN"), app(func(*procfile.Worker) {}), ""},
		"socket_owner":        {drop("CAP_CHOWN", "CAP_KILL"), &procfile.Config{SocketOwner: www}, "capabilities.CAP_CHOWN missing"},
		"tty":                 {func(*diagnosis) {}, app(func(w *procfile.Worker) { w.TTY = true }), "configuration.shop:web.tty limited"},
		"inherit as another":  {func(*diagnosis) {}, app(func(w *procfile.Worker) { w.User, w.Stdout.Kind = www, "inherit" }), "stdio.stdout limited"},
		"captured as another": {func(*diagnosis) {}, app(func(w *procfile.Worker) { w.User = www }), ""},
	} {
		d := good()
		tt.change(d)
		var got []string
		for _, l := range doctorJudge(d, tt.cfg) {
			if l.mark != "" && l.mark != markOK {
				got = append(got, l.group+"."+l.name+" "+l.mark)
				if l.mark != markLimited && l.text == "" || l.instead == "" && l.name != "CAP_SYS_BOOT" {
					t.Errorf("%s: %s.%s does not say what, or what is done instead: %+v", name, l.group, l.name, l)
				}
			}
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%s: findings = %s, want %s", name, strings.Join(got, ", "), tt.want)
		}
	}
}

// What a worker's user lacks is said at once, with what gives all of it here.
func TestJudgeUser(t *testing.T) {
	w := procfile.NewWorker("shop", "web", procfile.Command{Line: "web"})
	w.User = &procfile.User{Name: "www", UID: 33, GID: 33, UIDSet: true}
	cfg := &procfile.Config{Applications: []*procfile.Application{{Name: "shop", Workers: []*procfile.Worker{w}}}}
	for name, tt := range map[string]struct {
		uid             int
		host            bool
		lacks           string
		text, give, not string
	}{
		"all":       {0, false, "SETUID SETGID KILL", "shop:web cannot run as www: missing CAP_SETUID, CAP_SETGID, CAP_KILL", "docker or podman run --cap-add SETUID --cap-add SETGID --cap-add KILL; ", "systemd"},
		"kill":      {0, false, "KILL", "shop:web can run as www, but not be stopped: CAP_KILL is missing", "docker or podman run --cap-add KILL; ", "SETUID"},
		"not root":  {1000, false, "SETUID SETGID KILL", "shop:web cannot run as www: missing CAP_SETUID, CAP_SETGID, CAP_KILL", "podman run --user 1000 --cap-add SETUID --cap-add SETGID --cap-add KILL, which gives ambient ones; ", "systemd"},
		"host":      {0, true, "SETGID", "shop:web cannot run as www: missing CAP_SETGID", "systemd: CapabilityBoundingSet=", "docker"},
		"host user": {1000, true, "SETUID SETGID", "shop:web cannot run as www: missing CAP_SETUID, CAP_SETGID", "run it as root; systemd: AmbientCapabilities=CAP_SETUID CAP_SETGID", "podman"},
	} {
		d := good()
		d.User.UID, d.User.EUID, d.Place.host = tt.uid, tt.uid, tt.host
		d.Capabilities.Effective = slices.DeleteFunc(d.Capabilities.Effective, func(s string) bool {
			return slices.Contains(strings.Fields(tt.lacks), strings.TrimPrefix(s, "CAP_"))
		})
		got := doctorLine{}
		for _, l := range doctorJudge(d, cfg) {
			if l.mark == markBad {
				got = l
			}
			if strings.Contains(l.setting, tt.not) {
				t.Errorf("%s: %s.%s advises %q, want nothing of %s", name, l.group, l.name, l.setting, tt.not)
			}
		}
		if got.text != tt.text || !strings.HasPrefix(got.setting, tt.give) {
			t.Errorf("%s: bad = %q, %q, want %q, %q", name, got.text, got.setting, tt.text, tt.give)
		}
	}
}

// What makes cgroups writable depends on their version and on the user.
func TestJudgeCgroup(t *testing.T) {
	for name, tt := range map[string]struct {
		version, uid int
		host         bool
		want, not    []string
	}{
		"v2":       {2, 0, false, []string{"writable-cgroups=true", "unmask=/sys/fs/cgroup", "--privileged"}, []string{"obstacle"}},
		"v1":       {1, 0, false, []string{"docker or podman run --privileged"}, []string{"writable-cgroups", "unmask", "obstacle"}},
		"v2, user": {2, 1000, false, []string{"the user is an obstacle too", "delegated to uid 1000", "writable-cgroups=true", "--privileged"}, []string{"unmask"}},
		"v1, user": {1, 1000, false, []string{"the user is an obstacle too", "delegated to uid 1000", "--privileged"}, []string{"unmask", "writable-cgroups"}},
		"host":     {2, 0, true, []string{"mount -o remount,rw /sys/fs/cgroup"}, []string{"docker", "podman"}},
	} {
		d := good()
		d.User.UID, d.User.EUID, d.Place.host = tt.uid, tt.uid, tt.host
		d.Cgroups = cgroupFacts{Version: "v2", Mount: "/sys/fs/cgroup", MountVersion: tt.version, ReadOnly: true, Error: "read-only"}
		lines := doctorJudge(d, nil)
		give := lines[slices.IndexFunc(lines, func(l doctorLine) bool { return l.group == "cgroups" && l.mark == markLimited })].setting
		for _, part := range tt.want {
			if !strings.Contains(give, part) {
				t.Errorf("%s: %q lacks %q", name, give, part)
			}
		}
		for _, part := range tt.not {
			if strings.Contains(give, part) {
				t.Errorf("%s: %q has %q", name, give, part)
			}
		}
	}
}

// The quota is the least of the groups that can be seen.
func TestCPUQuota(t *testing.T) {
	for name, tt := range map[string]struct {
		version int
		files   map[string]string
		want    int64
	}{
		"none":      {2, nil, -1},
		"max":       {2, map[string]string{"a/b/cpu.max": "max 100000\n"}, -1},
		"own":       {2, map[string]string{"a/b/cpu.max": "50000 100000\n", "cpu.max": "200000 100000\n"}, 500},
		"above":     {2, map[string]string{"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "150000 100000\n"}, 1500},
		"v1":        {1, map[string]string{"a/b/cpu.cfs_quota_us": "25000\n", "a/b/cpu.cfs_period_us": "100000\n"}, 250},
		"v1, none":  {1, map[string]string{"a/b/cpu.cfs_quota_us": "-1\n", "a/b/cpu.cfs_period_us": "100000\n"}, -1},
		"no number": {2, map[string]string{"a/b/cpu.max": "5 0\n", "a/cpu.max": "x 1\n"}, -1},
	} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, "a/b"), 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range tt.files {
			if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := cpuQuota(&cgroupfs.View{Mount: root, Own: filepath.Join(root, "a/b"), Version: tt.version}); got != tt.want {
			t.Errorf("%s: cpuQuota() = %d, want %d", name, got, tt.want)
		}
	}
}

// The table, and that names chosen by others steer no terminal.
func TestDoctorTable(t *testing.T) {
	d := good()
	d.Stdio[1] = stdioFacts{FD: 1, Kind: "file", Name: "/tmp/\x1b[31mred\n", Mode: "0644", SelfCanOpen: true}
	d.Socket.Usable, d.Socket.Error = false, "use folder /run/pazinit: read-only file system"
	text := doctorTable(doctorJudge(d, nil))
	if strings.Contains(text, "\x1b") {
		t.Errorf("an escape comes through: %q", text)
	}
	golden(t, "doctor.txt", text)
	d.Limits.PIDs, d.Limits.CPUs, d.Limits.Quota = &limitUse{10, 3}, 4, 1500
	text = doctorTable(doctorJudge(d, nil))
	const end = `
To look at
bad      limits.pids.max: 10 processes and threads; pazinit itself needs about 20
limited  socket.usable: no: use folder /run/pazinit: read-only file system

28 ok, 1 limited, 0 missing, 1 bad: what is asked for and cannot work here
`
	if !strings.HasSuffix(text, end) || !strings.Contains(text, "4, quota 1.5\n") {
		t.Errorf("doctorTable() = %s\nwant at its end %s", text, end)
	}
}

// What older kernels have no fixed inode for is found another way.
func TestOwnOrNot(t *testing.T) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	want := lookNamespace("net", true)
	if got := ownOrNot("net", "/proc/self/ns/net", st.Ino, true); got != want {
		t.Errorf("ownOrNot(net) = %s, want %s", got, want)
	}
	for release, want := range map[string]bool{
		"6.18.44-fc": true, "6.18": true, "6.19-rc1": true, "7.0.1": true, "6.17.9": false, "5.99.1": false, "6.1.0-41-amd64": false, "": false, "6": false, "6.x": false,
	} {
		if got := atLeast(release, 6, 18); got != want {
			t.Errorf("atLeast(%q) = %v, want %v", release, got, want)
		}
	}
}

// Keys are only ever added: those of testdata stay. -update adds the new ones.
func TestDoctorKeys(t *testing.T) {
	var keys []string
	var walk func(prefix string, of reflect.Type)
	walk = func(prefix string, of reflect.Type) {
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if of.Kind() == reflect.Slice {
			walk(prefix+"[]", of.Elem())
			return
		}
		if of.Kind() != reflect.Struct {
			keys = append(keys, strings.TrimPrefix(prefix, ".")+" "+of.String())
			return
		}
		for i := range of.NumField() {
			if tag, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ","); tag != "" {
				walk(prefix+"."+tag, of.Field(i).Type)
			}
		}
	}
	walk("", reflect.TypeFor[diagnosis]())
	for name := range lookFeatures() {
		keys = append(keys, "features."+name+" string")
	}
	for _, kind := range namespaceKinds {
		keys = append(keys, "namespaces."+kind+" string")
	}
	slices.Sort(keys)
	golden(t, "doctor-keys.txt", strings.Join(keys, "\n")+"\n")
}

func TestFeaturesHaveARow(t *testing.T) {
	got := lookFeatures()
	if len(got) != len(featureTable) {
		t.Errorf("lookFeatures() = %d, want %d", len(got), len(featureTable))
	}
	for i := range capabilityTable {
		if f := capabilityTable[i].feature; f != "" {
			if _, ok := got[f]; !ok {
				t.Errorf("feature %s of %s is not tried", f, capabilityTable[i].name)
			}
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(lookFeatures()) {
		t.Error("lookFeatures() changes what it looks at")
	}
}
