package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A State is what is configured, in the state file.
type State struct {
	Up         bool             `json:"up"` // all that was asked for
	Interfaces []InterfaceState `json:"interfaces,omitempty"`
	DNS        []netip.Addr     `json:"dns,omitempty"`
	Search     []string         `json:"search,omitempty"`
	ResolvConf string           `json:"resolv_conf,omitempty"` // the file that was written
}

// An InterfaceState is one device of a [State].
type InterfaceState struct {
	Name      string         `json:"name"`
	Index     int            `json:"index,omitempty"` // 0: it is not there
	MAC       string         `json:"mac,omitempty"`
	Carrier   bool           `json:"carrier,omitempty"`
	Ready     bool           `json:"ready,omitempty"`
	DHCP      string         `json:"dhcp,omitempty"` // where its client is
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Lease     *Lease         `json:"lease,omitempty"`
	Problem   string         `json:"problem,omitempty"`
	Waits     string         `json:"waits,omitempty"` // for what, while it is not ready
}

// maxState bounds the state file when it is read.
const maxState = 1 << 20

// An iface is a device of the configuration, or one that [Any] stands for.
type iface struct {
	cfg     Interface
	any     bool
	link    link // the newest; index 0: it is not there
	applied bool // to that index, since it was last brought up
	problem error
	said    string        // the problem that was said
	tries   int           // since there is one
	retry   time.Duration // when to try again
	ready   bool
	waits   string        // why it is not
	since   time.Duration // it is not, and since something was told for that reason; 0: it is
	told    string        // of waits
	seen    string        // waits of the last look
	worker  *worker
	phase   phase
	lease   *Lease
}

// A runner is the one goroutine of Run.
type runner struct {
	c       Config
	o       Options
	ifaces  []*iface
	anys    Interface // of Any, if hasAny
	hasAny  bool
	none    iface                     // what is said of Any while it stands for nothing
	kept    map[string]InterfaceState // of an earlier process, by name
	reports chan report
	state   []byte // that was written
	resolv  string // that was written
	written string // where to
	waits   string // that was written
	up      bool
}

func (o *Options) defaults() {
	if o.StateDir == "" {
		o.StateDir = "/run/pazinit"
	}
	if o.ResolvConf == "" {
		o.ResolvConf = "/etc/resolv.conf"
	}
	if o.Say == nil {
		o.Say = func(string) {}
	}
}

// Run makes the network of c and keeps it until ctx ends: leases are renewed,
// devices that come late get what is theirs. It leaves the network as it is when
// it returns, so that another Run can go on with it. An error says that it could not begin, or that the kernel
// tells no more; what does not work with one interface only is said and tried
// again.
//
// It needs CAP_NET_ADMIN and CAP_NET_RAW.
func Run(ctx context.Context, c Config, o Options) error {
	o.defaults()
	if err := c.Check(); err != nil {
		return fmt.Errorf("configure network: %w", err)
	}
	if err := os.MkdirAll(o.StateDir, 0o755); err != nil {
		o.Say(fmt.Sprintf("keep no state of the network: %v", err))
	}
	w, err := watch()
	if err != nil {
		return err
	}
	defer w.close()
	r := &runner{c: c, o: o, reports: make(chan report), kept: readState(filepath.Join(o.StateDir, StateFile))}
	for _, in := range c.Interfaces {
		if in.Name == Any {
			r.anys, r.hasAny = in, true
			r.none.cfg = in
			continue
		}
		r.ifaces = append(r.ifaces, &iface{cfg: in})
	}
	_, err = os.Lstat(filepath.Join(o.StateDir, StateUp))
	r.up = err == nil
	_ = os.Remove(filepath.Join(o.StateDir, StateWaits)) // of an earlier process
	if err := loopback(); err != nil {
		o.Say(err.Error())
	}
	defer r.stop()
	return r.loop(ctx, w)
}

func (r *runner) loop(ctx context.Context, w *watcher) error {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.done:
			return errors.New("watch network devices: the kernel tells no more")
		case <-w.changed:
		case <-retry.C:
		case rep := <-r.reports:
			r.take(rep)
		}
		wait, err := r.reconcile(ctx)
		if err != nil {
			r.o.Say(err.Error())
			wait = time.Second
		}
		r.publish()
		more := r.tellWaits(boottime())
		r.publishWaits()
		if more > 0 && (wait == 0 || more < wait) {
			wait = more
		}
		if wait > 0 {
			retry.Reset(wait)
		}
	}
}

// take keeps what a worker says, unless it is of one that is no more.
func (r *runner) take(rep report) {
	for _, f := range r.ifaces {
		if f.worker != rep.from {
			continue
		}
		f.phase, f.lease = rep.phase, rep.lease
		if rep.say != "" {
			r.o.Say(rep.say)
		}
		if rep.err != nil {
			f.worker.stop()
			f.worker, f.lease = nil, nil
			f.fail(rep.err)
		}
	}
}

func (r *runner) stop() {
	for _, f := range r.ifaces {
		r.stopWorker(f)
	}
}

// stopWorker ends a worker, whose last reports nobody needs.
func (r *runner) stopWorker(f *iface) {
	if f.worker == nil {
		return
	}
	f.worker.cancel()
	for ended := false; !ended; {
		select {
		case rep := <-r.reports:
			if rep.from != f.worker {
				r.take(rep)
			}
		case <-f.worker.done:
			ended = true
		}
	}
	f.worker, f.phase = nil, idle
}

func loopback() error {
	all, err := links()
	if err != nil {
		return err
	}
	for _, l := range all {
		if l.name == "lo" {
			return setUp(l) // the kernel gives it its addresses
		}
	}
	return nil
}

// reconcile compares what there is with what is to be, and changes the least. It
// returns when to look again though nothing tells; 0 is when something does.
func (r *runner) reconcile(ctx context.Context) (wait time.Duration, err error) {
	for range 8 { // what is made here changes what there is
		all, err := links()
		if err != nil {
			return 0, err
		}
		r.expand(all)
		again := false
		for _, f := range r.ifaces {
			if r.attend(ctx, f, all) {
				again = true
			}
		}
		if !again {
			break
		}
	}
	r.ifaces = slices.DeleteFunc(r.ifaces, func(f *iface) bool { // or any name that ever was stays
		return f.any && f.link.index == 0
	})
	if err := r.judge(); err != nil {
		return 0, err
	}
	for _, f := range r.ifaces {
		switch {
		case f.problem == nil:
			f.said, f.tries = "", 0
			continue
		case f.said != f.problem.Error():
			f.said = f.problem.Error()
			r.o.Say(f.cfg.Name + ": " + f.said)
		}
		left := max(f.retry-boottime(), 100*time.Millisecond)
		if wait == 0 || left < wait {
			wait = left
		}
	}
	return wait, nil
}

// fail keeps a problem, and when what it hinders is tried again.
func (f *iface) fail(err error) {
	f.problem = err
	f.retry = boottime() + min(time.Second<<min(f.tries, 10), 30*time.Second)
	f.tries++
}

// due says whether something may be tried: what fails makes events, too.
func (f *iface) due() bool { return f.problem == nil || boottime() >= f.retry }

// expand adds the devices that Any stands for.
func (r *runner) expand(all []link) {
	if !r.hasAny {
		return
	}
	for _, l := range all {
		named := slices.ContainsFunc(r.ifaces, func(f *iface) bool {
			return f.cfg.Name == l.name || slices.Contains(f.cfg.Bridge, l.name)
		})
		if named || !l.ether || l.master != 0 || l.kind != "" && l.kind != "veth" || len(r.ifaces) > maxList {
			continue
		}
		in := r.anys
		in.Name = l.name
		if len(in.Addresses) > 0 && slices.ContainsFunc(r.ifaces, func(f *iface) bool { return f.any }) {
			continue // an address is for one
		}
		r.ifaces = append(r.ifaces, &iface{cfg: in, any: true})
	}
}

// attend brings one device nearer to what it is to be. It returns true when it
// made something that the list of devices does not have yet.
func (r *runner) attend(ctx context.Context, f *iface, all []link) (again bool) {
	i := slices.IndexFunc(all, func(l link) bool { return l.name == f.cfg.Name && (!f.any || l.master == 0) })
	if i < 0 {
		if f.link.index != 0 {
			r.o.Say(f.cfg.Name + ": is gone") // or somebody's port, where Any stands for it
			r.stopWorker(f)
			*f = iface{cfg: f.cfg, any: f.any}
		}
		return r.makeDevice(f, all)
	}
	old, l := f.link, all[i]
	f.link = l
	if old.index != l.index || !slices.Equal(old.mac, l.mac) {
		r.stopWorker(f)
		if f.lease != nil && old.index == l.index { // it was another hardware address's
			if err := dropAddress(l, f.lease.Address); err != nil {
				r.o.Say(err.Error())
			}
		}
		f.applied, f.lease = false, nil
	}
	if f.applied && !l.up && f.problem == nil {
		// Somebody took it down: it stays down, and what the kernel forgets of it
		// comes back when it is brought up.
		if f.worker != nil {
			r.tell(f)
		}
		return false
	}
	if !f.due() {
		return false
	}
	if !f.applied || !old.up || old.downs != l.downs || f.problem != nil {
		f.problem = nil
		f.applied = true
		if err := f.apply(); err != nil {
			f.fail(err)
			return false
		}
		if !l.up {
			return true // it is up now
		}
	}
	for _, name := range f.cfg.Bridge {
		p := slices.IndexFunc(all, func(l link) bool { return l.name == name })
		if p < 0 {
			continue
		}
		port := all[p]
		if port.master != l.index {
			if err := setMaster(port, l); err != nil {
				f.fail(err)
				return false
			}
			again = true
		}
		if err := setUp(port); err != nil {
			f.fail(err)
			return false
		}
	}
	if f.cfg.DHCP && !again && l.up {
		r.serve(ctx, f)
	}
	return again
}

// makeDevice makes a VLAN or a bridge once what it needs is there.
func (r *runner) makeDevice(f *iface, all []link) (made bool) {
	if !f.due() {
		return false
	}
	var err error
	switch {
	case f.cfg.IsBridge || len(f.cfg.Bridge) > 0:
		err = makeBridge(f.cfg.Name)
	case f.cfg.VLAN != 0:
		p := slices.IndexFunc(all, func(l link) bool { return l.name == f.cfg.Parent })
		if p < 0 {
			f.problem = nil
			return false
		}
		if err = setUp(all[p]); err == nil {
			err = makeVLAN(f.cfg.Name, f.cfg.VLAN, all[p])
		}
	default:
		return false
	}
	f.problem = nil
	if err != nil {
		f.fail(err)
	}
	return err == nil
}

// apply gives a device what does not depend on a server. All of it can be there
// already.
func (f *iface) apply() error {
	var errs []error
	try := func(err error) { errs = append(errs, err) }
	if f.cfg.VLAN != 0 && (f.link.kind != "vlan" || f.link.vlan != f.cfg.VLAN) {
		return fmt.Errorf("%s is there, and not VLAN %d", f.cfg.Name, f.cfg.VLAN)
	}
	if (f.cfg.IsBridge || len(f.cfg.Bridge) > 0) && f.link.kind != "bridge" {
		return fmt.Errorf("%s is there, and no bridge", f.cfg.Name)
	}
	if f.cfg.MTU != 0 {
		try(setMTU(f.link, f.cfg.MTU))
	}
	if f.cfg.IPv6RA != nil {
		try(setRA(f.cfg.Name, *f.cfg.IPv6RA))
	}
	try(setUp(f.link))
	for _, p := range f.cfg.Addresses {
		try(setAddress(f.link, p, 0))
	}
	for _, route := range f.cfg.Routes {
		try(setRoute(f.link, route, byConfig, netip.Addr{}, f.cfg.Addresses))
	}
	for _, g := range f.cfg.Gateways {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if g.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		try(setRoute(f.link, Route{To: all, Via: g}, byConfig, netip.Addr{}, f.cfg.Addresses))
	}
	return errors.Join(errs...)
}

// setRA has the kernel take, or not, what routers advertise; 2 is also on a
// machine that forwards (Documentation/networking/ip-sysctl.rst).
func setRA(name string, on bool) error {
	values := [][2]string{{"accept_ra", "0"}}
	if on {
		values = [][2]string{{"disable_ipv6", "0"}, {"autoconf", "1"}, {"accept_ra", "2"}}
	}
	for _, v := range values {
		path := filepath.Join("/proc/sys/net/ipv6/conf", name, v[0])
		if !on && errors.Is(unix.Access(path, unix.F_OK), unix.ENOENT) {
			continue // no IPv6, no advertisements
		}
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			_, err = unix.Write(fd, []byte(v[1]))
			unix.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", path, err)
		}
	}
	return nil
}

// serve has a worker for a device, and tells it of the carrier.
func (r *runner) serve(ctx context.Context, f *iface) {
	if f.worker == nil {
		if !f.link.ether || len(f.link.mac) != 6 {
			f.fail(errors.New("DHCP is for Ethernet devices"))
			return
		}
		f.worker = &worker{
			link: f.link, ownMTU: f.cfg.MTU != 0, leastMTU: f.cfg.leastMTU(), metric: uint32(200 + f.link.index),
			reports: r.reports, c: client{hostname: r.c.Hostname},
		}
		if k, ok := r.kept[f.cfg.Name]; ok && k.Lease != nil && k.MAC == macText(f.link.mac) && k.Lease.sane() && !k.Lease.expired(boottime()) {
			// The device has it still: nothing that is up goes down meanwhile.
			f.worker.c.lease, f.lease = k.Lease, k.Lease
		}
		delete(r.kept, f.cfg.Name)
		// The worker has a context of its own: it ends before what it needs does.
		f.worker.start(context.WithoutCancel(ctx))
		f.worker.told = carrier{downs: -1}
	}
	r.tell(f)
}

// leastMTU is what a DHCP server may say: with less than 1280 the kernel takes all
// of IPv6 from a device.
func (in *Interface) leastMTU() int {
	if in.IPv6RA != nil && *in.IPv6RA || slices.ContainsFunc(in.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		return 1280
	}
	return 0
}

func (r *runner) tell(f *iface) {
	if c := (carrier{f.link.carrier, f.link.downs}); f.worker.told != c {
		f.worker.told = c
		f.worker.setCarrier(c)
	}
}

// judge says which devices have what they are to have.
func (r *runner) judge() error {
	var have []address
	for _, f := range r.ifaces {
		f.ready = f.link.index != 0 && f.link.up && f.applied && f.problem == nil && (!f.cfg.DHCP || f.lease != nil)
		f.waits = f.why()
		wantsRA := f.cfg.IPv6RA != nil && *f.cfg.IPv6RA
		if !f.ready || !wantsRA && !slices.ContainsFunc(f.cfg.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
			continue
		}
		if have == nil {
			var err error
			if have, err = addresses(); err != nil {
				return err
			}
		}
		advertised := false
		for _, a := range have {
			if a.index != f.link.index || !a.prefix.Addr().Is6() {
				continue
			}
			if slices.Contains(f.cfg.Addresses, a.prefix) {
				switch {
				case a.failed:
					f.fail(fmt.Errorf("somebody else has %s", a.prefix))
					f.ready, f.waits = false, f.problem.Error()
				case a.tentative:
					f.ready, f.waits = false, fmt.Sprintf("whether somebody else has %s is not known yet", a.prefix)
				}
			} else if a.global && a.passing && !a.tentative && !a.failed {
				advertised = true
			}
		}
		if f.ready && wantsRA && !advertised {
			f.ready, f.waits = false, "no router has given an IPv6 address"
		}
	}
	r.none.waits = ""
	if r.hasAny && !slices.ContainsFunc(r.ifaces, func(f *iface) bool { return f.any && f.link.index != 0 }) {
		r.none.waits = "there is no Ethernet device"
	}
	return nil
}

// why is what hinders a device that is not ready, as far as it can be seen here.
func (f *iface) why() string {
	switch {
	case f.ready:
		return ""
	case f.problem != nil:
		return f.problem.Error()
	case f.link.index == 0 && f.cfg.VLAN != 0:
		return "its parent " + f.cfg.Parent + " is not there"
	case f.link.index == 0:
		return "it is not there"
	case !f.link.up:
		return "it is down"
	case !f.cfg.DHCP:
		return "it is being set up"
	}
	switch f.phase {
	case idle:
		return "no carrier"
	case selecting:
		return "no DHCP server answers"
	case waiting, requesting, probing, bound, renewing, rebinding, rebooting, numPhases:
	}
	return "no DHCP server has given an address"
}

// patienceWithDevices is how long nothing is said of a device that is not ready.
const patienceWithDevices = 3 * time.Second

// tellWaits says of each device that is not ready for what it waits: once, until
// that has been something else for a while. It returns when to look again, 0 for
// not at all.
func (r *runner) tellWaits(now time.Duration) (wait time.Duration) {
	anyReady := slices.ContainsFunc(r.ifaces, func(f *iface) bool { return f.any && f.ready })
	for _, f := range append(slices.Clone(r.ifaces), &r.none) {
		if f.waits == "" || f.any && (anyReady || f.link.index == 0) {
			f.since, f.told, f.seen = 0, "", ""
			continue
		}
		if f.since == 0 || f.told != "" && f.waits != f.seen {
			f.since = now
		}
		f.seen = f.waits
		left := f.since + patienceWithDevices - now
		switch {
		case f.problem != nil || f.told == f.waits: // said
		case left > 0:
			if wait == 0 || left < wait {
				wait = left
			}
		default:
			f.told = f.waits
			r.o.Say(f.cfg.Name + ": waits: " + f.waits)
		}
	}
	return wait
}

// publishWaits writes for what the network waits, on one line, as far as it was
// said: what passes in a moment nobody has to know.
func (r *runner) publishWaits() {
	var parts []string
	for _, f := range append(slices.Clone(r.ifaces), &r.none) {
		why := f.told
		if f.problem != nil {
			why = f.problem.Error()
		}
		if why != "" && !f.cfg.Optional && !r.up {
			parts = append(parts, f.cfg.Name+": "+why)
		}
	}
	text := oneLine(strings.Join(parts, "; "))
	if text == r.waits {
		return
	}
	r.waits = text
	var err error
	if path := filepath.Join(r.o.StateDir, StateWaits); text == "" {
		err = os.Remove(path)
	} else {
		err = replaceFile(path, []byte(text))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.o.Say(fmt.Sprintf("tell what the network waits for: %v", err))
	}
}

// publish writes the files, those that changed.
func (r *runner) publish() {
	s := State{Up: true}
	anyReady := false
	s.DNS = slices.Clone(r.c.DNS)
	s.Search = slices.Clone(r.c.Search)
	for _, f := range r.ifaces {
		is := InterfaceState{Name: f.cfg.Name, Index: f.link.index, MAC: macText(f.link.mac), Carrier: f.link.carrier, Ready: f.ready, Lease: f.lease}
		if f.link.index != 0 {
			is.Addresses = slices.Clone(f.cfg.Addresses)
		}
		if f.cfg.DHCP {
			is.DHCP = f.phase.String()
		}
		if f.problem != nil {
			is.Problem = f.problem.Error()
		} else {
			is.Waits = f.waits
		}
		if l := f.lease; l != nil {
			is.Addresses = append(is.Addresses, l.Address)
			for _, a := range l.DNS {
				if !slices.Contains(s.DNS, a) {
					s.DNS = append(s.DNS, a)
				}
			}
			for _, d := range l.Search {
				if !slices.Contains(s.Search, d) {
					s.Search = append(s.Search, d)
				}
			}
		}
		s.Interfaces = append(s.Interfaces, is)
		anyReady = anyReady || f.any && f.ready
		s.Up = s.Up && (f.ready || f.any || f.cfg.Optional)
	}
	s.Up = s.Up && (!r.hasAny || anyReady || r.anys.Optional)
	// Names that an earlier process knew and that have not come yet stay known.
	for _, name := range slices.Sorted(maps.Keys(r.kept)) {
		k := r.kept[name]
		if !slices.ContainsFunc(s.Interfaces, func(i InterfaceState) bool { return i.Name == k.Name && i.Index != 0 }) && k.Lease != nil {
			s.Interfaces = slices.DeleteFunc(s.Interfaces, func(i InterfaceState) bool { return i.Name == k.Name })
			s.Interfaces = append(s.Interfaces, InterfaceState{Name: k.Name, MAC: k.MAC, Lease: k.Lease})
		}
	}
	r.publishResolv(&s)
	if b, err := json.MarshalIndent(s, "", "  "); err == nil && !bytes.Equal(b, r.state) {
		r.state = b
		if err := replaceFile(filepath.Join(r.o.StateDir, StateFile), append(b, '\n')); err != nil {
			r.o.Say(fmt.Sprintf("keep the state of the network: %v", err))
		}
	}
	r.publishUp(s.Up)
}

func (r *runner) publishResolv(s *State) {
	text := resolvConf(s.DNS, s.Search)
	if text != "" && text != r.resolv {
		r.resolv = text
		r.written = r.o.ResolvConf
		if err := writeResolvConf(r.o.ResolvConf, text); err != nil {
			r.written = filepath.Join(r.o.StateDir, "resolv.conf")
			r.o.Say(fmt.Sprintf("write %s: %v; name servers are in %s", r.o.ResolvConf, err, r.written))
			if err := replaceFile(r.written, []byte(text)); err != nil {
				r.o.Say(fmt.Sprintf("write name servers: %v", err))
				r.written = ""
			}
		}
	}
	s.ResolvConf = r.written
}

func (r *runner) publishUp(up bool) {
	path := filepath.Join(r.o.StateDir, StateUp)
	if up == r.up {
		return
	}
	r.up = up
	var err error
	if up {
		err = replaceFile(path, nil)
		r.o.Say("network is up")
	} else {
		if err = os.Remove(path); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		r.o.Say("network is no longer up")
	}
	if err != nil {
		r.o.Say(fmt.Sprintf("tell that the network is up: %v", err))
	}
}

func macText(mac []byte) string {
	var b []byte
	for i, c := range mac[:min(len(mac), 32)] {
		if i > 0 {
			b = append(b, ':')
		}
		if c < 16 {
			b = append(b, '0')
		}
		b = strconv.AppendUint(b, uint64(c), 16)
	}
	return string(b)
}

// readState reads what an earlier process kept, by name. What cannot be read was
// not kept.
func readState(path string) map[string]InterfaceState {
	kept := map[string]InterfaceState{}
	b, err := readAtMost(path, maxState)
	if err != nil {
		return kept
	}
	var s State
	if json.Unmarshal(b, &s) != nil {
		return kept
	}
	for _, i := range s.Interfaces {
		kept[i.Name] = i
	}
	return kept
}
