// Command boot boots the shop with its console here: boot PAZINIT CONFIG [KERNEL
// ARGUMENT...].
package main

import (
	"fmt"
	"os"

	"github.com/pazinit/pazinit/tests/qemu"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: boot PAZINIT CONFIG [KERNEL ARGUMENT...]")
		os.Exit(2)
	}
	if err := qemu.Foreground(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "boot:", err)
		os.Exit(1)
	}
}
