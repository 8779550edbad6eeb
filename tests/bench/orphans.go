package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const orphanCount = 20_000

// orphans measures what the first process of a PID namespace pays for each
// orphan that arrives.
func (b *bench) orphans() error {
	b.table.section(fmt.Sprintf("PID 1 of a namespace: %d orphans arrive", orphanCount))
	if os.Geteuid() != 0 {
		b.table.add(row{What: "not measured", Note: "a PID namespace needs root"})
		return nil
	}
	type first struct {
		name string
		job  func(dir string, argv []string) (job, error)
	}
	firsts := []first{
		{"cref", func(_ string, argv []string) (job, error) {
			return job{argv: append([]string{b.ref, "loop", "1"}, argv...)}, nil
		}},
		{"goref", func(_ string, argv []string) (job, error) {
			return job{argv: append([]string{b.goref, "loop", "1"}, argv...)}, nil
		}},
	}
	if s6 := installed("s6-svscan"); s6 != "" && b.peers {
		firsts = append([]first{{"s6-svscan", func(dir string, argv []string) (job, error) {
			scan := filepath.Join(dir, "scan")
			return job{argv: []string{s6, scan}}, service(filepath.Join(scan, "w"), "#!/bin/sh\nexec "+strings.Join(argv, " ")+"\n")
		}}}, firsts...)
	}
	if tini := installed("tini"); tini != "" {
		firsts = append(firsts, first{"tini", func(_ string, argv []string) (job, error) {
			return job{argv: append([]string{tini, "--"}, argv...)}, nil
		}})
	}
	firsts = append(firsts,
		first{ours, func(dir string, argv []string) (job, error) {
			return b.pazinitJob(dir, true, fmt.Sprintf("{run: %q, args: %s}", argv[0], list(argv[1:])))
		}},
		first{oursPlain, func(dir string, argv []string) (job, error) {
			return b.pazinitJob(dir, false, fmt.Sprintf("{run: %q, args: %s}", argv[0], list(argv[1:])))
		}})

	if b.against != "" {
		firsts = append(firsts, first{"pazinit -against", func(dir string, argv []string) (job, error) {
			j, err := b.pazinitJob(dir, true, fmt.Sprintf("{run: %q, args: %s}", argv[0], list(argv[1:])))
			j.argv[0] = b.against
			return j, err
		}})
	}

	var cpu, took series
	for range b.rounds {
		for _, p := range firsts {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			c, t, err := b.adopt(p.job, orphanCount)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			cpu.add(p.name, float64(c.Nanoseconds())/1e3/orphanCount)
			took.add(p.name, t.Seconds())
		}
	}
	aim := ""
	if firsts[0].name == "s6-svscan" {
		aim = "≤ 1.3 × s6-svscan"
	}
	b.table.show(&cpu, 0.5, row{What: "CPU per orphan", Unit: "µs", Aim: aim})
	b.table.show(&took, 0.5, row{What: "time for all to be made", Unit: "s"})
	return nil
}

func (b *bench) adopt(make func(dir string, argv []string) (job, error), count int) (cpu, took time.Duration, err error) {
	dir, err := b.folder("pid1")
	if err != nil {
		return 0, 0, err
	}
	f, err := openFIFO(dir, false)
	if err != nil {
		return 0, 0, err
	}
	j, err := make(dir, []string{b.ref, "orphans", f.path, strconv.Itoa(count)})
	if err != nil {
		return 0, 0, err
	}
	j.argv = append([]string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"}, j.argv...)
	j.stop = stopPID1
	r, err := b.launch(j, dir, f)
	if err != nil {
		return 0, 0, err
	}
	defer r.end()
	from, err := r.read(patience)
	if err != nil {
		return 0, 0, err
	}
	below := tree(r.cmd.Process.Pid)
	if len(below) < 2 {
		return 0, 0, fmt.Errorf("unshare has no child\n%s", r.log())
	}
	pid1 := below[1:2]
	before := usage(pid1, false).cpu
	to, err := r.read(patience)
	if err != nil {
		return 0, 0, err
	}
	return settledCPU(pid1) - before, time.Duration(to.ns - from.ns), nil
}

// stopPID1 asks the first process of the namespace below unshare to end, so
// that pazinit leaves no control group.
func stopPID1(unshare int) {
	if below := tree(unshare); len(below) > 1 {
		_ = unix.Kill(below[1], unix.SIGTERM)
	}
}

// service makes a folder with an executable run.
func service(dir, run string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "run"), []byte(run), 0o755)
}
