package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// memoryRoot makes a root in memory as an initramfs has it, with /proc, a /dev
// of its own with loop devices, /run, and the samples in /. The process is PID 1
// there. Nothing of the machine is left to be seen.
func memoryRoot(t *testing.T, names ...string) {
	t.Helper()
	files := map[string][]byte{}
	for _, name := range names {
		files[name] = sample(t, name)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "mode=755"))
	for _, dir := range []string{"old", "proc", "dev", "run", "sys", "tmp", "data", "bin/deep/deeper"} {
		check(os.MkdirAll("/tmp/"+dir, 0o755))
	}
	check(unix.Mount("proc", "/tmp/proc", "proc", 0, ""))
	check(unix.Mount("tmpfs", "/tmp/dev", "tmpfs", 0, "mode=755"))
	check(unix.Mount("tmpfs", "/tmp/run", "tmpfs", 0, "mode=755"))
	check(unix.Mount("tmpfs", "/tmp/tmp", "tmpfs", 0, "mode=1777"))
	check(unix.Mknod("/tmp/dev/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	check(unix.Mknod("/tmp/dev/loop-control", unix.S_IFCHR|0o600, int(unix.Mkdev(10, 237))))
	for n := range 64 {
		check(unix.Mknod(fmt.Sprintf("/tmp/dev/loop%d", n), unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))))
	}
	for name, b := range files {
		check(os.WriteFile("/tmp/"+name, b, 0o600))
	}
	check(os.Truncate("/tmp/"+names[0], 1<<20))
	check(os.WriteFile("/tmp/bin/deep/deeper/file", []byte("x"), 0o444))
	check(os.Symlink("/bin/deep", "/tmp/bin/link"))
	check(unix.PivotRoot("/tmp", "/tmp/old"))
	check(unix.Chdir("/"))
	check(unix.Unmount("/old", unix.MNT_DETACH))
}

// program is the least that execve(2) could take for this processor.
func program(interpreter string) []byte {
	b := make([]byte, 64+56)
	copy(b, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(b[16:], 2)
	binary.LittleEndian.PutUint16(b[18:], map[string]uint16{"amd64": 62, "arm64": 183}[runtime.GOARCH])
	binary.LittleEndian.PutUint64(b[32:], 64)
	binary.LittleEndian.PutUint16(b[54:], 56)
	if interpreter != "" {
		binary.LittleEndian.PutUint16(b[56:], 1)
		binary.LittleEndian.PutUint32(b[64:], 3)
		binary.LittleEndian.PutUint64(b[64+8:], uint64(len(b)))
		binary.LittleEndian.PutUint64(b[64+32:], uint64(len(interpreter)+1))
		b = append(b, interpreter+"\x00"...)
	}
	return b
}

// fill mounts the device, and puts files there: text, "->" and a target, or "/".
func fill(t *testing.T, device string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll("/fill", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(device, "/fill", "ext2", 0, ""); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := "/fill/" + name
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch to, link := strings.CutPrefix(text, "->"); {
		case err != nil:
		case text == "/":
			err = os.MkdirAll(path, 0o755)
		case link:
			err = os.Symlink(to, path)
		default:
			err = os.WriteFile(path, []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(unix.Unmount("/fill", 0), os.Remove("/fill")); err != nil {
		t.Fatal(err)
	}
}

const privatePID = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID

func targets(t *testing.T) (out []string) {
	t.Helper()
	list, err := mountsOf()
	if err != nil {
		t.Errorf("list mounts: %v", err)
	}
	for _, m := range list {
		out = append(out, m.Target+" "+m.Type)
	}
	slices.Sort(out)
	return out
}

func TestSwitchRoot(t *testing.T) {
	if !inside(t, privatePID) {
		return
	}
	memoryRoot(t, "ext2")
	disk := loopDevice(t, "/ext2")
	fill(t, disk, map[string]string{
		"sbin/init":    "->/usr/lib/init", // absolute: in the new root
		"usr/lib/init": string(program("/lib/ld.so")),
		"lib/ld.so":    string(program("")),
		"proc":         "/",
		"dev":          "->/usr/dev", // a root may be odd
		"usr/dev":      "/",
		"etc/kept":     "kept",
	}) // no /run
	oldBin, err := unix.Open("/bin/deep", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var s said
	var argv []string
	h := kernel
	h.exec = func(path string, args, _ []string) error { argv = append([]string{path}, args...); return unix.ENOEXEC }
	err = h.switchRoot(system, Root{Spec: disk, RW: true, Say: s.say})
	if !errors.Is(err, unix.ENOEXEC) {
		t.Fatalf("switchRoot = %v", err)
	}
	if want := []string{"/sbin/init", "/sbin/init"}; !slices.Equal(argv, want) {
		t.Errorf("executed %q, want %q", argv, want)
	}
	want := []string{"/ ext2", "/proc proc", "/run tmpfs", "/usr/dev tmpfs"}
	if got := targets(t); !slices.Equal(got, want) {
		t.Errorf("mounted are %q, want %q", got, want)
	}
	if b, err := os.ReadFile("/etc/kept"); err != nil || string(b) != "kept" {
		t.Errorf("/etc/kept: %q, %v", b, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(oldBin, &st); err != nil || st.Nlink != 0 {
		t.Errorf("a folder of the initramfs has %d links, %v, want none", st.Nlink, err)
	}
	if dir, err := os.Getwd(); err != nil || dir != "/" {
		t.Errorf("working directory %s, %v", dir, err)
	}
	if len(s.lines) > 0 {
		t.Errorf("said %q", s.lines)
	}
}

// A root that is not writable and has no folders: what was mounted is given up,
// and that is said.
func TestSwitchRootBare(t *testing.T) {
	if !inside(t, privatePID) {
		return
	}
	memoryRoot(t, "ext2")
	disk := loopDevice(t, "/ext2")
	fill(t, disk, map[string]string{"x": string(program("")), "proc": "/"})
	var s said
	h := kernel
	h.exec = func(string, []string, []string) error { return unix.EPERM }
	err := h.switchRoot(system, Root{Spec: disk, Type: "xfs,ext2", Flags: "noatime", Init: []string{"/x", "arg"}, Say: s.say})
	if !errors.Is(err, unix.EPERM) {
		t.Fatalf("switchRoot = %v", err)
	}
	if got, want := targets(t), []string{"/ ext2", "/proc proc"}; !slices.Equal(got, want) {
		t.Errorf("mounted are %q, want %q", got, want)
	}
	if m := at(t, "/"); m.Options != "ro,noatime" {
		t.Errorf("the root is %s", m.Options)
	}
	if !s.has("move /dev to the new root") || !s.has("move /run") {
		t.Errorf("said %q", s.lines)
	}
}

// An overlay of the initramfs is a root like another, and its files stay: they
// are its own. Its init gets what the kernel gave the initramfs's.
func TestSwitchRootOverlay(t *testing.T) {
	if !inside(t, privatePID) {
		return
	}
	memoryRoot(t, "ext2")
	for _, dir := range []string{"/image/pro:c", "/image/proc", "/image/dev", "/image/run", "/run/up", "/run/work"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("/image/init", program(""), 0o755); err != nil {
		t.Fatal(err)
	}
	var s said
	var argv, env []string
	h := kernel
	h.exec = func(_ string, args, vars []string) error { argv, env = args, vars; return unix.EPERM }
	r := Root{
		Spec: "overlay", Type: "overlay", Flags: "lowerdir=/image,upperdir=/run/up,workdir=/run/work", RW: true, Say: s.say,
		Init: []string{"/init", "own"}, Args: []string{"single", "splash"}, Env: []string{"HOME=/", "word=1"},
	}
	err := h.switchRoot(system, r)
	if errors.Is(err, errors.ErrUnsupported) {
		need(t, "overlay", err)
	}
	if !errors.Is(err, unix.EPERM) {
		t.Fatalf("switchRoot = %v", err)
	}
	if _, err := os.ReadFile("/init"); err != nil {
		t.Errorf("a file of the lower layer: %v", err)
	}
	if !s.has("the initramfs stays in memory: the overlay on /sysroot has the layer /image there") {
		t.Errorf("said %q", s.lines)
	}
	if !slices.Equal(argv, []string{"/init", "own", "single", "splash"}) || !slices.Equal(env, r.Env) {
		t.Errorf("executed %q in %q", argv, env)
	}
	if m := at(t, "/"); m.Type != "overlay" {
		t.Errorf("the root is %+v", m)
	}
}

// What stays mounted and is a part of the initramfs keeps it, too.
func TestPartOf(t *testing.T) {
	dev := unix.Mkdev(0, 2)
	stay := func(target string) bool { return target == "/" || under(target, "/run") || under(target, "/sysroot") }
	for _, c := range []struct{ line, want string }{
		{"2 1 8:1 / /sysroot rw - ext4 /dev/sda1 rw", ""},
		{"2 1 0:2 /a /run/a rw - rootfs rootfs rw", "/run/a is a part of it"},
		{"2 1 0:2 /a /elsewhere rw - rootfs rootfs rw", ""},
		{"2 1 0:9 / /sysroot rw - fuse.sshfs x rw", "a process of it serves /sysroot (fuse.sshfs)"},
		{"2 1 8:1 / /sysroot rw - fuseblk /dev/sda1 rw", "a process of it serves /sysroot (fuseblk)"},
		{"2 1 0:9 / /run/fusectl rw - fusectl x rw", ""},
		{"2 1 0:9 / /sysroot rw - virtiofs tag rw", ""},
	} {
		list := parseMountinfo("1 1 0:2 / / rw - rootfs rootfs rw\n" + c.line + "\n")
		if got := partOf(list, dev, stay); got != c.want {
			t.Errorf("%s: %q, want %q", c.line, got, c.want)
		}
	}
}

func TestLayers(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"/a", []string{"/a"}},
		{"/a:/b::/data", []string{"/a", "/b", "/data"}},
		{`/a\:b:/c\\d\`, []string{"/a:b", `/c\d\`}},
	} {
		if got := layers(c.text); !slices.Equal(got, c.want) {
			t.Errorf("layers(%q) = %q, want %q", c.text, got, c.want)
		}
	}
}

// Until there is no way back, all is as before.
func TestSwitchRootUndone(t *testing.T) {
	if !inside(t, privatePID) {
		return
	}
	memoryRoot(t, "ext2")
	disk := loopDevice(t, "/ext2")
	fill(t, disk, map[string]string{
		"good": string(program("")), "needs": string(program("/lib/none.so")), "script": "#! /bin/none -x\n", "text": "hello",
		"other": strings.Replace(string(program("")), string(program("")[18:20]), "\x08\x00", 1), "loop": "->/loop", "out": "->/../../../bin/deep/deeper/file",
		"self": "#!/self\n", "proc": "/", "dev": "/", "empty": "",
	})
	before := targets(t)
	h := kernel
	h.exec = func(string, []string, []string) error { t.Error("executed"); return unix.EPERM }
	fails := h
	fails.mount = func(source, target, fstype string, flags uintptr, data string) error {
		if flags&unix.MS_MOVE != 0 {
			return unix.EINVAL
		}
		return unix.Mount(source, target, fstype, flags, data)
	}
	for _, c := range []struct {
		h    hands
		r    Root
		want string
	}{
		{h, Root{Spec: "", RW: true}, "no device is named"},
		{h, Root{Spec: "/dev/loop63x"}, "file does not exist"},
		{h, Root{Spec: "/dev/null"}, "no block device"},
		{h, Root{Spec: "/dev/nfs"}, "file does not exist"},
		{h, Root{Spec: disk, Type: "xfs"}, "the kernel has no xfs|not a good xfs"},
		{h, Root{Spec: disk, Type: "xfs,squashfs"}, "as squashfs: "},
		{h, Root{Spec: disk, Flags: "nonsense"}, "an option that it does not know"},
		{h, Root{Spec: "tag", Type: "virtiofs"}, "virtiofs"},
		{h, Root{Spec: disk}, "init /bin/init: no such file"},
		{h, Root{Spec: disk, Init: []string{"/none"}}, "init /none: no such file"},
		{h, Root{Spec: disk, Init: []string{"good"}}, "no absolute path"},
		{h, Root{Spec: disk, Init: []string{"/proc"}}, "it is no file"},
		{h, Root{Spec: disk, Init: []string{"/text"}}, "exec format error"},
		{h, Root{Spec: disk, Init: []string{"/empty"}}, "exec format error"},
		{h, Root{Spec: disk, Init: []string{"/needs"}}, "its interpreter /lib/none.so: no such file"},
		{h, Root{Spec: disk, Init: []string{"/script"}}, "its interpreter /bin/none: no such file"},
		{h, Root{Spec: disk, Init: []string{"/self"}}, "too many levels"},
		{h, Root{Spec: disk, Init: []string{"/other"}}, "another processor"},
		{h, Root{Spec: disk, Init: []string{"/loop"}}, "too many levels"},
		{h, Root{Spec: disk, Init: []string{"/out"}}, "no such file"}, // not the initramfs's
		{h, Root{Spec: disk, Init: []string{"/good"}, Flags: "noexec"}, "noexec"},
		{fails, Root{Spec: disk, Init: []string{"/good"}, RW: true}, "move the new root: invalid argument"},
	} {
		c.r.Say = sayNothing
		err := c.h.switchRoot(system, c.r)
		ok := false
		for want := range strings.SplitSeq(c.want, "|") {
			ok = ok || err != nil && strings.Contains(err.Error(), want)
		}
		if !ok {
			t.Errorf("%+v: %v, want %q", c.r, err, c.want)
		}
		if got := targets(t); !slices.Equal(got, before) {
			t.Fatalf("%+v: mounted are %q, and before %q", c.r, got, before)
		}
		if b, err := os.ReadFile("/bin/deep/deeper/file"); err != nil || string(b) != "x" {
			t.Fatalf("%+v: a file of the initramfs: %q, %v", c.r, b, err)
		}
	}
	if dir, err := os.Getwd(); err != nil || dir != "/" {
		t.Errorf("working directory %s, %v", dir, err)
	}
}

// Nothing of a container is deleted, nothing of it or of a host is unmounted.
func TestOnlyInMachine(t *testing.T) {
	refused := func(want string) {
		t.Helper()
		if err := SwitchRoot(Root{Spec: "/dev/null"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("SwitchRoot: %v, want %q", err, want)
		}
		if left := UnmountAll(nil); len(left) != 1 || !strings.Contains(left[0], want) {
			t.Errorf("UnmountAll: %q, want %q", left, want)
		}
		if errs := SwapOffAll(); len(errs) != 1 || !strings.Contains(errs[0].Error(), want) {
			t.Errorf("SwapOffAll: %v, want %q", errs, want)
		}
	}
	if os.Getpid() != 1 {
		refused("and not 1")
	}
	if !inside(t, privatePID) {
		return
	}
	memoryRoot(t, "ext2") // a container's root in memory
	if InInitramfs() {
		t.Error("a tmpfs is taken for an initramfs")
	}
	refused("a container's process 1")
}

func TestIsInitramfs(t *testing.T) {
	for _, c := range []string{
		"1 1 0:2 / / rw - ext4 /dev/vda rw",
		"30 29 0:2 /containers/1 / rw - rootfs none rw", // a folder of it, bound
		"1 1 0:2 / / rw - rootfs none rw\n20 1 8:1 / / rw - ext4 /dev/sda1 rw",
		"",
	} {
		if isInitramfs(parseMountinfo(c)) {
			t.Errorf("%q is taken for an initramfs", c)
		}
	}
	if got, want := isInitramfs(parseMountinfo("1 1 0:2 / / rw - rootfs rootfs rw")), inMemory("/"); got != want {
		t.Errorf("a rootfs: %v, want %v", got, want)
	}
}

func TestFreeInitramfs(t *testing.T) {
	if !inside(t, privatePID) {
		return
	}
	memoryRoot(t, "ext2")
	disk := loopDevice(t, "/ext2")
	fill(t, disk, map[string]string{"keep/me": "x"})
	open := func(path string) int {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	if _, err := freeInitramfs(open("/")); err == nil || !strings.Contains(err.Error(), "still the root") {
		t.Errorf("the root: %v", err)
	}
	tree := "/data"
	if err := unix.Mount("tmpfs", tree, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	deep := tree + strings.Repeat("/d", 200)
	for _, dir := range []string{tree + "/disk", tree + "/other", deep} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 3000 {
		if err := os.WriteFile(fmt.Sprintf("%s/f%d", tree, n), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(unix.Mount(disk, tree+"/disk", "ext2", 0, ""), unix.Mount("tmpfs", tree+"/other", "tmpfs", 0, ""),
		os.WriteFile(tree+"/other/keep", nil, 0o644), os.Symlink("/run", tree+"/link"), os.WriteFile("/run/keep", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := freeInitramfs(open(tree + "/disk")); err == nil || !strings.Contains(err.Error(), "no file system in memory") {
		t.Errorf("a disk: %v", err)
	}
	left, err := freeInitramfs(open(tree))
	if err != nil || left != 2 {
		t.Errorf("freeInitramfs = %d, %v, want the 2 that are mounted", left, err)
	}
	var names []string
	entries, err := os.ReadDir(tree)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if err != nil || !slices.Equal(names, []string{"disk", "other"}) {
		t.Errorf("left are %q, %v", names, err)
	}
	for _, keep := range []string{tree + "/disk/keep/me", tree + "/other/keep", "/run/keep"} {
		if _, err := os.Stat(keep); err != nil {
			t.Errorf("deleted on another file system: %v", err)
		}
	}
}

// After everything that a machine may have mounted, nothing is left, the root
// is read-only, and the disks are clean.
func TestUnmountAll(t *testing.T) {
	if !inside(t, privatePID) {
		return
	}
	memoryRoot(t, "ext2", "ext4")
	disk := loopDevice(t, "/ext2")
	fill(t, disk, map[string]string{"proc": "/", "dev": "/", "run": "/", "a": "/", "sbin/init": string(program(""))})
	inner := sample0(t, "/ext4", 300<<10)
	h := kernel
	h.exec = func(string, []string, []string) error { return unix.EPERM }
	keep, err := unix.Open("/ext4", unix.O_RDONLY, 0) // deleted with the initramfs
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(keep)
	if err := h.switchRoot(system, Root{Spec: disk, RW: true, Say: sayNothing}); !errors.Is(err, unix.EPERM) {
		t.Fatal(err)
	}
	// A disk in a file on a disk; something over something; a bind.
	if err := errors.Join(
		os.WriteFile("/run/disk", inner, 0o600), os.Truncate("/run/disk", 4<<20),
	); err != nil {
		t.Fatal(err)
	}
	loop := loopDevice(t, "/run/disk")
	errs := MountAll([]Mount{
		{Source: loop, Target: "/a"},
		{Source: "tmpfs", Target: "/a/b", Type: "tmpfs"},
		{Source: "/a", Target: "/c", Options: []string{"rbind"}},
		{Source: "tmpfs", Target: "/a", Type: "tmpfs", Options: []string{"size=1m"}},
	}, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if err := os.WriteFile("/c/file", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	h = kernel
	h.sync, h.trigger = func() {}, func(byte) error { t.Error("sysrq u"); return nil }
	if left := h.unmountAll("/nosys", func(s string) { t.Error(s) }); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if got, want := targets(t), []string{"/ ext2", "/dev tmpfs", "/proc proc", "/run tmpfs"}; !slices.Equal(got, want) {
		t.Errorf("mounted are %q, want %q", got, want)
	}
	if m := at(t, "/"); !strings.HasPrefix(m.SuperOptions, "ro") {
		t.Errorf("the root is %+v", m)
	}
	for _, path := range []string{"/run/disk", disk} {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := readContent(descriptor(fd)); err != nil || c.Type == "" || c.Dirty != "" {
			t.Errorf("%s after all: %+v, %v", path, c, err)
		}
		unix.Close(fd)
	}
}

// sample0 reads the begin of a file.
func sample0(t *testing.T, path string, n int) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b[:min(n, len(b))])
}

// What is busy becomes read-only; what cannot even be that is forced, and unmounted
// lazily if that does not help; what hangs is left behind.
func TestUnmountBusy(t *testing.T) {
	if !inside(t, privatePID) {
		return
	}
	memoryRoot(t, "ext2", "ext4")
	if err := os.WriteFile("/third", sample0(t, "/ext2", 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Truncate("/third", 1<<20), os.Truncate("/ext4", 4<<20)); err != nil {
		t.Fatal(err)
	}
	if errs := MountAll([]Mount{
		{Source: loopDevice(t, "/ext2"), Target: "/data/busy"},
		{Source: loopDevice(t, "/ext4"), Target: "/data/written"},
		{Source: loopDevice(t, "/third"), Target: "/data/hung"},
		{Source: "tmpfs", Target: "/data/memory", Type: "tmpfs"},
	}, nil); len(errs) > 0 {
		t.Fatal(errs)
	}
	busy, err1 := unix.Open("/data/busy", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	written, err2 := unix.Open("/data/written/log", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	memory, err3 := unix.Open("/data/memory/log", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	var order, asked said // what hangs runs beside the others
	release := make(chan struct{})
	h := kernel
	h.limit = 5 * time.Second
	h.sync = func() { order.say("sync") }
	h.trigger = func(key byte) error { order.say("sysrq " + string(key)); return nil }
	h.unmount = func(target string, flags int) error {
		if flags&unix.MNT_DETACH != 0 {
			order.say("lazily " + target)
		}
		if target == "/data/hung" {
			if asked.say(target); flags&unix.MNT_DETACH == 0 {
				<-release
				return unix.EIO
			}
		}
		return unix.Unmount(target, flags)
	}
	var s said
	left := h.unmountAll("/nosys", s.say)
	close(release)
	slices.Sort(left)
	want := []string{"/data/busy: device or resource busy; it is read-only", "/data/hung: hangs for 5s; unmounted lazily", "/data/written: device or resource busy; unmounted lazily"}
	if !slices.Equal(left, want) {
		t.Errorf("left:\n got %q\nwant %q", left, want)
	}
	if len(asked.all()) != 2 {
		t.Errorf("what hangs was unmounted %d times, want once and once lazily", len(asked.all()))
	}
	lines := order.all()
	if len(lines) == 5 {
		slices.Sort(lines[2:4])
	}
	if want := []string{"sync", "sysrq u", "lazily /data/hung", "lazily /data/written", "sync"}; !slices.Equal(lines, want) {
		t.Errorf("order %q, want %q", lines, want)
	}
	if m := at(t, "/data/busy"); !strings.HasPrefix(m.SuperOptions, "ro") {
		t.Errorf("what is busy is %+v", m)
	}
	if !s.has("told to make all of it read-only") || !s.has("unmount /data/hung: it hangs for 500ms") {
		t.Errorf("said %q", s.lines)
	}
	unix.Close(busy)
	unix.Close(written)
	unix.Close(memory)
}

// Sync waits as long as less is left, and no longer.
func TestSync(t *testing.T) {
	meminfo := filepath.Join(t.TempDir(), "meminfo")
	write := func(kib int) {
		if err := os.WriteFile(meminfo, fmt.Appendf(nil, "MemTotal: 1 kB\nDirty: %d kB\nWriteback: 1 kB\n", kib), 0o644); err != nil {
			t.Error(err)
		}
	}
	h := kernel
	written := make(chan struct{})
	h.sync = func() { <-written }
	left := 40 << 10 // less each time that it is looked at
	lines := 0
	err := h.syncAll(func() int {
		write(left)
		left -= 10 << 10
		return dirtyOf(meminfo)
	}, time.Millisecond, func(line string) {
		lines++
		if want := fmt.Sprintf(", %d MiB are left", 40-10*lines); !strings.HasSuffix(line, want) {
			t.Errorf("said %q, want %q", line, want)
		}
		if lines == 2 {
			close(written)
		}
	})
	if err != nil || lines < 2 {
		t.Errorf("a slow sync = %v, said %d lines, want 2 at least", err, lines)
	}
	same := func() int { return 1 << 10 }
	h.sync = func() {}
	if err := h.syncAll(same, time.Minute, sayNothing); err != nil {
		t.Errorf("sync = %v", err)
	}
	release := make(chan struct{})
	defer close(release)
	h.sync = func() { <-release }
	if err := h.syncAll(same, 10*time.Millisecond, sayNothing); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a sync that gets nowhere = %v", err)
	}
}
