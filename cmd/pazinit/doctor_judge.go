package main

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/procfile"
)

// What gives a thing, where it is the same for several.
const (
	giveVolume = "docker or podman run --tmpfs FOLDER; Kubernetes: an emptyDir volume mounted there; or socket_path in a folder that can be written"
	giveProc   = `runc: {"destination": "/proc", "type": "proc", "source": "proc"} in mounts; else mount -t proc proc /proc`
	givePIDs   = "docker or podman run --pids-limit 1024; Kubernetes: podPidsLimit of the kubelet"
	giveTTY    = "docker or podman run -it; Kubernetes: stdin: true and tty: true of the container"

	lostTree = "a worker's processes are found by ancestry, session, group and PAZINIT_RUN in their environment: best effort"
	reopens  = "a worker that opens it itself fails when it gets it as it is (exec mode, inherit); captured output works"
)

// giveCapability says what gives capabilities, by their short names, in this place
// and to this user.
func (j *judge) giveCapability(names ...string) string {
	add, long := "--cap-add "+strings.Join(names, " --cap-add "), "CAP_"+strings.Join(names, " CAP_")
	me := &j.d.User
	switch {
	case j.d.Place.host && me.EUID != 0:
		return "run it as root; systemd: AmbientCapabilities=" + long
	case j.d.Place.host:
		return "systemd: CapabilityBoundingSet= without a line, or with " + long
	case me.EUID != 0:
		return "podman run --user " + num(me.EUID) + " " + add + ", which gives ambient ones; docker run --user 0 " + add +
			", since docker gives other users none; Kubernetes: runAsUser: 0 and capabilities.add: [" + strings.Join(names, ", ") +
			"] in securityContext; runc: " + long + " in all sets of process.capabilities, ambient too"
	}
	return "docker or podman run " + add + "; Kubernetes: securityContext.capabilities.add: [" + strings.Join(names, ", ") + "]; runc: " + long + " in process.capabilities"
}

// A judge says what the facts mean, line by line. It looks at nothing else.
type judge struct {
	d     *diagnosis
	cfg   *procfile.Config // nil: none
	group string
	lines []doctorLine
}

func doctorJudge(d *diagnosis, cfg *procfile.Config) []doctorLine {
	j := &judge{d: d, cfg: cfg}
	j.place()
	j.namespaces()
	j.user()
	j.capabilities()
	j.limits()
	j.configuration()
	j.paths()
	j.socket()
	j.cgroups()
	j.features()
	j.stdio()
	j.signals()
	j.machine()
	return j.lines
}

// add appends a line; its text is the parts joined.
func (j *judge) add(mark, name string, parts ...string) *doctorLine {
	j.lines = append(j.lines, doctorLine{group: j.group, name: name, mark: mark, text: strings.Join(parts, "")})
	return &j.lines[len(j.lines)-1]
}

// without says what pazinit does without it, and what would give it.
//
//go:noinline
func (l *doctorLine) without(instead, setting string) { l.instead, l.setting = instead, setting }

// num is strconv.Itoa, once.
//
//go:noinline
func num(n int) string { return strconv.Itoa(n) }

// amount is a limit, of which -1 is none.
func amount(n int64) string {
	if n < 0 {
		return "no limit"
	}
	return strconv.FormatInt(n, 10)
}

func (j *judge) place() {
	d := j.d
	j.group = "place"
	j.add("", "version", d.Version)
	j.add("", "kernel", "Linux ", d.Kernel.Release, " ", d.Kernel.Machine)
	entered := ""
	switch {
	case d.Place.Entered && d.PID1.Pazinit:
		entered = " (docker exec, nsenter): stdio and rights may be others than its own"
	case d.Place.Entered:
		entered = "; entered from outside (docker exec, nsenter): stdio and rights may be others than the supervisor's"
	}
	j.add(markOK, "place", d.Place.Text, entered)
	ns := "a PID namespace of its own"
	switch d.Namespaces["pid"] {
	case nsInitial:
		ns = "the machine's PID namespace"
	case nsUnknown:
		ns = "a PID namespace that is not known, for want of /proc"
	}
	j.add("", "pid", num(d.Process.PID), " in ", ns)
	parent := num(d.Process.PPID)
	switch {
	case d.Process.PPID == 0 && d.Process.PID == 1:
		parent = "none that can be seen"
	case d.Process.PPID == 0:
		parent = "outside of this PID namespace"
	case d.Process.Parent != "":
		parent += ", " + d.Process.Parent
	}
	j.add("", "parent", parent)
	switch {
	case d.PID1.Pazinit:
		j.add(markOK, "subreaper", "not needed: orphans come to PID 1, which is pazinit")
	case !d.Process.SubreaperNeeded:
		j.add(markOK, "subreaper", "not needed: orphans come to PID 1")
	case d.Process.SubreaperPossible:
		j.add(markOK, "subreaper", "needed and possible: orphans of workers come to pazinit")
	default:
		j.add(markLimited, "subreaper", "needed, and refused: ", d.Features["subreaper"]).without(
			"orphans of workers go to another init, which has to reap them", "a seccomp filter that permits prctl")
	}
	const lost = "processes that left their worker's process group are not found"
	switch {
	case !d.Proc.Mounted:
		j.add(markMissing, "proc", "no /proc").without(lost+", and much of this report is not known", giveProc)
	case !d.Proc.OwnPIDNS:
		j.add(markLimited, "proc", "/proc is that of another PID namespace").without(lost, "unshare --mount-proc, or mount -t proc proc /proc in this namespace")
	case d.Proc.HidePID != "" && d.Proc.HidePID != "0" && d.Proc.HidePID != "off":
		j.add("", "proc", "hides other users' processes: hidepid=", d.Proc.HidePID)
	default:
		j.add(markOK, "proc", "mounted")
	}
}

func (j *judge) namespaces() {
	j.group = "namespaces"
	for _, kind := range namespaceKinds {
		text := "its own"
		switch j.d.Namespaces[kind] {
		case nsInitial:
			text = "the machine's"
		case nsNone:
			text = "this kernel has none"
		case nsUnknown:
			text = "not known"
		}
		j.add("", kind, text)
	}
}

func (j *judge) user() {
	u := &j.d.User
	j.group = "user"
	name := " (no entry in /etc/passwd, and none is needed)"
	if u.Name != "" {
		name = " (" + u.Name + ")"
	}
	if u.EUID != u.UID {
		name += ", effective " + num(u.EUID)
	}
	j.add(markOK, "user", "uid ", num(u.UID), name, ", gid ", num(u.EGID))
	switch {
	case len(u.UIDMap) == 0:
		j.add("", "uid_map", "not known")
	case u.Rootless:
		text := "rootless"
		for i, r := range u.UIDMap {
			sep := ", "
			if i == 0 {
				sep = ": "
			}
			text += sep + rangeText(r.Inside, r.Count) + " is " + rangeText(r.Outside, r.Count) + " outside"
		}
		j.add("", "uid_map", text)
	default:
		j.add("", "uid_map", "all users of the machine")
	}
	text := "not set"
	if u.NoNewPrivs {
		text = "set: programs with the set-user-ID bit, such as sudo, get no rights"
	}
	j.add("", "no_new_privs", text)
	j.add("", "seccomp", u.Seccomp)
}

func rangeText(first, count uint32) string {
	if count == 1 {
		return num(int(first))
	}
	return num(int(first)) + "-" + num(int(first)+int(count)-1)
}

// setText lists capabilities without their CAP_, or those of all that it lacks.
func setText(set []string) string {
	all, lacks := strings.Fields(capabilityNames), []string(nil)
	for _, name := range all {
		if !slices.Contains(set, "CAP_"+name) {
			lacks = append(lacks, name)
		}
	}
	switch {
	case len(set) == 0:
		return "none"
	case len(lacks) == 0:
		return "all"
	case len(lacks) <= 6:
		return "all but " + strings.Join(lacks, " ")
	}
	return strings.ReplaceAll(strings.Join(set, " "), "CAP_", "")
}

// has reports whether a capability is effective, by its short name.
func (j *judge) has(name string) bool {
	return slices.Contains(j.d.Capabilities.Effective, "CAP_"+name)
}

// capabilityTable is what capabilities give. Those with a feature count in the
// first user namespace alone: they were tried. Those without instead are for
// the init of a machine. Those asked are needed where the configuration says so.
var capabilityTable = []struct {
	name, feature, gives, instead string
	asked                         bool
}{
	{"KILL", "", "signal workers of another user", "it can signal workers of its own user alone", true},
	{"SETUID", "", "start workers as another user (user)", "workers run as pazinit's own user; those with another fail to start", true},
	{"SETGID", "", "start workers with another group (user, group)", "workers run with pazinit's own groups; those with others fail to start", true},
	{"CHOWN", "", "give the socket away (socket_owner)", "socket_owner can name its own user and groups alone", true},
	{"SYS_NICE", "raise_priority", "a higher priority than the workers'", "the priority it was started with: deaths are answered later on a busy machine", false},
	{"SYS_RESOURCE", "lower_oom_score", "less likely than workers to be killed for want of memory", "the kernel may kill pazinit before its workers", false},
	{"SYS_BOOT", "", "power off and reboot a machine", "", false},
	{"SYS_ADMIN", "", "mount file systems as the init of a machine", "", false},
	{"NET_ADMIN", "", "set up the network as the init of a machine", "", false},
	{"BPF", "", "not used by this version", "", false},
	{"PERFMON", "", "not used by this version", "", false},
}

func (j *judge) capabilities() {
	c := &j.d.Capabilities
	j.group = "capabilities"
	j.add("", "effective", setText(c.Effective))
	j.add("", "permitted", setText(c.Permitted))
	j.add("", "bounding", setText(c.Bounding))
	j.add("", "ambient", setText(c.Ambient))
	needed := j.neededCapabilities()
	for i := range capabilityTable {
		t := &capabilityTable[i]
		name, has, refused := "CAP_"+t.name, j.has(t.name), ""
		if t.feature != "" {
			refused = j.d.Features[t.feature]
		}
		switch {
		case t.feature != "" && refused == "":
			j.add(markOK, name, t.gives)
		case has && refused != "":
			give := ""
			if j.d.Namespaces["user"] == nsOwn {
				give = "no user namespace: in one it does not count"
			}
			j.add(markLimited, name, t.gives, ": it is there, but ", refused).without(t.instead, give)
		case t.instead == "" && has:
			j.add("", name, "there: ", t.gives)
		case t.instead == "" && (!j.d.Place.PID1 || !j.d.Place.Initial):
			j.add("", name, "not there, and not needed here: ", t.gives)
		case has:
			j.add(markOK, name, t.gives)
		case j.cfg != nil && t.asked && !slices.Contains(needed, t.name):
			j.add("", name, "not there, and not needed by this configuration: ", t.gives)
		default:
			j.add(markMissing, name, t.gives).without(t.instead, j.giveCapability(t.name))
		}
	}
}

// What is too little to be at ease with.
const (
	fewFiles  = 64
	fewPIDs   = 32
	ownPIDs   = 20 // what pazinit itself takes, with its threads
	leastPIDs = 20 // with fewer a start may not get through
	lowMemory = 16 << 20
)

func (j *judge) limits() {
	l := &j.d.Limits
	j.group = "limits"
	if r := l.NoFile; r != nil {
		mark, text := markOK, " open files, at most "
		if r.Hard >= 0 && r.Hard < fewFiles {
			mark = markLimited
		}
		line := j.add(mark, "nofile", amount(r.Soft), text, amount(r.Hard))
		if mark != markOK {
			line.without("workers wait for descriptors, or fail to start", "docker or podman run --ulimit nofile=1024:4096; runc: RLIMIT_NOFILE in process.rlimits")
		}
	}
	if r := l.NProc; r != nil {
		j.add("", "nproc", amount(r.Soft), " processes of this user, at most ", amount(r.Hard))
	}
	switch p := l.PIDs; {
	case p == nil:
		j.add("", "pids.max", "not known")
	case p.Max >= 0 && p.Max < leastPIDs:
		j.add(markBad, "pids.max", amount(p.Max), " processes and threads; pazinit itself needs about ", num(ownPIDs)).without("below "+num(leastPIDs)+" it may not start, or end when it needs a thread", givePIDs)
	case p.Max >= 0 && p.Max-p.Current < fewPIDs:
		j.add(markLimited, "pids.max", amount(p.Max), " processes and threads, of which ", amount(p.Current), " are used; pazinit itself needs about ", num(ownPIDs)).without("starts fail and are tried again", givePIDs)
	default:
		j.add(markOK, "pids.max", amount(p.Max), ", ", amount(p.Current), " used; pazinit itself needs about ", num(ownPIDs))
	}
	j.add("", "pid_max", amount(l.PIDMax))
	switch m := l.Memory; {
	case m == nil:
		j.add("", "memory", "not known")
	case m.Max >= 0 && m.Max < lowMemory:
		j.add(markLimited, "memory", amount(m.Max>>10), " KiB, ", amount(m.Current>>10), " used").without("the kernel kills what is over it", "docker or podman run --memory 64m; Kubernetes: resources.limits.memory")
	case m.Max < 0:
		j.add(markOK, "memory", "no limit, ", amount(m.Current>>20), " MiB used")
	default:
		j.add(markOK, "memory", amount(m.Max>>20), " MiB, ", amount(m.Current>>20), " used")
	}
	quota := ""
	if l.Quota >= 0 {
		quota = ", quota " + strconv.FormatFloat(float64(l.Quota)/1000, 'g', -1, 64)
	}
	j.add("", "cpus", num(l.CPUs), quota)
}

// workers calls f with every worker of the configuration.
func (j *judge) workers(f func(name string, w *procfile.Worker)) {
	if j.cfg == nil {
		return
	}
	for _, a := range j.cfg.Applications {
		for _, w := range a.Workers {
			f(a.Name+":"+w.Name, w)
		}
	}
}

// configuration looks for what the configuration asks for and cannot have; the
// paths, the socket and the cgroups are judged with the others of their kind.
func (j *judge) configuration() {
	c := &j.d.Configuration
	j.group = "configuration"
	for _, e := range c.Errors {
		j.add(markBad, "errors", e)
	}
	switch {
	case j.cfg != nil:
		j.add(markOK, "files", strings.Join(c.Files, ", "), ": ", num(c.Workers), " workers")
	case len(c.Errors) == 0:
		j.add("", "files", "none, and no Procfile here")
	}
	for i := range c.Commands {
		f := &c.Commands[i]
		j.add(markBad, f.Worker+".command", f.Worker, ": execute ", f.Path, ": ", f.Error).without("it fails to start", "")
	}
	if j.cfg != nil {
		switch end := j.cfg.OnEnd; {
		case c.noShell:
			j.add(markBad, "on_end", "on_end: shell: there is neither /bin/sh nor a busybox in PATH").without("it exits", "")
		case end != "" && end != "exit" && end != "shell" && !j.has("SYS_BOOT"):
			j.add(markBad, "on_end", "on_end: ", end, " needs CAP_SYS_BOOT").without("it exits", j.giveCapability("SYS_BOOT"))
		}
	}
	j.workers(func(name string, w *procfile.Worker) {
		j.workerUser(name, w.User)
		if w.TTY && j.d.Stdio[0].Kind != "tty" {
			j.add(markLimited, name+".tty", name, " wants the terminal, and stdin is none").without("it starts without one", giveTTY)
		}
	})
}

// needs are the capabilities without which no worker can become u, or be
// signalled as u. It follows what the supervisor does at a start: setgroups,
// setgid, setuid; and kill(2), which asks for the sender's own uid or CAP_KILL.
func (j *judge) needs(u *procfile.User) (names []string) {
	me := &j.d.User
	if u == nil || me.EUID != 0 && int(u.UID) == me.EUID {
		return nil
	}
	other := u.UIDSet && int(u.UID) != me.UID && int(u.UID) != me.EUID
	if other {
		names = append(names, "SETUID")
	}
	if me.EUID == 0 || len(u.Groups) > 0 || int(u.GID) != me.GID && int(u.GID) != me.EGID {
		names = append(names, "SETGID")
	}
	if other {
		names = append(names, "KILL")
	}
	return names
}

// neededCapabilities are those that the configuration asks for.
func (j *judge) neededCapabilities() (names []string) {
	j.workers(func(_ string, w *procfile.Worker) { names = append(names, j.needs(w.User)...) })
	if j.cfg != nil && j.cfg.SocketOwner != nil {
		names = append(names, "CHOWN")
	}
	return names
}

// workerUser judges whether a worker can become its user, and be stopped then.
func (j *judge) workerUser(name string, u *procfile.User) {
	if u == nil {
		return
	}
	me := &j.d.User
	lacks := slices.DeleteFunc(j.needs(u), j.has)
	why, give, instead := "", "", "it fails to start"
	switch {
	case len(lacks) == 1 && lacks[0] == "KILL":
		j.add(markBad, name+".user", name, " can run as ", u.Name, ", but not be stopped: CAP_KILL is missing").without(
			"signals to it are refused: "+unix.EPERM.Error(), j.giveCapability(lacks...))
		return
	case len(lacks) > 0:
		why, give = "missing CAP_"+strings.Join(lacks, ", CAP_"), j.giveCapability(lacks...)
		if slices.Contains(lacks, "KILL") {
			instead += ", and could not be stopped"
		}
	case me.EUID != 0 && int(u.UID) == me.EUID:
		return
	case u.UIDSet && !mapped(me.UIDMap, u.UID):
		why = "uid " + num(int(u.UID)) + " does not exist in this user namespace"
	case !mapped(me.GIDMap, u.GID):
		why = "gid " + num(int(u.GID)) + " does not exist in this user namespace"
	default:
		return
	}
	j.add(markBad, name+".user", name, " cannot run as ", u.Name, ": ", why).without(instead, give)
}

func (j *judge) paths() {
	j.group = "paths"
	for i := range j.d.Paths {
		f := &j.d.Paths[i]
		var b strings.Builder
		if i > 2 { // the first three say it by their names
			b.WriteString(f.Use + ": ")
		}
		switch {
		case f.Writable && f.Exists:
			b.WriteString("writable")
		case f.Writable:
			b.WriteString("not there, can be made")
		default:
			b.WriteString("not writable: " + f.Error)
		}
		if f.NoExec {
			b.WriteString(", noexec")
		}
		if f.Type != "" {
			b.WriteString(", " + f.Type)
		}
		switch {
		case f.Writable:
			j.add(markOK, f.Path, b.String())
		case f.asked:
			j.add(markBad, f.Path, f.Use, ": ", f.Path, " cannot be written: ", f.Error).without("it goes on without that file", "a volume there, or another path")
		default: // nothing mandatory is ever written
			j.add("", f.Path, b.String())
		}
	}
}

func (j *judge) socket() {
	s := &j.d.Socket
	j.group = "socket"
	j.add("", "path", s.Path, " (", s.From, ")")
	if s.Exists {
		j.add("", "there", "mode ", s.Mode, ", owner ", num(s.UID), ":", num(s.GID))
	}
	switch {
	case s.Answers:
		j.add(markOK, "usable", "yes, and a supervisor has it")
	case s.Usable:
		j.add(markOK, "usable", "yes")
	default:
		mark, give, instead := markLimited, "", "there is no control socket: signals stop and reload it, and there is no status"
		if s.From != "default" {
			mark = markBad
		}
		for _, dir := range []string{"/run", "/tmp"} {
			if strings.HasPrefix(s.Path, dir+"/") {
				give = strings.Replace(giveVolume, "FOLDER", dir, 1)
			}
		}
		if s.unsafe {
			give = "a folder of this user's own, in which nobody else may write"
		}
		if s.fatal {
			instead = "it refuses to start"
		}
		j.add(mark, "usable", "no: ", s.Error).without(instead, give)
	}
	if s.Long {
		j.add(markLimited, "long", num(len(s.Path)), " bytes: longer than an address takes").without("pazinit reaches it through /proc; other programs, such as curl, do not", "a shorter socket_path")
	}
	v := j.d.Supervisor
	if one := &j.d.PID1; v == nil && one.Pazinit && s.From == "default" && one.UID >= 0 && one.UID != j.d.User.EUID {
		text := "none answers here, but PID 1 is a pazinit of uid " + num(one.UID) + ": enter with --user " + num(one.UID)
		if one.UID != 0 {
			text += ", or, as root, --socket " + control.DefaultSocket(one.UID, func(string) string { return "" })
		}
		j.add(markLimited, "supervisor", text).without("the verbs do not reach it", "")
		return
	}
	if v == nil {
		j.add("", "supervisor", "none answers")
		return
	}
	j.add(markOK, "supervisor", "pid ", num(v.PID), ", uid ", num(int(v.UID)), ", ", v.Place, ", ", v.Version)
}

func (j *judge) cgroups() {
	c := &j.d.Cgroups
	j.group = "cgroups"
	text := c.Version
	if text == "hybrid" {
		text = "hybrid: v1, and v2 beside it"
	}
	j.add("", "version", text)
	if c.Path != "" {
		j.add("", "own", c.Path)
	}
	asked := j.cfg != nil && j.cfg.Cgroups.HierarchyRootSet
	switch {
	case c.Usable && asked && c.holder > 0 && (j.d.Supervisor == nil || j.d.Supervisor.PID != c.holder):
		j.add(markBad, "usable", "hierarchy_root: ", c.Folder, " is in use by pid ", num(c.holder)).without("it refuses to start", "another hierarchy_root")
	case c.Usable:
		j.add(markOK, "usable", "each instance gets a group below ", c.Folder)
	default:
		mark, give := markLimited, c.setting
		if c.Version == "none" {
			mark = markMissing
		}
		if c.ReadOnly {
			give = j.giveCgroup()
		}
		j.add(mark, "usable", "no: ", c.Error).without(lostTree, give)
	}
	if c.Version == "none" {
		return
	}
	text = ", read-write"
	if c.ReadOnly {
		text = ", read-only"
	}
	j.add("", "mount", c.Mount, text)
	j.add("", "controllers", listText(c.Controllers))
	if c.MountVersion != 2 {
		return
	}
	j.add("", "delegated", listText(c.Delegated))
	switch {
	case c.Kill:
		j.add(markOK, "cgroup.kill", "there")
	case c.Usable && older(j.d.Kernel.Release, "5.14"):
		j.add("", "cgroup.kill", "from Linux 5.14 on").without("a group is frozen and its processes are killed one by one", "")
	case c.Usable:
		j.add(markLimited, "cgroup.kill", "not there (Linux 5.14)").without("a group is frozen and its processes are killed one by one", "")
	}
}

// giveCgroup says what makes a read-only hierarchy writable. Podman's unmask does
// it for v2 alone, and for the container's root.
func (j *judge) giveCgroup() string {
	c, user, uid := &j.d.Cgroups, "", j.d.User.EUID
	if uid != 0 {
		user = "two things, since the user is an obstacle too: root in the container, or a group delegated to uid " + num(uid) + " (chown); and "
	}
	give := "docker or podman run --privileged"
	switch {
	case j.d.Place.host:
		return user + "mount -o remount,rw " + c.Mount
	case c.MountVersion != 2:
	case uid == 0:
		give = "docker run --security-opt writable-cgroups=true (Docker 28 or newer); podman run --security-opt unmask=/sys/fs/cgroup; " + give
	default:
		give = "docker run --security-opt writable-cgroups=true (Docker 28 or newer); " + give
	}
	return user + give + "; Kubernetes: securityContext.privileged: true; runc: a mount of type cgroup without ro"
}

func listText(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}

func (j *judge) features() {
	j.group = "features"
	for i := range featureTable {
		f := &featureTable[i]
		switch err := j.d.Features[f.name]; {
		case f.since == "": // told with its capability
		case err == "":
			j.add(markOK, f.name, "works")
		case older(j.d.Kernel.Release, f.since): // nothing that anybody could change here
			j.add("", f.name, "from Linux ", f.since, " on").without(f.instead, "")
		default:
			j.add(markLimited, f.name, err, " (Linux ", f.since, ")").without(f.instead, "")
		}
	}
}

// older reports whether a kernel of release is older than since; not if either
// cannot be read.
func older(release, since string) bool {
	first, rest, _ := strings.Cut(since, ".")
	second, _, _ := strings.Cut(rest, ".")
	major, err := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(second)
	return err == nil && err2 == nil && atLeast(release, 0, 0) && !atLeast(release, major, minor)
}

func (j *judge) stdio() {
	j.group = "stdio"
	j.descriptors(j.d.Stdio)
	text := "no controlling one"
	if j.d.Terminal.Controlling {
		text = "a controlling one"
	}
	j.add("", "terminal", text)
	if v := j.d.Supervisor; v != nil && v.PID != j.d.Process.PID {
		j.group = "supervisor's stdio"
		j.descriptors(v.Stdio)
		if len(v.Stdio) == 0 {
			j.add("", "stdio", "may not be looked at from here")
		}
	}
}

func (j *judge) descriptors(list []stdioFacts) {
	for i := range list {
		s := &list[i]
		name := [3]string{"stdin", "stdout", "stderr"}[s.FD]
		text := s.Kind
		if s.Kind == "closed" {
			j.add("", name, text)
			continue
		}
		if s.Name != "" && s.Kind != "pipe" && s.Kind != "socket" {
			text += " " + s.Name
		}
		text += ", owner " + num(s.UID) + ":" + num(s.GID) + ", mode " + s.Mode
		switch dev := "/dev/" + name; {
		case s.FD == 0:
			j.add("", name, text)
		case s.Kind == "socket":
			j.add(markLimited, name, text, "; ", dev, " cannot be opened by anybody").without(reopens, "a pipe instead: pazinit … | cat")
		case s.OthersCanOpen:
			j.add(markOK, name, text, "; any user can open ", dev)
		case !s.SelfCanOpen:
			j.add(markLimited, name, text, "; ", dev, " cannot be opened by this user").without(reopens, "")
		case j.inherits(s):
			j.add(markLimited, name, text, "; a worker of another user that gets it as it is (inherit) cannot open ", dev).without(reopens, name+": capture, which is the default")
		default:
			j.add(markOK, name, text, "; a worker of another user can open ", dev, " if it is captured")
		}
	}
}

// signals tells what exec mode hands on; the workers of a Procfile start with
// none blocked and none ignored.
func (j *judge) signals() {
	s := &j.d.Signals
	j.group = "signals"
	if s.Blocked == nil {
		j.add("", "blocked", "not known: the program was linked without its entry point")
		return
	}
	j.add("", "blocked", listText(s.Blocked))
	j.add("", "ignored", listText(s.Ignored))
}

// inherits reports whether a worker of another user gets that descriptor as it is.
func (j *judge) inherits(s *stdioFacts) (yes bool) {
	j.workers(func(_ string, w *procfile.Worker) {
		t := &w.Stdout
		if s.FD == 2 {
			t = &w.Stderr
		}
		u := w.User
		yes = yes || t.Kind == "inherit" && u != nil && u.UIDSet && u.UID != 0 && int(u.UID) != s.UID
	})
	return yes
}
