package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	pazinit "github.com/pazinit/pazinit/init"
	"github.com/pazinit/pazinit/machine"
	"github.com/pazinit/pazinit/procfile"
	"github.com/pazinit/pazinit/reaper"
	"github.com/pazinit/pazinit/reaper/signals"
)

// A host is what this program is to a machine whose init it is, beside being its
// supervisor.
type host struct {
	hearing

	c           *command
	args        []string // the program's
	env         []string // that the kernel gave it
	line        machine.Cmdline
	opts        procfile.Options
	cfg         *procfile.Config // what LoadMachine read
	console     string
	watchdog    *machine.Watchdog
	up          *netUp
	overNet     []machine.Mount // wait until it is up
	swapOverNet []string        // and these swaps, after them
	ready       chan struct{}   // closed when they were tried
	dir         string          // where the network's process says how it is
	seed        string          // the path of the entropy seed, "" for none
	pressed     chan machine.Key
	alive       atomic.Pointer[*pazinit.Supervisor] // whom the watchdog asks; nil: nobody yet
}

// A hearing is what a host hears while nobody supervises.
type hearing struct {
	hears    bool              // signals, from the boot on
	known    *procfile.Config  // what they may go by; nil: nothing yet
	listens  bool              // to the buttons
	wanted   chan signals.Info // those that end the machine
	handing  sync.Mutex        // over, of what is wanted, to the supervisor
	patience atomic.Int64      // of the watchdog, from its start on; ns
}

// A step is one thing that a machine's init does before it supervises. An error
// is said, and only one that is fatal is an emergency: a machine that lacks
// something is more use than none.
type step struct {
	name  string
	do    func(*host) error
	fatal bool
}

// bootSteps are the way from the kernel to the supervisor, in order: what is
// needed to say something, to find the root, to read the configuration, to reach
// the applications' files, and then the rest.
var bootSteps = []step{
	{"mount /proc, /sys, /dev and the like", (*host).mountEarly, false},
	{"set kernel.panic", (*host).earlyPanic, false},
	{"open the console", (*host).openConsole, false},
	{"read the kernel's command line", (*host).readLine, false},
	{"clean the environment", (*host).cleanEnvironment, false},
	{"look at the image", (*host).imageWhole, true},
	{"load the image's modules", (*host).loadList, false},
	{"listen to the buttons", (*host).listenButtons, false},
	{"move to the root", (*host).switchRoot, true},
	{"open a shell", (*host).openShell, false},
	{"read the configuration", (*host).readConfig, true},
	{"open the configured console", (*host).openOther, false},
	{"set kernel.panic as configured", (*host).setPanic, false},
	{"load modules", (*host).loadModules, false},
	{"listen to the modules' buttons", (*host).listenButtons, false},
	{"start the watchdog", (*host).startWatchdog, false},
	{"make the root writable", (*host).remountRoot, false},
	{"set the clock", (*host).setClock, false},
	{"mount what mounts and fstab list", (*host).mountAll, true},
	{"set the clock by what is mounted", (*host).setClock, false}, // the seed's time may be there alone
	{"swap", (*host).swap, false},
	{"feed the entropy seed", (*host).loadSeed, false},
	{"mount control groups", (*host).mountCgroups, false},
	{"set the host's name", (*host).setHostname, false},
	{"find the machine's id", (*host).machineID, false},
	{"set the loopback up", (*host).loopback, false},
	{"sysctls", (*host).setSysctls, false},
}

// isMachine reports whether this process is the init of a machine, also before
// there is a /proc to say so. In a PID namespace of its own the kernel refuses
// this command (reboot_pid_ns, kernel/pid_namespace.c), and who may not give it
// could mount nothing either: so a container never gets mounts.
func isMachine() bool {
	if os.Getpid() != 1 {
		return false
	}
	if initial, known := initialPIDs(); known {
		return initial
	}
	return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) == nil
}

// initialPIDs reports whether /proc says that this is the machine's own PID
// namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h).
func initialPIDs() (initial, known bool) {
	ns, err := os.Readlink("/proc/self/ns/pid")
	return ns == initialPIDSpace, err == nil
}

const initialPIDSpace = "pid:[4026531836]"

// boot is the life of a machine's init. It returns only what there is nobody to
// return it to.
func (c *command) boot(args []string) (code int) {
	runtime.UnlockOSThread() // of init
	c.stderr = &patient{to: c.stderr, limit: consoleLimit}
	h := &host{c: c, args: args, up: newNetUp(), ready: make(chan struct{}), dir: networkDir, pressed: make(chan machine.Key, 1)}
	h.wanted = make(chan signals.Info, 1)
	c.host = h
	defer func() {
		if fault := recover(); fault != nil {
			code = h.emergency(fmt.Errorf("a fault of pazinit: %v\n%s", fault, debug.Stack()), 1)
		}
	}()
	if err := h.hear(); err != nil {
		h.say("%v", err)
	}
	if err := h.run(bootSteps); err != nil {
		var asked errAsked
		if errors.As(err, &asked) {
			e := &ender{place: machinePlace, stderr: c.stderr, machine: h.finish, rest: reaper.Rest}
			return e.end(string(asked), 1)
		}
		if isErrors(err) {
			return h.emergency(err, exitUsage)
		}
		return h.emergency(err, 1)
	}
	code = h.supervise()
	switch {
	case c.ran:
	case code == exitUsage:
		return h.emergency(errWrong, code)
	default:
		return h.emergency(errors.New("it cannot supervise; why stands above"), code)
	}
	return c.end(code)
}

// supervise is the life of the machine. What makes no sense in the arguments is
// said.
func (h *host) supervise() int {
	args, ignored := h.c.machineArgs(h.args)
	if len(ignored) > 0 {
		h.say("ignored, as nothing is known of it: %s", strings.Join(ignored, " "))
	}
	if named := len(args) > 0 && args[0] == "run"; named {
		return h.c.supervise(args[1:], true)
	}
	return h.c.supervise(args, false)
}

// run carries out steps in order. Its error is that of a fatal one.
func (h *host) run(steps []step) error {
	for i := range steps {
		s := &steps[i]
		err := h.guarded(s)
		if !isAsked(err) { // the step has ended, and so nobody writes h.cfg
			h.known = h.cfg
		}
		switch {
		case err == nil:
		case s.fatal:
			return fmt.Errorf("%s: %w", s.name, err)
		case isAsked(err):
			return err
		default:
			for _, e := range each(err) {
				h.say("%s: %v", s.name, e)
			}
		}
	}
	return nil
}

// guarded carries out one step. A fault of ours in it is an error of it. A step
// that waits, for a disk say, is left behind when the machine is to end.
func (h *host) guarded(s *step) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if fault := recover(); fault != nil {
				done <- fmt.Errorf("a fault of pazinit: %v\n%s", fault, debug.Stack())
			}
		}()
		done <- s.do(h)
	}()
	what, err := h.await(-1, done)
	if what != "" {
		return errAsked(what)
	}
	return err
}

// An errAsked is the word of how the machine is to end, before it was up.
type errAsked string

func (e errAsked) Error() string { return string(e) + " was asked for" }

// await waits for done, limit at most (negative: for ever), and for a signal or a
// button that ends the machine: what says how, "" if none came.
func (h *host) await(limit time.Duration, done <-chan error) (what string, err error) {
	var over <-chan time.Time
	if limit >= 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		over = t.C
	}
	for {
		var from string
		select {
		case err := <-done:
			return "", err
		case <-over:
			return "", nil
		case i := <-h.wanted:
			what, from = h.meaning(i)
		case k := <-h.pressed:
			what, from = h.meaningOf(k)
		}
		if what != "" && what != "ignore" {
			h.say("%s: %s", from, what)
			return what, nil
		}
	}
}

// each are the errors that err was joined of.
func each(err error) []error {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) && !isErrors(err) {
		var out []error
		for _, e := range many.Unwrap() {
			out = append(out, each(e)...)
		}
		return out
	}
	return []error{err}
}

func isAsked(err error) bool {
	var asked errAsked
	return errors.As(err, &asked)
}

func isErrors(err error) bool {
	var list procfile.Errors
	return errors.As(err, &list)
}

func (h *host) say(format string, args ...any) {
	fmt.Fprintf(h.c.stderr, "pazinit: "+format+"\n", args...)
}

func (h *host) sayLine(msg string) { h.say("%s", msg) }

func (h *host) mountEarly() error {
	notes, err := machine.MountEarly()
	for _, n := range notes {
		if !errors.Is(n, errors.ErrUnsupported) {
			h.say("%v", n)
		}
	}
	// An image without an entry for its root has the kernel's own, where everybody
	// may write (shmem_fill_super, mm/shmem.c).
	var st unix.Stat_t
	if unix.Stat("/", &st) == nil && st.Mode&0o002 != 0 && machine.InInitramfs() {
		err = errors.Join(err, os.Chmod("/", 0o755))
	}
	return err
}

func (h *host) openConsole() error { return h.takeConsole("") }

func (h *host) takeConsole(name string) (err error) {
	h.console, err = machine.OpenConsole(name)
	// Without it Ctrl-C at the console would be a signal to us, which none can tell
	// from Ctrl-Alt-Del. A worker with tty takes it.
	_ = unix.IoctlSetInt(0, unix.TIOCNOTTY, 0)
	return err
}

func (h *host) openOther() error {
	if name := h.cfg.Machine.Console; name != "" && "/dev/"+name != h.console {
		return h.takeConsole(name)
	}
	return nil
}

// earlyPanic comes ahead of all that could fail. What the kernel was told stays.
func (h *host) earlyPanic() error {
	if line, _ := machine.ReadCmdline(""); line.Panic {
		return nil
	}
	return machine.SetKernelPanic(10 * time.Second)
}

func (h *host) setPanic() error {
	if h.cfg.Machine.PanicTimeout < 0 {
		return nil // done before, or by the kernel
	}
	return machine.SetKernelPanic(h.cfg.Machine.PanicTimeout)
}

// moduleList is where the maker of an image writes what it needs at once.
const moduleList = "/lib/modules/pazinit.load"

func (h *host) loadList() error { return errors.Join(machine.LoadModuleList(moduleList)...) }

// rootWait is how long a root's device is waited for that is not said to be late.
const rootWait = 10 * time.Second

func (h *host) switchRoot() error {
	if h.line.RootDevice == "" || !machine.InInitramfs() {
		return nil
	}
	wait := h.line.RootWait
	if wait == 0 {
		wait = rootWait
	}
	time.Sleep(min(h.line.RootDelay, time.Hour))
	h.say("moving to the root %s", h.line.RootDevice)
	return withDriverless("/", machine.SwitchRoot(machine.Root{
		Spec: h.line.RootDevice, Type: h.line.RootType, Flags: h.line.RootFlags, RW: h.line.RootRW,
		Wait: wait, Init: h.line.Init, Args: h.args, Env: h.env, Say: h.sayLine, Exec: reaper.Exec,
	}))
}

// readConfig reads what is needed to reach the rest of the configuration.
func (h *host) readConfig() error {
	h.opts = machineOptions(&h.line, h.args)
	if dir, err := os.Getwd(); err == nil {
		h.opts.Dir = dir
	}
	cfg, err := procfile.LoadMachine(h.opts)
	if err != nil {
		return withRest(h.opts, h.line.IP, err)
	}
	h.cfg = cfg
	return nil
}

func (h *host) loadModules() error { return errors.Join(machine.LoadModules(h.cfg.Machine.Modules)...) }

func (h *host) remountRoot() error {
	if !h.cfg.Machine.RootWritable || h.line.RootRO || machine.InInitramfs() {
		return nil
	}
	return machine.RemountRoot(true)
}

func (h *host) setClock() error {
	from, err := machine.SetClock(h.seedPath())
	if from != "" {
		h.say("the clock was set by %s", from)
	}
	return err
}

// mountAll mounts what the configuration and fstab list, but what comes over the
// network: there is none yet.
func (h *host) mountAll() error {
	var bad error // lines of fstab; what can be mounted is, so that all is said at once
	var list []machine.Mount
	for _, m := range h.cfg.Mounts {
		source := m.Device
		if source == "" {
			source = m.Type
		}
		list = append(list, machine.Mount{
			Source: source, Target: m.Path, Type: m.Type, Options: m.Options, Wait: m.Wait, Optional: m.Optional,
		})
	}
	if h.cfg.Machine.Fstab {
		var more []machine.Mount
		var swaps []string
		more, swaps, bad = machine.ReadFstab("/etc/fstab", h.sayLine)
		if errors.Is(bad, fs.ErrNotExist) {
			h.say("%v", bad)
			bad = nil
		}
		list = append(list, more...)
		h.cfg.Machine.Swaps = append(slices.Clip(h.cfg.Machine.Swaps), swaps...)
	}
	list, h.overNet = machine.SplitNetwork(machine.ParentsFirst(list))
	if len(list) == 0 {
		return bad
	}
	loadFor(list)
	for _, m := range list {
		h.lend(m.Wait)
	}
	return errors.Join(bad, withDriverless("/", errors.Join(machine.MountAll(list, h.sayLine)...)))
}

// loadFor loads the modules of file systems. The kernel would ask modprobe(8) for
// them, which an image need not have.
func loadFor(list []machine.Mount) {
	var modules []string
	for _, m := range list {
		if alias := "fs-" + m.Type; m.Type != "" && m.Type != "auto" && !slices.Contains(modules, alias) {
			modules = append(modules, alias)
		}
	}
	if len(modules) > 0 {
		_ = machine.LoadModules(modules) // most are no modules; what is missing the mount says
	}
}

// swapWait is how long a device to swap to is waited for.
const swapWait = 10 * time.Second

func (h *host) swap() error {
	var errs []error
	var swaps []string
	for _, spec := range h.cfg.Machine.Swaps {
		if machine.SwapNeedsNetwork(spec, h.overNet) {
			h.swapOverNet = append(h.swapOverNet, spec)
		} else {
			swaps = append(swaps, spec)
		}
	}
	if len(swaps) > 0 {
		errs = machine.SwapOn(swaps, swapWait, h.sayLine)
	}
	size := h.cfg.Machine.Zram
	if share := h.cfg.Machine.ZramShare; size == 0 && share > 0 {
		var info unix.Sysinfo_t
		if err := unix.Sysinfo(&info); err != nil {
			errs = append(errs, fmt.Errorf("read the size of the memory: %w", err))
		}
		size = int64(share * float64(info.Totalram) * float64(info.Unit))
	}
	if size > 0 {
		errs = append(errs, machine.Zram(size, ""))
	}
	return errors.Join(errs...)
}

// defaultSeed is where the entropy seed is kept on a disk.
const defaultSeed = "/var/lib/pazinit/seed"

func (h *host) seedPath() string {
	switch path := h.cfg.Machine.EntropySeed; {
	case path == "off":
		return ""
	case path != "":
		return path
	case machine.InInitramfs():
		return "" // gone at the next boot
	}
	return defaultSeed
}

func (h *host) loadSeed() error {
	if h.seed = h.seedPath(); h.seed == "" {
		return nil
	}
	if dir := h.seed[:strings.LastIndexByte(h.seed, '/')]; dir != "" {
		_ = os.MkdirAll(dir, 0o755) // what fails here fails below
	}
	return machine.LoadSeed(h.seed)
}

func (h *host) mountCgroups() error { return machine.MountCgroups(h.cfg.Machine.CgroupVersion) }

func (h *host) setHostname() error { return machine.SetHostname(hostname(h.line.IP, h.cfg)) }

func (h *host) machineID() error {
	_, err := machine.MachineID("/")
	return err
}

func (h *host) loopback() error { return machine.Loopback() }

func (h *host) setSysctls() error {
	if len(h.cfg.Machine.Sysctls) == 0 {
		return nil
	}
	values := make(map[string]string)
	for _, s := range h.cfg.Machine.Sysctls {
		values[s.Name] = s.Value
	}
	return errors.Join(machine.Sysctls(values)...)
}

// feed feeds the watchdog as long as the supervisor's loop answers, and before there
// is one as long as patience has it from begin on. It reports whether that is over, and not only broken off.
func (h *host) feed(w *machine.Watchdog, begin time.Time) (over bool) {
	defer func() {
		if v := recover(); v != nil {
			h.say("a fault of pazinit, feeding the watchdog: %v", v)
		}
	}()
	w.Run(func() bool { return h.goesOn(begin) })
	return true
}

func (h *host) goesOn(begin time.Time) bool {
	if s := h.alive.Load(); s != nil {
		return (*s).Alive()
	}
	return time.Since(begin) < time.Duration(h.patience.Load())
}

// bootPatience is how long a machine may take to have a supervisor, beside what it
// is to wait for.
const bootPatience = 5 * time.Minute

// lend has the watchdog wait for d longer; negative is for ever.
func (h *host) lend(d time.Duration) {
	const ever = 1 << 61
	if d < 0 {
		d = ever
	}
	h.patience.Store(min(h.patience.Load(), ever) + int64(min(d, ever)))
}

// startWatchdog has the hardware look after us from here on.
func (h *host) startWatchdog() error {
	m := h.cfg.Machine
	if m.Watchdog == 0 {
		return nil
	}
	path := m.WatchdogDevice
	if path == "/dev/watchdog" {
		path = "" // either of its names
	}
	w, err := machine.OpenWatchdog(path, m.Watchdog)
	if err != nil {
		return err
	}
	h.watchdog = w
	h.say("the watchdog %s bites after %v", w.Name(), w.Timeout())
	w.Say = func(err error) { h.say("%v", err) }
	h.lend(bootPatience)
	begin := time.Now()
	go func() {
		for !h.feed(w, begin) { // one that panicked is begun again
			time.Sleep(time.Second)
		}
	}()
	return nil
}
