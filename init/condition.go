package pazinit

import (
	"slices"
	"strconv"
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
		in.reason = s.waitReason(in)
		s.logf("%s %s", in.name, in.reason)
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

// waitReason is for what in waits, with what is known of why.
func (s *Supervisor) waitReason(in *instance) string {
	names := s.missing(in)
	for i, name := range names {
		if why := s.whys[name]; why != "" {
			names[i] += " (" + why + ")"
		}
	}
	return "waits for " + strings.Join(names, ", ")
}

// WaitsFor tells why a condition does not hold yet, "" when that is not known: for
// the status of those that wait for it, and the log. It returns when the loop of
// Run has it.
func (s *Supervisor) WaitsFor(condition, why string) {
	s.post(func() {
		if s.whys[condition] == why {
			return
		}
		if s.whys == nil {
			s.whys = map[string]string{}
		}
		s.whys[condition] = why
		var names []string
		for in := range s.visible() {
			if in.waits != "" && slices.Contains(s.missing(in), condition) {
				in.reason = s.waitReason(in)
				names = append(names, in.name)
			}
		}
		if len(names) > 0 && why != "" {
			verb := "waits"
			if more := len(names) - 3; more > 0 {
				names = append(names[:3], strconv.Itoa(more)+" more")
			}
			if len(names) > 1 {
				verb = "wait"
			}
			s.logf("%s %s for %s: %s", strings.Join(names, ", "), verb, condition, why)
		}
	})
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
