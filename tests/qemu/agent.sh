#!/bin/busybox sh
# Carries out scripts that come, each as a line in base64, over the second serial
# line, and answers each with a line: its output in base64, a blank, its status.
# Nobody supervises it.
stty raw -echo
echo ready
while read -r script; do
	echo "$script" | base64 -d >/tmp/script
	sh /tmp/script >/tmp/output 2>&1 </dev/null
	status=$?
	echo "$(base64 -w 0 /tmp/output) $status"
done
