package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/pazinit/pazinit/machine"
	"github.com/pazinit/pazinit/procfile"
	"github.com/pazinit/pazinit/reaper"
)

// An ending is the end of a machine, when its supervisor has ended or could not
// begin.
type ending struct {
	host *host // nil in exec mode
	what string
	code int
	say  func(format string, args ...any)
	feed func() error  // the watchdog; nil: there is none
	each time.Duration // that it is to be fed
}

// An endStep is one thing that is done then. An error is said, and holds nothing
// up; a step that takes longer than limit is left behind, and late done instead. The
// watchdog is fed meanwhile.
type endStep struct {
	name  string
	do    func(*ending) error
	limit time.Duration
	late  func() error // or nil
}

// endSteps are what comes between the last worker and the power, in order.
var endSteps = []endStep{
	{"end all processes", (*ending).killAll, 10 * time.Second, nil},
	{"keep the entropy seed", (*ending).saveSeed, 5 * time.Second, nil},
	{"keep the time", (*ending).saveClock, 5 * time.Second, nil},
	{"write everything to the disks", (*ending).sync, 10 * time.Minute, nil}, // as long as that goes forward
	{"stop swapping", (*ending).swapOff, machine.SwapOffLimit + 10*time.Second, nil},
	{"unmount", (*ending).unmount, machine.UnmountLimit + 10*time.Second, machine.Force},
	{"tell the result", (*ending).report, 5 * time.Second, nil},
	{"hand the watchdog over", (*ending).handOver, 5 * time.Second, nil},
}

// carryOut does the steps, and what is wanted at last. It returns if that is
// refused.
func (e *ending) carryOut(steps []endStep, power func(what, argument string) error) error {
	for i := range steps {
		s := &steps[i]
		done := make(chan error, 1)
		go func() {
			defer func() {
				if fault := recover(); fault != nil {
					done <- fmt.Errorf("a fault of pazinit: %v", fault)
				}
			}()
			done <- s.do(e)
		}()
		if err := e.await(s, done); err != nil {
			for _, one := range each(err) {
				if !errors.Is(one, errors.ErrUnsupported) {
					e.say("%s: %v", s.name, one)
				}
			}
		}
	}
	err := power(e.what, "")
	if e.what == "kexec" { // a machine that only stands there helps nobody
		e.say("kexec was refused: %v; rebooting", err)
		err = power("reboot", "")
	}
	if err == nil {
		err = errors.New("it did nothing")
	}
	return err
}

// slowStep is after what time whoever looks on is told what is waited for.
const slowStep = 10 * time.Second

// await waits for a step, and feeds the watchdog, which would bite in the middle of
// a long one: each has its limit.
func (e *ending) await(s *endStep, done <-chan error) error {
	limit := time.NewTimer(s.limit)
	defer limit.Stop()
	slow := time.NewTimer(slowStep)
	defer slow.Stop()
	var hungry <-chan time.Time
	if e.feed != nil {
		t := time.NewTicker(e.each)
		defer t.Stop()
		hungry = t.C
		_ = e.feed()
	}
	for {
		select {
		case err := <-done:
			return err
		case <-hungry:
			_ = e.feed() // what fails comes again soon
		case <-slow.C:
			e.say("%s: it takes its time; it is left after %v", s.name, s.limit)
		case <-limit.C:
			e.say("%s: it takes longer than %v and is left", s.name, s.limit)
			if s.late == nil {
				return nil
			}
			return s.late()
		}
	}
}

func (e *ending) sayLine(msg string) { e.say("%s", msg) }

func (e *ending) killAll() error {
	if left := reaper.KillAll(5 * time.Second); len(left) > 0 {
		return fmt.Errorf("not gone: %s", strings.Join(left, ", "))
	}
	return nil
}

func (e *ending) saveSeed() error {
	if e.host == nil || e.host.seed == "" {
		return nil
	}
	return machine.SaveSeed(e.host.seed)
}

func (e *ending) saveClock() error { return machine.SaveClock() }

// overTime is what the end and the next start may take with nobody feeding the
// watchdog.
const overTime = 2 * time.Minute

func (e *ending) handOver() error {
	if e.host == nil || e.host.watchdog == nil {
		return nil
	}
	if e.what == "halt" { // to stand still is what is wanted
		return e.host.watchdog.Close()
	}
	return e.host.watchdog.HandOver(overTime)
}

// unwatch stops the watchdog, which nobody would feed beside a shell. Not every
// one can be stopped.
func (h *host) unwatch() {
	if h == nil || h.watchdog == nil {
		return
	}
	if err := h.watchdog.Close(); err != nil {
		h.say("the watchdog bites in %v: %v", h.watchdog.Timeout(), err)
	}
	h.watchdog = nil
}

func (e *ending) sync() error { return machine.Sync(e.sayLine) }

func (e *ending) swapOff() error { return errors.Join(machine.SwapOffAll()...) }

func (e *ending) unmount() error {
	if left := machine.UnmountAll(e.sayLine); len(left) > 0 {
		return fmt.Errorf("left mounted: %s", strings.Join(left, ", "))
	}
	return nil
}

func (e *ending) report() error {
	letGo(2)
	return machine.Report(e.code, e.port())
}

// portVariable hands the port over to the shell that on_end asks for, and back.
const portVariable = "PAZINIT_DEBUG_EXIT"

// port is where QEMU listens for the result, 0 if nobody said.
func (e *ending) port() uint16 {
	if e.host != nil {
		if p := e.host.line.DebugExit; p != 0 {
			return p
		}
		if cfg := e.host.cfg; cfg != nil && cfg.Machine.DebugExit != 0 {
			return cfg.Machine.DebugExit
		}
	}
	if p, err := machine.ParsePort(os.Getenv(portVariable)); err == nil {
		return p
	}
	line, _ := machine.ReadCmdline("")
	return line.DebugExit
}

// defaultDelay is how long the message of an emergency stands when no
// configuration could say.
const defaultDelay = 10 * time.Second

// errWrong is said below what is wrong with the configuration.
var errWrong = errors.New("the configuration is wrong, as is said above")

// emergency is what becomes of a machine that cannot be started; code is its
// result. It never returns: a fault of ours in it starts the machine again, too.
func (h *host) emergency(err error, code int) int {
	e := &ender{place: machinePlace, stderr: h.c.stderr, machine: h.finish, rest: reaper.Rest}
	what := guard(h, "reboot", func() string { return h.stand(err, code) })
	guard(h, code, func() int { return e.end(what, code) })
	_ = machine.Power("reboot", "") // after a fault alone
	reaper.Rest()
	return code
}

// stand tells of an emergency, and what follows it: after a delay that the machine
// starts again, or before what a signal or a button says.
func (h *host) stand(err error, code int) (what string) {
	letGo(2)
	h.unsupervised()
	h.tell(err)
	delay, shell := defaultDelay, h.line.Shell
	if h.cfg != nil {
		delay, shell = h.cfg.Machine.RebootDelay, shell || h.cfg.Machine.Emergency == "shell"
	}
	if shell {
		h.say("emergency: a shell follows; its end starts the machine again")
		h.unwatch()
		h.say("emergency: no shell: %v", execShell(true, code, thenReboot, h.port()))
	}
	h.say("emergency: the machine is started again in %v", delay)
	if !h.hears {
		_ = machine.CtrlAltDel(true) // whoever cannot wait
	}
	h.lend(delay + time.Minute)
	if what, _ = h.await(delay, nil); what == "" {
		what = "reboot"
	}
	return what
}

// guard calls f; a fault of ours in it is said, and gives fallback.
func guard[T any](h *host, fallback T, f func() T) (out T) {
	defer func() {
		if fault := recover(); fault != nil {
			out = fallback
			defer func() { _ = recover() }()
			h.say("a fault of pazinit: %v\n%s", fault, debug.Stack())
		}
	}()
	return f()
}

// tell says why a machine cannot be started, each error on its line.
func (h *host) tell(err error) {
	var list procfile.Errors
	if errors.As(err, &list) {
		for _, e := range list {
			h.say("%v", e)
		}
		err = errWrong
	}
	for _, e := range each(err) {
		h.say("emergency: %v", e)
	}
}

func (h *host) port() uint16 { return (&ending{host: h}).port() }

// finish is the end of a machine; see [ending.carryOut].
func (h *host) finish(what string, code int) error {
	letGo(2)
	var out io.Writer = &patient{to: stderr{}, limit: consoleLimit}
	e := &ending{host: h, what: what, code: code, say: func(format string, args ...any) {
		fmt.Fprintf(out, "pazinit: "+format+"\n", args...)
	}}
	if h != nil {
		out = h.c.stderr
		if w := h.watchdog; w != nil {
			w.Take()
			e.feed, e.each = w.Feed, w.Timeout()/4
		}
	}
	return e.carryOut(endSteps, machine.Power)
}

// What follows a shell that takes the place of this process.
const (
	thenVariable = "PAZINIT_THEN"
	thenBoot     = "boot" // with the arguments behind it
	thenReboot   = "reboot"
	argSeparator = "\x1f"
)

// openShell lets somebody look at the machine before anything is started. Its end
// goes on with the boot.
func (h *host) openShell() error {
	if !h.line.Shell || os.Getenv(thenVariable) != "" {
		_ = os.Unsetenv(thenVariable)
		return nil
	}
	h.say("a shell, as pazinit.shell has it; its end goes on with the boot")
	return execShell(true, 0, strings.Join(append([]string{thenBoot}, h.args...), argSeparator), h.port())
}

// bootAgain goes on with the boot after that shell. It returns if it cannot.
func bootAgain(then string) error {
	argv := append([]string{"pazinit"}, strings.Split(then, argSeparator)[1:]...)
	if err := reaper.Exec("/proc/self/exe", argv, os.Environ()); err != nil {
		return fmt.Errorf("execute /proc/self/exe: %w", err)
	}
	return nil
}

func portText(p uint16) string { return "0x" + strconv.FormatUint(uint64(p), 16) }
