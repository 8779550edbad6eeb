package syslog

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		// glibc, musl, busybox, logger
		"<13>Nov 22 18:00:00 web[12]: hello":    "notice|web[12]: hello",
		"<11>Nov  2 18:00:00 web: hello":        "error|web[7]: hello",
		"<30>Nov 22 18:00:00 web[12]: hello\n":  "info|web[12]: hello",
		"<15>Nov 22 18:00:00 a/b-c_d.e[x]: h":   "debug|a/b-c_d.e[x]: h",
		"<0>Nov 22 18:00:00 (cron)[12]: h":      "emergency|(cron)[12]: h",
		"<13>Nov 22 18:00:00 web:":              "notice|web[7]: ",
		"<13>Nov 22 18:00:00.123 web: x":        "notice|web[7]: x",
		"<13>2026-11-22T18:00:00+01:00 web: x":  "notice|web[7]: x",
		"<13>Nov 22 18:00:00 host web[12]: x":   "notice|web[12]: x",
		"<13>Nov 22 18:00:00 host says nothing": "notice|[7]: host says nothing",
		"<13>Nov 22 18:00:00 ":                  "notice|[7]: Nov 22 18:00:00",
		"<13>Nox 22 18:00:00 web: x":            "notice|[7]: Nox 22 18:00:00 web: x",
		// libraries that leave things out
		"<14>hello world\x00":              "info|[7]: hello world",
		"<14>app: hello":                   "info|app[7]: hello",
		"hello":                            "notice|[7]: hello",
		"app: hello":                       "notice|app[7]: hello",
		"http://a.b/c":                     "notice|[7]: http://a.b/c",
		"array[3] is wrong":                "notice|[7]: array[3] is wrong",
		"a[: b":                            "notice|[7]: a[: b",
		"a[]: b":                           "notice|[7]: a[]: b",
		": b":                              "notice|[7]: : b",
		"<191>x":                           "debug|[7]: x",
		"<192>x":                           "notice|[7]: <192>x",
		"<>x":                              "notice|[7]: <>x",
		"<-1>x":                            "notice|[7]: <-1>x",
		"<00013>x":                         "notice|[7]: <00013>x",
		"<13":                              "notice|[7]: <13",
		"":                                 "notice|[7]: ",
		"<13>":                             "notice|[7]: ",
		strings.Repeat("n", 65) + ": text": "notice|[7]: " + strings.Repeat("n", 65) + ": text",
		// RFC 5424
		"<165>1 2026-11-22T18:00:00.003Z host app 12 ID47 - text":                          "notice|app[12]: ID47 text",
		"<165>1 2026-11-22T18:00:00.003Z host app - - - text":                              "notice|app[7]: text",
		"<165>1 - - - - - - \ufefftext":                                                    "notice|[7]: text",
		"<165>1 - - app - - -":                                                             "notice|app[7]: ",
		`<165>1 - - app - - [a b="c\"] d"][e] text`:                                        `notice|app[7]: [a b="c\"] d"][e] text`,
		`<165>1 - - app - - [a b="c"]`:                                                     `notice|app[7]: [a b="c"]`,
		`<165>1 - - app - - [timeQuality tzKnown="1" isSynced="1"] text`:                   `notice|app[7]: text`,
		`<165>1 - - app - - [a b="c text`:                                                  `notice|app[7]: [a b="c text`,
		`<165>1 - - app - - text`:                                                          `notice|app[7]: text`,
		"<13>1 apple fell from the tree today":                                             "notice|[7]: 1 apple fell from the tree today",
		"<165>1 2026-11-22T18:00:00.003Z host app 12":                                      "notice|[7]: 1 2026-11-22T18:00:00.003Z host app 12",
		"<165>1 2026-11-22T18:00:00.003Z host app 12 - - two\nlines":                       `notice|app[12]: two\x0alines`,
		"<13>Nov 22 18:00:00 web: \x1b[31mred\tÄ\xff\u0085\x00\x7f€":                       `notice|web[7]: \x1b[31mred` + "\t" + `Ä\xff\xc2\x85\x00\x7f€`,
		"<13>Nov 22 18:00:00 w\x07b[\x1b]: x":                                              `notice|w\x07b[\x1b]: x`,
		"<13>Nov 22 18:00:00 web: forged\n<0>Nov 22 18:00:00 kernel: panic":                `notice|web[7]: forged\x0a<0>Nov 22 18:00:00 kernel: panic`,
		"<13>Nov 22 18:00:00 Ärger[12]: umlaut":                                            "notice|Ärger[12]: umlaut",
		"<13>Nov 22 18:00:00 web: \ufffd is a character":                                   "notice|web[7]: \ufffd is a character",
		"<165>1 2026-11-22T18:00:00.003Z host app 12 - " + `[a b="` + "\n" + `"] forged\n`: `notice|app[12]: [a b="\x0a"] forged\n`,
	} {
		m := parse([]byte(in))
		m.PID = 7
		if got := m.Level() + "|" + m.Line(); got != want {
			t.Errorf("parse(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestParseRecord(t *testing.T) {
	for in, want := range map[string]string{
		"6,339,5140900,-;NET: Registered\n SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A03\n": "339 info|kernel: NET: Registered",
		"3,1,0,c;caf\\xc3\\xa9 \\x1b[0m \\x5c \\xzz \\x4":                           `1 error|kernel: café \x1b[0m \ \xzz \x4`,
		"12,2,9,-,caller=T1;init[5]: said":                                          "2 warning|init[5]: said",
		"14,3,9,-;plain words":                                                      "3 info|plain words",
		"30,4,9,-;Nov 22 18:00:00 a: b":                                             "4 info|a: b",
		"6,5,9,-;":                                                                  "5 info|kernel: ",
		"x,5,9,-;a":                                                                 "", "6,x,9,-;a": "", "6,5;a": "", "6,5,9,-": "", "": "", "-1,5,9,-;a": "", "99999999,5,9,-;a": "",
	} {
		got := ""
		if m, seq, ok := parseRecord([]byte(in)); ok {
			got = string('0'+rune(seq%10)) + " "
			if seq == 339 {
				got = "339 "
			}
			got += m.Level() + "|" + m.Line()
		}
		if got != want {
			t.Errorf("parseRecord(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCleanIsBounded(t *testing.T) {
	for _, c := range []string{"x", "\x00", "ä", "\xff", "\t"} {
		for _, n := range []int{0, 1, 63, 64, 65, 100, 10_000} {
			in := strings.Repeat(c, n)
			out := clean([]byte(in), 64)
			if len(out) > 64+80 {
				t.Errorf("clean(%d times %q) has %d bytes", n, c, len(out))
			}
			if len(in) <= 40 && c == "x" && out != in || len(in) > 1000 && !strings.HasSuffix(out, "...") {
				t.Errorf("clean(%d times %q) = %q", n, c, out)
			}
		}
	}
}

// checkMessage holds what everybody relies on.
func checkMessage(t *testing.T, m *Message) {
	t.Helper()
	line := m.Line()
	if len(line) > maxLine+2*maxName+2*maxID+400 {
		t.Errorf("line of %d bytes", len(line))
	}
	if !utf8.ValidString(line) {
		t.Errorf("%q is not UTF-8", line)
	}
	for _, r := range line {
		if unicode.IsControl(r) && r != '\t' {
			t.Errorf("%q has the control character %U", line, r)
		}
	}
	if m.Severity < 0 || m.Severity > 7 || m.Facility < 0 {
		t.Errorf("priority %d.%d", m.Facility, m.Severity)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"<13>Nov 22 18:00:00 web[12]: hello", "<165>1 2026-11-22T18:00:00.003Z host app 12 ID47 [a b=\"c\"] text",
		"<14>x\x00", "<13>2026-11-22T18:00:00Z web: x", "<13>Nov  2 18:00:00.123 host web[1]: \x1b\xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkMessage(t, parse(b)) })
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte("6,339,5140900,-,caller=T1;NET\\x41\n SUBSYSTEM=acpi\n"))
	f.Add([]byte("14,3,9,c;a[1]: b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, _, ok := parseRecord(b); ok {
			checkMessage(t, m)
		}
	})
}
