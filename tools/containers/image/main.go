// Command image writes a multi-architecture image of static pazinit binaries as
// an OCI image layout in a tar. No engine and no network are needed, and the
// same binaries give the same bytes.
//
//	image -o out/pazinit.oci.tar out/pazinit out/pazinit-arm64
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

func main() {
	out := flag.String("o", "pazinit.oci.tar", "the archive to write")
	flag.Parse()
	if err := run(*out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(out string, binaries []string) error {
	created, err := epoch(os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	programs, err := open(binaries)
	if err != nil {
		return err
	}
	text, err := versionText(programs)
	if err != nil {
		return err
	}
	labels, err := describe(text)
	if err != nil {
		return err
	}
	index, err := build(programs, labels, created)
	if err != nil {
		return err
	}
	return write(out, index, labels)
}

// epoch reads SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch):
// seconds, 0 if it is empty.
func epoch(text string) (time.Time, error) {
	if text == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fmt.Errorf("read SOURCE_DATE_EPOCH: %q is no number of seconds", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// versionText asks the program that runs here for its version.
func versionText(programs []program) (string, error) {
	for _, p := range programs {
		if p.arch == runtime.GOARCH {
			out, err := exec.Command(p.path, "--version").Output()
			if err != nil {
				return "", fmt.Errorf("ask %s for its version: %w", p.path, err)
			}
			return strings.TrimSpace(string(out)), nil
		}
	}
	return "", fmt.Errorf("ask for the version: no binary is for %s", runtime.GOARCH)
}
