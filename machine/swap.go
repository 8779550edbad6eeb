package machine

import "time"

// SwapOn starts swapping to devices and files: "DEVICE" or "DEVICE OPTIONS",
// with blanks in a name as \040 and the options of fstab(5): pri=5,discard,nofail.
func SwapOn(specs []string, wait time.Duration) []error { return []error{errNotYet} }

// SwapOffAll stops all swapping.
func SwapOffAll() []error { return []error{errNotYet} }
