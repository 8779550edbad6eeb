package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// said collects lines; several goroutines may say some.
type said struct {
	sync.Mutex
	lines []string
}

func (s *said) say(line string) {
	s.Lock()
	defer s.Unlock()
	s.lines = append(s.lines, line)
}

func (s *said) all() []string {
	s.Lock()
	defer s.Unlock()
	return slices.Clone(s.lines)
}

func (s *said) has(text string) bool {
	s.Lock()
	defer s.Unlock()
	return slices.ContainsFunc(s.lines, func(l string) bool { return strings.Contains(l, text) })
}

// at returns what is mounted on top there.
func at(t *testing.T, path string) (found mountPoint) {
	t.Helper()
	list, err := mountsOf()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.Target == path {
			found = m
		}
	}
	return found
}

// scratch mounts an empty tmpfs on a new folder. In the end it is unmounted with
// all that is mounted below, and nothing in it is deleted: t.TempDir would delete
// in what is mounted there, and some of that is the machine's own.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pazinit-mounts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
			return
		}
		if err := unix.Rmdir(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Every row makes a file system of its magic, in an empty root of its own.
func TestMountEarly(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWNS|syscall.CLONE_NEWIPC) {
		return
	}
	root := scratch(t)
	h := kernel
	h.mount = func(source, target, fstype string, flags uintptr, data string) error {
		if fstype == "devtmpfs" { // there is one only, this machine's
			fstype = "tmpfs"
		}
		return unix.Mount(source, target, fstype, flags, data)
	}
	notes, err := h.mountEarly(root, earlyMounts[:])
	if err != nil {
		t.Fatal(err)
	}
	list, err := mountsOf()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range earlyMounts {
		if i := slices.IndexFunc(notes, func(n error) bool { return strings.Contains(n.Error(), " on "+row.target+": ") }); i >= 0 {
			if row.required || !errors.Is(notes[i], errors.ErrUnsupported) {
				t.Errorf("note %v", notes[i])
			}
			t.Logf("note: %v", notes[i])
			continue
		}
		var st unix.Statfs_t
		if err := unix.Statfs(root+row.target, &st); err != nil || st.Type != row.magic {
			t.Errorf("%s: type %#x, %v, want %#x", row.target, st.Type, err, row.magic)
		}
		i := slices.IndexFunc(list, func(m mountPoint) bool { return m.Target == root+row.target })
		if i < 0 || list[i].Type != strings.Replace(row.fstype, "devtmpfs", "tmpfs", 1) || !strings.Contains(list[i].Options, "nosuid") {
			t.Errorf("%s is not mounted as it should be", row.target)
		}
	}
	for _, l := range devLinks {
		if to, err := os.Readlink(root + l[1]); err != nil || to != l[0] {
			t.Errorf("%s leads to %q, %v", l[1], to, err)
		}
	}
	if st, err := os.Stat(root + "/tmp"); err != nil || st.Mode() != os.ModeDir|os.ModeSticky|0o777 {
		t.Errorf("/tmp: %v, %v", st.Mode(), err)
	}
	// Once more changes nothing.
	again, err := h.mountEarly(root, earlyMounts[:])
	if err != nil || len(again) != len(notes) {
		t.Errorf("again: %v, %v", again, err)
	}
	after, _ := mountsOf()
	if len(after) != len(list) {
		t.Errorf("%d mounts, and after the second time %d", len(list), len(after))
	}
}

// What the kernel does not have is a note or an error, as the row says; the
// rows after it are mounted.
func TestMountEarlyMissing(t *testing.T) {
	var got []string
	h := kernel
	h.mount = func(_, target, fstype string, _ uintptr, data string) error {
		switch fstype {
		case "proc", "tracefs":
			return unix.ENODEV
		case "devpts":
			if data != "" {
				return unix.EINVAL
			}
		case "efivarfs":
			return unix.EOPNOTSUPP
		}
		got = append(got, fstype)
		return nil
	}
	root := t.TempDir()
	for _, row := range earlyMounts { // the kernel makes those in /sys
		if strings.HasPrefix(row.target, "/sys/") {
			if err := os.MkdirAll(root+row.target, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	notes, err := h.mountEarly(root, earlyMounts[:])
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "mount proc on /proc: the kernel has no proc") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v", err)
	}
	text := fmt.Sprint(notes)
	if len(notes) != 2 || !strings.Contains(text, "the kernel has no tracefs") || !strings.Contains(text, "efivars") || !errors.Is(notes[1], errors.ErrUnsupported) {
		t.Errorf("notes %v", notes)
	}
	for _, fstype := range []string{"sysfs", "devtmpfs", "devpts", "debugfs"} {
		if !slices.Contains(got, fstype) {
			t.Errorf("%s was not mounted", fstype)
		}
	}
}

func TestMountCgroups(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWNS) {
		return
	}
	dir := scratch(t)
	v2 := filepath.Join(dir, "v2")
	if err := os.Mkdir(v2, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := kernel.mountCgroups(v2, "v2"); err != nil {
		t.Fatal(err)
	}
	if got := at(t, v2); got.Type != "cgroup2" {
		t.Errorf("v2 is %+v", got)
	}
	if err := kernel.mountCgroups(v2, "v1"); err != nil || at(t, v2).Type != "cgroup2" {
		t.Errorf("mounted once more: %v, %+v", err, at(t, v2))
	}
	for _, version := range []string{"v3", "V2", " "} {
		if err := MountCgroups(version); err == nil {
			t.Errorf("version %q is taken", version)
		}
	}
	if err := kernel.mountCgroups(dir+"/none", "none"); err != nil {
		t.Error(err)
	}
}

// v1 and hybrid without the kernel: mounting a controller takes it from
// everybody else's hierarchy.
func TestMountCgroupsV1(t *testing.T) {
	for _, version := range []string{"v1", "hybrid"} {
		dir := t.TempDir()
		var got []string
		h := kernel
		h.mount = func(_, target, fstype string, flags uintptr, data string) error {
			if data == "cpu" {
				return unix.EBUSY
			}
			got = append(got, fmt.Sprintf("%s %s %s %v", fstype, strings.TrimPrefix(target, dir), data, flags&unix.MS_RDONLY != 0))
			return nil
		}
		err := h.mountCgroups(dir, version)
		names, err2 := v1Controllers("/proc/cgroups")
		if err2 != nil {
			t.Skipf("no /proc/cgroups: %v", err2)
		}
		var want []string
		want = append(want, "tmpfs  mode=755 false")
		for _, n := range names {
			if n != "cpu" {
				want = append(want, "cgroup /"+n+" "+n+" false")
			}
		}
		if version == "hybrid" {
			want = append(want, "cgroup2 /unified nsdelegate,memory_recursiveprot false")
		}
		want = append(want, "  mode=755 true")
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", version, got, want)
		}
		if slices.Contains(names, "cpu") != (err != nil) {
			t.Errorf("%s: error %v", version, err)
		}
		if _, err := os.Stat(dir + "/cpu"); err == nil {
			t.Errorf("%s: the folder of a controller that was refused stays", version)
		}
	}
}

// The kinds of mounts that a kernel alone can do, by device, label and id.
func TestMountAll(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWNS) {
		return
	}
	img := image(t, "ext2", 1<<20)
	label := fmt.Sprintf("m%d", os.Getpid())
	relabel(t, img, label)
	disk := loopDevice(t, img)
	squash := image(t, "squashfs", 4096)
	dir := scratch(t)
	if err := os.WriteFile(dir+"/file", []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	var s said
	list := []Mount{
		{Source: "LABEL=" + label, Target: dir + "/a b/disk", Options: []string{"noatime,nodev"}},
		{Source: squash, Target: dir + "/squash", Type: "auto", Options: []string{"loop"}}, // read-only by its kind
		{Source: "tmpfs", Target: dir + "/tmp", Type: "tmpfs", Options: []string{"size=1m", "mode=1777", "x-note=1"}},
		{Source: dir + "/a b", Target: dir + "/bound", Type: "none", Options: []string{"rbind", "ro", "rslave"}},
		{Source: dir + "/file", Target: dir + "/new/bound-file", Options: []string{"bind", "ro"}},
		{Source: "over", Target: dir + "/over", Type: "overlay", Options: []string{"lowerdir=" + dir + "/squash", "upperdir=" + dir + "/tmp/up", "workdir=" + dir + "/tmp/work"}},
		{Source: "none", Target: dir + "/not", Type: "tmpfs", Options: []string{"noauto"}},
		{Source: "tmpfs", Target: dir + "/optional", Type: "tmpfs", Options: []string{"nofail", "size=nonsense"}},
		{Source: "LABEL=nobody", Target: dir + "/optional2", Optional: true},
	}
	if errs := MountAll(list, s.say); len(errs) > 0 {
		t.Fatalf("MountAll: %v", errs)
	}
	for _, c := range []struct{ path, fstype, options, super string }{
		{"/a b/disk", "ext2", "rw,nodev,noatime", ""},
		{"/squash", "squashfs", "rw", "ro"}, // as the kernel puts it
		{"/tmp", "tmpfs", "rw", "size=1024k"},
		{"/bound", "tmpfs", "ro", ""},
		{"/bound/disk", "ext2", "rw", ""}, // ro is of the top alone, as with mount(8)
		{"/new/bound-file", "tmpfs", "ro", ""},
		{"/over", "overlay", "rw", "upperdir="},
	} {
		m := at(t, dir+c.path)
		if m.Type != c.fstype || !strings.HasPrefix(m.Options, c.options) || !strings.Contains(m.SuperOptions, c.super) {
			t.Errorf("%s is %+v, want %+v", c.path, m, c)
		}
	}
	if m := at(t, dir+"/not"); m.Target != "" {
		t.Error("noauto is mounted")
	}
	if b, err := os.ReadFile(dir + "/over/hello"); err != nil || string(b) != "hello\n" {
		t.Errorf("/over/hello: %q, %v", b, err)
	}
	if !s.has("optional") || !s.has("LABEL=nobody") {
		t.Errorf("said %q, want the optional ones", s.lines)
	}

	// Once more changes nothing, but for options that are given.
	before, _ := mountsOf()
	list[2].Options = []string{"size=2m"}
	again := []Mount{{Source: disk, Target: dir + "/a b/disk"}, list[1], list[2]}
	if errs := MountAll(again, s.say); len(errs) > 0 {
		t.Errorf("again: %v", errs)
	}
	after, _ := mountsOf()
	if len(after) != len(before) {
		t.Errorf("%d mounts, and after the second time %d", len(before), len(after))
	}
	if m := at(t, dir+"/tmp"); !strings.Contains(m.SuperOptions, "size=2048k") {
		t.Errorf("/tmp was not remounted: %+v", m)
	}
	if m := at(t, dir+"/a b/disk"); !strings.HasPrefix(m.Options, "rw,nodev,noatime") {
		t.Errorf("mounted again without options: %+v", m)
	}

	if left := testUnmount(t, dir, s.say); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if c, err := readContent(f); c.Type != "ext2" || c.Dirty != "" {
		t.Errorf("after unmounting: %+v, %v", c, err)
	}
}

// testUnmount is UnmountAll of what lies below dir.
func testUnmount(t *testing.T, dir string, say func(string)) []string {
	t.Helper()
	h := kernel
	h.sync = func() {} // of this machine
	h.unmount = func(target string, flags int) error {
		if target == dir || !under(target, dir) {
			return unix.EBUSY
		}
		return unix.Unmount(target, flags)
	}
	h.mount = func(source, target, fstype string, flags uintptr, data string) error {
		if target == dir || !under(target, dir) {
			return nil
		}
		return unix.Mount(source, target, fstype, flags, data)
	}
	h.trigger = func(byte) error { t.Error("sysrq u"); return nil }
	left := h.unmountAll(t.TempDir(), say)
	return slices.DeleteFunc(left, func(s string) bool { return !strings.HasPrefix(s, dir) && !strings.HasPrefix(s, `"`+dir) })
}

func TestMountErrors(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWNS) {
		return
	}
	dir := scratch(t)
	swap := loopDevice(t, image(t, "swap", 1<<20))
	broken := image(t, "ext2", 1<<20)
	if err := os.Truncate(broken, 64<<10); err != nil { // smaller than it says
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, make([]byte, 128<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"loop1": "loop2", "loop2": "loop1", "dangling": "nowhere", "tosys": "/sys", "todev": "/dev", "good": "real"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		m    Mount
		want string
	}{
		{Mount{Source: "tmpfs", Target: "relative", Type: "tmpfs"}, "no absolute path"},
		{Mount{Source: "tmpfs", Target: dir + "/../x", Type: "tmpfs"}, "goes upwards"},
		{Mount{Source: "tmpfs", Target: "", Type: "tmpfs"}, "no absolute path"},
		{Mount{Source: "tmpfs", Target: dir + "/a\x00b", Type: "tmpfs"}, "zero byte"},
		{Mount{Source: "tmpfs", Target: dir + "/loop1", Type: "tmpfs"}, "too many levels"},
		{Mount{Source: "tmpfs", Target: dir + "/loop1/x", Type: "tmpfs"}, "too many levels"},
		{Mount{Source: "tmpfs", Target: dir + "/dangling", Type: "tmpfs"}, "mount point"},
		{Mount{Source: "tmpfs", Target: "/proc", Type: "tmpfs"}, "only proc is mounted on /proc"},
		{Mount{Source: "tmpfs", Target: "/sys//", Type: "tmpfs"}, "only sysfs"},
		{Mount{Source: "tmpfs", Target: dir + "/tosys", Type: "tmpfs"}, "only sysfs is mounted on /sys"},
		{Mount{Source: "tmpfs", Target: dir + "/todev/.", Type: "tmpfs"}, "only devtmpfs is mounted on /dev"},
		{Mount{Source: dir, Target: "/dev", Options: []string{"bind"}}, "only devtmpfs"},
		{Mount{Source: "tmpfs", Target: "/dev/null/x", Type: "tmpfs"}, "not a directory"},
		{Mount{Source: "tmpfs", Target: "/dev/null", Type: "tmpfs"}, "not a directory"},
		{Mount{Source: "tmpfs", Target: dir + "/t", Type: "tmpfs", Options: []string{"nonsense=1"}}, "option that it does not know"},
		{Mount{Source: "x", Target: dir + "/t", Type: "nosuchfs"}, "the kernel has no nosuchfs"},
		{Mount{Source: "x", Target: dir + "/t"}, "no type"},
		{Mount{Source: swap, Target: dir + "/t"}, "holds swap"},
		{Mount{Source: loopDevice(t, empty), Target: dir + "/t"}, "name its type"},
		{Mount{Source: loopDevice(t, broken), Target: dir + "/t"}, "not a good ext2"},
		{Mount{Source: "UUID=none", Target: dir + "/t"}, "file does not exist"},
		{Mount{Source: "/dev/null", Target: dir + "/t", Type: "ext4"}, "no block device"},
		{Mount{Source: "relative", Target: dir + "/t", Options: []string{"bind"}}, "no absolute path"},
		{Mount{Source: dir + "/missing", Target: dir + "/t", Options: []string{"bind"}}, "no such file"},
		{Mount{Source: "srv:/x", Target: dir + "/t", Type: "nfs"}, "mount.nfs"},
		{Mount{Source: "o", Target: dir + "/t", Type: "overlay", Options: []string{"upperdir=x"}}, "no absolute path"},
		{Mount{Source: "tmpfs", Target: dir + "/t", Type: "tmpfs", Options: []string{"offset=1"}}, "not understood"},
		{Mount{Source: dir + "/none", Target: dir + "/t", Type: "ext2", Options: []string{"loop"}}, "attach a loop device: open " + dir + "/none: no such file"},
		{Mount{Source: "none", Target: dir + "/t", Type: "ext2", Options: []string{"loop"}}, "no absolute path"},
		{Mount{Source: "nobody", Target: dir + "/t", Type: "virtiofs"}, "virtiofs"},
	} {
		before, _ := mountsOf()
		errs := MountAll([]Mount{c.m}, nil)
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want) || !strings.HasPrefix(errs[0].Error(), "mount ") {
			t.Errorf("%+v: %v, want %q", c.m, errs, c.want)
		}
		if after, _ := mountsOf(); len(after) != len(before) {
			t.Errorf("%+v: something is mounted", c.m)
		}
	}
	if _, err := os.Lstat(dir + "/nowhere"); err == nil {
		t.Error("a mount point was made behind a link that leads nowhere")
	}

	// A link is followed, and where it leads is what is mounted on.
	if err := os.Mkdir(dir+"/real", 0o755); err != nil {
		t.Fatal(err)
	}
	if errs := MountAll([]Mount{{Source: "tmpfs", Target: dir + "/good", Type: "tmpfs"}}, nil); len(errs) > 0 || at(t, dir+"/real").Type != "tmpfs" {
		t.Errorf("a target that is a link: %v", errs)
	}

	// What lies below a mount that failed is not mounted.
	errs := MountAll([]Mount{
		{Source: "UUID=none", Target: dir + "/data/"},
		{Source: "tmpfs", Target: dir + "/data//sub", Type: "tmpfs"},
		{Source: "tmpfs", Target: dir + "/data2", Type: "tmpfs"},
	}, nil)
	if len(errs) != 2 || !strings.Contains(errs[1].Error(), "/data is not mounted") || at(t, dir+"/data2").Type != "tmpfs" {
		t.Errorf("below a mount that failed: %v", errs)
	}

	// Binding a folder into itself ends.
	if errs := MountAll([]Mount{{Source: dir, Target: dir + "/self", Options: []string{"rbind"}}, {Source: dir + "/self", Target: dir + "/self/self", Options: []string{"rbind"}}}, nil); len(errs) > 0 {
		t.Errorf("bound into itself: %v", errs)
	}
}

// A disk that cannot be written is mounted read-only, and that is said; one that
// was not unmounted is mounted, and that is said.
func TestMountStates(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWNS) {
		return
	}
	dir := scratch(t)
	img := image(t, "ext4", 4<<20)
	disk := loopDevice(t, img)
	var s said
	if errs := MountAll([]Mount{{Source: disk, Target: dir + "/first"}}, s.say); len(errs) > 0 {
		t.Fatal(errs)
	}
	if err := os.WriteFile(dir+"/first/x", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	unix.Sync()
	b, err := os.ReadFile(img) // as if the power went
	if err != nil {
		t.Fatal(err)
	}
	crashed := filepath.Join(t.TempDir(), "crashed")
	if err := os.WriteFile(crashed, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if len(s.lines) > 0 {
		t.Errorf("said %q of a clean disk", s.lines)
	}
	if errs := MountAll([]Mount{{Source: loopDevice(t, crashed), Target: dir + "/second", Wait: time.Second}}, s.say); len(errs) > 0 {
		t.Fatal(errs)
	}
	if !s.has("its journal will be replayed") {
		t.Errorf("said %q of a disk that was not unmounted", s.lines)
	}
	if b, err := os.ReadFile(dir + "/second/x"); err != nil || string(b) != "x" {
		t.Errorf("after the replay: %q, %v", b, err)
	}

	readOnly := loopDevice(t, image(t, "ext2", 1<<20))
	fd, err := unix.Open(readOnly, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.BLKROSET, 1); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.IoctlSetPointerInt(fd, unix.BLKROSET, 0); unix.Close(fd) }()
	if errs := MountAll([]Mount{{Source: readOnly, Target: dir + "/ro"}}, s.say); len(errs) > 0 || !strings.HasPrefix(at(t, dir+"/ro").Options, "ro") || !s.has("write-protected") {
		t.Errorf("a read-only disk: %v, %+v, said %q", errs, at(t, dir+"/ro"), s.lines)
	}
	for _, m := range []string{"/first", "/second", "/ro"} {
		if err := unix.Unmount(dir+m, 0); err != nil {
			t.Error(err)
		}
	}
}

// A mount that hangs is an error in time, and the next ones are mounted; when
// it comes back it says so.
func TestMountHangs(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWNS) {
		return
	}
	dir := scratch(t)
	h := kernel
	h.limit = 100 * time.Millisecond
	release, back := make(chan struct{}), make(chan struct{})
	h.mount = func(source, target, fstype string, flags uintptr, data string) error {
		if source == "dead" {
			<-release
			return unix.EIO
		}
		return unix.Mount(source, target, fstype, flags, data)
	}
	var s said
	errs := h.mountAll(system, []Mount{
		{Source: "dead", Target: dir + "/dead", Type: "tmpfs"},
		{Source: "tmpfs", Target: dir + "/dead/below", Type: "tmpfs"},
		{Source: "tmpfs", Target: dir + "/next", Type: "tmpfs"},
	}, func(line string) {
		s.say(line)
		if strings.Contains(line, "has come back") {
			close(back)
		}
	})
	if len(errs) != 2 || !strings.Contains(errs[0].Error(), "hangs for 100ms") || !strings.Contains(errs[1].Error(), "is not mounted") || at(t, dir+"/next").Type != "tmpfs" {
		t.Errorf("errors %v", errs)
	}
	if !s.has("hangs for 10ms") {
		t.Errorf("said %q", s.lines)
	}
	close(release)
	<-back
	if !s.has("input/output error") {
		t.Errorf("said %q", s.lines)
	}
}

// A tag that is not there yet is tried again when the kernel says something.
func TestMountLateTag(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWNS) {
		return
	}
	dir := scratch(t)
	f := finder{sys: "/sys", dev: dir + "/dev"}
	if err := os.Mkdir(f.dev, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, fstype := range []string{"virtiofs", "9p"} {
		tries, data := 0, ""
		h := kernel
		h.mount = func(source, target, fstype string, flags uintptr, d string) error {
			if tries, data = tries+1, d; tries < 3 { // the second time, nobody has come for sure
				return unix.EINVAL
			}
			return nil
		}
		var s said
		errs := h.mountAll(f, []Mount{{Source: "tag", Target: dir + "/tag", Type: fstype, Wait: time.Minute}}, func(line string) {
			s.say(line)
			if err := os.WriteFile(f.dev+"/new-"+fstype, nil, 0o644); err != nil {
				t.Error(err)
			}
		})
		if len(errs) > 0 || tries != 3 || !s.has("waiting for the "+fstype+" tag tag") {
			t.Errorf("%s: %v after %d tries, said %q", fstype, errs, tries, s.lines)
		}
		if want := map[string]string{"9p": "trans=virtio"}[fstype]; data != want {
			t.Errorf("%s: options %q, want %q", fstype, data, want)
		}
	}
}

// The root keeps its flags when it is remounted.
func TestRemount(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWNS) {
		return
	}
	dir := scratch(t) + "/root"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOATIME|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := kernel.remount(dir, options{cleared: unix.MS_RDONLY}, true); err != nil {
		t.Fatal(err)
	}
	if m := at(t, dir); m.Options != "rw,nosuid,noatime" {
		t.Errorf("after rw: %s", m.Options)
	}
	if err := kernel.remount(dir, options{flags: unix.MS_RDONLY}, false); err != nil {
		t.Fatal(err)
	}
	if m := at(t, dir); m.Options != "ro,nosuid,noatime" {
		t.Errorf("after ro: %s", m.Options)
	}
	// A line for / in fstab is its options.
	h := kernel
	var got string
	h.mount = func(source, target, fstype string, flags uintptr, data string) error {
		got = fmt.Sprintf("%s %s %v %v", target, data, flags&unix.MS_REMOUNT != 0, flags&unix.MS_RDONLY != 0)
		return nil
	}
	for options, want := range map[string]string{"defaults": "/  true false", "ro,errors=remount-ro": "/ errors=remount-ro true true"} {
		if errs := h.mountAll(system, []Mount{{Source: "UUID=whatever", Target: "/", Options: []string{options}}}, sayNothing); len(errs) > 0 || got != want {
			t.Errorf("/ with %s: %v, %q, want %q", options, errs, got, want)
		}
	}
}

func TestDeepestFirst(t *testing.T) {
	list := parseMountinfo(`1 1 0:1 / / rw - rootfs none rw
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 0:2 / /a rw - tmpfs a rw
22 21 0:3 / /a/b rw - tmpfs b rw
23 20 0:4 / /c rw - tmpfs c rw
24 22 0:5 / /a/b rw - tmpfs over rw
garbage
25 99 0:6 / /lost rw - tmpfs l rw
30 31 0:7 / /circle rw - tmpfs l rw
31 30 0:7 / /circle/2 rw - tmpfs l rw
`)
	var ids []int
	for _, m := range deepestFirst(list) {
		ids = append(ids, m.ID)
	}
	pos := func(id int) int { return slices.Index(ids, id) }
	if len(ids) != 9 {
		t.Fatalf("order %v of %d mounts", ids, len(list))
	}
	for _, c := range [][2]int{{24, 22}, {22, 21}, {21, 20}, {23, 20}, {20, 1}, {23, 21}} {
		if pos(c[0]) > pos(c[1]) {
			t.Errorf("order %v: %d is to come before %d", ids, c[0], c[1])
		}
	}
}

// A tag tells one share from another; the name of a tmpfs tells nothing.
func TestHasSource(t *testing.T) {
	for _, c := range []struct {
		m    Mount
		want bool
	}{
		{Mount{Source: "tag", Type: "virtiofs"}, true},
		{Mount{Source: "tag", Type: "9p"}, true},
		{Mount{Source: "/dev/vda", Type: "ext4"}, true},
		{Mount{Source: "server:/x", Type: "nfs4"}, true},
		{Mount{Source: "none", Type: "tmpfs"}, false},
		{Mount{Source: "late", Type: "tmpfs", Options: []string{"_netdev"}}, false},
	} {
		if got := c.m.hasSource(); got != c.want {
			t.Errorf("%+v: %v, want %v", c.m, got, c.want)
		}
	}
}

// A link leads to nothing that a mount should have covered, either way.
func TestMountBelowFailedLink(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/real", 0o755), os.Symlink("real", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	h := kernel
	h.mount = func(_, target, _ string, _ uintptr, _ string) error { return unix.EIO }
	for _, c := range [][2]string{{"/real", "/link/x/y"}, {"/link", "/real/x/y"}, {"/link", "/link/x"}, {"/link/x", "/real/x/y/z"}} {
		errs := h.mountAll(system, []Mount{
			{Source: "tmpfs", Target: dir + c[0], Type: "tmpfs"},
			{Source: "tmpfs", Target: dir + c[1], Type: "tmpfs"},
		}, sayNothing)
		if len(errs) != 2 || !errors.Is(errs[0], unix.EIO) || !strings.Contains(errs[1].Error(), " is not mounted") {
			t.Errorf("%q: %v, want the second one held back", c, errs)
		}
	}
}
