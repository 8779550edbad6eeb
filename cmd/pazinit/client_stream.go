package main

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/pazinit/pazinit/control"
)

// stream shows the lines of logs or events with show as they come.
func (k *client) stream(ctx context.Context, cl *control.Client, show func(*bufio.Writer, *control.Reply)) (*control.Reply, error) {
	return cl.Do(ctx, k.req, func(r *control.Reply) error {
		if r.Missed > 0 {
			k.missed(r.Missed)
		}
		for _, res := range r.Results { // names that nobody has
			k.result(&res)
		}
		switch {
		case k.json && r.Event != nil:
			_, _ = k.out.Write(control.AppendJSON(nil, r.Event))
		case k.json && r.Log != nil:
			_, _ = k.out.Write(control.AppendJSON(nil, r.Log))
		case !k.json && (r.Event != nil || r.Log != nil):
			show(k.out, r)
		}
		if k.req.Follow {
			return k.out.Flush()
		}
		return nil
	})
}

// missed says that n lines are lost at this place.
func (k *client) missed(n uint64) {
	if k.json {
		_, _ = k.out.Write(control.AppendJSON(nil, struct {
			Missed uint64 `json:"missed"`
		}{n}))
		return
	}
	_ = k.out.Flush()
	k.fail(0, "%d %s missed here: this reader was too slow", n, k.req.Verb)
}

// A prefixer puts time and name before each line, as pazinit's console does,
// each name in a colour of its own.
type prefixer struct {
	color bool
	names map[string]int
	width int
	goes  map[string]bool // streams whose last line goes on
}

var nameColors = [...]string{"36", "33", "32", "35", "34", "96", "93", "92", "95", "94"}

// open begins a line with its time and the name, aligned with those before.
func (p *prefixer) open(out *bufio.Writer, clock, name string) {
	if name == "" {
		name = "pazinit"
	}
	if p.names == nil {
		p.names, p.goes = map[string]int{}, map[string]bool{}
	}
	if _, ok := p.names[name]; !ok {
		p.names[name] = len(p.names)
	}
	p.width = max(p.width, len(name))
	if p.color {
		code := "1" // pazinit itself
		if name != "pazinit" {
			code = nameColors[p.names[name]%len(nameColors)]
		}
		_, _ = out.WriteString("\x1b[" + code + "m")
	}
	fmt.Fprintf(out, "%s %-*s", clock, p.width, name)
}

func (p *prefixer) line(out *bufio.Writer, r *control.Reply) {
	l := r.Log
	p.open(out, l.Time.Local().Format("15:04:05"), l.Name)
	mark := " |"
	if p.goes[l.Name+"/"+l.Stream] {
		mark = " +" // the line before goes on here
	}
	p.goes[l.Name+"/"+l.Stream] = l.Partial
	p.close(out, mark)
	if l.Bytes != nil {
		_, _ = out.Write(l.Bytes)
	} else {
		_, _ = out.WriteString(l.Line)
	}
	_ = out.WriteByte('\n')
}

func (p *prefixer) event(out *bufio.Writer, r *control.Reply) {
	e := r.Event
	p.open(out, e.Time.Local().Format("15:04:05.000"), e.Name)
	p.close(out, "")
	switch {
	case e.To != "":
		fmt.Fprintf(out, "%s → %s", e.From, e.To)
	default:
		_, _ = out.WriteString(e.Kind)
	}
	if e.Reason != "" {
		_, _ = out.WriteString(": " + e.Reason)
	}
	if e.PID != 0 {
		_, _ = out.WriteString(", pid " + strconv.Itoa(e.PID))
	}
	if e.Delay > 0 {
		_, _ = out.WriteString("; next try in " + shortly(seconds(e.Delay)))
	}
	if e.Try > 0 && (e.To == "BACKOFF" || e.To == "FATAL") {
		fmt.Fprintf(out, " (unhealthy death %d)", e.Try)
	}
	_ = out.WriteByte('\n')
}

func (p *prefixer) close(out *bufio.Writer, mark string) {
	_, _ = out.WriteString(mark)
	if p.color {
		_, _ = out.WriteString("\x1b[0m")
	}
	_ = out.WriteByte(' ')
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
