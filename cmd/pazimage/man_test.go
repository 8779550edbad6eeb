package main

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pazinit/pazinit/cmd/internal/appimage"
)

const page = "pazimage.8"

var update = flag.Bool("update", false, "rewrite what is generated from the tables")

// roff escapes text for troff; `words` become bold.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`).Replace(text)
	return regexp.MustCompile("`([^`]*)`").ReplaceAllString(text, `\fB$1\fR`)
}

// The manual page has what the program's tables have.
func TestManualPage(t *testing.T) {
	v := program()
	var flags strings.Builder
	for _, f := range v.Flags {
		flags.WriteString(".TP\n\\fB" + roff(f.Synopsis()) + "\\fR\n" + roff(f.Help) + "\n")
	}
	parts := map[string]string{"flags": flags.String(), "description": roff(strings.ReplaceAll(v.Long, "\n\n", "\n.PP\n")) + "\n"}
	text, err := os.ReadFile(page)
	must(t, err)
	seen := 0
	want := regexp.MustCompile(`(?ms)^\.\\" begin (\w+)\n.*?^\.\\" end \w+\n`).ReplaceAllStringFunc(string(text), func(block string) string {
		seen++
		head, _, _ := strings.Cut(block, "\n")
		name := strings.TrimPrefix(head, `.\" begin `)
		return head + "\n" + parts[name] + ".\\\" end " + name + "\n"
	})
	if *update {
		must(t, os.WriteFile(page, []byte(want), 0o644))
	} else if want != string(text) {
		t.Errorf("%s is not that of the tables; run with -update", page)
	}
	if seen != len(parts) {
		t.Errorf("%s has %d generated parts, want %d", page, seen, len(parts))
	}
	if !strings.Contains(want, roff(v.Short)) {
		t.Errorf("%s does not say: %s", page, v.Short)
	}
	if _, err := exec.LookPath("groff"); err != nil {
		t.Skip("groff: not installed")
	}
	cmd := exec.Command("groff", "-man", "-ww", "-Kutf8", "-Tutf8", "-z", page)
	if warnings, err := cmd.CombinedOutput(); len(warnings) > 0 || err != nil {
		t.Errorf("groff %s: %v: %s", page, err, warnings)
	}
}

// The flags that the program takes are those that its help and the guide show.
func TestFlagsAreTold(t *testing.T) {
	var taken, told []string
	fs := (&appimage.Maker{Program: "pazimage"}).Flags()
	for _, name := range []string{"oci", "ref", "platform"} { // those of run
		fs.String(name, "", "")
	}
	fs.VisitAll(func(f *flag.Flag) {
		if len(f.Name) > 1 {
			taken = append(taken, f.Name)
		}
	})
	for _, f := range program().Flags {
		told = append(told, f.Name)
		if fs.Lookup(f.Name) == nil || f.Short != "" && fs.Lookup(f.Short) == nil {
			t.Errorf("the help has --%s, which is no flag", f.Name)
		}
		if f.Help == "" {
			t.Errorf("--%s has no help", f.Name)
		}
	}
	slices.Sort(taken)
	slices.Sort(told)
	if !slices.Equal(taken, told) {
		t.Errorf("the program takes %v, the help has %v", taken, told)
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"--help"}, &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), "--oci FILE") || !strings.Contains(stdout.String(), "--kernel-modules FOLDER") {
		t.Errorf("--help: %d, %s%s", code, &stdout, &stderr)
	}
	guide, err := os.ReadFile("../../docs/images.md")
	must(t, err)
	for _, f := range program().Flags {
		if word := "`--" + f.Name; f.Short == "" && !strings.Contains(string(guide), word) {
			t.Errorf("docs/images.md does not tell of --%s", f.Name)
		}
	}
}
