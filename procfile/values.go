package procfile

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// fail reports what is wrong with the value n and what was meant.
func (l *loader) fail(n *node, meant, format string, args ...any) {
	l.errs.add(n.pos, meant, "%s: %s", l.at, fmt.Sprintf(format, args...))
}

// failErr reports an error about the value n.
func (l *loader) failErr(n *node, err error) {
	var h *hinted
	if errors.As(err, &h) {
		l.fail(n, h.meant, "%s", h.what)
		return
	}
	l.fail(n, "", "%v", err)
}

// refuse reports a value of the wrong kind.
func (l *loader) refuse(n *node, meant string) {
	if n.kind == scalar && (n.null || n.text == "") {
		l.fail(n, meant, "has no value")
		return
	}
	l.fail(n, meant, "%s is no value for it", n.describe())
}

// text reads a single value that is not empty.
func (l *loader) text(n *node, meant string) (string, bool) {
	if n.kind == scalar && !n.null && n.text != "" {
		return n.text, true
	}
	l.refuse(n, meant)
	return "", false
}

// word reads one of words. null may be written without quotes.
func (l *loader) word(n *node, words ...string) (string, bool) {
	if n.kind == scalar && (!n.null || n.text == "null") {
		for _, w := range words {
			if n.text == w {
				return w, true
			}
		}
	}
	meant := ""
	if n.kind == scalar {
		meant = didYouMean(n.text, words)
	}
	if meant == "" {
		meant = strings.Join(words, ", ")
	}
	l.fail(n, meant, "bad value %s", n.describe())
	return "", false
}

func (l *loader) boolean(n *node) (bool, bool) {
	w, ok := l.word(n, "true", "false")
	return w == "true", ok
}

func (l *loader) integer(n *node, low, high int) (int, bool) {
	if n.kind == scalar {
		if v, err := strconv.Atoi(n.text); err == nil && v >= low && v <= high {
			return v, true
		}
	}
	l.fail(n, fmt.Sprintf("a whole number from %d to %d", low, high), "bad number %s", n.describe())
	return 0, false
}

// maxDuration is far more than anybody waits, and far from overflowing.
const maxDuration = 10 * 365 * 24 * time.Hour

// duration reads "1m30s"; a bare number has no meaning, zero has where low is 0.
func (l *loader) duration(n *node, low time.Duration) (time.Duration, bool) {
	const meant = "a number and a unit: ms, s, m or h"
	s, ok := l.text(n, meant)
	if !ok {
		return 0, false
	}
	d, err := parseDuration(s)
	switch {
	case err != nil && isNumber(s):
		l.fail(n, s+"s?", "duration %s has no unit", quote(s))
	case err != nil:
		l.fail(n, meant+", as in 10s", "bad duration %s", quote(s))
	case d < low || d > maxDuration:
		l.fail(n, fmt.Sprintf("from %v to %v", low, maxDuration), "duration %s is out of range", quote(s))
	default:
		return d, true
	}
	return 0, false
}

// parseDuration takes Go's syntax, but no bare zero and no sign.
func parseDuration(s string) (time.Duration, error) {
	if s == "0" || strings.ContainsAny(s, "+-") {
		return 0, strconv.ErrSyntax
	}
	return time.ParseDuration(s)
}

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// sizeUnits are the units of sizes, in the order of the documentation.
var sizeUnits = []struct {
	name  string
	bytes float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// size reads "10MiB".
func (l *loader) size(n *node, low, high int64) (int64, bool) {
	const meant = "a number and a unit: B, KiB, MiB, GiB, kB, MB or GB"
	s, ok := l.text(n, meant)
	if !ok {
		return 0, false
	}
	if isNumber(s) {
		l.fail(n, s+"MiB?", "size %s has no unit", quote(s))
		return 0, false
	}
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimRight(digits, " "), 64)
		if err != nil || strings.Trim(strings.TrimRight(digits, " "), "0123456789.") != "" {
			break
		}
		if v *= u.bytes; v < float64(low) || v > float64(high) {
			l.fail(n, fmt.Sprintf("from %d to %d bytes", low, high), "size %s is out of range", quote(s))
			return 0, false
		}
		return int64(v), true
	}
	hint := meant
	for _, short := range "kKMGTm" {
		if digits, ok := strings.CutSuffix(s, string(short)); ok && isNumber(digits) {
			hint = digits + strings.ToUpper(string(short)) + "iB?"
		}
	}
	l.fail(n, hint, "bad size %s", quote(s))
	return 0, false
}

// percent reads "10%" as 0.1.
func (l *loader) percent(n *node) (float64, bool) {
	if n.kind == scalar {
		digits, ok := strings.CutSuffix(n.text, "%")
		v, err := strconv.ParseFloat(digits, 64)
		if ok && err == nil && v >= 0 && v <= 100 {
			return v / 100, true
		}
	}
	l.fail(n, "from 0% to 100%", "bad percentage %s", n.describe())
	return 0, false
}

// factor reads a plain number.
func (l *loader) factor(n *node, low, high float64) (float64, bool) {
	if n.kind == scalar {
		v, err := strconv.ParseFloat(n.text, 64)
		if err == nil && v >= low && v <= high && !math.IsNaN(v) {
			return v, true
		}
	}
	l.fail(n, fmt.Sprintf("a number from %g to %g", low, high), "bad number %s", n.describe())
	return 0, false
}

// octal reads permission bits, which are octal with or without the leading 0.
func (l *loader) octal(n *node, low uint64) (uint32, bool) {
	if n.kind == scalar {
		v, err := strconv.ParseUint(strings.TrimPrefix(n.text, "0o"), 8, 32)
		if err == nil && v >= low && v <= 0o777 {
			return uint32(v), true
		}
	}
	l.fail(n, fmt.Sprintf("octal digits from %03o to 777", low), "bad mode %s", n.describe())
	return 0, false
}

// path reads a path and makes it absolute from dir.
func (l *loader) path(n *node, dir string) (string, bool) {
	s, ok := l.text(n, "a path")
	if !ok {
		return "", false
	}
	return absolute(s, dir), true
}

func absolute(path, dir string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// texts reads one value or a list of them.
func (l *loader) texts(n *node, meant string) []*node {
	if n.kind == scalar {
		if _, ok := l.text(n, meant); !ok {
			return nil
		}
		return []*node{n}
	}
	if n.kind != list {
		l.refuse(n, meant)
		return nil
	}
	var all []*node
	for _, item := range n.items {
		if _, ok := l.text(item, meant); ok {
			all = append(all, item)
		}
	}
	return all
}
