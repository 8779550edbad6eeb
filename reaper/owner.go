package reaper

import (
	"bytes"
	"os"
	"strconv"
)

// Owner looks to which run a process belongs that need not be a child of ours:
// leader is the nearest of it and its living ancestors that known accepts, 0 for
// none; token is then what [RunVariable] says in its environment, as that was at
// its last exec. It reads /proc, and finds nothing where that is another PID
// namespace's, or when the process is gone. It may block on a process that hangs.
func Owner(pid int, known func(pid int) bool) (leader int, token string) {
	if known(pid) {
		return pid, ""
	}
	if !procIsOurs() {
		return 0, ""
	}
	self, at := os.Getpid(), pid
	for range 1000 { // numbers move while /proc is read: there may be circles
		s, err := readStat(at)
		if err != nil || s.ppid <= 1 || s.ppid == self {
			break
		}
		if at = s.ppid; known(at) {
			return at, ""
		}
	}
	env, err := readSmall("/proc/"+strconv.Itoa(pid)+"/environ", make([]byte, 16<<10))
	if err != nil {
		return 0, ""
	}
	for kv := range bytes.SplitSeq(env, []byte{0}) {
		if v, ok := bytes.CutPrefix(kv, []byte(RunVariable+"=")); ok {
			return 0, string(v)
		}
	}
	return 0, ""
}
