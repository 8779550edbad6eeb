package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

// flooded is what `helper flood bytes width` prints.
func flooded(size, width int) []byte {
	var b bytes.Buffer
	for n := 0; b.Len() < size; n++ {
		line := fmt.Sprintf("%d ", n)
		b.WriteString(line + strings.Repeat("x", width-1-len(line)) + "\n")
	}
	return b.Bytes()[:size]
}

// TestDevStdout: a worker of another user can open its own /dev/stdout.
func TestDevStdout(t *testing.T) {
	rig.NeedRoot(t)
	rig.Both(t, rig.Config{
		Procfile: "web: sh -c 'echo out > /dev/stdout && echo err > /dev/stderr; exec {H} sleep'\n",
		YAML:     "applications: {app: {procfile: Procfile, cwd: /, user: '54321'}}",
	}, func(t *testing.T, r *rig.Rig) {
		r.Line("app:web.1", "out")
		r.Line("app:web.1", "err")
		var got []string
		r.Ask(&control.Request{Verb: "logs", Names: []string{"web"}}, func(l *control.Reply) {
			if l.Log != nil {
				got = append(got, l.Log.Stream+" "+l.Log.Line)
			}
		})
		if g := strings.Join(got, ","); g != "stdout out,stderr err" && g != "stderr err,stdout out" {
			t.Errorf("logs = %s", g)
		}
	})
}

// TestConsoleFormats: whole lines with who printed them.
func TestConsoleFormats(t *testing.T) {
	for format, want := range map[string]*regexp.Regexp{
		"plain": regexp.MustCompile(`^(?:\d\d:\d\d:\d\d )?app:web\.[123] +\| \d+ x{1,80}$`),
		"json":  regexp.MustCompile(`^\{.*"name":"app:web\.[123]".*\}$`),
	} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t, rig.Config{
				Procfile: "web: {H} flood 200000 80\n",
				YAML:     "applications: {app: {procfile: Procfile, restart: never, workers: {web: {num_instances: 3}}}}",
				Args:     []string{"--log-format", format}, NoWait: true,
			})
			r.Wait()
			r.WaitConsole("ended with status")
			n := 0
			for line := range strings.Lines(r.Console()) {
				line = strings.TrimSuffix(line, "\n")
				if !strings.Contains(line, "xxxx") {
					continue
				}
				n++
				if !want.MatchString(line) {
					t.Fatalf("line %q", line)
				}
				if format == "json" {
					var v map[string]any
					if err := json.Unmarshal([]byte(line), &v); err != nil {
						t.Fatalf("%q: %v", line, err)
					}
				}
			}
			if n != 3*2500 {
				t.Errorf("%d lines, want %d", n, 3*2500)
			}
		})
	}
}

// TestRawConsole passes the bytes through.
func TestRawConsole(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "web: sh -c 'printf prompt:; {H} flood 100000 80; printf no-newline'\n",
		YAML:     "log_path: own.log\napplications: {app: {procfile: Procfile, restart: never}}",
		Args:     []string{"--log-format", "raw"}, NoWait: true,
	})
	r.Wait()
	r.WaitConsole("no-newline")
	if want := "prompt:" + string(flooded(100000, 80)) + "no-newline"; r.Console() != want {
		t.Errorf("%d bytes, want the %d of the worker", len(r.Console()), len(want))
	}
}

// TestFilesGetEveryByte: with rotation too, from several instances.
func TestFilesGetEveryByte(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "one: {H} flood 1000000 100\nturn: {H} flood 100000 100\nmany: {H} flood 100000 100\n",
		YAML: `applications:
  app:
    procfile: Procfile
    restart: never
    workers:
      one: {stdout: {file: one.log}}
      turn: {stdout: {file: turn.log, rotate_size: 10KB, rotate_keep: 2}}
      many: {num_instances: 3, stdout: {dir: logs}}
`,
		NoWait: true,
	})
	if got := r.Wait(); got != 0 {
		t.Errorf("exit status = %d", got)
	}
	if got := r.Read("one.log"); got != string(flooded(1000000, 100)) {
		t.Errorf("one.log has %d bytes, or others", len(got))
	}
	all := r.Read("turn.log.2") + r.Read("turn.log.1") + r.Read("turn.log")
	if want := string(flooded(100000, 100)); len(all) < 20000 || !strings.HasSuffix(want, all) {
		t.Errorf("the rotated files have %d bytes, which are not the last", len(all))
	}
	for _, name := range []string{"turn.log", "turn.log.1", "turn.log.2"} {
		if n := len(r.Read(name)); n == 0 || n > 10240 {
			t.Errorf("%s has %d bytes, want at most 10 KiB", name, n)
		}
	}
	if r.Read("turn.log.3") != "" {
		t.Error("turn.log.3 was kept")
	}
	files, err := os.ReadDir(r.Path("logs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.Contains(f.Name(), "stdout") {
			if got := r.Read("logs/" + f.Name()); got != string(flooded(100000, 100)) {
				t.Errorf("%s has %d bytes, or others", f.Name(), len(got))
			}
		}
	}
	if len(files) < 3 {
		t.Errorf("%d files in logs", len(files))
	}
}

// TestReopen by verb and by USR1, after the file was renamed.
func TestReopen(t *testing.T) {
	rig.Both(t, rig.Config{
		Procfile: "web: {H} count-signal USR2 count\n",
		YAML:     "log_path: own.log\napplications: {app: {procfile: Procfile, stdout: {file: web.log}}}",
	}, func(t *testing.T, r *rig.Rig) {
		r.Line("app:web.1", "ready")
		tell := func(n int) {
			if reply := r.Do(&control.Request{Verb: "signal", Names: []string{"web"}, Signal: "USR2"}); reply.Code != 0 {
				t.Fatal(results(reply))
			}
			r.Until("the signal", func() bool { return strings.Count(r.Read("count"), "USR2") == n+1 })
			r.LineAfter("app:web.1", "got USR2", n)
		}
		rename := func(to string) {
			for _, f := range []string{"web.log", "own.log"} {
				if err := os.Rename(r.Path(f), r.Path(f+to)); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.Until("own.log", func() bool { return strings.Contains(r.Read("own.log"), "app:web.1 is RUNNING") })
		rename(".1")
		tell(0)
		r.Until("web.log.1", func() bool { return r.Read("web.log.1") == "ready\ngot USR2\n" })
		r.Must("reopen")
		tell(1)
		r.Until("web.log", func() bool { return r.Read("web.log") == "got USR2\n" })
		if got := r.Read("web.log.1"); got != "ready\ngot USR2\n" {
			t.Errorf("web.log.1 = %q after the reopening", got)
		}
		rename(".2")
		r.Signal(unix.SIGUSR1)
		r.Until("web.log again", func() bool { _, err := os.Stat(r.Path("web.log")); return err == nil })
		tell(2)
		r.Until("web.log", func() bool { return r.Read("web.log") == "got USR2\n" })
		if !strings.Contains(r.Read("own.log.1"), "app:web.1 is RUNNING") {
			t.Errorf("own.log.1 = %q", r.Read("own.log.1"))
		}
	})
}

// TestLogger gets every byte, through its own deaths too.
func TestLogger(t *testing.T) {
	rig.Both(t, rig.Config{
		Procfile: "all: {H} flood 1000000 100\ndies: sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11; do echo line $i; done; exec {H} sleep'\n",
		YAML: `applications:
  app:
    procfile: Procfile
    workers:
      all: {restart: never, stdout: {pipe_to: "cat > {D}/all.log"}}
      dies:
        stdout:
          pipe_to: "n=0; while [ $n -lt 4 ] && read -r l; do echo \"$l\" >> {D}/dies.log; n=$((n+1)); done"
`,
	}, func(t *testing.T, r *rig.Rig) {
		r.Until("the lines of all runs of the logger", func() bool { return strings.Count(r.Read("dies.log"), "\n") == 11 })
		want := ""
		for i := 1; i <= 11; i++ {
			want += fmt.Sprintf("line %d\n", i)
		}
		if got := r.Read("dies.log"); got != want {
			t.Errorf("dies.log = %q", got)
		}
		r.WaitState("app:all.1", "EXITED")
		r.Must("shutdown")
		r.Wait()
		if got := r.Read("all.log"); got != string(flooded(1000000, 100)) {
			t.Errorf("all.log has %d bytes, or others", len(got))
		}
	})
}

// TestLoggerStuck holds up its worker alone.
func TestLoggerStuck(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "stuck: {H} flood 10000000 100\ngood: {H} flood 1000000 100\n",
		YAML:     "applications: {app: {procfile: Procfile, restart: never, workers: {stuck: {stdout: {pipe_to: '{H} sleep'}}, good: {stdout: {file: good.log}}}}}",
	})
	r.WaitState("app:stuck.1", "RUNNING")
	r.WaitState("app:good.1", "EXITED")
	if st := r.Of("app:stuck.1"); st.State != "RUNNING" {
		t.Errorf("stuck is %s, want RUNNING", st.State)
	}
	r.Must("stop", "stuck")
	r.Signal(unix.SIGQUIT) // the logger does not end by the end of its input
	if got := r.Wait(); got != 0 {
		t.Errorf("exit status = %d", got)
	}
}

// TestConsoleStuck: then only those who write to it wait, and nothing is lost.
func TestConsoleStuck(t *testing.T) {
	for _, full := range []string{"block", "drop"} {
		t.Run(full, func(t *testing.T) {
			t.Parallel()
			in, out, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			r := rig.New(t, rig.Config{
				Procfile: "writes: {H} flood 5000000 100\nfile: {H} flood 1000000 100\nsilent: {H} sleep\n",
				YAML:     "console_full: " + full + "\napplications: {app: {procfile: Procfile, restart: never, workers: {file: {stdout: {file: file.log}}}}}",
				Stdout:   out,
			})
			out.Close()
			r.WaitState("app:file.1", "EXITED")
			r.Must("restart", "silent")
			if full == "drop" {
				r.WaitState("app:writes.1", "EXITED")
			} else if st := r.Of("app:writes.1"); st.State != "RUNNING" {
				t.Errorf("writes is %s, want it to wait", st.State)
			}
			if full == "block" { // let it go on: every line comes
				var got sync.WaitGroup
				n := 0
				got.Add(1)
				go func() {
					defer got.Done()
					for s := bufio.NewScanner(in); s.Scan(); {
						if strings.Contains(s.Text(), "| "+fmt.Sprint(n)+" x") {
							n++
						}
					}
				}()
				r.WaitState("app:writes.1", "EXITED")
				r.Must("shutdown")
				if code := r.Wait(); code != 0 {
					t.Errorf("exit status = %d", code)
				}
				got.Wait()
				if n != 50000 {
					t.Errorf("%d lines in order, want 50000", n)
				}
				return
			}
			r.Must("shutdown") // does not wait for the console for ever
			if code := r.Wait(); code != 0 {
				t.Errorf("exit status = %d", code)
			}
		})
	}
}

// TestShutdownWithStuckConsole ends though a worker waits for the console.
func TestShutdownWithStuckConsole(t *testing.T) {
	t.Parallel()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r := rig.New(t, rig.Config{Procfile: "writes: {H} flood 5000000 100\n", Stdout: out})
	out.Close()
	r.WaitState("app:writes.1", "RUNNING")
	r.Signal(unix.SIGTERM)
	if code := r.Wait(); code != 0 {
		t.Errorf("exit status = %d", code)
	}
}

// TestFullDisk: the worker goes on, it is said, and later lines come again.
func TestFullDisk(t *testing.T) {
	rig.NeedRoot(t)
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "fill: {H} flood 1000000 100\nlate: {H} count-signal USR1 count\nvanished: {H} count-signal USR1 count\n",
		YAML:     "applications: {app: {procfile: Procfile, restart: never, workers: {fill: {stdout: {file: disk/fill.log}}, late: {stdout: {file: disk/late.log}}, vanished: {stdout: {file: dir/log}}}}}",
		Setup: func(dir string) {
			if err := os.Mkdir(dir+"/disk", 0o700); err != nil {
				t.Error(err)
			}
			if err := unix.Mount("tmpfs", dir+"/disk", "tmpfs", 0, "size=128k"); err != nil {
				t.Error(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir+"/disk", unix.MNT_DETACH) })
			if err := os.Mkdir(dir+"/dir", 0o700); err != nil {
				t.Error(err)
			}
		},
	})
	r.Line("app:late.1", "ready")
	r.Line("app:vanished.1", "ready")
	if st := r.WaitState("app:fill.1", "EXITED"); st.LastExit.Code != 0 {
		t.Errorf("fill: %+v, want 0", st.LastExit)
	}
	r.WaitConsole("disk full")
	if err := os.Truncate(r.Path("disk/fill.log"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(r.Path("dir")); err != nil {
		t.Fatal(err)
	}
	r.Do(&control.Request{Verb: "signal", Names: []string{"late", "vanished"}, Signal: "USR1"})
	r.Until("late.log", func() bool { return strings.HasSuffix(r.Read("disk/late.log"), "got USR1\n") })
	r.Line("app:vanished.1", "got USR1")
	if st := r.Of("app:vanished.1"); st.State != "RUNNING" {
		t.Errorf("vanished is %s", st.State)
	}
}

// TestLogsVerb: tail, follow, since, one stream, pazinit's own, clear.
func TestLogsVerb(t *testing.T) {
	rig.Both(t, rig.Config{
		Procfile: "web: sh -c 'echo one; echo two; echo three >&2; exec {H} count-signal USR1 count'\nother: sh -c 'echo not this; exec {H} sleep'\n",
	}, func(t *testing.T, r *rig.Rig) {
		r.Line("app:web.1", "ready")
		r.Line("app:web.1", "three")
		r.Line("app:other.1", "not this")
		for _, c := range []struct{ args, has, hasNot string }{
			{"web", "one two three ready", "not"},
			{"-n 1 --stream stdout web", "ready", "one two three"},
			{"-n 2 --stream stdout web", "two ready", "one three"},
			{"--stream stderr web", "three", "one two ready"},
			{"", "one not", ""},
			{"--since 1h web", "one ready", ""},
			{"--since 1ns web", "", "one ready"},
			{"--self", "app:web.1 is RUNNING", "two"},
		} {
			out, errs, code := r.Cmd("logs", strings.Fields(c.args)...)
			if code != 0 || errs != "" {
				t.Errorf("logs %s = %d, %q", c.args, code, errs)
			}
			has := strings.Fields(c.has)
			if strings.Contains(c.has, " is ") {
				has = []string{c.has}
			}
			for _, word := range has {
				if !strings.Contains(out, word) {
					t.Errorf("logs %s:\n%swant %s in it", c.args, out, word)
				}
			}
			for _, word := range strings.Fields(c.hasNot) {
				if strings.Contains(out, word) {
					t.Errorf("logs %s:\n%swant no %s in it", c.args, out, word)
				}
			}
		}
		// Follow.
		seen := make(chan string, 100)
		go func() {
			defer close(seen)
			cl, err := control.Dial(r.Socket)
			if err != nil {
				return
			}
			defer cl.Close()
			_, _ = cl.Do(t.Context(), &control.Request{Verb: "logs", Names: []string{"web"}, Stream: "stdout", Lines: 1, Follow: true}, func(l *control.Reply) error {
				if l.Log != nil {
					seen <- l.Log.Line
				}
				return nil
			})
		}()
		if got := <-seen; got != "ready" {
			t.Errorf("first line followed = %q", got)
		}
		for i := range 3 {
			r.Do(&control.Request{Verb: "signal", Names: []string{"web"}, Signal: "USR1"})
			if got := <-seen; got != "got USR1" {
				t.Errorf("line %d followed = %q", i, got)
			}
		}
		if reply := r.Do(&control.Request{Verb: "logs", Names: []string{"web"}, Clear: true}); reply.Code != 0 {
			t.Error(results(reply))
		}
		if got := r.Logs("web"); len(got) != 0 {
			t.Errorf("after the clear: %q", got)
		}
		if got := r.Logs("other"); len(got) != 1 {
			t.Errorf("the clear of web took other's: %q", got)
		}
		if _, _, code := r.Cmd("logs", "nobody"); code != control.ExitNoName {
			t.Errorf("logs nobody = %d, want 4", code)
		}
	})
}

// TestOutputTargets: null is nowhere, inherit is pazinit's own.
func TestOutputTargets(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Config{
		Procfile: "null: sh -c 'echo to null; exec {H} print-fds hold'\ninherit: sh -c 'echo to inherit; exec {H} sleep'\nlong: sh -c 'head -c 200000 /dev/zero | tr \\\\0 y; echo end; exec {H} sleep'\nbinary: printf '\\377\\376\\n'\n",
		YAML:     "applications: {app: {procfile: Procfile, workers: {null: {stdout: 'null'}, inherit: {stdout: inherit}, binary: {restart: never}}}}",
	})
	r.WaitConsole("to inherit\n")
	if strings.Contains(r.Console(), "| to inherit") {
		t.Error("inherit was captured")
	}
	r.Line("app:long.1", "y")
	parts := 0
	r.Until("the long line", func() bool {
		n := 0
		parts = 0
		r.Ask(&control.Request{Verb: "logs", Names: []string{"long"}, Lines: -1}, func(l *control.Reply) {
			if l.Log != nil {
				parts++
				n += strings.Count(l.Log.Line, "end")
			}
		})
		return n == 1
	})
	if strings.Contains(r.Console(), "to null") {
		t.Error("null reached the console")
	}
	r.WaitState("app:binary.1", "EXITED")
	r.Until("bytes that are not UTF-8", func() bool {
		found := false
		r.Ask(&control.Request{Verb: "logs", Names: []string{"binary"}}, func(l *control.Reply) {
			found = found || l.Log != nil && bytes.Equal(l.Log.Bytes, []byte{0xff, 0xfe})
		})
		return found
	})
}
