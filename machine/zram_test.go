package machine

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMakeZram(t *testing.T) {
	fake := func(t *testing.T) string {
		root := t.TempDir()
		write(t, filepath.Join(root, "sys/class/zram-control/hot_add"), "3\n")
		write(t, filepath.Join(root, "sys/class/zram-control/hot_remove"), "")
		write(t, filepath.Join(root, "sys/block/zram3/disksize"), "")
		write(t, filepath.Join(root, "sys/block/zram3/comp_algorithm"), "[lzo]")
		write(t, filepath.Join(root, "dev/zram3"), "")
		return root
	}
	on := func(string) error { return nil }
	page := os.Getpagesize()

	root := fake(t)
	var loaded []string
	load := func(name string) { loaded = append(loaded, name) }
	_, err := makeZram(root, int64(100*page+1), "", load, on)
	if err != nil || !slices.Equal(loaded, []string{"crypto-lzo"}) {
		t.Errorf("makeZram loads %q, %v, want crypto-lzo", loaded, err)
	}
	device, err := makeZram(root, int64(100*page+1), "zstd", load, on)
	if err != nil || device != filepath.Join(root, "dev/zram3") {
		t.Fatalf("makeZram = %q, %v", device, err)
	}
	b := read(t, device)
	if len(b) != page || string(b[page-10:]) != "SWAPSPACE2" || binary.NativeEndian.Uint32(b[1024:]) != 1 ||
		binary.NativeEndian.Uint32(b[1028:]) != 99 {
		t.Errorf("the header has %d bytes, version %d, last page %d, want a page, 1, 99",
			len(b), binary.NativeEndian.Uint32(b[1024:]), binary.NativeEndian.Uint32(b[1028:]))
	}
	if got := string(read(t, filepath.Join(root, "sys/block/zram3/comp_algorithm"))); got != "zstd]" { // over "[lzo]"
		t.Errorf("algorithm = %q, want zstd", got)
	}

	for name, c := range map[string]struct {
		spoil func(root string)
		size  int
		on    func(string) error
		says  string
	}{
		"too small": {func(string) {}, 1, on, "at least"},
		"no zram":   {func(root string) { os.RemoveAll(root + "/sys") }, 64 * page, on, "unsupported"},
		"no number": {func(root string) { write(t, root+"/sys/class/zram-control/hot_add", "x") }, 64 * page, on, "is no number"},
		"no device": {func(root string) { os.Remove(root + "/dev/zram3") }, 64 * page, on, "make swap on"},
		"refused":   {func(string) {}, 64 * page, func(string) error { return unix.EPERM }, "swap on "},
	} {
		root := fake(t)
		c.spoil(root)
		_, err := makeZram(root, int64(c.size), "", load, c.on)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		if removed, err := os.ReadFile(root + "/sys/class/zram-control/hot_remove"); err == nil &&
			(name == "no device" || name == "refused") && string(removed) != "3" {
			t.Errorf("%s: the device is left", name)
		}
	}
}

// TestZram swaps to a small device of this kernel's, and takes it away again.
func TestZram(t *testing.T) {
	needRoot(t)
	if must("zram") {
		if errs := LoadModules([]string{"zram num_devices=0"}); len(errs) > 0 {
			t.Error(errs)
		}
	}
	device, err := makeZram("/", 4<<20, "", func(name string) { _ = LoadModules([]string{name}) }, swapOnDevice)
	if errors.Is(err, errors.ErrUnsupported) {
		need(t, "zram", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if swaps := string(read(t, "/proc/swaps")); !strings.Contains(swaps, device+" ") || !strings.Contains(swaps, "4092") {
		t.Errorf("/proc/swaps has no %s of 4092 KiB:\n%s", device, swaps)
	}
	if err := swapoff(device); err != nil {
		t.Fatalf("swap off %s: %v", device, err)
	}
	if err := writeTo("/sys/class/zram-control/hot_remove", strings.TrimPrefix(device, "/dev/zram")); err != nil {
		t.Errorf("remove %s: %v", device, err)
	}
}
