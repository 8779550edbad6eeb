// Package qemu boots virtual machines whose first process is pazinit. The tests
// (tag qemu) and `make vm` need QEMU, kernels and a static busybox:
// scripts/fetch-kernel. Those for arm64 run where `scripts/fetch-kernel arm64` did,
// those with containers where scripts/fetch-crun did.
package qemu

import (
	"bytes"
	"context"
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
	"sync"
	"syscall"
	"time"

	"github.com/pazinit/pazinit/initramfs"
)

// An Arch is what is special to the machines of an architecture.
type Arch struct {
	Name         string // Debian's and Go's
	Program      string // the QEMU
	machine, cpu string
	cmdline      string
}

var (
	// AMD64 is what all machines are, but for some tests'.
	AMD64 = Arch{
		Name: "amd64", Program: "qemu-system-x86_64", machine: "q35", cpu: "max",
		cmdline: "console=ttyS0 no_timer_check",
	}
	// ARM64 computes pointer authentication in QEMU's own way: the architecture's takes
	// most of the time.
	ARM64 = Arch{
		Name: "arm64", Program: "qemu-system-aarch64", machine: "virt", cpu: "max,pauth-impdef=on",
		cmdline: "console=ttyAMA0",
	}
)

// Port is the name of the virtio console's port that the guest's agent talks over.
const Port = "pazinit.test"

// A Config is one machine.
type Config struct {
	Arch    Arch
	Kernel  string // a bzImage, or an Image for arm64
	Image   *initramfs.Image
	Initrd  string // instead of Image: a file with one, or /dev/null for none
	Cmdline string // added to what every machine gets
	Accel   string // kvm or tcg, see [Accel]
	Memory  int    // in MiB, 0 is 512
	Limit   time.Duration
	Reboots bool     // a reset starts it again; else it ends the machine
	Panic   string   // panic= of the kernel, "-1" is at once, "" is none
	Args    []string // more for QEMU
	Dir     string   // which paths in them are in
}

// Args are the arguments for QEMU, but for what its ends are connected with. initrd
// is an image that was written to a file.
func Args(c Config, initrd string) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", c.Arch.machine + ",accel=" + c.Accel, "-cpu", c.Arch.cpu, "-smp", "2", "-m", strconv.Itoa(max(c.Memory, 0) + b2i(c.Memory == 0)*512),
		"-kernel", c.Kernel,
	}
	if initrd != os.DevNull {
		args = append(args, "-initrd", initrd)
	}
	// A slow host makes the kernel see stalls and broken timers.
	line := c.Arch.cmdline + " loglevel=5 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 " + c.Cmdline
	if c.Panic != "" {
		line += " panic=" + c.Panic
	}
	args = append(args, "-append", line)
	if !c.Reboots {
		args = append(args, "-no-reboot")
	}
	return append(args, c.Args...)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A VM is a machine that was booted. Nothing waits longer than its limit.
type VM struct {
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}
	pid    int            // of QEMU
	status int            // of QEMU, once it has ended
	keys   io.WriteCloser // of the console
	agent  link
	qmp    link

	mu      sync.Mutex
	console bytes.Buffer
	news    chan struct{} // closed and renewed whenever anything was learned
}

// Boot starts a machine. When the limit has passed, ctx is done or this process
// has ended, it is killed.
func Boot(ctx context.Context, c Config) (*VM, error) {
	dir, err := os.MkdirTemp("", "pazinit-vm")
	if err != nil {
		return nil, err
	}
	v := &VM{ended: make(chan struct{}), news: make(chan struct{})}
	v.ctx, v.cancel = context.WithTimeout(ctx, c.Limit)
	var its []*os.File
	clean := func() {
		v.cancel()
		for _, f := range its {
			f.Close()
		}
		os.RemoveAll(dir)
	}
	initrd := c.Initrd
	if initrd == "" {
		initrd = filepath.Join(dir, "initrd")
		if err := writeImage(c.Image, initrd); err != nil {
			clean()
			return nil, err
		}
	}
	for _, l := range []*link{&v.agent, &v.qmp} {
		conn, file, err := pair()
		if err != nil {
			clean()
			return nil, err
		}
		l.init(v, conn)
		its = append(its, file)
	}
	cmd := exec.CommandContext(v.ctx, c.Arch.Program, slices.Concat(Args(c, initrd), []string{
		"-serial", "stdio",
		"-chardev", "socket,id=agent,fd=3", "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=" + Port,
		"-chardev", "socket,id=qmp,fd=4", "-mon", "chardev=qmp,mode=control",
	})...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = v, v, c.Dir
	if v.keys, err = cmd.StdinPipe(); err != nil {
		clean()
		return nil, err
	}
	cmd.ExtraFiles = its
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // its end would be the parent's death
		err := cmd.Start()
		if err == nil {
			v.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // being killed is an end, too
			v.status = cmd.ProcessState.ExitCode()
		}
		clean()
		v.agent.conn.Close()
		v.qmp.conn.Close()
		close(v.ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	go v.agent.read()
	go v.qmp.read()
	return v, v.qmp.send(map[string]any{"execute": "qmp_capabilities"})
}

func writeImage(m *initramfs.Image, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(m.Write(f), f.Close())
}

// pair is a connection with a child.
func pair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, its := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "its")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		its.Close()
		return nil, nil, err
	}
	return conn, its, nil
}

// changed tells who waits that something was learned; mu is held.
func (v *VM) changed() {
	close(v.news)
	v.news = make(chan struct{})
}

// wait waits until done, which is called with mu held, has what it wants.
func (v *VM) wait(what string, done func() bool) error {
	for ended := false; ; {
		v.mu.Lock()
		ok, news := done(), v.news
		v.mu.Unlock()
		if ok {
			return nil
		}
		if ended {
			return v.failed("wait for " + what)
		}
		select {
		case <-news:
		case <-v.ended:
			ended = true
		}
	}
}

// Write takes what the machine prints.
func (v *VM) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.changed()
	return v.console.Write(p)
}

// Type types on the console.
func (v *VM) Type(text string) error {
	_, err := io.WriteString(v.keys, text)
	return err
}

// Console is the lines that were printed until now, without colours.
func (v *VM) Console() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lines()
}

func (v *VM) lines() string {
	text := v.console.Bytes()
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	return style.ReplaceAllString(string(text), "")
}

var style = regexp.MustCompile("\x1b\\[[0-9;?]*[a-zA-Z]|\x1bc|\r")

// Until waits until the lines of the console have the nth match of a pattern, and
// reports it with its groups.
func (v *VM) Until(pattern string, n int) (match []string, err error) {
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return nil, err
	}
	return match, v.wait(fmt.Sprintf("%q on the console, %d times", pattern, n), func() bool {
		all := re.FindAllStringSubmatch(v.lines(), n)
		if len(all) < n {
			return false
		}
		match = all[n-1]
		return true
	})
}

// Wait waits until the machine has ended by itself, and reports QEMU's status.
func (v *VM) Wait() (int, error) {
	<-v.ended
	if errors.Is(v.ctx.Err(), context.DeadlineExceeded) {
		return 0, v.failed("wait for the machine's end")
	}
	return v.status, nil
}

// Kill ends the machine as if its power were cut.
func (v *VM) Kill() {
	v.cancel()
	<-v.ended
}

func (v *VM) failed(what string) error {
	if errors.Is(v.ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s: the machine's time is up", what)
	}
	return fmt.Errorf("%s: the machine has ended", what)
}
