package machine

// Sync writes everything to the disks and waits as long as that makes
// progress.
func Sync(say func(string)) error { return errNotYet }

// UnmountAll unmounts what was mounted, the deepest first, and makes the root
// read-only. What cannot be unmounted is made read-only, and as the last
// resort is unmounted lazily; left names it. It calls Sync first. What
// powering off needs stays: /proc, /sys, /dev.
func UnmountAll(say func(string)) (left []string) { return nil }
