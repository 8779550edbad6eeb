package qemu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
)

// A Request is what the guest's agent is asked for, a line of JSON: to carry out a
// shell script.
type Request struct {
	ID     int    `json:"id"`
	Script string `json:"script"`
}

// An Answer is what it answers, in a line of JSON. The first one of a boot has the
// id 0.
type Answer struct {
	ID     int    `json:"id"`
	Out    []byte `json:"out"` // of the script, and its errors
	Status int    `json:"status"`
}

// A message is a line that came over a link.
type message struct {
	Answer
	Event string          `json:"event"` // QMP's
	Data  json.RawMessage `json:"data"`
	// QMP's, for a command without and with success.
	Error  *struct{ Desc string } `json:"error"`
	Return json.RawMessage        `json:"return"`
}

// A link is a connection with the agent or with QEMU's monitor (QMP). What has come
// belongs to the VM's mu.
type link struct {
	vm    *VM
	conn  net.Conn
	next  int // the last id that was used
	came  []message
	heard []byte // what was no message
}

func (l *link) init(v *VM, conn net.Conn) { l.vm, l.conn = v, conn }

func (l *link) read() {
	for r := bufio.NewReader(l.conn); ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		var m message
		err = json.Unmarshal(line, &m)
		l.vm.mu.Lock()
		if err == nil {
			l.came = append(l.came, m)
		} else {
			l.heard = append(l.heard, line...)
		}
		l.vm.changed()
		l.vm.mu.Unlock()
	}
}

func (l *link) send(v any) error {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = l.conn.Write(append(line, '\n'))
	}
	return err
}

// id is a new one.
func (l *link) id() int {
	l.vm.mu.Lock()
	defer l.vm.mu.Unlock()
	l.next++
	return l.next
}

// answer waits for the one to a request.
func (l *link) answer(id int, what string) (m message, err error) {
	return m, l.vm.wait(what, func() bool {
		for _, m = range l.came {
			if m.ID == id && m.Event == "" {
				return true
			}
		}
		return false
	})
}

// Ready waits until the agent has answered in the nth boot of the machine.
func (v *VM) Ready(n int) error {
	return v.wait("user space", func() bool {
		hellos := 0
		for _, m := range v.agent.came {
			if m.ID == 0 {
				hellos++
			}
		}
		return hellos >= n
	})
}

// Sh has the machine carry out a shell script, and reports what it printed, and its
// status.
func (v *VM) Sh(script string) (out string, status int, err error) {
	id := v.agent.id()
	if err := v.agent.send(Request{id, script}); err != nil {
		return "", 0, v.failed("run " + script)
	}
	m, err := v.agent.answer(id, "the end of "+script)
	return string(m.Out), m.Status, err
}

// Post is Sh for a script that may end the machine: no answer is waited for.
func (v *VM) Post(script string) error { return v.agent.send(Request{v.agent.id(), script}) }

// QMP has QEMU's monitor carry out a command, and reports what it returned.
func (v *VM) QMP(command string, arguments json.RawMessage) (string, error) {
	id := v.qmp.id()
	request := map[string]any{"execute": command, "id": id}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := v.qmp.send(request); err != nil {
		return "", v.failed("tell QEMU " + command)
	}
	m, err := v.qmp.answer(id, "QEMU's answer to "+command)
	if err == nil && m.Error != nil {
		err = fmt.Errorf("tell QEMU %s: %w", command, errors.New(m.Error.Desc))
	}
	return string(m.Return), err
}

// Event waits until QEMU has told an event (RESET, SHUTDOWN, POWERDOWN, WATCHDOG …)
// for the nth time, and reports its data.
func (v *VM) Event(name string, n int) (data string, err error) {
	return data, v.wait(fmt.Sprintf("QEMU's event %s, %d times", name, n), func() bool {
		seen := 0
		for _, m := range v.qmp.came {
			if m.Event == name {
				if seen++; seen == n {
					data = string(m.Data)
					return true
				}
			}
		}
		return false
	})
}
