package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/cgroupfs"
	"github.com/pazinit/pazinit/control"
	pazinit "github.com/pazinit/pazinit/init"
	"github.com/pazinit/pazinit/procfile"
	"github.com/pazinit/pazinit/reaper"
)

// doctorLook finds the facts. cfg is nil where there is no configuration, or a
// wrong one: bad.
func doctorLook(o options) (d *diagnosis, cfg *procfile.Config, bad bool) {
	d = &diagnosis{Version: versionText()}
	mounts := readSmall("/proc/self/mountinfo")
	d.lookPlace()
	d.lookProc(mounts)
	d.lookProcess()
	d.lookNamespaces()
	d.lookUser()
	d.lookCapabilities()
	cfg, err := d.lookConfig(o)
	d.lookSocket(o, cfg)
	d.lookPID1()
	d.lookMachine()
	d.lookPaths(cfg, mounts)
	d.lookLimits(d.lookCgroups(cfg))
	d.Features = lookFeatures()
	d.lookStart()
	return d, cfg, err != nil
}

// lookPlace asks uname(2) and [pazinit.FindPlace].
func (d *diagnosis) lookPlace() {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		d.Kernel = kernelFacts{unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])}
	}
	p := pazinit.FindPlace()
	f := &d.Place
	f.Text, f.PID1, f.Initial, f.Daemon, f.Terminal = p.String(), p.PID1, p.Initial, p.Daemon, p.Terminal
	f.host = p.Initial && !p.Shared
	f.Entered = !p.PID1 && os.Getppid() == 0
	d.Terminal.Controlling = p.Terminal
}

// lookConfig reads the configuration as run would. Without any there is nothing
// to supervise, which is no error here.
func (d *diagnosis) lookConfig(o options) (*procfile.Config, error) {
	f := &d.Configuration
	f.Files, f.Errors, f.Commands = []string{}, []string{}, []commandFacts{}
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	cfg, _, err := o.read(dir, "/", func(error) {}) // lookMachine has them
	switch {
	case err == nil:
		f.Files = append(f.Files, cfg.Files...)
		f.noShell = cfg.OnEnd == "shell" && findShell() == nil
		for _, a := range cfg.Applications {
			f.Workers += len(a.Workers)
			for _, w := range a.Workers {
				f.lookCommand(a.Name+":"+w.Name, w)
			}
		}
		return cfg, nil
	case errors.Is(err, procfile.ErrNotFound) && o.config == "" && o.procfile == "":
		return nil, nil
	}
	f.Errors = lines(strings.TrimSpace(err.Error()))
	return nil, err
}

// lookCommand asks access(2) whether a worker's program, where its line has a path,
// or the shell that its line needs can be executed: it is there, has the right
// bit, and its mount is not noexec. Another user's rights are not known.
func (f *configFacts) lookCommand(name string, w *procfile.Worker) {
	if len(w.Command.Argv) == 0 || !strings.Contains(w.Command.Argv[0], "/") {
		return
	}
	path := w.Command.Argv[0]
	if !filepath.IsAbs(path) {
		path = filepath.Join(w.Dir, path)
	}
	err := unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
	if err != nil && (err != unix.EACCES || w.User == nil || os.Geteuid() == 0) {
		f.Commands = append(f.Commands, commandFacts{name, path, errText(err)})
	}
}

// lookStart says what this process was started with: its descriptors 0 to 2 and
// its signals (see [reaper.StartedWith]).
func (d *diagnosis) lookStart() {
	began := reaper.StartedWith()
	d.Stdio = make([]stdioFacts, 3)
	for fd := range d.Stdio {
		s := &d.Stdio[fd]
		s.look("/proc/self", fd, began.Closed&(1<<fd) != 0)
		if s.Kind == "tty" && d.Terminal.Name == "" {
			d.Terminal.Name = s.Name
		}
	}
	if began.Known {
		d.Signals.Blocked, d.Signals.Ignored = signalNamesOf(began.Mask), signalNamesOf(began.Ignored)
	}
}

// signalNamesOf names the bits of a signal set.
func signalNamesOf(set uint64) []string {
	out := []string{}
	for n := range 64 {
		if set&(1<<n) == 0 {
			continue
		}
		name := unix.SignalName(unix.Signal(n + 1))
		if name == "" {
			name = strconv.Itoa(n + 1)
		}
		out = append(out, name)
	}
	return out
}

// readSmall is the text of a file, "" for one that cannot be read.
func readSmall(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

func lines(text string) []string { return strings.Split(text, "\n") }

// lookProc asks /proc itself: its file system by statfs(2), whose it is by
// /proc/self, which names the reader as that PID namespace does.
func (d *diagnosis) lookProc(mountinfo string) {
	f := &d.Proc
	var fs unix.Statfs_t
	f.Mounted = unix.Statfs("/proc", &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC
	self, _ := os.Readlink("/proc/self")
	f.OwnPIDNS = f.Mounted && self == strconv.Itoa(os.Getpid())
	for _, option := range strings.Split(mountOf(mountinfo, "/proc").options, ",") {
		if v, ok := strings.CutPrefix(option, "hidepid="); ok {
			f.HidePID = v
		}
	}
}

// lookProcess tries PR_SET_CHILD_SUBREAPER (3.4) and puts it back: this process
// has no descendants.
func (d *diagnosis) lookProcess() {
	f := &d.Process
	f.PID, f.PPID = os.Getpid(), os.Getppid()
	if d.Proc.OwnPIDNS && f.PPID > 0 {
		f.Parent = strings.TrimSpace(readSmall("/proc/" + strconv.Itoa(f.PPID) + "/comm"))
	}
	f.Exe, _ = os.Readlink("/proc/self/exe")
	f.Subreaper = subreaper()
	f.SubreaperNeeded = f.PID != 1
	f.SubreaperPossible = f.Subreaper
	if !f.Subreaper && unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == nil {
		f.SubreaperPossible = subreaper()
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	}
}

// lookPID1 asks whether a container's PID 1 is pazinit: it has the socket, or
// /proc/1 names it, by comm to everybody, by exe to those who may trace it. This
// process is then no sample of where the supervisor is.
func (d *diagnosis) lookPID1() {
	f := &d.PID1
	f.UID = -1
	if d.Place.PID1 || d.Place.Initial {
		return
	}
	if s := d.Supervisor; s != nil && s.PID == 1 {
		f.Pazinit, f.UID = true, int(s.UID)
	} else if d.Proc.OwnPIDNS {
		exe, _ := os.Readlink("/proc/1/exe")
		f.Pazinit = strings.TrimSpace(readSmall("/proc/1/comm")) == "pazinit" || filepath.Base(exe) == "pazinit"
		if ids := strings.Fields(statusField(readSmall("/proc/1/status"), "Uid")); len(ids) == 4 {
			if n, err := strconv.Atoi(ids[1]); err == nil {
				f.UID = n
			}
		}
	}
	if !f.Pazinit {
		return
	}
	d.Process.SubreaperNeeded = false
	d.Place.Text = "within a container; its PID 1 is pazinit"
	if d.Place.Entered {
		d.Place.Text = "entered from outside; PID 1 of this container is pazinit"
	}
}

// initialInode is that of the machine's first namespace of a kind:
// include/linux/proc_ns.h, mnt and net since 6.18 (include/uapi/linux/nsfs.h).
func initialInode(kind string) uint64 {
	switch kind {
	case "ipc":
		return 0xEFFFFFFF
	case "uts":
		return 0xEFFFFFFE
	case "user":
		return 0xEFFFFFFD
	case "pid":
		return 0xEFFFFFFC
	case "cgroup":
		return 0xEFFFFFFB
	case "time":
		return 0xEFFFFFFA
	case "net":
		return 0xEFFFFFF9
	}
	return 0xEFFFFFF8 // mnt
}

// What is known of a namespace.
const (
	nsInitial = "initial"
	nsOwn     = "own"
	nsNone    = "none"
	nsUnknown = "unknown"
)

var namespaceKinds = [...]string{"pid", "mnt", "net", "user", "uts", "ipc", "cgroup", "time"}

// lookNamespaces compares inodes of /proc/self/ns (namespaces(7)). Before 6.18
// the first net and mnt namespaces had no fixed one. Then net is told by a sysctl
// that only the first one has (net_core_table, net/core/sysctl_net_core.c), mnt
// by that of kthreadd, pid 2 of the machine, which only root may see, and both by
// who owns them: what another user namespace than the first owns is not the first
// (ioctl_nsfs(2), 4.9).
func (d *diagnosis) lookNamespaces() {
	d.Namespaces = map[string]string{}
	for _, kind := range namespaceKinds {
		d.Namespaces[kind] = lookNamespace(kind, d.Place.Initial && d.Proc.OwnPIDNS)
	}
}

func lookNamespace(kind string, seesInit bool) string {
	file := "/proc/self/ns/" + kind
	var st unix.Stat_t
	switch err := unix.Stat(file, &st); {
	case err == unix.ENOENT && unix.Access("/proc/self/ns", unix.F_OK) == nil:
		return nsNone
	case err != nil:
		return nsUnknown
	case st.Ino == initialInode(kind):
		return nsInitial
	case kind != "net" && kind != "mnt":
		return nsOwn
	}
	return ownOrNot(kind, file, st.Ino, seesInit)
}

func ownOrNot(kind, file string, ino uint64, seesInit bool) string {
	var st unix.Stat_t
	if kind == "net" {
		if unix.Access("/proc/sys/net/core/somaxconn", unix.F_OK) == nil {
			if unix.Access("/proc/sys/net/core/netdev_max_backlog", unix.F_OK) == nil {
				return nsInitial
			}
			return nsOwn
		}
	} else if seesInit && unix.Stat("/proc/2/ns/mnt", &st) == nil {
		if st.Ino == ino {
			return nsInitial
		}
		return nsOwn
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil && atLeast(unix.ByteSliceToString(u.Release[:]), 6, 18) {
		return nsOwn // the first one has a fixed inode, and this is another
	}
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nsUnknown
	}
	defer unix.Close(fd)
	owner, err := unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
	if err != nil {
		return nsUnknown
	}
	defer unix.Close(owner)
	if unix.Fstat(owner, &st) == nil && st.Ino != initialInode("user") {
		return nsOwn
	}
	return "unknown"
}

// atLeast reports whether a kernel is as new as that release.
func atLeast(release string, major, minor int) bool {
	first, rest, _ := strings.Cut(release, ".")
	second := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	a, err := strconv.Atoi(first)
	b, err2 := strconv.Atoi(second)
	return err == nil && err2 == nil && (a > major || a == major && b >= minor)
}

// lookUser asks getresuid(2) and its like, /etc/passwd, /proc/self/uid_map
// (user_namespaces(7)), prctl(2) and /proc/self/status.
func (d *diagnosis) lookUser() {
	f := &d.User
	f.UID, f.EUID, f.GID, f.EGID, f.Groups = os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid(), []int{}
	if groups, err := os.Getgroups(); err == nil {
		f.Groups = append(f.Groups, groups...)
	}
	f.Name = passwdName(readSmall("/etc/passwd"), f.UID)
	f.UIDMap, f.GIDMap = idMap(readSmall("/proc/self/uid_map")), idMap(readSmall("/proc/self/gid_map"))
	f.Rootless = len(f.UIDMap) > 0 && f.UIDMap[0] != idRange{0, 0, 1<<32 - 1}
	n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	f.NoNewPrivs = err == nil && n == 1
	f.Seccomp = seccompMode(readSmall("/proc/self/status"))
	if f.Seccomp == "unknown" { // without /proc; a filter that refuses prctl is one, too
		switch n, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); {
		case err == nil && n == 0, err == unix.EINVAL:
			f.Seccomp = "off"
		default:
			f.Seccomp = "filter"
		}
	}
}

// passwdName is the name of uid in the text of /etc/passwd, "" for none.
func passwdName(passwd string, uid int) string {
	for _, line := range lines(passwd) {
		if f := strings.Split(line, ":"); len(f) >= 4 && f[2] == strconv.Itoa(uid) {
			return f[0]
		}
	}
	return ""
}

// idMap reads the text of uid_map or gid_map.
func idMap(text string) []idRange {
	out := []idRange{}
	for _, line := range lines(text) {
		var n [3]uint32
		f := strings.Fields(line)
		good := len(f) == 3
		for i := 0; good && i < 3; i++ {
			v, err := strconv.ParseUint(f[i], 10, 32)
			n[i], good = uint32(v), err == nil
		}
		if good {
			out = append(out, idRange{n[0], n[1], n[2]})
		}
	}
	return out
}

// mapped reports whether id exists in a namespace; where its map is not known,
// it does.
func mapped(m []idRange, id uint32) bool {
	return len(m) == 0 || slices.ContainsFunc(m, func(r idRange) bool { return id >= r.Inside && id-r.Inside < r.Count })
}

// statusField is a line's value in the text of /proc/PID/status.
func statusField(status, key string) string {
	for _, line := range lines(status) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func seccompMode(status string) string {
	switch statusField(status, "Seccomp") {
	case "0":
		return "off"
	case "1":
		return "strict"
	case "2":
		return "filter"
	}
	return "unknown"
}

// capabilityNames by number: include/uapi/linux/capability.h.
const capabilityNames = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE " +
	"NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE " +
	"SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM " +
	"BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"

// capabilities names the bits of a set.
func capabilities(set uint64) []string {
	names, out := strings.Fields(capabilityNames), []string{}
	for n := range 64 {
		if set&(1<<n) == 0 {
			continue
		}
		name := strconv.Itoa(n)
		if n < len(names) {
			name = names[n]
		}
		out = append(out, "CAP_"+name)
	}
	return out
}

// lookCapabilities asks capget(2), and prctl(2) for the bounding and the ambient
// set (4.3).
func (d *diagnosis) lookCapabilities() {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	_ = unix.Capget(&hdr, &data[0])
	var bounding, ambient uint64
	for n := range 64 {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err == nil && v == 1 {
			bounding |= 1 << n
		}
		if v, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(n), 0, 0); err == nil && v == 1 {
			ambient |= 1 << n
		}
	}
	low, high := &data[0], &data[1]
	c := &d.Capabilities
	c.Effective = capabilities(uint64(high.Effective)<<32 | uint64(low.Effective))
	c.Permitted = capabilities(uint64(high.Permitted)<<32 | uint64(low.Permitted))
	c.Inheritable = capabilities(uint64(high.Inheritable)<<32 | uint64(low.Inheritable))
	c.Bounding, c.Ambient = capabilities(bounding), capabilities(ambient)
}

// lookLimits asks getrlimit(2), sched_getaffinity(2), and the groups of views.
func (d *diagnosis) lookLimits(views []cgroupfs.View) {
	f := &d.Limits
	if r, err := reaper.FileLimit(); err == nil {
		f.NoFile = &limitPair{orNone(r.Cur), orNone(r.Max)}
	}
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NPROC, &r) == nil {
		f.NProc = &limitPair{orNone(r.Cur), orNone(r.Max)}
	}
	f.PIDMax = -1
	if n, err := strconv.ParseInt(strings.TrimSpace(readSmall("/proc/sys/kernel/pid_max")), 10, 64); err == nil {
		f.PIDMax = n
	}
	f.CPUs, f.Quota = runtime.NumCPU(), -1
	for i := range views {
		v := &views[i]
		if n := cpuQuota(v); n >= 0 && (f.Quota < 0 || n < f.Quota) {
			f.Quota = n
		}
		least(&f.PIDs, v, "pids.max", "pids.current")
		if v.Version == 2 {
			least(&f.Memory, v, "memory.max", "memory.current")
		} else {
			least(&f.Memory, v, "memory.limit_in_bytes", "memory.usage_in_bytes")
		}
	}
}

// cpuQuota is the least quota of a group and of those above it that can be seen,
// in thousandths of a CPU; -1 is none.
func cpuQuota(v *cgroupfs.View) int64 {
	quota := int64(-1)
	for dir := v.Own; dir != ""; dir = filepath.Dir(dir) {
		text := readSmall(dir + "/cpu.max")
		if v.Version == 1 {
			text = readSmall(dir+"/cpu.cfs_quota_us") + " " + readSmall(dir+"/cpu.cfs_period_us")
		}
		if f := strings.Fields(text); len(f) == 2 { // "max", and v1's -1, are none
			used, err := strconv.ParseInt(f[0], 10, 64)
			period, err2 := strconv.ParseInt(f[1], 10, 64)
			if err == nil && err2 == nil && used > 0 && period > 0 && used < 1<<50 && (quota < 0 || used*1000/period < quota) {
				quota = used * 1000 / period
			}
		}
		if dir == v.Mount || dir == "/" {
			break
		}
	}
	return quota
}

// least fills in a limit that is not known yet.
func least(to **limitUse, v *cgroupfs.View, limit, current string) {
	if n, used, ok := v.Least(limit, current); ok && *to == nil {
		*to = &limitUse{n, used}
	}
}

func orNone(n uint64) int64 {
	if n >= 1<<63 { // RLIM_INFINITY
		return -1
	}
	return int64(n)
}

// doctorPaths are the folders and files that one may ask for: those that
// containers often lack, and those of the configuration.
func doctorPaths(socket string, cfg *procfile.Config) []pathFacts {
	out := make([]pathFacts, 0, 8)
	out = addPath(out, "/", "root", false)
	out = addPath(out, "/run", "run", false)
	out = addPath(out, "/tmp", "tmp", false)
	out = addPath(out, filepath.Dir(socket), "socket folder", false)
	if cfg == nil {
		return out
	}
	log := cfg.LogPath
	if log == "syslog" {
		log = "/dev/log"
	}
	out = addPath(out, log, "log_path", true)
	out = addPath(out, cfg.PIDFile, "pid_file", true)
	for _, a := range cfg.Applications {
		for _, w := range a.Workers {
			of := " of " + a.Name + ":" + w.Name
			out = addPath(out, w.Stdout.Path, "log"+of, true)
			out = addPath(out, w.Stderr.Path, "log"+of, true)
			out = addPath(out, w.PIDFile, "pid_file"+of, true)
		}
	}
	return out
}

// addPath appends path unless it is none, or asked for already.
//
//go:noinline
func addPath(to []pathFacts, path, use string, asked bool) []pathFacts {
	if path == "" {
		return to
	}
	for i := range to {
		if to[i].Path == path && to[i].asked == asked {
			return to
		}
	}
	return append(to, pathFacts{Path: path, Use: use, asked: asked})
}

// lookPaths asks faccessat(2) with this process's effective ids, which knows of
// read-only mounts too, and statfs(2). Nothing is written.
func (d *diagnosis) lookPaths(cfg *procfile.Config, mountinfo string) {
	d.Paths = doctorPaths(d.Socket.Path, cfg)
	for i := range d.Paths {
		lookPath(&d.Paths[i], mountinfo)
	}
}

func lookPath(f *pathFacts, mountinfo string) {
	var st unix.Stat_t
	err := unix.Stat(f.Path, &st)
	f.Exists = err == nil
	at := f.Path
	for up := 0; err == unix.ENOENT && at != "/"; up++ {
		// What is not there can be made in the folder above; but the logs' and pid
		// files' own folders are made by nobody.
		at = filepath.Dir(at)
		if err = unix.Stat(at, &st); err != nil && f.asked && (up > 0 || f.Use == "log_path" || !strings.HasPrefix(f.Use, "log of")) {
			break
		}
	}
	mode := uint32(unix.W_OK)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		mode |= unix.X_OK
	}
	if err == nil {
		err = unix.Faccessat(unix.AT_FDCWD, at, mode, unix.AT_EACCESS)
	}
	if err == nil && strings.Contains(f.Use, "pid_file") && f.Exists { // it is replaced
		err = unix.Faccessat(unix.AT_FDCWD, filepath.Dir(at), unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}
	f.Writable, f.Error = err == nil, errText(err)
	var fs unix.Statfs_t
	if unix.Statfs(at, &fs) == nil {
		f.ReadOnly, f.NoExec = fs.Flags&unix.ST_RDONLY != 0, fs.Flags&unix.ST_NOEXEC != 0
	}
	if real, err := filepath.EvalSymlinks(at); err == nil {
		at = real
	}
	f.Type = mountOf(mountinfo, at).kind
}

// A mountLine is what mountinfo says of a mount (proc_pid_mountinfo(5)).
type mountLine struct {
	point, kind string
	options     string // of the file system
}

// mountOf finds the mount on which path, without links, lies: the last of the
// deepest.
func mountOf(mountinfo, path string) (best mountLine) {
	for _, line := range lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(left[4])
		if inside := path == point || strings.HasPrefix(path, strings.TrimSuffix(point, "/")+"/"); inside && len(point) >= len(best.point) {
			best = mountLine{point, right[0], right[2]}
		}
	}
	return best
}

// lookSocket asks [control.Look] whether a socket could be made, and the socket
// itself who answers.
func (d *diagnosis) lookSocket(o options, cfg *procfile.Config) {
	f := &d.Socket
	f.Path, f.From, f.UID, f.GID = o.socketPath(cfg), "default", -1, -1
	switch {
	case o.socket != "":
		f.From = "--socket"
	case os.Getenv("PAZINIT_SOCKET") != "":
		f.From = "PAZINIT_SOCKET"
	case cfg != nil && cfg.SocketPath != "":
		f.From = "configuration"
	}
	f.Long = control.LongPath(f.Path)
	var st unix.Stat_t
	if unix.Lstat(f.Path, &st) == nil {
		f.Exists, f.UID, f.GID, f.Mode = true, int(st.Uid), int(st.Gid), fmt.Sprintf("%04o", st.Mode&0o7777)
	}
	err := control.Look(f.Path)
	var folder *control.FolderError
	f.Usable, f.Error = err == nil, ""
	if err != nil {
		f.Error = err.Error()
		f.unsafe = errors.As(err, &folder) && folder.Unsafe
		f.fatal = folder == nil || f.unsafe && f.From != "default"
	}
	d.Supervisor, err = askSupervisor(f.Path)
	if f.Answers = d.Supervisor != nil; f.Answers || errors.Is(err, control.ErrDenied) {
		f.Usable = f.Answers
		if f.Error = ""; err != nil {
			f.Error = err.Error()
		}
	}
}

// askSupervisor asks who is on the socket: the kernel for its pid and uid
// (SO_PEERCRED), itself for the rest.
func askSupervisor(path string) (*supervisorFacts, error) {
	cl, err := control.Dial(path)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	peer, err := cl.Server()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	r, err := cl.Do(ctx, &control.Request{Verb: "version"}, nil)
	if err != nil {
		return nil, err
	}
	s := &supervisorFacts{PID: peer.PID, UID: peer.UID, Version: r.Version, Place: r.Place, Stdio: []stdioFacts{}}
	for fd := 0; fd < 3 && s.PID > 0; fd++ {
		var f stdioFacts
		if f.look("/proc/"+strconv.Itoa(s.PID), fd, false); f.Kind != "closed" {
			s.Stdio = append(s.Stdio, f)
		}
	}
	return s, nil
}

// lookCgroups asks [cgroupfs.Look], which makes nothing. The versions are told
// by the magic of each mounted file system (statfs(2)).
func (d *diagnosis) lookCgroups(cfg *procfile.Config) []cgroupfs.View {
	f := &d.Cgroups
	var o cgroupfs.Options
	if cfg != nil {
		o = cgroupfs.Options{FSRoot: cfg.Cgroups.FSRoot, Root: cfg.Cgroups.HierarchyRoot, RootSet: cfg.Cgroups.HierarchyRootSet, Subsystems: cfg.Cgroups.Subsystems}
	}
	views, err := cgroupfs.Look(o)
	f.Version, f.Controllers, f.Delegated, f.Namespace = "none", []string{}, []string{}, d.Namespaces["cgroup"]
	var none *cgroupfs.UnavailableError
	if err != nil {
		f.Error = err.Error()
		if errors.As(err, &none) {
			f.setting = none.Setting
			f.Error = strings.ReplaceAll(none.Causes[0].Error(), "\n", "; ")
		}
	}
	v1, v2 := false, false
	take := -1
	for i := range views {
		v := &views[i]
		v1, v2 = v1 || v.Version == 1, v2 || v.Version == 2
		if v.Base != "" && take < 0 {
			take = i
		}
		for _, c := range v.Controllers {
			if !slices.Contains(f.Controllers, c) {
				f.Controllers = append(f.Controllers, c)
			}
		}
	}
	switch {
	case v1 && v2:
		f.Version = "hybrid"
	case v2:
		f.Version = "v2"
	case v1:
		f.Version = "v1"
	}
	f.PIDs, f.Memory = slices.Contains(f.Controllers, "pids"), slices.Contains(f.Controllers, "memory")
	if len(views) == 0 {
		return nil
	}
	v := &views[max(take, 0)]
	f.Usable, f.Folder, f.holder = take >= 0, v.Folder, v.Holder
	f.Path, f.Mount, f.MountVersion, f.ReadOnly, f.Kill = v.Group, v.Mount, v.Version, v.ReadOnly, v.KillFile
	f.Delegated = append(f.Delegated, v.Delegated...)
	return views
}

// look asks fstat(2) and the links and fdinfo of /proc. The Go runtime
// opens /dev/null for what this process was started without: see
// [reaper.StartedWith].
func (f *stdioFacts) look(proc string, fd int, closed bool) {
	f.FD, f.Kind, f.UID, f.GID = fd, "closed", -1, -1
	if closed {
		return
	}
	own := proc == "/proc/self"
	link := proc + "/fd/" + strconv.Itoa(fd)
	f.Name, _ = os.Readlink(link)
	var st unix.Stat_t
	var err error
	if own {
		err = unix.Fstat(fd, &st)
	} else {
		err = unix.Stat(link, &st)
	}
	if err != nil {
		return
	}
	f.UID, f.GID, f.Mode = int(st.Uid), int(st.Gid), fmt.Sprintf("%04o", st.Mode&0o7777)
	anonymous := strings.HasPrefix(f.Name, "pipe:")
	var fs unix.Statfs_t
	if own && unix.Fstatfs(fd, &fs) == nil { // without /proc, too
		anonymous = fs.Type == unix.PIPEFS_MAGIC
	}
	f.Kind = descriptorKind(st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev), anonymous)
	if own && f.Kind == "device" {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			f.Kind = "tty"
		}
	}
	flags := -1
	if own {
		flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			flags = -1
		}
	} else if n, err := strconv.ParseInt(statusField(readSmall(proc+"/fdinfo/"+strconv.Itoa(fd)), "flags"), 8, 32); err == nil {
		flags = int(n)
	}
	if flags >= 0 {
		f.Access = [4]string{"r", "w", "rw", ""}[flags&unix.O_ACCMODE]
	}
	want, bit := uint32(unix.W_OK), uint32(0o002)
	if fd == 0 {
		want, bit = unix.R_OK, 0o004
	}
	if f.Kind != "socket" { // open(2) of one is ENXIO, whoever asks
		f.SelfCanOpen = unix.Faccessat(unix.AT_FDCWD, link, want, unix.AT_EACCESS) == nil
		f.OthersCanOpen = st.Mode&bit != 0
	}
}

// descriptorKind names what stat(2) says. Terminals are told by their device
// number where it is one of them for sure: Documentation/admin-guide/devices.txt.
func descriptorKind(mode, major, minor uint32, anonymous bool) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFIFO:
		if anonymous {
			return "pipe"
		}
		return "fifo"
	case unix.S_IFREG:
		return "file"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFDIR:
		return "folder"
	case unix.S_IFCHR:
		switch {
		case major == 1 && minor == 3:
			return "null"
		case major == 4 || major >= 136 && major <= 143 || major == 5 && minor < 2: // ttyN, pts, tty and console
			return "tty"
		}
		return "device"
	}
	return "other"
}
