package control

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Look says beforehand what Listen says, and makes nothing.
func TestLook(t *testing.T) {
	base := privateDir(t)
	mkdir := func(name string, mode os.FileMode) {
		t.Helper()
		dir := filepath.Join(base, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(filepath.Join(base, to), filepath.Join(base, name)); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(base, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mkdir("plain", 0o700)
	mkdir("shared", 0o777|os.ModeSticky)
	mkdir("shared/own", 0o700)
	mkdir("shared/open", 0o755)
	mkdir("wide", 0o777)
	mkdir("taken", 0o700)
	file("taken/s")
	mkdir("locked", 0o700)
	link("nothing", "locked/s.lock")
	link("plain", "shared/link")
	link("shared", "tolink")
	link("nothing", "dangling")
	file("file")
	long := strings.Repeat("long", 30)
	for _, tt := range []struct {
		path string
		good bool
	}{
		{"s", true},
		{"plain/s", true},
		{"plain/new/and/newer/s", true},
		{"plain/" + long + "/s", true},
		{"plain/" + long, false},
		{"wide/s", false},
		{"wide/new/s", true},
		{"shared/s", false},
		{"shared/own/s", true},
		{"shared/own/new/s", true},
		{"shared/new/s", true},
		{"shared/open/s", false},
		{"shared/link/s", false},
		{"shared/link/new/s", false},
		{"tolink/s", false},
		{"tolink/own/s", false},
		{"dangling/s", false},
		{"file/s", false},
		{"file/new/s", false},
		{"taken/s", false},
		{"locked/s", false},
	} {
		path := filepath.Join(base, tt.path)
		_, before := os.Lstat(filepath.Dir(path))
		got := Look(path)
		if _, after := os.Lstat(filepath.Dir(path)); (before == nil) != (after == nil) {
			t.Errorf("Look(%s) made the folder", tt.path)
		}
		s, want := Listen(ServerOptions{Path: path, OwnerUID: -1, OwnerGID: -1})
		if want == nil {
			s.Close()
		}
		if (got == nil) != tt.good || (want == nil) != tt.good {
			t.Errorf("Look(%s) = %v, Listen = %v, want good %v", tt.path, got, want, tt.good)
		}
		var a, b *FolderError
		if errors.As(got, &a) != errors.As(want, &b) || a != nil && a.Unsafe != b.Unsafe {
			t.Errorf("Look(%s) = %v, want what Listen says: %v", tt.path, got, want)
		}
	}
}

func TestLookFindsReadOnly(t *testing.T) {
	if os.Geteuid() == 0 { // who may write everywhere is stopped by a read-only mount alone
		dir := runDir(t)
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, "mode=755"); err != nil {
			t.Skipf("mount: %v", err)
		}
		defer unix.Unmount(dir, 0)
		for _, path := range []string{dir + "/s", dir + "/new/s"} {
			var fe *FolderError
			if err := Look(path); !errors.As(err, &fe) || fe.Unsafe || !errors.Is(err, unix.EROFS) {
				t.Errorf("Look(%s) = %v, want a FolderError for %v", path, err, unix.EROFS)
			}
		}
		return
	}
	if err := Look("/etc/pazinit-none/s"); !errors.Is(err, unix.EACCES) {
		t.Errorf("Look(/etc/pazinit-none/s) = %v, want %v", err, unix.EACCES)
	}
}
