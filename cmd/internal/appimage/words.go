package appimage

import (
	"path"
	"slices"
	"strings"
)

// A shellWord is a word of a command line, as far as it can be known before it runs.
type shellWord struct {
	text  string // what the shell makes of it; as written, if that is not known
	known bool
}

// A shellCommand is one simple command of a line: its program and its arguments.
type shellCommand []shellWord

// shellLine takes the simple commands out of a line for /bin/sh, those within
// $(…), `…` and sh -c '…' too. Variables that are in env are replaced. It does not
// judge the line: what it does not understand it leaves out.
func shellLine(line string, env map[string]string, depth int) []shellCommand {
	if depth > 4 {
		return nil
	}
	l := &lineLexer{rest: line, env: env, depth: depth, functions: map[string]bool{}}
	l.run()
	return slices.DeleteFunc(l.out, func(c shellCommand) bool { return l.functions[c[0].text] })
}

// A lineLexer goes over a line once.
type lineLexer struct {
	rest      string
	env       map[string]string
	depth     int
	open      int // parentheses
	current   shellCommand
	word      strings.Builder
	inWord    bool
	unknown   bool // the word has something that cannot be known
	skip      bool // the word is the target of a redirection
	input     bool // the word is what is read
	functions map[string]bool
	out       []shellCommand
}

func (l *lineLexer) run() {
	for l.rest != "" {
		c := l.rest[0]
		l.rest = l.rest[1:]
		switch c {
		case ' ', '\t', '\n', '\r', ';', '&', '|', '(', ')', '<', '>':
			l.operator(c)
		case '#':
			if l.inWord {
				l.put("#")
				break
			}
			_, l.rest, _ = strings.Cut(l.rest, "\n")
			l.endCommand()
		case '\\':
			if l.rest == "" || l.rest[0] != '\n' {
				l.put(l.rest[:min(1, len(l.rest))])
			}
			l.rest = l.rest[min(1, len(l.rest)):]
		case '\'':
			text, rest, _ := strings.Cut(l.rest, "'")
			l.put(text)
			l.rest = rest
		case '"':
			l.doubleQuoted()
		case '$':
			l.dollar()
		case '`':
			l.backquoted()
		case '*', '?', '[':
			l.unknown = l.unknown || l.rest != "" && !strings.HasPrefix(l.rest, " ") || l.inWord
			l.put(string(c))
		default:
			l.put(string(c))
		}
	}
	l.endCommand()
}

func (l *lineLexer) put(s string) { l.word.WriteString(s); l.inWord = true }

// operator is what ends a word.
func (l *lineLexer) operator(c byte) {
	switch c {
	case '<', '>':
		// A number before it is the descriptor.
		if t := l.word.String(); l.inWord && strings.Trim(t, "0123456789") == "" {
			l.word.Reset()
			l.inWord = false
		}
		l.endWord()
		l.rest = strings.TrimLeft(l.rest, "<>&|")
		// Input is a file that is needed, output is not.
		l.skip, l.input = c == '>', c == '<'
		return
	case '(':
		if l.inWord && strings.HasPrefix(strings.TrimLeft(l.rest, " \t"), ")") { // name() { …
			l.functions[l.word.String()] = true
			l.word.Reset()
			l.inWord = false
			_, l.rest, _ = strings.Cut(l.rest, ")")
			return
		}
		l.open++
		l.endCommand()
	case ')':
		l.endWord()
		if l.open == 0 { // the pattern of a case
			l.current = nil
			return
		}
		l.open--
		l.endCommand()
	case ' ', '\t', '\r':
		l.endWord()
	default:
		l.endCommand()
	}
}

func (l *lineLexer) endWord() {
	if !l.inWord {
		return
	}
	w := shellWord{l.word.String(), !l.unknown}
	name, value, assigns := strings.Cut(w.text, "=")
	l.word.Reset()
	l.inWord, l.unknown = false, false
	if l.skip {
		l.skip = false
		return
	}
	if l.input { // it may stand before the program, and behind done
		l.input = false
		l.out = append(l.out, shellCommand{{":", true}, w})
		return
	}
	if len(l.current) == 0 && w.known {
		switch w.text {
		case "if", "then", "else", "elif", "fi", "while", "until", "do", "done", "esac", "{", "}", "!", "time":
			return // what follows is a command
		}
	}
	if len(l.current) == 0 && assigns && isName(name) {
		delete(l.env, name)
		if w.known {
			l.env[name] = value
		}
		return
	}
	l.current = append(l.current, w)
}

func isName(s string) bool {
	for i, c := range []byte(s) {
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func (l *lineLexer) endCommand() {
	l.endWord()
	l.skip, l.input = false, false
	if c := l.current; len(c) > 0 {
		switch c[0].text {
		case "for", "case", "select", "function":
		default:
			l.out = append(l.out, c)
		}
	}
	l.current = nil
}

func (l *lineLexer) doubleQuoted() {
	l.inWord = true
	for l.rest != "" {
		c := l.rest[0]
		l.rest = l.rest[1:]
		switch {
		case c == '"':
			return
		case c == '$':
			l.dollar()
		case c == '`':
			l.backquoted()
		case c == '\\' && l.rest != "" && strings.IndexByte("$`\"\\\n", l.rest[0]) >= 0:
			l.put(l.rest[:1])
			l.rest = l.rest[1:]
		default:
			l.put(string(c))
		}
	}
}

// dollar is behind a $.
func (l *lineLexer) dollar() {
	switch {
	case strings.HasPrefix(l.rest, "(("):
		l.unknown, l.inWord = true, true
		l.rest = afterClosing(l.rest[1:], '(', ')')
	case strings.HasPrefix(l.rest, "("):
		l.unknown, l.inWord = true, true
		rest := afterClosing(l.rest[1:], '(', ')')
		inner := l.rest[1 : len(l.rest)-len(rest)]
		l.out = append(l.out, shellLine(strings.TrimSuffix(inner, ")"), l.env, l.depth+1)...)
		l.rest = rest
	case strings.HasPrefix(l.rest, "{"):
		name, rest, _ := strings.Cut(l.rest[1:], "}")
		l.variable(name)
		l.rest = rest
	default:
		i := 0
		for i < len(l.rest) && isName(l.rest[:i+1]) {
			i++
		}
		if i == 0 {
			if l.rest != "" && strings.IndexByte("?$!#@*-0123456789", l.rest[0]) >= 0 {
				l.rest = l.rest[1:]
				l.variable("?")
				return
			}
			l.put("$")
			return
		}
		name := l.rest[:i]
		l.rest = l.rest[i:]
		l.variable(name)
	}
}

func (l *lineLexer) variable(name string) {
	value, known := l.env[name]
	if !known {
		value, l.unknown = "${"+name+"}", true
	}
	l.put(value)
}

func (l *lineLexer) backquoted() {
	inner, rest, _ := strings.Cut(l.rest, "`")
	l.unknown, l.inWord = true, true
	l.out = append(l.out, shellLine(inner, l.env, l.depth+1)...)
	l.rest = rest
}

// afterClosing is what follows the parenthesis that closes the one before s.
func afterClosing(s string, opening, closing byte) string {
	depth := 1
	for i := range len(s) {
		switch s[i] {
		case opening:
			depth++
		case closing:
			if depth--; depth == 0 {
				return s[i+1:]
			}
		}
	}
	return ""
}

// shellBuiltins need no program: those of dash, bash and busybox alike.
const shellBuiltins = " . : [ alias bg break cd chdir command continue echo eval exec exit export false fg getopts hash jobs " +
	"kill let local printf pwd read readonly return set shift source test times trap true type ulimit umask unalias unset wait [[ "

// commandsOf are the programs of a command that a shell is told, or not: the first
// word, and what programs and built-ins that execute others are given to execute.
// direct and inner are commands within it, for no shell and for another: options may
// have been misunderstood.
func commandsOf(c shellCommand, shell bool, env map[string]string) (programs []shellWord, direct, inner []shellCommand) {
	for i := 0; i < len(c); i++ {
		first := c[i]
		builtin := shell && strings.Contains(shellBuiltins, " "+first.text+" ")
		if !builtin {
			programs = append(programs, first)
		}
		switch path.Base(first.text) {
		case "sh", "bash", "dash", "ash", "busybox":
			for j := i + 1; j+1 < len(c); j++ {
				if c[j].known && strings.HasPrefix(c[j].text, "-") && strings.HasSuffix(c[j].text, "c") && c[j+1].known {
					inner = append(inner, shellLine(c[j+1].text, env, 1)...)
				}
			}
			return programs, direct, inner
		case "exec", "command", "env", "nohup", "setsid", "nice", "ionice", "timeout", "time", "stdbuf", "setpriv", "chrt", "taskset", "chpst", "sudo", "su-exec", "gosu", "xargs":
		default:
			return programs, direct, inner
		}
		if first.text == "command" && i+1 < len(c) && strings.HasPrefix(c[i+1].text, "-") {
			return programs, direct, inner // command -v only asks
		}
		// Options, variables and numbers, and then a program.
		j := i + 1
		for j < len(c) && (strings.HasPrefix(c[j].text, "-") || strings.Contains(c[j].text, "=") || strings.Trim(c[j].text, "0123456789.smhd") == "") {
			j++
		}
		if base := path.Base(first.text); (base == "su-exec" || base == "gosu") && j < len(c) {
			j++ // the user
		}
		if j >= len(c) {
			return programs, direct, inner
		}
		if builtin {
			i = j - 1
			continue
		}
		return programs, append(direct, c[j:]), inner
	}
	return programs, direct, inner
}
