package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// need skips the test if err says that feature is not to be had here, or fails
// it where PAZINIT_TEST_MUST lists the feature.
func need(t *testing.T, feature string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("PAZINIT_TEST_MUST"), ","), feature) {
		t.Fatalf("%s is needed: %v", feature, err)
	}
	t.Skipf("%s: %v", feature, err)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		need(t, "root", syscall.EPERM)
	}
}

func needProgram(t *testing.T, name string) {
	t.Helper()
	_, err := exec.LookPath(name)
	need(t, name, err)
}

// command runs a program and returns its exit status and what it printed, and
// fails the test if it could not be run.
func command(t *testing.T, name string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	code, stdout, stderr := command(t, name, args...)
	if code != 0 {
		t.Fatalf("%s %q ends with %d\n%s%s", name, args, code, stdout, stderr)
	}
	return stdout
}

// TestSkopeo lets containers/image, podman's and buildah's library, pick each
// architecture.
func TestSkopeo(t *testing.T) {
	needProgram(t, "skopeo")
	for arch := range binaries {
		var got struct{ Architecture, OS string }
		text := must(t, "skopeo", "--override-arch", arch, "inspect", "--config", "oci-archive:"+archive)
		if err := json.Unmarshal([]byte(text), &got); err != nil || got.Architecture != arch || got.OS != "linux" {
			t.Errorf("configuration for %s = %+v, %v", arch, got, err)
		}
	}
}

// exitCodes are commands for the image, which has one program: a pazinit below
// pazinit, and how both end.
var exitCodes = []struct {
	name string
	args []string
	want int
}{
	{"child", []string{"--", "/usr/bin/pazinit", "--version"}, 0},
	{"status", []string{"--", "/usr/bin/pazinit", "status"}, 6}, // no supervisor
	{"PATH", []string{"--", "pazinit", "frobnicate"}, 2},
	{"missing", []string{"--", "/missing"}, 127},
	{"folder", []string{"--", "/usr"}, 126},
}

func TestPodman(t *testing.T) {
	needRoot(t)
	needProgram(t, "podman")
	needProgram(t, "runc")
	dir := t.TempDir()
	global := []string{"--root", dir + "/root", "--runroot", dir + "/run", "--cgroup-manager", "cgroupfs", "--runtime", "runc"}
	podman := func(args ...string) (int, string, string) {
		return command(t, "podman", slices.Concat(global, args)...)
	}
	t.Cleanup(func() {
		code, stdout, stderr := podman("rmi", "--all", "--force")
		if err := syscall.Unmount(dir+"/root/overlay", 0); code != 0 || err != nil && !errors.Is(err, syscall.EINVAL) {
			t.Errorf("podman rmi: %d\n%s%sunmount: %v", code, stdout, stderr, err)
		}
	})
	if code, stdout, stderr := podman("load", "-i", archive); code != 0 || !strings.Contains(stdout, "localhost/pazinit:") {
		t.Fatalf("podman load: %d\n%s%s", code, stdout, stderr)
	}
	_, name, _ := podman("images", "--format", "{{.Repository}}:{{.Tag}}")
	name = strings.TrimSpace(name)
	for _, test := range exitCodes {
		args := []string{
			"run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096",
			"--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL", "--user", "1000:1000", name,
		}
		if code, stdout, stderr := podman(append(args, test.args...)...); code != test.want {
			t.Errorf("%s: podman run %q ends with %d, want %d\n%s%s", test.name, test.args, code, test.want, stdout, stderr)
		}
	}
}

// TestRunc unpacks the image and lets runc run it, as its configuration says.
func TestRunc(t *testing.T) {
	needRoot(t)
	for _, name := range []string{"skopeo", "umoci", "runc"} {
		needProgram(t, name)
	}
	dir := t.TempDir()
	// umoci takes no index of indexes.
	must(t, "skopeo", "copy", "oci-archive:"+archive, "oci:"+dir+"/layout:pazinit")
	must(t, "umoci", "unpack", "--image", dir+"/layout:pazinit", dir+"/bundle")
	config := filepath.Join(dir, "bundle/config.json")
	data, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	for i, test := range exitCodes {
		var spec map[string]any
		if err := json.Unmarshal(data, &spec); err != nil {
			t.Fatal(err)
		}
		process := spec["process"].(map[string]any)
		entrypoint := process["args"].([]any)
		if len(entrypoint) != 1 || entrypoint[0] != "/usr/bin/pazinit" {
			t.Fatalf("args = %q, want /usr/bin/pazinit", entrypoint)
		}
		for _, arg := range test.args {
			entrypoint = append(entrypoint, arg)
		}
		process["args"], process["terminal"] = entrypoint, false
		edited, err := json.Marshal(spec)
		if err == nil {
			err = os.WriteFile(config, edited, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprintf("pazinit-image-%d-%d", os.Getpid(), i)
		code, stdout, stderr := command(t, "runc", "--root", dir+"/runc", "run", "--bundle", dir+"/bundle", id)
		if code != test.want {
			t.Errorf("%s: runc run %q ends with %d, want %d\n%s%s", test.name, test.args, code, test.want, stdout, stderr)
		}
	}
}
