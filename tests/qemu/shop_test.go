//go:build qemu

package qemu

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pazinit/pazinit/tests/rig"
)

// TestShop boots what `make vm` does: the shop in an image that pazinit made, asked
// from outside, with a shell on the console.
func TestShop(t *testing.T) {
	t.Parallel()
	h, err := host()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := Bookworm(h.cache)
	rig.Need(t, "bookworm", err)
	for _, program := range []string{"redis-server", "nginx"} {
		_, err := exec.LookPath(program)
		rig.Need(t, program, err)
	}
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	build := exec.Command("make", "-C", root, "shop")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the shop: %v\n%s", err, out)
	}
	image := filepath.Join(t.TempDir(), "shop.img")
	if err := Shop(rig.Binary, Busybox(h.cache, AMD64), filepath.Join(root, "examples/vm/pazinit.yaml"), image, kernel); err != nil {
		t.Fatal(err)
	}
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	m := bootAs(t, Config{
		Arch: AMD64, Kernel: kernel.Image, Initrd: image, Accel: h.accel, Limit: patience, Panic: "-1", Args: Door(port),
	}, "")
	for _, worker := range []string{"redis", "web", "consumer", "tidy", "nginx"} {
		m.see("shop:"+worker+`\.1 is RUNNING`, 1)
	}
	m.see(`host:door\.1 is RUNNING`, 1)
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	text := ""
	for m.ctx.Err() == nil { // until it answers: workers tell nothing of being ready
		if text, err = get(m.ctx, url); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil || text == "" {
		t.Errorf("GET %s = %q, %v", url, text, err)
	}
	m.must(m.Type("hostname; pazinit status | grep -c RUNNING; pazinit signal KILL redis\n"))
	m.see(`(^|# )shop$`, 1)
	m.see(`shop:redis\.1 is RUNNING`, 2)
	m.must(m.Type("pazinit poweroff\n"))
	m.see(`reboot: Power down`, 1)
	m.ends()
}

func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %s", response.Status, strings.TrimSpace(string(body)))
	}
	return string(body), err
}

// freePort is one that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
