// Command boot boots an image with its console here: boot IMAGE [KERNEL ARGUMENT...].
package main

import (
	"fmt"
	"os"

	"github.com/pazinit/pazinit/tests/qemu"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: boot IMAGE [KERNEL ARGUMENT...]")
		os.Exit(2)
	}
	if err := qemu.Foreground(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "boot:", err)
		os.Exit(1)
	}
}
