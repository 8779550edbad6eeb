// Command pazimage makes images of machines as pazinit initramfs does, and adds
// what would cost pazinit its size: container images as the base, zstd and xz.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/pazinit/pazinit/cmd/internal/appimage"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const help = `pazimage makes the first file system of a machine, as pazinit initramfs does.

  pazimage -o IMAGE [FLAGS] [FOLDER…]
  pazimage --list IMAGE
  pazimage --verify IMAGE

It takes the flags of pazinit initramfs (pazinit help initramfs explains them),
and besides:

  --oci FILE            lay this container image below everything: an archive as
                        skopeo, docker save and podman save write it (OCI layout
                        or docker-archive), or a folder with an OCI layout
  --ref NAME            this image of an archive with several
  --platform OS/ARCH    this one of an image for several (default linux/` + runtime.GOARCH + `)
  --compress FORMAT     gzip, zstd, xz or none (default zstd)
  --init FILE           the pazinit that becomes /init (default: beside pazimage, or in PATH)

With --oci and without a Procfile the machine runs what a container of the image
would: its command, user, variables and folder. Programs are looked for in the
image and the FOLDERs alone, unless --sysroot names another place.

Kernel modules that are compressed by xz or zstd are unpacked.
`

// run is main with its world passed in, and its exit status returned.
func run(args []string, stdout, stderr io.Writer) int {
	fail := func(code int, err error) int {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(stderr, "pazimage: %s\n", appimage.Printable(strings.TrimSuffix(line, "\n")))
		}
		return code
	}
	m := &appimage.Maker{Program: "pazimage", Stdout: stdout, Stderr: stderr, Compression: "zstd", Compress: compressions(), Unpack: unpackers()}
	var o ociOptions
	fs := m.Flags()
	fs.StringVar(&o.file, "oci", "", "")
	fs.StringVar(&o.ref, "ref", "", "")
	fs.StringVar(&o.platform, "platform", "linux/"+runtime.GOARCH, "")
	err := m.Parse(fs, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, help)
		return 0
	case err != nil:
		return fail(2, fmt.Errorf("%w; pazimage -h lists the flags", err))
	case o.file == "" && o.ref != "":
		return fail(2, errors.New("--ref is for --oci"))
	}
	m.Init = beside()
	if o.file != "" {
		img, err := openOCI(o, func(format string, args ...any) {
			fmt.Fprintln(stderr, appimage.Printable(fmt.Sprintf("pazimage: note: "+format, args...)))
		})
		if err != nil {
			return fail(1, err)
		}
		defer img.Close()
		m.Base, m.Otherwise = img.tree, img.command.Add
	}
	if err := m.Run(); err != nil {
		if errors.Is(err, appimage.ErrProblems) {
			return 1 // they are printed
		}
		return fail(1, err)
	}
	return 0
}

// beside is the pazinit that was installed with this program, or the one in PATH.
func beside() string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	if self, err := os.Executable(); err == nil {
		dirs = append([]string{filepath.Dir(self)}, dirs...)
	}
	for _, dir := range dirs {
		file := filepath.Join(dir, "pazinit")
		if st, err := os.Stat(file); filepath.IsAbs(file) && err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return file
		}
	}
	return "pazinit (not beside pazimage and not in PATH: name it with --init)"
}
