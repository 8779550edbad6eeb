package pazinit

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/init/internal/lifecycle"
)

// How much of a worker's last output the last words repeat.
const (
	lastLines = 10
	lastBytes = 2 << 10
)

// A failure is what the end came from, when nobody asked for it and it is not a
// success, as it was at that time.
type failure struct {
	in       *instance
	exit     *control.Exit // nil: it never had a run
	lived    time.Duration // 0 if it was not executed
	restarts int
	givenUp  bool
	also     []string // others that have failed
}

// failed notes that the end comes from in.
func (s *Supervisor) failed(in *instance) *failure {
	f := &failure{in: in, exit: in.last, restarts: in.restarts, givenUp: in.life.State() == lifecycle.Fatal}
	if at := in.life.Executed(); f.exit != nil && f.exit.Error == "" && !at.IsZero() {
		f.lived = f.exit.Time.Sub(at)
	}
	for o := range s.visible() {
		if o != in && o.life.Over() && o.finalCode() != 0 {
			f.also = append(f.also, fmt.Sprintf("%s (status %d)", o.name, o.finalCode()))
		}
	}
	return f
}

// String is one sentence: which, why, when, after how long, how often before.
func (f *failure) String() string {
	var b strings.Builder
	b.WriteString(f.in.name)
	switch x := f.exit; {
	case x == nil:
		b.WriteString(" never ran")
	case x.Error != "":
		fmt.Fprintf(&b, " %s, at %s", exitText(x), x.Time.Format(time.RFC3339))
	default:
		verb := " "
		if x.Signal != "" {
			verb = " was "
		}
		fmt.Fprintf(&b, "%s%s (pid %d), at %s, %s after its start", verb, exitText(x), x.PID, x.Time.Format(time.RFC3339), brief(f.lived))
	}
	switch f.restarts {
	case 0:
	case 1:
		b.WriteString("; it had been restarted once")
	default:
		fmt.Fprintf(&b, "; it had been restarted %d times", f.restarts)
	}
	if f.givenUp {
		b.WriteString(", and was given up")
	}
	if n := len(f.also); n > 0 {
		b.WriteString("; failed too: " + strings.Join(f.also[:min(n, maxNames)], ", "))
		if n > maxNames {
			fmt.Fprintf(&b, " and %d more", n-maxNames)
		}
	}
	return b.String()
}

// lastWords tells on stderr, at the very end, what the end came from: it is what
// somebody finds who looks at the end of a container's log.
func (s *Supervisor) lastWords() {
	f := s.end.failure
	if f == nil {
		s.logf("%s", s.endText())
		return
	}
	s.insist("%s", f)
	if lines := f.output(); len(lines) > 0 {
		s.insist("the last output of %s:", f.in.name)
		for _, l := range lines {
			s.insist("  %s", l)
		}
	} else if f.exit != nil && f.exit.Error == "" {
		s.insist("nothing of its output is kept")
	}
	s.insist("%s", s.endText())
}

func (s *Supervisor) endText() string {
	return fmt.Sprintf("ended with status %d: %s", s.end.code, s.end.reason)
}

// insist writes one of pazinit's own messages, to stderr in any case.
func (s *Supervisor) insist(format string, args ...any) {
	if s.opt.LogWriter != nil || s.hub == nil {
		s.logf(format, args...)
		return
	}
	s.hub.LogTwice("error", fmt.Sprintf(format, args...))
}

// output is the end of what in printed, made harmless. It may be of an earlier run.
func (f *failure) output() []string {
	src := f.in.source.Load()
	if src == nil {
		return nil
	}
	var out []string
	room := lastBytes
	lines := src.Last(lastLines)
	for i := len(lines) - 1; i >= 0 && room > 0; i-- {
		l := harmless(lines[i].Bytes, room)
		room -= len(l) + 1
		out = append([]string{l}, out...)
	}
	return out
}

// harmless is a line of output that moves no cursor and sets no color: what does
// not print is written as its bytes in hexadecimal. It is cut to about size bytes.
func harmless(line []byte, size int) string {
	line = trimRight(line)
	var b strings.Builder
	for len(line) > 0 {
		r, n := utf8.DecodeRune(line)
		switch {
		case r == '\t' || r != utf8.RuneError && strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			for _, c := range line[:n] {
				b.WriteString(`\x` + strconv.FormatUint(uint64(c)|0x100, 16)[1:])
			}
		}
		line = line[n:]
		if b.Len() >= size {
			if len(line) > 0 {
				b.WriteString(" …")
			}
			break
		}
	}
	return b.String()
}

// trimRight takes off what ends a line of DOS or a terminal.
func trimRight(line []byte) []byte {
	for len(line) > 0 && (line[len(line)-1] == '\r' || line[len(line)-1] == '\n') {
		line = line[:len(line)-1]
	}
	return line
}
