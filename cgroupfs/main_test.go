package cgroupfs

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if root := os.Getenv("CGROUPFS_TEST_OPEN"); root != "" {
		os.Exit(openAsUser(root))
	}
	goleak.VerifyTestMain(m)
}

// errNoRoot and errNoHierarchy are why a test here may be skipped.
var (
	errNoRoot      = errors.New("not root")
	errNoHierarchy = errors.New("no such cgroup hierarchy is mounted")
)

// skip skips for a typed reason, or fails if PAZINIT_TEST_MUST names the need.
func skip(t *testing.T, need string, reason error) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("PAZINIT_TEST_MUST"), ","), need) {
		t.Fatalf("needs %s: %v", need, reason)
	}
	t.Skipf("needs %s: %v", need, reason)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "root", errNoRoot)
	}
}

// open opens a hierarchy of the test's own and takes all of it away at the end.
func open(t *testing.T, version int) *Hierarchy {
	t.Helper()
	needRoot(t)
	h, err := Open(Options{Root: testRoot(t), RootSet: true, Version: version})
	if errors.Is(err, errors.ErrUnsupported) {
		skip(t, fmt.Sprintf("cgroup%d", version), errors.Join(errNoHierarchy, err))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { wipe(t, h) })
	return h
}

func testRoot(t *testing.T) string {
	return fmt.Sprintf("pazinit-test-%s-%d", strings.ReplaceAll(t.Name(), "/", "-"), os.Getpid())
}

// wipe ends a hierarchy with whatever a failed test left in it.
func wipe(t *testing.T, h *Hierarchy) {
	names, err := h.subgroups(h.dir, ".")
	if err != nil {
		t.Errorf("list %s: %v", h.Path(), err)
	}
	for _, name := range names {
		g := &Group{h: h, name: name}
		empty := make(chan struct{})
		if err := g.NotifyEmpty(func() { close(empty) }); err != nil {
			t.Errorf("NotifyEmpty(%s) = %v", name, err)
			continue
		}
		if err := g.Kill(); err != nil {
			t.Errorf("Kill(%s) = %v", name, err)
			continue
		}
		<-empty
	}
	dir := h.Path()
	if err := h.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat(%s) after Close = %v, want not exist", dir, err)
	}
}

func group(t *testing.T, h *Hierarchy, name string) *Group {
	t.Helper()
	g, err := h.Group(name)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// start runs a shell script in g from its first instruction, and returns when
// it has printed a line. The script's input is a pipe that ends with the test.
func start(t *testing.T, g *Group, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	if g.h.Version() == 2 {
		dir, err := g.OpenFD()
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	} else {
		files, err := g.EnterFiles()
		if err != nil {
			t.Fatal(err)
		}
		defer files[0].Close()
		cmd.ExtraFiles = files
		cmd.Args[2] = "echo 0 >&3; exec 3>&-; " + script
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("script ended before its line: %v", err)
	}
	return cmd
}

// versions runs a test on each version of the hierarchy.
func versions(t *testing.T, test func(t *testing.T, h *Hierarchy)) {
	for _, v := range []int{1, 2} {
		t.Run(fmt.Sprintf("v%d", v), func(t *testing.T) { test(t, open(t, v)) })
	}
}

// cgroupOf reads the group of pid in h's hierarchy, relative to our folder.
func cgroupOf(t *testing.T, h *Hierarchy, pid int) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	own, ok := h.mount.ownPath(data)
	if !ok {
		t.Fatalf("no group of pid %d in %s", pid, h.mount.point)
	}
	rel, _ := below(path.Join(h.mount.point, own), h.Path())
	return rel
}

// openAsUser is the test binary as an ordinary user in a delegated group.
func openAsUser(root string) int {
	h, err := Open(Options{Root: root, Version: 2})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer h.Close()
	g, err := h.Group("shop/web.1")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	dir, err := g.OpenFD()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	cmd := exec.Command("/bin/cat", "/proc/self/cgroup")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, err := cmd.Output()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	dir.Close()
	own, _ := h.mount.ownPath(out)
	fmt.Println(h.Path())
	fmt.Println(path.Join(h.mount.point, own))
	if err := g.Remove(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func openFDs(t *testing.T) int {
	t.Helper()
	dir, err := unix.Open("/proc/self/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(dir), "fd")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}
