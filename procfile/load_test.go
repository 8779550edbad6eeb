package procfile

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the generated files anew")

const (
	passwd = "root:x:0:0:root:/root:/bin/bash\n" +
		"damaged:x:abc:def::/:/bin/sh\n" +
		"deploy:x:1000:1000:Deploy:/home/deploy:/bin/zsh\n" +
		"nobody:x:65534:65534:nobody:/nonexistent:\n"
	group = "root:x:0:\nadm:x:4:deploy,root\ndeploy:x:1000:deploy\nwww:x:33:nobody,deploy\nnogroup:x:65534:\n"
)

// tree writes files, given as "-- NAME --" and their text, into a new directory.
func tree(t *testing.T, files string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "passwd", passwd)
	write(t, dir, "group", group)
	for _, part := range strings.Split("\n"+files, "\n-- ")[1:] {
		name, text, _ := strings.Cut(part+"\n", " --\n")
		write(t, dir, name, text)
	}
	return dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func options(dir string) Options {
	return Options{
		Config: "p.yaml", Dir: dir, System: filepath.Join(dir, "none"),
		Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group"),
	}
}

// load reads p.yaml of the files as root would.
func load(t *testing.T, files string) *Config {
	t.Helper()
	c, err := Load(options(tree(t, files)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func worker(t *testing.T, c *Config, app, name string) *Worker {
	t.Helper()
	for _, a := range c.Applications {
		for _, w := range a.Workers {
			if a.Name == app && w.Name == name {
				return w
			}
		}
	}
	t.Fatalf("no worker %s:%s", app, name)
	return nil
}

func TestDefaults(t *testing.T) {
	c := load(t, `
-- p.yaml --
applications:
  myapp:
    procfile: Procfile
-- Procfile --
myworker: sleep 1h  `)
	got := worker(t, c, "myapp", "myworker")
	want := NewWorker("myapp", "myworker", Command{Line: "sleep 1h", Argv: []string{"sleep", "1h"}})
	want.Pos, want.Dir = got.Pos, filepath.Dir(c.Applications[0].Procfile)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got, want := got.Pos, (Position{c.Applications[0].Procfile, 1, 1}); got != want {
		t.Errorf("Pos = %v, want %v", got, want)
	}
	cg := Cgroups{HierarchyRoot: "pazinit", Subsystems: []string{"memory", "cpu", "cpuacct", "blkio"}, FSRoot: "/sys/fs/cgroup"}
	if !reflect.DeepEqual(c.Cgroups, cg) {
		t.Errorf("Cgroups = %+v, want %+v", c.Cgroups, cg)
	}
	if c.OutputRing != 64<<10 || c.ConsoleFull != "block" || c.EndWhen != "any" || c.OnEnd != "" || c.LogPath != "" {
		t.Errorf("Config = %+v, want the defaults", c)
	}
}

// Every key, each with a value that is not its default.
const everything = `
-- p.yaml --
log_path: log/own
socket_path: run/p.sock
socket_mode: 0660
socket_owner: deploy:www
pid_file: run/p.pid
output_ring: 128KiB
console_full: drop
syslog: true
shutdown_timeout: 1m
end_when: all
on_end: reboot
mounts:
  - {device: LABEL=data, path: /data/, type: ext4, options: "ro,noatime", wait: 3s, optional: true}
  - {type: tmpfs, path: /scratch, options: [size=1m, mode=0700]}
machine:
  hostname: shop-1
  console: /dev/hvc0
  cgroup_version: hybrid
  root_writable: false
  fstab: true
  swaps: [/dev/vdb, LABEL=swap]
  zram: 25%
  modules: [virtio_net, softdog soft_margin=5]
  sysctls: {net.ipv4.ip_forward: 1, kernel/hung_task_panic: "0"}
  entropy_seed: /data/seed
  watchdog: 20s
  watchdog_device: watchdog1
  emergency: shell
  reboot_delay: 1s
  panic_timeout: 5s
  ctrl_alt_del: ignore
  power_button: reboot
  debug_exit: 0xf4
  dns: ["192.0.2.53", "2001:db8::53"]
  search: example.org
  network:
    eth0: {dhcp: true, optional: true, mtu: 1400, ipv6_ra: false}
    eth0.7: {vlan: 7, parent: eth0}
    br-lan: {bridge: [eth1], addresses: [192.0.2.7/24], gateway: [192.0.2.1, "2001:db8::1"], routes: [10.0.0.0/8 via 192.0.2.2, "2001:db8:1::/48"]}
access: {status: ["user:nobody", "group:www"], restart: "group:4"}
cgroups: {hierarchy_root: a/b, subsystems: memory, fs_root: /cg}
include: more.yaml
applications:
  shop:
    procfile: .
    port_base: 8000
    access: {logs: ["group:adm"]}
    user: deploy
    group: www
    cwd: data
    umask: 027
    env: {A: app, B: app}
    env_file: [one.env, two.env]
    env_inherit: [PATH, LANG]
    restart: on-failure
    success_codes: [0, 3]
    backoff: {base: 1s, factor: 1.5, max: 1m, jitter: 0%}
    healthy_after: 20s
    max_restarts: unlimited
    restart_window: 2m
    retry_after: off
    retry_times: 7
    stop_signal: [QUIT 30s, INT, KILL]
    stop_timeout: 3s
    stop_to: tree
    priority: 5
    autostart: false
    essential: true
    wait_for: network
    stdout: {file: out.log, rotate_size: 10MiB}
    stderr: "null"
    workers:
      web:
        command_line: puma -p $PORT
        num_instances: 3
        env: {B: web, C: web}
        backoff: {max: 2m}
        stdout: {dir: logs, rotate_size: 1.5kB, rotate_keep: 0}
        stderr: {pipe_to: logger -t web}
        stop_signal: 2
        access: {stop: ["user:33"]}
      one:
        wait_for: []
        run: /bin/echo
        args: ["a b", "", $HOME, "*", 80]
        restart: false
        user: 4000
        tty: true
        pid_file: one.pid
        env_inherit: false
        max_restarts: 3
        retry_times: unlimited
        retry_after: 1h
        success_codes: 4
        stdout: inherit
      all: {num_instances: cpus}
-- more.yaml --
-- Procfile --
web: nothing
one: nothing
all: $X
-- .env --
A=dotenv
D=dotenv
PORT=3000
-- one.env --
E=one
F="one\ntwo"
-- two.env --
export E=two
`

func TestEveryKey(t *testing.T) {
	c := load(t, everything)
	dir := c.Applications[0].Dir
	in := func(p string) string { return filepath.Join(dir, p) }
	if got, want := c.Files, []string{in("p.yaml"), in("more.yaml"), in("Procfile"), in(".env"), in("one.env"), in("two.env")}; !reflect.DeepEqual(got, want) {
		t.Errorf("Files = %v, want %v", got, want)
	}
	top := *c
	top.Files, top.Applications = nil, nil
	want := Config{
		LogPath: in("log/own"), SocketPath: in("run/p.sock"), SocketMode: 0o660,
		SocketOwner: &User{Name: "deploy", UID: 1000, GID: 33, Groups: []uint32{4}, Home: "/home/deploy", Login: "deploy", Shell: "/bin/zsh", UIDSet: true, GIDSet: true},
		PIDFile:     in("run/p.pid"), OutputRing: 128 << 10, ConsoleFull: "drop", Syslog: new(true), ShutdownTimeout: time.Minute, EndWhen: "all", OnEnd: "reboot",
		Access: Access{
			"status":  {{ID: 65534, Name: "user:nobody"}, {Group: true, ID: 33, Name: "group:www"}},
			"restart": {{Group: true, ID: 4, Name: "group:4"}},
		},
		Cgroups: Cgroups{HierarchyRoot: "a/b", HierarchyRootSet: true, Subsystems: []string{"memory"}, FSRoot: "/cg"},
		Mounts: []Mount{
			{Device: "LABEL=data", Path: "/data", Type: "ext4", Options: []string{"ro", "noatime"}, Wait: 3 * time.Second, WaitSet: true, Optional: true},
			{Type: "tmpfs", Path: "/scratch", Options: []string{"size=1m", "mode=0700"}, Wait: 10 * time.Second},
		},
		Machine: Machine{
			Hostname: "shop-1", Console: "hvc0", CgroupVersion: "hybrid", Fstab: true, Swaps: []string{"/dev/vdb", "LABEL=swap"}, ZramShare: 0.25,
			Modules: []string{"virtio_net", "softdog soft_margin=5"}, Sysctls: []Setting{{"net.ipv4.ip_forward", "1"}, {"kernel/hung_task_panic", "0"}},
			EntropySeed: "/data/seed", Watchdog: 20 * time.Second, WatchdogDevice: "/dev/watchdog1", Emergency: "shell", RebootDelay: time.Second,
			PanicTimeout: 5 * time.Second, CtrlAltDel: "ignore", PowerButton: "reboot", DebugExit: 0xf4,
			DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")}, Search: []string{"example.org"},
			Network: []Interface{
				{Name: "eth0", DHCP: true, Optional: true, MTU: 1400, IPv6RA: new(false)},
				{Name: "eth0.7", VLAN: 7, Parent: "eth0"},
				{Name: "br-lan", IsBridge: true, Bridge: []string{"eth1"}, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")},
					Gateways: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
					Routes: []Route{
						{To: netip.MustParsePrefix("10.0.0.0/8"), Via: netip.MustParseAddr("192.0.2.2")}, {To: netip.MustParsePrefix("2001:db8:1::/48")},
					}},
			},
		},
	}
	for i := range top.Mounts {
		if top.Mounts[i].Pos.Line == 0 {
			t.Errorf("mount %d has no position", i)
		}
		top.Mounts[i].Pos = Position{}
	}
	for i := range top.Machine.Network {
		if top.Machine.Network[i].Pos.Line == 0 {
			t.Errorf("interface %d has no position", i)
		}
		top.Machine.Network[i].Pos = Position{}
	}
	if !reflect.DeepEqual(top, want) {
		t.Errorf("Config = %+v\nwant     %+v", top, want)
	}
	app := c.Applications[0]
	if app.PortBase != 8000 || app.Procfile != in("Procfile") || !reflect.DeepEqual(app.Access, Access{"logs": {{Group: true, ID: 4, Name: "group:adm"}}}) {
		t.Errorf("Application = %+v", app)
	}
	deploy := *want.SocketOwner
	web := Worker{
		App: "shop", Name: "web", Pos: Position{in("Procfile"), 1, 1},
		Command:      Command{Line: "puma -p $PORT", Argv: []string{"/bin/sh", "-c", "exec puma -p $PORT"}, Shell: true},
		NumInstances: 3,
		Env:          []string{"A=app", "B=web", "C=web", "D=dotenv", "E=two", "F=one\ntwo"},
		EnvInherit:   Inherit{Names: []string{"PATH", "LANG"}},
		Dir:          in("data"), User: &deploy, Umask: 0o27,
		Stdin:    "null",
		Stdout:   Target{Kind: "dir", Path: in("logs"), RotateSize: 1500},
		Stderr:   Target{Kind: "pipe", Command: "logger -t web", Pipe: Command{Line: "logger -t web", Argv: []string{"logger", "-t", "web"}}},
		Priority: 5, Essential: true, WaitFor: []string{"network"},
		Restart: "on-failure", SuccessCodes: []int{0, 3},
		Backoff:      Backoff{Base: time.Second, Factor: 1.5, Max: 2 * time.Minute},
		HealthyAfter: 20 * time.Second, RestartWindow: 2 * time.Minute, RetryTimes: 7,
		Stop: []StopStep{{syscall.SIGINT, 3 * time.Second}}, StopTo: "tree",
		Access: Access{"stop": {{ID: 33, Name: "user:33"}}},
	}
	if got := *worker(t, c, "shop", "web"); !reflect.DeepEqual(got, web) {
		t.Errorf("web = %+v\nwant  %+v", got, web)
	}
	one := web
	one.Name, one.Pos, one.NumInstances, one.Access = "one", Position{in("Procfile"), 2, 1}, 1, nil
	one.WaitFor = nil
	one.Command = Command{Line: "/bin/echo 'a b' '' '$HOME' '*' 80", Argv: []string{"/bin/echo", "a b", "", "$HOME", "*", "80"}}
	one.Env = []string{"A=app", "B=app", "D=dotenv", "E=two", "F=one\ntwo"}
	one.EnvInherit = Inherit{}
	one.User = &User{Name: "4000", UID: 4000, GID: 33, Home: "/", Shell: "/bin/sh", UIDSet: true, GIDSet: true}
	one.Stdin, one.TTY, one.Stdout, one.Stderr = "inherit", true, Target{Kind: "inherit"}, Target{Kind: "null"}
	one.PIDFile, one.Restart, one.SuccessCodes = in("one.pid"), "never", []int{4}
	one.Backoff.Max, one.MaxRestarts, one.RetryTimes, one.RetryAfter = time.Minute, 3, 0, time.Hour
	one.Stop = []StopStep{{syscall.SIGQUIT, 30 * time.Second}, {syscall.SIGINT, 3 * time.Second}}
	if got := *worker(t, c, "shop", "one"); !reflect.DeepEqual(got, one) {
		t.Errorf("one = %+v\nwant  %+v", got, one)
	}
	all := worker(t, c, "shop", "all")
	if !all.PerCPU || !reflect.DeepEqual(all.Stdout, Target{Kind: "file", Path: in("out.log"), RotateSize: 10 << 20, RotateKeep: 5}) {
		t.Errorf("all = %+v", all)
	}
}

// Workers without an environment of their own share their application's.
func TestEnvIsShared(t *testing.T) {
	c := load(t, "-- p.yaml --\napplications: {a: {procfile: Procfile, env: {A: x}}}\n-- Procfile --\na: a\nb: b\n")
	a, b := worker(t, c, "a", "a"), worker(t, c, "a", "b")
	if &a.Env[0] != &b.Env[0] {
		t.Error("two workers have the same environment twice")
	}
}

func TestEveryKeyIsTested(t *testing.T) {
	for _, k := range Keys() {
		if k.Name != "hiearchy_root" && k.Name != "stdin" && !strings.Contains(everything, k.Name+":") {
			t.Errorf("no test sets %s", k.Name)
		}
	}
}

func TestPazuzu(t *testing.T) {
	c := load(t, `
-- p.yaml --
log_path: /var/log/pazuzu.log
socket_path: /var/run/pazuzud.socket
include: /nowhere/*.conf
cgroups:
  hiearchy_root: pazuzu
  subsystems: [memory, cpu, cpuacct, blkio]
  fs_root: /sys/fs/cgroup
applications:
  foo:
    procfile: srv
    user: nobody
    group: www
    workers:
      bar:
        num_instances: 2
        command_line: sleep 2h
-- srv/Procfile --
main: bundle exec unicorn -c config/unicorn.rb config.ru
bar:sleep 1h
`)
	bar := worker(t, c, "foo", "bar")
	if bar.NumInstances != 2 || bar.Command.Line != "sleep 2h" || bar.User.UID != 65534 || bar.User.GID != 33 || len(bar.User.Groups) != 0 {
		t.Errorf("bar = %+v, %+v", bar, bar.User)
	}
	if c.Cgroups.HierarchyRoot != "pazuzu" || !c.Cgroups.HierarchyRootSet || c.SocketPath != "/var/run/pazuzud.socket" {
		t.Errorf("Config = %+v", c)
	}
}

func TestIncludeOrder(t *testing.T) {
	files := `
-- a.yaml --
applications: {x: {workers: {w: {num_instances: 1, env: {A: a}, stdout: {dir: /d}}}}}
-- conf.d/1.yaml --
include: deep/*.yaml
applications: {x: {workers: {w: {num_instances: 2, env: {B: b}}}}}
-- conf.d/2.yaml --
applications: {x: {workers: {w: {num_instances: 3, stdout: {file: /f}}}}}
log_path: two
-- conf.d/deep/y.yaml --
applications: {y: {procfile: ../../Procfile}}
-- Procfile --
w: sleep 1
-- p.yaml --
applications: {x: {procfile: Procfile, workers: {w: {num_instances: 9, env: {}}}}}
include: `
	for _, list := range []string{"[a.yaml, conf.d/*.yaml, 'none/*.yaml']", "\n- a.yaml\n- conf.d/[12].yaml"} {
		c := load(t, files+list)
		w := worker(t, c, "x", "w")
		if w.NumInstances != 3 || !reflect.DeepEqual(w.Env, []string{"A=a", "B=b"}) || w.Stdout.Kind != "file" {
			t.Errorf("%s: w = %+v", list, w)
		}
		if len(c.Applications) != 2 || worker(t, c, "y", "w") == nil {
			t.Errorf("%s: %d applications, want 2", list, len(c.Applications))
		}
		if want := filepath.Join(filepath.Dir(c.Files[0]), "conf.d/two"); c.LogPath != want {
			t.Errorf("%s: LogPath = %s, want %s", list, c.LogPath, want)
		}
	}
}

// A glob is in what the file says, not in where the file is.
func TestIncludeInOddFolder(t *testing.T) {
	opts := options(tree(t, "-- a[b]*/p.yaml --\ninclude: '*.yml'\n-- a[b]*/q.yml --\nlog_path: syslog\n"))
	opts.Config = "a[b]*/p.yaml"
	if c, err := Load(opts); err != nil || c.LogPath != "syslog" {
		t.Errorf("%v, %v", c, err)
	}
}

func TestYAML(t *testing.T) {
	c := load(t, `
-- p.yaml --
applications:
  a: &a
    procfile: Procfile
    env: &env {A: "1", B: yes, C: 1.10, D: 0700}
  b:
    <<: *a
    env:
      <<: [*env, {E: e}]
      A: 2
-- Procfile --
w: x
`)
	if got, want := worker(t, c, "b", "w").Env, []string{"A=2", "B=yes", "C=1.10", "D=0700", "E=e"}; !reflect.DeepEqual(got, want) {
		t.Errorf("Env = %v, want %v", got, want)
	}
	// JSON is YAML, and an empty file says nothing.
	load(t, "-- p.yaml --\n{\"applications\": {\"a\": {\"procfile\": \"Procfile\"}}}\n-- Procfile --\nw: x")
	load(t, "-- p.yaml --\n# nothing\n")
}

func TestFind(t *testing.T) {
	names := func(c *Config) (all []string) {
		for _, a := range c.Applications {
			all = append(all, a.Name)
		}
		return all
	}
	dir := tree(t, "-- my app.d/Procfile --\nweb: x\n")
	app := filepath.Join(dir, "my app.d")
	opts := options(app)
	opts.Config, opts.UID = "", 1000

	if c, err := Load(opts); err != nil || !reflect.DeepEqual(names(c), []string{"my-app-d"}) {
		t.Fatalf("Procfile alone: %v, %v", c, err)
	}
	write(t, app, "pazinit.yaml", "applications: {local: {procfile: .}}")
	if c, err := Load(opts); err != nil || names(c)[0] != "local" {
		t.Fatalf("pazinit.yaml: %v, %v", c, err)
	}
	write(t, dir, "etc.yaml", "applications: {system: {procfile: 'my app.d'}}")
	opts.System = filepath.Join(dir, "etc.yaml")
	if c, err := Load(opts); err != nil || names(c)[0] != "system" {
		t.Fatalf("system: %v, %v", c, err)
	}

	// -f alone reads no configuration; with -c it adds or takes the place.
	opts.Procfile = "."
	if c, err := Load(opts); err != nil || names(c)[0] != "my-app-d" {
		t.Fatalf("-f alone: %v, %v", c, err)
	}
	opts.Config = "pazinit.yaml"
	if c, err := Load(opts); err != nil || !reflect.DeepEqual(names(c), []string{"local", "my-app-d"}) {
		t.Fatalf("-c and -f: %v, %v", c, err)
	}
	write(t, app, "pazinit.yaml", "applications: {my-app-d: {procfile: /nowhere, priority: 3}}")
	if c, err := Load(opts); err != nil || worker(t, c, "my-app-d", "web").Priority != 3 {
		t.Fatalf("-c and -f of the same name: %v, %v", c, err)
	}

	opts = options(t.TempDir())
	opts.Config = ""
	if _, err := Load(opts); !errors.Is(err, ErrNotFound) {
		t.Errorf("nothing there: %v, want ErrNotFound", err)
	}
}

func TestAppName(t *testing.T) {
	for dir, want := range map[string]string{"/": "app", "/srv/shop": "shop", "/srv/my app": "my-app", "/x/..": "app", "/ü": "app", "/srv/a.b": "a-b"} {
		if got := AppName(dir); got != want {
			t.Errorf("AppName(%q) = %q, want %q", dir, got, want)
		}
	}
}

// To root, what was found must be root's alone.
func TestFoundByRoot(t *testing.T) {
	for _, test := range []struct {
		name      string
		file, dir os.FileMode
		env       os.FileMode
		owner     int
		want      string
	}{
		{"others write the file", 0o646, 0o755, 0o644, 0, "write"},
		{"group writes the file", 0o664, 0o755, 0o644, 0, "write"},
		{"others write the folder", 0o644, 0o777 | os.ModeSticky, 0o644, 0, "write"},
		{"group writes .env", 0o644, 0o755, 0o664, 0, ".env"},
		{"another's file", 0o644, 0o755, 0o644, 1000, "user 1000"},
		{"root's alone", 0o644, 0o755, 0o644, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := tree(t, "-- Procfile --\nw: x\n-- .env --\nA=b\n")
			file := filepath.Join(dir, "Procfile")
			for path, mode := range map[string]os.FileMode{file: test.file, dir: test.dir, filepath.Join(dir, ".env"): test.env} {
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
			}
			want := test.want
			if os.Getuid() != 0 {
				// Whoever runs this is the other user.
				want = fmt.Sprintf("user %d", os.Getuid())
			} else if err := os.Chown(file, test.owner, 0); err != nil {
				t.Fatal(err)
			}
			opts := options(dir)
			opts.Config = ""
			_, err := Load(opts)
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("found: %v, want %q", err, want)
			}
			opts.Procfile = file
			if _, err := Load(opts); err != nil {
				t.Errorf("named: %v", err)
			}
			opts.Procfile, opts.UID = "", 1000
			if _, err := Load(opts); err != nil {
				t.Errorf("found by another user: %v", err)
			}
		})
	}
}

func TestUsers(t *testing.T) {
	dir := tree(t, "")
	a := accounts{passwd: filepath.Join(dir, "passwd"), group: filepath.Join(dir, "group")}
	none := accounts{passwd: filepath.Join(dir, "none"), group: filepath.Join(dir, "none")}
	for _, test := range []struct {
		in   *accounts
		spec string
		want string
	}{
		{&a, "deploy", "1000:1000 [4 33] /home/deploy deploy /bin/zsh"},
		{&a, "1000", "1000:1000 [] /home/deploy deploy /bin/zsh"},
		{&a, "nobody", "65534:65534 [33] /nonexistent nobody /bin/sh"},
		{&a, "0", "0:0 [] /root root /bin/bash"},
		{&a, "77", "77:77 [] /  /bin/sh"},
		{&a, "damaged", `no user "damaged"`},
		{&a, "depoy", `no user "depoy" (did you mean deploy?)`},
		{&a, "4294967295", `"4294967295" is no id, they end at 4294967294`},
		{&none, "65534", "65534:65534 [] /  /bin/sh"},
		{&none, "nobody", `look up user "nobody": open ` + dir + `/none: no such file or directory`},
	} {
		u, err := test.in.user(test.spec)
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprintf("%d:%d %v %s %s %s", u.UID, u.GID, u.Groups, u.Home, u.Login, u.Shell)
		}
		if got != test.want {
			t.Errorf("user(%q) = %s, want %s", test.spec, got, test.want)
		}
	}
}

func TestNotRoot(t *testing.T) {
	dir := tree(t, "-- p.yaml --\napplications: {a: {procfile: Procfile, user: 1000, group: 1000}}\n-- Procfile --\nw: x\n")
	opts := options(dir)
	opts.UID, opts.GID = 1000, 1000
	if _, err := Load(opts); err != nil {
		t.Errorf("the own user: %v", err)
	}
	opts.UID, opts.GID = 1001, 1000
	if _, err := Load(opts); err == nil || !strings.Contains(err.Error(), "only root") {
		t.Errorf("another user: %v", err)
	}
	opts.UID, opts.GID = 1000, 1001
	if _, err := Load(opts); err == nil || !strings.Contains(err.Error(), "only root") {
		t.Errorf("another group: %v", err)
	}
}

func TestSocketPath(t *testing.T) {
	dir := tree(t, "-- p.yaml --\ninclude: q.yaml\napplications: {a: {nonsense: 1}}\n-- q.yaml --\nsocket_path: s\n-- r.yaml --\n")
	for file, want := range map[string]string{"p.yaml": filepath.Join(dir, "s"), "r.yaml": ""} {
		if got, err := SocketPath(filepath.Join(dir, file)); got != want || err != nil {
			t.Errorf("SocketPath(%s) = %q, %v, want %q", file, got, err, want)
		}
	}
	if _, err := SocketPath(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("SocketPath(none): %v", err)
	}
}

// 1,000 workers must not cost a copy of everything each.
func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	var lines strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&lines, "w%d: sleep %d\n", i, i)
	}
	if err := os.WriteFile(filepath.Join(dir, "Procfile"), []byte(lines.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(Options{Procfile: dir, UID: 1}); err != nil {
			b.Fatal(err)
		}
	}
}
