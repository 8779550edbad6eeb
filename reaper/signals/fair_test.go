package signals

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { plays["fair"] = playFair }

// playFair gets SIGHUP without end, at first by itself, then as one that is sent
// on to itself.
func playFair() {
	threads(3)
	must(Catch())
	fmt.Println("ready")
	self := os.Getpid()
	hup := func() { must(unix.Kill(self, unix.SIGHUP)) }
	hup()
	must(unix.Kill(self, unix.SIGTERM))
	for i := next(); i.Signal != unix.SIGTERM; i = next() {
		hup()
	}
	fmt.Println("a turn for 15")
	Target(self)
	SendOn(unix.SIGHUP, unix.SIGHUP)
	hup()
	must(unix.Kill(self, unix.SIGTERM))
	fmt.Println("a turn for", int(next().Signal))
	Wait(time.Hour)
	fmt.Println("an hour later")
}

// TestFair: a signal that comes without end keeps no other away, nor the time.
func TestFair(t *testing.T) {
	p := start(t, "fair")
	p.want("a turn for 15", "a turn for 15", "an hour later")
}
