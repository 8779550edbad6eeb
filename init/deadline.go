package pazinit

import (
	"time"

	"github.com/pazinit/pazinit/init/internal/lifecycle"
)

// share divides what is left of the time for everything: it is how long the first
// of the steps may take that are to come, when needs are their own stop times. All
// get what they need if there is enough. Else each gets the part of what is left
// that its need has of all; a need beyond what is left counts as that, lest one
// that may take hours leaves the others nothing. What a step does not use is there
// when the next one asks.
func share(left time.Duration, needs []time.Duration) time.Duration {
	if len(needs) == 0 || left <= 0 {
		return 0
	}
	sum := 0.0
	for _, n := range needs {
		sum += float64(min(max(n, 0), left))
	}
	first := min(max(needs[0], 0), left)
	if sum <= float64(left) {
		return first
	}
	return time.Duration(float64(left) * float64(first) / sum)
}

// reserve is what of the time for everything is kept for its end: SIGKILL to all
// that is left, to reap them, and to write what they printed.
func reserve(whole time.Duration) time.Duration { return min(whole/10, time.Second) }

// loggerTime is what loggers count for in the division: what they still have to
// read is in a pipe.
const loggerTime = time.Second

// within is how long a step of the stop order may take at now, when levels are
// that one and those that follow; 0 if each instance has its own time.
func (s *Supervisor) within(levels [][]item, now time.Time) time.Duration {
	if s.end.whole == 0 {
		return 0
	}
	needs := make([]time.Duration, 0, len(levels)+1)
	for _, level := range levels {
		var need time.Duration
		for _, it := range level {
			need = max(need, it.in.need())
		}
		needs = append(needs, need)
	}
	var need time.Duration
	for in := range s.loggers {
		need = min(max(need, in.need()), loggerTime)
	}
	return max(share(s.end.deadline.Sub(now), append(needs, need)), 1)
}

// need is how long the stop of in may take by itself.
func (in *instance) need() time.Duration {
	switch in.life.State() {
	case lifecycle.Starting, lifecycle.Running, lifecycle.Stopping:
		return in.life.Policy.StopTime()
	case lifecycle.Stopped, lifecycle.Backoff, lifecycle.Exited, lifecycle.Fatal: // at rest
	}
	return 0
}
