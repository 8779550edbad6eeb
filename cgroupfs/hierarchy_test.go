package cgroupfs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenPrefersV2(t *testing.T) {
	h := open(t, 0)
	if _, err := Open(Options{Root: testRoot(t) + "x", Version: 2}); err != nil {
		skip(t, "cgroup2", err)
	} else if h.Version() != 2 {
		t.Errorf("Version() = %d, want 2 where there is one", h.Version())
	}
	os.Remove(h.Path() + "x")
}

// A supervisor must never mistake a folder that only looks like a hierarchy.
func TestOpenRefusesLookAlike(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"unified", "pids"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"cgroup.procs", "cgroup.events"} {
			if err := os.WriteFile(filepath.Join(dir, d, f), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err := Open(Options{FSRoot: dir})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "cgroups.fs_root") {
		t.Errorf("Open(look-alike) = %v, want unsupported and the setting", err)
	}
	_, err = Open(Options{FSRoot: filepath.Join(dir, "none")})
	if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open(missing) = %v, want unsupported, not exist", err)
	}
	// Even if the mount table said that it is one.
	for _, v := range []int{1, 2} {
		_, err = openMount(mount{point: dir, root: "/", version: v, options: []string{"pids"}}, Options{Root: "pazinit"})
		if err == nil || !strings.Contains(err.Error(), "not a cgroup") {
			t.Errorf("openMount(look-alike, v%d) = %v, want a refusal", v, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "pazinit")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat(look-alike/pazinit) = %v, want nothing made", err)
	}
}

func TestOpenRefusesNames(t *testing.T) {
	for _, name := range []string{"..", ".", "/abs", "a//b", "a/../b", "a/", "a\nb", "a\x00b", strings.Repeat("x", 256), strings.Repeat("x/", 40) + "x"} {
		if h, err := Open(Options{Root: name}); err == nil {
			t.Errorf("Open(root %q) = %s, want an error", name, h.Path())
		}
	}
}

func TestOpenInUse(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		_, err := Open(Options{Root: testRoot(t), RootSet: true, Version: h.Version()})
		inUse := (*InUseError)(nil)
		if !errors.As(err, &inUse) || inUse.PID != os.Getpid() || inUse.Path != h.Path() {
			t.Fatalf("Open(held) = %v, want in use by pid %d", err, os.Getpid())
		}
		second, err := Open(Options{Root: testRoot(t), Version: h.Version()})
		if err != nil {
			t.Fatal(err)
		}
		want := h.Path() + "." + strconv.Itoa(os.Getpid())
		if second.Path() != want {
			t.Errorf("Path() of the second = %s, want %s", second.Path(), want)
		}
		third, err := Open(Options{Root: testRoot(t), Version: h.Version()})
		if err != nil {
			t.Fatal(err)
		}
		if third.Path() != want+".2" {
			t.Errorf("Path() of the third = %s, want %s.2", third.Path(), want)
		}
		for _, h := range []*Hierarchy{third, second} {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestOpenRemovesStale(t *testing.T) {
	versions(t, func(t *testing.T, h *Hierarchy) {
		stale, other, deep := h.Path()+".1234567", h.Path()+".conf", h.Path()+".1234567/shop/web.1"
		if err := os.MkdirAll(deep, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(other, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(other)
		populated, err := Open(Options{Root: testRoot(t) + ".7654321", RootSet: true, Version: h.Version()})
		if err != nil {
			t.Fatal(err)
		}
		defer wipe(t, populated)
		cmd := start(t, group(t, populated, "shop/web.1"), "echo up; read x")

		// A lock that nobody holds, and life in it: as after a supervisor's crash.
		unix.Flock(populated.dir, unix.LOCK_UN)
		second, err := Open(Options{Root: testRoot(t), Version: h.Version()})
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Stat(%s) = %v, want not exist", stale, err)
		}
		if _, err := os.Stat(other); err != nil {
			t.Errorf("Stat(%s) = %v, want untouched", other, err)
		}
		if got := cgroupOf(t, populated, cmd.Process.Pid); got != "shop/web.1" {
			t.Errorf("group of the survivor = %q, want shop/web.1", got)
		}
	})
}

func TestOpenMountedElsewhere(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "cgroup2", 0, ""); err != nil {
		skip(t, "cgroup2", err)
	}
	defer unix.Unmount(dir, 0)
	h, err := Open(Options{FSRoot: dir, Root: testRoot(t), RootSet: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, testRoot(t)); h.Path() != want {
		t.Errorf("Path() = %s, want %s", h.Path(), want)
	}
	wipe(t, h)

	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Options{FSRoot: dir, Root: testRoot(t)})
	if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), "read-only:") {
		t.Errorf("Open(read-only) = %v, want unsupported, EROFS and what to do", err)
	}
}

func TestOpenDelegated(t *testing.T) {
	h := open(t, 2)
	g := group(t, h, "delegated")
	for _, f := range []string{"", "cgroup.procs", "cgroup.subtree_control"} {
		if err := os.Chown(filepath.Join(g.Path(), f), 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := g.OpenFD()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	run := func(cgroup *os.File) (string, error) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{"CGROUPFS_TEST_OPEN=pazinit-user"}
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if cgroup != nil {
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(cgroup.Fd())
		}
		out, err := cmd.Output()
		return string(out), err
	}
	want := g.Path() + "/pazinit-user\n" + g.Path() + "/pazinit-user/shop/web.1\n"
	if got, err := run(dir); err != nil || got != want {
		t.Errorf("Open as a user with a delegated group = %q, %v, want %q", got, err, want)
	}
	if _, err := os.Stat(filepath.Join(g.Path(), "pazinit-user")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat(user's root) = %v, want removed by Close", err)
	}
	if got, err := run(nil); err == nil || !strings.Contains(got, "delegate") {
		t.Errorf("Open as a user without a group = %q, %v, want the setting", got, err)
	}
}
