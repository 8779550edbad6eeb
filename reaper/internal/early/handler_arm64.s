#include "textflag.h"

// The handler of every signal, called by the kernel as
// handler(R0 signal, R1 siginfo, R2 ucontext). See handler.go.
TEXT ·handler(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVW	·released(SB), R4
	CBNZW	R4, done
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
	// This thread gets no more, but for faults of its own; the one that waits not
	// even these, or it would queue to itself without end.
	MOVD	R0, R13
	MOVD	$178, R8	// gettid()
	SVC
	MOVW	·waiter(SB), R5
	MOVD	·faults(SB), R4
	MVN	R4, R4
	CMPW	R0, R5
	BNE	other
	MOVD	$-1, R4
other:
	MOVD	R4, 40(R2)	// uc_sigmask
	MOVD	R13, R0
	MOVW	·waiter(SB), R4
	CBNZW	R4, queue

	// Nobody waits yet. Go raises the signal anew when it is about to end the
	// process by it.
	CMNW	$6, R3
	BNE	record
	MOVD	R0, R11
	MOVD	$172, R8	// getpid()
	SVC
	MOVWU	16(R1), R4
	CMPW	R4, R0
	BEQ	end
	MOVD	R11, R0
record:
	MOVD	$·recorded(SB), R6
	ADD	R0<<6, R6, R6
	MOVD	0(R1), R7
	MOVD	R7, 0(R6)
	MOVD	8(R1), R7
	MOVD	R7, 8(R6)
	MOVD	16(R1), R7
	MOVD	R7, 16(R6)
	MOVD	24(R1), R7
	MOVD	R7, 24(R6)
	SUB	$1, R0, R5
	MOVD	$1, R7
	LSL	R5, R7, R7
	MOVD	$·arrived(SB), R6
again:
	LDAXR	(R6), R9
	ORR	R7, R9, R9
	STLXR	R9, (R6), R10
	CBNZ	R10, again
	MOVD	$·waiter(SB), R6
	LDARW	(R6), R4	// not before the store
	CBZW	R4, done	// else the one who waits may have looked already
queue:
	MOVD	R2, R12
	SUBW	$0x10000, R3, R3
	MOVW	R3, 8(R1)
	MOVD	R1, R3
	MOVW	R0, R2
	MOVW	·pid(SB), R0
	MOVW	·waiter(SB), R1
	MOVD	$240, R8	// rt_tgsigqueueinfo(pid, waiter, signal, siginfo)
	SVC
	TBZ	$63, R0, done
	MOVD	$-1, R4	// a filter or a limit refuses it: kill(pid, signal), without
	MOVD	R4, 40(R12)	// its sender, to the threads that are left, until he has it
	MOVW	·pid(SB), R0
	MOVW	R2, R1
	MOVD	$129, R8
	SVC
done:
	RET
end:
	ADDW	$128, R11, R0
	MOVD	$94, R8	// exit_group(128+signal)
	SVC
	UNDEF

// func install(set uint64)
//
// It uses no stack but its own argument: entry calls it, too, ahead of Go.
TEXT ·install(SB),NOSPLIT|NOFRAME,$0-8
	MOVD	set+0(FP), R19
	MOVD	$·action(SB), R20
	MOVD	$·handler(SB), R4
	MOVD	R4, 0(R20)
	MOVD	$0x18000004, R4	// SA_SIGINFO, SA_ONSTACK, SA_RESTART; the kernel has its own restorer
	MOVD	R4, 8(R20)
	MOVD	ZR, 16(R20)
	MOVD	$-1, R4
	MOVD	R4, 24(R20)
	MOVD	$·goActions(SB), R21
	MOVD	$1, R22
sig:
	SUB	$1, R22, R5
	LSR	R5, R19, R4
	TBZ	$0, R4, next
	MOVD	R22, R0	// rt_sigaction(R22, &action, &goActions[R22], 8)
	MOVD	R20, R1
	ADD	R22<<5, R21, R2
	MOVD	$8, R3
	MOVD	$134, R8
	SVC
next:
	ADD	$1, R22
	CMP	$65, R22
	BLT	sig
	RET

// func restore(set uint64)
TEXT ·restore(SB),NOSPLIT|NOFRAME,$0-8
	MOVD	set+0(FP), R19
	MOVD	$·goActions(SB), R21
	MOVD	$1, R22
sig:
	SUB	$1, R22, R5
	LSR	R5, R19, R4
	TBZ	$0, R4, next
	MOVD	R22, R0	// rt_sigaction(R22, &goActions[R22], 0, 8)
	ADD	R22<<5, R21, R1
	MOVD	ZR, R2
	MOVD	$8, R3
	MOVD	$134, R8
	SVC
next:
	ADD	$1, R22
	CMP	$65, R22
	BLT	sig
	RET

// func getpid() int32
TEXT ·getpid(SB),NOSPLIT,$0-4
	MOVD	$172, R8
	SVC
	MOVW	R0, ret+0(FP)
	RET
