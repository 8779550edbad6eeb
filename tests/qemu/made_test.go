//go:build qemu

package qemu

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/pazinit/pazinit/tests/rig"
)

// TestMade boots images of pazinit initramfs that are more than a Procfile: one that
// the machine's memory does not hold, and one that leads to a disk.
func TestMade(t *testing.T) {
	h, err := host()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := Bookworm(h.cache)
	rig.Need(t, "bookworm", err)
	dir := t.TempDir()
	busybox := Busybox(h.cache, AMD64)
	write := func(name, text string, mode os.FileMode) {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	run := func(program string, args ...string) string {
		cmd := exec.Command(program, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
	boot := func(t *testing.T, image string, memory int, line string, args ...string) *machine {
		return bootAs(t, Config{
			Arch: AMD64, Kernel: kernel.Image, Initrd: filepath.Join(dir, image), Accel: h.accel, Memory: memory, Limit: patience, Panic: "-1", Cmdline: line, Args: args, Dir: dir,
		}, "")
	}
	t.Run("too little memory", func(t *testing.T) {
		fill := make([]byte, 50<<20)
		_, _ = rand.NewChaCha8([32]byte{}).Read(fill)
		write("full/srv/fill", string(fill), 0o644)
		write("Procfile", "a: sh -c 'echo ALL IS THERE; sleep 100'\n", 0o644)
		said := run(rig.Binary, "initramfs", "-f", "Procfile", "-o", "full.img", "full", "--busybox", busybox)
		least := regexp.MustCompile(`for a machine of (\d+) MiB and more`).FindStringSubmatch(said)
		if least == nil {
			t.Fatalf("it said %s", said)
		}
		enough, err := strconv.Atoi(least[1])
		if err != nil || enough < 192 || enough > 320 {
			t.Fatalf("it said %s", said)
		}
		m := boot(t, "full.img", 192, "")
		m.see(`Initramfs unpacking failed`, 1)
		m.see(`pazinit: emergency: look at the image: the image is not whole: .*: give it as much as pazinit initramfs said`, 1)
		m.see(`reboot: Restarting system`, 1)
		m.ends()
		// What it said is enough.
		m = boot(t, "full.img", enough, "")
		m.see(`ALL IS THERE`, 1)
		m.Kill()
	})
	t.Run("a disk", func(t *testing.T) {
		write("root/etc/pazinit/Procfile", "a: /bin/busybox sh -c 'busybox grep \" / \" /proc/mounts; busybox sleep 100'\n", 0o644)
		for _, name := range []string{"dev", "proc", "sys", "run", "tmp"} {
			write("root/"+name+"/.keep", "", 0o644)
		}
		write("root/bin/.keep", "", 0o644)
		write("root/sbin/.keep", "", 0o644)
		run("cp", busybox, "root/bin/busybox")
		run("cp", rig.Binary, "root/sbin/pazinit")
		run("ln", "-s", "busybox", "root/bin/sh")
		run("mkfs.ext4", "-q", "-d", "root", "disk.img", "64M")
		disk := []string{"-drive", "if=none,id=disk,format=raw,file=disk.img", "-device", "virtio-blk-pci,drive=disk"}
		args := []string{"initramfs", "--no-procfile", "--kernel-modules", kernel.Modules, "--module", "virtio_pci"}
		run(rig.Binary, append(args, "-o", "none.img")...)
		m := boot(t, "none.img", 128, "root=/dev/vda", disk...)
		m.see(`no driver is loaded for .*virtio0 \(virtio_blk, virtio:d00000002v`, 1)
		m.Kill()
		run(rig.Binary, append(args, "-o", "root.img", "--module", "virtio_blk")...)
		m = boot(t, "root.img", 128, "root=/dev/vda", disk...)
		m.see(`/dev/vda / ext4`, 1)
		m.Kill()
	})
}
