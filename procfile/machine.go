package procfile

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Mount is one item of mounts, in fstab(5)'s words.
type Mount struct {
	Pos      Position
	Device   string // "" is the type
	Path     string // absolute
	Type     string // "": what the device holds
	Options  []string
	Wait     time.Duration // for a late device
	WaitSet  bool          // the file says so
	Optional bool
}

// Machine is the configuration's section of that name: what the init of a machine
// does besides supervising.
type Machine struct {
	Hostname       string // "": that of /etc/hostname
	Console        string // a terminal's name; "": the kernel's
	CgroupVersion  string // v2, v1, hybrid or none
	RootWritable   bool
	Fstab          bool
	Swaps          []string
	Zram           int64   // bytes
	ZramShare      float64 // of the memory, when Zram is 0; both 0: none
	Modules        []string
	Sysctls        []Setting
	EntropySeed    string        // a path; "": as fits the root; "off"
	Watchdog       time.Duration // 0: off
	WatchdogDevice string
	Emergency      string // reboot or shell
	RebootDelay    time.Duration
	PanicTimeout   time.Duration // 0: never; negative: not set
	CtrlAltDel     string        // reboot, poweroff or ignore
	PowerButton    string        // poweroff, reboot or ignore
	DebugExit      uint16        // an I/O port; 0: none
	DNS            []netip.Addr
	Search         []string
	Network        []Interface // in the order of the file
}

// A Setting is a sysctl.
type Setting struct{ Name, Value string }

// An Interface is one of machine.network.
type Interface struct {
	Pos       Position
	Name      string
	DHCP      bool
	Addresses []netip.Prefix // with the host's part
	Gateways  []netip.Addr   // at most one of each family
	Routes    []Route
	MTU       int      // 0: the device's
	VLAN      int      // 0: none
	Parent    string   // of the VLAN
	Bridge    []string // its ports, when IsBridge
	IsBridge  bool
	IPv6RA    *bool // nil: the kernel's
	Optional  bool
}

// A Route is where packets to a network go.
type Route struct {
	To  netip.Prefix
	Via netip.Addr // not valid: on the link
}

func newMachine() Machine {
	return Machine{
		CgroupVersion: "v2", RootWritable: true, WatchdogDevice: "/dev/watchdog",
		Emergency: "reboot", RebootDelay: 10 * time.Second, PanicTimeout: -1,
		CtrlAltDel: "reboot", PowerButton: "poweroff",
	}
}

// LoadMachine reads only what the init of a machine needs before it can reach the
// applications' files, which may lie on what it mounts first: mounts, machine,
// syslog, log_path and on_end. What is wrong with the rest it does not see; like
// [Load] it gives no configuration when something is wrong with these.
func LoadMachine(opts Options) (*Config, error) {
	l := newLoader(opts)
	early := []string{"mounts", "machine", "syslog", "log_path", "on_end"}
	l.keys = slices.DeleteFunc(slices.Clone(table), func(k Key) bool { return k.At&AtTop != 0 && !slices.Contains(early, k.Name) })
	l.early = true
	if err := l.load(); err != nil {
		return nil, err
	}
	return l.cfg, nil
}

// strings reads one text or a list of them.
func (l *loader) strings(n *node, meant string) []string {
	var out []string
	for _, item := range l.texts(n, meant) {
		out = append(out, item.text)
	}
	return out
}

// waitDevice is how long a device is waited for by default.
const waitDevice = 10 * time.Second

// maxListed bounds the lists of a machine.
const maxListed = 1000

func (l *loader) readMounts(n *node) {
	const meant = "a list of {device: LABEL=data, path: /data}"
	if n.kind != list {
		if !n.null {
			l.refuse(n, meant)
		}
		return
	}
	if len(n.items) > maxListed {
		l.fail(n, "", "more than %d of them", maxListed)
		return
	}
	at := l.at
	for i, item := range n.items {
		l.at = at + "[" + strconv.Itoa(i) + "]"
		if item.kind != mapping {
			l.refuse(item, "{device: LABEL=data, path: /data}")
			continue
		}
		m := Mount{Pos: item.pos, Wait: waitDevice}
		l.mount = &m
		before := len(l.errs.list)
		l.section(item, AtMount)
		switch {
		case len(l.errs.list) > before:
			continue
		case m.Path == "":
			l.fail(item, "path: /data", "it has no path")
			continue
		case m.Device == "" && m.Type == "":
			l.fail(item, "device: LABEL=data, or type: tmpfs", "it has neither device nor type")
			continue
		}
		l.cfg.Mounts = append(l.cfg.Mounts, m)
	}
	l.at = at
}

func (l *loader) readMountPath(n *node) {
	s, ok := l.text(n, "an absolute path")
	switch {
	case !ok:
	case !filepath.IsAbs(s):
		l.fail(n, "an absolute path", "%s is not absolute", quote(s))
	case filepath.Clean(s) == "/":
		l.fail(n, "the kernel command line's root= names the root", "the root is mounted already")
	default:
		l.mount.Path = filepath.Clean(s)
	}
}

func (l *loader) readMountOptions(n *node) {
	for _, s := range l.strings(n, "ro, noatime, ...") {
		for o := range strings.SplitSeq(s, ",") {
			if o = strings.TrimSpace(o); o != "" {
				l.mount.Options = append(l.mount.Options, o)
			}
		}
	}
}

func (l *loader) readHostname(n *node) {
	const meant = "up to 64 letters, digits, - and ."
	s, ok := l.text(n, meant)
	if !ok {
		return
	}
	if len(s) > 64 || !hostLike(s) {
		l.fail(n, meant, "bad host name %s", quote(s))
		return
	}
	l.cfg.Machine.Hostname = s
}

func hostLike(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_' {
			return false
		}
	}
	return s != "" && s[0] != '-' && s[0] != '.'
}

func (l *loader) readConsole(n *node) {
	s, ok := l.text(n, "ttyS0, hvc0, ...")
	if !ok {
		return
	}
	s = strings.TrimPrefix(s, "/dev/")
	if !hostLike(s) {
		l.fail(n, "the name of a terminal in /dev", "bad terminal %s", quote(s))
		return
	}
	l.cfg.Machine.Console = s
}

func (l *loader) readZram(n *node) {
	m := &l.cfg.Machine
	if n.kind == scalar && strings.HasSuffix(n.text, "%") {
		m.Zram = 0
		set(&m.ZramShare)(l.percent(n))
		return
	}
	m.ZramShare = 0
	set(&m.Zram)(l.size(n, 1<<20, 1<<44))
}

func (l *loader) readSysctls(n *node) {
	if n.null {
		return
	}
	if n.kind != mapping {
		l.refuse(n, "net.ipv4.ip_forward: 1, one on each line")
		return
	}
	l.cfg.Machine.Sysctls = nil
	for _, e := range n.keys {
		switch {
		case !sysctlName(e.key):
			l.errs.add(e.pos, "letters, digits, _, -, / and . between them", "%s: bad name of a setting %s", l.at, quote(e.key))
		case e.value.kind != scalar || e.value.null:
			l.fail(e.value, "a text or a number", "%s is %s", e.key, e.value.describe())
		default:
			l.cfg.Machine.Sysctls = append(l.cfg.Machine.Sysctls, Setting{e.key, e.value.text})
		}
	}
}

// sysctlName says that no part of the name leads elsewhere.
func sysctlName(s string) bool {
	for part := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == '/' }) {
		if strings.Trim(part, ".") == "" {
			return false
		}
	}
	return len(s) <= 256 && s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./") == "" &&
		strings.Trim(s[:1]+s[len(s)-1:], "./") == s[:1]+s[len(s)-1:] && !strings.Contains(s, "..")
}

func (l *loader) readSeed(n *node) {
	if n.kind == scalar && n.text == "off" {
		l.cfg.Machine.EntropySeed = "off"
		return
	}
	set(&l.cfg.Machine.EntropySeed)(l.path(n, "/"))
}

func (l *loader) readWatchdog(n *node) {
	if n.kind == scalar && n.text == "off" {
		l.cfg.Machine.Watchdog = 0
		return
	}
	set(&l.cfg.Machine.Watchdog)(l.duration(n, 2*time.Second))
}

func (l *loader) readPanic(n *node) {
	if n.kind == scalar && n.text == "off" {
		l.cfg.Machine.PanicTimeout = 0
		return
	}
	d, ok := l.duration(n, time.Second)
	if ok && d%time.Second != 0 {
		l.fail(n, "whole seconds", "duration %s is out of range", quote(n.text))
		return
	}
	set(&l.cfg.Machine.PanicTimeout)(d, ok)
}

func (l *loader) readDebugExit(n *node) {
	if n.kind == scalar {
		if v, err := strconv.ParseUint(n.text, 0, 16); err == nil && v > 0 {
			l.cfg.Machine.DebugExit = uint16(v)
			return
		}
	}
	l.fail(n, "0xf4, or another port up to 0xffff", "bad port %s", n.describe())
}

func (l *loader) readDNS(n *node) {
	l.cfg.Machine.DNS = nil
	for _, item := range l.texts(n, "192.0.2.1") {
		if a, ok := l.address(item, item.text, "192.0.2.1"); ok {
			l.cfg.Machine.DNS = append(l.cfg.Machine.DNS, a)
		}
	}
}

func (l *loader) address(n *node, s, meant string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		l.fail(n, meant, "bad address %s", quote(s))
	}
	return a, err == nil
}

const prefixText = "192.0.2.7/24"

func (l *loader) prefix(n *node, s, meant string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if _, bare := netip.ParseAddr(s); bare == nil {
			l.fail(n, meant, "address %s has no length of the network", quote(s))
		} else {
			l.fail(n, meant, "bad address %s", quote(s))
		}
	}
	return p, err == nil
}

func (l *loader) addresses(n *node, meant string) []netip.Prefix {
	var out []netip.Prefix
	for _, item := range l.texts(n, meant) {
		if p, ok := l.prefix(item, item.text, meant); ok {
			out = append(out, p)
		}
	}
	return out
}

func (l *loader) readGateway(n *node) {
	l.iface.Gateways = nil
	for _, item := range l.texts(n, "192.0.2.1") {
		a, ok := l.address(item, item.text, "192.0.2.1")
		if !ok {
			continue
		}
		if slices.ContainsFunc(l.iface.Gateways, func(g netip.Addr) bool { return g.Is4() == a.Is4() }) {
			l.fail(item, "one of IPv4 and one of IPv6; routes: for others", "a second gateway %s", quote(item.text))
			continue
		}
		l.iface.Gateways = append(l.iface.Gateways, a)
	}
}

func (l *loader) readRoutes(n *node) {
	const meant = "10.0.0.0/8 via 192.0.2.1"
	l.iface.Routes = nil
	for _, item := range l.texts(n, meant) {
		words := strings.Fields(item.text)
		if len(words) != 1 && (len(words) != 3 || words[1] != "via") {
			l.fail(item, meant, "bad route %s", quote(item.text))
			continue
		}
		to, ok := l.prefix(item, words[0], meant)
		if !ok {
			continue
		}
		r := Route{To: to.Masked()}
		if to != r.To {
			l.fail(item, r.To.String()+"?", "%s is an address in a network, not a network", quote(words[0]))
			continue
		}
		if len(words) == 3 {
			if r.Via, ok = l.address(item, words[2], meant); !ok {
				continue
			}
			if r.Via.Is4() != r.To.Addr().Is4() {
				l.fail(item, "", "%s and %s are not of one family", words[0], words[2])
				continue
			}
		}
		l.iface.Routes = append(l.iface.Routes, r)
	}
}

// badInterface says what is wrong with the name of an interface, "" if nothing is
// (dev_valid_name, net/core/dev.c).
func badInterface(name string) string {
	if name != "*" && (len(name) > 15 || !hostLike(name) || name == "lo") {
		return `up to 15 letters, digits, -, _ and ., or "*"; not lo`
	}
	return ""
}

func (l *loader) interfaceName(n *node, s string) bool {
	meant := badInterface(s)
	if meant != "" {
		l.fail(n, meant, "bad name of an interface %s", quote(s))
	}
	return meant == ""
}

func (l *loader) readParent(n *node) {
	s, ok := l.text(n, "the name of an interface")
	if ok && l.interfaceName(n, s) {
		l.iface.Parent = s
	}
}

func (l *loader) readBridge(n *node) {
	l.iface.IsBridge, l.iface.Bridge = true, nil
	if n.kind == list && len(n.items) == 0 {
		return // a bridge of nothing yet
	}
	for _, item := range l.texts(n, "the name of an interface") {
		if l.interfaceName(item, item.text) {
			l.iface.Bridge = append(l.iface.Bridge, item.text)
		}
	}
}

func (l *loader) readNetwork(n *node) {
	const meant = "eth0: {dhcp: true}"
	if n.null {
		return
	}
	if n.kind != mapping {
		l.refuse(n, meant)
		return
	}
	if len(n.keys) > maxListed {
		l.fail(n, "", "more than %d of them", maxListed)
		return
	}
	at := l.at
	for _, e := range n.keys {
		if meant := badInterface(e.key); meant != "" && e.key != "lo" {
			l.errs.add(e.pos, meant, "%s: bad name of an interface %s", at, quote(e.key))
			continue
		}
		l.at = at + "." + e.key
		l.iface = &Interface{Name: e.key, Pos: e.pos}
		l.section(e.value, AtInterface)
		switch i := l.iface; {
		case i.VLAN != 0 && i.Parent == "":
			l.errs.add(e.pos, "parent: eth0", "%s: a vlan needs parent", l.at)
		case i.VLAN == 0 && i.Parent != "":
			l.errs.add(e.pos, "vlan: 100", "%s: parent needs vlan", l.at)
		case i.VLAN != 0 && i.IsBridge:
			l.errs.add(e.pos, "", "%s: only one of vlan and bridge", l.at)
		case i.Parent == e.key || slices.Contains(i.Bridge, e.key):
			l.errs.add(e.pos, "", "%s: it is made of itself", l.at)
		}
		l.cfg.Machine.Network = append(l.cfg.Machine.Network, *l.iface)
	}
	l.at = at
}

func (l *loader) readWaitFor(n *node) {
	l.w.WaitFor = nil
	items := []*node{n}
	if n.kind == list {
		items = n.items
	}
	for _, item := range items {
		if w, ok := l.word(item, waitWords...); ok && !slices.Contains(l.w.WaitFor, w) {
			l.w.WaitFor = append(l.w.WaitFor, w)
		}
	}
}
