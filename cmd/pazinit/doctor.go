package main

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/cmd/internal/appimage"
	"github.com/pazinit/pazinit/control"
)

// A diagnosis is what `doctor --json` prints. Keys are only ever added; doctorLook
// and what it calls say where each fact comes from.
type diagnosis struct {
	Version       string            `json:"version"`
	Kernel        kernelFacts       `json:"kernel"`
	Place         placeFacts        `json:"place"`
	Process       processFacts      `json:"process"`
	PID1          pid1Facts         `json:"pid1"`
	Proc          procFacts         `json:"proc"`
	Namespaces    map[string]string `json:"namespaces"` // initial, own, none or unknown
	User          userFacts         `json:"user"`
	Capabilities  capabilitySets    `json:"capabilities"`
	Limits        limitFacts        `json:"limits"`
	Paths         []pathFacts       `json:"paths"`
	Configuration configFacts       `json:"configuration"`
	Socket        socketFacts       `json:"socket"`
	Supervisor    *supervisorFacts  `json:"supervisor"` // nil: none answers
	Cgroups       cgroupFacts       `json:"cgroups"`
	Features      map[string]string `json:"features"` // "" works, else what the kernel said
	Stdio         []stdioFacts      `json:"stdio"`
	Terminal      terminalFacts     `json:"terminal"`
	Signals       signalFacts       `json:"signals"`
	Machine       *machineFacts     `json:"machine"` // nil: its init is another, or this is none
	Findings      []doctorFinding   `json:"findings"`
	Problems      []string          `json:"problems"` // what the configuration asks for in vain
}

type kernelFacts struct {
	Release string `json:"release"`
	Machine string `json:"machine"`
}

type placeFacts struct {
	Text     string `json:"text"`
	PID1     bool   `json:"pid1"`
	Initial  bool   `json:"initial_pid_ns"`
	Daemon   bool   `json:"daemon"`
	Terminal bool   `json:"terminal"`
	Entered  bool   `json:"entered"` // its parent is outside of the PID namespace: docker exec, nsenter
	host     bool   // not a container, as far as its PID, UTS and IPC namespaces tell
}

type processFacts struct {
	PID               int    `json:"pid"`
	PPID              int    `json:"ppid"`
	Parent            string `json:"parent"`
	Subreaper         bool   `json:"subreaper"`
	SubreaperNeeded   bool   `json:"subreaper_needed"`
	SubreaperPossible bool   `json:"subreaper_possible"`
	Exe               string `json:"exe"`
}

// pid1Facts tell of a container's PID 1 that is another process than this one.
type pid1Facts struct {
	Pazinit bool `json:"pazinit"`
	UID     int  `json:"uid"` // its effective one; -1: not known
}

type procFacts struct {
	Mounted  bool   `json:"mounted"`
	OwnPIDNS bool   `json:"own_pid_ns"` // it shows the PID namespace of this process
	HidePID  string `json:"hidepid"`
}

type idRange struct {
	Inside  uint32 `json:"inside"`
	Outside uint32 `json:"outside"`
	Count   uint32 `json:"count"`
}

type userFacts struct {
	UID        int       `json:"uid"`
	EUID       int       `json:"euid"`
	GID        int       `json:"gid"`
	EGID       int       `json:"egid"`
	Groups     []int     `json:"groups"`
	Name       string    `json:"name"`
	UIDMap     []idRange `json:"uid_map"`
	GIDMap     []idRange `json:"gid_map"`
	Rootless   bool      `json:"rootless"`
	NoNewPrivs bool      `json:"no_new_privs"`
	Seccomp    string    `json:"seccomp"`
}

type capabilitySets struct {
	Effective   []string `json:"effective"`
	Permitted   []string `json:"permitted"`
	Inheritable []string `json:"inheritable"`
	Bounding    []string `json:"bounding"`
	Ambient     []string `json:"ambient"`
}

// A limitPair is a resource limit; -1 is none.
type limitPair struct {
	Soft int64 `json:"soft"`
	Hard int64 `json:"hard"`
}

// A limitUse is a limit of a cgroup and what is used of it; -1 is none.
type limitUse struct {
	Max     int64 `json:"max"`
	Current int64 `json:"current"`
}

type limitFacts struct {
	NoFile *limitPair `json:"nofile"`
	NProc  *limitPair `json:"nproc"`
	PIDMax int64      `json:"pid_max"`
	PIDs   *limitUse  `json:"cgroup_pids"`
	Memory *limitUse  `json:"cgroup_memory"`
	CPUs   int        `json:"cpus"`
	Quota  int64      `json:"cpu_quota_milli"` // of the cgroup, in thousandths of a CPU; -1 is none
}

type pathFacts struct {
	Path     string `json:"path"`
	Use      string `json:"use"`
	Exists   bool   `json:"exists"`
	Writable bool   `json:"writable"`
	ReadOnly bool   `json:"read_only"`
	NoExec   bool   `json:"noexec"`
	Type     string `json:"type"`
	Error    string `json:"error"`
	asked    bool   // by the configuration
}

type configFacts struct {
	Files    []string       `json:"files"`
	Workers  int            `json:"workers"`
	Errors   []string       `json:"errors"`
	Commands []commandFacts `json:"commands"` // those that cannot be executed
	noShell  bool           // on_end wants one
}

type commandFacts struct {
	Worker string `json:"worker"`
	Path   string `json:"path"`
	Error  string `json:"error"`
}

type socketFacts struct {
	Path    string `json:"path"`
	From    string `json:"from"`
	Exists  bool   `json:"exists"`
	UID     int    `json:"uid"`
	GID     int    `json:"gid"`
	Mode    string `json:"mode"`
	Usable  bool   `json:"usable"`
	Error   string `json:"error"`
	Long    bool   `json:"long"`
	Answers bool   `json:"answers"`
	fatal   bool   // run would refuse to start
	unsafe  bool   // others could put a socket of theirs in its place
}

type supervisorFacts struct {
	PID     int          `json:"pid"` // 0: in another PID namespace
	UID     uint32       `json:"uid"`
	Version string       `json:"version"`
	Place   string       `json:"place"`
	Stdio   []stdioFacts `json:"stdio"`
}

type cgroupFacts struct {
	Version      string   `json:"version"`
	Namespace    string   `json:"namespace"`
	Path         string   `json:"path"`
	Mount        string   `json:"mount"`
	MountVersion int      `json:"mount_version"`
	ReadOnly     bool     `json:"read_only"`
	Usable       bool     `json:"usable"`
	Folder       string   `json:"folder"`
	Error        string   `json:"error"`
	Controllers  []string `json:"controllers"`
	Delegated    []string `json:"delegated"`
	Kill         bool     `json:"kill"`
	PIDs         bool     `json:"pids"`
	Memory       bool     `json:"memory"`
	setting      string
	holder       int // of Folder
}

type stdioFacts struct {
	FD            int    `json:"fd"`
	Kind          string `json:"kind"`
	Name          string `json:"name"`
	UID           int    `json:"uid"`
	GID           int    `json:"gid"`
	Mode          string `json:"mode"`
	Access        string `json:"access"`
	SelfCanOpen   bool   `json:"self_can_open"`
	OthersCanOpen bool   `json:"others_can_open"`
}

type terminalFacts struct {
	Controlling bool   `json:"controlling"`
	Name        string `json:"name"`
}

// signalFacts are the signals that this process was started with; nil: not known.
type signalFacts struct {
	Blocked []string `json:"blocked"`
	Ignored []string `json:"ignored"`
}

// A doctorFinding is a fact that is not as it could be.
type doctorFinding struct {
	Key     string `json:"key"`
	Mark    string `json:"mark"` // limited, missing or bad
	Text    string `json:"text"`
	Instead string `json:"instead,omitempty"` // what pazinit does without
	Setting string `json:"setting,omitempty"` // what would give it
}

// doctor says what works here. The exit status is 1 when the configuration asks
// for what cannot work, exitUsage when the configuration itself is wrong.
func (c *command) doctor(o options, asJSON bool) int {
	d, cfg, bad := doctorLook(o)
	lines := doctorJudge(d, cfg)
	d.Findings, d.Problems = []doctorFinding{}, []string{}
	for _, l := range lines {
		switch l.mark {
		case markBad:
			d.Problems = append(d.Problems, l.text)
			fallthrough
		case markLimited, markMissing:
			d.Findings = append(d.Findings, doctorFinding{l.group + "." + l.name, l.mark, l.text, l.instead, l.setting})
		}
	}
	var err error
	if asJSON {
		_, err = c.stdout.Write(control.AppendJSON(nil, d))
	} else {
		_, err = fmt.Fprint(c.stdout, doctorTable(lines))
	}
	switch {
	case err != nil:
		return c.fail(control.ExitFailed, "%v", err)
	case bad:
		return exitUsage
	case len(d.Problems) > 0:
		return control.ExitFailed
	}
	return control.ExitDone
}

// The marks of a line. One without a mark tells of what is neither good nor bad.
const (
	markOK      = "ok"
	markLimited = "limited"
	markMissing = "missing"
	markBad     = "bad" // it is asked for, or pazinit cannot start
)

// A doctorLine is one fact as it is shown.
type doctorLine struct {
	group, name, mark, text string
	instead, setting        string
}

// doctorTable is the text for people: one fact a line, in groups, and at the end
// once more those that are not as they could be, the worst first.
func doctorTable(lines []doctorLine) string {
	var b strings.Builder
	count := map[string]int{}
	group, width := "", 0
	for i := range lines {
		width = max(width, min(len(lines[i].name), 20))
	}
	row := func(mark, name, text string) {
		fmt.Fprintf(&b, "%-8s %-*s  %s\n", mark, width, name, text)
	}
	for i := range lines {
		l := &lines[i]
		if l.group != group {
			if i > 0 {
				b.WriteByte('\n')
			}
			group = l.group
			b.WriteString(group + "\n")
		}
		count[l.mark]++
		row(l.mark, l.name, appimage.Printable(l.text))
		if l.instead != "" {
			row("", "", "without it: "+l.instead)
		}
		for i, way := range strings.Split(l.setting, "; ") {
			if i == 0 && way != "" {
				row("", "", "to have it: "+way)
			} else if way != "" {
				row("", "", "            "+way)
			}
		}
	}
	b.WriteByte('\n')
	if count[markBad]+count[markMissing]+count[markLimited] > 0 {
		b.WriteString("To look at\n")
		for _, mark := range [...]string{markBad, markMissing, markLimited} {
			for i := range lines {
				if l := &lines[i]; l.mark == mark {
					fmt.Fprintf(&b, "%-8s %s\n", mark, appimage.Printable(l.group+"."+l.name+": "+l.text))
				}
			}
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%d ok, %d limited, %d missing", count[markOK], count[markLimited], count[markMissing])
	if n := count[markBad]; n > 0 {
		fmt.Fprintf(&b, ", %d bad: what is asked for and cannot work here", n)
	}
	b.WriteByte('\n')
	return b.String()
}

// errText is an error number's own text.
func errText(err error) string {
	if err == nil {
		return ""
	}
	var e unix.Errno
	if errors.As(err, &e) {
		return e.Error()
	}
	return err.Error()
}
