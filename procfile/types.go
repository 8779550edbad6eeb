package procfile

import (
	"syscall"
	"time"
)

// A Position is a place in a file that was read. Line and Column count from 1;
// 0 means that the place is not known.
type Position struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

// Error is one thing that is wrong with the input.
type Error struct {
	Position
	What  string `json:"what"`            // what is wrong, without a full stop
	Meant string `json:"meant,omitempty"` // what was probably meant; may be empty
	Cause error  `json:"-"`               // for errors.Is; may be nil
}

// Errors is every error of one load, in the order of the files and lines.
type Errors []*Error

// Config is all that the configuration and the Procfiles say, with every
// default filled in. Workers share what they have in common (Env, User, Access,
// ...): it is to be read, not written.
type Config struct {
	Files []string // every file that was read, in that order

	LogPath         string        // pazinit's own log: "" is stderr, "syslog", or a file's absolute path
	SocketPath      string        // "" is the default
	SocketMode      uint32        // permission bits; 0 is the default
	SocketOwner     *User         // nil: the supervisor's own
	PIDFile         string        // of pazinit itself; "" for none
	ConsoleFull     string        // block or drop
	OutputRing      int64         // bytes kept of each instance's output
	Syslog          *bool         // serve /dev/log; nil: as fits the place
	ShutdownTimeout time.Duration // of everything together; 0: each worker has its own
	EndWhen         string        // any or all: which essential workers' end is the supervisor's
	OnEnd           string        // exit, poweroff, reboot, halt, kexec or shell; "": as fits the place
	Access          Access
	Cgroups         Cgroups
	Mounts          []Mount // of a machine
	Machine         Machine

	Applications []*Application // in the order of the files
}

// Cgroups is the configuration's section of that name.
type Cgroups struct {
	HierarchyRoot    string // default "pazinit"
	HierarchyRootSet bool   // whether the file says so
	Subsystems       []string
	FSRoot           string // default /sys/fs/cgroup
}

// Access says who, besides root and the supervisor's own user, may use a verb.
type Access map[string][]Principal

// A Principal is a user or a group.
type Principal struct {
	Group bool // ID is a gid
	ID    uint32
	Name  string // as written
}

// An Application is a Procfile and its settings.
type Application struct {
	Name     string
	Pos      Position
	Procfile string // its absolute path
	Dir      string // the folder that it lies in, absolute
	PortBase int    // 0: given out by the supervisor
	Own      bool   // it is in no file but pazinit's own: no ports, and whether it lives does not count
	Access   Access
	Workers  []*Worker // in the order of the Procfile
}

// A Worker is one line of a Procfile with all that the configuration says of it.
type Worker struct {
	App, Name string
	Pos       Position

	Command      Command
	NumInstances int  // may be 0
	PerCPU       bool // num_instances: cpus; NumInstances is then not used

	Env        []string // KEY=VALUE of .env, env_file and env, sorted; keys are unique
	EnvInherit Inherit
	Dir        string // absolute
	User       *User  // nil: the supervisor's own
	Umask      int    // -1: the supervisor's own

	Stdin   string // null or inherit
	TTY     bool   // gets pazinit's terminal as its controlling one
	Stdout  Target
	Stderr  Target
	PIDFile string

	Priority  int
	Autostart bool
	Essential bool
	WaitFor   []string // conditions of its first start

	Restart       string // always, on-failure or never
	SuccessCodes  []int
	Backoff       Backoff
	HealthyAfter  time.Duration
	MaxRestarts   int // 0: unlimited
	RestartWindow time.Duration
	RetryAfter    time.Duration // 0: never
	RetryTimes    int           // 0: unlimited

	Stop   []StopStep // without the last KILL, which always follows
	StopTo string     // leader, group or tree
	Access Access
}

// A Command is how to start a worker.
type Command struct {
	Line  string   // as written
	Argv  []string // what to execute; for a line that needs a shell, the shell's argv
	Shell bool     // Argv starts /bin/sh
}

// Inherit says which variables of pazinit's own environment a worker gets.
type Inherit struct {
	All   bool
	Names []string // when not All
}

// A User is an identity with all that its environment needs.
type User struct {
	Name     string // as written
	UID, GID uint32
	Groups   []uint32 // supplementary; never root's by accident
	Home     string   // "/" when unknown
	Login    string   // for USER and LOGNAME; "" when there is no passwd entry
	Shell    string   // "/bin/sh" when unknown
	GIDSet   bool     // group: was given
	UIDSet   bool     // user: was given; false when only group: was
}

// Backoff is the delay before a restart: Base, then Factor times more for each
// further unhealthy death, up to Max, more or less by the fraction Jitter.
type Backoff struct {
	Base, Max time.Duration
	Factor    float64
	Jitter    float64 // 0.1 is 10 %
}

// A StopStep is a signal and how long to wait before the next one.
type StopStep struct {
	Signal syscall.Signal
	Wait   time.Duration
}

// A Target is where one stream of a worker goes, besides the ring.
type Target struct {
	Kind       string // capture (ring and console), inherit, null, file, dir, pipe
	Path       string // file, dir: absolute
	Command    string // pipe: the logger's command line, as in a Procfile
	Pipe       Command
	RotateSize int64 // bytes; 0: never
	RotateKeep int
}

// NewWorker returns a worker with every default filled in.
func NewWorker(app, name string, command Command) *Worker {
	return &Worker{
		App: app, Name: name, Command: command,
		NumInstances:  1,
		EnvInherit:    Inherit{All: true},
		Umask:         -1,
		Stdin:         "null",
		Stdout:        Target{Kind: "capture"},
		Stderr:        Target{Kind: "capture"},
		Priority:      999,
		Autostart:     true,
		Restart:       "always",
		SuccessCodes:  []int{0},
		Backoff:       Backoff{Base: 100 * time.Millisecond, Factor: 4, Max: 30 * time.Second, Jitter: 0.1},
		HealthyAfter:  10 * time.Second,
		MaxRestarts:   5,
		RestartWindow: 60 * time.Second,
		RetryAfter:    5 * time.Minute,
		Stop:          []StopStep{{Signal: syscall.SIGTERM, Wait: 10 * time.Second}},
		StopTo:        "group",
	}
}
