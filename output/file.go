package output

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dirWriters = 4           // writes at a time into the files of one folder
	aliveEvery = 1e9         // ns: how often to look whether the file was removed
	rotateWait = time.Minute // after a rotation that failed
	maxMarks   = 256
)

// A file is what streams write to one path, and the only writer of that path.
// Whoever has acquired it owns the fields below busy's.
type file struct {
	hub   *Hub
	path  string
	gate  *gate
	mkdir bool
	self  stream // the file's own turns: see upkeep

	// Hub.mu
	refs       int
	users      []*Source // one for each of refs
	rotateSize int64
	rotateKeep int
	busy       bool
	waiting    []*stream
	wantOpen   bool
	wantReopen bool
	wantClear  bool
	pending    []byte // pazinit's own log
	asked      []chan error

	fd      int
	size    int64
	base    int64 // bytes in the files before this one since it was opened first
	limit   int64 // rotateSize as the turn began
	keep    int
	special bool    // not a regular file
	opened  bool    // at least once
	owner   *stream // who wrote last and may go on inside its line
	mid     bool    // the last byte is not a newline
	checked int64
	noTurn  int64 // unix ns: no rotation before it

	turns  atomic.Uint64 // odd while something is written
	markMu sync.Mutex
	marks  []mark
	end    int64 // base+size after the last write

	trouble trouble
}

// A mark says when the bytes from off (as in base+size) to the next mark were
// written: from t to last.
type mark struct{ off, t, last int64 }

// attachFile returns the file of path for one more stream of src. Hub.mu is held.
func (h *Hub) attachFile(path string, src *Source, t *Target) *file {
	f := h.files[path]
	if f == nil {
		f = &file{hub: h, path: path, fd: -1}
		f.trouble.what, f.trouble.total = "write "+path, &h.lost.files
		f.self = stream{src: h.self, sink: f, upkeep: f.upkeep}
		dir := filepath.Dir(path)
		f.gate = h.dirs[dir]
		if f.gate == nil {
			f.gate = &gate{free: dirWriters}
			h.dirs[dir] = f.gate
		}
		f.gate.refs++
		h.files[path] = f
	}
	f.refs++
	f.users = append(f.users, src)
	f.rotateSize, f.rotateKeep = t.RotateSize, t.RotateKeep
	f.mkdir = f.mkdir || t.Kind == "dir"
	f.wantOpen = true
	f.ask()
	return f
}

// usedByOthers says whether not all that is in the file is src's. Hub.mu is held.
func (f *file) usedByOthers(src *Source) bool {
	return slices.ContainsFunc(f.users, func(o *Source) bool { return o != src })
}

// ask gives the file a turn of its own. Hub.mu is held.
func (f *file) ask() {
	if f.self.state == idle {
		f.hub.enqueue(&f.self)
	}
}

func (f *file) acquire(s *stream) bool {
	if f.busy {
		f.waiting = append(f.waiting, s)
		return false
	}
	if f.gate.free == 0 {
		f.gate.waiting = append(f.gate.waiting, s)
		return false
	}
	f.gate.free--
	f.busy = true
	f.limit, f.keep = f.rotateSize, f.rotateKeep
	if f.special {
		f.limit = 0
	}
	return true
}

func (f *file) release(*stream) {
	f.busy = false
	f.gate.free++
	f.waiting = f.hub.wakeOne(f.waiting)
	f.gate.waiting = f.hub.wakeOne(f.gate.waiting)
}

func (f *file) waits() bool { return true }

func (f *file) detach(s *stream) {
	f.refs--
	if i := slices.Index(f.users, s.src); i >= 0 {
		f.users = slices.Delete(f.users, i, i+1)
	}
	if !f.busy && f.owner == s {
		f.owner = nil
	}
	if f.refs == 0 {
		f.ask() // close(2) may block too
	}
	// It may have been the one that was woken: the next must not wait for its turn.
	if !f.busy {
		f.waiting = f.hub.wakeOne(f.waiting)
	}
	if f.gate.free > 0 {
		f.gate.waiting = f.hub.wakeOne(f.gate.waiting)
	}
}

func (f *file) hasUpkeep() bool {
	return f.wantReopen || f.wantClear || len(f.pending) > 0 || f.wantOpen || f.refs == 0 && f.fd >= 0
}

// settle forgets a file that nobody uses, after its own turn. Hub.mu is held.
func (f *file) settle() {
	if f.refs > 0 || f.self.state != idle {
		return
	}
	h := f.hub
	delete(h.files, f.path)
	if f.gate.refs--; f.gate.refs == 0 {
		delete(h.dirs, filepath.Dir(f.path))
	}
	if h.noFiles != nil && len(h.files) == 0 {
		close(h.noFiles)
		h.noFiles = nil
	}
}

// upkeep does what was asked of the file itself: all that may block.
func (f *file) upkeep() {
	h := f.hub
	h.mu.Lock()
	reopen, empty, text, asked := f.wantReopen, f.wantClear, f.pending, f.asked
	f.wantOpen, f.wantReopen, f.wantClear, f.pending, f.asked = false, false, false, nil, nil
	done := f.refs == 0
	h.mu.Unlock()
	err := errors.New("a panic in pazinit itself")
	defer func() { // also after a panic
		for _, c := range asked {
			c <- err
		}
		if len(text) > 0 {
			h.log.wrote(len(text))
		}
	}()
	err = f.keepUp(reopen, empty, done, len(asked) > 0, text)
}

func (f *file) keepUp(reopen, empty, done, asked bool, text []byte) (err error) {
	if reopen {
		f.close()
	}
	if f.fd < 0 && (!done || len(text) > 0) {
		err = f.open()
	}
	if empty {
		err = errors.Join(err, f.empty())
	}
	if len(text) > 0 {
		f.write(&f.self, text, time.Now().UnixNano(), whole)
	} else if err != nil && !asked {
		f.trouble.fail(f.hub, err, 0)
	}
	if done {
		f.close()
	}
	return err
}

func (f *file) open() error {
	// O_NONBLOCK: a FIFO without a reader is an error here, not a hang.
	const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_NONBLOCK
	fd, err := openLog(f.path, flags, 0o640)
	if errors.Is(err, unix.ENOENT) && f.mkdir {
		if e := unix.Mkdir(filepath.Dir(f.path), 0o755); e == nil || e == unix.EEXIST {
			fd, err = openLog(f.path, flags, 0o640)
		}
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return fmt.Errorf("open: %w", err)
	}
	f.base += f.size
	first := !f.opened
	f.opened = true
	f.fd, f.size, f.mid, f.owner = fd, 0, false, nil
	if f.special = st.Mode&unix.S_IFMT != unix.S_IFREG; f.special {
		f.limit = 0
		_ = unix.SetNonblock(fd, false) // a slow reader of it makes its workers wait
	} else {
		f.size = st.Size
		f.mid = first && unfinished(f.path, &st)
	}
	f.checked = time.Now().UnixNano()
	f.markMu.Lock()
	f.end = f.base + f.size
	f.markMu.Unlock()
	return nil
}

// unfinished says whether the last byte of a log is no newline: the power was cut
// while it was written, or whoever did was killed. A file system may have left
// NULs where the line would be.
func unfinished(path string, is *unix.Stat_t) bool {
	if is.Size == 0 {
		return false
	}
	fd, err := openLog(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	var last [1]byte
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != is.Ino || st.Dev != is.Dev {
		return false
	}
	n, err := unix.Pread(fd, last[:], is.Size-1)
	return err == nil && n == 1 && last[0] != '\n'
}

// openLog is openFd for a log. Its folder may be the worker's own, who could put
// a link there to have us write to, or read, what is ours: a link is followed
// only when nobody else could have made it.
func openLog(path string, flags int, mode uint32) (int, error) {
	fd, err := openFd(path, flags|unix.O_NOFOLLOW, mode)
	if !errors.Is(err, unix.ELOOP) {
		return fd, err
	}
	for _, name := range []string{path, filepath.Dir(path)} {
		var st unix.Stat_t
		if name == path {
			err = unix.Lstat(name, &st)
		} else {
			err = unix.Stat(name, &st)
		}
		if err != nil {
			return -1, err
		}
		if st.Uid != 0 && st.Uid != uint32(unix.Geteuid()) {
			return -1, fmt.Errorf("%w: %s is a link, and uid %d could have made it", unix.ELOOP, path, st.Uid)
		}
		if name != path && st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0 {
			return -1, fmt.Errorf("%w: %s is a link, and others could have made it", unix.ELOOP, path)
		}
	}
	return openFd(path, flags, mode)
}

func (f *file) close() {
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
}

// removed says whether nobody can see the file any more.
func (f *file) removed() bool {
	var st unix.Stat_t
	return unix.Fstat(f.fd, &st) == nil && st.Nlink == 0
}

func (f *file) write(s *stream, data []byte, t int64, kind ending) {
	f.turns.Add(1)
	defer f.turns.Add(1)
	f.hub.fault("file")
	if ago := t - f.checked; f.fd >= 0 && (ago > aliveEvery || ago < 0) { // negative: the clock was set back
		f.checked = t
		if f.removed() {
			f.close()
		}
	}
	if f.fd < 0 {
		if err := f.open(); err != nil {
			f.trouble.fail(f.hub, err, len(data))
			return
		}
	}
	if f.mid && f.owner != s {
		// Another's line, or one of a run that is over, was not finished.
		end := "\n"
		if f.owner != nil {
			end = "\\\n"
		}
		if _, err := f.put([]byte(end)); err != nil {
			f.trouble.fail(f.hub, err, len(data))
			f.owner = nil
			return
		}
	}
	f.mark(t)
	defer f.done(s, len(data))
	for len(data) > 0 {
		part := data
		if f.limit > 0 && f.size+int64(len(data)) > f.limit {
			part = f.fit(data, t)
		}
		n, err := f.put(part)
		data = data[n:]
		if err != nil {
			f.trouble.fail(f.hub, err, len(data))
			f.owner = nil
			return
		}
	}
	f.trouble.over(f.hub, t)
	f.owner = s
	if kind == last {
		f.owner = nil
	}
}

// done publishes what tail.go needs.
func (f *file) done(s *stream, n int) {
	s.filed.Add(int64(n))
	f.markMu.Lock()
	f.end = f.base + f.size
	f.markMu.Unlock()
}

// fit returns what of data still goes into this file, in whole lines, and
// rotates when nothing does.
func (f *file) fit(data []byte, t int64) []byte {
	if room := f.limit - f.size; room > 0 {
		if i := bytes.LastIndexByte(data[:min(room, int64(len(data)))], '\n'); i >= 0 {
			return data[:i+1]
		}
	}
	if f.size > 0 && !f.mid && t >= f.noTurn {
		if err := f.rotate(); err != nil {
			f.noTurn = t + int64(rotateWait)
			f.trouble.fail(f.hub, err, 0)
			if f.fd < 0 {
				return data // put says so again, and counts
			}
		}
		if f.limit > 0 && int64(len(data)) > f.limit {
			if i := bytes.LastIndexByte(data[:f.limit], '\n'); i >= 0 {
				return data[:i+1]
			}
		} else {
			return data
		}
	}
	// The rest of this line goes here, whatever the size.
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return data[:i+1]
	}
	return data
}

// put writes p and returns how much of it was written.
func (f *file) put(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(f.fd, p[done:])
		if n > 0 {
			done += n
			f.size += int64(n)
			f.mid = p[done-1] != '\n'
			continue
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil {
			err = errors.New("nothing was written")
		}
		return done, err
	}
	return done, nil
}

func (f *file) name(n int) string {
	if n == 0 {
		return f.path
	}
	return f.path + "." + strconv.Itoa(n)
}

// rotate begins a new file. On an error the old one is gone on with.
func (f *file) rotate() error {
	if f.keep == 0 {
		if err := unix.Ftruncate(f.fd, 0); err != nil {
			return fmt.Errorf("rotate: %w", err)
		}
		f.base += f.size
		f.size = 0
		return nil
	}
	for n := f.keep - 1; n >= 0; n-- {
		if err := unix.Rename(f.name(n), f.name(n+1)); err != nil && err != unix.ENOENT {
			return fmt.Errorf("rotate: rename %s: %w", f.name(n), err)
		}
	}
	f.close()
	if err := f.open(); err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	return nil
}

// empty truncates the file and removes the rotated ones.
func (f *file) empty() error {
	if f.fd < 0 {
		return nil
	}
	for n := 1; n <= f.keep; n++ {
		if err := unix.Unlink(f.name(n)); err != nil && err != unix.ENOENT {
			return fmt.Errorf("clear %s: %w", f.name(n), err)
		}
	}
	if err := unix.Ftruncate(f.fd, 0); err != nil && err != unix.EINVAL { // not a regular file
		return fmt.Errorf("clear %s: %w", f.path, err)
	}
	f.base += f.size
	f.size, f.mid = 0, false
	f.markMu.Lock()
	f.marks, f.end = nil, f.base
	f.markMu.Unlock()
	return nil
}

// mark notes the time of what is written next, once a second.
func (f *file) mark(t int64) {
	f.markMu.Lock()
	defer f.markMu.Unlock()
	if n := len(f.marks); n > 0 && t-f.marks[n-1].t < int64(time.Second) {
		f.marks[n-1].last = t
		return
	}
	if len(f.marks) == maxMarks { // the older, the coarser
		for i := range maxMarks / 2 {
			f.marks[i] = f.marks[2*i]
			f.marks[i].last = f.marks[2*i+1].last
		}
		f.marks = f.marks[:maxMarks/2]
	}
	f.marks = append(f.marks, mark{f.base + f.size, t, t})
}

// Reopen opens all files again, pazinit's own log too, after they were renamed
// by logrotate, and waits at most until the deadline for slow disks. The error
// names each file that could not be opened; it is tried again when there is
// something to write.
func (h *Hub) Reopen(deadline time.Time) error {
	return h.askFiles(deadline, func(f *file) bool { f.wantReopen = true; return true })
}

// Clear empties the ring and, if nobody else writes to them, the files of the
// instance, the rotated ones too. It waits at most until the deadline.
func (src *Source) Clear(deadline time.Time) error {
	src.ring.clear()
	var shared error
	err := src.hub.askFiles(deadline, func(f *file) bool {
		if !src.uses(f) {
			return false
		}
		if f.usedByOthers(src) {
			shared = fmt.Errorf("clear %s: other instances write to it", f.path)
			return false
		}
		f.wantClear = true
		return true
	})
	return errors.Join(shared, err)
}

func (src *Source) uses(f *file) bool {
	for _, s := range src.streams {
		if s != nil && s.sink == sink(f) {
			return true
		}
	}
	return src == src.hub.self && src.hub.log.file == f
}

func (h *Hub) askFiles(deadline time.Time, pick func(*file) bool) error {
	type answer struct {
		path string
		c    chan error
	}
	var asked []answer
	h.mu.Lock()
	for path, f := range h.files {
		if pick(f) {
			c := make(chan error, 1)
			f.asked = append(f.asked, c)
			asked = append(asked, answer{path, c})
			f.ask()
		}
	}
	h.mu.Unlock()
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	var errs []error
	for i, a := range asked {
		select {
		case err := <-a.c:
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", a.path, err))
			}
		case <-timer.C:
			return errors.Join(append(errs, fmt.Errorf("%s: no answer from the disk (%d files)", a.path, len(asked)-i))...)
		}
	}
	return errors.Join(errs...)
}
