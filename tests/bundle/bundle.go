// Package bundle writes OCI bundles (a root filesystem and config.json) for the
// tests that run pazinit in containers, and knows the places where it must work.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A File is one of the root filesystem: a program or file to copy from the host,
// or a text. With a mode that is not executable, it cannot be run.
type File struct {
	From string // a file of the host; linked where that is possible
	Link string // a symbolic link to this
	Text string
	Mode os.FileMode // of a text; 0: 0644
}

// Cgroups is what a container sees below /sys/fs/cgroup.
type Cgroups int

// What runc mounts for "cgroup" is the host's kind: v1 hierarchies on a hybrid or
// v1 host, cgroup2 on a v2 one.
const (
	CgroupsReadOnly Cgroups = iota // the host's kind, as engines mount it
	CgroupsWritable                // the host's kind
	CgroupsAbsent                  // nothing is mounted
	Cgroups2                       // cgroup2, writable, in a cgroup namespace, also on a hybrid host
)

// UserMap maps ids of a container to those of the host.
type UserMap struct{ Inside, Outside, Size int }

// A Mount is one more than every container has.
type Mount struct {
	Destination, Type, Source string
	Options                   []string
}

// A Spec is a container. The zero value, with Args and Files, is what an engine
// makes by default: root with DefaultCaps, namespaces of its own (not of users), a
// root filesystem that can be written, cgroups that cannot, no network.
type Spec struct {
	Args  []string
	Env   []string // added to PATH; a later one wins
	Cwd   string   // "": /
	Files map[string]File

	UID, GID int
	Caps     []string // nil: DefaultCaps; empty: none
	NoNewPrivs,
	ReadOnly,
	HostPID,
	Terminal,
	Interactive bool // the engine's standard input is the container's; for runc it always is
	Noexec  []string  // tmpfs, for everybody to write, where nothing can be executed
	Users   []UserMap // a user namespace, of uids and gids alike; nil: none
	Cgroups Cgroups
	Mounts  []Mount
	NoFile  int      // RLIMIT_NOFILE; 0: 1024
	Parent  []string // a program that is executed in the place of Args, and starts them

	CgroupsPath string // "": runc makes one of the container's id
	Memory      int64  // limit in bytes; 0: none
	PIDs        int64  // limit; 0: none
}

// DefaultCaps are those that podman leaves to root; Docker leaves three more.
var DefaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
	"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Scratch are the files of an image FROM scratch: the program, the helper, and
// nothing else.
func Scratch(pazinit, helper string) map[string]File {
	return map[string]File{
		"/bin/pazinit": {From: pazinit},
		"/bin/helper":  {From: helper},
	}
}

// Busybox adds a shell and the like: busybox is a static one.
func Busybox(pazinit, helper, busybox string) map[string]File {
	files := Scratch(pazinit, helper)
	files["/bin/busybox"] = File{From: busybox}
	for _, name := range strings.Fields("sh cat echo env grep head id kill ls mkdir mount ps rm sed sleep stty tail test touch true tty umount") {
		files["/bin/"+name] = File{Link: "busybox"}
	}
	return files
}

// Argv is what is executed in the container.
func (s Spec) Argv() []string { return slices.Concat(s.Parent, s.Args) }

// Write makes dir/rootfs and dir/config.json. dir and what is above it must let
// everybody pass if the container has another user than root.
func Write(dir string, s Spec) error {
	owner := 0
	if s.Users != nil {
		owner = s.Users[0].Outside
	}
	if err := WriteRoot(filepath.Join(dir, "rootfs"), s.Files, owner); err != nil {
		return err
	}
	config, err := json.MarshalIndent(s.config(), "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644)
}

// WriteRoot makes a root filesystem of files and the folders that engines mount
// upon. The folders are owned by the user and group owner, unless 0.
func WriteRoot(root string, files map[string]File, owner int) error {
	for _, name := range []string{"dev", "etc", "proc", "run", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	for name, file := range files {
		if err := file.write(filepath.Join(root, name)); err != nil {
			return err
		}
	}
	if owner == 0 {
		return nil
	}
	return filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() { // a file may be a link to one outside
			return err
		}
		return os.Chown(path, owner, owner)
	})
}

func (f File) write(to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	switch {
	case f.Link != "":
		return os.Symlink(f.Link, to)
	case f.From != "":
		if os.Link(f.From, to) == nil {
			return nil
		}
		return copyFile(f.From, to)
	}
	mode := f.Mode
	if mode == 0 {
		mode = 0o644
	}
	return errors.Join(os.WriteFile(to, []byte(f.Text), mode), os.Chmod(to, mode))
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

type object = map[string]any

// config is config.json, see the OCI runtime specification 1.0.
func (s Spec) config() object {
	caps := s.Caps
	if caps == nil {
		caps = DefaultCaps
	}
	nofile := s.NoFile
	if nofile == 0 {
		nofile = 1024
	}
	cwd := s.Cwd
	if cwd == "" {
		cwd = "/"
	}
	held := caps // as a user, what is executed has none
	if s.UID != 0 {
		held = []string{}
	}
	return object{
		"ociVersion": "1.0.2",
		"process": object{
			"terminal":        s.Terminal,
			"user":            object{"uid": s.UID, "gid": s.GID},
			"args":            s.Argv(),
			"env":             append([]string{"PATH=" + path}, s.Env...),
			"cwd":             cwd,
			"noNewPrivileges": s.NoNewPrivs,
			"capabilities":    object{"bounding": caps, "effective": held, "permitted": held},
			"rlimits":         []object{{"type": "RLIMIT_NOFILE", "soft": nofile, "hard": nofile}},
		},
		"root":     object{"path": "rootfs", "readonly": s.ReadOnly},
		"hostname": "test",
		"mounts":   s.mounts(),
		"linux":    s.linux(),
	}
}

func (s Spec) mounts() []object {
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	mounts := []Mount{
		{"/proc", "proc", "proc", []string{"nosuid", "noexec", "nodev"}},
		{"/dev", "tmpfs", "tmpfs", []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{"/dev/pts", "devpts", "devpts", pts},
		{"/dev/shm", "tmpfs", "shm", []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{"/sys", "sysfs", "sysfs", []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	if s.ReadOnly { // engines leave /dev/shm writable; nothing must be
		mounts[1].Options = append(mounts[1].Options, "ro")
		mounts[3].Options = append(mounts[3].Options, "ro")
	}
	hard := []string{"nosuid", "noexec", "nodev", "relatime"}
	switch s.Cgroups {
	case CgroupsReadOnly:
		mounts = append(mounts, Mount{"/sys/fs/cgroup", "cgroup", "cgroup", append(hard, "ro")})
	case CgroupsWritable:
		mounts = append(mounts, Mount{"/sys/fs/cgroup", "cgroup", "cgroup", append(hard, "rw")})
	case Cgroups2:
		mounts = append(mounts, Mount{"/sys/fs/cgroup", "cgroup2", "cgroup2", append(hard, "rw")})
	case CgroupsAbsent:
	}
	for _, at := range s.Noexec {
		mounts = append(mounts, Mount{at, "tmpfs", "tmpfs", []string{"nosuid", "nodev", "noexec", "mode=1777"}})
	}
	var out []object
	for _, m := range append(mounts, s.Mounts...) {
		out = append(out, object{"destination": m.Destination, "type": m.Type, "source": m.Source, "options": m.Options})
	}
	return out
}

func (s Spec) linux() object {
	namespaces := []object{{"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}
	if !s.HostPID {
		namespaces = append(namespaces, object{"type": "pid"})
	}
	if s.Cgroups == Cgroups2 {
		namespaces = append(namespaces, object{"type": "cgroup"})
	}
	resources := object{"devices": []object{{"allow": false, "access": "rwm"}}}
	if s.Memory != 0 {
		resources["memory"] = object{"limit": s.Memory}
	}
	if s.PIDs != 0 {
		resources["pids"] = object{"limit": s.PIDs}
	}
	linux := object{
		"resources": resources,
		"maskedPaths": []string{
			"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
			"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware",
		},
		"readonlyPaths": []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
	}
	if s.CgroupsPath != "" {
		linux["cgroupsPath"] = s.CgroupsPath
	}
	if s.Users != nil {
		namespaces = append(namespaces, object{"type": "user"})
		var ids []object
		for _, m := range s.Users {
			ids = append(ids, object{"containerID": m.Inside, "hostID": m.Outside, "size": m.Size})
		}
		linux["uidMappings"], linux["gidMappings"] = ids, ids
	}
	linux["namespaces"] = namespaces
	return linux
}

// Podman are the arguments of podman for the same container, between "run" and
// the image; Argv comes after it. It fails for what podman has no flag for.
func (s Spec) Podman() ([]string, error) {
	args := []string{"--network", "none", "--hostname", "test", "--passwd=false", "--ulimit", "nproc=4096:4096", "--workdir", "/"}
	nofile := s.NoFile
	if nofile == 0 {
		nofile = 1024
	}
	add := func(format string, a ...any) { args = append(args, fmt.Sprintf(format, a...)) }
	add("--ulimit=nofile=%d:%[1]d", nofile)
	for _, kv := range s.Env {
		add("--env=%s", kv)
	}
	if s.Cwd != "" {
		add("--workdir=%s", s.Cwd)
	}
	if s.UID != 0 || s.GID != 0 {
		add("--user=%d:%d", s.UID, s.GID)
	}
	if s.Caps != nil {
		add("--cap-drop=ALL")
	}
	for _, name := range s.Caps {
		add("--cap-add=%s", name)
	}
	if s.NoNewPrivs {
		add("--security-opt=no-new-privileges")
	}
	if s.ReadOnly {
		add("--read-only")
		add("--read-only-tmpfs=false")
	}
	if s.HostPID {
		add("--pid=host")
	}
	if s.Terminal {
		add("--tty")
	}
	if s.Terminal || s.Interactive {
		add("--interactive")
	}
	for _, at := range s.Noexec {
		add("--tmpfs=%s:rw,noexec,nosuid,nodev,mode=1777", at)
	}
	for _, m := range s.Users {
		add("--uidmap=%d:%d:%d", m.Inside, m.Outside, m.Size)
		add("--gidmap=%d:%d:%d", m.Inside, m.Outside, m.Size)
	}
	switch s.Cgroups {
	case CgroupsReadOnly:
	case CgroupsAbsent: // as near as it comes
		add("--tmpfs=/sys/fs/cgroup:ro")
	case CgroupsWritable, Cgroups2:
		return nil, errors.New("podman has no flag for cgroups that can be written")
	}
	if s.Memory != 0 {
		add("--memory=%d", s.Memory)
	}
	if s.PIDs != 0 {
		add("--pids-limit=%d", s.PIDs)
	}
	for _, m := range s.Mounts {
		if m.Type != "bind" {
			return nil, fmt.Errorf("podman has no flag for a mount of type %q", m.Type)
		}
		add("--volume=%s:%s:%s", m.Source, m.Destination, strings.Join(m.Options, ","))
	}
	return args, nil
}
