package machine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// syncStep is how often Sync looks whether it gets on.
const syncStep = 10 * time.Second

// Sync writes everything to the disks. It waits as long as that makes progress,
// looking every ten seconds: a slow disk gets its time, a dead one does not.
func Sync(say func(string)) error {
	if say == nil {
		say = sayNothing
	}
	return kernel.syncAll(dirty, syncStep, say)
}

// syncAll is Sync. left says how many KiB are to be written.
func (h hands) syncAll(left func() int, step time.Duration, say func(string)) error {
	begin, last := time.Now(), left()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = caught(func() error { h.sync(); return nil })
	}()
	for {
		timer := time.NewTimer(step)
		select {
		case <-done:
			timer.Stop()
			return nil
		case <-timer.C:
		}
		now := left()
		if now >= last {
			return fmt.Errorf("sync: nothing was written for %v: %w", step, os.ErrDeadlineExceeded)
		}
		say(fmt.Sprintf("writing to the disks for %v, %d MiB are left", time.Since(begin).Round(time.Second), now>>10))
		last = now
	}
}

// dirty is how much is to be written, in KiB.
func dirty() int { return dirtyOf("/proc/meminfo") }

func dirtyOf(path string) (kib int) {
	for _, n := range memory(path, "Dirty:", "Writeback:", "NFS_Unstable:") {
		kib += n
	}
	return kib
}

// memory reads numbers of proc_meminfo(5), in KiB, 0 for what is not there.
func memory(path string, names ...string) []int {
	values := make([]int, len(names))
	b, err := readBounded(path, 64<<10)
	if err != nil {
		return values
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if i := slices.Index(names, f[0]); i >= 0 {
			values[i], _ = strconv.Atoi(f[1])
		}
	}
	return values
}

// noData says whether nothing on a disk hangs on such a file system, so that it
// stays: powering off needs some of them.
func noData(fstype string) bool {
	switch fstype {
	case "proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "tracefs", "debugfs", "securityfs", "bpf",
		"efivarfs", "mqueue", "pstore", "configfs", "fusectl", "binfmt_misc", "hugetlbfs", "selinuxfs", "autofs", "rootfs":
		return true
	}
	return false
}

// UnmountAll takes the file systems down before the power goes, when all
// workers are gone and swapping is off:
//
//   - Sync;
//   - unmount, the deepest first, and release loop devices, as long as something
//     gives way;
//   - what is busy becomes read-only, and so does the root;
//   - where something cannot be, the kernel is told to make everything read-only
//     (sysrq u), which it does to what is open for writing, a swap file, too;
//   - what is writable even then is unmounted lazily.
//
// What has no data stays (/proc, /sys, control groups and the like, a tmpfs at
// /dev and /run). Left names what could have lost something, and why: what was
// not unmounted and was writable. A call that hangs is left behind after 20
// seconds, no unmount begins a minute after the first, and the rest has its own
// time, so that a dead disk takes none from the root: all of it takes
// [UnmountLimit] at most, unless a disk is slow and still written to. The working
// directory is / afterwards. It is refused to whoever is not a machine's PID 1.
func UnmountAll(say func(string)) (left []string) {
	if say == nil {
		say = sayNothing
	}
	if err := inMachine(); err != nil {
		return []string{"everything: " + err.Error()}
	}
	h := kernel
	h.limit = unmountLimit
	_ = unix.Chdir("/")
	return h.unmountAll("/sys", say)
}

const (
	unmountLimit = 20 * time.Second // for one call
	unmountTotal = time.Minute
	forceTotal   = 20 * time.Second // to make read-only what is left; again to let it go
	forceLimit   = 10 * time.Second // for one call of the last ones

	// UnmountLimit is what [UnmountAll] takes at most: the totals, each with a call
	// that begins just before, the root, the word to the kernel, the look whether it
	// heeds it, and two Syncs that get nowhere.
	UnmountLimit = unmountTotal + 2*forceTotal + 3*unmountLimit + 3*forceLimit + 2*syncStep
)

// Force has the kernel write what it can and make every file system read-only
// (sysrq s and u): for the end whose [UnmountAll] did not come back.
func Force() error {
	if err := inMachine(); err != nil {
		return fmt.Errorf("force file systems: %w", err)
	}
	return kernel.force()
}

func (h hands) force() error {
	return within(forceLimit, nil, nil, func() error { return errors.Join(h.trigger('s'), h.trigger('u')) })
}

func (h hands) unmountAll(sys string, say func(string)) (left []string) {
	if err := h.syncAll(dirty, syncStep, say); err != nil {
		say(err.Error())
	}
	end := time.Now().Add(unmountTotal)
	why := map[int]error{} // why a mount did not give way; a hung one is not asked again
	for range 64 {         // what was covered comes to light
		list, err := mountsOf()
		if err != nil {
			say(fmt.Sprintf("unmount: %v", err))
			break
		}
		gone := 0
		for _, m := range deepestFirst(list) {
			var hung errHung
			if !isToUnmount(m) || errors.As(why[m.ID], &hung) || time.Now().After(end) {
				continue
			}
			hangs := func(d time.Duration) { say(fmt.Sprintf("unmount %s: it hangs for %v", printable(m.Target), d)) }
			err := within(h.limit, hangs, nil, func() error { return h.unmount(m.Target, unix.UMOUNT_NOFOLLOW) })
			if err == nil {
				gone++
				delete(why, m.ID)
				continue
			}
			why[m.ID] = err
		}
		if gone += h.releaseLoops(sys); gone == 0 || time.Now().After(end) {
			break
		}
	}

	forced := map[int]int{} // by mount, where in left
	end = time.Now().Add(forceTotal)
	list, _ := mountsOf()
	order := deepestFirst(list)
	for _, m := range order {
		if !isToUnmount(m) || !keepsData(m) {
			continue
		}
		err := why[m.ID]
		if err == nil {
			err = errNoTime
		}
		reason := fmt.Sprintf("%s: %v", printable(m.Target), err)
		var hung errHung
		if !time.Now().After(end) && !errors.As(err, &hung) && h.readOnly(m.Target) == nil {
			left = append(left, reason+"; it is read-only")
			continue
		}
		forced[m.ID] = len(left)
		left = append(left, reason)
	}
	if root := rootOf(list); keepsData(root) {
		if err := h.readOnly("/"); err != nil {
			forced[root.ID] = len(left)
			left = append(left, fmt.Sprintf("/: make it read-only: %v", err))
		}
	}
	if len(forced) == 0 {
		return left
	}
	say("not everything could be unmounted: the kernel is told to make all of it read-only")
	if err := within(forceLimit, nil, nil, func() error { return h.trigger('u') }); err != nil {
		say(fmt.Sprintf("sysrq u: %v", err))
	}
	end = time.Now().Add(min(forceLimit, h.limit))
	writable := h.stillWritable(forced)
	for len(writable) > 0 && time.Now().Before(end) { // it does it by and by, and tells nobody
		<-time.NewTimer(50 * time.Millisecond).C
		writable = h.stillWritable(forced)
	}
	end = time.Now().Add(forceTotal)
	for _, m := range order {
		i, ok := forced[m.ID]
		switch {
		case !ok:
		case !writable[m.ID]:
			left[i] += "; it was made read-only by force"
		case m.Target == "/" || time.Now().After(end):
		default: // what lies above is let go, and the file system ends with its last user
			err := within(min(forceLimit, h.limit), nil, nil, func() error { return h.unmount(m.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
			if err != nil {
				left[i] += fmt.Sprintf("; lazily: %v", err)
			} else {
				left[i] += "; unmounted lazily"
			}
		}
	}
	if err := h.syncAll(dirty, syncStep, say); err != nil {
		say(err.Error())
	}
	return left
}

// stillWritable are those of the mounts of ids that are, of all if nobody can tell.
func (h hands) stillWritable(ids map[int]int) map[int]bool {
	out := map[int]bool{}
	list, err := mountsOf()
	for id := range ids {
		out[id] = err != nil
	}
	for _, m := range list {
		if _, ok := ids[m.ID]; ok && keepsData(m) {
			out[m.ID] = true
		}
	}
	for id, yes := range out {
		if !yes {
			delete(out, id)
		}
	}
	return out
}

var errNoTime = errors.New("there was no time left")

// readOnly makes a file system read-only; that flushes it.
func (h hands) readOnly(path string) error {
	return within(h.limit, nil, nil, func() error {
		flags, err := flagsOf(path)
		if err != nil {
			return err
		}
		return h.mount("", path, "", unix.MS_REMOUNT|unix.MS_RDONLY|flags, "")
	})
}

// isToUnmount is false for the root, for what has no data and is needed, and
// for what this process stands on.
func isToUnmount(m mountPoint) bool {
	if m.Target == "/" || noData(m.Type) {
		return false
	}
	switch m.Target {
	case "/dev", "/dev/shm", "/run", "/sys/fs/cgroup", "/proc", "/sys":
		return m.Type != "tmpfs" && m.Type != "ramfs"
	}
	return true
}

// keepsData says whether something would be lost that is not written.
func keepsData(m mountPoint) bool {
	return m.Type != "" && m.Type != "tmpfs" && m.Type != "ramfs" && !noData(m.Type) && !slices.Contains(strings.Split(m.SuperOptions, ","), "ro")
}

// rootOf is the mount on top at "/".
func rootOf(list []mountPoint) (root mountPoint) {
	for _, m := range list {
		if m.Target == "/" {
			root = m
		}
	}
	return root
}

// deepestFirst sorts mounts so that what is mounted on another, or over it,
// comes before it, and of several the last one first.
func deepestFirst(list []mountPoint) []mountPoint {
	at := make(map[int]bool, len(list))
	for _, m := range list {
		at[m.ID] = true
	}
	children := make(map[int][]int, len(list))
	var stack []int
	for i := len(list) - 1; i >= 0; i-- {
		if m := list[i]; at[m.Parent] && m.Parent != m.ID {
			children[m.Parent] = append(children[m.Parent], i)
		} else {
			stack = append(stack, i)
		}
	}
	seen := make([]bool, len(list))
	order := make([]mountPoint, 0, len(list))
	for next := 0; next < len(list); { // twice only for a circle, which the kernel never says
		for len(stack) > 0 {
			i := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if !seen[i] {
				seen[i] = true
				order = append(order, list[i])
				stack = append(stack, children[list[i].ID]...)
			}
		}
		for next < len(list) && seen[next] {
			next++
		}
		if next < len(list) {
			stack = append(stack, next)
		}
	}
	slices.Reverse(order)
	return order
}

// releaseLoops detaches loop devices that nothing uses any more, for what lies
// below their files; n is how many it were.
func (h hands) releaseLoops(sys string) (n int) {
	entries, err := os.ReadDir(sys + "/class/block")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "loop") {
			continue
		}
		if _, err := os.Stat(sys + "/class/block/" + e.Name() + "/loop/backing_file"); err != nil {
			continue
		}
		err := within(h.limit, nil, nil, func() error {
			fd, err := unix.Open("/dev/"+e.Name(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
		})
		// In use, it only is released later.
		if _, still := os.Stat(sys + "/class/block/" + e.Name() + "/loop/backing_file"); err == nil && still != nil {
			n++
		}
	}
	return n
}

// sysrq asks the kernel for something (Documentation/admin-guide/sysrq.rst);
// root may, whatever kernel.sysrq says.
func sysrq(key byte) error {
	fd, err := unix.Open("/proc/sysrq-trigger", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /proc/sysrq-trigger: %w", err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte{key}); err != nil {
		return fmt.Errorf("write to /proc/sysrq-trigger: %w", err)
	}
	return nil
}
