package procfile

import (
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

var commandTests = []struct {
	line string
	want []string // the argv; the shell's is written as "sh", its script
}{
	{"sleep 1h", []string{"sleep", "1h"}},
	{" sleep\t1h \r", []string{"sleep", "1h"}},
	{"bundle exec unicorn -c config/unicorn.rb config.ru", []string{"bundle", "exec", "unicorn", "-c", "config/unicorn.rb", "config.ru"}},
	{`a 'b c' "d e" f\ g ""`, []string{"a", "b c", "d e", "f g", ""}},
	{`a "x\"y\\z\n"`, []string{"a", `x"y\z\n`}},
	{"a b#c %x x=y @ + , ^ ]", []string{"a", "b#c", "%x", "x=y", "@", "+", ",", "^", "]"}},
	{"exec node app.js", []string{"node", "app.js"}},
	{"env PORT=1 node", []string{"env", "PORT=1", "node"}},
	{"gunicorn -b unix:/var/tmp/graphite.sock", []string{"gunicorn", "-b", "unix:/var/tmp/graphite.sock"}},

	// A shell, but not between.
	{"puma -p $PORT", []string{"sh", "exec puma -p $PORT"}},
	{`puma -p "${PORT:-5000}" -w $(nproc)`, []string{"sh", `exec puma -p "${PORT:-5000}" -w $(nproc)`}},
	{"$HOME/bin/x", []string{"sh", "exec $HOME/bin/x"}},
	{"a >log 2>&1 <in", []string{"sh", "exec a >log 2>&1 <in"}},
	{"a *.conf", []string{"sh", "exec a *.conf"}},
	{"a ~/x", []string{"sh", "exec a ~/x"}},
	{"a {b,c}", []string{"sh", "exec a {b,c}"}},
	{"a # b; c", []string{"sh", "exec a # b; c"}},

	// Anything else is left to the shell as it is.
	{"exec a $X", []string{"sh", "exec a $X"}},
	{"exec -a b c", []string{"sh", "exec -a b c"}},
	{"exec", []string{"sh", "exec"}},
	{"A=b c", []string{"sh", "A=b c"}},
	{"cd x && y", []string{"sh", "cd x && y"}},
	{"cd x", []string{"sh", "cd x"}},
	{`"cd" x`, []string{"sh", `"cd" x`}},
	{"a | b", []string{"sh", "a | b"}},
	{"a; b", []string{"sh", "a; b"}},
	{"a &", []string{"sh", "a &"}},
	{"a &>f", []string{"sh", "a &>f"}},
	{"(a)", []string{"sh", "(a)"}},
	{"{ a $b; }", []string{"sh", "{ a $b; }"}},
	{"if a; then b; fi", []string{"sh", "if a; then b; fi"}},
	{"! a $b", []string{"sh", "! a $b"}},
	{"while :; do a; done", []string{"sh", "while :; do a; done"}},
	{">f a", []string{"sh", ">f a"}},
	{"$X a", []string{"sh", "$X a"}},
	{"a <<E", []string{"sh", "a <<E"}},
	{"a # b\nc", []string{"sh", "a # b\nc"}},
	{"# a\nb", []string{"sh", "# a\nb"}},
	{"a\nb", []string{"sh", "a\nb"}},
	{`a "$(b "c")"`, []string{"sh", `a "$(b "c")"`}},
	{"a $((1+2))", []string{"sh", "a $((1+2))"}},
	{"time a $b", []string{"sh", "time a $b"}},
}

func TestParseCommand(t *testing.T) {
	for _, test := range commandTests {
		got, err := ParseCommand(test.line)
		want := Command{Line: test.line, Argv: test.want}
		if test.want[0] == "sh" {
			want.Shell, want.Argv = true, []string{"/bin/sh", "-c", test.want[1]}
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseCommand(%q) = %q, %v, want %q", test.line, got.Argv, err, want.Argv)
		}
	}
	for line, want := range map[string]string{
		"": "command is empty", " \n": "command is empty", "# a": "command is a comment", "a\x00": "command has a NUL byte",
		"a 'b": `no end to the ' before "b"`, `a "b`: `no end to the " before "b"`,
		`a \`: `nothing behind the last \`, `'' a`: "the name of the program is empty",
	} {
		if c, err := ParseCommand(line); err == nil || err.Error() != want {
			t.Errorf("ParseCommand(%q) = %q, %v, want %s", line, c.Argv, err, want)
		}
	}
}

// checkOracle compares with what a real parser of shells makes of the line.
func checkOracle(t *testing.T, line string) {
	t.Helper()
	c, err := ParseCommand(line)
	// The other parser takes UTF-8 only, and a CR for a blank, which no shell does.
	if err != nil || !utf8.ValidString(line) || strings.Contains(line, "\r") {
		return
	}
	if c.Shell {
		script := c.Argv[2]
		if script == strings.Trim(line, " \t\r\n") {
			return // as it is, so it means the same
		}
		// exec is only safe before one simple command without assignments.
		f, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(strings.Trim(line, " \t\r\n")), "")
		if err != nil {
			return // an error with exec as without
		}
		if len(f.Stmts) != 1 || f.Stmts[0].Negated || f.Stmts[0].Background {
			t.Fatalf("%q got an exec and is no single command", line)
		}
		call, ok := f.Stmts[0].Cmd.(*syntax.CallExpr)
		if !ok || len(call.Assigns) > 0 || len(call.Args) == 0 {
			t.Fatalf("%q got an exec and is no simple command", line)
		}
		if lit := call.Args[0].Lit(); shellWords[lit] {
			t.Fatalf("%q got an exec before a built-in", line)
		}
		return
	}
	for _, variant := range []syntax.LangVariant{syntax.LangPOSIX, syntax.LangBash} {
		f, err := syntax.NewParser(syntax.Variant(variant)).Parse(strings.NewReader(line), "")
		if err != nil {
			t.Fatalf("%q is split into %q, and a shell says %v", line, c.Argv, err)
		}
		if len(f.Stmts) != 1 {
			t.Fatalf("%q is split into %q, and a shell sees %d commands", line, c.Argv, len(f.Stmts))
		}
		call, ok := f.Stmts[0].Cmd.(*syntax.CallExpr)
		if !ok || len(call.Assigns) > 0 || len(f.Stmts[0].Redirs) > 0 {
			t.Fatalf("%q is split into %q, and is no simple command", line, c.Argv)
		}
		want, err := expand.Fields(&expand.Config{Env: expand.ListEnviron("HOME=/HOME")}, call.Args...)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if want[0] == "exec" {
			want = want[1:]
		}
		if !reflect.DeepEqual(c.Argv, want) {
			t.Fatalf("%q is split into %q, a shell makes %q", line, c.Argv, want)
		}
	}
}

func TestParseCommandOracle(t *testing.T) {
	for _, test := range commandTests {
		checkOracle(t, test.line)
	}
}

// The machine's own shell must see the same words.
func TestParseCommandShell(t *testing.T) {
	sh, err := exec.LookPath("/bin/sh")
	if err != nil {
		t.Skip("no /bin/sh here: ", err)
	}
	dir := t.TempDir()
	stub := filepath.Join(dir, "argv")
	write(t, dir, "argv", "#!/bin/sh\nfor a; do printf '%s\\0' \"$a\"; done\n")
	if err := exec.Command("chmod", "+x", stub).Run(); err != nil {
		t.Fatal(err)
	}
	for _, rest := range []string{
		"a b", `'a  b' c\ d "e\\f\"g\h"`, `"" '' \'`, "a#b =x %", `"a'b"'c"d'`, "$A $B \"$A\"", "${A:-x} ${C:-y z}",
		"$(echo a b)", "`echo c`", "*nothing*", "a >out; cat out", "a # b",
	} {
		line := stub + " " + rest
		run := func(argv []string) string {
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Dir, cmd.Env = dir, []string{"PATH=/usr/bin:/bin", "A=x  y"}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%q: %v: %s", argv, err, out)
			}
			return string(out)
		}
		c, err := ParseCommand(line)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := run(c.Argv), run([]string{sh, "-c", line}); got != want {
			t.Errorf("%q, run as %q: %q, want %q", line, c.Argv, got, want)
		}
	}
}

func FuzzParseCommand(f *testing.F) {
	for _, test := range commandTests {
		f.Add(test.line)
	}
	f.Fuzz(func(t *testing.T, line string) { checkOracle(t, line) })
}
