#include "textflag.h"

// The program's entry point (see the package comment). It stands on the stack
// that the kernel has made and leaves it as it is; nothing of Go is there yet.
TEXT ·entry(SB),NOSPLIT|NOFRAME,$0
	// rt_sigprocmask(SIG_SETMASK, &all, &entered.mask, 8)
	MOVL	$14, AX
	MOVL	$2, DI
	LEAQ	·everySignal(SB), SI
	LEAQ	·entered(SB), R12
	LEAQ	0(R12), DX
	MOVL	$8, R10
	SYSCALL

	// rt_sigaction(BX, 0, &entered.scratch, 8)
	MOVL	$1, BX
	XORL	R13, R13
action:
	MOVL	$13, AX
	MOVQ	BX, DI
	XORL	SI, SI
	LEAQ	32(R12), DX
	MOVL	$8, R10
	SYSCALL
	CMPQ	32(R12), $1	// SIG_IGN
	JNE	next
	LEAQ	-1(BX), CX
	MOVL	$1, AX
	SHLQ	CX, AX
	ORQ	AX, R13
next:
	INCQ	BX
	CMPQ	BX, $65
	JLT	action
	MOVQ	R13, 8(R12)

	// What is neither ignored nor a fault nor SIGCHLD is caught from now on.
	NOTQ	R13
	ANDQ	·ahead(SB), R13
	SUBQ	$16, SP
	MOVQ	R13, 0(SP)
	CALL	·install(SB)
	ADDQ	$16, SP
	LEAQ	·entered(SB), R12

	// fcntl(BX, F_GETFD): EBADF when it is closed
	XORL	BX, BX
	XORL	R13, R13
descriptor:
	MOVL	$72, AX
	MOVQ	BX, DI
	MOVL	$1, SI
	XORL	DX, DX
	SYSCALL
	CMPQ	AX, $-9
	JNE	open
	MOVQ	BX, CX
	MOVL	$1, AX
	SHLQ	CX, AX
	ORQ	AX, R13
open:
	INCQ	BX
	CMPQ	BX, $3
	JLT	descriptor
	MOVQ	R13, 16(R12)

	// prctl(PR_GET_THP_DISABLE), and if it is 0, prctl(PR_SET_THP_DISABLE, 1)
	MOVL	$157, AX
	MOVL	$42, DI
	XORL	SI, SI
	XORL	DX, DX
	XORL	R10, R10
	XORL	R8, R8
	SYSCALL
	TESTQ	AX, AX
	JNZ	done
	MOVL	$157, AX
	MOVL	$41, DI
	MOVL	$1, SI
	SYSCALL
	TESTQ	AX, AX
	JNZ	done
	MOVQ	$1, 24(R12)
done:
	MOVQ	$1, 64(R12)
	JMP	_rt0_amd64_linux(SB)
