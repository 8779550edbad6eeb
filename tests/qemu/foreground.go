package qemu

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Foreground becomes QEMU with bookworm's kernel and an image, with the machine's
// console as this program's input and output.
func Foreground(image string, cmdline []string) error {
	cache, err := Cache()
	if err != nil {
		return err
	}
	k, err := Bookworm(cache)
	if err != nil {
		return err
	}
	c := Config{Arch: AMD64, Kernel: k.Image, Initrd: image, Cmdline: strings.Join(cmdline, " ")}
	accel, why, err := Accel(c)
	if err != nil {
		return err
	}
	c.Accel = accel
	fmt.Printf("Linux %s, %s: %s\nCtrl-A X ends the machine, Ctrl-A H helps; within it, `pazinit poweroff` does\n", k.Version, accel, why)
	program, err := exec.LookPath(c.Arch.Program)
	if err != nil {
		return err
	}
	return syscall.Exec(program, append(append([]string{c.Arch.Program}, Args(c, image)...), "-serial", "mon:stdio"), os.Environ())
}

// Accel finds out what machines can use. That /dev/kvm can be opened proves
// nothing, one that comes to its first process in a few seconds does. PAZINIT_ACCEL
// answers instead.
func Accel(c Config) (accel, why string, err error) {
	if out, err := exec.Command(c.Arch.Program, "--version").CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("run %s (scripts/fetch-kernel installs it): %w\n%s", c.Arch.Program, err, out)
	}
	if accel := os.Getenv("PAZINIT_ACCEL"); accel != "" {
		return accel, "PAZINIT_ACCEL says so", nil
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return "tcg", err.Error(), nil
	}
	f.Close()
	c.Accel, c.Limit = "kvm", 8*time.Second
	c.Cmdline += " loglevel=7" // for the kernel to say that it comes to it
	v, err := Boot(context.Background(), c)
	if err == nil {
		_, err = v.Until(`Run /init as init process`, 1)
		v.Kill()
	}
	if err != nil {
		return "tcg", "a machine with kvm does not come to its first process", nil
	}
	return "kvm", "a machine with it comes to its first process", nil
}
