#include "textflag.h"

// func vforkRun(a *forkArgs) uintptr
//
// R19 holds a in parent and child. The child touches no stack: it runs on its
// parent's, which stands still until the exec or the end of the child.
TEXT ·vforkRun(SB),NOSPLIT|NOFRAME,$0-16
	MOVD	a+0(FP), R19

	// rt_sigprocmask(SIG_SETMASK, &all, &oldMask, 8)
	MOVD	$135, R8
	MOVD	$2, R0
	ADD	$64, R19, R1
	ADD	$72, R19, R2
	MOVD	$8, R3
	SVC

	MOVD	0(R19), R0
	CBZ	R0, oldclone
	MOVD	8(R19), R1
	MOVD	$435, R8	// clone3(args, size)
	SVC
	B	cloned
oldclone:
	MOVD	16(R19), R0
	MOVD	ZR, R1
	MOVD	24(R19), R2
	MOVD	ZR, R3
	MOVD	ZR, R4
	MOVD	$220, R8	// clone(flags, 0, parent_tid, 0, 0)
	SVC
cloned:
	CBZ	R0, child
	MOVD	R0, R20
	MOVD	$135, R8	// rt_sigprocmask(SIG_SETMASK, &oldMask, 0, 8)
	MOVD	$2, R0
	ADD	$72, R19, R1
	MOVD	ZR, R2
	MOVD	$8, R3
	SVC
	MOVD	R20, ret+8(FP)
	RET

child:
	MOVD	32(R19), R20	// the next op
	MOVD	40(R19), R21	// how many are left
	MOVD	$-1, R22	// the last result
	MOVD	ZR, R25	// the last error; in memory only when no program was executed
next:
	CBZ	R21, end
	MOVD	0(R20), R8
	MOVD	8(R20), R0
	MOVD	16(R20), R1
	MOVD	24(R20), R2
	MOVD	32(R20), R3
	MOVD	40(R20), R4
	MOVD	48(R20), R5
	MOVD	56(R20), R23
	TBZ	$1, R23, call	// opResult
	MOVD	R22, R0
call:
	SVC
	MOVD	$-4095, R24
	CMP	R24, R0
	BHS	failed
	MOVD	R0, R22
advance:
	ADD	$64, R20
	SUB	$1, R21
	B	next

failed:
	NEG	R0, R0
	MOVD	$-1, R22	// no descriptor for an opResult
	TBNZ	$0, R23, advance	// opOptional
	TBZ	$2, R23, giveup	// opExec
	CMP	$13, R0	// EACCES outlives the others, as execvp(3) has it
	BEQ	remember
	CMP	$2, R0	// ENOENT
	BEQ	weak
	CMP	$20, R0	// ENOTDIR
	BNE	giveup
weak:
	CBNZ	R25, advance
remember:
	MOVD	R0, R25
	MOVD	R20, 56(R19)
	B	advance
giveup:
	MOVD	R0, R25
	MOVD	R20, 56(R19)
end:
	MOVD	R25, 48(R19)
	MOVD	$94, R8	// exit_group(127)
	MOVD	$127, R0
	SVC
	BRK
