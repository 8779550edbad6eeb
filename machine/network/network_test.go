package network

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
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
		Interfaces: []Interface{{
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
	if s := r.state(); !s.Up || len(s.Interfaces) != 1 || !s.Interfaces[0].Ready || s.ResolvConf != r.resolv {
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
	s := p.serve("192.0.2.1/24", "192.0.2.50", 6*time.Second, dhcpv4.WithRouter([]byte{192, 0, 2, 1}))
	r := start(t, dhcp("re0"), "")
	r.hears("network is up")
	for range 2 {
		if m := s.sees(dhcpv4.MessageTypeRequest, renews); broadcasts(m) {
			t.Error("a renewal is sent to everybody")
		}
	}
	// The server does not hear what is sent to it alone: any may answer.
	s.set(func(s *server) {
		s.silent = func(m *dhcpv4.DHCPv4) bool { return !broadcasts(m) }
		s.more = []dhcpv4.Modifier{dhcpv4.WithRouter([]byte{192, 0, 2, 2})}
	})
	s.sees(dhcpv4.MessageTypeRequest, func(m *dhcpv4.DHCPv4) bool { return renews(m) && broadcasts(m) })
	s.sees(dhcpv4.MessageTypeRequest, func(m *dhcpv4.DHCPv4) bool { return renews(m) && !broadcasts(m) }) // it has time again
	if got := routes(t, "re0"); len(got) != 2 || got["default via 192.0.2.2"] != byDHCP {
		t.Errorf("routes = %v", got)
	}
	// And now nobody.
	s.set(func(s *server) { s.silent = func(*dhcpv4.DHCPv4) bool { return true } })
	r.hears("network is no longer up")
	r.hears("the lease of 192.0.2.50/24 has ended")
	if got := have(t, "re0"); got != "" {
		t.Errorf("address = %q", got)
	}
	if got := routes(t, "re0"); len(got) != 0 {
		t.Errorf("routes = %v", got)
	}
	// It comes back.
	s.set(func(s *server) { s.silent = nil })
	r.hears("network is up")
}

func TestRenewalRefused(t *testing.T) {
	p := wire(t, "na0")
	s := p.serve("192.0.2.1/24", "192.0.2.50", 4*time.Second)
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

func TestRelease(t *testing.T) {
	p := wire(t, "rl0")
	s := p.serve("192.0.2.1/24", "192.0.2.50", time.Hour)
	c := dhcp("rl0")
	c.Release = true
	r := start(t, c, "")
	r.hears("network is up")
	r.stop()
	if m := s.sees(dhcpv4.MessageTypeRelease, nil); !m.ClientIPAddr.Equal([]byte{192, 0, 2, 50}) {
		t.Errorf("releases %s", m.ClientIPAddr)
	}
	if got := have(t, "rl0"); got != "" || r.isUp() {
		t.Errorf("address %q, up %v", got, r.isUp())
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
	r.hears("has 192.0.2.70/24")

	unplug(t, "lt0")
	r.hears("is gone")
	r.hears("network is no longer up")
	q := wire(t, "lt0")
	q.serve("198.51.100.1/24", "198.51.100.50", time.Hour)
	r.hears("has 198.51.100.50/24")
	r.hears("network is up")
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
