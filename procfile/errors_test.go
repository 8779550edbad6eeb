package procfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestErrors walks testdata/errors: each file is a tree of files, and what Load
// says of it stands behind the line "-- errors --". Run with -update to write
// that anew, and read the difference.
func TestErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in, want, _ := strings.Cut(string(data), "-- errors --\n")
			dir := tree(t, in)
			c, err := Load(options(dir))
			if err == nil {
				t.Fatalf("no error, but %+v", c)
			}
			got := strings.ReplaceAll(err.Error(), dir+"/", "") + "\n"
			if *update {
				if err := os.WriteFile(file, []byte(in+"-- errors --\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

// Inputs that are made to hurt are refused, and at a cost in line with their size.
func TestHostileInput(t *testing.T) {
	bomb := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c < 'l'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 10))
	}
	indented := ""
	for i := range 1000 {
		indented += strings.Repeat(" ", i) + "a:\n"
	}
	for name, test := range map[string]struct{ in, want string }{
		"10 MiB":          {strings.Repeat("# comment\n", 1<<20), "file is longer than 1024 KiB"},
		"NUL":             {"log_path: a\nsocket_path: b\x00c\n", "p.yaml:2:15: file has a NUL byte"},
		"escaped NUL":     {"log_path: \"a\\0b\"\n", "p.yaml:1:11: value has a NUL byte"},
		"bomb":            {bomb, "more than 300000 values"},
		"alias in itself": {"a: &a [*a]\n", "nested more than 32 deep"},
		"deep lists":      {strings.Repeat("[", 1000) + strings.Repeat("]", 1000), "nested more than 32 deep"},
		"deep maps":       {strings.Repeat("{a: ", 1000) + strings.Repeat("}", 1000), "nested more than 32 deep"},
		"1 MiB of lists":  {strings.Repeat("[", 1<<20), "p.yaml:1:1: YAML: exceeded max depth"},
		"deep blocks":     {indented, "nested more than 32 deep"},
		"deep dashes":     {strings.Repeat("- ", 1000) + "x", "nested more than 32 deep"},
		"deep merge":      {"a: &a {<<: {<<: {<<: " + strings.Repeat("{<<: ", 40) + "{}" + strings.Repeat("}", 43), "nested more than 32 deep"},
		"many values":     {"a: [" + strings.Repeat("1,", 400_000) + "]", "more than 300000 values"},
		"many keys":       {"{" + strings.Repeat("a,", 400_000) + "}", "p.yaml:"},
		"tab":             {"a:\n\tb: 1\n", "p.yaml:2:1: YAML: found character that cannot start any token"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, "")
			write(t, dir, "p.yaml", test.in)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Load(options(dir))
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%.300v, want %s", err, test.want)
			}
			if used, most := after.TotalAlloc-before.TotalAlloc, uint64(1200*len(test.in)+200<<20); used > most {
				t.Errorf("%d bytes for %d of input", used, len(test.in))
			}
		})
	}
}

// A FIFO is refused, not waited for.
func TestNotRegular(t *testing.T) {
	opts := options(t.TempDir())
	opts.Config = "/dev/null"
	if _, err := Load(opts); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("/dev/null: %v", err)
	}
	opts.Config = opts.Dir
	if _, err := Load(opts); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
}

// Whoever includes everything in each file gets an end.
func TestManyIncludes(t *testing.T) {
	dir := tree(t, "-- p.yaml --\ninclude: [a.yaml, a.yaml]\n")
	for c := 'a'; c < 'p'; c++ {
		write(t, dir, fmt.Sprintf("%c.yaml", c), fmt.Sprintf("include: [%c.yaml, %c.yaml]\n", c+1, c+1))
	}
	write(t, dir, "p.yaml", "include: [a.yaml, a.yaml]\n")
	write(t, dir, "p.yaml", "include: [a.yaml, a.yaml]\n")
	_, err := Load(options(dir))
	if err == nil || !strings.Contains(err.Error(), "more than 1000 files") {
		t.Errorf("%.300v", err)
	}
}

func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		"applications: {a: {procfile: Procfile, workers: {w: {num_instances: 2}}}}",
		"a: &a [*a]\n<<: *a", "include: p.yaml", "include: '*'", "- - -", "? {a: b}\n: c", "log_path: !!binary x",
		"applications:\n  a:\n    stop_signal: [QUIT 30s, TERM, KILL]\n    stdout: {file: x, rotate_size: 1MiB}\n    workers:\n      w: {run: /x, args: [a], env: {A: b}}",
		"access: {status: ['user:0']}\nsocket_owner: 0:0", "a: |\n  b\nc: >-\n  d", "%YAML 1.2\n---\na: b\n...",
	} {
		f.Add([]byte(s))
	}
	for _, name := range []string{"values", "keys"} {
		if data, err := os.ReadFile("testdata/errors/" + name + ".txt"); err == nil {
			_, text, _ := bytes.Cut(data, []byte("-- p.yaml --\n"))
			f.Add(text)
		}
	}
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Procfile"), []byte("w: x\n"), 0o644); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, "p.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte("include")) && bytes.Contains(data, []byte("/")) {
			return // it would read what happens to lie on this machine
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := Load(Options{Config: path, UID: 0})
		if (c == nil) == (err == nil) {
			t.Fatalf("%v and %v", c, err)
		}
		if err == nil {
			for _, a := range c.Applications {
				for _, w := range a.Workers {
					if len(w.Command.Argv) == 0 || w.NumInstances < 0 || !filepath.IsAbs(w.Dir) {
						t.Fatalf("worker %+v", w)
					}
				}
			}
			return
		}
		var errs Errors
		if !errors.As(err, &errs) {
			t.Fatalf("error %v has no position", err)
		}
		for _, e := range errs {
			if e.Line < 0 || strings.ContainsAny(e.Error(), "\n\x00") {
				t.Fatalf("error %q", e.Error())
			}
		}
	})
}

func TestErrorIsOneLine(t *testing.T) {
	e := &Error{Position{"a\nb", 1, 2}, "bad \x1b[2J", "x\ty", nil}
	if got, want := e.Error(), `a\x0ab:1:2: bad \x1b[2J (x\x09y)`; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}
