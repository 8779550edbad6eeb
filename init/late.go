package pazinit

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/init/internal/lifecycle"
	"github.com/pazinit/pazinit/reaper"
)

// When those that the end waits for are named at first; then after twice the time.
const firstWord = 2 * time.Second

// Of a list of names so many are shown.
const maxNames = 10

// A lateOne is an instance that the end waits for, as it is at that time.
type lateOne struct {
	name, text string           // "pid 12, has not ended 5s after SIGTERM, of 10s"
	left       func() []procRef // not nil: what is left of its tree, to be named as well
}

type procRef struct {
	pid  int
	name string
}

// nameLate says who is waited for, and arms the next time. What has to be read
// from /proc for that is read elsewhere.
func (s *Supervisor) nameLate(now time.Time) {
	e := &s.end
	for e.speakAfter *= 2; !now.Before(e.since.Add(e.speakAfter)); {
		e.speakAfter *= 2
	}
	var late []lateOne
	more, look := 0, false
	for in := range s.all() {
		h, ok := in.life.Halt()
		if !ok {
			continue
		}
		if len(late) == maxNames {
			more++
			continue
		}
		l := s.late(in, h, now)
		look = look || l.left != nil
		late = append(late, l)
	}
	if len(late) == 0 {
		return
	}
	say := func() {
		var texts []string
		for _, l := range late {
			if l.left != nil {
				l.text += ": " + processList(l.left())
			}
			texts = append(texts, l.name+" ("+l.text+")")
		}
		if more > 0 {
			texts = append(texts, fmt.Sprintf("%d more", more))
		}
		s.logf("still waiting for %s", strings.Join(texts, "; "))
	}
	if look {
		s.begin("the naming of who is late", say)
		return
	}
	say()
}

// late describes in, whose stop has come as far as h.
func (s *Supervisor) late(in *instance, h lifecycle.Halt, now time.Time) (l lateOne) {
	took := brief(now.Sub(h.Since).Round(100 * time.Millisecond))
	of := ""
	if h.Within > 0 {
		of = " of " + brief(h.Within.Round(100*time.Millisecond))
	}
	l.name = in.name
	switch {
	case h.Leader && in.pid == 0:
		l.text = fmt.Sprintf("it hangs before its exec, for %s", took)
	case h.Leader && in.barred == in.life.Run() && (unix.Signal(h.Signal) != unix.SIGKILL || in.unkillable == in.life.Run()):
		l.text = fmt.Sprintf("pid %d, %s", in.pid, noKill)
	case h.Leader && unix.Signal(h.Signal) == unix.SIGKILL:
		l.text = fmt.Sprintf("pid %d, was killed and is not gone, after %s", in.pid, took)
	case h.Leader && h.Signal == 0: // a logger: its input has ended
		l.text = fmt.Sprintf("pid %d, still reads, for %s%s", in.pid, took, of)
	case h.Leader:
		if of != "" {
			of = "," + of
		}
		after := signalName(unix.Signal(h.Signal))
		if h.Later {
			after = "the first signal, " + after + " by now"
		}
		l.text = fmt.Sprintf("pid %d, has not ended %s after %s%s", in.pid, took, after, of)
	default:
		l.text = fmt.Sprintf("its process has ended, what it started has not, for %s%s", took, of)
		g, leader, token := in.group.Load(), in.leaderPID(), in.token(s, in.life.Run())
		l.left = func() (out []procRef) {
			procs, _ := s.members(g, leader, token)
			for _, p := range procs {
				if len(out) == maxNames {
					return append(out, procRef{})
				}
				out = append(out, procRef{p.PID, reaper.Name(p.PID)})
			}
			return out
		}
	}
	return l
}

// processList names processes: "12 sleep, 14 sh".
func processList(list []procRef) string {
	if len(list) == 0 {
		return "nothing is left now"
	}
	var out []string
	for _, p := range list {
		if p.pid == 0 {
			out = append(out, "more")
			continue
		}
		out = append(out, strings.TrimSpace(strconv.Itoa(p.pid)+" "+p.name))
	}
	return strings.Join(out, ", ")
}

// signalName is SIGTERM, or SIG40 for one without a name.
func signalName(sig unix.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return "SIG" + strconv.Itoa(int(sig))
}
