//go:build qemu

package qemu

import "golang.org/x/sys/unix"

func setPC(r *unix.PtraceRegs, pc uint64) { r.Rip, r.Orig_rax = pc, ^uint64(0) }
