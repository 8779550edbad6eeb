#include "textflag.h"

TEXT ·getrlimit(SB),NOSPLIT,$0-16
	MOVD	ZR, R0
	MOVD	$7, R1	// RLIMIT_NOFILE
	MOVD	ZR, R2
	MOVD	to+0(FP), R3
	MOVD	$261, R8	// prlimit64
	SVC
	MOVD	R0, ret+8(FP)
	RET
