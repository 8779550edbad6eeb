package initramfs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// entry is one entry of an archive, as it might be written by anybody.
type entry struct {
	magic               string
	inode, mode, links  uint32
	name, data          string
	sum                 uint32
	nameSize, dataSize_ int // what the header says, if not 0
}

func (e entry) bytes() []byte {
	if e.magic == "" {
		e.magic = magic
	}
	name, size := len(e.name)+1, len(e.data)
	if e.nameSize != 0 {
		name = e.nameSize
	}
	if e.dataSize_ != 0 {
		size = e.dataSize_
	}
	b := fmt.Appendf(nil, "%s%08x%08X%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", e.magic, e.inode, e.mode, 0, 0, e.links, 99, size, 8, 1, 0, 0, name, e.sum, e.name)
	b = append(b, make([]byte, -len(b)&3)...)
	b = append(b, e.data...)
	return append(b, make([]byte, -len(b)&3)...)
}

func archive(entries ...entry) []byte {
	var out []byte
	for _, e := range append(entries, entry{name: trailer}) {
		out = append(out, e.bytes()...)
	}
	return out
}

func packed(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(data)
	must(t, errors.Join(err, z.Close()))
	return b.Bytes()
}

func file(name, data string) entry { return entry{mode: 0o100644, links: 1, name: name, data: data} }

func TestRead(t *testing.T) {
	one, two := archive(file("a", "1")), archive(file("a", "22"), file("./b", "3"))
	zeros := make([]byte, 8)
	for what, tt := range map[string]struct {
		data []byte
		want string // the image's names, or the error
	}{
		"one":                     {one, "/a=1"},
		"two":                     {slices.Concat(one, two), "/a=22 /b=3"},
		"zeros between":           {slices.Concat(one, zeros, two, zeros), "/a=22 /b=3"},
		"zeros before":            {slices.Concat(zeros, two), "/a=22 /b=3"},
		"gzip":                    {packed(t, two), "/a=22 /b=3"},
		"plain, then gzip":        {slices.Concat(one, packed(t, two)), "/a=22 /b=3"},
		"gzip twice":              {slices.Concat(packed(t, two), packed(t, one)), "/a=1 /b=3"},
		"two within gzip":         {packed(t, slices.Concat(one, zeros, two)), "/a=22 /b=3"},
		"no alignment":            {slices.Concat(one, zeros[:3], two), "at no multiple of 4"},
		"nothing":                 {nil, "no archive in it"},
		"zeros":                   {zeros, "no archive in it"},
		"text":                    {[]byte("hello, world"), "neither an archive nor"},
		"gzip of nothing":         {packed(t, nil), "nothing in the compressed data"},
		"gzip of text":            {packed(t, []byte("hello, world")), "junk within"},
		"gzip of gzip":            {packed(t, packed(t, one)), "junk within"},
		"damaged gzip":            {packed(t, one)[:40], "unexpected EOF"},
		"xz":                      {[]byte("\xfd7zXZ\x00..."), "compressed by xz, which only pazimage reads"},
		"no trailer":              {one[:len(one)-124], "ends without TRAILER!!!"},
		"cut in the header":       {one[:50], "unexpected EOF"},
		"cut in the name":         {one[:111], "EOF"},
		"cut in the content":      {archive(file("a", "12345678"))[:115], "EOF"},
		"junk after it":           {slices.Concat(one, []byte("junk")), "neither an archive nor"},
		"the old format":          {archive(entry{magic: "070707", name: "a"}), "old format"},
		"another magic":           {archive(entry{magic: "070709", name: "a"}), "no header of newc"},
		"no number":               {bytes.Replace(one, []byte("00000063"), []byte("0000006g"), 1), "field 6 is no number"},
		"a sign":                  {bytes.Replace(one, []byte("00000063"), []byte("+0000063"), 1), "field 6 is no number"},
		"a name of nothing":       {archive(entry{name: "a", nameSize: 1<<32 - 1}), "a name of 4294967295 bytes"},
		"a name of 5000":          {archive(entry{name: strings.Repeat("x", 5000)}), "a name of 5001 bytes"},
		"a name without its end":  {archive(entry{name: "abcde", nameSize: 3}), "its only NUL"},
		"a name with two ends":    {archive(file("a\x00b", "")), "its only NUL"},
		"a size beyond the end":   {archive(entry{mode: 0o100644, name: "a", data: "x", dataSize_: 1 << 30}), "unexpected EOF"},
		"a good checksum":         {archive(entry{magic: magicSums, mode: 0o100644, name: "a", data: "ab", sum: 'a' + 'b'}), "/a=ab"},
		"a bad checksum":          {archive(entry{magic: magicSums, mode: 0o100644, name: "a", data: "ab", sum: 'a'}), `"a": its checksum is 000000c3, not 00000061`},
		"hard links":              {archive(entry{mode: 0o100644, links: 2, name: "a"}, entry{mode: 0o100644, links: 2, name: "b", data: "x"}), "/a=x /b=x"},
		"hard links, data first":  {archive(entry{mode: 0o100644, links: 2, name: "a", data: "x"}, entry{mode: 0o100644, links: 2, name: "b"}), "/a=x /b=x"},
		"links of other archives": {slices.Concat(archive(entry{mode: 0o100644, links: 2, name: "a", data: "x"}), archive(entry{mode: 0o100644, links: 2, name: "b"})), "/a=x /b="},
		"a replaced link":         {archive(entry{mode: 0o120777, name: "a", data: "b"}, file("a", "x")), "/a=x"},
		"through a link":          {archive(entry{mode: 0o40755, name: "d"}, entry{mode: 0o120777, name: "l", data: "d"}, file("l/x", "1")), "/d /l /d/x=1"},
	} {
		a, err := Read(bytes.NewReader(tt.data), ReadOptions{})
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: Read says %q, want %s", what, err, tt.want)
			}
			continue
		}
		var got []string
		for _, name := range a.Image.Names() {
			n := a.Image.Get(name)
			if n.Type() == TypeFile {
				name += "=" + content(t, n)
			}
			got = append(got, name)
		}
		want := strings.Fields(tt.want)
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: it holds %v, want %v", what, got, tt.want)
		}
		if len(a.Problems) > 0 {
			t.Errorf("%s: problems %v", what, a.Problems)
		}
	}
}

func TestReadProblems(t *testing.T) {
	dirty := archive(file("abcd", "x"))
	dirty[len(archive(file("abcd", "x")))-124-3] = 'y'
	for want, data := range map[string][]byte{
		"d/x: the folder /d is not there":                  archive(file("d/x", "")),
		"d/x: the folder /d is not there before it":        archive(file("d/x", ""), entry{mode: 0o40755, name: "d"}),
		`../x: name "../x" leads outside`:                  archive(file("../x", "")),
		"x: it is a socket":                                archive(entry{mode: 0o140755, name: "x"}),
		"x: mode 644 has no known type":                    archive(entry{mode: 0o644, name: "x"}),
		"d: there is a folder of that name":                archive(entry{mode: 0o40755, name: "d"}, file("d/x", ""), file("d", "")),
		"n: it is no file and has a content of 3 bytes":    archive(entry{mode: 0o20644, name: "n", data: "abc"}),
		"l: symbolic link to \"\"":                         archive(entry{mode: 0o120777, name: "l"}),
		"l: it is a symbolic link with a target of 5000 b": archive(entry{mode: 0o120777, name: "l", data: strings.Repeat("x", 5000)}),
		"abcd: the bytes up to the next multiple of 4 a":   dirty,
	} {
		a, err := Read(bytes.NewReader(data), ReadOptions{})
		if err != nil {
			t.Errorf("%s: Read says %v", want, err)
			continue
		}
		if len(a.Problems) != 1 || !strings.HasPrefix(a.Problems[0].String(), want) {
			t.Errorf("the problems are %v, want %s", a.Problems, want)
		}
	}
}

func TestReadLimit(t *testing.T) {
	bomb := packed(t, archive(file("a", strings.Repeat("x", 1<<20))))
	if _, err := Read(bytes.NewReader(bomb), ReadOptions{Limit: 1 << 16}); err == nil || !strings.Contains(err.Error(), "may have 65536") {
		t.Errorf("Read says %v", err)
	}
	// What is kept is bounded of its own: contents, and names without contents.
	if _, err := Read(bytes.NewReader(bomb), ReadOptions{Memory: 1 << 16}); err == nil || !strings.HasSuffix(err.Error(), `"a": up to here it takes 1049089 bytes of memory, and may take 65536`) {
		t.Errorf("Read with little memory says %v", err)
	}
	var many []entry
	for i := range 1000 {
		many = append(many, file(fmt.Sprint(i), ""))
	}
	if _, err := Read(bytes.NewReader(archive(many...)), ReadOptions{Names: true, Memory: 1 << 16}); err == nil || !strings.Contains(err.Error(), "and may take 65536") {
		t.Errorf("Read of many names says %v", err)
	}
	a, err := Read(bytes.NewReader(bomb), ReadOptions{Names: true})
	must(t, err)
	if n := a.Image.Get("/a"); n.Open != nil || n.Size != 1<<20 {
		t.Errorf("without contents it is %+v", n)
	}
	if got := a.Parts; len(got) != 1 || got[0] != (Part{Compression: "gzip", Names: 1}) {
		t.Errorf("the parts are %+v", got)
	}
}

// A zeroReader gives zeros for ever.
type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// What an entry has that is no file is read and not kept.
func TestReadKeepsNoContentOfOthers(t *testing.T) {
	const size = 1 << 30
	for _, mode := range []uint32{0o120777, 0o40755, 0o20600} {
		head := entry{mode: mode, links: 1, name: "x", dataSize_: size}.bytes()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		a, err := Read(io.MultiReader(bytes.NewReader(head), io.LimitReader(zeroReader{}, size), bytes.NewReader(archive())), ReadOptions{Memory: 1 << 16})
		must(t, err)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<22 {
			t.Errorf("mode %o: it took %d bytes of memory", mode, got)
		}
		if len(a.Problems) != 1 || !strings.Contains(a.Problems[0].What, fmt.Sprint(size)) {
			t.Errorf("mode %o: the problems are %v", mode, a.Problems)
		}
	}
}

// The reader must take whatever comes, and what it took must come out again.
func FuzzRead(f *testing.F) {
	f.Add(write(f, sample(f)))
	f.Add(packed(f, archive(file("a", "1"))))
	f.Add(slices.Concat(archive(file("a", "1")), packed(f, archive(file("b", "2")))))
	f.Add(archive(entry{magic: magicSums, mode: 0o100644, links: 2, name: "a", data: "ab", sum: 'a' + 'b'}, entry{mode: 0o120777, name: "l", data: "/a"}, entry{mode: 0o40755, name: "d"}, file("d/x", "")))
	f.Add(archive(entry{mode: 0o100755, name: "init", data: "#!/bin/sh -e\n"}, entry{mode: 0o120777, name: "a", data: "b"}, entry{mode: 0o120777, name: "b", data: "a"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := Read(bytes.NewReader(data), ReadOptions{Limit: 1 << 22})
		if err != nil {
			return
		}
		a.Image.Check()
		var out bytes.Buffer
		if err := a.Image.Write(&out); err != nil {
			t.Fatalf("write what was read: %v", err)
		}
		again, err := Read(bytes.NewReader(out.Bytes()), ReadOptions{})
		if err != nil || len(again.Problems) > 0 {
			t.Fatalf("read what was written: %v, %v", err, again)
		}
		if got, want := text(t, again.Image), text(t, a.Image); got != want {
			t.Fatalf("read again:\n%s\nwant:\n%s", got, want)
		}
	})
}

// cpio runs cpio(1), in a folder.
func cpio(t *testing.T, dir, input string, args ...string) []byte {
	t.Helper()
	var errs bytes.Buffer
	cmd := exec.Command("cpio", args...)
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, strings.NewReader(input), &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cpio %v: %v: %s", args, err, errs.String())
	}
	return out
}

// What we write, cpio(1) unpacks; what cpio(1) writes, we read.
func TestCpio(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Fatalf("scripts/install-deps test brings it: %v", err)
	}
	m := sample(t)
	if os.Geteuid() != 0 { // what only root can unpack
		for _, name := range []string{"/dev/console", "/dev/vda"} {
			must(t, m.Remove(name))
		}
		for _, name := range m.Names() {
			m.Get(name).UID, m.Get(name).GID = uint32(os.Getuid()), uint32(os.Getgid())
		}
	}
	dir := t.TempDir()
	listed := cpio(t, dir, string(write(t, m)), "-it", "--quiet")
	var names []string
	for _, name := range m.order() {
		names = append(names, name[1:])
	}
	if got := strings.Split(strings.TrimSpace(string(listed)), "\n"); !slices.Equal(got, names) {
		t.Errorf("cpio lists %q, want %q", got, names)
	}
	cpio(t, dir, string(write(t, m)), "-idm", "--quiet")
	// As root with owners, else without; permissions are cpio's to give.
	unpacked := New()
	must(t, unpacked.AddFolder(dir, "/"))
	for _, name := range m.Names() {
		if n := unpacked.Get(name); n != nil {
			host, err := os.Lstat(filepath.Join(dir, name))
			must(t, err)
			n.UID, n.GID = ownerOf(host)
		}
	}
	if got, want := text(t, unpacked), text(t, m); got != want {
		t.Errorf("cpio unpacked\n%swant\n%s", got, want)
	}
	if unpacked.Get("/one") != unpacked.Get("/a/three") {
		t.Error("cpio unpacked hard links as files of their own")
	}
	for _, format := range []string{"newc", "crc"} {
		a, err := Read(bytes.NewReader(cpio(t, dir, strings.Join(names, "\n")+"\n", "-o", "--quiet", "-H", format)), ReadOptions{})
		must(t, err)
		if got, want := text(t, a.Image), text(t, m); got != want || len(a.Problems) > 0 {
			t.Errorf("cpio -H %s wrote\n%swant\n%s, problems %v", format, got, want, a.Problems)
		}
		if a.Image.Get("/one") != a.Image.Get("/two") {
			t.Errorf("cpio -H %s: hard links are files of their own", format)
		}
	}
	a, err := Read(bytes.NewReader(cpio(t, dir, "init\n", "-o", "--quiet", "-H", "odc")), ReadOptions{})
	if err == nil {
		t.Errorf("the old format was read: %v", a)
	}
}
