package syslog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultPath is where programs send their messages.
const DefaultPath = "/dev/log"

const (
	slowest     = time.Second // that a message may wait for room, before it is dropped
	sayEvery    = time.Minute
	lastReads   = 1 << 12 // messages that Close still takes
	firstRest   = 100 * time.Millisecond
	longestRest = 10 * time.Second // doubles up to it, while nothing can be read
	freeFaults  = 2                // in a row that are nothing unusual
)

// ErrServed is the cause when somebody else receives at the socket.
var ErrServed = errors.New("somebody else serves it")

// Options says how a Receiver works.
type Options struct {
	Path string // of the socket; "" is /dev/log, "-" none
	Kmsg string // the kernel's records; "" is /dev/kmsg, "-" none

	// FromStart reads the kernel's records from the oldest that there is; else
	// only those that come.
	FromStart bool

	// NoUser leaves out what programs wrote to the kernel's buffer: for a caller
	// whose own output goes there.
	NoUser bool

	// Take finds out where a message goes, at once, since its sender may be gone
	// soon. put brings it there; it must not wait: full is not nil when there is no
	// room, and closed when there may be some; then put is called once more. lost
	// says that the message is, and is counted. Take is called from two goroutines.
	Take func(m *Message) (put func() (full <-chan struct{}, lost bool))

	// Say is told what the receiver itself has to say. It must not wait.
	Say func(level, msg string)

	// Panicked is told of a panic, which has been recovered, by the goroutine that
	// it was in, so that its stack is there. nil has Say told.
	Panicked func(where string, value any)

	// Of tests: what reads a datagram, and a record; nil is the kernel. rest is the
	// first pause after an error, 0 is firstRest.
	recvmsg func(fd int, p, oob []byte, flags int) (n, oobn, recvflags int, from unix.Sockaddr, err error)
	read    func(fd int, p []byte) (int, error)
	rest    time.Duration
}

// A Receiver takes messages until Close.
type Receiver struct {
	opt   Options
	sock  *os.File // nil: none
	kmsg  *os.File // nil: none
	id    unix.Stat_t
	pidfd bool // messages come with one of their sender
	done  []chan struct{}
	stop  chan struct{}
	lost  drops
	seq   uint64 // of the next record
	ended atomic.Bool
}

// drops counts what got lost, and says so at most once a minute.
type drops struct {
	messages, records atomic.Uint64
	said              atomic.Int64 // unix ns
}

// Open makes the socket, opens the kernel's records and begins to receive. A
// socket that nobody serves any more is replaced; at one that somebody serves the
// error is [ErrServed], and nothing is received. Where only the socket cannot be
// made there is a Receiver of the kernel's records besides the error. That these
// may not be read, as in most containers, is no error.
func Open(opt Options) (*Receiver, error) {
	opt.defaults()
	r := &Receiver{opt: opt, stop: make(chan struct{})}
	var err error
	if opt.Path != "-" {
		var fd int
		if fd, err = r.bind(); err == nil {
			r.sock = os.NewFile(uintptr(fd), opt.Path)
		} else if errors.Is(err, ErrServed) {
			return nil, err
		}
	}
	if opt.Kmsg != "-" {
		r.kmsg = openKmsg(opt.Kmsg, opt.FromStart)
	}
	if r.sock == nil && r.kmsg == nil {
		return nil, err
	}
	r.start("syslog", r.sock, r.receive)
	r.start("kmsg", r.kmsg, r.readKernel)
	return r, err
}

func (opt *Options) defaults() {
	if opt.Path == "" {
		opt.Path = DefaultPath
	}
	if opt.Kmsg == "" {
		opt.Kmsg = "/dev/kmsg"
	}
	if opt.recvmsg == nil {
		opt.recvmsg = unix.Recvmsg
	}
	if opt.read == nil {
		opt.read = unix.Read
	}
	if opt.rest == 0 {
		opt.rest = firstRest
	}
	if opt.Say == nil {
		opt.Say = func(string, string) {}
	}
}

// start lets read be called with f until it says no.
func (r *Receiver) start(name string, f *os.File, read func(syscall.RawConn) (more bool)) {
	if f == nil {
		return
	}
	conn, err := f.SyscallConn()
	if err != nil { // cannot happen: it is open
		return
	}
	done := make(chan struct{})
	r.done = append(r.done, done)
	r.begin(name, func() {
		defer close(done)
		for r.safely(name, func() bool { return read(conn) }) {
		}
	})
}

// Serves reports whether the socket is there.
func (r *Receiver) Serves() bool { return r.sock != nil }

// Close removes the socket, if it still is ours, takes what has been sent to it
// and ends. It waits no longer than until deadline.
func (r *Receiver) Close(deadline time.Time) {
	if r.ended.Swap(true) {
		return
	}
	if r.sock != nil && r.ours() {
		_ = os.Remove(r.opt.Path)
	}
	close(r.stop)
	for _, f := range []*os.File{r.sock, r.kmsg} {
		if f != nil {
			_ = f.SetReadDeadline(time.Unix(1, 0)) // what waits comes back
		}
	}
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	for _, done := range r.done {
		select {
		case <-done:
		case <-t.C:
			return // its descriptor is closed with the process
		}
	}
	for _, f := range []*os.File{r.sock, r.kmsg} {
		if f != nil {
			f.Close()
		}
	}
	r.lost.say(r.opt.Say, true)
}

func (r *Receiver) ours() bool {
	var st unix.Stat_t
	return unix.Lstat(r.opt.Path, &st) == nil && st.Dev == r.id.Dev && st.Ino == r.id.Ino
}

// bind makes the socket under another name and moves it to its place when
// everybody may write to it, so that it is there as a whole or not at all.
func (r *Receiver) bind() (fd int, err error) {
	path := r.opt.Path
	if err := free(path); err != nil {
		return -1, fmt.Errorf("serve %s: %w", path, err)
	}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("serve %s: %w", path, err)
	}
	tmp := filepath.Join(filepath.Dir(path), ".log."+strconv.Itoa(os.Getpid()))
	_ = unix.Unlink(tmp) // of one that had our pid before
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	// Linux 6.5; from 6.17 on it is there for a sender that is gone, too.
	r.pidfd = err == nil && unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSPIDFD, 1) == nil
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: tmp})
	}
	if err == nil {
		err = unix.Chmod(tmp, 0o666)
		if err == nil {
			err = unix.Lstat(tmp, &r.id)
		}
		if err == nil {
			err = unix.Rename(tmp, path)
		}
		if err != nil {
			_ = unix.Unlink(tmp)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("serve %s: %w", path, err)
	}
	return fd, nil
}

// free reports why path cannot be taken; a socket that nobody serves can.
func free(path string) error {
	var st unix.Stat_t
	switch err := unix.Stat(path, &st); {
	case err == unix.ENOENT:
		if unix.Lstat(path, &st) == nil {
			return errors.New("it is a symbolic link to nothing")
		}
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return errors.New("it is there, and no socket")
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err {
	case unix.ECONNREFUSED:
		return nil
	case nil, unix.EPROTOTYPE, unix.EAGAIN: // a datagram socket, or one of another type
		return ErrServed
	default:
		return err
	}
}

// openKmsg returns nil where the records cannot be read.
func openKmsg(path string, fromStart bool) *os.File {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	whence := unix.SEEK_END
	if fromStart {
		whence = unix.SEEK_SET
	}
	// Some sandboxes let a process open it and nothing else.
	if _, err := unix.Seek(fd, 0, whence); err != nil {
		unix.Close(fd)
		return nil
	}
	return os.NewFile(uintptr(fd), path)
}

// receive takes the messages that there are and waits for the next one.
func (r *Receiver) receive(conn syscall.RawConn) bool {
	var buf [maxDatagram]byte
	// Room for what the kernel adds and for nothing else: descriptors that a sender
	// passes along are not to be taken.
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	if r.pidfd {
		oob = append(oob, make([]byte, unix.CmsgSpace(4))...)
	}
	var m *Message
	var err error
	left := lastReads
	bad := faults{what: "receive at " + r.opt.Path}
	read := func(fd uintptr) bool {
		m = nil
		var n, oobn, flags int
		n, oobn, flags, _, err = r.opt.recvmsg(int(fd), buf[:], oob, unix.MSG_DONTWAIT|unix.MSG_TRUNC|unix.MSG_CMSG_CLOEXEC)
		if err == nil {
			m = datagram(buf[:min(n, len(buf))], oob[:oobn])
			if over := n - len(buf); over > 0 && flags&unix.MSG_TRUNC != 0 {
				m.Text += fmt.Sprintf("... (%d bytes more)", over)
			}
		}
		return !errors.Is(err, unix.EAGAIN)
	}
	for {
		if r.ended.Load() {
			// No waiting any more: what was sent until now.
			ctl := func(fd uintptr) { read(fd) }
			if left--; left < 0 || conn.Control(ctl) != nil || m == nil {
				return false
			}
		} else if e := conn.Read(read); e != nil {
			if r.ended.Load() {
				continue
			}
			r.opt.Say("error", "receive at "+r.opt.Path+" no more: "+e.Error())
			return false
		}
		if m == nil {
			r.pause(&bad, err, unix.EINTR)
			continue
		}
		bad.n = 0
		if m.Name == "" && m.PID > 0 {
			m.Name = comm(m.PID)
		}
		r.give(m)
	}
}

// faults counts reads that brought nothing, in a row.
type faults struct {
	what string
	n    int
	said []error
}

// pause is after a read that failed, so that one that fails again and again makes
// nobody spin: it rests, longer each time, but not after the first few of those
// that are usual. Each error is said once.
func (r *Receiver) pause(f *faults, err error, usual ...error) {
	f.n++
	rests := f.n - 1
	if slices.Contains(usual, err) {
		if rests -= freeFaults; rests < 0 {
			return
		}
	}
	if !slices.Contains(f.said, err) {
		f.said = append(f.said, err)
		r.opt.Say("error", fmt.Sprintf("%s: %v; it is tried again", f.what, err))
	}
	t := time.NewTimer(min(r.opt.rest<<min(rests, 10), longestRest))
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.stop:
	}
}

// comm is the name of a process that gave none, "" when it is gone.
func comm(pid int) string {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/comm", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var buf [64]byte
	n, _ := unix.Read(fd, buf[:])
	return clean(bytes.TrimSuffix(buf[:max(n, 0)], []byte("\n")), maxName)
}

// datagram makes a message of what was received.
func datagram(b, oob []byte) *Message {
	m := parse(b)
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return m
	}
	for i := range msgs {
		if msgs[i].Header.Level != unix.SOL_SOCKET {
			continue
		}
		switch msgs[i].Header.Type {
		case unix.SCM_CREDENTIALS:
			if cred, err := unix.ParseUnixCredentials(&msgs[i]); err == nil {
				m.PID, m.UID = int(cred.Pid), cred.Uid
			}
		case unix.SCM_PIDFD, unix.SCM_RIGHTS:
			for b := msgs[i].Data; len(b) >= 4; b = b[4:] {
				fd := int(int32(binary.NativeEndian.Uint32(b)))
				if fd < 0 { // -ESRCH: the sender is gone
					continue
				}
				if msgs[i].Header.Type == unix.SCM_PIDFD {
					m.Group = groupOf(fd)
				}
				unix.Close(fd)
			}
		}
	}
	return m
}

// groupOf asks for the control group of a process that may have ended (Linux
// 6.13, 6.15 for one that has).
func groupOf(pidfd int) uint64 {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_CGROUPID | unix.PIDFD_INFO_EXIT}
	if unix.IoctlPidfdInfo(pidfd, &info) != nil || info.Mask&unix.PIDFD_INFO_CGROUPID == 0 {
		return 0
	}
	return info.Cgroupid
}

// readKernel takes the kernel's records and waits for the next one.
func (r *Receiver) readKernel(conn syscall.RawConn) bool {
	var buf [maxRecord]byte
	var n int
	var err error
	bad := faults{what: "read " + r.opt.Kmsg}
	read := func(fd uintptr) bool {
		n, err = r.opt.read(int(fd), buf[:])
		return !errors.Is(err, unix.EAGAIN)
	}
	for {
		if e := conn.Read(read); e != nil {
			if !r.ended.Load() {
				r.opt.Say("error", "read "+r.opt.Kmsg+" no more: "+e.Error())
			}
			return false
		}
		if err != nil {
			// EPIPE: overwritten before they were read; the next one says how many.
			// EINVAL: longer than the buffer, and gone.
			r.pause(&bad, err, unix.EINTR, unix.EPIPE, unix.EINVAL)
			continue
		}
		if n <= 0 {
			return false
		}
		bad.n = 0
		m, seq, ok := parseRecord(buf[:n])
		if !ok {
			continue
		}
		if r.seq > 0 && seq > r.seq {
			r.lost.records.Add(seq - r.seq)
			r.lost.say(r.opt.Say, false)
		}
		r.seq = seq + 1
		if m.Facility != 0 && r.opt.NoUser {
			continue
		}
		r.give(m)
	}
}

// give brings m where it belongs. Where there is no room, whoever sends is held
// up, by at most a second for each message, so that nobody hangs for ever.
func (r *Receiver) give(m *Message) {
	put := r.opt.Take(m)
	full, lost := put()
	if full != nil {
		full, lost = r.await(full, put)
	}
	if full != nil || lost {
		if m.Kernel {
			r.lost.records.Add(1)
		} else {
			r.lost.messages.Add(1)
		}
	}
	if !r.ended.Load() { // else Close says it
		r.lost.say(r.opt.Say, false)
	}
}

func (r *Receiver) await(full <-chan struct{}, put func() (<-chan struct{}, bool)) (<-chan struct{}, bool) {
	t := time.NewTimer(slowest)
	defer t.Stop()
	for lost := false; full != nil; {
		select {
		case <-full:
			if full, lost = put(); full == nil {
				return nil, lost
			}
		case <-t.C:
			return full, true
		case <-r.stop:
			return full, true
		}
	}
	return nil, false
}

func (d *drops) say(say func(level, msg string), now bool) {
	if d.messages.Load() == 0 && d.records.Load() == 0 {
		return
	}
	t := time.Now().UnixNano()
	if ago := t - d.said.Load(); !now && ago >= 0 && ago < int64(sayEvery) {
		return
	}
	d.said.Store(t)
	for _, c := range []struct {
		n    uint64
		what string
	}{{d.messages.Swap(0), "sent to syslog"}, {d.records.Swap(0), "of the kernel"}} {
		switch c.n {
		case 0:
		case 1:
			say("warning", "1 message "+c.what+" was lost")
		default:
			say("warning", strconv.FormatUint(c.n, 10)+" messages "+c.what+" were lost")
		}
	}
}
