package procconn

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A world is a table of process 100, with a /proc that the test fills.
type world struct {
	table
	t    *testing.T
	proc map[int32]stat
	told []string
	at   uint64
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, proc: map[int32]stat{}}
	w.table = table{
		self: 100, uid: 1, comm: "init", of: map[int32]*process{},
		stat:   func(pid int32) (s stat, ok bool) { s, ok = w.proc[pid]; return s, ok },
		nameOf: func(pid int32) string { return w.proc[pid].comm },
		userOf: func(int32) uint32 { return 5 },
		offset: func() uint64 { return 0 },
		emit: func(k Kind, p *process, e event) {
			r := p.record(k, e, clock{})
			w.told = append(w.told, fmt.Sprintf("%d %d of %d/%d status %#x parent %d", k, r.PID, r.Leader, r.Run, uint32(r.Status), r.Parent))
		},
	}
	return w
}

func (w *world) event(what uint32, pid, tgid, parent int32, code uint32) {
	w.at++
	w.follow(&event{what: what, at: w.at, pid: pid, tgid: tgid, parent: parent, code: code})
}
func (w *world) forks(parent, pid int32)            { w.event(whatFork, pid, pid, parent, 0) }
func (w *world) thread(tgid, pid int32)             { w.event(whatFork, pid, tgid, 100, 0) }
func (w *world) exec(pid int32)                     { w.event(whatExec, pid, pid, 0, 0) }
func (w *world) exits(pid, tgid int32, code uint32) { w.event(whatExit, pid, tgid, 100, code) }

// want compares what was told.
func (w *world) want(lines ...string) {
	w.t.Helper()
	if !slices.Equal(w.told, lines) {
		w.t.Errorf("told\n%q, want\n%q", w.told, lines)
	}
	w.told = nil
}

func (w *world) left(pids ...int32) {
	w.t.Helper()
	var have []int32
	for pid, p := range w.of {
		have = append(have, pid)
		if p.pid != pid {
			w.t.Errorf("%d is %+v", pid, p)
		}
	}
	slices.Sort(have)
	if !slices.Equal(have, pids) {
		w.t.Errorf("followed are %v, want %v", have, pids)
	}
}

func TestFollow(t *testing.T) {
	w := newWorld(t)
	w.forks(100, 200)
	w.forks(200, 201)
	w.forks(201, 202)
	w.forks(50, 51) // of somebody else
	w.exits(51, 51, 0)
	w.event(whatExit, 60, 60, 50, 0)
	w.exits(201, 201, 0x100)
	w.event(whatCoredump, 202, 202, 100, 0)
	w.exits(202, 202, 0x8b)
	w.want("1 200 of 200/1 status 0x0 parent 100", "3 51 of 51/0 status 0x0 parent 100",
		"3 201 of 200/1 status 0x100 parent 100", "2 202 of 200/1 status 0x0 parent 201", "3 202 of 200/1 status 0x8b parent 100")
	w.left(200)
}

// TestEnds: the last thread's end is the process's, and what it left is what waitpid(2)
// would say.
func TestEnds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		codes []uint32 // of threads 200, 201, ... in this order
		order []int32
		want  uint32
	}{
		{"group", []uint32{0x700, 0x700, 0x700}, []int32{201, 200, 202}, 0x700},
		{"the first thread before", []uint32{0, 0x700, 0x700}, []int32{200, 202, 201}, 0x700},
		{"a thread ends by itself, late", []uint32{0x700, 0, 0}, []int32{200, 201, 202}, 0x700},
		{"a signal", []uint32{9, 9, 0}, []int32{201, 200, 202}, 9},
		{"a core, written by another", []uint32{11, 0x8b, 11}, []int32{201, 200, 202}, 0x8b},
		{"all by themselves", []uint32{0, 0, 0}, []int32{200, 201, 202}, 0},
	} {
		w := newWorld(t)
		w.t = t
		w.forks(100, 200)
		w.thread(200, 201)
		w.thread(200, 202)
		w.told = nil
		for i, tid := range tt.order {
			if w.proc[200] = (stat{pid: 200, ppid: 100, state: 'S', threads: 3}); i == 2 {
				w.proc[200] = stat{pid: 200, ppid: 100, state: 'Z', threads: 1}
			}
			w.want()
			w.exits(tid, 200, tt.codes[tid-200])
		}
		if t.Run(tt.name, func(t *testing.T) {
			w.t = t
			w.want(fmt.Sprintf("3 200 of 200/1 status %#x parent 100", tt.want))
			w.left()
		}); t.Failed() {
			return
		}
	}
}

// TestExecByThread: the end of the first thread by an exec is told before it or after.
func TestExecByThread(t *testing.T) {
	for _, late := range []bool{false, true} {
		w := newWorld(t)
		w.forks(100, 200)
		w.thread(200, 201)
		w.proc[200] = stat{pid: 200, ppid: 100, state: 'S', threads: 1, comm: "new"}
		w.told = nil
		if late {
			w.exec(200)
			w.exits(200, 200, 0)
		} else {
			w.exits(200, 200, 0)
			w.exec(200)
		}
		w.want()
		w.left(200)
		w.proc[200] = stat{pid: 200, ppid: 100, state: 'Z', threads: 1, comm: "new"}
		w.exits(200, 200, 0x300)
		w.want("3 200 of 200/1 status 0x300 parent 100")
		w.left()
	}
}

// TestReuse: a number that is another's now.
func TestReuse(t *testing.T) {
	w := newWorld(t)
	w.forks(100, 200)
	w.forks(200, 201)
	w.told = nil
	w.forks(50, 201) // a stranger: the end of ours was lost
	w.left(200)
	w.forks(100, 200) // ours: the end of the one before comes late
	w.want("1 200 of 200/4 status 0x0 parent 100")
	w.proc[200] = stat{pid: 200, ppid: 100, state: 'R', threads: 1}
	w.exits(200, 200, 0x900)
	w.want()
	w.left(200)
	if w.lost != 2 {
		t.Errorf("%d lost, want 2", w.lost)
	}
	// After a gap: /proc has a younger one.
	w.resync(map[int32]stat{200: {pid: 200, ppid: 50, state: 'R', threads: 1, start: 5 * userTick}, 50: {pid: 50, ppid: 1, state: 'S', threads: 1}})
	w.left()
	if w.lost != 3 {
		t.Errorf("%d lost, want 3", w.lost)
	}
}

// TestResync: what was lost is found by /proc, and no status is made up.
func TestResync(t *testing.T) {
	w := newWorld(t)
	w.forks(100, 200)
	w.forks(200, 201)
	w.forks(200, 202)
	w.told = nil
	all := map[int32]stat{
		1: {pid: 1, state: 'S', threads: 1}, 100: {pid: 100, ppid: 1, state: 'S', threads: 1},
		200: {pid: 200, ppid: 100, state: 'S', threads: 3}, 202: {pid: 202, ppid: 200, state: 'Z', threads: 1},
		203: {pid: 203, ppid: 200, state: 'S', threads: 1}, 204: {pid: 204, ppid: 203, state: 'S', threads: 1},
		210: {pid: 210, ppid: 100, state: 'S', threads: 1}, 211: {pid: 211, ppid: 210, state: 'Z', threads: 1}, 212: {pid: 212, ppid: 211, state: 'S', threads: 1},
		300: {pid: 300, ppid: 1, state: 'S', threads: 1}, 301: {pid: 301, ppid: 301, state: 'S', threads: 1},
	}
	w.resync(all)
	w.left(200, 201, 202, 203, 204, 210, 212)
	for pid, leader := range map[int32]int32{204: 200, 212: 210} {
		if w.of[pid].leader != leader || (w.of[pid].run != 0) != (leader == 200) {
			t.Errorf("%+v", w.of[pid])
		}
	}
	// The message of 202's end is on its way, that of 201's is lost.
	w.proc = all
	w.exits(202, 202, 0x100)
	w.want("3 202 of 200/1 status 0x100 parent 100")
	w.forks(100, 210) // on its way, too
	w.want("1 210 of 210/5 status 0x0 parent 100")
	w.audit(w.stat)
	w.want()
	w.left(200, 203, 204, 210, 212)
	if w.lost != 1 {
		t.Errorf("%d lost, want 1", w.lost)
	}
}

// TestBomb: there is an end to what is followed.
func TestBomb(t *testing.T) {
	w := newWorld(t)
	w.forks(100, 200)
	for pid := int32(1000); pid < 1000+2*maxFollowed; pid++ {
		w.forks(200, pid)
	}
	if len(w.of) != maxFollowed || w.untracked != maxFollowed+1 {
		t.Errorf("%d followed, %d not", len(w.of), w.untracked)
	}
	for pid := range w.of {
		if pid != 200 {
			w.exits(pid, pid, 9)
		}
	}
	w.told = nil
	w.proc[200] = stat{pid: 200, ppid: 100, state: 'S', threads: 1}
	w.audit(w.stat)
	w.left(200)
	if w.peak != 1 {
		t.Errorf("room for %d", w.peak)
	}
}

// TestOrder: nothing wrong is told when what one processor says comes before what
// another has said earlier.
func TestOrder(t *testing.T) {
	w := newWorld(t)
	w.forks(100, 200)
	w.told = nil
	w.event(whatExit, 201, 201, 200, 0x300) // before its fork
	w.want("3 201 of 200/1 status 0x300 parent 200")
	w.forks(200, 201)
	w.forks(202, 203) // before its parent's
	w.forks(200, 202)
	w.event(whatExit, 203, 203, 202, 0x400)
	w.want("3 203 of 200/1 status 0x400 parent 202")
	w.proc = map[int32]stat{200: {pid: 200, ppid: 100, state: 'S', threads: 1}, 202: {pid: 202, ppid: 200, state: 'S', threads: 1}}
	w.audit(w.stat)
	w.audit(w.stat)
	w.want()
	w.left(200, 202)
}

// FuzzFollow: no order of events breaks the table.
func FuzzFollow(f *testing.F) {
	f.Add([]byte{0, 1, 100, 0, 1, 2, 9, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWorld(t)
		whats := []uint32{whatFork, whatExec, whatUID, whatComm, whatCoredump, whatExit, whatNone, 0x100}
		for len(b) >= 4 {
			pid := func(n byte) int32 { return int32(n%16) + 96 }
			w.proc[pid(b[3])] = stat{pid: pid(b[3]), ppid: pid(b[2]), state: "SZR"[b[1]%3], threads: int32(b[0] % 3), start: uint64(b[1]) * userTick}
			w.event(whats[b[0]%8], pid(b[1]), pid(b[2]), pid(b[3]), uint32(b[1]))
			if b[0] > 250 {
				w.resync(w.proc)
			}
			if b[0]%16 == 15 {
				w.audit(w.stat)
				delete(w.proc, pid(b[1]))
			}
			b = b[4:]
		}
		for pid, p := range w.of {
			if p.pid != pid || p.leader == 0 {
				t.Errorf("%d: %+v", pid, p)
			}
		}
	})
}

// TestGaps: the numbers count each processor's events.
func TestGaps(t *testing.T) {
	l := &Listener{}
	for _, tt := range []struct {
		cpu, seq uint32
		gap      bool
	}{
		{0, 7, false}, {3, 0, false}, {0, 8, false}, {3, 1, false}, {3, 3, true}, {3, 4, false}, {0, 9, false},
		{1, 1<<32 - 2, false}, {1, 1<<32 - 1, false}, {1, 0, false}, {1, 1, false}, {1 << 31, 5, false},
	} {
		l.hole = false
		if l.count(&event{cpu: tt.cpu, seq: tt.seq}); l.hole != tt.gap {
			t.Errorf("%+v", tt)
		}
	}
}

// TestOthers: only the kernel is believed, and an event of somebody else costs nothing.
func TestOthers(t *testing.T) {
	l := &Listener{}
	l.table = newWorld(t).table
	l.from.Family = unix.AF_NETLINK
	l.from.Pid = 4711
	fork := message(whatFork, 0, 0, 1, 100, 100, 200, 200)
	l.datagram(fork, l.table.follow)
	if len(l.table.of) > 0 || l.refused.Load() != 1 {
		t.Error("a message of a process was believed")
	}
	l.from.Pid = 0
	l.datagram(fork, l.table.follow)
	if len(l.table.of) != 1 {
		t.Error("a message of the kernel was not believed")
	}
	others := [][]byte{message(whatFork, 0, 1, 1, 50, 50, 51, 51), message(whatExec, 0, 2, 1, 51, 51), message(whatExit, 0, 3, 1, 51, 51, 0, 17, 50, 50)}
	follow := l.table.follow
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range others {
			l.datagram(b, follow)
		}
	}); n > 0 {
		t.Errorf("%v allocations for the events of others", n)
	}
}

// BenchmarkForeign is what a message about somebody else's process costs.
func BenchmarkForeign(b *testing.B) {
	l := &Listener{filtered: true}
	l.table = newWorld(nil).table
	l.from.Family = unix.AF_NETLINK
	for pid := range int32(100) {
		l.table.of[pid+1000] = &process{pid: pid + 1000}
	}
	msgs := [][]byte{message(whatFork, 0, 1, 1, 50, 50, 51, 51), message(whatExec, 0, 2, 1, 51, 51), message(whatExit, 0, 3, 1, 51, 51, 0, 17, 50, 50)}
	follow := l.table.follow
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.datagram(msgs[i%3], follow)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkOurs is what a process of ours costs: fork, exec and exit, without /proc.
func BenchmarkOurs(b *testing.B) {
	l := &Listener{filtered: true, opt: Options{limit: keepRecords}, ready: make(chan struct{}, 1)}
	l.table = newWorld(nil).table
	l.table.emit = l.emit
	l.from.Family = unix.AF_NETLINK
	msgs := [][]byte{message(whatFork, 0, 1, 1, 100, 100, 51, 51), message(whatExec, 0, 2, 1, 51, 51), message(whatExit, 0, 3, 1, 51, 51, 0, 17, 100, 100)}
	follow := l.table.follow
	var buf []Record
	b.ReportAllocs()
	for b.Loop() {
		for _, m := range msgs {
			l.datagram(m, follow)
		}
		buf = l.Records(buf)
	}
}

// BenchmarkSocket reads what the kernel has made of others' forks: ns for a message,
// with the system call.
func BenchmarkSocket(b *testing.B) {
	l, err := Open(Options{})
	need(b, err)
	defer l.Close()
	fd, err := subscribe(defaultBuffer)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	r := &Listener{filtered: true}
	r.table = newWorld(nil).table
	n := 0
	for b.Loop() {
		b.StopTimer()
		if err := sh("for i in 1 2 3 4 5 6 7 8 9 10; do (:); done").Run(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := r.drain(fd, func(e *event) { n++; r.table.follow(e) }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(max(n, 1)), "ns/message")
}
