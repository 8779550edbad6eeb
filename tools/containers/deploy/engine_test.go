//go:build engine

package deploy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// policy forbids the packages to start their services, as in Debian's image.
const policy = "#!/bin/sh\nexit 101\n"

// An engine is a podman with a storage of its own.
type engine struct {
	t      *testing.T
	dir    string
	global []string
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root")
	}
	dir, err := os.MkdirTemp("", "pazinit-deploy-")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t: t, dir: dir, global: []string{"--root", dir + "/root", "--runroot", dir + "/run", "--cgroup-manager", "cgroupfs", "--runtime", "runc"}}
	t.Cleanup(func() {
		e.podman("pod", "rm", "--all", "--force")
		e.podman("rm", "--all", "--force", "--time", "0")
		e.podman("volume", "prune", "--force")
		e.podman("rmi", "--all", "--force")
		if out, err := exec.Command("sh", "-c", `umount "$1" 2>/dev/null; rm -rf --one-file-system "$2"`, "sh", dir+"/root/overlay", dir).CombinedOutput(); err != nil {
			t.Errorf("clean up: %v\n%s", err, out)
		}
	})
	return e
}

func (e *engine) podman(args ...string) (code int, stdout, stderr string) {
	e.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("podman", slices.Concat(e.global, args)...)
	cmd.Dir = top
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+e.dir+"/containers.conf")
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		e.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func (e *engine) must(args ...string) string {
	e.t.Helper()
	code, stdout, stderr := e.podman(args...)
	if code != 0 {
		e.t.Fatalf("podman %q ends with %d\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

func (e *engine) run(name string, args ...string) {
	e.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		e.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func (e *engine) write(name, text string) {
	e.t.Helper()
	if err := os.WriteFile(filepath.Join(e.dir, name), []byte(text), 0o755); err != nil {
		e.t.Fatal(err)
	}
}

// images makes what the Dockerfile begins with out of Debian's packages and this
// Go, since nothing is pulled: debian:12-slim, golang:1.26 and pazinit.
func (e *engine) images() {
	e.t.Helper()
	e.write("containers.conf", "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n")
	e.write("policy-rc.d", policy)
	e.run("mmdebstrap", "--quiet", "--variant=apt", "--format=tar", "bookworm", e.dir+"/debian.tar")
	e.write("debian", "FROM scratch\nADD debian.tar /\nCOPY policy-rc.d /usr/sbin/policy-rc.d\n")
	e.build("docker.io/library/debian:12-slim", e.dir+"/debian", e.dir)
	e.run("cp", "-a", runtime.GOROOT(), e.dir+"/goroot")
	e.write("golang", "FROM docker.io/library/debian:12-slim\nCOPY goroot /usr/local/go\n"+
		"ENV PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n")
	e.build("docker.io/library/golang:1.26", e.dir+"/golang", e.dir)
	e.must("load", "--input", "out/pazinit.oci.tar")
}

func (e *engine) build(name, dockerfile, folder string) {
	e.t.Helper()
	e.must("build", "--isolation", "chroot", "--pull=never", "--format", "docker", "--tag", name, "--file", dockerfile, folder)
}

// TestEngine builds the Dockerfile and runs the image as compose.yaml and pod.yaml
// say, but for the network. It takes root, podman, runc, mmdebstrap, catatonit, a
// mirror of Debian, two minutes, and the archive of make image.
func TestEngine(t *testing.T) {
	e := newEngine(t)
	e.images()
	e.build("shop", "deploy/Dockerfile", ".")
	t.Run("compose", func(t *testing.T) {
		e.t = t
		project, err := loadCompose(read(t, "deploy/compose.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		s := project.Services["shop"]
		args := []string{"run", "--detach", "--name", "compose", "--network", "none", "--read-only=" + strconv.FormatBool(s.ReadOnly), "--read-only-tmpfs=false"}
		for _, dir := range s.Tmpfs {
			args = append(args, "--tmpfs", dir)
		}
		for _, v := range s.Volumes {
			args = append(args, "--volume", v.Source+":"+v.Target)
		}
		for _, c := range s.CapDrop {
			args = append(args, "--cap-drop", c)
		}
		for _, o := range s.SecurityOpt {
			args = append(args, "--security-opt", strings.TrimSuffix(o, ":true"))
		}
		args = append(args, "--stop-timeout", fmt.Sprint(int(time.Duration(*s.StopGracePeriod).Seconds())), s.Image)
		e.must(args...)
		e.shop("compose")
		e.must("stop", "compose")
		e.ended("compose")
	})
	t.Run("pod", func(t *testing.T) {
		e.t = t
		// Without a network there are no ports.
		pod := regexp.MustCompile(`(?m)^      ports:\n(?:        .*\n)+`).ReplaceAllString(string(read(t, "deploy/pod.yaml")), "")
		e.write("pod.yaml", pod)
		e.must("kube", "play", "--network", "none", e.dir+"/pod.yaml")
		e.shop("shop-shop")
		e.must("pod", "stop", "shop")
		e.ended("shop-shop")
	})
}

// until follows a container's log until each of the texts was in a line of it.
func (e *engine) until(name string, texts ...string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "podman", slices.Concat(e.global, []string{"logs", "--follow", name})...)
	r, w, err := os.Pipe()
	if err != nil {
		e.t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	var log []string
	for lines := bufio.NewScanner(r); len(texts) > 0 && lines.Scan(); {
		log = append(log, lines.Text())
		texts = slices.DeleteFunc(texts, func(text string) bool { return strings.Contains(lines.Text(), text) })
	}
	if len(texts) > 0 {
		e.t.Fatalf("%q are not in the log of %s\n%s", texts, name, strings.Join(log, "\n"))
	}
}

// shop looks whether the shop does its work in that container.
func (e *engine) shop(name string) {
	e.t.Helper()
	e.until(name, "listening on 127.0.0.1:18700", "listening on 127.0.0.1:18701", "Ready to accept connections", "start worker process ")
	if code, stdout, stderr := e.podman(append([]string{"exec", name}, health...)...); code != 0 || strings.Count(stdout, "RUNNING") != 6 {
		e.t.Errorf("%q ends with %d\n%s%s", health, code, stdout, stderr)
	}
	get := `exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && cat <&3`
	if got := e.must("exec", name, "bash", "-c", get); !strings.Contains(got, "\nvisit ") {
		e.t.Errorf("the shop answers %q", got)
	}
	if got := strings.TrimSpace(e.must("exec", name, "id", "-u")); got != strconv.Itoa(user) {
		e.t.Errorf("the workers' user = %s, want %d", got, user)
	}
}

// ended looks whether the container came to its end by itself, in time.
func (e *engine) ended(name string) {
	e.t.Helper()
	if got := strings.TrimSpace(e.must("inspect", "--format", "{{.State.ExitCode}}", name)); got != "0" {
		e.t.Errorf("exit status = %s, want 0", got)
	}
	_, stdout, stderr := e.podman("logs", name)
	if log := stdout + stderr; !strings.Contains(log, "ended with status 0: SIGTERM") || strings.Contains(log, "SIGKILL") {
		e.t.Errorf("the log says\n%s", log)
	}
}
