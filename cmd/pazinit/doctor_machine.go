package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/pazinit/pazinit/machine"
	"github.com/pazinit/pazinit/machine/network"
	"github.com/pazinit/pazinit/procfile"
)

// machineFacts tell what a machine has whose init pazinit is.
type machineFacts struct {
	Console   string   `json:"console"`   // of /sys/class/tty/console/active
	Root      string   `json:"root"`      // the type of its file system
	Initramfs bool     `json:"initramfs"` // it is the kernel's own in memory
	Modules   bool     `json:"modules"`   // the kernel loads them
	Watchdog  bool     `json:"watchdog"`
	RTC       bool     `json:"rtc"`
	Buttons   bool     `json:"buttons"` // there are input devices
	Kexec     bool     `json:"kexec"`   // a kernel is loaded
	Network   string   `json:"network"` // none, waits or up
	Waits     string   `json:"waits"`   // for what the network does
	Unknown   []string `json:"unknown"` // words pazinit.* of the kernel's command line that nobody knows
}

// lookMachine is for a process beside the init of a machine that is pazinit.
func (d *diagnosis) lookMachine() {
	if !d.Place.Initial {
		return
	}
	if (d.Supervisor == nil || d.Supervisor.PID != 1) && !firstIsOwn("/") {
		return
	}
	d.Machine = findMachine("/")
}

// findMachine looks below root.
func findMachine(root string) *machineFacts {
	f := &machineFacts{Unknown: []string{}, Network: "none", Initramfs: machine.InInitramfs(), Kexec: machine.KexecLoaded()}
	there := func(pattern string) bool {
		found, _ := filepath.Glob(filepath.Join(root, pattern))
		return len(found) > 0
	}
	f.Console = strings.TrimSpace(readSmall(filepath.Join(root, "sys/class/tty/console/active")))
	f.Modules = there("proc/modules")
	f.Watchdog = there("dev/watchdog*")
	f.RTC = there("dev/rtc*") || there("sys/class/rtc/rtc*")
	f.Buttons = there("dev/input/event*")
	switch run := filepath.Join(root, networkDir); {
	case exists(filepath.Join(run, network.StateUp)):
		f.Network = "up"
	case exists(filepath.Join(run, network.StateFile)):
		f.Network, f.Waits = "waits", waitsText(filepath.Join(run, network.StateWaits))
	}
	f.Root = mountOf(readSmall("/proc/self/mountinfo"), root).kind
	if line, err := machine.ReadCmdline(filepath.Join(root, "proc/cmdline")); err == nil {
		for _, e := range line.Unknown {
			f.Unknown = append(f.Unknown, e.Error())
		}
	}
	return f
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (j *judge) machine() {
	f := j.d.Machine
	if f == nil {
		return
	}
	j.group = "machine"
	m := procfile.Machine{}
	if j.cfg != nil {
		m = j.cfg.Machine
	}
	yes := func(name string, is bool, text, without, setting string, asked bool) {
		switch {
		case is:
			j.add(markOK, name, text)
		case asked:
			j.add(markLimited, name, "none").without(without, setting)
		default:
			j.add("", name, "none")
		}
	}
	j.add("", "console", f.Console)
	switch {
	case f.Initramfs:
		j.add("", "root", "in memory; what is written there is gone at the end")
	default:
		j.add("", "root", f.Root)
	}
	yes("modules", f.Modules, "can be loaded", "modules: is of no use", "a kernel with CONFIG_MODULES", len(m.Modules) > 0)
	yes("watchdog", f.Watchdog, "there", "nothing starts a machine again that hangs", "its module in machine.modules: softdog, i6300esb, iTCO_wdt", m.Watchdog > 0)
	yes("clock", f.RTC, "a real-time clock keeps the time", "the time is that of the last boot until something sets it", "a kernel or a module with the clock's driver", true)
	yes("buttons", f.Buttons, "the power button is heard, if it is an input device", "the power button and a hypervisor's wish for the end do nothing",
		"machine.modules: [evdev, button]", m.PowerButton != "ignore")
	switch f.Network {
	case "up":
		j.add(markOK, "network", "up")
	case "waits":
		text := "not everything is there that was asked for"
		if f.Waits != "" {
			text += ": " + f.Waits
		}
		j.add(markLimited, "network", text, "; pazinit logs machine:network").without("wait_for: network waits", "")
	default:
		j.add("", "network", "pazinit makes none")
	}
	yes("kexec", f.Kexec, "a kernel is loaded", "", "", false)
	for _, e := range f.Unknown {
		j.add(markLimited, "cmdline", e)
	}
}
