package cgroupfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGroup(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		g := group(t, h, "shop/web.1")
		if got, err := g.Populated(); got || err != nil {
			t.Errorf("Populated() of a new group = %v, %v, want false", got, err)
		}
		// A session of its own does not lead out.
		cmd := start(t, g, "setsid sh -c 'echo up; exec sleep 1000' & read x")
		if got := cgroupOf(t, h, cmd.Process.Pid); got != "shop/web.1" {
			t.Errorf("group of the child = %q, want shop/web.1", got)
		}
		if got, err := g.Populated(); !got || err != nil {
			t.Errorf("Populated() = %v, %v, want true", got, err)
		}
		pids, err := g.Procs()
		if err != nil || len(pids) < 2 || !slices.Contains(pids, cmd.Process.Pid) {
			t.Errorf("Procs() = %v, %v, want two or more with %d", pids, err, cmd.Process.Pid)
		}
		app := group(t, h, "shop")
		if got, err := app.Procs(); err != nil || !slices.Equal(got, pids) {
			t.Errorf("Procs() of the parent = %v, %v, want %v", got, err, pids)
		}
		if err := g.Remove(); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "processes are left") {
			t.Errorf("Remove() = %v, want EBUSY that says why", err)
		}
		if got, err := group(t, h, "shop/web.2").Populated(); got || err != nil {
			t.Errorf("Populated() of a sibling = %v, %v, want false", got, err)
		}
	})
}

func TestRemove(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		one, two := group(t, h, "shop/web.1"), group(t, h, "shop/web.2")
		if err := os.MkdirAll(filepath.Join(one.Path(), "made/by/worker"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := one.Remove(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(two.Path()); err != nil {
			t.Errorf("Stat(sibling) = %v, want untouched", err)
		}
		if err := one.Remove(); err != nil {
			t.Errorf("Remove() again = %v, want nil", err)
		}
		if got, err := one.Populated(); got || err != nil {
			t.Errorf("Populated() of a removed group = %v, %v, want false", got, err)
		}
		if err := two.Remove(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Dir(two.Path())); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Stat(empty parent) = %v, want not exist", err)
		}
	})
}

func TestGroupRefusesNames(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		for _, name := range []string{
			"", "..", "../escape", "shop/../../escape", "/escape", "shop//web", "shop/.", "a\nb", "cgroup.procs",
			"cgroup.procs/web.1", strings.Repeat("d/", 33) + "x",
		} {
			if g, err := h.Group(name); err == nil {
				t.Errorf("Group(%q) = %s, want an error", name, g.Path())
			}
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(h.Path()), "escape")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Stat(escape) = %v, want nothing made", err)
		}
	})
}

// A file system on top of a group is not ours to write to.
func TestGroupRefusesMountOnTop(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		app := group(t, h, "shop").Path()
		if err := unix.Mount("none", app, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(app, 0)
		if err := os.WriteFile(filepath.Join(app, "cgroup.kill"), []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, refused := range []bool{false, true} { // with openat2 and without
			h.noOpenat2.Store(refused)
			if g, err := h.Group("shop/web.1"); err == nil {
				t.Errorf("Group() = %s, want an error", g.Path())
			}
			(&Group{h: h, name: "shop"}).Kill()
			if got, _ := os.ReadFile(filepath.Join(app, "cgroup.kill")); string(got) != "old" {
				t.Errorf("a file on the tmpfs = %q, want untouched", got)
			}
			if _, err := os.Stat(filepath.Join(app, "web.1")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("Stat(web.1 on the tmpfs) = %v, want nothing made", err)
			}
		}
	})
}

func TestGroupHoldsNoDescriptor(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		before := openFDs(t)
		for _, name := range []string{"a/b.1", "a/b.2", "a/b.3"} {
			g := group(t, h, name)
			g.Populated()
			g.Procs()
			g.Kill()
			g.Remove()
		}
		if got := openFDs(t); got != before {
			t.Errorf("open descriptors = %d, want %d as before", got, before)
		}
	})
}

func BenchmarkPopulated(b *testing.B) {
	h, err := Open(Options{Root: "pazinit-bench", RootSet: true})
	if err != nil {
		b.Skip(err)
	}
	defer h.Close()
	g, err := h.Group("shop/web.1")
	if err != nil {
		b.Fatal(err)
	}
	defer g.Remove()
	for b.Loop() {
		g.Populated()
	}
}
