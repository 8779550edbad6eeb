package main

import (
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// restart measures from SIGKILL to the first instruction of the replacement.
func (b *bench) restart() error {
	b.table.section("death (SIGKILL) to the replacement's first instruction")
	if err := b.restartLatency("quiet", "≤ 1.4 × cref"); err != nil {
		return err
	}
	stop, err := b.load()
	if err != nil {
		return err
	}
	defer stop()
	return b.restartLatency("both cores loaded", "")
}

// load keeps every processor busy.
func (b *bench) load() (stop func(), err error) {
	var cmds []*exec.Cmd
	stop = func() {
		for _, c := range cmds {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}
	for range runtime.NumCPU() {
		c := exec.Command(b.ref, "busy")
		if err := c.Start(); err != nil {
			stop()
			return nil, err
		}
		cmds = append(cmds, c)
	}
	return stop, nil
}

// A victim is a contender with its live workers, the longest-lived first.
type victim struct {
	c     *contender
	r     *runner
	alive []record
}

func (b *bench) restartLatency(load, aim string) error {
	all := b.contenders()
	var vs []*victim
	defer func() {
		for _, v := range vs {
			v.r.end()
		}
	}()
	for i := range all {
		c := &all[i]
		r, err := b.start(c, c.copies, false)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		v := &victim{c: c, r: r}
		vs = append(vs, v)
		if v.alive, err = r.fifo.readN(c.copies, 30*time.Second); err != nil {
			return fmt.Errorf("%s: %w\n%s", c.name, err, r.log())
		}
	}
	time.Sleep(500 * time.Millisecond)

	// What the supervisor itself computes depends less on the others here.
	cpu := make(map[string]time.Duration)
	for _, v := range vs {
		cpu[v.c.name] = usage(supervisors(v.r.cmd.Process.Pid, b.stamp), false).cpu
	}
	var healthy, again, work series
	err := onUrgentThread(func() error {
		// The references and pazinit take turns; the peers come when one of their
		// workers has lived long enough.
		for n := 0; n < b.kills; {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			for _, v := range vs {
				if time.Duration(now()-v.alive[0].ns) < v.c.rest {
					continue
				}
				if v.c.rest > time.Second && len(healthy.values[v.c.name])*30 > n {
					continue // one of them takes a second for each
				}
				us, err := v.kill(0)
				if err != nil {
					return err
				}
				healthy.add(v.c.name, us)
				time.Sleep(time.Millisecond)
			}
			n = len(healthy.values[vs[0].c.name])
		}
		for _, v := range vs {
			used := settledCPU(supervisors(v.r.cmd.Process.Pid, b.stamp)) - cpu[v.c.name]
			work.add(v.c.name, float64(used.Nanoseconds())/1e3/float64(len(healthy.values[v.c.name])))
		}
		for range b.kills / 20 { // a healthy death, and the next one at once
			for _, v := range vs {
				if v.c.rest > time.Second && len(again.values[v.c.name]) >= 5 {
					continue // it takes seconds
				}
				if left := v.c.rest - time.Duration(now()-v.alive[0].ns); left > 0 {
					time.Sleep(left)
				}
				if _, err := v.kill(0); err != nil {
					return err
				}
				us, err := v.kill(len(v.alive) - 1)
				if err != nil {
					return err
				}
				again.add(v.c.name, us)
				time.Sleep(2 * time.Millisecond)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	note := ""
	for _, v := range vs {
		// A death that it took for an unhealthy one, being late with the one before.
		if n := strings.Count(text("%s/log", v.r.dir), "BACKOFF"); isOurs(v.c.name) && n > 0 {
			note += fmt.Sprintf("%s waited %d times in BACKOFF ", v.c.name, n)
		}
	}
	for _, q := range []struct {
		name string
		q    float64
		aim  string
	}{{"p50", 0.5, aim}, {"p90", 0.9, ""}, {"p99", 0.99, ""}} {
		b.table.show(&healthy, q.q, row{What: load + ", " + q.name, Unit: "µs", Aim: q.aim, Note: note})
	}
	b.table.show(&work, 0.5, row{What: load + ", the supervisor's CPU for each", Unit: "µs"})
	b.table.show(&again, 0.5, row{What: load + ", dies again at once, p50", Unit: "µs"})
	return nil
}

// kill kills the i-th worker and waits for its replacement's stamp.
func (v *victim) kill(i int) (us float64, err error) {
	pid := v.alive[i].pid
	v.alive = append(v.alive[:i:i], v.alive[i+1:]...)
	t := now()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return 0, fmt.Errorf("%s: kill %d: %w", v.c.name, pid, err)
	}
	r, err := v.r.fifo.read(30 * time.Second)
	if err != nil {
		return 0, fmt.Errorf("%s: no replacement: %w\n%s", v.c.name, err, v.r.log())
	}
	v.alive = append(v.alive, r)
	return float64(r.ns-t) / 1e3, nil
}

// onUrgentThread runs f where a loaded machine does not delay it, if it may:
// what is measured is the supervisor's delay, not ours. The thread ends with f.
func onUrgentThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
		done <- f()
	}()
	return <-done
}
