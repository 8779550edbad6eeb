package pazinit

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pazinit/pazinit/"

// mayImport is who may know whom: cmd knows init, init knows the leaves, and a
// leaf knows nobody. A package that is not named here is a mistake, too.
var mayImport = map[string][]string{
	"cmd/pazinit":             {"init", "control", "procfile", "output", "reaper", "cgroupfs", "reaper/signals", "cmd/internal/appimage", "machine", "machine/network", "machine/syslog"},
	"cmd/internal/appimage":   {"initramfs", "procfile"},
	"init":                    {"init/internal/lifecycle", "cgroupfs", "control", "output", "procfile", "reaper"},
	"init/internal/lifecycle": {},
	"cgroupfs":                {},
	"control":                 {},
	"ebpf":                    {},
	"machine":                 {},
	"machine/syslog":          {},
	"machine/network":         {},
	"initramfs":               {},
	"output":                  {},
	"procfile":                {},
	"reaper":                  {"reaper/internal/early"},
	"reaper/internal/early":   {},
	"reaper/procconn":         {},
	"reaper/signals":          {"reaper/internal/early"},
}

// linked are the modules that the program is made of: each is paid for in PID
// 1's memory.
var linked = append([]string{"github.com/kballard/go-shellquote", "go.yaml.in/yaml/v3", "golang.org/x/sys", "golang.org/x/term"}, networked...)

// networked are those of machine/network, a process of its own. They alone
// import net, and for its types only: it is linked, PID 1 does not run it.
var networked = []string{
	"github.com/insomniacslk/dhcp", "github.com/josharian/native", "github.com/pierrec/lz4/v4", "github.com/u-root/uio",
	"github.com/vishvananda/netlink", "github.com/vishvananda/netns",
}

func list(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestImports(t *testing.T) {
	for _, line := range list(t, "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...") {
		f := strings.Fields(line)
		pkg := strings.TrimPrefix(f[0], module)
		if strings.HasPrefix(pkg, "tests/") || strings.HasPrefix(pkg, "examples/") {
			if slices.Contains(f[1:], module+"init") {
				t.Errorf("%s imports init: it is to use the built binary", pkg)
			}
			continue
		}
		allowed, known := mayImport[pkg]
		if !known {
			t.Errorf("package %s has no row in mayImport", pkg)
		}
		for _, imp := range f[1:] {
			if ours, ok := strings.CutPrefix(imp, module); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s", pkg, ours)
			}
		}
	}
}

var update = flag.Bool("update", false, "rewrite what is generated from the code")

// TestArchitecture prints who imports whom into the documentation.
func TestArchitecture(t *testing.T) {
	var lines []string
	for _, line := range list(t, "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./cmd/...", "./init/...", "./reaper/...") {
		f := strings.Fields(line)
		var ours []string
		for _, imp := range f[1:] {
			if name, ok := strings.CutPrefix(imp, module); ok {
				ours = append(ours, name)
			}
		}
		if len(ours) > 0 {
			lines = append(lines, strings.TrimPrefix(f[0], module)+" → "+strings.Join(ours, ", "))
		}
	}
	const file = "../ARCHITECTURE.md"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), "<!-- imports:")
	mark, rest, ok2 := strings.Cut(rest, "-->\n")
	_, tail, ok3 := strings.Cut(rest, "<!-- end -->")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("%s has no block imports", file)
	}
	want := head + "<!-- imports:" + mark + "-->\n```\n" + strings.Join(lines, "\n") + "\n```\n<!-- end -->" + tail
	switch {
	case want == string(b):
	case !*update:
		t.Errorf("block imports of %s is not what the code has; run with -update:\n%s", file, strings.Join(lines, "\n"))
	default:
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLinkedModules(t *testing.T) {
	var got []string
	for _, m := range list(t, "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "./cmd/pazinit") {
		if m != "" && !slices.Contains(got, m) {
			got = append(got, m)
		}
	}
	for _, m := range got {
		if !slices.Contains(linked, m) {
			t.Errorf("the program links %s", m)
		}
	}
	// regexp is there for the YAML library.
	for _, line := range list(t, "-deps", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./cmd/pazinit") {
		pkg, imports, _ := strings.Cut(line, " ")
		ofNetwork := slices.ContainsFunc(networked, func(m string) bool { return strings.HasPrefix(pkg, m+"/") || pkg == m })
		if slices.Contains(strings.Fields(imports), "net") && !ofNetwork {
			t.Errorf("%s imports net: unix sockets by x/sys/unix, addresses by net/netip", pkg)
		}
		switch pkg {
		case "net/http", "os/exec", "text/template", "log/slog", "os/user":
			t.Errorf("the program links %s: PID 1 pays for it in memory, or it starts children behind the reaper's back", pkg)
		}
	}
}

// Every folder of the design that has code has a package comment in doc.go or
// elsewhere; go vet does not look.
func TestPackagesSayWhatTheyDo(t *testing.T) {
	for pkg := range mayImport {
		files, _ := filepath.Glob(filepath.Join("..", pkg, "*.go"))
		found := false
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(f, "_test.go") && (strings.Contains(string(b), "\n// Package ") || strings.HasPrefix(string(b), "// Package ") || strings.HasPrefix(string(b), "// Command ")) {
				found = true
			}
		}
		if !found {
			t.Errorf("%s has no package comment", pkg)
		}
	}
}
