package appimage

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/pazinit/pazinit/initramfs"
)

// sampleText has what can be compressed and what cannot.
func sampleText(size int) []byte {
	r := rand.New(rand.NewChaCha8([32]byte{1}))
	out := make([]byte, 0, size+64)
	for len(out) < size {
		if r.IntN(3) == 0 || len(out) < 64 {
			for range r.IntN(64) {
				out = append(out, byte(r.Uint32()))
			}
			continue
		}
		at := r.IntN(len(out) - 32)
		out = append(out, out[max(at, len(out)-40000):max(at, len(out)-40000)+32]...)
	}
	return out[:size]
}

func TestGzip(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, size := range []int{0, 1, gzipBlock - 1, gzipBlock, gzipBlock + 1, 5*gzipBlock + 77} {
		data := sampleText(size)
		var first [32]byte
		for i, step := range []int{size + 1, 4096, 333_333} {
			runtime.GOMAXPROCS(1 + i)
			var out bytes.Buffer
			z := newGzip(&out)
			for p := data; len(p) > 0; p = p[min(step, len(p)):] {
				if n, err := z.Write(p[:min(step, len(p))]); n != min(step, len(p)) || err != nil {
					t.Fatalf("Write = %d, %v", n, err)
				}
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			if sum := sha256.Sum256(out.Bytes()); i == 0 {
				first = sum
			} else if sum != first {
				t.Errorf("%d bytes in steps of %d, %d processors: other bytes", size, step, 1+i)
			}
			r, err := gzip.NewReader(bytes.NewReader(out.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			r.Multistream(false)
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes: %d come back, %v", size, len(got), err)
			}
			gunzip := exec.Command("gzip", "-dc")
			gunzip.Stdin = bytes.NewReader(out.Bytes())
			if got, err := gunzip.Output(); err != nil || !bytes.Equal(got, data) {
				t.Errorf("gzip: of %d bytes %d come back, %v", size, len(got), err)
			}
			var whole bytes.Buffer
			w, _ := gzip.NewWriterLevel(&whole, gzipLevel)
			_, _ = w.Write(data)
			_ = w.Close()
			if got, most := out.Len(), whole.Len()+whole.Len()/100+64; got > most {
				t.Errorf("%d bytes become %d, in one piece %d", size, got, whole.Len())
			}
		}
	}
	full := errors.New("full")
	z := newGzip(&failing{left: 3 * gzipBlock / 2, err: full})
	_, err := z.Write(sampleText(8 * gzipBlock))
	if err = errors.Join(err, z.Close()); !errors.Is(err, full) {
		t.Errorf("a full disk: %v", err)
	}
}

type failing struct {
	left int
	err  error
}

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, f.err
	}
	return len(p), nil
}

// On a terminal writing that takes long shows how far it is, and leaves nothing.
func TestProgress(t *testing.T) {
	var shown bytes.Buffer
	m := &Maker{Stderr: &shown, image: initramfs.New(), order: order{output: "x\x1b.img"}}
	for _, terminal := range []bool{false, true} {
		m.Terminal = terminal
		if err := m.image.Add("/f", initramfs.Data(0o644, make([]byte, 1000))); err != nil {
			t.Fatal(err)
		}
		p := m.progress(io.Discard)
		_, _ = p.Write(make([]byte, 250))
		p.next = time.Time{} // long ago
		_, _ = p.Write(make([]byte, 250))
		_, _ = p.Write(make([]byte, 250))
		p.clear()
	}
	if want := "\r\x1b[Kwriting x?.img: 50 %\r\x1b[K"; shown.String() != want {
		t.Errorf("it shows %q, want %q", &shown, want)
	}
}
