// Package qemu boots virtual machines whose first process is pazinit. The tests
// (tag qemu) and `make vm` need QEMU, a kernel and a static busybox:
// scripts/fetch-kernel. Those for arm64 run where `scripts/fetch-kernel arm64` did,
// those with containers where scripts/fetch-crun did.
package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// An Arch is what is special to the machines of an architecture.
type Arch struct {
	Program      string // the QEMU
	machine, cpu string
	cmdline      string
	serial       []string // QEMU's arguments for the second serial line
	second       string   // the kernel's name of that
}

var (
	// AMD64 is what all machines are, but for some tests'.
	AMD64 = Arch{
		Program: "qemu-system-x86_64", machine: "q35", cpu: "max",
		cmdline: "console=ttyS0 no_timer_check", serial: []string{"-serial", "chardev:agent"}, second: "ttyS1",
	}
	// ARM64 computes pointer authentication in QEMU's own way: the architecture's takes
	// most of the time.
	ARM64 = Arch{
		Program: "qemu-system-aarch64", machine: "virt", cpu: "max,pauth-impdef=on",
		cmdline: "console=ttyAMA0", serial: []string{"-device", "pci-serial,chardev=agent"}, second: "ttyS0",
	}
)

// Agent is a line of /start that makes [VM.Ready] and [VM.Sh] work.
const Agent = "setsid agent </dev/$agent >/dev/$agent 2>&1 &\n"

// A Config is one machine.
type Config struct {
	Arch    Arch
	Kernel  string // a bzImage, or an Image for arm64
	Files   Files
	Cmdline string // added to what every machine gets
	Accel   string // kvm or tcg, see [Accel]
	Limit   time.Duration
}

// Args are the arguments for QEMU, but for the serial lines. initrd is an archive
// that was written to a file.
func Args(c Config, initrd string) []string {
	return []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", c.Arch.machine + ",accel=" + c.Accel, "-cpu", c.Arch.cpu, "-smp", "2", "-m", "512",
		"-kernel", c.Kernel, "-initrd", initrd,
		// A slow host makes the kernel see stalls and broken timers. After a panic it reboots,
		// which -no-reboot makes the end of QEMU.
		"-append", c.Arch.cmdline + " loglevel=5 panic=-1 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 agent=" + c.Arch.second + " " + c.Cmdline,
	}
}

// A VM is a machine that was booted. Nothing waits longer than its limit.
type VM struct {
	ctx     context.Context
	ended   chan struct{}
	keys    io.WriteCloser // of the console
	agent   net.Conn
	replies *bufio.Reader

	mu      sync.Mutex
	console bytes.Buffer
	news    chan struct{} // closed and renewed whenever console grows
}

// Boot starts a machine. When the limit has passed, ctx is done or this process
// has ended, it is killed.
func Boot(ctx context.Context, c Config) (*VM, error) {
	dir, err := os.MkdirTemp("", "pazinit-vm")
	if err != nil {
		return nil, err
	}
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, Archive(c.Files), 0o644); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	ours, its, err := pair()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	ctx, cancel := context.WithTimeout(ctx, c.Limit)
	v := &VM{ctx: ctx, ended: make(chan struct{}), agent: ours, replies: bufio.NewReader(ours), news: make(chan struct{})}
	cmd := exec.CommandContext(ctx, c.Arch.Program, slices.Concat(Args(c, initrd), []string{"-serial", "stdio", "-chardev", "socket,id=agent,fd=3"}, c.Arch.serial)...)
	cmd.Stdout, cmd.Stderr = v, v
	if v.keys, err = cmd.StdinPipe(); err != nil {
		cancel()
		return nil, errors.Join(err, ours.Close(), its.Close(), os.RemoveAll(dir))
	}
	cmd.ExtraFiles = []*os.File{its}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // its end would be the parent's death
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // being killed is an end, too
		}
		cancel()
		ours.Close()
		its.Close()
		os.RemoveAll(dir)
		close(v.ended)
	}()
	return v, <-started
}

// pair is a connection and its other end as a file for a child.
func pair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, its := os.NewFile(uintptr(fds[0]), "agent"), os.NewFile(uintptr(fds[1]), "agent")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		its.Close()
		return nil, nil, err
	}
	return conn, its, nil
}

// Write takes what the machine prints.
func (v *VM) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.news)
	v.news = make(chan struct{})
	return v.console.Write(p)
}

// Type types on the console.
func (v *VM) Type(text string) error {
	_, err := io.WriteString(v.keys, text)
	return err
}

// Console is the lines that were printed until now, without colours.
func (v *VM) Console() string {
	text, _ := v.printed()
	return text
}

func (v *VM) printed() (string, chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	lines := v.console.Bytes()
	lines = lines[:bytes.LastIndexByte(lines, '\n')+1]
	return style.ReplaceAllString(string(lines), ""), v.news
}

var style = regexp.MustCompile("\x1b\\[[0-9;]*m|\r")

// Until waits until the lines of the console have the nth match of a pattern, and
// reports it with its groups.
func (v *VM) Until(pattern string, n int) ([]string, error) {
	re := regexp.MustCompile("(?m)" + pattern)
	for ended := false; ; {
		console, news := v.printed()
		if all := re.FindAllStringSubmatch(console, n); len(all) == n {
			return all[n-1], nil
		}
		if ended {
			return nil, v.failed(fmt.Sprintf("wait for %q, %d times", pattern, n))
		}
		select {
		case <-news:
		case <-v.ended:
			ended = true
		}
	}
}

// Ready waits until the machine's agent answers.
func (v *VM) Ready() error {
	line, err := v.replies.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "ready" {
		<-v.ended
		return v.failed("wait for user space")
	}
	return nil
}

// Sh has the machine carry out a shell script outside of all workers, and reports
// what it printed, and its status.
func (v *VM) Sh(script string) (out string, status int, err error) {
	if _, err := io.WriteString(v.agent, base64.StdEncoding.EncodeToString([]byte(script))+"\n"); err != nil {
		return "", 0, v.failed("run " + script)
	}
	line, err := v.replies.ReadString('\n')
	if err != nil {
		return "", 0, v.failed("run " + script)
	}
	text, code, _ := strings.Cut(strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), " ")
	b, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		status, err = strconv.Atoi(code)
	}
	if err != nil {
		return "", 0, fmt.Errorf("read the answer %q: %w", line, err)
	}
	return string(b), status, nil
}

// Post is Sh for a script that ends the machine: nothing answers.
func (v *VM) Post(script string) error {
	_, err := io.WriteString(v.agent, base64.StdEncoding.EncodeToString([]byte(script))+"\n")
	return err
}

// Wait waits until the machine has ended by itself.
func (v *VM) Wait() error {
	<-v.ended
	if errors.Is(v.ctx.Err(), context.DeadlineExceeded) {
		return v.failed("wait for the machine's end")
	}
	return nil
}

// Kill ends the machine.
func (v *VM) Kill(cancel context.CancelFunc) {
	cancel()
	<-v.ended
}

func (v *VM) failed(what string) error {
	if errors.Is(v.ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s: the machine's time is up", what)
	}
	return fmt.Errorf("%s: the machine has ended", what)
}

// Accel finds out what machines can use. That /dev/kvm can be opened proves
// nothing, a machine that reaches user space does. PAZINIT_ACCEL answers instead.
func Accel(c Config) (accel, why string, err error) {
	if out, err := exec.Command(c.Arch.Program, "--version").CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("run %s (scripts/fetch-kernel installs it): %w\n%s", c.Arch.Program, err, out)
	}
	if accel := os.Getenv("PAZINIT_ACCEL"); accel != "" {
		return accel, "PAZINIT_ACCEL says so", nil
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return "tcg", err.Error(), nil
	}
	f.Close()
	c.Accel, c.Limit = "kvm", 10*time.Second
	ctx, cancel := context.WithCancel(context.Background())
	v, err := Boot(ctx, c)
	if err == nil {
		err = v.Ready()
		v.Kill(cancel)
	}
	cancel()
	if err != nil {
		return "tcg", "a machine with kvm does not work: " + err.Error(), nil
	}
	return "kvm", "a machine with it works", nil
}

// Cache is the folder that scripts/fetch-kernel fills: vm in PAZINIT_CACHE, or in
// pazinit of the user's cache folder.
func Cache() (string, error) {
	dir := os.Getenv("PAZINIT_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the kernels: %w; PAZINIT_CACHE can say it", err)
		}
		dir = filepath.Join(user, "pazinit")
	}
	return filepath.Join(dir, "vm"), nil
}

// Kernels are those of PAZINIT_KERNELS (paths, with colons between), or those that
// scripts/fetch-kernel has put into the cache.
func Kernels(cache string) ([]string, error) {
	if list := os.Getenv("PAZINIT_KERNELS"); list != "" {
		return strings.Split(list, ":"), nil
	}
	found, err := filepath.Glob(filepath.Join(cache, "amd64/*/boot/vmlinuz-*"))
	if err == nil && len(found) == 0 {
		err = errors.New("find a kernel below " + cache + ": there is none; scripts/fetch-kernel brings one, PAZINIT_KERNELS names others")
	}
	return found, err
}

// Busybox is a static one: PAZINIT_BUSYBOX, or that of scripts/fetch-kernel.
func Busybox(cache string) string {
	if name := os.Getenv("PAZINIT_BUSYBOX"); name != "" {
		return name
	}
	return filepath.Join(cache, "amd64/busybox/bin/busybox")
}
