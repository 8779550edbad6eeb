package control

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// A Verb is one row of the table that drives the command line, the FIFO, the
// HTTP paths, the access keys, the help texts and the completions.
type Verb struct {
	Name    string
	Aliases []string // what older supervisors call it
	Args    string   // synopsis of what follows the name, flags aside
	Short   string   // one line
	Long    string   // paragraphs of help
	Mutates bool     // it changes something: POST, not GET
	Names   bool     // its arguments are names of instances, workers or applications
	Local   bool     // the client does it alone; the supervisor does not know it
	Flags   []Flag
}

// A Flag is an option of a verb: --name or --name VALUE.
type Flag struct {
	Name  string
	Short string // one letter, or ""
	Value string // what stands for its value in the help text; "" for a switch
	Help  string
	Local bool // about the client's output; it is not part of the request

	set func(*Request, string) error // nil for a local one
}

func text(field func(*Request) *string) func(*Request, string) error {
	return func(r *Request, s string) error { *field(r) = s; return nil }
}

func yes(field func(*Request) *bool) func(*Request, string) error {
	return func(r *Request, s string) (err error) {
		if s != "" {
			*field(r), err = strconv.ParseBool(s)
		} else {
			*field(r) = true
		}
		return err
	}
}

var (
	flagJSON    = Flag{Name: "json", Help: "print JSON", Local: true}
	flagNoWait  = Flag{Name: "no-wait", Help: "do not wait for the result", set: yes(func(r *Request) *bool { return &r.NoWait })}
	flagTimeout = Flag{Name: "timeout", Value: "DURATION", Help: "how long to wait for the result, as 10s; no limit by default; exit status 7 after it", set: text(func(r *Request) *string { return &r.Timeout })}
	flagSignal  = Flag{Name: "signal", Value: "SIGNAL", Help: "send this instead of stop_signal", set: text(func(r *Request) *string { return &r.Signal })}
	flagFollow  = Flag{Name: "follow", Short: "f", Help: "go on with what comes", set: yes(func(r *Request) *bool { return &r.Follow })}
)

func to(whom string) func(*Request, string) error {
	return func(r *Request, s string) error {
		on := true
		if s != "" {
			var err error
			if on, err = strconv.ParseBool(s); err != nil {
				return err
			}
		}
		if on {
			r.To = whom
		}
		return nil
	}
}

// names is what every NAME argument may be.
const names = "NAME is an instance (shop:web.2), a worker (shop:web, or web where only one application has it), an application (shop:*), a glob, or all."

// Global are the flags that every verb of the client has.
var Global = []Flag{
	{Name: "socket", Value: "PATH", Help: "the supervisor's socket (default: $PAZINIT_SOCKET, the configuration's, the user's default)", Local: true},
	{Name: "config", Short: "c", Value: "FILE", Help: "take the socket's path from this configuration (check, doctor: this one)", Local: true},
	{Name: "help", Short: "h", Help: "show this help", Local: true},
}

var verbs = []Verb{
	{Name: "status", Aliases: []string{"list"}, Args: "[NAME…]", Names: true,
		Short: "show what runs",
		Long:  "Shows each instance with its state, pid, time in that state and last exit. " + names + "\n\nExit status 3 when an instance that was named is not running.",
		Flags: []Flag{flagJSON, {Name: "watch", Short: "w", Help: "show it again at each change", set: yes(func(r *Request) *bool { return &r.Follow })}}},
	{Name: "start", Args: "NAME…", Mutates: true, Names: true,
		Short: "start instances",
		Long:  "Starts what is named, at once even in BACKOFF or FATAL, and waits until it runs. " + names,
		Flags: []Flag{flagNoWait, flagTimeout, flagJSON}},
	{Name: "stop", Args: "NAME…", Mutates: true, Names: true,
		Short: "stop instances",
		Long:  "Stops what is named and waits until all of its processes are gone. It stays stopped, through reloads too. " + names,
		Flags: []Flag{flagNoWait, flagTimeout, flagSignal, flagJSON}},
	{Name: "restart", Args: "NAME…", Mutates: true, Names: true,
		Short: "stop and start instances",
		Long:  "Stops and starts what is named and waits until it runs again. " + names,
		Flags: []Flag{flagNoWait, flagTimeout, flagJSON}},
	{Name: "signal", Args: "SIGNAL NAME…", Mutates: true, Names: true,
		Short: "send a signal to instances",
		Long:  "Sends SIGNAL (HUP, SIGHUP or 1) to the process that was started. " + names + "\n\nExit status 3 when one is not running.",
		Flags: []Flag{
			{Name: "group", Help: "to its process group", set: to("group")},
			{Name: "tree", Help: "to all of its descendants", set: to("tree")}, flagJSON}},
	{Name: "scale", Args: "WORKER=COUNT…", Mutates: true, Names: true,
		Short: "change how many instances run",
		Long:  "Sets how many instances a worker has: COUNT is a number, +N, -N or cpus. The highest numbers are stopped first. It outlives a reload until the number in the file changes.",
		Flags: []Flag{flagNoWait, flagTimeout, flagJSON}},
	{Name: "add", Args: "APP:WORKER COMMAND…", Mutates: true,
		Short: "add a worker that is in no file",
		Long:  "Adds a worker and starts it. COMMAND is a Procfile's command line: one argument is taken as it is, several are quoted and joined.",
		Flags: []Flag{flagNoWait, flagTimeout, {Name: "count", Value: "COUNT", Help: "how many instances (default 1)", set: text(func(r *Request) *string { return &r.Count })}, flagJSON}},
	{Name: "remove", Args: "NAME…", Mutates: true, Names: true,
		Short: "forget a worker",
		Long:  "Removes a worker that has no running instance, with --force any. A reload brings back what is in the file.",
		Flags: []Flag{{Name: "force", Help: "stop it first", set: yes(func(r *Request) *bool { return &r.Force })}, flagNoWait, flagTimeout, flagJSON}},
	{Name: "logs", Aliases: []string{"log", "tail"}, Args: "[NAME…]", Names: true,
		Short: "show what instances printed",
		Long:  "Shows the last lines of what is named, or of all. " + names,
		Flags: []Flag{flagFollow,
			{Name: "lines", Short: "n", Value: "N", Help: "the last N lines, all for every one", set: setLines},
			{Name: "since", Value: "DURATION", Help: "only what is younger (10m)", set: text(func(r *Request) *string { return &r.Since })},
			{Name: "stream", Value: "stdout|stderr|syslog", Help: "only one of them; syslog is what the kernel and programs of no worker said", set: text(func(r *Request) *string { return &r.Stream })},
			{Name: "self", Help: "pazinit's own log", set: yes(func(r *Request) *bool { return &r.Self })},
			{Name: "clear", Help: "empty them instead (verb clear)", set: yes(func(r *Request) *bool { return &r.Clear })}, flagJSON}},
	{Name: "events", Args: "[NAME…]", Names: true,
		Short: "show what happened",
		Long:  "Shows each change of state with its reason. With --follow it goes on, and says how many events it missed if it was too slow.",
		Flags: []Flag{flagFollow, {Name: "after", Value: "SEQ", Help: "only those with a greater number", set: setAfter}, flagJSON}},
	{Name: "plan", Aliases: []string{"reread"},
		Short: "show what reload would do",
		Long:  "Reads the configuration again and shows what a reload would add, remove, change and restart. Nothing is done.\n\nExit status 8 when something would change.",
		Flags: []Flag{flagJSON}},
	{Name: "reload", Aliases: []string{"update"}, Mutates: true,
		Short: "apply the configuration again",
		Long:  "Reads the configuration again and applies the least that makes it true. A bad file changes nothing.",
		Flags: []Flag{flagNoWait, flagTimeout, flagJSON}},
	{Name: "pid", Args: "[NAME…]", Names: true,
		Short: "print process ids",
		Long:  "Prints the pid of each instance that is named, or the supervisor's own.\n\nExit status 3 when one is not running.",
		Flags: []Flag{flagJSON}},
	{Name: "reopen", Mutates: true,
		Short: "reopen the log files",
		Long:  "Closes and opens all log files, for logrotate.",
		Flags: []Flag{flagJSON}},
	{Name: "shutdown", Mutates: true,
		Short: "stop everything and end",
		Long:  "Stops all instances in reverse start order and ends the supervisor. The init of a machine switches it off then, unless on_end says something else.",
		Flags: []Flag{flagNoWait, flagTimeout, flagJSON}},
	powerVerb("poweroff", "switch the machine off", "switches the machine off"),
	powerVerb("reboot", "start the machine again", "starts the machine again"),
	powerVerb("halt", "halt the machine", "halts the machine, without switching it off"),
	powerVerb("kexec", "start another kernel", "starts the kernel that kexec -l has loaded; without one it is refused"),
	{Name: "version",
		Short: "print the versions",
		Long:  "Prints the version of the client and, if one answers, of the supervisor.",
		Flags: []Flag{flagJSON}},
	{Name: "help", Args: "[VERB]",
		Short: "explain a verb",
		Long:  "Lists the verbs, or explains one."},
	{Name: "check", Local: true,
		Short: "check the configuration",
		Long:  "Reads the configuration and says all that is wrong with it, each as file:line:column: what is wrong (what was meant). Beside the init of a machine it reads what that read, as root, with what the kernel's command line adds, unless a file is named. Nothing is started. Exit status 2 when something is wrong.",
		Flags: []Flag{
			{Name: "procfile", Short: "f", Value: "PROCFILE", Help: "check this Procfile, or the one in this folder", Local: true}, flagJSON}},
	{Name: "doctor", Local: true,
		Short: "say what works here",
		Long:  "Looks where it runs (PID 1 of what, namespaces, user, capabilities, limits), what may be written, whether the socket, cgroups and the kernel's features can be used, and what stdin, stdout and stderr are; then says of each thing that is missing what pazinit does instead and what would give it. It needs no supervisor, and writes nothing. What it says is of its own process; of a supervisor that answers it says what can be seen from here.\n\nExit status 1 when the configuration asks for something that cannot work here.",
		Flags: []Flag{{Name: "procfile", Short: "f", Value: "PROCFILE", Help: "for this Procfile, or the one in this folder", Local: true}, flagJSON}},
	{Name: "initramfs", Args: "[FOLDER…]", Local: true,
		Short: "make the first file system of a machine",
		Long: "Writes an initramfs: an archive from which a kernel boots straight into the Procfile, with pazinit as /init. It holds:\n\n" +
			"The FOLDERs, laid over the root one after the other; FOLDER:PATH lays one over PATH.\n\n" +
			"The configuration with its Procfiles, named by -c, -f or both, or found at etc/pazinit of a FOLDER or here. It goes to /etc/pazinit, or stays where a FOLDER has it, and what lies beside it, seen from it, lies so in the image: workers start where their Procfile is.\n\n" +
			"The programs that the workers name, with their libraries and interpreters: from the FOLDERs, and else from this machine. Command lines for a shell are searched, too. A file that stands in a command line is taken; so is a folder beside the configuration, and one elsewhere is made empty. What a program opens by itself, such as the modules of Python, cannot be known: `--file` adds it.\n\n" +
			"/etc/passwd and /etc/group with the users that the configuration names, /etc/hosts, device nodes and folders, where no FOLDER brings them.\n\n" +
			"Where the kernel's modules are known (--kernel-modules, or a FOLDER with lib/modules), those that machine.modules names, and those that the power button, machine.zram, machine.watchdog and the types of mounts need.\n\n" +
			"It says what it took from where. It needs no root and no other program, and the same input gives the same bytes, whoever makes it and wherever: files such as /etc/machine-id, which say which machine this is, are left out. It says how much memory a machine should have: the kernel stops unpacking where half of it is full. Exit status 1 when something is missing; there is no image then, and one that was there stays.",
		Flags: []Flag{
			{Name: "procfile", Short: "f", Value: "PROCFILE", Help: "this Procfile, or the one in this folder", Local: true},
			{Name: "no-procfile", Help: "take none: an image that loads its modules and moves to the root= of the kernel's command line", Local: true},
			{Name: "output", Short: "o", Value: "FILE", Help: "where to write the image", Local: true},
			{Name: "compress", Value: "gzip|none", Help: "how (default gzip)", Local: true},
			{Name: "file", Value: "FILE[:PATH]", Help: "add a file, a program with its libraries or a folder, at PATH or the same place; as often as needed", Local: true},
			{Name: "busybox", Value: "FILE", Help: "take /bin/sh and all else that it has from this busybox", Local: true},
			{Name: "sysroot", Value: "FOLDER", Help: "look for programs and libraries in this folder instead of /", Local: true},
			{Name: "allow-missing", Value: "PROGRAM", Help: "go on without this program; as often as needed", Local: true},
			{Name: "entries", Value: "FILE", Help: "add what this list says, in the words of the kernel's gen_init_cpio (file, dir, nod, slink, pipe), and own NAME MODE UID GID, which changes what is there; NAME/** is all below it", Local: true},
			{Name: "kernel-modules", Value: "FOLDER", Help: "the kernel's modules, such as /lib/modules/6.1.0-40-amd64", Local: true},
			{Name: "module", Value: "NAME", Help: "add this kernel module and those it needs, to be loaded at the start; \"NAME PARAMETER=VALUE\" with parameters; as often as needed, besides machine.modules of the configuration", Local: true},
			{Name: "microcode", Value: "FILE", Help: "put this microcode first: an archive, GenuineIntel.bin, AuthenticAMD.bin, or a folder intel-ucode or amd-ucode", Local: true},
			{Name: "init", Value: "FILE", Help: "this pazinit as /init (default: the one that runs)", Local: true},
			{Name: "list", Value: "IMAGE", Help: "print what is in an image, and make none", Local: true},
			{Name: "verify", Value: "IMAGE", Help: "say what is wrong with an image, and make none: damage, no /init, programs without their interpreters or libraries, symbolic links to nowhere; exit status 1 if there is anything", Local: true},
		}},
	{Name: "completion", Args: "SHELL", Local: true,
		Short: "print a shell's completions",
		Long:  "Prints a script for SHELL (bash, zsh or fish) to read: source <(pazinit completion bash), the same for zsh, or pazinit completion fish | source. It completes verbs, flags and the names that the supervisor has."},
}

// powerVerb is a verb that ends a machine.
func powerVerb(name, short, does string) Verb {
	return Verb{Name: name, Mutates: true, Short: short,
		Long: "Stops all instances in reverse start order, ends all other processes, unmounts the disks and " + does +
			". As PID 1 of a container pazinit ends the container in a way that shows what was wanted, as on_end does (kexec is refused there). Elsewhere this is the business of the machine's own init, and refused.",
		Flags: []Flag{flagNoWait, flagTimeout, flagJSON}}
}

// Verbs returns the table of verbs, in the order of the help text. The caller
// must not change it.
func Verbs() []Verb { return verbs }

// shorthands are aliases that also set a flag.
var shorthands = map[string]string{"maintail": "self", "clear": "clear"}

// Lookup finds a verb by its name or an alias, nil if there is none.
func Lookup(name string) *Verb {
	if shorthands[name] != "" {
		name = "logs"
	}
	for i := range verbs {
		if v := &verbs[i]; v.Name == name || slices.Contains(v.Aliases, name) {
			return v
		}
	}
	return nil
}

// flag finds a flag of v by its long name.
func (v *Verb) flag(name string) *Flag {
	for _, flags := range [][]Flag{v.Flags, Global} {
		for i := range flags {
			if flags[i].Name == name {
				return &flags[i]
			}
		}
	}
	return nil
}

// A UsageError says that a request makes no sense: exit status 2.
type UsageError struct {
	Verb string // "" when that is what is wrong
	Text string
}

func (e *UsageError) Error() string {
	if e.Verb == "" {
		return e.Text
	}
	return e.Verb + ": " + e.Text
}

// unknownVerb lists what there is.
func unknownVerb(name string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "unknown verb %s", quote(name))
	if s := Suggest(name); s != "" {
		fmt.Fprintf(&b, " (did you mean %s?)", s)
	}
	b.WriteString("; there are")
	for _, v := range verbs {
		if !v.Local {
			b.WriteString(" " + v.Name)
		}
	}
	return &UsageError{Text: b.String()}
}

// quote quotes refused data, and not more of it than a person reads.
func quote(s string) string {
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return strconv.Quote(s)
}

// Suggest returns the verb nearest to a mistyped one, or "".
func Suggest(word string) string {
	if len(word) > 20 {
		return ""
	}
	var known []string
	for _, v := range verbs {
		known = append(append(known, v.Name), v.Aliases...)
	}
	if v := Lookup(Nearest(word, known)); v != nil {
		return v.Name
	}
	return ""
}

// Nearest returns the one of known that word was probably meant to be, "" if
// none is near.
func Nearest(word string, known []string) string {
	if len(word) > 128 {
		return ""
	}
	best, least := "", 3
	for _, k := range known {
		if d := distance(word, k); d < least && d < len(k)/2+1 {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of letters to insert, drop, replace or swap.
func distance(a, b string) int {
	var before, prev []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, prev = prev, row
		row = make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(prev[j]+cost, prev[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}

// ParseLine reads a request from a line of text, as the FIFO takes it:
// `restart shop:web`, `scale shop:web=4`. Words are split as a shell does
// (quotes and backslashes; nothing is expanded); the command of `add` is the
// rest of the line, as it stands.
func ParseLine(line string) (*Request, error) {
	words, ends, err := split(line)
	if err != nil {
		return nil, &UsageError{Text: err.Error()}
	}
	req, local, rest, err := parse(words)
	if err != nil {
		return nil, err
	}
	for name := range local {
		return nil, &UsageError{req.Verb, "--" + name + " makes no sense here"}
	}
	if v := Lookup(req.Verb); v.Local {
		return nil, &UsageError{req.Verb, "the client does this by itself"}
	}
	if req.Verb == "add" && len(rest) > 1 {
		req.Command = strings.TrimSpace(line[ends[len(words)-len(rest)-1]:])
		if err := req.Validate(); err != nil {
			return nil, err
		}
	}
	return req, nil
}

// ParseArgs reads a request from a command line's arguments, the verb first.
// local holds the flags that concern the client's output alone ("json",
// "socket"), with their values, "" for a switch; with "help" among them the
// request has only its verb. Errors are *[UsageError].
func ParseArgs(args []string) (req *Request, local map[string]string, err error) {
	req, local, _, err = parse(args)
	return req, local, err
}

// parse also returns which of the words are the command of `add`.
func parse(words []string) (req *Request, local map[string]string, command []string, err error) {
	if len(words) == 0 {
		return nil, nil, nil, &UsageError{Text: "no verb"}
	}
	v := Lookup(words[0])
	if v == nil {
		return nil, nil, nil, unknownVerb(words[0])
	}
	req = &Request{Verb: words[0]}
	canonical(req)
	bad := func(format string, args ...any) (*Request, map[string]string, []string, error) {
		return nil, nil, nil, &UsageError{v.Name, fmt.Sprintf(format, args...)}
	}
	var args []string
	words = words[1:]
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		if w == "--" {
			args = append(args, words...)
			break
		}
		// A scale's -1, and whatever belongs to a command, is no flag.
		if len(w) < 2 || w[0] != '-' || v.Name == "scale" && len(args) > 0 && isCount(w) {
			args = append(args, w)
			if v.Name == "add" && len(args) == 2 {
				args = append(args, words...)
				break
			}
			continue
		}
		f, value, given := v.option(w)
		switch {
		case f == nil:
			return bad("unknown flag %s%s", quote(w), v.suggestFlag(w))
		case f.Value == "" && given && f.Local:
			return bad("--%s takes no value", f.Name)
		case f.Value != "" && !given:
			if len(words) == 0 {
				return bad("--%s needs %s", f.Name, f.Value)
			}
			value, words = words[0], words[1:]
		}
		if f.Local {
			if local == nil {
				local = make(map[string]string)
			}
			local[f.Name] = value
		} else if err := f.set(req, value); err != nil {
			return bad("--%s %s makes no sense", f.Name, quote(value))
		}
	}
	if _, ok := local["help"]; ok {
		return &Request{Verb: v.Name}, local, nil, nil
	}
	switch v.Name {
	case "signal":
		if len(args) > 0 {
			req.Signal, args = args[0], args[1:]
		}
		req.Names = args
	case "scale":
		if len(args) == 2 && !strings.Contains(args[0], "=") && isCount(args[1]) {
			args = []string{args[0] + "=" + args[1]} // scale web 4
		}
		for _, a := range args {
			name, count, ok := strings.Cut(a, "=")
			if !ok {
				return bad("want WORKER=COUNT, not %s", quote(a))
			}
			req.Names = append(req.Names, name)
			req.Counts = append(req.Counts, count)
		}
		if len(req.Counts) > 0 && !slices.ContainsFunc(req.Counts, func(c string) bool { return c != req.Counts[0] }) {
			req.Count, req.Counts = req.Counts[0], nil
		}
	case "add":
		if len(args) > 0 {
			req.Names, command = args[:1], args[1:]
			req.Command = join(command)
		}
	default:
		req.Names = args
	}
	if err := req.Validate(); err != nil {
		return nil, nil, nil, err
	}
	return req, local, command, nil
}

// option finds the flag that a word means: --name, --name=value, -n, -n10.
func (v *Verb) option(w string) (f *Flag, value string, given bool) {
	if strings.HasPrefix(w, "--") {
		name, value, given := strings.Cut(w[2:], "=")
		return v.flag(name), value, given
	}
	for _, flags := range [][]Flag{v.Flags, Global} {
		for i := range flags {
			if f := &flags[i]; f.Short == w[1:2] {
				rest := w[2:]
				if rest != "" && f.Value == "" {
					return nil, "", false
				}
				return f, rest, rest != ""
			}
		}
	}
	return nil, "", false
}

// suggestFlag names the flag nearest to a mistyped one.
func (v *Verb) suggestFlag(w string) string {
	var known []string
	for _, flags := range [][]Flag{v.Flags, Global} {
		for _, f := range flags {
			known = append(known, "--"+f.Name)
		}
	}
	w, _, _ = strings.Cut(w, "=")
	if s := Nearest(w, known); s != "" {
		return " (did you mean " + s + "?)"
	}
	return ""
}

func setLines(r *Request, s string) (err error) {
	if s == "all" {
		r.Lines = -1
		return nil
	}
	r.Lines, err = strconv.Atoi(s)
	return err
}

func setAfter(r *Request, s string) (err error) {
	r.After, err = strconv.ParseUint(s, 10, 64)
	return err
}

// isCount reports whether s is a COUNT: 4, +1, -1 or cpus.
func isCount(s string) bool {
	if s == "cpus" {
		return true
	}
	n, err := strconv.Atoi(s)
	return err == nil && n > -100000 && n < 100000
}

// ParseSignal reads "HUP", "SIGHUP", "1" or "RTMIN+2".
func ParseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n >= 1 && n <= 64 {
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n := unix.SignalNum("SIG" + name); n != 0 {
		return n, nil
	}
	if off, ok := strings.CutPrefix(name, "RTMIN"); ok { // 34 to programs: the C library keeps two
		if n, err := strconv.Atoi("0" + strings.TrimPrefix(off, "+")); err == nil && n <= 30 && off != "+" {
			return unix.Signal(34 + n), nil
		}
	}
	if off, ok := strings.CutPrefix(name, "RTMAX"); ok {
		if n, err := strconv.Atoi("0" + strings.TrimPrefix(off, "-")); err == nil && n <= 30 && off != "-" {
			return unix.Signal(64 - n), nil
		}
	}
	return 0, fmt.Errorf("unknown signal %s", quote(s))
}

// canonical replaces an alias by what it means.
func canonical(r *Request) *Verb {
	switch shorthands[r.Verb] {
	case "self":
		r.Self = true
	case "clear":
		r.Clear = true
	}
	v := Lookup(r.Verb)
	if v != nil {
		r.Verb = v.Name
	}
	return v
}

// AccessKey is the key under which the configuration's `access` gives r to
// others: the verb, but "clear" for logs that are emptied and "maintail" for
// pazinit's own.
func (r *Request) AccessKey() string {
	switch {
	case r.Verb == "logs" && r.Clear:
		return "clear"
	case r.Verb == "logs" && (r.Self || r.Stream == syslogStream):
		return "maintail"
	}
	return r.Verb
}

// mutates reports whether r changes something.
func (r *Request) mutates() bool {
	v := Lookup(r.Verb)
	return v == nil || v.Mutates || r.Clear
}

// CountOf is the count of r.Names[i] in a request to scale.
func (r *Request) CountOf(i int) string {
	if i < len(r.Counts) {
		return r.Counts[i]
	}
	return r.Count
}

// syslogStream is what others said in pazinit's own log.
const syslogStream = "syslog"

// maxNames bounds what one request makes the supervisor look for.
const maxNames = 256

// Validate checks r as far as it can be without knowing what runs, and replaces
// an alias in Verb. Its error is a *[UsageError].
func (r *Request) Validate() error {
	v := canonical(r)
	if v == nil {
		return unknownVerb(r.Verb)
	}
	bad := func(format string, args ...any) error { return &UsageError{v.Name, fmt.Sprintf(format, args...)} }
	if len(r.Names) > maxNames {
		return bad("%d names are more than %d: a glob or all names many", len(r.Names), maxNames)
	}
	for _, n := range r.Names {
		if n == "" || len(n) > 512 || strings.ContainsFunc(n, func(c rune) bool {
			return !unicode.IsGraphic(c) || c == ' ' || c == unicode.ReplacementChar
		}) {
			return bad("bad name %s", quote(n))
		}
	}
	needs := strings.TrimSuffix(v.Args, "…")
	switch {
	case v.Mutates && v.Args != "" && len(r.Names) == 0:
		if v.Name == "signal" && r.Signal != "" {
			needs = "NAME"
		}
		return bad("needs %s", needs)
	case v.Args == "" && len(r.Names) > 0:
		return bad("takes no arguments, not %s", quote(r.Names[0]))
	case (v.Name == "add" || v.Name == "help") && len(r.Names) > 1:
		return bad("takes one name, not %d", len(r.Names))
	}
	if r.Timeout != "" {
		if d, err := time.ParseDuration(r.Timeout); err != nil || d <= 0 {
			return bad("bad timeout %s (10s is one)", quote(r.Timeout))
		}
	}
	if r.Since != "" {
		if d, err := time.ParseDuration(r.Since); err != nil || d <= 0 {
			return bad("bad duration %s (10m is one)", quote(r.Since))
		}
	}
	if r.Signal != "" || v.Name == "signal" {
		if _, err := ParseSignal(r.Signal); err != nil {
			return bad("%v", err)
		}
	}
	if !slices.Contains([]string{"", "leader", "group", "tree"}, r.To) {
		return bad("send to leader, group or tree, not %s", quote(r.To))
	}
	if !slices.Contains([]string{"", "stdout", "stderr", syslogStream}, r.Stream) {
		return bad("the streams are stdout, stderr and syslog, not %s", quote(r.Stream))
	}
	if r.Stream == syslogStream {
		if len(r.Names) > 0 {
			return bad("the stream syslog is no worker's, and %s is named", quote(r.Names[0]))
		}
		r.Self = true
	}
	if r.Lines < -1 {
		return bad("bad number of lines %d", r.Lines)
	}
	if len(r.Counts) > 0 && len(r.Counts) != len(r.Names) {
		return bad("%d counts for %d names", len(r.Counts), len(r.Names))
	}
	if v.Name == "scale" || r.Count != "" || len(r.Counts) > 0 {
		for i := range max(1, len(r.Names)) {
			if c := r.CountOf(i); !isCount(c) {
				return bad("bad count %s (4, +1, -1 or cpus)", quote(c))
			}
		}
	}
	if v.Name == "add" && strings.TrimSpace(r.Command) == "" {
		return bad("needs COMMAND")
	}
	if strings.IndexByte(r.Command, 0) >= 0 || strings.ContainsAny(r.Command, "\n\r") {
		return bad("a command is one line")
	}
	return nil
}

// split splits a line as a shell does, without expanding anything. ends are the
// offsets at which the words end in it.
func split(line string) (words []string, ends []int, err error) {
	var w []byte
	in := false // within a word
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\r', '\n':
			if in {
				words, ends, w, in = append(words, string(w)), append(ends, i), nil, false
			}
		case 0:
			return nil, nil, fmt.Errorf("NUL byte in %s", quote(line))
		case '\'', '"':
			in = true
			for i++; ; i++ {
				if i >= len(line) {
					return nil, nil, fmt.Errorf("unclosed quote in %s", quote(line))
				}
				if line[i] == c {
					break
				}
				if c == '"' && line[i] == '\\' && i+1 < len(line) && strings.IndexByte("\\\"$`", line[i+1]) >= 0 {
					i++
				}
				w = append(w, line[i])
			}
		case '\\':
			if i++; i >= len(line) {
				return nil, nil, fmt.Errorf("backslash at the end of %s", quote(line))
			}
			in, w = true, append(w, line[i])
		default:
			in, w = true, append(w, c)
		}
	}
	if in {
		words, ends = append(words, string(w)), append(ends, len(line))
	}
	return words, ends, nil
}

// join makes one command line of its arguments: one alone is a command line
// already, several are quoted where they need it.
func join(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	quoted := make([]string, len(args))
	for i, a := range args {
		if a != "" && !strings.ContainsFunc(a, func(c rune) bool {
			return !isAlnum(c) && !strings.ContainsRune("_-./:=,+@%", c)
		}) {
			quoted[i] = a
			continue
		}
		quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

// isAlnum reports whether c is one of ASCII's letters and digits.
func isAlnum(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
