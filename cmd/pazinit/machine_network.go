package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	pazinit "github.com/pazinit/pazinit/init"
	"github.com/pazinit/pazinit/machine"
	"github.com/pazinit/pazinit/machine/network"
	"github.com/pazinit/pazinit/procfile"
)

// The worker that makes the machine's network. PID 1 itself runs no code that
// talks to one.
const (
	ownApp      = "machine"
	networkWord = "machine-network" // of the command line, see dispatch
	networkDir  = "/run/pazinit"    // where it says how it is
)

// A netUp tells that the network is there, once.
type netUp struct {
	once sync.Once
	c    chan struct{} // closed then
}

func newNetUp() *netUp { return &netUp{c: make(chan struct{})} }

func (u *netUp) holds() { u.once.Do(func() { close(u.c) }) }

// networkConfig is what the kernel's command line and the configuration ask for;
// of an interface that both name the configuration says all.
func networkConfig(ip []string, cfg *procfile.Config) (network.Config, error) {
	c, err := network.ParseIP(ip)
	m := &cfg.Machine
	for _, i := range m.Network {
		c.Interfaces = slices.DeleteFunc(c.Interfaces, func(o network.Interface) bool { return o.Name == i.Name })
		n := network.Interface{
			Name: i.Name, DHCP: i.DHCP, Addresses: i.Addresses, Gateways: i.Gateways, MTU: i.MTU,
			VLAN: i.VLAN, Parent: i.Parent, Bridge: i.Bridge, IsBridge: i.IsBridge, IPv6RA: i.IPv6RA, Optional: i.Optional,
		}
		for _, r := range i.Routes {
			n.Routes = append(n.Routes, network.Route{To: r.To, Via: r.Via})
		}
		c.Interfaces = append(c.Interfaces, n)
	}
	c.DNS = append(slices.Clone(m.DNS), c.DNS...)
	c.Search = append(slices.Clone(m.Search), c.Search...)
	if m.Hostname != "" {
		c.Hostname = m.Hostname
	}
	return c, err
}

// hostname is the configuration's, else that of ip=, which the kernel takes up to
// the first dot (ip_auto_config_setup, net/ipv4/ipconfig.c).
func hostname(ip []string, cfg *procfile.Config) string {
	if cfg.Machine.Hostname != "" {
		return cfg.Machine.Hostname
	}
	c, err := network.ParseIP(ip)
	if err != nil { // which is said where the network is made
		return ""
	}
	name, _, _ := strings.Cut(c.Hostname, ".")
	return name
}

// asks reports whether there is anything to do.
func asks(c *network.Config) bool { return len(c.Interfaces)+len(c.DNS)+len(c.Search) > 0 }

// load reads the whole configuration, and adds what this program itself runs on a
// machine. What it writes has the name of its contents, so that a change of it is
// one of the worker's command line.
func (h *host) load() (*procfile.Config, error) {
	cfg, c, note, err := loadWhole(h.opts, h.line.IP, true)
	if note != nil {
		h.sayLater(fmt.Sprintf("kernel command line: %v", note))
	}
	if err != nil {
		return nil, err
	}
	if !asks(&c) {
		h.up.holds()
		return cfg, nil
	}
	file, err := writeNetwork(h.dir, &c)
	if err != nil {
		return nil, err
	}
	cfg.Applications = slices.Insert(cfg.Applications, 0, networkApp(file))
	return cfg, nil
}

// networkApp is the application of that worker: it starts first, ends last, is
// always tried again, and does not keep the machine alive.
func networkApp(file string) *procfile.Application {
	argv := []string{"/proc/self/exe", networkWord, file}
	w := procfile.NewWorker(ownApp, "network", procfile.Command{Line: strings.Join(argv, " "), Argv: argv})
	w.Dir, w.Priority, w.MaxRestarts = "/", math.MinInt32, 0
	w.Backoff.Max = 10 * time.Second
	w.Stop[0].Wait = 5 * time.Second
	return &procfile.Application{Name: ownApp, Dir: "/", Own: true, Workers: []*procfile.Worker{w}}
}

// writeNetwork writes c into dir and returns the file.
func writeNetwork(dir string, c *network.Config) (string, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("write the network's configuration: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make %s for the network's configuration: %w", dir, bare(err))
	}
	file, err := configFile(dir, b)
	if err != nil {
		return "", err
	}
	temporary := file + ".new"
	if err := os.WriteFile(temporary, b, 0o600); err != nil {
		return "", fmt.Errorf("write %s: %w", temporary, bare(err))
	}
	if err := os.Rename(temporary, file); err != nil {
		return "", fmt.Errorf("rename %s to %s: %w", temporary, file, bare(err))
	}
	return file, nil
}

// configFile is where content goes in dir: the file that has it, or a new one.
func configFile(dir string, content []byte) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("look for the network's configuration in %s: %w", dir, bare(err))
	}
	last := 0
	for _, e := range entries {
		text, ok := strings.CutPrefix(e.Name(), network.ConfigPrefix)
		text, ok2 := strings.CutSuffix(text, network.ConfigSuffix)
		n, err := strconv.Atoi(text)
		if !ok || !ok2 || err != nil || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
			return path, nil
		}
		last = max(last, n)
	}
	return filepath.Join(dir, network.ConfigPrefix+strconv.Itoa(last+1)+network.ConfigSuffix), nil
}

// bare takes verb and path off an error of package os.
func bare(err error) error {
	var path *os.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

// conditions are those of wait_for; nil: all hold.
func (h *host) conditions() map[string]<-chan struct{} {
	if h == nil {
		return nil
	}
	return map[string]<-chan struct{}{"network": h.ready}
}

// mountOverNet mounts what had to wait for the network; ready says that it was
// tried. The workers run by then: what fails is said, and is no emergency.
func (h *host) mountOverNet(s *pazinit.Supervisor) {
	defer close(h.ready)
	defer panicked(s, "the mounts over the network")
	<-h.up.c
	var errs []error
	if len(h.overNet) > 0 {
		loadFor(h.overNet)
		errs = machine.MountAll(h.overNet, s.Log)
	}
	if len(h.swapOverNet) > 0 {
		errs = append(errs, machine.SwapOn(h.swapOverNet, swapWait, s.Log)...)
	}
	for _, err := range errs {
		s.Log(err.Error())
	}
}

// watch waits for the file that says that the network is there; why is told each
// time of the one that says for what it waits. Where it cannot, nobody waits for
// it. caught is told of a panic, and then nobody waits either.
func (u *netUp) watch(dir string, why func(string), caught func(any)) error {
	select {
	case <-u.c:
		return nil
	default:
	}
	up := filepath.Join(dir, network.StateUp)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		if _, err = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		u.holds()
		return fmt.Errorf("watch %s for the network, which nobody waits for then: %w", dir, err)
	}
	events := os.NewFile(uintptr(fd), dir)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				caught(v)
			}
		}()
		defer u.holds()
		defer events.Close()
		buf := make([]byte, 4096)
		said := ""
		for {
			if _, err := os.Lstat(up); err == nil {
				return
			}
			if text := waitsText(filepath.Join(dir, network.StateWaits)); text != said {
				said = text
				why(text)
			}
			if _, err := events.Read(buf); err != nil {
				return
			}
		}
	}()
	return nil
}

// waitsText reads for what the network waits, "" if that is not known.
func waitsText(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	buf := make([]byte, 1<<10)
	n, _ := f.Read(buf)
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, string(buf[:n]))
}
