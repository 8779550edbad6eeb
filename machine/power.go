package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Power ends the machine: what is "poweroff", "reboot" (argument is for the
// firmware or the driver, "" is none), "halt" or "kexec". It returns only if
// that was refused; kexec without a loaded image is refused. In a PID namespace
// of its own it ends the namespace (reboot(2)).
//
// It syncs, for at most ten seconds.
//
// A power-off is a reset where nothing else ends the machine: Firecracker on
// amd64 has no power management, and its process ends when the guest resets
// itself by the keyboard controller (reboot=k, as in its default command line;
// FAQ.md and issues 598 and 1601 of firecracker-microvm/firecracker), while a
// kernel that powers off there only halts. It is known by its ACPI tables; an
// older one without them by reboot=k and no ACPI.
//
// Everywhere else the kernel does it: cloud-hypervisor, QEMU and crosvm end at an
// ACPI power-off or, on arm64, at PSCI's SYSTEM_OFF.
func Power(what, argument string) error { return power("/", what, argument, reboot) }

func power(root, what, argument string, reboot func(cmd int, argument string) error) error {
	var cmd int
	switch what {
	case "poweroff":
		if cmd = unix.LINUX_REBOOT_CMD_POWER_OFF; endsByReset(root) {
			cmd = unix.LINUX_REBOOT_CMD_RESTART
		}
	case "reboot":
		if cmd = unix.LINUX_REBOOT_CMD_RESTART; argument != "" {
			cmd = unix.LINUX_REBOOT_CMD_RESTART2
		}
	case "halt":
		cmd = unix.LINUX_REBOOT_CMD_HALT
	case "kexec":
		if cmd = unix.LINUX_REBOOT_CMD_KEXEC; !kexecLoaded(root) {
			return fmt.Errorf("kexec: no kernel is loaded (kexec -l): %w", os.ErrNotExist)
		}
	default:
		return fmt.Errorf("end machine: %q is none of poweroff, reboot, halt, kexec", what)
	}
	_ = within(10*time.Second, nil, nil, func() error { unix.Sync(); return nil })
	if err := reboot(cmd, argument); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func endsByReset(root string) bool {
	if runtime.GOARCH != "amd64" {
		return false
	}
	if maker := hypervisor(root); maker != "" {
		return maker == "FIRECK"
	}
	if _, err := os.Stat(filepath.Join(root, "sys/firmware/acpi/tables")); err == nil {
		return false
	}
	line, err := readBounded(filepath.Join(root, "proc/cmdline"), maxCmdline)
	return err == nil && slices.Contains(strings.Fields(string(line)), "reboot=k")
}

// reboot is reboot(2). argument is cut at 255 bytes by the kernel.
func reboot(cmd int, argument string) error {
	text, err := unix.BytePtrFromString(argument)
	if err != nil {
		return fmt.Errorf("argument %q: %w", argument, err)
	}
	_, _, errno := unix.Syscall6(unix.SYS_REBOOT, unix.LINUX_REBOOT_MAGIC1, unix.LINUX_REBOOT_MAGIC2,
		uintptr(cmd), uintptr(unsafe.Pointer(text)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// KexecLoaded reports whether a kernel for kexec is loaded.
func KexecLoaded() bool { return kexecLoaded("/") }

func kexecLoaded(root string) bool {
	b, err := readBounded(filepath.Join(root, "sys/kernel/kexec_loaded"), 16)
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// KexecLoad loads a kernel for kexec, with an initramfs ("" is none) and a command
// line (kexec_file_load(2); needs CONFIG_KEXEC_FILE, and a signature where the
// kernel asks for one).
func KexecLoad(kernel, initramfs, cmdline string) error {
	if err := kexecLoad(kernel, initramfs, cmdline); err != nil {
		if errors.Is(err, unix.ENOSYS) {
			err = fmt.Errorf("%w (%w)", errors.ErrUnsupported, err)
		}
		return fmt.Errorf("load kernel %s for kexec: %w", kernel, err)
	}
	return nil
}

func kexecLoad(kernel, initramfs, cmdline string) error {
	k, err := unix.Open(kernel, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(k)
	i, flags := -1, unix.KEXEC_FILE_NO_INITRAMFS
	if initramfs != "" {
		if i, err = unix.Open(initramfs, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open %s: %w", initramfs, err)
		}
		defer unix.Close(i)
		flags = 0
	}
	return unix.KexecFileLoad(k, i, cmdline, flags)
}

// CtrlAltDel makes Ctrl-Alt-Del reset the machine at once (on), or send SIGINT
// to PID 1 (off), which is what a supervisor wants.
func CtrlAltDel(on bool) error {
	cmd := unix.LINUX_REBOOT_CMD_CAD_OFF
	if on {
		cmd = unix.LINUX_REBOOT_CMD_CAD_ON
	}
	if err := reboot(cmd, ""); err != nil {
		return fmt.Errorf("set what Ctrl-Alt-Del does: %w", err)
	}
	return nil
}
