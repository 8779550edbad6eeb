package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pazinit/pazinit/machine/network"
	"github.com/pazinit/pazinit/procfile"
)

func TestFindMachine(t *testing.T) {
	root := t.TempDir()
	if f := findMachine(root); f.Watchdog || f.RTC || f.Buttons || f.Modules || f.Network != "none" || f.Console != "" || len(f.Unknown) != 0 {
		t.Errorf("of nothing: %+v", f)
	}
	for name, text := range map[string]string{
		"dev/watchdog0": "", "dev/rtc0": "", "dev/input/event3": "", "proc/modules": "", "run/pazinit/" + network.StateFile: "{}",
		"sys/class/tty/console/active": "ttyS0\n", "proc/cmdline": "pazinit.shel quiet\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f := findMachine(root)
	if !f.Watchdog || !f.RTC || !f.Buttons || !f.Modules || f.Network != "waits" || f.Console != "ttyS0" || len(f.Unknown) != 1 {
		t.Errorf("of all: %+v", f)
	}
	if err := os.WriteFile(filepath.Join(root, networkDir, network.StateWaits), []byte("eth0: no carrier"), 0o644); err != nil {
		t.Fatal(err)
	}
	if f = findMachine(root); f.Network != "waits" || f.Waits != "eth0: no carrier" {
		t.Errorf("network %s, %s", f.Network, f.Waits)
	}
	if err := os.WriteFile(filepath.Join(root, networkDir, network.StateUp), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if f = findMachine(root); f.Network != "up" {
		t.Errorf("network %s, want up", f.Network)
	}
}

func TestJudgeMachine(t *testing.T) {
	marks := func(d *diagnosis, cfg *procfile.Config) string {
		var out []string
		for _, l := range doctorJudge(d, cfg) {
			if l.group == "machine" {
				out = append(out, l.name+" "+l.mark)
			}
		}
		return strings.Join(out, ", ")
	}
	d := good()
	if got := marks(d, nil); got != "" {
		t.Errorf("without a machine: %s", got)
	}
	d.Machine = &machineFacts{Network: "waits", Unknown: []string{"pazinit.shel is not known"}}
	cfg := &procfile.Config{Machine: procfile.Machine{Watchdog: 1, Modules: []string{"x"}}}
	for _, want := range []string{"modules limited", "watchdog limited", "clock limited", "buttons limited", "network limited", "cmdline limited"} {
		if got := strings.Split(marks(d, cfg), ", "); !slices.Contains(got, want) {
			t.Errorf("%v, want %s", got, want)
		}
	}
	d.Machine = &machineFacts{Network: "up", Modules: true, Watchdog: true, RTC: true, Buttons: true, Kexec: true}
	if got, want := marks(d, cfg), "console , root , modules ok, watchdog ok, clock ok, buttons ok, network ok, kexec ok"; got != want {
		t.Errorf("all is there: %s, want %s", got, want)
	}
}
