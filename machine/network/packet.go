package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	serverPort = 67
	clientPort = 68
	ipHeader   = 20
	udpHeader  = 8
)

// wrap puts a DHCP message into UDP and IP, from from (0.0.0.0 is a client that
// has nothing yet) to everybody on the link.
func wrap(payload []byte, from netip.Addr) []byte {
	b := make([]byte, ipHeader+udpHeader, ipHeader+udpHeader+len(payload))
	b = append(b, payload...)
	ip, udp := b[:ipHeader], b[ipHeader:]
	ip[0] = 0x45
	ip[1] = 0x10 // low delay, as other clients say
	binary.BigEndian.PutUint16(ip[2:], uint16(len(b)))
	ip[8] = 64
	ip[9] = unix.IPPROTO_UDP
	src, dst := from.As4(), [4]byte{255, 255, 255, 255}
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip))
	binary.BigEndian.PutUint16(udp, clientPort)
	binary.BigEndian.PutUint16(udp[2:], serverPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	pseudo := uint32(unix.IPPROTO_UDP) + uint32(len(udp))
	check := ^sum(uint32(sum(pseudo, ip[12:20])), udp)
	if check == 0 { // which means: there is none
		check = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	return b
}

func sum(s uint32, b []byte) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// unwrap is the payload of a UDP packet to the client's port, and whether it is
// one. UDP's checksum is not looked at: a host that sends to its own guest leaves
// it to a card that is not there.
func unwrap(b []byte) (payload []byte, ok bool) {
	if len(b) < ipHeader || b[0]>>4 != 4 {
		return nil, false
	}
	head, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if head < ipHeader || total < head+udpHeader || total > len(b) || b[9] != unix.IPPROTO_UDP ||
		binary.BigEndian.Uint16(b[6:])&0x3fff != 0 || sum(0, b[:head]) != 0xffff {
		return nil, false
	}
	udp := b[head:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp) != serverPort || binary.BigEndian.Uint16(udp[2:]) != clientPort || length < udpHeader || length > len(udp) {
		return nil, false
	}
	return udp[udpHeader:length], true
}

func network16(v uint16) uint16 { return v<<8 | v>>8 } // only little-endian machines are built for

// packetSocket opens a socket for packets of one kind of one device, without
// their Ethernet header. The filter is there before the first packet is.
func packetSocket(index int, ethertype uint16, filter []unix.SockFilter) (*os.File, error) {
	return socketFile("packet", unix.AF_PACKET, unix.SOCK_DGRAM, 0, func(fd int) error {
		if len(filter) > 0 {
			prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
			if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
				return err
			}
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network16(ethertype), Ifindex: index})
	})
}

// toClients lets whole UDP packets to the client's port through.
func toClients() []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 9},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_UDP, Jf: 6},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 6},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x3fff, Jt: 4},
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: 2},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: clientPort, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 18},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

// broadcast sends b to everybody on the link.
func broadcast(f *os.File, index int, ethertype uint16, b []byte) error {
	to := &unix.SockaddrLinklayer{Protocol: network16(ethertype), Ifindex: index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), b, 0, to) }); cerr != nil {
		return cerr
	}
	return err
}

// unicastSocket is the client's UDP port on an address that it has. While it is
// open the kernel does not answer that nobody is there; what comes is read from
// the packet socket.
func unicastSocket(name string, own netip.Addr) (*os.File, error) {
	return socketFile("udp", unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 2304),
			unix.BindToDevice(fd, name),
			unix.Bind(fd, &unix.SockaddrInet4{Port: clientPort, Addr: own.As4()}),
		)
	})
}

func sendUnicast(f *os.File, to netip.Addr, b []byte) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) {
		err = unix.Sendto(int(fd), b, 0, &unix.SockaddrInet4{Port: serverPort, Addr: to.As4()})
	}); cerr != nil {
		return cerr
	}
	return err
}

// maxFaults is how many reads may fail in a row: a device that goes down says so
// once by an error and goes on.
const maxFaults = 100

// readPackets hands packets over until f is closed, or take has enough; that is
// nil. Else its error is that of reads that fail again and again.
func readPackets(f io.Reader, take func([]byte) bool) (err error) {
	buf := make([]byte, maxPacket+1)
	for bad := 0; bad < maxFaults; {
		var n int
		n, err = f.Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			bad++
		default:
			bad = 0
			if !take(slices.Clone(buf[:n])) {
				return nil
			}
		}
	}
	return err
}

const arpLength = 28

// arpPacket asks who has an address: from nobody it is a probe, from itself an
// announcement (RFC 5227).
func arpPacket(mac []byte, from, target netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, request
	f, t := from.As4(), target.As4()
	b = append(append(b, mac...), f[:]...)
	b = append(append(b, 0, 0, 0, 0, 0, 0), t[:]...)
	return b
}

// arpConflicts says whether an ARP packet shows that somebody else has, or is
// about to take, an address.
func arpConflicts(b, mac []byte, a netip.Addr) bool {
	if len(b) < arpLength || len(mac) != 6 || string(b[:6]) != "\x00\x01\x08\x00\x06\x04" || slices.Equal(b[8:14], mac) {
		return false
	}
	sender, target := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	return sender == a || sender.IsUnspecified() && target == a && b[7] == 1
}

// boottime is the time since the machine's start, with what it slept.
func boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// An alarm is a timer of that clock.
type alarm struct{ f *os.File }

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	return &alarm{os.NewFile(uintptr(fd), "timer")}, nil
}

// set arms it for a time of the clock; 0 disarms it.
func (a *alarm) set(at time.Duration) {
	raw, err := a.f.SyscallConn()
	if err != nil {
		return
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	_ = raw.Control(func(fd uintptr) { _ = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, &spec, nil) })
}

// run tells each time that it rings, until it is closed.
func (a *alarm) run(rang chan<- struct{}) {
	var b [8]byte
	for {
		if _, err := a.f.Read(b[:]); err != nil && !errors.Is(err, unix.ECANCELED) {
			return
		}
		select {
		case rang <- struct{}{}:
		default:
		}
	}
}
