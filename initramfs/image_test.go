package initramfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree makes files below a new folder: contents by name; "/" at the end makes a
// folder, "-> TARGET" a symbolic link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	fill(t, dir, files)
	return dir
}

func fill(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		switch target, link := strings.CutPrefix(text, "-> "); {
		case strings.HasSuffix(name, "/"):
			must(t, os.MkdirAll(file, 0o755))
		case link:
			must(t, os.Symlink(target, file))
		default:
			must(t, os.WriteFile(file, []byte(text), 0o644))
			if strings.HasPrefix(text, "#!") || strings.HasPrefix(text, "\x7fELF") {
				must(t, os.Chmod(file, 0o755))
			}
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write is the image's bytes.
func write(t testing.TB, m *Image) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, m.Write(&b))
	return b.Bytes()
}

// text is what an image holds, a line a name.
func text(t testing.TB, m *Image) string {
	t.Helper()
	var out strings.Builder
	for _, name := range m.Names() {
		n := m.Get(name)
		fmt.Fprintf(&out, "%s %06o %d:%d", name, n.Mode, n.UID, n.GID)
		switch n.Type() {
		case TypeFile:
			fmt.Fprintf(&out, " %q", content(t, n))
		case TypeSymlink:
			fmt.Fprintf(&out, " -> %s", n.Target)
		case TypeChar, TypeBlock:
			fmt.Fprintf(&out, " %d,%d", n.Major, n.Minor)
		}
		out.WriteString("\n")
	}
	return out.String()
}

func content(t testing.TB, n *Node) string {
	t.Helper()
	if n.Open == nil {
		return ""
	}
	r, err := n.Open()
	must(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	must(t, err)
	return string(b)
}

// sample has one of everything.
func sample(t testing.TB) *Image {
	m := New()
	twice := Data(0o640, []byte("twice"))
	twice.UID, twice.GID = 7, 8
	suid := Data(0o4755, []byte("#!/bin/sh\n"))
	for name, n := range map[string]*Node{
		"/init": Data(0o755, []byte("\x7fELF")), "/empty": {Mode: TypeFile | 0o600}, "/a/b/c": Data(0o644, []byte("123")),
		"/a/link": Symlink("../empty"), "/one": twice, "/two": twice, "/a/three": twice, "/dev/console": Char(0o600, 5, 1),
		"/dev/vda": Block(0o660, 254, 0), "/pipe": {Mode: TypeFIFO | 0o620, UID: 5, GID: 65534}, "/tmp": Folder(0o1777),
		"/bin/su": suid, "/ü né": Data(0o644, bytes.Repeat([]byte("x"), 5001)), "/a.b": Data(0o644, nil), "/a-b": Folder(0o700),
	} {
		must(t, m.Add(name, n))
	}
	return m
}

func TestRoundTrip(t *testing.T) {
	m := sample(t)
	data := write(t, m)
	if len(data)%blockSize != 0 {
		t.Errorf("the archive has %d bytes, no multiple of %d", len(data), blockSize)
	}
	a, err := Read(bytes.NewReader(data), ReadOptions{})
	must(t, err)
	if len(a.Problems) > 0 {
		t.Errorf("Read found problems: %v", a.Problems)
	}
	if got, want := text(t, a.Image), text(t, m); got != want {
		t.Errorf("read again:\n%s\nwant:\n%s", got, want)
	}
	if a.Image.Get("/one") != a.Image.Get("/two") || a.Image.Get("/one") != a.Image.Get("/a/three") {
		t.Error("the three names of one file are not one file any more")
	}
	if again := write(t, a.Image); !bytes.Equal(again, data) {
		t.Error("what was read is not written as it was")
	}
}

func TestHeaders(t *testing.T) {
	type head struct{ inode, links, size, mtime uint64 }
	got := make(map[string]head)
	data := write(t, sample(t))
	var order []string
	for at := 0; ; {
		var f [13]uint64
		for i := range f {
			_, err := fmt.Sscanf(string(data[at+6+8*i:at+14+8*i]), "%x", &f[i])
			must(t, err)
		}
		name := string(data[at+110 : at+110+int(f[11])-1])
		if name == trailer {
			break
		}
		order = append(order, name)
		got[name] = head{f[0], f[4], f[6], f[5]}
		body := (at + 110 + int(f[11]) + 3) / 4 * 4
		at = (body + int(f[6]) + 3) / 4 * 4
	}
	want := []string{"init", "a", "a-b", "a.b", "a/b", "a/b/c", "a/link", "a/three", "bin", "bin/su", "dev", "dev/console", "dev/vda", "empty", "one", "pipe", "tmp", "two", "ü né"}
	if fmt.Sprint(order) != fmt.Sprint(want) {
		t.Errorf("the order is %v, want %v", order, want)
	}
	for name, links := range map[string]uint64{"a": 3, "a/b": 2, "a-b": 2, "dev": 2, "one": 3, "two": 3, "a/three": 3, "init": 1, "a/link": 1, "dev/console": 1} {
		if got[name].links != links {
			t.Errorf("%s has %d links, want %d", name, got[name].links, links)
		}
	}
	if got["one"].inode != got["two"].inode || got["one"].inode != got["a/three"].inode {
		t.Error("the three names have different inodes")
	}
	if got["a/three"].size != 0 || got["one"].size != 0 || got["two"].size != 5 {
		t.Error("the content does not go with the last of the names")
	}
	next := uint64(1)
	seen := map[uint64]bool{}
	for _, name := range order {
		if h := got[name]; !seen[h.inode] {
			if h.inode != next {
				t.Errorf("%s has inode %d, want %d", name, h.inode, next)
			}
			seen[h.inode] = true
			next++
		}
		if got[name].mtime != 0 {
			t.Errorf("%s has a time", name)
		}
	}
}

// The same input in another folder, at another time, gives the same bytes.
func TestReproducible(t *testing.T) {
	files := map[string]string{"bin/run": "#!/bin/sh\necho\n", "etc/x": "1", "etc/y": "-> x", "z/": ""}
	for i := range 40 {
		files[fmt.Sprintf("many/%d", i*7919%40)] = strings.Repeat("z", i)
	}
	var sums []string
	for i := range 4 {
		mask := unix.Umask([]int{0o022, 0o077, 0, 0o027}[i])
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(i + 1))
		dir := tree(t, files)
		unix.Umask(mask)
		must(t, filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.Type()&fs.ModeSymlink != 0 {
				return err
			}
			mode := fs.FileMode(0o644)
			if d.IsDir() || filepath.Base(file) == "run" {
				mode = 0o755
			}
			when := time.Unix(int64(i)*1e6, 0)
			return errors.Join(os.Chmod(file, mode), os.Chtimes(file, when, when))
		}))
		if os.Geteuid() == 0 {
			must(t, os.Chown(filepath.Join(dir, "etc/x"), i, i+1))
		}
		must(t, os.Link(filepath.Join(dir, "etc/x"), filepath.Join(dir, "etc/linked")))
		m := New()
		must(t, m.AddFolder(dir, "/"))
		must(t, m.AddBase())
		sums = append(sums, fmt.Sprintf("%x", sha256.Sum256(write(t, m))))
	}
	for _, sum := range sums {
		if sum != sums[0] {
			t.Fatalf("the sums differ: %v", sums)
		}
	}
}

func TestAdd(t *testing.T) {
	long := strings.Repeat("x/", 2100)
	for _, tt := range []struct {
		what  string
		first map[string]*Node
		name  string
		node  *Node
		want  string // the error, or the name that it has then
	}{
		{"a file", nil, "/a/b", Data(0o644, nil), "/a/b"},
		{"without a slash", nil, "a/./b/", Data(0o644, nil), "/a/b"},
		{"the root", nil, "/", Folder(0o755), "/"},
		{"a file as the root", nil, "/", Data(0o644, nil), "root is a folder"},
		{"outside", nil, "/a/../../b", Data(0o644, nil), `leads outside: it has a part ".."`},
		{"a NUL", nil, "/a\x00b", Data(0o644, nil), "NUL byte"},
		{"the trailer", nil, "/TRAILER!!!", Data(0o644, nil), "mark of an archive's end"},
		{"a long name", nil, "/" + strings.Repeat("x", 256), Data(0o644, nil), "a part of 256 bytes"},
		{"the longest name", nil, "/" + strings.Repeat("x", 255), Data(0o644, nil), "/" + strings.Repeat("x", 255)},
		{"a long path", nil, long, Data(0o644, nil), "the kernel takes 4095"},
		{"a socket", nil, "/a", &Node{Mode: TypeSocket}, "it is a socket"},
		{"nothing", nil, "/a", &Node{Mode: 0o644}, "no known type"},
		{"4 GiB", nil, "/a", &Node{Mode: TypeFile, Size: 1 << 32}, "ends at 4 GiB"},
		{"nearly 4 GiB", nil, "/a", &Node{Mode: TypeFile, Size: 1<<32 - 1}, "/a"},
		{"a link to nothing", nil, "/a", Symlink(""), "target must have"},
		{"a long link", nil, "/a", Symlink(strings.Repeat("x", 4096)), "target must have"},
		{"through a link", map[string]*Node{"/usr/bin": Folder(0o755), "/bin": Symlink("usr/bin")}, "/bin/sh", Data(0o755, nil), "/usr/bin/sh"},
		{"through an absolute link", map[string]*Node{"/usr/bin": Folder(0o755), "/bin": Symlink("/usr/bin")}, "/bin/sh", Data(0o755, nil), "/usr/bin/sh"},
		{"a folder over a link to one", map[string]*Node{"/usr/bin": Folder(0o755), "/bin": Symlink("usr/bin")}, "/bin", Folder(0o700), "/usr/bin"},
		{"a folder over a link to a file", map[string]*Node{"/x": Data(0o644, nil), "/bin": Symlink("x")}, "/bin", Folder(0o700), "symbolic link to x"},
		{"a folder over a file", map[string]*Node{"/x": Data(0o644, nil)}, "/x", Folder(0o700), "it is a file in the image"},
		{"a file over a folder", map[string]*Node{"/x": Folder(0o755)}, "/x", Data(0o644, nil), "it is a folder in the image"},
		{"below a file", map[string]*Node{"/x": Data(0o644, nil)}, "/x/y", Data(0o644, nil), "/x is not a folder"},
		{"below a link to nowhere", map[string]*Node{"/x": Symlink("y")}, "/x/y", Data(0o644, nil), "symbolic link to /y, which is not there"},
		{"below a loop", map[string]*Node{"/x": Symlink("y"), "/y": Symlink("x")}, "/x/y", Data(0o644, nil), "too many levels"},
		{"over a link", map[string]*Node{"/x": Symlink("y")}, "/x", Data(0o644, []byte("new")), "/x"},
		{"a link above the root", map[string]*Node{"/a/b": Folder(0o755), "/x": Symlink("../../a/b")}, "/x/y", Data(0o644, nil), "/a/b/y"},
	} {
		m := New()
		for name, n := range tt.first {
			must(t, m.Add(name, n))
		}
		before := len(m.Names())
		got, err := m.add(tt.name, tt.node)
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: Add says %q, want %q", tt.what, err, tt.want)
			}
			if len(m.Names()) != before {
				t.Errorf("%s: the refused left %v", tt.what, m.Names())
			}
			continue
		}
		if got != tt.want {
			t.Errorf("%s: it is at %.60q, want %.60q", tt.what, got, tt.want)
		}
	}
}

func TestRemove(t *testing.T) {
	m := sample(t)
	must(t, m.Add("/elsewhere", Symlink("a")))
	for _, name := range []string{"/elsewhere/b", "/dev", "/not/there", "/a/link"} {
		must(t, m.Remove(name))
	}
	for name, want := range map[string]bool{"/a": true, "/a/b": false, "/a/b/c": false, "/a/link": false, "/empty": true, "/dev": false, "/dev/vda": false, "/a.b": true, "/elsewhere": true} {
		if got := m.Get(name) != nil; got != want {
			t.Errorf("%s is there: %v, want %v", name, got, want)
		}
	}
}

func TestWriteErrors(t *testing.T) {
	broken := errors.New("broken")
	open := func(s string, err error) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader(s), readErr{err})), nil
		}
	}
	for want, n := range map[string]*Node{
		"write /x: it has 3 bytes, not 5":     {Mode: TypeFile, Size: 5, Open: open("123", io.EOF)},
		"write /x: it has more than 2 bytes":  {Mode: TypeFile, Size: 2, Open: open("123", io.EOF)},
		"write /x: broken":                    {Mode: TypeFile, Size: 5, Open: open("123", broken)},
		"write /x: its content is not known":  {Mode: TypeFile, Size: 5},
		"write /x: cannot":                    {Mode: TypeFile, Size: 5, Open: func() (io.ReadCloser, error) { return nil, errors.New("cannot") }},
		"write /x: it changed while the imag": {Mode: TypeFile, Size: 3, Open: open("123", ErrChanged)},
	} {
		m := New()
		must(t, m.Add("/x", n))
		if err := m.Write(io.Discard); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Write says %v, want %s", err, want)
		}
	}
	for n := range int64(600) { // whoever takes the bytes, fails at any of them
		if err := sample(t).Write(&limited{n * 10}); err == nil {
			t.Errorf("Write to what takes %d bytes says nothing", n*10)
		}
	}
}

type readErr struct{ err error }

func (r readErr) Read([]byte) (int, error) { return 0, r.err }

// limited takes so many bytes.
type limited struct{ left int64 }

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, unix.ENOSPC
	}
	return len(p), nil
}

func TestBase(t *testing.T) {
	m := New()
	must(t, m.Add("/run", Folder(0o700)))
	must(t, m.Add("/var/run", Folder(0o755)))
	must(t, m.AddInit(Data(0o755, []byte("\x7fELF"))))
	must(t, m.AddBase())
	must(t, m.AddBase())
	for name, want := range map[string]uint32{"/run": TypeFolder | 0o700, "/var/run": TypeFolder | 0o755, "/tmp": TypeFolder | 0o1777, "/dev/null": TypeChar | 0o666} {
		if n := m.Get(name); n == nil || n.Mode != want {
			t.Errorf("%s is %+v, want mode %o", name, n, want)
		}
	}
	if m.Get("/init") != m.Get("/bin/pazinit") || m.Get("/init") != m.Get("/sbin/pazinit") {
		t.Error("/init is not /bin/pazinit and /sbin/pazinit")
	}
	if p := m.Check(); len(p) > 0 {
		t.Errorf("Check says %v", p)
	}
}

// What can tell of what is missing stands before it, and the mark of the end behind.
func TestOrder(t *testing.T) {
	for _, tt := range []struct {
		links map[string]string
		want  string
	}{
		{nil, "/bin /bin/pazinit /init /sbin /sbin/pazinit /.pazinit-whole /a /bin/x /z /.pazinit-end"},
		{map[string]string{"/bin": "usr/bin", "/sbin": "usr/sbin"}, "/init /usr /usr/bin /usr/bin/pazinit /usr/sbin /usr/sbin/pazinit /.pazinit-whole /a /bin /sbin /usr/bin/x /z /.pazinit-end"},
		{map[string]string{"/init": "usr/lib/my"}, "/usr /usr/lib /usr/lib/my /init /.pazinit-whole /a /bin /bin/pazinit /bin/x /sbin /sbin/pazinit /z /.pazinit-end"},
	} {
		m := New()
		must(t, m.Add("/usr/lib/my", Data(0o755, []byte("my"))))
		if tt.links["/init"] == "" {
			must(t, m.Remove("/usr"))
		}
		for name, target := range tt.links {
			must(t, m.Add(name, Symlink(target)))
			if name != "/init" {
				must(t, m.MakeFolder("/"+target))
			}
		}
		must(t, m.AddInit(Data(0o755, []byte("x"))))
		must(t, errors.Join(m.AddMarks(), m.Add("/z", Data(0o644, nil)), m.Add("/a", Data(0o644, make([]byte, 4097))), m.Add("/bin/x", Data(0o644, []byte("1")))))
		if got := strings.Join(m.order(), " "); got != tt.want {
			t.Errorf("the order is\n%s, want\n%s", got, tt.want)
		}
		a, err := Read(bytes.NewReader(write(t, m)), ReadOptions{})
		must(t, err)
		if len(a.Problems) > 0 || text(t, a.Image) != text(t, m) {
			t.Errorf("read again: %v\n%s", a.Problems, text(t, a.Image))
		}
		if p := a.Image.Check(); slices.ContainsFunc(p, func(p Problem) bool { return strings.HasPrefix(p.Name, "/.pazinit") }) {
			t.Errorf("Check says %v", p)
		}
	}
	m := New()
	n := Data(0o644, make([]byte, 4097))
	must(t, errors.Join(m.Add("/a", n), m.Add("/b", n), m.Add("/c", Data(0o644, []byte("x")))))
	if files, all := m.Memory(); files != 3*4096 || all != files+3*1024 {
		t.Errorf("it takes %d and %d bytes of memory", files, all)
	}
}
