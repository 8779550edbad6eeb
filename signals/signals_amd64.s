#include "textflag.h"

// The handler of every signal, called by the kernel as
// handler(DI signal, SI siginfo, DX ucontext). See signals.go.
TEXT ·handler(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVL	8(SI), AX	// si_code
	TESTL	AX, AX
	JLE	sent
	MOVQ	·faults(SB), R8
	LEAQ	-1(DI), CX
	SHRQ	CX, R8
	TESTQ	$1, R8
	JZ	ours
goes:
	MOVQ	·goHandler(SB), AX
	JMP	AX
sent:
	// Go's preemption: SIGURG by tgkill from this process.
	CMPL	DI, $23
	JNE	ours
	CMPL	AX, $-6	// SI_TKILL
	JNE	ours
	MOVL	16(SI), R8	// si_pid
	CMPL	R8, ·pid(SB)
	JEQ	goes
ours:
	MOVQ	$-1, 296(DX)	// uc_sigmask: this thread gets no more
	SUBL	$0x10000, AX
	MOVL	AX, 8(SI)
	MOVL	DI, DX
	MOVQ	SI, R10
	MOVL	·pid(SB), DI
	MOVL	·waiter(SB), SI
	MOVL	$297, AX	// rt_tgsigqueueinfo(pid, waiter, signal, siginfo)
	SYSCALL
	RET

// func handlerPC() uintptr
TEXT ·handlerPC(SB),NOSPLIT,$0-8
	LEAQ	·handler(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

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
	JMP	again
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
