// Package ebpf reports who signalled, who died and why, from tracepoints.
//
// Its programs (deaths.bpf.c) follow the forks of the process that watches, in
// the kernel, so that other processes cost next to nothing. [Load] puts them
// there, in a short-lived process of its own, since that takes 10 to 20 MB; the
// process that watches gets descriptors, and reads a ring of records.
//
// It needs Linux 5.10 with BTF (CONFIG_DEBUG_INFO_BTF), and CAP_BPF and
// CAP_PERFMON, or CAP_SYS_ADMIN.
package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:generate ./compile

// Kind says what a [Record] tells.
type Kind uint8

// The kinds of record, as deaths.bpf.c numbers them.
const (
	Began Kind = 1 + iota // a child of the watching process was forked
	Dying                 // the end of a process has begun: its memory is still there
	Ended                 // its last thread is gone; it cannot be waited for yet
)

// A Record is what was seen of a process below the one that watches.
type Record struct {
	Kind   Kind
	At     time.Time // with a monotonic reading, as all times here
	PID    int       // in the PID namespace of the one that watches, as all pids here
	Parent int       // 0 outside of the namespace
	UID    uint32    // of the initial user namespace
	Comm   string    // of its first thread

	// Leader is the child of ours that it descends from, or is, and Run when that
	// began, in ns of CLOCK_MONOTONIC: together they name it for ever. Run is 0 if
	// it began before the programs were there.
	Leader int
	Run    uint64

	Forked   time.Time // zero if it was there before the programs
	Executed bool
	OOM      bool // the kernel chose it when there was no memory

	Dying  time.Time       // zero if the begin of the end was not seen
	Status unix.WaitStatus // Ended
	Peak   int64           // bytes of memory at most; Ended
	Core   bool            // a core was begun; only some kernels tell before the end

	Fatal *Cause // the signal that ends it
	Last  *Cause // the last signal before the end that does not end it
}

// A Cause is a signal and where it came from.
type Cause struct {
	At     time.Time
	Signal unix.Signal
	Code   int    // si_code, sigaction(2)
	Addr   uint64 // of a fault

	// The thread that made the signal: for a fault its own.
	Sender int // pid; 0 if it has none in our namespace
	UID    uint32
	Comm   string

	Kernel  bool // the kernel made it, on its own behalf
	Thread  bool // a thread of the kernel did, for somebody unknown
	Parent  bool // its parent's end did (PR_SET_PDEATHSIG)
	Outside bool // the sender is outside of our PID namespace
}

// The bits of deaths.bpf.c.
const (
	fatalFirst, fatalSecond = 1, 2
	victim, core, executed  = 8, 16, 32

	byNobody, byParent, outside, byThread = 1, 2, 8, 16
)

// Sizes of its structures.
const (
	sizeRecord  = 48 + sizeProcess
	sizeProcess = 40 + 2*sizeCause
	sizeCause   = 48
	sizeComm    = 16
)

// A clock turns CLOCK_MONOTONIC into times.
type clock struct {
	base time.Time
	mono int64
}

func newClock() clock {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return clock{time.Now(), ts.Nano()}
}

func (c clock) time(ns uint64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return c.base.Add(time.Duration(int64(ns) - c.mono))
}

func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return strings.ToValidUTF8(s, "?")
}

// decode reads a record of the ring. b may be longer, as records are when
// programs are younger.
func decode(b []byte, c clock) (Record, error) {
	if len(b) < sizeRecord {
		return Record{}, fmt.Errorf("a record has %d bytes, want %d", len(b), sizeRecord)
	}
	le := binary.LittleEndian
	r := Record{
		Kind: Kind(le.Uint32(b[8:])), At: c.time(le.Uint64(b)),
		Parent: int(le.Uint32(b[12:])), Status: unix.WaitStatus(le.Uint32(b[16:])), UID: le.Uint32(b[20:]),
		Peak: int64(le.Uint64(b[24:])) * int64(os.Getpagesize()), Comm: text(b[32:48]),
	}
	p := b[48:]
	r.Run, r.Forked, r.Dying = le.Uint64(p), c.time(le.Uint64(p[8:])), c.time(le.Uint64(p[16:]))
	r.PID, r.Leader = int(le.Uint32(p[24:])), int(le.Uint32(p[28:]))
	flags := le.Uint32(p[32:])
	r.Executed, r.OOM, r.Core = flags&executed != 0, flags&victim != 0, flags&core != 0
	var causes [2]*Cause
	for i := range causes {
		causes[i] = decodeCause(p[40+i*sizeCause:][:sizeCause], c)
	}
	switch {
	case flags&fatalFirst != 0:
		r.Fatal, causes[0] = causes[0], nil
	case flags&fatalSecond != 0:
		r.Fatal, causes[1] = causes[1], nil
	}
	for _, k := range causes {
		before := k != nil && (r.Dying.IsZero() || k.At.Before(r.Dying))
		if before && (r.Last == nil || k.At.After(r.Last.At)) {
			r.Last = k
		}
	}
	return r, nil
}

func decodeCause(b []byte, c clock) *Cause {
	le := binary.LittleEndian
	k := Cause{
		At: c.time(le.Uint64(b)), Addr: le.Uint64(b[8:]), Sender: int(le.Uint32(b[16:])), UID: le.Uint32(b[20:]),
		Code: int(int32(le.Uint32(b[24:]))), Signal: unix.Signal(b[28]), Comm: text(b[32:48]),
	}
	if k.Signal == 0 {
		return nil
	}
	how := b[29]
	k.Kernel, k.Parent, k.Outside, k.Thread = how&byNobody != 0, how&byParent != 0, how&outside != 0, how&byThread != 0
	return &k
}

// Options says how a Watch treats what goes wrong.
type Options struct {
	// Panicked is told of a panic, which has been recovered, by the goroutine that
	// it was in. The watch is over then. nil prints it.
	Panicked func(where string, value any)
}

// A Watch reads the records. Close it to take the programs out of the kernel.
type Watch struct {
	// Without says what the kernel does not have, or does not allow, and the watch
	// does without.
	Without []string

	opt      Options
	ring     *os.File
	counters int
	held     []int // the attachments

	mu       sync.Mutex
	closed   bool
	consumer []byte // the page that is ours
	producer []byte // a page, and the ring twice
	size     uint64 // of the ring, in bytes

	ready chan struct{}
	done  chan struct{}
}

// Message is what the loader sends: lines, and descriptors in their order.
const (
	lineError   = "error "   // it could not be done
	lineWithout = "without " // this is not there
	lineRing    = "ring "    // a descriptor, of so many bytes
	lineCounts  = "counters" // a descriptor
	lineHeld    = "held"     // a descriptor, of an attachment

	maxMessage     = 64 << 10
	maxDescriptors = 64
)

// Receive waits on socket, a SOCK_SEQPACKET whose other end [Load] was given, for
// at most so long, and begins to watch. It does not close socket.
func Receive(socket int, within time.Duration, o Options) (*Watch, error) {
	deadline := time.Now().Add(within)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return nil, errors.New("the loader of BPF programs does not answer")
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(socket), Events: unix.POLLIN}}, int(left/time.Millisecond)+1)
		if n > 0 {
			break
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("wait for the loader of BPF programs: %w", err)
		}
	}
	b, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxDescriptors))
	n, oobn, _, _, err := unix.Recvmsg(socket, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("hear the loader of BPF programs: %w", err)
	}
	var fds []int
	if list, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
		for i := range list {
			if more, err := unix.ParseUnixRights(&list[i]); err == nil {
				fds = append(fds, more...)
			}
		}
	}
	if n == 0 {
		closeAll(fds)
		return nil, errors.New("the loader of BPF programs ended without a word")
	}
	return newWatch(string(b[:n]), fds, o)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

func newWatch(message string, fds []int, o Options) (w *Watch, err error) {
	w = &Watch{opt: o, counters: -1, ready: make(chan struct{}, 1), done: make(chan struct{})}
	ring := -1
	next := func() int {
		if len(fds) == 0 {
			return -1
		}
		fd := fds[0]
		fds = fds[1:]
		return fd
	}
	defer func() {
		closeAll(fds)
		if err == nil {
			return
		}
		closeAll(w.held)
		for _, fd := range []int{ring, w.counters} {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	}()
	for line := range strings.Lines(message) {
		line = strings.TrimSuffix(line, "\n")
		if why, ok := strings.CutPrefix(line, lineError); ok {
			return nil, errors.New(why)
		}
		if what, ok := strings.CutPrefix(line, lineWithout); ok {
			w.Without = append(w.Without, what)
		}
		if size, ok := strings.CutPrefix(line, lineRing); ok {
			ring = next()
			if _, err := fmt.Sscan(size, &w.size); err != nil {
				return nil, fmt.Errorf("the loader of BPF programs says %q", line)
			}
		}
		switch line {
		case lineCounts:
			w.counters = next()
		case lineHeld:
			w.held = append(w.held, next())
		}
	}
	page := uint64(os.Getpagesize())
	if ring < 0 || w.counters < 0 || len(w.held) == 0 || w.size == 0 || w.size&(w.size-1) != 0 || w.size%page != 0 {
		return nil, fmt.Errorf("the loader of BPF programs says %q", message)
	}
	// kernel/bpf/ringbuf.c: the consumer's page can be written, the producer's and
	// the data not; the data is there twice, so that no record is in two parts.
	if w.consumer, err = unix.Mmap(ring, 0, int(page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the ring of records: %w", err)
	}
	if w.producer, err = unix.Mmap(ring, int64(page), int(page+2*w.size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		_ = unix.Munmap(w.consumer)
		return nil, fmt.Errorf("map the ring of records: %w", err)
	}
	err = unix.SetNonblock(ring, true)
	if err == nil {
		w.ring = os.NewFile(uintptr(ring), "ring of records")
		err = w.listen()
	}
	if err != nil {
		_ = unix.Munmap(w.consumer)
		_ = unix.Munmap(w.producer)
		return nil, fmt.Errorf("watch the ring of records: %w", err)
	}
	return w, nil
}

// listen begins to signal Ready.
func (w *Watch) listen() error {
	conn, err := w.ring.SyscallConn()
	if err != nil {
		return err
	}
	w.begin("the watch of records", func() {
		defer close(w.done)
		// The function is called again whenever the ring has something new.
		_ = conn.Read(func(uintptr) bool {
			if w.waiting() {
				select {
				case w.ready <- struct{}{}:
				default:
				}
			}
			return false
		})
	})
	return nil
}

func (w *Watch) begin(where string, f func()) {
	go func() {
		defer func() {
			v := recover()
			switch {
			case v == nil:
			case w.opt.Panicked != nil:
				w.opt.Panicked(where, v)
			default:
				fmt.Fprintf(os.Stderr, "pazinit: panic in %s: %v\n", where, v)
			}
		}()
		f()
	}()
}

// Ready is signalled when Records has something.
func (w *Watch) Ready() <-chan struct{} { return w.ready }

func position(page []byte) *uint64 { return (*uint64)(unsafe.Pointer(&page[0])) }

// waiting reports whether there are records.
func (w *Watch) waiting() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.closed && atomic.LoadUint64(position(w.consumer)) != atomic.LoadUint64(position(w.producer))
}

// The header of a record, include/uapi/linux/bpf.h.
const (
	ringBusy, ringDiscard = 1 << 31, 1 << 30
	ringHeader            = 8
)

// Records takes what is there, in the order in which it was written, and does not
// wait. buf is used again. What was recorded of a process is there before anybody
// can wait for it.
func (w *Watch) Records(buf []Record) []Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	buf = buf[:0]
	if w.closed {
		return buf
	}
	c := newClock()
	data := w.producer[os.Getpagesize():]
	at := atomic.LoadUint64(position(w.consumer))
	for at < atomic.LoadUint64(position(w.producer)) {
		head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&data[at&(w.size-1)])))
		if head&ringBusy != 0 {
			break // it is being written; its end wakes us
		}
		length := uint64(head &^ (ringBusy | ringDiscard))
		if length > w.size {
			break // never: the kernel writes it
		}
		if head&ringDiscard == 0 {
			from := at&(w.size-1) + ringHeader
			if r, err := decode(data[from:][:length], c); err == nil {
				buf = append(buf, r)
			}
		}
		at += (length + ringHeader + 7) &^ 7
		atomic.StoreUint64(position(w.consumer), at)
	}
	return buf
}

// Counts reports how many records found the ring full, and how many processes
// the table.
func (w *Watch) Counts() (lost, untracked uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, 0
	}
	return count(w.counters, countLost), count(w.counters, countUntracked)
}

// The counters of deaths.bpf.c.
const countLost, countUntracked, countFound = 0, 1, 2

// count looks into an array of the kernel, bpf(2).
func count(fd int, which uint32) uint64 {
	var value uint64
	attr := struct {
		fd         uint32
		_          uint32
		key, value uint64
		flags      uint64
	}{fd: uint32(fd), key: uint64(uintptr(unsafe.Pointer(&which))), value: uint64(uintptr(unsafe.Pointer(&value)))}
	if _, err := bpf(unix.BPF_MAP_LOOKUP_ELEM, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return 0
	}
	return value
}

// bpf is bpf(2).
func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (fd int, err error) {
	n, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Close takes the programs out of the kernel. Ready is signalled no more.
func (w *Watch) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	err := errors.Join(unix.Munmap(w.consumer), unix.Munmap(w.producer), unix.Close(w.counters))
	for _, fd := range w.held {
		err = errors.Join(err, unix.Close(fd))
	}
	w.mu.Unlock()
	err = errors.Join(err, w.ring.Close())
	<-w.done
	return err
}
