#!/bin/busybox sh
# The first process where it is to be another than pazinit: mounts what that expects
# to be there, and becomes what /start says. The kernel makes variables of its
# command line: cgroups is v2, v1, hybrid or none.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
# Opened as /dev/console it outlives the hang-up that the terminal gets when the
# leader of its session ends.
exec </dev/console >/dev/console 2>&1
guest modules /lib/modules/pazinit.load

v1() {
	mount -t tmpfs cgroup /sys/fs/cgroup
	for controllers in cpu,cpuacct memory devices freezer blkio pids; do
		mkdir /sys/fs/cgroup/$controllers
		mount -t cgroup -o $controllers cgroup /sys/fs/cgroup/$controllers
	done
}
case $cgroups in
v2) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
v1) v1 ;;
hybrid)
	v1
	mkdir /sys/fs/cgroup/unified
	mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
	;;
esac
ifconfig lo up
. /start
