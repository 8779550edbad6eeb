package network

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A worker is the goroutine that keeps a DHCP lease for one device.
type worker struct {
	link     link
	told     carrier // of a carrier, by the loop
	ownMTU   bool    // the configuration says it
	leastMTU int     // that a server may say
	metric   uint32  // of the routes
	c        client
	reports  chan<- report
	carrier  chan carrier  // holds one, the newest
	done     chan struct{} // closed at its end
	cancel   context.CancelFunc
	pack     *os.File
	udp      *os.File
	arp      *os.File
	arpSeen  chan struct{}
	probed   netip.Addr
	lines    int // that were said in the minute from
	minute   time.Duration
	lastLine string
	routes   []Route // that are set
	live     *Lease  // that the device has
}

// A carrier is whether a device can send, and how often it could no more: who is
// told late knows what was between.
type carrier struct {
	up    bool
	downs int
}

// A report is what a worker tells the loop.
type report struct {
	from  *worker
	phase phase
	lease *Lease
	say   string
	err   error // it has ended
}

func (w *worker) start(ctx context.Context) {
	ctx, w.cancel = context.WithCancel(ctx)
	w.carrier, w.done = make(chan carrier, 1), make(chan struct{})
	w.c.mac = w.link.mac
	w.c.random = func() uint32 { return randomNumber() }
	w.arpSeen = make(chan struct{}, 1)
	go func() {
		defer close(w.done)
		if err := w.run(ctx); err != nil {
			w.report(ctx, report{err: err})
		}
	}()
}

// stop ends the worker and waits for it.
func (w *worker) stop() {
	w.cancel()
	<-w.done
}

// setCarrier tells what the newest is.
func (w *worker) setCarrier(c carrier) {
	select {
	case <-w.carrier:
	default:
	}
	w.carrier <- c
}

func randomNumber() uint32 {
	var b [4]byte
	if n, err := unix.Getrandom(b[:], unix.GRND_NONBLOCK); n != len(b) || err != nil { // early in a boot
		binary.NativeEndian.PutUint32(b[:], uint32(boottime())*2654435761^uint32(os.Getpid()))
	}
	return binary.NativeEndian.Uint32(b[:])
}

func (w *worker) report(ctx context.Context, r report) {
	r.from, r.phase, r.lease = w, w.c.phase, w.live
	select {
	case w.reports <- r:
	case <-ctx.Done():
	}
}

func (w *worker) run(ctx context.Context) (err error) {
	if w.pack, err = packetSocket(w.link.index, unix.ETH_P_IP, toClients()); err != nil {
		return fmt.Errorf("ask for an address on %s: %w", w.link.name, err)
	}
	alarm, err := newAlarm()
	if err != nil {
		w.pack.Close()
		return err
	}
	packets, rang := make(chan []byte, 8), make(chan struct{}, 1)
	deaf := make(chan error, 1)
	readers := make(chan struct{}, 2)
	inner, cancel := context.WithCancel(ctx)
	go func() {
		defer func() { readers <- struct{}{} }()
		deaf <- readPackets(w.pack, func(b []byte) bool {
			select {
			case packets <- b:
				return true
			case <-inner.Done():
				return false
			}
		})
	}()
	go func() {
		defer func() { readers <- struct{}{} }()
		alarm.run(rang)
	}()
	defer func() {
		cancel()
		w.pack.Close()
		alarm.f.Close()
		closeFile(&w.udp)
		closeFile(&w.arp)
		<-readers
		<-readers
	}()
	if w.c.lease != nil { // of an earlier process
		w.c.deadline = w.c.lease.Expiry
	}
	var armed time.Duration
	downs := 0
	for {
		if w.c.deadline != armed {
			armed = w.c.deadline
			alarm.set(armed)
		}
		if w.c.phase != probing {
			closeFile(&w.arp)
		}
		if w.c.phase != renewing {
			closeFile(&w.udp)
		}
		before := w.c.phase
		var acts []action
		select {
		case <-ctx.Done():
			return nil
		case err := <-deaf:
			return fmt.Errorf("hear DHCP servers on %s: %w", w.link.name, err)
		case c := <-w.carrier:
			now := boottime()
			if !c.up || c.downs != downs {
				acts = w.c.step(now, event{kind: carrierDown})
			}
			if downs = c.downs; c.up {
				acts = append(acts, w.c.step(now, event{kind: carrierUp})...)
			}
		case <-rang:
			armed = -1
			acts = w.c.step(boottime(), event{kind: deadline})
		case <-w.arpSeen:
			acts = w.c.step(boottime(), event{kind: conflict})
		case b := <-packets:
			payload, ok := unwrap(b)
			if !ok {
				continue
			}
			p, err := readPacket(payload, w.link.mac)
			if err != nil {
				continue
			}
			acts = w.c.step(boottime(), event{kind: received, packet: p})
		}
		w.do(ctx, acts)
		if w.c.phase != before {
			w.report(ctx, report{})
		}
	}
}

func closeFile(f **os.File) {
	if *f != nil {
		(*f).Close()
		*f = nil
	}
}

func (w *worker) do(ctx context.Context, acts []action) {
	for _, a := range acts {
		var err error
		switch a.kind {
		case say:
			w.say(ctx, a.say)
		case send:
			err = w.send(a)
		case probe:
			err = w.probe(a.lease.Address.Addr())
		case bind:
			if err = w.bind(ctx, a.lease); err != nil {
				w.c.lease = nil
				w.c.begin(boottime(), afterConflict)
			}
		case unbind:
			err = dropAddress(w.link, a.lease.Address) // and the kernel its routes
			w.live, w.routes = nil, nil
			w.report(ctx, report{})
		case numActions:
		}
		if err != nil {
			w.say(ctx, err.Error())
		}
	}
}

// say tells a line, but no more than ten a minute: what servers send must not
// fill a log.
func (w *worker) say(ctx context.Context, line string) {
	now := boottime()
	if now-w.minute > time.Minute {
		w.minute, w.lines, w.lastLine = now, 0, ""
	}
	if line == w.lastLine || w.lines >= 10 {
		return
	}
	w.lines, w.lastLine = w.lines+1, line
	w.report(ctx, report{say: w.link.name + ": " + line})
}

func (w *worker) send(a action) error {
	b := a.packet.ToBytes()
	if !a.to.IsValid() {
		from := netip.IPv4Unspecified()
		if own, ok := netip.AddrFromSlice(a.packet.ClientIPAddr); ok {
			from = own
		}
		if err := broadcast(w.pack, w.link.index, unix.ETH_P_IP, wrap(b, from)); err != nil {
			return fmt.Errorf("send to DHCP servers: %w", err)
		}
		return nil
	}
	if w.udp == nil {
		own, _ := netip.AddrFromSlice(a.packet.ClientIPAddr)
		var err error
		if w.udp, err = unicastSocket(w.link.name, own); err != nil {
			return fmt.Errorf("send to DHCP server %s: %w", a.to, err)
		}
	}
	if err := sendUnicast(w.udp, a.to, b); err != nil {
		return fmt.Errorf("send to DHCP server %s: %w", a.to, err)
	}
	return nil
}

func (w *worker) probe(a netip.Addr) error {
	if w.arp == nil {
		f, err := packetSocket(w.link.index, unix.ETH_P_ARP, nil)
		if err != nil {
			return fmt.Errorf("look who has %s: %w", a, err)
		}
		w.arp, w.probed = f, a
		seen := make(chan struct{}, 1)
		w.arpSeen = seen // of this probe only
		mac := w.link.mac
		go func() {
			// One that hears nothing any more finds nobody, as the second probe does.
			_ = readPackets(f, func(b []byte) bool {
				if !arpConflicts(b, mac, a) {
					return true
				}
				seen <- struct{}{}
				return false
			})
		}()
	}
	if err := broadcast(w.arp, w.link.index, unix.ETH_P_ARP, arpPacket(w.link.mac, netip.IPv4Unspecified(), a)); err != nil {
		return fmt.Errorf("look who has %s: %w", a, err)
	}
	return nil
}

// bind has a lease, for the first time or longer. A second time changes nothing
// but the time and what differs.
func (w *worker) bind(ctx context.Context, l *Lease) error {
	life := time.Duration(0)
	if l.Expiry != 0 {
		life = max(l.Expiry-boottime(), time.Second)
	}
	if err := setAddress(w.link, l.Address, life); err != nil {
		return err
	}
	own := []netip.Prefix{l.Address}
	var routes []Route
	for _, r := range l.Routes {
		r.Metric = w.metric
		routes = append(routes, r)
		if err := setRoute(w.link, r, byDHCP, l.Address.Addr(), own); err != nil {
			w.say(ctx, err.Error())
		}
	}
	for _, r := range w.routes {
		if !slices.ContainsFunc(routes, func(n Route) bool { return n.To == r.To }) {
			if err := dropRoute(w.link, r, byDHCP); err != nil {
				w.say(ctx, err.Error())
			}
		}
	}
	w.routes = routes
	if l.MTU != 0 && !w.ownMTU && l.MTU >= w.leastMTU {
		if err := setMTU(w.link, l.MTU); err != nil {
			w.say(ctx, err.Error())
		} else {
			w.link.mtu = l.MTU
		}
	}
	fresh := w.live == nil
	w.live = l
	if fresh {
		w.say(ctx, fmt.Sprintf("has %s of DHCP server %s", l.Address, l.Server))
		if w.arp != nil { // for the neighbours' tables
			_ = broadcast(w.arp, w.link.index, unix.ETH_P_ARP, arpPacket(w.link.mac, l.Address.Addr(), l.Address.Addr()))
		}
	}
	w.report(ctx, report{})
	return nil
}
