// Package syslog receives what programs say by syslog(3) and what the kernel says.
//
// Programs send datagrams to /dev/log: glibc, musl, busybox, util-linux and the
// libraries of other languages all try a datagram socket there first, and a
// stream only when they are told that it is none (EPROTOTYPE), so that a stream
// of the same name, which could not be there anyway, is missed by nobody. Who
// sent a message is told by the kernel (SCM_CREDENTIALS, unix(7)), not by the
// message. The kernel's records are read from /dev/kmsg (Linux 3.5,
// Documentation/ABI/testing/dev-kmsg).
//
// Messages are foreign bytes: they come out as one line of valid UTF-8 without
// control characters, of a bounded size.
package syslog
