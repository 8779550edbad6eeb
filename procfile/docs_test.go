package procfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	docsFile   = "../docs/configuration.md"
	schemaFile = "../docs/pazinit.schema.json"
	tableBegin = "<!-- The table is generated: go test ./procfile -update -->\n"
	tableEnd   = "<!-- end of the table -->\n"
)

// keyTable is the table of keys in the documentation.
func keyTable() string {
	var b strings.Builder
	b.WriteString("\n| key | level | type | default | what it does |\n| --- | --- | --- | --- | --- |\n")
	for _, k := range table {
		t := k.Type.String()
		if k.Type == TypeInteger || k.Type == TypeIntegers || k.Type == TypeFactor {
			t += fmt.Sprintf(", %d to %d", k.Min, k.Max)
		}
		if len(k.Values) > 0 {
			words := "`" + strings.Join(k.Values, "`, `") + "`"
			if k.Type == TypeWord {
				t = words
			} else {
				t += "; " + words
			}
		}
		def := k.Default
		if def == "" {
			def = "–"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.Name, strings.Join(k.At.Names(), ", "), t, def, k.Doc)
	}
	return b.String() + "\n"
}

// TestDocs holds the generated files against the table of keys.
func TestDocs(t *testing.T) {
	docs, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(docs), tableBegin)
	was, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no marks around the table", docsFile)
	}
	schema, err := os.ReadFile(schemaFile)
	if err != nil && !*update {
		t.Fatal(err)
	}
	if *update {
		for file, text := range map[string]string{
			docsFile: before + tableBegin + keyTable() + tableEnd + after, schemaFile: string(Schema()),
		} {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	if was != keyTable() {
		t.Errorf("the table of %s is not that of the keys; run with -update", docsFile)
	}
	if !bytes.Equal(schema, Schema()) {
		t.Errorf("%s is not that of the keys; run with -update", schemaFile)
	}
}

func TestKeysAreComplete(t *testing.T) {
	sections := []Type{TypeSection, TypeSections, TypeOutput, TypeSectionList, TypeInterfaces}
	seen := make(map[string]bool)
	for _, k := range Keys() {
		if k.Doc == "" || !strings.HasSuffix(k.Doc, ".") || k.At == 0 || k.Type.String() == "" {
			t.Errorf("key %+v", k)
		}
		for i := range levelNames {
			id := fmt.Sprint(k.Name, k.At&(1<<i))
			if k.At&(1<<i) != 0 && seen[id] {
				t.Errorf("%s is twice at one level", k.Name)
			}
			seen[id] = true
		}
		if k.Type == TypeWord && len(k.Values) == 0 || slices.Contains(sections, k.Type) != (k.Inside != 0) {
			t.Errorf("key %+v", k)
		}
	}
	for typ := range numTypes {
		if typ.String() == "" {
			t.Errorf("type %d has no name", typ)
		}
	}
}

// TestExamples loads every example of the documentation.
func TestExamples(t *testing.T) {
	docs, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	machine, err := os.ReadFile("../docs/machine.md")
	if err != nil {
		t.Fatal(err)
	}
	docs = append(docs, machine...)
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(docs), -1)
	if len(examples) < 3 {
		t.Fatalf("%d examples", len(examples))
	}
	for i, e := range examples {
		dir := tree(t, "-- Procfile --\nweb: x\nworker: x\njob: x\n-- p.yaml --\n"+e[1])
		write(t, dir, "prod.env", "")
		if _, err := Load(options(dir)); err != nil {
			t.Errorf("example %d: %v", i, err)
		}
		checkSchema(t, e[1], true)
	}
}

func TestSchema(t *testing.T) {
	_, rest, _ := strings.Cut(everything, "-- p.yaml --\n")
	good, _, _ := strings.Cut(rest, "-- more.yaml")
	checkSchema(t, good, true)
	for _, text := range []string{"applications:", "{}", "applications: {a: {stdout: null, stdin: null, workers: {w: }}}"} {
		checkSchema(t, text, true)
	}
	for _, text := range []string{
		"log_pth: x", "log_path: [x]", "output_ring: 100", "output_ring: 10M", "console_full: drip", "shutdown_timeout: 10", "on_end: sleep",
		"cgroups: {fs_rot: x}", "access: {stauts: [user:x]}", "access: {status: [x]}", "socket_mode: '888'", "socket_mode: 999",
		"applications: {a/b: {}}", "applications: {a: {num_instances: 2}}", "applications: {a: {port_base: 70000}}",
		"applications: {a: {env: {A-B: c}}}", "applications: {a: {env: {A: [b]}}}", "applications: {a: {env: [A]}}",
		"applications: {a: {tty: yes please}}", "applications: {a: {stdout: /x}}", "applications: {a: {stdout: {}}}",
		"applications: {a: {stdout: {file: x, dir: y}}}", "applications: {a: {stop_signal: []}}",
		"applications: {a: {backoff: {jitter: 10}}}", "applications: {a: {backoff: {factor: 0.5}}}",
		"applications: {a: {max_restarts: 0}}", "applications: {a: {max_restarts: many}}", "applications: {a: {retry_after: never}}",
		"applications: {a: {success_codes: [256]}}", "applications: {a: {restart: sometimes}}",
		"applications: {a: {workers: {w: {num_instances: -1}}}}", "applications: {a: {workers: {w: {args: x}}}}",
		"applications: {a: {workers: {w: {chroot: x}}}}", "applications: {a: {user: -1}}",
	} {
		checkSchema(t, text, false)
	}
}

// checkSchema holds a configuration against the schema, and against Load.
func checkSchema(t *testing.T, text string, good bool) {
	t.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(err)
	}
	// What a program that makes a configuration would write.
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatal(err)
	}
	var schema object
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	if err := validate(schema, schema, value, "$"); (err == nil) != good {
		t.Errorf("schema on %s: %v", text, err)
	}
	if !good {
		if _, err := Load(options(tree(t, "-- p.yaml --\n"+text))); err == nil {
			t.Errorf("the schema refuses %s, and Load does not", text)
		}
	}
}

// validate is as much of JSON Schema as ours uses. A word that it does not know
// is an error, so that nothing goes unchecked.
func validate(root, s object, v any, at string) error {
	for word, arg := range s {
		var bad bool
		switch word {
		case "$schema", "$defs", "title", "description", "properties":
		case "$ref":
			def := root["$defs"].(object)[strings.TrimPrefix(arg.(string), "#/$defs/")].(object)
			if err := validate(root, def, v, at); err != nil {
				return err
			}
		case "type":
			bad = true
			types, ok := arg.([]any)
			if !ok {
				types = []any{arg}
			}
			for _, typ := range types {
				if isType(typ.(string), v) {
					bad = false
				}
			}
		case "enum":
			bad = true
			for _, e := range arg.([]any) {
				if e == v {
					bad = false
				}
			}
		case "anyOf", "oneOf":
			fit := 0
			for _, sub := range arg.([]any) {
				if validate(root, sub.(object), v, at) == nil {
					fit++
				}
			}
			bad = fit == 0 || word == "oneOf" && fit > 1
		case "pattern":
			text, ok := v.(string)
			bad = ok && !regexp.MustCompile(arg.(string)).MatchString(text)
		case "minLength":
			text, ok := v.(string)
			bad = ok && len(text) < int(arg.(float64))
		case "minimum":
			n, ok := v.(float64)
			bad = ok && n < arg.(float64)
		case "maximum":
			n, ok := v.(float64)
			bad = ok && n > arg.(float64)
		case "minItems":
			l, ok := v.([]any)
			bad = ok && len(l) < int(arg.(float64))
		case "maxItems":
			l, ok := v.([]any)
			bad = ok && len(l) > int(arg.(float64))
		case "required":
			m, _ := v.(object)
			for _, key := range arg.([]any) {
				if _, ok := m[key.(string)]; !ok {
					bad = true
				}
			}
		case "items":
			l, _ := v.([]any)
			for i, item := range l {
				if err := validate(root, arg.(object), item, fmt.Sprintf("%s[%d]", at, i)); err != nil {
					return err
				}
			}
		case "propertyNames":
			m, _ := v.(object)
			for key := range m {
				if err := validate(root, arg.(object), key, at+"."+key); err != nil {
					return err
				}
			}
		case "additionalProperties":
			m, _ := v.(object)
			known, _ := s["properties"].(object)
			for key, value := range m {
				sub, ok := known[key].(object)
				if !ok {
					if sub, ok = arg.(object); !ok {
						return fmt.Errorf("%s: unknown %s", at, key)
					}
				}
				if err := validate(root, sub, value, at+"."+key); err != nil {
					return err
				}
			}
		default:
			return fmt.Errorf("the test does not know %s", word)
		}
		if bad {
			return fmt.Errorf("%s: %v is not %s %v", at, v, word, arg)
		}
	}
	return nil
}

func isType(typ string, v any) bool {
	switch x := v.(type) {
	case nil:
		return typ == "null"
	case bool:
		return typ == "boolean"
	case string:
		return typ == "string"
	case float64:
		return typ == "number" || typ == "integer" && x == float64(int64(x))
	case []any:
		return typ == "array"
	case object:
		return typ == "object"
	}
	return false
}

// TestImports keeps what PID 1 must not carry out of this package.
func TestImports(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	bad := regexp.MustCompile(`(?m)^\s*"(net|net/http|os/exec|regexp|text/template|html|log/slog|reflect|github.com/pazinit/.*)"$`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if m := bad.FindString(string(data)); m != "" {
			t.Errorf("%s imports %s", file, m)
		}
	}
}
