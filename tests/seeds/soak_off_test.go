//go:build !soak

package seeds

// soakTime is how long the rows that ask for an hour take; see soak_on_test.go.
const soakTime = 0
