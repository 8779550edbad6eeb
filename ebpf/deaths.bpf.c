//go:build ignore

/* What the kernel tells of the processes below pazinit, from Linux 5.10 on.
 *
 * A table holds the processes that descend from pazinit; forks carry it on, so
 * that what happens to any other process costs one look into it. What was seen
 * of a process waits there until its end is told, in one record.
 *
 * The programs are attached to raw tracepoints; their arguments are those of
 * TP_PROTO in include/trace/events/{sched,signal,oom,coredump}.h.
 */
#include "kernel.h"

char _license[] SEC("license") = "Dual MIT/GPL";

/* pazinit's pid, in its own PID namespace. Set by the loader. */
volatile const u32 own_pid = 1;

/* That namespace. Set by the first look at all tasks. */
u32 own_level = 0;
u32 own_namespace = 0;

enum { COMM = 16 };

/* How a signal came to be. */
enum {
	BY_NOBODY = 1,  /* the kernel itself */
	BY_PARENT = 2,  /* the parent's end, by PR_SET_PDEATHSIG */
	BY_GROUP = 4,   /* no siginfo of the sender: cgroup.kill */
	OUTSIDE = 8,    /* the sender has no pid in our namespace */
	BY_THREAD = 16, /* the kernel, working for no process */
};

struct cause {
	u64 at;      /* CLOCK_MONOTONIC, ns */
	u64 address; /* of a fault */
	u32 sender;  /* pid, in our namespace */
	u32 uid;
	s32 code;    /* si_code */
	u8 signal;   /* 0: none */
	u8 how;
	u8 pad[2];
	char comm[COMM]; /* of the sending thread */
};

enum {
	FATAL_FIRST = 1,  /* the first cause ends it */
	FATAL_SECOND = 2, /* the second one does */
	ROOT = 4,         /* pazinit */
	VICTIM = 8,       /* of the kernel, out of memory */
	CORE = 16,        /* its core is being written */
	EXECUTED = 32,
	SEEDED = 64,      /* it is older than this table */
};

struct process {
	u64 run;   /* when its run's first process began: with leader it names the run */
	u64 began; /* CLOCK_MONOTONIC, ns; 0 if it is older than this table */
	u64 dying; /* when its end began; 0 if that was not seen */
	u32 pid;   /* in our namespace */
	u32 leader;
	u32 flags;
	u32 pad;
	struct cause cause[2]; /* the last signal that dumps core, the last other one */
};

enum { BEGAN = 1, DYING, ENDED };

struct record {
	u64 at;
	u32 kind;
	u32 parent; /* pid, in our namespace, 0 if it has none there */
	u32 status; /* as wait(2) has it; ENDED */
	u32 uid;
	u64 peak;   /* bytes resident at most; ENDED */
	char comm[COMM];
	struct process process;
};

struct {
	UINT(type, BPF_MAP_TYPE_HASH);
	UINT(max_entries, 4096);
	TYPE(key, u32); /* tgid, of the initial namespace */
	TYPE(value, struct process);
} processes SEC(".maps");

struct {
	UINT(type, BPF_MAP_TYPE_RINGBUF);
	UINT(max_entries, 128 * 1024);
} records SEC(".maps");

enum {
	LOST,      /* records that the ring had no room for */
	UNTRACKED, /* processes that the table had no room for */
	FOUND,     /* processes that are older than the table */
	COUNTERS,
};

struct {
	UINT(type, BPF_MAP_TYPE_ARRAY);
	UINT(max_entries, COUNTERS);
	TYPE(key, u32);
	TYPE(value, u64);
} counters SEC(".maps");

static noinline void count(u32 which)
{
	u64 *n = bpf_map_lookup_elem(&counters, &which);

	if (n)
		__sync_fetch_and_add(n, 1);
}

static inline u32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

/* The pid of a process in our namespace, 0 if it has none there. */
static noinline u32 pid_of(struct task_struct *task)
{
	struct task_struct *leader = READ(task, group_leader);
	struct pid *pid = READ(leader, thread_pid);
	struct upid at = {};

	if (!pid || READ(pid, level) < own_level)
		return 0;
	bpf_probe_read_kernel(&at, sizeof(at), &pid->numbers[own_level]);
	if (READ(at.ns, ns.inum) != own_namespace)
		return 0;
	return at.nr;
}

static inline u32 uid_of(struct task_struct *task)
{
	return READ(READ(task, real_cred), uid.val);
}

static noinline void tell(u32 kind, struct task_struct *task, const struct process *p, u64 now, u32 status)
{
	struct record *r = bpf_ringbuf_reserve(&records, sizeof(*r), 0);

	if (!r) {
		count(LOST);
		return;
	}
	r->at = now;
	r->kind = kind;
	r->parent = pid_of(READ(task, real_parent));
	r->status = status;
	r->uid = uid_of(task);
	r->peak = kind == ENDED ? (u64)READ(READ(task, signal), maxrss) : 0;
	bpf_probe_read_kernel(r->comm, COMM, READ(task, group_leader)->comm);
	r->process = *p;
	bpf_ringbuf_submit(r, 0);
}

/* Its end has begun, by the cause of that place, or by none. */
static inline void die(struct task_struct *task, struct process *p, u64 now, u32 fatal)
{
	if (p->dying)
		return;
	p->flags |= fatal;
	p->dying = now;
	tell(DYING, task, p, now, 0);
}

/* sched_process_fork(struct task_struct *parent, struct task_struct *child) */
SEC("raw_tp/sched_process_fork")
int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u32 parent = current_tgid();
	struct process *above = bpf_map_lookup_elem(&processes, &parent);
	struct process p = {};
	struct task_struct *child;
	u32 tgid;

	if (!above)
		return 0;
	child = (void *)ctx->args[1];
	tgid = READ(child, tgid);
	if (tgid != READ(child, pid))
		return 0; /* a thread */
	p.pid = pid_of(child);
	p.began = bpf_ktime_get_ns();
	p.run = above->run;
	p.leader = above->leader;
	if (above->flags & ROOT) {
		p.run = p.began;
		p.leader = p.pid;
	}
	if (bpf_map_update_elem(&processes, &tgid, &p, BPF_ANY))
		count(UNTRACKED);
	else if (above->flags & ROOT)
		tell(BEGAN, child, &p, p.began, 0);
	return 0;
}

/* sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm) */
SEC("raw_tp/sched_process_exec")
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = current_tgid();
	struct process *p = bpf_map_lookup_elem(&processes, &tgid);

	if (p)
		p->flags |= EXECUTED;
	return 0;
}

/* sched_process_exit(struct task_struct *p, …): of each thread */
SEC("raw_tp/sched_process_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = current_tgid();
	struct process *found = bpf_map_lookup_elem(&processes, &tgid), p;
	struct signal_struct *signal;
	struct task_struct *task;
	u32 status;

	if (!found)
		return 0;
	task = bpf_get_current_task();
	signal = READ(task, signal);
	if (READ(signal, live.counter) > 0)
		return 0; /* other threads live on */
	p = *found;
	/* Two last threads may come here: one of them takes it out. */
	if (bpf_map_delete_elem(&processes, &tgid))
		return 0;
	status = READ(signal, flags) & SIGNAL_GROUP_EXIT ? READ(signal, group_exit_code) : READ(READ(task, group_leader), exit_code);
	if (READ(signal, oom_mm))
		p.flags |= VICTIM;
	tell(ENDED, task, &p, bpf_ktime_get_ns(), status);
	return 0;
}

/* Bit n-1 is signal n. */
#define BIT(n) (1ULL << ((n) - 1))
enum { SIGKILL = 9, SIGPIPE = 13 };
/* signal(7): ignored unless handled, or stopping */
static const u64 harmless = BIT(17) | BIT(18) | BIT(19) | BIT(20) | BIT(21) | BIT(22) | BIT(23) | BIT(28);
/* QUIT ILL TRAP ABRT BUS FPE SEGV XCPU XFSZ SYS */
static const u64 dumping = BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(11) | BIT(24) | BIT(25) | BIT(31);

/* How the kernel calls those that have no siginfo, include/linux/signal.h. */
enum { SEND_SIG_NOINFO = 0, SEND_SIG_PRIV = 1 };

static noinline void note(struct cause *c, struct task_struct *victim, u32 signal, struct kernel_siginfo *info, u64 now)
{
	struct task_struct *self = bpf_get_current_task();
	u32 flags = READ(self, flags);

	c->at = now;
	c->signal = signal;
	c->how = 0;
	c->code = 0;
	c->address = 0;
	c->uid = uid_of(self);
	c->sender = pid_of(self);
	bpf_get_current_comm(c->comm, COMM);
	if (!c->sender)
		c->how |= OUTSIDE;
	if (flags & PF_KTHREAD)
		c->how |= BY_THREAD;
	if ((u64)info == SEND_SIG_PRIV) {
		c->code = 0x80; /* SI_KERNEL */
		c->how |= BY_NOBODY;
	} else if ((u64)info == SEND_SIG_NOINFO) {
		c->how |= BY_GROUP;
		if (flags & PF_EXITING && READ(victim, pdeath_signal) == signal)
			c->how |= BY_PARENT;
	} else {
		c->code = READ(info, si_code);
		if (c->code > 0) {
			c->how |= BY_NOBODY;
			c->address = (u64)READ(info, _sifields._sigfault._addr);
		}
	}
}

/* signal_generate(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result) */
SEC("raw_tp/signal_generate")
int on_generate(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[2];
	u32 signal = ctx->args[0], place;
	u32 tgid = READ(task, tgid);
	struct process *p = bpf_map_lookup_elem(&processes, &tgid);
	struct signal_struct *s;
	u64 now;

	if (!p || signal < 1 || signal > 64 || BIT(signal) & harmless)
		return 0;
	/* TRACE_SIGNAL_DELIVERED, or that without its siginfo; else it was pending or ignored */
	if (ctx->args[4] != 0 && ctx->args[4] != 4)
		return 0;
	if (p->flags & (FATAL_FIRST | FATAL_SECOND))
		return 0;
	now = bpf_ktime_get_ns();
	place = !(BIT(signal) & dumping);
	note(place ? &p->cause[1] : &p->cause[0], task, signal, (void *)ctx->args[1], now);
	/* complete_signal() in kernel/signal.c has decided by now, unless a core is to be written */
	s = READ(task, signal);
	if (READ(s, flags) & SIGNAL_GROUP_EXIT && READ(s, group_exit_code) == signal)
		die(task, p, now, place ? FATAL_SECOND : FATAL_FIRST);
	return 0;
}

/* signal_deliver(int sig, struct kernel_siginfo *info, struct k_sigaction *ka): to the current thread */
SEC("raw_tp/signal_deliver")
int on_deliver(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = current_tgid(), signal = ctx->args[0], place;
	struct process *p = bpf_map_lookup_elem(&processes, &tgid);
	struct task_struct *task;
	struct signal_struct *s;
	struct cause *c;
	u64 now;

	if (!p || p->dying || signal < 1 || signal > 64 || BIT(signal) & harmless)
		return 0;
	if (READ((struct k_sigaction *)ctx->args[2], sa.sa_handler))
		return 0; /* it is handled */
	task = bpf_get_current_task();
	place = !(BIT(signal) & dumping);
	c = place ? &p->cause[1] : &p->cause[0];
	now = bpf_ktime_get_ns();
	if (signal == SIGKILL && c->signal != SIGKILL) {
		/* The threads of a process that ends, or executes, get it from one another. */
		s = READ(task, signal);
		if (READ(s, flags) & SIGNAL_GROUP_EXIT)
			die(task, p, now, 0);
		return 0;
	}
	if (c->signal != signal) /* sent before this table was there */
		note(c, task, signal, (void *)ctx->args[1], now);
	die(task, p, now, place ? FATAL_SECOND : FATAL_FIRST);
	return 0;
}

/* mark_victim(int pid), from Linux 6.9 on (struct task_struct *task, uid_t uid) */
SEC("raw_tp/mark_victim")
int on_victim(struct bpf_raw_tracepoint_args *ctx)
{
	u64 first = ctx->args[0];
	u32 tgid = first >> 32 ? READ((struct task_struct *)first, tgid) : (u32)first;
	struct process *p = bpf_map_lookup_elem(&processes, &tgid);

	if (p)
		p->flags |= VICTIM;
	return 0;
}

/* coredump(int sig), which young kernels have: the current thread begins to write */
SEC("raw_tp/coredump")
int on_coredump(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = current_tgid();
	struct process *p = bpf_map_lookup_elem(&processes, &tgid);

	if (p)
		p->flags |= CORE;
	return 0;
}

/* do_group_exit(int exit_code): any end but that of the last thread alone */
SEC("fentry/do_group_exit")
int on_group_exit(void *ctx)
{
	u32 tgid = current_tgid();
	struct process *p = bpf_map_lookup_elem(&processes, &tgid);

	if (p)
		die(bpf_get_current_task(), p, bpf_ktime_get_ns(), 0);
	return 0;
}

/* Puts those into the table that are older than it: to be read by a child of
 * pazinit until it finds no more, since it needs a parent before its children. */
SEC("iter/task")
int on_task(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct process p = {}, *above;
	u32 tgid, parent;
	struct pid *pid;
	struct upid at;

	if (!task)
		return 0;
	if (!own_namespace) {
		pid = READ((struct task_struct *)bpf_get_current_task(), thread_pid);
		own_level = READ(pid, level);
		bpf_probe_read_kernel(&at, sizeof(at), &pid->numbers[own_level]);
		own_namespace = READ(at.ns, ns.inum);
	}
	tgid = READ(task, tgid);
	if (tgid != READ(task, pid) || READ(READ(task, signal), live.counter) <= 0 || bpf_map_lookup_elem(&processes, &tgid))
		return 0;
	p.pid = pid_of(task);
	p.flags = SEEDED;
	if (p.pid == own_pid) {
		p.flags |= ROOT;
	} else {
		parent = READ(READ(task, real_parent), tgid);
		above = bpf_map_lookup_elem(&processes, &parent);
		if (!above)
			return 0;
		p.run = above->run;
		p.leader = above->flags & ROOT ? p.pid : above->leader;
	}
	if (bpf_map_update_elem(&processes, &tgid, &p, BPF_NOEXIST))
		count(UNTRACKED);
	else
		count(FOUND);
	return 0;
}
