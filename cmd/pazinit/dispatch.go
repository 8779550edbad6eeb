package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/machine/network"
	"github.com/pazinit/pazinit/reaper"
)

// dispatch picks the mode: supervising (alone, or run), exec mode (-- CMD, or
// CMD if it is one), or a verb of the client.
func (c *command) dispatch(args []string) int {
	if i := slices.Index(args, "--"); i == 0 || i > 0 && strings.HasPrefix(args[0], "-") {
		o, code, ok := c.parseExec(args[:i], args[i+1:])
		if !ok {
			return code
		}
		return execute(o)
	}
	// A start is not held up by the collector; what it took is given back at its
	// end (shrink). All of this is set here, never by the environment, which workers
	// inherit.
	debug.SetGCPercent(startGC)
	runtime.GOMAXPROCS(min(2, runtime.GOMAXPROCS(0)))
	if len(args) == 0 || strings.HasPrefix(args[0], "-") && !isGlobal(args[0]) {
		return c.supervise(args, false)
	}
	if args[0] == "run" {
		return c.supervise(args[1:], true)
	}
	if control.Lookup(args[0]) == nil && !isWord(args[0]) && (strings.Contains(args[0], "/") || inPath(args[0])) {
		o := newSoleOptions(own, "pazinit")
		o.argv = args
		return execute(o)
	}
	reaper.GiveBack()
	switch args[0] {
	case "-h", "--help", "-help":
		fmt.Fprint(c.stdout, usage())
		return 0
	case "--version":
		fmt.Fprintln(c.stdout, versionText())
		return 0
	case "complete": // for the scripts of completion; not in the table of verbs
		return c.complete(args[1:])
	case networkWord: // what a machine's init runs
		return network.Main(args[1:], c.stdout, c.stderr)
	case "initramfs":
		return c.initramfs(args[1:])
	}
	if control.Lookup(args[0]) != nil {
		return c.client(args)
	}
	return c.fail(exitUsage, "%q is neither a verb nor a program in PATH%s; pazinit -h lists the verbs, pazinit -- CMD runs a program", args[0], meantWord(args[0]))
}

// isWord reports whether arg means something here without being a verb.
func isWord(arg string) bool { return isGlobal(arg) || arg == "complete" }

func isGlobal(arg string) bool {
	switch arg {
	case "-h", "-help", "--help", "--version":
		return true
	}
	return false
}

// words are what may stand first on the command line.
func words() []string {
	out := []string{"run"}
	for _, v := range control.Verbs() {
		out = append(append(out, v.Name), v.Aliases...)
	}
	return out
}

// inPath reports whether name is a program in PATH.
func inPath(name string) bool {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

func usage() string {
	var b strings.Builder
	b.WriteString(`pazinit runs the workers of a Procfile, restarts them, and says why they died.

  pazinit [FLAGS]                supervise the Procfile of this folder
  pazinit run [FLAGS] [NAME…]    supervise, only the named workers if there are any
  pazinit [FLAGS] -- CMD ARGS…   run one command, as tini and dumb-init do
  pazinit VERB …                 ask a running supervisor

Flags of run:
`)
	b.WriteString(runFlags)
	b.WriteString("\nFlags before --:\n")
	b.WriteString(execFlags)
	b.WriteString("\nVerbs (pazinit help VERB explains one):\n")
	for _, v := range control.Verbs() {
		fmt.Fprintf(&b, "  %-28s %s\n", v.Synopsis(), v.Short)
	}
	b.WriteString("\nNAME is shop:web.2, shop:web, web, shop:*, a glob or all.\n")
	b.WriteString("\nExit statuses of the verbs: 0 done, 1 failed, 2 usage, 3 not running,\n4 no such name, 5 not allowed, 6 no supervisor, 7 timed out, 8 plan: something would change.\n")
	return b.String()
}

// runHelp explains supervising.
func runHelp() string {
	return `pazinit run [FLAGS] [NAME…]: supervise the workers of a Procfile

Without flags it takes /etc/pazinit/pazinit.yaml, ./pazinit.yaml or ./Procfile,
the first that there is. With names it starts only those workers.

` + runFlags + `
Exit status: 0 after a requested stop; that of the essential worker that ended,
or of the first failed one when none can run again; 1 when it cannot supervise,
2 for a bad configuration.
`
}
