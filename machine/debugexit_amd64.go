package machine

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// outb writes value to an I/O port; the calling thread needs the permission.
func outb(port uint16, value byte)

// out writes value to an I/O port, with a permission (ioperm(2), needs
// CAP_SYS_RAWIO) that the calling thread has only for that.
func out(port uint16, value byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Ioperm(int(port), 1, 1); err != nil {
		return fmt.Errorf("take I/O port %#x: %w", port, err)
	}
	outb(port, value)
	return unix.Ioperm(int(port), 1, 0)
}
