package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/procfile"
)

// What comes over the network is not tried before there is one; nor is what lies
// on it, nor a swap there.
func TestMountAllHoldsBack(t *testing.T) {
	dir := t.TempDir()
	late := filepath.Join(dir, "late")
	t.Cleanup(func() { // if it was mounted nevertheless
		_ = unix.Unmount(late+"/below", unix.MNT_DETACH)
		_ = unix.Unmount(late, unix.MNT_DETACH)
	})
	h, said := newHost()
	h.cfg = &procfile.Config{Mounts: []procfile.Mount{
		{Type: "tmpfs", Path: late + "/below"},
		{Type: "tmpfs", Path: late, Options: []string{"_netdev"}},
	}}
	h.cfg.Machine.Swaps = []string{late + "/below/swap", "/dev/none _netdev"}
	if err := h.mountAll(); err != nil {
		t.Error(err)
	}
	if err := h.swap(); err != nil {
		t.Error(err)
	}
	if len(h.overNet) != 2 || h.overNet[0].Target != late || len(h.swapOverNet) != 2 {
		t.Errorf("over the network: %+v and %q, want both mounts, the upper first, and both swaps", h.overNet, h.swapOverNet)
	}
	if _, err := os.Stat(late); err == nil || said.Len() > 0 {
		t.Errorf("something was tried: %v, said %q", err, said)
	}
}

// The seed, whose time the clock must not be behind, may lie on a mount.
func TestClockAfterMounts(t *testing.T) {
	var got []string
	for _, s := range bootSteps {
		switch s.name {
		case "set the clock", "mount what mounts and fstab list", "set the clock by what is mounted", "feed the entropy seed":
			got = append(got, s.name)
		}
	}
	if len(got) != 4 || got[2] != "set the clock by what is mounted" {
		t.Errorf("the order is %q", got)
	}
}
