package control

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	fifoName = "control"
	fifoLine = 4 << 10 // a longer line is refused; PIPE_BUF, so that shorter ones never mix
)

// openFIFO makes the FIFO, or takes over the one of a supervisor that was
// killed. It is opened for writing too, so that it never ends.
func openFIFO(dirfd int, name string) (*os.File, fileID, error) {
	err := unix.Mkfifoat(dirfd, name, 0o600)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fileID{}, err
	}
	fd, err := unix.Openat(dirfd, name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fileID{}, err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFIFO:
		err = errors.New("there is something else than a FIFO")
	case st.Uid != uint32(unix.Geteuid()):
		err = fmt.Errorf("it belongs to uid %d", st.Uid)
	case errors.Is(flock(fd), unix.EWOULDBLOCK): // another socket in this folder
		err = errors.New("in use by another supervisor")
	default:
		err = unix.Fchmod(fd, 0o600)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fileID{}, err
	}
	return os.NewFile(uintptr(fd), name), idOf(&st), nil
}

// readFIFO carries out the FIFO's lines one after another, without waiting for
// results, until the FIFO is closed.
func (s *Server) readFIFO() {
	defer s.work.Done()
	self := Peer{PID: unix.Getpid(), UID: uint32(unix.Geteuid()), GID: uint32(unix.Getegid()), FIFO: true}
	log := limiter{log: s.opt.Log, what: "errors in the FIFO"}
	buf := make([]byte, fifoLine)
	n, skip := 0, false // skip: the rest of a line that was too long
	for {
		m, err := s.fifo.Read(buf[n:])
		if err != nil {
			if s.ctx.Err() == nil && !errors.Is(err, os.ErrClosed) {
				s.opt.Log(fmt.Sprintf("read FIFO: %v", err))
			}
			return
		}
		n += m
		rest := buf[:n]
		for {
			line, after, whole := bytes.Cut(rest, []byte("\n"))
			if !whole {
				break
			}
			if rest = after; !skip {
				s.runLine(self, string(line), &log)
			}
			skip = false
		}
		if n = copy(buf, rest); n == len(buf) {
			if !skip {
				log.say(fmt.Sprintf("read FIFO: line of over %d bytes: %s", fifoLine, quote(string(buf[:40]))))
			}
			n, skip = 0, true
		}
	}
}

// runLine carries out one line of the FIFO.
func (s *Server) runLine(p Peer, line string, log *limiter) {
	defer s.caught("the FIFO")
	s.fault("line")
	words := bytes.TrimSpace([]byte(line))
	if len(words) == 0 || words[0] == '#' {
		return
	}
	var req *Request
	var err error
	if words[0] == '{' {
		req, err = parseJSON(words)
	} else {
		req, err = ParseLine(line)
	}
	if err == nil && req.Follow {
		err = errors.New("nothing can be followed here")
	}
	if err != nil {
		log.say(fmt.Sprintf("read FIFO: %v", err))
		return
	}
	req.NoWait = true
	s.exchange(s.ctx, p, req, fifoSink{line, log})
}

// fifoSink logs what went wrong; nobody reads the rest.
type fifoSink struct {
	line string
	log  *limiter
}

func (o fifoSink) send(r *Reply) error {
	if !r.Done || r.Code == ExitDone && r.Error == "" {
		return nil
	}
	text := r.Error
	for _, res := range r.Results {
		if !res.OK {
			if text != "" {
				text += "; "
			}
			text += res.Name + ": " + res.Message
		}
		if len(text) > 1000 {
			text = text[:1000] + "…"
			break
		}
	}
	if text == "" {
		text = fmt.Sprintf("exit status %d", r.Code)
	}
	o.log.say(fmt.Sprintf("FIFO: %s: %s", quote(o.line), text))
	return nil
}

// A limiter lets 20 lines in 10 seconds pass and counts the rest, so that
// garbage in the FIFO does not become garbage in the log.
type limiter struct {
	log     func(string)
	what    string // is counted
	since   time.Time
	n, lost int
}

func (l *limiter) say(text string) {
	if now := time.Now(); now.Sub(l.since) > 10*time.Second {
		if l.lost > 0 {
			l.log(fmt.Sprintf("%d more %s", l.lost, l.what))
		}
		l.since, l.n, l.lost = now, 0, 0
	}
	if l.n++; l.n > 20 {
		l.lost++
		return
	}
	l.log(text)
}
