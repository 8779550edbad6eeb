package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pazinit/pazinit/initramfs"
)

// The marks are those that the maker of images writes.
func TestIsWhole(t *testing.T) {
	if wholeMark != initramfs.WholeMark {
		t.Errorf("the mark is %s, the maker's is %s", wholeMark, initramfs.WholeMark)
	}
	root := t.TempDir()
	if err := isWhole(root, 1<<30); err != nil {
		t.Errorf("an image without marks: %v", err)
	}
	if err := os.Symlink(strings.TrimPrefix(initramfs.EndMark, "/"), filepath.Join(root, initramfs.WholeMark)); err != nil {
		t.Fatal(err)
	}
	if err := isWhole(root, 96<<20); err == nil || !strings.Contains(err.Error(), "the image is not whole") || !strings.Contains(err.Error(), "96 MiB") {
		t.Errorf("an image without its end: %v", err)
	}
	writeFiles(t, root, map[string]string{initramfs.EndMark: ""})
	if err := isWhole(root, 1<<30); err != nil {
		t.Errorf("a whole image: %v", err)
	}
}

func TestDriverless(t *testing.T) {
	root := t.TempDir()
	device := func(name, alias, driver string) {
		writeFiles(t, filepath.Join(root, "sys/bus"), map[string]string{name + "/modalias": alias + "\n"})
		if driver != "" {
			if err := os.Symlink("../../drivers/"+driver, filepath.Join(root, "sys/bus", name, "driver")); err != nil {
				t.Fatal(err)
			}
		}
	}
	late := errors.New("mount root=/dev/vda: find device /dev/vda: it is not there")
	device("pci/devices/0000:00:00.0", "pci:v00008086d00001237sv00001AF4sd00001100bc06sc00i00", "")
	device("pci/devices/0000:00:02.0", "pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00", "virtio-pci")
	if err := withDriverless(root, late); err.Error() != late.Error() {
		t.Errorf("all have drivers: %v", err)
	}
	device("pci/devices/0000:00:03.0", "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00", "")
	device("pci/devices/0000:00:1f.2", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", "")
	device("pci/devices/0000:00:05.0", "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02", "")
	device("pci/devices/0000:00:06.0", "pci:v00001000d00000012sv00000000sd00000000bc01sc00i00", "")
	device("virtio/devices/virtio0", "virtio:d00000002v00001AF4", "")
	err := withDriverless(root, late)
	const want = "no driver is loaded for 0000:00:03.0 (virtio_pci, pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00), " +
		"0000:00:05.0 (nvme, pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02), 0000:00:06.0 (pci:v00001000d00000012sv00000000sd00000000bc01sc00i00), " +
		"0000:00:1f.2 (ahci, pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01), virtio0 (virtio_blk, virtio:d00000002v00001AF4): an image gets it by --module"
	if !errors.Is(err, late) || err.Error() != late.Error()+"\n"+want {
		t.Errorf("it says %v, want\n%s", err, want)
	}
	if err := withDriverless(root, errors.New("other")); err.Error() != "other" {
		t.Errorf("of another error it says %v", err)
	}
	if withDriverless(root, nil) != nil {
		t.Error("of no error it says something")
	}
	for i := range 20 {
		device(fmt.Sprintf("pci/devices/0000:01:%02d.0", i), "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00", "")
	}
	if got := len(driverless(root)); got != 8 {
		t.Errorf("it lists %d", got)
	}
}
