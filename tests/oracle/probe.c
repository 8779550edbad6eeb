/*
 * probe: the command that the differential test gives to both programs, and the
 * ways in which it starts them. It tells what it was given and what it receives.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* say prints one line in one write. */
static void say(const char *format, ...)
{
	char line[4096];
	va_list args;
	va_start(args, format);
	int n = vsnprintf(line, sizeof line - 1, format, args);
	va_end(args);
	if (n >= (int)sizeof line - 1)
		n = sizeof line - 2;
	line[n++] = '\n';
	if (write(1, line, n) != n)
		exit(111);
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
	exit(111);
}

static const char *link_of(const char *path)
{
	static char to[4096];
	ssize_t n = readlink(path, to, sizeof to - 1);
	if (n < 0)
		return strerror(errno);
	to[n] = 0;
	return to;
}

/* report tells everything that was inherited. */
static void report(void)
{
	char path[64], line[4096];
	pid_t pid = getpid(), parent = getppid();

	say("session: %s", getsid(0) == pid ? "own" : getsid(0) == getsid(parent) ? "the parent's" : "other");
	say("group: %s", getpgrp() == pid ? "own" : getpgrp() == getpgid(parent) ? "the parent's" : "other");
	pid_t front = tcgetpgrp(0);
	say("foreground: %s", front < 0 ? strerror(errno) : front == getpgrp() ? "yes" : "no");
	int tty = open("/dev/tty", O_RDWR);
	say("terminal: %s", tty < 0 ? strerror(errno) : "yes");
	if (tty >= 0)
		close(tty);
	say("cwd: %s", link_of("/proc/self/cwd"));
	snprintf(path, sizeof path, "/proc/%d/stat", (int)parent);
	for (int i = 0; i < 1000; i++, usleep(1000)) { /* until it has set up and sleeps */
		FILE *f = fopen(path, "r");
		char state = 0;
		if (!f || fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			die(path);
		fclose(f);
		if (state == 'S')
			break;
	}
	snprintf(path, sizeof path, "/proc/%d/cwd", (int)parent);
	say("parent's cwd: %s", link_of(path));
	int death = 0, reaper = 0;
	prctl(PR_GET_PDEATHSIG, &death);
	prctl(PR_GET_CHILD_SUBREAPER, &reaper);
	say("death signal: %d, subreaper: %d, slack: %d", death, reaper, prctl(PR_GET_TIMERSLACK));
	mode_t mask = umask(0);
	say("umask: %03o, nice: %d", (int)mask, getpriority(PRIO_PROCESS, 0));
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit l;
		if (!getrlimit(i, &l))
			say("limit %d: %ld %ld", i, (long)l.rlim_cur, (long)l.rlim_max);
	}
	FILE *f = fopen("/proc/self/status", "r");
	static const char *keys[] = {"SigBlk", "SigIgn", "ShdPnd", "SigPnd", "Cap", "NoNewPrivs", "Seccomp:", "Uid", "Gid",
		"Groups", "THP_enabled", "Cpus_allowed:"};
	while (f && fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = 0;
		for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++)
			if (!strncmp(line, keys[i], strlen(keys[i])))
				say("%s", line);
	}
	if (f)
		fclose(f);
	DIR *d = opendir("/proc/self/fd");
	for (struct dirent *e; d && (e = readdir(d));) {
		int fd = atoi(e->d_name);
		if (e->d_name[0] != '.' && fd != dirfd(d))
			say("fd %d, flags %x", fd, fcntl(fd, F_GETFD));
	}
	for (char **e = environ; *e; e++)
		say("env %s", *e);
}

static _Noreturn void watch(const char *name)
{
	sigset_t all;
	sigfillset(&all);
	prctl(PR_SET_NAME, name);
	say("%s ready", name);
	for (;;) {
		siginfo_t info;
		int sig = sigwaitinfo(&all, &info);
		if (sig > 0)
			say("%s sig %d", name, sig);
	}
}

/* start OPTION... CMD ARGS: the options are those below, with = and a value */
static _Noreturn void start(char **argv)
{
	sigset_t set;
	sigemptyset(&set);
	for (; *argv; argv++) {
		char *value = strchr(*argv, '=');
		if (!value || **argv == '/')
			break;
		int n = atoi(++value);
		if (!strncmp(*argv, "ignore=", 7)) {
			if (signal(n, SIG_IGN) == SIG_ERR)
				die(*argv);
		} else if (!strncmp(*argv, "block=", 6)) {
			sigaddset(&set, n);
		} else if (!strncmp(*argv, "open=", 5)) {
			if (dup2(2, n) < 0)
				die(*argv);
		} else if (!strncmp(*argv, "close=", 6)) {
			close(n);
		} else if (!strncmp(*argv, "cwd=", 4)) {
			if (chdir(value))
				die(*argv);
		} else if (!strncmp(*argv, "nofile=", 7)) {
			struct rlimit l = {n, n * 2};
			if (setrlimit(RLIMIT_NOFILE, &l))
				die(*argv);
		} else if (!strncmp(*argv, "uid=", 4)) {
			if (setuid(n))
				die(*argv);
		} else if (!strncmp(*argv, "session=", 8)) { /* that the terminal on stdin is of */
			if (setsid() < 0 || ioctl(0, TIOCSCTTY, 0))
				die(*argv);
		} else if (!strncmp(*argv, "subreaper=", 10)) {
			prctl(PR_SET_CHILD_SUBREAPER, n);
		} else {
			errno = EINVAL;
			die(*argv);
		}
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	execvp(*argv, argv);
	die(*argv);
}

/*
 * jobs CMD ARGS: what an interactive shell does with a command, told on
 * stderr: it leads a session with a terminal, the command has the foreground until
 * it stops, and gets it back when a SIGUSR1 comes.
 */
static void jobs(char **argv)
{
	sigset_t usr1;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	signal(SIGTTOU, SIG_IGN);
	pid_t pid = fork();
	if (!pid) {
		setpgid(0, 0);
		tcsetpgrp(0, getpid());
		signal(SIGTTOU, SIG_DFL);
		sigprocmask(SIG_UNBLOCK, &usr1, NULL);
		execvp(*argv, argv);
		die(*argv);
	}
	for (;;) {
		int status;
		if (waitpid(pid, &status, WUNTRACED) != pid)
			die("wait");
		pid_t front = tcgetpgrp(0);
		dprintf(2, "foreground: %s\n", front == pid ? "the job" : front == getpgrp() ? "the shell" : "other");
		tcsetpgrp(0, getpgrp());
		if (WIFSTOPPED(status)) {
			dprintf(2, "stopped %d\n", WSTOPSIG(status));
			int sig;
			sigwait(&usr1, &sig);
			tcsetpgrp(0, pid);
			kill(-pid, SIGCONT);
			continue;
		}
		if (WIFSIGNALED(status)) {
			dprintf(2, "killed %d\n", WTERMSIG(status));
			exit(128 + WTERMSIG(status));
		}
		dprintf(2, "exit %d\n", WEXITSTATUS(status));
		exit(WEXITSTATUS(status));
	}
}

/* orphans N CODE: N grandchildren end as orphans, then it exits. */
static void orphans(int n, int code)
{
	for (int i = 0; i < n; i++) {
		int p[2];
		pid_t pid;
		if (pipe(p))
			die("pipe");
		if (!(pid = fork())) {
			pid_t parent = getpid(), grand = fork();
			if (!grand) {
				while (getppid() == parent)
					usleep(100);
				_exit(3);
			}
			if (write(p[1], &grand, sizeof grand) != sizeof grand)
				_exit(1);
			_exit(0);
		}
		pid_t grand = 0;
		if (read(p[0], &grand, sizeof grand) != sizeof grand)
			die("read");
		waitpid(pid, NULL, 0);
		while (!kill(grand, 0)) /* until it is reaped */
			usleep(1000);
		close(p[0]);
		close(p[1]);
	}
	exit(code);
}

int main(int argc, char **argv)
{
	char *act = argc > 1 ? argv[1] : "";
	if (!strcmp(act, "report")) {
		for (int i = 2; i < argc; i++)
			say("arg %s", argv[i]);
		report();
		return 0;
	}
	if (!strcmp(act, "start") && argc > 2)
		start(argv + 2);
	if (!strcmp(act, "jobs") && argc > 2)
		jobs(argv + 2);
	if (!strcmp(act, "exit") && argc == 3)
		return atoi(argv[2]);
	if (!strcmp(act, "kill") && argc == 3) {
		kill(getpid(), atoi(argv[2]));
		pause();
	}
	if (!strcmp(act, "orphans") && argc == 4)
		orphans(atoi(argv[2]), atoi(argv[3]));
	if (!strcmp(act, "default") && argc == 2) { /* all as it was started */
		say("A ready");
		for (;;)
			pause();
	}
	if (!strcmp(act, "watch")) { /* one process a word: its name, + in a group of its own, * in a session of its own */
		sigset_t all;
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		struct sigaction quiet = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP}; /* stops of the others are no news */
		sigaction(SIGCHLD, &quiet, NULL);
		for (int i = 2; i < argc; i++) {
			if (i + 1 < argc && fork())
				continue;
			if (strchr(argv[i], '+'))
				setpgid(0, 0);
			if (strchr(argv[i], '*'))
				setsid();
			watch(argv[i]);
		}
	}
	fprintf(stderr, "probe: what?\n");
	return 111;
}
