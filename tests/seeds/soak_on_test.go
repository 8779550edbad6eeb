//go:build soak

package seeds

import "time"

// soakTime is how long the rows that ask for an hour take.
const soakTime = time.Hour
