// Package cgroupfs places, kills and watches groups of processes on cgroup v2,
// v1 and hybrid hosts, by direct reads and writes.
//
// One [Hierarchy] is one folder of pazinit's own (hierarchy_root) in a mounted
// cgroup hierarchy, held by a lock that dies with the process. A [Group] is a
// folder below it and holds no file descriptor: a thousand of them cost a
// thousand folders in the kernel and nothing else.
//
// Nothing is created before the kernel has said, by the file system's magic,
// that the folder is a cgroup's, and nothing is opened outside the hierarchy's
// folder: see [Hierarchy.open].
//
// Facts about the kernel are from Documentation/admin-guide/cgroup-v2.rst,
// Documentation/admin-guide/cgroup-v1/ and kernel/cgroup/cgroup.c.
package cgroupfs
