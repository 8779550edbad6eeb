package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSwapOn(t *testing.T) {
	d := disks(t)
	file := filepath.Join(t.TempDir(), "swap file")
	used := filepath.Join(t.TempDir(), "used swap")
	list := filepath.Join(t.TempDir(), "swaps")
	escape := func(s string) string { return strings.ReplaceAll(s, " ", `\040`) }
	for path, text := range map[string]string{file: "", used: "", list: "Filename Type Size Used Priority\n" + escape(used) + "\tfile\t1\t0\t-2\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	vda2 := d.f.dev + "/vda2"
	for _, c := range []struct {
		spec string
		want string // path and flags
		err  string
	}{
		{"LABEL=swp", vda2 + " 0x0", ""},
		{"/dev/vda2 sw", vda2 + " 0x0", ""},
		{"UUID=" + sampleUUID + " pri=5,discard", "", "holds"}, // others have that id, too
		{escape(file) + " pri=32767,discard=once", file + " 0x3ffff", ""},
		{escape(file) + " discard=pages", file + " 0x50000", ""},
		{escape(file) + " pri=-1", file + " 0x0", ""},
		{escape(used), "", ""},
		{"LABEL=four", "", "holds ext4 and no swap"},
		{"LABEL=none", "", "file does not exist"},
		{"LABEL=none nofail", "", ""},
		{escape(file) + " pri=x,nofail", "", ""},
		{"LABEL=swp noauto", "", ""},
		{"relative", "", "neither a device nor an absolute path"},
		{"a b c", "", "neither a device nor"},
		{"", "", "neither a device nor"},
		{escape(file) + " pri=32768", "", "none of 0 to 32767"},
		{escape(file) + " pri=x", "", "none of 0 to 32767"},
		{escape(file) + " discard=all", "", "neither once nor pages"},
	} {
		var got []string
		h := kernel
		h.swapon = func(path string, flags int) error {
			got = append(got, fmt.Sprintf("%s %#x", path, flags))
			return nil
		}
		var lines said
		errs := h.swapOn(d.f, list, []string{c.spec}, 0, lines.say)
		if optional := strings.Contains(c.spec, "nofail"); optional != lines.has("swap on ") {
			t.Errorf("%q: said %q", c.spec, lines.lines)
		}
		switch {
		case c.err == "" && (len(errs) > 0 || strings.Join(got, ";") != c.want):
			t.Errorf("%q: %q, %v, want %q", c.spec, got, errs, c.want)
		case c.err != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), c.err) || len(got) > 0):
			t.Errorf("%q: %q, %v, want an error with %q", c.spec, got, errs, c.err)
		}
	}
}

func TestSwapOff(t *testing.T) {
	dir := t.TempDir()
	list, meminfo := filepath.Join(dir, "swaps"), filepath.Join(dir, "meminfo")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(list, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"+
		"/dev/vda2 partition 409600 102400 -2\n/a\\040b file 1 0 -3\n/dev/zram0 partition 1 1 100\n/dev/vdb partition 1 1 -4\n/dev/full partition 409600 204800 -5\n")
	write(meminfo, "MemTotal: 1000000 kB\nMemFree: 1 kB\nMemAvailable: 204800 kB\n")
	var got said // what hangs runs beside the others
	release := make(chan struct{})
	defer close(release)
	h := kernel
	h.unmount = func(string, int) error { return unix.EBUSY }
	h.limit = 50 * time.Millisecond
	h.swapoff = func(path string) error {
		switch got.say(path); path {
		case "/a b":
			return unix.ENOMEM
		case "/dev/vdb":
			<-release
		}
		return nil
	}
	errs := h.swapOffAll(list, meminfo, time.Minute)
	// Neither zram nor what does not fit: the kernel would panic.
	if want := []string{"/dev/vdb", "/a b", "/dev/vda2"}; !slices.Equal(got.lines, want) {
		t.Errorf("stopped %q, want %q", got.lines, want)
	}
	if len(errs) != 3 || errs[0].Error() != "swap off /dev/full: it stays on: it holds 200 MiB, and the memory has room for 138" ||
		!strings.Contains(errs[1].Error(), "swap off /dev/vdb: hangs") || !strings.Contains(errs[2].Error(), "swap off /a b: cannot allocate memory") {
		t.Errorf("errors %v", errs)
	}
	got.lines = nil
	if errs := h.swapOffAll(list, meminfo, 0); len(errs) != 4 || !errors.Is(errs[0], errNoTime) || len(got.lines) > 0 {
		t.Errorf("without time: %v, %q", errs, got.lines)
	}
	write(meminfo, "") // then nothing says that it fits
	if errs := h.swapOffAll(list, meminfo, time.Minute); len(errs) != 4 || !slices.Equal(got.lines, []string{"/a b"}) {
		t.Errorf("without /proc/meminfo: %v, %q", errs, got.lines)
	}
	if errs := h.swapOffAll(list+"none", meminfo, time.Minute); len(errs) > 0 {
		t.Errorf("a kernel without swap: %v", errs)
	}
}

// A tmpfs goes before swapping is stopped, but for what the end needs.
func TestSwapOffMemory(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWNS) {
		return
	}
	dir := scratch(t)
	list := filepath.Join(t.TempDir(), "swaps")
	if err := os.WriteFile(list, []byte("Filename Type Size Used Priority\n/dev/vda2 partition 1 0 -2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if errs := MountAll([]Mount{
		{Source: "tmpfs", Target: dir + "/a", Type: "tmpfs"}, {Source: "tmpfs", Target: dir + "/a/b", Type: "tmpfs"}, {Source: "tmpfs", Target: dir + "/busy", Type: "tmpfs"},
	}, nil); len(errs) > 0 {
		t.Fatal(errs)
	}
	fd, err := unix.Open(dir+"/busy", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var order []string
	h := kernel
	h.swapoff = func(path string) error { order = append(order, path); return nil }
	h.unmount = func(target string, flags int) error {
		if flags&unix.MNT_DETACH != 0 || target == "/" || target == "/dev" {
			t.Errorf("unmounts %s with %#x", target, flags)
		}
		if target == dir || !under(target, dir) {
			return unix.EBUSY
		}
		err := unix.Unmount(target, flags)
		if err == nil {
			order = append(order, strings.TrimPrefix(target, dir))
		}
		return err
	}
	if errs := h.swapOffAll(list, "/proc/meminfo", time.Minute); len(errs) > 0 {
		t.Error(errs)
	}
	if want := []string{"/a/b", "/a", "/dev/vda2"}; !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
}

// A device of the machine is used, and is given back.
func TestSwapReal(t *testing.T) {
	needRoot(t)
	path := loopDevice(t, image(t, "swap", 1<<20))
	for range 2 { // the second time it is in use already
		if errs := SwapOn([]string{path + " pri=0"}, 0, nil); len(errs) > 0 {
			t.Fatal(errs)
		}
	}
	names, err := swapsOf("/proc/swaps")
	if err != nil || !slices.Contains(names, path) {
		t.Errorf("swaps are %q, %v, want %s", names, err, path)
	}
	if err := swapoff(path); err != nil {
		t.Errorf("swapoff: %v", err)
	}
	if errs := SwapOn([]string{"/dev/null"}, 0, nil); len(errs) != 1 {
		t.Errorf("swap on /dev/null: %v", errs)
	}
}
