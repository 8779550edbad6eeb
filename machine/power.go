package machine

// Power ends the machine: what is "poweroff", "reboot" (argument is for the
// firmware or the driver, "" is none), "halt" or "kexec". It returns only if
// that was refused; kexec without a loaded image is refused.
//
// It syncs, for at most some seconds. In a PID namespace of its own it ends the
// namespace (reboot(2)).
func Power(what, argument string) error { return nil }

// KexecLoaded reports whether an image for kexec is loaded.
func KexecLoaded() bool { return false }
