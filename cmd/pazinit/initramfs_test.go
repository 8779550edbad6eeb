package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/cmd/internal/appimage"
	"github.com/pazinit/pazinit/initramfs"
	"github.com/pazinit/pazinit/tests/rig"
)

// aProgram is an ELF file without anything in it: no interpreter, no libraries.
var aProgram = "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 57)

// shared is a new folder that all users may enter.
func shared(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// writeFiles makes files; those that begin with #! are executable.
func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") || strings.HasPrefix(text, "\x7fELF") {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
}

// imageOf runs pazinit initramfs in dir and reads what it wrote; its output goes
// with it, and the image is nil if it has failed.
func imageOf(t *testing.T, dir string, args ...string) (*initramfs.Image, string) {
	t.Helper()
	return imageBy(t, dir, []string{program}, args...)
}

// imageBy is imageOf, with what runs pazinit.
func imageBy(t *testing.T, dir string, by []string, args ...string) (*initramfs.Image, string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "x.img")
	cmd := exec.Command(by[0], slices.Concat(by[1:], []string{"initramfs", "-o", out, "--compress", "none"}, args)...)
	cmd.Dir = dir
	text, err := cmd.CombinedOutput()
	if err != nil {
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), "*")); len(left) > 0 {
			t.Errorf("it failed and left %v", left)
		}
		return nil, string(text)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, err := initramfs.Read(f, initramfs.ReadOptions{})
	if err != nil || len(a.Problems) > 0 {
		t.Fatalf("read the image: %v, %v", err, a)
	}
	return a.Image, string(text)
}

// reads is the content of a file of an image, "-> TARGET" of a link, and "/" of a
// folder.
func reads(t *testing.T, m *initramfs.Image, name string) string {
	t.Helper()
	at, err := m.Resolve(name, true)
	if err != nil || m.Get(at) == nil {
		return "none"
	}
	n := m.Get(at)
	if n.Type() == initramfs.TypeFolder {
		return "/"
	}
	r, err := n.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestInitramfs(t *testing.T) {
	tool := "#!/bin/sh\n" // a program without libraries of this machine: its interpreter is in the folder
	static := map[string]string{"root/bin/sh": "#!/init\n", "root/init": aProgram}
	for _, tt := range []struct {
		what  string
		files map[string]string
		args  []string
		want  map[string]string // contents by name, or "" and the error
		say   string
	}{
		{"a Procfile", map[string]string{"app/Procfile": "a: true\n", "root/usr/bin/true": tool}, []string{"-f", "app/Procfile", "root"},
			map[string]string{"/etc/pazinit/Procfile": "a: true\n", "/etc/pazinit/pazinit.yaml": "# Written by pazinit.\napplications:\n  \"app\":\n    procfile: \"/etc/pazinit/Procfile\"\n"},
			"app:a: /usr/bin/true from DIR/root/usr/bin/true, run by /bin/sh"},
		{"the one here", map[string]string{"Procfile": "a: true\n", "root/usr/bin/true": tool}, []string{"root"}, map[string]string{"/etc/pazinit/Procfile": "a: true\n"}, "configuration: DIR/Procfile, at /etc/pazinit/Procfile"},
		{"one in the folder", map[string]string{"root/srv/app/Procfile": "a: ./run x.conf y\n", "root/srv/app/run": tool, "root/srv/app/x.conf": "x"}, []string{"-f", "root/srv/app/Procfile", "root"},
			map[string]string{"/etc/pazinit/pazinit.yaml": "# Written by pazinit.\napplications:\n  \"app\":\n    procfile: \"/srv/app/Procfile\"\n", "/etc/pazinit/Procfile": "none"}, "app:a: /srv/app/run"},
		{"the folder's configuration", map[string]string{"root/etc/pazinit/pazinit.yaml": "applications: {web: {procfile: /srv/Procfile}}\n", "root/srv/Procfile": "", "Procfile": "a: none\n"}, []string{"root"},
			nil, "/srv/Procfile"},
		{"a configuration", map[string]string{"conf/my.yaml": "include: more.yaml\n", "conf/more.yaml": "applications: {web: {procfile: ../app/Procfile, env: {D: ../data}}}\n", "app/Procfile": "a: $D/bin/run --file=etc/x -d state -e ../data/empty www\n",
			"data/bin/run": tool, "app/etc/x": "1", "data/empty/not": "", "app/www/index": "i", "app/state/f": "s"}, []string{"-c", "conf/my.yaml", "root"},
			map[string]string{"/etc/pazinit/pazinit.yaml": "# Written by pazinit.\ninclude: \"/etc/pazinit/my.yaml\"\n", "/etc/pazinit/my.yaml": "include: more.yaml\n", "/etc/app/Procfile": "a: $D/bin/run --file=etc/x -d state -e ../data/empty www\n",
				"/etc/data/bin/run": tool, "/etc/app/etc/x": "1", "/etc/data/empty": "/", "/etc/data/empty/not": "none"}, ""},
		{"folders beside the Procfile", map[string]string{"Procfile": "a: ./run www\n", "run": tool, "www/index": "i", "www/deep/x": "y", "other": "no"}, []string{"root"},
			map[string]string{"/etc/pazinit/www/index": "i", "/etc/pazinit/www/deep/x": "y", "/etc/pazinit/run": tool, "/etc/pazinit/other": "none"}, "app"},
		{"a working folder", map[string]string{"p.yaml": "applications: {x: {procfile: Procfile, workers: {a: {cwd: sub}}}}\n", "Procfile": "a: ./run\n", "sub/run": tool, "sub/data": "d"}, []string{"-c", "p.yaml", "root"},
			map[string]string{"/etc/pazinit/sub/data": "d"}, ""},
		{"a shell line", map[string]string{"Procfile": "a: while :; do ./run; ls; done > /dev/null\n", "run": tool, "root/bin/ls": tool}, []string{"root"}, map[string]string{"/etc/pazinit/run": tool}, ":a: /bin/ls from"},
		{"no program", map[string]string{"Procfile": "a: nonesuch-program -x\nb: ./nothing\n"}, []string{"root"}, nil,
			":a: program nonesuch-program not found in /usr/local/sbin, /usr/local/bin, /usr/sbin, /usr/bin, /sbin, /bin; install it here, put it into a FOLDER or --busybox, name it with --file FILE:PATH, or do without: --allow-missing nonesuch-program"},
		{"all that is missing", map[string]string{"Procfile": "a: nonesuch-program -x\nb: ./nothing\n"}, []string{"root"}, nil, ":b: program DIR/nothing not found"},
		{"a program that may be missing", map[string]string{"Procfile": "a: nonesuch-program -x\n"}, []string{"root", "--allow-missing", "nonesuch-program"}, map[string]string{"/etc/pazinit/Procfile": "a: nonesuch-program -x\n"}, "note: "},
		{"PATH of the environment", map[string]string{"Procfile": "a: tool\n", ".env": "PATH=/opt/bin\n", "root/opt/bin/tool": tool}, []string{"root"}, map[string]string{"/etc/pazinit/.env": "PATH=/opt/bin\n"}, ":a: /opt/bin/tool"},
		{"a logger", map[string]string{"p.yaml": "applications: {x: {procfile: Procfile, workers: {a: {stdout: {pipe_to: ./log now}}}}}\n", "Procfile": "a: ./run\n", "run": tool, "log": tool}, []string{"-c", "p.yaml", "root"},
			map[string]string{"/etc/pazinit/log": tool}, "x:a, stdout: /etc/pazinit/log"},
		{"a file", map[string]string{"Procfile": "a: sh\n", "some/conf": "c", "some/dir/x": "y"}, []string{"--file", "some/conf:/etc/conf", "--file=some/dir:/srv", "root"}, map[string]string{"/etc/conf": "c", "/srv/x": "y"}, ""},
		{"a folder elsewhere", map[string]string{"Procfile": "a: sh\n", "some/x": "1"}, []string{"root", "some:/srv/deep"}, map[string]string{"/srv/deep/x": "1"}, ""},
		{"entries", map[string]string{"Procfile": "a: sh\n", "list": "file /etc/c conf 0600 1 2\nown /etc/c 0640 3 4\n", "conf": "c"}, []string{"root", "--entries", "list"}, map[string]string{"/etc/c": "c"}, ""},
		{"a Procfile and a configuration", map[string]string{"m/pazinit.yaml": "machine: {hostname: h}\n", "app/Procfile": "a: sh\n"}, []string{"-c", "m/pazinit.yaml", "-f", "app", "root"},
			map[string]string{"/etc/pazinit/configuration.yaml": "machine: {hostname: h}\n", "/etc/app/Procfile": "a: sh\n",
				"/etc/pazinit/pazinit.yaml": "# Written by pazinit.\ninclude: \"/etc/pazinit/configuration.yaml\"\napplications:\n  \"app\":\n    procfile: \"/etc/app/Procfile\"\n"}, "app:a: "},
		{"a Procfile beside the folder's configuration", map[string]string{"root/etc/pazinit/pazinit.yaml": "machine: {hostname: h}\n", "root/etc/pazinit/Procfile": "a: sh\n"}, []string{"root"},
			map[string]string{"/etc/pazinit/pazinit.yaml": "machine: {hostname: h}\n", "/etc/pazinit/Procfile": "a: sh\n"}, "pazinit:a: /bin/sh"},
		{"a Procfile beside the configuration", map[string]string{"p.yaml": "machine: {hostname: h}\n", "Procfile": "a: sh\n"}, []string{"-c", "p.yaml", "root"},
			map[string]string{"/etc/pazinit/p.yaml": "machine: {hostname: h}\n", "/etc/pazinit/Procfile": "a: sh\n"}, ":a: /bin/sh"},
		{"another Procfile than the configuration's", map[string]string{"p.yaml": "applications: {app: {procfile: Procfile}}\n", "Procfile": "a: sh\n", "app/Procfile": "a: sh\n"}, []string{"-c", "p.yaml", "-f", "app", "root"},
			nil, "p.yaml has an application app with the Procfile DIR/Procfile: name DIR/app/Procfile there instead"},
		{"nothing", nil, nil, nil, "there is no Procfile here"},
		{"no Procfile, if that is asked for", map[string]string{"Procfile": "a: none\n", "6.1/modules.dep": "kernel/virtio_blk.ko:\n", "6.1/kernel/virtio_blk.ko": "\x7fELF"}, []string{"--no-procfile", "--kernel-modules", "6.1", "--module", "virtio_blk"},
			map[string]string{"/etc/pazinit": "none", "/lib/modules/pazinit.load": "/lib/modules/6.1/kernel/virtio_blk.ko\n", "/.pazinit-whole": ""}, "no Procfile: the machine needs root="},
		{"no Procfile, and one", map[string]string{"Procfile": "a: none\n"}, []string{"--no-procfile", "-f", "Procfile"}, nil, "--no-procfile is for an image without -c and -f"},
		{"a folder outside", map[string]string{"some/x": "1"}, []string{"some:../x"}, nil, `name "/../x" leads outside`},
		{"a file outside", map[string]string{"some/x": "1"}, []string{"--file", "some/x:/etc/../../x", "root"}, nil, `--file some/x:/etc/../../x: name "/etc/../../x" leads outside`},
		{"no folder", nil, []string{"none"}, nil, "lay a folder: stat DIR/none: no such file"},
		{"a damaged configuration", map[string]string{"p.yaml": "what: 1\n"}, []string{"-c", "p.yaml"}, nil, "p.yaml:1:1: "},
		{"modules without a place", map[string]string{"Procfile": "a: sh\n"}, []string{"root", "--module", "x"}, nil, "--kernel-modules FOLDER"},
		{"a compression", nil, []string{"--compress", "zstd"}, nil, `--compress is gzip, none, not "zstd"`},
	} {
		dir := shared(t)
		writeFiles(t, dir, static)
		writeFiles(t, dir, tt.files)
		m, out := imageOf(t, dir, tt.args...)
		say := strings.ReplaceAll(tt.say, "DIR/", dir+"/")
		if (m == nil) != (tt.want == nil) {
			t.Errorf("%s: made %v, it said %s", tt.what, m != nil, out)
			continue
		}
		if tt.what == "folders beside the Procfile" {
			say = filepath.Base(dir) + ":a: folder /etc/pazinit/www from " + dir + "/www"
		}
		if !strings.Contains(out, say) {
			t.Errorf("%s: it said %s, want %s", tt.what, out, say)
		}
		for name, want := range tt.want {
			if got := reads(t, m, name); got != want {
				t.Errorf("%s: %s is %q, want %q; it said %s", tt.what, name, got, want, out)
			}
		}
	}
}

// What a configuration needs of the kernel comes with the modules that it names.
func TestInitramfsModules(t *testing.T) {
	ko := "\x7fELF"
	all := map[string]string{"root/init": aProgram, "Procfile": "a: /init\n"}
	index := ""
	for _, name := range []string{"drivers/input/evdev", "drivers/acpi/button", "drivers/block/zram", "crypto/lzo-rle", "crypto/zstd", "drivers/watchdog/softdog",
		"drivers/watchdog/i6300esb", "fs/xfs/xfs", "fs/fat/vfat", "fs/nls/nls_cp437", "fs/nls/nls_ascii", "fs/fuse/virtiofs", "drivers/block/virtio_blk"} {
		all["6.1.0-x/kernel/"+name+".ko"] = ko
		index += "kernel/" + name + ".ko:\n"
	}
	all["6.1.0-x/modules.dep"] = index
	all["6.1.0-x/modules.alias"] = "alias fs-xfs xfs\nalias fs-vfat vfat\n"
	all["6.1.0-x/modules.builtin"] = "kernel/fs/ext4/ext4.ko\n"
	all["old/modules.dep"] = "kernel/drivers/block/virtio_blk.ko:\n"
	all["old/kernel/drivers/block/virtio_blk.ko"] = ko
	dir := shared(t)
	writeFiles(t, dir, all)
	for what, tt := range map[string]struct {
		config, folder string
		args           []string
		want           string // the modules in order
		notes          []string
	}{
		"the power button":        {"{}", "6.1.0-x", nil, "evdev button", nil},
		"no power button":         {"{machine: {power_button: ignore}}", "6.1.0-x", nil, "none", nil},
		"named besides":           {"{machine: {modules: [button]}}", "6.1.0-x", []string{"--module", "virtio_blk"}, "virtio_blk button evdev", nil},
		"zram":                    {"{machine: {power_button: ignore, zram: 50%}}", "6.1.0-x", nil, "zram+num_devices=0 lzo-rle zstd", nil},
		"zram as it is asked":     {"{machine: {power_button: ignore, zram: 64MiB, modules: [zram num_devices=2]}}", "6.1.0-x", nil, "zram+num_devices=2 lzo-rle zstd", nil},
		"a watchdog":              {"{machine: {power_button: ignore, watchdog: 30s}}", "6.1.0-x", nil, "i6300esb softdog", nil},
		"a watchdog of choice":    {"{machine: {power_button: ignore, watchdog: 30s, modules: [softdog soft_margin=9]}}", "6.1.0-x", nil, "softdog+soft_margin=9", nil},
		"mounts":                  {"{machine: {power_button: ignore}, mounts: [{device: /dev/vda, path: /a, type: xfs}, {path: /b, type: tmpfs}, {device: /dev/vdb, path: /c, type: ext4}, {device: x, path: /d, type: virtiofs}]}", "6.1.0-x", nil, "xfs virtiofs", nil},
		"a mount that needs more": {"{machine: {power_button: ignore}, mounts: [{device: /dev/vda, path: /a, type: vfat}]}", "6.1.0-x", nil, "vfat nls_cp437 nls_ascii", nil},
		"a kernel without them": {"{machine: {zram: 64MiB, watchdog: 30s}, mounts: [{device: /dev/vda, path: /a, type: btrfs}]}", "old", []string{"--module", "virtio_blk"}, "virtio_blk",
			[]string{"machine.zram: DIR/old has no module zram;", "machine.watchdog: DIR/old has no module softdog;", "mounts of btrfs: DIR/old has no module btrfs;", "machine.power_button: DIR/old has no module evdev;", "machine.power_button: DIR/old has no module button;"}},
	} {
		writeFiles(t, dir, map[string]string{"p.yaml": tt.config})
		m, out := imageOf(t, dir, append([]string{"-c", "p.yaml", "root", "--kernel-modules", tt.folder}, tt.args...)...)
		if m == nil {
			t.Errorf("%s: %s", what, out)
			continue
		}
		var got []string
		for line := range strings.Lines(reads(t, m, initramfs.LoadList)) {
			file, parameters, _ := strings.Cut(strings.TrimSpace(line), " ")
			got = append(got, strings.TrimSuffix(strings.TrimSuffix(filepath.Base(file), ".ko")+"+"+parameters, "+"))
		}
		if is := strings.Join(got, " "); is != tt.want {
			t.Errorf("%s: the modules are %s, want %s; it said %s", what, is, tt.want, out)
		}
		if strings.Count(out, ": note: ") != len(tt.notes) {
			t.Errorf("%s: it said %s, want %d notes", what, out, len(tt.notes))
		}
		for _, note := range tt.notes {
			if !strings.Contains(out, strings.ReplaceAll(note, "DIR", dir)) {
				t.Errorf("%s: it said %s, want %s", what, out, note)
			}
		}
	}
	// A FOLDER with all of its modules keeps their indexes.
	if err := os.MkdirAll(filepath.Join(dir, "root/lib/modules"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "6.1.0-x"), filepath.Join(dir, "root/lib/modules/6.1.0-x")); err != nil {
		t.Fatal(err)
	}
	m, out := imageOf(t, dir, "root")
	if m == nil || reads(t, m, "/lib/modules/6.1.0-x/modules.dep") != index || reads(t, m, initramfs.LoadList) == "none" {
		t.Errorf("modules of a FOLDER: %s", out)
	}
}

// What says which machine the maker is stays there.
func TestInitramfsIdentity(t *testing.T) {
	rig.NeedRoot(t)
	dir := shared(t)
	id := strings.Repeat("a", 32) + "\n"
	// A machine of its own, as far as /etc goes.
	by := []string{"unshare", "-m", "sh", "-c", `mount -t tmpfs none /etc && echo ` + strings.TrimSpace(id) + ` >/etc/machine-id && echo maker >/etc/hostname && exec "$@"`, "sh", program}
	if err := os.Symlink("/etc/machine-id", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, map[string]string{"Procfile": "a: /init /etc/machine-id --host=/etc/hostname ./link\nb: while read x; do :; done < /etc/machine-id\n", "root/init": aProgram, "root/bin/sh": "#!/init\n"})
	m, out := imageBy(t, dir, by, "root")
	if m == nil {
		t.Fatal(out)
	}
	for _, name := range m.Names() {
		if n := m.Get(name); n.Type() == initramfs.TypeFile && (reads(t, m, name) == id || reads(t, m, name) == "maker\n") {
			t.Errorf("%s is the maker's", name)
		}
	}
	for _, want := range []string{"/etc/machine-id says which machine this is, and is left out", "/etc/hostname says", "/link says"} {
		if !strings.Contains(out, want) {
			t.Errorf("it said %s, want %s", out, want)
		}
	}
	// Who asks for it gets it, and is told; that of a FOLDER, too.
	if m, out = imageBy(t, dir, by, "root", "--file", "/etc/machine-id"); m == nil || reads(t, m, "/etc/machine-id") != id || !strings.Contains(out, "note: /etc/machine-id: it is /etc/machine-id of this machine") {
		t.Errorf("--file: %s", out)
	}
	writeFiles(t, dir, map[string]string{"root/etc/machine-id": "0123456789abcdef0123456789abcdef\n", "root/etc/hostname": "shop\n"})
	if m, out = imageBy(t, dir, by, "root"); m == nil || !strings.HasPrefix(reads(t, m, "/etc/machine-id"), "0123") || strings.Count(out, "note: ") != 2 ||
		!strings.Contains(out, "note: /etc/machine-id: all machines that start from the image will have this one, of "+dir+"/root/etc/machine-id") {
		t.Errorf("a FOLDER's: %s", out)
	}
}

// A note of a file is given once, whoever uses it.
func TestInitramfsNotes(t *testing.T) {
	dir := shared(t)
	writeFiles(t, dir, map[string]string{"Procfile": "a: /init cgi.py\nb: /init ./cgi.py\n", "root/init": aProgram, "cgi.py": "#!/usr/bin/nonesuch-python\n"})
	m, out := imageOf(t, dir, "root", "--file", "cgi.py:/etc/pazinit/cgi.py")
	if m == nil || strings.Count(out, "nonesuch-python") != 1 {
		t.Errorf("it said %s", out)
	}
	if m, out = imageOf(t, dir, "root"); m == nil || strings.Count(out, "note: ") != 1 || strings.Count(out, "nonesuch-python") != 1 {
		t.Errorf("it said %s", out)
	}
}

// The users that the configuration names are those of the image.
func TestInitramfsUsers(t *testing.T) {
	dir := shared(t)
	writeFiles(t, dir, map[string]string{
		"Procfile": "a: /init\nb: /init\n", "root/init": aProgram,
		"p.yaml": "applications: {x: {procfile: Procfile, workers: {a: {user: nobody}, b: {user: \"1234\"}}}}\n",
	})
	m, out := imageOf(t, dir, "-c", "p.yaml", "root")
	if m == nil {
		t.Fatal(out)
	}
	for name, want := range map[string]string{"/etc/passwd": "nobody:x:65534:65534:", "/etc/group": "nogroup:x:65534:"} {
		if got := reads(t, m, name); strings.Count(got, want) != 1 || !strings.Contains(got, "root:x:0:") {
			t.Errorf("%s is\n%s", name, got)
		}
	}
	// Those of a folder count, and are left as they are.
	writeFiles(t, dir, map[string]string{"root/etc/passwd": "deploy:x:77:78::/:/bin/sh\n", "root/etc/group": "deploy:x:78:\n"})
	if m, out := imageOf(t, dir, "-c", "p.yaml", "root"); m != nil || !strings.Contains(out, "nobody") {
		t.Errorf("a user that the folder does not have: %s", out)
	}
	writeFiles(t, dir, map[string]string{"p.yaml": "applications: {x: {procfile: Procfile, workers: {a: {user: deploy}}}}\n"})
	if m, out = imageOf(t, dir, "-c", "p.yaml", "root"); m == nil || reads(t, m, "/etc/passwd") != "deploy:x:77:78::/:/bin/sh\n" {
		t.Errorf("the folder's users: %s", out)
	}
}

func TestInitramfsModes(t *testing.T) {
	dir := shared(t)
	writeFiles(t, dir, map[string]string{"Procfile": "a: /init\n", ".env": "A=1\n", "root/init": aProgram, "root/x": ""})
	for name, mode := range map[string]os.FileMode{"Procfile": 0o664, ".env": 0o600, "root/x": 0o664} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	m, out := imageOf(t, dir, "root")
	if m == nil {
		t.Fatal(out)
	}
	for name, want := range map[string]uint32{"/etc/pazinit/Procfile": 0o644, "/etc/pazinit/.env": 0o600, "/x": 0o664, "/tmp": 0o1777, "/sbin/pazinit": 0o755} {
		if n := m.Get(name); n == nil || n.Mode&0o7777 != want {
			t.Errorf("%s is %+v, want mode %o", name, n, want)
		}
	}
}

// Busybox gives what it has, and only that.
func TestInitramfsBusybox(t *testing.T) {
	busybox, err := exec.LookPath("busybox")
	rig.Need(t, "busybox", err)
	dir := shared(t)
	writeFiles(t, dir, map[string]string{"Procfile": "a: while sleep 5; do wget -q -O - http://127.0.0.1; done\nb: httpd -f\n"})
	m, out := imageOf(t, dir, "--busybox", busybox)
	if m == nil {
		t.Fatal(out)
	}
	for _, name := range []string{"/bin/sh", "/bin/sleep", "/bin/wget", "/bin/httpd"} {
		if n := m.Get(name); n == nil || n.Target != "/bin/busybox" {
			t.Errorf("%s is %+v; it said %s", name, n, out)
		}
	}
	if p := m.Check(); len(p) > 0 || m.Get("/lib64") != nil {
		t.Errorf("Check says %v", p)
	}
	// Its own name is no link, in whatever folder it is.
	for line, args := range map[string][]string{"/bin/busybox httpd -f": nil, "busybox httpd -f": nil, "/usr/bin/busybox sh": {"merged"}, "/bin/busybox sh": {"merged"}} {
		writeFiles(t, dir, map[string]string{"Procfile": "a: " + line + "\n", "merged/usr/bin/x": ""})
		if err := os.Symlink("usr/bin", filepath.Join(dir, "merged/bin")); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
		m, out := imageOf(t, dir, append([]string{"--busybox", busybox}, args...)...)
		if m == nil {
			t.Errorf("%s: %s", line, out)
			continue
		}
		if at, err := m.Resolve("/bin/busybox", true); err != nil || m.Get(at) == nil || m.Get(at).Type() != initramfs.TypeFile || len(m.Check()) > 0 {
			t.Errorf("%s: /bin/busybox is %s, %v, Check says %v; it said %s", line, at, err, m.Check(), out)
		}
	}
	writeFiles(t, dir, map[string]string{"Procfile": "a: nonesuch-program\n"})
	if m, out := imageOf(t, dir, "--busybox", busybox); m != nil {
		t.Errorf("a program that busybox does not have: %s", out)
	}
}

// Busybox must be for the machine that /init is for.
func TestInitramfsBusyboxOfAnotherMachine(t *testing.T) {
	dir := shared(t)
	program := func(machine byte, class byte) string {
		b := []byte(aProgram)
		b[4], b[18] = class, machine
		return string(b) + "\x00sh\x00"
	}
	writeFiles(t, dir, map[string]string{
		"Procfile": "a: while :; do :; done\n", "for-amd64": program(62, 2), "for-arm64": program(183, 2), "for-386": program(3, 1), "for-odd": program(99, 2),
		"root/init": program(183, 2),
	})
	for _, tt := range []struct {
		busybox string
		args    []string
		made    bool
		want    string
	}{
		{"for-arm64", []string{"--init", "for-amd64"}, false, "--busybox: for-arm64 is a program for arm64, and /init, for-amd64, one for amd64"},
		{"for-amd64", []string{"root"}, false, "--busybox: for-amd64 is a program for amd64, and /init, DIR/root/init, one for arm64"},
		{"for-amd64", []string{"--file", "for-arm64:/init"}, false, "is a program for amd64, and /init, for-arm64, one for arm64"},
		{"for-odd", []string{"--init", "for-amd64"}, false, "for-odd is a program for machine 99 of ELF class 2 and byte order 1, and"},
		{"for-386", []string{"--init", "for-amd64"}, true, "note: --busybox: for-386 is a program for 386, and /init, for-amd64, one for amd64; the kernel"},
		{"for-amd64", []string{"--init", "for-amd64"}, true, ""},
		{"for-arm64", []string{"root"}, true, ""},
	} {
		m, out := imageOf(t, dir, append([]string{"--busybox", tt.busybox}, tt.args...)...)
		says := strings.Contains(out, "is a program for")
		if made := m != nil; made != tt.made || says != (tt.want != "") || !strings.Contains(out, strings.ReplaceAll(tt.want, "DIR", dir)) {
			t.Errorf("%s %v: made is %v, want %v; it said %s, want %q", tt.busybox, tt.args, made, tt.made, out, tt.want)
		}
	}
}

// The same input gives the same bytes: in another folder, as another user, with
// another umask, home of temporary files and number of processors.
func TestInitramfsReproducible(t *testing.T) {
	rig.NeedRoot(t)
	sums := map[string]string{}
	var large strings.Builder // several blocks for several processors
	for i := range 400_000 {
		fmt.Fprintln(&large, i*i)
	}
	for _, tt := range []struct {
		what string
		uid  uint32
		mask int
		env  []string
		copy bool
	}{
		{"root", 0, 0o022, nil, false},
		{"nobody", 65534, 0o022, nil, false},
		{"umask", 0, 0o077, nil, false},
		{"TMPDIR and one processor", 0, 0o022, []string{"TMPDIR=/dev/shm", "GOMAXPROCS=1", "HOME=/none", "LANG=C", "LC_ALL=tr_TR.UTF-8", "TZ=Asia/Tokyo"}, false},
		{"another folder", 65534, 0, []string{"GOMAXPROCS=8"}, true},
	} {
		base := shared(t)
		dir := filepath.Join(base, "shop")
		if tt.copy {
			dir = filepath.Join(base, "deep", "er", "shop")
		}
		writeFiles(t, dir, map[string]string{"Procfile": "redis: cat redis.conf\nnginx: stat -c $PWD/n.conf\nsh: while sleep 1; do :; done\n", "redis.conf": "port 1\n", "n.conf": "x\n", "root/srv/a": "1", "root/srv/b/c": "2",
			"root/srv/large": large.String(), "root/srv/\u00e9": "", "root/srv/Z": "", "root/etc/pazinit/x.conf": "",
			"6.1/modules.dep": "kernel/button.ko: kernel/input.ko\nkernel/evdev.ko: kernel/input.ko\nkernel/input.ko:\n", "6.1/modules.builtin": "kernel/x.ko\n", "6.1/kernel/button.ko": "\x7fELF1", "6.1/kernel/evdev.ko": "\x7fELF2", "6.1/kernel/input.ko": "\x7fELF3"})
		if err := os.Chmod(filepath.Join(dir, "6.1/modules.builtin"), 0o644&^os.FileMode(tt.mask)); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(shared(t), "x.img")
		if err := os.Chmod(filepath.Dir(out), 0o777); err != nil {
			t.Fatal(err)
		}
		old := unix.Umask(tt.mask)
		cmd := exec.Command(program, "initramfs", "-f", "Procfile", "-o", out, "root", "--kernel-modules", "6.1")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), tt.env...)
		if tt.copy {
			cmd.Args = []string{program, "initramfs", "--compress=gzip", "-o", out, filepath.Join(dir, "root"), "-f", filepath.Join(dir, "Procfile"), "--kernel-modules", filepath.Join(dir, "6.1")}
			cmd.Dir = "/"
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid}}
		text, err := cmd.CombinedOutput()
		unix.Umask(old)
		if err != nil {
			t.Fatalf("%s: %v: %s", tt.what, err, text)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(out)
		if err != nil || st.Mode().Perm() != os.FileMode(0o666&^tt.mask) {
			t.Errorf("%s: the image has mode %v, %v", tt.what, st.Mode(), err)
		}
		sums[tt.what] = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	for what, sum := range sums {
		if sum != sums["root"] {
			t.Errorf("%s: the image is another than root's", what)
		}
	}
}

// What there was stays when a new image cannot be made, and no half of one.
func TestInitramfsWhole(t *testing.T) {
	dir := shared(t)
	writeFiles(t, dir, map[string]string{"root/init": aProgram, "root/x": "1", "out/x.img": "before", "Procfile": "a: nonesuch-program\n"})
	for what, args := range map[string][]string{
		"a missing program":        {"-o", "out/x.img", "root"},
		"an output in a folder":    {"-o", "root/x.img", "root"},
		"an output in its folder":  {"-o", "out/x.img", "."},
		"a folder as the output":   {"-o", "out", "root", "--allow-missing", "nonesuch-program"},
		"a full disk":              {"-o", "/dev/full", "root", "--allow-missing", "nonesuch-program"},
		"no folder for the output": {"-o", "none/x.img", "root", "--allow-missing", "nonesuch-program"},
	} {
		cmd := exec.Command(program, append([]string{"initramfs"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err == nil || len(out) == 0 {
			t.Errorf("%s: no error: %s", what, out)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "out/x.img")); err != nil || string(b) != "before" {
		t.Errorf("the image that was there is %q, %v", b, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*/.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestInitramfsListAndVerify(t *testing.T) {
	dir := shared(t)
	writeFiles(t, dir, map[string]string{"Procfile": "a: /init\n", "root/init": aProgram, "root/bin/broken": "#!/none\n"})
	run := func(args ...string) (string, int) {
		cmd := exec.Command(program, append([]string{"initramfs"}, args...)...)
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := run("-o", "x.img", "root", "--entries", "/dev/null", "--microcode", "none"); code != 1 || !strings.Contains(out, "read microcode: ") {
		t.Errorf("microcode that is not there: %d, %s", code, out)
	}
	writeFiles(t, dir, map[string]string{"AuthenticAMD.bin": "code"})
	if out, code := run("-o", "x.img", "root", "--microcode", "AuthenticAMD.bin"); code != 0 || !strings.Contains(out, "note: /bin/broken: it needs interpreter /none") {
		t.Errorf("make it: %d, %s", code, out)
	}
	out, code := run("--list", "x.img")
	for _, want := range []string{
		`^# at byte 0: microcode, 4 names$`, `^# at byte \d+: an archive, gzip, \d+ names$`, `^crw------- +0 +0 +5, 1 /dev/console$`, `^drwxrwxrwt +0 +0 +0 /tmp$`,
		`^-rwxr-xr-x +0 +0 +8 /bin/broken$`, `^lrwxrwxrwx +0 +0 +0 /var/run -> ../run$`, `^-rw-r--r-- +0 +0 +4 /kernel/x86/microcode/AuthenticAMD.bin$`,
	} {
		if !regexp.MustCompile("(?m)" + want).MatchString(out) {
			t.Errorf("the list has no line %s:\n%s", want, out)
		}
	}
	if code != 0 {
		t.Errorf("--list ended with %d", code)
	}
	if out, code := run("--verify", "x.img"); code != 1 || out != "x.img: /bin/broken: it needs interpreter /none, which is not found\n" {
		t.Errorf("--verify: %d, %s", code, out)
	}
	if err := os.Remove(filepath.Join(dir, "root/bin/broken")); err != nil {
		t.Fatal(err)
	}
	if out, code := run("-o", "x.img", "root", "--compress", "none"); code != 0 {
		t.Errorf("make it again: %s", out)
	}
	if out, code := run("--verify", "x.img"); code != 0 || !strings.HasPrefix(out, "x.img: good, ") {
		t.Errorf("--verify of a good one: %d, %s", code, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "x.img"))
	if err != nil {
		t.Fatal(err)
	}
	for what, damaged := range map[string][]byte{"cut": data[:len(data)/2], "junk": slices.Concat(data, []byte("junk")), "nothing": nil} {
		if err := os.WriteFile(filepath.Join(dir, "bad.img"), damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, flag := range []string{"--list", "--verify"} {
			if out, code := run(flag, "bad.img"); code != 1 || !strings.HasPrefix(out, "pazinit: read bad.img: ") {
				t.Errorf("%s of %s: %d, %s", flag, what, code, out)
			}
		}
	}
	if out, code := run("--verify", "x.img", "-o", "y"); code != 2 || !strings.Contains(out, "go with nothing else") {
		t.Errorf("--verify and -o: %d, %s", code, out)
	}
	if out, code := run("--module"); code != 2 {
		t.Errorf("a flag without its value: %d, %s", code, out)
	}
}

// Names of an image that somebody else made do not steer the terminal.
func TestInitramfsForeignNames(t *testing.T) {
	dir := shared(t)
	const bad = "x\x1b]0;owned\a\n\x9b2J\xc2\x9b"
	m := initramfs.New()
	for name, n := range map[string]*initramfs.Node{"/a" + bad: initramfs.Symlink("b" + bad), "/init": initramfs.Data(0o755, []byte("#!/"+bad))} {
		if err := m.Add(name, n); err != nil {
			t.Fatal(err)
		}
	}
	var whole bytes.Buffer
	if err := m.Write(&whole); err != nil {
		t.Fatal(err)
	}
	damaged := slices.Concat([]byte("070701zz\x1b[2Jzz"), bytes.Repeat([]byte("\x1b"), 200))
	for what, data := range map[string][]byte{"whole": whole.Bytes(), "damaged": damaged} {
		if err := os.WriteFile(filepath.Join(dir, "x.img"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, flag := range []string{"--list", "--verify"} {
			cmd := exec.Command(program, "initramfs", flag, "x.img")
			cmd.Dir = dir
			out, _ := cmd.CombinedOutput()
			for _, line := range strings.Split(strings.TrimSuffix(string(out), "\n"), "\n") {
				if line != appimage.Printable(line) || !utf8.ValidString(line) {
					t.Errorf("%s of %s prints %q", flag, what, line)
				}
			}
			if what == "whole" && !strings.Contains(string(out), "x?]0;owned??") {
				t.Errorf("%s prints %q", flag, out)
			}
		}
	}
	// A name that a folder brings, in what is said and in the error.
	writeFiles(t, dir, map[string]string{"Procfile": "a: /init\n", "root/init": aProgram, "root/" + bad: "#!/" + bad})
	if _, out := imageOf(t, dir, "root"); !strings.Contains(out, "x?]0;owned??") || strings.ContainsAny(out, "\x1b\a") {
		t.Errorf("it said %q", out)
	}
	if err := os.Symlink(bad, filepath.Join(dir, "root", bad+"l")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(dir, "root", bad+"s"), unix.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	if m, out := imageOf(t, dir, "root"); m != nil || strings.ContainsAny(out, "\x1b\a") {
		t.Errorf("it said %q", out)
	}
}

// The flags that the program takes are those that the help shows.
func TestInitramfsFlags(t *testing.T) {
	help, err := exec.Command(program, "initramfs", "-h").Output()
	if err != nil {
		t.Fatal(err)
	}
	var m appimage.Maker
	fs := m.Flags()
	for _, f := range regexp.MustCompile(`(?m)^  (?:-(\w), )?--([a-z-]+)`).FindAllStringSubmatch(string(help), -1) {
		if f[2] == "help" {
			continue
		}
		if fs.Lookup(f[2]) == nil || f[1] != "" && fs.Lookup(f[1]) == nil {
			t.Errorf("the help has --%s, which is no flag", f[2])
		}
	}
	for _, name := range []string{"file", "module", "list", "verify", "entries", "init"} {
		if !strings.Contains(string(help), "--"+name) {
			t.Errorf("the help lacks --%s:\n%s", name, help)
		}
	}
}

// The shop, with all that it needs of this machine.
func TestInitramfsShop(t *testing.T) {
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "out/shop/bin/shop")); err != nil {
		t.Fatalf("make shop builds it: %v", err)
	}
	m, out := imageOf(t, root, "-c", "examples/shop/pazinit.yaml")
	if m == nil {
		t.Fatal(out)
	}
	for _, name := range []string{"/etc/pazinit/Procfile", "/etc/pazinit/redis.conf", "/etc/pazinit/nginx.conf", "/out/shop/bin/shop", "/out/shop/redis", "/out/shop/nginx", "/usr/bin/redis-server", "/usr/sbin/nginx", "/bin/sh", "/usr/bin/sleep", "/init"} {
		if reads(t, m, name) == "none" {
			t.Errorf("%s is not in the image; it said\n%s", name, out)
		}
	}
	if p := m.Check(); len(p) > 0 {
		t.Errorf("Check says %v", p)
	}
}
