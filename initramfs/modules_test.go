package initramfs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const ko = "\x7fELF module "

// modules is a folder of modules as depmod leaves it.
func modules(t *testing.T) string {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err := w.Write([]byte(ko + "gz"))
	must(t, errors.Join(err, w.Close()))
	dir := filepath.Join(t.TempDir(), "6.1.0-test")
	must(t, os.Mkdir(dir, 0o755))
	fill(t, dir, map[string]string{
		"modules.dep": `kernel/net/virtio_net.ko: kernel/net/failover.ko kernel/lib/base.ko.gz
kernel/net/failover.ko: kernel/lib/base.ko.gz
kernel/lib/base.ko.gz:
kernel/fs/packed.ko.xz: kernel/lib/base.ko.gz
kernel/fs/with-soft.ko:
kernel/crypto/crc32c_x.ko:
kernel/crypto/crc32c_y.ko:
kernel/loop/a.ko: kernel/loop/b.ko
kernel/loop/b.ko: kernel/loop/a.ko
kernel/lost.ko: kernel/nowhere.ko
`,
		"modules.builtin":        "kernel/fs/ext4/ext4.ko\n",
		"modules.alias":          "# x\nalias fs-packed packed\nalias crypto-crc32c* crc32c_x\nalias crypto-crc32c crc32c-y\nalias fs-ext4 ext4\n",
		"modules.softdep":        "# x\nsoftdep with_soft pre: crypto-crc32c nobody post: packed\n",
		"kernel/net/failover.ko": ko + "failover", "kernel/net/virtio_net.ko": ko + "net", "kernel/lib/base.ko.gz": z.String(),
		"kernel/fs/packed.ko.xz": "packed", "kernel/fs/with-soft.ko": ko, "kernel/crypto/crc32c_x.ko": ko, "kernel/crypto/crc32c_y.ko": ko,
		"kernel/loop/a.ko": ko, "kernel/loop/b.ko": ko, "kernel/lost.ko": ko,
	})
	return dir
}

func TestAddModules(t *testing.T) {
	dir := modules(t)
	const at = "/lib/modules/6.1.0-test/kernel/"
	xz := map[string]func(io.Reader) (io.Reader, error){".xz": func(r io.Reader) (io.Reader, error) {
		return io.MultiReader(strings.NewReader(ko), r), nil
	}}
	for _, tt := range []struct {
		names  []string
		unpack map[string]func(io.Reader) (io.Reader, error)
		want   string // the list with AT, or the error
	}{
		{[]string{"virtio_net"}, nil, "ATlib/base.ko\nATnet/failover.ko\nATnet/virtio_net.ko\n"},
		{[]string{"virtio-net debug=1 x=y", "failover"}, nil, "ATlib/base.ko\nATnet/failover.ko\nATnet/virtio_net.ko debug=1 x=y\n"},
		{[]string{"failover", "virtio_net"}, nil, "ATlib/base.ko\nATnet/failover.ko\nATnet/virtio_net.ko\n"},
		{[]string{"packed"}, nil, "ATlib/base.ko\nATfs/packed.ko.xz\n"},
		{[]string{"fs-packed"}, xz, "ATlib/base.ko\nATfs/packed.ko\n"},
		{[]string{"kernel/fs/packed.ko.xz"}, xz, "ATlib/base.ko\nATfs/packed.ko\n"},
		{[]string{"with_soft"}, nil, "ATcrypto/crc32c_x.ko\nATcrypto/crc32c_y.ko\nATfs/with-soft.ko\nATlib/base.ko\nATfs/packed.ko.xz\n"},
		{[]string{"ext4", "fs-ext4"}, nil, ""},
		{[]string{"none"}, nil, "add module none: it is not in "},
		{[]string{""}, nil, "empty name"},
		{[]string{"lost"}, nil, "add module lost: module kernel/nowhere.ko is needed and not in modules.dep"},
		{[]string{"a"}, nil, "ATloop/b.ko\nATloop/a.ko\n"},
	} {
		d, err := OpenModules(dir)
		must(t, err)
		d.Unpack = tt.unpack
		m := New()
		loaded, builtin, err := m.AddModules(d, tt.names)
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) || tt.want == "" {
				t.Errorf("%q: AddModules says %v, want %s", tt.names, err, tt.want)
			}
			continue
		}
		if got, want := content(t, m.Get(LoadList)), strings.ReplaceAll(tt.want, "AT", at); got != want {
			t.Errorf("%q: the list is\n%swant\n%s", tt.names, got, want)
		}
		for _, l := range loaded {
			n := m.Get(l.Path)
			if n == nil || n.Mode != TypeFile|0o644 {
				t.Errorf("%q: %s is %+v", tt.names, l.Path, n)
				continue
			}
			if is := strings.HasPrefix(content(t, n), "\x7fELF"); is == l.Compressed {
				t.Errorf("%q: %s: compressed %v, %q", tt.names, l.Path, l.Compressed, content(t, n))
			}
		}
		if tt.want == "" && fmt.Sprint(builtin) != fmt.Sprint(tt.names) {
			t.Errorf("%q: built in are %v", tt.names, builtin)
		}
	}
	d, err := OpenModules(dir)
	must(t, err)
	m := New()
	_, _, err = m.AddModules(d, []string{"virtio_net"})
	must(t, err)
	const want = "kernel/lib/base.ko:\nkernel/net/failover.ko: kernel/lib/base.ko\nkernel/net/virtio_net.ko: kernel/net/failover.ko kernel/lib/base.ko\n"
	if got := content(t, m.Get("/lib/modules/6.1.0-test/modules.dep")); got != want {
		t.Errorf("modules.dep is\n%swant\n%s", got, want)
	}
	if m.Get("/lib/modules/6.1.0-test/modules.builtin") == nil {
		t.Error("modules.builtin is missing")
	}
}

// The table is also that of package machine, which reads the same indexes when the
// machine runs: both must load the same in the same order.
func TestModulesTable(t *testing.T) {
	table, err := os.ReadFile("testdata/modules/table")
	must(t, err)
	n := 0
	for line := range strings.Lines(string(table)) {
		name, want, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || name[0] == '#' {
			continue
		}
		n++
		d, err := OpenModules("testdata/modules")
		must(t, err)
		found, builtin := d.find(name)
		var got []string
		seen := map[string]bool{}
		for _, f := range found {
			more, err := d.order(f, seen)
			must(t, err)
			got = append(got, more...)
		}
		switch {
		case len(found) == 0 && builtin:
			got = []string{"builtin"}
		case len(found) == 0:
			got = []string{"none"}
		}
		if !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %q, want %s", name, got, want)
		}
	}
	if n < 20 {
		t.Errorf("the table has %d lines", n)
	}
}

func TestOpenModulesErrors(t *testing.T) {
	for want, files := range map[string]map[string]string{
		"no modules.dep: depmod": {"x": ""}, `"../x.ko" is outside`: {"modules.dep": "../x.ko:\n"}, `"/x.ko" is outside`: {"modules.dep": "/x.ko:\n"},
	} {
		if _, err := OpenModules(tree(t, files)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("OpenModules says %v, want %s", err, want)
		}
	}
	dir := modules(t)
	must(t, os.WriteFile(filepath.Join(dir, "kernel/lib/base.ko.gz"), []byte("no gzip"), 0o644))
	d, err := OpenModules(dir)
	must(t, err)
	if _, _, err := New().AddModules(d, []string{"failover"}); err == nil || !strings.Contains(err.Error(), "add module base: unpack "+filepath.Join(dir, "kernel/lib/base.ko.gz")) {
		t.Errorf("AddModules of a damaged one says %v", err)
	}
}

func TestMicrocode(t *testing.T) {
	dir := tree(t, map[string]string{
		"GenuineIntel.bin": "intel", "intel-ucode/06-03-02": "b", "intel-ucode/06-03-01": "a", "amd-ucode/m_amd_fam15h.bin": "c", "amd-ucode/README": "no", "amd-ucode/m_amd.bin.asc": "no",
		"other.bin": "x", "AuthenticAMD.bin": "", "some/x": "",
	})
	m := New()
	must(t, m.Add("/kernel/x86/microcode/AuthenticAMD.bin", Data(0o644, []byte("made"))))
	must(t, os.WriteFile(filepath.Join(dir, "early.cpio"), archive(entry{mode: 0o40755, name: "kernel"}, entry{mode: 0o40755, name: "kernel/x86"}, entry{mode: 0o40755, name: "kernel/x86/microcode"}, file("kernel/x86/microcode/AuthenticAMD.bin", "made")), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "late.cpio"), archive(file("x", "")), 0o644))
	for name, want := range map[string]string{
		"GenuineIntel.bin": "GenuineIntel.bin=intel", "intel-ucode": "GenuineIntel.bin=ab", "amd-ucode": "AuthenticAMD.bin=c", "early.cpio": "AuthenticAMD.bin=made",
		"other.bin": "is no archive, and not called", "AuthenticAMD.bin": "has nothing in it", "some": "neither intel-ucode nor", "late.cpio": "does not begin with", "none": "no such file",
	} {
		data, err := Microcode(filepath.Join(dir, name))
		if err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: Microcode says %v, want %s", name, err, want)
			}
			continue
		}
		if len(data)%blockSize != 0 {
			t.Errorf("%s: it has %d bytes", name, len(data))
		}
		// In front of a compressed image it is the first part.
		a, err := Read(bytes.NewReader(append(data, packed(t, archive(file("init", "x")))...)), ReadOptions{})
		must(t, err)
		if len(a.Parts) != 2 || !a.Parts[0].Microcode || a.Parts[0].Compression != "" || a.Parts[1].Microcode || a.Parts[1].Compression != "gzip" {
			t.Errorf("%s: the parts are %+v", name, a.Parts)
		}
		file, text, _ := strings.Cut(want, "=")
		if n := a.Image.Get("/kernel/x86/microcode/" + file); n == nil || content(t, n) != text {
			t.Errorf("%s: there is no %s", name, want)
		}
	}
}
