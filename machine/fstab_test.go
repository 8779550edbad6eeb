package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseFstab(t *testing.T) {
	for _, c := range []struct {
		line string
		want Mount
		swap string
		err  string
	}{
		{line: "/dev/vdb /data ext4 defaults 0 2", want: Mount{Source: "/dev/vdb", Target: "/data", Type: "ext4", Options: []string{"defaults"}, Wait: lateDevice}},
		{line: "\t LABEL=a\\040b\t/my\\040data  auto\tnofail,ro", want: Mount{Source: "LABEL=a b", Target: "/my data", Type: "auto", Options: []string{"nofail", "ro"}, Optional: true}},
		{line: "UUID=\"x\" /m\\134n\\011o xfs", want: Mount{Source: "UUID=\"x\"", Target: "/m\\n\to", Type: "xfs", Options: []string{"defaults"}, Wait: lateDevice}},
		{line: "tag /host virtiofs nofail,x-systemd.device-timeout=5", want: Mount{Source: "tag", Target: "/host", Type: "virtiofs", Options: []string{"nofail", "x-systemd.device-timeout=5"}, Optional: true, Wait: 5 * time.Second}},
		{line: "a /a 9p x-systemd.device-timeout=1m30s 0 0 # why", want: Mount{Source: "a", Target: "/a", Type: "9p", Options: []string{"x-systemd.device-timeout=1m30s"}, Wait: 90 * time.Second}},
		{line: `tmpfs /t tmpfs size=1m,context="a,b"`, want: Mount{Source: "tmpfs", Target: "/t", Type: "tmpfs", Options: []string{"size=1m", `context="a,b"`}, Wait: lateDevice}},
		{line: "/dev/vdc none swap sw,pri=5", swap: "/dev/vdc sw,pri=5"},
		{line: "/swap\\040file none swap", swap: "/swap\\040file defaults"},
		{line: "# /dev/vdb /data ext4"},
		{line: "   "},
		{line: "/dev/sr0 /cd iso9660 noauto,ro"},
		{line: "x /x ignore"},
		{line: "/dev/vdb", err: "1 fields"},
		{line: "/dev/vdb /data", err: "2 fields"},
		{line: "/dev/vdb /my data ext4 defaults 0 0", err: "7 fields"},
		{line: "/dev/vdb data ext4", err: "no absolute path"},
		{line: "/dev/vdb /a/../../etc ext4", err: "goes upwards"},
		{line: "/dev/vdb /a\\057..\\057b ext4", err: "goes upwards"},
		{line: "/dev/vdb /a\\000b ext4", err: "zero byte"},
		{line: "/dev/vdb /a\\012b ext4", err: "line break"},
		{line: "/dev/vdb /" + strings.Repeat("a/", 3000) + " ext4", err: "the kernel takes"},
		{line: "/dev/vdb /a ext4 x-systemd.device-timeout=soon", err: "no time"},
		{line: "/dev/vdb /a ext4 " + strings.Repeat("o", 5000), err: "5000 bytes"},
		{line: "/img /a ext4 loop=/dev/loop0", err: "not understood"},
		{line: "/a /b none remount", err: "not understood"},
	} {
		mounts, swaps, errs := parseFstab("f", "\n"+c.line+"\n", sayNothing)
		if c.err != "" {
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), c.err) || !strings.HasPrefix(errs[0].Error(), "f:2: ") || len(mounts)+len(swaps) > 0 {
				t.Errorf("%.60q: %v, %v, %v, want an error with %q", c.line, mounts, swaps, errs, c.err)
			}
			continue
		}
		var wantMounts []Mount
		if c.want.Target != "" {
			wantMounts = []Mount{c.want}
		}
		var wantSwaps []string
		if c.swap != "" {
			wantSwaps = []string{c.swap}
		}
		if len(errs) > 0 || !reflect.DeepEqual(mounts, wantMounts) || !reflect.DeepEqual(swaps, wantSwaps) {
			t.Errorf("%q:\n got %+v %q %v\nwant %+v %q", c.line, mounts, swaps, errs, wantMounts, wantSwaps)
		}
	}
}

// A bad line with nofail is said and is no error, whatever is bad of it.
func TestBadFstabNofail(t *testing.T) {
	var s said
	text := "/a a ext4 rw,nofail\n/b /b ext4 remount,nofail 0 0\n/c nofail\n/d /d ext4 x=nofail,remount\n/e none swap nofail,x-systemd.device-timeout=x\n"
	mounts, swaps, errs := parseFstab("f", text, s.say)
	if len(mounts)+len(swaps) > 0 || len(s.lines) != 3 || !s.has("f:1: ") || !s.has("f:2: ") || !s.has("f:5: ") {
		t.Errorf("%v, %v, said %q, want lines 1, 2 and 5 said", mounts, swaps, s.lines)
	}
	if len(errs) != 2 || !strings.HasPrefix(errs[0].Error(), "f:3: ") || !strings.HasPrefix(errs[1].Error(), "f:4: ") {
		t.Errorf("errors %v, want lines 3 and 4", errs)
	}
}

// A bad line costs itself alone.
func TestReadFstab(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fstab")
	text := "\ufeff# a comment\r\n/dev/vdb /a ext4 rw 0 0\r\nbad\n/dev/vdc /c ext4\n/dev/vdd c ext4"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	mounts, _, err := ReadFstab(path, nil)
	if len(mounts) != 2 || mounts[0].Target != "/a" || mounts[0].Type != "ext4" || mounts[1].Target != "/c" {
		t.Errorf("mounts = %+v, want /a and /c", mounts)
	}
	if err == nil || !strings.Contains(err.Error(), path+":3: ") || !strings.Contains(err.Error(), path+":5: ") {
		t.Errorf("error = %v, want lines 3 and 5", err)
	}
	if err := os.Truncate(path, 1<<20+1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadFstab(path, nil); err == nil {
		t.Error("a file of more than 1 MiB is read")
	}
	if _, _, err := ReadFstab(path+"x", nil); !os.IsNotExist(err) && !strings.Contains(fmt.Sprint(err), "no such file") {
		t.Errorf("no file: %v", err)
	}
}

func TestParseOptions(t *testing.T) {
	for _, c := range []struct {
		list    []string
		flags   uintptr
		data    string
		cleared uintptr
	}{
		{nil, 0, "", 0},
		{[]string{"defaults"}, 0, "", 0},
		{[]string{"ro,noatime", "size=1m"}, unix.MS_RDONLY | unix.MS_NOATIME, "size=1m", 0},
		{[]string{"ro", "rw"}, 0, "", unix.MS_RDONLY},
		{[]string{"user", "exec"}, unix.MS_NOSUID | unix.MS_NODEV, "", unix.MS_NOEXEC},
		{[]string{"lowerdir=/a:/b", "upperdir=/u", "x-anything=1", "comment=x", "_netdev"}, 0, "lowerdir=/a:/b,upperdir=/u", 0},
	} {
		o, err := parseOptions(c.list)
		if err != nil || o.flags != c.flags || o.data != c.data || o.cleared != c.cleared {
			t.Errorf("parseOptions(%q) = %#x, %q, %#x, %v, want %#x, %q, %#x", c.list, o.flags, o.data, o.cleared, err, c.flags, c.data, c.cleared)
		}
	}
	for _, f := range flagWords {
		o, err := parseOptions([]string{f.word})
		if err != nil || o.flags != f.set || o.cleared != f.clear || o.data != "" {
			t.Errorf("option %s: %+v, %v", f.word, o, err)
		}
	}
	for _, p := range propagationWords {
		if o, _ := parseOptions([]string{p.word}); len(o.after) != 1 || o.after[0] != p.flag {
			t.Errorf("option %s: %+v", p.word, o)
		}
	}
}

func TestNetwork(t *testing.T) {
	for _, c := range []struct {
		m    Mount
		want bool
	}{
		{Mount{Type: "nfs4"}, true},
		{Mount{Type: "ext4", Options: []string{"ro,_netdev"}}, true},
		{Mount{Type: "virtiofs"}, false},
	} {
		if got := c.m.Network(); got != c.want {
			t.Errorf("%+v.Network() = %v", c.m, got)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`a\040b`: "a b", `\134`: `\`, `\134040`: `\040`, `\04`: `\04`, `\400`: `\400`, `\`: `\`, `a\x41`: `a\x41`, `\303\274`: "ü",
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzFstab(f *testing.F) {
	f.Add("/dev/vdb /data ext4 defaults 0 2\nLABEL=a\\040b /x auto nofail,x-systemd.device-timeout=5\n")
	f.Add("/dev/vdc none swap sw,pri=5\n# c\n")
	f.Fuzz(func(t *testing.T, s string) {
		mounts, swaps, errs := parseFstab("f", s, sayNothing)
		if n := strings.Count(s, "\n") + 1; len(mounts)+len(swaps)+len(errs) > n {
			t.Errorf("%d results of %d lines", len(mounts)+len(swaps)+len(errs), n)
		}
		for _, m := range mounts {
			if err := checkTarget(m.Target); err != nil {
				t.Errorf("%+v: %v", m, err)
			}
			if _, err := parseOptions(m.Options); err != nil {
				t.Errorf("%+v: %v", m, err)
			}
		}
	})
}

func FuzzMountinfo(f *testing.F) {
	f.Add("24 27 0:6 / /dev rw,relatime shared:2 - devtmpfs devtmpfs rw,size=1k\n25 24 0:23 / /dev/shm rw - tmpfs tmp\\040fs rw\n")
	f.Fuzz(func(t *testing.T, s string) {
		list := parseMountinfo(s)
		if got := deepestFirst(list); len(got) != len(list) {
			t.Errorf("deepestFirst of %d mounts has %d", len(list), len(got))
		}
	})
}
