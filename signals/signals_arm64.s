#include "textflag.h"

// The handler of every signal, called by the kernel as
// handler(R0 signal, R1 siginfo, R2 ucontext). See signals.go.
TEXT ·handler(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVW	8(R1), R3	// si_code
	CMPW	$0, R3
	BLE	sent
	MOVD	·faults(SB), R4
	SUB	$1, R0, R5
	LSR	R5, R4, R4
	TBZ	$0, R4, ours
goes:
	MOVD	·goHandler(SB), R4
	JMP	(R4)
sent:
	// Go's preemption: SIGURG by tgkill from this process.
	CMPW	$23, R0
	BNE	ours
	CMNW	$6, R3	// SI_TKILL
	BNE	ours
	MOVWU	16(R1), R4	// si_pid
	MOVWU	·pid(SB), R5
	CMPW	R4, R5
	BEQ	goes
ours:
	MOVD	$-1, R4	// uc_sigmask: this thread gets no more
	MOVD	R4, 40(R2)
	SUBW	$0x10000, R3, R3
	MOVW	R3, 8(R1)
	MOVD	R1, R3
	MOVW	R0, R2
	MOVW	·pid(SB), R0
	MOVW	·waiter(SB), R1
	MOVD	$240, R8	// rt_tgsigqueueinfo(pid, waiter, signal, siginfo)
	SVC
	RET

// func handlerPC() uintptr
TEXT ·handlerPC(SB),NOSPLIT,$0-8
	MOVD	$·handler(SB), R0
	MOVD	R0, ret+0(FP)
	RET

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
	B	again
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
