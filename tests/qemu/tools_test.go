//go:build qemu

package qemu

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kexec loads a kernel to go on with: KERNEL INITRD LINE.
func kexec(args []string) error {
	kernel, err := os.Open(args[0])
	if err != nil {
		return err
	}
	initrd, err := os.Open(args[1])
	if err != nil {
		return err
	}
	return os.NewSyscallError("kexec_file_load", unix.KexecFileLoad(int(kernel.Fd()), int(initrd.Fd()), args[2], 0))
}

// attached stops the threads of a process by ptrace.
func attached(pid string) ([]int, error) {
	runtime.LockOSThread()
	tasks, err := os.ReadDir("/proc/" + pid + "/task")
	if err != nil {
		return nil, err
	}
	var tids []int
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return nil, err
		}
		if err := unix.PtraceAttach(tid); err != nil {
			return nil, fmt.Errorf("attach to %d: %w", tid, err)
		}
		if _, err := unix.Wait4(tid, nil, unix.WALL, nil); err != nil {
			return nil, fmt.Errorf("wait for %d: %w", tid, err)
		}
		tids = append(tids, tid)
	}
	return tids, nil
}

// hold stops a process by ptrace, for ever.
func hold(args []string) error {
	if _, err := attached(args[0]); err != nil {
		return err
	}
	fmt.Println("held")
	for {
		time.Sleep(time.Hour) // Go takes a select without cases for a deadlock
	}
}

// crash has a process execute what is no code.
func crash(args []string) error {
	tids, err := attached(args[0])
	if err != nil {
		return err
	}
	for _, tid := range tids {
		var regs unix.PtraceRegs
		if err := unix.PtraceGetRegs(tid, &regs); err != nil {
			return err
		}
		setPC(&regs, 0x10)
		if err := unix.PtraceSetRegs(tid, &regs); err != nil {
			return err
		}
	}
	return nil // whose end lets them go on
}

// lines writes numbered lines for ever: each is whole when it has a z in the end.
func lines([]string) error {
	for n := 1; ; n++ {
		if _, err := fmt.Printf("line %d %sz\n", n, strings.Repeat("y", n%200)); err != nil {
			return err
		}
		if n%50 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// probe says whether the kernel has what the two witnesses of deaths need.
func probe([]string) error {
	// Before 5.11 maps are locked memory.
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
		return err
	}
	for _, p := range []struct {
		name string
		test func() error
	}{
		{"proc connector (a listener is answered)", connector},
		{"bpf(2): a program is loaded", func() error { return loadBPF(unix.BPF_PROG_TYPE_SOCKET_FILTER, "") }},
		{"bpf(2): raw tracepoint sched_process_exit", func() error { return loadBPF(unix.BPF_PROG_TYPE_RAW_TRACEPOINT, "sched_process_exit") }},
		{"bpf(2): raw tracepoint signal_generate", func() error { return loadBPF(unix.BPF_PROG_TYPE_RAW_TRACEPOINT, "signal_generate") }},
		{"bpf(2): raw tracepoint mark_victim", func() error { return loadBPF(unix.BPF_PROG_TYPE_RAW_TRACEPOINT, "mark_victim") }},
		{"bpf(2): a ring buffer", ringBuffer},
		{"BTF of the kernel", exists("/sys/kernel/btf/vmlinux")},
		{"tracefs", exists("/sys/kernel/tracing/events/sched/sched_process_exit/id")},
		{"kprobes", exists("/sys/kernel/tracing/kprobe_events")},
		{"fentry", exists("/sys/kernel/tracing/available_filter_functions")},
	} {
		if err := p.test(); err != nil {
			fmt.Printf("%s: no, %v\n", p.name, err)
		} else {
			fmt.Printf("%s: yes\n", p.name)
		}
	}
	return nil
}

func exists(name string) func() error {
	return func() error { _, err := os.Stat(name); return err }
}

// connector asks for the events of processes and waits for the kernel's word that
// it sends them; see connector(7) and Documentation/driver-api/connector.rst.
func connector() error {
	const cnIdxProc, cnValProc, listen = 1, 1, 1
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	if err := unix.Bind(s, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		return err
	}
	b := make([]byte, 16+20+4) // nlmsghdr, cn_msg, the operation
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], uint32(len(b)))
	ne.PutUint16(b[4:], unix.NLMSG_DONE)
	ne.PutUint32(b[12:], uint32(os.Getpid()))
	ne.PutUint32(b[16:], cnIdxProc)
	ne.PutUint32(b[20:], cnValProc)
	ne.PutUint16(b[32:], 4)
	ne.PutUint32(b[36:], listen)
	if err := unix.Sendto(s, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("send", err)
	}
	for answer := make([]byte, 4096); ; {
		n, _, err := unix.Recvfrom(s, answer, 0)
		if err != nil {
			return os.NewSyscallError("receive", err)
		}
		const what, status = 16 + 20, 16 + 20 + 16 // of struct proc_event
		if n >= status+4 && ne.Uint32(answer[what:]) == 0 {
			if e := ne.Uint32(answer[status:]); e != 0 {
				return unix.Errno(e)
			}
			return nil
		}
	}
}

// loadBPF loads a program that returns 0, and lets it run at a tracepoint.
func loadBPF(kind uint32, tracepoint string) error {
	code := []byte{0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0} // r0 = 0; exit
	license := []byte("GPL\x00")
	attr := struct {
		kind, count   uint32
		code, license uint64
		rest          [96]byte
	}{kind: kind, count: 2, code: address(code), license: address(license)}
	prog, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	if errno != 0 {
		return os.NewSyscallError("load", errno)
	}
	defer unix.Close(int(prog))
	if tracepoint == "" {
		return nil
	}
	name := []byte(tracepoint + "\x00")
	at := struct {
		name uint64
		fd   uint32
		_    uint32
	}{name: address(name), fd: uint32(prog)}
	link, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_RAW_TRACEPOINT_OPEN, uintptr(unsafe.Pointer(&at)), unsafe.Sizeof(at))
	runtime.KeepAlive(name)
	if errno != 0 {
		return os.NewSyscallError("attach", errno)
	}
	return unix.Close(int(link))
}

func ringBuffer() error {
	attr := struct{ kind, key, value, entries, flags uint32 }{kind: unix.BPF_MAP_TYPE_RINGBUF, entries: 64 << 10}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return os.NewSyscallError("make", errno)
	}
	return unix.Close(int(fd))
}

func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&b[0]))) }
