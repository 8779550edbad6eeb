// Command bench measures the built program beside reference loops and, with
// -peers, beside other supervisors, all in one turn: what it prints are numbers
// of this build on this machine, and ratios, which last longer. It asserts
// nothing.
//
// A reference is the least that does the job: cref in C (waitid, vfork, exec),
// goref in plain Go. Contenders take turns, so that a noisy moment meets all of
// them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// A bench is one run of this program.
type bench struct {
	ctx   context.Context
	dir   string // everything that is made is in here
	table table

	peers          bool
	kills, rounds  int
	window         time.Duration
	pazinit, goref string
	against        string
	stamp, ref     string
	boot, bootGo   string // c/boot.c and bootref
	accel          string // of machines
	unique         int
}

// A part is a group of measurements.
type part struct {
	name string
	f    func(*bench) error
}

var parts = []part{
	{"size", (*bench).size},
	{"restart", (*bench).restart},
	{"scale", (*bench).scale},
	{"idle", (*bench).idle},
	{"output", (*bench).output},
	{"orphans", (*bench).orphans},
	{"exec", (*bench).execMode},
	{"boot", (*bench).bootMachines},
}

func main() { os.Exit(run()) }

func run() int {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	b := &bench{}
	asJSON := flag.Bool("json", false, "print JSON")
	only := flag.String("only", strings.Join(names, ","), "the parts to run")
	flag.BoolVar(&b.peers, "peers", os.Getenv("PEERS") == "1", "measure the other supervisors that are installed too (PEERS=1)")
	flag.StringVar(&b.pazinit, "bin", "", "measure this pazinit instead of a fresh build")
	flag.StringVar(&b.against, "against", "", "measure this other pazinit too: what was there before a change")
	flag.IntVar(&b.kills, "kills", 1000, "how many kills for each latency")
	flag.IntVar(&b.rounds, "rounds", 3, "how many rounds for each start, stop and throughput")
	flag.DurationVar(&b.window, "window", 10*time.Second, "how long idle supervisors are watched")
	parent := flag.String("dir", os.TempDir(), "where to make files")
	flag.Parse()

	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer cancel()
	b.ctx = ctx
	err := b.measure(*parent, strings.Split(*only, ","))
	if *asJSON {
		err = errors.Join(err, b.table.json(os.Stdout))
	} else {
		b.table.print(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func (b *bench) measure(parent string, only []string) (err error) {
	if b.dir, err = os.MkdirTemp(parent, "pazinit-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	// What a supervisor leaves behind comes to us, to be ended.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	defer killDescendants()
	if err := b.build(); err != nil {
		return err
	}
	wanted := make(map[string]bool)
	for _, name := range only {
		wanted[name] = true
	}
	for _, p := range parts {
		if !wanted[p.name] {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", p.name)
		began := time.Now()
		if e := p.f(b); e != nil {
			if b.ctx.Err() != nil {
				return e
			}
			err = errors.Join(err, fmt.Errorf("%s: %w", p.name, e))
		}
		fmt.Fprintf(os.Stderr, "bench: %s took %.0f s\n", p.name, time.Since(began).Seconds())
	}
	return err
}

// build makes the programs: pazinit as it is released, the references, the workers.
func (b *bench) build() error {
	root, err := rig.Root()
	if err != nil {
		return err
	}
	if b.pazinit == "" {
		b.pazinit = filepath.Join(b.dir, "pazinit")
		if err := rig.Build(b.pazinit); err != nil {
			return err
		}
	}
	b.goref, b.stamp, b.ref = filepath.Join(b.dir, "goref"), filepath.Join(b.dir, "stamp"), filepath.Join(b.dir, "ref")
	src := filepath.Join(root, "tests/bench")
	for _, argv := range [][]string{
		{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.goref, "./tests/bench/goref"},
		{"cc", "-static", "-nostdlib", "-O2", "-fno-stack-protector", "-fno-builtin", "-o", b.stamp, filepath.Join(src, "c/stamp.c")},
		{"cc", "-static", "-O2", "-o", b.ref, filepath.Join(src, "c/ref.c")},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", argv[len(argv)-1], err, out)
		}
	}
	return nil
}

// folder makes a new one that only we can enter.
func (b *bench) folder(name string) (string, error) {
	b.unique++
	dir := filepath.Join(b.dir, fmt.Sprintf("%s.%d", name, b.unique))
	return dir, os.Mkdir(dir, 0o700)
}

// size is that of the binary.
func (b *bench) size() error {
	st, err := os.Stat(b.pazinit)
	if err != nil {
		return err
	}
	b.table.section("binary")
	b.table.add(row{What: "size", Who: "pazinit", Value: float64(st.Size()) / 1e6, Unit: "MB", Aim: "< 4.5"})
	return nil
}
