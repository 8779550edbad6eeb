// Package network gives a machine its network: addresses, routes, VLANs, bridges,
// DHCP leases and resolv.conf. It is a process of its own, since PID 1 runs no
// code that talks to a network.
package network

// Names of files in [Options].StateDir.
const (
	StateFile = "network.json" // a [State], replaced whole
	StateUp   = "network.up"   // there while all that was asked for is configured

	StateWaits = "network.waits" // a line that says what is missing, not there when nothing is; replaced whole

	// Configs are the names of the configurations that PID 1 writes there, a new one
	// for each other content.
	ConfigPrefix = "network-"
	ConfigSuffix = ".conf"
)

// Options say where things are. The zero value is what a machine has.
type Options struct {
	StateDir   string            // "": /run/pazinit
	ResolvConf string            // "": /etc/resolv.conf
	Say        func(line string) // nil: nobody is told
}
