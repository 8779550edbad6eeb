package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// start runs a configuration; dir is "" for a new one.
func start(t *testing.T, c Config, dir string) *running {
	t.Helper()
	needNetwork(t)
	if dir == "" {
		dir = t.TempDir()
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t: t, dir: dir, resolv: filepath.Join(dir, "etc", "resolv.conf"), said: make(chan string, 1000), cancel: cancel, ended: make(chan error, 1)}
	if err := os.MkdirAll(filepath.Dir(r.resolv), 0o755); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.ended <- Run(ctx, c, Options{StateDir: dir, ResolvConf: r.resolv, Say: func(line string) {
			t.Log(line)
			r.said <- line
		}})
	}()
	t.Cleanup(r.stop)
	return r
}

func dhcp(name string) Config { return Config{Interfaces: []Interface{{Name: name, DHCP: true}}} }

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func TestNothingAsked(t *testing.T) {
	needNetwork(t)
	r := start(t, Config{}, "")
	r.hears("network is up")
	if lo := find(t, "lo"); !lo.up {
		t.Error("lo is not up")
	}
	if _, err := os.Lstat(r.resolv); err == nil {
		t.Error("resolv.conf was written, with nothing to say")
	}
}

func TestStatic(t *testing.T) {
	wire(t, "st0")
	r := start(t, Config{
		Interfaces: []Interface{{Name: "lo", Addresses: prefixes("10.9.0.1/32")}, {
			Name: "st0", MTU: 1400, Addresses: prefixes("192.0.2.7/24", "10.1.0.1/32", "2001:db8::7/64"),
			Gateways: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
			Routes: []Route{
				{To: netip.MustParsePrefix("10.2.0.0/16"), Via: netip.MustParseAddr("192.0.2.2")},
				{To: netip.MustParsePrefix("10.3.0.0/16")},
				{To: netip.MustParsePrefix("10.4.0.0/16"), Via: netip.MustParseAddr("172.16.0.1")}, // of no network here
			},
		}},
		DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, Search: []string{"example.org"},
	}, "")
	check := func() {
		t.Helper()
		if got := have(t, "st0"); got != "192.0.2.7/24 10.1.0.1/32" {
			t.Errorf("addresses = %s", got)
		}
		if l := find(t, "st0"); l.mtu != 1400 {
			t.Errorf("mtu = %d", l.mtu)
		}
		got := routes(t, "st0")
		for _, want := range []string{"default via 192.0.2.1", "default via 2001:db8::1", "10.2.0.0/16 via 192.0.2.2", "10.3.0.0/16", "10.4.0.0/16 via 172.16.0.1"} {
			if got[want] != byConfig {
				t.Errorf("route %q is missing, or of somebody else: %v", want, got)
			}
		}
	}
	r.hears("network is up")
	check()
	if got := have(t, "lo"); !strings.Contains(got, "10.9.0.1/32") {
		t.Errorf("lo has %s", got)
	}
	if s := r.state(); !s.Up || len(s.Interfaces) != 2 || !s.Interfaces[1].Ready || s.ResolvConf != r.resolv {
		t.Errorf("state = %+v", s)
	}
	if b, _ := os.ReadFile(r.resolv); string(b) != "# written by pazinit\nsearch example.org\nnameserver 192.0.2.53\n" {
		t.Errorf("resolv.conf = %q", b)
	}

	// What the kernel forgets of a device that is taken down comes back with it.
	l := find(t, "st0")
	if err := setLink(l.index, 0, 1); err != nil {
		t.Fatal(err)
	}
	r.hears("network is no longer up")
	l.up = false
	if err := setUp(l); err != nil {
		t.Fatal(err)
	}
	r.hears("network is up")
	check()

	r.stop()
	check() // it is left as it is
}

func TestBridge(t *testing.T) {
	needNetwork(t)
	r := start(t, Config{Interfaces: []Interface{{Name: "br0", Bridge: []string{"bp0", "bp1"}, DHCP: true}}}, "")
	t.Cleanup(func() { unplug(t, "br0") })
	wire(t, "bp0")
	p := wire(t, "bp1") // late ones
	p.serve("192.0.2.1/24", "192.0.2.50", time.Hour)
	r.hears("network is up")
	br := find(t, "br0")
	if br.kind != "bridge" || find(t, "bp0").master != br.index || find(t, "bp1").master != br.index {
		t.Errorf("br0 = %+v, bp0 = %+v, bp1 = %+v", br, find(t, "bp0"), find(t, "bp1"))
	}
	if got := have(t, "br0"); got != "192.0.2.50/24" {
		t.Errorf("address = %s", got)
	}
}

// It needs a kernel with CONFIG_VLAN_8021Q.
func TestVLAN(t *testing.T) {
	wire(t, "vp0")
	if err := makeVLAN("v1", 1, find(t, "vp0")); errors.Is(err, unix.EOPNOTSUPP) {
		rig.Need(t, "vlan", err)
	}
	unplug(t, "v1")
	r := start(t, Config{Interfaces: []Interface{{Name: "v7", VLAN: 7, Parent: "vp1", Addresses: prefixes("198.51.100.7/24")}}}, "")
	t.Cleanup(func() { unplug(t, "v7") })
	wire(t, "vp1") // late
	r.hears("network is up")
	if v := find(t, "v7"); v.kind != "vlan" || v.vlan != 7 || v.parent != find(t, "vp1").index {
		t.Errorf("v7 = %+v", v)
	}
	if got := have(t, "v7"); got != "198.51.100.7/24" {
		t.Errorf("addresses = %s", got)
	}
}

func TestLease(t *testing.T) {
	p := wire(t, "le0")
	s := p.serve("192.0.2.1/24", "192.0.2.50", time.Hour,
		dhcpv4.WithRouter([]byte{192, 0, 2, 1}), dhcpv4.WithDNS([]byte{192, 0, 2, 53}, []byte{192, 0, 2, 54}),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{5, 100})),
		dhcpv4.WithOption(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: []string{"example.org", "bad\nnameserver 6.6.6.6"}})))
	c := dhcp("le0")
	c.Hostname = "machine-7"
	c.DNS = []netip.Addr{netip.MustParseAddr("203.0.113.53")}
	r := start(t, c, "")
	r.hears("network is up")
	d := s.sees(dhcpv4.MessageTypeDiscover, nil)
	q := s.sees(dhcpv4.MessageTypeRequest, nil)
	if d.HostName() != "machine-7" || q.HostName() != "machine-7" {
		t.Errorf("host name told: %q, %q", d.HostName(), q.HostName())
	}
	if got := have(t, "le0"); got != "192.0.2.50/24" {
		t.Errorf("address = %q", got)
	}
	if got := routes(t, "le0"); got["default via 192.0.2.1"] != byDHCP {
		t.Errorf("routes = %v", got)
	}
	if l := find(t, "le0"); l.mtu != 5<<8+100 {
		t.Errorf("mtu = %d", l.mtu)
	}
	b, err := os.ReadFile(r.resolv)
	if want := "# written by pazinit\nsearch example.org\nnameserver 203.0.113.53\nnameserver 192.0.2.53\nnameserver 192.0.2.54\n"; string(b) != want || err != nil {
		t.Errorf("resolv.conf = %q, %v", b, err)
	}
	r.stop()
	if got := have(t, "le0"); got != "192.0.2.50/24" || !r.isUp() {
		t.Errorf("after its end: address %q, up %v", got, r.isUp())
	}
}

// reboots says whether a request asks for the lease of an earlier time.
func reboots(m *dhcpv4.DHCPv4) bool {
	return m.RequestedIPAddress() != nil && m.ServerIdentifier() == nil
}

func renews(m *dhcpv4.DHCPv4) bool { return !m.ClientIPAddr.IsUnspecified() }

func broadcasts(m *dhcpv4.DHCPv4) bool { // the server keeps whom it was sent to there
	return m.GatewayIPAddr.Equal([]byte{255, 255, 255, 255})
}

// The next process asks for what is there and takes nothing away, also when
// nobody answers.
func TestLeaseIsKept(t *testing.T) {
	p := wire(t, "ke0")
	s := p.serve("192.0.2.1/24", "192.0.2.50", time.Hour, dhcpv4.WithRouter([]byte{192, 0, 2, 1}))
	r := start(t, dhcp("ke0"), "")
	r.hears("network is up")
	r.stop()

	w, err := watchAddresses()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	r2 := start(t, dhcp("ke0"), r.dir)
	if m := s.sees(dhcpv4.MessageTypeRequest, reboots); m.RequestedIPAddress().String() != "192.0.2.50" {
		t.Errorf("asks for %s", m.RequestedIPAddress())
	}
	r2.stop()
	s.set(func(s *server) { s.silent = func(*dhcpv4.DHCPv4) bool { return true } })
	r3 := start(t, dhcp("ke0"), r.dir)
	r3.hears("the lease of 192.0.2.50/24 holds on")
	if got := have(t, "ke0"); got != "192.0.2.50/24" || !r3.isUp() {
		t.Errorf("address %q, up %v", got, r3.isUp())
	}
	if got := routes(t, "ke0"); got["default via 192.0.2.1"] != byDHCP {
		t.Errorf("routes = %v", got)
	}
	r3.stop()
	if n := w.removed(); n != 0 {
		t.Errorf("the address was taken away %d times", n)
	}

	// A server that does not want it any more is heard.
	s.set(func(s *server) {
		s.silent, s.nak, s.address = nil, reboots, netip.MustParseAddr("192.0.2.60")
	})
	r4 := start(t, dhcp("ke0"), r.dir)
	r4.hears("has 192.0.2.60/24")
	if got := have(t, "ke0"); got != "192.0.2.60/24" {
		t.Errorf("address %q", got)
	}
}

func TestRenewal(t *testing.T) {
	p := wire(t, "re0")
	s := p.serve("192.0.2.1/24", "192.0.2.50", time.Hour, dhcpv4.WithRouter([]byte{192, 0, 2, 1}),
		dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(2*time.Second)))
	c := dhcp("re0")
	c.Interfaces[0].Addresses = prefixes("198.51.100.7/24") // the device keeps one
	r := start(t, c, "")
	r.hears("network is up")
	for range 2 { // the time for everybody is far off
		if m := s.sees(dhcpv4.MessageTypeRequest, renews); broadcasts(m) {
			t.Error("a renewal is sent to everybody")
		}
	}
	// The server does not hear what is sent to it alone: any may answer. One
	// answer more brings the time for that near, the lease's end stays far.
	heard := false
	s.set(func(s *server) {
		s.silent = func(m *dhcpv4.DHCPv4) bool {
			if broadcasts(m) {
				s.more[0] = dhcpv4.WithRouter([]byte{192, 0, 2, 2})
				return false
			}
			defer func() { heard = true }()
			return heard
		}
		s.more = append(s.more, dhcpv4.WithOption(dhcpv4.OptRebindingTimeValue(4*time.Second)))
	})
	s.sees(dhcpv4.MessageTypeRequest, func(m *dhcpv4.DHCPv4) bool { return renews(m) && broadcasts(m) })
	s.sees(dhcpv4.MessageTypeRequest, func(m *dhcpv4.DHCPv4) bool { return renews(m) && !broadcasts(m) }) // it has time again
	if got := routes(t, "re0"); len(got) != 3 || got["default via 192.0.2.2"] != byDHCP {
		t.Errorf("routes = %v", got)
	}
	// It gives a short one, and now nobody answers.
	given := false
	s.set(func(s *server) {
		s.lease = 6 * time.Second
		s.silent = func(m *dhcpv4.DHCPv4) bool {
			if !broadcasts(m) {
				return true
			}
			defer func() { given = true }()
			return given
		}
	})
	r.hears("network is no longer up")
	r.hears("the lease of 192.0.2.50/24 has ended")
	if got := have(t, "re0"); got != "198.51.100.7/24" {
		t.Errorf("address = %q", got)
	}
	if got := routes(t, "re0"); len(got) != 1 {
		t.Errorf("routes = %v", got)
	}
	// It comes back.
	s.set(func(s *server) { s.silent = nil })
	r.hears("network is up")
}

func TestRenewalRefused(t *testing.T) {
	p := wire(t, "na0")
	s := p.serve("192.0.2.1/24", "192.0.2.50", time.Hour, dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(2*time.Second)))
	r := start(t, dhcp("na0"), "")
	r.hears("network is up")
	s.set(func(s *server) { s.nak, s.address = renews, netip.MustParseAddr("192.0.2.51") })
	r.hears("refuses 192.0.2.50")
	r.hears("has 192.0.2.51/24")
	if got := have(t, "na0"); got != "192.0.2.51/24" {
		t.Errorf("address = %q", got)
	}
}

func TestConflict(t *testing.T) {
	p := wire(t, "co0")
	s := p.serve("192.0.2.1/24", "192.0.2.50", time.Hour)
	p.do(func() error { return setAddress(p.link, netip.MustParsePrefix("192.0.2.50/24"), 0) })
	r := start(t, dhcp("co0"), "")
	r.hears("somebody else has 192.0.2.50")
	m := s.sees(dhcpv4.MessageTypeDecline, nil)
	if m.RequestedIPAddress().String() != "192.0.2.50" || m.ServerIdentifier().String() != "192.0.2.1" {
		t.Errorf("declines %s of %s", m.RequestedIPAddress(), m.ServerIdentifier())
	}
	if got := have(t, "co0"); got != "" {
		t.Errorf("address = %q", got)
	}
}

func TestTwoServers(t *testing.T) {
	p := wire(t, "tw0")
	a := p.serve("192.0.2.1/24", "192.0.2.50", time.Hour)
	b := p.serve("192.0.2.2/24", "192.0.2.80", time.Hour)
	r := start(t, dhcp("tw0"), "")
	r.hears("network is up")
	want := map[string]string{"192.0.2.1": "192.0.2.50/24", "192.0.2.2": "192.0.2.80/24"}
	m := a.sees(dhcpv4.MessageTypeRequest, nil)
	if got := have(t, "tw0"); got != want[m.ServerIdentifier().String()] {
		t.Errorf("address = %q of server %s", got, m.ServerIdentifier())
	}
	if n := b.sees(dhcpv4.MessageTypeRequest, nil); !n.ServerIdentifier().Equal(m.ServerIdentifier()) {
		t.Errorf("two servers were taken")
	}
}

func TestClasslessRoutes(t *testing.T) {
	p := wire(t, "cl0")
	p.serve("192.0.2.1/24", "192.0.2.50", time.Hour, dhcpv4.WithRouter([]byte{192, 0, 2, 9}),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClasslessStaticRoute, []byte{
			0, 10, 255, 0, 1, // through a router that only the next one makes known
			32, 10, 255, 0, 1, 0, 0, 0, 0,
			16, 10, 1, 192, 0, 2, 3,
			4, 224, 192, 0, 2, 3, // multicast
		})))
	r := start(t, dhcp("cl0"), "")
	r.hears("leave out what DHCP server 192.0.2.1 says: route 224.0.0.0/4 via 192.0.2.3")
	r.hears("network is up")
	got := routes(t, "cl0")
	for _, want := range []string{"default via 10.255.0.1", "10.255.0.1/32", "10.1.0.0/16 via 192.0.2.3"} {
		if got[want] != byDHCP {
			t.Errorf("route %q is missing: %v", want, got)
		}
	}
	if len(got) != 4 { // and the network's own
		t.Errorf("routes = %v", got)
	}
}

func TestLateDeviceAndCarrier(t *testing.T) {
	needNetwork(t)
	r := start(t, dhcp("lt0"), "")
	p := wire(t, "lt0")
	p.carrier(false)
	s := p.serve("192.0.2.1/24", "192.0.2.50", time.Hour)
	p.carrier(true)
	r.hears("network is up")

	p.carrier(false)
	p.carrier(true)
	if m := s.sees(dhcpv4.MessageTypeRequest, reboots); m.RequestedIPAddress().String() != "192.0.2.50" {
		t.Errorf("asks for %s", m.RequestedIPAddress())
	}
	if got := have(t, "lt0"); got != "192.0.2.50/24" {
		t.Errorf("address = %q", got)
	}

	// Another network is on the wire.
	s.set(func(s *server) { s.nak, s.address = reboots, netip.MustParseAddr("192.0.2.70") })
	p.carrier(false)
	p.carrier(true)
	// It may have been said to be down between the two addresses.
	r.until(func(s State) bool {
		i := s.Interfaces[0]
		return s.Up && i.Lease != nil && i.Lease.Address == netip.MustParsePrefix("192.0.2.70/24")
	})

	unplug(t, "lt0")
	r.hears("is gone")
	r.hears("network is no longer up")
	q := wire(t, "lt0")
	q.serve("198.51.100.1/24", "198.51.100.50", time.Hour)
	r.hears("has 198.51.100.50/24")
	r.hears("network is up")
}

// TestWaits: whoever waits for the network learns soon what is missing.
func TestWaits(t *testing.T) {
	needNetwork(t)
	c := dhcp("wa0")
	c.Interfaces = append(c.Interfaces, Interface{Name: "wa1.7", VLAN: 7, Parent: "wa1", Optional: true}, Interface{Name: Any, DHCP: true, Optional: true})
	began := time.Now()
	r := start(t, c, "")
	r.hears("wa0: waits: it is not there")
	if since := time.Since(began); since < patienceWithDevices || since > 3*patienceWithDevices {
		t.Errorf("said after %v", since)
	}
	r.hears("wa1.7: waits: its parent wa1 is not there")
	r.hears("*: waits: there is no Ethernet device")
	p := wire(t, "wa0")
	p.carrier(false)
	r.hears("wa0: waits: no carrier")
	wants := func(want string) {
		t.Helper()
		var got string
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
			b, err := os.ReadFile(filepath.Join(r.dir, StateWaits))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if got = string(b); got == want {
				return
			}
		}
		t.Errorf("it waits for %q, want %q", got, want)
	}
	wants("wa0: no carrier")
	p.carrier(true)
	r.hears("wa0: waits: no DHCP server answers")
	if s := r.state(); s.Interfaces[0].Waits != "no DHCP server answers" {
		t.Errorf("state %+v", s)
	}
	p.serve("192.0.2.1/24", "192.0.2.50", time.Hour)
	r.hears("network is up")
	wants("")
	if s := r.state(); s.Interfaces[0].Waits != "" {
		t.Errorf("state %+v", s)
	}
}

// TestDeaf: a socket that only fails ends its reader, with the reason.
func TestDeaf(t *testing.T) {
	f := faultyReader{err: unix.EIO}
	if err := readPackets(&f, nil); !errors.Is(err, unix.EIO) || f.reads != maxFaults {
		t.Errorf("readPackets = %v after %d reads", err, f.reads)
	}
	if err := readPackets(&faultyReader{err: os.ErrClosed}, nil); err != nil {
		t.Errorf("of a closed file: %v", err)
	}
}

type faultyReader struct {
	err   error
	reads int
}

func (f *faultyReader) Read([]byte) (int, error) {
	f.reads++
	return 0, f.err
}

// TestDropOlder: configurations of before go, and what is newer, or no
// configuration, stays.
func TestDropOlder(t *testing.T) {
	dir := t.TempDir()
	at := time.Now().Add(-time.Hour)
	for i, name := range []string{"network-1.conf", "network-2.conf", "network.json", "network-3.conf", "network-4.conf"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	dropOlder(filepath.Join(dir, "network.json")) // no configuration's name
	dropOlder(filepath.Join(dir, "network-3.conf"))
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got := strings.Join(left, " "); got != "network-3.conf network-4.conf network.json" {
		t.Errorf("left: %s", got)
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("eth\x1b[2J\x9b: a\nb é"); got != "eth?[2J\ufffd: a; b é" {
		t.Errorf("oneLine = %q", got)
	}
}

func TestAny(t *testing.T) {
	wire(t, "an0") // nobody answers there
	p := wire(t, "an1")
	p.serve("192.0.2.1/24", "192.0.2.50", time.Hour)
	c, err := ParseIP([]string{"dhcp"})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, c, "")
	r.hears("network is up")
	if got := have(t, "an1"); got != "192.0.2.50/24" {
		t.Errorf("address = %q", got)
	}

	// What comes and goes is forgotten, and so is what becomes a bridge's port.
	for i := range 3 {
		name := fmt.Sprintf("an%d", i+2)
		wire(t, name)
		r.until(func(s State) bool {
			return slices.ContainsFunc(s.Interfaces, func(i InterfaceState) bool { return i.Name == name })
		})
		if i == 0 {
			if err := makeBridge("anbr"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unplug(t, "anbr") })
			if err := setMaster(find(t, name), find(t, "anbr")); err != nil {
				t.Fatal(err)
			}
		} else {
			unplug(t, name)
		}
		r.until(func(s State) bool { return len(s.Interfaces) == 2 })
	}
}

func TestAnyStatic(t *testing.T) {
	wire(t, "as0")
	wire(t, "as1")
	c, err := ParseIP([]string{"192.0.2.7::192.0.2.1:255.255.255.0:machine:::192.0.2.53"})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, c, "")
	r.hears("network is up")
	if got := have(t, "as0") + "," + have(t, "as1"); got != "192.0.2.7/24," {
		t.Errorf("addresses = %q", got)
	}
	if b, _ := os.ReadFile(r.resolv); !strings.Contains(string(b), "nameserver 192.0.2.53\n") {
		t.Errorf("resolv.conf = %q", b)
	}
}

func TestOptional(t *testing.T) {
	needNetwork(t)
	c := dhcp("nowhere0")
	c.Interfaces[0].Optional = true
	start(t, c, "").hears("network is up")
}

// What nobody should send is refused, and what comes after it is not.
func TestHostileServer(t *testing.T) {
	p := wire(t, "ho0")
	s := p.serve("192.0.2.1/24", "192.0.2.50", time.Hour)
	bad := []struct {
		name  string
		spoil func(m *dhcpv4.DHCPv4)
	}{
		{"0.0.0.0", func(m *dhcpv4.DHCPv4) { m.YourIPAddr = []byte{0, 0, 0, 0} }},
		{"multicast", func(m *dhcpv4.DHCPv4) { m.YourIPAddr = []byte{224, 0, 0, 1} }},
		{"loopback", func(m *dhcpv4.DHCPv4) { m.YourIPAddr = []byte{127, 0, 0, 1} }},
		{"broadcast", func(m *dhcpv4.DHCPv4) { m.YourIPAddr = []byte{192, 0, 2, 255} }},
		{"mask 0", func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptSubnetMask([]byte{0, 0, 0, 0})) }},
		{"mask with holes", func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptSubnetMask([]byte{255, 0, 255, 0})) }},
		{"mask of 3 bytes", func(m *dhcpv4.DHCPv4) {
			m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionSubnetMask, []byte{255, 255, 255}))
		}},
		{"no lease time", func(m *dhcpv4.DHCPv4) { m.DeleteOption(dhcpv4.OptionIPAddressLeaseTime) }},
		{"a lease of 0 s", func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptIPAddressLeaseTime(0)) }},
		{"no server", func(m *dhcpv4.DHCPv4) { m.DeleteOption(dhcpv4.OptionServerIdentifier) }},
		{"another's", func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = []byte{2, 0, 0, 0, 0, 9} }},
		{"another question's", func(m *dhcpv4.DHCPv4) { m.TransactionID[0]++ }},
		{"no type", func(m *dhcpv4.DHCPv4) { m.DeleteOption(dhcpv4.OptionDHCPMessageType) }},
		{"a request", func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootRequest }},
	}
	s.set(func(s *server) { s.silent = func(*dhcpv4.DHCPv4) bool { return true } })
	r := start(t, dhcp("ho0"), "")
	d := s.sees(dhcpv4.MessageTypeDiscover, nil)
	for _, b := range bad {
		m := s.reply(d, dhcpv4.MessageTypeOffer)
		m.YourIPAddr = []byte{192, 0, 2, 66} // shows who takes it
		b.spoil(m)
		s.send(m)
	}
	whole := s.reply(d, dhcpv4.MessageTypeOffer).ToBytes()
	for n := range whole { // cut anywhere
		if n < 270 {
			s.sendBytes(whole[:n])
		}
	}
	s.sendBytes(append(whole[:240:240], make([]byte, 1200)...))
	s.set(func(s *server) { s.silent = nil })
	s.send(s.reply(d, dhcpv4.MessageTypeNak)) // nothing was asked for yet
	r.hears("network is up")
	if got := have(t, "ho0"); got != "192.0.2.50/24" {
		t.Errorf("address = %q", got)
	}
	for len(s.seen) > 0 {
		if m := <-s.seen; m.MessageType() == dhcpv4.MessageTypeRequest && !m.RequestedIPAddress().Equal([]byte{192, 0, 2, 50}) {
			t.Errorf("asked for %s", m.RequestedIPAddress())
		}
	}
}

// advertise sends a router's advertisement: a network to make addresses of, and
// the router itself as the way to everywhere (RFC 4861, 4.2).
func (p *peer) advertise(prefix netip.Prefix) {
	p.t.Helper()
	from := []byte{0xfe, 0x80, 15: 1}
	to := []byte{0xff, 0x02, 15: 1}
	ra := []byte{134, 0, 0, 0, 64, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0}
	ra = append(ra, 3, 4, byte(prefix.Bits()), 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	ra = append(ra, prefix.Masked().Addr().AsSlice()...)
	head := append([]byte{0x60, 0, 0, 0, 0, byte(len(ra)), unix.IPPROTO_ICMPV6, 255}, from...)
	head = append(head, to...)
	check := ^sum(uint32(sum(uint32(len(ra)+unix.IPPROTO_ICMPV6), head[8:])), ra)
	ra[2], ra[3] = byte(check>>8), byte(check)
	p.do(func() error {
		f, err := packetSocket(p.link.index, unix.ETH_P_IPV6, nil)
		if err != nil {
			return err
		}
		defer f.Close()
		return broadcast(f, p.link.index, unix.ETH_P_IPV6, append(head, ra...))
	})
}

func TestRouterAdvertisement(t *testing.T) {
	p := wire(t, "ra0")
	yes, no := true, false
	r := start(t, Config{Interfaces: []Interface{{Name: "ra0", IPv6RA: &yes}}}, "")
	// A device takes advertisements once it has an address of the link.
	linkLocal := func() bool {
		all, err := addresses()
		if err != nil {
			t.Fatal(err)
		}
		index := find(t, "ra0").index
		for _, a := range all {
			if a.index == index && a.prefix.Addr().IsLinkLocalUnicast() && !a.tentative {
				return true
			}
		}
		return false
	}
	w, err := watch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for !linkLocal() {
		select {
		case <-w.changed:
		case <-time.After(patience):
			t.Fatal("no address of the link")
		}
	}
	if r.isUp() {
		t.Error("up without an address")
	}
	p.advertise(netip.MustParsePrefix("2001:db8:7::/64"))
	r.hears("network is up")
	if got := routes(t, "ra0"); got["default via fe80::1"] != unix.RTPROT_RA {
		t.Errorf("routes = %v", got)
	}
	r.stop()
	r = start(t, Config{Interfaces: []Interface{{Name: "ra0", IPv6RA: &no}}}, "")
	r.hears("network is up")
	if b, err := os.ReadFile("/proc/sys/net/ipv6/conf/ra0/accept_ra"); string(b) != "0\n" {
		t.Errorf("accept_ra = %q, %v", b, err)
	}
}

// other starts somebody else's DHCP server on the other side.
func (p *peer) other(argv ...string) {
	p.t.Helper()
	path, err := exec.LookPath(argv[0])
	rig.Need(p.t, argv[0], err)
	argv[0] = path
	cmd := exec.Command("nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), p.ns.Fd()), "--"}, argv...)...)
	cmd.Dir = p.t.TempDir()
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if p.t.Failed() {
			p.t.Logf("%s: %s", argv[0], out)
		}
	})
}

func TestUdhcpd(t *testing.T) {
	p := wire(t, "ud0")
	p.do(func() error { return setAddress(p.link, netip.MustParsePrefix("192.0.2.1/24"), 0) })
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf")
	err := os.WriteFile(conf, []byte("start 192.0.2.20\nend 192.0.2.30\ninterface p\nlease_file "+dir+"/leases\npidfile "+dir+"/pid\nmin_lease 2\n"+
		"option subnet 255.255.255.0\noption router 192.0.2.1\noption dns 192.0.2.53\noption domain example.org\noption lease 12\noption 0x3a 00000001\noption mtu 1300\n"+
		"option staticroutes 10.0.0.0/8 192.0.2.2, 0.0.0.0/0 192.0.2.3\n"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/leases", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// 0x3a is T1: it asks again after a second, and has eleven more to be heard.
	p.other("busybox", "udhcpd", "-f", conf)
	r := start(t, dhcp("ud0"), "")
	r.hears("network is up")
	s := r.state()
	l := s.Interfaces[0].Lease
	if l == nil || l.Expiry-l.Renew != 11*time.Second || l.MTU != 1300 || len(l.Routes) != 2 || len(l.DNS) != 1 || !slices.Equal(l.Search, []string{"example.org"}) {
		t.Fatalf("lease = %+v", l)
	}
	if got := routes(t, "ud0"); got["default via 192.0.2.3"] != byDHCP || got["10.0.0.0/8 via 192.0.2.2"] != byDHCP {
		t.Errorf("routes = %v", got)
	}
	r.outlives(l.Expiry)
	if got := have(t, "ud0"); got != l.Address.String() {
		t.Errorf("address = %q, was %s", got, l.Address)
	}
}

func TestDnsmasq(t *testing.T) {
	p := wire(t, "dm0")
	p.do(func() error { return setAddress(p.link, netip.MustParsePrefix("192.0.2.1/24"), 0) })
	p.other("dnsmasq", "-d", "-C", "/dev/null", "-p", "0", "-i", "p", "-z", "--user=root", "--leasefile-ro",
		"--dhcp-range=192.0.2.20,192.0.2.30,2m", "--dhcp-authoritative", "--dhcp-option=option:domain-search,example.org,example.net")
	c := dhcp("dm0")
	c.Hostname = "vm7"
	r := start(t, c, "")
	r.hears("network is up")
	s := r.state()
	if l := s.Interfaces[0].Lease; l == nil || len(l.Routes) != 1 || !slices.Equal(l.Search, []string{"example.org", "example.net"}) {
		t.Errorf("lease = %+v", l)
	}
	r.stop()
	r = start(t, c, r.dir)
	r.hears("has " + s.Interfaces[0].Lease.Address.String())
	r.until(func(s State) bool { return s.Interfaces[0].DHCP == bound.String() })
}

// The process, as PID 1 starts it.
func TestMainProcess(t *testing.T) {
	needNetwork(t)
	dir := t.TempDir()
	conf := filepath.Join(dir, "network.json")
	run := func(args ...string) (*exec.Cmd, *bufio.Reader, *strings.Builder) {
		t.Helper()
		cmd := exec.Command("/proc/self/exe", args...)
		cmd.Env = append(os.Environ(), mainVar+"=1")
		errs := &strings.Builder{}
		cmd.Stderr = errs
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		return cmd, bufio.NewReader(out), errs
	}
	for text, want := range map[string]string{
		`{"interfaces": [{"name": "a b"}]}`: `pazinit: configure network: interface "a b"`,
		`{"interface": []}`:                 `unknown field "interface"`,
		`{`:                                 "unexpected EOF",
	} {
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd, _, errs := run(conf)
		if cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(errs.String(), want) {
			t.Errorf("%s: %v, %q", text, cmd.ProcessState, errs)
		}
	}
	if cmd, _, errs := run(); cmd.Wait() == nil || cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("without a file: %v, %q", cmd.ProcessState, errs)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount("/run", unix.MNT_DETACH) })
	if err := os.WriteFile(conf, []byte(`{"interfaces": [{"name": "nowhere0", "optional": true}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd, out, errs := run(conf)
	if line, err := out.ReadString('\n'); line != "network: network is up\n" {
		t.Errorf("it says %q, %v, %q", line, err, errs)
	}
	if _, err := os.Stat("/run/pazinit/" + StateUp); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("after SIGTERM: %v, %q", cmd.ProcessState, errs)
	}
}
