/*
 * ref: the reference loops, which do the least that does the job, and the
 * workers that the measurements need. What a worker has to tell goes into a FIFO
 * as struct record.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static _Noreturn void die(const char *what)
{
	perror(what);
	exit(111);
}

static uint64_t now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static int fifo = -1;

static void open_fifo(const char *path)
{
	if ((fifo = open(path, O_WRONLY | O_CLOEXEC)) < 0)
		die(path);
}

static void record(uint32_t kind)
{
	struct { uint64_t ns; uint32_t pid, kind; } r = {now(), getpid(), kind};
	if (write(fifo, &r, sizeof r) != sizeof r)
		_exit(111);
}

static _Noreturn void hold(void)
{
	for (;;)
		pause();
}

/* ---- supervisors ---- */

static pid_t *pids;
static int count;
static volatile sig_atomic_t stopping;

static void on_term(int sig)
{
	(void)sig;
	stopping = 1;
	for (int i = 0; i < count; i++)
		if (pids[i] > 0)
			kill(pids[i], SIGTERM);
}

static pid_t spawn(char **argv)
{
	pid_t pid = vfork();
	if (pid == 0) {
		execve(argv[0], argv, environ);
		_exit(127);
	}
	return pid;
}

/* loop N CMD…: keeps N of CMD running until TERM. */
static int loop(char **arg)
{
	count = atoi(arg[0]);
	pids = calloc(count, sizeof *pids);
	struct sigaction sa = {.sa_handler = on_term};
	sigaction(SIGTERM, &sa, 0);
	for (int i = 0; i < count; i++)
		pids[i] = spawn(arg + 1);
	for (int left = count; left > 0;) {
		siginfo_t si;
		if (waitid(P_ALL, 0, &si, WEXITED) < 0)
			continue;
		for (int i = 0; i < count; i++) {
			if (pids[i] != si.si_pid)
				continue;
			if (stopping) {
				pids[i] = 0;
				left--;
			} else {
				pids[i] = spawn(arg + 1);
			}
			break;
		}
	}
	return 0;
}

/* exec CMD…: runs CMD, hands signals on, ends as it does. */
static int exec_mode(char **arg)
{
	sigset_t all, old;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid_t pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		sigprocmask(SIG_SETMASK, &old, 0);
		execve(arg[0], arg, environ);
		_exit(127);
	}
	for (;;) {
		int sig = sigwaitinfo(&all, 0), status;
		if (sig != SIGCHLD) {
			kill(pid, sig);
			continue;
		}
		for (pid_t p; (p = waitpid(-1, &status, WNOHANG)) > 0;)
			if (p == pid)
				return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
}

/* copy FILE ROTATE KEEP CMD…: CMD's output into FILE, each ROTATE bytes a new one. */
static int copy(char **arg)
{
	static char buf[64 << 10];
	long limit = atol(arg[1]), size = 0;
	int keep = atoi(arg[2]), p[2];
	int out = open(arg[0], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (out < 0 || pipe2(p, O_CLOEXEC))
		die("open");
	pid_t pid = fork();
	if (pid == 0) {
		dup2(p[1], 1);
		execve(arg[3], arg + 3, environ);
		_exit(127);
	}
	close(p[1]);
	for (ssize_t n; (n = read(p[0], buf, sizeof buf)) > 0;) {
		if (write(out, buf, n) != n)
			die("write");
		if ((size += n) < limit)
			continue;
		char from[4096], to[4096];
		for (int i = keep - 1; i > 0; i--) {
			snprintf(from, sizeof from, "%s.%d", arg[0], i);
			snprintf(to, sizeof to, "%s.%d", arg[0], i + 1);
			rename(from, to);
		}
		snprintf(to, sizeof to, "%s.1", arg[0]);
		rename(arg[0], to);
		close(out);
		if ((out = open(arg[0], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) < 0)
			die(arg[0]);
		size = 0;
	}
	return 0;
}

/* ---- workers ---- */

/* write FIFO SIZE TOTAL [FILE]: TOTAL bytes, SIZE at a time, in lines of 100. */
static int do_write(char **arg)
{
	long size = atol(arg[1]), total = atol(arg[2]);
	int out = 1;
	if (arg[3] && (out = open(arg[3], O_WRONLY | O_CREAT | O_TRUNC, 0644)) < 0)
		die(arg[3]);
	char *p = malloc(size);
	for (long i = 0; i < size; i++)
		p[i] = i % 100 == 99 || i == size - 1 ? '\n' : 'x';
	open_fifo(arg[0]);
	record(1);
	for (long done = 0; done < total;) {
		ssize_t n = write(out, p, size);
		if (n <= 0)
			die("write");
		done += n;
	}
	record(2);
	hold();
}

/* lines FIFO COUNT RATE: numbered lines, a write each, RATE in a second. */
static int lines(char **arg)
{
	long total = atol(arg[1]), rate = atol(arg[2]);
	struct timespec next;
	open_fifo(arg[0]);
	record(1);
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (long i = 0; i < total; i++) {
		char line[64];
		int n = snprintf(line, sizeof line, "%08d %08ld 0123456789abcdefghijk\n", getpid(), i);
		if (write(1, line, n) != n)
			die("write");
		if ((i + 1) % (rate / 100))
			continue;
		next.tv_nsec += 10000000;
		if (next.tv_nsec >= 1000000000)
			next.tv_nsec -= 1000000000, next.tv_sec++;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, 0);
	}
	record(2);
	hold();
}

/* orphans FIFO N: N processes that lose their parent, one after the other. */
static int orphans(char **arg)
{
	open_fifo(arg[0]);
	record(1);
	for (int n = atoi(arg[1]); n > 0; n--) {
		pid_t middle = vfork();
		if (middle == 0) {
			if (vfork() == 0)
				_exit(0); /* a zombie that goes to PID 1 with its parent's end */
			_exit(0);
		}
		if (middle < 0 || waitpid(middle, 0, 0) < 0)
			die("fork");
	}
	record(2);
	hold();
}

static void on_signal(int sig)
{
	record(sig == SIGTERM ? 2 : 3);
	if (sig == SIGTERM)
		_exit(0);
}

/* handler FIFO: tells when its handler of TERM, its end, or of USR1 runs. */
static int handler(char **arg)
{
	struct sigaction sa = {.sa_handler = on_signal};
	open_fifo(arg[0]);
	sigaction(SIGTERM, &sa, 0);
	sigaction(SIGUSR1, &sa, 0);
	record(1);
	hold();
}

/* busy: a load of ordinary priority. */
static int busy(char **arg)
{
	(void)arg;
	setpriority(PRIO_PROCESS, 0, 0);
	for (volatile int on = 1; on;)
		;
	return 0;
}

int main(int argc, char **argv)
{
	static const struct { const char *name; int args, (*act)(char **); } acts[] = {
		{"loop", 2, loop}, {"exec", 1, exec_mode}, {"copy", 4, copy},
		{"write", 3, do_write}, {"lines", 3, lines}, {"orphans", 2, orphans},
		{"handler", 1, handler}, {"busy", 0, busy},
	};
	for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
		if (argc > 1 && !strcmp(argv[1], acts[i].name) && argc >= 2 + acts[i].args)
			return acts[i].act(argv + 2);
	fprintf(stderr, "ref: no such act\n");
	return 2;
}
