package procfile

import "fmt"

// checkTogether refuses what is right in each worker and wrong in all of them.
func (l *loader) checkTogether() {
	l.checkTerminal()
	l.checkFiles()
	l.checkPorts()
}

// each calls f with every worker and the words that name it in an error.
func (l *loader) each(f func(w *Worker, name string)) {
	for _, app := range l.cfg.Applications {
		for _, w := range app.Workers {
			f(w, app.Name+":"+w.Name)
		}
	}
}

// checkTerminal sees that one worker at most has the terminal or pazinit's input.
func (l *loader) checkTerminal() {
	holder := ""
	l.each(func(w *Worker, name string) {
		if w.Stdin != "inherit" {
			return
		}
		if holder != "" {
			l.errs.add(w.Pos, "", "%s and %s both have pazinit's own stdin", holder, name)
		}
		holder = name
	})
}

// A writer is who writes a file.
type writer struct {
	what string
	size int64
	keep int
}

// checkFiles sees that every file has one writer, or several that agree.
func (l *loader) checkFiles() {
	writers := make(map[string]writer)
	add := func(pos Position, path string, w writer) {
		if path == "" || path == "syslog" {
			return
		}
		first, ok := writers[path]
		if !ok {
			writers[path] = w
			return
		}
		if w.keep < 0 || first.keep < 0 {
			l.errs.add(pos, "one writer for each file", "%s and %s are both %s", first.what, w.what, path)
		} else if w.size != first.size || w.keep != first.keep {
			l.errs.add(pos, "the same rotate_size and rotate_keep for both",
				"%s and %s share %s and rotate it differently", first.what, w.what, path)
		}
	}
	add(Position{}, l.cfg.LogPath, writer{"log_path", 0, -1})
	add(Position{}, l.cfg.PIDFile, writer{"pid_file", 0, -1})
	add(Position{}, l.cfg.SocketPath, writer{"socket_path", 0, -1})
	l.each(func(w *Worker, name string) {
		add(w.Pos, w.PIDFile, writer{"pid_file of " + name, 0, -1})
		for _, t := range []struct {
			Target
			stream string
		}{{w.Stdout, "stdout"}, {w.Stderr, "stderr"}} {
			if t.Kind == "file" {
				add(w.Pos, t.Path, writer{t.stream + " of " + name, t.RotateSize, t.RotateKeep})
			}
		}
	})
}

// The distance of two workers' first ports.
const portStep = 100

// checkPorts sees that the ports of applications with a port_base of their own
// fit and do not overlap. Those given out by the supervisor keep clear of them.
func (l *loader) checkPorts() {
	type block struct {
		first, last int
		name        string
		pos         Position
	}
	var blocks []block
	for _, app := range l.cfg.Applications {
		if app.PortBase == 0 {
			continue
		}
		for i, w := range app.Workers {
			if w.NumInstances == 0 && !w.PerCPU {
				continue
			}
			b := block{first: app.PortBase + i*portStep, name: app.Name + ":" + w.Name, pos: w.Pos}
			b.last = b.first + max(w.NumInstances, 1) - 1
			if b.last > 65535 {
				l.errs.add(w.Pos, "a lower port_base", "%s gets ports up to %d, the last there is is 65535", b.name, b.last)
				break
			}
			blocks = append(blocks, b)
		}
	}
	if len(blocks) < 2 {
		return
	}
	owner := make(map[int]string)
	for _, b := range blocks {
		for p := b.first; p <= b.last; p++ {
			if other := owner[p]; other != "" && other != b.name {
				l.errs.add(b.pos, fmt.Sprintf("each worker has %d ports from its first", portStep),
					"%s and %s both get port %d", other, b.name, p)
				break
			}
			owner[p] = b.name
		}
	}
}
