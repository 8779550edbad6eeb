package procconn

import (
	"bytes"
	"maps"
	"strings"

	"golang.org/x/sys/unix"
)

// A process is one that descends from ours.
type process struct {
	pid, parent int32
	leader      int32  // the child of ours that it descends from, or is
	run         uint64 // when that was forked, 0 if unknown
	forked      uint64 // ns of CLOCK_MONOTONIC, 0 if unknown
	born        uint64 // ns of CLOCK_BOOTTIME, not too early
	uid         uint32
	comm        string

	threads  int32  // that have not ended
	status   uint32 // by the threads that have
	threaded bool   // it had more than one
	unsure   bool   // threads is not known: /proc has to be asked
	left     bool   // its first thread has ended
	executed bool
	core     bool
	missing  bool // /proc did not have it when it was asked
}

// ended takes down what one thread left. A signal ends all threads, and a number
// that is not 0 is that of exit_group(2): pthread_exit(3) leaves 0. The one that
// wrote the core has its flag alone.
func (p *process) ended(code uint32) {
	core := (code | p.status) & coreFlag
	switch {
	case code&0x7f != 0:
		p.status = code | core
	case p.status&0x7f == 0 && code != 0:
		p.status = code
	}
}

const coreFlag = 0x80

// maxFollowed is how many processes are followed at most. Who forks more is a bomb,
// and would cost our own memory.
const (
	maxFollowed   = 1 << 16
	keepProcesses = 1024 // a larger table is made smaller again
)

// A table follows the processes below self. It is one goroutine's.
type table struct {
	self int32
	uid  uint32 // our own
	comm string
	of   map[int32]*process
	peak int // the most in of

	emit   func(Kind, *process, event)
	stat   func(pid int32) (stat, bool) // of /proc, as the next two
	nameOf func(pid int32) string
	userOf func(pid int32) uint32
	offset func() uint64 // from CLOCK_MONOTONIC to CLOCK_BOOTTIME

	lost      uint64 // processes that ended unseen
	untracked uint64 // processes that found the table full
}

// follow takes one event. Those of other processes cost one or two looks into the
// table.
func (t *table) follow(e *event) {
	if e.what == whatFork {
		t.fork(e)
		return
	}
	p := t.of[e.tgid]
	if p == nil {
		if e.what != whatExit || e.parent == 0 || e.pid != e.tgid {
			return
		}
		if p = t.found(e.tgid, e.parent); p == nil {
			return
		}
	}
	p.missing = false
	switch e.what {
	case whatExec:
		// The other threads are gone, although the kernel may tell of it later; the one
		// that executed has the first one's number.
		p.threaded = p.threaded || p.unsure
		p.threads, p.status, p.unsure, p.left, p.core, p.executed = 1, 0, false, false, false, true
		p.comm = t.nameOf(p.pid) // the event has none
	case whatUID:
		if e.pid == e.tgid {
			p.uid = e.uid
		}
	case whatComm:
		if e.pid == e.tgid {
			p.comm = text(e.comm[:])
		}
	case whatCoredump:
		p.core = true
		t.emit(Core, p, *e)
	case whatExit:
		t.exit(p, e)
	}
}

func (t *table) fork(e *event) {
	if e.pid != e.tgid { // a thread, with the parent of its process
		if p := t.of[e.tgid]; p != nil {
			p.threads++
			p.threaded = true
		}
		return
	}
	p, parent := t.of[e.tgid], t.of[e.parent]
	ours := parent != nil || e.parent == t.self
	// One whose begin was not seen was found in /proc before this message was read.
	// Otherwise this is another one with its number, and its end was not seen, or not yet.
	again := p != nil && (p.forked != 0 || !ours)
	if again {
		t.lost++
		delete(t.of, e.tgid)
		p = nil
	}
	if !ours {
		return
	}
	if p == nil {
		p = &process{pid: e.tgid, threads: 1, threaded: again, uid: t.uid, comm: t.comm}
		if !t.add(p) {
			return
		}
		if parent != nil {
			p.uid, p.comm = parent.uid, parent.comm
		}
	}
	p.parent, p.forked, p.born, p.missing = e.parent, e.at, e.at+t.offset(), false
	if parent != nil {
		p.leader, p.run = parent.leader, parent.run
		return
	}
	p.leader, p.run = p.pid, e.at
	t.emit(Began, p, *e)
}

// found adds a process whose begin was not seen, if it is one of ours; p is nil
// otherwise. It is known by its parent alone: of an orphan that is we ourselves.
func (t *table) found(pid, parent int32) (p *process) {
	of := t.of[parent]
	if of == nil && parent != t.self {
		return nil
	}
	p = &process{pid: pid, parent: parent, leader: pid, threads: 1, unsure: true}
	if !t.add(p) {
		return nil
	}
	if of != nil {
		p.leader, p.run = of.leader, of.run
	}
	p.uid = t.userOf(pid)
	if s, ok := t.stat(pid); ok {
		p.comm, p.born = s.comm, s.start
	}
	return p
}

// add begins to follow p, unless there are too many.
func (t *table) add(p *process) bool {
	if len(t.of) >= maxFollowed {
		t.untracked++
		return false
	}
	t.of[p.pid] = p
	t.peak = max(t.peak, len(t.of))
	return true
}

// shrink gives back the room of many that are gone, which a map keeps.
func (t *table) shrink() {
	if t.peak > keepProcesses && len(t.of) < t.peak/4 {
		of := make(map[int32]*process, len(t.of))
		maps.Copy(of, t.of)
		t.of, t.peak = of, len(of)
	}
}

// exit takes down that a thread has ended. The process has with the last one.
func (t *table) exit(p *process, e *event) {
	p.ended(e.code)
	p.threads--
	p.left = p.left || e.pid == e.tgid
	switch {
	case p.unsure:
		// Only the first thread stays in /proc until all have ended.
		if !p.left {
			return
		}
		if s, ok := t.alive(p); ok && (!s.over() || s.threads > 1) {
			return
		}
	case p.threads > 0:
		return
	case p.threaded:
		// The end of a thread may be told after the exec that caused it. A first thread
		// that is no zombie has executed, and is the only one.
		if s, ok := t.alive(p); ok && !s.over() {
			p.unsure, p.left = true, false
			return
		}
	}
	if e.parent != 0 {
		p.parent = e.parent
	}
	delete(t.of, p.pid)
	t.emit(Ended, p, *e)
}

// alive reports what /proc says of p, if it is still there.
func (t *table) alive(p *process) (stat, bool) {
	s, ok := t.stat(p.pid)
	return s, ok && !p.other(s)
}

// other reports whether s is of a process that was begun after p, with its number.
func (p *process) other(s stat) bool { return p.born != 0 && s.start > p.born+userTick }

// audit compares the table with what /proc says. Who is not there, or is a zombie,
// has ended; the kernel tells of it a moment later. Who was missing before already
// is one whose message was lost.
func (t *table) audit(stat func(int32) (stat, bool)) {
	for pid, p := range t.of {
		s, ok := stat(pid)
		switch gone := !ok || p.other(s) || s.over() && s.threads <= 1; {
		case gone && p.missing:
			t.lost++
			delete(t.of, pid)
		case gone && ok && p.other(s): // its number is another's
			t.lost++
			delete(t.of, pid)
		default:
			p.missing = gone
		}
	}
	t.shrink()
}

// resync makes up for lost messages by what /proc says of all processes.
func (t *table) resync(all map[int32]stat) {
	t.audit(func(pid int32) (s stat, ok bool) { s, ok = all[pid]; return s, ok })
	for _, p := range t.of {
		p.unsure = true
		p.left = p.left || all[p.pid].over()
	}
	for pid, s := range all {
		if t.of[pid] != nil || pid == t.self || s.over() && s.threads <= 1 {
			continue
		}
		if leader, run, ok := t.lineage(s, all); ok {
			t.add(&process{pid: pid, parent: s.ppid, leader: leader, run: run, born: s.start,
				uid: t.userOf(pid), comm: s.comm, threads: s.threads, unsure: true, threaded: true, left: s.over()})
		}
	}
}

// lineage finds out whether a process descends from ours, by the parents that there
// are.
func (t *table) lineage(s stat, all map[int32]stat) (leader int32, run uint64, ok bool) {
	for range len(all) {
		if s.ppid == t.self {
			return s.pid, 0, true
		}
		if p := t.of[s.ppid]; p != nil {
			return p.leader, p.run, true
		}
		parent, ok := all[s.ppid]
		if !ok {
			return 0, 0, false
		}
		s = parent
	}
	return 0, 0, false
}

// record makes what is told of p.
func (p *process) record(k Kind, e event, c clock) Record {
	r := Record{
		Kind: k, At: c.time(e.at), PID: int(p.pid), Parent: int(p.parent), Thread: int(e.pid),
		Leader: int(p.leader), Run: p.run, Forked: c.time(p.forked),
		UID: p.uid, Comm: p.comm, Executed: p.executed, Core: p.core, Seeded: p.forked == 0,
	}
	if k == Ended {
		r.Status = unix.WaitStatus(p.status)
	}
	return r
}

// text is a comm, which may hold anything.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.ToValidUTF8(string(b), "?")
}
