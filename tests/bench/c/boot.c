/*
 * boot [SIGNAL]: the first worker of a virtual machine. Its first instruction's
 * time goes into the kernel's log, which has that of the first process too, so
 * both are of one clock. When all has settled it prints on the first serial line
 * those two lines and what memory there is, each after "bench: ", and asks process
 * 1 to power off: by SIGNAL, USR2 without one, and as runit wants to be asked. As
 * process 1 it powers off. It needs nothing but the kernel, and has no libc.
 */
#include <stdint.h>
#include <asm/unistd.h>
#include <linux/time_types.h>

static long sys(long nr, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	__asm__ volatile("syscall" : "+a"(nr) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	return nr;
}
__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");

static long now(void)
{
	long ts[2];
	sys(__NR_clock_gettime, 1, (long)ts, 0, 0, 0); /* CLOCK_MONOTONIC */
	return ts[0] * 1000000000 + ts[1];
}

static long len(const char *s)
{
	long n = 0;
	while (s[n])
		n++;
	return n;
}

/* node opens a new device file of its own: /dev is whoever's is process 1. */
static long node(const char *path, long major, long minor, long flags)
{
	sys(__NR_mknodat, -100, (long)path, 020600, major << 8 | minor, 0);
	return sys(__NR_openat, -100, (long)path, flags | 0400, 0, 0); /* O_NOCTTY */
}

static int has(const char *line, const char *end, const char *what)
{
	long n = len(what);
	for (; line + n <= end; line++) {
		long i = 0;
		while (i < n && line[i] == what[i])
			i++;
		if (i == n)
			return 1;
	}
	return 0;
}

/* show prints those lines that have one of two texts in them. */
static void show(long fd, const char *text, const char *end, const char *one, const char *other)
{
	for (const char *line = text; line < end;) {
		const char *stop = line;
		while (stop < end && *stop != '\n')
			stop++;
		if (has(line, stop, one) || has(line, stop, other)) {
			sys(__NR_write, fd, (long)"bench: ", 7, 0, 0);
			sys(__NR_write, fd, (long)line, stop - line, 0, 0);
			sys(__NR_write, fd, (long)"\n", 1, 0, 0);
		}
		line = stop + 1;
	}
}

static char text[1 << 18];

__attribute__((used)) _Noreturn void start(char **sp)
{
	long first = now();
	long kmsg = node("/.kmsg", 1, 11, 01);
	char line[] = "<6>bench: first 000000000 ns ago\n";
	long ago = now() - first;
	for (char *digit = line + 24; ago; ago /= 10)
		*digit-- = '0' + ago % 10;
	sys(__NR_write, kmsg, (long)line, sizeof line - 1, 0, 0);

	struct __kernel_timespec pause = {2, 0};
	sys(__NR_nanosleep, (long)&pause, 0, 0, 0, 0);
	sys(__NR_mkdirat, -100, (long)"/.proc", 0700, 0, 0);
	sys(__NR_mount, (long)"proc", (long)"/.proc", (long)"proc", 0, 0);
	long tty = node("/.ttyS0", 4, 64, 02);
	long n = sys(__NR_syslog, 3, (long)text, sizeof text, 0, 0); /* SYSLOG_ACTION_READ_ALL */
	show(tty, text, text + (n > 0 ? n : 0), "Run ", "bench: first");
	long mem = sys(__NR_openat, -100, (long)"/.proc/meminfo", 0, 0, 0);
	n = sys(__NR_read, mem, (long)text, sizeof text, 0, 0);
	show(tty, text, text + (n > 0 ? n : 0), "MemFree", "MemAvailable");
	sys(__NR_umount2, (long)"/.proc", 0, 0, 0, 0);

	sys(__NR_write, tty, (long)"bench: off\n", 11, 0, 0);
	if (sys(__NR_getpid, 0, 0, 0, 0, 0) == 1)
		sys(__NR_reboot, 0xfee1dead, 672274793, 0x4321fedc, 0, 0);
	long signal = 0;
	for (char *digit = *(long *)sp > 1 ? sp[2] : "12"; *digit; digit++)
		signal = signal * 10 + *digit - '0';
	sys(__NR_mkdirat, -100, (long)"/run", 0700, 0, 0);
	sys(__NR_mknodat, -100, (long)"/run/runit.stopit", 0100100, 0, 0);
	sys(__NR_fchmodat, -100, (long)"/run/runit.stopit", 0100, 0, 0);
	sys(__NR_kill, 1, signal, 0, 0, 0);
	sys(__NR_kill, 1, 18, 0, 0, 0); /* SIGCONT */
	for (;;)
		sys(__NR_ppoll, 0, 0, 0, 0, 0);
}
