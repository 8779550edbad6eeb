package main

import (
	"fmt"
	"time"
)

// execMode measures what stands before one command: its start, and a signal's
// way to it.
func (b *bench) execMode() error {
	b.table.section("exec mode: one command")
	type front struct {
		name string
		argv []string
	}
	fronts := []front{
		{"cref", []string{b.ref, "exec"}},
		{"goref", []string{b.goref, "exec"}},
	}
	for _, name := range []string{"tini", "dumb-init"} {
		if path := installed(name); path != "" {
			fronts = append(fronts, front{name, []string{path, "--"}})
		}
	}
	fronts = append(fronts, front{"pazinit --", []string{b.pazinit, "--"}})

	var start, term series
	for range 20 * b.rounds {
		for _, f := range fronts {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			t0, first, err := b.inFront(f.argv, b.stamp)
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			start.add(f.name, float64(first-t0)/1e6)
			sent, handled, err := b.inFront(f.argv, b.ref, "handler")
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			term.add(f.name, float64(handled-sent)/1e3)
		}
	}
	b.table.show(&start, 0.5, row{What: "start of the child, p50", Unit: "ms"})
	b.table.show(&start, 0.99, row{What: "start of the child, p99", Unit: "ms"})
	b.table.show(&term, 0.5, row{What: "TERM to the child's handler, p50", Unit: "µs"})
	b.table.show(&term, 0.99, row{What: "TERM to the child's handler, p99", Unit: "µs"})
	return nil
}

// inFront runs a command behind front. Of one that stamps it reports the start
// and the stamp; of one with a handler, the signal and the handler.
func (b *bench) inFront(front []string, command ...string) (from, to int64, err error) {
	dir, err := b.folder("exec")
	if err != nil {
		return 0, 0, err
	}
	f, err := openFIFO(dir, false)
	if err != nil {
		return 0, 0, err
	}
	argv := append(append([]string{}, front...), command...)
	r, err := b.launch(job{argv: append(argv, f.path)}, dir, f)
	if err != nil {
		return 0, 0, err
	}
	defer r.end()
	rec, err := f.read(10 * time.Second)
	if err != nil || len(command) == 1 {
		return r.t0, rec.ns, err
	}
	time.Sleep(3 * time.Millisecond)
	from = now()
	r.ask()
	rec, err = f.read(10 * time.Second)
	return from, rec.ns, err
}
