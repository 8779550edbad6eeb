package lifecycle

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite testdata to what the code does now")

func TestNames(t *testing.T) {
	for s := range numStates {
		if s.String() == "" {
			t.Errorf("State(%d) has no name", s)
		}
	}
	for k := range numKinds {
		if k.String() == "" {
			t.Errorf("Kind(%d) has no name", k)
		}
	}
	for o := range numOps {
		if o.String() == "" {
			t.Errorf("Op(%d) has no name", o)
		}
	}
}

// TestScripts replays testdata/*.txt: one command a line, each followed by the
// "> " lines that it must print. No process is started and no time passes.
//
//	policy KEY=VALUE…    at the top: sets the policy
//	after 10s            moves the clock and sends a deadline event
//	start|stop|restart|spawned|spawn-failed|ended|gone [run=N] [code=N] [left] [kill] [within=2s]
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("Glob = %v, %v; want scripts", files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, want)
			if *update {
				if err := os.WriteFile(name, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func defaultPolicy() Policy {
	return Policy{
		HealthyAfter: 10 * time.Second, MaxRestarts: 5, Window: time.Minute, RetryAfter: 5 * time.Minute,
		SuccessCodes: []int{0}, Base: 100 * time.Millisecond, Max: 30 * time.Second, Factor: 4,
		Stop: []StopStep{{15, 10 * time.Second}},
	}
}

func replay(t *testing.T, script []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	in := &Instance{Policy: defaultPolicy()}
	now := time.Unix(0, 0)
	sc := bufio.NewScanner(bytes.NewReader(script))
	for sc.Scan() {
		line := sc.Text()
		if strings.HasPrefix(line, "> ") {
			continue
		}
		fmt.Fprintln(&out, line)
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		switch f[0] {
		case "policy":
			for _, kv := range f[1:] {
				setPolicy(t, &in.Policy, kv)
			}
			continue
		case "after":
			d, err := time.ParseDuration(f[1])
			if err != nil {
				t.Fatal(err)
			}
			now = now.Add(d)
			f = []string{"deadline"}
		}
		ev := Event{Kind: numKinds}
		for k := range numKinds {
			if k.String() == f[0] {
				ev.Kind = k
			}
		}
		if ev.Kind == numKinds {
			t.Fatalf("%q: no such event", line)
		}
		for _, a := range f[1:] {
			key, val, _ := strings.Cut(a, "=")
			n, _ := strconv.Atoi(val)
			switch key {
			case "run":
				ev.Run = uint64(n)
			case "code":
				ev.Code = n
			case "left":
				ev.Left = true
			case "kill":
				ev.Kill = true
			case "within":
				within, err := time.ParseDuration(val)
				if err != nil {
					t.Fatal(err)
				}
				ev.Within = within
			default:
				t.Fatalf("%q: %q is not known", line, a)
			}
		}
		acts := in.Step(now, ev)
		for _, a := range acts {
			fmt.Fprintf(&out, "> %s run=%d", a.Op, a.Run)
			switch a.Op {
			case OpSignal:
				fmt.Fprintf(&out, " %d to %s", a.Signal, a.Scope)
			case OpAnnounce:
				fmt.Fprintf(&out, " %s to %s", a.From, in.State())
				if a.Delay != 0 {
					fmt.Fprintf(&out, " for %s", a.Delay)
				}
			case OpNote:
				fmt.Fprintf(&out, " %s", a.Note)
			case OpSpawn, OpSweep, numOps:
			}
			fmt.Fprintln(&out)
		}
		if len(acts) == 0 {
			fmt.Fprintln(&out, "> nothing")
		}
	}
	return out.Bytes()
}

func setPolicy(t *testing.T, p *Policy, kv string) {
	t.Helper()
	key, val, _ := strings.Cut(kv, "=")
	d, _ := time.ParseDuration(val)
	n, _ := strconv.Atoi(val)
	switch key {
	case "restart":
		p.Restart = map[string]RestartPolicy{"always": Always, "on-failure": OnFailure, "never": Never}[val]
	case "max":
		p.MaxRestarts = n
	case "retry_after":
		p.RetryAfter = d
	case "retry_times":
		p.RetryTimes = n
	case "healthy":
		p.HealthyAfter = d
	case "stop_to":
		p.StopTo = map[string]Scope{"group": ToGroup, "leader": ToLeader, "tree": ToTree}[val]
	case "stop":
		p.Stop = nil
		for s := range strings.SplitSeq(val, ",") {
			sig, wait, _ := strings.Cut(s, ":")
			n, _ := strconv.Atoi(sig)
			d, err := time.ParseDuration(wait)
			if err != nil {
				t.Fatal(err)
			}
			p.Stop = append(p.Stop, StopStep{n, d})
		}
	default:
		t.Fatalf("no policy %q", key)
	}
}

// reach brings an instance into each state, by events alone.
var reach = [numStates][]Event{
	Stopped:  {},
	Starting: {{Kind: Start}},
	Running:  {{Kind: Start}, {Kind: Spawned, Run: 1}},
	Backoff:  {{Kind: Start}, {Kind: SpawnFailed, Run: 1, Code: 127}, {Kind: SpawnFailed, Run: 2, Code: 127}},
	Stopping: {{Kind: Start}, {Kind: Spawned, Run: 1}, {Kind: Stop}},
	Exited:   {{Kind: Start}, {Kind: Spawned, Run: 1}, {Kind: Ended, Run: 1}},
	Fatal:    {{Kind: Start}, {Kind: SpawnFailed, Run: 1, Code: 127}},
}

func at(t *testing.T, s State, now time.Time) *Instance {
	t.Helper()
	in := &Instance{Policy: defaultPolicy()}
	if s == Exited {
		in.Policy.Restart = Never
	}
	if s == Fatal {
		in.Policy.MaxRestarts = 1
	}
	for _, ev := range reach[s] {
		in.Step(now, ev)
	}
	if in.State() != s {
		t.Fatalf("reach[%s] leads to %s", s, in.State())
	}
	return in
}

// TestEveryEventInEveryState holds the rules that are true of all cells of the
// table: no unnamed state, an announcement for each change and for nothing
// else, a deadline just in the states that need one, and the operator's will.
func TestEveryEventInEveryState(t *testing.T) {
	now := time.Unix(1000, 0)
	for s := range numStates {
		for k := range numKinds {
			for _, left := range []bool{false, true} {
				in := at(t, s, now)
				run := in.Run()
				ev := Event{Kind: k, Left: left}
				if k >= Spawned && k != Deadline {
					ev.Run = run
				}
				later := now.Add(time.Hour)
				acts := in.Step(later, ev)
				name := fmt.Sprintf("%s in %s (left %v)", k, s, left)
				if in.State() >= numStates {
					t.Fatalf("%s: state %d", name, in.State())
				}
				announced := s
				for _, a := range acts {
					if a.Op == OpAnnounce {
						if a.From != announced {
							t.Errorf("%s: announced from %s, was %s", name, a.From, announced)
						}
						announced = in.State()
					}
					if a.Op == OpSpawn && a.Run <= run {
						t.Errorf("%s: spawned run %d after %d", name, a.Run, run)
					}
				}
				if announced != in.State() {
					t.Errorf("%s: %s was not announced", name, in.State())
				}
				armed := !in.Deadline().IsZero()
				switch in.State() {
				case Backoff, Stopping:
					if !armed {
						t.Errorf("%s: no deadline in %s", name, in.State())
					}
				case Stopped, Starting, Running, Exited:
					if armed {
						t.Errorf("%s: stray deadline in %s", name, in.State())
					}
				case Fatal, numStates:
				}
				switch k {
				case Start, Restart:
					if !in.Wanted() || in.Over() || in.State() == Stopped {
						t.Errorf("%s: ends in %s, want it to run", name, in.State())
					}
				case Stop:
					if in.Wanted() || in.State() != Stopped && in.State() != Stopping {
						t.Errorf("%s: ends in %s, want it stopped", name, in.State())
					}
				case Spawned, SpawnFailed, Ended, Gone, Deadline, numKinds:
				}
			}
		}
	}
}

func TestEarlierRunChangesNothing(t *testing.T) {
	now := time.Unix(1000, 0)
	for s := range numStates {
		for k := Spawned; k < Deadline; k++ {
			in := at(t, s, now)
			in.run += 5
			if acts := in.Step(now, Event{Kind: k, Run: in.run - 1}); acts != nil || in.State() != s {
				t.Errorf("%s of an earlier run in %s = %v, %s; want nothing", k, s, acts, in.State())
			}
		}
	}
}

// A run that left processes behind, and is started again by hand while these are
// killed, says who wanted that.
func TestStartNamesWhoAsked(t *testing.T) {
	in, now := &Instance{Policy: defaultPolicy()}, time.Now()
	in.Step(now, Event{Kind: Start})
	in.Step(now, Event{Kind: Spawned, Run: 1})
	in.Step(now, Event{Kind: Ended, Run: 1, Left: true, Reason: "exited"})
	in.Step(now, Event{Kind: Restart, Reason: "restart by root"})
	acts := in.Step(now, Event{Kind: Gone, Run: 1})
	if got, want := acts[len(acts)-1].Reason, "restart by root: exited"; got != want {
		t.Errorf("reason = %q, want %q", got, want)
	}
}

func TestBackoffGrowsToItsMaximum(t *testing.T) {
	in := &Instance{Policy: defaultPolicy(), Seed: 7}
	in.Policy.MaxRestarts = 0
	in.Policy.Jitter = 0.1
	now := time.Unix(0, 0)
	in.Step(now, Event{Kind: Start})
	want := []time.Duration{0, 100 * time.Millisecond, 400 * time.Millisecond, 1600 * time.Millisecond, 6400 * time.Millisecond, 25600 * time.Millisecond, 30 * time.Second, 30 * time.Second}
	seen := map[time.Duration]bool{}
	for i, w := range want {
		in.Step(now, Event{Kind: SpawnFailed, Run: in.Run(), Code: 127})
		var got time.Duration
		if in.State() == Backoff {
			got = in.Deadline().Sub(now)
		}
		if low, high := w*9/10, w*11/10; got < low || got > high {
			t.Errorf("delay %d = %s, want %s within 10 %%", i, got, w)
		}
		seen[got] = true
		now = now.Add(got)
		in.Step(now, Event{Kind: Deadline})
	}
	if len(seen) != len(want) {
		t.Errorf("delays %v repeat: no jitter", seen)
	}
}

// diprocd's rule: five starts in a minute, and a worker that dies every 13 s
// goes on.
func TestWindow(t *testing.T) {
	in := &Instance{Policy: defaultPolicy()}
	in.Policy.HealthyAfter = time.Hour
	now := time.Unix(0, 0)
	in.Step(now, Event{Kind: Start})
	for range 50 {
		for in.State() == Backoff {
			now = in.Deadline()
			in.Step(now, Event{Kind: Deadline})
		}
		in.Step(now, Event{Kind: Spawned, Run: in.Run()})
		now = now.Add(15100 * time.Millisecond)
		in.Step(now, Event{Kind: Ended, Run: in.Run(), Code: 1})
		if in.State() == Fatal {
			t.Fatalf("FATAL at %s: a death every 15 s is four a minute", now)
		}
	}
}

// TestDiagram prints the edges between the states, as Step has them, into the
// documentation: what is there cannot be older than the code.
func TestDiagram(t *testing.T) {
	now := time.Unix(1000, 0)
	edges := map[string][]string{}
	for s := range numStates {
		for k := range numKinds {
			for _, c := range []struct {
				left  bool
				life  time.Duration
				label string
			}{{false, 0, ""}, {false, time.Hour, " (healthy)"}, {true, 0, " (something left)"}} {
				if k != Ended && (c.left || c.life != 0) {
					continue
				}
				for _, p := range []RestartPolicy{Always, Never} {
					in := at(t, s, now)
					in.Policy.Restart = p
					in.consecutive = 1
					ev := Event{Kind: k, Left: c.left, Code: 1}
					if k >= Spawned && k != Deadline {
						ev.Run = in.Run()
					}
					if k == Gone {
						in.ended = true
					}
					if k == Deadline && in.Deadline().IsZero() {
						continue
					}
					when := now.Add(c.life)
					if k == Deadline {
						when = in.Deadline()
					}
					in.Step(when, ev)
					if in.State() != s {
						key := fmt.Sprintf("%-8s → %s", s, in.State())
						edges[key] = append(edges[key], k.String()+c.label)
					}
				}
			}
		}
	}
	var lines []string
	for key, evs := range edges {
		slices.Sort(evs)
		lines = append(lines, fmt.Sprintf("%-20s %s", key, strings.Join(slices.Compact(evs), ", ")))
	}
	slices.Sort(lines)
	block(t, "../../../ARCHITECTURE.md", "states", lines)
}

// block compares, or with -update replaces, the block of a document that name marks.
func block(t *testing.T, file, name string, lines []string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), "<!-- "+name+":")
	mark, rest, ok2 := strings.Cut(rest, "-->\n")
	_, tail, ok3 := strings.Cut(rest, "<!-- end -->")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("%s has no block %s", file, name)
	}
	want := head + "<!-- " + name + ":" + mark + "-->\n```\n" + strings.Join(lines, "\n") + "\n```\n<!-- end -->" + tail
	if want == string(b) {
		return
	}
	if !*update {
		t.Errorf("block %s of %s is not what the code has; run with -update:\n%s", name, file, strings.Join(lines, "\n"))
		return
	}
	if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
