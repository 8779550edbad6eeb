package pazinit

import (
	"os"
	"slices"
	"sync"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/reaper"
)

// clients are the processes that requests are carried out for, and how many.
type clients struct {
	mu   sync.Mutex
	pids map[int]int
}

// enter notes a peer until leave is called.
func (c *clients) enter(p control.Peer) (leave func()) {
	if p.PID == 0 || p.FIFO {
		return func() {}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pids == nil {
		c.pids = map[int]int{}
	}
	c.pids[p.PID]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.pids[p.PID]--; c.pids[p.PID] <= 0 {
			delete(c.pids, p.PID)
		}
	}
}

// others are those of list that are no pazinit at the other end of the socket:
// such ones end with it, and are nothing to tell of. Any other program there is.
func (c *clients) others(list []reaper.Stranger) []reaper.Stranger {
	own := reaper.Name(os.Getpid())
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(list), func(p reaper.Stranger) bool {
		return c.pids[p.PID] > 0 && (p.Name == "pazinit" || p.Name == own)
	})
}
