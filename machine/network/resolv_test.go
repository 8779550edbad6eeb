package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWriteResolvConf(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(in("old"), []byte("nameserver 203.0.113.1\n"), 0o600))
	must(os.Symlink("old", in("link")))
	must(os.Symlink("run/there/resolv.conf", in("dangling")))
	must(os.Symlink("loop", in("loop")))
	text := resolvConf([]netip.Addr{netip.MustParseAddr("192.0.2.53")}, nil)
	for path, target := range map[string]string{"new": "new", "link": "old", "dangling": "run/there/resolv.conf"} {
		must(writeResolvConf(in(path), text))
		if b, err := os.ReadFile(in(target)); string(b) != text || err != nil {
			t.Errorf("%s: %q, %v", path, b, err)
		}
		if st, err := os.Stat(in(target)); err != nil || st.Mode() != 0o644 {
			t.Errorf("%s: mode %v, %v", path, st.Mode(), err)
		}
	}
	for _, path := range []string{"link", "dangling"} {
		if st, err := os.Lstat(in(path)); err != nil || st.Mode()&os.ModeSymlink == 0 {
			t.Errorf("%s is no link any more: %v", path, err)
		}
	}
	if err := writeResolvConf(in("loop"), text); err == nil {
		t.Error("a link to itself was followed")
	}
	if left, _ := filepath.Glob(in(".*")); len(left) > 0 {
		t.Errorf("left: %s", left)
	}
	// Who reads has the old file, whole.
	f, err := os.Open(in("old"))
	must(err)
	defer f.Close()
	must(writeResolvConf(in("old"), text+"# more\n"))
	b := make([]byte, 1000)
	if n, _ := f.Read(b); string(b[:n]) != text {
		t.Errorf("the old file has %q", b[:n])
	}
}

// Four name servers are written, and that only three are asked.
func TestResolvConf(t *testing.T) {
	var dns []netip.Addr
	for i := range byte(4) {
		dns = append(dns, netip.AddrFrom4([4]byte{192, 0, 2, i + 1}))
	}
	want := "# written by pazinit\nsearch a b\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n# programs ask no more than the first three\nnameserver 192.0.2.4\n"
	if got := resolvConf(dns, []string{"a", "b"}); got != want {
		t.Errorf("resolvConf() = %q", got)
	}
	if got := resolvConf(nil, nil); got != "" {
		t.Errorf("resolvConf() = %q", got)
	}
}

// On a root that is read-only the file is in the state's folder. A mounted file
// is written in place.
func TestReadOnlyRoot(t *testing.T) {
	needNetwork(t)
	c := Config{DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}
	dir := t.TempDir()
	etc := filepath.Join(dir, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	mount := func(source, target, kind string, flags uintptr) {
		t.Helper()
		if err := unix.Mount(source, target, kind, flags, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	}
	mount("tmpfs", etc, "tmpfs", unix.MS_RDONLY)
	r := start(t, c, dir)
	r.hears("read-only file system; name servers are in " + filepath.Join(dir, "resolv.conf"))
	r.hears("network is up")
	if b, err := os.ReadFile(filepath.Join(dir, "resolv.conf")); !strings.Contains(string(b), "192.0.2.53") || r.state().ResolvConf != filepath.Join(dir, "resolv.conf") {
		t.Errorf("%q, %v; state %+v", b, err, r.state())
	}

	dir = t.TempDir()
	outside, inside := filepath.Join(dir, "outside"), filepath.Join(dir, "etc", "resolv.conf")
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{outside, inside} {
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mount(outside, inside, "", unix.MS_BIND)
	r = start(t, c, dir)
	r.hears("network is up")
	if b, err := os.ReadFile(outside); !strings.Contains(string(b), "192.0.2.53") {
		t.Errorf("%q, %v", b, err)
	}
}

func TestReadState(t *testing.T) {
	path := filepath.Join(t.TempDir(), StateFile)
	for _, text := range []string{"", "{", "[]", `{"interfaces": [{"name": "a", "lease": {"address": "x"}}]}`, strings.Repeat(" ", maxState+1)} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := readState(path); len(got) != 0 {
			t.Errorf("readState(%.50q) = %+v", text, got)
		}
	}
	for _, l := range []Lease{
		{},
		{Address: netip.MustParsePrefix("0.0.0.0/0"), Server: netip.MustParseAddr("192.0.2.1")},
		{Address: netip.MustParsePrefix("192.0.2.7/24")},
		{Address: netip.MustParsePrefix("192.0.2.7/24"), Server: netip.MustParseAddr("192.0.2.1"), Search: []string{"a\nb"}},
		{Address: netip.MustParsePrefix("192.0.2.7/24"), Server: netip.MustParseAddr("192.0.2.1"), Routes: make([]Route, 1)},
		{Address: netip.MustParsePrefix("192.0.2.7/24"), Server: netip.MustParseAddr("192.0.2.1"), Renew: 3 * time.Second, Rebind: time.Second, Expiry: 2 * time.Second},
	} {
		if l.sane() {
			t.Errorf("%+v is taken from a file", l)
		}
	}
}
