package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/machine"
	"github.com/pazinit/pazinit/machine/network"
	"github.com/pazinit/pazinit/procfile"
	"github.com/pazinit/pazinit/reaper/signals"
)

// newHost is a machine's init that does nothing.
func newHost() (*host, *bytes.Buffer) {
	var out bytes.Buffer
	return &host{c: &command{stdout: &out, stderr: &out}, up: newNetUp(), ready: make(chan struct{})}, &out
}

func TestBootStepsRun(t *testing.T) {
	var did []string
	note := func(name string, err error) step {
		return step{name: name, do: func(*host) error { did = append(did, name); return err }}
	}
	fatal := note("root", errors.New("not found"))
	fatal.fatal = true
	h, out := newHost()
	err := h.run([]step{
		note("mounts", nil), note("console", errors.New("there is none")),
		{name: "clock", do: func(*host) error { did = append(did, "clock"); panic("a slip") }},
		note("swap", errors.Join(errors.New("a"), errors.Join(errors.New("b"), errors.New("c")))),
		fatal, note("never", nil),
	})
	if err == nil || err.Error() != "root: not found" {
		t.Errorf("run: %v", err)
	}
	if got, want := strings.Join(did, " "), "mounts console clock swap root"; got != want {
		t.Errorf("did %s, want %s", got, want)
	}
	for _, want := range []string{"pazinit: console: there is none\n", "pazinit: clock: a fault of pazinit: a slip\n", "swap: a\n", "swap: b\n", "swap: c\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it did not say %q but\n%s", want, out)
		}
	}
}

// TestBootOrder holds what must come before what.
func TestBootOrder(t *testing.T) {
	place := map[string]int{}
	for i, s := range bootSteps {
		if _, twice := place[s.name]; twice || s.name == "" || s.do == nil {
			t.Errorf("step %d: %q", i, s.name)
		}
		place[s.name] = i
	}
	for _, tt := range [][]string{
		{"mount /proc, /sys, /dev and the like", "open the console", "read the kernel's command line", "move to the root", "open a shell", "read the configuration"},
		{"mount /proc, /sys, /dev and the like", "set kernel.panic", "open the console", "look at the image", "load the image's modules", "listen to the buttons", "move to the root"},
		{"load modules", "listen to the modules' buttons"},
		{"read the configuration", "load modules", "start the watchdog", "mount what mounts and fstab list"},
		{"read the configuration", "make the root writable", "mount what mounts and fstab list", "swap"},
		{"mount what mounts and fstab list", "feed the entropy seed"},
		{"make the root writable", "find the machine's id"},
		{"load modules", "sysctls"},
	} {
		for i, name := range tt {
			if _, ok := place[name]; !ok {
				t.Errorf("there is no step %q", name)
			}
			if i > 0 && place[tt[i-1]] >= place[name] {
				t.Errorf("%q comes before %q", name, tt[i-1])
			}
		}
	}
	for _, s := range bootSteps {
		if s.fatal != slices.Contains([]string{"look at the image", "move to the root", "read the configuration", "mount what mounts and fstab list"}, s.name) {
			t.Errorf("%s: fatal %t", s.name, s.fatal)
		}
	}
}

func TestEndStepsRun(t *testing.T) {
	var did, said []string
	e := &ending{what: "kexec", say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }}
	note := func(name string, err error) endStep {
		return endStep{name, func(*ending) error { did = append(did, name); return err }, time.Minute, nil}
	}
	hang := make(chan struct{})
	defer close(hang)
	err := e.carryOut([]endStep{
		note("kill", nil), note("clock", fmt.Errorf("no clock: %w", errors.ErrUnsupported)), note("swap", errors.New("busy")),
		{"sync", func(*ending) error { <-hang; return nil }, time.Millisecond, func() error { did = append(did, "force"); return unix.EPERM }},
		{"seed", func(*ending) error { panic("a slip") }, time.Minute, nil},
		note("unmount", nil),
	}, func(what, _ string) error { did = append(did, what); return unix.EPERM })
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("carryOut: %v", err)
	}
	if got, want := strings.Join(did, " "), "kill clock swap force unmount kexec reboot"; got != want {
		t.Errorf("did %s, want %s", got, want)
	}
	want := []string{"swap: busy", "sync: it takes longer than 1ms and is left", "sync: operation not permitted", "seed: a fault of pazinit: a slip", "kexec was refused: operation not permitted; rebooting"}
	if !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
}

// TestEndFeeds has the watchdog fed while a step takes its time, and no longer than
// its limit.
func TestEndFeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fed := 0
		var said []string
		e := &ending{
			what: "reboot", say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) },
			feed: func() error { fed++; return errors.New("refused") }, each: 2500 * time.Millisecond,
		}
		hang := make(chan struct{})
		begin := time.Now()
		_ = e.carryOut([]endStep{
			{"sync", func(*ending) error { time.Sleep(101 * time.Second); return nil }, 10 * time.Minute, nil},
			{"unmount", func(*ending) error { <-hang; return nil }, 20 * time.Second, nil},
		}, func(string, string) error { return nil })
		close(hang)
		if got := time.Since(begin); fed < 46 || fed > 52 || got != 121*time.Second {
			t.Errorf("fed %d times in %v, want about 49 in 2m1s", fed, got)
		}
		want := []string{"sync: it takes its time; it is left after 10m0s", "unmount: it takes its time; it is left after 20s", "unmount: it takes longer than 20s and is left"}
		if !slices.Equal(said, want) {
			t.Errorf("said %q, want %q", said, want)
		}
	})
}

func TestEndOrder(t *testing.T) {
	var names []string
	for _, s := range endSteps {
		names = append(names, s.name)
		if s.limit <= 0 || s.do == nil {
			t.Errorf("%s has no limit", s.name)
		}
	}
	want := "end all processes, keep the entropy seed, keep the time, write everything to the disks, stop swapping, unmount, tell the result, hand the watchdog over"
	if got := strings.Join(names, ", "); got != want {
		t.Errorf("steps are %s, want %s", got, want)
	}
}

// TestEmergencyStands waits for its delay, and for who ends the machine before.
func TestEmergencyStands(t *testing.T) {
	stand := func(delay time.Duration, do func(*host)) (string, string) {
		h, out := newHost()
		h.cfg = &procfile.Config{Machine: procfile.Machine{RebootDelay: delay, CtrlAltDel: "ignore", PowerButton: "poweroff"}}
		h.hears, h.wanted, h.pressed = true, make(chan signals.Info, 1), make(chan machine.Key, 1)
		do(h)
		return h.stand(errors.New("no root"), 1), out.String()
	}
	for name, tt := range map[string]struct {
		delay time.Duration
		do    func(*host)
		want  string
		says  string
	}{
		"nobody":     {0, func(*host) {}, "reboot", "emergency: no root\n"},
		"ignored":    {time.Millisecond, func(h *host) { h.heard(signals.Info{Signal: unix.SIGINT, Code: 128}) }, "reboot", ""},
		"no meaning": {time.Millisecond, func(h *host) { h.heard(signals.Info{Signal: unix.SIGHUP}) }, "reboot", ""},
		"USR2":       {time.Hour, func(h *host) { h.heard(signals.Info{Signal: unix.SIGUSR2}) }, "poweroff", "pazinit: SIGUSR2: poweroff\n"},
		"USR1 twice": {time.Hour, func(h *host) {
			h.heard(signals.Info{Signal: unix.SIGUSR1})
			h.heard(signals.Info{Signal: unix.SIGTERM})
		}, "halt", ""},
		"the button": {time.Hour, func(h *host) { h.pressed <- machine.KeyPower }, "poweroff", "the power button: poweroff\n"},
	} {
		if got, out := stand(tt.delay, tt.do); got != tt.want || !strings.Contains(out, tt.says) {
			t.Errorf("%s: %q, want %q; it said %q", name, got, tt.want, out)
		}
	}
	h, out := newHost()
	if got := guard(h, "reboot", func() string { panic("a slip") }); got != "reboot" || !strings.Contains(out.String(), "a fault of pazinit: a slip\ngoroutine") {
		t.Errorf("guard: %q, said %q", got, out)
	}
}

// TestBootAsked leaves a step that waits, when somebody ends the machine.
func TestBootAsked(t *testing.T) {
	h, _ := newHost()
	h.wanted = make(chan signals.Info, 1)
	forever := make(chan struct{})
	defer close(forever)
	err := h.run([]step{
		{name: "wait for a disk", do: func(h *host) error {
			h.heard(signals.Info{Signal: unix.SIGTERM})
			<-forever
			return nil
		}},
		{name: "never", do: func(*host) error { t.Error("it goes on"); return nil }},
	})
	var asked errAsked
	if !errors.As(err, &asked) || asked != "reboot" {
		t.Errorf("run = %v, want a reboot", err)
	}
}

// TestPatience is how long the watchdog is fed without a supervisor.
func TestPatience(t *testing.T) {
	h, _ := newHost()
	h.lend(time.Minute)
	h.lend(time.Second)
	if got := time.Duration(h.patience.Load()); got != 61*time.Second {
		t.Errorf("patience %v", got)
	}
	for ago, want := range map[time.Duration]bool{0: true, 55 * time.Second: true, 61 * time.Second: false} {
		if got := h.goesOn(time.Now().Add(-ago)); got != want {
			t.Errorf("a boot of %v goes on: %t", ago, got)
		}
	}
	for range 5 {
		h.lend(-1)
		if got := time.Duration(h.patience.Load()); got < 100*365*24*time.Hour/2 {
			t.Errorf("for ever is %v", got)
		}
	}
}

func TestMachineSignals(t *testing.T) {
	h := &host{hearing: hearing{known: &procfile.Config{Machine: procfile.Machine{CtrlAltDel: "ignore"}}}}
	for _, tt := range []struct {
		i    signals.Info
		want string
	}{
		{signals.Info{Signal: unix.SIGTERM, PID: 7}, "reboot"},
		{signals.Info{Signal: unix.SIGINT, PID: 7}, "reboot"},
		{signals.Info{Signal: unix.SIGINT, Code: 128}, "ignore"}, // SI_KERNEL: the keys
		{signals.Info{Signal: unix.SIGUSR1, PID: 7}, "halt"},
		{signals.Info{Signal: unix.SIGUSR2, PID: 7}, "poweroff"},
		{signals.Info{Signal: unix.SIGPWR, PID: 7}, "poweroff"},
		{signals.Info{Signal: unix.SIGPWR, Code: 128}, "poweroff"},
		{signals.Info{Signal: unix.SIGHUP, PID: 7}, ""},
		{signals.Info{Signal: unix.SIGQUIT, PID: 7}, ""},
		{signals.Info{Signal: unix.SIGWINCH}, ""},
	} {
		if got, _ := h.meaning(tt.i); got != tt.want {
			t.Errorf("%+v means %q, want %q", tt.i, got, tt.want)
		}
	}
}

func TestMachineArgs(t *testing.T) {
	for _, tt := range []struct{ args, kept string }{
		{"", ""}, {"quiet splash", ""}, {"single", ""}, {"-s", ""}, {"/bin/sh", ""}, {"status", ""}, {"run", "run"},
		{"-c /x.yaml", "-c /x.yaml"}, {"run -c /x.yaml web", "run -c /x.yaml web"}, {"-c", ""}, {"3", ""}, {"--nonsense run", ""},
	} {
		args := strings.Fields(tt.args)
		kept, ignored := (&command{}).machineArgs(args)
		if got := strings.Join(kept, " "); got != tt.kept || len(kept)+len(ignored) != len(args) {
			t.Errorf("%q: kept %q, ignored %q", tt.args, kept, ignored)
		}
	}
	for args, want := range map[string]bool{"-- sh": true, "run -- sh": false, "": false, "sh": false} {
		if got := isCommand(strings.Fields(args)); got != want {
			t.Errorf("isCommand(%q) = %t", args, got)
		}
	}
}

func TestEnvironment(t *testing.T) {
	const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, tt := range []struct {
		env, line, console string
		want               string
	}{
		{"HOME=/ TERM=linux", "quiet", "/dev/tty1", "HOME=/ " + path + " TERM=linux"},
		{"HOME=/ TERM=linux BOOT_IMAGE=/vmlinuz", "BOOT_IMAGE=/vmlinuz ro", "/dev/ttyS0", "HOME=/ " + path + " TERM=vt220"},
		{"HOME=/ TERM=xterm foo=a foo=b", "TERM=xterm foo=b foo=a", "/dev/hvc0", "HOME=/ TERM=xterm " + path},
		{"TERM=linux", "TERM=linux", "/dev/hvc0", "TERM=linux " + path + " HOME=/"},
		{"PATH=/opt OTHER=1 PAZINIT_SOCKET=/s", "x", "", "PATH=/opt OTHER=1 PAZINIT_SOCKET=/s HOME=/ TERM=vt220"},
		{"", "", "", path + " HOME=/ TERM=vt220"},
		{"=x broken HOME=", "", "/dev/tty0", "HOME=/ " + path + " TERM=linux"},
	} {
		got := strings.Join(environment(strings.Fields(tt.env), tt.line, tt.console), " ")
		if got != tt.want && got != strings.Replace(tt.want, "HOME=/ "+path, path+" HOME=/", 1) {
			t.Errorf("environment(%q, %q, %q) = %s, want %s", tt.env, tt.line, tt.console, got, tt.want)
		}
	}
}

// TestNetworkConfig joins ip= with the configuration.
func TestNetworkConfig(t *testing.T) {
	cfg := &procfile.Config{Machine: procfile.Machine{
		Hostname: "shop", DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
		Network: []procfile.Interface{{Name: "eth0", DHCP: true}, {Name: "br0", IsBridge: true, Bridge: []string{"eth1"}}},
	}}
	c, err := networkConfig([]string{"192.0.2.7::192.0.2.1:255.255.255.0::eth0:off", "192.0.2.8:::255.255.255.0::eth2:off"}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range c.Interfaces {
		names = append(names, i.Name)
		if i.Name == "eth0" && (!i.DHCP || len(i.Addresses) > 0) {
			t.Errorf("eth0 is %+v, want what the configuration says", i)
		}
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "br0 eth0 eth2" || c.Hostname != "shop" || len(c.DNS) == 0 || c.DNS[0] != cfg.Machine.DNS[0] {
		t.Errorf("%+v", c)
	}
	if !asks(&c) || asks(&network.Config{Hostname: "x"}) {
		t.Error("asks is wrong")
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}

// TestHostLoad adds the network's worker to what the file says, always the same
// for the same network.
func TestHostLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "p.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, _ := newHost()
	h.dir, h.opts = filepath.Join(dir, "run"), procfile.Options{Config: filepath.Join(dir, "p.yaml"), Dir: dir}
	const app = "applications: {shop: {workers: {web: {command_line: x}}}}\n"

	write(app + "machine: {network: {eth0: {dhcp: true}}}\n")
	var lines []string
	for range 2 {
		cfg, err := h.load()
		if err != nil {
			t.Fatal(err)
		}
		if a := cfg.Applications[0]; a.Name != "machine" || !a.Own || len(cfg.Applications) != 2 {
			t.Fatalf("%+v", cfg.Applications)
		}
		lines = append(lines, cfg.Applications[0].Workers[0].Command.Line)
	}
	write(app + "machine: {network: {eth0: {dhcp: true, mtu: 1400}}}\n")
	cfg, err := h.load()
	if err != nil {
		t.Fatal(err)
	}
	lines = append(lines, cfg.Applications[0].Workers[0].Command.Line)
	if lines[0] != lines[1] || lines[1] == lines[2] {
		t.Errorf("commands %q: want one for each network", lines)
	}
	if b, err := os.ReadFile(cfg.Applications[0].Workers[0].Command.Argv[2]); err != nil || !strings.Contains(string(b), `"mtu":1400`) {
		t.Errorf("%s, %v", b, err)
	}
	select {
	case <-h.up.c:
		t.Error("the network is up without having been made")
	default:
	}

	for text, want := range map[string]string{
		"log_path: stderr\n": "there is no worker in ",
		"machine: {network: {eth0: {dhcp: true}}}\napplications: {machine: {workers: {web: {command_line: x}}}}\n": "p.yaml:2:16: the application machine is pazinit's own",
		"applications: {shop: {workers: {web: {command_lin: x}}}}\n":                                               "did you mean command_line?",
	} {
		write(text)
		if _, err := h.load(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}

	write(app)
	if cfg, err = h.load(); err != nil || len(cfg.Applications) != 1 {
		t.Errorf("without a network: %v, %v", cfg, err)
	}
	<-h.up.c // nobody waits for none
}

func TestNetUp(t *testing.T) {
	dir := t.TempDir()
	up := newNetUp()
	whys := make(chan string, 10)
	if err := up.watch(dir, func(why string) { whys <- why }, nil); err != nil {
		t.Fatal(err)
	}
	waits := filepath.Join(dir, network.StateWaits)
	if err := os.WriteFile(waits+".new", []byte("eth0: no\x1bcarrier"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(waits+".new", waits); err != nil {
		t.Fatal(err)
	}
	if why := <-whys; why != "eth0: no?carrier" {
		t.Errorf("it waits for %q", why)
	}
	if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	select {
	case <-up.c:
		t.Fatal("it is up by some file")
	default:
	}
	if err := os.WriteFile(filepath.Join(dir, network.StateUp), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	<-up.c

	again := newNetUp()
	if err := again.watch(dir, nil, nil); err != nil { // it is there already
		t.Fatal(err)
	}
	<-again.c

	none := newNetUp()
	if err := none.watch(filepath.Join(dir, "none"), nil, nil); err == nil {
		t.Error("no error for a folder that is not there")
	}
	<-none.c // nobody waits for what nobody can tell
}

func TestPort(t *testing.T) {
	t.Setenv(portVariable, "0x501")
	h := &host{cfg: &procfile.Config{Machine: procfile.Machine{DebugExit: 0xf4}}}
	if got := h.port(); got != 0xf4 {
		t.Errorf("port of the configuration: %#x", got)
	}
	h.line = machine.Cmdline{DebugExit: 0x10}
	if got := h.port(); got != 0x10 {
		t.Errorf("port of the command line: %#x", got)
	}
	var none *host
	if got := none.port(); got != 0x501 {
		t.Errorf("port of the environment: %#x", got)
	}
	if got := portText(0xf4); got != "0xf4" {
		t.Errorf("portText: %s", got)
	}
}

// TestNoMachine is that no test, and no container, is taken for one.
func TestNoMachine(t *testing.T) {
	if isMachine() {
		t.Error("this process is the init of a machine")
	}
}

func TestHostname(t *testing.T) {
	for _, c := range []struct {
		configured string
		ip         []string
		want       string
	}{
		{"", nil, ""},
		{"shop", []string{"::::line::dhcp"}, "shop"},
		{"", []string{"::::line.example.org::dhcp"}, "line"},
		{"", []string{"dhcp"}, ""},
		{"", []string{"::::line::dhcp", "bootp"}, ""},
	} {
		cfg := &procfile.Config{}
		cfg.Machine.Hostname = c.configured
		if got := hostname(c.ip, cfg); got != c.want {
			t.Errorf("hostname(%q) with %q = %q, want %q", c.ip, c.configured, got, c.want)
		}
	}
}
