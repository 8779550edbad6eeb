package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Cmdline is what the kernel's command line says to this program.
type Cmdline struct {
	Config   string   // pazinit.config=: the configuration's path
	Procfile string   // pazinit.procfile=: a Procfile's path
	Log      string   // pazinit.log=
	Shell    bool     // pazinit.shell: a shell on the console instead of a reboot, when nothing goes on
	Set      []string // pazinit.set=, in order: app.key=value

	DebugExit uint16 // pazinit.debug_exit=: the port of QEMU's isa-debug-exit, see [Report]; 0 is none

	RootDevice string        // root=
	RootType   string        // rootfstype=
	RootFlags  string        // rootflags=
	RootRW     bool          // rw is there, and no ro after it
	RootRO     bool          // ro is there, and no rw after it
	RootDelay  time.Duration // rootdelay=: how long to wait before the first look
	RootWait   time.Duration // rootwait, rootwait=: how long to wait for the device, negative is for ever
	Init       []string      // pazinit.init=, else init=: the init of that root, with its arguments

	IP       []string // ip=, in order, as they are
	Consoles []string // console=, in order, without their options
	Panic    bool     // panic= is there: the kernel has its value of kernel.panic already

	// Unknown has an error for each pazinit.* that nobody knows, with the nearest
	// that somebody does, and for each value that is none.
	Unknown []error
}

// maxCmdline is beyond COMMAND_LINE_SIZE of any architecture.
const maxCmdline = 64 << 10

// ReadCmdline reads the kernel's command line from path, "" is /proc/cmdline.
// A file that is missing is an empty command line.
func ReadCmdline(path string) (Cmdline, error) {
	if path == "" {
		path = "/proc/cmdline"
	}
	line, err := readBounded(path, maxCmdline)
	if errors.Is(err, fs.ErrNotExist) {
		return Cmdline{}, nil
	}
	if err != nil {
		return Cmdline{}, fmt.Errorf("read kernel command line: %w", err)
	}
	return ParseCmdline(string(line)), nil
}

// ours are the parameters that begin with pazinit., and what each sets.
var ours = []struct {
	name string
	set  func(c *Cmdline, value string) error
}{
	{"config", func(c *Cmdline, v string) error { return needed(&c.Config, v) }},
	{"procfile", func(c *Cmdline, v string) error { return needed(&c.Procfile, v) }},
	{"log", func(c *Cmdline, v string) error { return needed(&c.Log, v) }},
	{"shell", func(c *Cmdline, v string) (err error) { c.Shell, err = onOff(v); return err }},
	{"set", (*Cmdline).addSetting},
	{"debug_exit", func(c *Cmdline, v string) (err error) { c.DebugExit, err = ParsePort(v); return err }},
	{"init", func(c *Cmdline, v string) error {
		if c.Init = strings.Fields(v); len(c.Init) == 0 {
			return errors.New("has no value")
		}
		return nil
	}},
}

func needed(to *string, value string) error {
	if value == "" {
		return errors.New("has no value")
	}
	*to = value
	return nil
}

func onOff(value string) (bool, error) {
	switch value {
	case "", "1", "y", "yes", "on", "true":
		return true, nil
	case "0", "n", "no", "off", "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", value)
}

func (c *Cmdline) addSetting(value string) error {
	if key, _, ok := strings.Cut(value, "="); !ok || key == "" {
		return fmt.Errorf("%q is not app.key=value", value)
	}
	c.Set = append(c.Set, value)
	return nil
}

// ParseCmdline reads a command line as the kernel does (next_arg,
// lib/cmdline.c). What it does not know is ignored, and so is what comes after a
// lone --, for that is init's. A space is one of ASCII's: the kernel takes the
// byte 0xA0 for one, too, which is a part of letters in UTF-8.
func ParseCmdline(line string) Cmdline {
	var c Cmdline
	var kernelsInit string
	line, _, _ = strings.Cut(line, "\x00")
	for rest := strings.TrimLeft(line, spaces); rest != ""; {
		var name, value string
		var hasValue bool
		name, value, hasValue, rest = nextArg(rest)
		if name == "--" && !hasValue {
			break
		}
		if key, ok := strings.CutPrefix(name, "pazinit."); ok {
			c.setOurs(key, value)
			continue
		}
		if name == "init" {
			kernelsInit = value
		}
		c.setKernels(name, value, hasValue)
	}
	if c.Init == nil && kernelsInit != "" {
		c.Init = []string{kernelsInit}
	}
	return c
}

// setOurs takes a parameter pazinit.key; the kernel takes - and _ for the same
// (parameq, kernel/params.c), and so does this.
func (c *Cmdline) setOurs(key, value string) {
	plain := strings.ReplaceAll(key, "-", "_")
	for _, o := range ours {
		if o.name != plain {
			continue
		}
		if err := o.set(c, value); err != nil {
			c.Unknown = append(c.Unknown, fmt.Errorf("kernel command line: pazinit.%s %w", key, err))
		}
		return
	}
	names := make([]string, len(ours))
	for i, o := range ours {
		names[i] = o.name
	}
	c.Unknown = append(c.Unknown, fmt.Errorf("kernel command line: pazinit.%q is not known, pazinit.%s is",
		key, nearest(plain, names)))
}

// setKernels takes one of the kernel's own parameters
// (Documentation/admin-guide/kernel-parameters.txt).
func (c *Cmdline) setKernels(name, value string, hasValue bool) {
	switch name {
	case "root":
		c.RootDevice = value
	case "rootfstype":
		c.RootType = value
	case "rootflags":
		c.RootFlags = value
	case "ro", "rw":
		c.RootRW, c.RootRO = name == "rw", name == "ro"
	case "rootdelay":
		c.RootDelay = seconds(value)
	case "rootwait":
		if c.RootWait = -1; hasValue { // since 6.3
			c.RootWait = seconds(value)
		}
	case "ip":
		c.IP = append(c.IP, value)
	case "console":
		device, _, _ := strings.Cut(value, ",")
		c.Consoles = append(c.Consoles, device)
	case "panic":
		c.Panic = true
	}
}

// seconds reads whole seconds; what is no number is 0, as it is for the kernel.
func seconds(text string) time.Duration {
	n, err := strconv.ParseUint(text, 0, 31)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

const spaces = " \t\n\v\f\r"

// nextArg cuts the first parameter off, as the kernel's function of that name
// does: a quote anywhere begins or ends a stretch in which spaces are as others;
// it is removed around a value and around a whole parameter, and nowhere else;
// the first = that is not the first byte ends the name, also inside of quotes.
func nextArg(args string) (name, value string, hasValue bool, rest string) {
	args, quoted := strings.CutPrefix(args, `"`)
	in, equals, i := quoted, 0, 0
	for ; i < len(args); i++ {
		if !in && strings.IndexByte(spaces, args[i]) >= 0 {
			break
		}
		if equals == 0 && args[i] == '=' {
			equals = i
		}
		if args[i] == '"' {
			in = !in
		}
	}
	name, rest = args[:i], strings.TrimLeft(args[i:], spaces)
	if equals == 0 {
		if quoted {
			name = strings.TrimSuffix(name, `"`)
		}
		return name, "", false, rest
	}
	name, value = args[:equals], args[equals+1:i]
	if inner, ok := strings.CutPrefix(value, `"`); ok {
		value = strings.TrimSuffix(inner, `"`)
	} else if quoted {
		value = strings.TrimSuffix(value, `"`)
	}
	return name, value, true, rest
}

// nearest is the one of names that has the fewest letters to change.
func nearest(word string, names []string) (found string) {
	best := math.MaxInt
	for _, name := range names {
		if d := distance(word[:min(len(word), 64)], name); d < best {
			best, found = d, name
		}
	}
	return found
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0] // of the row above, one to the left
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before, row[j+1] = row[j+1], slices.Min([]int{cost, row[j+1] + 1, row[j] + 1})
		}
	}
	return row[len(b)]
}
