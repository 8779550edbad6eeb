#include "textflag.h"

// func wait(a *waitArgs) int64
TEXT ·wait(SB),NOSPLIT|NOFRAME,$0-16
	MOVD	a+0(FP), R19
	MOVD	$2, R0	// rt_sigprocmask(SIG_SETMASK, &a.block, 0, 8)
	ADD	$136, R19, R1
	MOVD	ZR, R2
	MOVD	$8, R3
	MOVD	$135, R8
	SVC
again:
	ADD	$128, R19, R0	// rt_sigtimedwait(&a.set, &a.info, a.timeout, 8)
	MOVD	R19, R1
	MOVD	152(R19), R2
	MOVD	$8, R3
	MOVD	$137, R8
	SVC
	CMP	$1, R0
	BLT	out
	ADD	$176, R19, R4
	MOVBU	(R4)(R0), R1
	CBZ	R1, out
	SUB	$1, R0, R5
	MOVD	$1, R6
	LSL	R5, R6, R6
	MOVD	168(R19), R7
	ORR	R6, R7, R7
	MOVD	R7, 168(R19)
	MOVD	160(R19), R0	// kill(a.target, a.action[signal])
	MOVD	$129, R8
	SVC
	MOVD	160(R19), R0
	TBZ	$63, R0, next
	NEG	R0, R5	// and if the group's leader has left it, to the leader, too
	MOVD	R5, R0
	MOVD	$155, R8	// getpgid(leader)
	SVC
	CMP	R5, R0
	BEQ	next
	CMP	$0, R0
	BLE	next
	MOVD	R5, R0
	MOVD	$129, R8	// kill(leader, a.action[signal])
	SVC
next:
	MOVD	248(R19), R7
	SUB	$1, R7
	MOVD	R7, 248(R19)
	CBNZ	R7, again
	MOVD	ZR, R0
out:
	MOVD	R0, R20
	MOVD	$2, R0	// rt_sigprocmask(SIG_SETMASK, &a.unblock, 0, 8)
	ADD	$144, R19, R1
	MOVD	ZR, R2
	MOVD	$8, R3
	MOVD	$135, R8
	SVC
	MOVD	R20, ret+8(FP)
	RET
