package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

var sizes = []int{1, 100, 1000}

// patience is how long a start or stop of many may take before it is given up.
const patience = 60 * time.Second

// scale measures the start of many, until the last has stamped, and their stop,
// until the last is gone. The supervisor's own start is part of it.
func (b *bench) scale() error {
	b.table.section("start and stop, the supervisor's own included")
	var up, first, gone, over, work [4]series
	for i, n := range sizes {
		all := b.contenders()
		for round := range b.rounds {
			for j := range all {
				c := &all[(j+round)%len(all)] // nobody is always first
				if c.atScale != 0 && n > c.atScale {
					continue
				}
				if err := b.ctx.Err(); err != nil {
					return err
				}
				t, err := b.startAndStop(c, n)
				if err != nil {
					return fmt.Errorf("%s, %d workers: %w", c.name, n, err)
				}
				first[i].add(c.name, t[0])
				up[i].add(c.name, t[1])
				gone[i].add(c.name, t[2])
				over[i].add(c.name, t[3])
				work[i].add(c.name, t[4])
			}
		}
		var order []string
		for _, c := range all {
			order = append(order, c.name)
		}
		aim := ""
		if n > 1 {
			aim = "≤ 2 × cref"
		}
		at := func(format string) string { return fmt.Sprintf(format, n) }
		b.table.show(&first[i], 0.5, row{What: at("start %d: the first is up"), Unit: "ms"}, order...)
		b.table.show(&up[i], 0.5, row{What: at("start %d: all are up"), Unit: "ms", Aim: aim}, order...)
		b.table.show(&work[i], 0.5, row{What: at("start %d: the supervisor's CPU"), Unit: "ms"}, order...)
		b.table.show(&gone[i], 0.5, row{What: at("stop %d: all are gone"), Unit: "ms"}, order...)
		b.table.show(&over[i], 0.5, row{What: at("stop %d: the supervisor has ended"), Unit: "ms"}, order...)
	}
	return nil
}

// startAndStop reports, in ms from the start, the first worker's stamp and the
// last one's, and, from the request to stop, the end of the last worker and of
// the supervisor; then the CPU that it took the supervisor to start.
func (b *bench) startAndStop(c *contender, n int) (t [5]float64, err error) {
	r, err := b.start(c, n, true)
	if err != nil {
		return t, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, r.log())
			r.end()
		}
	}()
	stamps, err := r.fifo.readN(n, patience)
	if err != nil {
		return t, err
	}
	ms := func(ns int64) float64 { return float64(ns) / 1e6 }
	firstNS, lastNS := stamps[0].ns, stamps[0].ns
	for _, s := range stamps {
		firstNS, lastNS = min(firstNS, s.ns), max(lastNS, s.ns)
	}
	t[0], t[1] = ms(firstNS-r.t0), ms(lastNS-r.t0)
	t[4] = ms(settledCPU(supervisors(r.cmd.Process.Pid, b.stamp)).Nanoseconds())

	asked := now()
	r.ask()
	for {
		_, e := r.fifo.read(patience)
		if errors.Is(e, errEnd) {
			break
		}
		if e != nil {
			return t, e
		}
	}
	t[2] = ms(now() - asked)
	select {
	case <-r.done:
	case <-time.After(patience):
		return t, errors.New("it does not end")
	}
	t[3] = ms(now() - asked)
	r.fifo.close()
	return t, nil
}

// An idler is a supervisor with n silent workers.
type idler struct {
	c *contender
	n int
	r *runner
}

// idle measures what supervisors have and do while nothing happens; then the
// answer to status, and what is left of the memory that it took.
func (b *bench) idle() error {
	all := b.contenders()
	var is []*idler
	defer func() {
		for _, i := range is {
			i.r.end()
		}
	}()
	for _, n := range sizes {
		for j := range all {
			c := &all[j]
			if c.atScale != 0 && n > c.atScale {
				continue
			}
			r, err := b.start(c, n, false)
			if err != nil {
				return err
			}
			is = append(is, &idler{c: c, n: n, r: r})
			if _, err := r.fifo.readN(n, patience); err != nil {
				return fmt.Errorf("%s, %d workers: %w\n%s", c.name, n, err, r.log())
			}
		}
	}
	missing, err := b.missing()
	if err != nil {
		return err
	}
	defer missing.end()
	time.Sleep(time.Second)

	pids := make([][]int, len(is))
	before, after := make([]use, len(is)), make([]use, len(is))
	for i, it := range is {
		pids[i] = supervisors(it.r.cmd.Process.Pid, b.stamp)
		before[i] = usage(pids[i], false)
	}
	failing := []int{missing.cmd.Process.Pid}
	begun, failed := time.Now(), usage(failing, false).cpu
	select {
	case <-time.After(b.window):
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
	failed, begun2 := usage(failing, false).cpu-failed, time.Since(begun)
	for i := range is {
		after[i] = usage(pids[i], true)
	}

	b.table.section(fmt.Sprintf("memory and rest, watched for %v", b.window))
	show := func(what, unit string, value func(i int) float64, aim func(n int) (aim, seeds string)) {
		for _, n := range sizes {
			base := 0.0
			for i, it := range is {
				if it.n != n {
					continue
				}
				r := row{What: fmt.Sprintf("%d workers: %s", n, what), Who: it.c.name, Unit: unit, Value: value(i)}
				if isOurs(r.Who) && aim != nil {
					r.Aim, r.Seeds = aim(n)
				}
				if base == 0 {
					base = r.Value
				} else {
					r.Ratio, r.To = r.Value/base, "cref"
				}
				b.table.add(r)
			}
		}
	}
	pssAim := func(n int) (string, string) {
		switch n {
		case 1:
			return "< 5", "SU-25 Q-07"
		case 1000:
			return "< 10", ""
		}
		return "", ""
	}
	none := func(int) (string, string) { return "0", "SU-25 Q-07" }
	show("PSS", "MiB", func(i int) float64 { return after[i].pss / 1024 }, pssAim)
	show("anonymous memory", "MiB", func(i int) float64 { return after[i].anon / 1024 }, nil)
	show("threads", "", func(i int) float64 { return float64(after[i].threads) }, nil)
	show("descriptors", "", func(i int) float64 { return float64(after[i].fds) }, nil)
	show("wakeups", "", func(i int) float64 { return float64(after[i].switches - before[i].switches) }, none)
	show("CPU", "ms", func(i int) float64 { return (after[i].cpu - before[i].cpu).Seconds() * 1e3 }, nil)

	b.table.section("pazinit status --json")
	for i, it := range is {
		if !isOurs(it.c.name) {
			continue
		}
		var took []float64
		for range 5 {
			began := time.Now()
			out, err := exec.Command(b.pazinit, "status", "--json", "--socket", filepath.Join(it.r.dir, "pazinit.sock")).Output()
			if err != nil {
				return fmt.Errorf("status: %w", err)
			}
			took = append(took, time.Since(began).Seconds()*1e3)
			if got := strings.Count(string(out), `"pid":`); got < it.n {
				return fmt.Errorf("status shows %d pids, not %d", got, it.n)
			}
		}
		what := fmt.Sprintf("%d workers: ", it.n)
		b.table.add(row{What: what + "median of 5", Who: it.c.name, Value: median(took), Unit: "ms"})
		time.Sleep(200 * time.Millisecond)
		u := usage(pids[i], true)
		aim, _ := pssAim(it.n)
		b.table.add(row{What: what + "PSS after it", Who: it.c.name, Value: u.pss / 1024, Unit: "MiB", Aim: aim})
		b.table.add(row{What: what + "anonymous memory after it", Who: it.c.name, Value: u.anon / 1024, Unit: "MiB"})
	}

	b.table.section("200 workers whose command does not exist, max_restarts: unlimited")
	b.table.add(row{What: "CPU after the first second", Who: ours, Value: failed.Seconds() / begun2.Seconds() * 100, Unit: "% of a core", Aim: "< 1", Seeds: "Q-03", Note: "(of 60 s; most tries are in the first ten)"})
	b.table.add(row{What: "CPU from the start", Who: ours, Value: usage(failing, false).cpu.Seconds() * 1e3, Unit: "ms"})
	return nil
}

// missing is a pazinit whose workers' command does not exist.
func (b *bench) missing() (*runner, error) {
	dir, err := b.folder("missing")
	if err != nil {
		return nil, err
	}
	f, err := openFIFO(dir, false)
	if err != nil {
		return nil, err
	}
	j, err := b.pazinitJob(dir, true, "{run: /nonexistent, num_instances: 200, healthy_after: 10s}")
	if err != nil {
		return nil, err
	}
	return b.launch(j, dir, f)
}
