//go:build qemu

package qemu

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pazinit/pazinit/initramfs"
	"github.com/pazinit/pazinit/tests/rig"
)

// TestScripts runs testdata/*.txt, one behaviour each; see testdata/README for what
// they can say.
func TestScripts(t *testing.T) {
	h, err := host()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("find scripts: %v, %v", files, err)
	}
	on := map[string][]string{} // the scripts of RELEASE/VERSION
	for _, file := range files {
		places, err := places(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, place := range places {
			on[place] = append(on[place], file)
		}
	}
	for _, kernel := range h.kernels {
		t.Run(kernel.Release, func(t *testing.T) {
			for _, version := range versions {
				files := on[kernel.Release+"/"+version]
				if len(files) == 0 {
					continue
				}
				t.Run(version, func(t *testing.T) {
					rig.Need(t, kernel.Release, kernel.Err)
					rig.Need(t, "cgroup "+version, kernel.Cgroups(version))
					testscript.RunT(scriptT{t}, testscript.Params{
						Files: files,
						Setup: func(env *testscript.Env) error {
							env.Values[scriptKey{}] = &script{
								t: env.T().(scriptT).T, kernel: kernel, version: version, dir: env.WorkDir, machines: map[string]*machine{},
							}
							env.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
							return nil
						},
						Cmds: commands,
						Condition: func(cond string) (bool, error) {
							return cond == kernel.Release || cond == version || cond == "short" && testing.Short(), nil
						},
					})
				})
			}
		})
	}
}

// places are those that the head of a script names, "# on: RELEASE/VERSION...".
func places(file string) (out []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		list, ok := strings.CutPrefix(lines.Text(), "# on: ")
		if !ok {
			continue
		}
		for place := range strings.FieldsSeq(list) {
			release, version, _ := strings.Cut(place, "/")
			releases, kinds := []string{release}, []string{version}
			if release == "all" {
				releases = append(slices.Clone(Releases), "own")
			}
			if version == "all" {
				kinds = versions
			}
			if !slices.Contains(append(slices.Clone(Releases), "own"), releases[0]) || !slices.Contains(versions, kinds[0]) {
				return nil, fmt.Errorf("%s: place %q is unknown", file, place)
			}
			for _, release := range releases {
				for _, version := range kinds {
					out = append(out, release+"/"+version)
				}
			}
		}
		return out, nil
	}
	return []string{"bookworm/v2", "own/v2"}, nil
}

// scriptT is a test for testscript that can be had from a script.
type scriptT struct{ *testing.T }

func (t scriptT) Run(name string, f func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { f(scriptT{t}) })
}

func (t scriptT) Verbose() bool { return testing.Verbose() }

type scriptKey struct{}

// A script is one that runs, with its machines.
type script struct {
	t        *testing.T
	kernel   Kernel
	version  string
	dir      string
	allowed  string
	boots    int
	machines map[string]*machine
}

// on is the machine that a command is about, the only one or that of a first
// argument @NAME, and the other arguments.
func on(ts *testscript.TestScript, args []string) (*machine, []string) {
	s := ts.Value(scriptKey{}).(*script)
	name := ""
	if len(args) > 0 && strings.HasPrefix(args[0], "@") {
		name, args = args[0][1:], args[1:]
	}
	m := s.machines[name]
	if m == nil {
		ts.Fatalf("there is no machine %q: boot comes first", name)
	}
	return m, args
}

var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"boot": bootCommand,
	// allow PATTERN: lines on the console that look wrong and are not.
	"allow": func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Value(scriptKey{}).(*script).allowed = args[0]
	},
	// sh SCRIPT: its output is stdout's.
	"sh": func(ts *testscript.TestScript, neg bool, args []string) {
		m, args := on(ts, args)
		out, status, err := m.Sh(strings.Join(args, " "))
		ts.Check(err)
		_, err = ts.Stdout().Write([]byte(out))
		ts.Check(err)
		if (status != 0) != neg {
			ts.Fatalf("status %d\n%s", status, out)
		}
	},
	// post SCRIPT: one that ends the machine.
	"post": func(ts *testscript.TestScript, _ bool, args []string) {
		m, args := on(ts, args)
		ts.Check(m.Post(strings.Join(args, " ")))
	},
	// console PATTERN [N]: waits for the Nth match; it is stdout's. ! console PATTERN:
	// there is none until now.
	"console": func(ts *testscript.TestScript, neg bool, args []string) {
		m, args := on(ts, args)
		if neg {
			if line := regexp.MustCompile("(?m)" + args[0]).FindString(m.Console()); line != "" {
				ts.Fatalf("the console has %q", line)
			}
			return
		}
		match, err := m.Until(args[0], number(ts, args, 1))
		ts.Check(err)
		_, err = fmt.Fprintln(ts.Stdout(), match[min(1, len(match)-1)])
		ts.Check(err)
	},
	// type TEXT: with \n.
	"type": func(ts *testscript.TestScript, _ bool, args []string) {
		m, args := on(ts, args)
		text, err := strconv.Unquote(`"` + args[0] + `"`)
		ts.Check(err)
		ts.Check(m.Type(text))
	},
	// qmp COMMAND [ARGUMENTS]: as JSON.
	"qmp": func(ts *testscript.TestScript, neg bool, args []string) {
		m, args := on(ts, args)
		var arguments json.RawMessage
		if len(args) > 1 {
			arguments = json.RawMessage(args[1])
		}
		out, err := m.QMP(args[0], arguments)
		if (err != nil) != neg {
			ts.Fatalf("%s: %v", out, err)
		}
		_, err = fmt.Fprintln(ts.Stdout(), out)
		ts.Check(err)
	},
	// event NAME [N]: waits for the Nth.
	"event": func(ts *testscript.TestScript, _ bool, args []string) {
		m, args := on(ts, args)
		out, err := m.Event(args[0], number(ts, args, 1))
		ts.Check(err)
		_, err = fmt.Fprintln(ts.Stdout(), out)
		ts.Check(err)
	},
	// ready N: waits for the agent of the Nth boot.
	"ready": func(ts *testscript.TestScript, _ bool, args []string) {
		m, args := on(ts, args)
		ts.Check(m.Ready(number(ts, args, 0)))
	},
	// ends [STATUS]: waits for QEMU's end.
	"ends": func(ts *testscript.TestScript, _ bool, args []string) {
		m, args := on(ts, args)
		status, err := m.Wait()
		ts.Check(err)
		if len(args) > 0 && args[0] != strconv.Itoa(status) {
			ts.Fatalf("QEMU ended with status %d", status)
		}
	},
	// tell: prints the last stdout in the test's output, also when all is well.
	"tell": func(ts *testscript.TestScript, _ bool, _ []string) {
		s := ts.Value(scriptKey{}).(*script)
		fmt.Printf("%s:\n%s", s.t.Name(), ts.ReadFile("stdout"))
	},
	// cut: the power.
	"cut": func(ts *testscript.TestScript, _ bool, args []string) {
		m, _ := on(ts, args)
		m.Kill()
	},
}

// number is an argument that may be missing, then 1.
func number(ts *testscript.TestScript, args []string, i int) int {
	if len(args) <= i {
		return 1
	}
	n, err := strconv.Atoi(args[i])
	ts.Check(err)
	return n
}

// bootCommand is boot [FLAG...] [-- QEMU'S ARGUMENT...]. The machine gets the
// script's pazinit.yaml and Procfile, and what is below its folder root.
func bootCommand(ts *testscript.TestScript, _ bool, args []string) {
	s := ts.Value(scriptKey{}).(*script)
	h, err := host()
	ts.Check(err)
	fl := flag.NewFlagSet("boot", flag.ContinueOnError)
	name := fl.String("as", "", "its name, for @NAME")
	memory := fl.Int("m", 0, "MiB")
	alone := fl.Bool("no-agent", false, "without the agent: sh does not work")
	line := fl.String("append", "", "to the kernel's command line")
	modules := fl.String("modules", "", "more of them, with commas between")
	reboots := fl.Bool("reboots", false, "a reset does not end it")
	limit := fl.Duration("limit", patience, "its time")
	config := fl.String("config", "pazinit.yaml", "another one")
	kexec := fl.Bool("kexec", false, "with its kernel and an image as /kexec/kernel and /kexec/initrd")
	panics := fl.String("panic", "-1", "panic= of the kernel's command line")
	disks := fl.String("disks", "", "files for /dev/vda and so on, with commas between")
	ts.Check(fl.Parse(args))

	parts := h.parts
	parts.Kernel = s.kernel
	parts.Modules = slices.Clone(parts.Modules)
	qemu := fl.Args()
	for i, file := range slices.DeleteFunc(strings.Split(*disks, ","), func(s string) bool { return s == "" }) {
		qemu = append(qemu, "-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,file=%s", i, ts.MkAbs(file)), "-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,serial=disk%d", i, i))
		parts.Modules = append(parts.Modules, "virtio_blk")
	}
	if *modules != "" {
		parts.Modules = append(parts.Modules, strings.Split(*modules, ",")...)
	}
	files, err := laid(s.dir, *config)
	ts.Check(err)
	if !*alone {
		files = withAgent(files)
	}
	image, err := NewImage(parts, files)
	ts.Check(err)
	if *kexec {
		next := filepath.Join(s.dir, "next.cpio")
		ts.Check(writeImage(image, next))
		for name, file := range map[string]string{"/kexec/kernel": s.kernel.Image, "/kexec/initrd": next} {
			n, err := initramfs.FileNode(file)
			ts.Check(err)
			ts.Check(image.Add(name, n))
		}
	}
	s.machines[*name] = bootAs(s.t, Config{
		Arch: AMD64, Kernel: s.kernel.Image, Image: image, Accel: h.accel, Memory: *memory, Limit: *limit, Reboots: *reboots, Panic: *panics,
		Cmdline: cgroups[s.version] + " " + *line, Args: qemu, Dir: s.dir,
	}, s.allowed)
	if s.machines[*name].name = *name; *name == "" && s.boots > 0 {
		s.machines[*name].name = strconv.Itoa(s.boots + 1) // what the console is kept as
	}
	s.boots++
}

// laid are the files that a script has for its machine.
func laid(dir, config string) (Files, error) {
	files := Files{}
	for at, name := range map[string]string{"/etc/pazinit/pazinit.yaml": config, "/etc/pazinit/Procfile": "Procfile"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			files[at] = data
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	root := filepath.Join(dir, "root")
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		files[strings.TrimPrefix(name, root)] = data
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return files, err
}
