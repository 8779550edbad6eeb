//go:build qemu

package qemu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// guest is what the test binary does inside of a machine, where it is called so.
func guest(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say what: %v", args)
	}
	do, ok := map[string]func(args []string) error{
		"agent":   agent,
		"modules": modules,
		"kexec":   kexec,
		"hold":    hold,
		"crash":   crash,
		"probe":   probe,
		"lines":   lines,
		"login":   login,
	}[args[0]]
	if !ok {
		return fmt.Errorf("the guest has no %q", args[0])
	}
	return do(args[1:])
}

// agent carries out what the tests ask for over the virtio console.
func agent([]string) error {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0); err != nil {
		return err
	}
	name, err := port()
	if err != nil {
		return err
	}
	// Not by way of Go's poller: it is to be a plain file.
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	var mu sync.Mutex
	answer := func(a Answer) {
		line, err := json.Marshal(a)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			_, err = f.Write(append(line, '\n'))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "answer:", err)
		}
	}
	answer(Answer{})
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		var request Request
		if err := json.Unmarshal(line, &request); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		go func() {
			out, status := shell(request.Script)
			answer(Answer{request.ID, out, status})
		}()
	}
}

// port finds the one with our name. Modules were loaded before, but the device is
// found by the kernel in its own time.
func port() (name string, err error) {
	for range 600 {
		if name, err = findPort(); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return name, err
}

func findPort() (string, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(text)) == Port {
			return "/dev/" + filepath.Base(filepath.Dir(name)), nil
		}
	}
	return "", fmt.Errorf("find port %s: there is none of %v", Port, names)
}

// shell runs a script. What stays in the background is not waited for. The script is
// no argument, which lists of processes would show.
func shell(script string) (out []byte, status int) {
	text, err := inMemory("exec 3<&-\necho 0 >/proc/$$/oom_score_adj\n" + script)
	if err != nil {
		return []byte(err.Error()), 125
	}
	defer text.Close()
	f, err := inMemory("")
	if err != nil {
		return []byte(err.Error()), 125
	}
	defer f.Close()
	cmd := exec.Command("/bin/busybox", "sh", "/proc/self/fd/3")
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = f, f, []*os.File{text}
	err = cmd.Run()
	size, e := f.Seek(0, 1)
	if e == nil {
		out = make([]byte, size)
		_, e = f.ReadAt(out, 0)
	}
	if cmd.ProcessState == nil || e != nil {
		return []byte(fmt.Sprint(err, e)), 125
	}
	if status = cmd.ProcessState.ExitCode(); status < 0 {
		status = 128 + int(cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }).Signal())
	}
	return out, status
}

// inMemory is a file without a name.
func inMemory(text string) (*os.File, error) {
	fd, err := unix.MemfdCreate("script", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "script")
	_, err = f.WriteString(text)
	return f, err
}

// modules loads those of a list, in its order, as the kernel takes them.
func modules(args []string) error {
	list, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(list)) {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		flags := 0
		if filepath.Ext(name) != ".ko" {
			flags = unix.MODULE_INIT_COMPRESSED_FILE
		}
		err = unix.FinitModule(int(f.Fd()), "", flags)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}
