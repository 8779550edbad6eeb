package machine

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPower(t *testing.T) {
	fadt := func(maker string) map[string]string {
		return map[string]string{"sys/firmware/acpi/tables/FACP": "FACP\x14\x01\x00\x00\x06\x00" + maker + "rest"}
	}
	firecracker := unix.LINUX_REBOOT_CMD_RESTART
	if runtime.GOARCH != "amd64" {
		firecracker = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	for _, c := range []struct {
		what, argument string
		files          map[string]string
		want           int
	}{
		{"poweroff", "", nil, unix.LINUX_REBOOT_CMD_POWER_OFF},
		{"poweroff", "", fadt("BOCHS "), unix.LINUX_REBOOT_CMD_POWER_OFF},
		{"poweroff", "", fadt("FIRECK"), firecracker},
		{"poweroff", "", map[string]string{"proc/cmdline": "reboot=k panic=1\n"}, firecracker},
		{"poweroff", "", map[string]string{"proc/cmdline": "reboot=k\n", "sys/firmware/acpi/tables/DSDT": ""}, unix.LINUX_REBOOT_CMD_POWER_OFF},
		{"poweroff", "", map[string]string{"proc/cmdline": "reboot=ks\n"}, unix.LINUX_REBOOT_CMD_POWER_OFF},
		{"reboot", "", nil, unix.LINUX_REBOOT_CMD_RESTART},
		{"reboot", "recovery", nil, unix.LINUX_REBOOT_CMD_RESTART2},
		{"halt", "", nil, unix.LINUX_REBOOT_CMD_HALT},
		{"kexec", "", map[string]string{"sys/kernel/kexec_loaded": "1\n"}, unix.LINUX_REBOOT_CMD_KEXEC},
	} {
		root := t.TempDir()
		for path, text := range c.files {
			write(t, filepath.Join(root, path), text)
		}
		var got int
		var with string
		err := power(root, c.what, c.argument, func(cmd int, argument string) error {
			got, with = cmd, argument
			return nil
		})
		if err != nil || got != c.want || with != c.argument {
			t.Errorf("power(%s, %q) with %q = %#x, %q, %v, want %#x, %q", c.what, c.argument, c.files, got, with, err, c.want, c.argument)
		}
	}
}

func TestPowerRefused(t *testing.T) {
	root := t.TempDir()
	never := func(int, string) error { t.Error("reboot(2) was called"); return nil }
	if err := power(root, "kexec", "", never); err == nil || !strings.Contains(err.Error(), "no kernel is loaded") {
		t.Errorf("kexec without a kernel = %v", err)
	}
	write(t, filepath.Join(root, "sys/kernel/kexec_loaded"), "0\n")
	if err := power(root, "kexec", "", never); err == nil {
		t.Error("kexec without a kernel: no error")
	}
	if err := power(root, "restart", "", never); err == nil || !strings.Contains(err.Error(), `"restart" is none of`) {
		t.Errorf("an unknown end = %v", err)
	}
	err := power(root, "halt", "", func(int, string) error { return unix.EPERM })
	if !errors.Is(err, os.ErrPermission) || err.Error() != "halt: operation not permitted" {
		t.Errorf("a refused end = %v", err)
	}
	if err := reboot(unix.LINUX_REBOOT_CMD_RESTART2, "a\x00b"); err == nil || !strings.Contains(err.Error(), "argument") {
		t.Errorf("an argument with a NUL = %v", err)
	}
}

func TestKexecLoad(t *testing.T) {
	dir := t.TempDir()
	if err := KexecLoad(filepath.Join(dir, "none"), "", ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no kernel = %v", err)
	}
	write(t, filepath.Join(dir, "kernel"), "not one")
	if err := KexecLoad(filepath.Join(dir, "kernel"), filepath.Join(dir, "none"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no initramfs = %v", err)
	}
	err := KexecLoad(filepath.Join(dir, "kernel"), "", "quiet")
	if err == nil || !strings.HasPrefix(err.Error(), "load kernel "+dir) {
		t.Errorf("what is no kernel = %v", err)
	}
}

// TestCtrlAltDel is refused in a PID namespace that is not the first, and asks
// the kernel for real.
func TestCtrlAltDel(t *testing.T) {
	if !inside(t, syscall.CLONE_NEWPID) {
		return
	}
	if err := CtrlAltDel(false); !errors.Is(err, unix.EINVAL) {
		t.Errorf("CtrlAltDel in a PID namespace = %v, want EINVAL (reboot_pid_ns)", err)
	}
}

func TestReport(t *testing.T) {
	for _, c := range []struct {
		code  int
		port  uint16
		maker string
		line  string
		ports []uint16
		value []byte
	}{
		{0, 0, "BOCHS ", "pazinit: machine result 0\n", nil, nil},
		{3, 0xf4, "BOCHS ", "pazinit: machine result 3\n", []uint16{0xf4}, []byte{3}},
		{137, 0xf4, "", "pazinit: machine result 137\n", []uint16{0xf4}, []byte{9}},
		{128, 0xf4, "", "pazinit: machine result 128\n", []uint16{0xf4}, []byte{127}},
		{5, 0, "CLOUDH", "pazinit: machine result 5\n", []uint16{0x80}, []byte{0x85}},
	} {
		if runtime.GOARCH != "amd64" && c.maker == "CLOUDH" {
			continue
		}
		root := t.TempDir()
		if c.maker != "" {
			write(t, filepath.Join(root, "sys/firmware/acpi/tables/FACP"), "FACP\x14\x01\x00\x00\x06\x00"+c.maker)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var ports []uint16
		var values []byte
		err = report(root, w, c.code, c.port, func(port uint16, value byte) error {
			ports, values = append(ports, port), append(values, value)
			return nil
		})
		w.Close()
		line := make([]byte, 100)
		n, _ := r.Read(line)
		r.Close()
		if err != nil || string(line[:n]) != c.line || len(ports) != len(c.ports) || string(values) != string(c.value) {
			t.Errorf("report(%d, %#x) under %q = %v, %q, %#x, %#x, want %q, %#x, %#x",
				c.code, c.port, c.maker, err, line[:n], ports, values, c.line, c.ports, c.value)
		}
		for i := range min(len(ports), len(c.ports)) {
			if ports[i] != c.ports[i] {
				t.Errorf("report(%d, %#x) writes to %#x, want %#x", c.code, c.port, ports, c.ports)
			}
		}
	}
}

// TestOut writes to the port that Linux itself writes to when it waits (io_delay,
// arch/x86/kernel/io_delay.c): an OUT without the permission would be a SIGSEGV.
func TestOut(t *testing.T) {
	err := out(0x80, 0)
	if runtime.GOARCH != "amd64" {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("out = %v, want unsupported", err)
		}
		return
	}
	if os.Geteuid() != 0 {
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("out as nobody = %v, want a refusal", err)
		}
		return
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		need(t, "ioports", err) // CONFIG_X86_IOPL_IOPERM
	}
	if err != nil {
		t.Errorf("out = %v", err)
	}
}
