package machine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// FindDevice returns the path of a block device: /dev/x, MAJOR:MINOR (also
// hexadecimal, as the kernel's root= takes it), LABEL=, UUID=, PARTLABEL=,
// PARTUUID= (also with /PARTNROFF=), or one of udev's names below
// /dev/disk/by-*, which need no udev here. It waits for one that is late, for
// ever if wait is negative; the kernel tells of new devices, nothing is polled.
// It needs /sys and a devtmpfs.
//
// If several devices have the name, the first by its own name is taken. A
// device that is part of another (RAID, LVM, encrypted) has no name. One that
// is not there is [fs.ErrNotExist], and the error says which there are.
func FindDevice(spec string, wait time.Duration) (string, error) {
	d, err := system.find(spec, wait, sayNothing)
	return d.Path, err
}

// readLimit is for reading what a device holds: a dying disk hangs.
const readLimit = 5 * time.Second

// finder finds devices, below the folders that are given for tests.
type finder struct{ sys, dev string }

var system = finder{sys: "/sys", dev: "/dev"}

// device is a block device of /sys/class/block.
type device struct {
	Path    string // of its node
	Name    string // in /sys/class/block
	Number  string // MAJOR:MINOR
	Disk    string // name of the disk that it is a part of, or ""
	Part    int    // number of the partition
	Held    bool   // part of another device
	size    int64  // in bytes
	sector  int64  // logical block size in bytes
	uevent  partition
	content content
	table   partition
}

// isDeviceSpec says whether find can do something with a word.
func isDeviceSpec(spec string) bool {
	_, _, err := parseSpec(spec)
	return err == nil
}

// parseSpec splits a word into a key and what it is to be.
func parseSpec(spec string) (key, value string, err error) {
	for _, udev := range [...][2]string{{"label", "LABEL"}, {"uuid", "UUID"}, {"partlabel", "PARTLABEL"}, {"partuuid", "PARTUUID"}} {
		if v, ok := strings.CutPrefix(spec, "/dev/disk/by-"+udev[0]+"/"); ok && v != "" {
			return udev[1], unescapeUdev(v), nil
		}
	}
	if strings.HasPrefix(spec, "/dev/") && spec != "/dev/" {
		return "path", filepath.Clean(spec), nil
	}
	if k, v, ok := strings.Cut(spec, "="); ok {
		switch k {
		case "LABEL", "UUID", "PARTLABEL", "PARTUUID":
			if len(v) > 1 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0] {
				v = v[1 : len(v)-1]
			}
			if v != "" {
				return k, v, nil
			}
		}
	}
	if a, b, ok := strings.Cut(spec, ":"); ok {
		major, ok1 := number(a)
		minor, ok2 := number(b)
		if ok1 && ok2 {
			return "number", fmt.Sprintf("%d:%d", major, minor), nil
		}
	}
	// The old encoding: new_decode_dev() of include/linux/kdev_t.h.
	if n, err := strconv.ParseUint(spec, 16, 32); err == nil && len(spec) >= 3 {
		return "number", fmt.Sprintf("%d:%d", (n&0xfff00)>>8, n&0xff|n>>12&0xfff00), nil
	}
	return "", "", fmt.Errorf("device %q is neither /dev/…, LABEL=, UUID=, PARTLABEL=, PARTUUID= nor MAJOR:MINOR", spec)
}

// unescapeUdev puts \x20 and the like back.
func unescapeUdev(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' {
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// find looks and waits. What say gets is that it waits, and that a name is on
// several devices.
func (f finder) find(spec string, wait time.Duration, say func(string)) (device, error) {
	key, value, err := parseSpec(spec)
	if err != nil {
		return device{}, err
	}
	begin := time.Now()
	var ev *events
	hung := map[string]bool{}
	for {
		found, err := f.look(key, value, hung)
		if err != nil {
			return device{}, err
		}
		if len(found) > 0 {
			if len(found) > 1 {
				say(fmt.Sprintf("%s is on %d devices: %s is taken, and not %s", spec, len(found), found[0].Path, found[1].Path))
			}
			return found[0], nil
		}
		if ev == nil && wait != 0 {
			// A device may have come before the listening began: look again.
			if ev, err = listen(f.dev); err != nil {
				return device{}, fmt.Errorf("wait for %s: %w", spec, err)
			}
			defer ev.close()
			if wait < 0 {
				say("waiting for " + spec)
			} else {
				say(fmt.Sprintf("waiting for %s, for %v at most", spec, about(wait)))
			}
			continue
		}
		if wait >= 0 && time.Since(begin) >= wait {
			return device{}, fmt.Errorf("find device %s: %w%s", spec, fs.ErrNotExist, f.inventory(wait, hung))
		}
		var until time.Time
		if wait > 0 {
			until = begin.Add(wait)
		}
		if err := ev.wait(until); err != nil {
			return device{}, fmt.Errorf("wait for %s: %w", spec, err)
		}
	}
}

// about rounds a time for people.
func about(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(time.Second)
	}
	return d.Round(time.Millisecond)
}

// inventory says what there is instead.
func (f finder) inventory(wait time.Duration, hung map[string]bool) string {
	var s strings.Builder
	all, err := f.list()
	if err != nil {
		return "; " + err.Error()
	}
	if wait > 0 {
		fmt.Fprintf(&s, " after %v", about(wait))
	}
	if len(all) == 0 {
		s.WriteString("; there is no block device, is its driver loaded?")
	}
	for i, d := range all {
		switch i {
		case 0:
			s.WriteString("; there is ")
		case 16:
			fmt.Fprintf(&s, " and %d more", len(all)-i)
			return s.String()
		default:
			s.WriteString(", ")
		}
		s.WriteString(d.Path)
		if c := f.readContent(d, hung); c.Type != "" {
			s.WriteString(" (" + c.String() + ")")
		}
	}
	return s.String()
}

// look looks once.
func (f finder) look(key, value string, hung map[string]bool) (found []device, err error) {
	if key == "path" {
		path := value
		if f.dev != system.dev {
			path = f.dev + strings.TrimPrefix(value, "/dev")
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			if st.Mode&unix.S_IFMT != unix.S_IFBLK && f.dev == system.dev {
				return nil, fmt.Errorf("find device %s: it is no block device", value)
			}
			d := device{Path: path, Name: filepath.Base(path)}
			d.content = f.readContent(d, hung)
			return []device{d}, nil
		}
	}
	if key == "path" {
		return nil, nil
	}
	all, err := f.list()
	if err != nil {
		return nil, err
	}
	offset := 0
	if v, n, ok := strings.Cut(value, "/PARTNROFF="); ok && key == "PARTUUID" {
		digits, negative := strings.CutPrefix(n, "-")
		num, ok := number(digits)
		if !ok {
			return nil, fmt.Errorf("find device PARTUUID=%s: %q is no number", value, n)
		}
		if negative {
			num = -num
		}
		value, offset = v, num
	}
	for i := range all {
		d := &all[i]
		if d.Held {
			continue
		}
		switch key {
		case "LABEL", "UUID":
			d.content = f.readContent(*d, hung)
		case "PARTLABEL", "PARTUUID":
			d.table = f.readTable(*d, all, hung)
		}
		if d.is(key, value) {
			found = append(found, *d)
		}
	}
	if offset != 0 && len(found) > 0 {
		base := found[0]
		found = slices.DeleteFunc(slices.Clone(all), func(d device) bool {
			return base.Disk == "" || d.Disk != base.Disk || d.Part != base.Part+offset
		})
	}
	return found, nil
}

func (d device) is(key, value string) bool {
	switch key {
	case "LABEL":
		return d.content.Label == value
	case "UUID":
		return strings.EqualFold(d.content.UUID, value)
	case "PARTLABEL":
		return d.uevent.Name == value || d.table.Name == value
	case "PARTUUID":
		return strings.EqualFold(d.uevent.UUID, value) || strings.EqualFold(d.table.UUID, value)
	case "number":
		return d.Number == value
	}
	return false
}

// list reads /sys/class/block: what has a size, in the order of the names.
func (f finder) list() ([]device, error) {
	dir := f.sys + "/class/block"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list block devices: %w", err)
	}
	var all []device
	for _, e := range entries {
		if len(all) == 4096 {
			break
		}
		d := device{Name: e.Name(), sector: 512}
		sectors, err := readNumber(filepath.Join(dir, d.Name, "size"))
		if err != nil || sectors <= 0 || sectors > 1<<54 {
			continue // nothing in it, or gone
		}
		d.size = sectors * 512
		b, err := readBounded(filepath.Join(dir, d.Name, "uevent"), 64<<10)
		if err != nil {
			continue
		}
		var major, minor string
		for line := range strings.Lines(string(b)) {
			k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			switch k {
			case "MAJOR":
				major = v
			case "MINOR":
				minor = v
			case "DEVNAME":
				d.Path = filepath.Join(f.dev, v)
			case "PARTN":
				d.Part, _ = number(v)
			case "PARTNAME":
				d.uevent.Name = v
			case "PARTUUID": // Linux 6.13
				d.uevent.UUID = v
			}
		}
		if d.Path == "" {
			continue
		}
		d.Number = major + ":" + minor
		if d.Part > 0 { // its folder lies in the disk's
			if real, err := filepath.EvalSymlinks(filepath.Join(dir, d.Name)); err == nil {
				d.Disk = filepath.Base(filepath.Dir(real))
			}
		} else if n, err := readNumber(filepath.Join(dir, d.Name, "queue/logical_block_size")); err == nil {
			d.sector = n
		}
		if held, err := os.ReadDir(filepath.Join(dir, d.Name, "holders")); err == nil {
			d.Held = len(held) > 0
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b device) int {
		if len(a.Name) != len(b.Name) { // vda9 before vda10
			return len(a.Name) - len(b.Name)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all, nil
}

func readNumber(path string) (int64, error) {
	b, err := readBounded(path, 64)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// descriptor reads by pread(2), so that Go does not poll it.
type descriptor int

func (fd descriptor) ReadAt(b []byte, at int64) (n int, err error) {
	if at < 0 {
		return 0, io.EOF
	}
	for n < len(b) {
		m, err := unix.Pread(int(fd), b[n:], at+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

// read opens a device and reads something of it, in readLimit. A device that
// hangs is not asked again in this search: each time would cost a thread.
func (f finder) read(path string, hung map[string]bool, what func(io.ReaderAt)) {
	if hung[path] {
		return
	}
	err := within(readLimit, nil, nil, func() error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		what(descriptor(fd))
		return nil
	})
	var e errHung
	if errors.As(err, &e) {
		hung[path] = true
	}
}

func (f finder) readContent(d device, hung map[string]bool) content {
	out := make(chan content, 1)
	f.read(d.Path, hung, func(r io.ReaderAt) {
		c, _ := readContent(r)
		out <- c
	})
	select {
	case c := <-out:
		return c
	default:
		return content{}
	}
}

// readTable reads the partition table of the disk that d is a part of.
func (f finder) readTable(d device, all []device, hung map[string]bool) partition {
	if d.uevent.UUID != "" || d.Part == 0 {
		return partition{}
	}
	i := slices.IndexFunc(all, func(disk device) bool { return disk.Name == d.Disk })
	if i < 0 {
		return partition{}
	}
	out, disk := make(chan partition, 1), all[i]
	f.read(disk.Path, hung, func(r io.ReaderAt) {
		out <- readPartition(r, disk.sector, disk.size, d.Part)
	})
	select {
	case p := <-out:
		return p
	default:
		return partition{}
	}
}

// events are the kernel's words that something about devices has changed: its
// uevents, and new nodes in /dev for where those are not heard (a network
// namespace of a user's, a kernel without networking). A node is in a devtmpfs
// before its uevent is sent (drivers/base/core.c, device_add).
type events struct {
	fds  []unix.PollFd
	last time.Time
}

// spacing is the least time between two looks, for a storm of events.
const spacing = 50 * time.Millisecond

func listen(dev string) (*events, error) {
	ev := &events{last: time.Now()}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err == nil {
		if err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
			unix.Close(fd)
		} else {
			ev.fds = append(ev.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	fd, err2 := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err2 == nil {
		if _, err2 = unix.InotifyAddWatch(fd, dev, unix.IN_CREATE|unix.IN_MOVED_TO); err2 != nil {
			unix.Close(fd)
		} else {
			ev.fds = append(ev.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	if len(ev.fds) == 0 {
		return nil, fmt.Errorf("listen for devices: %w", errors.Join(err, err2))
	}
	return ev, nil
}

func (ev *events) close() {
	for _, p := range ev.fds {
		unix.Close(int(p.Fd))
	}
}

// wait returns when something has changed or the time has come; a zero time
// never comes.
func (ev *events) wait(until time.Time) error {
	if err := ev.poll(until); err != nil {
		return err
	}
	for next := ev.last.Add(spacing); time.Now().Before(next); {
		if err := pause(next); err != nil {
			return err
		}
	}
	buf := make([]byte, 16<<10)
	for _, p := range ev.fds {
		for range 1000 {
			if _, err := unix.Read(int(p.Fd), buf); err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
				break
			}
		}
	}
	ev.last = time.Now()
	return nil
}

func (ev *events) poll(until time.Time) error {
	for {
		ms := -1
		if !until.IsZero() {
			ms = milliseconds(time.Until(until))
		}
		n, err := unix.Poll(ev.fds, ms)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		if n > 0 || !until.IsZero() && !time.Now().Before(until) {
			return nil
		}
	}
}

// pause waits for a time on no descriptor.
func pause(until time.Time) error {
	if _, err := unix.Poll(nil, milliseconds(time.Until(until))); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("poll: %w", err)
	}
	return nil
}

// milliseconds rounds up, so that nothing is polled before its time.
func milliseconds(d time.Duration) int {
	return int(max(0, min(d+time.Millisecond-1, time.Hour)) / time.Millisecond)
}
