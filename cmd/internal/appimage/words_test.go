package appimage

import (
	"strings"
	"testing"
)

func TestShellLine(t *testing.T) {
	env := map[string]string{"STATE": "../out", "PWD": ".", "E": ""}
	for line, want := range map[string]string{
		"a b c":                      "[a b c]",
		"a 'b c' \"d $STATE\" e\\ f": "[a|b c|d ../out|e f]",
		"while :; do $STATE/bin/shop tidy; sleep 30; done": "[:] [../out/bin/shop tidy] [sleep 30]",
		"A=1 B=$A c $B ${A}x":                              "[c 1 1x]",
		"a $PORT b":                                        "[a ?${PORT} b]",
		"a | b && c || d & e":                              "[a] [b] [c] [d] [e]",
		"a >out 2>&1 <in b":                                "[: in] [a b]",
		"while x; do y; done < in":                         "[x] [y] [: in]",
		"a >> out; b 2>/dev/null":                          "[a] [b]",
		"if a; then b; elif c; then d; else e; fi":         "[a] [b] [c] [d] [e]",
		"for i in x y; do a $i; done":                      "[a ?${i}]",
		"case $x in a|b) c;; *) d;; esac":                  "[c] [d]",
		"x=$(date +%s); a `b c` d $x":                      "[date +%s] [b c] [a ? d ?${x}]",
		"f() { a; }; f; b":                                 "[a] [b]",
		"(a; b) && { c; }":                                 "[a] [b] [c]",
		"! a # comment; b\nc":                              "[a] [c]",
		"a $((1+2)) b":                                     "[a ? b]",
		"a *.conf [x] ?":                                   "[a ?*.conf ?[x] ?]",
		"[ -f x ] && a":                                    "[[ -f x ]] [a]",
		"exec a $PWD/b":                                    "[exec a ./b]",
		"a \"$(b \"c d\")\"":                               "[b|c d] [a ?]",
		"a '":                                              "[a ]",
		"":                                                 "",
		"a $":                                              "[a $]",
		"a\\\nb":                                           "[ab]",
		"2>x a":                                            "[a]",
		"a $E b":                                           "[a  b]",
	} {
		var got []string
		for _, c := range shellLine(line, map[string]string{"STATE": env["STATE"], "PWD": ".", "E": ""}, 0) {
			var words []string
			sep := " "
			for _, w := range c {
				text := w.text
				if strings.Contains(text, " ") {
					sep = "|"
				}
				if !w.known && text != "?" {
					text = "?" + text
				}
				words = append(words, text)
			}
			got = append(got, "["+strings.Join(words, sep)+"]")
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%q has %s, want %s", line, text, want)
		}
	}
}

func TestCommandsOf(t *testing.T) {
	for line, want := range map[string]string{
		"a b":                        "a",
		"exec a b":                   "a",
		"exec -a name a":             "name", // as far as it is understood
		"env A=1 a b":                "env +a",
		"nice -n 5 a b":              "nice +a",
		"timeout 5s env B=2 a":       "timeout +env +a",
		"sh -c 'a b; c'":             "sh +a +c",
		"bash -ec a":                 "bash +a",
		"command -v a":               "",
		"command a":                  "a",
		"cd /x":                      "",
		"su-exec www a":              "su-exec +a",
		"/usr/bin/env -i A=1 ./b -x": "/usr/bin/env +./b",
	} {
		var got []string
		list := shellLine(line, map[string]string{}, 0)
		for i, plus := 0, ""; i < len(list); i, plus = i+1, "+" {
			programs, direct, inner := commandsOf(list[i], true, map[string]string{})
			for _, p := range programs {
				got = append(got, plus+p.text)
			}
			list = append(append(list, direct...), inner...)
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%q has the programs %s, want %s", line, text, want)
		}
	}
}

func FuzzShellLine(f *testing.F) {
	for _, s := range []string{"a $(b `c` ${d}) \"e\\\"$((1))\" >f; case x in y) z;; esac", "f() { a; }", "$((", "${", "\\", "sh -c 'sh -c a'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		list := shellLine(line, map[string]string{"A": "b"}, 0)
		for _, c := range list {
			if len(c) == 0 {
				t.Fatalf("%q has an empty command", line)
			}
			commandsOf(c, true, map[string]string{})
		}
	})
}
