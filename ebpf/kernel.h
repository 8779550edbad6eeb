/* The little of the kernel that deaths.bpf.c reads, and the helpers that it calls.
 *
 * Only the members that are read are here: the loader finds where they are in
 * the running kernel (CO-RE), by the names of structure and member. They are
 * those of Linux 5.10 to 7.3 (include/linux/sched.h, sched/signal.h, pid.h,
 * signal_types.h).
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;

#define SEC(name)  __attribute__((section(name), used))
#define inline     inline __attribute__((always_inline))
#define noinline   __attribute__((noinline))
#define UINT(name, value)  int (*name)[value]
#define TYPE(name, type)   type *name

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};
struct pid_namespace {
	struct ns_common ns;
};
struct upid {
	int nr;
	struct pid_namespace *ns;
};
struct pid {
	unsigned int level;
	struct upid numbers[1];
};
typedef struct {
	int counter;
} atomic_t;
struct mm_struct;
struct signal_struct {
	atomic_t live;
	int group_exit_code;
	unsigned int flags;
	unsigned long maxrss;
	struct mm_struct *oom_mm;
};
typedef struct {
	u32 val;
} kuid_t;
struct cred {
	kuid_t uid;
};
struct task_struct {
	unsigned int flags;
	int exit_code;
	int pdeath_signal;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct cred *real_cred;
	char comm[16];
	struct signal_struct *signal;
};
struct sigaction {
	void (*sa_handler)(int);
};
struct k_sigaction {
	struct sigaction sa;
};
union __sifields {
	struct {
		int _pid;
		u32 _uid;
	} _kill;
	struct {
		void *_addr;
	} _sigfault;
};
struct kernel_siginfo {
	int si_signo;
	int si_errno;
	int si_code;
	union __sifields _sifields;
};
struct bpf_iter_meta;
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

struct bpf_raw_tracepoint_args {
	u64 args[0];
};

enum {
	SIGNAL_GROUP_EXIT = 4,
	PF_EXITING = 0x4,
	PF_KTHREAD = 0x200000,

	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
};

/* include/uapi/linux/bpf.h, the numbers of the helpers */
static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*const bpf_get_current_comm)(void *buf, u32 size) = (void *)16;
static struct task_struct *(*const bpf_get_current_task)(void) = (void *)35;
static long (*const bpf_probe_read_kernel)(void *dst, u32 size, const void *src) = (void *)113;
static void *(*const bpf_ringbuf_reserve)(void *ringbuf, u64 size, u64 flags) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;

/* READ(p, a) is p->a, wherever this kernel has it; of memory that is not there, 0. */
#define READ(p, member)                                                   \
	({                                                                \
		typeof(p) _p = (p);                                       \
		typeof(_p->member) _v = 0;                                \
		bpf_probe_read_kernel(&_v, sizeof(_v), &_p->member);      \
		_v;                                                       \
	})
