package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A record is what a worker tells; see c/ref.c.
type record struct {
	ns   int64
	pid  int
	kind uint32
}

// A fifo is where the workers of one supervisor tell it.
type fifo struct {
	path string
	fd   int
	keep int // a writer of our own, so that it never ends, or -1
	buf  []byte
}

// open makes the FIFO in dir. One that ends does so with its last writer.
func openFIFO(dir string, ends bool) (*fifo, error) {
	f := &fifo{path: filepath.Join(dir, "fifo"), keep: -1}
	if err := unix.Mkfifo(f.path, 0o666); err != nil {
		return nil, fmt.Errorf("make %s: %w", f.path, err)
	}
	var err error
	if f.fd, err = unix.Open(f.path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return nil, err
	}
	if !ends {
		if f.keep, err = unix.Open(f.path, unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *fifo) close() {
	unix.Close(f.fd)
	if f.keep >= 0 {
		unix.Close(f.keep)
	}
}

var (
	errQuiet = errors.New("nothing was heard")
	errEnd   = errors.New("the last worker is gone")
)

// read waits for the next record.
func (f *fifo) read(timeout time.Duration) (record, error) {
	deadline := time.Now().Add(timeout)
	for len(f.buf) < 16 {
		left := time.Until(deadline)
		if left <= 0 {
			return record{}, errQuiet
		}
		fds := []unix.PollFd{{Fd: int32(f.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		if err == unix.EINTR || n == 0 {
			continue
		}
		if err != nil {
			return record{}, err
		}
		var b [4096]byte
		n, err = unix.Read(f.fd, b[:])
		if n > 0 {
			f.buf = append(f.buf, b[:n]...)
		} else if err == nil {
			return record{}, errEnd
		}
	}
	r := record{
		ns:   int64(binary.NativeEndian.Uint64(f.buf)),
		pid:  int(binary.NativeEndian.Uint32(f.buf[8:])),
		kind: binary.NativeEndian.Uint32(f.buf[12:]),
	}
	f.buf = f.buf[16:]
	return r, nil
}

// readN waits for n records.
func (f *fifo) readN(n int, timeout time.Duration) ([]record, error) {
	deadline := time.Now().Add(timeout)
	out := make([]record, 0, n)
	for len(out) < n {
		r, err := f.read(time.Until(deadline))
		if err != nil {
			return out, fmt.Errorf("%d of %d records: %w", len(out), n, err)
		}
		out = append(out, r)
	}
	return out, nil
}
