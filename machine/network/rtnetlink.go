package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What follows is the few requests of rtnetlink(7) that are needed here, on
// netlink's lower half: the upper half, of which as little is used, makes the
// program 440 kB larger.

// A link is a device as the kernel shows it.
type link struct {
	index   int
	name    string
	kind    string // vlan, bridge, veth, …; "": hardware
	mac     []byte
	ether   bool
	up      bool // as somebody wants it
	carrier bool // and it can send
	downs   int  // how often the carrier was lost: shows what went by between two looks
	mtu     int
	master  int // the bridge that it is in; 0: none
	parent  int // of a VLAN
	vlan    int
}

func links() ([]link, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) { // another event follows an interrupted one
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	var all []link
	for _, m := range msgs {
		if l, ok := parseLink(m); ok {
			all = append(all, l)
		}
	}
	return all, nil
}

func parseLink(m []byte) (l link, ok bool) {
	if len(m) < unix.SizeofIfInfomsg {
		return l, false
	}
	l.ether = binary.NativeEndian.Uint16(m[2:]) == unix.ARPHRD_ETHER
	l.index = int(int32(binary.NativeEndian.Uint32(m[4:])))
	flags := binary.NativeEndian.Uint32(m[8:])
	l.up = flags&unix.IFF_UP != 0
	l.carrier = l.up && flags&unix.IFF_RUNNING != 0
	for kind, v := range attributes(m[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.name = text(v)
		case unix.IFLA_ADDRESS:
			l.mac = v
		case unix.IFLA_MTU:
			l.mtu = number(v)
		case unix.IFLA_MASTER:
			l.master = number(v)
		case unix.IFLA_CARRIER_DOWN_COUNT:
			l.downs = number(v)
		case unix.IFLA_LINK:
			l.parent = number(v)
		case unix.IFLA_LINKINFO:
			for kind, v := range attributes(v) {
				switch kind {
				case unix.IFLA_INFO_KIND:
					l.kind = text(v)
				case unix.IFLA_INFO_DATA:
					if l.kind == "vlan" { // the kernel sends the kind first
						for kind, v := range attributes(v) {
							if kind == unix.IFLA_VLAN_ID && len(v) >= 2 {
								l.vlan = int(binary.NativeEndian.Uint16(v))
							}
						}
					}
				}
			}
		}
	}
	return l, l.index > 0 && l.name != ""
}

// attributes walks over the attributes in b, up to the first that is none.
func attributes(b []byte) func(yield func(kind uint16, value []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:n:n]) {
				return
			}
			b = b[min((n+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
		}
	}
}

func text(v []byte) string {
	s, _, _ := strings.Cut(string(v), "\x00")
	return s
}

func number(v []byte) int {
	if len(v) < 4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(v)))
}

// change sends a request that the kernel only answers with yes or no.
func change(kind, flags int, data ...nl.NetlinkRequestData) error {
	req := nl.NewNetlinkRequest(kind, unix.NLM_F_ACK|flags)
	for _, d := range data {
		req.AddData(d)
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// setLink changes a device: attributes, and with flags whether it is up.
func setLink(index int, flags, mask uint32, attrs ...nl.NetlinkRequestData) error {
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index, m.Flags, m.Change = int32(index), flags, mask
	return change(unix.RTM_NEWLINK, 0, append([]nl.NetlinkRequestData{m}, attrs...)...)
}

func setUp(l link) error {
	if l.up {
		return nil
	}
	if err := setLink(l.index, unix.IFF_UP, unix.IFF_UP); err != nil {
		return fmt.Errorf("bring up %s: %w", l.name, err)
	}
	return nil
}

func setMTU(l link, mtu int) error {
	if l.mtu == mtu {
		return nil
	}
	if err := setLink(l.index, 0, 0, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu)))); err != nil {
		return fmt.Errorf("set mtu of %s to %d: %w", l.name, mtu, err)
	}
	return nil
}

func setMaster(l link, bridge link) error {
	if err := setLink(l.index, 0, 0, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge.index)))); err != nil {
		return fmt.Errorf("add %s to bridge %s: %w", l.name, bridge.name, err)
	}
	return nil
}

func makeLink(name, kind string, data *nl.RtAttr, attrs ...nl.NetlinkRequestData) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	info.AddChild(data)
	all := []nl.NetlinkRequestData{nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)), info}
	err := change(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, append(all, attrs...)...)
	switch {
	case errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("make %s: %w (a kernel without %ss, or its module is not loaded)", name, err, kind)
	case err != nil:
		return fmt.Errorf("make %s: %w", name, err)
	}
	return nil
}

func makeVLAN(name string, id int, parent link) error {
	data := nl.NewRtAttr(unix.IFLA_INFO_DATA, nil)
	data.AddRtAttr(unix.IFLA_VLAN_ID, nl.Uint16Attr(uint16(id)))
	return makeLink(name, "vlan", data, nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(parent.index))))
}

// makeBridge makes a bridge that forwards at once: without the spanning tree
// protocol, which is off, there is nothing to learn first, and 15 s of it are
// longer than a DHCP server is waited for.
func makeBridge(name string) error {
	data := nl.NewRtAttr(unix.IFLA_INFO_DATA, nil)
	data.AddRtAttr(unix.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0))
	return makeLink(name, "bridge", data)
}

// setAddress gives a device an address, or renews it, for some time (0: for ever).
func setAddress(l link, p netip.Prefix, life time.Duration) error {
	m := addressMessage(l, p)
	data := []nl.NetlinkRequestData{m, nl.NewRtAttr(unix.IFA_LOCAL, p.Addr().AsSlice()), nl.NewRtAttr(unix.IFA_ADDRESS, p.Addr().AsSlice())}
	if p.Addr().Is4() && p.Bits() < 31 {
		data = append(data, nl.NewRtAttr(unix.IFA_BROADCAST, broadcastOf(p).AsSlice()))
	}
	if life > 0 {
		s := uint32(max(1, min((life+time.Second-1)/time.Second, 1<<32-2)))
		info := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Valid: s, Prefered: s}} //nolint:misspell // the kernel's
		data = append(data, nl.NewRtAttr(unix.IFA_CACHEINFO, info.Serialize()))
	}
	if err := change(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, data...); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("give %s the address %s: %w", l.name, p, err)
	}
	return nil
}

func dropAddress(l link, p netip.Prefix) error {
	err := change(unix.RTM_DELADDR, 0, addressMessage(l, p), nl.NewRtAttr(unix.IFA_LOCAL, p.Addr().AsSlice()), nl.NewRtAttr(unix.IFA_ADDRESS, p.Addr().AsSlice()))
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("take the address %s from %s: %w", p, l.name, err)
	}
	return nil
}

func addressMessage(l link, p netip.Prefix) *nl.IfAddrmsg {
	m := nl.NewIfAddrmsg(family(p.Addr()))
	m.Prefixlen, m.Index = uint8(p.Bits()), uint32(l.index)
	return m
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// An address is what a device has.
type address struct {
	index     int
	prefix    netip.Prefix
	tentative bool // the kernel still looks whether somebody else has it
	failed    bool // somebody else has it
	global    bool
	passing   bool // it has an end: from a router's advertisement, or a lease
}

func addresses() ([]address, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var all []address
	for _, m := range msgs {
		if a, ok := parseAddress(m); ok {
			all = append(all, a)
		}
	}
	return all, nil
}

func parseAddress(m []byte) (a address, ok bool) {
	if len(m) < unix.SizeofIfAddrmsg {
		return a, false
	}
	bits, flags := int(m[1]), uint32(m[2])
	a.global = m[3] == unix.RT_SCOPE_UNIVERSE
	a.index = int(int32(binary.NativeEndian.Uint32(m[4:])))
	var own netip.Addr
	for kind, v := range attributes(m[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_LOCAL: // of IPv4 and of tunnels, before the peer's
			own, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			if !own.IsValid() {
				own, _ = netip.AddrFromSlice(v)
			}
		case unix.IFA_FLAGS:
			flags = uint32(number(v))
		}
	}
	if !own.IsValid() || bits > own.BitLen() {
		return a, false
	}
	a.prefix = netip.PrefixFrom(own, bits)
	a.failed = flags&unix.IFA_F_DADFAILED != 0
	a.tentative = flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
	a.passing = flags&unix.IFA_F_PERMANENT == 0
	return a, true
}

// Who made a route (rtnetlink(7), rtm_protocol).
const (
	byConfig = unix.RTPROT_STATIC
	byDHCP   = unix.RTPROT_DHCP
)

// setRoute adds a route or replaces the one with its network and metric. A
// gateway that no network of the device has is taken for one on its link. With
// from the kernel drops the route with that address.
func setRoute(l link, r Route, protocol uint8, from netip.Addr, own []netip.Prefix) error {
	m, data := routeMessage(l, r, protocol)
	if r.Via.IsValid() && !r.Via.IsLinkLocalUnicast() {
		within := func(p netip.Prefix) bool { return p.Contains(r.Via) && !p.IsSingleIP() }
		if !slices.ContainsFunc(own, within) {
			m.Flags |= unix.RTNH_F_ONLINK
		}
	}
	if from.IsValid() {
		data = append(data, nl.NewRtAttr(unix.RTA_PREFSRC, from.AsSlice()))
	}
	err := change(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, append([]nl.NetlinkRequestData{m}, data...)...)
	if err != nil {
		return fmt.Errorf("set route %s of %s: %w", r, l.name, err)
	}
	return nil
}

func dropRoute(l link, r Route, protocol uint8) error {
	m, data := routeMessage(l, r, protocol)
	err := change(unix.RTM_DELROUTE, 0, append([]nl.NetlinkRequestData{m}, data...)...)
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("drop route %s of %s: %w", r, l.name, err)
	}
	return nil
}

func routeMessage(l link, r Route, protocol uint8) (*nl.RtMsg, []nl.NetlinkRequestData) {
	m := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: uint8(family(r.To.Addr())), Dst_len: uint8(r.To.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: protocol, Scope: unix.RT_SCOPE_UNIVERSE, Type: unix.RTN_UNICAST,
	}}
	data := []nl.NetlinkRequestData{nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(l.index)))}
	if r.To.Bits() > 0 {
		data = append(data, nl.NewRtAttr(unix.RTA_DST, r.To.Addr().AsSlice()))
	}
	if r.Via.IsValid() {
		data = append(data, nl.NewRtAttr(unix.RTA_GATEWAY, r.Via.AsSlice()))
	} else if r.To.Addr().Is4() {
		m.Scope = unix.RT_SCOPE_LINK
	}
	if r.Metric != 0 {
		data = append(data, nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(r.Metric)))
	}
	return m, data
}

func (r Route) String() string {
	s := r.To.String()
	if r.To.IsValid() && r.To.Bits() == 0 {
		s = "default"
	}
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	return s
}

// A watcher tells when something about devices or addresses has changed. What
// has changed is asked for: a message can be lost, the state cannot.
type watcher struct {
	f       *os.File
	changed chan struct{} // holds one
	done    chan struct{} // closed when the watching has ended
}

func watch() (*watcher, error) {
	f, err := socketFile("rtnetlink", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, func(fd int) error {
		return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)})
	})
	if err != nil {
		return nil, fmt.Errorf("watch network devices: %w", err)
	}
	w := &watcher{f: f, changed: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w, nil
}

func (w *watcher) run() {
	defer close(w.done)
	buf := make([]byte, 4096) // what does not fit is cut: only that it came counts
	for {
		_, err := w.f.Read(buf)
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

func (w *watcher) close() {
	w.f.Close()
	<-w.done
}

// socketFile opens a socket as a file that Go waits for, and whose Close ends a
// Read.
func socketFile(name string, domain, kind, protocol int, set func(fd int) error) (*os.File, error) {
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("open socket %s: %w", name, err)
	}
	if err := set(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up socket %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
