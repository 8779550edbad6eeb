#include "textflag.h"

// The handler of every signal, called by the kernel as
// handler(DI signal, SI siginfo, DX ucontext). See handler.go.
TEXT ·handler(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	CMPL	·released(SB), $0
	JNE	done
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
	// This thread gets no more, but for faults of its own; the one that waits not
	// even these, or it would queue to itself without end.
	MOVL	AX, R10
	MOVL	$186, AX	// gettid()
	SYSCALL
	MOVQ	·faults(SB), R8
	NOTQ	R8
	CMPL	AX, ·waiter(SB)
	JNE	other
	MOVQ	$-1, R8
other:
	MOVQ	R8, 296(DX)	// uc_sigmask
	MOVL	R10, AX
	CMPL	·waiter(SB), $0
	JNE	queue

	// Nobody waits yet. Go raises the signal anew when it is about to end the
	// process by it.
	CMPL	AX, $-6
	JNE	record
	MOVL	$39, AX	// getpid()
	SYSCALL
	CMPL	AX, 16(SI)
	JEQ	end
	MOVL	$-6, AX
record:
	MOVL	DI, R9
	SHLQ	$6, R9
	LEAQ	·recorded(SB), R10
	ADDQ	R10, R9
	MOVQ	0(SI), R8
	MOVQ	R8, 0(R9)
	MOVQ	8(SI), R8
	MOVQ	R8, 8(R9)
	MOVQ	16(SI), R8
	MOVQ	R8, 16(R9)
	MOVQ	24(SI), R8
	MOVQ	R8, 24(R9)
	LEAQ	-1(DI), CX
	MOVL	$1, R8
	SHLQ	CX, R8
	LOCK
	ORQ	R8, ·arrived(SB)
	CMPL	·waiter(SB), $0
	JEQ	done	// else the one who waits may have looked already
queue:
	MOVQ	DX, R9
	SUBL	$0x10000, AX
	MOVL	AX, 8(SI)
	MOVL	DI, DX
	MOVQ	SI, R10
	MOVL	·pid(SB), DI
	MOVL	·waiter(SB), SI
	MOVL	$297, AX	// rt_tgsigqueueinfo(pid, waiter, signal, siginfo)
	SYSCALL
	TESTQ	AX, AX
	JGE	done
	MOVQ	$-1, 296(R9)	// a filter or a limit refuses it: kill(pid, signal), without
	MOVL	·pid(SB), DI	// its sender, to the threads that are left, until he has it
	MOVL	DX, SI
	MOVL	$62, AX
	SYSCALL
done:
	RET
end:
	ADDL	$128, DI
	MOVL	$231, AX	// exit_group(128+signal)
	SYSCALL
	INT	$3

// Where the handler returns to.
TEXT ·restorer(SB),NOSPLIT|NOFRAME,$0
	MOVL	$15, AX	// rt_sigreturn
	SYSCALL
	INT	$3

// func install(set uint64)
//
// It uses no stack but its own argument: entry calls it, too, ahead of Go.
TEXT ·install(SB),NOSPLIT|NOFRAME,$0-8
	MOVQ	set+0(FP), R13
	LEAQ	·action(SB), R14
	LEAQ	·handler(SB), AX
	MOVQ	AX, 0(R14)
	MOVQ	$0x1c000004, AX	// SA_SIGINFO, SA_ONSTACK, SA_RESTART, SA_RESTORER
	MOVQ	AX, 8(R14)
	LEAQ	·restorer(SB), AX
	MOVQ	AX, 16(R14)
	MOVQ	$-1, 24(R14)
	LEAQ	·goActions(SB), R15
	MOVL	$1, BX
sig:
	LEAQ	-1(BX), CX
	MOVQ	R13, AX
	SHRQ	CX, AX
	TESTQ	$1, AX
	JZ	next
	MOVL	$13, AX	// rt_sigaction(BX, &action, &goActions[BX], 8)
	MOVQ	BX, DI
	MOVQ	R14, SI
	MOVQ	BX, DX
	SHLQ	$5, DX
	ADDQ	R15, DX
	MOVL	$8, R10
	SYSCALL
next:
	INCQ	BX
	CMPQ	BX, $65
	JLT	sig
	RET

// func restore(set uint64)
TEXT ·restore(SB),NOSPLIT|NOFRAME,$0-8
	MOVQ	set+0(FP), R13
	LEAQ	·goActions(SB), R15
	MOVL	$1, BX
sig:
	LEAQ	-1(BX), CX
	MOVQ	R13, AX
	SHRQ	CX, AX
	TESTQ	$1, AX
	JZ	next
	MOVL	$13, AX	// rt_sigaction(BX, &goActions[BX], 0, 8)
	MOVQ	BX, DI
	MOVQ	BX, SI
	SHLQ	$5, SI
	ADDQ	R15, SI
	XORL	DX, DX
	MOVL	$8, R10
	SYSCALL
next:
	INCQ	BX
	CMPQ	BX, $65
	JLT	sig
	RET

// func getpid() int32
TEXT ·getpid(SB),NOSPLIT,$0-4
	MOVL	$39, AX
	SYSCALL
	MOVL	AX, ret+0(FP)
	RET
