package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ParseIP reads the values of ip= of the kernel's command line, in their order:
// client:server:gateway:mask:host:device:autoconf:dns0:dns1:ntp0, or dhcp, on,
// any, off or none alone (the kernel's Documentation/admin-guide/nfs/nfsroot.rst).
// Of two for one device the later one counts; without a device [Any] is meant.
// As in the kernel, an address is not asked for when one is given, and a mask
// that is missing is the address's class. The server and the time server are
// looked at and left: nothing here needs them. An empty value, and off, are an
// empty configuration. An error names the value and the part of it.
func ParseIP(values []string) (Config, error) {
	var c Config
	var errs []error
	for _, v := range values {
		if err := c.parseIP(v); err != nil {
			errs = append(errs, fmt.Errorf("ip=%.200s: %w", strings.ToValidUTF8(v, "?"), err))
		}
	}
	if len(errs) > 0 {
		return Config{}, errors.Join(errs...)
	}
	return c, nil
}

func (c *Config) parseIP(v string) error {
	if len(v) > 1024 {
		return errors.New("longer than 1024 characters")
	}
	if strings.ContainsAny(v, "[]") {
		return errors.New("IPv6 is not in the kernel's format; use machine.network of the configuration")
	}
	var f [10]string
	fields := strings.Split(v, ":")
	if len(fields) == 1 {
		fields = []string{"", "", "", "", "", "", v}
		if v == "" {
			fields[6] = "off"
		}
	}
	if len(fields) > len(f) {
		return fmt.Errorf("%d parts, there are %d: client:server:gateway:mask:host:device:autoconf:dns0:dns1:ntp0", len(fields), len(f))
	}
	copy(f[:], fields)
	in := Interface{Name: Any}
	own, err := ip4(f[0], "client", usableAddr)
	if err != nil {
		return err
	}
	if _, err := ip4(f[1], "server", usableServer); err != nil {
		return err
	}
	gateway, err := ip4(f[2], "gateway", usableGateway)
	if err != nil {
		return err
	}
	if f[5] != "" {
		if in.Name = f[5]; !validName(in.Name) || in.Name == "lo" {
			return fmt.Errorf("%.32q is no device that it can be for", in.Name)
		}
	}
	ask, err := autoconf(f[6])
	if err != nil {
		return err
	}
	dns, err := nameservers(f[7:9])
	if err != nil {
		return err
	}
	if _, err := ip4(f[9], "ntp0", usableServer); err != nil {
		return err
	}
	if f[4] != "" && !validDomain(f[4]) {
		return fmt.Errorf("%.80q is no host name", f[4])
	}
	switch {
	case own.IsValid():
		bits, err := ipMask(f[3], own)
		if err != nil {
			return err
		}
		p := netip.PrefixFrom(own, bits)
		if !usableHost(p) {
			return fmt.Errorf("client: %s is no host's address", p)
		}
		in.Addresses = []netip.Prefix{p}
		if gateway.IsValid() {
			in.Gateways = []netip.Addr{gateway}
		}
	case ask:
		in.DHCP = true
	default: // off
		c.Interfaces = slices.DeleteFunc(c.Interfaces, func(o Interface) bool { return in.Name == Any || o.Name == in.Name })
		return nil
	}
	for _, a := range dns {
		if !slices.Contains(c.DNS, a) {
			c.DNS = append(c.DNS, a)
		}
	}
	if f[4] != "" {
		c.Hostname = f[4]
	}
	if i := slices.IndexFunc(c.Interfaces, func(o Interface) bool { return o.Name == in.Name }); i >= 0 {
		c.Interfaces[i] = in
	} else {
		c.Interfaces = append(c.Interfaces, in)
	}
	return nil
}

// autoconf says whether an address is asked for. Empty is as on.
func autoconf(s string) (ask bool, err error) {
	switch s {
	case "", "on", "any", "dhcp":
		return true, nil
	case "off", "none", "static":
		return false, nil
	case "bootp", "rarp", "both":
		return false, fmt.Errorf("%s is not spoken here, dhcp is", s)
	}
	if strings.HasPrefix(s, "dhcp,") {
		return false, fmt.Errorf("%.80q: a client identifier is not taken; the hardware address is it", s)
	}
	return false, fmt.Errorf("%.80q is none of dhcp, on, any, off, none", s)
}

// ip4 reads an address of a part; empty and 0.0.0.0 are none.
func ip4(s, part string, usable func(netip.Addr) bool) (a netip.Addr, err error) {
	if s == "" {
		return a, nil
	}
	a, err = netip.ParseAddr(s)
	switch {
	case err != nil || !a.Is4():
		return netip.Addr{}, fmt.Errorf("%s: %.80q is no IPv4 address", part, s)
	case a.IsUnspecified():
		return netip.Addr{}, nil
	case !usable(a):
		return netip.Addr{}, fmt.Errorf("%s: %s cannot be one", part, a)
	}
	return a, nil
}

func nameservers(parts []string) (all []netip.Addr, err error) {
	for i, s := range parts {
		a, err := ip4(s, "dns"+strconv.Itoa(i), usableServer)
		if err != nil {
			return nil, err
		}
		if a.IsValid() {
			all = append(all, a)
		}
	}
	return all, nil
}

// ipMask reads a mask, 255.255.255.0 or 24.
func ipMask(s string, own netip.Addr) (bits int, err error) {
	if s == "" {
		return readMask(nil, own)
	}
	if n, err := strconv.ParseUint(s, 10, 8); err == nil && n > 0 && n <= 32 {
		return int(n), nil
	}
	a, err := netip.ParseAddr(s)
	if err == nil && a.Is4() {
		if bits, ok := maskBits(a.As4()); ok && bits > 0 {
			return bits, nil
		}
	}
	return 0, fmt.Errorf("mask: %.80q is none", s)
}
