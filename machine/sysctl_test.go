package machine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSysctlPath(t *testing.T) {
	for name, want := range map[string]string{
		"vm.swappiness":                     "vm/swappiness",
		"vm/swappiness":                     "vm/swappiness",
		"net.ipv4.conf.eth0/100.forwarding": "net/ipv4/conf/eth0.100/forwarding",
		"net/ipv4/conf/eth0.100/forwarding": "net/ipv4/conf/eth0.100/forwarding",
		"":                                  "",
		"../x":                              "",
		"a/../../x":                         "",
		"/etc/passwd":                       "",
		".vm":                               "",
		"vm..x":                             "",
		".":                                 "",
	} {
		got, err := sysctlPath(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("sysctlPath(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestSysctls(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "vm/swappiness"), "6\n")
	write(t, filepath.Join(dir, "net/a/b.c"), "")
	errs := sysctls(dir, map[string]string{
		"vm.swappiness": "7", "net.a.b/c": "1 2", "-vm.none": "1", "vm.missing": "1", "../x": "1",
	})
	if got := string(read(t, filepath.Join(dir, "vm/swappiness"))); got != "7\n" {
		t.Errorf("vm.swappiness = %q, want 7", got)
	}
	if got := string(read(t, filepath.Join(dir, "net/a/b.c"))); got != "1 2\n" {
		t.Errorf("net.a.b/c = %q, want 1 2", got)
	}
	if len(errs) != 2 || !strings.HasPrefix(errs[0].Error(), `set ../x to "1": not a sysctl's name`) ||
		errs[1].Error() != `set vm.missing to "1": no such file or directory` {
		t.Errorf("sysctls = %v, want two errors", errs)
	}
	if _, err := os.Stat(filepath.Join(dir, "vm/missing")); err == nil {
		t.Error("a file was made for a sysctl that is not there")
	}
}

// TestSysctlsOfKernel sets one of a network namespace, and one to a value that
// the kernel refuses.
func TestSysctlsOfKernel(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWNET) {
		return
	}
	if errs := Sysctls(map[string]string{"net.ipv4.ip_default_ttl": "33"}); len(errs) > 0 {
		t.Fatal(errs)
	}
	if got := string(read(t, "/proc/sys/net/ipv4/ip_default_ttl")); got != "33\n" {
		t.Errorf("ttl = %q, want 33", got)
	}
	errs := Sysctls(map[string]string{"net.ipv4.ip_default_ttl": "many"})
	if len(errs) != 1 || errs[0].Error() != `set net.ipv4.ip_default_ttl to "many": invalid argument` {
		t.Errorf("Sysctls = %v, want it refused", errs)
	}
}

func TestSetKernelPanic(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "kernel/panic")
	var got []string
	for _, d := range []time.Duration{10 * time.Second, 1500 * time.Millisecond, 0, -1, -time.Hour} {
		write(t, file, "")
		if err := setKernelPanic(dir, d); err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.TrimSpace(string(read(t, file))))
	}
	if want := []string{"10", "2", "0", "-1", "-1"}; !slices.Equal(got, want) {
		t.Errorf("kernel.panic = %q, want %q", got, want)
	}
	if err := setKernelPanic(t.TempDir(), 0); err == nil {
		t.Error("no error without /proc")
	}
}
