#!/bin/sh
# Parts of tests/helpers/helper.c, for a machine without a compiler.
case $1 in
sleep) exec sleep 100000 ;;
exit) exit "$2" ;;
setsid)
	setsid sh -c 'trap "" HUP; echo child $$; exec sleep 100000' &
	exec sleep 100000
	;;
double-fork)
	(setsid sh -c 'trap "" HUP; echo grandchild $$; exec sleep 100000' &)
	exec sleep 100000
	;;
ignore-term)
	trap '' TERM
	echo ready
	exec sleep 100000
	;;
orphans) # a hundred at a time: a shell is slow with many
	for i in $(seq $(($2 / 100))); do
		(for j in $(seq 100); do : & done)
	done
	echo "made $2"
	;;
*)
	echo "helper: no such act: $1" >&2
	exit 111
	;;
esac
