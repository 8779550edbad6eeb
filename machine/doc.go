// Package machine does what PID 1 of a machine does before, beside and after
// supervising: mounts, console, kernel command line, modules, clock, entropy,
// watchdog, buttons and power.
//
// Everything is a function of plain values; nothing runs by being imported, and
// nothing here forks, signals, exits or panics. What the kernel or the machine
// does not have is an error that is [errors.ErrUnsupported]: its caller says so
// once and goes on.
//
// A program that runs as /init without open standard descriptors needs
// /dev/null in the image, for Go's runtime opens it before main.
package machine
