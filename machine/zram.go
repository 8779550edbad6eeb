package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Zram makes a compressed swap device of size bytes in memory and swaps to it,
// before any disk; algorithm "" is the kernel's own choice. A kernel without zram
// is [errors.ErrUnsupported]; its module is loaded if there is one.
// Documentation/admin-guide/blockdev/zram.rst
func Zram(size int64, algorithm string) error {
	if _, err := os.Stat("/sys/class/zram-control"); err != nil {
		if errs := LoadModules([]string{"zram num_devices=0"}); len(errs) > 0 {
			return fmt.Errorf("make zram: %w", errors.Join(errs...))
		}
	}
	load := func(name string) { _ = LoadModules([]string{name}) } // what is missing is told by the next step
	if _, err := makeZram("/", size, algorithm, load, swapOnDevice); err != nil {
		return fmt.Errorf("make zram: %w", err)
	}
	return nil
}

func makeZram(root string, size int64, algorithm string, load func(module string), swapOn func(string) error) (device string, err error) {
	page := int64(os.Getpagesize())
	if size = size / page * page; size < 16*page {
		return "", fmt.Errorf("%d bytes: at least %d are needed", size, 16*page)
	}
	control := filepath.Join(root, "sys/class/zram-control")
	b, err := readBounded(filepath.Join(control, "hot_add"), 64) // the read adds one
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no %s: %w", control, errors.ErrUnsupported)
	}
	if err != nil {
		return "", err
	}
	number := strings.TrimSpace(string(b))
	if _, err := strconv.ParseUint(number, 10, 31); err != nil {
		return "", fmt.Errorf("%s: %q is no number", filepath.Join(control, "hot_add"), b)
	}
	defer func() {
		if err != nil {
			_ = writeTo(filepath.Join(control, "hot_remove"), number)
		}
	}()
	dir := filepath.Join(root, "sys/block/zram"+number)
	if algorithm != "" {
		if err := writeTo(filepath.Join(dir, "comp_algorithm"), algorithm); err != nil {
			known, _ := readBounded(filepath.Join(dir, "comp_algorithm"), 4096)
			return "", fmt.Errorf("algorithm %.40q: %w; known are %s", algorithm, err, strings.TrimSpace(string(known)))
		}
	}
	// Until 6.12 the kernel asks modprobe for the algorithm, and an initramfs has
	// none.
	if known, err := readBounded(filepath.Join(dir, "comp_algorithm"), 4096); err == nil {
		if chosen := bracketed(string(known)); chosen != "" {
			load("crypto-" + chosen)
		}
	}
	if err := writeTo(filepath.Join(dir, "disksize"), strconv.FormatInt(size, 10)); err != nil {
		return "", fmt.Errorf("size %d: %w", size, err)
	}
	device = filepath.Join(root, "dev/zram"+number)
	if err := makeSwap(device, size, page); err != nil {
		return "", fmt.Errorf("make swap on %s: %w", device, err)
	}
	if err := swapOn(device); err != nil {
		return "", fmt.Errorf("swap on %s: %w", device, err)
	}
	return device, nil
}

// bracketed is the word in brackets: "lzo [zstd]".
func bracketed(list string) string {
	_, rest, _ := strings.Cut(list, "[")
	word, _, ok := strings.Cut(rest, "]")
	if !ok {
		return ""
	}
	return word
}

// makeSwap writes the header of a swap area: union swap_header of
// include/linux/swap.h, as mkswap(8) does.
func makeSwap(device string, size, page int64) error {
	b := make([]byte, page)
	binary.NativeEndian.PutUint32(b[1024:], 1)                   // version
	binary.NativeEndian.PutUint32(b[1028:], uint32(size/page)-1) // last page
	copy(b[1036:], chance(16))                                   // UUID
	copy(b[page-10:], "SWAPSPACE2")
	fd, err := unix.Open(device, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n, err := unix.Pwrite(fd, b, 0)
	if err == nil && n < len(b) {
		err = unix.EIO
	}
	return err
}

// swapOnDevice swaps to a device in memory: first, and with pages given back
// (discard) when they are not used any more.
func swapOnDevice(device string) error {
	const priority = 100
	return swapon(device, swapPrefer|swapDiscard|priority)
}

// writeTo writes to a file that is there already, a setting of the kernel's.
func writeTo(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(text))
	return err
}
