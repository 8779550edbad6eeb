package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/machine"
)

// wholeMark is a symbolic link to the last file of an image; its maker writes both.
const wholeMark = "/.pazinit-whole"

// imageWhole is an error if the kernel has not unpacked all of the image: it says so
// and starts what there is. An image of another maker has no mark, and is whole.
func (h *host) imageWhole() error {
	if !machine.InInitramfs() {
		return nil
	}
	var info unix.Sysinfo_t
	_ = unix.Sysinfo(&info)
	return isWhole("/", info.Totalram*uint64(info.Unit))
}

func isWhole(root string, memory uint64) error {
	mark := filepath.Join(root, wholeMark)
	if _, err := os.Lstat(mark); err != nil {
		return nil
	}
	if _, err := os.Stat(mark); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("the image is not whole: the kernel stopped before its end and said why (Initramfs unpacking failed); "+
		"the machine has %d MiB of memory, of which files may fill less than one half: give it as much as pazinit initramfs said when it made the image, or see whether the image is damaged", memory>>20)
}

// A bus is where devices without drivers are looked for.
var buses = [...]string{"pci", "virtio"}

// disks are modules for devices by what their aliases begin with and have in them.
var disks = [...]struct{ begin, part, module string }{
	{"pci:v00001AF4", "", "virtio_pci"}, {"pci:", "bc01sc06", "ahci"}, {"pci:", "bc01sc08", "nvme"}, {"pci:", "bc01", ""},
	{"virtio:d00000002", "", "virtio_blk"}, {"virtio:d00000008", "", "virtio_scsi"}, {"virtio:d00000009", "", "9pnet_virtio"}, {"virtio:d0000001A", "", "virtiofs"},
}

// withDriverless adds to the error of a device that has not come which ones are
// there without a driver.
func withDriverless(root string, err error) error {
	if err == nil || !strings.Contains(err.Error(), "find device ") {
		return err
	}
	if list := driverless(root); len(list) > 0 {
		return errors.Join(err, fmt.Errorf("no driver is loaded for %s: an image gets it by --module", strings.Join(list, ", ")))
	}
	return err
}

// driverless are the devices that disks may be behind and that no driver has taken.
func driverless(root string) (list []string) {
	const most = 8
	for _, bus := range buses {
		devices, _ := filepath.Glob(filepath.Join(root, "sys/bus", bus, "devices/*"))
		for _, dir := range devices {
			if exists(filepath.Join(dir, "driver")) || len(list) == most {
				continue
			}
			alias := strings.TrimSpace(readSmall(filepath.Join(dir, "modalias")))
			for _, d := range disks {
				if strings.HasPrefix(alias, d.begin) && strings.Contains(alias, d.part) {
					list = append(list, strings.TrimSpace(filepath.Base(dir)+" ("+strings.TrimPrefix(d.module+", "+alias, ", ")+")"))
					break
				}
			}
		}
	}
	return list
}
