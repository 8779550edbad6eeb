package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/procfile"
)

// systemConfig is the configuration that a client looks into without being told.
const systemConfig = "/etc/pazinit/pazinit.yaml"

// patience is how much longer than its --timeout a client waits for an answer:
// a supervisor that hangs does not keep the time.
const patience = 2 * time.Second

// A client is one request to a supervisor and how its answer is shown.
type client struct {
	*command
	req    *control.Request
	json   bool
	out    *bufio.Writer
	screen screen
}

// client carries out a verb.
func (c *command) client(args []string) int {
	req, local, err := control.ParseArgs(args)
	var usage *control.UsageError
	if errors.As(err, &usage) && usage.Verb != "" {
		return c.fail(exitUsage, "%v; pazinit help %s explains it", err, usage.Verb)
	}
	if err != nil {
		return c.fail(exitUsage, "%v", err)
	}
	if _, ok := local["help"]; ok {
		return c.help([]string{req.Verb})
	}
	_, asJSON := local["json"]
	switch req.Verb {
	case "help":
		return c.help(req.Names)
	case "check":
		return c.check(options{config: local["config"], procfile: local["procfile"]}, asJSON)
	case "doctor":
		return c.doctor(options{config: local["config"], procfile: local["procfile"], socket: local["socket"]}, asJSON)
	case "completion":
		return c.completion(req.Names)
	}
	k := &client{command: c, req: req, json: asJSON, out: bufio.NewWriter(c.stdout), screen: screenOf(c.stdout)}
	code := k.do(local["socket"], local["config"])
	if err := k.out.Flush(); err != nil && code == 0 {
		return c.fail(control.ExitFailed, "%v", err)
	}
	return code
}

// do connects, asks and shows the answer.
func (k *client) do(socket, config string) int {
	cl, code := k.connect(socket, config)
	if cl == nil {
		if k.req.Verb == "version" && code == control.ExitNoServer {
			return k.showVersion(&control.Reply{})
		}
		return code
	}
	defer cl.Close()
	ctx := context.Background()
	if k.req.Follow {
		// Ctrl-C is how one ends to follow, up to the last moment: given back, it
		// would kill what is about to end well.
		ctx, _ = signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	}
	if control.EndsAll(k.req.Verb) {
		lateTerm(time.Second)
	}
	if d, err := time.ParseDuration(k.req.Timeout); err == nil {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, d+patience)
		defer stop()
	}
	var r *control.Reply
	var err error
	switch k.req.Verb {
	case "status":
		r, err = k.status(ctx, cl)
	case "logs":
		p := prefixer{color: k.screen.color}
		r, err = k.stream(ctx, cl, p.line)
	case "events":
		p := prefixer{color: k.screen.color}
		r, err = k.stream(ctx, cl, p.event)
	default:
		r, err = cl.Do(ctx, k.req, nil)
	}
	switch {
	case err == nil:
		return k.finish(r)
	case k.req.Follow && errors.Is(err, context.Canceled):
		return control.ExitDone
	case errors.Is(err, context.DeadlineExceeded):
		return k.fail(control.ExitTimeout, "%s: the supervisor does not answer", k.req.Verb)
	case hasEnded(err) && control.EndsAll(k.req.Verb):
		return k.finish(&control.Reply{Done: true, Message: "stopped"})
	case hasEnded(err) && k.req.Follow:
		return k.finish(&control.Reply{Done: true})
	case hasEnded(err):
		return k.fail(control.ExitFailed, "%s: the supervisor has ended without an answer", k.req.Verb)
	}
	return k.fail(control.ExitFailed, "%v", err)
}

// lateTerm lets SIGTERM end this process only when d has passed: who entered a
// container to end it is told to stop like everybody there, in the moment when
// the answer comes. It is for good, up to the last moment.
func lateTerm(d time.Duration) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGTERM)
	go func() {
		<-told
		time.Sleep(d)
		signal.Reset(unix.SIGTERM)
		_ = unix.Kill(os.Getpid(), unix.SIGTERM)
	}()
}

// hasEnded reports whether err says that the supervisor closed the connection.
func hasEnded(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// connect finds the socket and the supervisor on it, or says why not.
func (k *client) connect(socket, config string) (*control.Client, int) {
	path, note, err := clientSocket(socket, config)
	if err != nil {
		return nil, k.failLines(exitUsage, err.Error())
	}
	cl, err := control.Dial(path)
	if err == nil {
		return cl, 0
	}
	code, hint := control.ExitFailed, ""
	switch {
	case errors.Is(err, control.ErrNoServer):
		code, hint = control.ExitNoServer, "; --socket, -c or PAZINIT_SOCKET name another one"
	case errors.Is(err, control.ErrDenied):
		code, hint = control.ExitDenied, "; socket_mode and access in the configuration give others some verbs"
	}
	if k.req.Verb == "version" && code == control.ExitNoServer {
		return nil, code
	}
	if shell := shellHint(os.Getenv(thenVariable)); shell != "" && code == control.ExitNoServer {
		err, hint = errors.New("nothing is supervised yet"), "; "+shell
	}
	k.fail(code, "%v%s", err, hint)
	if note != nil {
		k.failLines(code, note.Error())
	}
	return nil, code
}

// shellHint tells who is in a machine's shell, which stands where its supervisor
// will, or would be, what it leads to; "" in no such shell.
func shellHint(then string) string {
	switch then, _, _ = strings.Cut(then, argSeparator); then {
	case thenBoot:
		return "exit ends this shell and goes on with the boot; pazinit check and pazinit doctor work here"
	case thenReboot:
		return "this shell is that of an emergency, and its end starts the machine again; pazinit check and pazinit doctor work here"
	}
	return ""
}

// clientSocket is the socket that a client talks to: the flag, PAZINIT_SOCKET,
// that of the configuration which was named, or else of the system's, the user's
// default. Never that of the current folder: whoever may write there must not
// lead others to a supervisor of his. note is why the system's configuration,
// which nobody named, could not be read.
func clientSocket(socket, config string) (path string, note, err error) {
	o := options{socket: socket}
	var cfg procfile.Config
	if socket == "" && os.Getenv("PAZINIT_SOCKET") == "" {
		if config != "" {
			if cfg.SocketPath, err = procfile.SocketPath(config); err != nil {
				return "", nil, err
			}
		} else if _, err := os.Stat(systemConfig); err == nil {
			cfg.SocketPath, note = procfile.SocketPath(systemConfig)
		}
	}
	return o.socketPath(&cfg), note, nil
}

// finish shows the last line of the answer and gives the exit status.
func (k *client) finish(r *control.Reply) int {
	streams := k.req.Verb == "status" || (k.req.Verb == "logs" || k.req.Verb == "events") && !k.req.Clear
	switch {
	case k.req.Verb == "version" && r.Error == "":
		return k.showVersion(r)
	case k.json && !streams:
		_, _ = k.out.Write(control.AppendJSON(nil, r))
		return r.Code
	}
	if k.req.Verb == "status" && !k.req.Follow && r.Error == "" {
		k.showStatus(r)
	}
	if r.Missed > 0 {
		k.missed(r.Missed)
	}
	if r.Plan != nil {
		k.showPlan(r.Plan)
	}
	for _, res := range r.Results {
		k.result(&res)
	}
	switch {
	case r.Message != "":
		fmt.Fprintln(k.out, r.Message)
	case k.req.Verb == "pid" && r.PID != 0:
		fmt.Fprintln(k.out, r.PID)
	}
	if r.Error != "" {
		_ = k.out.Flush()
		if r.Code == control.ExitUsage { // errors that begin with their place
			return k.failLines(r.Code, r.Error)
		}
		return k.failLines(max(r.Code, control.ExitFailed), k.req.Verb+": "+r.Error)
	}
	if k.req.Follow && r.Code == 0 {
		_ = k.out.Flush()
		fmt.Fprintln(k.stderr, "pazinit: the supervisor has ended")
	}
	return r.Code
}

// failLines is fail for a text of several lines, such as the errors of a
// configuration.
func (c *command) failLines(code int, text string) int {
	for line := range strings.Lines(text) {
		c.fail(code, "%s", strings.TrimSuffix(line, "\n"))
	}
	return code
}

// result shows what became of one name.
func (k *client) result(r *control.Result) {
	if !r.OK {
		_ = k.out.Flush() // what went well stands before what did not
		text := r.Message
		if r.State != "" && r.Code != control.ExitNotRunning {
			text = r.State + ", " + r.Message
		}
		if r.State != "" && r.Message == "" {
			text = r.State
		}
		k.fail(r.Code, "%s: %s", r.Name, text)
		return
	}
	if k.req.Verb == "pid" {
		fmt.Fprintln(k.out, r.PID)
		return
	}
	var parts []string
	if k.req.Verb == "signal" {
		parts = append(parts, "sent "+signalName(k.req.Signal))
	} else if r.State != "" {
		parts = append(parts, r.State)
	}
	if r.PID != 0 {
		parts = append(parts, "pid "+strconv.Itoa(r.PID))
	}
	if r.Message != "" {
		parts = append(parts, r.Message)
	}
	fmt.Fprintf(k.out, "%s: %s\n", r.Name, strings.Join(parts, ", "))
}

// signalName is a signal that the supervisor took, as SIGHUP.
func signalName(text string) string {
	if sig, err := control.ParseSignal(text); err == nil {
		if name := unix.SignalName(sig); name != "" {
			return name
		}
	}
	return text
}

// showPlan shows what a reload would do, or did, as diff does.
func (k *client) showPlan(p *control.Plan) {
	marks := map[string]string{"add": "+", "remove": "-", "keep": "="}
	var rows [][]string
	kept := 0
	for _, ch := range p.Changes {
		mark, text := marks[ch.Op], ch.Message
		if mark == "" {
			mark = "~"
		}
		if ch.Op == "keep" {
			kept++
		}
		if len(ch.Keys) > 0 {
			text = strings.Join(ch.Keys, ", ") + ": " + text
		}
		rows = append(rows, []string{mark + " " + ch.Name, text})
	}
	for _, line := range align(rows, nil) {
		if code := planColors[line[:1]]; k.screen.color && code != "" {
			line = "\x1b[" + code + "m" + line + "\x1b[0m"
		}
		fmt.Fprintln(k.out, line)
	}
	if kept == len(p.Changes) {
		if k.req.Verb == "plan" {
			fmt.Fprintln(k.out, "nothing would change")
		} else {
			fmt.Fprintln(k.out, "nothing to change")
		}
	}
}

var planColors = map[string]string{"+": "32", "-": "31", "~": "33"}

// showVersion shows the client's own version and the supervisor's.
func (k *client) showVersion(r *control.Reply) int {
	if k.json {
		_, _ = k.out.Write(control.AppendJSON(nil, struct {
			Client string `json:"client"`
			Server string `json:"server,omitempty"`
			PID    int    `json:"pid,omitempty"`
		}{versionText(), r.Version, r.PID}))
		return 0
	}
	fmt.Fprintln(k.out, versionText())
	if r.Version != "" {
		fmt.Fprintf(k.out, "supervisor: %s, pid %d\n", r.Version, r.PID)
	}
	return 0
}

// help explains a verb, or lists them.
func (c *command) help(names []string) int {
	if len(names) == 0 {
		fmt.Fprint(c.stdout, usage())
		return 0
	}
	if names[0] == "run" {
		fmt.Fprint(c.stdout, runHelp())
		return 0
	}
	v := control.Lookup(names[0])
	if v == nil {
		hint := ""
		if s := control.Nearest(names[0], words()); s != "" {
			hint = fmt.Sprintf(" (did you mean %s?)", s)
		}
		return c.fail(exitUsage, "unknown verb %q%s; pazinit -h lists the verbs", names[0], hint)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "pazinit %s: %s\n\n", v.Synopsis(), v.Short)
	for line := range strings.Lines(v.Long) {
		wrap(&b, strings.TrimSuffix(line, "\n"), 78)
	}
	if len(v.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAlso: %s\n", strings.Join(v.Aliases, ", "))
	}
	b.WriteString("\n")
	for _, f := range flagsOf(v) {
		fmt.Fprintf(&b, "  %-28s %s\n", f.Synopsis(), f.Help)
	}
	fmt.Fprint(c.stdout, b.String())
	return 0
}

// flagsOf are all flags of v that make sense.
func flagsOf(v *control.Verb) []control.Flag {
	flags := append([]control.Flag{}, v.Flags...)
	for _, f := range control.Global {
		if talks := !v.Local && v.Name != "help"; talks || f.Name == "help" || v.Name == "doctor" || f.Name == "config" && v.Name == "check" {
			flags = append(flags, f)
		}
	}
	return flags
}

// wrap writes text in lines of at most width.
func wrap(b *strings.Builder, text string, width int) {
	n := 0
	for word := range strings.FieldsSeq(text) {
		switch w := len([]rune(word)); {
		case n == 0:
			n = w
		case n+1+w > width:
			b.WriteByte('\n')
			n = w
		default:
			b.WriteByte(' ')
			n += 1 + w
		}
		b.WriteString(word)
	}
	b.WriteByte('\n')
}
