package machine

// SetHostname sets the host's name; "" is what /etc/hostname says, else nothing
// is done.
func SetHostname(name string) error { return nil }

// MachineID returns the machine's id, 32 lower-case hexadecimal digits, from
// root/etc/machine-id (machine-id(5)). One that is missing is made: from
// container_uuid, from the virtual machine's product_uuid, else by chance. If it
// cannot be written there, it is in root/run/machine-id and mounted over
// /etc/machine-id where that file is; err tells why.
func MachineID(root string) (id string, err error) { return "", nil }

// Loopback brings the interface lo up; the kernel gives it its addresses.
func Loopback() error { return nil }
