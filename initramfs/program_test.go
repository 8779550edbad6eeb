package initramfs

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// elfFile is a small ELF file: one segment for all, an interpreter and a dynamic
// section.
func elfFile(t testing.TB, machine uint16, interp string, needed []string, rpath, runpath string) []byte {
	t.Helper()
	const head, each = 64, 56
	strs := []byte{0}
	add := func(s string) uint64 {
		at := len(strs)
		strs = append(append(strs, s...), 0)
		return uint64(at)
	}
	var dynamic []uint64
	for _, n := range needed {
		dynamic = append(dynamic, 1, add(n))
	}
	if rpath != "" {
		dynamic = append(dynamic, 15, add(rpath))
	}
	if runpath != "" {
		dynamic = append(dynamic, 29, add(runpath))
	}
	at := uint64(head + 3*each)
	const base = 0x400000
	dynamic = append(dynamic, 5, base+at, 10, uint64(len(strs)), 0, 0)
	atInterp := at + uint64(len(strs))
	atDynamic := (atInterp + uint64(len(interp)) + 1 + 7) &^ 7
	end := atDynamic + uint64(8*len(dynamic))
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9))
	count := uint16(1)
	if interp != "" {
		count = 3
	} else if len(needed) > 0 {
		count = 2
	}
	le := func(values ...any) {
		for _, v := range values {
			must(t, binary.Write(&b, binary.LittleEndian, v))
		}
	}
	le(uint16(3), machine, uint32(1), uint64(0), uint64(head), uint64(0), uint32(0), uint16(64), uint16(each), count, uint16(0), uint16(0), uint16(0))
	segment := func(kind uint32, at, size uint64) { le(kind, uint32(5), at, base+at, base+at, size, size, uint64(8)) }
	segment(1, 0, end)
	segment(2, atDynamic, uint64(8*len(dynamic)))
	segment(3, atInterp, uint64(len(interp)+1))
	b.Write(strs)
	b.WriteString(interp + "\x00")
	b.Write(make([]byte, int(atDynamic)-b.Len()))
	le(dynamic)
	return b.Bytes()
}

// The dynamic linker of these tests knows two folders itself.
const (
	linker     = "/lib64/ld-linux-x86-64.so.2"
	linkerText = "\x00/lib/x86_64-linux-gnu/\x00/usr/lib/\x00"
)

// root is a root with programs and libraries.
func root(t *testing.T, files map[string]string) *Root {
	ld := string(elfFile(t, 62, "", nil, "", "")) + linkerText
	all := map[string]string{"lib64": "-> usr/lib64", "usr/lib64/ld-linux-x86-64.so.2": "-> ../lib/ld.so", "usr/lib/ld.so": ld, "lib": "-> usr/lib"}
	for name, text := range files {
		all[name] = text
	}
	return &Root{Dir: tree(t, all)}
}

func program(t *testing.T, needed ...string) string {
	return string(elfFile(t, 62, linker, needed, "", ""))
}

func lib(t *testing.T, needed ...string) string {
	return string(elfFile(t, 62, "", append(needed, "ld-linux-x86-64.so.2"), "", ""))
}

func TestAddProgram(t *testing.T) {
	rpath := func(rpath, runpath string, needed ...string) string {
		return string(elfFile(t, 62, linker, needed, rpath, runpath))
	}
	static := string(elfFile(t, 62, "", nil, "", ""))
	other := string(elfFile(t, 183, "", []string{"x"}, "", ""))
	for _, tt := range []struct {
		what    string
		files   map[string]string
		name    string
		library []string
		want    string // paths that are there then, or the error
	}{
		{"a static one", map[string]string{"bin/p": string(elfFile(t, 62, "", nil, "", ""))}, "/bin/p", nil, "/bin/p"},
		{"by PATH", map[string]string{"usr/bin/p": program(t), "bin": "-> usr/bin"}, "p", nil, "/usr/bin/p " + linker},
		{"a library of a library", map[string]string{"bin/p": program(t, "liba.so"), "usr/lib/liba.so": lib(t, "libb.so"), "usr/lib/libb.so": "-> libb.so.1", "usr/lib/libb.so.1": lib(t, "liba.so")}, "/bin/p", nil,
			"/bin/p /usr/lib/liba.so /usr/lib/libb.so /usr/lib/libb.so.1 " + linker},
		{"a library that is not there", map[string]string{"bin/p": program(t, "liba.so"), "usr/lib/liba.so": lib(t, "libz.so.1")}, "/bin/p", nil,
			"/usr/lib/liba.so needs library libz.so.1, which is not found in "},
		{"a library for another machine", map[string]string{"bin/p": program(t, "liba.so"), "usr/lib/liba.so": other}, "/bin/p", nil, "liba.so is for another machine"},
		{"a library that is none", map[string]string{"bin/p": program(t, "liba.so"), "usr/lib/liba.so": "INPUT(x)"}, "/bin/p", nil, "not an ELF file"},
		{"RPATH", map[string]string{"opt/bin/p": rpath("$ORIGIN/../lib:/none", "", "liba.so"), "opt/lib/liba.so": lib(t, "libb.so"), "opt/lib/libb.so": lib(t)}, "/opt/bin/p", nil,
			"/opt/lib/liba.so /opt/lib/libb.so"},
		{"RUNPATH, which its libraries do not have", map[string]string{"opt/bin/p": rpath("", "${ORIGIN}/../lib", "liba.so"), "opt/lib/liba.so": lib(t, "libb.so"), "opt/lib/libb.so": lib(t)}, "/opt/bin/p", nil,
			"/opt/lib/liba.so needs library libb.so"},
		{"RUNPATH goes before RPATH", map[string]string{"opt/bin/p": rpath("/r", "/run", "liba.so"), "r/liba.so": lib(t), "usr/lib/liba.so": lib(t)}, "/opt/bin/p", nil, "/usr/lib/liba.so !/r/liba.so"},
		{"$LIB", map[string]string{"opt/bin/p": rpath("/opt/$LIB", "", "liba.so"), "opt/lib/x86_64-linux-gnu/liba.so": lib(t)}, "/opt/bin/p", nil, "/opt/lib/x86_64-linux-gnu/liba.so"},
		{"LD_LIBRARY_PATH", map[string]string{"bin/p": program(t, "liba.so"), "mine/liba.so": lib(t), "usr/lib/liba.so": lib(t)}, "/bin/p", []string{"/mine"}, "/mine/liba.so !/usr/lib/liba.so"},
		{"ld.so.conf", map[string]string{"bin/p": program(t, "liba.so"), "far/liba.so": lib(t), "usr/lib/x86_64-linux-gnu/": "", "etc/ld.so.conf": "# x\ninclude ld.so.conf.d/*.conf\n", "etc/ld.so.conf.d/a.conf": "/far # there\n"}, "/bin/p", nil,
			"/far/liba.so /usr/lib/x86_64-linux-gnu/liba.so"},
		{"a library by its path", map[string]string{"bin/p": program(t, "/far/liba.so"), "far/liba.so": lib(t)}, "/bin/p", nil, "/far/liba.so"},
		{"a library by a relative path", map[string]string{"bin/p": program(t, "./liba.so")}, "/bin/p", nil, "relative path"},
		{"a dynamic linker that is not there", map[string]string{"bin/p": string(elfFile(t, 62, "/lib/ld-musl-x86_64.so.1", nil, "", ""))}, "/bin/p", nil, "dynamic linker /lib/ld-musl-x86_64.so.1"},
		{"musl", map[string]string{"bin/p": string(elfFile(t, 62, "/lib/ld-musl-x86_64.so.1", []string{"libc.musl-x86_64.so.1", "libz.so.1"}, "", "")),
			"usr/lib/ld-musl-x86_64.so.1": static, "usr/local/lib/libz.so.1": string(elfFile(t, 62, "", []string{"libc.musl-x86_64.so.1"}, "", ""))}, "/bin/p", nil, "/lib/ld-musl-x86_64.so.1 /usr/local/lib/libz.so.1"},
		{"a script", map[string]string{"bin/s": "#!/bin/p -x\n", "bin/p": program(t)}, "/bin/s", nil, "/bin/s /bin/p " + linker},
		{"a script by env", map[string]string{"bin/s": "#! /usr/bin/env p\n", "usr/bin/env": program(t), "usr/local/bin/p": program(t)}, "/bin/s", nil, "/usr/bin/env /usr/local/bin/p"},
		{"a script by env -S", map[string]string{"bin/s": "#!/usr/bin/env -S A=1 p -u\n", "usr/bin/env": program(t), "bin/p": program(t)}, "/bin/s", nil, "/usr/bin/env /bin/p"},
		{"a script without its interpreter", map[string]string{"bin/s": "#!/bin/zsh\n"}, "/bin/s", nil, "/bin/s needs interpreter /bin/zsh, which is not found"},
		{"a script by env without it", map[string]string{"bin/s": "#!/usr/bin/env zsh\n", "usr/bin/env": program(t)}, "/bin/s", nil, "/bin/s needs interpreter zsh, which is not found in"},
		{"a script of a script of…", map[string]string{"bin/s": "#!/bin/s\n"}, "/bin/s", nil, "the kernel follows 5"},
		{"neither", map[string]string{"bin/s": "#!"}, "/bin/s", nil, "neither an ELF program nor a script"},
		{"no such program", nil, "p", nil, "program p not found in /usr/local/sbin"},
		{"one that is not executable", map[string]string{"bin/p": "text"}, "p", nil, "bin/p is not executable"},
		{"a folder", map[string]string{"bin/p/": ""}, "p", nil, "/bin/p is no file"},
		{"a link outside of the root", map[string]string{"bin/p": "-> ../../../../../../../../opt/p", "opt/p": program(t)}, "/bin/p", nil, "/opt/p"},
		{"a loop", map[string]string{"bin/p": "-> p"}, "/bin/p", nil, "too many levels"},
		{"glibc before 2.34", map[string]string{"bin/p": program(t, "libc.so.6"), "usr/lib/libc.so.6": lib(t), "usr/lib/libnss_files.so.2": lib(t, "libx.so"), "usr/lib/libx.so": lib(t)}, "/bin/p", nil, "/usr/lib/libnss_files.so.2 /usr/lib/libx.so"},
		{"glibc after it", map[string]string{"bin/p": program(t, "libc.so.6"), "usr/lib/libc.so.6": lib(t) + "GLIBC_2.34\x00", "usr/lib/libnss_files.so.2": lib(t)}, "/bin/p", nil, "/usr/lib/libc.so.6 !/usr/lib/libnss_files.so.2"},
		{"threads that are cancelled", map[string]string{"bin/p": program(t, "libc.so.6") + "\x00pthread_cancel\x00", "usr/lib/libc.so.6": lib(t), "usr/lib/libgcc_s.so.1": lib(t)}, "/bin/p", nil, "/usr/lib/libgcc_s.so.1"},
	} {
		r := root(t, tt.files)
		m := New()
		p, err := m.AddProgram(tt.name, Search{Root: r, Path: strings.Split(DefaultPath, ":"), Library: tt.library})
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: AddProgram says %q, want %s", tt.what, err, tt.want)
			}
			continue
		}
		if strings.Contains(tt.want, " not ") {
			t.Errorf("%s: AddProgram says nothing, want %s", tt.what, tt.want)
			continue
		}
		for want := range strings.FieldsSeq(tt.want) {
			not := strings.HasPrefix(want, "!")
			at, err := m.Resolve(strings.TrimPrefix(want, "!"), true)
			if there := err == nil && m.Get(at) != nil; there == not {
				t.Errorf("%s: want %s; the image has %v", tt.what, want, m.Names())
			}
		}
		for _, l := range p.Libraries {
			if at, err := m.Resolve(l, true); err != nil || m.Get(at) == nil {
				t.Errorf("%s: library %s is said and not there", tt.what, l)
			}
		}
		for _, name := range m.Names() {
			if n := m.Get(name); n.From != "" && !strings.HasPrefix(n.From, r.Dir) && n.Type() != TypeSymlink {
				t.Errorf("%s: %s is from %s, outside of the root", tt.what, name, n.From)
			}
		}
	}
}

// What the image has goes before what the root has, whatever the order of folders.
func TestAddProgramOfImage(t *testing.T) {
	r := root(t, map[string]string{"usr/local/bin/p": "#!/none", "usr/lib/x86_64-linux-gnu/liba.so": lib(t)})
	m := New()
	must(t, m.Add("/usr/bin/p", Data(0o755, []byte(program(t, "liba.so")))))
	must(t, m.Add("/usr/lib/liba.so", Data(0o644, []byte(lib(t)))))
	p, err := m.AddProgram("p", Search{Root: r, Path: strings.Split(DefaultPath, ":")})
	must(t, err)
	if p.Name != "/usr/bin/p" || !slices.Equal(p.Libraries, []string{"/usr/lib/liba.so", linker}) {
		t.Errorf("it is %+v", p)
	}
	if _, err := New().AddProgram("/bin/none", Search{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("AddProgram of nothing says %v", err)
	}
}

func TestAddNeeded(t *testing.T) {
	r := root(t, map[string]string{"usr/lib/liba.so": lib(t), "bin/p": program(t)})
	m := New()
	s := Search{Root: r, Path: []string{"/bin"}}
	_, err := m.AddProgram("/bin/p", s)
	must(t, err)
	must(t, m.AddFolder(tree(t, map[string]string{"x.so": lib(t, "liba.so"), "y.so": lib(t, "libnone.so"), "text": "x", "s": "#!/bin/p"}), "/opt"))
	lacking, err := m.AddNeeded("/opt", s)
	must(t, err)
	if len(lacking) != 1 || lacking[0].What != "library libnone.so" || lacking[0].For != "/opt/y.so" {
		t.Errorf("it lacks %v", lacking)
	}
	if m.Get("/usr/lib/liba.so") == nil {
		t.Errorf("the image has %v", m.Names())
	}
}

// The programs of this machine, as its own dynamic linker loads them.
func TestRealPrograms(t *testing.T) {
	m := New()
	s := Search{Root: &Root{}, Path: strings.Split(DefaultPath, ":")}
	for _, name := range []string{"redis-server", "nginx", "busybox", "/usr/bin/python3", "sh", "cpio"} {
		p, err := m.AddProgram(name, s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		cmd := exec.Command(p.Name)
		cmd.Env = append(os.Environ(), "LD_TRACE_LOADED_OBJECTS=1")
		if len(p.Libraries) == 0 {
			continue // static
		}
		out, err := cmd.Output()
		must(t, err)
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			file := f[0]
			if len(f) > 2 && f[1] == "=>" {
				file = f[2]
			}
			if !path.IsAbs(file) {
				continue // linux-vdso
			}
			at, err := m.Resolve(file, true)
			if err != nil || m.Get(at) == nil {
				t.Errorf("%s would load %s, which the image does not have", p.Name, file)
				continue
			}
			real, err := filepath.EvalSymlinks(file)
			must(t, err)
			if from := m.Get(at).From; from != real {
				t.Errorf("%s would load %s, and gets %s", p.Name, real, from)
			}
		}
	}
	must(t, m.AddInit(Data(0o755, []byte("\x7fELF"))))
	must(t, m.AddBase())
	for _, p := range m.Check() {
		if p.Name != "/init" && !strings.HasSuffix(p.Name, "/pazinit") {
			t.Errorf("Check: %v", p)
		}
	}
	if os.Geteuid() != 0 {
		return // the rest is for who may change the root
	}
	dir := t.TempDir()
	cpio(t, dir, string(write(t, m)), "-idm", "--quiet")
	for _, argv := range [][]string{{"/usr/bin/redis-server", "--version"}, {"/usr/sbin/nginx", "-v"}, {"/usr/bin/sh", "-c", "exit 0"}, {"/usr/bin/busybox", "true"}, {"/usr/bin/python3", "--version"}} {
		cmd := exec.Command("chroot", append([]string{dir}, argv...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v within the image: %v: %s", argv, err, out)
		}
	}
}

// Our reader of ELF files says of all programs and libraries here what Go's says.
func TestObjects(t *testing.T) {
	var files []string
	for _, pattern := range []string{"/usr/bin/*", "/usr/sbin/*", "/usr/lib/*-linux-gnu*/*.so*", "/usr/lib/python3*/lib-dynload/*"} {
		found, err := filepath.Glob(pattern)
		must(t, err)
		files = append(files, found...)
	}
	read := 0
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue // a link to nowhere
		}
		o, err := readObject(f)
		theirs, err2 := elf.NewFile(f)
		if (err == nil) != (err2 == nil) {
			if !errors.Is(err, errNotELF) {
				t.Errorf("%s: we say %v, Go %v", name, err, err2)
			}
		} else if err == nil {
			read++
			needed, err := theirs.ImportedLibraries()
			must(t, err)
			rpath, err := theirs.DynString(elf.DT_RPATH)
			must(t, err)
			runpath, err := theirs.DynString(elf.DT_RUNPATH)
			must(t, err)
			interp := ""
			for _, p := range theirs.Progs {
				if p.Type == elf.PT_INTERP {
					b := make([]byte, p.Filesz)
					_, err := p.ReadAt(b, 0)
					must(t, err)
					interp = strings.TrimRight(string(b), "\x00")
				}
			}
			got := fmt.Sprint(o.machine, o.interp, o.needed, strings.Join(o.rpath, ":"), strings.Join(o.runpath, ":"))
			want := fmt.Sprint(uint16(theirs.Machine), interp, needed, strings.Join(rpath, ""), strings.Join(runpath, ""))
			if got != want {
				t.Errorf("%s: we read %s, Go %s", name, got, want)
			}
		}
		f.Close()
	}
	if read < 100 {
		t.Errorf("only %d ELF files were read of %d files", read, len(files))
	}
}

func FuzzObject(f *testing.F) {
	f.Add(elfFile(f, 62, linker, []string{"liba.so", "libb.so"}, "/r:$ORIGIN", "/x"))
	f.Add(elfFile(f, 183, "", nil, "", ""))
	f.Add([]byte("\x7fELF\x01\x02\x01" + strings.Repeat("\x00", 60)))
	f.Add([]byte("#!/usr/bin/env -S x y\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		o, err := readObject(r)
		if err == nil && len(o.needed) > maxDynamic {
			t.Errorf("%d libraries", len(o.needed))
		}
		if i, _, ok := scriptLine(r); ok && (i == "" || len(i) > maxLine) {
			t.Errorf("the interpreter is %q", i)
		}
		m := New()
		_ = m.Add("/p", Data(0o755, data))
		_, _ = m.AddProgram("/p", Search{})
	})
}
