package bundle

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestWrite(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, place := range Places(program) {
		dir := t.TempDir()
		s := Spec{Args: []string{"pazinit", "run"}, Files: Busybox(program, program, program)}
		s.Files["/etc/x"] = File{Text: "text", Mode: 0o600}
		place.Set(&s)
		s.Users = nil // needs root
		if err := Write(dir, s); err != nil {
			t.Fatalf("Write(%s) = %v, want no error", place.Name, err)
		}
		var config struct {
			Process struct{ Args []string }
			Mounts  []Mount
		}
		b, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err == nil {
			err = json.Unmarshal(b, &config)
		}
		if err != nil || !slices.Equal(config.Process.Args, s.Argv()) || len(config.Mounts) < 5 {
			t.Errorf("%s: config.json = %+v, %v, want the arguments %q and mounts", place.Name, config, err, s.Argv())
		}
		for name, want := range map[string]string{"bin/pazinit": "program", "bin/sh": "program", "etc/x": "text"} {
			if got, err := os.ReadFile(filepath.Join(dir, "rootfs", name)); string(got) != want {
				t.Errorf("%s: %s = %q, %v, want %q", place.Name, name, got, err, want)
			}
		}
	}
}
