package cgroupfs

import (
	"slices"
	"testing"
)

const hybrid = `22 1 254:0 / / rw - ext4 /dev/vda rw
31 22 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
34 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
35 31 0:31 /docker/a\040b /sys/fs/cgroup/my\040pids rw - cgroup cgroup rw,pids
36 31 0:32 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
37 31 0:33 / /elsewhere rw - cgroup2 cgroup2 rw
bad line
`

func TestMounts(t *testing.T) {
	all := mounts([]byte(hybrid), "/sys/fs/cgroup")
	var got []string
	for _, m := range preferred(all, []string{"memory", "cpu"}) {
		got = append(got, m.point)
	}
	want := []string{
		"/sys/fs/cgroup/unified", "/sys/fs/cgroup/my pids", "/sys/fs/cgroup/freezer",
		"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd",
	}
	if !slices.Equal(got, want) {
		t.Errorf("preferred(mounts()) = %q, want %q", got, want)
	}
	if got := mounts([]byte(hybrid), "/elsewhere"); len(got) != 1 || got[0].point != "/elsewhere" {
		t.Errorf("mounts(/elsewhere) = %v, want that one", got)
	}
	if got := mounts([]byte(hybrid), "/sys/fs/cgr"); len(got) != 0 {
		t.Errorf("mounts(/sys/fs/cgr) = %v, want none", got)
	}
}

func TestOwnPath(t *testing.T) {
	const own = "9:name=systemd:/\n8:pids:/docker/a b/x\n4:cpu,cpuacct:/own\n0::/user.slice/me\n"
	v2 := func(root string) mount { return mount{root: root, version: 2} }
	v1 := func(root string, options ...string) mount {
		return mount{root: root, version: 1, options: options}
	}
	for _, test := range []struct {
		m      mount
		cgroup string
		want   string
		ok     bool
	}{
		{v2("/"), own, "user.slice/me", true},
		{v2("/user.slice"), own, "me", true},
		{v2("/user.slice/me"), own, ".", true},
		{v2("/user"), own, "", false},
		{v2("/"), "0::/../other\n", "", false},
		{v2("/"), "0::/a/../b\n", "", false},
		{v2("/"), "0::relative\n", "", false},
		{v2("/"), "8:pids:/x\n", "", false},
		{v1("/docker/a b", "rw", "pids"), own, "x", true},
		{v1("/", "rw", "cpu", "cpuacct"), own, "own", true},
		{v1("/", "rw", "xattr", "name=systemd"), own, ".", true},
		{v1("/", "rw", "memory"), own, "", false},
	} {
		got, ok := test.m.ownPath([]byte(test.cgroup))
		if ok != test.ok || ok && got != test.want {
			t.Errorf("ownPath(%v, %q) = %q, %v, want %q, %v", test.m, test.cgroup, got, ok, test.want, test.ok)
		}
	}
}

func TestHolderIn(t *testing.T) {
	const locks = `1: FLOCK  ADVISORY  WRITE 812 00:26:5 0 EOF
1: -> FLOCK  ADVISORY  WRITE 813 00:26:5 0 EOF
2: POSIX  ADVISORY  WRITE 814 00:26:6 0 EOF
3: FLOCK  ADVISORY  WRITE 0 00:26:7 0 EOF
`
	for file, want := range map[string]int{"00:26:5": 812, "00:26:6": 0, "00:26:7": 0, "00:26:8": 0} {
		if got := holderIn([]byte(locks), file); got != want {
			t.Errorf("holderIn(%s) = %d, want %d", file, got, want)
		}
	}
}

func FuzzMounts(f *testing.F) {
	f.Add([]byte(hybrid), []byte("0::/a/b\n8:pids:/x\n"))
	f.Fuzz(func(t *testing.T, mountinfo, cgroup []byte) {
		for _, m := range preferred(mounts(mountinfo, "/"), nil) {
			if own, ok := m.ownPath(cgroup); ok && own != "." && checkName(own) != nil && len(own) < 255 {
				for _, c := range []byte(own) {
					if c < ' ' || c == 0x7f {
						return // the kernel allows those elsewhere
					}
				}
				t.Errorf("ownPath() = %q, which leads out of the mount", own)
			}
		}
		holderIn(cgroup, "00:00:0")
	})
}
