package machine

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// inside runs the test that calls it once more, in a process of its own in new
// namespaces (CLONE_NEWNS and so on; mounts are private there), and answers true
// there; in the first process it carries the result over and answers false. It
// needs root.
func inside(t *testing.T, namespaces uintptr) bool {
	t.Helper()
	const mark = "PAZINIT_TEST_INSIDE"
	if os.Getenv(mark) == t.Name() {
		if namespaces&syscall.CLONE_NEWNS != 0 {
			if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
				t.Fatalf("make mounts private: %v", err)
			}
		}
		return true
	}
	needRoot(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Errorf("inside: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("inside:\n%s", out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Errorf("inside, the test did not run:\n%s", out)
	}
	return false
}

// need skips the test for want of a feature, unless PAZINIT_TEST_MUST names it.
func need(t *testing.T, feature string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if must(feature) {
		t.Fatalf("%s is needed: %v", feature, err)
	}
	t.Skipf("%s: %v", feature, err)
}

func must(feature string) bool {
	return slices.Contains(strings.Split(os.Getenv("PAZINIT_TEST_MUST"), ","), feature)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		need(t, "root", os.ErrPermission)
	}
}
