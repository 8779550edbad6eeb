package reaper

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	const rest = " S 7 8 9 0 -1 4194368 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0"
	for _, name := range []string{"(sh)", "(a b)", "()", "(((", "(a) R 1 2 3)", "()))", "(\n)", "(x) Z 1)"} {
		if !strings.HasSuffix(name, ")") {
			name += ")"
		}
		s, err := parseStat(5, []byte("5 "+name+rest))
		want := stat{Proc: Proc{5, 12345}, ppid: 7, pgrp: 8, session: 9, unborn: true}
		if err != nil || s != want {
			t.Errorf("parseStat(%q) = %+v, %v, want %+v", name, s, err, want)
		}
	}
	for _, bad := range []string{"", ")", "5 (sh)", "5 (sh) S 7 8 9", "5 (sh" + rest, "5 (sh) S x 8 9 0 -1 0 1 0 0 0 0 0 0 0 20 0 1 0 12345", "5 (sh) S 7 8 9 0 -1 0 1 0 0 0 0 0 0 0 20 0 1 0 -1"} {
		if s, err := parseStat(5, []byte(bad)); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", bad, s)
		}
	}
	if s, err := readStat(os.Getpid()); err != nil || s.ppid != os.Getppid() || s.pgrp != unix.Getpgrp() || s.unborn {
		t.Errorf("readStat of us = %+v, %v", s, err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("5 (sh) S 7 8 9 0 -1 4194368 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0"))
	f.Add([]byte("5 (a) b) Z 7 8 9 0 -1 0 1 0 0 0 0 0 0 0 20 0 1 0 18446744073709551615"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(1, b); err == nil && s.PID != 1 {
			t.Errorf("parseStat(%q) = %+v", b, s)
		}
	})
}

// TestTree has a run with every kind of descendant, and another run beside it.
func TestTree(t *testing.T) {
	if !rerun(t, nil) {
		return
	}
	b := newBench(t, Options{Subreaper: true})
	r, w := pipe(t)
	begin := func(token, script string) uint64 {
		s := spec("/bin/sh", "-c", script)
		s.Env = append(s.Env, RunVariable+"="+token)
		s.Files[1] = int(w.Fd())
		return b.start(s)
	}
	// Each says its number; "exec sleep" keeps it.
	const say = `sh -c 'echo $$; exec sleep 1000'`
	run := begin("mine", `echo $$
		`+say+` & # a child
		setsid `+say+` & # in a session of its own
		(setsid `+say+` &) # and orphaned
		(env -i `+say+` &) # orphaned with nothing in its environment, in the session
		env -i PATH=$PATH setsid `+say+` & # below the leader alone
		`+RunVariable+`=inner setsid `+say+` & # of a supervisor below us
		wait`)
	leader := b.up(run)
	want := numbers(t, r, 7)
	other := begin("other", `echo $$; (env -i `+say+` &) ; exec sleep 1000`)
	otherLeader := b.up(other)
	foreign := numbers(t, r, 2)

	if got := pids(Tree(leader, "mine")); !slices.Equal(got, want) {
		t.Errorf("Tree(%d, mine) = %v, want %v", leader, got, want)
	}
	if got := pids(Tree(otherLeader, "other")); !slices.Equal(got, foreign) {
		t.Errorf("Tree(its leader, other) = %v, want %v", got, foreign)
	}
	still := func(pid int, start uint64) bool {
		return StillOf([]Proc{{PID: pid, Start: start}}, leader, "mine")(pid)
	}
	const justNow, longAgo = 1 << 60, 0
	for _, pid := range want {
		if !still(pid, justNow) {
			t.Errorf("StillOf(%d, %d, mine) = false, want true", pid, leader)
		}
	}
	for _, pid := range foreign {
		if still(pid, justNow) || !still(pid, longAgo) {
			t.Errorf("StillOf(%d of another run, %d, mine) = %v when it is young and %v when not, want false and true", pid, leader, still(pid, justNow), still(pid, longAgo))
		}
	}
	// A number that somebody else has by now is no leader.
	if got := pids(Tree(otherLeader, "gone")); len(got) != 0 {
		t.Errorf("Tree of a number given away = %v, want none", got)
	}

	// The leader dies first; what is left is known all the same, but for what had
	// only it: the cleared one that was in no session of ours.
	if err := b.Signal(run, unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	b.down(run)
	left := Tree(leader, "mine")
	if len(left) != len(want)-3 {
		t.Errorf("Tree without the leader = %v of %v, want all but the leader, the cleared and the inner session", pids(left), want)
	}
	if !b.Adopted() {
		t.Error("Adopted() = false with orphans, want true")
	}
	if err := SignalProcs(left, unix.SIGKILL, func(int) bool { return false }); err != nil || len(Tree(leader, "mine")) != len(left) {
		t.Errorf("SignalProcs with nothing to keep: %v, left %v, want %v", err, Tree(leader, "mine"), left)
	}
	wrong := slices.Clone(left)
	for i := range wrong {
		wrong[i].Start++
	}
	if err := SignalProcs(wrong, unix.SIGKILL, nil); err != nil || len(Tree(leader, "mine")) != len(left) {
		t.Errorf("SignalProcs with other start times: %v, left %v, want %v", err, Tree(leader, "mine"), left)
	}
	for _, pid := range want {
		if pid != leader {
			_ = SignalProcs([]Proc{{PID: pid}}, unix.SIGKILL, nil)
		}
	}
	for range len(want) - 1 {
		b.next(func(e Event) bool { return e.Kind == Orphan })
	}
	if got := Tree(leader, "mine"); len(got) != 0 {
		t.Errorf("Tree after the kill = %v, want none", got)
	}
	if err := SignalProcs(left, unix.SIGKILL, nil); err != nil {
		t.Errorf("SignalProcs of the dead = %v", err)
	}
	if got := pids(Tree(otherLeader, "other")); !slices.Equal(got, foreign) {
		t.Errorf("the other run = %v, want %v", got, foreign)
	}
	_ = SignalProcs(Tree(otherLeader, "other"), unix.SIGKILL, nil)
	b.down(other)
	b.next(func(e Event) bool { return e.Kind == Orphan })
	if b.Adopted() {
		t.Error("Adopted() = true with no child, want false")
	}
	if b.Orphans() != 7 {
		t.Errorf("Orphans() = %d, want 7", b.Orphans())
	}
}

func pids(procs []Proc) []int {
	var out []int
	for _, p := range procs {
		out = append(out, p.PID)
	}
	slices.Sort(out)
	return out
}

// numbers reads n lines, a number each.
func numbers(t *testing.T, r *os.File, n int) []int {
	t.Helper()
	var out []int
	line := ""
	for buf := make([]byte, 1); len(out) < n; {
		if _, err := r.Read(buf); err != nil {
			t.Fatal(err)
		}
		if buf[0] != '\n' {
			line += string(buf)
			continue
		}
		pid, err := strconv.Atoi(line)
		if err != nil {
			t.Fatal(err)
		}
		out, line = append(out, pid), ""
	}
	slices.Sort(out)
	return out
}

func TestAdoptedOnlyRuns(t *testing.T) {
	b := newBench(t, Options{})
	var runs []uint64
	for range 800 { // the kernel's list is longer than one read
		runs = append(runs, b.start(spec("/bin/sleep", "1000")))
	}
	for _, run := range runs {
		b.up(run)
	}
	if b.Adopted() {
		t.Error("Adopted() = true with 800 runs and nothing else, want false")
	}
	for _, run := range runs {
		if err := b.Signal(run, unix.SIGKILL, false); err != nil {
			t.Error(err)
		}
	}
	for _, run := range runs {
		b.down(run)
	}
}

// TestTreeExec: a process is found in the middle of executing something, too, when
// it has no environment for a moment.
func TestTreeExec(t *testing.T) {
	if !rerun(t, nil) {
		return
	}
	dir := t.TempDir()
	script, stop := filepath.Join(dir, "script"), filepath.Join(dir, "stop")
	if err := os.WriteFile(script, []byte(`[ "$1" ] || echo $$
[ -e `+stop+` ] || exec sh "$0" again
`), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, Options{Subreaper: true})
	r, w := pipe(t)
	s := spec("/bin/sh", "-c", "setsid sh "+script+" &")
	s.Env, s.Files[1] = append(s.Env, RunVariable+"=mine"), int(w.Fd())
	b.run(s)
	pid := numbers(t, r, 1)[0]
	for range 1000 {
		if procs := Tree(0, "mine"); len(procs) != 1 || procs[0].PID != pid {
			t.Errorf("Tree = %v, want %d", procs, pid)
			break
		}
	}
	if err := os.WriteFile(stop, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.next(func(e Event) bool { return e.Kind == Orphan && e.PID == pid })
	b.Close()
}
