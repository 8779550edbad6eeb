package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoServer says that nobody listens on the socket: exit status 6.
var ErrNoServer = errors.New("no supervisor")

// ErrDenied says that the socket may not be opened: exit status 5.
var ErrDenied = errors.New("permission denied")

// maxReply is how much of one line a client takes.
const maxReply = 256 << 20

// A Client is a connection to a supervisor. It carries one request at a time,
// but any number of them. Close it.
type Client struct {
	f    *os.File
	in   *bufio.Reader
	path string
}

// Dial connects to the socket at path. Its errors name path and are ErrNoServer
// or ErrDenied where that is the cause.
func Dial(path string) (*Client, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", path, err)
	}
	fd, err := connect(abs)
	switch {
	case err == nil:
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("connect to %s: %w: there is no such socket", path, ErrNoServer)
	case errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("connect to %s: %w listens there any more", path, ErrNoServer)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("connect to %s: %w to uid %d", path, ErrDenied, unix.Geteuid())
	case errors.Is(err, unix.EAGAIN):
		return nil, fmt.Errorf("connect to %s: too many wait there already", path)
	default:
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	return &Client{f: f, in: bufio.NewReader(f), path: path}, nil
}

// Close ends the connection, and with it what a request still waits for.
func (c *Client) Close() error { return c.f.Close() }

// Server is who answers: its pid (0 if it is in another PID namespace) and uid.
func (c *Client) Server() (p Peer, err error) {
	raw, err := c.f.SyscallConn()
	if err != nil {
		return p, err
	}
	if e := raw.Control(func(fd uintptr) { p, err = peerOf(int(fd)) }); e != nil {
		err = e
	}
	return p, err
}

// Do sends req, calls onLine (unless it is nil) for each line of the answer but
// the last, and returns the last. It ends early with ctx's error, or with
// onLine's; the connection is of no use after an error.
func (c *Client) Do(ctx context.Context, req *Request, onLine func(*Reply) error) (*Reply, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	// A server that refuses the connection or a request too long does not read
	// all of it, but says why: so read, whatever became of the write.
	_, werr := c.f.Write(AppendJSON(nil, req))
	for {
		line, err := readLine(c.in, maxReply)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			switch {
			case werr != nil:
				err = werr
			case errors.Is(err, io.EOF):
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("ask %s for %s: %w", c.path, req.Verb, err)
		}
		r := new(Reply)
		if err := json.Unmarshal(line, r); err != nil {
			return nil, fmt.Errorf("ask %s for %s: read reply: %w", c.path, req.Verb, err)
		}
		if r.Done {
			return r, nil
		}
		if onLine != nil {
			if err := onLine(r); err != nil {
				return nil, err
			}
		}
	}
}
