#include "textflag.h"

TEXT ·getrlimit(SB),NOSPLIT,$0-16
	XORL	DI, DI
	MOVL	$7, SI	// RLIMIT_NOFILE
	XORL	DX, DX
	MOVQ	to+0(FP), R10
	MOVL	$302, AX	// prlimit64
	SYSCALL
	MOVQ	AX, ret+8(FP)
	RET
