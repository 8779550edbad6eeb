package procfile

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// What one file may hold. The kernel takes no argument over 128 KiB, and a
// line is one argument to the shell.
const (
	maxFile = 1 << 20
	maxLine = 128<<10 - 16 // room for "exec " and the final NUL
	maxName = 64

	maxWorkers = 10_000 // of all Procfiles together
)

// A Line is one worker of a Procfile.
type Line struct {
	Name    string
	Command string // what stands behind the colon, without blanks around it
	Pos     Position
	// CommandPos is where Command begins.
	CommandPos Position
}

// ParseProcfile reads a Procfile: "name: command line" on each line, blank
// lines, and comments, which begin with #. Lines end in LF or CRLF, the last
// one may end in nothing. The lines that are good are returned together with
// the errors of those that are not. Over 1 MiB and NUL bytes are refused.
func ParseProcfile(file string, r io.Reader) ([]Line, Errors) {
	var errs errorList
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		errs.add(Position{File: file}, "", "read: %v", err)
		return nil, errs.errors()
	}
	if !checkBytes(&errs, file, data) {
		return nil, errs.errors()
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))

	var lines []Line
	first := make(map[string]int) // the line of each name
	for n := 1; len(data) > 0; n++ {
		var raw []byte
		raw, data, _ = bytes.Cut(data, []byte("\n"))
		line := strings.TrimRight(string(raw), " \t\r")
		pos := Position{File: file, Line: n, Column: 1}
		if body := strings.TrimLeft(line, " \t"); body == "" || body[0] == '#' {
			continue
		}
		name, _, ok := strings.Cut(line, ":")
		if !ok {
			errs.add(pos, "a line is \"name: command line\"", "no colon in %s", quote(line))
			continue
		}
		if meant := badName(name); meant != "" {
			errs.add(pos, meant, "bad worker name %s", quote(name))
			continue
		}
		start := len(name) + 1
		for start < len(line) && (line[start] == ' ' || line[start] == '\t') {
			start++
		}
		command := line[start:]
		at := Position{File: file, Line: n, Column: start + 1}
		switch {
		case command == "":
			errs.add(at, "", "worker %q has no command", name)
			continue
		case len(command) > maxLine:
			errs.add(at, fmt.Sprintf("at most %d bytes, or the kernel does not take it", maxLine),
				"worker %q has a command of %d bytes", name, len(command))
			continue
		}
		if earlier, ok := first[name]; ok {
			errs.add(pos, "", "worker %q is already on line %d", name, earlier)
			continue
		}
		if len(lines) == maxWorkers {
			errs.add(pos, "", "more than %d workers", maxWorkers)
			break
		}
		first[name] = n
		lines = append(lines, Line{Name: name, Command: command, Pos: pos, CommandPos: at})
	}
	return lines, errs.errors()
}

// checkBytes refuses what no text file of ours can be.
func checkBytes(errs *errorList, file string, data []byte) bool {
	if len(data) > maxFile {
		errs.add(Position{File: file}, "", "file is longer than %d KiB", maxFile>>10)
		return false
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		before := data[:i]
		pos := Position{File: file, Line: 1 + bytes.Count(before, []byte("\n"))}
		pos.Column = i - bytes.LastIndexByte(before, '\n')
		errs.add(pos, "is it a text file?", "file has a NUL byte")
		return false
	}
	return true
}

// CheckName says what is wrong with the name of an application or a worker.
func CheckName(name string) error {
	if why := badName(name); why != "" {
		return fmt.Errorf("bad name %q: %s", name, why)
	}
	return nil
}

// badName says what a name must look like, or "" if this one does.
func badName(name string) string {
	switch {
	case len(name) > maxName:
		return fmt.Sprintf("at most %d characters", maxName)
	case name == "" || cleanName(name, 0) != name:
		return "letters, digits, _ and - only"
	}
	return ""
}

// cleanName puts with in the place of each character that no name may hold, or
// leaves it out if with is 0.
func cleanName(name string, with byte) string {
	var clean []byte
	for _, c := range name {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
			clean = append(clean, byte(c))
		case with != 0:
			clean = append(clean, with)
		}
	}
	return string(clean)
}

// quote quotes s for an error, no more of it than helps.
func quote(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%.60q…", s)
	}
	return fmt.Sprintf("%q", s)
}
