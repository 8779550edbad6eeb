package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// flags are those of the release, but for the version's text.
var flags = []string{"build", "-trimpath", "-ldflags", "-s -w -X=runtime.godebugDefault=asyncpreemptoff=1,containermaxprocs=0,updatemaxprocs=0 -E=github.com/pazinit/pazinit/reaper/internal/early.entry"}

// Binary is the program under test, after [Main].
var Binary string

// Helper is the program that misbehaves, after [Main].
var Helper string

// Main is a TestMain: it builds the programs (PAZINIT_BIN and PAZINIT_HELPER
// name others), runs the tests and removes what it built.
func Main(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pazinit-bin")
	if err == nil {
		defer os.RemoveAll(dir)
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go starter()
	return m.Run()
}

func build(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil { // other users run them
		return err
	}
	root, err := Root()
	if err != nil {
		return err
	}
	if Binary = os.Getenv("PAZINIT_BIN"); Binary == "" {
		Binary = filepath.Join(dir, "pazinit")
		if err := Build(Binary); err != nil {
			return err
		}
	}
	if Helper = os.Getenv("PAZINIT_HELPER"); Helper == "" {
		Helper = filepath.Join(dir, "helper")
		cc := exec.Command("cc", "-static", "-O2", "-o", Helper, filepath.Join(root, "tests/helpers/helper.c"))
		if out, err := cc.CombinedOutput(); err != nil {
			return fmt.Errorf("build the helper: %w\n%s", err, out)
		}
	}
	return nil
}

// Build builds the program, as it is released, as out.
func Build(out string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", append(slices.Clone(flags), "-o", out, "./cmd/pazinit")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build pazinit: %w\n%s", err, b)
	}
	return os.Chmod(out, 0o755)
}

// Root finds the folder of go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("find go.mod above the working directory: there is none")
}

// Need skips the test if err says that feature is not to be had here, or fails it
// where PAZINIT_TEST_MUST lists the feature.
func Need(t testing.TB, feature string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("PAZINIT_TEST_MUST"), ","), feature) {
		t.Fatalf("%s is needed: %v", feature, err)
	}
	t.Skipf("%s: %v", feature, err)
}

// NeedRoot skips the test for ordinary users.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Need(t, "root", syscall.EPERM)
	}
}

// starts are functions for the thread that starts the supervisors: they get a
// signal when it ends, which must not be before the test process does.
var starts = make(chan func())

func starter() {
	runtime.LockOSThread()
	for f := range starts {
		f()
	}
}
