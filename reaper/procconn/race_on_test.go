//go:build race

package procconn

const raceOn = true
