package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/initramfs"
	"github.com/pazinit/pazinit/tests/qemu"
	"github.com/pazinit/pazinit/tests/rig"
)

// An initial is a program that can be the first process of a machine. Its one
// worker is /bin/boot, of c/boot.c.
type initial struct {
	name  string
	root  string            // the folder that its programs and their libraries are from
	bring map[string]string // those programs, by where they go
	files map[string]string // contents; those that begin with #! are executable
	links map[string]string // symbolic links
	// busybox says that it needs /bin/busybox.
	busybox bool
	// powers says that it knows how to power off.
	powers bool
	// made makes its image instead.
	made func(out string) error
}

// mounts are those of an init that gives its workers what they are used to.
const mounts = `b=/bin/busybox
$b mount -t proc -o nosuid,noexec,nodev proc /proc
$b mount -t sysfs -o nosuid,noexec,nodev sysfs /sys
$b mount -t devtmpfs -o nosuid devtmpfs /dev
$b mkdir -p /dev/pts /dev/shm
$b mount -t devpts -o gid=5,mode=620 devpts /dev/pts
$b mount -t tmpfs -o nosuid,nodev shm /dev/shm
$b mount -t tmpfs -o nosuid,nodev,mode=755 run /run
$b mount -t tmpfs -o nosuid,nodev,mode=1777 tmp /tmp
$b mount -t cgroup2 cgroup2 /sys/fs/cgroup
$b hostname machine
$b ifconfig lo up
`

// initials are those that are compared; the ratios are to the first one.
func (b *bench) initials(cache string) []initial {
	runit := func(script string) initial {
		return initial{
			root:    filepath.Join(cache, "amd64/runit"),
			bring:   map[string]string{"/init": "/sbin/runit", "/bin/runsvdir": "/usr/bin/runsvdir", "/bin/runsv": "/usr/bin/runsv", "/bin/sv": "/usr/bin/sv"},
			links:   map[string]string{"/etc/service/w/run": "/bin/boot"},
			busybox: true,
			files: map[string]string{
				"/etc/runit/1": "#!/bin/busybox sh\n" + script,
				"/etc/runit/2": "#!/bin/busybox sh\nexec /bin/runsvdir /etc/service\n",
				"/etc/runit/3": "#!/bin/busybox sh\n/bin/sv -w 10 force-stop /etc/service/w\n",
			},
			powers: true,
		}
	}
	list := []initial{
		{
			name: "busybox init", powers: true, busybox: true, links: map[string]string{"/init": "/bin/busybox"},
			files: map[string]string{"/etc/inittab": "::once:/bin/boot\n"},
		},
		{
			name: "busybox init, mounts", powers: true, busybox: true, links: map[string]string{"/init": "/bin/busybox"},
			files: map[string]string{"/etc/inittab": "::sysinit:/etc/rc\n::once:/bin/boot\n", "/etc/rc": "#!/bin/busybox sh\n" + mounts},
		},
		runit(""), runit(mounts),
		{name: "the worker itself", powers: true, links: map[string]string{"/init": "/bin/boot"}},
		{name: "plain Go", root: b.dir, bring: map[string]string{"/init": "/boot-go"}},
		{name: "pazinit", powers: true, made: func(out string) error { return b.bootImage(b.pazinit, out) }},
	}
	list[2].name, list[3].name = "runit", "runit, mounts"
	if b.against != "" {
		list = append(list, initial{name: "pazinit -against", powers: true, made: func(out string) error { return b.bootImage(b.against, out) }})
	}
	return list
}

// bootImage has pazinit make its image by itself.
func (b *bench) bootImage(pazinit, out string) error {
	config := filepath.Join(b.dir, "pazinit.yaml")
	if err := os.WriteFile(config, []byte("applications: {app: {workers: {w: {run: /bin/boot}}}}\n"), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(b.ctx, pazinit, "initramfs", "-c", config, "--file", b.boot+":/bin/boot", "--compress", "none", "-o", out)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, text)
	}
	return nil
}

// image makes what the kernel unpacks.
func (b *bench) image(in initial, busybox, out string) error {
	if in.made != nil {
		return in.made(out)
	}
	m := initramfs.New()
	err := errors.Join(m.AddBase(), m.AddFile(b.boot, "/bin/boot"))
	for name, text := range in.files {
		mode := uint32(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		err = errors.Join(err, m.Add(name, initramfs.Data(mode, []byte(text))))
	}
	for name, to := range in.links {
		err = errors.Join(err, m.Add(name, initramfs.Symlink(to)))
	}
	if in.busybox {
		err = errors.Join(err, m.AddFile(busybox, "/bin/busybox"))
	}
	for name, file := range in.bring {
		err = errors.Join(err, m.AddFile(filepath.Join(in.root, file), name))
		lacking, e := m.AddNeeded(name, initramfs.Search{Root: &initramfs.Root{Dir: in.root}})
		err = errors.Join(err, e)
		for _, l := range lacking {
			err = errors.Join(err, l)
		}
	}
	f, e := os.Create(out)
	if err = errors.Join(err, e); err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(m.Write(f), f.Close())
}

// A booted machine has told this.
type booted struct {
	start           float64 // ms from Run /init to the worker's first instruction
	free, available float64 // MiB
	off             float64 // ms from the request to QEMU's end
	ended           bool    // by itself
	console         string
}

var (
	runLine   = regexp.MustCompile(`^bench: <\d+>\[ *([0-9.]+)\] Run /init`)
	firstLine = regexp.MustCompile(`^bench: <\d+>\[ *([0-9.]+)\] bench: first (\d+) ns ago`)
	memLine   = regexp.MustCompile(`^bench: (MemFree|MemAvailable): *(\d+) kB`)
)

// bootLimit is a machine's time.
const bootLimit = time.Minute

// machine boots one with mem MiB. One that powers has to end by itself.
func (b *bench) machine(kernel, initrd string, mem int, powers bool) (out booted, err error) {
	ctx, cancel := context.WithTimeout(b.ctx, bootLimit)
	defer cancel()
	args := qemu.Args(qemu.Config{Arch: qemu.AMD64, Kernel: kernel, Accel: b.accel, Memory: mem}, initrd)
	cmd := exec.CommandContext(ctx, qemu.AMD64.Program, append(args, "-serial", "stdio")...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return out, err
	}
	if err := cmd.Start(); err != nil {
		return out, err
	}
	var run, first float64
	var asked time.Time
	for scan := bufio.NewScanner(pipe); scan.Scan(); {
		line := strings.TrimRight(scan.Text(), "\r")
		out.console += line + "\n"
		if m := runLine.FindStringSubmatch(line); m != nil {
			run, _ = strconv.ParseFloat(m[1], 64)
		} else if m := firstLine.FindStringSubmatch(line); m != nil && first == 0 {
			ns, _ := strconv.ParseFloat(m[2], 64)
			first, _ = strconv.ParseFloat(m[1], 64)
			out.start = (first-run)*1e3 - ns/1e6
		} else if m := memLine.FindStringSubmatch(line); m != nil {
			kib, _ := strconv.ParseFloat(m[2], 64)
			if m[1] == "MemFree" {
				out.free = kib / 1024
			} else {
				out.available = kib / 1024
			}
		} else if line == "bench: off" {
			asked = time.Now()
			if !powers {
				cancel()
			}
		}
	}
	err = cmd.Wait()
	if !asked.IsZero() {
		out.off = time.Since(asked).Seconds() * 1e3
	}
	out.ended = err == nil
	return out, b.ctx.Err()
}

// kernel is the one that machines are measured with, that of bookworm unless
// PAZINIT_KERNELS says otherwise, and the cache that it is from.
func (b *bench) kernel() (cache, kernel string, err error) {
	if cache, err = qemu.Cache(); err != nil {
		return "", "", err
	}
	k, err := qemu.Bookworm(cache)
	if err != nil {
		return "", "", err
	}
	probe, err := qemu.NewImage(qemu.Parts{Pazinit: b.pazinit, Busybox: qemu.Busybox(cache, qemu.AMD64)}, nil)
	if err != nil {
		return "", "", err
	}
	var why string
	b.accel, why, err = qemu.Accel(qemu.Config{Arch: qemu.AMD64, Kernel: k.Image, Image: probe})
	fmt.Fprintf(os.Stderr, "bench: machines use %s: %s\n", b.accel, why)
	return cache, k.Image, err
}

// bootMachines measures the first process of a machine.
func (b *bench) bootMachines() error {
	if runtime.GOARCH != "amd64" {
		b.table.section("the first process of a machine")
		b.table.add(row{What: "not measured", Note: "the worker and the rivals are amd64's"})
		return nil
	}
	root, err := rig.Root()
	if err != nil {
		return err
	}
	cache, kernel, err := b.kernel()
	if err != nil {
		return err
	}
	b.boot, b.bootGo = filepath.Join(b.dir, "boot"), filepath.Join(b.dir, "boot-go")
	for _, argv := range [][]string{
		{"cc", "-static", "-nostdlib", "-O2", "-fno-stack-protector", "-fno-builtin", "-o", b.boot, filepath.Join(root, "tests/bench/c/boot.c")},
		{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.bootGo, "./tests/bench/bootref"},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", argv[len(argv)-1], err, out)
		}
	}
	b.table.section("the first process of a machine, " + strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-") + " under " + b.accel)
	list := b.initials(cache)
	var sizes, start, free, available, off series
	initrd := func(in initial) string { return filepath.Join(b.dir, strings.ReplaceAll(in.name, " ", "-")+".cpio") }
	for _, in := range list {
		if err := b.image(in, qemu.Busybox(cache, qemu.AMD64), initrd(in)); err != nil {
			return fmt.Errorf("make the image of %s: %w", in.name, err)
		}
		st, err := os.Stat(initrd(in))
		if err != nil {
			return err
		}
		sizes.add(in.name, float64(st.Size())/1e6)
	}
	const memory = 128
	for range 3 * b.rounds {
		for _, i := range rand.Perm(len(list)) {
			in := list[i]
			m, err := b.machine(kernel, initrd(in), memory, in.powers)
			if err != nil {
				return err
			}
			if m.start == 0 || in.powers && !m.ended {
				return fmt.Errorf("%s does not boot, or not off:\n%s", in.name, m.console)
			}
			start.add(in.name, m.start)
			free.add(in.name, m.free)
			available.add(in.name, m.available)
			if in.powers {
				off.add(in.name, m.off)
			}
		}
	}
	least, err := b.leastMemory(list, func(in initial, mem int) (booted, error) {
		return b.machine(kernel, initrd(in), mem, in.powers)
	})
	if err != nil {
		return err
	}
	var order []string
	for _, in := range list {
		order = append(order, in.name)
	}
	b.table.show(&sizes, 0.5, row{What: "image", Unit: "MB"}, order...)
	b.table.show(&start, 0.5, row{What: "Run /init to the first worker, p50", Unit: "ms", Aim: "≤ 2 × busybox init"}, order...)
	b.table.show(&start, 0, row{What: "Run /init to the first worker, least", Unit: "ms"}, order...)
	b.table.show(&free, 0.5, row{What: fmt.Sprintf("MemFree of %d MiB", memory), Unit: "MiB"}, order...)
	b.table.show(&available, 0.5, row{What: fmt.Sprintf("MemAvailable of %d MiB", memory), Unit: "MiB", Aim: "≥ busybox init's - 16"}, order...)
	b.table.show(least, 0.5, row{What: "least memory that it boots with", Unit: "MiB"}, order...)
	b.table.show(&off, 0.5, row{What: "asked to power off to QEMU's end, p50", Unit: "ms"}, order...)
	return nil
}

// leastMemory finds by bisection with how many MiB a machine still boots, comes to
// rest, and powers off.
func (b *bench) leastMemory(list []initial, boot func(initial, int) (booted, error)) (*series, error) {
	var out series
	for _, in := range list {
		if !in.powers {
			continue
		}
		bad, good := 32, 128
		for good-bad > 1 {
			mem := (bad + good) / 2
			m, err := boot(in, mem)
			if err != nil {
				return nil, err
			}
			if m.start > 0 && m.available > 0 && m.ended && !strings.Contains(m.console, "Out of memory") {
				good = mem
			} else {
				bad = mem
			}
		}
		out.add(in.name, float64(good))
	}
	return &out, nil
}
