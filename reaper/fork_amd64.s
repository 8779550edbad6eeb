#include "textflag.h"

// func vforkRun(a *forkArgs) uintptr
//
// BX holds a in parent and child. The child touches no stack: it runs on its
// parent's, which stands still until the exec or the end of the child.
TEXT ·vforkRun(SB),NOSPLIT|NOFRAME,$0-16
	MOVQ	a+0(FP), BX

	// rt_sigprocmask(SIG_SETMASK, &all, &oldMask, 8)
	MOVL	$14, AX
	MOVL	$2, DI
	LEAQ	64(BX), SI
	LEAQ	72(BX), DX
	MOVL	$8, R10
	SYSCALL

	MOVQ	0(BX), DI
	TESTQ	DI, DI
	JZ	oldclone
	MOVQ	8(BX), SI
	MOVL	$435, AX	// clone3(args, size)
	SYSCALL
	JMP	cloned
oldclone:
	MOVQ	16(BX), DI
	XORL	SI, SI
	MOVQ	24(BX), DX
	XORL	R10, R10
	XORL	R8, R8
	MOVL	$56, AX	// clone(flags, 0, parent_tid, 0, 0)
	SYSCALL
cloned:
	TESTQ	AX, AX
	JZ	child
	MOVQ	AX, R12
	MOVL	$14, AX	// rt_sigprocmask(SIG_SETMASK, &oldMask, 0, 8)
	MOVL	$2, DI
	LEAQ	72(BX), SI
	XORL	DX, DX
	MOVL	$8, R10
	SYSCALL
	MOVQ	R12, ret+8(FP)
	RET

child:
	MOVQ	32(BX), R13	// the next op
	MOVQ	40(BX), R15	// how many are left
	MOVQ	$-1, R12	// the last result
	XORL	R14, R14	// the last error; in memory only when no program was executed
next:
	TESTQ	R15, R15
	JZ	end
	MOVQ	0(R13), AX
	MOVQ	8(R13), DI
	MOVQ	16(R13), SI
	MOVQ	24(R13), DX
	MOVQ	32(R13), R10
	MOVQ	40(R13), R8
	MOVQ	48(R13), R9
	TESTQ	$2, 56(R13)	// opResult
	JZ	call
	MOVQ	R12, DI
call:
	SYSCALL
	CMPQ	AX, $0xfffffffffffff001
	JCC	failed
	MOVQ	AX, R12
advance:
	ADDQ	$64, R13
	DECQ	R15
	JMP	next

failed:
	NEGQ	AX
	MOVQ	$-1, R12	// no descriptor for an opResult
	TESTQ	$1, 56(R13)	// opOptional
	JNZ	advance
	TESTQ	$4, 56(R13)	// opExec
	JZ	giveup
	CMPQ	AX, $13	// EACCES outlives the others, as execvp(3) has it
	JEQ	remember
	CMPQ	AX, $2	// ENOENT
	JEQ	weak
	CMPQ	AX, $20	// ENOTDIR
	JNE	giveup
weak:
	TESTQ	R14, R14
	JNZ	advance
remember:
	MOVQ	AX, R14
	MOVQ	R13, 56(BX)
	JMP	advance
giveup:
	MOVQ	AX, R14
	MOVQ	R13, 56(BX)
end:
	MOVQ	R14, 48(BX)
	MOVL	$231, AX	// exit_group(127)
	MOVL	$127, DI
	SYSCALL
	INT	$3
