package machine

import (
	"slices"
	"testing"
)

// TestSplitNetwork: what needs the network waits, and so does all that lies on it.
func TestSplitNetwork(t *testing.T) {
	list := []Mount{
		{Source: "server:/root", Target: "/", Type: "nfs4"},                               // everything lies below it
		{Source: "/net/tools", Target: "/tools", Type: "none", Options: []string{"bind"}}, // of what comes after it
		{Source: "server:/home", Target: "/net", Type: "nfs4"},
		{Source: "LABEL=data", Target: "/data", Type: "ext4"},
		{Source: "tmpfs", Target: "/net/cache/", Type: "tmpfs"},
		{Source: "tmpfs", Target: "/network", Type: "tmpfs"},
		{Source: "/dev/nbd0", Target: "/far", Type: "ext4", Options: []string{"noatime,_netdev"}},
		{Source: "overlay", Target: "/merged", Type: "overlay", Options: []string{"lowerdir=/usr:/far/base", "upperdir=/data/up,workdir=/data/work"}},
		{Source: "overlay", Target: "/other", Type: "overlay", Options: []string{"lowerdir=/usr:/opt,upperdir=/data/up2,workdir=/data/work2"}},
		{Source: "/merged/disk.img", Target: "/disk", Type: "squashfs", Options: []string{"loop"}},
		{Source: "share", Target: "/near", Type: "9p", Options: []string{"trans=virtio"}},
		{Source: "10.0.0.1", Target: "/plan9", Type: "9p", Options: []string{"version=9p2000.L", "trans=tcp"}},
	}
	targets := func(list []Mount) (out []string) {
		for _, m := range list {
			out = append(out, m.Target)
		}
		return out
	}
	local, over := SplitNetwork(list)
	if got, want := targets(local), []string{"/", "/data", "/network", "/other", "/near"}; !slices.Equal(got, want) {
		t.Errorf("at once: %v, want %v", got, want)
	}
	if got, want := targets(over), []string{"/tools", "/net", "/net/cache/", "/far", "/merged", "/disk", "/plan9"}; !slices.Equal(got, want) {
		t.Errorf("over the network: %v, want %v", got, want)
	}
}

func TestSwapNeedsNetwork(t *testing.T) {
	for spec, want := range map[string]bool{
		"/dev/nbd0 pri=5,_netdev": true, "/dev/nbd0 _netdev": true, "/dev/nbd0 pri=5": false, "/dev/_netdev": false, "": false,
		"/far/away/swap\\040file pri=1": true, "/farther/swap": false, "LABEL=far": false,
	} {
		if got := SwapNeedsNetwork(spec, []Mount{{Target: "/far/away/"}}); got != want {
			t.Errorf("SwapNeedsNetwork(%q) = %v, want %v", spec, got, want)
		}
	}
}
