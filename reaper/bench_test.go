package reaper

import (
	"encoding/binary"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkStart is a start and the end of it, by this package and by Go's own
// fork, with few and with many descriptors in this process.
func BenchmarkStart(b *testing.B) {
	program := least(b)
	for _, files := range []int{10, 4000} {
		b.Run(strconv.Itoa(files)+"-files", func(b *testing.B) {
			t := newBench(b, Options{}) // before the many, as in a supervisor
			for i := len(openFiles()); i < files; i++ {
				fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { unix.Close(fd) })
			}
			b.Run("reaper", func(b *testing.B) {
				for b.Loop() {
					run := t.start(spec(program))
					t.up(run)
					t.down(run)
				}
			})
			t.Close() // from here on nobody else waits
			b.Run("whole-table", func(b *testing.B) {
				t.null, _ = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
				defer unix.Close(t.null)
				t.std = [3]int{t.null, t.null, t.null}
				t.shares = false
				for b.Loop() {
					f, err := t.flight(spec(program))
					if err != nil {
						b.Fatal(err)
					}
					pid, _, err := f.fork(-1)
					if err != nil {
						b.Fatal(err)
					}
					_, _ = unix.Wait4(pid, nil, 0, nil)
					unix.Close(int(f.pidfd))
				}
			})
			b.Run("syscall", func(b *testing.B) {
				null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
				if err != nil {
					b.Fatal(err)
				}
				defer null.Close()
				fd := null.Fd()
				for b.Loop() {
					pid, err := syscall.ForkExec(program, []string{program}, &syscall.ProcAttr{
						Dir: "/", Env: []string{"PATH=/usr/bin:/bin"}, Files: []uintptr{fd, fd, fd}, Sys: &syscall.SysProcAttr{Setsid: true},
					})
					if err != nil {
						b.Fatal(err)
					}
					_, _ = syscall.Wait4(pid, nil, 0, nil)
				}
			})
		})
	}
}

// least writes the smallest static program, which ends at once with 0.
func least(b *testing.B) string {
	le := binary.LittleEndian
	machine, code := uint16(62), []byte{0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05} // mov eax, 60; xor edi, edi; syscall
	if runtime.GOARCH == "arm64" {
		machine = 183
		code = le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, 0xd2800000), 0xd2800ba8), 0xd4000001) // mov x0, 0; mov x8, 93; svc 0
	}
	const base = 0x400000
	elf := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	elf = le.AppendUint16(le.AppendUint16(elf, 2), machine)
	elf = le.AppendUint32(elf, 1)
	for _, v := range []uint64{base + 120, 64, 0} { // entry, program headers, section headers
		elf = le.AppendUint64(elf, v)
	}
	elf = le.AppendUint32(elf, 0)
	for _, v := range []uint16{64, 56, 1, 64, 0, 0} {
		elf = le.AppendUint16(elf, v)
	}
	elf = le.AppendUint32(le.AppendUint32(elf, 1), 5) // load, read and execute
	size := uint64(120 + len(code))
	for _, v := range []uint64{0, base, base, size, size, 4096} {
		elf = le.AppendUint64(elf, v)
	}
	return write(b, 0o755, string(append(elf, code...)))
}
