package reaper

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// needGroup makes a group of cgroup v2 for a test and opens its folder.
func needGroup(t *testing.T) (dir string, fd int) {
	t.Helper()
	needRoot(t)
	root := "/sys/fs/cgroup"
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		root += "/unified"
		if err := unix.Statfs(root, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
			need(t, "cgroup2", unix.ENOENT)
		}
	}
	dir = filepath.Join(root, "reaper-test-"+strconv.Itoa(os.Getpid()))
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		need(t, "cgroup2", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	fd, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return dir, fd
}

// TestBornInCgroup forks at once: nothing of it is outside of the group.
func TestBornInCgroup(t *testing.T) {
	dir, fd := needGroup(t)
	for _, fallback := range []bool{false, true} {
		noClone3.Store(fallback)
		b := newBench(t, Options{})
		r, w := pipe(t)
		s := spec("/bin/sh", "-c", `(echo; exec sleep 1000) & echo; exec sleep 1000`)
		s.Cgroup, s.Files[1] = fd, int(w.Fd())
		run := b.start(s)
		pid := b.up(run)
		expect(t, r, "\n\n")
		procs, err := os.ReadFile(dir + "/cgroup.procs")
		if got := strings.Fields(string(procs)); err != nil || len(got) != 2 || got[0] != strconv.Itoa(pid) && got[1] != strconv.Itoa(pid) {
			t.Errorf("clone3 %t: group has %v, %v, want %d and its child", !fallback, got, err, pid)
		}
		if err := b.Signal(run, unix.SIGKILL, true); err != nil {
			t.Error(err)
		}
		b.down(run)
		// One whose group is gone fails for that.
		gone := dir + "/gone"
		if err := os.Mkdir(gone, 0o755); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(gone, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(gone); err != nil {
			t.Fatal(err)
		}
		s = spec("/bin/true")
		s.Cgroup = fd
		if e := b.fails(s); !errors.Is(e, unix.ENODEV) && !errors.Is(e, unix.ENOENT) {
			t.Errorf("clone3 %t: in a removed group: %v, want ENODEV", !fallback, e)
		}
		if noClone3.Load() != fallback {
			t.Errorf("noClone3 = %t after a bad group, want %t", !fallback, fallback)
		}
		unix.Close(fd)
		// cgroup.procs, as cgroup v1 has it.
		file, err := unix.Open(dir+"/cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		s = spec("/bin/cat", "/proc/self/cgroup")
		s.CgroupProcs = []int{file}
		if got := b.output(s); !strings.Contains(got, "0::/"+filepath.Base(dir)+"\n") {
			t.Errorf("cgroup of the child = %q", got)
		}
		unix.Close(file)
		s = spec("/bin/true")
		s.CgroupProcs = []int{99999}
		if e := b.fails(s); e.Step != "enter cgroup" || !errors.Is(e, unix.EBADF) {
			t.Errorf("in a closed group: %v, want enter cgroup: EBADF", e)
		}
		b.Close()
		empty(t, dir)
	}
	noClone3.Store(false)
}

// empty waits until nothing is left in a group.
func empty(t *testing.T, dir string) {
	t.Helper()
	fd, err := unix.Open(dir+"/cgroup.events", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for {
		var buf [256]byte
		n, err := unix.Pread(fd, buf[:], 0)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(buf[:n]), "populated 0") {
			return
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, -1); err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
	}
}
