// Command boot makes a machine of a folder with a Procfile and boots it with its
// console here: boot PAZINIT FOLDER.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/pazinit/pazinit/tests/qemu"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: boot PAZINIT FOLDER")
		os.Exit(2)
	}
	if err := boot(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "boot:", err)
		os.Exit(1)
	}
}

// boot becomes QEMU, when all goes well.
func boot(pazinit, folder string) error {
	cache, err := qemu.Cache()
	if err != nil {
		return err
	}
	kernels, err := qemu.Kernels(cache)
	if err != nil {
		return err
	}
	files, err := qemu.Base(qemu.Busybox(cache), pazinit)
	if err != nil {
		return err
	}
	err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		files["/app/"+name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		return err
	}
	c := qemu.Config{Arch: qemu.AMD64, Kernel: kernels[0], Files: files, Cmdline: "cgroups=v2"}
	files["/start"] = []byte(qemu.Agent)
	accel, why, err := qemu.Accel(c)
	if err != nil {
		return err
	}
	c.Accel = accel
	fmt.Printf("%s, %s: %s\nCtrl-A X ends the machine; within it, poweroff -f does\n", filepath.Base(c.Kernel), accel, why)
	files["/start"] = []byte("cd /app\nexport TERM=vt100\nexec pazinit run -c /app/pazinit.yaml\n")
	const initrd = "out/vm/boot.cpio"
	if err := os.WriteFile(initrd, qemu.Archive(files), 0o644); err != nil {
		return err
	}
	args := append([]string{c.Arch.Program}, qemu.Args(c, initrd)...)
	program, err := exec.LookPath(c.Arch.Program)
	if err != nil {
		return err
	}
	return syscall.Exec(program, append(args, "-serial", "mon:stdio"), os.Environ())
}
