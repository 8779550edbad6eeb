package reaper

import (
	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/reaper/internal/early"
)

// FileLimit is RLIMIT_NOFILE as this process was started with, which children
// get: Go has raised the soft one since.
func FileLimit() (unix.Rlimit, error) {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		return now, err
	}
	if early.Known {
		now = unix.Rlimit{Cur: early.NoFile[0], Max: early.NoFile[1]}
	}
	return now, nil
}
