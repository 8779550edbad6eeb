package output

import (
	"slices"
	"time"
)

// Last gives the end of what the ring has: at most n lines, the oldest first. It
// reads no file and waits for nothing. A Source without a ring has none.
func (src *Source) Last(n int) []Line {
	lines := src.lines(src.ring.snapshot(), Query{}, 0)
	slices.SortStableFunc(lines, func(a, b Line) int { return a.Time.Compare(b.Time) })
	return lines[max(0, len(lines)-n):]
}

// Flush delivers what is in all pipes now, see [Source.Flush], and waits for it,
// at most until the deadline.
func (h *Hub) Flush(deadline time.Time) {
	h.mu.Lock()
	var waits []<-chan struct{}
	for src := range h.sources {
		waits = append(waits, src.flush())
	}
	h.mu.Unlock()
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for _, c := range waits {
		select {
		case <-c:
		case <-timer.C:
			return
		}
	}
}

// LogTwice is [Hub.Log] for what somebody must see who looks at the console
// alone: it goes there too when the log is a file or syslog.
func (h *Hub) LogTwice(level, msg string) {
	h.Log(level, msg)
	if h.log.file != nil || h.log.syslog != "" {
		h.err.note(clean(msg), time.Now().UnixNano(), level)
	}
}
