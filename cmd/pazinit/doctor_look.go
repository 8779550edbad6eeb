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
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		d.Kernel = kernelFacts{unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])}
	}
	p := pazinit.FindPlace()
	d.Place = placeFacts{Text: p.String(), PID1: p.PID1, Initial: p.Initial, Daemon: p.Daemon, Terminal: p.Terminal}
	d.Place.Entered = !p.PID1 && os.Getppid() == 0
	mounts := readSmall("/proc/self/mountinfo")
	d.Proc = lookProc(mounts)
	d.Process = lookProcess(d.Proc)
	d.Namespaces = lookNamespaces(p.Initial && d.Proc.OwnPIDNS)
	d.User = lookUser()
	d.Capabilities = lookCapabilities()

	cfg, err := doctorConfig(o)
	d.Configuration = configFacts{Files: []string{}, Errors: []string{}}
	if bad = err != nil; bad {
		d.Configuration.Errors = strings.Split(strings.TrimSpace(err.Error()), "\n")
	}
	if cfg != nil {
		d.Configuration.Files = append(d.Configuration.Files, cfg.Files...)
		for _, a := range cfg.Applications {
			d.Configuration.Workers += len(a.Workers)
		}
	}
	d.Socket, d.Supervisor = lookSocket(o, cfg)
	d.Paths = lookPaths(doctorPaths(d.Socket.Path, cfg), mounts)
	var views []cgroupfs.View
	d.Cgroups, views = lookCgroups(cfg)
	d.Cgroups.Namespace = d.Namespaces["cgroup"]
	d.Limits = lookLimits(views)
	d.Features = lookFeatures()
	d.Stdio = []stdioFacts{}
	began := reaper.StartedWith()
	for fd := range 3 {
		if began.Closed&(1<<fd) != 0 {
			d.Stdio = append(d.Stdio, stdioFacts{FD: fd, Kind: "closed", UID: -1, GID: -1})
			continue
		}
		d.Stdio = append(d.Stdio, lookDescriptor("/proc/self", fd))
	}
	if began.Known {
		d.Signals = signalFacts{signalNamesOf(began.Mask), signalNamesOf(began.Ignored)}
	}
	d.Terminal.Controlling = p.Terminal
	for _, s := range d.Stdio {
		if s.Kind == "tty" && d.Terminal.Name == "" {
			d.Terminal.Name = s.Name
		}
	}
	return d, cfg, bad
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

// lookProc asks /proc itself: its file system by statfs(2), whose it is by
// /proc/self, which names the reader as that PID namespace does.
func lookProc(mountinfo string) (f procFacts) {
	var fs unix.Statfs_t
	f.Mounted = unix.Statfs("/proc", &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC
	self, _ := os.Readlink("/proc/self")
	f.OwnPIDNS = f.Mounted && self == strconv.Itoa(os.Getpid())
	for option := range strings.SplitSeq(mountOf(mountinfo, "/proc").options, ",") {
		if v, ok := strings.CutPrefix(option, "hidepid="); ok {
			f.HidePID = v
		}
	}
	return f
}

// lookProcess tries PR_SET_CHILD_SUBREAPER (3.4) and puts it back: this process
// has no descendants.
func lookProcess(proc procFacts) processFacts {
	f := processFacts{PID: os.Getpid(), PPID: os.Getppid()}
	if proc.OwnPIDNS && f.PPID > 0 {
		f.Parent = strings.TrimSpace(readSmall(fmt.Sprintf("/proc/%d/comm", f.PPID)))
	}
	f.Exe, _ = os.Readlink("/proc/self/exe")
	f.Subreaper = subreaper()
	f.SubreaperNeeded = f.PID != 1
	f.SubreaperPossible = f.Subreaper
	if !f.Subreaper && unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == nil {
		f.SubreaperPossible = subreaper()
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	}
	return f
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
func lookNamespaces(seesInit bool) map[string]string {
	out := map[string]string{}
	for _, kind := range namespaceKinds {
		out[kind] = lookNamespace(kind, seesInit)
	}
	return out
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
	if unix.Stat("/proc/self/ns/net", &st) == nil && kind == "mnt" && st.Ino == initialInode("net") {
		return nsOwn // the kernel has fixed inodes for both
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

// lookUser asks getresuid(2) and its like, /etc/passwd, /proc/self/uid_map
// (user_namespaces(7)), prctl(2) and /proc/self/status.
func lookUser() userFacts {
	f := userFacts{UID: os.Getuid(), EUID: os.Geteuid(), GID: os.Getgid(), EGID: os.Getegid(), Groups: []int{}}
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
	return f
}

// passwdName is the name of uid in the text of /etc/passwd, "" for none.
func passwdName(passwd string, uid int) string {
	for line := range strings.Lines(passwd) {
		if f := strings.Split(line, ":"); len(f) >= 4 && f[2] == strconv.Itoa(uid) {
			return f[0]
		}
	}
	return ""
}

// idMap reads the text of uid_map or gid_map.
func idMap(text string) []idRange {
	out := []idRange{}
	for line := range strings.Lines(text) {
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
	for line := range strings.Lines(status) {
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
func lookCapabilities() capabilitySets {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	_ = unix.Capget(&hdr, &data[0])
	join := func(low, high uint32) []string { return capabilities(uint64(high)<<32 | uint64(low)) }
	var bounding, ambient uint64
	for n := range 64 {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err == nil && v == 1 {
			bounding |= 1 << n
		}
		if v, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(n), 0, 0); err == nil && v == 1 {
			ambient |= 1 << n
		}
	}
	return capabilitySets{
		Effective:   join(data[0].Effective, data[1].Effective),
		Permitted:   join(data[0].Permitted, data[1].Permitted),
		Inheritable: join(data[0].Inheritable, data[1].Inheritable),
		Bounding:    capabilities(bounding), Ambient: capabilities(ambient),
	}
}

// lookLimits asks getrlimit(2), sched_getaffinity(2), and the groups of views.
func lookLimits(views []cgroupfs.View) (f limitFacts) {
	pair := func(r unix.Rlimit, err error) *limitPair {
		if err != nil {
			return nil
		}
		return &limitPair{orNone(r.Cur), orNone(r.Max)}
	}
	f.NoFile = pair(reaper.FileLimit())
	var r unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NPROC, &r)
	f.NProc = pair(r, err)
	f.PIDMax = -1
	if n, err := strconv.ParseInt(strings.TrimSpace(readSmall("/proc/sys/kernel/pid_max")), 10, 64); err == nil {
		f.PIDMax = n
	}
	f.CPUs = runtime.NumCPU()
	least := func(to **limitUse, limit, current string, v cgroupfs.View) {
		if n, used, ok := v.Least(limit, current); ok && *to == nil {
			*to = &limitUse{n, used}
		}
	}
	for _, v := range views {
		least(&f.PIDs, "pids.max", "pids.current", v)
		if v.Version == 2 {
			least(&f.Memory, "memory.max", "memory.current", v)
		} else {
			least(&f.Memory, "memory.limit_in_bytes", "memory.usage_in_bytes", v)
		}
	}
	return f
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
func lookPaths(paths []pathFacts, mountinfo string) []pathFacts {
	for i := range paths {
		lookPath(&paths[i], mountinfo)
	}
	return paths
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
	for line := range strings.Lines(mountinfo) {
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
func lookSocket(o options, cfg *procfile.Config) (f socketFacts, s *supervisorFacts) {
	f = socketFacts{Path: o.socketPath(cfg), From: "default", UID: -1, GID: -1}
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
	s, err = askSupervisor(f.Path)
	if f.Answers = s != nil; f.Answers || errors.Is(err, control.ErrDenied) {
		f.Usable = f.Answers
		if f.Error = ""; err != nil {
			f.Error = err.Error()
		}
	}
	return f, s
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
		if f := lookDescriptor(fmt.Sprintf("/proc/%d", s.PID), fd); f.Kind != "closed" {
			s.Stdio = append(s.Stdio, f)
		}
	}
	return s, nil
}

// lookCgroups asks [cgroupfs.Look], which makes nothing. The versions are told
// by the magic of each mounted file system (statfs(2)).
func lookCgroups(cfg *procfile.Config) (f cgroupFacts, views []cgroupfs.View) {
	var o cgroupfs.Options
	if cfg != nil {
		o = cgroupfs.Options{FSRoot: cfg.Cgroups.FSRoot, Root: cfg.Cgroups.HierarchyRoot, RootSet: cfg.Cgroups.HierarchyRootSet, Subsystems: cfg.Cgroups.Subsystems}
	}
	views, err := cgroupfs.Look(o)
	f = cgroupFacts{Version: "none", Controllers: []string{}, Delegated: []string{}}
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
	for i, v := range views {
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
		f.unmounted = true
		return f, views
	}
	v := views[max(take, 0)]
	f.Usable, f.Folder, f.holder = take >= 0, v.Folder, v.Holder
	f.Path, f.Mount, f.MountVersion, f.ReadOnly, f.Kill = v.Group, v.Mount, v.Version, v.ReadOnly, v.KillFile
	f.Delegated = append(f.Delegated, v.Delegated...)
	return f, views
}

// lookDescriptor asks fstat(2) and the links and fdinfo of /proc. The Go runtime
// opens /dev/null for what this process was started without: see
// [reaper.StartedWith].
func lookDescriptor(proc string, fd int) stdioFacts {
	f := stdioFacts{FD: fd, Kind: "closed", UID: -1, GID: -1}
	own := proc == "/proc/self"
	link := fmt.Sprintf("%s/fd/%d", proc, fd)
	f.Name, _ = os.Readlink(link)
	var st unix.Stat_t
	var err error
	if own {
		err = unix.Fstat(fd, &st)
	} else {
		err = unix.Stat(link, &st)
	}
	if err != nil {
		return f
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
	} else if n, err := strconv.ParseInt(statusField(readSmall(fmt.Sprintf("%s/fdinfo/%d", proc, fd)), "flags"), 8, 32); err == nil {
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
	return f
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
