package qemu

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"path"
	"slices"
)

// Files are what an initramfs holds: contents by absolute path. Those in /bin and
// /lib64, and /init, are executable.
type Files map[string][]byte

//go:embed init.sh
var initScript []byte

//go:embed agent.sh
var agentScript []byte

// Base is what every machine needs: busybox, the program, and the first script,
// which goes on with /start.
func Base(busybox, pazinit string) (Files, error) {
	files := Files{"/init": initScript, "/bin/agent": agentScript}
	for name, source := range map[string]string{"/bin/busybox": busybox, "/bin/pazinit": pazinit} {
		data, err := os.ReadFile(source)
		if err != nil {
			return nil, err
		}
		files[name] = data
	}
	return files, nil
}

// Archive is the files as the kernel unpacks them: the newc format, see
// Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
func Archive(files Files) []byte {
	const folder, file = 0o040755, 0o100644
	modes := map[string]int{}
	for name := range files {
		modes[name] = file
		if dir := path.Dir(name); name == "/init" || dir == "/bin" || dir == "/lib64" {
			modes[name] |= 0o111
		}
		for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
			modes[dir] = folder
		}
	}
	names := make([]string, 0, len(modes)+1)
	for name := range modes {
		names = append(names, name)
	}
	slices.Sort(names) // folders before what is in them
	var out bytes.Buffer
	for i, name := range append(names, "/TRAILER!!!") {
		name, data := name[1:], files[name]
		fmt.Fprintf(&out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			i+1, modes["/"+name], 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		pad(&out)
		out.Write(data)
		pad(&out)
	}
	return out.Bytes()
}

func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}
