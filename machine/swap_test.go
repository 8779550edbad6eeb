package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
		errs := h.swapOn(d.f, list, []string{c.spec}, 0)
		switch {
		case c.err == "" && (len(errs) > 0 || strings.Join(got, ";") != c.want):
			t.Errorf("%q: %q, %v, want %q", c.spec, got, errs, c.want)
		case c.err != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), c.err) || len(got) > 0):
			t.Errorf("%q: %q, %v, want an error with %q", c.spec, got, errs, c.err)
		}
	}
}

func TestSwapOff(t *testing.T) {
	list := filepath.Join(t.TempDir(), "swaps")
	text := "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/vda2 partition 1 0 -2\n/a\\040b file 1 0 -3\n/dev/zram0 partition 1 0 100\n"
	if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var got said // what hangs runs beside the others
	release := make(chan struct{})
	defer close(release)
	h := kernel
	h.limit = 50 * time.Millisecond
	h.swapoff = func(path string) error {
		switch got.say(path); path {
		case "/a b":
			return unix.ENOMEM
		case "/dev/zram0":
			<-release
		}
		return nil
	}
	errs := h.swapOffAll(list)
	if want := []string{"/dev/zram0", "/a b", "/dev/vda2"}; !slices.Equal(got.lines, want) {
		t.Errorf("stopped %q, want %q", got.lines, want)
	}
	if len(errs) != 2 || !strings.Contains(errs[0].Error(), "swap off /dev/zram0: hangs") || !strings.Contains(errs[1].Error(), "swap off /a b: cannot allocate memory") {
		t.Errorf("errors %v", errs)
	}
	if errs := h.swapOffAll(list + "none"); len(errs) > 0 {
		t.Errorf("a kernel without swap: %v", errs)
	}
}

// A device of the machine is used, and is given back.
func TestSwapReal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	path := loopDevice(t, image(t, "swap", 1<<20))
	for range 2 { // the second time it is in use already
		if errs := SwapOn([]string{path + " pri=0"}, 0); len(errs) > 0 {
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
	if errs := SwapOn([]string{"/dev/null"}, 0); len(errs) != 1 {
		t.Errorf("swap on /dev/null: %v", errs)
	}
}
