#include "textflag.h"

// func wait(a *waitArgs) int64
TEXT ·wait(SB),NOSPLIT|NOFRAME,$0-16
	MOVQ	a+0(FP), BX
	MOVL	$14, AX	// rt_sigprocmask(SIG_SETMASK, &a.block, 0, 8)
	MOVL	$2, DI
	LEAQ	136(BX), SI
	XORL	DX, DX
	MOVL	$8, R10
	SYSCALL
again:
	MOVL	$128, AX	// rt_sigtimedwait(&a.set, &a.info, a.timeout, 8)
	LEAQ	128(BX), DI
	LEAQ	0(BX), SI
	MOVQ	152(BX), DX
	MOVL	$8, R10
	SYSCALL
	CMPQ	AX, $1
	JLT	out
	MOVBLZX	176(BX)(AX*1), SI
	TESTL	SI, SI
	JZ	out
	LEAQ	-1(AX), CX
	MOVL	$1, R8
	SHLQ	CX, R8
	ORQ	R8, 168(BX)
	MOVQ	160(BX), DI	// kill(a.target, a.action[signal])
	MOVL	$62, AX
	SYSCALL
	TESTQ	DI, DI
	JGE	next
	NEGQ	DI	// and if the group's leader has left it, to the leader, too
	MOVL	$121, AX	// getpgid(leader)
	SYSCALL
	CMPQ	AX, DI
	JEQ	next
	TESTQ	AX, AX
	JLE	next
	MOVL	$62, AX	// kill(leader, a.action[signal])
	SYSCALL
next:
	SUBQ	$1, 248(BX)
	JNZ	again
	XORL	AX, AX
out:
	MOVQ	AX, R12
	MOVL	$14, AX	// rt_sigprocmask(SIG_SETMASK, &a.unblock, 0, 8)
	MOVL	$2, DI
	LEAQ	144(BX), SI
	XORL	DX, DX
	MOVL	$8, R10
	SYSCALL
	MOVQ	R12, ret+8(FP)
	RET
