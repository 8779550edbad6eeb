//go:build !nobpf

package ebpf

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

//go:embed deaths.o
var object []byte

// optional are the programs that are done without, and what they give.
var optional = map[string]string{
	"on_coredump":   "the begin of a core",
	"on_group_exit": "an exit before its memory is freed",
}

// Load puts the programs into the kernel, to watch the processes below pid, and
// sends what is needed to read what they tell, or why it cannot be done, through
// socket. It is for a process of its own, a child of pid in the same PID
// namespace, which then ends: the programs stay for as long as [Watch] is open.
func Load(socket, pid int) error {
	l := loader{}
	defer l.close()
	err := l.load(uint32(pid))
	if err != nil {
		l = loader{lines: []string{lineError + oneLine(err)}}
	}
	var rights []byte
	if len(l.fds) > 0 {
		rights = unix.UnixRights(l.fds...)
	}
	if sent := unix.Sendmsg(socket, []byte(strings.Join(l.lines, "\n")+"\n"), rights, nil, 0); sent != nil {
		return errors.Join(err, fmt.Errorf("answer: %w", sent))
	}
	return err
}

// oneLine is the error without what the verifier has to say on the way to it.
func oneLine(err error) string {
	text := err.Error()
	if v := (*cilium.VerifierError)(nil); errors.As(err, &v) && len(v.Log) > 0 {
		text = fmt.Sprintf("%v: %s", v.Cause, v.Log[len(v.Log)-1])
	}
	return strings.ReplaceAll(text, "\n", " ")
}

// A loader collects what is sent. The descriptors belong to what it keeps open.
type loader struct {
	lines []string
	fds   []int
	open  []io.Closer
}

func (l *loader) close() {
	for _, c := range slices.Backward(l.open) {
		_ = c.Close()
	}
}

func (l *loader) load(pid uint32) error {
	spec, err := cilium.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return fmt.Errorf("read the programs: %w", err)
	}
	if err := spec.Variables["own_pid"].Set(pid); err != nil {
		return fmt.Errorf("set pid: %w", err)
	}
	// Before Linux 5.11 maps count as locked memory. Where the limit cannot be
	// raised, it may be enough as it is.
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})

	needed := spec.Copy()
	maps.DeleteFunc(needed.Programs, func(name string, _ *cilium.ProgramSpec) bool { return optional[name] != "" })
	all, err := l.collect(needed, nil)
	if err != nil {
		return err
	}
	for name, gives := range optional {
		one := spec.Copy()
		maps.DeleteFunc(one.Programs, func(other string, _ *cilium.ProgramSpec) bool { return other != name })
		if _, err := l.collect(one, all.Maps); err != nil {
			l.lines = append(l.lines, lineWithout+gives+": "+oneLine(err))
		}
	}
	if err := l.seed(all); err != nil {
		return fmt.Errorf("find the processes that are there: %w", err)
	}
	ring := all.Maps["records"]
	l.give(fmt.Sprint(lineRing, ring.MaxEntries()), ring.FD())
	l.give(lineCounts, all.Maps["counters"].FD())
	return nil
}

// collect loads and attaches programs, which use these maps or make their own.
func (l *loader) collect(spec *cilium.CollectionSpec, shared map[string]*cilium.Map) (*cilium.Collection, error) {
	all, err := cilium.NewCollectionWithOptions(spec, cilium.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	for _, m := range all.Maps {
		l.open = append(l.open, m)
	}
	for name, p := range all.Programs {
		l.open = append(l.open, p)
		section := spec.Programs[name].SectionName
		event, tracepoint := strings.CutPrefix(section, "raw_tp/")
		if !tracepoint {
			event = "" // it is in the program
		}
		if tracepoint || strings.HasPrefix(section, "fentry/") {
			if err := l.attach(event, p); err != nil {
				return nil, fmt.Errorf("attach to %s: %w", section, err)
			}
		}
	}
	return all, nil
}

func (l *loader) give(line string, fd int) {
	l.lines = append(l.lines, line)
	l.fds = append(l.fds, fd)
}

// attach has a tracepoint, or what the program itself names, call the program
// until the descriptor that is sent is closed.
func (l *loader) attach(event string, p *cilium.Program) error {
	name := append([]byte(event), 0)
	attr := struct {
		name uint64
		prog uint32
		_    uint32
	}{prog: uint32(p.FD())}
	if event != "" {
		attr.name = uint64(uintptr(unsafe.Pointer(&name[0])))
	}
	fd, err := bpf(unix.BPF_RAW_TRACEPOINT_OPEN, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(name)
	if err != nil {
		return err
	}
	l.open = append(l.open, os.NewFile(uintptr(fd), event))
	l.give(lineHeld, fd)
	return nil
}

// seed has the kernel look at all tasks until it finds no more that are below
// the one that watches.
func (l *loader) seed(all *cilium.Collection) error {
	create := struct{ prog, target, kind, flags uint32 }{uint32(all.Programs["on_task"].FD()), 0, unix.BPF_TRACE_ITER, 0}
	link, err := bpf(unix.BPF_LINK_CREATE, unsafe.Pointer(&create), unsafe.Sizeof(create))
	if err != nil {
		return err
	}
	defer unix.Close(link)
	for range maxDepth {
		before := count(all.Maps["counters"].FD(), countFound)
		if err := look(link); err != nil {
			return err
		}
		if count(all.Maps["counters"].FD(), countFound) == before {
			return nil
		}
	}
	return nil
}

// look reads an iterator to its end.
func look(link int) error {
	create := struct{ link, flags uint32 }{link: uint32(link)}
	fd, err := bpf(unix.BPF_ITER_CREATE, unsafe.Pointer(&create), unsafe.Sizeof(create))
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "iterator")
	_, err = io.Copy(io.Discard, f)
	return errors.Join(err, f.Close())
}

// maxDepth is how deep a tree of processes is looked into.
const maxDepth = 100
