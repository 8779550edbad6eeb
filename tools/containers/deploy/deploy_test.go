// Package deploy checks the files of deploy/ with the parsers of those who read
// them: BuildKit, Compose and Kubernetes.
package deploy

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

const top = "../../.." // the repository's folder

// user is what all files are to agree on.
const user = 10001

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var health = []string{"pazinit", "status", "all"}

// parseDockerfile returns the stages and what BuildKit warns of.
func parseDockerfile(data []byte) (stages []instructions.Stage, warnings []string, err error) {
	result, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, nil, err
	}
	for _, w := range result.Warnings {
		warnings = append(warnings, w.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(name, _, _, message string, _ []parser.Range) {
		warnings = append(warnings, name+": "+message)
	}})
	stages, _, err = instructions.Parse(result.AST, lint)
	return stages, warnings, err
}

func TestDockerfile(t *testing.T) {
	stages, warnings, err := parseDockerfile(read(t, "deploy/Dockerfile"))
	if err != nil || len(warnings) != 0 {
		t.Fatalf("parse = %v, warnings %q", err, warnings)
	}
	var names []string
	for _, stage := range stages {
		for _, c := range stage.Commands {
			if c, ok := c.(*instructions.CopyCommand); ok {
				checkCopy(t, c, names)
			}
		}
		names = append(names, stage.Name)
	}
	var got struct {
		entrypoint, health []string
		user, signal       string
	}
	for _, c := range stages[len(stages)-1].Commands {
		switch c := c.(type) {
		case *instructions.EntrypointCommand:
			if c.PrependShell {
				t.Error("ENTRYPOINT goes through a shell")
			}
			got.entrypoint = c.CmdLine
		case *instructions.HealthCheckCommand:
			got.health = c.Health.Test
		case *instructions.UserCommand:
			got.user = c.User
		case *instructions.StopSignalCommand:
			got.signal = c.Signal
		}
	}
	if !slices.Equal(got.entrypoint, []string{"pazinit"}) || got.signal != "SIGTERM" {
		t.Errorf("ENTRYPOINT %q, STOPSIGNAL %q, want pazinit and SIGTERM", got.entrypoint, got.signal)
	}
	if got.user != "10001:10001" { // by number: Kubernetes cannot tell of a name that it is not root
		t.Errorf("USER %q, want 10001:10001", got.user)
	}
	if want := append([]string{"CMD"}, health...); !slices.Equal(got.health, want) {
		t.Errorf("HEALTHCHECK %q, want %q", got.health, want)
	}
}

// checkCopy looks whether there is what is copied.
func checkCopy(t *testing.T, c *instructions.CopyCommand, stages []string) {
	t.Helper()
	if c.From != "" {
		if !slices.Contains(stages, c.From) {
			t.Errorf("COPY --from=%s: no stage before it has that name", c.From)
		}
		return
	}
	for _, source := range c.SourcePaths {
		if _, err := os.Stat(filepath.Join(top, source)); err != nil {
			t.Errorf("COPY: %v", err)
		}
	}
}

func loadCompose(data []byte) (*types.Project, error) {
	details := types.ConfigDetails{
		WorkingDir:  filepath.Join(top, "deploy"),
		ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: data}},
	}
	return loader.LoadWithContext(context.Background(), details, func(o *loader.Options) {
		o.SetProjectName("deploy", true)
	})
}

func TestCompose(t *testing.T) {
	project, err := loadCompose(read(t, "deploy/compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	shop := project.Services["shop"]
	if !shop.ReadOnly || !slices.Equal(shop.CapDrop, []string{"ALL"}) || shop.Init == nil || *shop.Init {
		t.Errorf("read_only %v, cap_drop %q, init %v, want true, ALL, false", shop.ReadOnly, shop.CapDrop, shop.Init)
	}
	if got, want := []string(shop.HealthCheck.Test), append([]string{"CMD"}, health...); !slices.Equal(got, want) {
		t.Errorf("healthcheck %q, want %q", got, want)
	}
	dockerfile, err := filepath.Abs(filepath.Join(shop.Build.Context, shop.Build.Dockerfile))
	if err == nil {
		_, err = os.Stat(dockerfile)
	}
	if err != nil {
		t.Errorf("build: %v", err)
	}
	var written []string
	for _, v := range shop.Volumes {
		written = append(written, v.Target)
	}
	checkWritten(t, append(written, shop.Tmpfs...))
	if grace, stop := time.Duration(*shop.StopGracePeriod), shutdownTimeout(t); grace <= stop {
		t.Errorf("stop_grace_period %v is not above shutdown_timeout %v", grace, stop)
	}
}

// checkWritten looks whether all is there that the workers write to.
func checkWritten(t *testing.T, got []string) {
	t.Helper()
	slices.Sort(got)
	if want := []string{"/srv/shop/redis", "/tmp"}; !slices.Equal(got, want) {
		t.Errorf("writable are %q, want %q", got, want)
	}
}

func loadPod(data []byte) (pod corev1.Pod, err error) {
	err = yaml.UnmarshalStrict(data, &pod)
	return pod, err
}

func TestPod(t *testing.T) {
	pod, err := loadPod(read(t, "deploy/pod.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if pod.APIVersion != "v1" || pod.Kind != "Pod" || pod.Name == "" || len(pod.Spec.Containers) != 1 {
		t.Fatalf("%s %s %q with %d containers, want a v1 Pod with 1", pod.APIVersion, pod.Kind, pod.Name, len(pod.Spec.Containers))
	}
	c := pod.Spec.Containers[0]
	if s := pod.Spec.SecurityContext; !*s.RunAsNonRoot || *s.RunAsUser != user || *s.RunAsGroup != user || *s.FSGroup != user {
		t.Errorf("the pod's securityContext = %v, want user and groups %d", s, user)
	}
	s := c.SecurityContext
	if !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("the container's securityContext = %v, want a read-only root and no privileges", s)
	}
	if got := c.ReadinessProbe.Exec.Command; !slices.Equal(got, health) {
		t.Errorf("readinessProbe %q, want %q", got, health)
	}
	var volumes, mounts, written []string
	for _, v := range pod.Spec.Volumes {
		volumes = append(volumes, v.Name)
	}
	for _, m := range c.VolumeMounts {
		mounts = append(mounts, m.Name)
		written = append(written, m.MountPath)
	}
	slices.Sort(volumes)
	slices.Sort(mounts)
	if !slices.Equal(volumes, mounts) {
		t.Errorf("volumes %q are mounted as %q", volumes, mounts)
	}
	checkWritten(t, written)
	grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	before := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	if stop := shutdownTimeout(t); grace <= before+stop {
		t.Errorf("terminationGracePeriodSeconds %v is not above preStop %v and shutdown_timeout %v", grace, before, stop)
	}
}

// TestRefuses makes sure that the parsers do not let everything pass.
func TestRefuses(t *testing.T) {
	for _, test := range []struct{ file, before, after string }{
		{"deploy/Dockerfile", "STOPSIGNAL", "STOPSIGNALS"},
		{"deploy/Dockerfile", "AS shop", "as shop"}, // a warning
		{"deploy/compose.yaml", "stop_grace_period:", "stop_grace_periods:"},
		{"deploy/compose.yaml", "60s", "a minute"},
		{"deploy/pod.yaml", "terminationGracePeriodSeconds:", "terminationGracePeriod:"},
		{"deploy/pod.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: 1"},
		{"deploy/pod.yaml", "apiVersion: v1", "apiVersion: v1\napiVersion: v1"},
	} {
		data := read(t, test.file)
		bad := bytes.Replace(data, []byte(test.before), []byte(test.after), 1)
		if bytes.Equal(bad, data) {
			t.Errorf("%s has no %q", test.file, test.before)
		}
		var err error
		var warnings []string
		switch test.file {
		case "deploy/Dockerfile":
			_, warnings, err = parseDockerfile(bad)
		case "deploy/compose.yaml":
			_, err = loadCompose(bad)
		default:
			_, err = loadPod(bad)
		}
		if err == nil && len(warnings) == 0 {
			t.Errorf("%s with %q passes", test.file, test.after)
		}
	}
}

// A config is what these tests need of pazinit.yaml.
type config struct {
	ShutdownTimeout string `json:"shutdown_timeout"`
	Applications    map[string]struct {
		Workers map[string]struct {
			Priority    int    `json:"priority"`
			StopTimeout string `json:"stop_timeout"`
		}
	}
}

func loadConfig(t *testing.T) config {
	t.Helper()
	var c config
	if err := yaml.Unmarshal(read(t, "deploy/pazinit.yaml"), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func shutdownTimeout(t *testing.T) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(loadConfig(t).ShutdownTimeout)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestStopOrder adds up the slowest worker of each priority.
func TestStopOrder(t *testing.T) {
	slowest := map[int]time.Duration{}
	for name, w := range loadConfig(t).Applications["shop"].Workers {
		d := 10 * time.Second // the default
		if w.StopTimeout != "" {
			var err error
			if d, err = time.ParseDuration(w.StopTimeout); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		slowest[w.Priority] = max(slowest[w.Priority], d)
	}
	var sum time.Duration
	for _, d := range slowest {
		sum += d
	}
	if stop := shutdownTimeout(t); sum > stop {
		t.Errorf("the workers may take %v to stop, shutdown_timeout is %v", sum, stop)
	}
}

// TestConfiguration lets pazinit check its configuration, with the files where
// the Dockerfile puts them below another root.
func TestConfiguration(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "pazinit")
	build := exec.Command("go", "build", "-o", program, "./cmd/pazinit")
	build.Dir = top // another module
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	text := strings.ReplaceAll(string(read(t, "deploy/pazinit.yaml")), "/srv/shop", dir)
	for name, data := range map[string][]byte{"pazinit.yaml": []byte(text), "Procfile": read(t, "examples/shop/Procfile")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(program, "check", "-c", filepath.Join(dir, "pazinit.yaml")).CombinedOutput(); err != nil {
		t.Errorf("pazinit check: %v\n%s", err, out)
	}
}
