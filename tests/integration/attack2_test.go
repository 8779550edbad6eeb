package integration

import (
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/tests/rig"
)

// TestExecGroupLeftBehind: a command that has left its group, where somebody
// stays, gets its signals as he does.
func TestExecGroupLeftBehind(t *testing.T) {
	for _, v := range []string{"", "-vv"} { // sent on without a thought, and with one
		t.Run("verbose"+v, func(t *testing.T) {
			_, err := exec.LookPath("perl")
			rig.Need(t, "perl", err)
			script := `
				$| = 1;
				$SIG{TERM} = sub { print "both\n" if wait() == $left; exit 33 };
				pipe(R, W);
				$left = fork(); if (!$left) { $SIG{TERM} = sub { exit }; close W; print "stays\n"; sleep 1 while 1 }
				my $p = fork(); if (!$p) { setpgrp(0, 0); close W; <R>; exit }
				select(undef, undef, undef, 0.01) until getpgrp($p) == $p;
				setpgrp(0, $p) or die $!;
				print "ready\n";
				sleep 1 while 1;
			`
			argv := []string{"--", "perl", "-e", script}
			if v != "" {
				argv = append([]string{v}, argv...)
			}
			rig.Both(t, rig.Config{Argv: argv, NoWait: true}, func(t *testing.T, r *rig.Rig) {
				r.WaitConsole("ready\n")
				r.WaitConsole("stays\n")
				r.Signal(unix.SIGTERM)
				if got := r.Wait(); got != 33 || !strings.Contains(r.Console(), "both\n") {
					t.Errorf("exit status = %d, want 33, %q", got, r.Console())
				}
			})
		})
	}
}

// TestExecGraceGoesOn: signals that are sent on do not begin the grace anew, and
// a command that sends them without end keeps neither SIGTERM nor the end away.
func TestExecGraceGoesOn(t *testing.T) {
	for _, sig := range []string{"HUP", "WINCH", "USR1"} {
		t.Run(sig, func(t *testing.T) {
			script := `trap '' TERM HUP USR1; echo ready; while :; do kill -` + sig + ` $PPID; done`
			rig.Both(t, rig.Config{Argv: []string{"--grace", "500ms", "--", "sh", "-c", script}, NoWait: true}, func(t *testing.T, r *rig.Rig) {
				r.WaitConsole("ready\n")
				r.Signal(unix.SIGTERM)
				if got := r.Wait(); got != 137 {
					t.Errorf("exit status = %d, want 137", got)
				}
			})
		})
	}
}

// TestExecNoNumbersLeft: a command that has used up all processes that there may
// be takes no thread from us that Go would like to have, on a machine of many
// processors.
func TestExecNoNumbersLeft(t *testing.T) {
	_, err := exec.LookPath("perl")
	rig.Need(t, "perl", err)
	rig.NeedRoot(t)
	r := rig.New(t, rig.Config{
		User: 54377, // has no other processes
		Wrap: []string{"prlimit", "--nproc=40:40"}, Env: []string{"GOMAXPROCS=64"}, NoWait: true, Left: true,
		Argv: []string{"-vv", "--kill-orphans", "--", "perl", "-e", `
			while (defined(my $p = fork())) { if (!$p) { sleep 1000; exit } }
			for (1 .. 400000) { kill(28, getppid()) or exit 1 }
			exit 7;
		`},
	})
	if got := r.Wait(); got != 7 {
		t.Errorf("exit status = %d, want 7", got)
	}
}
