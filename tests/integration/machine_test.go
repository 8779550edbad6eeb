package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

// TestContainerIsNoMachine has PID 1 of a PID namespace start with and without a
// /proc to say so: it mounts nothing, and leaves Ctrl-Alt-Del as it is.
func TestContainerIsNoMachine(t *testing.T) {
	rig.NeedRoot(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil { // the socket lies there
		t.Fatal(err)
	}
	const look = `mount -t proc proc /proc; cut -d" " -f5 /proc/self/mountinfo | grep -v "^/proc"; echo cad $(cat /proc/sys/kernel/ctrl-alt-del)`
	for name, text := range map[string]string{
		"look": look, "Procfile": "look: sh " + filepath.Join(dir, "look") + "\n",
		"pazinit.yaml": "applications: {a: {procfile: Procfile, restart: never}}\nmachine: {hostname: taken}\nmounts: [{type: tmpfs, path: " + dir + "}]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, proc := range []string{"umount -l /proc", "mount -t proc proc /proc"} {
		// Both looks are into one mount namespace: elsewhere others mount meanwhile.
		script := `umount -l /proc; sh "$DIR/look"; echo //; ` + proc + `; exec "$PAZINIT" run -c "$DIR/pazinit.yaml" --log-format raw`
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		cmd := exec.CommandContext(ctx, "unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--propagation", "private", "sh", "-c", script)
		cmd.Env = append(os.Environ(), "PAZINIT_SOCKET="+filepath.Join(dir, "s"), "NO_COLOR=1", "PAZINIT="+rig.Binary, "DIR="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		looks := [][]string{nil}
		for line := range strings.Lines(string(out)) {
			switch line = strings.TrimSpace(line); {
			case line == "//":
				looks = append(looks, nil)
			case line != dir && strings.HasPrefix(line, os.TempDir()+"/"), strings.HasPrefix(line, "/var/lib/containers/"):
				// A mount of others goes here, too, with the folder that it is on.
			case strings.HasPrefix(line, "/"), strings.HasPrefix(line, "cad "):
				looks[len(looks)-1] = append(looks[len(looks)-1], line)
			}
		}
		if len(looks) != 2 || len(looks[0]) < 2 || !slices.Equal(looks[0], looks[1]) {
			t.Errorf("%s: mounts and keys before and after\n%s", script, out)
		}
	}
	if name, err := os.Hostname(); err != nil || name == "taken" {
		t.Errorf("the host's name is %q, %v", name, err)
	}
}

// TestPowerVerbs are refused to who is no init, and kexec to a container.
func TestPowerVerbs(t *testing.T) {
	rig.Both(t, rig.Config{Procfile: "web: sleep 1000\n"}, func(t *testing.T, r *rig.Rig) {
		r.WaitState("app:web.1", "RUNNING")
		verbs := []string{"kexec"}
		if r.Cfg.Mode != rig.PID1 {
			verbs = []string{"poweroff", "reboot", "halt", "kexec"}
		}
		for _, verb := range verbs {
			reply := r.Do(&control.Request{Verb: verb})
			if reply.Code != control.ExitFailed || reply.Error == "" {
				t.Errorf("%s: %s", verb, results(reply))
			}
			if _, stderr, code := r.Cmd(verb); code != control.ExitFailed || !strings.Contains(stderr, reply.Error) {
				t.Errorf("pazinit %s = %d, %q", verb, code, stderr)
			}
		}
		if st := r.Of("app:web.1"); st.State != "RUNNING" {
			t.Errorf("then web is %s", st.State)
		}
	})
}
