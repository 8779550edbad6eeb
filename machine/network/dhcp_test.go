package network

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// newClient is one whose chance is none.
func newClient() *client {
	return &client{mac: []byte{2, 0, 0, 0, 0, 1}, random: func() uint32 { return 128 }}
}

// answer makes what a server says to the newest message.
func answer(c *client, kind dhcpv4.MessageType, lease time.Duration, change ...dhcpv4.Modifier) event {
	p := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, HWType: 1, ClientHWAddr: c.mac, YourIPAddr: []byte{192, 0, 2, 50}, Options: dhcpv4.Options{}}
	binary.BigEndian.PutUint32(p.TransactionID[:], c.xid)
	p.UpdateOption(dhcpv4.OptMessageType(kind))
	p.UpdateOption(dhcpv4.OptServerIdentifier([]byte{192, 0, 2, 1}))
	p.UpdateOption(dhcpv4.OptSubnetMask([]byte{255, 255, 255, 0}))
	p.UpdateOption(dhcpv4.OptIPAddressLeaseTime(lease))
	for _, m := range change {
		m(p)
	}
	return event{kind: received, packet: p}
}

func kinds(acts []action) string {
	names := [numActions]string{"send", "probe", "bind", "unbind", "say"}
	var list []string
	for _, a := range acts {
		name := names[a.kind]
		if a.kind == send {
			name = a.packet.MessageType().String()
			if a.to.IsValid() {
				name += "!"
			}
		}
		list = append(list, name)
	}
	return strings.Join(list, " ")
}

// in brings a client into a phase, at 1000 s.
func in(t *testing.T, want phase) *client {
	t.Helper()
	const now = 1000 * time.Second
	c := newClient()
	wake := func() { c.step(max(c.deadline, now), event{kind: deadline}) }
	if want == idle {
		return c
	}
	c.step(now, event{kind: carrierUp})
	if want == waiting {
		c.begin(now, time.Second)
	}
	if want >= requesting {
		c.step(now, answer(c, dhcpv4.MessageTypeOffer, time.Hour))
	}
	if want >= probing {
		c.step(now, answer(c, dhcpv4.MessageTypeAck, time.Hour))
	}
	if want >= bound {
		wake()
		wake()
	}
	if want == rebooting {
		c.step(now, event{kind: carrierDown})
		c.step(now, event{kind: carrierUp})
	} else if want >= renewing {
		wake()
		for want == rebinding && c.phase == renewing {
			wake()
		}
	}
	if c.phase != want {
		t.Fatalf("phase %s, want %s", c.phase, want)
	}
	return c
}

// Every phase answers every event: with a phase, and a deadline unless nothing
// but the world can go on.
func TestEveryEvent(t *testing.T) {
	for p := range numPhases {
		for k := range numEvents {
			for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak, dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeNone} {
				for _, later := range []time.Duration{0, time.Minute, 40 * time.Minute, 2 * time.Hour} {
					c := in(t, p)
					e := event{kind: k}
					if k == received {
						e = answer(c, kind, time.Hour)
					}
					now := 1000*time.Second + later
					acts := c.step(now, e)
					if c.phase < 0 || c.phase >= numPhases {
						t.Fatalf("%s, event %d %s: phase %d", p, k, kind, c.phase)
					}
					if c.deadline == 0 && c.phase != idle {
						t.Errorf("%s, event %d %s after %s: %s, and no deadline (%s)", p, k, kind, later, c.phase, kinds(acts))
					}
					if c.lease != nil && c.lease.expired(now) && k != carrierDown {
						t.Errorf("%s, event %d %s after %s: an old lease", p, k, kind, later)
					}
					if (c.phase == bound || c.phase == renewing || c.phase == rebinding || c.phase == rebooting) && c.lease == nil {
						t.Errorf("%s, event %d %s after %s: %s without a lease", p, k, kind, later, c.phase)
					}
				}
			}
		}
	}
}

func TestClientStory(t *testing.T) {
	c := newClient()
	now := 1000 * time.Second
	expect := func(what string, acts []action, want string, p phase) {
		t.Helper()
		if got := kinds(acts); got != want || c.phase != p {
			t.Fatalf("%s at %s: %s, %s; want %s, %s", what, now, got, c.phase, want, p)
		}
	}
	wake := func() []action {
		now = c.deadline
		return c.step(now, event{kind: deadline})
	}
	expect("carrier", c.step(now, event{kind: carrierUp}), "DISCOVER", selecting)
	var waits []time.Duration
	for range 8 {
		from := now
		expect("nobody", wake(), "DISCOVER", selecting)
		waits = append(waits, now-from)
	}
	if !slices.IsSorted(waits) || waits[0] != time.Second || waits[7] != longestWait {
		t.Errorf("waits = %v", waits)
	}
	expect("offer", c.step(now, answer(c, dhcpv4.MessageTypeOffer, 800*time.Second)), "REQUEST", requesting)
	expect("a second offer", c.step(now, answer(c, dhcpv4.MessageTypeOffer, 800*time.Second)), "", requesting)
	for range requestTries - 1 {
		expect("no answer", wake(), "REQUEST", requesting)
	}
	expect("given up", wake(), "say", waiting)
	expect("again", wake(), "DISCOVER", selecting)
	expect("offer", c.step(now, answer(c, dhcpv4.MessageTypeOffer, 800*time.Second)), "REQUEST", requesting)
	expect("another's NAK", c.step(now, answer(c, dhcpv4.MessageTypeNak, 0, dhcpv4.WithOption(dhcpv4.OptServerIdentifier([]byte{192, 0, 2, 9})))), "", requesting)
	expect("NAK", c.step(now, answer(c, dhcpv4.MessageTypeNak, 0)), "say", waiting)
	expect("again", wake(), "DISCOVER", selecting)
	expect("offer", c.step(now, answer(c, dhcpv4.MessageTypeOffer, 800*time.Second)), "REQUEST", requesting)
	asked := now
	now += time.Second / 2
	expect("another address", c.step(now, answer(c, dhcpv4.MessageTypeAck, 800*time.Second, dhcpv4.WithYourIP([]byte{192, 0, 2, 51}))), "say", requesting)
	expect("ack", c.step(now, answer(c, dhcpv4.MessageTypeAck, 800*time.Second)), "probe", probing)
	expect("probe", wake(), "probe", probing)
	expect("taken", wake(), "bind", bound)
	if l := c.lease; l.Renew != asked+400*time.Second || l.Rebind != asked+700*time.Second || l.Expiry != asked+800*time.Second {
		t.Errorf("asked at %s, lease %+v", asked, l)
	}
	expect("T1", wake(), "REQUEST!", renewing)
	expect("a NAK of another", c.step(now, answer(c, dhcpv4.MessageTypeNak, 0, dhcpv4.WithOption(dhcpv4.OptServerIdentifier([]byte{192, 0, 2, 9})))), "", renewing)
	expect("more", c.step(now, answer(c, dhcpv4.MessageTypeAck, 800*time.Second)), "bind", bound)
	expect("T1", wake(), "REQUEST!", renewing)
	for c.phase == renewing {
		if acts := wake(); kinds(acts) != "REQUEST!" && kinds(acts) != "REQUEST" {
			t.Fatalf("renewing: %s", kinds(acts))
		}
	}
	if now != c.lease.Rebind {
		t.Errorf("rebinds at %s, lease %+v", now, c.lease)
	}
	expect("any server", c.step(now, answer(c, dhcpv4.MessageTypeAck, 800*time.Second, dhcpv4.WithOption(dhcpv4.OptServerIdentifier([]byte{192, 0, 2, 9})))), "bind", bound)
	if c.lease.Server != netip.MustParseAddr("192.0.2.9") {
		t.Errorf("server = %s", c.lease.Server)
	}
	sent := 0
	for c.lease != nil {
		acts := wake()
		sent += strings.Count(kinds(acts), "REQUEST")
		if now > 100*time.Hour || sent > 100 {
			t.Fatal("it never ends")
		}
	}
	expect("after the end", wake(), "DISCOVER", selecting)

	// The longest lease there is has no end.
	expect("offer", c.step(now, answer(c, dhcpv4.MessageTypeOffer, (1<<32-1)*time.Second)), "REQUEST", requesting)
	expect("ack", c.step(now, answer(c, dhcpv4.MessageTypeAck, (1<<32-1)*time.Second)), "probe", probing)
	wake()
	expect("taken", wake(), "bind", bound)
	if c.deadline != 0 {
		t.Errorf("deadline = %s", c.deadline)
	}
	expect("carrier lost", c.step(now, event{kind: carrierDown}), "", idle)
	expect("carrier", c.step(now, event{kind: carrierUp}), "bind REQUEST", rebooting)
	expect("no answer", wake(), "REQUEST", rebooting)
	expect("no answer", wake(), "REQUEST", rebooting)
	expect("no answer", wake(), "say", bound)
}

// A lease of one second is no busy loop, and neither is a server that offers and
// refuses.
func TestClientIsNotHurried(t *testing.T) {
	for _, lease := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		c := newClient()
		now, sent := 1000*time.Second, 0
		count := func(acts []action) {
			sent += strings.Count(kinds(acts), "REQUEST") + strings.Count(kinds(acts), "DISCOVER")
		}
		count(c.step(now, event{kind: carrierUp}))
		for now < 1060*time.Second {
			switch c.phase {
			case selecting:
				count(c.step(now, answer(c, dhcpv4.MessageTypeOffer, lease)))
			case requesting, renewing, rebinding:
				count(c.step(now, answer(c, dhcpv4.MessageTypeAck, lease)))
			case idle, waiting, probing, bound, rebooting, numPhases:
			}
			now = max(now, c.deadline)
			count(c.step(now, event{kind: deadline}))
		}
		if sent > 200 {
			t.Errorf("a lease of %s: %d packets in a minute", lease, sent)
		}
	}
	c := newClient()
	now, sent := 1000*time.Second, 0
	c.step(now, event{kind: carrierUp})
	for now < 1600*time.Second {
		if c.phase == selecting {
			c.step(now, answer(c, dhcpv4.MessageTypeOffer, time.Hour))
			c.step(now, answer(c, dhcpv4.MessageTypeNak, time.Hour))
			sent++
		}
		now = c.deadline
		c.step(now, event{kind: deadline})
	}
	if sent > 20 {
		t.Errorf("%d rounds in ten minutes with a server that refuses", sent)
	}
}

func lease(t *testing.T, change ...dhcpv4.Modifier) (Lease, []string, error) {
	t.Helper()
	return readLease(answer(newClient(), dhcpv4.MessageTypeAck, 800*time.Second, change...).packet, 0)
}

func option(code dhcpv4.OptionCode, b ...byte) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptGeneric(code, b))
}

func TestReadLease(t *testing.T) {
	via := func(s string) Route {
		to, gw, _ := strings.Cut(s, " ")
		a, _ := netip.ParseAddr(gw)
		return Route{To: netip.MustParsePrefix(to), Via: a}
	}
	domain := func(s string) dhcpv4.Modifier { return dhcpv4.WithOption(dhcpv4.OptDomainName(s)) }
	for _, c := range []struct {
		name   string
		change dhcpv4.Modifier
		notes  int
		want   Lease
	}{
		{"nothing more", func(*dhcpv4.DHCPv4) {}, 0, Lease{}},
		{"router", option(dhcpv4.OptionRouter, 192, 0, 2, 1, 192, 0, 2, 2), 0, Lease{Routes: []Route{via("0.0.0.0/0 192.0.2.1")}}},
		{"routers that are none", option(dhcpv4.OptionRouter, 0, 0, 0, 0, 224, 0, 0, 1, 127, 0, 0, 1, 192, 0, 2, 50, 192, 0, 2, 2), 4, Lease{Routes: []Route{via("0.0.0.0/0 192.0.2.2")}}},
		{"half a router", option(dhcpv4.OptionRouter, 192, 0), 0, Lease{}},
		{"half of everything", option(dhcpv4.OptionClasslessStaticRoute, 1, 128, 192, 0, 2, 1, 1, 0, 192, 0, 2, 1), 0, Lease{Routes: []Route{via("128.0.0.0/1 192.0.2.1"), via("0.0.0.0/1 192.0.2.1")}}},
		{"a cut route", option(dhcpv4.OptionClasslessStaticRoute, 24, 10, 0, 0, 192), 1, Lease{}},
		{"a mask of 33", option(dhcpv4.OptionClasslessStaticRoute, 33, 10, 0, 0, 0, 192, 0, 2, 1), 1, Lease{}},
		{"bits beyond the mask", option(dhcpv4.OptionClasslessStaticRoute, 9, 10, 255, 192, 0, 2, 1), 0, Lease{Routes: []Route{via("10.128.0.0/9 192.0.2.1")}}},
		{"name servers", option(dhcpv4.OptionDomainNameServer, 192, 0, 2, 53, 192, 0, 2, 53, 0, 0, 0, 0, 255, 255, 255, 255, 127, 0, 0, 53), 3, Lease{DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}},
		{"domain", domain("example.org\x00"), 0, Lease{Search: []string{"example.org"}}},
		{"domains", domain("example.org example.net"), 0, Lease{Search: []string{"example.org", "example.net"}}},
		{"a line in a domain", domain("a\nnameserver"), 0, Lease{Search: []string{"a", "nameserver"}}},
		{"a domain with control characters", domain("a\x1b[2J"), 1, Lease{}},
		{"domains that point at themselves", option(dhcpv4.OptionDNSDomainSearchList, 0xc0, 0), 0, Lease{}},
		{"mtu", option(dhcpv4.OptionInterfaceMTU, 5, 0), 0, Lease{MTU: 1280}},
		{"a small mtu", option(dhcpv4.OptionInterfaceMTU, 0, 67), 1, Lease{}},
		{"an mtu of one byte", option(dhcpv4.OptionInterfaceMTU, 9), 0, Lease{}},
		{"wrong T1, T2", func(p *dhcpv4.DHCPv4) {
			option(dhcpv4.OptionRenewTimeValue, 0, 0, 255, 0)(p)
			option(dhcpv4.OptionRebindingTimeValue, 255, 255, 255, 255)(p)
		}, 0, Lease{}},
		{"T1, T2", func(p *dhcpv4.DHCPv4) {
			option(dhcpv4.OptionRenewTimeValue, 0, 0, 0, 100)(p)
			option(dhcpv4.OptionRebindingTimeValue, 0, 0, 0, 200)(p)
		}, 0, Lease{Renew: 100 * time.Second, Rebind: 200 * time.Second}},
	} {
		got, notes, err := lease(t, c.change)
		if err != nil || len(notes) != c.notes {
			t.Errorf("%s: notes %q, %v", c.name, notes, err)
		}
		if c.want.Renew == 0 {
			c.want.Renew, c.want.Rebind = 400*time.Second, 700*time.Second
		}
		if !slices.Equal(got.Routes, c.want.Routes) || !slices.Equal(got.DNS, c.want.DNS) || !slices.Equal(got.Search, c.want.Search) ||
			got.MTU != c.want.MTU || got.Renew != c.want.Renew || got.Rebind != c.want.Rebind || got.Expiry != 800*time.Second {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if !got.sane() {
			t.Errorf("%s: what was read is refused from a file", c.name)
		}
	}
	if l, _, err := lease(t, func(p *dhcpv4.DHCPv4) { p.DeleteOption(dhcpv4.OptionSubnetMask) }); err != nil || l.Address.Bits() != 24 {
		t.Errorf("without a mask: %s, %v", l.Address, err)
	}
}

func TestOptionOverload(t *testing.T) {
	p := answer(newClient(), dhcpv4.MessageTypeAck, time.Hour, option(dhcpv4.OptionOptionOverload, 3)).packet
	p.BootFileName = "\x03\x04\xc0\x01\x02\x01\xff" // no 0 in it: the library would cut
	p.ServerHostName = "\x06\x04\xc0\x01\x02\x35\xff"
	got, err := readPacket(p.ToBytes(), p.ClientHWAddr)
	if err != nil {
		t.Fatal(err)
	}
	if r, d := got.Options.Get(dhcpv4.OptionRouter), got.Options.Get(dhcpv4.OptionDomainNameServer); string(r) != "\xc0\x01\x02\x01" || string(d) != "\xc0\x01\x02\x35" {
		t.Errorf("router %v, name server %v", r, d)
	}
}

// FuzzReceive lets a server say anything to a client that waits for it.
func FuzzReceive(f *testing.F) {
	c := newClient()
	c.step(time.Second, event{kind: carrierUp})
	offer := answer(c, dhcpv4.MessageTypeOffer, time.Hour, option(dhcpv4.OptionClasslessStaticRoute, 0, 192, 0, 2, 1),
		dhcpv4.WithOption(dhcpv4.OptDomainName("example.org"))).packet.ToBytes()
	f.Add(offer, true)
	f.Add(offer[:241], false)
	f.Add(append(slices.Clone(offer[:240]), 119, 3, 1, 'a', 0xc0, 119, 2, 0, 0xc0), true)
	f.Fuzz(func(t *testing.T, b []byte, wrapped bool) {
		if wrapped {
			w := wrap(b, netip.IPv4Unspecified())
			copy(w[20:24], []byte{0, serverPort, 0, clientPort})
			payload, ok := unwrap(w)
			if len(w) < 1<<16 && (!ok || string(payload) != string(b)) {
				t.Fatalf("unwrap(wrap(%x)) = %x, %v", b, payload, ok)
			}
		} else {
			unwrap(b)
			arpConflicts(b, []byte{2, 0, 0, 0, 0, 1}, netip.AddrFrom4([4]byte{192, 0, 2, 50}))
		}
		p, err := readPacket(b, []byte{2, 0, 0, 0, 0, 1})
		if err != nil {
			return
		}
		for _, ph := range []phase{selecting, requesting, renewing, rebooting} {
			c := in(t, ph)
			binary.BigEndian.PutUint32(p.TransactionID[:], c.xid)
			for _, a := range c.step(1000*time.Second, event{kind: received, packet: p}) {
				if a.kind == say && strings.ContainsFunc(a.say, func(r rune) bool { return r < ' ' || r == 0x7f }) {
					t.Errorf("says %q", a.say)
				}
			}
		}
		l, _, err := readLease(p, time.Second)
		if err != nil {
			return
		}
		if !l.sane() || l.Address.Bits() == 0 || l.Expiry != 0 && l.Renew < 2*time.Second {
			t.Errorf("lease %+v", l)
		}
		text := resolvConf(l.DNS, l.Search)
		for line := range strings.Lines(text) {
			if first, _, _ := strings.Cut(line, " "); first != "#" && first != "search" && first != "nameserver" {
				t.Errorf("resolv.conf has %q", line)
			}
		}
	})
}

func TestARP(t *testing.T) {
	mine, other := []byte{2, 0, 0, 0, 0, 1}, []byte{2, 0, 0, 0, 0, 2}
	a, b := netip.MustParseAddr("192.0.2.50"), netip.MustParseAddr("192.0.2.51")
	reply := arpPacket(other, a, b)
	reply[7] = 2
	for _, c := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"own probe", arpPacket(mine, netip.IPv4Unspecified(), a), false},
		{"another's probe", arpPacket(other, netip.IPv4Unspecified(), a), true},
		{"another's probe of another", arpPacket(other, netip.IPv4Unspecified(), b), false},
		{"somebody asks for it", arpPacket(other, b, a), false},
		{"somebody has it", arpPacket(other, a, a), true},
		{"answer", reply, true},
		{"cut", reply[:27], false},
		{"empty", nil, false},
	} {
		if got := arpConflicts(c.b, mine, a); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestReadLeaseRefuses(t *testing.T) {
	ip := func(b ...byte) dhcpv4.Modifier { return dhcpv4.WithYourIP(b) }
	for name, change := range map[string]dhcpv4.Modifier{
		"0.0.0.0":           ip(0, 0, 0, 0),
		"this network":      ip(0, 0, 0, 7),
		"multicast":         ip(224, 0, 0, 1),
		"loopback":          ip(127, 0, 0, 1),
		"reserved":          ip(250, 0, 0, 1),
		"all":               ip(255, 255, 255, 255),
		"the network's":     ip(192, 0, 2, 0),
		"the broadcast's":   ip(192, 0, 2, 255),
		"mask 0":            option(dhcpv4.OptionSubnetMask, 0, 0, 0, 0),
		"a mask with holes": option(dhcpv4.OptionSubnetMask, 255, 0, 255, 0),
		"a mask of 5 bytes": option(dhcpv4.OptionSubnetMask, 255, 255, 255, 0, 0),
		"no time":           func(p *dhcpv4.DHCPv4) { p.DeleteOption(dhcpv4.OptionIPAddressLeaseTime) },
		"0 s":               option(dhcpv4.OptionIPAddressLeaseTime, 0, 0, 0, 0),
		"no server":         func(p *dhcpv4.DHCPv4) { p.DeleteOption(dhcpv4.OptionServerIdentifier) },
		"server 0.0.0.0":    option(dhcpv4.OptionServerIdentifier, 0, 0, 0, 0),
		"server of 3 bytes": option(dhcpv4.OptionServerIdentifier, 192, 0, 2),
	} {
		if l, _, err := lease(t, change); err == nil {
			t.Errorf("%s: taken: %+v", name, l)
		}
	}
}

func TestUnwrap(t *testing.T) {
	whole := func() []byte {
		b := wrap([]byte("payload"), netip.AddrFrom4([4]byte{192, 0, 2, 1}))
		copy(b[20:24], []byte{0, serverPort, 0, clientPort})
		return b
	}
	if got, ok := unwrap(append(whole(), "padding"...)); !ok || string(got) != "payload" {
		t.Errorf("unwrap() = %q, %v", got, ok)
	}
	resum := func(b []byte) {
		b[10], b[11] = 0, 0
		s := ^sum(0, b[:20])
		b[10], b[11] = byte(s>>8), byte(s)
	}
	for name, spoil := range map[string]func(b []byte){
		"another checksum":  func(b []byte) { b[12]++ },
		"IPv6":              func(b []byte) { b[0] = 0x65; resum(b) },
		"a short header":    func(b []byte) { b[0] = 0x44; resum(b) },
		"a header too long": func(b []byte) { b[0] = 0x4f; resum(b) },
		"TCP":               func(b []byte) { b[9] = 6; resum(b) },
		"a fragment":        func(b []byte) { b[7] = 1; resum(b) },
		"more fragments":    func(b []byte) { b[6] = 0x20; resum(b) },
		"longer than it is": func(b []byte) { b[3]++; resum(b) },
		"shorter than UDP":  func(b []byte) { b[3] = 27; resum(b) },
		"another port":      func(b []byte) { b[23]++ },
		"of another port":   func(b []byte) { b[21]++ },
		"UDP too long":      func(b []byte) { b[25]++ },
		"UDP too short":     func(b []byte) { b[25] = 7 },
	} {
		b := whole()
		spoil(b)
		if got, ok := unwrap(b); ok {
			t.Errorf("%s: %q", name, got)
		}
	}
}
