package pazinit

import (
	"fmt"
	"strings"
	"time"

	"github.com/pazinit/pazinit/reaper"
)

// strangerTime is how long processes that no worker started are waited for at the
// end, without shutdown_timeout.
const strangerTime = 5 * time.Second

// EndsAll reports whether every other process that can be seen ends with this one:
// it is the first of a PID namespace. Only there are those that no worker started
// told to stop.
func (p Place) EndsAll() bool { return p.PID1 }

// dismiss tells strangers to stop, and whoever was orphaned and belongs to no
// worker, and has the loop told when they are gone or their time is over. When
// everything is being killed they are told, but not waited for.
func (s *Supervisor) dismiss(now time.Time) {
	e := &s.end
	until := now
	switch {
	case e.killed:
	case e.whole > 0:
		until = e.deadline
	default:
		until = now.Add(strangerTime)
	}
	e.dismissing = true
	e.deadline = until.Add(100 * time.Millisecond) // if even to look takes so long
	if e.whole > 0 {
		e.deadline = e.notLost(now, earlier(e.deadline, e.last))
	}
	var left []reaper.Stranger
	s.away("the end of strangers", func() {
		left = s.procs.Dismiss(until, func(list []reaper.Stranger) {
			if list = s.clients.others(list); len(list) == 0 {
				return
			}
			s.post(func() { e.asked = list })
			s.logf("%s: told to stop by SIGTERM: %s", plural(len(list), "process that no worker started", "processes that no worker started"), strangerList(list))
		})
		left = s.clients.others(left)
	}, func() {
		e.dismissing = false
		s.outlived(left, "")
	})
}

// outlived names the strangers that have not ended in their time.
func (s *Supervisor) outlived(left []reaper.Stranger, more string) {
	if len(left) == 0 {
		return
	}
	here := "container"
	if s.opt.Place.Initial {
		here = "machine"
	}
	s.logf("%s with this %s: %s%s", plural(len(left), "process is not gone and ends", "processes are not gone and end"), here, strangerList(left), more)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func strangerList(list []reaper.Stranger) string {
	var out []string
	for _, p := range list[:min(len(list), maxNames)] {
		how := "an orphan"
		if p.Entered {
			how = "entered from outside"
		}
		if p.Err != nil {
			how += ", " + p.Err.Error()
		}
		out = append(out, fmt.Sprintf("%d %s (%s)", p.PID, p.Name, how))
	}
	if n := len(list) - maxNames; n > 0 {
		out = append(out, fmt.Sprintf("%d more", n))
	}
	return strings.Join(out, ", ")
}
