package procfile

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kballard/go-shellquote"
)

// ParseCommand says how to start a command line so that it means what it means
// to /bin/sh.
//
// A line without shell syntax is split into words and executed directly. Any
// other is "/bin/sh -c" with the line, behind an exec where that is safe: for
// one simple command, redirections and variables included, that is no built-in
// and has no assignment before it. Whether there is a shell shows at the start.
func ParseCommand(line string) (Command, error) {
	c := Command{Line: line}
	line = strings.Trim(line, " \t\r\n")
	switch {
	case line == "":
		return c, errors.New("command is empty")
	case len(line) > maxLine:
		return c, fmt.Errorf("command has %d bytes, the kernel takes %d", len(line), maxLine)
	case strings.IndexByte(line, 0) >= 0:
		return c, errors.New("command has a NUL byte")
	}
	s, err := scanCommand(line)
	if err != nil {
		return c, err
	}
	if s.shell {
		c.Shell = true
		if s.simple {
			line = "exec " + line
		}
		c.Argv = []string{"/bin/sh", "-c", line}
		return c, nil
	}
	words, err := shellquote.Split(line)
	if err != nil {
		return c, err
	}
	switch {
	case words[0] == "exec" && len(words) > 1 && !strings.HasPrefix(words[1], "-"):
		words = words[1:] // what the shell would leave of it
	case shellWords[words[0]]: // quoted, it still is a built-in
		c.Shell, c.Argv = true, []string{"/bin/sh", "-c", line}
		return c, nil
	}
	if words[0] == "" {
		return c, errors.New("the name of the program is empty")
	}
	c.Argv = words
	return c, nil
}

// shellWords mean something to a shell that no program can do in its place:
// reserved words of the usual shells, and built-ins that no program stands for.
var shellWords = func() map[string]bool {
	const words = "! [[ ]] case coproc do done elif else esac fi for function if in select then time until while " +
		". : alias bg bind break builtin caller cd chdir command compgen complete continue declare dirs disown " +
		"enable eval exec exit export fc fg getopts hash help history jobs let local logout mapfile popd pushd " +
		"read readarray readonly return set shift shopt source suspend times trap type typeset ulimit umask " +
		"unalias unset wait"
	all := make(map[string]bool)
	for _, w := range strings.Fields(words) {
		all[w] = true
	}
	return all
}()

// A scan is what a look at a command line tells.
type scan struct {
	shell  bool // it needs a shell
	simple bool // it is one simple command, so that exec may stand before it
}

// scanCommand walks over a line once. Where it is not sure it says that the line
// needs a shell and is not simple, which is always right.
func scanCommand(line string) (scan, error) {
	s := scan{simple: true}
	complicated := scan{shell: true}
	var (
		word    strings.Builder // the first word, as far as it is plain text
		plain   = true          // the first word is plain text: nothing quoted or expanded
		inFirst = true          // still in the first word
		start   = true          // at the beginning of a word
	)
	for i := 0; i < len(line); i++ {
		c := line[i]
		if inFirst && c != ' ' && c != '\t' && strings.IndexByte("'\"\\$`\n;&|<>()", c) < 0 {
			word.WriteByte(c)
		}
		switch c {
		case ' ', '\t':
			inFirst, start = false, true
			continue
		case '\n', ';', '&', '|', '(', ')':
			return complicated, nil
		case '<', '>':
			s.shell = true
			if inFirst && strings.Trim(word.String(), "0123456789") == "" && plain {
				return complicated, nil // a redirection before the command
			}
			inFirst, start = false, true
			rest := strings.TrimLeft(line[i:], "<>")
			if n := len(line) - i - len(rest); n > 2 || line[i:i+n] == "<<" {
				return complicated, nil // a here document or worse
			} else {
				i += n - 1
			}
			if i+1 < len(line) && (line[i+1] == '&' || line[i+1] == '|') {
				i++
			}
			continue
		case '#':
			if start && inFirst && strings.IndexByte(line[i:], '\n') < 0 {
				return s, errors.New("command is a comment")
			}
			if start {
				if strings.IndexByte(line[i:], '\n') >= 0 {
					return complicated, nil
				}
				s.shell = true
				return s.checked(word.String(), plain), nil // the rest is a comment
			}
		case '\'':
			if inFirst {
				plain = false
			}
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return s, fmt.Errorf("no end to the ' before %s", quote(line[i+1:]))
			}
			i += 1 + end
		case '"':
			if inFirst {
				plain = false
			}
			begin := i
			for i++; i < len(line) && line[i] != '"'; i++ {
				switch line[i] {
				case '\\':
					if i++; i < len(line) && line[i] == '\n' {
						return complicated, nil
					}
				case '$', '`':
					s.shell = true
					n := expansion(line[i:])
					if n == 0 {
						return complicated, nil
					}
					i += n - 1
				}
			}
			if i >= len(line) {
				return s, fmt.Errorf("no end to the \" before %s", quote(line[begin+1:]))
			}
		case '\\':
			if inFirst {
				plain = false
			}
			if i++; i == len(line) {
				return s, errors.New("nothing behind the last \\")
			}
			if line[i] == '\n' {
				return complicated, nil
			}
		case '$', '`':
			s.shell = true
			if inFirst {
				plain = false
			}
			n := expansion(line[i:])
			if n == 0 {
				return complicated, nil
			}
			i += n - 1
		case '*', '?', '[', '~', '{', '}':
			s.shell = true
		}
		start = false
	}
	return s.checked(word.String(), plain), nil
}

// checked looks at the first word: word is what of it stands outside quotes and
// expansions, plain says that this is all of it.
func (s scan) checked(word string, plain bool) scan {
	if eq := strings.IndexByte(word, '='); eq >= 0 {
		return scan{shell: true} // an assignment, or too much like one
	}
	switch {
	case plain && word == "exec":
		if s.shell {
			s.simple = false // it is there already
		}
	case plain && shellWords[word]:
		return scan{shell: true}
	case plain:
	case strings.IndexByte(word, '/') >= 0: // a path, whatever is expanded in it
	case s.shell:
		s.simple = false // it may become a built-in
	}
	if strings.ContainsAny(word, "{}*?[~!") {
		s.simple = false
	}
	return s
}

// expansion is the length of the expansion that s, which starts with $ or `,
// begins with; 0 if it is none of the easy ones.
func expansion(s string) int {
	if s[0] == '`' {
		if end := strings.IndexByte(s[1:], '`'); end >= 0 && easy(s[1:1+end]) {
			return end + 2
		}
		return 0
	}
	if len(s) == 1 {
		return 1
	}
	switch s[1] {
	case '{':
		if end := strings.IndexByte(s, '}'); end >= 0 && easy(s[2:end]) {
			return end + 1
		}
		return 0
	case '(':
		if end := strings.IndexByte(s, ')'); end >= 0 && easy(s[2:end]) {
			return end + 1
		}
		return 0
	case '\'', '"':
		return 0 // bash's own quotes
	}
	return 1 // a variable; its name is no syntax
}

// easy says that nothing in s opens or closes anything.
func easy(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte(" _-./:=,+%@$?", c) >= 0:
		default:
			return false
		}
	}
	return true
}
