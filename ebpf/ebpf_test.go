package ebpf

import (
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExit(t *testing.T) {
	s := watch(t)
	for code := range 256 {
		if _, r := s.sh("exit $1", strconv.Itoa(code)); !r.Status.Exited() || r.Status.ExitStatus() != code || r.Fatal != nil {
			t.Errorf("exit %d = %+v", code, r)
		}
		s.list = nil
	}
}

func TestSignal(t *testing.T) {
	s := watch(t)
	pid, r := s.sh("kill -KILL $$")
	if r.Fatal == nil || r.Fatal.Signal != unix.SIGKILL || r.Fatal.Sender != pid || r.Fatal.Comm != "sh" || r.Fatal.Kernel {
		t.Errorf("%+v, %+v", r, r.Fatal)
	}
}
