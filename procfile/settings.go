package procfile

import (
	"slices"
	"strings"
	"time"
)

// maxInstances bounds num_instances; a machine has no more processes than that.
const maxInstances = 100_000

// maxStopSteps bounds a stop sequence.
const maxStopSteps = 16

// A scratch is what has been read of a worker and cannot be settled before all
// of its keys have been. An application's is the beginning of its workers'.
type scratch struct {
	command, run, args    *node
	user, group           *node
	stdin, stdout, stderr *node
	pidFile, tty          *node
	instances             *node
	env                   []*node // maps, the application's first
	envFiles              []*node
	stopSignal            *node
	stopTimeout           time.Duration
	userIsOwn             bool // of the worker, not of its application
	envIsOwn              bool
}

func (l *loader) readLogPath(n *node) {
	path, ok := l.text(n, "a path, syslog or stderr")
	switch {
	case !ok:
	case path == "stderr":
		l.cfg.LogPath = ""
	case path == "syslog":
		l.cfg.LogPath = path
	default:
		l.cfg.LogPath = absolute(path, l.dirOf(n))
	}
}

// maxSocketPath is what fits into a socket's address with the final NUL.
const maxSocketPath = 107

func (l *loader) readSocketPath(n *node) {
	path, ok := l.path(n, l.dirOf(n))
	if !ok {
		return
	}
	if len(path) > maxSocketPath {
		l.fail(n, "", "%s has %d bytes, a socket's path has at most %d", quote(path), len(path), maxSocketPath)
		return
	}
	l.cfg.SocketPath = path
}

func (l *loader) readSocketOwner(n *node) {
	const meant = "USER, USER:GROUP or :GROUP"
	s, ok := l.text(n, meant)
	if !ok {
		return
	}
	name, group, grouped := strings.Cut(s, ":")
	var u *User
	if name != "" {
		var err error
		if u, err = l.accounts.user(name); err != nil {
			l.failErr(n, err)
			return
		}
	}
	if grouped {
		gid, err := l.accounts.groupID(group)
		if err != nil {
			l.failErr(n, err)
			return
		}
		u = withGroup(u, uint32(l.opts.UID), gid)
	}
	l.cfg.SocketOwner = u
}

// verbs are the keys of access: the verbs of the socket, and clear and maintail
// for the logs that are emptied and for pazinit's own.
var verbs = []string{
	"add", "clear", "events", "halt", "help", "kexec", "logs", "maintail", "pid", "plan", "poweroff", "reboot", "reload",
	"remove", "reopen", "restart", "scale", "shutdown", "signal", "start", "status", "stop", "version",
}

// AccessVerbs lists what access can be given to.
func AccessVerbs() []string { return slices.Clone(verbs) }

func (l *loader) readAccess(n *node) {
	const meant = "VERB: [user:NAME, group:NAME]"
	if n.null {
		return
	}
	if n.kind != mapping {
		l.refuse(n, meant)
		return
	}
	access := make(Access)
	for _, e := range n.keys {
		if !slices.Contains(verbs, e.key) {
			l.errs.add(e.pos, didYouMean(e.key, verbs), "%s: unknown verb %s", l.at, quote(e.key))
			continue
		}
		access[e.key] = []Principal{}
		for _, item := range l.texts(e.value, meant) {
			sort, name, _ := strings.Cut(item.text, ":")
			p := Principal{Group: sort == "group", Name: item.text}
			var err error
			switch sort {
			case "user":
				var u *User
				if u, err = l.accounts.user(name); err == nil {
					p.ID = u.UID
				}
			case "group":
				p.ID, err = l.accounts.groupID(name)
			default:
				l.fail(item, "user:NAME or group:NAME", "bad principal %s", quote(item.text))
				continue
			}
			if err != nil {
				l.failErr(item, err)
				continue
			}
			access[e.key] = append(access[e.key], p)
		}
	}
	switch l.level {
	case AtTop:
		l.cfg.Access = access
	case AtApplication:
		l.app.Access = access
	case AtWorker:
		l.w.Access = access
	case AtCgroups, AtBackoff, AtOutput, AtMount, AtMachine, AtInterface, both: // have no such key
	}
}

func (l *loader) readCgroups(n *node) { l.section(n, AtCgroups) }

func (l *loader) readHierarchyRoot(n *node) {
	s, ok := l.text(n, "a group's path below the mount")
	if !ok {
		return
	}
	if first := l.hierarchy; first != nil {
		l.fail(n, "only one of hierarchy_root and hiearchy_root", "it is already given in %s", first.pos)
		return
	}
	l.hierarchy = n
	parts := strings.Split(strings.Trim(s, "/"), "/")
	for _, p := range parts {
		if p == "" || p == "." || p == ".." {
			l.fail(n, "names with / between them", "bad group %s", quote(s))
			return
		}
	}
	l.cfg.Cgroups.HierarchyRoot = strings.Join(parts, "/")
	l.cfg.Cgroups.HierarchyRootSet = true
}

func (l *loader) readSubsystems(n *node) {
	var names []string
	for _, item := range l.texts(n, "a controller's name or a list of them") {
		if badName(item.text) != "" {
			l.fail(item, "memory, cpu, cpuacct, blkio, ...", "bad controller %s", quote(item.text))
			continue
		}
		if !slices.Contains(names, item.text) {
			names = append(names, item.text)
		}
	}
	l.cfg.Cgroups.Subsystems = names
}

func (l *loader) readInstances(n *node) {
	l.sc.instances = n
	if n.kind == scalar && n.text == "cpus" {
		l.w.PerCPU = true
		return
	}
	set(&l.w.NumInstances)(l.integer(n, 0, maxInstances))
}

// limit reads a number from 1 up or "unlimited", which is 0.
func (l *loader) limit(n *node) (int, bool) {
	if n.kind == scalar && n.text == "unlimited" {
		return 0, true
	}
	if n.kind == scalar && n.text == "0" {
		l.fail(n, "a number from 1 up, or unlimited", "0 could mean none or any number")
		return 0, false
	}
	return l.integer(n, 1, 1_000_000)
}

func (l *loader) readRetryAfter(n *node) {
	if n.kind == scalar && n.text == "off" {
		l.w.RetryAfter = 0
		return
	}
	set(&l.w.RetryAfter)(l.duration(n, time.Millisecond))
}

func (l *loader) readRestart(n *node) {
	w, ok := l.word(n, "always", "on-failure", "never", "true", "false")
	switch {
	case !ok:
		return
	case w == "true":
		w = "always"
	case w == "false":
		w = "never"
	}
	l.w.Restart = w
}

func (l *loader) readSuccessCodes(n *node) {
	items := []*node{n}
	if n.kind == list {
		items = n.items
	}
	var codes []int
	for _, item := range items {
		if c, ok := l.integer(item, 0, 255); ok && !slices.Contains(codes, c) {
			codes = append(codes, c)
		}
	}
	l.w.SuccessCodes = codes
}

func (l *loader) readBackoff(n *node) {
	l.section(n, AtBackoff)
	if b := l.w.Backoff; b.Max < b.Base && n.kind == mapping {
		l.fail(n, "", "max %v is less than base %v", b.Max, b.Base)
	}
}

func (l *loader) readTTY(n *node) {
	l.sc.tty = n
	set(&l.w.TTY)(l.boolean(n))
}

func (l *loader) readEnv(n *node) {
	if n.null {
		return
	}
	if n.kind != mapping {
		l.refuse(n, "NAME: value, one on each line")
		return
	}
	for _, e := range n.keys {
		switch {
		case !isVariable(e.key):
			l.errs.add(e.pos, "letters, digits and _", "%s: bad name of a variable %s", l.at, quote(e.key))
		case e.key == "PORT":
			l.errs.add(e.pos, "set port_base, or write the port into the command line", "%s: pazinit itself sets PORT", l.at)
		case strings.HasPrefix(e.key, "PAZINIT_"):
			l.errs.add(e.pos, "", "%s: pazinit keeps the names PAZINIT_* for itself", l.at)
		case e.value.kind != scalar:
			l.fail(e.value, "a text", "%s is %s", e.key, e.value.describe())
		case e.value.null:
			l.fail(e.value, `write "" for an empty one`, "%s has no value", e.key)
		}
	}
	l.sc.env = append(slices.Clip(l.sc.env), n)
	l.sc.envIsOwn = true
}

func (l *loader) readEnvFile(n *node) {
	l.sc.envFiles = l.texts(n, "a path or a list of them")
	l.sc.envIsOwn = true
}

func (l *loader) readEnvInherit(n *node) {
	const meant = "true, false or a list of names"
	if n.kind == scalar {
		if b, ok := l.boolean(n); ok {
			l.w.EnvInherit = Inherit{All: b}
		}
		return
	}
	names := []string{}
	for _, item := range l.texts(n, meant) {
		if !isVariable(item.text) {
			l.fail(item, "letters, digits and _", "bad name of a variable %s", quote(item.text))
			continue
		}
		names = append(names, item.text)
	}
	l.w.EnvInherit = Inherit{Names: names}
}

// readOutput reads stdout or stderr.
func (l *loader) readOutput(n *node, t *Target) {
	if n.kind != mapping {
		if n.kind == scalar && strings.IndexByte(n.text, '/') >= 0 {
			l.fail(n, "{file: "+n.text+"}?", "bad value %s", quote(n.text))
			return
		}
		if w, ok := l.word(n, outputWords...); ok {
			*t = Target{Kind: w}
		}
		return
	}
	l.out, l.keep = &Target{RotateKeep: 5}, nil
	before := len(l.errs.list)
	l.section(n, AtOutput)
	out := l.out
	switch {
	case out.Kind == "":
		if len(l.errs.list) == before {
			l.fail(n, "file, dir or pipe_to", "it names no target")
		}
		return
	case out.RotateSize != 0 && out.Kind == "pipe":
		l.fail(n, "the logger rotates its files itself", "pipe_to has no file to rotate")
	case l.keep != nil && out.RotateSize == 0:
		l.fail(l.keep, "", "rotate_keep needs rotate_size")
	}
	if out.RotateSize == 0 {
		out.RotateKeep = 0
	}
	*t = *out
}

// readTarget reads the key that names where output goes; there is one.
func (l *loader) readTarget(n *node, kind string, read func(*node, string) (string, bool)) {
	path, ok := read(n, l.app.Dir)
	if !ok {
		return
	}
	if l.out.Kind != "" {
		l.fail(n, "only one of file, dir and pipe_to", "there is a second target")
		return
	}
	l.out.Kind, l.out.Path = kind, path
}

func (l *loader) readPipe(n *node) {
	l.readTarget(n, "pipe", func(n *node, _ string) (string, bool) {
		s, ok := l.text(n, "a command line")
		if !ok {
			return "", false
		}
		c, err := ParseCommand(s)
		if err != nil {
			l.failErr(n, err)
			return "", false
		}
		l.out.Command, l.out.Pipe = s, c
		return "", true
	})
}

func (l *loader) readStopSignal(n *node) {
	if n.kind == mapping || n.kind == list && len(n.items) == 0 {
		l.refuse(n, "a signal, or a list as [QUIT 30s, TERM 5s, KILL]")
		return
	}
	l.sc.stopSignal = n
}

// stopSteps makes the steps of stop_signal and stop_timeout.
func (l *loader) stopSteps(n *node, timeout time.Duration) ([]StopStep, bool) {
	items := []*node{n}
	if n.kind == list {
		items = n.items
	}
	if len(items) > maxStopSteps {
		l.fail(n, "", "more than %d signals", maxStopSteps)
		return nil, false
	}
	steps := []StopStep{}
	for i, item := range items {
		s, ok := l.text(item, "a signal")
		if !ok {
			return nil, false
		}
		words := strings.Fields(s)
		if len(words) == 0 || len(words) > 2 || len(words) == 2 && n.kind != list {
			l.fail(item, "a signal, or a list as [QUIT 30s, TERM 5s, KILL]", "bad stop signal %s", quote(s))
			return nil, false
		}
		sig, err := ParseSignal(words[0])
		if err != nil {
			l.failErr(item, err)
			return nil, false
		}
		wait := timeout
		if len(words) == 2 {
			d := *item
			d.text = words[1]
			if wait, ok = l.duration(&d, 0); !ok {
				return nil, false
			}
		}
		if sig == 9 {
			if i != len(items)-1 || len(words) == 2 {
				l.fail(item, "", "KILL is the last step and nothing waits for it")
				return nil, false
			}
			break
		}
		steps = append(steps, StopStep{sig, wait})
	}
	return steps, true
}
