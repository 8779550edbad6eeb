package procfile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// ErrNotFound is what [Load] wraps when no file was named and none was found.
var ErrNotFound = errors.New("no configuration and no Procfile")

// maxErrors bounds what one load reports: a file of garbage is not worth more.
const maxErrors = 100

// Error gives one error a line, each as "file:line:column: what (meant)".
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.Is and errors.As look into each of them.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, err := range e {
		all[i] = err
	}
	return all
}

// Error gives "file:line:column: what (meant)", or as much of it as is known, on
// one line and without control characters, whatever a path may hold.
func (e *Error) Error() string {
	s := e.What
	if e.Meant != "" {
		s += " (" + e.Meant + ")"
	}
	if e.File != "" {
		s = e.String() + ": " + s
	}
	if strings.IndexFunc(s, unicode.IsControl) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsControl(r) {
			fmt.Fprintf(&b, `\x%02x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Unwrap gives the cause, if there is one.
func (e *Error) Unwrap() error { return e.Cause }

// String gives "file:line:column", or as much of it as is known.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column)
}

// An errorList collects the errors of one load: each once, and not without end.
type errorList struct {
	list Errors
	seen map[string]bool
	more int
}

func (l *errorList) add(pos Position, meant, format string, args ...any) {
	l.put(&Error{Position: pos, What: fmt.Sprintf(format, args...), Meant: meant})
}

func (l *errorList) put(e *Error) {
	key := e.Error()
	if l.seen[key] {
		return
	}
	if len(l.list) >= maxErrors {
		l.more++
		return
	}
	if l.seen == nil {
		l.seen = make(map[string]bool)
	}
	l.seen[key] = true
	l.list = append(l.list, e)
}

func (l *errorList) errors() Errors {
	if l.more > 0 {
		return append(l.list, &Error{What: fmt.Sprintf("and %d errors more", l.more)})
	}
	return l.list
}

// A hinted error also says what was meant.
type hinted struct{ what, meant string }

func (e *hinted) Error() string { return e.what + " (" + e.meant + ")" }

// noSuch reports a name that is not among those there are.
func noSuch(what, name string, names []string) error {
	what = "no " + what + " " + quote(name)
	if meant := didYouMean(name, names); meant != "" {
		return &hinted{what, meant}
	}
	return errors.New(what)
}

// didYouMean names the candidate that is nearest to word, or nothing if none
// is near.
func didYouMean(word string, candidates []string) string {
	best, least := "", 1+len(word)/3
	if least > 3 {
		least = 3
	}
	for _, c := range candidates {
		if d := distance(word, c, least); d <= least && (best == "" || d < least) {
			best, least = c, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + best + "?"
}

// distance is the number of letters to insert, remove, change or swap to make
// b of a; anything above most is most+1.
func distance(a, b string, most int) int {
	if len(a) > 64 || len(b) > 64 || len(a)-len(b) > most || len(b)-len(a) > most {
		return most + 1
	}
	a, b = strings.ToLower(a), strings.ToLower(b)
	if len(a) > 64 || len(b) > 64 { // lower case may be longer
		return most + 1
	}
	var before, last, row [65]int
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
