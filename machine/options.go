package machine

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are the words of mount(8), sorted by who understands them.
type options struct {
	flags      uintptr   // for mount(2)
	after      []uintptr // kinds of propagation, each a mount(2) of its own
	data       string    // for the file system
	bind       uintptr   // MS_BIND, also with MS_REC; or 0
	cleared    uintptr   // flags that a word takes away
	remount    bool      // a word is about the file system or a flag
	nofail     bool
	noauto     bool
	loop       bool          // a file is to be a device
	network    bool          // _netdev
	deviceWait time.Duration // x-systemd.device-timeout=, negative if not given
	limit      time.Duration // x-systemd.mount-timeout=, 0 if not given
}

// flagWords are mount(8)'s words for the flags of mount(2), with what each sets
// and clears.
var flagWords = [...]struct {
	word       string
	set, clear uintptr
}{
	{"ro", unix.MS_RDONLY, 0},
	{"rw", 0, unix.MS_RDONLY},
	{"nosuid", unix.MS_NOSUID, 0},
	{"suid", 0, unix.MS_NOSUID},
	{"nodev", unix.MS_NODEV, 0},
	{"dev", 0, unix.MS_NODEV},
	{"noexec", unix.MS_NOEXEC, 0},
	{"exec", 0, unix.MS_NOEXEC},
	{"sync", unix.MS_SYNCHRONOUS, 0},
	{"async", 0, unix.MS_SYNCHRONOUS},
	{"dirsync", unix.MS_DIRSYNC, 0},
	{"mand", unix.MS_MANDLOCK, 0},
	{"nomand", 0, unix.MS_MANDLOCK},
	{"noatime", unix.MS_NOATIME, 0},
	{"atime", 0, unix.MS_NOATIME},
	{"nodiratime", unix.MS_NODIRATIME, 0},
	{"diratime", 0, unix.MS_NODIRATIME},
	{"relatime", unix.MS_RELATIME, 0},
	{"norelatime", 0, unix.MS_RELATIME},
	{"strictatime", unix.MS_STRICTATIME, 0},
	{"nostrictatime", 0, unix.MS_STRICTATIME},
	{"lazytime", unix.MS_LAZYTIME, 0},
	{"nolazytime", 0, unix.MS_LAZYTIME},
	{"iversion", unix.MS_I_VERSION, 0},
	{"noiversion", 0, unix.MS_I_VERSION},
	{"nosymfollow", unix.MS_NOSYMFOLLOW, 0},
	{"symfollow", 0, unix.MS_NOSYMFOLLOW},
	{"silent", unix.MS_SILENT, 0},
	{"loud", 0, unix.MS_SILENT},
	{"user", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, 0},
	{"users", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, 0},
	{"owner", unix.MS_NOSUID | unix.MS_NODEV, 0},
	{"group", unix.MS_NOSUID | unix.MS_NODEV, 0},
	{"defaults", 0, 0},
	{"auto", 0, 0},
	{"nouser", 0, 0},
	{"nogroup", 0, 0},
	{"noowner", 0, 0},
}

// propagationWords are calls of their own, after the mount.
var propagationWords = [...]struct {
	word string
	flag uintptr
}{
	{"private", unix.MS_PRIVATE},
	{"rprivate", unix.MS_PRIVATE | unix.MS_REC},
	{"shared", unix.MS_SHARED},
	{"rshared", unix.MS_SHARED | unix.MS_REC},
	{"slave", unix.MS_SLAVE},
	{"rslave", unix.MS_SLAVE | unix.MS_REC},
	{"unbindable", unix.MS_UNBINDABLE},
	{"runbindable", unix.MS_UNBINDABLE | unix.MS_REC},
}

// parseOptions sorts the words; one that nobody here knows is the file
// system's. A later word beats an earlier one.
func parseOptions(list []string) (o options, err error) {
	o.deviceWait = -1
	var data []string
words:
	for _, word := range splitOptions(strings.Join(list, ",")) {
		for _, f := range flagWords {
			if f.word == word {
				o.flags = o.flags&^f.clear | f.set
				o.cleared = o.cleared&^f.set | f.clear
				o.remount = o.remount || f.set|f.clear != 0
				continue words
			}
		}
		for _, p := range propagationWords {
			if p.word == word {
				o.after = append(o.after, p.flag)
				continue words
			}
		}
		k, v, _ := strings.Cut(word, "=")
		switch {
		case word == "bind":
			o.bind |= unix.MS_BIND
		case word == "rbind":
			o.bind |= unix.MS_BIND | unix.MS_REC
		case word == "nofail":
			o.nofail = true
		case word == "noauto":
			o.noauto = true
		case word == "loop":
			o.loop = true
		case word == "_netdev":
			o.network = true
		case word == "remount", word == "move", k == "loop" && word != k, k == "offset", k == "sizelimit":
			return o, fmt.Errorf("option %s is not understood here", word)
		case k == "x-systemd.device-timeout":
			if o.deviceWait, err = fstabTime(v); err != nil {
				return o, fmt.Errorf("option %s: %w", word, err)
			}
		case k == "x-systemd.mount-timeout":
			if o.limit, err = fstabTime(v); err != nil {
				return o, fmt.Errorf("option %s: %w", word, err)
			}
		case k == "comment", strings.HasPrefix(word, "x-"), strings.HasPrefix(word, "X-"):
		default:
			data = append(data, word)
		}
	}
	o.remount = o.remount || len(data) > 0
	if o.data = strings.Join(data, ","); len(o.data) >= 4096 {
		return o, fmt.Errorf("options of %d bytes, the kernel takes 4095", len(o.data))
	}
	if strings.ContainsRune(o.data, 0) {
		return o, fmt.Errorf("options %q have a zero byte in them", o.data)
	}
	return o, nil
}

// fstabTime reads a time as fstab has it: a number is in seconds, and there may
// be a unit.
func fstabTime(s string) (time.Duration, error) {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no time", s)
	}
	return d, nil
}
