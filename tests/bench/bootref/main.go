// Command bootref is the least that a Go program does as the first process of a
// machine: it starts one worker and waits.
package main

import "syscall"

func main() {
	_, _ = syscall.ForkExec("/bin/boot", []string{"/bin/boot"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
	for {
		_, _ = syscall.Wait4(-1, nil, 0, nil)
	}
}
