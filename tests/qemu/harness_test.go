//go:build qemu

package qemu

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// idle is a machine of the kernel alone: it waits for its root, for ever.
func idle(accel string, limit time.Duration) (Config, error) {
	cache, err := Cache()
	if err != nil {
		return Config{}, err
	}
	k, err := Bookworm(cache)
	return Config{Arch: AMD64, Kernel: k.Image, Initrd: os.DevNull, Cmdline: "root=LABEL=none rootwait", Accel: accel, Limit: limit}, err
}

// TestLimit has a machine's time be up. Whoever waits is told.
func TestLimit(t *testing.T) {
	t.Parallel()
	c, err := idle("tcg", time.Second)
	rig.Need(t, "bookworm", err)
	v, err := Boot(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Until("never", 1); err == nil || !strings.HasSuffix(err.Error(), "the machine's time is up") {
		t.Errorf("Until = %v, want that the time is up", err)
	}
	if _, err := v.Wait(); err == nil {
		t.Error("Wait = nil, want an error")
	}
	if unix.Kill(v.pid, 0) == nil {
		t.Errorf("process %d, QEMU, is there", v.pid)
	}
}

// TestNoneLeft kills who has a machine. It does not outlive that.
func TestNoneLeft(t *testing.T) {
	t.Parallel()
	_, err := idle("tcg", 0)
	rig.Need(t, "bookworm", err)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := filepath.Join(t.TempDir(), "owner") // see TestMain
	if err := os.Symlink(self, owner); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(owner)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("find QEMU, process %d: %v", pid, err)
	}
	defer unix.Close(fd)
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); n != 0 || err != nil {
		t.Fatalf("QEMU, process %d, has ended already (%d, %v)", pid, n, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Minute.Milliseconds())); n != 1 || err != nil {
		t.Errorf("QEMU, process %d, outlives its owner (%d, %v)", pid, n, err)
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// owner boots a machine and tells its process.
func owner() error {
	c, err := idle("tcg", time.Minute)
	if err != nil {
		return err
	}
	v, err := Boot(context.Background(), c)
	if err != nil {
		return err
	}
	fmt.Println(v.pid)
	<-v.ended
	return nil
}
