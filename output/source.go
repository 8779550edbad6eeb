package output

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A Target is where one stream of an instance goes, besides the ring.
type Target struct {
	// Kind is one of
	//	capture  the console ("" is the same)
	//	inherit  pazinit's own descriptor, not captured: no ring. For a worker
	//	         of another user, a pipe or pseudo-terminal is made writable for
	//	         everybody (chmod o+w) if Options.OpenConsole is set, so that it
	//	         can open /dev/stdout anew; a file or device is left as it is,
	//	         and a socket can be opened by nobody
	//	null     /dev/null, not captured
	//	file     Path
	//	dir      a file of its own in the folder Path, see [FileName]
	//	pipe     Logger
	//	writer   Writer
	Kind       string
	Path       string // absolute
	RotateSize int64  // bytes; 0: never. The latest Source wins for a shared file
	RotateKeep int    // old files kept as Path.1 (the youngest) to Path.N; 0: the file is emptied
	Logger     *Logger
	Writer     io.Writer // gets whole lines, from one goroutine at a time
}

// Config says what a Source is.
type Config struct {
	Name           string // shop:web.1
	App, Worker    string
	Instance       int
	Stdout, Stderr Target
	UID, GID       int // the pipes are given to it
}

// A Source is the output of one instance. It is made before the first start,
// kept over all restarts, and closed when the instance is removed.
type Source struct {
	hub     *Hub
	cfg     Config
	ring    ring
	color   uint8
	streams [3]*stream // [isStdout], [isStderr]; nil when not captured
	fds     [3]int     // what the worker gets

	closing bool // Hub.mu
	open    int  // streams that are not gone; Hub.mu
}

// Source makes the pipes of one instance and begins to read them. Files are
// opened by a runner, so that a hung disk does not hold up the caller: what is
// wrong with them goes to Options.Notice.
func (h *Hub) Source(cfg Config) (*Source, error) {
	src := &Source{hub: h, cfg: cfg}
	src.ring.size = int(max(h.opt.RingSize, 0))
	src.fds = [3]int{-1, -1, -1}
	for i, t := range [...]*Target{isStdout: &src.cfg.Stdout, isStderr: &src.cfg.Stderr} {
		if t == nil {
			continue
		}
		if err := t.check(cfg); err != nil {
			return nil, fmt.Errorf("capture %s of %s: %w", streamNames[i], cfg.Name, err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, fmt.Errorf("capture %s: output is closed", cfg.Name)
	}
	h.sources[src] = struct{}{}
	src.open++ // finished must not remove it meanwhile
	for i, t := range [...]*Target{isStdout: &src.cfg.Stdout, isStderr: &src.cfg.Stderr} {
		if t == nil {
			continue
		}
		if err := src.connect(uint8(i), t); err != nil {
			src.closing = true
			for _, s := range src.streams {
				if s != nil {
					s.finish()
				}
			}
			src.finished()
			return nil, fmt.Errorf("capture %s of %s: %w", streamNames[i], cfg.Name, err)
		}
	}
	src.open--
	src.color = uint8(h.colors % len(colors))
	h.colors++
	h.NameWidth(len(cfg.Name))
	return src, nil
}

// NameWidth says that there will be a name of n bytes: the console's prefixes are
// padded to the longest one.
func (h *Hub) NameWidth(n int) {
	for {
		w := h.nameWidth.Load()
		if int32(n) <= w || h.nameWidth.CompareAndSwap(w, int32(n)) {
			return
		}
	}
}

func (t *Target) check(cfg Config) error {
	switch t.Kind {
	case "":
		t.Kind = "capture"
	case "capture", "inherit", "null":
	case "file", "dir":
		if !filepath.IsAbs(t.Path) || strings.IndexByte(t.Path, 0) >= 0 {
			return fmt.Errorf("path %q is not absolute", t.Path)
		}
		if t.RotateSize < 0 || t.RotateKeep < 0 {
			return errors.New("rotation is negative")
		}
		t.Path = filepath.Clean(t.Path)
		if t.Kind == "dir" && strings.ContainsAny(cfg.Name, "/\x00") {
			return fmt.Errorf("name %q cannot be a file's", cfg.Name)
		}
	case "pipe":
		if t.Logger == nil {
			return errors.New("no logger")
		}
	case "writer":
		if t.Writer == nil {
			return errors.New("no writer")
		}
	default:
		return fmt.Errorf("kind %q is unknown", t.Kind)
	}
	return nil
}

// connect sets up one stream. Hub.mu is held.
func (src *Source) connect(which uint8, t *Target) error {
	h := src.hub
	switch t.Kind {
	case "inherit":
		src.inherit(which)
		return nil
	case "null":
		if h.nullfd < 0 {
			fd, err := openFd("/dev/null", unix.O_RDWR, 0)
			if err != nil {
				return fmt.Errorf("open /dev/null: %w", err)
			}
			h.nullfd = fd
		}
		src.fds[which] = h.nullfd
		return nil
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		if t.Kind == "capture" && (errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)) {
			// Better that it runs than that its lines have a name.
			msg := streamNames[which] + " of " + src.cfg.Name + " is not captured but inherited: " + err.Error()
			h.begin("output", func() { h.notice(msg) })
			src.inherit(which)
			return nil
		}
		return fmt.Errorf("make pipe: %w", err)
	}
	s := &stream{src: src, which: which, rfd: p[0], wfd: p[1], size: 64 << 10}
	fail := func(err error) error {
		unix.Close(p[0])
		unix.Close(p[1])
		return err
	}
	// Only our end: the flag belongs to an open file, and each end is one.
	if err := unix.SetNonblock(s.rfd, true); err != nil {
		return fail(fmt.Errorf("set pipe: %w", err))
	}
	// Who opens /dev/stdout is asked for the right to write, and may not be the
	// worker's user but one that a part of it became. Nobody else comes to a pipe:
	// only its holders' folders in /proc lead there.
	_ = unix.Fchmod(s.wfd, 0o622)
	if src.cfg.UID != unix.Geteuid() || src.cfg.GID != unix.Getegid() {
		if err := unix.Fchown(s.wfd, src.cfg.UID, src.cfg.GID); err != nil && err != unix.EPERM {
			return fail(fmt.Errorf("give pipe to uid %d: %w", src.cfg.UID, err))
		}
	}
	if n, err := unix.FcntlInt(uintptr(s.rfd), unix.F_GETPIPE_SZ, 0); err == nil {
		s.size = n
	}
	id, err := h.watch(s.rfd, s, 0)
	if err != nil {
		return fail(err)
	}
	s.id = id
	switch t.Kind {
	case "capture":
		s.sink = h.console(which)
		s.raw = h.opt.Format == "raw"
	case "file":
		s.sink = h.attachFile(t.Path, src, t)
	case "dir":
		s.sink = h.attachFile(filepath.Join(t.Path, FileName(src.cfg.Name, streamNames[which])), src, t)
	case "pipe":
		s.sink = t.Logger
		t.Logger.users++
	case "writer":
		s.sink = h.attachWriter(t.Writer)
	}
	src.streams[which] = s
	src.fds[which] = s.wfd
	src.open++
	s.state = armed
	h.rearm(s.rfd, s.id, unix.EPOLLIN)
	return nil
}

// inherit lets the worker have our own descriptor.
func (src *Source) inherit(which uint8) {
	c := src.hub.console(which)
	if src.cfg.UID != unix.Geteuid() {
		c.letOpen()
	}
	src.fds[which] = c.fd
}

// FileName is the name that a stream's file has in the folder of a dir target:
// shop.web.1.stdout.log.
func FileName(instance, stream string) string {
	return strings.Replace(instance, ":", ".", 1) + "." + stream + ".log"
}

// Name is the instance's full name.
func (src *Source) Name() string { return src.cfg.Name }

// Files returns the descriptors to make a child's 1 and 2 of. They belong to
// the Source, have close-on-exec set, and stay the same over restarts; after
// Close they are -1. Call it before each start: an earlier run may have left its
// end O_NONBLOCK, which Files takes off.
func (src *Source) Files() (stdout, stderr int) {
	src.hub.mu.Lock()
	defer src.hub.mu.Unlock()
	for _, s := range src.streams {
		if s != nil && s.wfd >= 0 {
			_ = unix.SetNonblock(s.wfd, false)
		}
	}
	return src.fds[isStdout], src.fds[isStderr]
}

// Flush delivers all that is in the pipes now, then what there is of a line
// without newline: call it when a run is over and its processes are gone. The
// channel is closed when that is done, which takes as long as the console, the
// disk or the logger makes it wait.
func (src *Source) Flush() <-chan struct{} {
	src.hub.mu.Lock()
	defer src.hub.mu.Unlock()
	return src.flush()
}

func (src *Source) flush() <-chan struct{} {
	h := src.hub
	w := &flushWait{done: make(chan struct{})}
	for _, s := range src.streams {
		if s == nil || s.state == gone || s.quiet() {
			continue
		}
		w.left++
		s.flushed = append(s.flushed, w)
		if s.state == armed || s.state == paused {
			h.enqueue(s)
		}
	}
	if w.left == 0 {
		close(w.done)
	}
	return w.done
}

// Close flushes and then closes the pipes and, if nobody else uses them, the
// files. It does not wait; the channel is closed once all is delivered. Then
// the ring can no longer be read through the Hub.
func (src *Source) Close() <-chan struct{} {
	src.hub.mu.Lock()
	defer src.hub.mu.Unlock()
	src.closing = true
	src.fds = [3]int{-1, -1, -1}
	c := src.flush()
	for _, s := range src.streams {
		if s != nil && s.quiet() {
			s.finish()
		}
	}
	if src.open == 0 {
		src.finished()
	}
	return c
}

// finished is called for each stream that is gone. Hub.mu is held.
func (src *Source) finished() {
	if src.open > 0 {
		src.open--
	}
	if src.open == 0 {
		delete(src.hub.sources, src)
		src.ring.drop(src.hub)
	}
}
