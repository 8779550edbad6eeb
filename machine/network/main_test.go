package network

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// patience is how long anything is waited for. No test depends on its length.
const patience = 60 * time.Second

const (
	insideVar = "PAZINIT_NETWORK_TEST" // the network namespace that it must not be
	mainVar   = "PAZINIT_NETWORK_MAIN" // the test binary is the process
)

// The tests that change a network run in a network namespace of their own, which
// the whole test binary enters: Go moves goroutines between threads.
func TestMain(m *testing.M) {
	if os.Getenv(mainVar) != "" {
		os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	fuzzing := false
	for _, a := range os.Args[1:] {
		fuzzing = fuzzing || strings.HasPrefix(a, "-test.fuzz=") || strings.HasPrefix(a, "-test.fuzzworker")
	}
	if os.Getenv(insideVar) != "" && os.Geteuid() == 0 { // its mounts are nobody else's
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	nl.NativeEndian() // it finds out once, without a lock
	if os.Geteuid() != 0 || fuzzing || os.Getenv(insideVar) != "" {
		os.Exit(m.Run())
	}
	ns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVar+"="+ns)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// needNetwork skips without root, and fails where the network is somebody's.
func needNetwork(t *testing.T) {
	t.Helper()
	rig.NeedRoot(t)
	outside := os.Getenv(insideVar)
	ns, err := os.Readlink("/proc/self/ns/net")
	if err != nil || outside == "" || ns == outside {
		t.Fatalf("this is no network namespace of the tests': %q, outside %q, %v", ns, outside, err)
	}
}

// A peer is the other end of a wire, in a network namespace of its own.
type peer struct {
	t    *testing.T
	ns   *os.File
	here string // the name of this end, there it is "p"
	link link   // the other end
}

// wire makes a pair of devices; both ends are up when up is true.
func wire(t *testing.T, name string) *peer {
	t.Helper()
	needNetwork(t)
	p := &peer{t: t, here: name}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			p.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		ready <- err
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.ns.Close() })
	data := nl.NewRtAttr(unix.IFLA_INFO_DATA, nil)
	other := data.AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(other, unix.AF_UNSPEC)
	other.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("p"))
	other.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(p.ns.Fd())))
	if err := makeLink(name, "veth", data); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unplug(t, name) })
	p.do(func() error {
		p.link = find(t, "p")
		return setUp(p.link)
	})
	return p
}

// do does f on the other side.
func (p *peer) do(f func() error) {
	p.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(p.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		p.t.Fatal(err)
	}
}

// carrier takes the other end down or up.
func (p *peer) carrier(up bool) {
	p.t.Helper()
	p.do(func() error {
		flags := uint32(0)
		if up {
			flags = unix.IFF_UP
		}
		return setLink(p.link.index, flags, unix.IFF_UP)
	})
}

func unplug(t *testing.T, name string) {
	t.Helper()
	all, err := links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if l.name == name {
			m := nl.NewIfInfomsg(unix.AF_UNSPEC)
			m.Index = int32(l.index)
			if err := change(unix.RTM_DELLINK, 0, m); err != nil {
				t.Errorf("remove %s: %v", name, err)
			}
		}
	}
}

func find(t *testing.T, name string) link {
	t.Helper()
	all, err := links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if l.name == name {
			return l
		}
	}
	return link{}
}

// have are the IPv4 addresses of a device.
func have(t *testing.T, name string) string {
	t.Helper()
	all, err := addresses()
	if err != nil {
		t.Fatal(err)
	}
	l := find(t, name)
	var list []string
	for _, a := range all {
		if a.index == l.index && a.prefix.Addr().Is4() {
			list = append(list, a.prefix.String())
		}
	}
	return strings.Join(list, " ")
}

// routes are the routes of a device in the main table, each as "to via metric".
func routes(t *testing.T, name string) map[string]uint8 {
	t.Helper()
	index := find(t, name).index
	found := map[string]uint8{}
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		m := nl.NewRtMsg()
		m.Family = uint8(fam)
		req.AddData(m)
		msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range msgs {
			if b[4] != unix.RT_TABLE_MAIN {
				continue
			}
			var r Route
			to, out := netip.IPv4Unspecified(), 0
			if fam == unix.AF_INET6 {
				to = netip.IPv6Unspecified()
			}
			for kind, v := range attributes(b[unix.SizeofRtMsg:]) {
				switch kind {
				case unix.RTA_DST:
					to, _ = netip.AddrFromSlice(v)
				case unix.RTA_GATEWAY:
					r.Via, _ = netip.AddrFromSlice(v)
				case unix.RTA_OIF:
					out = int(binary.NativeEndian.Uint32(v))
				}
			}
			r.To = netip.PrefixFrom(to, int(b[1]))
			if out == index && !r.To.Addr().IsLinkLocalUnicast() {
				found[r.String()] = b[5]
			}
		}
	}
	return found
}

// A running is a Run.
type running struct {
	t      *testing.T
	dir    string
	resolv string
	said   chan string
	cancel func()
	ended  chan error
	over   bool
}

// state is what the file says.
func (r *running) state() State {
	r.t.Helper()
	var s State
	b, err := os.ReadFile(filepath.Join(r.dir, StateFile))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *running) isUp() bool {
	_, err := os.Stat(filepath.Join(r.dir, StateUp))
	return err == nil
}

// hears waits until a line with part is said, and returns it.
func (r *running) hears(part string) string {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line := <-r.said:
			if strings.Contains(line, part) {
				return line
			}
		case err := <-r.ended:
			r.t.Fatalf("waiting for %q, Run returned %v", part, err)
		case <-timeout:
			r.t.Fatalf("%q is not said", part)
		}
	}
}

// stop ends it.
func (r *running) stop() {
	r.t.Helper()
	if r.over {
		return
	}
	r.over = true
	r.cancel()
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("Run() = %v", err)
		}
	case <-time.After(patience):
		r.t.Fatal("Run does not end")
	}
}

// A server is a DHCP server on the other side that does as it is told.
type server struct {
	p       *peer
	f       *os.File
	own     netip.Addr
	seen    chan *dhcpv4.DHCPv4
	mu      sync.Mutex
	address netip.Addr
	lease   time.Duration
	silent  func(*dhcpv4.DHCPv4) bool
	nak     func(*dhcpv4.DHCPv4) bool
	more    []dhcpv4.Modifier
}

func (p *peer) serve(own, give string, lease time.Duration, more ...dhcpv4.Modifier) *server {
	p.t.Helper()
	prefix := netip.MustParsePrefix(own)
	s := &server{p: p, own: prefix.Addr(), address: netip.MustParseAddr(give), lease: lease, more: more, seen: make(chan *dhcpv4.DHCPv4, 1000)}
	p.do(func() (err error) {
		if err := setAddress(p.link, prefix, 0); err != nil {
			return err
		}
		s.f, err = packetSocket(p.link.index, unix.ETH_P_IP, nil)
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		readPackets(s.f, func(b []byte) bool { s.take(b); return true })
	}()
	p.t.Cleanup(func() { s.f.Close(); <-done })
	return s
}

// set changes the server between two packets.
func (s *server) set(f func(s *server)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *server) take(b []byte) {
	if len(b) < 28 || b[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[22:]) != serverPort {
		return
	}
	m, err := dhcpv4.FromBytes(b[28:])
	if err != nil {
		s.p.t.Errorf("client's packet: %v", err)
		return
	}
	// Who sent it, for those who want to know how it came.
	from, _ := netip.AddrFromSlice(b[16:20])
	m.GatewayIPAddr = from.AsSlice()
	s.seen <- m
	s.mu.Lock()
	defer s.mu.Unlock()
	kind := dhcpv4.MessageTypeAck
	if m.MessageType() == dhcpv4.MessageTypeDiscover {
		kind = dhcpv4.MessageTypeOffer
	} else if id := oneAddr(m.Options.Get(dhcpv4.OptionServerIdentifier)); m.MessageType() != dhcpv4.MessageTypeRequest || id.IsValid() && id != s.own {
		return // another's
	}
	if s.silent != nil && s.silent(m) {
		return
	}
	if s.nak != nil && s.nak(m) {
		kind = dhcpv4.MessageTypeNak
	}
	s.send(s.reply(m, kind))
}

func (s *server) reply(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	r := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, HWType: 1, TransactionID: m.TransactionID, ClientHWAddr: m.ClientHWAddr, Options: dhcpv4.Options{}}
	r.UpdateOption(dhcpv4.OptMessageType(kind))
	r.UpdateOption(dhcpv4.OptServerIdentifier(s.own.AsSlice()))
	if kind == dhcpv4.MessageTypeNak {
		return r
	}
	r.YourIPAddr = s.address.AsSlice()
	r.UpdateOption(dhcpv4.OptIPAddressLeaseTime(s.lease))
	r.UpdateOption(dhcpv4.OptSubnetMask([]byte{255, 255, 255, 0}))
	for _, m := range s.more {
		m(r)
	}
	return r
}

func (s *server) send(m *dhcpv4.DHCPv4) { s.sendBytes(m.ToBytes()) }

// sendBytes wraps as a client does, and turns the ports round.
func (s *server) sendBytes(payload []byte) {
	b := wrap(payload, s.own)
	copy(b[20:24], []byte{0, serverPort, 0, clientPort})
	if err := broadcast(s.f, s.p.link.index, unix.ETH_P_IP, b); err != nil && !errors.Is(err, unix.ENETDOWN) {
		s.p.t.Errorf("send to the client: %v", err)
	}
}

// sees waits for a message of one kind.
func (s *server) sees(kind dhcpv4.MessageType, also func(*dhcpv4.DHCPv4) bool) *dhcpv4.DHCPv4 {
	s.p.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case m := <-s.seen:
			if m.MessageType() == kind && (also == nil || also(m)) {
				return m
			}
		case <-timeout:
			s.p.t.Fatalf("no %s comes", kind)
		}
	}
}

// A removals counts the IPv4 addresses that are taken from devices.
type removals struct {
	f    *os.File
	done chan int
}

func watchAddresses() (*removals, error) {
	f, err := socketFile("rtnetlink", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, func(fd int) error {
		return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR})
	})
	if err != nil {
		return nil, err
	}
	w := &removals{f, make(chan int, 1)}
	go func() {
		n, buf := 0, make([]byte, 1<<16)
		for {
			m, err := f.Read(buf)
			if err != nil {
				w.done <- n
				return
			}
			msgs, _ := syscall.ParseNetlinkMessage(buf[:m])
			for _, m := range msgs {
				if m.Header.Type == unix.RTM_DELADDR {
					n++
				}
			}
		}
	}()
	return w, nil
}

// removed ends the counting. What has happened before is counted: the socket
// holds it.
func (w *removals) removed() int {
	w.f.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	n := <-w.done
	w.done <- n
	return n
}

func (w *removals) close() { w.f.Close() }

// until waits until the state in the file is so.
func (r *running) until(so func(State) bool) State {
	r.t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, r.dir, unix.IN_MOVED_TO)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		if s := r.state(); so(s) {
			return s
		}
		if _, err := f.Read(buf); err != nil {
			r.t.Fatalf("%v; state %+v", err, r.state())
		}
	}
}

// outlives waits until the first device's lease ends later than at a time, and
// that time is past.
func (r *running) outlives(end time.Duration) {
	r.t.Helper()
	r.until(func(s State) bool {
		l := s.Interfaces[0].Lease
		if l == nil {
			r.t.Fatal("the lease is lost")
		}
		return l.Expiry > end && boottime() > end
	})
}
