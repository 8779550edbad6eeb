# Prints of the log of `go test -v` a line for each row: its number, and pass,
# fail or skip. A row of which a part is skipped does not pass.
# Some rows have parts in tests/qemu, too.
/^=== RUN +TestSeeds\/[^\/]*$/ && !($3 in seen) { seen[$3]; ids[n++] = substr($3, 11) }
/^ *--- (PASS|FAIL|SKIP): TestSeeds\// {
	split($3, path, "/")
	result = tolower(substr($2, 1, 4))
	if (!(path[2] in got) || result == "fail" || result == "skip" && got[path[2]] == "pass")
		got[path[2]] = result
}
END {
	for (i = 0; i < n; i++) {
		if (!(ids[i] in got))
			got[ids[i]] = "fail" # it did not end
		bad += got[ids[i]] == "fail"
		print ids[i], got[ids[i]]
	}
	if (bad || !n) {
		print bad + 0, "fail; see " FILENAME | "cat 1>&2"
		exit 1
	}
}
