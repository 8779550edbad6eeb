package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// A phase is where a DHCP client is (RFC 2131, figure 5).
type phase int

const (
	idle       phase = iota // nothing is on the other end of the wire
	waiting                 // will begin at the deadline
	selecting               // asked who has an address
	requesting              // asked for the one that was offered
	probing                 // looks whether somebody else has it
	bound
	renewing  // asked the server for more time
	rebinding // asked any server
	rebooting // asked whether a lease that we had is good
	numPhases
)

var phaseNames = [numPhases]string{"no carrier", "waiting", "selecting", "requesting", "probing", "bound", "renewing", "rebinding", "rebooting"}

func (p phase) String() string { return phaseNames[p] }

// An event is what a client answers.
type event struct {
	kind   eventKind
	packet *dhcpv4.DHCPv4 // of received
}

type eventKind int

const (
	deadline eventKind = iota // the client's deadline is there
	carrierUp
	carrierDown
	received // a packet for its hardware address
	conflict // somebody has the address that is probed
	numEvents
)

// An action is what is to be done for a client.
type action struct {
	kind   actionKind
	packet *dhcpv4.DHCPv4 // of send
	to     netip.Addr     // of send: a server, by IP from the leased address; not valid: all
	lease  *Lease         // of bind, unbind and probe
	say    string         // of say
}

type actionKind int

const (
	send actionKind = iota
	probe
	bind   // have this lease, or have it longer
	unbind // no longer
	say
	numActions
)

const (
	firstWait     = time.Second // between two tries; doubles
	longestWait   = 64 * time.Second
	requestTries  = 4
	rebootTries   = 3
	probeTries    = 2
	probeWait     = 100 * time.Millisecond
	afterNAK      = time.Second // doubles: a server that offers and refuses is no reason to hurry
	afterConflict = 10 * time.Second
)

// A client decides what is asked of DHCP servers for one device. It does nothing
// itself: time is an argument, the deadline is a field. Times are of
// CLOCK_BOOTTIME.
type client struct {
	mac      []byte
	hostname string
	random   func() uint32

	phase    phase
	deadline time.Duration // 0: none
	lease    *Lease        // in use
	offer    Lease         // asked for, or probed
	xid      uint32
	sent     time.Duration // when what is under way was first asked
	tries    int
	refused  int // how often in a row a server took back what it had offered
}

// step answers one event.
func (c *client) step(now time.Duration, e event) []action {
	if c.lease != nil && c.lease.expired(now) && e.kind != carrierDown {
		acts := c.lose("the lease of %s has ended", c.lease.Address)
		c.deadline = 0
		if c.phase != idle || e.kind == carrierUp {
			c.begin(now, 0)
		}
		return acts
	}
	switch e.kind {
	case carrierUp:
		return c.connected(now)
	case carrierDown:
		c.phase, c.deadline = idle, 0
		if c.lease != nil {
			c.deadline = c.lease.Expiry
		}
		return nil
	case conflict:
		return c.conflicting(now)
	case received:
		return c.receive(now, e.packet)
	case deadline:
		if c.deadline != 0 && now >= c.deadline {
			return c.late(now)
		}
	case numEvents:
	}
	return nil
}

func (c *client) connected(now time.Duration) []action {
	if c.phase != idle {
		return nil
	}
	if c.lease == nil {
		c.begin(now, 0)
		return c.late(now)
	}
	// What the kernel dropped when the device went down is there again before a
	// server answers, which may not be there.
	c.ask(now, rebooting)
	return append([]action{{kind: bind, lease: c.lease}}, c.again(now)...)
}

// begin starts again after a while.
func (c *client) begin(now, wait time.Duration) {
	c.phase, c.deadline = waiting, now+max(wait, 1)
}

// ask enters a phase in which servers are asked.
func (c *client) ask(now time.Duration, p phase) {
	c.phase, c.sent, c.tries = p, now, 0
	if p != requesting { // that belongs to what was selected
		c.xid = c.random()
	}
}

// late is the deadline of a phase.
func (c *client) late(now time.Duration) []action {
	switch c.phase {
	case idle:
		c.deadline = 0
		return nil
	case waiting:
		c.ask(now, selecting)
		return c.again(now)
	case selecting:
		return c.again(now)
	case requesting:
		if c.tries >= requestTries {
			c.begin(now, firstWait)
			return []action{{kind: say, say: fmt.Sprintf("DHCP server %s offered %s and says no more", c.offer.Server, c.offer.Address)}}
		}
		return c.again(now)
	case rebooting:
		if c.tries < rebootTries {
			return c.again(now)
		}
		acts := []action{{kind: say, say: fmt.Sprintf("no DHCP server answers; the lease of %s holds on", c.lease.Address)}}
		return append(acts, c.resume(now)...)
	case probing:
		if c.tries < probeTries {
			return c.again(now)
		}
		return c.take(now, c.offer)
	case bound:
		return c.resume(now)
	case renewing, rebinding:
		if c.phase == renewing && now >= c.lease.Rebind {
			c.ask(now, rebinding)
		}
		return c.again(now)
	case numPhases:
	}
	return nil
}

// resume goes on with the lease that there is.
func (c *client) resume(now time.Duration) []action {
	switch {
	case c.lease.Expiry == 0 || now < c.lease.Renew:
		c.phase, c.deadline = bound, c.lease.Renew
		return nil
	case now < c.lease.Rebind:
		c.ask(now, renewing)
	default:
		c.ask(now, rebinding)
	}
	return c.again(now)
}

// again asks, for the first time or once more, and says how long to wait.
func (c *client) again(now time.Duration) []action {
	tries := c.tries
	c.tries++
	switch c.phase {
	case probing:
		c.deadline = now + probeWait
		return []action{{kind: probe, lease: &c.offer}}
	case renewing:
		c.deadline = now + c.half(now, c.lease.Rebind)
		return []action{{kind: send, packet: c.packet(now, dhcpv4.MessageTypeRequest), to: c.lease.Server}}
	case rebinding:
		c.deadline = now + c.half(now, c.lease.Expiry)
		return []action{{kind: send, packet: c.packet(now, dhcpv4.MessageTypeRequest)}}
	case selecting:
		c.deadline = now + c.wait(tries)
		return []action{{kind: send, packet: c.packet(now, dhcpv4.MessageTypeDiscover)}}
	case idle, waiting, requesting, bound, rebooting, numPhases:
	}
	c.deadline = now + c.wait(tries)
	return []action{{kind: send, packet: c.packet(now, dhcpv4.MessageTypeRequest)}}
}

// wait doubles, and differs by up to an eighth so that machines that were
// started together do not ask together.
func (c *client) wait(tries int) time.Duration {
	d := min(firstWait<<min(tries, 10), longestWait)
	return d - d/8 + time.Duration(c.random()%256)*(d/4)/256
}

// half is half of the time that is left, and no less than a minute, or than a
// sixteenth of a short lease, but a second (RFC 2131, 4.4.5).
func (c *client) half(now, until time.Duration) time.Duration {
	least := max(time.Second, min(time.Minute, (c.lease.Expiry-c.lease.Renew)/8))
	return max(1, min(max((until-now)/2, least), until-now))
}

func (c *client) receive(now time.Duration, p *dhcpv4.DHCPv4) []action {
	if binary.BigEndian.Uint32(p.TransactionID[:]) != c.xid {
		return nil
	}
	kind := p.MessageType()
	switch c.phase {
	case selecting:
		if kind != dhcpv4.MessageTypeOffer {
			return nil
		}
		l, _, err := readLease(p, c.sent)
		if err != nil {
			return []action{{kind: say, say: fmt.Sprintf("refuse what a DHCP server offers: %v", err)}}
		}
		c.offer = l
		c.ask(now, requesting)
		return c.again(now)
	case requesting, renewing, rebinding, rebooting:
	case idle, waiting, probing, bound, numPhases:
		return nil
	}
	server := oneAddr(p.Options.Get(dhcpv4.OptionServerIdentifier))
	if kind == dhcpv4.MessageTypeNak {
		if c.phase == requesting && server != c.offer.Server || c.phase == renewing && server != c.lease.Server {
			return nil
		}
		return c.nak(now, server)
	}
	if kind != dhcpv4.MessageTypeAck {
		return nil
	}
	return c.ack(now, server, p)
}

func (c *client) nak(now time.Duration, server netip.Addr) []action {
	wait := min(afterNAK<<min(c.refused, 10), longestWait)
	c.refused++
	refused := fmt.Sprintf("DHCP server %s refuses %s", server, c.wanted())
	if c.lease != nil {
		acts := c.lose("%s", refused)
		c.begin(now, 0)
		return acts
	}
	c.begin(now, wait)
	return []action{{kind: say, say: refused}}
}

func (c *client) ack(now time.Duration, server netip.Addr, p *dhcpv4.DHCPv4) []action {
	if !server.IsValid() { // it has to be there; who was asked is known
		p.Options.Update(dhcpv4.OptServerIdentifier(c.known().AsSlice()))
	} else if c.phase == requesting && server != c.offer.Server {
		return nil
	}
	l, notes, err := readLease(p, c.sent)
	if err != nil {
		return []action{{kind: say, say: fmt.Sprintf("refuse what DHCP server %s gives: %v", server, err)}}
	}
	if l.Address.Addr() != c.wanted() {
		return []action{{kind: say, say: fmt.Sprintf("refuse %s of DHCP server %s, %s was asked for", l.Address, server, c.wanted())}}
	}
	var acts []action
	for _, n := range notes {
		acts = append(acts, action{kind: say, say: fmt.Sprintf("leave out what DHCP server %s says: %s", l.Server, n)})
	}
	if c.phase != requesting {
		return append(acts, c.take(now, l)...)
	}
	c.offer = l
	c.phase, c.tries = probing, 0
	return append(acts, c.again(now)...)
}

// wanted is the address that was asked for.
func (c *client) wanted() netip.Addr {
	if c.phase == requesting || c.lease == nil {
		return c.offer.Address.Addr()
	}
	return c.lease.Address.Addr()
}

func (c *client) known() netip.Addr {
	if c.phase == requesting || c.lease == nil {
		return c.offer.Server
	}
	return c.lease.Server
}

// take has a lease.
func (c *client) take(now time.Duration, l Lease) []action {
	c.lease, c.refused = &l, 0
	c.phase, c.deadline = bound, l.Renew
	if l.expired(now) { // it came later than it is long
		c.deadline = now + 1
	}
	return []action{{kind: bind, lease: &l}}
}

// lose has no lease any more. What is said is said when it is so.
func (c *client) lose(format string, args ...any) []action {
	acts := []action{{kind: unbind, lease: c.lease}, {kind: say, say: fmt.Sprintf(format, args...)}}
	c.lease = nil
	return acts
}

func (c *client) conflicting(now time.Duration) []action {
	if c.phase != probing {
		return nil
	}
	p := c.packet(now, dhcpv4.MessageTypeDecline)
	acts := []action{{kind: say, say: fmt.Sprintf("somebody else has %s, which DHCP server %s gives; decline it", c.offer.Address.Addr(), c.offer.Server)}, {kind: send, packet: p}}
	c.begin(now, afterConflict)
	return acts
}

// packet makes a message as the phase needs it (RFC 2131, table 5).
func (c *client) packet(now time.Duration, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	p := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: c.mac,
		NumSeconds: uint16(min(max(now-c.sent, 0)/time.Second, 1<<16-1)),
		Options:    dhcpv4.Options{},
	}
	binary.BigEndian.PutUint32(p.TransactionID[:], c.xid)
	p.UpdateOption(dhcpv4.OptMessageType(kind))
	p.UpdateOption(dhcpv4.OptClientIdentifier(append([]byte{1}, c.mac...)))
	ask := func(a netip.Addr) { p.UpdateOption(dhcpv4.OptRequestedIPAddress(a.AsSlice())) }
	switch {
	case kind == dhcpv4.MessageTypeDecline:
		ask(c.offer.Address.Addr())
		p.UpdateOption(dhcpv4.OptServerIdentifier(c.offer.Server.AsSlice()))
		return p
	case c.phase == requesting:
		ask(c.offer.Address.Addr())
		p.UpdateOption(dhcpv4.OptServerIdentifier(c.offer.Server.AsSlice()))
	case c.phase == rebooting:
		ask(c.lease.Address.Addr())
	case c.phase == renewing, c.phase == rebinding:
		p.ClientIPAddr = c.lease.Address.Addr().AsSlice()
	}
	// Every other time the answer is asked for as a broadcast: not each network
	// brings a packet to an address that nobody has yet.
	if c.tries%2 == 0 && c.phase != renewing && c.phase != rebinding {
		p.SetBroadcast()
	}
	p.UpdateOption(dhcpv4.OptMaxMessageSize(maxPacket))
	if c.hostname != "" {
		p.UpdateOption(dhcpv4.OptHostName(c.hostname))
	}
	// Classless routes before routers (RFC 3442).
	p.UpdateOption(dhcpv4.OptParameterRequestList(dhcpv4.OptionSubnetMask, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionRouter,
		dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionBroadcastAddress,
		dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue))
	return p
}
