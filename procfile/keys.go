package procfile

import (
	"slices"
	"time"
)

// A Level is a place where keys stand; a key's levels are a set.
type Level uint16

// The levels. A key that both an application and a worker may have is the
// application's default for its workers.
const (
	AtTop         Level = 1 << iota
	AtCgroups           // cgroups
	AtApplication       // applications.NAME
	AtWorker            // applications.NAME.workers.NAME
	AtBackoff           // backoff, wherever it stands
	AtOutput            // stdout and stderr as a map
	AtMount             // an item of mounts
	AtMachine           // machine
	AtInterface         // machine.network.NAME
)

// levelNames are the words of the documentation, in the order of the levels.
var levelNames = []string{"top", "cgroups", "application", "worker", "backoff", "stdout and stderr", "mounts", "machine", "network"}

// Names lists the levels of a set, as the documentation calls them.
func (l Level) Names() []string {
	var names []string
	for i, name := range levelNames {
		if l&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// A Type is what a key takes. The documentation and the schema are made of it.
type Type uint8

// The types.
const (
	TypeText        Type = iota // a single value
	TypePath                    // a path
	TypeWord                    // one of Values
	TypeBool                    // true or false
	TypeInteger                 // from Min to Max, or one of Values
	TypeIntegers                // one or a list of them
	TypeFactor                  // a number from Min to Max
	TypePercent                 // "10%"
	TypeDuration                // "10s", or one of Values
	TypeSize                    // "64KiB"
	TypeOctal                   // permission bits
	TypeID                      // a name or a number
	TypeTexts                   // one text or a list of them
	TypeWords                   // true, false or a list of names
	TypeList                    // a list of texts
	TypeMap                     // of texts by name
	TypeSection                 // a map with keys of its own, at level Inside
	TypeSections                // a map of such maps by name
	TypeOutput                  // one of Values or a Section
	TypeStop                    // a signal or a list of "SIGNAL DURATION"
	TypeVerbs                   // a map of lists of principals by verb
	TypeWordList                // one of Values or a list of them
	TypeSettings                // a map of texts by names with dots
	TypeShare                   // a size or a percentage
	TypePort                    // an I/O port, "0xf4"
	TypeSectionList             // a list of maps with keys of their own, at level Inside
	TypeInterfaces              // a map of such maps by the name of an interface
	numTypes
)

var typeNames = [numTypes]string{
	TypeText: "text", TypePath: "path", TypeWord: "word", TypeBool: "`true` or `false`", TypeInteger: "whole number",
	TypeIntegers: "whole number or a list", TypeFactor: "number", TypePercent: "percentage as `10%`",
	TypeDuration: "duration as `10s`", TypeSize: "size as `64KiB`", TypeOctal: "octal digits", TypeID: "name or number",
	TypeTexts: "text or a list", TypeWords: "`true`, `false` or a list of names", TypeList: "list of texts", TypeMap: "map of texts",
	TypeSection: "map", TypeSections: "map of maps by name", TypeOutput: "word or map", TypeStop: "signal, or a list of `SIGNAL DURATION`",
	TypeVerbs:    "map of verbs to lists of `user:NAME`, `group:NAME`",
	TypeWordList: "word or a list", TypeSettings: "map of texts", TypeShare: "size as `64MiB` or percentage as `50%`",
	TypePort: "I/O port as `0xf4`", TypeSectionList: "list of maps", TypeInterfaces: "map of maps by the interface's name",
}

func (t Type) String() string { return typeNames[t] }

// A Key is one key of the configuration. What a key takes, what it is checked
// for, how it is documented and what the schema says of it all come from here.
type Key struct {
	Name     string
	At       Level
	Type     Type
	Values   []string // the words it takes, besides what its type says
	Min, Max int      // of numbers
	Inside   Level    // of sections
	Default  string   // for people; "" is none
	Doc      string   // one or more sentences

	read func(*loader, *node) // nil: read where its section is
}

const both = AtApplication | AtWorker

// table is the one list of keys, in the order of the documentation. Keys are
// read in this order: what others need comes first.
var table = []Key{
	{Name: "include", At: AtTop, Type: TypeTexts,
		Doc: "Files or globs to merge over this one, in this order. Relative to the file that it stands in."},
	{Name: "log_path", At: AtTop, Type: TypePath, Values: []string{"stderr", "syslog"}, Default: "`stderr`",
		Doc:  "Where pazinit's own log goes: a file, the system's log, or stderr.",
		read: (*loader).readLogPath},
	{Name: "socket_path", At: AtTop, Type: TypePath, Default: "`pazinit.sock` in `/run/pazinit`, or for other users than root in `$XDG_RUNTIME_DIR/pazinit`, else `/tmp/pazinit-UID`",
		Doc:  "The control socket. The FIFO `control` and the state lie beside it. At most 107 bytes.",
		read: (*loader).readSocketPath},
	{Name: "socket_mode", At: AtTop, Type: TypeOctal, Min: 1, Default: "`0600`",
		Doc:  "The socket's permission bits.",
		read: func(l *loader, n *node) { set(&l.cfg.SocketMode)(l.octal(n, 1)) }},
	{Name: "socket_owner", At: AtTop, Type: TypeText, Default: "pazinit's own",
		Doc:  "The socket's owner: `USER`, `USER:GROUP` or `:GROUP`, names or numbers.",
		read: (*loader).readSocketOwner},
	{Name: "pid_file", At: AtTop, Type: TypePath,
		Doc:  "A file for pazinit's own pid.",
		read: func(l *loader, n *node) { set(&l.cfg.PIDFile)(l.path(n, l.dirOf(n))) }},
	{Name: "output_ring", At: AtTop, Type: TypeSize, Max: 64 << 20, Default: "`64KiB`",
		Doc:  "How much of the last output of each instance is kept in memory.",
		read: func(l *loader, n *node) { set(&l.cfg.OutputRing)(l.size(n, 0, 64<<20)) }},
	{Name: "console_full", At: AtTop, Type: TypeWord, Values: []string{"block", "drop"}, Default: "`block`",
		Doc:  "When pazinit's own output is stuck: let the writing workers wait, or drop and count lines.",
		read: func(l *loader, n *node) { set(&l.cfg.ConsoleFull)(l.word(n, "block", "drop")) }},
	{Name: "syslog", At: AtTop, Type: TypeBool, Default: "`true` as the init of a machine, else `false`",
		Doc: "Whether pazinit serves `/dev/log` and reads the kernel's messages: what an instance says by syslog(3) is a line of its output, all else of pazinit's own log.",
		read: func(l *loader, n *node) {
			if on, ok := l.boolean(n); ok {
				l.cfg.Syslog = &on
			}
		}},
	{Name: "shutdown_timeout", At: AtTop, Type: TypeDuration, Min: 1, Default: "each worker has its own `stop_timeout`",
		Doc:  "How long the end of everything may take as a whole: a little less than what pazinit itself is given, `9s` for `docker stop -t 10`, `28s` for a pod's `terminationGracePeriodSeconds: 30`. It is divided along the stop order; at its end pazinit kills what is left.",
		read: func(l *loader, n *node) { set(&l.cfg.ShutdownTimeout)(l.duration(n, time.Millisecond)) }},
	{Name: "end_when", At: AtTop, Type: TypeWord, Values: []string{"any", "all"}, Default: "`any`",
		Doc:  "Which of the `essential` workers must have ended for good to end pazinit. Its exit status is the first one of theirs, in the order of the file, that is not 0.",
		read: func(l *loader, n *node) { set(&l.cfg.EndWhen)(l.word(n, "any", "all")) }},
	{Name: "on_end", At: AtTop, Type: TypeWord, Values: endWords, Default: "`exit`; as the init of a machine `poweroff`",
		Doc:  "What PID 1 does when everything has ended: `exit`, switch the machine off, start it again or halt it (in a container: end it so that whoever started it sees that), start the kernel that kexec(8) has loaded, or open a shell on the console first, if there are both. The init of a machine never exits: `exit` is `poweroff` there.",
		read: func(l *loader, n *node) { set(&l.cfg.OnEnd)(l.word(n, endWords...)) }},
	{Name: "access", At: AtTop | both, Type: TypeVerbs, Default: "root and pazinit's own user",
		Doc:  "Who else may use a verb. `clear` and `maintail` stand for emptying logs and for pazinit's own log. An application or a worker adds to what stands above it, for its own instances.",
		read: (*loader).readAccess},
	{Name: "cgroups", At: AtTop, Type: TypeSection, Inside: AtCgroups,
		Doc:  "Where the instances' control groups are.",
		read: (*loader).readCgroups},
	{Name: "mounts", At: AtTop, Type: TypeSectionList, Inside: AtMount,
		Doc:  "What the init of a machine mounts before the applications' files are read, in this order; what needs the network (nfs, cifs, `_netdev`) when that is up. Without meaning elsewhere.",
		read: (*loader).readMounts},
	{Name: "machine", At: AtTop, Type: TypeSection, Inside: AtMachine,
		Doc:  "What the init of a machine does besides; without meaning elsewhere.",
		read: func(l *loader, n *node) { l.section(n, AtMachine) }},
	{Name: "applications", At: AtTop, Type: TypeSections, Inside: AtApplication,
		Doc:  "The applications by name. Names have letters, digits, `_` and `-`.",
		read: (*loader).readApplications},

	{Name: "hierarchy_root", At: AtCgroups, Type: TypePath, Default: "`pazinit`",
		Doc:  "The group that all others are made in.",
		read: (*loader).readHierarchyRoot},
	{Name: "hiearchy_root", At: AtCgroups, Type: TypePath,
		Doc:  "The same, in Pazuzu's spelling. Only one of the two may be given.",
		read: (*loader).readHierarchyRoot},
	{Name: "subsystems", At: AtCgroups, Type: TypeTexts, Default: "`[memory, cpu, cpuacct, blkio]`",
		Doc:  "The controllers to use.",
		read: (*loader).readSubsystems},
	{Name: "fs_root", At: AtCgroups, Type: TypePath, Default: "`/sys/fs/cgroup`",
		Doc:  "Where the control groups are mounted.",
		read: func(l *loader, n *node) { set(&l.cfg.Cgroups.FSRoot)(l.path(n, l.dirOf(n))) }},

	{Name: "device", At: AtMount, Type: TypeText, Default: "the type",
		Doc:  "What is mounted, as in fstab(5): `/dev/vda1`, `LABEL=`, `UUID=`, `PARTLABEL=` or `PARTUUID=`, the tag of virtiofs or 9p, or what the type takes.",
		read: func(l *loader, n *node) { set(&l.mount.Device)(l.text(n, "/dev/vda1, LABEL=data, ...")) }},
	{Name: "path", At: AtMount, Type: TypePath,
		Doc:  "Where; it is made if it is not there. Needed.",
		read: (*loader).readMountPath},
	{Name: "type", At: AtMount, Type: TypeText, Default: "what the device holds",
		Doc:  "The file system: `ext4`, `virtiofs`, `9p`, `overlay`, `tmpfs` and so on.",
		read: func(l *loader, n *node) { set(&l.mount.Type)(l.text(n, "ext4, virtiofs, tmpfs, ...")) }},
	{Name: "options", At: AtMount, Type: TypeTexts,
		Doc:  "Options, as in fstab(5): a list, or a text with commas.",
		read: (*loader).readMountOptions},
	{Name: "wait", At: AtMount, Type: TypeDuration, Default: "`10s` for a device",
		Doc: "How long a device that comes late is waited for.",
		read: func(l *loader, n *node) {
			set(&l.mount.Wait)(l.duration(n, 0))
			l.mount.WaitSet = true
		}},
	{Name: "optional", At: AtMount, Type: TypeBool, Default: "`false`",
		Doc:  "Whether the machine boots without it. Else that is an emergency.",
		read: func(l *loader, n *node) { set(&l.mount.Optional)(l.boolean(n)) }},

	{Name: "hostname", At: AtMachine, Type: TypeText, Default: "that of `/etc/hostname`",
		Doc:  "The machine's name.",
		read: (*loader).readHostname},
	{Name: "console", At: AtMachine, Type: TypeText, Default: "the kernel's own, the last `console=`",
		Doc:  "The terminal that is the console: `ttyS0`, `hvc0`.",
		read: (*loader).readConsole},
	{Name: "cgroup_version", At: AtMachine, Type: TypeWord, Values: cgroupVersions, Default: "`v2`",
		Doc:  "Which control groups are mounted.",
		read: func(l *loader, n *node) { set(&l.cfg.Machine.CgroupVersion)(l.word(n, cgroupVersions...)) }},
	{Name: "root_writable", At: AtMachine, Type: TypeBool, Default: "`true`",
		Doc:  "Whether the root, if it is mounted read-only, is made writable.",
		read: func(l *loader, n *node) { set(&l.cfg.Machine.RootWritable)(l.boolean(n)) }},
	{Name: "fstab", At: AtMachine, Type: TypeBool, Default: "`false`",
		Doc:  "Whether what `/etc/fstab` lists is mounted and swapped to, after `mounts`.",
		read: func(l *loader, n *node) { set(&l.cfg.Machine.Fstab)(l.boolean(n)) }},
	{Name: "swaps", At: AtMachine, Type: TypeTexts,
		Doc:  "Devices and files to swap to, named as in `mounts`.",
		read: func(l *loader, n *node) { l.cfg.Machine.Swaps = l.strings(n, "/dev/vdb, LABEL=swap, ...") }},
	{Name: "zram", At: AtMachine, Type: TypeShare,
		Doc:  "How much compressed swap in memory there is: a size, or a part of the memory.",
		read: (*loader).readZram},
	{Name: "modules", At: AtMachine, Type: TypeTexts,
		Doc: "Kernel modules to load, with what they need; parameters follow the name.",
		read: func(l *loader, n *node) {
			l.cfg.Machine.Modules = l.strings(n, "a module's name, softdog soft_margin=5")
		}},
	{Name: "sysctls", At: AtMachine, Type: TypeSettings,
		Doc:  "Kernel settings, as in `net.ipv4.ip_forward: 1`.",
		read: (*loader).readSysctls},
	{Name: "entropy_seed", At: AtMachine, Type: TypePath, Values: []string{"off"}, Default: "`/var/lib/pazinit/seed`, but not in an initramfs",
		Doc:  "The file that keeps randomness from one boot to the next.",
		read: (*loader).readSeed},
	{Name: "watchdog", At: AtMachine, Type: TypeDuration, Min: 1, Values: []string{"off"}, Default: "`off`",
		Doc:  "The time after which the watchdog's hardware starts a machine again whose init hangs. At least `2s`.",
		read: (*loader).readWatchdog},
	{Name: "watchdog_device", At: AtMachine, Type: TypePath, Default: "`/dev/watchdog`",
		Doc:  "The watchdog.",
		read: func(l *loader, n *node) { set(&l.cfg.Machine.WatchdogDevice)(l.path(n, "/dev")) }},
	{Name: "emergency", At: AtMachine, Type: TypeWord, Values: []string{"reboot", "shell"}, Default: "`reboot`",
		Doc:  "What follows when the machine cannot be started: a reboot after `reboot_delay`, or a shell on the console, whose end is a reboot.",
		read: func(l *loader, n *node) { set(&l.cfg.Machine.Emergency)(l.word(n, "reboot", "shell")) }},
	{Name: "reboot_delay", At: AtMachine, Type: TypeDuration, Default: "`10s`",
		Doc:  "How long the message of such an emergency stands on the console.",
		read: func(l *loader, n *node) { set(&l.cfg.Machine.RebootDelay)(l.duration(n, 0)) }},
	{Name: "panic_timeout", At: AtMachine, Type: TypeDuration, Values: []string{"off"}, Default: "the kernel command line's `panic=`, else `10s`",
		Doc:  "How long after a panic of the kernel the machine starts again, in whole seconds; `off` is never.",
		read: (*loader).readPanic},
	{Name: "ctrl_alt_del", At: AtMachine, Type: TypeWord, Values: []string{"reboot", "poweroff", "ignore"}, Default: "`reboot`",
		Doc: "What these keys do.",
		read: func(l *loader, n *node) {
			set(&l.cfg.Machine.CtrlAltDel)(l.word(n, "reboot", "poweroff", "ignore"))
		}},
	{Name: "power_button", At: AtMachine, Type: TypeWord, Values: []string{"poweroff", "reboot", "ignore"}, Default: "`poweroff`",
		Doc: "What the power button does, which is also how a hypervisor asks for the machine's end.",
		read: func(l *loader, n *node) {
			set(&l.cfg.Machine.PowerButton)(l.word(n, "poweroff", "reboot", "ignore"))
		}},
	{Name: "debug_exit", At: AtMachine, Type: TypePort,
		Doc:  "The port of QEMU's isa-debug-exit, which gets the machine's result (amd64).",
		read: (*loader).readDebugExit},
	{Name: "dns", At: AtMachine, Type: TypeTexts,
		Doc:  "Addresses of name servers for `/etc/resolv.conf`, before those that DHCP names.",
		read: (*loader).readDNS},
	{Name: "search", At: AtMachine, Type: TypeTexts,
		Doc:  "Domains that names without a dot are looked for in.",
		read: func(l *loader, n *node) { l.cfg.Machine.Search = l.strings(n, "a domain") }},
	{Name: "network", At: AtMachine, Type: TypeInterfaces, Inside: AtInterface,
		Doc:  "The network interfaces by name; `*` is every Ethernet device that is not named.",
		read: (*loader).readNetwork},

	{Name: "dhcp", At: AtInterface, Type: TypeBool, Default: "`false`",
		Doc:  "Whether an IPv4 address is asked for by DHCP.",
		read: func(l *loader, n *node) { set(&l.iface.DHCP)(l.boolean(n)) }},
	{Name: "addresses", At: AtInterface, Type: TypeTexts,
		Doc:  "Addresses of its own, as `192.0.2.7/24` or `2001:db8::7/64`.",
		read: func(l *loader, n *node) { l.iface.Addresses = l.addresses(n, prefixText) }},
	{Name: "gateway", At: AtInterface, Type: TypeTexts,
		Doc:  "Where everything goes that has no other route: an address, or one each of IPv4 and IPv6.",
		read: (*loader).readGateway},
	{Name: "routes", At: AtInterface, Type: TypeTexts,
		Doc:  "Further routes, as `10.0.0.0/8 via 192.0.2.1`, or `10.0.0.0/8` for what is on the link.",
		read: (*loader).readRoutes},
	{Name: "mtu", At: AtInterface, Type: TypeInteger, Min: 68, Max: 65535, Default: "the device's",
		Doc:  "The longest packet, in bytes.",
		read: func(l *loader, n *node) { set(&l.iface.MTU)(l.integer(n, 68, 65535)) }},
	{Name: "vlan", At: AtInterface, Type: TypeInteger, Min: 1, Max: 4094,
		Doc:  "The interface is made: this VLAN of `parent`.",
		read: func(l *loader, n *node) { set(&l.iface.VLAN)(l.integer(n, 1, 4094)) }},
	{Name: "parent", At: AtInterface, Type: TypeText,
		Doc:  "The interface that a VLAN is on.",
		read: (*loader).readParent},
	{Name: "bridge", At: AtInterface, Type: TypeTexts,
		Doc:  "The interface is made: a bridge of these.",
		read: (*loader).readBridge},
	{Name: "ipv6_ra", At: AtInterface, Type: TypeBool, Default: "the kernel's",
		Doc: "Whether the kernel gives itself addresses that routers advertise.",
		read: func(l *loader, n *node) {
			if on, ok := l.boolean(n); ok {
				l.iface.IPv6RA = &on
			}
		}},
	{Name: "optional", At: AtInterface, Type: TypeBool, Default: "`false`",
		Doc:  "Whether `wait_for: network` does without it.",
		read: func(l *loader, n *node) { set(&l.iface.Optional)(l.boolean(n)) }},

	{Name: "procfile", At: AtApplication, Type: TypePath,
		Doc: "The application's Procfile, or the directory that holds a `Procfile`. Relative to the file that it stands in. Needed unless every worker has a `command_line` or `run`."},
	{Name: "port_base", At: AtApplication, Type: TypeInteger, Min: 1, Max: 65535, Default: "`PORT` of `.env`, else 5000 and 1000 more for each further application",
		Doc:  "`PORT` of the first instance of the first worker.",
		read: func(l *loader, n *node) { l.portPos = n.pos; set(&l.app.PortBase)(l.integer(n, 1, 65535)) }},
	{Name: "workers", At: AtApplication, Type: TypeSections, Inside: AtWorker,
		Doc: "Settings of single workers, by their names in the Procfile."},

	{Name: "command_line", At: AtWorker, Type: TypeText, Default: "the Procfile's",
		Doc:  "The command line, in the place of the Procfile's.",
		read: func(l *loader, n *node) { l.sc.command = n }},
	{Name: "run", At: AtWorker, Type: TypePath,
		Doc:  "An absolute path to execute directly, in the place of the Procfile's command line.",
		read: func(l *loader, n *node) { l.sc.run = n }},
	{Name: "args", At: AtWorker, Type: TypeList,
		Doc:  "The arguments for `run`, each passed on exactly as it is.",
		read: func(l *loader, n *node) { l.sc.args = n }},
	{Name: "num_instances", At: AtWorker, Type: TypeInteger, Max: maxInstances, Values: []string{"cpus"}, Default: "1",
		Doc:  "How many instances run; `cpus` is one for each CPU that the control group's quota leaves.",
		read: (*loader).readInstances},

	{Name: "user", At: both, Type: TypeID, Default: "pazinit's own",
		Doc:  "The user to run as. A name gets the groups of the group file, a number none. Sets HOME, USER, LOGNAME and SHELL.",
		read: func(l *loader, n *node) { l.sc.user = n }},
	{Name: "group", At: both, Type: TypeID, Default: "the user's primary group",
		Doc:  "The group to run as.",
		read: func(l *loader, n *node) { l.sc.group = n }},
	{Name: "cwd", At: both, Type: TypePath, Default: "the Procfile's folder",
		Doc:  "The working directory. Relative to the Procfile's folder.",
		read: func(l *loader, n *node) { set(&l.w.Dir)(l.path(n, l.app.Dir)) }},
	{Name: "umask", At: both, Type: TypeOctal, Default: "pazinit's own",
		Doc: "The file mode creation mask.",
		read: func(l *loader, n *node) {
			if v, ok := l.octal(n, 0); ok {
				l.w.Umask = int(v)
			}
		}},
	{Name: "env", At: both, Type: TypeMap,
		Doc:  "Environment variables. A worker's are added to its application's.",
		read: (*loader).readEnv},
	{Name: "env_file", At: both, Type: TypeTexts,
		Doc:  "Files of KEY=VALUE lines, as `.env`. Relative to the Procfile's folder.",
		read: (*loader).readEnvFile},
	{Name: "env_inherit", At: both, Type: TypeWords, Default: "`true`",
		Doc:  "Which variables of pazinit's own environment are passed on: all, none, or those named.",
		read: (*loader).readEnvInherit},

	{Name: "stdin", At: both, Type: TypeWord, Values: []string{"null", "inherit"}, Default: "`null`; with `tty` `inherit`",
		Doc: "Where input comes from. One worker with one instance may `inherit` pazinit's own.",
		read: func(l *loader, n *node) {
			l.sc.stdin = n
			set(&l.w.Stdin)(l.word(n, "null", "inherit"))
		}},
	{Name: "tty", At: both, Type: TypeBool, Default: "`false`",
		Doc:  "Whether pazinit's terminal becomes the worker's controlling one. One worker with one instance may have it.",
		read: (*loader).readTTY},
	{Name: "stdout", At: both, Type: TypeOutput, Inside: AtOutput, Values: outputWords, Default: "`capture`; with `tty` `inherit`",
		Doc: "Where output goes, besides the ring: `capture` is the console, `inherit` pazinit's own stdout without a ring, `null` nowhere. A map replaces the application's whole.",
		read: func(l *loader, n *node) {
			l.sc.stdout = n
			l.readOutput(n, &l.w.Stdout)
		}},
	{Name: "stderr", At: both, Type: TypeOutput, Inside: AtOutput, Values: outputWords, Default: "`capture`; with `tty` `inherit`",
		Doc: "The same for error output.",
		read: func(l *loader, n *node) {
			l.sc.stderr = n
			l.readOutput(n, &l.w.Stderr)
		}},
	{Name: "file", At: AtOutput, Type: TypePath,
		Doc:  "Append to this file. Relative to the Procfile's folder. Outputs that share a file need the same `rotate_size` and `rotate_keep`.",
		read: func(l *loader, n *node) { l.readTarget(n, "file", l.path) }},
	{Name: "dir", At: AtOutput, Type: TypePath,
		Doc:  "A file for each instance and stream in this directory. Relative to the Procfile's folder.",
		read: func(l *loader, n *node) { l.readTarget(n, "dir", l.path) }},
	{Name: "pipe_to", At: AtOutput, Type: TypeText,
		Doc:  "The command line of a logger, which gets every byte on its stdin.",
		read: (*loader).readPipe},
	{Name: "rotate_size", At: AtOutput, Type: TypeSize, Min: 1, Default: "never",
		Doc:  "Begin a new file before this one grows longer.",
		read: func(l *loader, n *node) { set(&l.out.RotateSize)(l.size(n, 1, 1<<50)) }},
	{Name: "rotate_keep", At: AtOutput, Type: TypeInteger, Max: 1000, Default: "5",
		Doc: "How many old files are kept. Needs `rotate_size`.",
		read: func(l *loader, n *node) {
			set(&l.out.RotateKeep)(l.integer(n, 0, 1000))
			l.keep = n
		}},
	{Name: "pid_file", At: both, Type: TypePath,
		Doc:  "A file for the pid of the worker's only instance. Relative to the Procfile's folder.",
		read: func(l *loader, n *node) { l.sc.pidFile = n; set(&l.w.PIDFile)(l.path(n, l.app.Dir)) }},

	{Name: "priority", At: both, Type: TypeInteger, Max: 1_000_000, Default: "999",
		Doc:  "Lower ones start first and stop last, equal ones together.",
		read: func(l *loader, n *node) { set(&l.w.Priority)(l.integer(n, 0, 1_000_000)) }},
	{Name: "autostart", At: both, Type: TypeBool, Default: "`true`",
		Doc:  "Whether it starts together with pazinit.",
		read: func(l *loader, n *node) { set(&l.w.Autostart)(l.boolean(n)) }},
	{Name: "wait_for", At: both, Type: TypeWordList, Values: waitWords,
		Doc:  "What must be there before the supervisor starts it: `network` is that everything under `machine.network` is up, and what `mounts` lists of the network was mounted. Where pazinit sets no network up, it is there. An operator's start does not wait.",
		read: (*loader).readWaitFor},
	{Name: "essential", At: both, Type: TypeBool, Default: "`false`",
		Doc:  "Whether its end for good is pazinit's, with its exit status; see `end_when`.",
		read: func(l *loader, n *node) { set(&l.w.Essential)(l.boolean(n)) }},
	{Name: "restart", At: both, Type: TypeWord, Values: []string{"always", "on-failure", "never", "true", "false"}, Default: "`always`",
		Doc:  "Whether an instance that ended starts again; `true` is `always`, `false` is `never`.",
		read: (*loader).readRestart},
	{Name: "success_codes", At: both, Type: TypeIntegers, Max: 255, Default: "0",
		Doc:  "The exit statuses that are no failure, for `restart: on-failure`.",
		read: (*loader).readSuccessCodes},
	{Name: "backoff", At: both, Type: TypeSection, Inside: AtBackoff,
		Doc:  "The delays between restarts after unhealthy deaths. The first restart is immediate.",
		read: (*loader).readBackoff},
	{Name: "base", At: AtBackoff, Type: TypeDuration, Min: 1, Default: "`100ms`",
		Doc:  "The first delay.",
		read: func(l *loader, n *node) { set(&l.w.Backoff.Base)(l.duration(n, time.Millisecond)) }},
	{Name: "factor", At: AtBackoff, Type: TypeFactor, Min: 1, Max: 1000, Default: "4",
		Doc:  "By how much each further delay is longer.",
		read: func(l *loader, n *node) { set(&l.w.Backoff.Factor)(l.factor(n, 1, 1000)) }},
	{Name: "max", At: AtBackoff, Type: TypeDuration, Min: 1, Default: "`30s`",
		Doc:  "The longest delay.",
		read: func(l *loader, n *node) { set(&l.w.Backoff.Max)(l.duration(n, time.Millisecond)) }},
	{Name: "jitter", At: AtBackoff, Type: TypePercent, Default: "`10%`",
		Doc:  "How much a delay is longer or shorter by chance.",
		read: func(l *loader, n *node) { set(&l.w.Backoff.Jitter)(l.percent(n)) }},
	{Name: "healthy_after", At: both, Type: TypeDuration, Min: 1, Default: "`10s`",
		Doc:  "An instance that lived as long died healthy.",
		read: func(l *loader, n *node) { set(&l.w.HealthyAfter)(l.duration(n, time.Millisecond)) }},
	{Name: "max_restarts", At: both, Type: TypeInteger, Min: 1, Max: 1_000_000, Values: []string{"unlimited"}, Default: "5",
		Doc:  "After so many unhealthy deaths within `restart_window` the instance is FATAL.",
		read: func(l *loader, n *node) { set(&l.w.MaxRestarts)(l.limit(n)) }},
	{Name: "restart_window", At: both, Type: TypeDuration, Min: 1, Default: "`60s`",
		Doc:  "The time in which `max_restarts` counts.",
		read: func(l *loader, n *node) { set(&l.w.RestartWindow)(l.duration(n, time.Millisecond)) }},
	{Name: "retry_after", At: both, Type: TypeDuration, Min: 1, Values: []string{"off"}, Default: "`5m`",
		Doc:  "When a FATAL instance is tried anew; `off` is never.",
		read: (*loader).readRetryAfter},
	{Name: "retry_times", At: both, Type: TypeInteger, Min: 1, Max: 1_000_000, Values: []string{"unlimited"}, Default: "`unlimited`",
		Doc:  "How often a FATAL instance is tried anew.",
		read: func(l *loader, n *node) { set(&l.w.RetryTimes)(l.limit(n)) }},

	{Name: "stop_signal", At: both, Type: TypeStop, Default: "`TERM`",
		Doc:  "What stops an instance: a signal, or several with the time to wait after each, as in `[QUIT 30s, TERM 5s, KILL]`. KILL for all that is left always ends it.",
		read: (*loader).readStopSignal},
	{Name: "stop_timeout", At: both, Type: TypeDuration, Default: "`10s`",
		Doc:  "How long to wait after a stop signal that has no time of its own.",
		read: func(l *loader, n *node) { set(&l.sc.stopTimeout)(l.duration(n, 0)) }},
	{Name: "stop_to", At: both, Type: TypeWord, Values: []string{"leader", "group", "tree"}, Default: "`group`",
		Doc:  "Who gets the stop signals: the instance's first process, its process group, or all its processes. The last KILL goes to all.",
		read: func(l *loader, n *node) { set(&l.w.StopTo)(l.word(n, "leader", "group", "tree")) }},
}

var endWords = []string{"exit", "poweroff", "reboot", "halt", "kexec", "shell"}

var cgroupVersions = []string{"v2", "v1", "hybrid", "none"}

var waitWords = []string{"network"}

var outputWords = []string{"capture", "inherit", "null"}

// Keys lists every key of the configuration.
func Keys() []Key { return slices.Clone(table) }

// keyNames lists the keys of a level.
func keyNames(keys []Key, at Level) []string {
	var names []string
	for i := range keys {
		if keys[i].At&at != 0 {
			names = append(names, keys[i].Name)
		}
	}
	return names
}

// set returns what stores a value in p if it is good.
func set[T any](p *T) func(T, bool) {
	return func(v T, ok bool) {
		if ok {
			*p = v
		}
	}
}
