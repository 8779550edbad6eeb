package qemu

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Shop makes an image of examples/vm by `pazinit initramfs`, with the modules that
// its machine needs.
func Shop(pazinit, busybox, config, image string, k Kernel) error {
	args := []string{"initramfs", "-c", config, "-o", image, "--compress", "none", "--busybox", busybox, "--kernel-modules", k.Modules}
	for _, name := range []string{"virtio_pci", "virtio_net", "button", "evdev"} {
		args = append(args, "--module", name)
	}
	if out, err := exec.Command(pazinit, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("make the image: %w\n%s", err, out)
	}
	return nil
}

// Door are QEMU's arguments for a network where a port of the host leads to the
// shop.
func Door(port int) []string {
	return []string{"-netdev", fmt.Sprintf("user,id=net,hostfwd=tcp:127.0.0.1:%d-:80", port), "-device", "virtio-net-pci,netdev=net,romfile="}
}

// Foreground makes the shop a machine and becomes QEMU, with the machine's console
// as this program's input and output. line is added to the kernel's command line.
func Foreground(pazinit, config string, line []string) error {
	cache, err := Cache()
	if err != nil {
		return err
	}
	k, err := Bookworm(cache)
	if err != nil {
		return err
	}
	image := filepath.Join(filepath.Dir(pazinit), "shop.img")
	if err := Shop(pazinit, Busybox(cache, AMD64), config, image, k); err != nil {
		return err
	}
	c := Config{Arch: AMD64, Kernel: k.Image, Initrd: image, Cmdline: strings.Join(line, " ")}
	accel, why, err := Accel(c)
	if err != nil {
		return err
	}
	const port = 19000
	c.Accel, c.Args = accel, append(Door(port), "-serial", "mon:stdio")
	fmt.Printf("Linux %s, %s: %s\nhttp://127.0.0.1:%d/ is the shop. pazinit poweroff ends the machine, and so does Ctrl-A X at once.\n", k.Version, accel, why, port)
	program, err := exec.LookPath(c.Arch.Program)
	if err != nil {
		return err
	}
	return syscall.Exec(program, append([]string{c.Arch.Program}, Args(c, image)...), os.Environ())
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
