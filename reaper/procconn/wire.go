package procconn

import (
	"encoding/binary"
	"errors"
)

// The kinds of event: enum proc_cn_event of include/uapi/linux/cn_proc.h.
const (
	whatNone     = 0 // the answer to a request
	whatFork     = 0x1
	whatExec     = 0x2
	whatUID      = 0x4
	whatComm     = 0x200
	whatCoredump = 0x40000000
	whatExit     = 0x80000000
)

// wanted are the events that are asked for where the kernel asks which, from Linux
// 6.6 on.
const wanted = whatFork | whatExec | whatUID | whatComm | whatCoredump | whatExit

// The connector's number of the process events, and what it is told:
// include/uapi/linux/connector.h and cn_proc.h.
const (
	idxProc, valProc   = 1, 1
	opListen, opIgnore = 1, 2
)

// Sizes of struct nlmsghdr, cn_msg and proc_event, and where what is read begins.
// All numbers are in the byte order of the machine.
const (
	sizeHeader = 16
	sizeCn     = 20
	sizeEvent  = 40
	sizeComm   = 16
	sizeWhole  = sizeHeader + sizeCn + sizeEvent
)

// An event is what the kernel says of one thread.
type event struct {
	what uint32
	cpu  uint32
	seq  uint32 // counts the events of cpu
	at   uint64 // ns of CLOCK_MONOTONIC

	// The thread and its process. Of a fork: those of the child.
	pid, tgid int32
	// The process that is the parent, of a fork, a core dump and, from Linux 4.18 on,
	// an exit; 0 when the process has been collected already.
	parent int32
	code   uint32 // of an exit: what exit(2) or a signal left, as waitpid(2) has it
	uid    uint32 // the real one, of the initial user namespace
	comm   [sizeComm]byte
}

// Errors of decode, made once: what comes from the kernel must not cost anything.
var (
	errShort   = errors.New("a message of the proc connector is cut off")
	errForeign = errors.New("a message is not of the proc connector")
)

// decode reads the first message of a datagram, and reports what is behind it. With
// an error that is errForeign the rest can be read all the same.
func decode(b []byte) (e event, rest []byte, err error) {
	ne := binary.NativeEndian
	if len(b) < sizeHeader {
		return e, nil, errShort
	}
	length := ne.Uint32(b)
	if length < sizeHeader || uint64(length) > uint64(len(b)) {
		return e, nil, errShort
	}
	rest = b[min(uint64(len(b)), (uint64(length)+3)&^3):] // NLMSG_ALIGN
	m := b[sizeHeader:length]
	if len(m) < sizeCn || ne.Uint32(m) != idxProc || ne.Uint32(m[4:]) != valProc {
		return e, rest, errForeign
	}
	e.seq = ne.Uint32(m[8:])
	size := int(ne.Uint16(m[16:]))
	m = m[sizeCn:]
	if size < sizeEvent || len(m) < size {
		return e, rest, errShort
	}
	e.what, e.cpu, e.at = ne.Uint32(m), ne.Uint32(m[4:]), ne.Uint64(m[8:])
	d := m[16:sizeEvent]
	word := func(i int) uint32 { return ne.Uint32(d[4*i:]) }
	switch e.what {
	case whatFork:
		e.parent, e.pid, e.tgid = int32(word(1)), int32(word(2)), int32(word(3))
		return e, rest, nil
	case whatExit:
		e.code, e.parent = word(2), int32(word(5))
	case whatCoredump:
		e.parent = int32(word(3))
	case whatUID:
		e.uid = word(2)
	case whatComm:
		copy(e.comm[:], d[8:])
	case whatNone:
		return e, rest, nil
	}
	e.pid, e.tgid = int32(word(0)), int32(word(1))
	return e, rest, nil
}

// request is what the kernel is sent: struct cn_msg with an enum proc_cn_mcast_op,
// or, when filter is not 0, with a struct proc_input, which kernels before 6.6
// ignore.
func request(op, filter uint32) []byte {
	ne := binary.NativeEndian
	b := make([]byte, sizeHeader, sizeHeader+sizeCn+8)
	b = append(b, newMessage(op)...)
	if filter != 0 {
		b = ne.AppendUint32(b, filter)
		ne.PutUint16(b[sizeHeader+16:], 8)
	}
	ne.PutUint32(b, uint32(len(b)))
	ne.PutUint16(b[4:], 3) // NLMSG_DONE
	return b
}
