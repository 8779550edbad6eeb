package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// A Lease is what a DHCP server gave, as far as it makes sense. Times are of
// CLOCK_BOOTTIME, which is the same for whoever goes on with the lease; 0: never.
type Lease struct {
	Address netip.Prefix  `json:"address"`
	Server  netip.Addr    `json:"server"`
	Routes  []Route       `json:"routes,omitempty"`
	DNS     []netip.Addr  `json:"dns,omitempty"`
	Search  []string      `json:"search,omitempty"`
	MTU     int           `json:"mtu,omitempty"`
	Renew   time.Duration `json:"renew,omitempty"`
	Rebind  time.Duration `json:"rebind,omitempty"`
	Expiry  time.Duration `json:"expiry,omitempty"`
}

const (
	maxPacket  = 1500 // what we say that we take (option 57), and take
	maxRoutes  = 64
	maxServers = 8
	maxDomains = 32
)

// readPacket decodes a reply to client's hardware address mac.
func readPacket(b, mac []byte) (*dhcpv4.DHCPv4, error) {
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		return nil, err
	}
	if p.OpCode != dhcpv4.OpcodeBootReply {
		return nil, fmt.Errorf("not a reply")
	}
	if !slices.Equal([]byte(p.ClientHWAddr), mac) {
		return nil, fmt.Errorf("not for this device")
	}
	// Options may go on in the fields of the boot file and of the server's name
	// (RFC 2132, 9.3); those end in zeros where they are not full.
	if o := p.Options.Get(dhcpv4.OptionOptionOverload); len(o) == 1 && len(b) >= 236 {
		if o[0]&1 != 0 {
			err = p.Options.FromBytes(b[108:236])
		}
		if o[0]&2 != 0 && err == nil {
			err = p.Options.FromBytes(b[44:108])
		}
	}
	return p, err
}

// readLease takes from an offer or an acknowledgement what is usable. sent is
// when it was asked for: the lease begins then, since the server's clock began
// later. notes say what was left out.
func readLease(p *dhcpv4.DHCPv4, sent time.Duration) (l Lease, notes []string, err error) {
	l.Server = oneAddr(p.Options.Get(dhcpv4.OptionServerIdentifier))
	if !usableAddr(l.Server) {
		return l, nil, fmt.Errorf("no server that can be answered: %s", l.Server)
	}
	own, _ := netip.AddrFromSlice(p.YourIPAddr)
	bits, err := readMask(p.Options.Get(dhcpv4.OptionSubnetMask), own)
	if err != nil {
		return l, nil, err
	}
	l.Address = netip.PrefixFrom(own, bits)
	if !usableHost(l.Address) {
		return l, nil, fmt.Errorf("%s is no host's address", l.Address)
	}
	if err := l.readTimes(p, sent); err != nil {
		return l, nil, err
	}
	note := func(format string, args ...any) {
		if len(notes) < 8 {
			notes = append(notes, fmt.Sprintf(format, args...))
		}
	}
	l.readRoutes(p, note)
	for _, a := range addrs(p.Options.Get(dhcpv4.OptionDomainNameServer)) {
		switch {
		case !usableAddr(a):
			note("name server %s", a)
		case len(l.DNS) < maxServers && !slices.Contains(l.DNS, a):
			l.DNS = append(l.DNS, a)
		}
	}
	l.readSearch(p, note)
	if v := p.Options.Get(dhcpv4.OptionInterfaceMTU); len(v) == 2 {
		if l.MTU = int(binary.BigEndian.Uint16(v)); l.MTU < 576 {
			note("mtu %d", l.MTU)
			l.MTU = 0
		}
	}
	return l, notes, nil
}

func readMask(v []byte, own netip.Addr) (bits int, err error) {
	if len(v) == 0 && own.Is4() { // the class, as of old
		switch first := own.As4()[0]; {
		case first < 128:
			return 8, nil
		case first < 192:
			return 16, nil
		default:
			return 24, nil
		}
	}
	if len(v) != 4 {
		return 0, fmt.Errorf("bad mask %.16x", v)
	}
	bits, ok := maskBits([4]byte(v))
	if !ok || bits == 0 {
		return 0, fmt.Errorf("bad mask %d.%d.%d.%d", v[0], v[1], v[2], v[3])
	}
	return bits, nil
}

func maskBits(m [4]byte) (bits int, ok bool) {
	n := binary.BigEndian.Uint32(m[:])
	for ; n&(1<<31) != 0; n <<= 1 {
		bits++
	}
	return bits, n == 0
}

func (l *Lease) readTimes(p *dhcpv4.DHCPv4, sent time.Duration) error {
	seconds := func(code dhcpv4.OptionCode) (time.Duration, bool) {
		v := p.Options.Get(code)
		if len(v) != 4 {
			return 0, false
		}
		return time.Duration(binary.BigEndian.Uint32(v)) * time.Second, true
	}
	length, ok := seconds(dhcpv4.OptionIPAddressLeaseTime)
	if !ok || length == 0 {
		return fmt.Errorf("no lease time")
	}
	if length == (1<<32-1)*time.Second { // for ever
		return nil
	}
	t1, ok1 := seconds(dhcpv4.OptionRenewTimeValue)
	t2, ok2 := seconds(dhcpv4.OptionRebindingTimeValue)
	if !ok2 || t2 >= length || t2 == 0 {
		t2 = length / 8 * 7
	}
	if !ok1 || t1 >= t2 || t1 == 0 {
		t1 = min(length/2, t2)
	}
	// However short a lease: a server does not make us its busy loop.
	t1 = max(t1, time.Second)
	t2 = max(t2, t1)
	l.Renew, l.Rebind, l.Expiry = sent+t1, sent+t2, sent+max(length, t2)
	return nil
}

// readRoutes takes the classless routes, which beat the routers (RFC 3442).
func (l *Lease) readRoutes(p *dhcpv4.DHCPv4, note func(string, ...any)) {
	if p.Options.Has(dhcpv4.OptionClasslessStaticRoute) {
		list := p.ClasslessStaticRoute()
		if list == nil {
			note("routes that nobody can read")
		}
		for _, r := range list {
			to, _ := netip.AddrFromSlice(r.Dest.IP)
			via, _ := netip.AddrFromSlice(r.Router)
			ones, _ := r.Dest.Mask.Size()
			route := Route{To: netip.PrefixFrom(to, ones).Masked(), Via: via}
			if via.IsUnspecified() { // on the link
				route.Via = netip.Addr{}
			}
			switch {
			case route.To.Bits() > 0 && !usableAddr(to) && !to.IsUnspecified(), // 0.0.0.0/1 is half of everything
				route.To.Bits() > 7 && to.IsUnspecified(),
				route.Via.IsValid() && (!usableAddr(route.Via) || route.Via == l.Address.Addr()):
				note("route %s", route)
			case len(l.Routes) < maxRoutes && !slices.ContainsFunc(l.Routes, func(o Route) bool { return o.To == route.To }):
				l.Routes = append(l.Routes, route)
			}
		}
		if len(l.Routes) > 0 {
			slices.SortStableFunc(l.Routes, func(a, b Route) int { // what is on the link first: gateways may need it
				return boolInt(a.Via.IsValid()) - boolInt(b.Via.IsValid())
			})
			return
		}
	}
	for _, a := range addrs(p.Options.Get(dhcpv4.OptionRouter)) {
		if !usableAddr(a) || a == l.Address.Addr() {
			note("router %s", a)
			continue
		}
		l.Routes = []Route{{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: a}}
		return
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// readSearch takes the search list, or else the domain's name, which may be a
// list with spaces by an old habit.
func (l *Lease) readSearch(p *dhcpv4.DHCPv4, note func(string, ...any)) {
	var names []string
	if labels := p.DomainSearch(); labels != nil {
		names = labels.Labels
	}
	if len(names) == 0 {
		names = strings.Fields(strings.TrimRight(string(p.Options.Get(dhcpv4.OptionDomainName)), "\x00"))
	}
	for _, s := range names {
		switch {
		case !validDomain(s):
			note("domain %.80q", s)
		case len(l.Search) < maxDomains && !slices.Contains(l.Search, s):
			l.Search = append(l.Search, s)
		}
	}
}

func oneAddr(v []byte) netip.Addr {
	if len(v) != 4 {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(v)
	return a
}

func addrs(v []byte) (all []netip.Addr) {
	for ; len(v) >= 4; v = v[4:] {
		all = append(all, oneAddr(v[:4]))
	}
	return all
}

// expired says whether a lease has ended.
func (l *Lease) expired(now time.Duration) bool { return l.Expiry != 0 && now >= l.Expiry }

// sane says whether a lease that was kept in a file can be one.
func (l *Lease) sane() bool {
	if !l.Address.IsValid() || !l.Address.Addr().Is4() || !usableHost(l.Address) || !usableAddr(l.Server) ||
		l.Renew < 0 || l.Renew > l.Rebind || l.Rebind > l.Expiry || len(l.Routes) > maxRoutes || len(l.DNS) > maxServers || len(l.Search) > maxDomains {
		return false
	}
	for _, r := range l.Routes {
		if !r.To.IsValid() || !r.To.Addr().Is4() || r.Via.IsValid() && !r.Via.Is4() {
			return false
		}
	}
	return !slices.ContainsFunc(l.Search, func(s string) bool { return !validDomain(s) }) &&
		!slices.ContainsFunc(l.DNS, func(a netip.Addr) bool { return !usableAddr(a) })
}
