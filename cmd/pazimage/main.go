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
	"slices"
	"strings"

	"github.com/pazinit/pazinit/cmd/internal/appimage"
	"github.com/pazinit/pazinit/control"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// own are the flags that pazinit initramfs does not have, or has otherwise.
var own = []control.Flag{
	{Name: "oci", Value: "FILE", Help: "lay this container image below everything: an archive as skopeo, docker save and podman save write it (OCI layout or docker-archive), or a folder with an OCI layout"},
	{Name: "ref", Value: "NAME", Help: "this image of an archive with several"},
	{Name: "platform", Value: "OS/ARCH", Help: "this one of an image for several (default: linux and this machine's)"},
	{Name: "config", Short: "c", Value: "CONFIG", Help: "this configuration"},
	{Name: "compress", Value: "zstd|gzip|xz|none", Help: "how (default zstd)"},
	{Name: "init", Value: "FILE", Help: "this pazinit as /init (default: the one beside pazimage, or in PATH)"},
}

// program describes this one as pazinit's verbs are.
func program() *control.Verb {
	v := &control.Verb{
		Name: "pazimage", Args: "-o IMAGE [FOLDER…]",
		Short: "make the first file system of a machine, also of a container image",
		Long: "Does what pazinit initramfs does, with the same flags, and adds what would cost pazinit its size: container images, and compression by zstd and xz. Kernel modules that are compressed by these are unpacked.\n\n" +
			"With --oci and without a Procfile the machine runs what a container of the image would: its command, with its user, variables and folder, and ends with it. Programs are looked for in the image and the FOLDERs alone, unless --sysroot names another place. File capabilities and other extended attributes cannot be in an initramfs; files that have them are named. What all layers hold unpacked may have 16 GiB.\n\n" +
			"Exit status 1 when something is missing or damaged; there is no image then, and one that was there stays. 2 when the command line makes no sense.",
	}
	v.Flags = slices.Clone(own)
	for _, f := range control.Lookup("initramfs").Flags {
		if !slices.ContainsFunc(own, func(o control.Flag) bool { return o.Name == f.Name }) {
			v.Flags = append(v.Flags, f)
		}
	}
	return v
}

// run is main with its world passed in, and its exit status returned.
func run(args []string, stdout, stderr io.Writer) int {
	fail := func(code int, err error) int {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(stderr, "pazimage: %s\n", appimage.Printable(strings.TrimSuffix(line, "\n")))
		}
		return code
	}
	m := &appimage.Maker{Program: "pazimage", Stdout: stdout, Stderr: stderr, Compression: "zstd", Compress: compressions(), Unpack: unpackers()}
	if f, ok := stderr.(*os.File); ok {
		m.Terminal = appimage.IsTerminal(int(f.Fd()))
	}
	var o ociOptions
	fs := m.Flags()
	fs.StringVar(&o.file, "oci", "", "")
	fs.StringVar(&o.ref, "ref", "", "")
	fs.StringVar(&o.platform, "platform", "linux/"+runtime.GOARCH, "")
	err := m.Parse(fs, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, program().Help())
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
