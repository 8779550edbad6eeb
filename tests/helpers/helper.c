/*
 * helper: what a worker can do to its supervisor, one act a name. It is C, not
 * Go: Go's runtime changes the very things that the tests look at (ignored
 * signals, the limit of descriptors) and a thousand of it would not be light.
 *
 * What waits prints a line when it is ready, and the pids that it made.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "helper: %s: %s\n", what, strerror(errno));
	exit(111);
}

/* say prints one line in one write. */
static void say(const char *format, ...)
{
	char line[512];
	va_list args;
	va_start(args, format);
	int n = vsnprintf(line, sizeof line - 1, format, args);
	va_end(args);
	if (n >= (int)sizeof line - 1)
		n = sizeof line - 2;
	line[n++] = '\n';
	if (write(1, line, n) != n)
		die("print");
}

static _Noreturn void hold(void)
{
	for (;;)
		pause();
}

static void sleep_ms(long ms)
{
	struct timespec left = {ms / 1000, ms % 1000 * 1000000};
	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

static long number(const char *s)
{
	char *end;
	errno = 0;
	long n = strtol(s, &end, 10);
	if (!*s || *end || errno) {
		fprintf(stderr, "helper: not a number: %s\n", s);
		exit(111);
	}
	return n;
}

/* a signal by number, or by name with or without SIG. */
static int signal_number(const char *s)
{
	if (*s >= '0' && *s <= '9')
		return number(s);
	if (!strncmp(s, "SIG", 3))
		s += 3;
	for (int sig = 1; sig < 32; sig++)
		if (sigabbrev_np(sig) && !strcmp(sigabbrev_np(sig), s))
			return sig;
	fprintf(stderr, "helper: no such signal: %s\n", s);
	exit(111);
}

static pid_t do_fork(void)
{
	pid_t pid = fork();
	if (pid < 0)
		die("fork");
	return pid;
}

static void no_core(void)
{
	struct rlimit none = {0, 0};
	setrlimit(RLIMIT_CORE, &none);
}

/* ---- JSON ---- */

/* Bytes that are not ASCII are written as \u00XX each, so that none is lost. */
static void json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		unsigned char c = *s;
		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void json_array(char **list)
{
	putchar('[');
	for (char **s = list; *s; s++) {
		if (s != list)
			putchar(',');
		json_string(*s);
	}
	puts("]");
}

/* ---- acts ---- */

/* makes the parent the tracer, and stops as if for it */
static int trace_me(char **arg)
{
	(void)arg;
	say("ready");
	ptrace(PTRACE_TRACEME, 0, 0, 0);
	raise(SIGSTOP);
	hold();
}

static int ignore_term(char **arg)
{
	(void)arg;
	signal(SIGTERM, SIG_IGN);
	say("ready");
	hold();
}

static int do_sleep(char **arg)
{
	if (arg[0])
		sleep_ms(number(arg[0]));
	else
		hold();
	return 0;
}

/* a child in a session of its own that no hang-up reaches */
static int do_setsid(char **arg)
{
	(void)arg;
	if (do_fork() == 0) {
		if (setsid() < 0)
			die("setsid");
		signal(SIGHUP, SIG_IGN);
		say("child %d", getpid());
		hold();
	}
	hold();
	return 0;
}

/* A grandchild in a session of its own whose parent has ended. With "exit" the
 * first process ends too. */
static int double_fork(char **arg)
{
	pid_t middle = do_fork();
	if (middle == 0) {
		if (setsid() < 0)
			die("setsid");
		int parent[2]; /* ends with the middle process */
		char c;
		if (pipe(parent))
			die("pipe");
		if (do_fork() > 0)
			_exit(0);
		signal(SIGHUP, SIG_IGN);
		close(parent[1]);
		if (read(parent[0], &c, 1) < 0)
			die("read");
		close(parent[0]);
		say("grandchild %d", getpid());
		hold();
	}
	if (waitpid(middle, NULL, 0) < 0)
		die("wait");
	if (!arg[0])
		hold();
	return 0;
}

/* as a classic daemon: daemonize PIDFILE */
static int daemonize(char **arg)
{
	pid_t middle = do_fork();
	if (middle > 0) {
		int status;
		if (waitpid(middle, &status, 0) < 0)
			die("wait");
		return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	}
	if (setsid() < 0)
		die("setsid");
	pid_t pid = do_fork();
	if (pid == 0)
		hold();
	FILE *f = fopen(arg[0], "w");
	if (!f || fprintf(f, "%d\n", pid) < 0 || fclose(f))
		die(arg[0]);
	_exit(0);
}

/* flood BYTES LINE: numbered lines of LINE bytes each, newline included */
static int flood(char **arg)
{
	long left = number(arg[0]), width = number(arg[1]), n = 0;
	static char buf[1 << 16];
	if (width < 2 || width > (long)sizeof buf)
		return 2;
	long fit = sizeof buf / width;
	while (left > 0) {
		long used = 0;
		for (long i = 0; i < fit && left > 0; i++, n++) {
			char head[24];
			long size = left < width ? left : width;
			char *line = buf + used;
			memset(line, 'x', size);
			long digits = snprintf(head, sizeof head, "%ld ", n);
			memcpy(line, head, digits < size - 1 ? digits : size - 1);
			line[size - 1] = '\n';
			used += size;
			left -= size;
		}
		for (long done = 0; done < used;) {
			ssize_t w = write(1, buf + done, used - done);
			if (w < 0)
				die("write");
			done += w;
		}
	}
	return 0;
}

static int do_exit(char **arg)
{
	return number(arg[0]);
}

static int kill_self(char **arg)
{
	int sig = signal_number(arg[0]);
	sigset_t set;
	no_core();
	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	kill(getpid(), sig);
	return 0; /* a signal that does not kill */
}

static int crash_after(char **arg)
{
	say("ready");
	sleep_ms(number(arg[0]));
	return 1;
}

static void block(sigset_t *set, const char *names[])
{
	sigemptyset(set);
	for (; *names; names++)
		sigaddset(set, signal_number(*names));
	sigprocmask(SIG_BLOCK, set, NULL);
}

/* on-signal SIG CODE MS: ends with CODE, MS after SIG came */
static int on_signal(char **arg)
{
	sigset_t set;
	block(&set, (const char *[]){arg[0], NULL});
	say("ready");
	sigwaitinfo(&set, NULL);
	sleep_ms(number(arg[2]));
	return number(arg[1]);
}

/* count-signal SIG FILE: a line into FILE for each SIG */
static int count_signal(char **arg)
{
	sigset_t set;
	block(&set, (const char *[]){arg[0], NULL});
	int fd = open(arg[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd < 0)
		die(arg[1]);
	say("ready");
	for (;;) {
		siginfo_t info;
		if (sigwaitinfo(&set, &info) < 0)
			continue;
		if (dprintf(fd, "%s from %d\n", arg[0], info.si_pid) < 0)
			die(arg[1]);
		say("got %s", arg[0]);
	}
	return 0;
}

/* count_into waits for all signals and counts them, as 64-bit numbers in a file. */
static _Noreturn void count_into(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || ftruncate(fd, 65 * sizeof(long)))
		die(path);
	volatile long *count = mmap(NULL, 65 * sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (count == MAP_FAILED)
		die("mmap");
	count[0] = getpid(); /* there is no signal 0 */
	sigset_t set;
	sigfillset(&set);
	for (;;) {
		int sig = sigwaitinfo(&set, NULL);
		if (sig > 0)
			count[sig]++;
	}
}

/* count-all FILE [FILE]: counts each signal, and so does a child of the group in
 * the second file. */
static int count_all(char **arg)
{
	sigset_t set;
	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	if (arg[1] && do_fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		say("child ready");
		count_into(arg[1]);
	}
	say("ready");
	count_into(arg[0]);
}

/* exec-with BLOCKED IGNORED CMD [ARG...]: masks in hex, bit n-1 for signal n */
static int exec_with(char **arg)
{
	unsigned long blocked = strtoul(arg[0], NULL, 16), ignored = strtoul(arg[1], NULL, 16);
	sigset_t set;
	/* what the one who started us ignores is not to be seen */
	for (int sig = 1; sig <= 64; sig++)
		signal(sig, ignored >> (sig - 1) & 1 ? SIG_IGN : SIG_DFL);
	sigemptyset(&set);
	for (int sig = 1; sig <= 64; sig++)
		if (blocked >> (sig - 1) & 1)
			sigaddset(&set, sig);
	sigprocmask(SIG_SETMASK, &set, NULL);
	execvp(arg[2], arg + 2);
	die(arg[2]);
}

/* exec-empty HOW CMD: executes CMD without arguments ("none") or with an empty
 * one ("empty") */
static int exec_empty(char **arg)
{
	char *none[] = {NULL}, *empty[] = {"", NULL};
	execve(arg[1], strcmp(arg[0], "none") ? empty : none, environ);
	die(arg[1]);
}

/* stop-on SIG CODE: stops itself when SIG comes, and ends with CODE when it is
 * continued */
static int stop_on(char **arg)
{
	sigset_t set;
	block(&set, (const char *[]){arg[0], NULL});
	say("ready");
	sigwaitinfo(&set, NULL);
	say("stopping");
	raise(SIGSTOP);
	return number(arg[1]);
}

/* remain MS FILE CODE: leaves a process behind, in a session of its own, that
 * takes MS to end after TERM and then writes FILE. KILL is told by no file. */
static int remain(char **arg)
{
	sigset_t set;
	block(&set, (const char *[]){"TERM", NULL});
	pid_t middle = do_fork();
	if (middle == 0) {
		if (setsid() < 0)
			die("setsid");
		pid_t pid = do_fork();
		if (pid > 0) {
			say("remains %d", pid);
			_exit(0);
		}
		sigwaitinfo(&set, NULL);
		sleep_ms(number(arg[0]));
		int fd = open(arg[1], O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		_exit(fd < 0);
	}
	if (waitpid(middle, NULL, 0) < 0)
		die("wait");
	return number(arg[2]);
}

/* churn FILE: processes that come and go, each of which writes FILE if somebody
 * has signalled it */
static int churn(char **arg)
{
	sigset_t set, got;
	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	say("ready");
	for (;;) {
		pid_t pid = fork();
		if (pid < 0) {
			sleep_ms(1);
			continue;
		}
		if (pid == 0) {
			sched_yield();
			sigpending(&got);
			for (int sig = 1; sig <= 64; sig++)
				if (sigismember(&got, sig)) {
					int fd = open(arg[0], O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND, 0666);
					dprintf(fd, "%d\n", sig);
				}
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
}

/*
 * resque MS: a master that forks a child per job of MS milliseconds. QUIT lets
 * the job in hand finish, TERM kills it, and the children take signals as they
 * are by default: a QUIT to the whole group breaks the job.
 */
static int resque(char **arg)
{
	sigset_t set, old;
	sigprocmask(SIG_BLOCK, NULL, &old);
	no_core();
	block(&set, (const char *[]){"QUIT", "TERM", "CHLD", NULL});
	for (int quit = 0; !quit;) {
		pid_t job = do_fork();
		if (job == 0) {
			sigprocmask(SIG_SETMASK, &old, NULL);
			sleep_ms(number(arg[0]));
			_exit(0);
		}
		say("job %d started", job);
		for (;;) {
			int status, sig = sigwaitinfo(&set, NULL);
			if (sig == SIGQUIT)
				quit = 1;
			if (sig == SIGTERM) {
				kill(job, SIGKILL);
				quit = 1;
			}
			if (waitpid(job, &status, WNOHANG) == job) {
				say("job %d %s", job, WIFEXITED(status) ? "finished" : "broken");
				break;
			}
		}
	}
	return 0;
}

/* orphans N: N processes whose parent ends, and which end at once */
static int orphans(char **arg)
{
	long n = number(arg[0]);
	pid_t parent = do_fork();
	if (parent == 0) {
		for (long i = 0; i < n; i++) {
			pid_t pid = fork();
			if (pid == 0)
				_exit(i % 7);
			if (pid < 0) {
				if (errno != EAGAIN)
					die("fork");
				sleep_ms(1); /* too many wait to be collected */
				i--;
			}
		}
		_exit(0);
	}
	int status;
	if (waitpid(parent, &status, 0) < 0 || status)
		die("make orphans");
	say("made %ld", n);
	return 0;
}

/* ---- what a worker got ---- */

static int print_env(char **arg)
{
	(void)arg;
	json_array(environ);
	return 0;
}

/* says TEXT to syslog N times, numbered and a level lower each time, and perhaps waits */
static int do_syslog(char **arg)
{
	long n = number(arg[1]);
	openlog(arg[0], LOG_PID, LOG_DAEMON);
	for (long i = 0; i < n; i++)
		syslog(i % 8, "%s %ld", arg[2], i);
	if (arg[3]) {
		say("said");
		hold();
	}
	return 0;
}

static int print_args(char **arg)
{
	json_array(arg);
	return 0;
}

static int print_fds(char **arg)
{
	(void)arg;
	DIR *dir = opendir("/proc/self/fd");
	if (!dir)
		die("/proc/self/fd");
	struct dirent *entry;
	const char *comma = "";
	putchar('[');
	while ((entry = readdir(dir))) {
		char target[PATH_MAX];
		if (*entry->d_name == '.' || atoi(entry->d_name) == dirfd(dir))
			continue;
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
		if (n < 0)
			continue;
		target[n] = 0;
		printf("%s{\"fd\":%s,\"target\":", comma, entry->d_name);
		json_string(target);
		putchar('}');
		comma = ",";
	}
	closedir(dir);
	puts("]");
	return 0;
}

/* the text after "KEY" in a file, up to the end of line; "" if there is none */
static const char *field(const char *file, const char *key)
{
	static char line[4096];
	FILE *f = fopen(file, "re");
	const char *found = "";
	while (f && fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, key, strlen(key))) {
			found = line + strlen(key);
			found += strspn(found, ": \t");
			break;
		}
	}
	if (f)
		fclose(f);
	return found;
}

static void text(const char *name, const char *value)
{
	printf(",\"%s\":", name);
	json_string(value);
}

static void limits(void)
{
	static const struct {
		const char *name;
		int which;
	} all[] = {
		{"as", RLIMIT_AS}, {"core", RLIMIT_CORE}, {"cpu", RLIMIT_CPU}, {"data", RLIMIT_DATA},
		{"fsize", RLIMIT_FSIZE}, {"locks", RLIMIT_LOCKS}, {"memlock", RLIMIT_MEMLOCK},
		{"msgqueue", RLIMIT_MSGQUEUE}, {"nice", RLIMIT_NICE}, {"nofile", RLIMIT_NOFILE},
		{"nproc", RLIMIT_NPROC}, {"rss", RLIMIT_RSS}, {"rtprio", RLIMIT_RTPRIO},
		{"rttime", RLIMIT_RTTIME}, {"sigpending", RLIMIT_SIGPENDING}, {"stack", RLIMIT_STACK},
	};
	printf(",\"limits\":{");
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		struct rlimit r;
		if (getrlimit(all[i].which, &r))
			die("getrlimit");
		printf("%s\"%s\":[%lld,%lld]", i ? "," : "", all[i].name, /* unlimited is -1 */
		       (long long)r.rlim_cur, (long long)r.rlim_max);
	}
	putchar('}');
}

static void signals(const char *name, int (*in)(int))
{
	const char *comma = "";
	printf(",\"%s\":[", name);
	for (int sig = 1; sig <= 64; sig++)
		if (in(sig)) {
			printf("%s%d", comma, sig);
			comma = ",";
		}
	putchar(']');
}

static int blocked(int sig)
{
	sigset_t set;
	sigprocmask(SIG_BLOCK, NULL, &set);
	return sigismember(&set, sig) == 1;
}

static int ignored(int sig)
{
	struct sigaction action;
	return sigaction(sig, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

static int print_status(char **arg)
{
	(void)arg;
	char cwd[PATH_MAX];
	uid_t uid[3];
	gid_t gid[3], groups[1024];
	getresuid(&uid[0], &uid[1], &uid[2]);
	getresgid(&gid[0], &gid[1], &gid[2]);
	mode_t mask = umask(0);
	umask(mask);

	printf("{\"pid\":%d,\"ppid\":%d,\"pgid\":%d,\"sid\":%d", getpid(), getppid(), getpgrp(), getsid(0));
	int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	printf(",\"tty\":%s,\"foreground\":%s", tty >= 0 ? "true" : "false",
	       tty >= 0 && tcgetpgrp(tty) == getpgrp() ? "true" : "false");
	if (tty >= 0)
		close(tty);
	printf(",\"stdin_tty\":%s", isatty(0) ? "true" : "false");
	printf(",\"uid\":[%u,%u,%u],\"gid\":[%u,%u,%u]", uid[0], uid[1], uid[2], gid[0], gid[1], gid[2]);
	int n = getgroups(1024, groups);
	printf(",\"groups\":[");
	for (int i = 0; i < n; i++)
		printf("%s%u", i ? "," : "", groups[i]);
	printf("],\"umask\":%u", mask);
	text("cwd", getcwd(cwd, sizeof cwd) ? cwd : strerror(errno));
	errno = 0;
	printf(",\"nice\":%d,\"sched\":%d", getpriority(PRIO_PROCESS, 0), sched_getscheduler(0));
	text("oom_score_adj", field("/proc/self/oom_score_adj", ""));
	text("thp_enabled", field("/proc/self/status", "THP_enabled"));
	text("no_new_privs", field("/proc/self/status", "NoNewPrivs"));
	text("cap_eff", field("/proc/self/status", "CapEff"));
	text("cap_bnd", field("/proc/self/status", "CapBnd"));
	text("comm", field("/proc/self/comm", ""));
	text("cgroup2", field("/proc/self/cgroup", "0::"));
	int reaper = 0, deathsig = 0;
	prctl(PR_GET_CHILD_SUBREAPER, &reaper);
	prctl(PR_GET_PDEATHSIG, &deathsig);
	printf(",\"subreaper\":%s,\"pdeathsig\":%d", reaper ? "true" : "false", deathsig);
	printf(",\"timerslack\":%d", prctl(PR_GET_TIMERSLACK));
	signals("blocked", blocked);
	signals("ignored", ignored);
	limits();
	puts("}");
	return 0;
}

static const struct {
	const char *name, *args;
	int need; /* arguments at least */
	int (*act)(char **);
	int holds; /* takes a last argument "hold": prints, then waits */
} acts[] = {
	{"count-signal", "SIG FILE", 2, count_signal, 0},
	{"count-all", "FILE [FILE]", 1, count_all, 0},
	{"churn", "FILE", 1, churn, 0},
	{"crash-after", "MS", 1, crash_after, 0},
	{"daemonize", "PIDFILE", 1, daemonize, 0},
	{"double-fork", "[exit]", 0, double_fork, 0},
	{"exec-empty", "none|empty CMD", 2, exec_empty, 0},
	{"exec-with", "BLOCKED IGNORED CMD [ARG...]", 3, exec_with, 0},
	{"exit", "CODE", 1, do_exit, 0},
	{"flood", "BYTES LINE", 2, flood, 0},
	{"ignore-term", "", 0, ignore_term, 0},
	{"kill-self", "SIG", 1, kill_self, 0},
	{"on-signal", "SIG CODE MS", 3, on_signal, 0},
	{"orphans", "N", 1, orphans, 0},
	{"print-args", "[ARG...]", 0, print_args, 0},
	{"print-env", "[hold]", 0, print_env, 1},
	{"print-fds", "[hold]", 0, print_fds, 1},
	{"print-status", "[hold]", 0, print_status, 1},
	{"remain", "MS FILE CODE", 3, remain, 0},
	{"resque", "MS", 1, resque, 0},
	{"setsid", "", 0, do_setsid, 0},
	{"sleep", "[MS]", 0, do_sleep, 0},
	{"stop-on", "SIG CODE", 2, stop_on, 0},
	{"syslog", "TAG N TEXT [hold]", 3, do_syslog, 0},
	{"trace-me", "", 0, trace_me, 0},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof acts / sizeof *acts; i++) {
		if (strcmp(argv[1], acts[i].name) || argc - 2 < acts[i].need)
			continue;
		int code = acts[i].act(argv + 2);
		if (fflush(stdout))
			die("print");
		if (acts[i].holds && argc > 2 && !strcmp(argv[2], "hold"))
			hold();
		return code;
	}
	fprintf(stderr, "usage: helper ACT\n");
	for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
		fprintf(stderr, "  %s %s\n", acts[i].name, acts[i].args);
	return 111;
}
