package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/reaper"
)

// A getopt reads a command line as getopt(3) does.
type getopt struct {
	program string
	short   string   // letters, with a colon behind those that take an argument
	long    []string // names, with an equals sign behind those that take an argument
	permute bool     // options may stand behind operands
	set     func(name, value string) error
	// operands are what is left.
	operands []string
}

var errDone = errors.New("done") // of getopt.set: nothing more is to be read

func (g *getopt) parse(args []string) error {
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		var err error
		switch {
		case a == "--":
			g.operands = append(g.operands, args...)
			return nil
		case a == "-" || !strings.HasPrefix(a, "-"):
			g.operands = append(g.operands, a)
			if !g.permute {
				g.operands = append(g.operands, args...)
				return nil
			}
		case strings.HasPrefix(a, "--") && g.long != nil:
			args, err = g.longOption(a[2:], args)
		default:
			args, err = g.shortOptions(a[1:], args)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *getopt) shortOptions(letters string, rest []string) ([]string, error) {
	for i := 0; i < len(letters); i++ {
		at := strings.IndexByte(g.short, letters[i])
		name := letters[i : i+1]
		switch {
		case at < 0 || name == ":":
			return nil, fmt.Errorf("%s: invalid option -- '%s'", g.program, name)
		case at+1 == len(g.short) || g.short[at+1] != ':':
			if err := g.set(name, ""); err != nil {
				return nil, err
			}
			continue
		case i+1 < len(letters):
			return rest, g.set(name, letters[i+1:])
		case len(rest) == 0:
			return nil, fmt.Errorf("%s: option requires an argument -- '%s'", g.program, name)
		}
		return rest[1:], g.set(name, rest[0])
	}
	return rest, nil
}

func (g *getopt) longOption(text string, rest []string) ([]string, error) {
	name, value, hasValue := strings.Cut(text, "=")
	var match []string
	for _, l := range g.long {
		if bare := strings.TrimSuffix(l, "="); bare == name {
			match = []string{l}
			break
		} else if strings.HasPrefix(bare, name) {
			match = append(match, l)
		}
	}
	switch len(match) {
	case 0:
		return nil, fmt.Errorf("%s: unrecognized option '--%s'", g.program, text)
	case 1:
	default:
		s := ""
		for _, m := range match {
			s += " '--" + strings.TrimSuffix(m, "=") + "'"
		}
		return nil, fmt.Errorf("%s: option '--%s' is ambiguous; possibilities:%s", g.program, text, s)
	}
	bare, takes := strings.CutSuffix(match[0], "=")
	switch {
	case !takes && hasValue:
		return nil, fmt.Errorf("%s: option '--%s' doesn't allow an argument", g.program, bare)
	case takes && !hasValue && len(rest) == 0:
		return nil, fmt.Errorf("%s: option '--%s' requires an argument", g.program, bare)
	case takes && !hasValue:
		value, rest = rest[0], rest[1:]
	}
	return rest, g.set(bare, value)
}

// asPersona runs the command line args of the program d, called argv0.
func (c *command) asPersona(d dialect, argv0 string, args []string) int {
	o := newSoleOptions(d, argv0)
	var code int
	var ok bool
	if d == tini {
		code, ok = c.parseTini(o, args)
	} else {
		code, ok = c.parseDumbInit(o, args)
	}
	if !ok {
		return code
	}
	return execute(o)
}

const (
	tiniVersion     = "tini version 0.19.0"
	dumbInitVersion = "dumb-init v1.2.5"
)

// parseTini reads tini's flags, and then its variables.
func (c *command) parseTini(o *soleOptions, args []string) (code int, ok bool) {
	base := filepath.Base(o.name)
	o.single = true
	if len(args) == 1 && args[0] == "--version" {
		fmt.Fprintln(c.stdout, tiniVersion)
		return 0, false
	}
	fatal := func(format string, a ...any) {
		fmt.Fprintf(c.stderr, "[FATAL tini (%d)] "+format+"\n", append([]any{os.Getpid()}, a...)...)
	}
	_, posix := os.LookupEnv("POSIXLY_CORRECT")
	told := false
	g := &getopt{program: o.name, short: "p:hvwgle:s", permute: !posix}
	g.set = func(name, value string) error {
		switch name {
		case "h":
			fmt.Fprint(c.stdout, tiniUsage(base))
			return errDone
		case "l":
			fmt.Fprint(c.stdout, license)
			return errDone
		case "s":
			o.subreaper = true
		case "v":
			o.verbosity++
		case "w":
			o.tellReaped = true
		case "g":
			o.single = false
		case "p":
			s := unix.SignalNum(value)
			if s == 0 || slices.Contains([]string{"SIGPWR", "SIGIO", "SIGPOLL", "SIGSTKFLT", "SIGIOT", "SIGCLD"}, value) {
				fatal("Not a valid option for -p: %s", value)
				told = true
				return errors.New(value)
			}
			o.parentDeath = s
		case "e":
			n, err := 0, error(nil)
			if v := strings.TrimLeft(value, " \t\n\v\f\r"); value != "" {
				n, err = strconv.Atoi(v)
			}
			if err != nil || n < 0 || n > 255 {
				fatal("Not a valid option for -e: %s", value)
				told = true
				return errors.New(value)
			}
			o.remap[n] = 0
		}
		return nil
	}
	err := g.parse(args)
	switch {
	case errors.Is(err, errDone):
		return 0, false
	case err != nil && !told:
		fmt.Fprintf(c.stderr, "%v\n%s", err, tiniUsage(base))
		return 1, false
	case err != nil:
		return 1, false
	case len(g.operands) == 0:
		fmt.Fprint(c.stderr, tiniUsage(base))
		return 1, false
	}
	o.argv = g.operands
	if _, set := os.LookupEnv("TINI_SUBREAPER"); set {
		o.subreaper = true
	}
	if _, set := os.LookupEnv("TINI_KILL_PROCESS_GROUP"); set {
		o.single = false
	}
	if v, set := os.LookupEnv("TINI_VERBOSITY"); set {
		if o.verbosity, _, _ = leadingInt(v); o.verbosity < 0 { // tini has no sign for it
			o.verbosity = 4
		}
	}
	return 0, true
}

func tiniUsage(base string) string {
	return base + " (" + tiniVersion + `)
Usage: ` + base + ` [OPTIONS] PROGRAM -- [ARGS] | --version

Execute a program under the supervision of a valid init process (` + base + `)

Options (pazinit takes this name's):

  --version    print the version, as the only argument
  -h           print this and exit
  -s           become a subreaper: needed when this is not PID 1
  -p SIGNAL    get this signal when the parent dies
  -v           more verbose, as often as needed
  -w           warn of each orphan that is reaped
  -g           send signals to the program's process group
  -e STATUS    end with 0 instead of this exit status, as often as needed
  -l           print the licence and exit

Variables:

  TINI_SUBREAPER           as -s
  TINI_VERBOSITY           a number: the verbosity (1)
  TINI_KILL_PROCESS_GROUP  as -g
`
}

const license = "pazinit is under the licence in the file LICENSE of its source.\n"

// parseDumbInit reads dumb-init's flags, and then its variables.
func (c *command) parseDumbInit(o *soleOptions, args []string) (code int, ok bool) {
	o.grouping = reaper.OwnSession
	refused := func(s string) (int, bool) {
		fmt.Fprint(c.stderr, s)
		return 1, false
	}
	g := &getopt{
		program: o.name, short: "hvVcr:",
		long: []string{"help", "single-child", "rewrite=", "verbose", "version"},
	}
	g.set = func(name, value string) error {
		switch name {
		case "h", "help":
			fmt.Fprint(c.stderr, dumbInitUsage(o.name))
			return errDone
		case "V", "version":
			fmt.Fprintln(c.stderr, dumbInitVersion)
			return errDone
		case "c", "single-child":
			o.grouping, o.single = reaper.SameGroup, true
		case "v", "verbose":
			o.verbosity = 2
		case "r", "rewrite":
			from, to, ok := scanPair(value)
			if !ok || from < 1 || from > 31 || to < 0 || to > 31 {
				return errors.New("Usage: -r option takes <signum>:<signum>, where <signum> is between 1 and 31.\n" + //nolint:staticcheck // as dumb-init has it
					"This option can be specified multiple times.\nUse --help for full usage.")
			}
			o.rewrite[from] = int8(to)
		}
		return nil
	}
	switch err := g.parse(args); {
	case errors.Is(err, errDone):
		return 0, false
	case err != nil:
		return refused(err.Error() + "\n")
	case len(g.operands) == 0:
		return refused("Usage: " + o.name + " [option] program [args]\nTry " + o.name + " --help for full usage.\n")
	}
	o.argv = g.operands
	if os.Getenv("DUMB_INIT_DEBUG") == "1" {
		o.verbosity = 2
		fmt.Fprintln(c.stderr, "[dumb-init] Running in debug mode.")
	}
	if os.Getenv("DUMB_INIT_SETSID") == "0" {
		o.grouping, o.single = reaper.SameGroup, true
		if o.verbosity > 1 {
			fmt.Fprintln(c.stderr, "[dumb-init] Not running in setsid mode.")
		}
	}
	return 0, true
}

// scanPair is scanf(3)'s "%d:%d": what follows does not matter.
func scanPair(s string) (a, b int, ok bool) {
	a, s, ok = leadingInt(s)
	if !ok || !strings.HasPrefix(s, ":") {
		return 0, 0, false
	}
	b, _, ok = leadingInt(s[1:])
	return a, b, ok
}

// leadingInt is strtol(3): white space, a sign and digits.
func leadingInt(s string) (n int, rest string, ok bool) {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || end == 0 && (s[end] == '-' || s[end] == '+')) {
		end++
	}
	n, err := strconv.Atoi(s[:end])
	return n, s[end:], err == nil
}

func dumbInitUsage(name string) string {
	return dumbInitVersion + "\nUsage: " + name + ` [option] command [[arg] ...]

dumb-init is a simple process supervisor that forwards signals to children.
It is designed to run as PID1 in minimal container environments.

Optional arguments:
   -c, --single-child   Run in single-child mode.
                        In this mode, signals are only proxied to the
                        direct child and not any of its descendants.
   -r, --rewrite s:r    Rewrite received signal s to new signal r before proxying.
                        To ignore (not proxy) a signal, rewrite it to 0.
                        This option can be specified multiple times.
   -v, --verbose        Print debugging information to stderr.
   -h, --help           Print this help message and exit.
   -V, --version        Print the current version and exit.

Full help is available online at https://github.com/Yelp/dumb-init
`
}
