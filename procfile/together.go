package procfile

import "fmt"

// A claim is what a part of the configuration needs for itself: a file that it
// writes, or pazinit's own input.
type claim struct {
	pos   Position
	who   string
	what  string // the path, or ownInput
	share bool   // others may write it too, if they rotate it in the same way
	size  int64
	keep  int
}

// ownInput is what a claim to pazinit's own stdin is for; no path is empty.
const ownInput = ""

// claimFiles notes what the worker in hand needs for itself.
func (l *loader) claimFiles() {
	w, sc := l.w, l.sc
	name := w.App + ":" + w.Name
	place := func(n *node) Position {
		if n == nil {
			return w.Pos
		}
		return n.pos
	}
	if w.PIDFile != "" {
		l.claims = append(l.claims, claim{pos: place(sc.pidFile), who: "pid_file of " + name, what: w.PIDFile})
	}
	if w.Stdin == "inherit" {
		n := sc.stdin
		if n == nil {
			n = sc.tty
		}
		l.claims = append(l.claims, claim{pos: place(n), who: name, what: ownInput})
	}
	for _, s := range []struct {
		Target
		n    *node
		name string
	}{{w.Stdout, sc.stdout, "stdout of "}, {w.Stderr, sc.stderr, "stderr of "}} {
		if s.Kind == "file" {
			l.claims = append(l.claims, claim{place(s.n), s.name + name, s.Path, true, s.RotateSize, s.RotateKeep})
		}
	}
}

// A block is the ports of one worker.
type block struct {
	pos         Position
	who         string
	first, last int
}

// portStep is the distance of two workers' first ports.
const portStep = 100

// claimPorts notes the ports of the application in hand, if it says where they
// begin; those that the supervisor gives out keep clear of them.
func (l *loader) claimPorts() {
	if l.app.PortBase == 0 {
		return
	}
	for i, w := range l.app.Workers {
		n := w.NumInstances
		if w.PerCPU {
			n = 1
		}
		if n == 0 {
			continue
		}
		b := block{l.portPos, w.App + ":" + w.Name, l.app.PortBase + i*portStep, l.app.PortBase + i*portStep + n - 1}
		if b.last > 65535 {
			l.errs.add(b.pos, "a lower port_base", "%s gets ports up to %d, the last there is is 65535", b.who, b.last)
			return
		}
		l.ports = append(l.ports, b)
	}
}

// checkTogether refuses what is right in each worker and wrong in all of them.
func (l *loader) checkTogether() {
	claims := make([]claim, 0, len(l.claims)+3)
	for _, c := range []claim{
		{who: "log_path", what: l.cfg.LogPath}, {who: "pid_file", what: l.cfg.PIDFile}, {who: "socket_path", what: l.cfg.SocketPath},
	} {
		if c.what != "" && c.what != "syslog" {
			claims = append(claims, c)
		}
	}
	first := make(map[string]claim)
	for _, c := range append(claims, l.claims...) {
		f, taken := first[c.what]
		switch {
		case !taken:
			first[c.what] = c
		case c.what == ownInput:
			l.errs.add(c.pos, "", "%s and %s both have pazinit's own stdin", f.who, c.who)
		case !c.share || !f.share:
			l.errs.add(c.pos, "one writer for each file", "%s and %s are both %s", f.who, c.who, c.what)
		case c.size != f.size || c.keep != f.keep:
			l.errs.add(c.pos, "the same rotate_size and rotate_keep for both",
				"%s and %s share %s and rotate it differently", f.who, c.who, c.what)
		}
	}
	l.checkPorts()
}

// checkPorts reports each pair of places whose ports overlap once.
func (l *loader) checkPorts() {
	if len(l.ports) < 2 {
		return
	}
	owner := make(map[int]block)
	reported := make(map[[2]Position]bool)
	for _, b := range l.ports {
		for p := b.first; p <= b.last; p++ {
			o, taken := owner[p]
			if !taken {
				owner[p] = b
				continue
			}
			if pair := [2]Position{o.pos, b.pos}; !reported[pair] {
				reported[pair] = true
				l.errs.add(b.pos, fmt.Sprintf("each worker has %d ports from its first", portStep),
					"%s and %s both get port %d", o.who, b.who, p)
			}
			break
		}
	}
}
