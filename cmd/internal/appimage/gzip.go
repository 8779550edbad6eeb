package appimage

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"io"
	"runtime"
)

const (
	// gzipBlock is compressed by one processor. It decides about the bytes, and the
	// number of processors does not.
	gzipBlock = 1 << 20
	// gzipWindow is how far back deflate may refer.
	gzipWindow = 32 << 10
	// gzipLevel: 9 takes three times as long for one hundredth less.
	gzipLevel = 6
)

// A gzipWriter compresses with all processors into one member, the only form that
// the kernel unpacks: each block may refer to the one before it, and ends where the
// next can be put behind it (RFC 1951, 3.2.4). The same input gives the same bytes.
type gzipWriter struct {
	w       io.Writer
	block   []byte
	window  []byte
	sum     uint32
	size    uint32
	pending []chan []byte // in order; each gets one block
	err     error
}

func newGzip(w io.Writer) *gzipWriter {
	g := &gzipWriter{w: w, block: make([]byte, 0, gzipBlock)}
	// Neither a name nor a time; made on Unix. RFC 1952, 2.3
	_, g.err = w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3})
	return g
}

func (g *gzipWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 && g.err == nil {
		part := p[:min(len(p), gzipBlock-len(g.block))]
		g.block = append(g.block, part...)
		g.sum = crc32.Update(g.sum, crc32.IEEETable, part)
		g.size += uint32(len(part))
		n, p = n+len(part), p[len(part):]
		if len(g.block) == gzipBlock {
			g.start(false)
		}
	}
	return n, g.err
}

// start has the block compressed, and waits for older ones when all processors are
// at work.
func (g *gzipWriter) start(last bool) {
	block, window, done := g.block, g.window, make(chan []byte, 1)
	go func() { done <- deflate(block, window, last) }()
	g.pending = append(g.pending, done)
	g.window = block[max(0, len(block)-gzipWindow):]
	g.block = make([]byte, 0, gzipBlock)
	for len(g.pending) > 0 && (last || len(g.pending) > runtime.GOMAXPROCS(0)) {
		b := <-g.pending[0]
		g.pending = g.pending[1:]
		if g.err == nil {
			_, g.err = g.w.Write(b)
		}
	}
}

// deflate compresses a block. Writing to memory has no errors.
func deflate(block, window []byte, last bool) []byte {
	var out bytes.Buffer
	z, _ := flate.NewWriterDict(&out, gzipLevel, window)
	_, _ = z.Write(block)
	if last {
		_ = z.Close()
	} else {
		_ = z.Flush()
	}
	return out.Bytes()
}

// Close writes what is left; the writer below stays open.
func (g *gzipWriter) Close() error {
	g.start(true)
	if g.err == nil {
		_, g.err = g.w.Write(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, g.sum), g.size))
	}
	return g.err
}
