package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	pazinit "github.com/pazinit/pazinit/init"
	"github.com/pazinit/pazinit/procfile"
	"github.com/pazinit/pazinit/reaper"
	"github.com/pazinit/pazinit/reaper/signals"
)

// options are the flags of supervising.
type options struct {
	config, procfile, socket, format string
	ifNotRunning                     bool
	names                            []string
}

const runFlags = `  -c CONFIG             the configuration (default: /etc/pazinit/pazinit.yaml, ./pazinit.yaml)
  -f PROCFILE           a Procfile, or the folder that holds one (default: ./Procfile)
  --socket PATH         the control socket (default: $PAZINIT_SOCKET, socket_path, the user's default)
  --log-format FORMAT   of the console: auto, plain, json or raw
  --if-not-running      end with status 0 when a supervisor has the socket already
`

// runFlagSet are the flags of supervising.
func runFlagSet(o *options) *flag.FlagSet {
	fs := flag.NewFlagSet("pazinit", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.config, "c", "", "")
	fs.StringVar(&o.config, "config", "", "")
	fs.StringVar(&o.procfile, "f", "", "")
	fs.StringVar(&o.socket, "socket", "", "")
	fs.StringVar(&o.format, "log-format", "auto", "")
	fs.BoolVar(&o.ifNotRunning, "if-not-running", false, "")
	return fs
}

// parse reads the flags.
func (c *command) parse(args []string, named bool) (o options, code int, ok bool) {
	fs := runFlagSet(&o)
	err := fs.Parse(args)
	o.names = fs.Args()
	if named { // flags may stand behind names
		o.names = nil
		for err == nil && fs.NArg() > 0 {
			o.names = append(o.names, fs.Arg(0))
			err = fs.Parse(fs.Args()[1:])
		}
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		text := usage()
		if named {
			text = runHelp()
		}
		fmt.Fprint(c.stdout, text)
		return o, 0, false
	case err != nil:
		if name, found := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); found && isExecFlag(name) {
			return o, c.fail(exitUsage, "-%s is for running one command: put -- before that", name), false
		}
		return o, c.fail(exitUsage, "%v%s; pazinit -h lists the flags", err, meantFlag(fs, args)), false
	}
	if len(o.names) > 0 && !named && !isVerb(o.names[0]) {
		return o, c.fail(exitUsage, "unexpected %q: names go after pazinit run, a command after --%s", o.names[0], meantWord(o.names[0])), false
	}
	switch o.format {
	case "auto", "plain", "json", "raw":
	default:
		return o, c.fail(exitUsage, "--log-format is auto, plain, json or raw, not %q", o.format), false
	}
	return o, 0, true
}

// meantFlag suggests a flag for the first one that is not known.
func meantFlag(fs *flag.FlagSet, args []string) string {
	var known []string
	fs.VisitAll(func(f *flag.Flag) { known = append(known, "--"+f.Name) })
	for _, a := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !strings.HasPrefix(a, "-") || fs.Lookup(name) != nil {
			continue
		}
		if best := control.Nearest("--"+name, known); best != "" {
			return " (did you mean " + best + "?)"
		}
		return ""
	}
	return ""
}

// meantWord suggests a verb.
func meantWord(word string) string {
	if best := control.Nearest(word, words()); best != "" {
		return " (did you mean " + best + "?)"
	}
	return ""
}

// supervise runs the workers of a configuration.
func (c *command) supervise(args []string, named bool) int {
	o, code, ok := c.parse(args, named)
	if !ok {
		return code
	}
	if !named && len(o.names) > 0 {
		return c.verbAfterFlags(o, args)
	}
	runtime.UnlockOSThread() // of init: nothing here is for the first thread
	place, to := pazinit.FindPlace(), make(chan *pazinit.Supervisor, 1)
	if c.host != nil {
		place.PID1, place.Initial = true, true // also without /proc
	}
	if c.host != nil && c.host.hears {
		to = nil // they are heard already
	} else if place.PID1 { // a stop that comes early is a stop, and waits until there is something to stop
		if err := c.forward(to, place); err != nil {
			return c.fail(1, "%v", err)
		}
	} else {
		reaper.GiveBack() // Ctrl-C ends what hangs until signals are caught
	}
	load, cfg, code := c.load(o)
	if cfg == nil {
		return code
	}
	path := o.socketPath(cfg)
	s, err := pazinit.New(pazinit.Options{
		Config: cfg, Reload: load, Only: o.names, Format: o.format,
		Ends: ends(place), Conditions: c.host.conditions(),
		Place: place, Raise: true, Version: versionText(), Settled: c.settled, Syslog: receiveSyslog,
	})
	if err != nil {
		return c.fail(exitUsage, "%v", err)
	}
	server, err := listen(cfg, path, s)
	var inUse *control.InUseError
	var folder *control.FolderError
	switch {
	case errors.As(err, &inUse) && o.ifNotRunning:
		fmt.Fprintf(c.stdout, "pazinit: %v\n", err)
		return 0
	case err != nil && c.host != nil, // a machine is more than its socket
		errors.Is(err, unix.EMFILE), errors.As(err, &folder) && (!folder.Unsafe || !o.named(cfg)):
		// No write is mandatory: without a place for it there is no socket. Only a
		// folder that was asked for and cannot be trusted is refused.
		fmt.Fprintf(c.stderr, "pazinit: without a control socket: %v\n", err)
	case err != nil:
		return c.fail(1, "%v", err)
	}
	if f := cfg.PIDFile; f != "" {
		if err := pazinit.WritePIDFile(f, os.Getpid()); err != nil {
			fmt.Fprintf(c.stderr, "pazinit: %v\n", err)
		} else {
			defer pazinit.RemovePIDFile(f, os.Getpid())
		}
	}
	if server != nil {
		go func() {
			defer panicked(s, "the socket")
			_ = server.Serve()
		}()
		defer server.Close()
	}
	if !place.PID1 {
		if err := c.forward(to, place); err != nil {
			return c.fail(1, "%v", err)
		}
	}
	if to != nil {
		to <- s
	}
	if c.host != nil {
		c.host.supervising(s)
	}
	settleProcess()
	if c.host == nil {
		spareThreads(threads)
	}
	code, err = s.Run(context.Background())
	if err != nil {
		return c.fail(code, "%v", err)
	}
	c.onEnd, c.ran = s.OnEnd(), true
	return code
}

// threads is how many are made ahead of need, see spareThreads.
const threads = 12

// settled is what is done when all has been started. A machine, of whose numbers
// nobody but its workers can take any, makes its threads only then: each start of
// it counts.
func (c *command) settled() {
	if c.host != nil {
		spareThreads(threads)
	}
	shrink()
}

func isVerb(word string) bool { return word == "run" || control.Lookup(word) != nil }

// verbAfterFlags is pazinit --socket PATH status: flags before the verb count as
// if they stood behind it.
func (c *command) verbAfterFlags(o options, args []string) int {
	before := args[:len(args)-len(o.names)]
	if o.names[0] == "run" {
		return c.supervise(append(slices.Clone(before), o.names[1:]...), true)
	}
	reaper.GiveBack()
	return c.client(append([]string{o.names[0]}, append(slices.Clone(before), o.names[1:]...)...))
}

// load reads the configuration; the function it returns does so again.
func (c *command) load(o options) (load func() (*procfile.Config, error), cfg *procfile.Config, code int) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, nil, c.fail(1, "find the current folder: %v", err)
	}
	po := procfile.Options{Config: o.config, Procfile: o.procfile, Dir: dir, UID: os.Geteuid(), GID: os.Getegid()}
	read := func() (*procfile.Config, error) { return procfile.Load(po) }
	if c.host != nil {
		read = c.host.load
	}
	load = func() (*procfile.Config, error) {
		cfg, err := read()
		debug.FreeOSMemory() // the parser's trees are many times what is kept
		return cfg, err
	}
	cfg, err = read() // shrink does it after the start
	var errs procfile.Errors
	switch {
	case errors.As(err, &errs):
		for _, e := range errs {
			fmt.Fprintf(c.stderr, "pazinit: %v\n", e)
		}
		return nil, nil, exitUsage
	case err != nil:
		return nil, nil, c.fail(exitUsage, "%v", err)
	}
	return load, cfg, 0
}

// socketPath is where the control socket goes: the flag, PAZINIT_SOCKET, the
// configuration, the user's default.
func (o *options) socketPath(cfg *procfile.Config) string {
	path := o.socket
	if path == "" {
		path = os.Getenv("PAZINIT_SOCKET")
	}
	if path == "" && cfg != nil {
		path = cfg.SocketPath
	}
	if path == "" {
		path = control.DefaultSocket(os.Geteuid(), os.Getenv)
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return path
}

// named reports whether somebody said where the socket is to be.
func (o *options) named(cfg *procfile.Config) bool {
	return o.socket != "" || os.Getenv("PAZINIT_SOCKET") != "" || cfg.SocketPath != ""
}

// leastFiles is a limit of open files that leaves some for the socket.
const leastFiles = 32

// listen opens the control socket and the FIFO.
func listen(cfg *procfile.Config, path string, s *pazinit.Supervisor) (*control.Server, error) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && limit.Cur < leastFiles {
		return nil, fmt.Errorf("the limit of open files is %d, less than %d: %w", limit.Cur, leastFiles, unix.EMFILE)
	}
	o := control.ServerOptions{
		Path: path, Mode: cfg.SocketMode, OwnerUID: -1, OwnerGID: -1,
		Handler: s.Handle, Log: func(msg string) { s.Log(msg) }, Panicked: s.Panicked,
	}
	if u := cfg.SocketOwner; u != nil {
		if u.UIDSet {
			o.OwnerUID = int(u.UID)
		}
		if u.GIDSet || u.UIDSet {
			o.OwnerGID = int(u.GID)
		}
	}
	if o.Mode == 0 && opensToOthers(cfg) {
		o.Mode = 0o666 // each request is checked by its peer
	}
	return control.Listen(o)
}

// opensToOthers reports whether the configuration gives anybody else a verb.
func opensToOthers(cfg *procfile.Config) bool {
	if len(cfg.Access) > 0 {
		return true
	}
	for _, a := range cfg.Applications {
		if len(a.Access) > 0 {
			return true
		}
		for _, w := range a.Workers {
			if len(w.Access) > 0 {
				return true
			}
		}
	}
	return false
}

// forward gives the supervisor that comes from to the signals that this process
// gets, to the end: one that comes last must not have its default action, such as
// a core dump. SIGCHLD is the reaper's.
func (c *command) forward(to <-chan *pazinit.Supervisor, place pazinit.Place) error {
	caught := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := signals.Catch(unix.SIGCHLD)
		caught <- err
		if err != nil {
			return
		}
		for s := <-to; ; {
			if i, ok := signals.Wait(-1); ok && i.PID != os.Getpid() { // SIGPIPE, when nobody reads what it writes
				c.signal(s, i, place)
			}
		}
	}()
	return <-caught
}

// signal is one signal to this process.
func (c *command) signal(s *pazinit.Supervisor, i signals.Info, place pazinit.Place) {
	defer panicked(s, "signals")
	switch {
	case c.host != nil:
		c.host.signal(s, i)
	case i.Signal == unix.SIGTSTP && !place.PID1 && place.Terminal && !i.Sent():
		_ = unix.Kill(0, unix.SIGSTOP) // Ctrl-Z, in the foreground of a shell
	default:
		s.SignalFrom(i.Signal, sender(i))
	}
}

// panicked is to be deferred: it tells of a panic, and the program goes on.
func panicked(s *pazinit.Supervisor, where string) {
	if v := recover(); v != nil {
		s.Panicked(where, v)
	}
}

// settleProcess makes a daemon of this process: its folder keeps no file system
// busy, and what it was started with beyond 0, 1 and 2 goes to no worker.
func settleProcess() {
	_ = os.Chdir("/")
	_ = unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC) // Linux 5.11
}
