// Package seeds keeps what Pazuzu, diprocd, Circus and Supervisor do as checks
// of pazinit, each under its number: PZ, DP, CI and SU for what their authors
// announced, Q for what really happened and must not. `make seeds` prints which
// of them hold. Each is run as a daemon and as PID 1 of a namespace, unless the
// place makes no difference.
package seeds
