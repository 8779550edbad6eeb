//go:build oracle

// The same command lines with the real programs and with pazinit by their names:
// what resulted must be the same. ORACLE_REAL and ORACLE_OURS are folders that
// hold both programs, ORACLE_TABLE a file to which a line a case is appended.
package differential

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var real, ours = os.Getenv("ORACLE_REAL"), os.Getenv("ORACLE_OURS")

// probe is the command, below a name without which it is not found.
var probe string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if real == "" || ours == "" {
		fmt.Fprintln(os.Stderr, "ORACLE_REAL and ORACLE_OURS name the folders of the programs: use make oracle")
		return 2
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "root is needed: PID namespaces, another user, a setuid program")
		return 2
	}
	dir, err := os.MkdirTemp("", "oracle")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer os.RemoveAll(dir)
	probe = filepath.Join(dir, "probe")
	if out, err := exec.Command("cc", "-static", "-O2", "-Wall", "-o", probe, "../probe.c").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the probe: %v\n%s", err, out)
		return 2
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return 2
	}
	go func() {
		runtime.LockOSThread()
		for f := range starts {
			f()
		}
	}()
	return m.Run()
}

// wanted are the cases in which pazinit differs on purpose.
var wanted = []struct {
	row *regexp.Regexp
	why string
}{
	{regexp.MustCompile(`^tini/ends/close=0_`), "it runs where tini refuses to"},
	{regexp.MustCompile(`^tini/.*sync-signal`), "they are forwarded; tini dies of them, or as PID 1 never gets them"},
	{regexp.MustCompile(`^tini/errors/ownership`), "it stays when the kernel refuses to signal the child; tini leaves it alone"},
	{regexp.MustCompile(`/ends/-(svvv|v_-c)_nosuch$`), "what could not be executed was never a child: the last five lines are missing"},
}

// differ plays a case with both and writes the row of the table.
func differ(t *testing.T, row string, script func(t *testing.T, dir string) []string) {
	t.Run(row, func(t *testing.T) {
		var told [2][]string
		var ok [2]bool
		for i, dir := range []string{real, ours} {
			if i == 1 && !ok[0] {
				break
			}
			ok[i] = t.Run([]string{"real", "pazinit"}[i], func(t *testing.T) { told[i] = script(t, dir) })
		}
		same := slices.Equal(told[0], told[1])
		result := "pass\tpass"
		switch {
		case !ok[0]:
			result = "FAIL\tnot trusted"
		case !ok[1]:
			result = "pass\tFAIL"
		case !same:
			result = "pass\tFAIL"
			for _, w := range wanted {
				if w.row.MatchString(row) {
					result = "pass\tdiffers: " + w.why
				}
			}
			if strings.HasSuffix(result, "FAIL") {
				t.Errorf("real:\n\t%s\npazinit:\n\t%s", strings.Join(told[0], "\n\t"), strings.Join(told[1], "\n\t"))
			}
		}
		record(t, row+"\t"+result)
	})
}

func record(t *testing.T, line string) {
	name := os.Getenv("ORACLE_TABLE")
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "differential/%s\n", line)
}

// slug makes a row's name from a command line.
func slug(words ...string) string {
	s := strings.Join(words, " ")
	s = strings.ReplaceAll(s, probe, "probe")
	return strings.Trim(regexp.MustCompile(`[^-A-Za-z0-9=:.+*_]+`).ReplaceAllString(s, "_"), "_")
}

// program is how a row begins: one of the four names, and where it runs.
func program(name string, at place) string {
	switch {
	case at.pid1 && at.tty:
		return name + "/pid1/tty"
	case at.pid1:
		return name + "/pid1"
	case at.jobs:
		return name + "/jobs"
	case at.tty:
		return name + "/tty"
	}
	return name
}

// TestEnds compares status and messages of what ends by itself. Words that begin with
// ENV: are put into the environment.
func TestEnds(t *testing.T) {
	tini := [][]string{
		{}, {"--"}, {"-h"}, {"--version"}, {"--version", "-h"}, {"-h", "-x"}, {"-x", "-h"}, {"-z"}, {"--help"}, {"-"},
		{"-p"}, {"-e"}, {"-p", "SIGFOO", "true"}, {"-p", "TERM", "true"}, {"-p", "sigterm", "true"}, {"-p", "15", "true"},
		{"-p", "SIGPWR", "true"}, {"-p", "SIGIO", "true"}, {"-p", "SIGSTKFLT", "true"}, {"-p", "", "true"},
		{"-pSIGSYS", "true"}, {"-p", "SIGCHLD", "-p", "SIGKILL", "true"},
		{"-e", "256", "true"}, {"-e", "-1", "true"}, {"-e", "0x1", "true"}, {"-e", "", "true"}, {"-e", "3x", "true"}, {"-e", "99999999999999999999", "true"},
		{"-e", "3", "--", "sh", "-c", "exit 3"}, {"-e3", "-e4", "--", "sh", "-c", "exit 4"}, {"-e", "3", "--", "sh", "-c", "exit 5"}, {"-e", " +3", "--", "sh", "-c", "exit 3"},
		{"-e", "143", "--", probe, "kill", "15"}, {"-e", "15", "--", probe, "kill", "15"}, {"-e", "127", "nosuch"}, {"-e", "0", "true"}, {"-w", "-s", "true"}, {"-w", "-e"},
		{"true"}, {"--", "true"}, {"--", "--", "true"}, {"sh", "-c", "exit 3"}, {"--", "sh", "-c", "exit 3"}, {"ENV:POSIXLY_CORRECT=1", "sh", "-c", "exit 3"}, {"ENV:POSIXLY_CORRECT=", "sh", "-c", "exit 3"},
		{probe, "report", "-s", "x"}, {probe, "-s", "exit", "7"}, {probe, "exit", "7", "-s", "-v"}, {probe, "exit", "--", "7", "-s"}, {probe, "--", "exit", "7"},
		{"-v", "true"}, {"-vv", "true"}, {"-vvv", "true"}, {"-vvvv", "true"}, {"-vs", "true"}, {"-svvv", "true"}, {"-svvv", "nosuch"}, {"-gs", "-v", "--", probe, "exit", "9"}, {"-sv", "--", probe, "kill", "9"}, {"-sv", "--", probe, "kill", "34"},
		{"ENV:TINI_VERBOSITY=0", "true"}, {"ENV:TINI_VERBOSITY=0", "nosuch"}, {"ENV:TINI_VERBOSITY=2", "true"}, {"ENV:TINI_VERBOSITY=4", "-s", "true"}, {"ENV:TINI_VERBOSITY=0", "-vvv", "-s", "true"},
		{"ENV:TINI_VERBOSITY=x", "-v", "true"}, {"ENV:TINI_VERBOSITY=", "true"}, {"ENV:TINI_VERBOSITY= 3z", "true"}, {"ENV:TINI_VERBOSITY=-1", "-s", "true"}, {"ENV:TINI_VERBOSITY=3", "-x"},
		{"ENV:TINI_SUBREAPER=", "true"}, {"ENV:TINI_SUBREAPER=0", "true"}, {"ENV:TINI_SUBREAPER=1", "-s", "true"}, {"ENV:TINI_KILL_PROCESS_GROUP=0", "-s", "true"},
		{"nosuch"}, {"/nosuch"}, {"/etc"}, {"/etc/passwd"}, {"/etc/passwd/x"}, {""}, {"./nosuch"}, {strings.Repeat("x", 300)}, {"ENV:PATH=", "true"}, {"ENV:PATH=/nosuch:/etc:/usr/bin", "true"}, {"ENV:PATH=/nosuch", "true"},
		{"{dir}/empty"}, {"{dir}/noshebang", "4"}, {"{dir}/noshebang", "a b"}, {"{dir}/badshebang"}, {"{dir}/noexec"}, {"ENV:PATH={dir}:/usr/bin", "noexec"}, {"ENV:PATH={dir}:/usr/bin", "noshebang", "5"}, {"{dir}/loop"}, {"{dir}/text"},
		{"-s", "-w", "--", probe, "orphans", "3", "5"}, {"-s", "--", probe, "orphans", "3", "5"}, {"ENV:TINI_VERBOSITY=0", "-s", "-w", "--", probe, "orphans", "1", "5"}, {"-swe", "5", "--", probe, "orphans", "1", "5"},
	}
	dumb := [][]string{
		{}, {"--"}, {"-v"}, {"-x"}, {"-vx"}, {"-h"}, {"--help"}, {"--he"}, {"--h"}, {"-V"}, {"--version"}, {"--vers"}, {"--ver"}, {"--v"}, {"--yolo", "true"}, {"--yolo=3", "true"}, {"-Vh"}, {"-hx"}, {"-xh"}, {"-"},
		{"--version=3"}, {"--single-child=3", "true"}, {"-c=3", "true"}, {"--s", "true"}, {"--verb", "true"}, {"-c", "true"}, {"-vc", "true"}, {"-v", "-c", "nosuch"}, {"-cv", "--", "true"}, {"--verbose", "true"},
		{"-r"}, {"--rewrite"}, {"--rewrite="}, {"-r", "", "true"}, {"-r", "1", "true"}, {"-r", "1:", "true"}, {"-r", ":1", "true"}, {"-r", "1:32", "true"}, {"-r", "32:1", "true"}, {"-r", "0:1", "true"}, {"-r", "-1:1", "true"}, {"-r", "1:-1", "true"}, {"-r", "TERM:INT", "true"}, {"-r", "15::2", "true"},
		{"-r", "15:2foo", "true"}, {"-r", "15:0x3", "true"}, {"-r", "+15:+2", "true"}, {"-r", " 15: 2", "true"}, {"-r", "15 :2", "true"}, {"-r15:2", "true"}, {"-vcr15:2", "true"}, {"--rewrite=15:2", "-v", "-c", "true"}, {"--rew", "15:2", "true"}, {"-r", "15:0", "-vc", "true"}, {"-r", "15:2", "-r", "15:3", "-vc", "true"}, {"-r", "17:0", "-vc", "true"}, {"-r", "99999999999:1", "true"},
		{"true"}, {"--", "true"}, {"--", "--", "true"}, {"true", "-v"}, {"sh", "-c", "exit 3"}, {"--", "sh", "-c", "exit 3"}, {probe, "report", "-v", "--", "x"},
		{probe, "kill", "15"}, {probe, "kill", "9"}, {"-vc", probe, "kill", "34"}, {"-vc", probe, "kill", "9"}, {"-vc", probe, "exit", "77"},
		{"ENV:DUMB_INIT_DEBUG=1", "ENV:DUMB_INIT_SETSID=0", "true"}, {"ENV:DUMB_INIT_DEBUG=1", "-c", "true"}, {"ENV:DUMB_INIT_DEBUG=01", "true"}, {"ENV:DUMB_INIT_DEBUG=", "true"}, {"ENV:DUMB_INIT_DEBUG=1"}, {"ENV:DUMB_INIT_SETSID=00", "ENV:DUMB_INIT_DEBUG=1", "true"}, {"ENV:DUMB_INIT_SETSID=", "true"},
		{"nosuch"}, {"-c", "/nosuch"}, {"/etc"}, {"/etc/passwd"}, {"/etc/passwd/x"}, {""}, {"ENV:PATH=", "true"}, {"ENV:PATH={dir}:/usr/bin", "noexec"},
		{"{dir}/noshebang", "4"}, {"{dir}/badshebang"}, {"{dir}/noexec"}, {"{dir}/loop"}, {"{dir}/empty"},
	}
	for n := 0; n < 256; n += 15 {
		tini = append(tini, []string{"-s", "--", probe, "exit", fmt.Sprint(n)})
		dumb = append(dumb, []string{probe, "exit", fmt.Sprint(n)})
	}
	files := t.TempDir()
	for name, text := range map[string]string{"noshebang": "exit $1\n", "badshebang": "#!/nosuch/x\n", "empty": "", "noexec": "#!/bin/sh\n", "text": "exit 6"} {
		mode := os.FileMode(0o755)
		if name == "noexec" {
			mode = 0o644
		}
		if err := os.WriteFile(filepath.Join(files, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("loop", filepath.Join(files, "loop")); err != nil {
		t.Fatal(err)
	}
	each := func(name string, at place, lines [][]string) {
		for _, line := range lines {
			var args, env []string
			for _, word := range line {
				word = strings.ReplaceAll(word, "{dir}", files)
				if v, ok := strings.CutPrefix(word, "ENV:"); ok {
					env = append(env, v)
				} else {
					args = append(args, word)
				}
			}
			differ(t, program(name, at)+"/ends/"+slug(append(slices.Clone(at.opts), line...)...), func(t *testing.T, dir string) []string {
				p := begin(t, dir, name, at, env, args...)
				p.end()
				p.texts()
				return settle(name, args, p.told)
			})
		}
	}
	each("tini", place{}, tini)
	each("dumb-init", place{}, dumb)
	each("tini-static", place{}, [][]string{{}, {"-s", "--", "sh", "-c", "exit 3"}, {"--version"}, {"nosuch"}, {"-x"}})
	each("docker-init", place{}, [][]string{{}, {"-s", "--", "sh", "-c", "exit 3"}, {"--version"}, {"nosuch"}, {"-x"}})
	each("tini", place{pid1: true}, [][]string{{"true"}, {"-v", "--", "sh", "-c", "exit 3"}, {"nosuch"}, {"/etc"}, {"-svvv", "true"}, {"-p", "SIGKILL", "true"}, {"-w", "--", probe, "orphans", "3", "5"}, {probe, "kill", "15"}, {"-x"}, {}})
	each("dumb-init", place{pid1: true}, [][]string{{"true"}, {"-vc", "--", "sh", "-c", "exit 3"}, {"nosuch"}, {"/etc"}, {probe, "orphans", "3", "5"}, {probe, "kill", "15"}, {"-x"}, {}})
	each("tini", place{opts: []string{"close=0"}}, [][]string{{"-s", "--", probe, "exit", "3"}})
	each("dumb-init", place{opts: []string{"close=0"}}, [][]string{{probe, "exit", "3"}, {"-c", probe, "exit", "3"}})
	each("tini", place{opts: []string{"close=1", "close=2"}}, [][]string{{"-svvv", "--", probe, "exit", "3"}})
	each("dumb-init", place{opts: []string{"close=1", "close=2"}}, [][]string{{"-v", probe, "exit", "3"}})
}

// settle takes out of what was told what a race or a buffer decides: the real
// tini's traces of a round without news, and the order of the lines of a parent
// and a child. The help of tini is not ours to repeat: its first lines are compared.
func settle(name string, args, told []string) (out []string) {
	dumb := name == "dumb-init"
	var later []string
	help := 0
	for _, line := range told {
		text := line[strings.Index(line, ": ")+1:]
		switch {
		case strings.Contains(line, "tcsetpgrp failed: no tty"), strings.Contains(line, "No child to"):
		case dumb && (strings.Contains(line, "setsid complete") || strings.Contains(line, "attach to controlling") || strings.Contains(line, "Child spawned")):
			later = append(later, line)
		case !dumb && strings.HasPrefix(text, " Usage: "):
			help = 1
			out = append(out, line)
		case help > 0:
		case strings.Contains(line, "TRACE"), strings.Contains(line, "DEBUG"):
			if !slices.Contains(out, line) {
				out = append(out, line)
			}
		default:
			out = append(out, line)
		}
	}
	slices.Sort(later)
	return append(out, later...)
}

// TestInherited compares all that the child can see of itself.
func TestInherited(t *testing.T) {
	starts := map[string][]string{
		"plain":      nil,
		"ignored":    {"ignore=1", "ignore=2", "ignore=13", "ignore=15", "ignore=20", "ignore=21", "ignore=22", "ignore=23", "ignore=27", "ignore=11", "ignore=40", "ignore=64"},
		"blocked":    {"block=1", "block=2", "block=15", "block=21", "block=22", "block=4", "block=11", "block=17", "block=23", "block=27", "block=40", "block=63"},
		"both":       {"ignore=10", "block=10", "ignore=22", "block=22"},
		"fds":        {"open=3", "open=5", "open=9", "open=200"},
		"cwd":        {"cwd=/usr/lib"},
		"limit":      {"nofile=100"},
		"low-limit":  {"nofile=16"},
		"subreaper":  {"subreaper=1"},
		"other-user": {"cwd=/", "uid=1000"},
	}
	for _, prog := range [][]string{{"tini", "-g"}, {"tini", "-s", "-pSIGTERM"}, {"dumb-init"}, {"dumb-init", "-c"}} {
		for _, how := range slices.Sorted(keys(starts)) {
			for _, at := range []place{{}, {pid1: true}} {
				at.opts = starts[how]
				name, args := prog[0], append(slices.Clone(prog[1:]), "--", probe, "report")
				differ(t, program(name, at)+"/inherited/"+how+slug(prog[1:]...), func(t *testing.T, dir string) []string {
					p := begin(t, dir, name, at, []string{"LISTEN_FDS=1", "X=é =", "X=2", "EMPTY=", "TINI_SUBREAPER="}, args...)
					p.end()
					p.texts()
					return p.told
				})
			}
		}
	}
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// faults are the signals that tini leaves to their defaults.
var faults = []int{4, 5, 6, 7, 8, 11, 31}

// TestSignals sends every signal and compares who got what, and who stopped.
func TestSignals(t *testing.T) {
	all := []int{}
	for sig := 1; sig <= 64; sig++ {
		if sig != 9 && sig != 17 && sig != 19 && sig != 32 && sig != 33 {
			all = append(all, sig)
		}
	}
	type set struct {
		name string
		args []string
		env  []string
	}
	sets := []set{
		{"tini", []string{"-s"}, nil},
		{"tini", []string{"-s", "-g"}, nil},
		{"tini", []string{"-s"}, []string{"TINI_KILL_PROCESS_GROUP="}},
		{"dumb-init", nil, nil},
		{"dumb-init", []string{"-c"}, nil},
		{"dumb-init", nil, []string{"DUMB_INIT_SETSID=0"}},
		{"dumb-init", []string{"-r", "15:3", "-r", "1:0", "-r", "2:9", "-r", "3:15"}, nil},
		{"dumb-init", []string{"-r", "20:15", "-r", "21:0", "-r", "22:22", "-r", "18:10"}, nil},
		{"dumb-init", []string{"-c", "-r", "20:15", "-r", "21:0", "-r", "10:17", "-r", "12:18"}, nil},
		{"dumb-init", []string{"-r", "10:19", "-r", "18:18"}, nil},
	}
	for _, s := range sets {
		for _, at := range []place{{}, {pid1: true}} {
			for _, sig := range all {
				if s.name == "tini" && slices.Contains(faults, sig) {
					continue
				}
				if len(s.args) > 1 && s.name == "dumb-init" && sig > 25 || len(s.env) > 0 && sig > 22 { // nothing new
					continue
				}
				row := program(s.name, at) + "/signals/" + slug(append(s.args, s.env...)...) + fmt.Sprintf("/%02d", sig)
				differ(t, row, func(t *testing.T, dir string) []string {
					p := watched(t, dir, s.name, at, s.env, s.args)
					p.one(sig)
					p.one(18)
					return p.told
				})
			}
		}
	}
	for _, sig := range faults {
		for _, at := range []place{{}, {pid1: true}} {
			differ(t, program("tini", at)+"/sync-signal"+fmt.Sprintf("/%02d", sig), func(t *testing.T, dir string) []string {
				p := watched(t, dir, "tini", at, nil, []string{"-s"})
				p.one(sig)
				return p.told
			})
		}
	}
	for _, s := range sets {
		ignored := place{opts: []string{"ignore=1", "ignore=2", "ignore=15", "ignore=22", "ignore=23"}}
		differ(t, s.name+"/signals-ignored/"+slug(append(s.args, s.env...)...), func(t *testing.T, dir string) []string {
			p := watched(t, dir, s.name, ignored, s.env, s.args)
			for _, sig := range []int{1, 10, 15, 22, 18, 23} {
				p.one(sig)
			}
			return p.told
		})
		blocked := place{opts: []string{"block=1", "block=15", "block=20", "block=22", "block=23", "block=17"}}
		differ(t, s.name+"/signals-blocked/"+slug(append(s.args, s.env...)...), func(t *testing.T, dir string) []string {
			p := watched(t, dir, s.name, blocked, s.env, s.args)
			for _, sig := range []int{1, 10, 15, 22, 18, 23} {
				p.one(sig)
			}
			return p.told
		})
		differ(t, s.name+"/signals-not-forwarded/"+slug(append(s.args, s.env...)...), func(t *testing.T, dir string) []string {
			p := watched(t, dir, s.name, place{}, s.env, s.args)
			p.one(17)
			p.one(19)
			p.one(18)
			p.one(9)
			p.end()
			p.survivors()
			return p.told
		})
	}
}

// watched starts a child A with B in its group, C in another, D in another session.
func watched(t *testing.T, dir, name string, at place, env, args []string) *play {
	t.Helper()
	p := begin(t, dir, name, at, env, append(slices.Clone(args), "--", probe, "watch", "B", "C+", "D*", "A")...)
	for _, who := range []string{"A", "B", "C+", "D*"} {
		p.expect(who + " ready")
	}
	p.quiet()
	return p
}

// one sends a signal and tells what it led to.
func (p *play) one(sig int) {
	p.t.Helper()
	n := len(p.output())
	p.send(sig)
	p.saw(fmt.Sprintf("signal %d", sig), n)
}

// saw tells the lines of the output from n on, in the order of their names, and
// the states of all processes of the play.
func (p *play) saw(what string, n int) {
	lines := p.lately(n)
	slices.Sort(lines)
	p.tell("%s: %s", what, strings.Join(lines, ", "))
	p.tell("states after %s: %s", what, p.states())
}

func (p *play) states() string {
	var out []string
	for _, pid := range p.family() {
		s := stat(pid)
		out = append(out, s.name+" "+s.state)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// survivors tells, when the program has ended, what the rest got.
func (p *play) survivors() {
	p.quiet()
	p.saw("the end", 0)
}

// TestDeath compares what happens to the rest when the child dies.
func TestDeath(t *testing.T) {
	sets := [][]string{
		{"tini", "-s"}, {"tini", "-sg"}, {"tini"}, {"tini", "-e", "137"},
		{"dumb-init"}, {"dumb-init", "-c"}, {"dumb-init", "-r", "15:2"}, {"dumb-init", "-r", "15:0"}, {"dumb-init", "-r", "15:9"},
	}
	for _, s := range sets {
		for _, at := range []place{{}, {pid1: true}} {
			differ(t, program(s[0], at)+"/death/"+slug(s[1:]...), func(t *testing.T, dir string) []string {
				p := watched(t, dir, s[0], at, nil, s[1:])
				if err := unix.Kill(p.child(), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				p.end()
				if !at.pid1 { // the kernel ends them all, whether they told of a signal or not
					p.survivors()
				}
				return p.told
			})
		}
		differ(t, s[0]+"/stopped-child/"+slug(s[1:]...), func(t *testing.T, dir string) []string {
			p := watched(t, dir, s[0], place{}, nil, s[1:])
			if err := unix.Kill(p.child(), unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			p.quiet()
			p.saw("stop", 0)
			p.one(10)
			p.one(18)
			return p.told
		})
	}
	for sig := 1; sig <= 64; sig++ { // 128 + signal
		if slices.Contains([]int{9, 17, 18, 19, 20, 21, 22, 23, 28, 32, 33}, sig) {
			continue
		}
		for _, name := range []string{"tini", "dumb-init"} {
			differ(t, fmt.Sprintf("%s/killed/%02d", name, sig), func(t *testing.T, dir string) []string {
				p := begin(t, dir, name, place{}, []string{"TINI_SUBREAPER="}, probe, "kill", fmt.Sprint(sig))
				p.end()
				return p.told
			})
		}
	}
	for _, sig := range []int{1, 2, 3, 10, 12, 13, 14, 15, 24, 25, 26, 34, 64} { // of a child that handles nothing
		for _, prog := range [][]string{{"tini", "-s"}, {"dumb-init"}, {"dumb-init", "-c"}} {
			for _, at := range []place{{}, {pid1: true}} {
				differ(t, fmt.Sprintf("%s/default/%s%02d", program(prog[0], at), slug(prog[1:]...), sig), func(t *testing.T, dir string) []string {
					p := begin(t, dir, prog[0], at, nil, append(slices.Clone(prog[1:]), "--", probe, "default")...)
					p.expect("A ready")
					p.send(sig)
					p.end()
					p.texts()
					return p.told
				})
			}
		}
	}
}

// child is the program's child A.
func (p *play) child() int {
	p.t.Helper()
	for _, pid := range children(p.pid) {
		if stat(pid).name == "A" {
			return pid
		}
	}
	p.t.Fatal("it has no child A")
	return 0
}

// TestParentDeath compares -p: the program's parent, a shell, is killed.
func TestParentDeath(t *testing.T) {
	for _, sig := range []string{"SIGTERM", "SIGUSR1", "SIGKILL", "SIGWINCH", "SIGTTIN", "SIGCHLD", "SIGSTOP", "SIGTSTP", "SIGPROF", "SIGURG"} {
		differ(t, "tini/parent-death/"+sig, func(t *testing.T, dir string) []string {
			p := begin(t, dir, "tini", place{jobs: true}, nil, "-s", "-p", sig, "--", probe, "watch", "B", "A")
			p.expect("A ready")
			p.expect("B ready")
			p.quiet()
			// The terminal's end is another story: only the program is looked at.
			n := len(p.output())
			if err := unix.Kill(p.cmd.Process.Pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			p.end()
			p.quiet()
			var got []string
			for _, line := range p.lately(n) {
				got = append(got, p.plain(line))
			}
			slices.Sort(got)
			p.tell("%s, states %s", got, p.states())
			return p.told
		})
	}
}

// TestTerminal compares what a terminal does.
func TestTerminal(t *testing.T) {
	progs := [][]string{{"tini", "-s"}, {"tini", "-sg"}, {"dumb-init"}, {"dumb-init", "-c"}}
	for _, prog := range progs {
		for _, at := range []place{{tty: true}, {tty: true, pid1: true}, {jobs: true}, {jobs: true, pid1: true}} {
			row := program(prog[0], at) + "/%s/" + slug(prog[1:]...)
			if at.jobs && at.pid1 {
				row = "below-pid1-" + row
			}
			differ(t, fmt.Sprintf(row, "report"), func(t *testing.T, dir string) []string {
				p := begin(t, dir, prog[0], at, nil, append(slices.Clone(prog[1:]), "--", probe, "report")...)
				p.end()
				p.texts()
				return p.told
			})
			differ(t, fmt.Sprintf(row, "shell"), func(t *testing.T, dir string) []string {
				p := begin(t, dir, prog[0], at, nil, append(slices.Clone(prog[1:]), "--", "bash", "--norc", "-i", "-c", "echo $-; sleep 0; echo done")...)
				p.end()
				p.texts()
				return p.told
			})
			for what, keys := range map[string]string{"ctrl-c": "\x03", "ctrl-backslash": "\x1c", "ctrl-z": "\x1a"} {
				differ(t, fmt.Sprintf(row, what), func(t *testing.T, dir string) []string {
					p := watched(t, dir, prog[0], at, nil, prog[1:])
					n := len(p.output())
					p.enter(keys)
					p.quiet()
					p.once(what, n)
					p.one(15)
					return p.told
				})
				differ(t, fmt.Sprintf(row, what+"-default"), func(t *testing.T, dir string) []string {
					p := begin(t, dir, prog[0], at, nil, append(slices.Clone(prog[1:]), "--", probe, "default")...)
					p.expect("A ready")
					p.quiet()
					n := len(p.output())
					p.enter(keys)
					if what == "ctrl-z" {
						p.quiet()
						p.once(what, n)
						return p.told
					}
					p.end()
					p.once(what, n)
					return p.told
				})
			}
			differ(t, fmt.Sprintf(row, "window"), func(t *testing.T, dir string) []string {
				p := watched(t, dir, prog[0], at, nil, prog[1:])
				n := len(p.output())
				p.resize(50)
				p.quiet()
				p.once("window", n)
				return p.told
			})
			differ(t, fmt.Sprintf(row, "hangup"), func(t *testing.T, dir string) []string {
				p := watched(t, dir, prog[0], at, nil, prog[1:])
				n := len(p.output())
				p.master.Close()
				p.quiet()
				p.once("hangup", n)
				return p.told
			})
			for _, sig := range []int{20, 21, 22} {
				differ(t, fmt.Sprintf(row, fmt.Sprintf("stop-%d", sig)), func(t *testing.T, dir string) []string {
					p := watched(t, dir, prog[0], at, nil, prog[1:])
					p.one(sig)
					p.one(18)
					p.one(18)
					p.one(1)
					return p.told
				})
				if !at.jobs {
					continue
				}
				differ(t, fmt.Sprintf(row, fmt.Sprintf("job-%d", sig)), func(t *testing.T, dir string) []string {
					p := watched(t, dir, prog[0], at, nil, prog[1:])
					for range 2 { // as the shell's user does: Ctrl-Z, fg
						p.one(sig)
						n := len(p.output())
						shell := p.shell()
						if stat(p.pid).state == "T" {
							if err := unix.Kill(shell, unix.SIGUSR1); err != nil {
								t.Fatal(err)
							}
							p.quiet()
						}
						p.once("fg", n)
					}
					p.one(15)
					return p.told
				})
			}
		}
	}
}

// once is saw for what may come once or more often, by the terminal and forwarded.
func (p *play) once(what string, n int) {
	lines := p.lately(n)
	slices.Sort(lines)
	p.tell("%s: %s", what, strings.Join(slices.Compact(lines), ", "))
	p.tell("states after %s: %s", what, p.states())
}

// shell is the parent of the program.
func (p *play) shell() int {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		p.t.Fatal(err)
	}
	n := 0
	_, _ = fmt.Sscan(field(string(b), "PPid"), &n)
	return n
}

// TestErrors compares what happens when a signal cannot be forwarded.
func TestErrors(t *testing.T) {
	for _, prog := range [][]string{{"tini", "-s"}, {"tini", "-sg"}, {"dumb-init"}, {"dumb-init", "-c"}} {
		differ(t, prog[0]+"/errors/ownership/"+slug(prog[1:]...), func(t *testing.T, dir string) []string {
			// A child with more rights than the program: setuid root, and the program of a user.
			su := filepath.Join(filepath.Dir(probe), "su-probe")
			b, err := os.ReadFile(probe)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(su, b, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(su, 0o755|os.ModeSetuid); err != nil {
				t.Fatal(err)
			}
			p := begin(t, dir, prog[0], place{opts: []string{"cwd=/", "uid=1000"}}, nil, append(slices.Clone(prog[1:]), "--", su, "start", "uid=0", probe, "watch", "A")...)
			p.expect("A ready")
			p.send(15)
			p.saw("signal 15", 0)
			p.texts()
			return p.told
		})
	}
}
