package main

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	pazinit "github.com/pazinit/pazinit/init"
	"github.com/pazinit/pazinit/machine"
	"github.com/pazinit/pazinit/reaper/signals"
)

// machineSignals are what a machine's init does at a signal, as inits have done it
// since the first ones. Logs are reopened, and upgrades asked for, by verb alone.
// HUP reloads and QUIT kills, as elsewhere.
var machineSignals = map[unix.Signal]string{
	unix.SIGTERM: "reboot",
	unix.SIGINT:  "reboot", // Ctrl-Alt-Del, unless ctrl_alt_del has it otherwise
	unix.SIGUSR1: "halt",
	unix.SIGUSR2: "poweroff",
	unix.SIGPWR:  "poweroff",
}

// signal is a signal to the init of a machine.
func (h *host) signal(s *pazinit.Supervisor, i signals.Info) {
	what, from := h.meaning(i)
	switch {
	case what != "":
		if by := sender(i); by != "" && i.Sent() {
			from += " from " + by
		}
		h.press(s, from, what)
	case i.Signal == unix.SIGHUP && !i.Sent(): // a terminal that hung up
	default:
		s.SignalFrom(i.Signal, sender(i))
	}
}

// meaning is what a signal does to the machine, "" for nothing, and what it is
// called.
func (h *host) meaning(i signals.Info) (what, from string) {
	if i.Signal == unix.SIGINT && !i.Sent() {
		if h.known == nil {
			return "reboot", "Ctrl-Alt-Del"
		}
		return h.known.Machine.CtrlAltDel, "Ctrl-Alt-Del"
	}
	return machineSignals[i.Signal], unix.SignalName(i.Signal)
}

// press ends the machine as what says, which may be to ignore it.
func (h *host) press(s *pazinit.Supervisor, from, what string) {
	if what == "ignore" {
		s.Log(from + " is ignored, as the configuration has it")
		return
	}
	s.End(what, from)
}

// listenButtons has Ctrl-Alt-Del send a signal, and hears the power button. Once it
// does, it does nothing.
func (h *host) listenButtons() error {
	if h.listens {
		return nil
	}
	err := machine.CtrlAltDel(false)
	pressed := h.pressed
	var errButtons error
	_, errButtons = machine.Buttons(func(k machine.Key) {
		select {
		case pressed <- k:
		default: // one is enough
		}
	}, func(err error) { h.sayLater(err.Error()) })
	h.listens = errButtons == nil
	if errors.Is(errButtons, errors.ErrUnsupported) {
		errButtons = nil // a kernel without input devices
	}
	return errors.Join(err, errButtons)
}

// sayLater says msg by the log, if there is one by now.
func (h *host) sayLater(msg string) {
	if s := h.alive.Load(); s != nil {
		(*s).Log(msg)
		return
	}
	h.say("%s", msg)
}

// supervising has the supervisor hear of the buttons, and the watchdog of the
// supervisor.
func (h *host) supervising(s *pazinit.Supervisor) {
	h.handing.Lock()
	h.alive.Store(&s)
	h.handing.Unlock()
	select {
	case i := <-h.wanted:
		go func() {
			defer panicked(s, "signals")
			h.signal(s, i)
		}()
	default:
	}
	if err := h.up.watch(h.dir, func(why string) { s.WaitsFor("network", why) }, func(v any) { s.Panicked("the watch of the network", v) }); err != nil {
		s.Log(err.Error())
	}
	go h.mountOverNet(s)
	go func() {
		for k := range h.pressed {
			h.button(s, k)
		}
	}()
}

// button is a button that was pressed.
func (h *host) button(s *pazinit.Supervisor, k machine.Key) {
	defer panicked(s, "the buttons")
	what, from := h.meaningOf(k)
	h.press(s, from, what)
}

// meaningOf is what a button does to the machine, and what it is called.
func (h *host) meaningOf(k machine.Key) (what, from string) {
	restart, power := "reboot", "poweroff" // while no configuration says it
	if h.known != nil {
		restart, power = h.known.Machine.CtrlAltDel, h.known.Machine.PowerButton
	}
	if k == machine.KeyRestart {
		return restart, "the restart button"
	}
	return power, "the power button"
}

// hear has signals heard from here on: until there is a supervisor the boot and the
// emergency heed them, see await.
func (h *host) hear() error {
	caught := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := signals.Catch(unix.SIGCHLD)
		caught <- err
		if err != nil {
			return
		}
		for {
			if i, ok := signals.Wait(-1); ok && i.PID != os.Getpid() { // SIGPIPE, when nobody reads what it writes
				h.heard(i)
			}
		}
	}()
	err := <-caught
	h.hears = err == nil
	return err
}

func (h *host) heard(i signals.Info) {
	defer func() {
		if v := recover(); v != nil {
			h.say("a fault of pazinit, at a signal: %v", v)
		}
	}()
	h.handing.Lock()
	s := h.alive.Load()
	if s == nil && machineSignals[i.Signal] != "" {
		select {
		case h.wanted <- i:
		default: // one is enough
		}
	}
	h.handing.Unlock()
	if s != nil {
		h.signal(*s, i)
	}
}

// unsupervised is after a supervisor that could not begin.
func (h *host) unsupervised() {
	h.handing.Lock()
	h.alive.Store(nil)
	h.handing.Unlock()
}

// ends says whether the verbs poweroff, reboot, halt and kexec can be done here.
func ends(place pazinit.Place) func(what string) error {
	return func(what string) error {
		switch {
		case !place.PID1:
			return errors.New("pazinit is not the init of this machine; pazinit shutdown ends it alone")
		case what != "kexec":
			return nil
		case !place.Initial:
			return errors.New("this is a container")
		case !machine.KexecLoaded():
			return errors.New("no kernel is loaded: kexec -l does that")
		}
		return nil
	}
}
