package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Handler answers one request: it sends any number of lines, the last with
// Done, and returns. send blocks while the client does not read and fails when
// it is gone; any goroutine may call it, but only until the handler returns. ctx
// ends when the client leaves or the server closes. The server has checked req
// with [Request.Validate]; who may do what ([Allowed]) is the handler's to check.
//
// The server sends the Done line itself when a handler forgets it or panics.
type Handler func(ctx context.Context, p Peer, req *Request, send func(*Reply) error)

// ServerOptions are the arguments of [Listen].
type ServerOptions struct {
	Path     string // of the socket; its folder also gets the FIFO control
	Mode     uint32 // permission bits of the socket; 0 means 0600
	OwnerUID int    // of the socket; -1 keeps it. The FIFO stays ours.
	OwnerGID int
	NoFIFO   bool
	Handler  Handler
	Log      func(string) // one line; nil drops it. Any goroutine calls it.

	// Panicked is told of a panic, which has been recovered, by the goroutine that
	// it was in, so that its stack is there. nil logs it.
	Panicked func(where string, value any)

	faults func(at string) // of tests, which panic

	// Zero values stand for the defaults.
	MaxRequest   int           // bytes of a request line or an HTTP body; 64 KiB
	MaxConns     int           // at once; 64. The last quarter is for root and our own user alone.
	MaxPerUID    int           // at once of one other user; 16
	IdleTimeout  time.Duration // for the whole of a request to arrive; 30 s
	WriteTimeout time.Duration // for a line of a reply to be taken; 30 s, without end for a request that follows
}

// closeGrace is how long Close waits for handlers to say their last word.
const closeGrace = 2 * time.Second

// A Server listens on the socket and the FIFO.
type Server struct {
	opt    ServerOptions
	dir    int      // the folder
	lock   int      // the lock file beside the socket
	sock   *os.File // listens
	fifo   *os.File // nil without one
	sockID fileID
	fifoID fileID
	lockID fileID

	ctx    context.Context // of all requests
	cancel context.CancelFunc
	work   sync.WaitGroup // connections, the FIFO's reader

	refusals struct {
		sync.Mutex
		limiter
	}

	mu     sync.Mutex
	conns  map[*conn]struct{}
	perUID map[uint32]int
	closed bool

	leavers []int // descriptors of clients that have asked us to end
}

// Listen makes the socket and the FIFO, and the folder (0700, or 0711 when the
// socket is for others too) if there is none. It takes over what a supervisor
// that was killed has left. The caller must call [Server.Close], and Serve.
//
// Errors: *[InUseError] when another supervisor has the socket, *[FolderError]
// when there is no folder for it or none that can be trusted. A FIFO that cannot
// be made is only logged.
func Listen(opt ServerOptions) (*Server, error) {
	opt.Mode &= 0o777
	def := func(n *int, to int) {
		if *n <= 0 {
			*n = to
		}
	}
	if opt.Mode == 0 {
		opt.Mode = 0o600
	}
	def(&opt.MaxRequest, 64<<10)
	def(&opt.MaxConns, 64)
	def(&opt.MaxPerUID, 16)
	if opt.IdleTimeout <= 0 {
		opt.IdleTimeout = 30 * time.Second
	}
	if opt.WriteTimeout <= 0 {
		opt.WriteTimeout = 30 * time.Second
	}
	if opt.Log == nil {
		opt.Log = func(string) {}
	}
	path, err := filepath.Abs(opt.Path)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", opt.Path, err)
	}
	opt.Path = path

	others := opt.Mode&0o077 != 0 || opt.OwnerUID >= 0 && opt.OwnerUID != unix.Geteuid()
	mode := uint32(0o700)
	if others {
		mode = 0o711
	}
	s := &Server{opt: opt, lock: -1, conns: make(map[*conn]struct{}), perUID: make(map[uint32]int)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.dir, err = openFolder(filepath.Dir(path), mode)
	if err != nil {
		return nil, err
	}
	s.lock, s.lockID, err = lockSocket(s.dir, path)
	if err == nil {
		var fd int
		fd, s.sockID, err = listenAt(s.dir, path, opt.Mode, opt.OwnerUID, opt.OwnerGID)
		if err == nil {
			s.sock = os.NewFile(uintptr(fd), path)
		}
	}
	if err != nil {
		s.release()
		for _, e := range []error{unix.EROFS, unix.EACCES, unix.EPERM, unix.ENOSPC, unix.ENOENT, unix.EDQUOT} {
			if errors.Is(err, e) {
				return nil, &FolderError{Path: filepath.Dir(path), Err: err}
			}
		}
		return nil, err
	}
	var st unix.Stat_t
	if others && unix.Fstat(s.dir, &st) == nil && st.Mode&0o011 == 0 {
		opt.Log(fmt.Sprintf("nobody else can reach the socket: folder %s has mode %04o", filepath.Dir(path), st.Mode&0o7777))
	}
	if !opt.NoFIFO {
		if s.fifo, s.fifoID, err = openFIFO(s.dir, fifoName); err != nil {
			opt.Log(fmt.Sprintf("make FIFO %s: %v", filepath.Join(filepath.Dir(path), fifoName), err))
		}
	}
	return s, nil
}

// Path returns the socket's absolute path.
func (s *Server) Path() string { return s.opt.Path }

// FIFO returns the FIFO's path, "" when there is none.
func (s *Server) FIFO() string {
	if s.fifo == nil {
		return ""
	}
	return filepath.Join(filepath.Dir(s.opt.Path), fifoName)
}

// Serve answers until Close, then returns nil. Call it once.
func (s *Server) Serve() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	if s.fifo != nil {
		s.work.Add(1)
		s.begin("the FIFO", s.readFIFO)
	}
	s.work.Add(1) // Close waits for this loop too
	s.mu.Unlock()
	defer s.work.Done()
	for said := false; ; {
		fd, err := accept(s.sock)
		if err == nil {
			said = false
			s.admitSafely(fd)
			continue
		}
		if s.ctx.Err() != nil {
			return nil
		}
		if !said {
			s.opt.Log(fmt.Sprintf("accept on %s: %v", s.opt.Path, err))
			said = true
		}
		select { // out of descriptors or memory: others have to give some back first
		case <-time.After(time.Second):
		case <-s.ctx.Done():
			return nil
		}
	}
}

// Close removes the socket and the FIFO if they are still ours, ends what is
// going on, and returns when all of it has ended, or after two seconds. A
// handler must not call it: it would wait for itself.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()

	removeOwn(s.dir, filepath.Base(s.opt.Path), s.sockID)
	if s.fifo != nil {
		removeOwn(s.dir, fifoName, s.fifoID)
		s.fifo.Close()
	}
	s.cancel()
	s.sock.Close()

	now := time.Now()
	s.mu.Lock()
	for c := range s.conns { // those that only wait for a request
		c.f.SetReadDeadline(now)
	}
	s.mu.Unlock()
	done := make(chan struct{})
	s.begin("the socket", func() { s.work.Wait(); close(done) })
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		s.mu.Lock()
		for c := range s.conns {
			c.f.Close()
		}
		s.mu.Unlock()
	}
	s.release()
	s.awaitLeavers(now.Add(closeGrace / 2))
	return nil
}

// EndsAll reports whether a verb ends the supervisor.
func EndsAll(verb string) bool {
	return slices.Contains([]string{"shutdown", "poweroff", "reboot", "halt", "kexec"}, verb)
}

// leaves notes that p has asked us to end, if it is a client as this program is one:
// any other may live on. Below the init of a container our end is that init's, and
// p's with it, which is to have ended by itself.
func (s *Server) leaves(p Peer) {
	own, err := os.ReadFile("/proc/self/comm")
	if err != nil || p.PID <= 0 || p.PID == os.Getpid() {
		return
	}
	if name, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/comm"); err != nil || !bytes.Equal(name, own) {
		return
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.leavers) == maxLeavers {
		unix.Close(s.leavers[0])
		s.leavers = s.leavers[1:]
	}
	s.leavers = append(s.leavers, fd)
}

// maxLeavers bounds those whose end is waited for.
const maxLeavers = 8

// awaitLeavers waits until they have ended, but not beyond deadline.
func (s *Server) awaitLeavers(deadline time.Time) {
	s.mu.Lock()
	leavers := s.leavers
	s.leavers = nil
	s.mu.Unlock()
	for _, fd := range leavers {
		for {
			left := max(time.Until(deadline), 0)
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left/time.Millisecond))
			if n > 0 || left == 0 || err != nil && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		unix.Close(fd)
	}
}

// release gives back the lock and the folder.
func (s *Server) release() {
	s.cancel()
	if s.lock >= 0 {
		removeOwn(s.dir, filepath.Base(s.opt.Path)+".lock", s.lockID)
		unix.Close(s.lock)
	}
	unix.Close(s.dir)
}

// admitSafely is admit, whose panic costs that connection.
func (s *Server) admitSafely(fd int) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked("the socket", v)
			unix.Close(fd)
		}
	}()
	s.fault("admit")
	s.admit(fd)
}

// admit starts a connection's goroutine, or refuses it.
func (s *Server) admit(fd int) {
	p, err := peerOf(fd)
	if err != nil {
		unix.Close(fd)
		return
	}
	c := &conn{s: s, peer: p}
	if err := s.enroll(c, fd); err != nil {
		unix.Write(fd, AppendJSON(nil, &Reply{Done: true, Code: ExitFailed, Error: err.Error()})) // an empty socket takes it
		unix.Close(fd)
		return
	}
	s.begin("a connection", func() {
		defer s.work.Done()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, c)
			if s.perUID[p.UID]--; s.perUID[p.UID] == 0 {
				delete(s.perUID, p.UID)
			}
			c.f.Close()
		}()
		c.serve()
	})
}

// enroll counts a connection, or says why not.
func (s *Server) enroll(c *conn, fd int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := c.peer
	switch why := s.full(p.UID); {
	case s.closed:
		return ErrClosed
	case why != "":
		return errors.New(why)
	default:
		s.perUID[p.UID]++
		c.f = os.NewFile(uintptr(fd), s.opt.Path)
		s.conns[c] = struct{}{}
		s.work.Add(1)
	}
	return nil
}

// full says why uid must wait for its turn, "" if it need not. A quarter of all
// places is kept for root and our own user, so that no other can lock the
// operator out, and the last of them for root, should our own workers run amok.
func (s *Server) full(uid uint32) string {
	total := len(s.conns)
	switch reserve := s.opt.MaxConns / 4; {
	case uid != 0 && uid != uint32(unix.Geteuid()):
		if s.perUID[uid] >= s.opt.MaxPerUID {
			return fmt.Sprintf("too many connections of uid %d (%d)", uid, s.opt.MaxPerUID)
		}
		total += reserve
	case uid != 0:
		total += (reserve + 3) / 4
	}
	if total >= s.opt.MaxConns {
		return fmt.Sprintf("too many connections (%d)", len(s.conns))
	}
	return ""
}

// A conn is one connection and belongs to its goroutine.
type conn struct {
	s    *Server
	f    *os.File
	peer Peer
	in   *bufio.Reader

	mu       sync.Mutex // of what follows: a handler may send from several goroutines
	patient  bool       // the request follows: a slow reader may take its time
	writeErr error      // the reader lost bytes: nothing may follow
}

var (
	errTooLong = errors.New("too long")
	errGone    = errors.New("the client is gone")
)

// drain reads on, for a bounded while, what the client still writes after its
// answer was sent: closing at once would break its writing, and it might never
// read why.
func (c *conn) drain() {
	if raw, err := c.f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
	}
	if c.f.SetReadDeadline(time.Now().Add(drainTime)) == nil {
		_, _ = io.CopyN(io.Discard, c.in, drainBytes)
	}
}

const (
	drainTime  = time.Second
	drainBytes = 1 << 20
)

// serve answers one HTTP request, or JSON lines until the client ends.
func (c *conn) serve() {
	defer func() {
		if r := recover(); r != nil {
			c.s.panicked("a connection", r)
		}
	}()
	c.in = bufio.NewReaderSize(c.f, 4096)
	for first := true; ; first = false {
		// In this order: Close ends the context, then sets a deadline of its own.
		err := c.f.SetReadDeadline(time.Now().Add(c.s.opt.IdleTimeout))
		c.s.fault("idle")
		if err != nil || c.s.ctx.Err() != nil {
			return
		}
		b, err := c.in.Peek(1)
		if err != nil {
			return
		}
		if first && b[0] != '{' {
			c.serveHTTP()
			c.drain()
			return
		}
		line, err := readLine(c.in, c.s.opt.MaxRequest)
		if err != nil && !errors.Is(err, errTooLong) && len(line) == 0 || c.s.ctx.Err() != nil {
			return
		}
		if err == nil && len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		out := &jsonSink{c: c}
		switch {
		case errors.Is(err, errTooLong):
			err = fmt.Errorf("request of over %d bytes", c.s.opt.MaxRequest)
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = fmt.Errorf("no whole request within %v", c.s.opt.IdleTimeout)
		default: // a last line without newline is one
			var req *Request
			if req, err = parseJSON(line); err == nil {
				c.answer(req, out)
				continue
			}
			out.send(&Reply{Done: true, Code: ExitUsage, Error: err.Error()})
			continue
		}
		out.send(&Reply{Done: true, Code: ExitUsage, Error: err.Error()})
		c.drain()
		return
	}
}

// parseJSON reads a request. Fields of a newer client are ignored.
func parseJSON(line []byte) (*Request, error) {
	req := new(Request)
	if err := json.Unmarshal(line, req); err != nil {
		return nil, &UsageError{Text: "read request: " + err.Error()}
	}
	return req, nil
}

// readLine reads up to and with the next newline. When it returns an error, the
// line is what came before.
func readLine(in *bufio.Reader, most int) (line []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > most+1 {
			return line, errTooLong
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// A sink takes a reply's lines to the client in its protocol.
type sink interface{ send(*Reply) error }

// jsonSink writes one JSON object a line.
type jsonSink struct{ c *conn }

func (o *jsonSink) send(r *Reply) error { return o.c.write(AppendJSON(nil, r)) }

// answer has req answered into out, and cancels it when the client leaves.
func (c *conn) answer(req *Request, out sink) {
	ctx, cancel := context.WithCancel(c.s.ctx)
	c.mu.Lock()
	c.patient = req.Follow
	c.mu.Unlock()
	if EndsAll(req.Verb) {
		c.s.leaves(c.peer)
	}
	c.f.SetReadDeadline(time.Time{})
	watch := make(chan struct{})
	c.s.begin("a connection", func() {
		defer close(watch)
		raw, err := c.f.SyscallConn()
		if err == nil && raw.Read(func(fd uintptr) bool { return gone(int(fd)) }) == nil {
			cancel()
		}
	})
	c.s.exchange(ctx, c.peer, req, out)
	cancel()
	c.f.SetReadDeadline(time.Unix(1, 0)) // ends the watch
	<-watch
}

// write writes b whole, or breaks the connection.
func (c *conn) write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writeErr != nil {
		return c.writeErr
	}
	var deadline time.Time
	if c.s.ctx.Err() != nil {
		deadline = time.Now().Add(closeGrace / 2)
	} else if !c.patient {
		deadline = time.Now().Add(c.s.opt.WriteTimeout)
	}
	if err := c.f.SetWriteDeadline(deadline); err != nil {
		c.writeErr = errGone
	} else if _, err := c.f.Write(b); err != nil {
		c.writeErr = errGone
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.writeErr = errors.New("the client does not read")
		}
		if raw, err := c.f.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) })
		}
	}
	return c.writeErr
}

// exchange answers req through out with exactly one Done line, the last.
func (s *Server) exchange(ctx context.Context, p Peer, req *Request, out sink) {
	var mu sync.Mutex
	done := false
	send := func(r *Reply) error {
		mu.Lock()
		defer mu.Unlock()
		if done {
			return errors.New("send after the last line")
		}
		done = r.Done
		if r.Done && r.denied() {
			s.tellRefusal(p, req)
		}
		return out.send(r)
	}
	last := &Reply{Done: true, Code: ExitFailed, Error: "no answer"}
	func() {
		defer func() {
			if r := recover(); r != nil {
				s.panicked("the verb "+quote(req.Verb), r)
				last.Error = "internal error, see the log"
			}
		}()
		if err := req.Validate(); err != nil {
			last.Code, last.Error = ExitUsage, err.Error()
			return
		}
		switch v := Lookup(req.Verb); {
		case v.Local:
			last.Code, last.Error = ExitUsage, v.Name+": the client does this by itself"
		case v.Name == "help":
			last = help(req)
		case s.opt.Handler != nil:
			s.opt.Handler(ctx, p, req, send)
		}
		if s.ctx.Err() != nil {
			last.Error = "the supervisor ends"
		}
	}()
	send(last) // refused when the handler has done it
	mu.Lock()
	done = true
	mu.Unlock()
}

// denied reports whether something was asked for that the peer may not do.
func (r *Reply) denied() bool {
	return r.Code == ExitDenied || slices.ContainsFunc(r.Results, func(x Result) bool { return x.Code == ExitDenied })
}

// tellRefusal logs who asked for what he may not do.
func (s *Server) tellRefusal(p Peer, req *Request) {
	s.refusals.Lock()
	defer s.refusals.Unlock()
	s.refusals.log, s.refusals.what = s.opt.Log, "refusals"
	s.refusals.say(fmt.Sprintf("%s was refused to uid %d (pid %d)", req.AccessKey(), p.UID, p.PID))
}

// help answers the verb of that name.
func help(req *Request) *Reply {
	if len(req.Names) == 0 {
		var b strings.Builder
		for _, v := range verbs {
			fmt.Fprintf(&b, "%-40s %s\n", v.Synopsis(), v.Short)
		}
		return &Reply{Done: true, Message: b.String()}
	}
	v := Lookup(req.Names[0])
	if v == nil {
		return &Reply{Done: true, Code: ExitUsage, Error: unknownVerb(req.Names[0]).Error()}
	}
	return &Reply{Done: true, Message: v.Help()}
}

// Synopsis is the verb with its arguments.
func (v *Verb) Synopsis() string { return strings.TrimSpace(v.Name + " " + v.Args) }

// Help is the verb's whole help text, with its own flags.
func (v *Verb) Help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\n%s\n", v.Synopsis(), v.Short, v.Long)
	if len(v.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAlso: %s\n", strings.Join(v.Aliases, ", "))
	}
	if len(v.Flags) > 0 {
		b.WriteString("\n")
	}
	for _, f := range v.Flags {
		fmt.Fprintf(&b, "  %-28s %s\n", f.Synopsis(), f.Help)
	}
	return b.String()
}

// Synopsis is the flag as one types it.
func (f *Flag) Synopsis() string {
	s := "--" + f.Name
	if f.Short != "" {
		s = "-" + f.Short + ", " + s
	}
	return strings.TrimSpace(s + " " + f.Value)
}

// AppendJSON appends v, one of this package's types or a slice of them, as JSON
// and a newline, as the server writes it and `--json` prints it.
func AppendJSON(b []byte, v any) []byte {
	buf := bytes.NewBuffer(b)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // a time outside of the years that JSON can tell
		buf.Reset()
		enc.Encode(&Reply{Done: true, Code: ExitFailed, Error: "write reply: " + err.Error()})
	}
	return buf.Bytes()
}
