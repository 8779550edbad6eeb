package main

import (
	"os"
	"strconv"
	"strings"
	"time"

	pazinit "github.com/pazinit/pazinit/init"
	"github.com/pazinit/pazinit/machine/syslog"
)

// receiveSyslog is Options.Syslog.
func receiveSyslog(o pazinit.SyslogOptions) (stop func(deadline time.Time), serves bool, err error) {
	if o.Machine {
		widenQueues("/proc/sys/net/unix/max_dgram_qlen")
	}
	r, err := syslog.Open(syslog.Options{
		FromStart: o.Machine, NoUser: o.NoUser, Say: o.Log, Panicked: o.Panicked,
		Take: func(m *syslog.Message) func() (<-chan struct{}, bool) {
			put := o.Route(m.PID, m.Group, m.Kernel)
			level, line := m.Level(), m.Line()
			return func() (<-chan struct{}, bool) { return put(level, line) }
		},
	})
	if r == nil {
		return nil, false, err
	}
	return r.Close, r.Serves(), err
}

// datagrams is how many may wait in a socket: the kernel's 10 are few for senders
// that do not wait.
const datagrams = 512

// widenQueues lets more datagrams wait in the sockets that are made from now on.
// It is for the init of a machine, whose setting this is. What cannot be set stays.
func widenQueues(path string) {
	b, err := os.ReadFile(path)
	if n, e := strconv.Atoi(strings.TrimSpace(string(b))); err != nil || e != nil || n >= datagrams {
		return
	}
	_ = os.WriteFile(path, []byte(strconv.Itoa(datagrams)), 0)
}
