package initramfs

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAddFolder(t *testing.T) {
	dir := tree(t, map[string]string{"bin/sh": "#!/x", "etc/conf": "a", "etc/link": "-> conf", "srv/": "", "abs": "-> /etc/conf", "dangling": "-> nowhere"})
	must(t, os.Chmod(filepath.Join(dir, "etc/conf"), 0o600))
	must(t, os.Chmod(filepath.Join(dir, "srv"), 0o2775))
	must(t, os.Chmod(filepath.Join(dir, "srv"), fs.ModeSetgid|0o775))
	must(t, os.Link(filepath.Join(dir, "etc/conf"), filepath.Join(dir, "srv/same")))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o622))
	must(t, os.Chmod(filepath.Join(dir, "fifo"), 0o622))
	m := New()
	must(t, m.AddFolder(dir, "/"))
	want := `/abs 120777 0:0 -> /etc/conf
/bin 040755 0:0
/bin/sh 100755 0:0 "#!/x"
/dangling 120777 0:0 -> nowhere
/etc 040755 0:0
/etc/conf 100600 0:0 "a"
/etc/link 120777 0:0 -> conf
/fifo 010622 0:0
/srv 042775 0:0
/srv/same 100600 0:0 "a"
`
	if got := text(t, m); got != want {
		t.Errorf("the image has\n%swant\n%s", got, want)
	}
	if m.Get("/etc/conf") != m.Get("/srv/same") {
		t.Error("the hard link is another file")
	}
	over := tree(t, map[string]string{"etc/conf": "b", "new": "n"})
	must(t, m.AddFolder(over, "/"))
	must(t, m.AddFolder(over, "/srv/deep"))
	for name, want := range map[string]string{"/etc/conf": "b", "/srv/same": "a", "/srv/deep/new": "n", "/srv/deep/etc/conf": "b", "/new": "n"} {
		if n := m.Get(name); n == nil || content(t, n) != want {
			t.Errorf("%s is not %q", name, want)
		}
	}
}

// What is laid over bin goes where a link of an earlier folder leads.
func TestAddFolderMerged(t *testing.T) {
	m := New()
	must(t, m.AddFolder(tree(t, map[string]string{"usr/bin/a": "1", "bin": "-> usr/bin"}), "/"))
	must(t, m.AddFolder(tree(t, map[string]string{"bin/b": "2"}), "/"))
	if n := m.Get("/usr/bin/b"); n == nil || m.Get("/bin").Target != "usr/bin" {
		t.Errorf("the image has %v", m.Names())
	}
}

func TestAddFolderErrors(t *testing.T) {
	deep := strings.Repeat(strings.Repeat("d", 200)+"/", 15)
	for what, tt := range map[string]struct {
		files map[string]string
		do    func(dir string) error
		want  string
	}{
		"a socket": {nil, func(dir string) error {
			l, err := net.Listen("unix", filepath.Join(dir, "s"))
			if err == nil {
				l.(*net.UnixListener).SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		}, "DIR/s: it is a socket"},
		"a loop":               {map[string]string{"a": "-> b", "b": "-> a"}, nil, "DIR/a: symbolic link to b: too many levels"},
		"a loop through dirs":  {map[string]string{"d/a": "-> ../e/b", "e/b": "-> /d/a"}, nil, "too many levels"},
		"a link to itself":     {map[string]string{"x/self": "-> self"}, nil, "DIR/x/self: symbolic link to self"},
		"a link outside":       {map[string]string{"x/out": "-> ../../etc/passwd"}, nil, "DIR/x/out: symbolic link to ../../etc/passwd leads outside"},
		"4 GiB":                {map[string]string{"big": ""}, func(dir string) error { return os.Truncate(filepath.Join(dir, "big"), 1<<32) }, "DIR/big: file of 4294967296 bytes"},
		"a name for the end":   {map[string]string{"TRAILER!!!": ""}, nil, "mark of an archive's end"},
		"a path that is long":  {map[string]string{deep + "f": ""}, nil, "the kernel takes 4095"},
		"what nobody may read": {map[string]string{"secret/x": ""}, func(dir string) error { return os.Chmod(filepath.Join(dir, "secret"), 0) }, "permission denied"},
	} {
		if what == "what nobody may read" && os.Geteuid() == 0 {
			continue // root reads it; as any user it is tried below cmd/pazinit
		}
		dir := tree(t, tt.files)
		if tt.do != nil {
			must(t, tt.do(dir))
			t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "secret"), 0o755) })
		}
		at := "/"
		if what == "a path that is long" {
			at = strings.Repeat(strings.Repeat("e", 200)+"/", 6)
		}
		m := New()
		err := m.AddFolder(dir, at)
		want := strings.ReplaceAll(tt.want, "DIR", dir)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: AddFolder says %v, want %s", what, err, want)
		}
	}
	m := New()
	if err := m.AddFolder("/not/there", "/"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	if err := m.AddFolder("/dev/null", "/"); err == nil || !strings.Contains(err.Error(), "not a folder") {
		t.Errorf("a file as a folder: %v", err)
	}
	if err := m.AddFolder(t.TempDir(), "/a/../.."); err == nil || !strings.Contains(err.Error(), "outside") {
		t.Errorf("a place outside: %v", err)
	}
}

// A file that is not what it was when it was added is an error with its path.
func TestChanged(t *testing.T) {
	for what, change := range map[string]func(string) error{
		"longer":    func(f string) error { return os.WriteFile(f, []byte("longer than it was"), 0o644) },
		"shorter":   func(f string) error { return os.Truncate(f, 1) },
		"of now":    func(f string) error { return os.Chtimes(f, time.Time{}, time.Now().Add(time.Hour)) },
		"of others": func(f string) error { return os.Chmod(f, 0o777) },
		"another": func(f string) error {
			return errors.Join(os.WriteFile(f+"2", []byte("was it"), 0o644), os.Rename(f+"2", f))
		},
		"a FIFO":     func(f string) error { return errors.Join(os.Remove(f), unix.Mkfifo(f, 0o644)) },
		"a link":     func(f string) error { return errors.Join(os.Rename(f, f+"2"), os.Symlink(f+"2", f)) },
		"gone":       os.Remove,
		"a folder":   func(f string) error { return errors.Join(os.Remove(f), os.Mkdir(f, 0o755)) },
		"unreadable": nil,
	} {
		dir := tree(t, map[string]string{"f": "was it"})
		file := filepath.Join(dir, "f")
		m := New()
		must(t, m.AddFolder(dir, "/"))
		if change == nil {
			must(t, m.Write(io.Discard)) // nobody has touched it
			continue
		}
		must(t, change(file))
		if err := m.Write(io.Discard); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: Write says %v", what, err)
		}
	}
	// While it is being read.
	dir := tree(t, map[string]string{"f": strings.Repeat("x", 1<<20)})
	file := filepath.Join(dir, "f")
	m := New()
	must(t, m.AddFolder(dir, "/"))
	w := writerFunc(func(p []byte) (int, error) {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			return 0, err
		}
		_, err = f.WriteString("y")
		return len(p), errors.Join(err, f.Close())
	})
	if err := m.Write(w); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), file) {
		t.Errorf("a file that is written while it is read: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

func TestAddFile(t *testing.T) {
	dir := tree(t, map[string]string{"f": "x", "l": "-> f", "d/g": "y"})
	m := New()
	must(t, m.AddFile(filepath.Join(dir, "l"), "/etc/f"))
	must(t, m.AddFile(filepath.Join(dir, "d"), "/srv/d"))
	if m.Get("/etc/f").Type() != TypeFile || content(t, m.Get("/srv/d/g")) != "y" {
		t.Errorf("the image has\n%s", text(t, m))
	}
	if err := m.AddFile(filepath.Join(dir, "none"), "/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("AddFile of nothing says %v", err)
	}
}

func TestAddList(t *testing.T) {
	dir := tree(t, map[string]string{"conf": "hello"})
	m := New()
	must(t, m.AddFolder(tree(t, map[string]string{"srv/a": "1", "srv/b/c": "2"}), "/"))
	list := `# a comment
dir /dev 0755 0 0
nod /dev/console 0600 0 0 c 5 1
nod /dev/vda 0660 0 6 b 254 0

file /etc/conf conf 0640 0 33 /etc/again
slink /etc/l conf 0777 1 2
pipe /run/p 0620 1 2
own /srv/** - 1000 1001
own /srv/a 4711 0 5
`
	must(t, m.AddList(strings.NewReader(list), "LIST", dir))
	want := `/dev 040755 0:0
/dev/console 020600 0:0 5,1
/dev/vda 060660 0:6 254,0
/etc 040755 0:0
/etc/again 100640 0:33 "hello"
/etc/conf 100640 0:33 "hello"
/etc/l 120777 1:2 -> conf
/run 040755 0:0
/run/p 010620 1:2
/srv 040755 1000:1001
/srv/a 104711 0:5 "1"
/srv/b 040755 1000:1001
/srv/b/c 100644 1000:1001 "2"
`
	if got := text(t, m); got != want {
		t.Errorf("the image has\n%swant\n%s", got, want)
	}
	for line, want := range map[string]string{
		"sock /s 0755 0 0": "socket", "dir": "takes 4 words", "dir /x 999 0 0": "octal", "dir /x 0755 a 0": "owner", "dir /x 0755 0 -1": "owner",
		"nod /x 0600 0 0 z 1 2": "b or c", "nod /x 0600 0 0 c x 2": "number", "file /x none 0644 0 0": "none", "what /x": "none of file",
		"own /none - 0 0": "not in the image", "dir /../x 0755 0 0": "outside", "dir /x 17777 0 0": "octal", "file /x . 0644 0 0": "no file",
	} {
		if err := New().AddList(strings.NewReader("\n"+line), "LIST", dir); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "LIST:2: ") {
			t.Errorf("%q: AddList says %v, want %s", line, err, want)
		}
	}
}
