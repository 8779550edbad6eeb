// Package network gives a machine its network: addresses, routes, VLANs, bridges,
// DHCP leases and resolv.conf. It is a process of its own, since PID 1 runs no
// code that talks to a network.
package network

import (
	"context"
	"io"
)

// Names of files in [Options].StateDir.
const (
	StateFile = "network.json" // a [State], replaced whole
	StateUp   = "network.up"   // there while all that was asked for is configured
)

// Options say where things are. The zero value is what a machine has.
type Options struct {
	StateDir   string            // "": /run/pazinit
	ResolvConf string            // "": /etc/resolv.conf
	Say        func(line string) // "": nobody is told
}

// Run makes the network of c and keeps it until ctx ends: leases are renewed,
// devices that come late get what is theirs. It leaves the network as it is when
// it returns, so that another Run can go on with it; with c.Release leases are
// given back first. An error says that it could not begin; what does not work
// later, or with one interface only, is said and tried again.
//
// It needs CAP_NET_ADMIN and CAP_NET_RAW.
func Run(ctx context.Context, c Config, o Options) error { return nil }

// ParseIP reads the values of ip= of the kernel's command line, in their order:
// client:server:gateway:mask:host:device:autoconf:dns0:dns1:ntp0, or dhcp, on,
// any, off or none alone (the kernel's Documentation/admin-guide/nfs/nfsroot.rst).
// Of two for one device the later one counts. The server and the time server are
// looked at and left: nothing here needs them. An empty list, and off, are an
// empty configuration.
func ParseIP(values []string) (Config, error) { return Config{}, nil }

// Main is the process: args are the path of a file that holds a [Config] as
// JSON. It ends at SIGTERM or SIGINT, and returns its exit code.
func Main(args []string, stdout, stderr io.Writer) int { return 0 }
