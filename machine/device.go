package machine

import "time"

// FindDevice returns the path of a block device by /dev/x, MAJOR:MINOR,
// LABEL=, UUID=, PARTLABEL= or PARTUUID=, and waits for one that is late.
// A negative wait is for ever.
func FindDevice(spec string, wait time.Duration) (string, error) { return "", errNotYet }
