package machine

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func nodename(t *testing.T) string {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(u.Nodename[:])
}

func TestSetHostname(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWUTS) {
		return
	}
	root := t.TempDir()
	for _, c := range []struct{ before, name, file, want, err string }{
		{"(none)", "", "", "localhost", ""},
		{"given", "", "", "given", ""},
		{"given", "vm1", "other\n", "vm1", ""},
		{"given", "", "# a comment\n\n vm2 \nvm3\n", "vm2", ""},
		{"given", "a b", "", "given", `set hostname "a b"`},
		{"given", strings.Repeat("x", 65), "", "given", "not a name of at most 64"},
		{"given", strings.Repeat("x", 64), "", strings.Repeat("x", 64), ""},
		{"given", "a/b", "", "given", "not a name"},
		{"given", "", "a\x1bb\n", "given", "not a name"},
	} {
		if err := unix.Sethostname([]byte(c.before)); err != nil {
			t.Fatal(err)
		}
		os.RemoveAll(filepath.Join(root, "etc"))
		if c.file != "" {
			write(t, filepath.Join(root, "etc/hostname"), c.file)
		}
		err := setHostname(root, c.name)
		if got := nodename(t); got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("setHostname(%q) with file %q: %q, %v, want %q, %q", c.name, c.file, got, err, c.want, c.err)
		}
	}
}

func TestMachineID(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	const uuid = "01234567-89AB-CDEF-0123-456789ABCDEF"
	for _, c := range []struct {
		name      string
		files     map[string]string
		container string
		want      string // "" is by chance
		err       string
	}{
		{"kept", map[string]string{"etc/machine-id": id + "\n"}, uuid, id, ""},
		{"from the container", map[string]string{"etc/machine-id": "uninitialized\n"}, uuid, id, ""},
		{"empty", map[string]string{"etc/machine-id": ""}, uuid, id, ""},
		{"from the hypervisor", map[string]string{"sys/class/dmi/id/sys_vendor": "QEMU\n", "sys/class/dmi/id/product_uuid": uuid + "\n"}, "", id, ""},
		{"not from a board", map[string]string{"sys/class/dmi/id/sys_vendor": "Maker\n", "sys/class/dmi/id/product_uuid": uuid + "\n"}, "", "", ""},
		{"not from zeros", map[string]string{"sys/class/dmi/id/sys_vendor": "QEMU\n",
			"sys/class/dmi/id/product_uuid": "00000000-0000-0000-0000-000000000000\n"}, "not one", "", ""},
		{"by chance", nil, "", "", ""},
		{"of an earlier start", map[string]string{"run/machine-id": id + "\n"}, "", id, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for path, text := range c.files {
				write(t, filepath.Join(root, path), text)
			}
			got, err := machineID(root, c.container)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := parseID(got); !ok || c.want != "" && got != c.want || c.want == "" && got == id {
				t.Errorf("machineID = %q, want %q", got, c.want)
			}
			if b := read(t, filepath.Join(root, "etc/machine-id")); string(b) != got+"\n" {
				t.Errorf("the file has %q, want %q", b, got)
			}
			if again, err := machineID(root, ""); again != got || err != nil {
				t.Errorf("again, machineID = %q, %v, want %q", again, err, got)
			}
		})
	}
}

// TestMachineIDInMemory is on a root that is read-only, or whose file somebody
// has filled with something else.
func TestMachineIDInMemory(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWNS) {
		return
	}
	for _, file := range []string{"", "uninitialized\n", "my machine\n"} {
		root := t.TempDir()
		if file != "" {
			write(t, filepath.Join(root, "etc/machine-id"), file)
		}
		write(t, filepath.Join(root, "etc/other"), "")
		if err := os.Mkdir(filepath.Join(root, "run"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", filepath.Join(root, "run"), "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil { // without run
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", filepath.Join(root, "run"), "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		if file != "my machine\n" {
			if err := unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
		}
		id, err := machineID(root, "")
		if _, ok := parseID(id); !ok || err == nil {
			t.Errorf("with %q machineID = %q, %v, want one, and why it is not kept", file, id, err)
		}
		if b := read(t, filepath.Join(root, "run/machine-id")); string(b) != id+"\n" {
			t.Errorf("with %q run/machine-id has %q, want %q", file, b, id)
		}
		if file != "" {
			if b := read(t, filepath.Join(root, "etc/machine-id")); string(b) != id+"\n" {
				t.Errorf("with %q etc/machine-id reads %q, want %q", file, b, id)
			}
		}
		if again, _ := machineID(root, ""); again != id {
			t.Errorf("with %q machineID again = %q, want %q", file, again, id)
		}
		_ = unix.Unmount(filepath.Join(root, "etc/machine-id"), 0)
		if file != "" {
			if b := read(t, filepath.Join(root, "etc/machine-id")); string(b) != file {
				t.Errorf("below the mount there is %q, want %q", b, file)
			}
		}
		for range 3 {
			_ = unix.Unmount(filepath.Join(root, "run"), unix.MNT_DETACH)
			_ = unix.Unmount(root, unix.MNT_DETACH)
		}
	}
}

func TestLoopback(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWNET) {
		return
	}
	connect := func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}})
	}
	if err := connect(); err == nil {
		t.Error("127.0.0.1 is there before")
	}
	for range 2 {
		if err := Loopback(); err != nil {
			t.Fatal(err)
		}
	}
	if err := connect(); err != nil {
		t.Errorf("connect to 127.0.0.1: %v", err)
	}
}
