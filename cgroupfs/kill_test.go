package cgroupfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// bomb is 60 lines of processes, each of which forks the next and ends: no two
// lists of them are alike. Each ends by itself after 20,000 forks.
const bomb = `hop() { [ $1 -gt 0 ] && hop $(($1-1)) & exit; }
i=0; while [ $i -lt 60 ]; do hop 20000 & i=$((i+1)); done; echo up; read x`

func killed(t *testing.T, g *Group) {
	t.Helper()
	empty := make(chan struct{})
	if err := g.NotifyEmpty(func() { close(empty) }); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(); err != nil {
		t.Fatalf("Kill() = %v", err)
	}
	<-empty
	if pids, err := g.Procs(); len(pids) > 0 || err != nil {
		t.Errorf("Procs() after Kill = %v, %v, want none", pids, err)
	}
	if err := g.Remove(); err != nil {
		t.Errorf("Remove() after Kill = %v", err)
	}
}

func TestKillForkBomb(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		g := group(t, h, "shop/bomb.1")
		start(t, g, bomb)
		killed(t, g)
	})
	t.Run("v2-without-cgroup.kill", func(t *testing.T) {
		h := open(t, 2)
		h.noKillFile = true
		g := group(t, h, "shop/bomb.1")
		start(t, g, bomb)
		killed(t, g)
	})
	t.Run("v1-freezer", func(t *testing.T) {
		h := openFreezer(t)
		g := group(t, h, "shop/bomb.1")
		start(t, g, bomb)
		killed(t, g)
	})
}

// openFreezer opens the freezer's hierarchy where pids would be taken.
func openFreezer(t *testing.T) *Hierarchy {
	t.Helper()
	needRoot(t)
	for _, m := range mounts(readProc("/proc/self/mountinfo"), "/") {
		if m.has("freezer") {
			h, err := openMount(m, Options{Root: testRoot(t), RootSet: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { wipe(t, h) })
			return h
		}
	}
	skip(t, "cgroup1", errNoHierarchy)
	return nil
}

// What froze itself, or was frozen, dies as well.
func TestKillFrozen(t *testing.T) {
	for _, noKillFile := range []bool{false, true} {
		t.Run(fmt.Sprintf("v2-%v", noKillFile), func(t *testing.T) {
			h := open(t, 2)
			h.noKillFile = noKillFile
			g := group(t, h, "web.1")
			start(t, g, "echo up; read x")
			if err := os.WriteFile(filepath.Join(g.Path(), "cgroup.freeze"), []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
			killed(t, g)
		})
	}
	t.Run("v1", func(t *testing.T) {
		h := openFreezer(t)
		g := group(t, h, "web.1")
		sub := group(t, h, "web.1/made/by/worker")
		start(t, sub, "echo up; read x")
		start(t, g, "echo up; read x")
		if err := os.WriteFile(filepath.Join(sub.Path(), "freezer.state"), []byte("FROZEN"), 0); err != nil {
			t.Fatal(err)
		}
		killed(t, g)
	})
}

// pids.max is borrowed while killing and given back as it was.
func TestKillRestoresPidsMax(t *testing.T) {
	h := open(t, 1)
	if !h.mount.has("pids") {
		skip(t, "cgroup1", errNoHierarchy)
	}
	g := group(t, h, "web.1")
	file := filepath.Join(g.Path(), "pids.max")
	for _, want := range []string{"max\n", "77\n"} {
		if err := os.WriteFile(file, []byte(want), 0); err != nil {
			t.Fatal(err)
		}
		start(t, g, "echo up; read x")
		if err := g.Kill(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); string(got) != want || err != nil {
			t.Errorf("pids.max after Kill = %q, %v, want %q", got, err, want)
		}
	}
}

// The group's sub groups die with it, its siblings do not.
func TestKillTree(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		g, sub, sibling := group(t, h, "a/web.1"), group(t, h, "a/web.1/x/y"), group(t, h, "a/web.2")
		start(t, g, "trap '' TERM INT HUP; echo up; read x")
		start(t, sub, "echo up; read x")
		other := start(t, sibling, "echo up; read x")
		killed(t, g)
		if got := cgroupOf(t, h, other.Process.Pid); got != "a/web.2" {
			t.Errorf("group of the sibling's process = %q, want a/web.2", got)
		}
		if got, err := sibling.Populated(); !got || err != nil {
			t.Errorf("Populated() of the sibling = %v, %v, want true", got, err)
		}
	})
}

// pazinit does not kill itself.
func TestKillRefusesOwnGroup(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		own, ok := h.mount.ownPath(readProc("/proc/self/cgroup"))
		if !ok {
			skip(t, "own group", errNoHierarchy)
		}
		enter := func(dir string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
				t.Fatal(err)
			}
		}
		g := group(t, h, "a/web.1")
		enter(g.Path())
		defer enter(filepath.Join(h.mount.point, own))
		for _, g := range []*Group{g, {h: h, name: "a"}} {
			if err := g.Kill(); err == nil || !strings.Contains(err.Error(), "sits in it") {
				t.Errorf("Kill(%s) = %v, want a refusal", g.Name(), err)
			}
		}
	})
}

// A killed group can be started in again, and one that a crash left as well.
func TestKillThenStart(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		for range 3 {
			g := group(t, h, "shop/web.1")
			start(t, g, "echo up; read x")
			empty := make(chan struct{})
			if err := g.NotifyEmpty(func() { close(empty) }); err != nil {
				t.Fatal(err)
			}
			if err := g.Kill(); err != nil {
				t.Fatal(err)
			}
			<-empty
		}
		clear(h.sound) // as another process would find it
		start(t, group(t, h, "shop/web.1"), "echo up; read x")
	})
}

// A restart without Kill keeps the group, and with it what others wrote there.
func TestRestartKeepsGroup(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		var before, after unix.Stat_t
		if err := unix.Stat(group(t, h, "shop/web.1").Path(), &before); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat(group(t, h, "shop/web.1").Path(), &after); err != nil {
			t.Fatal(err)
		}
		if before.Ino != after.Ino {
			t.Error("Group() made a group anew that was sound")
		}
	})
}
