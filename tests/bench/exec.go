package main

import (
	"debug/elf"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A front stands before one command.
type front struct {
	name string
	argv []string // ahead of the command's
}

// fronts are the references, what is installed, and pazinit by all its names.
// The first one is what the others are compared with.
func (b *bench) fronts() ([]front, error) {
	var out []front
	for _, name := range []string{"tini", "dumb-init", "catatonit"} {
		if path := installed(name); path != "" {
			out = append(out, front{name, []string{path, "--"}})
		}
	}
	out = append(out,
		front{"cref", []string{b.ref, "exec"}},
		front{"goref", []string{b.goref, "exec"}},
		front{"pazinit --", []string{b.pazinit, "--"}})
	for _, name := range []string{"tini", "dumb-init"} {
		link := filepath.Join(b.dir, name)
		if err := os.Symlink(b.pazinit, link); err != nil {
			return nil, err
		}
		out = append(out, front{"pazinit as " + name, []string{link, "--"}})
	}
	if b.against != "" {
		out = append(out, front{"pazinit -against", []string{b.against, "--"}})
	}
	return out, nil
}

const (
	addedAim   = "< 2 ms"
	latencyAim = "≤ 1.5 × tini"
)

// execMode measures what a front costs its one command: memory, the start, the
// way of a signal, the end, and as PID 1 the orphans.
func (b *bench) execMode() error {
	b.table.section("exec mode: one command")
	fronts, err := b.fronts()
	if err != nil {
		return err
	}
	for _, f := range fronts {
		st, err := os.Stat(f.argv[0])
		if err != nil {
			return err
		}
		b.table.add(row{What: "binary on disk", Who: f.name, Value: float64(st.Size()) / 1e6, Unit: "MB", Note: interpreted(f.argv[0])})
	}
	if err := b.footprint(fronts); err != nil {
		return err
	}
	// A front of no program is what the measurement itself takes.
	bare := append([]front{{name: "no front"}}, fronts...)
	if err := onUrgentThread(func() error { return b.oneCommand(bare) }); err != nil {
		return err
	}
	if err := onUrgentThread(func() error { return b.forward(bare) }); err != nil {
		return err
	}
	return b.orphansOf(fronts)
}

// interpreted says so if a program is not static.
func interpreted(path string) string {
	f, err := elf.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "and its libraries"
		}
	}
	return ""
}

// behind starts a command behind a front and waits for its first record.
func (b *bench) behind(f front, command ...string) (*runner, record, error) {
	dir, err := b.folder("exec")
	if err != nil {
		return nil, record{}, err
	}
	fifo, err := openFIFO(dir, false)
	if err != nil {
		return nil, record{}, err
	}
	argv := append(append([]string{}, f.argv...), command...)
	r, err := b.launch(job{argv: append(argv, fifo.path)}, dir, fifo)
	if err != nil {
		fifo.close()
		return nil, record{}, fmt.Errorf("%s: %w", f.name, err)
	}
	rec, err := r.read(10 * time.Second)
	if err != nil {
		r.end()
		return nil, record{}, fmt.Errorf("%s: %w", f.name, err)
	}
	return r, rec, nil
}

// footprint is what a front has while its command does nothing.
func (b *bench) footprint(fronts []front) error {
	const watched = 3 * time.Second
	var pss, anon, threads, switches series
	for range b.rounds {
		for _, i := range rand.Perm(len(fronts)) {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			// One at a time, since those of a file share its pages.
			r, _, err := b.behind(fronts[i], b.stamp)
			if err != nil {
				return err
			}
			pid := []int{r.cmd.Process.Pid}
			settledCPU(pid)
			time.Sleep(200 * time.Millisecond)
			u := usage(pid, true)
			r.end()
			pss.add(fronts[i].name, u.pss/1024)
			anon.add(fronts[i].name, u.anon/1024)
			threads.add(fronts[i].name, float64(u.threads))
		}
	}
	err := b.together(fronts, func(runners []*runner) error {
		time.Sleep(time.Second)
		for i, r := range runners {
			switches.add(fronts[i].name, -float64(usage([]int{r.cmd.Process.Pid}, false).switches))
		}
		time.Sleep(watched)
		for i, r := range runners {
			switches.values[fronts[i].name][0] += float64(usage([]int{r.cmd.Process.Pid}, false).switches)
		}
		return nil
	}, b.stamp)
	if err != nil {
		return err
	}
	order := names(fronts)
	b.table.show(&pss, 0.5, row{What: "PSS", Unit: "MiB", Aim: "< 3 MiB"}, order...)
	b.table.show(&anon, 0.5, row{What: "anonymous memory", Unit: "MiB", Aim: "< 1 MiB"}, order...)
	b.table.show(&threads, 0.5, row{What: "threads"}, order...)
	b.table.show(&switches, 0.5, row{What: fmt.Sprintf("context switches in %.0f s, idle", watched.Seconds()), Aim: "0"}, order...)
	return nil
}

// together runs a command behind each front at the same time, and f meanwhile.
func (b *bench) together(fronts []front, f func([]*runner) error, command ...string) error {
	var runners []*runner
	defer func() {
		for _, r := range runners {
			r.end()
		}
	}()
	for i := range fronts {
		r, _, err := b.behind(fronts[i], command...)
		if err != nil {
			return err
		}
		runners = append(runners, r)
	}
	return f(runners)
}

// oneCommand runs commands from their start to their end, by TERM.
func (b *bench) oneCommand(fronts []front) error {
	const warmUp = 3
	var start, added, term, end series
	for round := range warmUp + 70*b.rounds {
		up := make(map[string]float64)
		for _, i := range rand.Perm(len(fronts)) { // who comes after whom matters
			f := fronts[i]
			if err := b.ctx.Err(); err != nil {
				return err
			}
			r, first, err := b.behind(f, b.stamp)
			if err != nil {
				return err
			}
			up[f.name] = float64(first.ns-r.t0) / 1e6
			r.end()

			r, _, err = b.behind(f, b.ref, "handler")
			if err != nil {
				return err
			}
			time.Sleep(3 * time.Millisecond)
			sent := now()
			r.ask()
			handled, err := r.read(10 * time.Second)
			r.end()
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			if round >= warmUp {
				term.add(f.name, float64(handled.ns-sent)/1e3)
				end.add(f.name, float64(r.ended-handled.ns)/1e3)
			}
		}
		for _, f := range fronts {
			if round >= warmUp {
				start.add(f.name, up[f.name])
				added.add(f.name, up[f.name]-up[fronts[0].name])
			}
		}
	}
	order := fromTini(fronts)
	b.table.show(&start, 0.5, row{What: "start of the child, p50", Unit: "ms"}, order...)
	b.table.show(&start, 0.99, row{What: "start of the child, p99", Unit: "ms"}, order...)
	order = order[:len(order)-1]
	b.table.show(&added, 0.5, row{What: "added to a start, p50", Unit: "ms", Aim: addedAim}, order...)
	b.table.show(&added, 0.9, row{What: "added to a start, p90", Unit: "ms"}, order...)
	order = fromTini(fronts)
	b.table.show(&term, 0.5, row{What: "TERM to the child's handler, p50", Unit: "µs", Aim: latencyAim}, order...)
	b.table.show(&term, 0.99, row{What: "TERM to the child's handler, p99", Unit: "µs"}, order...)
	b.table.show(&end, 0.5, row{What: "the child's end to the front's, p50", Unit: "µs"}, order...)
	b.table.show(&end, 0.99, row{What: "the child's end to the front's, p99", Unit: "µs"}, order...)
	return nil
}

func names(fronts []front) (out []string) {
	for _, f := range fronts {
		out = append(out, f.name)
	}
	return out
}

// fromTini are the names of bare fronts, with that of no front last: the first one
// is what the ratios are to.
func fromTini(bare []front) []string { return append(names(bare[1:]), bare[0].name) }

// forward sends many signals to living commands, by turns, on all processors and
// on one alone: there the way is always the same, and nobody's luck which
// processor who sleeps on. For the same reason each round has new processes.
func (b *bench) forward(fronts []front) error {
	const warmUp, samples = 20, 400
	var free, pinned series
	all, err := onProcessors(nil)
	if err != nil {
		return err
	}
	for range b.rounds {
		for _, s := range []*series{&free, &pinned} {
			set := all
			if s == &pinned {
				set = oneOf(all)
			}
			if _, err := onProcessors(set); err != nil {
				return err
			}
			err := b.together(fronts, func(runners []*runner) error {
				time.Sleep(50 * time.Millisecond)
				for n := range warmUp + samples {
					for _, i := range rand.Perm(len(fronts)) {
						us, err := runners[i].usr1()
						if err != nil {
							return fmt.Errorf("%s: %w", fronts[i].name, err)
						}
						if n >= warmUp {
							s.add(fronts[i].name, us)
						}
						time.Sleep(100 * time.Microsecond)
					}
				}
				return b.ctx.Err()
			}, b.ref, "handler")
			if err != nil {
				return err
			}
		}
	}
	order := fromTini(fronts)
	b.table.show(&free, 0.5, row{What: "USR1 to the child's handler, p50", Unit: "µs", Aim: latencyAim}, order...)
	b.table.show(&free, 0.9, row{What: "USR1 to the child's handler, p90", Unit: "µs"}, order...)
	b.table.show(&free, 0.99, row{What: "USR1 to the child's handler, p99", Unit: "µs"}, order...)
	b.table.show(&pinned, 0.5, row{What: "USR1, all on one processor, p50", Unit: "µs", Aim: latencyAim}, order...)
	b.table.show(&pinned, 0.9, row{What: "USR1, all on one processor, p90", Unit: "µs"}, order...)
	return nil
}

// usr1 sends one and reports how long it took to the command's handler.
func (r *runner) usr1() (us float64, err error) {
	sent := now()
	if err := unix.Kill(r.cmd.Process.Pid, unix.SIGUSR1); err != nil {
		return 0, err
	}
	handled, err := r.read(10 * time.Second)
	return float64(handled.ns-sent) / 1e3, err
}

// onProcessors confines this thread and what it starts to set, if that is not
// nil, and reports where it may run.
func onProcessors(set *unix.CPUSet) (*unix.CPUSet, error) {
	if set != nil {
		return set, unix.SchedSetaffinity(0, set)
	}
	set = new(unix.CPUSet)
	return set, unix.SchedGetaffinity(0, set)
}

// oneOf is the last one of set.
func oneOf(set *unix.CPUSet) *unix.CPUSet {
	one := new(unix.CPUSet)
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			one.Zero()
			one.Set(i)
		}
	}
	return one
}

// orphansOf is what each front pays, as PID 1, for an orphan that arrives.
func (b *bench) orphansOf(fronts []front) error {
	if os.Geteuid() != 0 {
		b.table.add(row{What: "orphans are not measured", Note: "a PID namespace needs root"})
		return nil
	}
	var cpu series
	for range b.rounds {
		for _, f := range fronts {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			c, _, err := b.adopt(func(_ string, argv []string) (job, error) {
				return job{argv: append(append([]string{}, f.argv...), argv...)}, nil
			}, orphanCount)
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			cpu.add(f.name, float64(c.Nanoseconds())/1e3/orphanCount)
		}
	}
	b.table.show(&cpu, 0.5, row{What: fmt.Sprintf("as PID 1, %d orphans: CPU for each", orphanCount), Unit: "µs"})
	return nil
}
