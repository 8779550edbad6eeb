// Package procconn turns the netlink proc connector into records of what happens to
// the processes below this one: the forks of its children, core dumps and ends of all.
//
// The connector (CONFIG_PROC_EVENTS, drivers/connector/cn_proc.c) tells of every
// process of the machine. Those of others are dropped at once; those below us are
// followed by their forks. It speaks only to listeners in the initial network, PID
// and user namespaces with CAP_NET_ADMIN (which Linux 6.6 and later do not ask for),
// and loses messages when they are not read soon enough: what it tells is a hint, and
// waitid(2) is the authority. What is lost is counted, and made up for by /proc.
package procconn

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Kind says what a [Record] tells.
type Kind uint8

// The kinds of record.
const (
	Began Kind = 1 + iota // a child of this process was forked
	Core                  // a signal that dumps core ends a process: the dump, if there is to be one, begins
	Ended                 // its last thread has ended; its parent may have collected it already
)

// A Record is what was seen of a process below this one. Pids are of the initial PID
// namespace, which is ours.
type Record struct {
	Kind   Kind
	At     time.Time // when the kernel said so, with a monotonic reading, as all times here
	PID    int
	Parent int    // at its end the one who collects it
	Thread int    // the one that Core is of, or the last one to end
	UID    uint32 // the real one, of the initial user namespace
	Comm   string // of its first thread; "" if it ended right after an exec. What is written to /proc/PID/comm is told by younger kernels only

	// Leader is the child of ours that it descends from, or is, and Run when that
	// began, in ns of CLOCK_MONOTONIC: together they name it for ever. Run is 0 if
	// that was not seen.
	Leader int
	Run    uint64

	Forked   time.Time // zero if Seeded
	Executed bool
	Core     bool            // it dies of a signal that dumps core; Status says whether it has
	Status   unix.WaitStatus // Ended

	// Seeded is set for what was found in /proc: older than the listener, or its begin
	// was lost. The leader of an orphan is then the orphan itself.
	Seeded bool
}

// A Process is one that is being followed.
type Process struct {
	PID, Parent, Leader int
	Run                 uint64
	Forked              time.Time // zero if it was found in /proc
	UID                 uint32
	Comm                string
	Executed            bool
}

// Counts are how much went wrong so far. Nothing of it makes a record wrong.
type Counts struct {
	Overflows uint64 // times that the socket's buffer was full
	Gaps      uint64 // times that messages were missing; seen before Linux 6.6 only
	Resyncs   uint64 // looks into /proc at all processes
	Lost      uint64 // processes whose end was not seen
	Dropped   uint64 // records that nobody took in time
	Untracked uint64 // processes that were too many to follow
	Refused   uint64 // messages that were not the kernel's, or not understood
}

// Options says how a Listener works.
type Options struct {
	// Buffer is how many bytes of messages may wait in the kernel, one taking some
	// 800; 0 is 4 MiB. Nothing is used while they are read in time.
	Buffer int

	// Panicked is told of a panic, which has been recovered, by the goroutine that
	// it was in. The listener is off then: see Err. nil prints it.
	Panicked func(where string, value any)

	faults func(at string) // of tests, which panic
	plain  bool            // no filter in the kernel, as before Linux 6.6
	limit  int             // of records; 0 is maxRecords
}

const (
	defaultBuffer = 4 << 20
	maxRecords    = 8192 // that wait to be taken
	keepRecords   = 1024 // a longer list is not kept for the next ones

	// A resync takes at most a fifth of the time.
	resyncRest  = 100 * time.Millisecond
	resyncShare = 4

	// After a resync, and now and then while there are processes, those that /proc
	// does not have any more are looked for: the kernel may be short of memory for a
	// message, and does not always say so.
	auditSoon = time.Second
	auditRest = time.Minute
)

// Listener hears the connector. Close it to end.
type Listener struct {
	opt      Options
	file     *os.File
	filtered bool // the kernel leaves out what was not asked for, and counts it all the same

	// The reader's.
	buf    [1024]byte
	from   unix.RawSockaddrNetlink
	last   event    // here, so that it is no garbage
	next   []uint32 // the number of the next event, plus one, by its cpu
	hole   bool     // messages were lost
	resync time.Time
	audit  time.Time
	proc   procfs

	following sync.Mutex // of table; held while a few files of /proc are read
	table     table

	mu      sync.Mutex // of these, and never held for long
	records []Record
	err     error
	left    bool
	closed  bool

	overflows, gaps, resyncs, lost, dropped, untracked, refused atomic.Uint64

	ready chan struct{} // holds one
	done  chan struct{} // closed when the reader has ended
}

// Open begins to listen. It finds out whether the kernel answers, and which processes
// are below this one already. What keeps it from listening is an [*Error].
func Open(o Options) (*Listener, error) {
	l := &Listener{opt: o, ready: make(chan struct{}, 1), done: make(chan struct{})}
	if l.opt.Buffer == 0 {
		l.opt.Buffer = defaultBuffer
	}
	if l.opt.limit == 0 {
		l.opt.limit = maxRecords
	}
	fd, err := subscribe(l.opt.Buffer)
	if err != nil {
		return nil, refusal(err)
	}
	l.file = os.NewFile(uintptr(fd), "proc connector")
	conn, err := l.file.SyscallConn()
	if err == nil {
		err = l.join(fd)
	}
	if err == nil {
		err = l.seed()
	}
	if err != nil {
		l.err = err
		l.leave()
		_ = l.file.Close()
		return nil, refusal(err)
	}
	l.begin("the proc connector", func() { l.stop(l.listen(conn)) })
	return l, nil
}

// subscribe makes the socket, which does not block.
func subscribe(buffer int) (fd int, err error) {
	s, err := nl.Subscribe(unix.NETLINK_CONNECTOR, idxProc)
	if err != nil {
		return -1, fmt.Errorf("join the proc connector: %w", err)
	}
	defer s.Close()
	// Its Receive copies a message several times: we read the socket ourselves.
	if fd, err = unix.FcntlInt(uintptr(s.GetFd()), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		return -1, fmt.Errorf("copy the socket of the proc connector: %w", err)
	}
	_ = setBuffer(fd, buffer) // with less there are more gaps
	return fd, nil
}

// setBuffer sets how many bytes may wait, beyond the machine's limit with CAP_NET_ADMIN.
func setBuffer(fd, size int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) == nil {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
}

// newMessage is struct cn_msg and what is to be done, 24 bytes.
func newMessage(op uint32) []byte { return nl.NewCnMsg(idxProc, valProc, op).Serialize() }

// errIgnored is that of a kernel which says nothing.
var errIgnored = errors.New("the kernel does not answer")

// errFull is that of a machine on which so much goes on that our own event is lost
// each of so many times.
var errFull = errors.New("there are more events than can be read")

const maxProbes = 100

// join asks for events and finds out whether they come: a kernel that ignores us does
// not say so. One before 6.6 ignores a request with a filter. Events may also come
// because somebody else has asked for them, for as long as he does: to hear is not
// enough.
func (l *Listener) join(fd int) error {
	if heard, err := l.ask(fd, 0); err != nil || !heard || namespace("user", initialUser) || namespace("pid", initialPID) {
		return cmp.Or(err, errIgnored)
	}
	if l.opt.plain {
		return nil
	}
	heard, err := l.ask(fd, wanted&^whatComm)
	if err != nil || heard {
		return err
	}
	l.filtered = true
	if heard, err = l.ask(fd, wanted); err == nil && !heard {
		err = errIgnored
	}
	return err
}

// ask asks for the events of filter, 0 for all, and reports whether a name's came.
func (l *Listener) ask(fd int, filter uint32) (heard bool, err error) {
	if err := unix.Sendto(fd, request(opListen, filter), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, fmt.Errorf("ask the proc connector for events: %w", err)
	}
	return l.probe(fd, func(*event) {})
}

// leave lets the kernel stop to make events, which one before 6.6 does for ever for
// those that went without a word. It counts listeners: to say it twice, or when we are
// not heard, would end the events of others.
func (l *Listener) leave() {
	l.mu.Lock()
	leaves := !l.left && !errors.Is(l.err, errIgnored)
	l.left = true
	l.mu.Unlock()
	conn, err := l.file.SyscallConn()
	if leaves && err == nil {
		_ = conn.Control(func(fd uintptr) { ignore(int(fd)) })
	}
}

func ignore(fd int) {
	_ = unix.Sendto(fd, request(opIgnore, 0), unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// probe names this thread as it is named, and looks for the event of that: it is in
// the socket's queue before prctl(2) returns, or it will never be. Where the pids are
// not those that the connector uses, events may come that others have asked for; ours
// is not one of them.
func (l *Listener) probe(fd int, each func(*event)) (heard bool, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var name [sizeComm]byte
	if err := unix.Prctl(unix.PR_GET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
		return false, fmt.Errorf("read the name of a thread: %w", err)
	}
	pid, tid := int32(os.Getpid()), int32(unix.Gettid())
	for range maxProbes {
		if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
			return false, fmt.Errorf("name a thread: %w", err)
		}
		before := l.overflows.Load()
		if err := l.drain(fd, func(e *event) {
			heard = heard || e.what == whatComm && e.tgid == pid && e.pid == tid && text(e.comm[:]) == text(name[:])
			each(e)
		}); err != nil {
			return false, err
		}
		if heard || l.overflows.Load() == before { // it is not lost among others'
			return heard, nil
		}
	}
	return false, errFull
}

// drain reads all messages that there are.
func (l *Listener) drain(fd int, each func(*event)) error {
	for {
		n, err := l.receive(fd)
		switch {
		case err == nil:
			l.datagram(l.buf[:n], each)
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.ENOBUFS):
			// The socket takes nothing more until it has been emptied.
			l.overflows.Add(1)
			l.hole = true
		default:
			return fmt.Errorf("hear the proc connector: %w", err)
		}
	}
}

// receive is recvfrom(2) without what unix.Recvfrom costs.
func (l *Listener) receive(fd int) (int, error) {
	size := uint32(unix.SizeofSockaddrNetlink)
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&l.buf[0])), uintptr(len(l.buf)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&l.from)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// datagram reads what came at once. Others can send to the group, too, and have a pid.
func (l *Listener) datagram(b []byte, each func(*event)) {
	if l.from.Pid != 0 || l.from.Family != unix.AF_NETLINK {
		l.refused.Add(1)
		return
	}
	for len(b) > 0 {
		var err error
		if l.last, b, err = decode(b); err != nil {
			l.refused.Add(1)
			continue
		}
		if !l.filtered {
			l.count(&l.last)
		}
		each(&l.last)
	}
}

// maxCPUs is more than NR_CPUS of any machine.
const maxCPUs = 1 << 13

// count looks for a gap in the numbers of the events of a processor. Where the kernel
// filters, those that are left out have numbers, too.
func (l *Listener) count(e *event) {
	if e.cpu >= maxCPUs {
		return
	}
	for uint32(len(l.next)) <= e.cpu {
		l.next = append(l.next, 0)
	}
	if next := l.next[e.cpu]; next != 0 && next != e.seq+1 {
		l.gaps.Add(1)
		l.hole = true
	}
	l.next[e.cpu] = e.seq + 2 // 0 once in 2³² events: one gap less is seen
}

// seed begins the table.
func (l *Listener) seed() error {
	self := os.Getpid()
	if s, ok := l.proc.stat(int32(self)); !ok || int(s.pid) != self {
		return errNoProc
	}
	l.table = table{
		self: int32(self), uid: uint32(os.Getuid()), comm: l.proc.comm(int32(self)), of: map[int32]*process{},
		emit: l.emit, stat: l.proc.stat, nameOf: l.proc.comm, userOf: l.proc.uid, offset: bootOffset,
	}
	return l.look(time.Now())
}

// listen reads until the listener is closed.
func (l *Listener) listen(conn syscall.RawConn) error {
	for {
		var failed error
		err := conn.Read(func(fd uintptr) bool {
			failed = l.turn(int(fd))
			return failed != nil
		})
		if failed != nil {
			err = failed
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := l.file.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
	}
}

// turn reads what there is, and looks into /proc when it is time.
func (l *Listener) turn(fd int) error {
	for {
		if err := l.read(fd); err != nil {
			return err
		}
		now := time.Now()
		if l.hole && !now.Before(l.resync) {
			if err := l.look(now); err != nil {
				return err
			}
			continue // with what has come in the meantime
		}
		if !now.Before(l.audit) {
			if err := l.check(fd, now); err != nil {
				return err
			}
			continue
		}
		return l.file.SetReadDeadline(l.deadline())
	}
}

// read follows all messages that there are.
func (l *Listener) read(fd int) error {
	l.following.Lock()
	defer l.following.Unlock()
	l.fault("read")
	err := l.drain(fd, l.table.follow)
	l.lost.Store(l.table.lost)
	l.untracked.Store(l.table.untracked)
	return err
}

// look is a resync.
func (l *Listener) look(now time.Time) error {
	l.fault("look")
	l.hole = false
	clear(l.next)
	all, err := l.proc.all()
	if err != nil {
		return fmt.Errorf("look for all processes: %w", err)
	}
	l.following.Lock()
	defer l.following.Unlock()
	l.table.resync(all)
	l.resyncs.Add(1)
	end := time.Now()
	l.resync = end.Add(max(resyncRest, resyncShare*end.Sub(now)))
	l.audit = end.Add(auditSoon)
	return nil
}

// check looks for processes that ended unseen, and whether we are still heard. Before
// Linux 6.6 anybody with CAP_NET_ADMIN can end the events for all.
func (l *Listener) check(fd int, now time.Time) error {
	l.following.Lock()
	defer l.following.Unlock()
	l.audit = now.Add(auditRest)
	l.table.audit(l.table.stat)
	l.lost.Store(l.table.lost)
	heard, err := l.probe(fd, l.table.follow)
	if err == nil && !heard {
		err = errIgnored
	}
	if errors.Is(err, errFull) { // the resync comes first
		return nil
	}
	return err
}

// deadline is when there is something to do if nothing is heard until then.
func (l *Listener) deadline() time.Time {
	l.following.Lock()
	defer l.following.Unlock()
	switch {
	case l.hole:
		return l.resync
	case len(l.table.of) > 0, l.table.peak > keepProcesses:
		return l.audit
	}
	return time.Time{}
}

// emit queues a record.
func (l *Listener) emit(k Kind, p *process, e event) {
	r := p.record(k, e, newClock())
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.records) >= l.opt.limit {
		l.dropped.Add(1)
		return
	}
	l.records = append(l.records, r)
	l.signal()
}

func (l *Listener) signal() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// Ready is signalled when Records has something, and when the listener is off.
func (l *Listener) Ready() <-chan struct{} { return l.ready }

// Records takes what was seen since the last call, in the order in which the kernel
// told it. buf is used again. It does not wait.
func (l *Listener) Records(buf []Record) []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.records
	if cap(buf) > keepRecords { // of a storm
		buf = nil
	}
	clear(buf)
	l.records = buf[:0]
	return out
}

// Processes are those below this one that live, as far as it is known. It may wait for
// a few looks into /proc.
func (l *Listener) Processes() []Process {
	l.following.Lock()
	defer l.following.Unlock()
	c := newClock()
	list := make([]Process, 0, len(l.table.of))
	for _, p := range l.table.of {
		list = append(list, Process{PID: int(p.pid), Parent: int(p.parent), Leader: int(p.leader), Run: p.run,
			Forked: c.time(p.forked), UID: p.uid, Comm: p.comm, Executed: p.executed})
	}
	return list
}

// Counts reports what went wrong so far.
func (l *Listener) Counts() Counts {
	return Counts{
		Overflows: l.overflows.Load(), Gaps: l.gaps.Load(), Resyncs: l.resyncs.Load(), Lost: l.lost.Load(),
		Dropped: l.dropped.Load(), Untracked: l.untracked.Load(), Refused: l.refused.Load(),
	}
}

// Filtered reports whether the kernel leaves out what is not asked for.
func (l *Listener) Filtered() bool { return l.filtered }

// Err is why nothing is heard any more, nil while it is.
func (l *Listener) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// stop ends the listening, and says why.
func (l *Listener) stop(err error) {
	l.mu.Lock()
	if l.closed {
		err = os.ErrClosed
	}
	l.err = err
	l.mu.Unlock()
	l.leave()
	_ = l.file.Close()
	l.signal()
}

// Close leaves the connector and waits until the reader has ended.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		<-l.done
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	l.leave()
	err := l.file.Close()
	<-l.done
	if errors.Is(err, os.ErrClosed) { // it had stopped
		return nil
	}
	return err
}

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
