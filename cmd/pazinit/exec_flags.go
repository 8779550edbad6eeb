package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
)

const execFlags = `  --single-child             signals go to the command alone, not to its process group
  --rewrite SIG:SIG          send the one as the other, 15:3 or TERM:QUIT; :0 drops it; as often as needed
  --remap-exit FROM:TO       end with another exit status, 143:0; as often as needed
  --subreaper                adopt orphans although this is not PID 1
  --kill-orphans             when the command has ended, TERM to what is left, and wait for it
  --grace TIME               how long a stop may take as a whole, 30s; then KILL
  --parent-death-signal SIG  ask for this signal when the parent dies; it is sent on
  -v                         tell of signals and ends; -vv and -vvv of more
  -w                         tell of each adopted process that is reaped
`

// execFlagSet are the flags of exec mode.
func execFlagSet(o *soleOptions) *flag.FlagSet {
	fs := flag.NewFlagSet("pazinit", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.BoolVar(&o.single, "single-child", false, "")
	fs.Func("rewrite", "", o.addRewrite)
	fs.Func("remap-exit", "", o.addRemap)
	fs.BoolVar(&o.subreaper, "subreaper", false, "")
	fs.BoolVar(&o.subreaper, "s", false, "")
	fs.BoolVar(&o.killLeft, "kill-orphans", false, "")
	fs.DurationVar(&o.grace, "grace", 0, "")
	fs.Func("parent-death-signal", "", func(v string) (err error) {
		o.parentDeath, err = control.ParseSignal(v)
		return err
	})
	for n, name := range []string{"v", "vv", "vvv"} {
		fs.BoolFunc(name, "", func(string) error { o.verbosity += n + 1; return nil })
	}
	fs.BoolVar(&o.tellReaped, "w", false, "")
	return fs
}

// parseExec reads the flags that stand before -- in exec mode.
func (c *command) parseExec(args, argv []string) (o *soleOptions, code int, ok bool) {
	o = newSoleOptions(own, "pazinit")
	o.argv = argv
	fs := execFlagSet(o)
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(c.stdout, execHelp())
		return nil, 0, false
	case err != nil:
		if name, found := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); found && isRunFlag(name) {
			return nil, c.fail(exitUsage, "-%s is for supervising a Procfile: one command alone, after --, does not take it", name), false
		}
		return nil, c.fail(exitUsage, "%v%s; pazinit -h lists the flags", err, meantFlag(fs, args)), false
	case fs.NArg() > 0:
		return nil, c.fail(exitUsage, "unexpected %q: names go after pazinit run, a command after --%s", fs.Arg(0), meantWord(fs.Arg(0))), false
	case len(argv) == 0:
		return nil, c.fail(exitUsage, "no command after --"), false
	case o.grace < 0:
		return nil, c.fail(exitUsage, "--grace is a time such as 30s, not %v", o.grace), false
	}
	return o, 0, true
}

func isRunFlag(name string) bool {
	var o options
	return runFlagSet(&o).Lookup(name) != nil
}

func isExecFlag(name string) bool { return execFlagSet(newSoleOptions(own, "")).Lookup(name) != nil }

// addRewrite is SIG:SIG.
func (o *soleOptions) addRewrite(v string) error {
	from, to, ok := strings.Cut(v, ":")
	if !ok {
		return errors.New("want SIG:SIG, such as 15:3 or TERM:QUIT")
	}
	s, err := control.ParseSignal(from)
	if err != nil {
		return err
	}
	if s == unix.SIGKILL || s == unix.SIGSTOP || s == unix.SIGCHLD {
		return fmt.Errorf("%s never arrives", nameOf(s))
	}
	as := unix.Signal(0)
	if to != "0" {
		if as, err = control.ParseSignal(to); err != nil {
			return err
		}
	}
	o.rewrite[s] = int8(as)
	return nil
}

// addRemap is FROM:TO.
func (o *soleOptions) addRemap(v string) error {
	from, to, ok := strings.Cut(v, ":")
	a, err1 := strconv.ParseUint(from, 10, 8)
	b, err2 := strconv.ParseUint(to, 10, 8)
	if !ok || err1 != nil || err2 != nil {
		return errors.New("want FROM:TO, exit statuses of 0 to 255, such as 143:0")
	}
	o.remap[int(a)] = int(b)
	return nil
}

func execHelp() string {
	return `pazinit [FLAGS] -- CMD ARGS…: run one command, as tini and dumb-init do

Signals go to the command, its exit status is pazinit's (128 and the signal that
killed it; 127 when it cannot be found, 126 when it cannot be executed), and
orphans are reaped.

` + execFlags + `
Called tini, tini-static, docker-init or dumb-init, it takes that program's flags
and variables instead.
`
}

// persona is the program whose name we were called by.
func persona(argv0 string) (dialect, bool) {
	switch filepath.Base(argv0) {
	case "tini", "tini-static", "docker-init":
		return tini, true
	case "dumb-init":
		return dumbInit, true
	}
	return own, false
}
