package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeDisks is a /sys and a /dev with files instead of devices.
type fakeDisks struct {
	t   *testing.T
	f   finder
	dir string
}

func newFakeDisks(t *testing.T) *fakeDisks {
	dir := t.TempDir()
	d := &fakeDisks{t, finder{sys: dir + "/sys", dev: dir + "/dev"}, dir}
	for _, sub := range []string{"sys/class/block", "sys/devices", "dev"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func (d *fakeDisks) write(path, text string) {
	d.t.Helper()
	path = filepath.Join(d.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// add makes a disk, or a partition of the disk before the slash; the node comes
// last, as in a devtmpfs.
func (d *fakeDisks) add(name, number, uevent string, data []byte) {
	d.t.Helper()
	folder := "sys/devices/" + name
	base := filepath.Base(name)
	major, minor, _ := strings.Cut(number, ":")
	d.write(folder+"/size", fmt.Sprintf("%d\n", (len(data)+511)/512))
	d.write(folder+"/uevent", fmt.Sprintf("MAJOR=%s\nMINOR=%s\nDEVNAME=%s\n%s", major, minor, base, uevent))
	if err := os.Symlink("../../devices/"+name, filepath.Join(d.dir, "sys/class/block", base)); err != nil {
		d.t.Fatal(err)
	}
	d.write("dev/."+base, string(data))
	if err := os.Rename(filepath.Join(d.dir, "dev/."+base), filepath.Join(d.dir, "dev", base)); err != nil {
		d.t.Fatal(err)
	}
}

// disks has most of what there is.
func disks(t *testing.T) *fakeDisks {
	d := newFakeDisks(t)
	gpt := sample(t, "gpt")
	d.add("vda", "254:0", "DEVTYPE=disk\n", gpt)
	d.add("vda/vda1", "254:1", "DEVTYPE=partition\nPARTN=1\n", sample(t, "ext4"))
	d.add("vda/vda2", "254:2", "DEVTYPE=partition\nPARTN=2\nPARTNAME=kernel's\n", sample(t, "swap"))
	d.add("vdb", "254:16", "DEVTYPE=disk\n", sample(t, "fat16"))
	d.add("vdc", "254:32", "DEVTYPE=disk\n", sample(t, "f2fs")) // part of dm-0
	d.write("sys/devices/vdc/holders/dm-0", "")
	d.add("dm-0", "253:0", "DEVTYPE=disk\n", sample(t, "f2fs"))
	d.add("vdd", "254:48", "DEVTYPE=disk\nPARTUUID=from-the-kernel\n", sample(t, "mbr"))
	d.add("vdd/vdd1", "254:49", "PARTN=1\n", sample(t, "xfs"))
	d.add("vdd/vdd10", "254:58", "PARTN=10\n", sample(t, "erofs"))
	d.add("loop0", "7:0", "", nil) // nothing in it
	return d
}

func TestFindDevice(t *testing.T) {
	d := disks(t)
	for spec, want := range map[string]string{
		"/dev/vdb":           "vdb",
		"LABEL=four":         "vda1",
		"LABEL=\"four\"":     "vda1",
		"UUID=1234-abcd":     "vdb",
		"LABEL=grüße":        "dm-0",
		"LABEL=ex":           "vdd1",
		"PARTLABEL=my data":  "vda1",
		"PARTLABEL=kernel's": "vda2",
		"PARTUUID=" + strings.ToUpper(sampleUUID):                    "vda1",
		"PARTUUID=deadbeef-0a":                                       "vdd10",
		"PARTUUID=from-the-kernel":                                   "vdd",
		"PARTUUID=" + sampleUUID + "/PARTNROFF=1":                    "vda2",
		"PARTUUID=11111111-2222-3333-4444-555566667777/PARTNROFF=-1": "vda1",
		"254:49":                             "vdd1",
		"fe02":                               "vda2",
		"/dev/disk/by-label/four":            "vda1",
		"/dev/disk/by-partlabel/my\\x20data": "vda1",
		"/dev/disk/by-uuid/1234-ABCD":        "vdb",
	} {
		got, err := d.f.find(spec, 0, sayNothing)
		if err != nil || got.Path != filepath.Join(d.f.dev, want) {
			t.Errorf("find(%s) = %s, %v, want %s", spec, got.Path, err, want)
		}
	}
	for _, spec := range []string{"", "vda", "/dev/", "LABEL=", "LABEL=\"\"", "FOO=x", "1:x", "no such", "PARTUUID=x/PARTNROFF=y"} {
		if got, err := d.f.find(spec, 0, sayNothing); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("find(%q) = %s, %v, want an error about the word", spec, got.Path, err)
		}
	}
	_, err := d.f.find("UUID=none", 0, sayNothing)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `vda1 (ext4 LABEL="four" UUID=`+sampleUUID+`)`) || strings.Contains(err.Error(), "loop0") {
		t.Errorf("find(UUID=none) = %v, want a list of what there is", err)
	}
	if _, err := newFakeDisks(t).f.find("UUID=none", 0, sayNothing); !strings.Contains(fmt.Sprint(err), "no block device") {
		t.Errorf("without devices: %v", err)
	}
	if _, err := (finder{sys: t.TempDir(), dev: t.TempDir()}).find("UUID=none", 0, sayNothing); err == nil || errors.Is(err, fs.ErrNotExist) && !strings.Contains(err.Error(), "list block devices") {
		t.Errorf("without /sys: %v", err)
	}
}

func TestFindDeviceTwice(t *testing.T) {
	d := newFakeDisks(t)
	d.add("sda10", "8:10", "", sample(t, "ext4"))
	d.add("sda9", "8:9", "", sample(t, "ext4"))
	var said string
	got, err := d.f.find("LABEL=four", 0, func(s string) { said = s })
	if err != nil || filepath.Base(got.Path) != "sda9" || !strings.Contains(said, "2 devices") {
		t.Errorf("find = %s, %v; said %q", got.Path, err, said)
	}
}

// What is waited for comes while it is waited for, and other things before it.
func TestFindLateDevice(t *testing.T) {
	for _, wait := range []time.Duration{-1, time.Minute} {
		d := newFakeDisks(t)
		var said []string
		got, err := d.f.find("LABEL=four", wait, func(s string) {
			said = append(said, s)
			go func() {
				d.add("vda", "254:0", "", sample(t, "gpt"))
				d.add("vda/vda1", "254:1", "PARTN=1\n", sample(t, "ext2"))
				d.add("vda/vda2", "254:2", "PARTN=2\n", sample(t, "ext4"))
			}()
		})
		if err != nil || filepath.Base(got.Path) != "vda2" {
			t.Errorf("find = %s, %v", got.Path, err)
		}
		if len(said) != 1 || !strings.Contains(said[0], "waiting for LABEL=four") {
			t.Errorf("said %q", said)
		}
	}
}

// Waiting costs no processor time, and ends.
func TestFindDeviceGivesUp(t *testing.T) {
	d := disks(t)
	runtime.LockOSThread() // what other tests have left running does not count
	defer runtime.UnlockOSThread()
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	_, err := d.f.find("LABEL=none", 300*time.Millisecond, sayNothing)
	took := time.Since(begin)
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &after); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, fs.ErrNotExist) || took < 300*time.Millisecond {
		t.Errorf("find = %v after %v", err, took)
	}
	if cpu := time.Duration(after.Utime.Nano() - before.Utime.Nano()); cpu > 200*time.Millisecond {
		t.Errorf("waiting for 300 ms took %v of processor time", cpu)
	}
	if n := after.Nvcsw - before.Nvcsw; n > 2000 {
		t.Errorf("waiting took %d switches", n)
	}
}

// A disk that hangs is not asked twice, and the others are found.
func TestFindDeviceHangs(t *testing.T) {
	d := newFakeDisks(t)
	d.add("vda", "254:0", "", sample(t, "gpt"))
	d.add("vdb", "254:16", "", sample(t, "ext4"))
	hung := map[string]bool{d.f.dev + "/vda": true}
	found, err := d.f.look("LABEL", "four", hung)
	if err != nil || len(found) != 1 {
		t.Errorf("look = %v, %v", found, err)
	}
}

func TestWithin(t *testing.T) {
	release, came := make(chan struct{}), make(chan error, 1)
	slow := make(chan time.Duration, 1)
	err := within(50*time.Millisecond, func(d time.Duration) { slow <- d }, func(err error) { came <- err },
		func() error { <-release; return unix.EIO })
	var hung errHung
	if !errors.As(err, &hung) || !strings.Contains(err.Error(), "hangs for 50ms") {
		t.Errorf("within = %v", err)
	}
	if d := <-slow; d != 5*time.Millisecond {
		t.Errorf("said that it hangs after %v", d)
	}
	close(release)
	if err := <-came; !errors.Is(err, unix.EIO) {
		t.Errorf("late = %v", err)
	}
	if err := within(time.Minute, nil, nil, func() error { panic("oops") }); err == nil || !strings.Contains(err.Error(), "oops") || !strings.Contains(err.Error(), "device_test.go") {
		t.Errorf("a panic is %v", err)
	}
	if err := within(time.Minute, nil, nil, func() error { return nil }); err != nil {
		t.Errorf("within = %v", err)
	}
}

// loopDevice attaches a loop device to a file until the test and its mounts are
// gone.
func loopDevice(t *testing.T, file string) string {
	t.Helper()
	path, err := attachLoop(t, file)
	if err != nil {
		t.Fatalf("attach a loop device: %v", err)
	}
	return path
}

func attachLoop(t *testing.T, file string) (string, error) {
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(control)
	back, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(back)
	for range 100 { // somebody else may be quicker
		n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", err
		}
		path := fmt.Sprintf("/dev/loop%d", n)
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		err = unix.IoctlLoopConfigure(fd, &unix.LoopConfig{Fd: uint32(back), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}})
		if err == nil { // open until the end: the last one to close it detaches
			t.Cleanup(func() { unix.Close(fd) })
			return path, nil
		}
		unix.Close(fd)
		if !errors.Is(err, unix.EBUSY) {
			return "", err
		}
	}
	return "", unix.EBUSY
}

// image writes a sample to a file of its full size.
func image(t *testing.T, name string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".img")
	if err := os.WriteFile(path, sample(t, name), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// relabel gives an ext2 file system another label: others may test at the same
// time.
func relabel(t *testing.T, path, label string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte(fmt.Sprintf("%-16s", label)), 1024+0x78)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The kernel says when a device has come: a loop device gets its file while its
// label is waited for.
func TestFindLateLoop(t *testing.T) {
	needRoot(t)
	label := fmt.Sprintf("late%d", os.Getpid())
	img := image(t, "ext2", 1<<20)
	relabel(t, img, label)
	attached := make(chan string, 1)
	d, err := system.find("LABEL="+label, time.Minute, func(string) {
		go func() {
			path, err := attachLoop(t, img)
			if err != nil {
				t.Errorf("attach: %v", err)
			}
			attached <- path
		}()
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := <-attached; d.Path != want || d.content.Type != "ext2" {
		t.Errorf("found %s (%s), attached %s", d.Path, d.content, want)
	}
	if path, err := FindDevice(d.Number, 0); err != nil || path != d.Path {
		t.Errorf("FindDevice(%s) = %s, %v", d.Number, path, err)
	}
	if _, err := FindDevice("/dev/null", 0); err == nil || !strings.Contains(err.Error(), "no block device") {
		t.Errorf("FindDevice(/dev/null): %v", err)
	}
}

func FuzzSpec(f *testing.F) {
	for _, s := range []string{"/dev/vda", "LABEL=x", "254:1", "fe01", "/dev/disk/by-label/a\\x20b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if key, value, err := parseSpec(s); err == nil && (key == "" || value == "") {
			t.Errorf("parseSpec(%q) = %q, %q", s, key, value)
		}
	})
}
