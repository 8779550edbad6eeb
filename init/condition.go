package pazinit

import (
	"slices"
	"strings"

	"github.com/pazinit/pazinit/init/internal/lifecycle"
)

// ready are those of ins that may be started. The others, which wait for a
// condition, are started when it holds, unless somebody says something else to
// them before: then they have their will.
func (s *Supervisor) ready(ins []*instance) []*instance {
	return slices.DeleteFunc(slices.Clone(ins), func(in *instance) bool {
		waits := strings.Join(s.missing(in), ", ")
		if waits == "" || in.life.State() != lifecycle.Stopped {
			return false
		}
		in.command++ // what was said before is void
		in.waits = waits
		in.reason = "waits for " + waits
		s.logf("%s waits for %s", in.name, waits)
		return true
	})
}

// missing are the conditions of in that do not hold.
func (s *Supervisor) missing(in *instance) []string {
	var out []string
	for _, name := range in.spec.WaitFor {
		c := s.opt.Conditions[name]
		if c == nil {
			continue
		}
		select {
		case <-c:
		default:
			out = append(out, name)
		}
	}
	return out
}

// awaitConditions has the loop told of each that comes to hold.
func (s *Supervisor) awaitConditions() {
	for _, c := range s.opt.Conditions {
		s.begin("the wait for a condition", func() {
			select {
			case <-c:
				s.post(s.conditionHolds)
			case <-s.done:
			}
		})
	}
}

// conditionHolds starts those that waited for it and for nothing else.
func (s *Supervisor) conditionHolds() {
	if s.end.began {
		return
	}
	var ins []*instance
	for in := range s.visible() {
		if in.waits != "" && len(s.missing(in)) == 0 {
			ins = append(ins, in)
		}
	}
	if len(ins) > 0 {
		s.issue(lifecycle.Start, levels(ins, false), ins[0].waits+" is there")
	}
}
