package cgroupfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Look finds what Open then takes, and makes nothing.
func TestLook(t *testing.T) {
	needRoot(t)
	for _, version := range []int{1, 2} {
		o := Options{Root: testRoot(t), RootSet: true, Version: version}
		views, err := Look(o)
		if errors.Is(err, errors.ErrUnsupported) {
			if h, err := Open(o); err == nil {
				t.Errorf("Look(v%d) finds nothing, Open takes %s", version, h.Path())
				wipe(t, h)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		first := slices.IndexFunc(views, func(v View) bool { return v.Base != "" })
		v := views[first]
		if _, err := os.Stat(v.Folder); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Stat(%s) after Look = %v, want not exist", v.Folder, err)
		}
		if v.Version != version || v.ReadOnly || v.Err != nil || v.Holder != 0 {
			t.Errorf("Look(v%d) = %+v, want one that can be written", version, v)
		}
		h := open(t, version)
		if v.Folder != h.Path() || filepath.Dir(v.Folder) != v.Base {
			t.Errorf("Look(v%d) = %s in %s, Open takes %s", version, v.Folder, v.Base, h.Path())
		}
		views, err = Look(o)
		if err != nil || views[first].Folder != h.Path() || views[first].Holder != os.Getpid() {
			t.Errorf("Look(v%d) of a held folder = %+v, %v, want holder %d", version, views, err, os.Getpid())
		}
		// Open must not find it locked by Look.
		if g := group(t, h, "a"); !g.Made() {
			t.Errorf("Made() = false, want a group of the test's own")
		}
	}
}

func TestLookRefusesLookAlike(t *testing.T) {
	dir := t.TempDir()
	views, err := Look(Options{FSRoot: dir})
	if !errors.Is(err, errors.ErrUnsupported) || len(views) != 0 {
		t.Errorf("Look(empty) = %v, %v, want unsupported", views, err)
	}
	if _, err := Look(Options{FSRoot: filepath.Join(dir, "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Look(missing) = %v, want not exist", err)
	}
	if _, err := Look(Options{Root: "../x"}); err == nil {
		t.Error("Look(root ../x) = nil, want an error")
	}
	v := look(mount{point: dir, root: "/", version: 2}, []byte("0::/\n"), Options{Root: "pazinit"})
	if v.Err == nil || v.Base != "" {
		t.Errorf("look(no cgroup) = %+v, want an error", v)
	}
}

func TestOwnGroup(t *testing.T) {
	const own = "9:name=systemd:/s\n8:pids:/docker/a:b\n4:cpu,cpuacct:/own\n0::/user.slice/me\nbad\n"
	for _, test := range []struct {
		m           mount
		group       string
		controllers []string
	}{
		{mount{version: 2}, "/user.slice/me", nil},
		{mount{version: 1, options: []string{"rw", "pids"}}, "/docker/a:b", []string{"pids"}},
		{mount{version: 1, options: []string{"rw", "cpu", "cpuacct"}}, "/own", []string{"cpu", "cpuacct"}},
		{mount{version: 1, options: []string{"rw", "name=systemd"}}, "/s", nil},
		{mount{version: 1, options: []string{"rw", "memory"}}, "", nil},
	} {
		group, controllers := ownGroup([]byte(own), test.m)
		if group != test.group || !slices.Equal(controllers, test.controllers) {
			t.Errorf("ownGroup(%v) = %q, %v, want %q, %v", test.m, group, controllers, test.group, test.controllers)
		}
	}
}

// Least takes the least limit on the way up, with what is used of that one.
func TestLeast(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a/pids.max", "20\n")
	write("a/pids.current", "15\n")
	write("a/b/pids.max", "max\n")
	write("a/b/pids.current", "3\n")
	write("a/memory.limit_in_bytes", "9223372036854771712\n")
	write("a/memory.usage_in_bytes", "4096\n")
	at := func(own string) View { return View{Mount: dir, Own: own} }
	for _, test := range []struct {
		v          View
		limit, cur string
		max, used  int64
		ok         bool
	}{
		{at(dir + "/a/b"), "pids.max", "pids.current", 20, 15, true},
		{at(dir + "/a"), "pids.max", "pids.current", 20, 15, true},
		{at(dir + "/a"), "memory.limit_in_bytes", "memory.usage_in_bytes", -1, 4096, true},
		{at(dir), "pids.max", "pids.current", -1, 0, false},
		{at(""), "pids.max", "pids.current", -1, 0, false},
	} {
		max, used, ok := test.v.Least(test.limit, test.cur)
		if max != test.max || used != test.used || ok != test.ok {
			t.Errorf("Least(%s, %s) = %d, %d, %v, want %d, %d, %v", test.v.Own, test.limit, max, used, ok, test.max, test.used, test.ok)
		}
	}
}
