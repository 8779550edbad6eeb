package machine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeModules is a kernel with modules of its own.
func fakeModules(t *testing.T) (m *modules, inserted *[]string) {
	t.Helper()
	m = &modules{root: t.TempDir(), release: "6.1.0-test", seen: map[string]bool{},
		cmdline: `quiet virtio-net.napi_tx=0 loop.name="a b" -- loop.x=1`}
	for name, text := range map[string]string{
		"modules.dep": `kernel/a/virtio.ko:
kernel/a/virtio_ring.ko.xz: kernel/a/virtio.ko
kernel/a/virtio-net.ko.xz: kernel/b/failover.ko kernel/a/virtio_ring.ko.xz kernel/a/virtio.ko
kernel/b/failover.ko:
kernel/c/ext4.ko: kernel/c/jbd2.ko
kernel/c/jbd2.ko:
kernel/c/crc32c.ko:
kernel/c/late.ko:
kernel/d/loop.ko:
kernel/d/round.ko:
kernel/d/about.ko:
kernel/d/broken.ko: kernel/d/bad.ko
`,
		"modules.softdep": `# Soft dependencies
softdep ext4 pre: crc32c none post: late
softdep round pre: about
softdep about pre: round
`,
		"modules.alias": `alias fs-ext4 ext4
alias virtio:d00000001v* virtio_net
alias of:N*T*Ca,b/cC* loop
alias two-* none
alias two-* loop
alias built-in unix
`,
		"modules.builtin": "kernel/net/unix.ko\nkernel/fs/ext-two.ko\n",
	} {
		write(t, filepath.Join(m.dir(), name), text)
	}
	write(t, filepath.Join(m.root, "proc/modules"), "")
	inserted = &[]string{}
	m.insert = func(file, parameters string) error {
		name, _ := filepath.Rel(m.dir(), file)
		if strings.Contains(name, "bad") {
			return unix.ENODEV
		}
		*inserted = append(*inserted, strings.TrimSpace(name+" "+parameters))
		return os.MkdirAll(filepath.Join(m.root, "sys/module", moduleName(file)), 0o700)
	}
	return m, inserted
}

func TestLoadModules(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  []string
	}{
		{[]string{"virtio_net"}, []string{"kernel/a/virtio.ko", "kernel/a/virtio_ring.ko.xz", "kernel/b/failover.ko", "kernel/a/virtio-net.ko.xz napi_tx=0"}},
		{[]string{"virtio-net gso=1 x=\"a b\""}, []string{"kernel/a/virtio.ko", "kernel/a/virtio_ring.ko.xz", "kernel/b/failover.ko",
			`kernel/a/virtio-net.ko.xz napi_tx=0 gso=1 x="a b"`}},
		{[]string{"ext4", "jbd2", "ext4", "", " "}, []string{"kernel/c/crc32c.ko", "kernel/c/jbd2.ko", "kernel/c/ext4.ko", "kernel/c/late.ko"}},
		{[]string{"fs-ext4"}, []string{"kernel/c/crc32c.ko", "kernel/c/jbd2.ko", "kernel/c/ext4.ko", "kernel/c/late.ko"}},
		{[]string{"virtio:d00000001v00001AF4"}, []string{"kernel/a/virtio.ko", "kernel/a/virtio_ring.ko.xz", "kernel/b/failover.ko", "kernel/a/virtio-net.ko.xz napi_tx=0"}},
		{[]string{"of:Nx/yTzCa,b/cC"}, []string{`kernel/d/loop.ko name="a b"`}},
		{[]string{"two-1"}, []string{`kernel/d/loop.ko name="a b"`}},
		{[]string{"round"}, []string{"kernel/d/about.ko", "kernel/d/round.ko"}},
		{[]string{"unix", "ext_two", "built_in"}, nil},
		{[]string{"kernel/d/loop.ko", "/opt/my.ko a=1"}, []string{`kernel/d/loop.ko name="a b"`, "../../../opt/my.ko a=1"}},
	} {
		m, inserted := fakeModules(t)
		if errs := m.load(c.names); len(errs) > 0 || !slices.Equal(*inserted, c.want) {
			t.Errorf("load(%q) = %v, loads\n%q, want\n%q", c.names, errs, *inserted, c.want)
		}
	}
}

func TestLoadModulesRefused(t *testing.T) {
	m, inserted := fakeModules(t)
	errs := m.load([]string{"none", "broken", "../../x", "loop", strings.Repeat("x", 300)})
	if len(errs) != 4 || !slices.Equal(*inserted, []string{`kernel/d/loop.ko name="a b"`}) {
		t.Fatalf("load = %v, loads %q, want four errors, and loop", errs, *inserted)
	}
	if !errors.Is(errs[0], fs.ErrNotExist) || !strings.HasPrefix(errs[0].Error(), `load module "none": neither a module nor an alias of `) {
		t.Errorf("a module that is not there: %v", errs[0])
	}
	if want := `load module "broken": what it needs, bad: no such device`; errs[1].Error() != want {
		t.Errorf("a dependency that fails: %v, want %s", errs[1], want)
	}

	m, _ = fakeModules(t)
	m.release = "5.10.0-other"
	if errs := m.load([]string{"loop"}); len(errs) != 1 || !strings.Contains(errs[0].Error(), "no modules of this kernel: open ") {
		t.Errorf("without a folder: %v", errs)
	}
}

// TestNoModules is a kernel without them, or with them switched off.
func TestNoModules(t *testing.T) {
	for name, spoil := range map[string]func(m *modules){
		"no modules":   func(m *modules) { os.Remove(filepath.Join(m.root, "proc/modules")) },
		"switched off": func(m *modules) { write(t, filepath.Join(m.root, "proc/sys/kernel/modules_disabled"), "1\n") },
	} {
		m, inserted := fakeModules(t)
		spoil(m)
		write(t, filepath.Join(m.root, "sys/module/shown/x"), "")
		if errs := m.load([]string{"unix", "shown", "ext-two"}); len(errs) > 0 {
			t.Errorf("%s: what is built in: %v", name, errs)
		}
		errs := m.load([]string{"unix", "loop", "ext4 x=1"})
		if len(errs) != 1 || !errors.Is(errs[0], errors.ErrUnsupported) || !strings.HasPrefix(errs[0].Error(), "load modules loop, ext4: ") {
			t.Errorf("%s: %v, want one that is unsupported", name, errs)
		}
		list := filepath.Join(m.root, "list")
		write(t, list, "# nothing\n\n")
		if errs := m.loadList(list); len(errs) > 0 {
			t.Errorf("%s: an empty list: %v", name, errs)
		}
		write(t, list, "a.ko\nb.ko\n")
		if errs := m.loadList(list); len(errs) != 1 || !errors.Is(errs[0], errors.ErrUnsupported) {
			t.Errorf("%s: a list: %v, want one that is unsupported", name, errs)
		}
		if len(*inserted) > 0 {
			t.Errorf("%s: it loads %q", name, *inserted)
		}
	}
}

func TestLoadModuleList(t *testing.T) {
	m, inserted := fakeModules(t)
	list := filepath.Join(m.root, "list")
	if errs := m.loadList(list); len(errs) > 0 {
		t.Errorf("a list that is not there: %v", errs)
	}
	write(t, list, "# made by hand\nkernel/d/loop.ko max_loop=8\n\n/lib/modules/6.1.0-test/kernel/c/ext4.ko\nkernel/d/bad.ko\n")
	errs := m.loadList(list)
	if len(errs) != 1 || errs[0].Error() != list+":5: load module kernel/d/bad.ko: no such device" {
		t.Errorf("loadList = %v, want line 5 alone", errs)
	}
	if want := []string{`kernel/d/loop.ko name="a b" max_loop=8`, "kernel/c/ext4.ko"}; !slices.Equal(*inserted, want) {
		t.Errorf("it loads %q, want %q", *inserted, want)
	}
	write(t, list, strings.Repeat("#", maxModuleList+1))
	if errs := m.loadList(list); len(errs) != 1 {
		t.Errorf("a list without end: %v", errs)
	}
}

func TestInsertFile(t *testing.T) {
	m, _ := fakeModules(t)
	write(t, filepath.Join(m.root, "x.ko.xz"), "")
	file := filepath.Join(m.root, "x.ko.xz")
	for _, kind := range []string{"", "zstd\n"} {
		if kind != "" {
			write(t, filepath.Join(m.root, "sys/module/compression"), kind)
		}
		if err := m.insertFile(file, ""); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "cannot unpack .xz") {
			t.Errorf("a module compressed by xz in a kernel with %q = %v, want unsupported", kind, err)
		}
	}
	if err := m.insertFile(filepath.Join(m.root, "none.ko"), ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file = %v", err)
	}
	m.insert = func(string, string) error { return unix.EEXIST }
	if err := m.insertOne(file, ""); err != nil {
		t.Errorf("a module that is loaded = %v", err)
	}
	m.insert = func(string, string) error { return unix.ENOEXEC }
	if err := m.insertOne(file, ""); err == nil || !strings.Contains(err.Error(), "is not for Linux 6.1.0-test") {
		t.Errorf("another kernel's module = %v", err)
	}
	m.insert = func(string, string) error { return unix.ENOENT }
	if err := m.insertOne(file, ""); err == nil || !strings.Contains(err.Error(), "a parameter or a symbol that is not known") {
		t.Errorf("an unknown parameter = %v", err)
	}
}

// TestLoadModulesHere asks this kernel.
func TestLoadModulesHere(t *testing.T) {
	errs := LoadModules([]string{"pazinit-has-no-such-module"})
	if len(errs) != 1 || !errors.Is(errs[0], errors.ErrUnsupported) && !errors.Is(errs[0], fs.ErrNotExist) {
		t.Errorf("LoadModules = %v, want one that is not there", errs)
	}
	_, err := os.Stat("/proc/modules")
	if errors.Is(err, fs.ErrNotExist) != errors.Is(errs[0], errors.ErrUnsupported) {
		t.Errorf("LoadModules = %v, and /proc/modules: %v", errs, err)
	}
}

// TestModulesOfKernel is for a virtual machine with the modules of its kernel, and
// PAZINIT_TEST_MUST=modules: softdog without parameters is harmless until it is
// opened, and virtio_net needs two others.
func TestModulesOfKernel(t *testing.T) {
	if !must("modules") {
		t.Skip("modules: not asked for by PAZINIT_TEST_MUST")
	}
	if errs := LoadModules([]string{"softdog soft_margin=33", "virtio-net", "fs-no-such-thing"}); len(errs) != 1 || !errors.Is(errs[0], fs.ErrNotExist) {
		t.Errorf("LoadModules = %v, want one that is not there", errs)
	}
	for _, name := range []string{"softdog", "failover", "net_failover", "virtio_net"} {
		if _, err := os.Stat("/sys/module/" + name); err != nil {
			t.Errorf("%s is not loaded: %v", name, err)
		}
	}
	if got := string(read(t, "/sys/class/watchdog/watchdog0/timeout")); got != "33\n" {
		t.Errorf("softdog's timeout is %q, want 33", got)
	}
	if errs := LoadModules([]string{"softdog", "virtio_net"}); len(errs) > 0 {
		t.Errorf("again: %v", errs)
	}
	if errs := LoadModules([]string{"loop no_such_parameter=1"}); len(errs) > 0 { // is but a warning in the kernel's log
		t.Errorf("an unknown parameter: %v", errs)
	}
	if errs := LoadModules([]string{"evdev"}); len(errs) > 0 {
		t.Error(errs)
	}
}

func FuzzModuleFiles(f *testing.F) {
	f.Add("softdep a pre: b c post: d", "virtio:d*v[0-9]", "virtio:d1v2")
	f.Add("softdep softdep post: pre: x", "[", "a-b/c")
	f.Fuzz(func(t *testing.T, line, pattern, name string) {
		of, before, after, ok := parseSoftdep(line)
		for _, n := range append(append(before, after...), of) { // the others may be aliases
			if strings.ContainsAny(n, " ") || strings.ContainsAny(of, "-/") {
				t.Errorf("parseSoftdep(%q) has the name %q", line, n)
			}
		}
		if !ok && len(before)+len(after) > 0 {
			t.Errorf("parseSoftdep(%q) is none and has %q, %q", line, before, after)
		}
		matchAlias(pattern, name)
		if !strings.ContainsAny(pattern, `*?[\`) && matchAlias(pattern, pattern) != true {
			t.Errorf("%q does not match itself", pattern)
		}
		_ = commandLineParameters(line, moduleName(name))
	})
}

// The table is also that of the maker of images, which decides beforehand what is
// to be loaded: both must load the same in the same order.
func TestModulesTable(t *testing.T) {
	const indexes = "../initramfs/testdata/modules"
	table, err := os.ReadFile(filepath.Join(indexes, "table"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(table)) {
		name, _, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || name[0] == '#' {
			continue
		}
		want := strings.Fields(strings.TrimPrefix(line, name+": "))
		n++
		m, inserted := fakeModules(t)
		m.cmdline = ""
		for _, file := range []string{"modules.dep", "modules.softdep", "modules.alias", "modules.builtin"} {
			b, err := os.ReadFile(filepath.Join(indexes, file))
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(m.dir(), file), string(b))
		}
		errs := m.load([]string{name})
		got := *inserted
		switch {
		case len(errs) == 1 && errors.Is(errs[0], fs.ErrNotExist):
			got = []string{"none"}
		case len(errs) > 0:
			t.Errorf("%s: %v", name, errs)
		case len(got) == 0:
			got = []string{"builtin"}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: it loads %q, want %q", name, got, want)
		}
	}
	if n < 20 {
		t.Errorf("the table has %d lines", n)
	}
}
