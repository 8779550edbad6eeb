package machine

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Report gives the machine's result to whoever runs it; its caller ends the
// machine by [Power] afterwards. The result is
//
//   - the line "pazinit: machine result CODE" on the console (standard error),
//     for every hypervisor;
//   - with a port other than 0, QEMU's isa-debug-exit there (-device
//     isa-debug-exit,iobase=0xf4,iosize=1), which ends QEMU at once with the
//     status CODE<<1|1 (hw/misc/debugexit.c). A status has eight bits: the highest
//     of CODE is lost, and a CODE that would become 0 by that is 127. amd64 only;
//   - under cloud-hypervisor, the byte 0x80|CODE at the I/O port 0x80, which it
//     logs as "Custom code" (its docs/debug-port.md).
//
// Firecracker takes no result: what it knows is that the guest has ended (see
// [Power]), so there the line is all. Report returns if the machine goes on.
func Report(code int, port uint16) error { return report("/", os.Stderr, code, port, out) }

func report(root string, console *os.File, code int, port uint16, out func(uint16, byte) error) error {
	err := within(2*time.Second, nil, nil, func() error {
		if _, err := fmt.Fprintf(console, "pazinit: machine result %d\n", code); err != nil {
			return fmt.Errorf("write machine result: %w", err)
		}
		// A machine that ends takes what a serial line has not sent yet with it.
		_ = unix.IoctlSetInt(int(console.Fd()), unix.TCSBRK, 1)
		return nil
	})
	if hypervisor(root) == "CLOUDH" && runtime.GOARCH == "amd64" {
		_ = out(0x80, 0x80|sevenBits(code))
	}
	if port != 0 {
		if err := out(port, sevenBits(code)); err != nil {
			return fmt.Errorf("report machine result %d: %w", code, err)
		}
	}
	return err
}

func sevenBits(code int) byte {
	if code != 0 && code&0x7f == 0 {
		return 0x7f
	}
	return byte(code & 0x7f)
}

// hypervisor is the maker of the machine by its ACPI tables: the field OEMID of
// the FADT, "FIRECK" and "CLOUDH", say; "" without ACPI.
func hypervisor(root string) string {
	f, err := os.Open(filepath.Join(root, "sys/firmware/acpi/tables/FACP"))
	if err != nil {
		return ""
	}
	defer f.Close()
	var header [16]byte
	if _, err := io.ReadFull(f, header[:]); err != nil {
		return ""
	}
	return string(bytes.TrimRight(header[10:], " \x00"))
}

// ParsePort reads an I/O port: "0xf4", "244".
func ParsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 0, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no I/O port (0xf4, say)", text)
	}
	return uint16(n), nil
}
