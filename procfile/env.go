package procfile

import (
	"bytes"
	"strings"
)

// A variable is one assignment with its place.
type variable struct {
	key, value string
	pos        Position
}

// parseEnv reads KEY=VALUE lines as Foreman does: a value in single quotes is
// taken as it is, in double quotes \n is a new line and \ before anything else
// is dropped, and everything else is the value to the end of the line, a # and
// blanks included. "export " before the key is passed over. Libraries for such
// files (go-envparse among them) cut comments, trim blanks and refuse bad
// escapes, and so read other values than Foreman from the same file.
//
// Foreman passes over lines that are no assignment. So does this, unless strict
// is set: then they are errors, but for blank lines and comments.
func parseEnv(errs *errorList, file string, data []byte, strict bool) []variable {
	if !checkBytes(errs, file, data) {
		return nil
	}
	var vars []variable
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	for n := 1; len(data) > 0; n++ {
		var raw []byte
		raw, data, _ = bytes.Cut(data, []byte("\n"))
		line := strings.TrimSuffix(string(raw), "\r")
		pos := Position{File: file, Line: n, Column: 1}
		body := strings.TrimLeft(line, " \t")
		if body == "" || body[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if rest, ok := strings.CutPrefix(key, "export "); ok {
			key = strings.TrimLeft(rest, " ")
			pos.Column += len(line) - len(value) - 1 - len(key)
		}
		if !ok || !isVariable(key) {
			if strict {
				errs.add(pos, "a line is KEY=VALUE, without blanks around KEY", "line is no assignment") // quoting it could show a secret
			}
			continue
		}
		vars = append(vars, variable{key, unquote(value), pos})
	}
	return vars
}

// isVariable says that a shell could name a variable so; Foreman also takes a
// digit in front.
func isVariable(key string) bool {
	return key != "" && strings.IndexByte(key, '-') < 0 && cleanName(key, 0) == key
}

// unquote takes the quotes off a whole value.
func unquote(v string) string {
	if len(v) < 2 || v[0] != v[len(v)-1] {
		return v
	}
	switch v[0] {
	case '\'':
		return v[1 : len(v)-1]
	case '"':
		v = strings.ReplaceAll(v[1:len(v)-1], `\n`, "\n")
		if strings.IndexByte(v, '\\') < 0 {
			return v
		}
		var out strings.Builder
		for i := 0; i < len(v); i++ {
			// As Ruby's gsub(/\\(.)/, '\1'): a dot is no new line.
			if v[i] == '\\' && i+1 < len(v) && v[i+1] != '\n' {
				i++
			}
			out.WriteByte(v[i])
		}
		return out.String()
	}
	return v
}

// An environment is a list of KEY=VALUE where a later value takes the place of
// an earlier one.
type environment struct {
	list  []string
	index map[string]int
}

func (e *environment) set(key, value string) {
	if i, ok := e.index[key]; ok {
		e.list[i] = key + "=" + value
		return
	}
	if e.index == nil {
		e.index = make(map[string]int)
	}
	e.index[key] = len(e.list)
	e.list = append(e.list, key+"="+value)
}
