package control

import "time"

// A Request is one verb with its arguments, as it stands on the wire: one JSON
// object on one line.
type Request struct {
	Verb    string   `json:"verb"`
	Names   []string `json:"names,omitempty"`   // instances, workers, applications, globs, "all"
	NoWait  bool     `json:"no_wait,omitempty"` // start, stop, restart: answer at once
	Timeout string   `json:"timeout,omitempty"` // how long to wait for the result, "10s"; "" waits as long as it takes
	Signal  string   `json:"signal,omitempty"`  // signal: "HUP", "SIGHUP" or "1"; stop: instead of stop_signal
	To      string   `json:"to,omitempty"`      // signal: leader (default), group or tree
	Count   string   `json:"count,omitempty"`   // scale: "4", "+1", "-1", "cpus"
	Counts  []string `json:"counts,omitempty"`  // scale: instead of Count, one for each of Names
	Command string   `json:"command,omitempty"` // add: the command line of the new worker
	Force   bool     `json:"force,omitempty"`   // remove: stop first what runs
	Lines   int      `json:"lines,omitempty"`   // logs: the last N lines; 0 is the default, -1 is all
	Since   string   `json:"since,omitempty"`   // logs: only what is younger than "10m"
	Follow  bool     `json:"follow,omitempty"`  // logs, events, status: go on until the client leaves
	Stream  string   `json:"stream,omitempty"`  // logs: stdout, stderr, syslog (see logs --help) or "" for both
	Self    bool     `json:"self,omitempty"`    // logs: pazinit's own
	Clear   bool     `json:"clear,omitempty"`   // logs: empty ring and file
	After   uint64   `json:"after,omitempty"`   // events: only those with a greater seq
}

// A Reply is one line of the answer. Every answer ends with one line whose
// Done is true; streams (events, logs) send Event or Log lines before it.
type Reply struct {
	Done    bool     `json:"done,omitempty"`
	Code    int      `json:"code"`              // the client's exit status, see the Exit constants
	Error   string   `json:"error,omitempty"`   // what is wrong with the request as a whole
	Message string   `json:"message,omitempty"` // one sentence for people
	Results []Result `json:"results,omitempty"` // one for each instance or name that was asked for
	Status  []Status `json:"status,omitempty"`
	Plan    *Plan    `json:"plan,omitempty"`
	Event   *Event   `json:"event,omitempty"`
	Log     *LogLine `json:"log,omitempty"`
	Missed  uint64   `json:"missed,omitempty"` // events or log lines lost before this line, because the reader was slow
	Version string   `json:"version,omitempty"`
	Place   string   `json:"place,omitempty"`   // version: where the supervisor runs, for people
	Orphans uint64   `json:"orphans,omitempty"` // version: adopted processes that the supervisor has reaped
	Panics  uint64   `json:"panics,omitempty"`  // version: of the supervisor's own, which it survived; see the event panic
	PID     int      `json:"pid,omitempty"`     // the supervisor's own
}

// The exit statuses of the client's verbs, carried in [Reply.Code].
const (
	ExitDone       = 0 // done
	ExitFailed     = 1 // asked for, but it failed
	ExitUsage      = 2 // the request makes no sense, or the configuration is bad
	ExitNotRunning = 3 // status, pid, signal: an instance that was asked for is not running
	ExitNoName     = 4 // no such name
	ExitDenied     = 5 // the peer may not do this
	ExitNoServer   = 6 // nobody answers on the socket
	ExitTimeout    = 7 // --timeout passed before the result was there
	ExitChanges    = 8 // plan: something would change
)

// A Result says what became of one name.
type Result struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	State   string `json:"state,omitempty"`
	PID     int    `json:"pid,omitempty"`
	Message string `json:"message,omitempty"` // why not, or what was done
	Code    int    `json:"code,omitempty"`    // what this name alone would exit with
}

// Status is what `status --json` prints of one instance. Fields are only ever added.
type Status struct {
	Name      string     `json:"name"` // shop:web.1
	App       string     `json:"app"`
	Worker    string     `json:"worker"`
	Instance  int        `json:"instance"` // from 1; 0 for a worker that has no instances
	State     string     `json:"state"`    // STOPPED STARTING RUNNING BACKOFF STOPPING EXITED FATAL
	Ready     bool       `json:"ready"`
	PID       int        `json:"pid"` // 0 when there is none
	Run       uint64     `json:"run"`
	Since     time.Time  `json:"since"`    // when it entered State
	UptimeS   float64    `json:"uptime_s"` // seconds since this run's exec, by the monotonic clock; 0 when not running
	Restarts  int        `json:"restarts"` // runs after the first
	Command   string     `json:"command"`
	LastExit  *Exit      `json:"last_exit"` // null before the first death
	Reason    string     `json:"reason,omitempty"`
	NextTry   *time.Time `json:"next_try,omitempty"` // BACKOFF and FATAL: when it is started again
	Failures  int        `json:"failures"`           // unhealthy deaths within restart_window
	Autostart bool       `json:"autostart"`
	Port      int        `json:"port,omitempty"`
	InFile    bool       `json:"in_file"` // false for a worker that was added at run time
}

// Exit says how a run ended.
type Exit struct {
	Code   int       `json:"code"`             // exit status, or 128 plus the signal
	Signal string    `json:"signal,omitempty"` // SIGKILL
	Core   bool      `json:"core,omitempty"`
	Error  string    `json:"error,omitempty"` // it could not be executed
	Time   time.Time `json:"time"`
	Run    uint64    `json:"run"`
	PID    int       `json:"pid,omitempty"`
}

// An Event is one thing that happened. Fields are only ever added.
type Event struct {
	Seq    uint64    `json:"seq"` // grows by one
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"` // state, exit, reload, orphan, output, supervisor …
	Name   string    `json:"name"` // shop:web.1; empty for the supervisor itself
	Run    uint64    `json:"run"`
	From   string    `json:"from"` // states; empty for what is no change of state
	To     string    `json:"to"`
	Reason string    `json:"reason"`
	PID    int       `json:"pid,omitempty"`
	Exit   *Exit     `json:"exit,omitempty"`
	Delay  float64   `json:"delay_s,omitempty"` // BACKOFF: seconds to the next try
	Try    int       `json:"try,omitempty"`     // BACKOFF, FATAL: unhealthy deaths in the window
}

// A LogLine is one line that an instance printed.
type LogLine struct {
	Time    time.Time `json:"time"`
	Name    string    `json:"name"`
	Stream  string    `json:"stream"` // stdout or stderr
	Line    string    `json:"line,omitempty"`
	Bytes   []byte    `json:"bytes,omitempty"`   // instead of Line when it is not UTF-8
	Partial bool      `json:"partial,omitempty"` // a line over 64 KiB goes on in the next one
	Level   string    `json:"level,omitempty"`   // of a line that was said by syslog(3): emergency, alert, critical, error, warning, notice, info or debug
}

// A Plan is what a reload would do, or did.
type Plan struct {
	Changes []Change `json:"changes"` // empty: nothing would change
}

// A Change is one line of a plan.
type Change struct {
	Op      string   `json:"op"`             // add, remove, change, scale, restart, keep (not in the file, kept)
	Name    string   `json:"name"`           // shop:web or shop:web.3
	Keys    []string `json:"keys,omitempty"` // change: the keys that differ
	Message string   `json:"message"`
}
