package machine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// lateDevice is how long a device of /etc/fstab may be late that is not nofail.
const lateDevice = 30 * time.Second

// ReadFstab reads a file in the format of fstab(5), of at most 1 MiB. A swap is
// the first and the fourth field as they stand there, for [SwapOn]. A line that
// makes no sense is left out; the others are good. All such lines are in the
// error, each with its number, but for those with nofail: of them say is told,
// which may be nil. The fifth and the sixth field mean nothing: checking file
// systems is left to a worker that runs once.
//
// Lines with noauto are left out. A device is waited for for 30 seconds, with
// nofail not at all; x-systemd.device-timeout= says otherwise.
func ReadFstab(path string, say func(string)) (mounts []Mount, swaps []string, err error) {
	if say == nil {
		say = sayNothing
	}
	b, err := readBounded(path, 1<<20)
	if err != nil {
		return nil, nil, fmt.Errorf("read fstab: %w", err)
	}
	mounts, swaps, errs := parseFstab(path, string(b), say)
	return mounts, swaps, errors.Join(errs...)
}

func parseFstab(path, s string, say func(string)) (mounts []Mount, swaps []string, errs []error) {
	n := 0
	for line := range strings.Lines(strings.TrimPrefix(s, "\ufeff")) {
		n++
		f := strings.FieldsFunc(line, func(c rune) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' })
		if len(f) == 0 || f[0][0] == '#' {
			continue
		}
		m, swap, err := parseFstabLine(f)
		switch {
		case err != nil:
			if err = fmt.Errorf("%s:%d: %w", path, n, err); isNofail(f) {
				say(err.Error())
			} else {
				errs = append(errs, err)
			}
		case swap != "":
			swaps = append(swaps, swap)
		case m.Target != "":
			mounts = append(mounts, m)
		}
	}
	return mounts, swaps, errs
}

// isNofail says whether the options of a line, which may be a bad one, have the
// word nofail.
func isNofail(f []string) bool {
	return len(f) > 3 && slices.Contains(splitOptions(f[3]), "nofail")
}

// parseFstabLine returns neither a mount nor a swap for a line that is to be
// ignored.
func parseFstabLine(f []string) (m Mount, swap string, err error) {
	if len(f) < 3 {
		return m, "", fmt.Errorf("%d fields, there must be a device, a mount point, a type and options", len(f))
	}
	options := "defaults"
	for i, c := range f[3:] {
		if c[0] == '#' { // a comment behind the fields
			f = f[:3+i]
			break
		}
	}
	if len(f) > 3 {
		options = f[3]
	}
	if len(f) > 6 {
		return m, "", fmt.Errorf("%d fields, there are six at most; blanks in a name are \\040", len(f))
	}
	m = Mount{Source: unescape(f[0]), Target: unescape(f[1]), Type: unescape(f[2]), Options: splitOptions(unescape(options))}
	for _, v := range append([]string{m.Source, m.Target, m.Type}, m.Options...) {
		if strings.ContainsAny(v, "\x00\n") {
			return Mount{}, "", fmt.Errorf("%q has a zero byte or a line break in it", v)
		}
	}
	o, err := parseOptions(m.Options)
	if err != nil {
		return Mount{}, "", err
	}
	switch {
	case o.noauto, m.Type == "ignore":
		return Mount{}, "", nil
	case m.Type == "swap":
		return Mount{}, f[0] + " " + options, nil
	}
	if err := checkTarget(m.Target); err != nil {
		return Mount{}, "", err
	}
	m.Optional = o.nofail
	switch {
	case o.deviceWait >= 0:
		m.Wait = o.deviceWait
	case !o.nofail:
		m.Wait = lateDevice
	}
	return m, "", nil
}

// splitOptions splits at commas that are not between double quotes.
func splitOptions(s string) (out []string) {
	quoted, start := false, 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] == '"' {
			quoted = !quoted
		}
		if i == len(s) || s[i] == ',' && !quoted {
			if word := s[start:i]; word != "" {
				out = append(out, word)
			}
			start = i + 1
		}
	}
	return out
}
