package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// windowSize is how far back zstd may refer: the kernel takes up to 128 MiB, and
// needs that much memory while it unpacks.
const windowSize = 8 << 20

// compressions write what the kernel can unpack. Both give the same bytes for the
// same input: one thread compresses.
func compressions() map[string]func(io.Writer) (io.WriteCloser, error) {
	return map[string]func(io.Writer) (io.WriteCloser, error){
		"zstd": func(w io.Writer) (io.WriteCloser, error) {
			return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(windowSize), zstd.WithEncoderCRC(true))
		},
		// The kernel's unpacker knows CRC32 alone, see Documentation/staging/xz.rst.
		"xz": func(w io.Writer) (io.WriteCloser, error) {
			return xz.WriterConfig{CheckSum: xz.CRC32}.NewWriter(w)
		},
	}
}

// unpackers read one compressed stream, and not what follows it.
func unpackers() map[string]func(io.Reader) (io.Reader, error) {
	return map[string]func(io.Reader) (io.Reader, error){
		"zstd": func(r io.Reader) (io.Reader, error) {
			z, err := zstd.NewReader(&frame{r: r}, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
			if err != nil {
				return nil, err
			}
			return z.IOReadCloser(), nil
		},
		"xz": func(r io.Reader) (io.Reader, error) { return xz.NewReader(r) },
	}
}

// A frame gives the bytes of one zstd frame and then ends, wherever its reader is
// then; see RFC 8878, 3.1.1. The decoder alone would read on.
type frame struct {
	r        io.Reader
	buf      []byte // read and not yet given
	left     int64  // bytes of the block that are still to come
	begun    bool
	checksum bool
	last     bool // the block is the last one
	ended    bool
}

func (f *frame) Read(p []byte) (int, error) {
	for len(f.buf) == 0 && f.left == 0 {
		if f.ended {
			return 0, io.EOF
		}
		if err := f.more(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	if len(f.buf) > 0 {
		n := copy(p, f.buf)
		f.buf = f.buf[n:]
		return n, nil
	}
	n, err := f.r.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	if err == io.EOF && f.left > 0 {
		err = io.ErrUnexpectedEOF
	} else if err == io.EOF {
		err = nil
	}
	return n, err
}

// more reads the next header.
func (f *frame) more() error {
	switch {
	case !f.begun:
		f.begun = true
		return f.header()
	case f.last:
		f.ended = true
		if f.checksum {
			return f.take(4)
		}
		return nil
	}
	if err := f.take(3); err != nil {
		return err
	}
	b := f.buf
	head := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	f.last = head&1 != 0
	switch size := int64(head >> 3); head >> 1 & 3 {
	case 1: // one byte, repeated
		f.left = 1
	case 3:
		return errors.New("zstd: a block of no known type")
	default:
		f.left = size
	}
	return nil
}

func (f *frame) take(n int) error {
	b := make([]byte, n)
	if _, err := io.ReadFull(f.r, b); err != nil {
		return err
	}
	f.buf = append(f.buf, b...)
	return nil
}

// header reads what stands before the first block.
func (f *frame) header() error {
	if err := f.take(5); err != nil {
		return err
	}
	if m := binary.LittleEndian.Uint32(f.buf); m != 0xfd2fb528 {
		return fmt.Errorf("zstd: no frame begins with %08x", m)
	}
	d := f.buf[4]
	f.checksum = d&4 != 0
	single := d&0x20 != 0
	n := [...]int{0, 1, 2, 4}[d&3] // the dictionary's number
	switch d >> 6 {                // the content's size
	case 0:
		if single {
			n++
		}
	case 1:
		n += 2
	case 2:
		n += 4
	case 3:
		n += 8
	}
	if !single {
		n++ // the window
	}
	return f.take(n)
}
