package containers

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/pazinit/pazinit/tests/bundle"
)

// TestTerminal: Ctrl-C ends what runs in the foreground, and the command of exec
// mode has the terminal.
func TestTerminal(t *testing.T) {
	each(t, only{places: []string{"tty"}}, func(t *testing.T, e engine, r root, p bundle.Place) {
		c := e.start(t, p, spec(e, r, p, config("web: "+r.web+"\nslow: helper on-signal TERM 0 100\n", settings), "pazinit"))
		c.until("| ready", 1)
		c.press("\x03")
		c.want(0)

		c = e.start(t, p, spec(e, r, p, nil, "pazinit", "--", "helper", "print-status"))
		c.want(0)
		var got struct {
			TTY, Foreground bool
			StdinTTY        bool `json:"stdin_tty"`
		}
		c.json(&got)
		if !got.TTY || !got.Foreground || !got.StdinTTY {
			t.Errorf("print-status = %+v, want the terminal in the foreground", got)
		}

		c = e.start(t, p, spec(e, r, p, nil, "pazinit", "--", "helper", "on-signal", "INT", "4", "0"))
		c.until("ready", 1)
		c.press("\x03")
		c.want(4)

		if r.name != "busybox" {
			return
		}
		s := spec(e, r, p, nil, "pazinit", "--", "sh", "-i")
		s.Env = []string{"PS1=prompt: "}
		c = e.start(t, p, s)
		c.until("prompt: ", 1)
		c.press("helper count-signal CONT /dev/null\n")
		c.until("ready", 1)
		c.press("\x1a")
		c.until("prompt: ", 2)
		c.press("fg\n")
		c.until("got CONT", 1)
		c.press("\x03")
		c.until("prompt: ", 3)
		c.press("echo $((40 + 2)); exit 6\n")
		c.until("42", 1)
		c.want(6)
		if out, _ := c.output(); strings.Contains(out, "job control turned off") {
			t.Errorf("the shell says %q, want job control", out)
		}
	})
}

// TestStdin: the command of exec mode reads what the container is given.
func TestStdin(t *testing.T) {
	each(t, only{root: "busybox", places: []string{"default"}}, func(t *testing.T, e engine, r root, p bundle.Place) {
		s := spec(e, r, p, nil, "pazinit", "--", "cat")
		s.Interactive = true
		c := e.start(t, p, s)
		c.press("one\n")
		c.until("one", 1)
		c.press("two\n")
		c.must(c.keys.Close())
		c.want(0)
		c.until("one\ntwo\n", 1)
	})
}

// press types, or writes to the standard input.
func (c *container) press(keys string) {
	c.t.Helper()
	_, err := c.keys.Write([]byte(keys))
	c.must(err)
}

// json reads what was printed: one object, and lines around it.
func (p *process) json(to any) {
	p.t.Helper()
	out, _ := p.output()
	start, end := strings.Index(out, "{"), strings.LastIndex(out, "}")
	if start < 0 || end < start {
		p.t.Fatalf("%q was printed, want an object", out)
	}
	p.must(json.Unmarshal([]byte(out[start:end+1]), to))
}
