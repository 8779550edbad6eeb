#include "textflag.h"

// The program's entry point (see the package comment). It stands on the stack
// that the kernel has made and leaves it as it is; nothing of Go is there yet.
TEXT ·entry(SB),NOSPLIT|NOFRAME,$0
	// rt_sigprocmask(SIG_SETMASK, &all, &entered.mask, 8)
	MOVD	$·entered(SB), R19
	MOVD	$2, R0
	MOVD	$·everySignal(SB), R1
	MOVD	R19, R2
	MOVD	$8, R3
	MOVD	$135, R8
	SVC

	// rt_sigaction(R20, 0, &entered.scratch, 8)
	MOVD	$1, R20
	MOVD	ZR, R21
action:
	MOVD	R20, R0
	MOVD	ZR, R1
	ADD	$32, R19, R2
	MOVD	$8, R3
	MOVD	$134, R8
	SVC
	MOVD	32(R19), R4
	CMP	$1, R4	// SIG_IGN
	BNE	next
	SUB	$1, R20, R5
	MOVD	$1, R6
	LSL	R5, R6, R6
	ORR	R6, R21, R21
next:
	ADD	$1, R20
	CMP	$65, R20
	BLT	action
	MOVD	R21, 8(R19)

	// What is neither ignored nor a fault nor SIGCHLD is caught from now on.
	MOVD	·ahead(SB), R4
	BIC	R21, R4, R4
	SUB	$32, RSP
	MOVD	R4, 8(RSP)
	BL	·install(SB)
	ADD	$32, RSP
	MOVD	$·entered(SB), R19

	// fcntl(R20, F_GETFD): EBADF when it is closed
	MOVD	ZR, R20
	MOVD	ZR, R21
descriptor:
	MOVD	R20, R0
	MOVD	$1, R1
	MOVD	ZR, R2
	MOVD	$25, R8
	SVC
	CMN	$9, R0
	BNE	open
	MOVD	$1, R6
	LSL	R20, R6, R6
	ORR	R6, R21, R21
open:
	ADD	$1, R20
	CMP	$3, R20
	BLT	descriptor
	MOVD	R21, 16(R19)

	// prctl(PR_GET_THP_DISABLE), and if it is 0, prctl(PR_SET_THP_DISABLE, 1)
	MOVD	$42, R0
	MOVD	ZR, R1
	MOVD	ZR, R2
	MOVD	ZR, R3
	MOVD	ZR, R4
	MOVD	$167, R8
	SVC
	CBNZ	R0, done
	MOVD	$41, R0
	MOVD	$1, R1
	MOVD	ZR, R2
	MOVD	ZR, R3
	MOVD	ZR, R4
	MOVD	$167, R8
	SVC
	CBNZ	R0, done
	MOVD	$1, R4
	MOVD	R4, 24(R19)
done:
	MOVD	$1, R4
	MOVD	R4, 64(R19)
	B	_rt0_arm64_linux(SB)
