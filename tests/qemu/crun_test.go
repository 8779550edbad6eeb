//go:build qemu

package qemu

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pazinit/pazinit/tests/rig"
)

// linked adds a program of a system below root as /bin/NAME, and what it is linked
// with at its places.
func (f Files) linked(root, program string) error {
	var libraries []string // by their paths
	add := func(as, name string) error {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		f[as] = data
		file, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			return err
		}
		for _, part := range file.Progs {
			if part.Type == elf.PT_INTERP {
				path, err := io.ReadAll(part.Open())
				if err != nil {
					return err
				}
				libraries = append(libraries, strings.TrimRight(string(path), "\x00"))
			}
		}
		names, err := file.ImportedLibraries()
		for _, name := range names {
			libraries = append(libraries, "/lib/"+name)
		}
		return err
	}
	if err := add("/bin/"+filepath.Base(program), program); err != nil {
		return err
	}
	for len(libraries) > 0 {
		as := libraries[0]
		libraries = libraries[1:]
		if f[as] != nil {
			continue
		}
		var err error
		for _, dir := range []string{"lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"} {
			if err = add(as, filepath.Join(dir, filepath.Base(as))); err == nil {
				break
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// switchRoot is a /start: what the kernel unpacked the files to cannot be exchanged
// for a container's root, and a tmpfs can.
const switchRoot = `if [ $cgroups = v2 ]; then
	echo +cpu +memory +pids >/sys/fs/cgroup/cgroup.subtree_control # as systemd does
fi
mkdir /new
mount -t tmpfs -o size=80% tmpfs /new
cp -a /bin /lib /lib64 /etc /tests /new
for dir in proc sys dev; do
	mkdir /new/$dir
	mount --move /$dir /new/$dir
done
mkdir -m 1777 /new/tmp /new/run
mkdir /new/dev/pts
mount -t devpts -o ptmxmode=666 devpts /new/dev/pts
exec switch_root /new /bin/sh -c '` + agentAlone + `while :; do sleep 3600; done'
`

// containers are the files of a machine with crun and the tests of tests/containers.
func containers(t *testing.T) Files {
	t.Helper()
	h, err := host()
	if err != nil {
		t.Fatal(err)
	}
	files := Files{}
	system := filepath.Join(h.cache, "amd64/crun")
	err = errors.Join(files.linked(system, "/usr/bin/crun"), files.linked(system, "/usr/bin/tini-static"))
	if errors.Is(err, os.ErrNotExist) {
		rig.Need(t, "crun", fmt.Errorf("%w; scripts/fetch-crun brings it", err))
	}
	if err != nil {
		t.Fatal(err)
	}
	files.tests(t, "tests/containers")
	files["/start"] = []byte(switchRoot)
	files["/tests/go.mod"] = nil // marks the folder that the tests are run in
	return files
}

// TestCrun runs the tests of tests/containers with crun, in machines that have only
// cgroup2 and only cgroup v1.
func TestCrun(t *testing.T) {
	long(t)
	files := containers(t)
	each(t, func(t *testing.T, kernel Kernel) {
		for version, tests := range map[string]string{
			// With a shell in the container only what needs it: it is slow enough.
			"v2": `/crun/scratch|^Test(ForkBomb|Stdin|Stdout|Terminal)$/crun/busybox|^TestPlaces$/crun/busybox/(default|no-stdin)$`,
			"v1": `^(TestPlaces|TestDoctor)$/crun/scratch/(default|cgroup-.*)$`,
		} {
			t.Run(version, func(t *testing.T) {
				rig.Need(t, "cgroup "+version, kernel.Cgroups(version))
				m := boot(t, kernel, cgroups[version], "", files)
				out, status, err := m.Sh(`cd /tests
export PATH=/bin PAZINIT_RUNTIME=crun PAZINIT_BIN=/bin/pazinit PAZINIT_HELPER=/bin/helper PAZINIT_TEST_MUST=root,containers
# crun's exec is root's, whoever the container's user is
containers.test -test.v -test.timeout 15m -test.skip '^Test(Doctor|Strangers)$/crun/scratch/user$' -test.run '` + tests + "'")
				m.must(err)
				t.Log(out)
				if status != 0 || !strings.Contains(out, "--- PASS: TestPlaces/crun/scratch/default") {
					t.Error("the tests of tests/containers did not pass")
				}
				m.powerOff()
			})
		}
	})
}
