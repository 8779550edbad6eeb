package procfile

import (
	"fmt"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

func TestParseProcfile(t *testing.T) {
	const in = "\ufeff# comment\r\n\r\nmain: bundle exec unicorn -c config/unicorn.rb config.ru\r\n" +
		"  # another\nkey:cmd # not a comment\n\t\nA-z_0:\t x: y \t"
	lines, errs := ParseProcfile("P", strings.NewReader(in))
	want := []Line{
		{"main", "bundle exec unicorn -c config/unicorn.rb config.ru", Position{"P", 3, 1}, Position{"P", 3, 7}},
		{"key", "cmd # not a comment", Position{"P", 5, 1}, Position{"P", 5, 5}},
		{"A-z_0", "x: y", Position{"P", 7, 1}, Position{"P", 7, 9}},
	}
	if !reflect.DeepEqual(lines, want) || len(errs) != 0 {
		t.Errorf("lines = %v, %v\nwant    %v", lines, errs, want)
	}
}

func TestParseProcfileErrors(t *testing.T) {
	for in, want := range map[string]string{
		"web":              `P:1:1: no colon in "web" (a line is "name: command line")`,
		" web: x":          `P:1:1: bad worker name " web" (letters, digits, _ and - only)`,
		"a: x\nwéb: x":     `P:2:1: bad worker name "wéb" (letters, digits, _ and - only)`,
		": x":              `P:1:1: bad worker name "" (letters, digits, _ and - only)`,
		"web:  ":           `P:1:5: worker "web" has no command`,
		"a: x\nb: x\na: y": `P:3:1: worker "a" is already on line 1`,
		"a: x\nb: \x00y":   `P:2:4: file has a NUL byte (is it a text file?)`,
		"a: " + strings.Repeat("x", 200_000): `P:1:4: worker "a" has a command of 200000 bytes ` +
			`(at most 131056 bytes, or the kernel does not take it)`,
		strings.Repeat("a", 65) + ": x": `P:1:1: bad worker name "` + strings.Repeat("a", 60) + `"… (at most 64 characters)`,
		strings.Repeat("#", 10<<20):     `P: file is longer than 1024 KiB`,
	} {
		if _, errs := ParseProcfile("P", strings.NewReader(in)); errs.Error() != want {
			t.Errorf("%.40q: %v\nwant %s", in, errs, want)
		}
	}
	many := ""
	for i := range maxWorkers + 1 {
		many += fmt.Sprintf("w%d: x\n", i)
	}
	lines, errs := ParseProcfile("P", strings.NewReader(many))
	if want := "P:10001:1: more than 10000 workers"; len(lines) != maxWorkers || errs.Error() != want {
		t.Errorf("%d lines, %v, want %s", len(lines), errs, want)
	}
	// Garbage is not reported without end.
	if _, errs := ParseProcfile("P", strings.NewReader(strings.Repeat("x\n", 1000))); len(errs) != maxErrors+1 {
		t.Errorf("%d errors, want %d", len(errs), maxErrors+1)
	}
}

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]syscall.Signal{
		"HUP": 1, "SIGHUP": 1, "1": 1, "hup": 1, "sigterm": 15, "USR1": 10, "WINCH": 28,
		"RTMIN": 34, "RTMIN+3": 37, "SIGRTMIN+30": 64, "RTMAX": 64, "RTMAX-30": 34, "64": 64,
	} {
		if got, err := ParseSignal(in); got != want || err != nil {
			t.Errorf("ParseSignal(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"":         `no signal ""`,
		"0":        "signal 0 is not from 1 to 64",
		"65":       "signal 65 is not from 1 to 64",
		"-1":       "signal -1 is not from 1 to 64",
		"TREM":     `no signal "TREM" (did you mean TERM?)`,
		"SIGSIG":   `no signal "SIGSIG"`,
		"RTMIN+31": `no signal "RTMIN+31"`,
		"RTMIN-1":  `no signal "RTMIN-1"`,
	} {
		if got, err := ParseSignal(in); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("ParseSignal(%q) = %d, %v, want %s", in, got, err, want)
		}
	}
}

// The values are what Foreman 0.87.2 reads from these lines, but for export,
// which it passes over.
func TestParseEnv(t *testing.T) {
	const in = "A=plain\r\nB= blanks stay \nC=a # b\nD='single $X \\n'\nE=\"double \\n \\\" \\\\ \\x\"\n" +
		"F=\nG=a=b\nH=\"open\nI='a'b'\n# K=comment\nnot an assignment\n  L=indented\nM =blank\n" +
		"export N=exported\n1=digit\nA=again\nO-P=x\nQ='\nR=''"
	var errs errorList
	var env environment
	for _, v := range parseEnv(&errs, "E", []byte(in), false) {
		env.set(v.key, v.value)
	}
	want := []string{
		"A=again", "B= blanks stay ", "C=a # b", "D=single $X \\n", "E=double \n \" \\ x", "F=", "G=a=b",
		"H=\"open", "I=a'b", "N=exported", "1=digit", "Q='", "R=",
	}
	if !reflect.DeepEqual(env.list, want) || len(errs.list) != 0 {
		t.Errorf("env = %q, %v\nwant  %q", env.list, errs.list, want)
	}
	parseEnv(&errs, "E", []byte("# ok\n\nA=b\nsecret\nexport  B C=d"), true)
	if got, want := errs.list.Error(), "E:4:1: line is no assignment (a line is KEY=VALUE, without blanks around KEY)\n"+
		"E:5:9: line is no assignment (a line is KEY=VALUE, without blanks around KEY)"; got != want {
		t.Errorf("strict: %s\nwant %s", got, want)
	}
}

func TestDidYouMean(t *testing.T) {
	for word, want := range map[string]string{
		"num_instance": "num_instances", "usr": "user", "grpup": "group", "group": "group", "Env": "env",
		"restrat": "restart", "xyzzy": "", "stop_signals": "stop_signal", "enviroment": "",
	} {
		if want != "" {
			want = "did you mean " + want + "?"
		}
		if got := didYouMean(word, keyNames(table, AtWorker)); got != want {
			t.Errorf("didYouMean(%q) = %q, want %q", word, got, want)
		}
	}
}

func FuzzParseProcfile(f *testing.F) {
	for _, s := range []string{
		"web: bundle exec puma -p $PORT\n", "# c\r\n\r\na:b", "a: x\na: y", ":", "a:", "\x00", "\ufeffa: b", "a: 'x",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lines, errs := ParseProcfile("P", strings.NewReader(string(data)))
		if len(errs) > maxErrors+1 {
			t.Errorf("%d errors", len(errs))
		}
		names := make(map[string]bool)
		for _, l := range lines {
			if badName(l.Name) != "" || names[l.Name] || strings.Trim(l.Command, " \t") == "" {
				t.Errorf("line %+v", l)
			}
			names[l.Name] = true
			// The position is where the command is.
			row := strings.Split(strings.TrimPrefix(string(data), "\ufeff"), "\n")[l.Pos.Line-1]
			if !strings.HasPrefix(row[l.CommandPos.Column-1:], l.Command) {
				t.Errorf("no %q at %v of %q", l.Command, l.CommandPos, row)
			}
		}
	})
}

func FuzzParseEnv(f *testing.F) {
	f.Add([]byte("A=b\nexport B='c'\nC=\"\\n\\\\\""))
	f.Fuzz(func(t *testing.T, data []byte) {
		var errs errorList
		for _, v := range parseEnv(&errs, "E", data, true) {
			if v.key == "" || strings.ContainsAny(v.key, "=\x00 ") || strings.IndexByte(v.value, 0) >= 0 {
				t.Errorf("variable %+v", v)
			}
		}
	})
}
