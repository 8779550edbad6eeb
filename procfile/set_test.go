package procfile

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const setFiles = `
-- p.yaml --
log_path: /var/log/p
machine: {hostname: file}
applications:
  shop:
    procfile: .
    env: {A: file}
    workers: {web: {num_instances: 1}}
-- Procfile --
web: puma
env: print
`

func TestSet(t *testing.T) {
	opts := options(tree(t, setFiles))
	opts.Set = []string{
		"log_path=own.log", "machine.hostname=line", "machine.network.eth0.dhcp=true", "shop.web.num_instances=3", "shop.env.A=line=2",
		"shop.web.env={B: 'x y'}", "shop.stop_signal=[QUIT 30s, KILL]", "applications.shop.workers.env.restart=never", "shop.web.num_instances=4",
	}
	c, err := Load(opts)
	if err != nil {
		t.Fatal(err)
	}
	if c.LogPath != "/own.log" || c.Machine.Hostname != "line" || len(c.Machine.Network) != 1 || !c.Machine.Network[0].DHCP {
		t.Errorf("LogPath %q, Hostname %q, Network %+v", c.LogPath, c.Machine.Hostname, c.Machine.Network)
	}
	web := worker(t, c, "shop", "web")
	if web.NumInstances != 4 || !slices.Equal(web.Env, []string{"A=line=2", "B=x y"}) || len(web.Stop) != 1 || web.Stop[0].Signal != 3 {
		t.Errorf("web = %+v", web)
	}
	if w := worker(t, c, "shop", "env"); w.Restart != "never" {
		t.Errorf("env restarts %s", w.Restart)
	}
}

// What is wrong with a setting is said as of a file, and by its words.
func TestSetErrors(t *testing.T) {
	for set, want := range map[string]string{
		"shop.wbe.num_instances=3":       `pazinit.set=shop.wbe.num_instances=3: applications.shop.workers: no worker "wbe" in `,
		"shop.web.num_instances=many":    `pazinit.set=shop.web.num_instances=many: applications.shop.workers.web.num_instances: bad number "many" (a whole number from 0 to 100000)`,
		"shop.usr=x":                     `pazinit.set=shop.usr=x: unknown key "usr" in applications.shop (did you mean user?)`,
		"shp.user=x":                     `pazinit.set=shp.user=x: no application "shp", and no such key (did you mean shop?)`,
		"machine.hostnam=x":              `pazinit.set=machine.hostnam=x: unknown key "hostnam" in machine (did you mean hostname?)`,
		"shop":                           `no key and value (pazinit.set=shop.web.num_instances=2)`,
		"=x":                             `no key and value`,
		"shop..user=x":                   `no key and value`,
		"shop.user=[":                    `pazinit.set=shop.user=[`,
		"shop.user=a\nlog_path: x":       `no single value`,
		"include=/etc/x":                 `pazinit.set=include=/etc/x: `,
		strings.Repeat("a.", 500) + "=x": `no key and value`,
	} {
		opts := options(tree(t, setFiles))
		opts.Set = []string{set}
		c, err := Load(opts)
		var errs Errors
		if c != nil || !errors.As(err, &errs) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", set, err, want)
		}
	}
}

// TestLoadMachine reads what a machine needs, though the rest cannot be read yet.
func TestLoadMachine(t *testing.T) {
	opts := options(tree(t, "-- p.yaml --\nmachine: {hostname: a}\nmounts: [{type: tmpfs, path: /srv}]\nlog_pth: x\napplications: {a: {procfile: /srv/not/there}}\n"))
	opts.Set = []string{"machine.watchdog=30s"}
	c, err := LoadMachine(opts)
	if err != nil {
		t.Fatal(err)
	}
	if c.Machine.Hostname != "a" || c.Machine.Watchdog == 0 || len(c.Mounts) != 1 {
		t.Errorf("%+v", c)
	}
	opts.Set = []string{"machine.watchdog=never"}
	if _, err := LoadMachine(opts); err == nil || !strings.Contains(err.Error(), "bad duration") {
		t.Errorf("a bad setting: %v", err)
	}
	none := options(t.TempDir())
	none.Config = ""
	if c, err = LoadMachine(none); err != nil || c.Machine.CgroupVersion != "v2" {
		t.Errorf("without a file: %+v, %v", c, err)
	}
}

// TestBeside finds the Procfile of a machine.
func TestBeside(t *testing.T) {
	for _, files := range []string{
		"-- etc/Procfile --\nweb: x\n",
		"-- etc/Procfile --\nweb: x\n-- etc/pazinit.yaml --\nlog_path: syslog\n",
		"-- etc/Procfile --\nother: x\n-- etc/pazinit.yaml --\napplications: {etc: {workers: {web: {command_line: x}}}}\n",
	} {
		dir := tree(t, files)
		opts := options(dir)
		opts.Config, opts.System, opts.Beside = "", filepath.Join(dir, "etc/pazinit.yaml"), true
		c, err := Load(opts)
		if err != nil {
			t.Errorf("%s: %v", files, err)
			continue
		}
		if len(c.Applications) != 1 || len(c.Applications[0].Workers) != 1 {
			t.Errorf("%s: %+v", files, c.Applications)
			continue
		}
		worker(t, c, "etc", "web")
	}
}

// FuzzSet has the kernel's command line say anything.
func FuzzSet(f *testing.F) {
	for _, s := range []string{
		"shop.web.num_instances=2", "shop.env.A=b=c", "machine.network.eth0.dhcp=true", "shop.web={a: {b: [c]}}", "=", "....=", "shop.web.=x",
		"applications=null", "applications.shop=~", "machine={network: {eth0: {routes: [a via b]}}}", "mounts=[{path: /x, type: tmpfs}]", "shop.x=&a [*a]", "a=<<",
	} {
		f.Add(s)
	}
	dir := f.TempDir()
	for name, text := range map[string]string{"p.yaml": "machine: {hostname: a}\napplications: {shop: {procfile: Procfile, workers: {web: }}}\n", "Procfile": "web: x\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, set string) {
		if strings.Contains(set, "file") || strings.Contains(set, "\\") { // of this machine
			return
		}
		opts := Options{Config: filepath.Join(dir, "p.yaml"), Set: []string{set}}
		for _, load := range []func(Options) (*Config, error){Load, LoadMachine} {
			c, err := load(opts)
			var errs Errors
			if (c == nil) == (err == nil) || err != nil && !errors.As(err, &errs) {
				t.Fatalf("%q: %v and %v", set, c, err)
			}
		}
	})
}
