package pazinit

import (
	"context"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/output"
)

const (
	defaultLines = 100     // what logs shows without -n
	followLines  = 1 << 12 // what a reader of logs -f may fall behind
)

func (s *Supervisor) verbLogs(ctx context.Context, p control.Peer, req *control.Request, send func(*control.Reply) error) (*control.Reply, error) {
	var sources []*output.Source
	var names []string // of those that never ran, too
	var bad []control.Result
	all := false // p may see all, also what comes later
	find := func() error {
		sources, names = nil, nil
		if req.Self {
			if !s.may(req, p, nil) {
				return denied(req, p)
			}
			src := s.hub.Self()
			if req.Stream == "syslog" {
				src = s.hub.Others()
			}
			sources, names = append(sources, src), append(names, src.Name())
			return nil
		}
		all = s.may(req, p, nil)
		sel := s.choose(p, req)
		for _, in := range sel.instances {
			names = append(names, in.name)
			if src := in.source.Load(); src != nil {
				sources = append(sources, src)
			}
		}
		bad = sel.bad
		return nil
	}
	if err := s.ask(find); err != nil {
		return nil, err
	}
	if req.Clear {
		results := bad
		for _, src := range sources {
			r := control.Result{Name: src.Name(), OK: true, Message: "cleared"}
			if err := src.Clear(time.Now().Add(reopenTime)); err != nil {
				r = control.Result{Name: src.Name(), Message: err.Error(), Code: control.ExitFailed}
			}
			results = append(results, r)
		}
		return reply(results), nil
	}
	stream := req.Stream
	if stream == "syslog" {
		stream = ""
	}
	q := output.Query{Lines: req.Lines, Stream: stream}
	if req.Lines == 0 {
		q.Lines = defaultLines
		if req.Since != "" {
			q.Lines = -1
		}
	}
	if d, err := time.ParseDuration(req.Since); err == nil {
		q.Since = time.Now().Add(-d)
	}
	last := reply(bad)
	show := func(l output.Line) error { return send(&control.Reply{Log: logLine(l)}) }
	if !req.Follow {
		_ = s.hub.Each(sources, q, show)
		return last, nil
	}
	if len(bad) > 0 {
		if len(sources) == 0 {
			return last, nil
		}
		// Who follows is told now, not at the end.
		if send(&control.Reply{Results: bad}) != nil {
			return last, nil
		}
		last.Results = nil
	}
	// Who matches is settled now, by name: those who capture must not ask the loop.
	own, chosen := []string{s.hub.Self().Name(), s.hub.Others().Name()}, names
	match := func(name string) bool { return slices.Contains(chosen, name) }
	if all && len(req.Names) == 0 && !req.Self {
		match = func(name string) bool { return !slices.Contains(own, name) }
	}
	f := s.hub.Follow(match, stream, followLines)
	defer f.Close()
	// Those that began to print before Follow, but after they were looked for.
	if err := s.ask(find); err != nil {
		return nil, err
	}
	if err := f.Backlog(sources, q, show); err != nil {
		return last, nil
	}
	for {
		select {
		case <-f.Wake():
		case <-ctx.Done():
			return last, nil
		case <-s.done:
			return last, nil
		}
		lines, missed := f.Take()
		for _, l := range lines {
			if show(l) != nil {
				return last, nil
			}
		}
		if missed > 0 && send(&control.Reply{Missed: missed}) != nil {
			return last, nil
		}
	}
}

func logLine(l output.Line) *control.LogLine {
	r := &control.LogLine{Time: l.Time, Name: l.Name, Stream: l.Stream, Partial: l.Partial, Level: l.Level}
	if utf8.Valid(l.Bytes) {
		r.Line = string(l.Bytes)
	} else {
		r.Bytes = l.Bytes
	}
	return r
}
