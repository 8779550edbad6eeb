package pazinit

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unguarded are the goroutines that do not begin as [TestGoroutines] wants it, by
// file and function, and why that is no harm.
var unguarded = map[string]string{
	"cmd/pazinit/client.go":        "a client's process",
	"cmd/pazinit/client_status.go": "a client's process",
	"cmd/internal/appimage":        "a client's process",
	"control/client.go":            "a client's process",
	"machine/network":              "a process of its own, which is begun again",

	"cmd/pazinit/machine.go startWatchdog":       "begins feed again, which recovers",
	"cmd/pazinit/machine_signals.go hear":        "calls heard, which recovers",
	"cmd/pazinit/machine_signals.go supervising": "calls button, which recovers",
	"cmd/pazinit/supervise.go forward":           "calls signal, which recovers",
	"cmd/pazinit/threads.go spareThreads":        "does nothing",
	"machine/buttons.go buttons":                 "calls turn, which recovers",
	"machine/hands.go within":                    "calls caught, which recovers",
	"machine/unmount.go syncAll":                 "calls caught, which recovers",
	"machine/watchdog.go Run":                    "calls ask, which recovers",
	"machine/watchdog.go say":                    "calls caught, which recovers",
}

// TestGoroutines: every goroutine of the supervising process is begun by its
// package's begin, or recovers in its first statement, so that no panic ends PID 1.
func TestGoroutines(t *testing.T) {
	used := map[string]bool{}
	for _, line := range list(t, "-deps", "-f", "{{.ImportPath}} {{.Dir}} {{join .GoFiles \" \"}}", "./cmd/pazinit") {
		f := strings.Fields(line)
		pkg, ours := strings.CutPrefix(f[0], module)
		if !ours || f[0] == strings.TrimSuffix(module, "/") {
			continue
		}
		for _, name := range f[2:] {
			where := pkg + "/" + name
			excused := func(key string) bool {
				_, ok := unguarded[key]
				used[key] = used[key] || ok
				return ok
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(f[1], name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Body == nil {
					continue
				}
				ast.Inspect(fn.Body, func(n ast.Node) bool {
					what := ""
					switch n := n.(type) {
					case *ast.GoStmt:
						if fn.Name.Name != "begin" && !recovers(n.Call.Fun) {
							what = "go"
						}
						if fn.Name.Name == "begin" && !recovers(n.Call.Fun) {
							what = "a begin that does not recover"
						}
					case *ast.CallExpr:
						sel, ok := n.Fun.(*ast.SelectorExpr)
						switch {
						case !ok || len(n.Args) == 0:
						case sel.Sel.Name == "AfterFunc":
							what = "AfterFunc"
						case sel.Sel.Name == "Go" && !recovers(n.Args[len(n.Args)-1]):
							what = "Go"
						}
					}
					if what != "" && !excused(pkg) && !excused(where) && !excused(where+" "+fn.Name.Name) {
						t.Errorf("%s:%d: %s in %s begins a goroutine whose panic would end PID 1", where, fset.Position(n.Pos()).Line, what, fn.Name.Name)
					}
					return true
				})
			}
		}
	}
	for key, why := range unguarded {
		if !used[key] {
			t.Errorf("%s (%s) is excused, and has no such goroutine", key, why)
		}
	}
}

// recovers reports whether e is a function literal whose first statement defers
// what ends a panic: a literal that calls recover, or one of the functions that do.
func recovers(e ast.Expr) bool {
	lit, ok := e.(*ast.FuncLit)
	if !ok || len(lit.Body.List) == 0 {
		return false
	}
	d, ok := lit.Body.List[0].(*ast.DeferStmt)
	if !ok {
		return false
	}
	switch fun := d.Call.Fun.(type) {
	case *ast.FuncLit:
		found := false
		ast.Inspect(fun.Body, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			found = found || ok && id.Name == "recover"
			return true
		})
		return found
	case *ast.SelectorExpr:
		return slices.Contains([]string{"caught"}, fun.Sel.Name)
	case *ast.Ident:
		return slices.Contains([]string{"caught", "panicked"}, fun.Name)
	}
	return false
}

// TestRecovers: the rule above tells one from the other.
func TestRecovers(t *testing.T) {
	for code, want := range map[string]bool{
		"func() { defer s.caught(w); f() }":                                 true,
		"func() { defer func() { if v := recover(); v != nil {} }(); f() }": true,
		"func() { defer panicked(s, w); f() }":                              true,
		"func() { f() }":                                                    false,
		"func() { f(); defer s.caught(w) }":                                 false,
		"func() { defer close(c); defer s.caught(w) }":                      false,
		"func() { defer func() { close(c) }(); f() }":                       false,
		"f": false,
	} {
		e, err := parser.ParseExpr(code)
		if err != nil {
			t.Fatal(fmt.Errorf("%s: %w", code, err))
		}
		if got := recovers(e); got != want {
			t.Errorf("recovers(%s) = %v, want %v", code, got, want)
		}
	}
}
