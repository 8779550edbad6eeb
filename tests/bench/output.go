package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

const (
	rotateSize = 10 << 20
	rotateKeep = 5
)

// output measures what a worker can write.
func (b *bench) output() error {
	if err := b.throughput(); err != nil {
		return err
	}
	if err := b.asAFile(); err != nil {
		return err
	}
	return b.manyWriters()
}

// A capturer runs argv and brings its output into files below dir, which rotate.
type capturer struct {
	name string
	job  func(b *bench, dir string, argv []string) (job, error)
}

func (b *bench) capturers() []capturer {
	all := []capturer{
		{"cref", func(b *bench, dir string, argv []string) (job, error) {
			return job{argv: append([]string{b.ref, "copy", filepath.Join(dir, "out"), strconv.Itoa(rotateSize), strconv.Itoa(rotateKeep)}, argv...)}, nil
		}},
		{ours, func(b *bench, dir string, argv []string) (job, error) {
			return b.pazinitJob(dir, true, fmt.Sprintf("{run: %q, args: %s, restart: never, stdout: {file: %q, rotate_size: 10MiB, rotate_keep: %d}}",
				argv[0], list(argv[1:]), filepath.Join(dir, "out"), rotateKeep))
		}},
	}
	if b.peers {
		all = append(all, loggers()...)
	}
	return all
}

// list is a YAML list of texts.
func list(words []string) string {
	s := "["
	for i, w := range words {
		if i > 0 {
			s += ", "
		}
		s += strconv.Quote(w)
	}
	return s + "]"
}

func (b *bench) throughput() error {
	b.table.section("one worker's output into files that rotate, ring on")
	for _, w := range []struct {
		name        string
		size, total int
		aim         string
	}{
		{"100-byte writes", 100, 300_000_000, "≥ 400 MB/s"},
		{"64-KiB writes", 64 << 10, 1 << 30, "≥ 1000 MB/s"},
	} {
		var rate, cpu series
		for round := range b.rounds {
			for i, c := range b.capturers() {
				if i > 1 && round > 0 {
					continue // the peers are slow
				}
				if err := b.ctx.Err(); err != nil {
					return err
				}
				r, c2, err := b.capture(c, w.size, w.total)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", c.name, w.name, err)
				}
				rate.add(c.name, float64(w.total)/r.Seconds()/1e6)
				cpu.add(c.name, c2.Seconds()*(1<<30)/float64(w.total))
			}
		}
		b.table.show(&rate, 0.5, row{What: w.name, Unit: "MB/s", Aim: w.aim})
		for i := range b.table.rows {
			if r := &b.table.rows[i]; r.Unit == "MB/s" && r.What == w.name {
				r.Note = fmt.Sprintf("%.2f GiB/s", r.Value*1e6/(1<<30))
			}
		}
		b.table.show(&cpu, 0.5, row{What: w.name + ", CPU s per GiB", Unit: "s"})
	}
	return nil
}

// capture reports how long the writer took and what CPU its supervisor, without
// the writer, used from the first write on.
func (b *bench) capture(c capturer, size, total int) (took, cpu time.Duration, err error) {
	dir, err := b.folder("out")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	f, err := openFIFO(dir, false)
	if err != nil {
		return 0, 0, err
	}
	j, err := c.job(b, dir, []string{b.ref, "write", f.path, strconv.Itoa(size), strconv.Itoa(total)})
	if err != nil {
		return 0, 0, err
	}
	r, err := b.launch(j, dir, f)
	if err != nil {
		return 0, 0, err
	}
	defer r.end()
	from, err := r.read(patience)
	if err != nil {
		return 0, 0, err
	}
	pids := withoutPID(tree(r.cmd.Process.Pid), from.pid)
	before := usage(pids, false).cpu
	to, err := r.read(2 * patience)
	if err != nil {
		return 0, 0, err
	}
	return time.Duration(to.ns - from.ns), settledCPU(pids) - before, nil
}

func withoutPID(pids []int, pid int) (out []int) {
	for _, p := range pids {
		if p != pid {
			out = append(out, p)
		}
	}
	return out
}

// asAFile compares a captured worker with one that writes a file itself.
func (b *bench) asAFile() error {
	b.table.section("100 MiB, captured into a file against written into one")
	const total = 100 << 20
	for _, size := range []int{4 << 10, 64 << 10} {
		var s series
		for range 2 * b.rounds {
			dir, err := b.folder("direct")
			if err != nil {
				return err
			}
			f, err := openFIFO(dir, false)
			if err != nil {
				return err
			}
			r, err := b.launch(job{argv: []string{b.ref, "write", f.path, strconv.Itoa(size), strconv.Itoa(total), filepath.Join(dir, "out")}}, dir, f)
			if err != nil {
				return err
			}
			recs, err := f.readN(2, patience)
			r.end()
			if err != nil {
				return err
			}
			os.RemoveAll(dir)
			s.add("a file", float64(recs[1].ns-recs[0].ns)/1e6)
			for _, c := range b.capturers()[:2] {
				took, _, err := b.capture(c, size, total)
				if err != nil {
					return err
				}
				s.add(c.name, took.Seconds()*1e3)
			}
		}
		b.table.show(&s, 0.5, row{What: fmt.Sprintf("%d-KiB writes", size>>10), Unit: "ms", Aim: "0.8 to 1.2", Seeds: "Q-08"})
	}
	return nil
}

// manyWriters has 500 workers write 1,000 lines in each of ten seconds, once
// into one file and once to /dev/null.
func (b *bench) manyWriters() error {
	b.table.section("500 workers, each 1,000 lines/s for 10 s, into one file")
	const workers, count, rate = 500, 10_000, 1000
	var p50, slowest [2]float64
	for i, null := range []bool{true, false} {
		dir, err := b.folder("many")
		if err != nil {
			return err
		}
		f, err := openFIFO(dir, false)
		if err != nil {
			return err
		}
		out := filepath.Join(dir, "out")
		target := fmt.Sprintf("{file: %q}", out)
		if null {
			target = "'null'"
		}
		j, err := b.pazinitJob(dir, true, fmt.Sprintf("{run: %q, args: %s, num_instances: %d, restart: never, stdout: %s}",
			b.ref, list([]string{"lines", f.path, strconv.Itoa(count), strconv.Itoa(rate)}), workers, target))
		if err != nil {
			return err
		}
		r, err := b.launch(j, dir, f)
		if err != nil {
			return err
		}
		defer r.end()
		recs, err := f.readN(2*workers, 2*patience)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, r.log())
		}
		began := make(map[int]int64)
		var took []float64
		for _, rec := range recs {
			if rec.kind == 1 {
				began[rec.pid] = rec.ns
			} else {
				took = append(took, float64(rec.ns-began[rec.pid])/1e9)
			}
		}
		p50[i], slowest[i] = median(took), quantile(took, 1)
		pid := []int{r.cmd.Process.Pid}
		cpu := settledCPU(pid)
		if null {
			r.ask()
			continue
		}
		lines, bad, err := checkLines(out)
		if err != nil {
			return err
		}
		b.table.add(row{What: "lines lost", Who: ours, Value: float64(workers*count - lines), Aim: "0", Seeds: "CI-22"})
		b.table.add(row{What: "lines broken or out of order", Who: ours, Value: float64(bad), Aim: "0", Seeds: "CI-22"})
		b.table.add(row{What: "CPU of the supervisor", Who: ours, Value: cpu.Seconds(), Unit: "s"})
	}
	b.table.add(row{What: "median worker's time", Who: "/dev/null", Value: p50[0], Unit: "s"})
	b.table.add(row{What: "median worker's time", Who: ours, Value: p50[1], Unit: "s", Ratio: p50[1] / p50[0], To: "/dev/null", Aim: "≤ 1.05", Seeds: "CI-22"})
	b.table.add(row{What: "slowest worker's time", Who: "/dev/null", Value: slowest[0], Unit: "s"})
	b.table.add(row{What: "slowest worker's time", Who: ours, Value: slowest[1], Unit: "s", Ratio: slowest[1] / slowest[0], To: "/dev/null", Aim: "≤ 1.05", Seeds: "CI-22"})
	return nil
}

// checkLines counts the lines of c/ref.c's lines that are whole, and those that
// are not or do not follow their worker's one before.
func checkLines(path string) (whole, bad int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	next := make(map[string]int)
	sc := bufio.NewScanner(f)
	sc.Buffer(make([]byte, 1<<20), 1<<20)
	for sc.Scan() {
		w := bytes.Fields(sc.Bytes())
		if len(w) != 3 || len(w[0]) != 8 || string(w[2]) != "0123456789abcdefghijk" {
			bad++
			continue
		}
		n, err := strconv.Atoi(string(w[1]))
		if err != nil || n != next[string(w[0])] {
			bad++
		}
		next[string(w[0])] = n + 1
		whole++
	}
	return whole, bad, sc.Err()
}

// installed reports the path of a program, "" if it is not there.
func installed(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				return filepath.Join(dir, name)
			}
		}
		return ""
	}
	return path
}
