package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Any is the name of an interface that stands for every Ethernet device that has
// no name of its own in the configuration. The first of them that has what is
// asked for is enough for [StateUp].
const Any = "*"

// A Config is the network that is asked for. As JSON it goes from PID 1 to the
// process that makes it.
type Config struct {
	Interfaces []Interface  `json:"interfaces,omitempty"`
	DNS        []netip.Addr `json:"dns,omitempty"`      // before those that a DHCP server names
	Search     []string     `json:"search,omitempty"`   // likewise
	Hostname   string       `json:"hostname,omitempty"` // told to the DHCP server; "": nothing
}

// An Interface is a device and what it is to have. What a field's zero value says
// nothing of stays as it is.
type Interface struct {
	Name      string         `json:"name"`
	DHCP      bool           `json:"dhcp,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"` // with the host's part
	Gateways  []netip.Addr   `json:"gateways,omitempty"`  // at most one of each family
	Routes    []Route        `json:"routes,omitempty"`
	MTU       int            `json:"mtu,omitempty"`     // 0: the device's, or the DHCP server's
	VLAN      int            `json:"vlan,omitempty"`    // the device is made: this VLAN of Parent
	Parent    string         `json:"parent,omitempty"`  // of the VLAN
	Bridge    []string       `json:"bridge,omitempty"`  // the ports of a bridge
	IsBridge  bool           `json:"bridged,omitempty"` // the device is made: a bridge, also without ports
	IPv6RA    *bool          `json:"ipv6_ra,omitempty"` // true: take what routers advertise, and wait for an address; nil: as the kernel has it
	Optional  bool           `json:"optional,omitempty"`
}

// A Route is where packets to a network go.
type Route struct {
	To     netip.Prefix `json:"to"`
	Via    netip.Addr   `json:"via,omitzero"` // not valid: on the link
	Metric uint32       `json:"metric,omitempty"`
}

// maxList bounds each list of a configuration and of a server's answer.
const maxList = 256

// Check says what is wrong with a configuration, joined, nil if nothing is.
func (c *Config) Check() error {
	var errs []error
	if len(c.Interfaces) > maxList || len(c.DNS) > maxList || len(c.Search) > maxList {
		errs = append(errs, fmt.Errorf("more than %d interfaces, dns or search", maxList))
	}
	seen := map[string]bool{}
	for i := range c.Interfaces {
		in := &c.Interfaces[i]
		if seen[in.Name] {
			errs = append(errs, fmt.Errorf("interface %.32q is there twice", in.Name))
		}
		seen[in.Name] = true
		for _, err := range in.check() {
			errs = append(errs, fmt.Errorf("interface %.32q: %w", in.Name, err))
		}
	}
	for _, a := range c.DNS {
		if !usableServer(a) {
			errs = append(errs, fmt.Errorf("%s is no address of a name server", a))
		}
	}
	for _, s := range c.Search {
		if !validDomain(s) {
			errs = append(errs, fmt.Errorf("%.80q is no domain", s))
		}
	}
	if c.Hostname != "" && !validDomain(c.Hostname) {
		errs = append(errs, fmt.Errorf("%.80q is no host name", c.Hostname))
	}
	return errors.Join(errs...)
}

func (in *Interface) check() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case in.Name == Any:
		if in.VLAN != 0 || in.IsBridge || len(in.Bridge) > 0 {
			bad("a device that is made needs a name")
		}
	case !validName(in.Name):
		bad("no name of a device: 1 to 15 characters without /, :, spaces")
	case in.Name == "lo":
		if in.DHCP || in.VLAN != 0 || in.IsBridge || len(in.Bridge) > 0 || in.IPv6RA != nil || len(in.Gateways) > 0 {
			bad("lo has addresses, routes and an mtu, and nothing else")
		}
	}
	if max(len(in.Addresses), len(in.Gateways), len(in.Routes), len(in.Bridge)) > maxList {
		bad("more than %d of something", maxList)
	}
	for _, p := range in.Addresses {
		if !usableHost(p) {
			bad("%s is no host's address", p)
		}
	}
	for i, g := range in.Gateways {
		if !usableGateway(g) {
			bad("%s is no gateway's address", g)
		}
		if slices.ContainsFunc(in.Gateways[:i], func(o netip.Addr) bool { return o.Is4() == g.Is4() }) {
			bad("a second gateway %s", g)
		}
	}
	for _, r := range in.Routes {
		switch {
		case !r.To.IsValid() || r.To != r.To.Masked():
			bad("%s is no network", r.To)
		case r.Via.IsValid() && (!usableGateway(r.Via) || r.Via.Is4() != r.To.Addr().Is4()):
			bad("%s is no gateway to %s", r.Via, r.To)
		}
	}
	if in.MTU != 0 && (in.MTU < 68 || in.MTU > 65535) {
		bad("mtu %d is not between 68 and 65535", in.MTU)
	}
	if (in.VLAN != 0) != (in.Parent != "") || in.VLAN < 0 || in.VLAN > 4094 {
		bad("a VLAN needs a number from 1 to 4094 and a parent")
	}
	if in.VLAN != 0 && (in.IsBridge || len(in.Bridge) > 0) {
		bad("both a VLAN and a bridge")
	}
	for _, name := range append(slices.Clone(in.Bridge), in.Parent) {
		if name != "" && (!validName(name) || name == in.Name || name == "lo") {
			bad("%.32q is no device that it can be made of", name)
		}
	}
	return errs
}

// validName is dev_valid_name of the kernel's net/core/dev.c, and printable.
func validName(s string) bool {
	if s == "" || len(s) > 15 || s == "." || s == ".." || s == Any || s == "all" || s == "default" {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' || r == '%' })
}

// validDomain holds what may stand in resolv.conf as a domain, and in a host
// name: letters, digits, -, _ and dots between parts of 1 to 63 characters.
func validDomain(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || len(part) > 63 || part[0] == '-' {
			return false
		}
		if strings.Trim(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
	}
	return true
}

// usableAddr is an address that one host can have.
func usableAddr(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() &&
		(!a.Is4() || a.As4()[0] != 0 && a.As4()[0] < 240) // this network, reserved
}

// usableHost is such an address in its network: not the network's own, not its
// broadcast address.
func usableHost(p netip.Prefix) bool {
	if !p.IsValid() || p.Bits() == 0 || !usableAddr(p.Addr()) {
		return false
	}
	if p.Addr().Is4() && p.Bits() < 31 {
		return p.Addr() != p.Masked().Addr() && p.Addr() != broadcastOf(p)
	}
	return true
}

func usableGateway(a netip.Addr) bool { return usableAddr(a) }

// usableServer is a name server's address: one on this machine is one.
func usableServer(a netip.Addr) bool {
	return usableAddr(a) || a.IsValid() && a.IsLoopback() && a.Zone() == ""
}

func broadcastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}
