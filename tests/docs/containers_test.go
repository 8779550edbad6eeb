// Package docs checks what pages of docs show against the built program.
package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pazinit/pazinit/control"
	"github.com/pazinit/pazinit/tests/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

func read(t *testing.T, name string) string {
	t.Helper()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")
	code  = regexp.MustCompile("`([^`\n]+)`")
	flag  = regexp.MustCompile("(?m)(?:^|[\\s\"`])(--[a-z][a-z-]*)")
)

// TestExamples lets pazinit check each Procfile of the pages, and each
// configuration beside the Procfile of its section.
func TestExamples(t *testing.T) {
	for page, kinds := range map[string][]string{"docs/containers.md": {"procfile", "yaml"}, "docs/machine-network.md": {"yaml"}} {
		t.Run(page, func(t *testing.T) { examples(t, page, kinds) })
	}
}

func examples(t *testing.T, page string, kinds []string) {
	checked := map[string]int{}
	for _, section := range strings.Split(read(t, page), "\n## ") {
		title, _, _ := strings.Cut(section, "\n")
		dir := t.TempDir()
		for _, block := range fence.FindAllStringSubmatch(section, -1) {
			file := map[string]string{"procfile": "Procfile", "yaml": "pazinit.yaml"}[block[1]]
			if file == "" {
				continue
			}
			checked[block[1]]++
			path := filepath.Join(dir, file)
			if err := os.WriteFile(path, []byte(block[2]), 0o644); err != nil {
				t.Fatal(err)
			}
			is := map[string]string{"procfile": "-f", "yaml": "-c"}[block[1]]
			if out, err := exec.Command(rig.Binary, "check", is, path).CombinedOutput(); err != nil {
				t.Errorf("%s: pazinit check %s: %v\n%s\n%s", title, is, err, out, block[2])
			}
		}
	}
	for _, kind := range kinds {
		if checked[kind] == 0 {
			t.Errorf("checked %v, want some of %s", checked, kind)
		}
	}
}

// others are the flags on the page that are not pazinit's.
var others = strings.Fields(`--cap-drop --chown --from --init --init-path --memory --pid --pids-limit --port --privileged
	--read-only --rm --security-opt --stop-timeout --user`)

// TestFlags looks whether pazinit's help has the flags that the page names.
func TestFlags(t *testing.T) {
	asks := [][]string{{"-h"}}
	for _, v := range control.Verbs() {
		asks = append(asks, []string{"help", v.Name})
	}
	known := map[string]bool{}
	for _, args := range asks {
		out, err := exec.Command(rig.Binary, args...).Output()
		if err != nil {
			t.Fatalf("pazinit %q: %v", args, err)
		}
		for _, f := range flag.FindAllString(string(out), -1) {
			known[strings.TrimSpace(f)] = true
		}
	}
	for _, m := range flag.FindAllStringSubmatch(read(t, "docs/containers.md"), -1) {
		if !known[m[1]] && !slices.Contains(others, m[1]) {
			t.Errorf("pazinit has no %s", m[1])
		}
	}
}

// TestVerbs looks whether pazinit has the verbs that the page names.
func TestVerbs(t *testing.T) {
	found := 0
	for _, m := range code.FindAllStringSubmatch(read(t, "docs/containers.md"), -1) {
		f := strings.Fields(m[1])
		if len(f) < 2 || f[0] != "pazinit" || strings.HasPrefix(f[1], "-") {
			continue
		}
		found++
		if control.Lookup(f[1]) == nil {
			t.Errorf("`%s`: there is no verb %s", m[1], f[1])
		}
	}
	if found == 0 {
		t.Error("the page names no verb")
	}
}

// TestKeys looks whether the configuration has the keys in the last columns of
// the page's tables: what has an underscore, and what has a value.
func TestKeys(t *testing.T) {
	configuration := read(t, "docs/configuration.md")
	foreign := []string{"cgroup_writable", "privileged"} // of engines
	key := regexp.MustCompile(`\b([a-z]+(?:_[a-z]+)+)\b|\b([a-z]+): `)
	found := 0
	for line := range strings.Lines(read(t, "docs/containers.md")) {
		cells := strings.Split(strings.TrimSuffix(strings.TrimSpace(line), "|"), "|")
		if len(cells) < 3 || cells[0] != "" {
			continue
		}
		for _, m := range code.FindAllStringSubmatch(cells[len(cells)-1], -1) {
			for _, k := range key.FindAllStringSubmatch(m[1], -1) {
				name := k[1] + k[2]
				if slices.Contains(foreign, name) {
					continue
				}
				found++
				if !strings.Contains(configuration, "\n| `"+name+"` |") {
					t.Errorf("`%s`: there is no key %s", m[1], name)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("found %d keys, want those of the tables", found)
	}
}
