package machine

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// SetHostname sets the host's name; "" is the one in /etc/hostname (hostname(5)).
// Without that file a name that the kernel has been given stays, and none
// becomes localhost.
func SetHostname(name string) error { return setHostname("/", name) }

func setHostname(root, name string) error {
	if name == "" {
		file := filepath.Join(root, "etc/hostname")
		b, err := readBounded(file, 4096)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read hostname: %w", err)
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				name = line
				break
			}
		}
	}
	if name == "" {
		var u unix.Utsname
		// "(none)" is the kernel's word for it (UTS_NODENAME, CONFIG_DEFAULT_HOSTNAME).
		if err := unix.Uname(&u); err != nil || unix.ByteSliceToString(u.Nodename[:]) != "(none)" {
			return nil
		}
		name = "localhost"
	}
	// 64 is the kernel's limit (__NEW_UTS_LEN).
	if len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' }) {
		return fmt.Errorf("set hostname %.80q: not a name of at most 64 letters without spaces", name)
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set hostname %q: %w", name, err)
	}
	return nil
}

// MachineID returns the machine's id, 32 lower-case hexadecimal digits, from
// root/etc/machine-id (machine-id(5)). One that is missing, empty or
// "uninitialized" is made and written there: from $container_uuid, from the
// product_uuid that a hypervisor gives, else by chance.
//
// Where it cannot be written, or where that file has something else, which is
// left as it is, the id is in root/run/machine-id, mounted over the file if that
// is there, and lasts until the end; err then says why, and id is good.
//
//nolint:revive // machine-id(5) has that name
func MachineID(root string) (id string, err error) {
	return machineID(root, os.Getenv("container_uuid"))
}

func machineID(root, container string) (string, error) {
	etc, run := filepath.Join(root, "etc/machine-id"), filepath.Join(root, "run/machine-id")
	b, readErr := readBounded(etc, 256)
	text := strings.TrimSpace(string(b))
	if id, ok := parseID(text); ok {
		return id, nil
	}
	id, ok := parseID(container)
	if !ok {
		id, ok = productID(root)
	}
	if !ok {
		if b, err := readBounded(run, 256); err == nil { // an earlier start's
			id, ok = parseID(strings.TrimSpace(string(b)))
		}
	}
	if !ok {
		id = chanceID()
	}
	var err error
	switch {
	case readErr != nil && !errors.Is(readErr, fs.ErrNotExist):
		err = fmt.Errorf("read machine id: %w", readErr)
	case text != "" && text != "uninitialized":
		err = fmt.Errorf("%s has no machine id: %.40q", etc, text)
	default:
		_ = os.Mkdir(filepath.Dir(etc), 0o755)
		if err = replaceFile(etc, []byte(id+"\n"), 0o444); err == nil {
			return id, nil
		}
		err = fmt.Errorf("keep machine id: %w", err)
	}
	if werr := replaceFile(run, []byte(id+"\n"), 0o444); werr != nil {
		return id, errors.Join(err, fmt.Errorf("keep machine id: %w", werr))
	}
	if _, serr := os.Lstat(etc); serr == nil {
		if merr := unix.Mount(run, etc, "", unix.MS_BIND, ""); merr != nil {
			err = errors.Join(err, fmt.Errorf("mount %s on %s: %w", run, etc, merr))
		}
	}
	return id, err
}

// parseID reads an id as machine-id(5) or RFC 9562 writes it. Only zeros or only
// Fs are the words of a maker who has none.
func parseID(text string) (string, bool) {
	if len(text) == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-' {
		text = strings.ReplaceAll(text, "-", "")
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 16 {
		return "", false
	}
	if !slices.ContainsFunc(b, func(x byte) bool { return x != b[0] }) && (b[0] == 0 || b[0] == 0xff) {
		return "", false
	}
	return strings.ToLower(text), true
}

// productID is the UUID that a hypervisor gives its machine (-uuid of QEMU,
// --platform uuid= of cloud-hypervisor). Boards have one, too, but some makers
// give all of them the same.
func productID(root string) (string, bool) {
	dmi := filepath.Join(root, "sys/class/dmi/id")
	vendor, err := readBounded(filepath.Join(dmi, "sys_vendor"), 256)
	if err != nil || !slices.Contains([]string{"QEMU", "Cloud Hypervisor"}, strings.TrimSpace(string(vendor))) {
		return "", false
	}
	b, err := readBounded(filepath.Join(dmi, "product_uuid"), 256)
	if err != nil {
		return "", false
	}
	return parseID(strings.TrimSpace(string(b)))
}

// chanceID is a random UUID (RFC 9562, version 4). It is no secret: it does not
// wait for the kernel's random numbers to be good ones.
func chanceID() string {
	b := chance(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return hex.EncodeToString(b)
}

// Loopback brings the interface lo up; the kernel gives it its addresses then
// (inetdev_event, net/ipv4/devinet.c).
func Loopback() error {
	if err := loopback(); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
		return err
	}
	if r.Uint16()&unix.IFF_UP != 0 {
		return nil
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
