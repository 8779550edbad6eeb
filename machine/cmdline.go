package machine

import (
	"time"
)

// Cmdline is what the kernel's command line says to this program.
type Cmdline struct {
	Config   string   // pazinit.config=: the configuration's path
	Procfile string   // pazinit.procfile=: a Procfile's path
	Log      string   // pazinit.log=
	Shell    bool     // pazinit.shell: a shell on the console instead of a reboot, when nothing goes on
	Set      []string // pazinit.set=, in order: app.key=value

	DebugExit string // pazinit.debug_exit=: the port of QEMU's isa-debug-exit, see [ParsePort]

	RootDevice string        // root=
	RootType   string        // rootfstype=
	RootFlags  string        // rootflags=
	RootRW     bool          // the last of ro and rw
	RootDelay  time.Duration // rootdelay=: time to wait before the first look
	RootWait   time.Duration // rootwait, rootwait=: how long to wait for the device, negative is for ever
	Init       []string      // pazinit.init=, else init=: the program that root's init is, and its arguments

	IP       []string // ip=, in order, as they are
	Consoles []string // console=, in order, without their options

	Unknown []error // pazinit.* that nobody knows or whose value is none, each naming the nearest
}

// ReadCmdline reads the kernel's command line from path, "" is /proc/cmdline.
// A file that is missing is an empty command line.
func ReadCmdline(path string) (Cmdline, error) { return Cmdline{}, nil }

// ParseCmdline reads a command line as the kernel does (next_arg,
// lib/cmdline.c). What it does not know is ignored, and what is after a lone --
// is init's.
func ParseCmdline(line string) Cmdline { return Cmdline{} }
