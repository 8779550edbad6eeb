package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/procfile"
)

const (
	manProgram = "pazinit.8"
	manFiles   = "../../procfile/pazinit-procfile.5"
)

// roff escapes text for troff; `words` become bold.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`).Replace(text)
	text = regexp.MustCompile("`([^`]*)`").ReplaceAllString(text, `\fB$1\fR`)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

// entry is one tagged paragraph.
func entry(tag, text string) string {
	return ".TP\n\\fB" + roff(tag) + "\\fR\n" + roff(text) + "\n"
}

func flagEntries(flags []control.Flag) (text string) {
	for _, f := range flags {
		text += entry(f.Synopsis(), f.Help)
	}
	return text
}

// generated are the parts of the manual pages that come from tables.
func generated() map[string]string {
	var flags, exec, verbs, keys strings.Builder
	for text, to := range map[string]*strings.Builder{runFlags: &flags, execFlags: &exec} {
		for line := range strings.Lines(text) {
			tag, text, _ := strings.Cut(strings.TrimSpace(line), "  ")
			to.WriteString(entry(tag, strings.TrimSpace(text)))
		}
	}
	for _, v := range control.Verbs() {
		fmt.Fprintf(&verbs, ".SS %s\n", roff(v.Synopsis()))
		for i, par := range strings.Split(v.Long, "\n\n") {
			if i > 0 {
				verbs.WriteString(".PP\n")
			}
			verbs.WriteString(roff(par) + "\n")
		}
		if len(v.Aliases) > 0 {
			verbs.WriteString(".PP\nAlso: " + roff(strings.Join(v.Aliases, ", ")) + ".\n")
		}
		verbs.WriteString(flagEntries(v.Flags))
	}
	for _, k := range procfile.Keys() {
		text := k.Type.String()
		if len(k.Values) > 0 {
			words := "`" + strings.Join(k.Values, "`, `") + "`"
			if k.Type == procfile.TypeWord {
				text = words
			} else {
				text += "; " + words
			}
		}
		if k.Default != "" {
			text += ". Default: " + k.Default
		}
		keys.WriteString(entry(k.Name+" ["+strings.Join(k.At.Names(), ", ")+"]", k.Doc+" ("+text+".)"))
	}
	return map[string]string{"flags": flags.String(), "exec": exec.String(), "global": flagEntries(control.Global), "verbs": verbs.String(), "keys": keys.String()}
}

// TestManualPages holds the pages against the tables, and writes them with
// -update.
func TestManualPages(t *testing.T) {
	parts := generated()
	seen := 0
	for _, page := range []string{manProgram, manFiles} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		want := regexp.MustCompile(`(?ms)^\.\\" begin (\w+)\n.*?^\.\\" end \w+\n`).ReplaceAllStringFunc(string(text), func(block string) string {
			seen++
			head, _, _ := strings.Cut(block, "\n")
			name := strings.TrimPrefix(head, `.\" begin `)
			return head + "\n" + parts[name] + ".\\\" end " + name + "\n"
		})
		if *update {
			if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if want != string(text) {
			t.Errorf("%s is not that of the tables; run with -update", page)
		}
	}
	if seen != len(parts) {
		t.Errorf("%d generated parts in the pages, want %d", seen, len(parts))
	}
}

// TestManualPagesAreComplete looks for what a page must tell of, wherever it
// comes from.
func TestManualPagesAreComplete(t *testing.T) {
	page := func(file string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(`\\f.`).ReplaceAllString(strings.ReplaceAll(string(b), `\-`, "-"), "")
	}
	want := []string{
		"SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPWR",
		"pazinit.config=", "pazinit.procfile=", "pazinit.log=", "pazinit.set=", "pazinit.shell", "pazinit.debug_exit=", "pazinit.init=",
		"PAZINIT_SOCKET", "XDG_RUNTIME_DIR", "NO_COLOR", "TERM",
		"/etc/pazinit/pazinit.yaml", "/run/pazinit/pazinit.sock", "/run/pazinit/control", "/tmp/pazinit-UID",
		"STOPPED", "STARTING", "RUNNING", "BACKOFF", "STOPPING", "EXITED", "FATAL",
	}
	for code := range control.ExitTimeout + 1 {
		want = append(want, fmt.Sprintf("\n.B %d\n", code))
	}
	for _, v := range control.Verbs() {
		want = append(append(want, ".SS "+v.Name), v.Aliases...)
		for _, f := range slices.Concat(v.Flags, control.Global) {
			want = append(want, "--"+f.Name)
		}
	}
	for _, f := range regexp.MustCompile(`(?m)^  (--?[\w-]+)`).FindAllStringSubmatch(runFlags+execFlags, -1) {
		want = append(want, "\n"+f[1])
	}
	text := page(manProgram)
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not tell of %q", manProgram, w)
		}
	}
	text = page(manFiles)
	for _, k := range procfile.Keys() {
		if !strings.Contains(text, "\n"+k.Name+" [") {
			t.Errorf("%s does not tell of %q", manFiles, k.Name)
		}
	}
}

// TestManualPagesFormat has groff read the pages with all of its warnings.
func TestManualPagesFormat(t *testing.T) {
	groff := "groff"
	if have, err := condition("have:" + groff); err != nil {
		t.Fatal(err)
	} else if !have {
		t.Skip("groff: not installed")
	}
	for _, page := range []string{manProgram, manFiles} {
		out, err := exec.Command(groff, "-man", "-ww", "-Kutf8", "-Tutf8", "-rLL=80n", page).CombinedOutput()
		if err != nil {
			t.Errorf("groff %s: %v", page, err)
		}
		cmd := exec.Command(groff, "-man", "-ww", "-Kutf8", "-Tutf8", "-z", page)
		if warnings, _ := cmd.CombinedOutput(); len(warnings) > 0 {
			t.Errorf("groff %s: %s", page, warnings)
		}
		if !strings.Contains(string(out), "DESCRIPTION") && !strings.Contains(string(out), "D\bD") {
			t.Errorf("groff %s printed %d bytes without a description", page, len(out))
		}
	}
}
