package output

import (
	"container/heap"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxLine    = 64 << 10  // a longer line is cut
	readSize   = 256 << 10 // of one read
	bufferSize = maxLine + readSize
	turnSize   = 1 << 20 // what a stream may read before the others get their turn
	maxRunners = 4       // besides those inside a file, a logger or a writer
	keepBuffer = 4       // that many are kept for the next runner

	defaultRing      = 64 << 10
	defaultRingTotal = 32 << 20
	sayEvery         = time.Minute
)

// Options says how a Hub works. The zero value is usable.
type Options struct {
	Stdout, Stderr *os.File // the console; nil is os.Stdout and os.Stderr. The caller keeps them open

	// OpenConsole allows the console's permissions to be widened, see Target.Kind:
	// in a container, which has its console for itself, not on a host.
	OpenConsole bool

	Format      string // auto, plain, json or raw; "" is auto, which is plain
	Color       string // auto, always or never; "" is auto: on a terminal, unless NO_COLOR is set
	ConsoleFull string // block or drop, "" is block: what a worker meets when 1 MiB waits for the console

	RingSize  int64 // bytes kept of each instance; 0 is 64 KiB, negative keeps nothing
	RingTotal int64 // bound of all rings together; 0 is 32 MiB

	LogPath    string // pazinit's own log: "" is the console's stderr, "syslog", or a file's absolute path
	SyslogPath string // the socket of "syslog"; "" is /dev/log

	// Notice is told what is wrong with a file, the console or a logger, at
	// most once a minute for each. It is called from any goroutine, must not
	// wait, and may call Log. nil logs it.
	Notice func(msg string)

	// Panicked is told of a panic, which has been recovered, by the goroutine that
	// it was in, so that its stack is there. It must not wait, and not call the Hub.
	// nil prints it.
	Panicked func(where string, value any)

	faults func(at string) // of tests, which panic
}

// A Hub owns all pipes, rings and files. Its methods may be called from any
// goroutine; none waits for a worker, a disk or the console unless it says so.
type Hub struct {
	opt      Options
	out, err *console // one and the same when both are the same file
	self     *Source  // ring of pazinit's own log
	others   *Source  // and of what others say in it
	log      ownLog

	epfd, wakefd, timerfd, nullfd int
	stopped                       chan struct{} // the loop has ended

	followers atomic.Pointer[[]*Follower]
	ringUsed  atomic.Int64
	nameWidth atomic.Int32
	lost      lostCounts

	mu      sync.Mutex
	closed  bool
	nextID  int32
	polled  map[int32]pollable
	sources map[*Source]struct{}
	colors  int
	files   map[string]*file
	dirs    map[string]*gate
	writers []*writerSink
	loggers map[*Logger]struct{}
	noFiles chan struct{} // closed when the last file is
	queue   []*stream     // ready; queue[qhead:]
	qhead   int
	running int
	dirty   bool // a buffer has more than its first page
	timers  timerHeap
	buffers [][]byte
}

// pollable is what epoll reports on. ready is called with Hub.mu held.
type pollable interface{ ready() }

const (
	idWake  = 0
	idTimer = 1
)

// New makes a Hub and starts its loop. Close ends it. It needs epoll, eventfd
// and timerfd.
func New(opt Options) (*Hub, error) {
	switch opt.Format {
	case "":
		opt.Format = "auto"
	case "auto", "plain", "json", "raw":
	default:
		return nil, fmt.Errorf("set log format %q: not auto, plain, json or raw", opt.Format)
	}
	switch opt.ConsoleFull {
	case "":
		opt.ConsoleFull = "block"
	case "block", "drop":
	default:
		return nil, fmt.Errorf("set console_full %q: not block or drop", opt.ConsoleFull)
	}
	if opt.RingSize == 0 {
		opt.RingSize = defaultRing
	}
	if opt.RingTotal <= 0 {
		opt.RingTotal = defaultRingTotal
	}
	if opt.Stdout == nil {
		opt.Stdout = os.Stdout
	}
	if opt.Stderr == nil {
		opt.Stderr = os.Stderr
	}
	if opt.LogPath != "" && opt.LogPath != "syslog" && !filepath.IsAbs(opt.LogPath) {
		return nil, fmt.Errorf("open log %q: path is not absolute", opt.LogPath)
	}
	h := &Hub{
		opt: opt, epfd: -1, wakefd: -1, timerfd: -1, nullfd: -1,
		stopped: make(chan struct{}),
		nextID:  2,
		polled:  map[int32]pollable{},
		sources: map[*Source]struct{}{},
		files:   map[string]*file{},
		dirs:    map[string]*gate{},
		loggers: map[*Logger]struct{}{},
	}
	h.nameWidth.Store(int32(len(selfName)))
	h.self = &Source{hub: h, cfg: Config{Name: selfName}}
	h.self.ring.size = int(max(opt.RingSize, 0))
	h.others = &Source{hub: h, cfg: Config{Name: othersName}}
	h.others.ring.size = h.self.ring.size
	if err := h.open(); err != nil {
		h.closeFds()
		return nil, err
	}
	h.openConsoles()
	h.log.init(h)
	h.begin("output", h.loop)
	return h, nil
}

func (h *Hub) open() (err error) {
	if h.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		h.epfd = -1
		return fmt.Errorf("create epoll: %w", err)
	}
	if h.wakefd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		h.wakefd = -1
		return fmt.Errorf("create eventfd: %w", err)
	}
	if h.timerfd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		h.timerfd = -1
		return fmt.Errorf("create timerfd: %w", err)
	}
	for _, e := range []struct{ fd, id int }{{h.wakefd, idWake}, {h.timerfd, idTimer}} {
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(e.id)}
		if err := unix.EpollCtl(h.epfd, unix.EPOLL_CTL_ADD, e.fd, &ev); err != nil {
			return fmt.Errorf("watch descriptor: %w", err)
		}
	}
	return nil
}

func (h *Hub) closeFds() {
	for _, fd := range []*int{&h.epfd, &h.wakefd, &h.timerfd, &h.nullfd} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// loop is the only goroutine that waits for pipes.
func (h *Hub) loop() {
	defer close(h.stopped)
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := unix.EpollWait(h.epfd, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return // cannot happen: the descriptor is ours
		}
		if !h.serve(events[:max(n, 0)]) {
			return
		}
		runtime.Gosched() // the runners go on in this thread
	}
}

// serve hands on what epoll has told. It is false at the end.
func (h *Hub) serve(events []unix.EpollEvent) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range events {
		if events[i].Fd == idWake {
			return false
		}
		h.serveOne(events[i].Fd)
	}
	return true
}

// serveOne hands on one event. A stream that this panics for gets its turn all
// the same: epoll tells of it no more. mu is held.
func (h *Hub) serveOne(id int32) {
	defer func() {
		if v := recover(); v != nil {
			h.panicked("output", v)
			switch p := h.polled[id].(type) {
			case *stream:
				if p.state == armed {
					h.pauseUntil(p, monotonic()+int64(panicPause))
				}
			case *Logger:
				h.rearm(p.wfd, p.id, unix.EPOLLOUT)
			}
			if id == idTimer && len(h.timers) > 0 {
				h.setTimer(monotonic() + int64(panicPause))
			}
		}
	}()
	h.fault("loop")
	if id == idTimer {
		var b [8]byte
		_, _ = unix.Read(h.timerfd, b[:])
		h.fireTimers()
	} else if p := h.polled[id]; p != nil {
		p.ready()
	}
}

// watch adds fd to epoll, disarmed or for one event, and returns its id. mu is held.
func (h *Hub) watch(fd int, p pollable, events uint32) (int32, error) {
	id := h.nextID
	for h.polled[id] != nil || id <= idTimer {
		id++ // after 2^31 pipes
	}
	h.nextID = id + 1
	ev := unix.EpollEvent{Events: events | unix.EPOLLONESHOT, Fd: id}
	if err := unix.EpollCtl(h.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return 0, fmt.Errorf("watch pipe: %w", err)
	}
	h.polled[id] = p
	return id, nil
}

// rearm asks for one more event. mu is held, so that fd cannot be closed meanwhile.
func (h *Hub) rearm(fd int, id int32, events uint32) {
	ev := unix.EpollEvent{Events: events | unix.EPOLLONESHOT, Fd: id}
	_ = unix.EpollCtl(h.epfd, unix.EPOLL_CTL_MOD, fd, &ev)
}

func (h *Hub) unwatch(fd int, id int32) {
	delete(h.polled, id)
	_ = unix.EpollCtl(h.epfd, unix.EPOLL_CTL_DEL, fd, nil)
}

// enqueue gives s its turn as soon as a runner is free. mu is held.
func (h *Hub) enqueue(s *stream) {
	s.state = queued
	h.queue = append(h.queue, s)
	h.startRunner()
}

func (h *Hub) startRunner() {
	if h.qhead < len(h.queue) && h.running < maxRunners {
		h.running++
		h.begin("output", h.run)
	}
}

// restStream reads s again after a while. mu is held.
func (h *Hub) restStream(s *stream) {
	if s.upkeep != nil {
		s.state = idle
		return
	}
	h.pauseUntil(s, monotonic()+int64(panicPause))
}

// run is a runner: it serves the queue until it is empty.
func (h *Hub) run() {
	h.mu.Lock()
	locked := true
	var cur *stream // the sink of which is acquired, or that has no owner but us
	acquired := false
	defer func() {
		if v := recover(); v != nil { // between two turns: another goes on
			if !locked {
				h.mu.Lock()
			}
			defer h.mu.Unlock()
			h.panicked("output", v)
			h.running--
			if acquired {
				cur.sink.release(cur)
			}
			if cur != nil && cur.state == busy {
				h.restStream(cur)
			}
			h.startRunner()
		}
	}()
	var b []byte
	if n := len(h.buffers); n > 0 {
		b, h.buffers = h.buffers[n-1], h.buffers[:n-1]
	} else {
		locked = false
		h.mu.Unlock()
		b = newBuffer()
		h.mu.Lock()
		locked = true
	}
	for h.qhead < len(h.queue) && h.running <= maxRunners {
		s := h.queue[h.qhead]
		h.queue[h.qhead] = nil
		if h.qhead++; h.qhead == len(h.queue) {
			h.queue, h.qhead = h.queue[:0], 0
		}
		if s.state != queued {
			continue // Close has finished it
		}
		if !s.sink.acquire(s) {
			s.state = parked
			continue
		}
		cur, acquired, s.state = s, true, busy
		s.flushing, s.flushed = s.flushed, nil
		s.saying = s.takeSaid()
		if s.sink.waits() { // it may be stuck in there: others take the queue
			h.running--
			h.startRunner()
		}
		locked = false
		h.mu.Unlock()
		more, n, failed := s.safeTurn(b)
		h.mu.Lock()
		locked = true
		h.dirty = h.dirty || n > 2<<10
		if s.sink.waits() {
			h.running++
		}
		acquired = false
		s.sink.release(s)
		h.after(s, more, n)
		if failed && (s.state == armed || s.state == paused) {
			h.restStream(s)
		}
		cur = nil
	}
	h.running--
	h.startRunner()
	tidy := h.dirty && len(h.timers) == 0 && h.qhead == len(h.queue)
	if len(h.buffers) < keepBuffer && h.wakefd >= 0 {
		if tidy {
			h.dirty = false
			releasePages(b)
			for _, o := range h.buffers {
				releasePages(o)
			}
		}
		h.buffers = append(h.buffers, b)
		b = nil
	}
	locked = false
	h.mu.Unlock()
	freeBuffer(b)
}

// wake gives parked streams another try. mu is held.
func (h *Hub) wake(list []*stream) {
	for _, s := range list {
		if s.state == parked {
			h.enqueue(s)
		}
	}
}

// wakeOne gives the first of the list another try and returns the others: a
// sink that takes one at a time. mu is held.
func (h *Hub) wakeOne(list []*stream) []*stream {
	for i, s := range list {
		list[i] = nil
		if s.state == parked { // else it was closed meanwhile
			h.enqueue(s)
			return list[i+1:]
		}
	}
	return nil
}

// A gate lets a few streams at a time into one folder's files, so that a
// stalled disk takes a few threads and not one for every file.
type gate struct {
	refs, free int
	waiting    []*stream
}

// Close gives every stream until the deadline to deliver what is in its pipe,
// and the console and the own log to write what is queued for them; then it
// ends the loop and closes all pipes and files. It waits, at most until the
// deadline.
func (h *Hub) Close(deadline time.Time) error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		<-h.stopped
		return nil
	}
	h.closed = true
	var waits []<-chan struct{}
	for src := range h.sources {
		waits = append(waits, src.flush())
	}
	h.mu.Unlock()

	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	late := false
	wait := func(c <-chan struct{}) {
		if late {
			return
		}
		select {
		case <-c:
		case <-timer.C:
			late = true
		}
	}
	for _, c := range waits {
		wait(c)
	}
	wait(h.log.drained())
	wait(h.out.drained())
	wait(h.err.drained())

	var one = [8]byte{1}
	_, _ = unix.Write(h.wakefd, one[:])
	<-h.stopped

	h.mu.Lock()
	for src := range h.sources {
		src.closing = true
		for _, s := range src.streams {
			if s != nil && s.state != busy && s.state != gone {
				s.finish()
			}
		}
	}
	h.log.close()
	for l := range h.loggers {
		l.close()
	}
	h.closeFds()
	noFiles := make(chan struct{})
	if len(h.files) == 0 {
		close(noFiles)
	} else {
		h.noFiles = noFiles
	}
	for _, b := range h.buffers {
		freeBuffer(b)
	}
	h.buffers = nil
	h.mu.Unlock()
	wait(noFiles)
	if late {
		return errors.New("close output: not all was written before the deadline")
	}
	return nil
}

// Lost counts the bytes that were captured but could not be written.
type Lost struct {
	Console, Files, Writers, Log uint64
}

type lostCounts struct{ console, files, writers, log atomic.Uint64 }

// Lost returns what was lost since the Hub was made.
func (h *Hub) Lost() Lost {
	return Lost{h.lost.console.Load(), h.lost.files.Load(), h.lost.writers.Load(), h.lost.log.Load()}
}

func (h *Hub) notice(msg string) {
	if h.opt.Notice != nil {
		h.opt.Notice(msg)
		return
	}
	h.Log("warning", msg)
}

// trouble counts what one sink lost and says so at most once a minute.
type trouble struct {
	what  string         // "write /var/log/x"
	total *atomic.Uint64 // of Lost
	ours  bool           // it is pazinit's own log that fails: say it on the console
	lost  atomic.Uint64  // not yet said

	mu   sync.Mutex
	said int64 // unix nanoseconds
}

func (t *trouble) fail(h *Hub, err error, n int) {
	t.total.Add(uint64(n))
	t.lost.Add(uint64(n))
	why := err.Error()
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		why = "disk full"
	}
	t.say(h, why, time.Now().UnixNano())
}

// over is called when a write succeeded: what was lost meanwhile may not have
// been said yet.
func (t *trouble) over(h *Hub, now int64) {
	if t.lost.Load() > 0 {
		t.say(h, "goes on", now)
	}
}

func (t *trouble) say(h *Hub, why string, now int64) {
	t.mu.Lock()
	if ago := now - t.said; t.said != 0 && ago >= 0 && ago < int64(sayEvery) { // negative: the clock was set back
		t.mu.Unlock()
		return
	}
	t.said = now
	lost := t.lost.Swap(0)
	t.mu.Unlock()
	msg := t.what + ": " + why
	if lost > 0 {
		msg += fmt.Sprintf(": %d bytes not written", lost)
	}
	if t.ours {
		h.err.note([]byte(msg), now, "warning")
	} else {
		h.notice(msg)
	}
}

// A timerEntry is stale when its stream was given something else to do.
type timerEntry struct {
	at int64
	s  *stream
}

type timerHeap []timerEntry

func (t timerHeap) Len() int           { return len(t) }
func (t timerHeap) Less(i, j int) bool { return t[i].at < t[j].at }
func (t timerHeap) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timerHeap) Push(x any)        { *t = append(*t, x.(timerEntry)) }
func (t *timerHeap) Pop() any {
	old := *t
	e := old[len(old)-1]
	*t = old[:len(old)-1]
	return e
}

// pauseUntil reads s again at that time. mu is held.
func (h *Hub) pauseUntil(s *stream, at int64) {
	s.state, s.due = paused, at
	heap.Push(&h.timers, timerEntry{at, s})
	if h.timers[0].at == at {
		h.setTimer(at)
	}
}

func (h *Hub) setTimer(at int64) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(at)}
	_ = unix.TimerfdSettime(h.timerfd, unix.TFD_TIMER_ABSTIME, &spec, nil)
}

func (h *Hub) fireTimers() {
	soon := monotonic() + 50_000 // those due a moment later come along
	for len(h.timers) > 0 && h.timers[0].at <= soon {
		e := heap.Pop(&h.timers).(timerEntry)
		if e.s.state == paused && e.s.due == e.at {
			h.enqueue(e.s)
		}
	}
	if len(h.timers) > 0 {
		h.setTimer(h.timers[0].at)
	}
}

// monotonic is CLOCK_MONOTONIC in nanoseconds, as the timerfd reads it.
func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// newBuffer is a mapping of its own, so that the heap never grows by it and
// only the pages that were read into take memory.
func newBuffer() []byte {
	b, err := unix.Mmap(-1, 0, bufferSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return make([]byte, bufferSize)
	}
	return b
}

func freeBuffer(b []byte) {
	if b != nil {
		_ = unix.Munmap(b) // EINVAL for one from the heap
	}
}

// releasePages keeps the first page, which a quiet line needs again.
func releasePages(b []byte) {
	_ = unix.Madvise(b[os.Getpagesize():], unix.MADV_DONTNEED)
}

func openFd(path string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOCTTY, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
