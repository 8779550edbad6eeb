package output

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The writer is a process of its own, as a worker is: the test binary again.
func init() {
	if size := os.Getenv("OUTPUT_BENCH_WRITER"); size != "" {
		var n, total int
		_, _ = fmt.Sscanf(size, "%d %d", &n, &total)
		p := make([]byte, n)
		for i := range p {
			p[i] = 'x'
			if i%100 == 99 || i == n-1 {
				p[i] = '\n'
			}
		}
		for done := 0; done < total; { // as cheap as a C program does it
			k, _, e := unix.RawSyscall(unix.SYS_WRITE, 1, uintptr(unsafe.Pointer(&p[0])), uintptr(n))
			if e != 0 && e != unix.EINTR {
				os.Exit(1)
			}
			done += int(k)
		}
		os.Exit(0)
	}
}

func benchmarkFile(b *testing.B, size, total int) {
	dir := b.TempDir()
	run := func(f func() (wait func())) (mb, cpu float64) {
		var before, after unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
		began := time.Now()
		wait := f()
		wait()
		took := time.Since(began).Seconds()
		_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
		sec := func(r unix.Rusage) float64 {
			return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
		}
		return float64(total) / 1e6 / took, (sec(after) - sec(before)) / (float64(total) / (1 << 30))
	}
	worker := func(fd int) *os.Process {
		out := os.NewFile(uintptr(fd), "out")
		defer out.Close()
		p, err := os.StartProcess("/proc/self/exe", []string{"writer"}, &os.ProcAttr{
			Env:   []string{fmt.Sprintf("OUTPUT_BENCH_WRITER=%d %d", size, total)},
			Files: []*os.File{nil, out, os.Stderr},
		})
		if err != nil {
			b.Fatal(err)
		}
		return p
	}
	for b.Loop() {
		plain, plainCPU := run(func() func() {
			var p [2]int
			if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
				b.Fatal(err)
			}
			f, err := os.Create(filepath.Join(dir, "plain"))
			if err != nil {
				b.Fatal(err)
			}
			w := worker(p[1])
			return func() {
				buf := make([]byte, 64<<10)
				for {
					n, err := unix.Read(p[0], buf)
					if n <= 0 || err != nil {
						break
					}
					if _, err := unix.Write(int(f.Fd()), buf[:n]); err != nil {
						b.Fatal(err)
					}
				}
				f.Close()
				unix.Close(p[0])
				_, _ = w.Wait()
			}
		})
		os.Remove(filepath.Join(dir, "plain"))
		h, err := New(Options{})
		if err != nil {
			b.Fatal(err)
		}
		ours, oursCPU := run(func() func() {
			src, err := h.Source(Config{Name: "shop:web.1", Stdout: Target{Kind: "file", Path: filepath.Join(dir, "log"), RotateSize: 10 << 20, RotateKeep: 5}})
			if err != nil {
				b.Fatal(err)
			}
			out, _ := src.Files()
			fd, _ := unix.Dup(out)
			w := worker(fd)
			return func() {
				_, _ = w.Wait()
				<-src.Flush()
			}
		})
		h.Close(time.Now().Add(patience))
		if l := h.Lost(); l.Files != 0 {
			b.Fatalf("lost = %d", l.Files)
		}
		b.ReportMetric(ours, "MB/s")
		b.ReportMetric(oursCPU, "cpu-s/GiB")
		b.ReportMetric(plain, "plain-MB/s")
		b.ReportMetric(plainCPU, "plain-cpu-s/GiB")
		b.ReportMetric(ours/plain, "ratio")
	}
}

func BenchmarkFile64KiB(b *testing.B)   { benchmarkFile(b, 64<<10, 1<<30) }
func BenchmarkFile100Byte(b *testing.B) { benchmarkFile(b, 100, 300_000_000) }
