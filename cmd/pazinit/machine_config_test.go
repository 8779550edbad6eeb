package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pazinit/pazinit/procfile"
)

// machineRoot is a /proc of a machine whose init is this program, and a
// configuration that argv's FILE names.
func machineRoot(t *testing.T, line, argv, text string) (root, config string) {
	t.Helper()
	root = t.TempDir()
	config = filepath.Join(root, "p.yaml")
	files := map[string]string{
		"proc/cmdline": strings.ReplaceAll(line, "FILE", config), "proc/1/cmdline": strings.ReplaceAll(argv, "FILE", config), "p.yaml": text,
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"init", "bin"} { // as in an image
		if err := os.Link(config, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"self/ns/pid": initialPIDSpace, "self/exe": filepath.Join(root, "bin"), "1/exe": filepath.Join(root, "init")} {
		path := filepath.Join(root, "proc", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
	return root, config
}

// TestBesideMachine: what the kernel's command line says counts beside a machine's
// init as it did for it, and nowhere else.
func TestBesideMachine(t *testing.T) {
	const app = "applications: {shop: {workers: {web: {run: /bin/true}}}}\n"
	set := "quiet pazinit.config=FILE pazinit.set=shop.web.num_instances=2 pazinit.nonsense"
	for _, tt := range []struct{ name, line, argv, text, want string }{
		{"all", set, "/init\x00quiet\x00", app, "pazinit.config=FILE pazinit.set=shop.web.num_instances=2 |1 told|2"},
		{"a shell of an emergency", set, "pazinit\x00--\x00/bin/sh\x00", app, "pazinit.config=FILE pazinit.set=shop.web.num_instances=2 |1 told|2"},
		{"init's arguments", "pazinit.config=/none pazinit.set=shop.web.num_instances=3", "/init\x00run\x00-c\x00FILE\x00", app, "|0 told|3"},
		{"a wrong setting", "pazinit.config=FILE pazinit.set=shop.web.num_instances=many", "/init\x00", app, "num_instances"},
		{"ip=", "pazinit.config=FILE ip=bootp", "/init\x00", app, "|1 told|1"},
		{"no worker", "pazinit.config=FILE", "/init\x00", "log_path: stderr\n", "there is no worker"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root, config := machineRoot(t, tt.line, tt.argv, tt.text)
			told := 0
			cfg, words, err := (&options{}).read(root, root, func(error) { told++ })
			var got string
			if err != nil {
				got = err.Error()
			} else {
				got = strings.Join(words, " ") + " |" + string(rune('0'+told)) + " told|" + string(rune('0'+cfg.Applications[0].Workers[0].NumInstances))
			}
			if want := strings.ReplaceAll(tt.want, "FILE", config); !strings.Contains(got, want) {
				t.Errorf("got %s, want %s", got, want)
			}
			// A file that is named is what is read, as it is.
			if cfg, words, _ = (&options{config: config}).read(root, root, nil); cfg != nil && (len(words) > 0 || len(cfg.Applications) > 0 && cfg.Applications[0].Workers[0].NumInstances != 1) {
				t.Errorf("of a file: %v, %+v", words, cfg)
			}
			// Another program is the machine's init.
			exe := filepath.Join(root, "proc/1/exe")
			if err := os.Remove(exe); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("/bin/sh", exe); err != nil {
				t.Fatal(err)
			}
			if _, ok := besideMachine(root); ok {
				t.Error("beside another init")
			}
		})
	}
}

// TestAllAtOnce: an emergency says all that is wrong with the configuration that
// can be known then.
func TestAllAtOnce(t *testing.T) {
	dir := t.TempDir()
	opts := procfile.Options{Config: filepath.Join(dir, "p.yaml"), Dir: dir}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(opts.Config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// What is read first is wrong, and something else, and a file is not mounted yet.
	write("machine: {watchdog: soon}\nmounts: [{path: x}]\napplications: {shop: {procfile: /none/Procfile}, b: {workers: {web: {command_lin: x}}}}\n")
	_, err := procfile.LoadMachine(opts)
	text := withRest(opts, nil, err).Error()
	for _, want := range []string{"watchdog", "p.yaml:2", "did you mean command_line?"} {
		if strings.Count(text, want) != 1 {
			t.Errorf("%q is there %d times in:\n%s", want, strings.Count(text, want), text)
		}
	}
	if strings.Contains(text, "/none") {
		t.Errorf("a file that may be mounted later is missed:\n%s", text)
	}
	// What is read later is wrong, and the network.
	write("machine: {dns: [224.0.0.1], network: {eth0: {addresses: [192.0.2.0/24]}}}\napplications: {b: {workers: {web: {command_lin: x}}}}\n")
	_, _, _, err = loadWhole(opts, nil, true)
	for _, want := range []string{`224.0.0.1 is no`, `interface "eth0": 192.0.2.0/24 is no`, "did you mean command_line?"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}
