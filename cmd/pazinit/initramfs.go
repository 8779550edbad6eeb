package main

import (
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/initramfs"
)

// An imageOrder is what pazinit initramfs is asked for.
type imageOrder struct {
	config, procfile, output string
	list, verify             string // images to read instead of making one
	compress                 string
	init, busybox, sysroot   string
	entries, microcode       string
	moduleDir                string
	modules, files, missing  []string
	folders                  []laidFolder
}

// A laidFolder is a folder of this machine, and where its contents go.
type laidFolder struct{ host, at string }

func imageFlagSet(o *imageOrder) *flag.FlagSet {
	fs := flag.NewFlagSet("pazinit initramfs", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	for names, to := range map[string]*string{
		"c config": &o.config, "f procfile": &o.procfile, "o output": &o.output, "list": &o.list, "verify": &o.verify,
		"init": &o.init, "busybox": &o.busybox, "sysroot": &o.sysroot, "entries": &o.entries,
		"microcode": &o.microcode, "kernel-modules": &o.moduleDir,
	} {
		for name := range strings.FieldsSeq(names) {
			fs.StringVar(to, name, "", "")
		}
	}
	fs.StringVar(&o.compress, "compress", "gzip", "")
	for name, to := range map[string]*[]string{"file": &o.files, "module": &o.modules, "allow-missing": &o.missing} {
		fs.Func(name, "", func(s string) error { *to = append(*to, s); return nil })
	}
	return fs
}

// initramfs is the verb: it makes the first file system of a machine, or reads one.
func (c *command) initramfs(args []string) int {
	var o imageOrder
	fs := imageFlagSet(&o)
	err := fs.Parse(args)
	for err == nil && fs.NArg() > 0 { // flags may stand behind folders
		host, at, _ := strings.Cut(fs.Arg(0), ":")
		o.folders = append(o.folders, laidFolder{host, path.Join("/", at)})
		err = fs.Parse(fs.Args()[1:])
	}
	reads := o.list != "" || o.verify != ""
	switch {
	case errors.Is(err, flag.ErrHelp):
		return c.help([]string{"initramfs"})
	case err != nil:
		return c.fail(exitUsage, "initramfs: %v%s; pazinit help initramfs explains it", err, meantFlag(fs, args))
	case reads && (fs.NFlag() > 1 || len(o.folders) > 0):
		return c.fail(exitUsage, "initramfs: --list and --verify read an image, and go with nothing else")
	case o.list != "":
		return c.listImage(o.list)
	case o.verify != "":
		return c.verifyImage(o.verify)
	case o.output == "":
		return c.fail(exitUsage, "initramfs: no -o FILE: where to write the image")
	case o.compress != "gzip" && o.compress != "none":
		return c.fail(exitUsage, "initramfs: --compress is gzip or none, not %q", o.compress)
	case o.config != "" && o.procfile != "":
		return c.fail(exitUsage, "initramfs: one of -c and -f: a configuration names its Procfiles")
	}
	b := &builder{command: c, order: &o, image: initramfs.New()}
	if err := b.build(); err != nil {
		return c.failLines(1, err.Error())
	}
	return 0
}

// write writes the image beside its place, and moves it there when it is whole.
func (b *builder) write() (err error) {
	output := b.order.output
	if st, err := os.Stat(output); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("write %s: it is no file", output)
	}
	f, err := os.CreateTemp(filepath.Dir(output), "."+filepath.Base(output)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", output, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", output, err)
		}
	}()
	if _, err := f.Write(b.microcode); err != nil {
		return err
	}
	size := &counted{w: f}
	if b.order.compress == "none" {
		err = b.image.Write(size)
	} else {
		// Name and time are left out of the header; Go has one thread compress.
		z, _ := gzip.NewWriterLevel(f, gzip.BestCompression)
		size.w = z
		if err = b.image.Write(size); err == nil {
			err = z.Close()
		}
	}
	if err != nil {
		return err
	}
	mask := unix.Umask(0o077)
	unix.Umask(mask)
	if err := f.Chmod(os.FileMode(0o666 &^ mask)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), output); err != nil {
		return err
	}
	b.say("%s: %d names, %s, %s of memory when unpacked", output, len(b.image.Names()), mebibytes(st.Size()), mebibytes(size.n))
	return nil
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// counted counts what is written.
type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// readImage reads an image; without names alone its contents, too.
func readImage(file string, names bool) (*initramfs.Archive, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read an image: %w", err)
	}
	defer f.Close()
	a, err := initramfs.Read(f, initramfs.ReadOptions{Names: names})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return a, nil
}

// listImage prints what is in an image, as cpio -tv would.
func (c *command) listImage(file string) int {
	a, err := readImage(file, true)
	if err != nil {
		return c.fail(1, "%v", err)
	}
	var out strings.Builder
	for _, p := range a.Parts {
		what := "an archive"
		if p.Microcode {
			what = "microcode"
		}
		if p.Compression != "" {
			what += ", " + p.Compression
		}
		fmt.Fprintf(&out, "# at byte %d: %s, %d names\n", p.Offset, what, p.Names)
	}
	for _, name := range a.Image.Names() {
		n := a.Image.Get(name)
		size := fmt.Sprint(n.Size)
		if t := n.Type(); t == initramfs.TypeChar || t == initramfs.TypeBlock {
			size = fmt.Sprintf("%d, %d", n.Major, n.Minor)
		}
		if n.Target != "" {
			name += " -> " + n.Target
		}
		fmt.Fprintf(&out, "%s %5d %5d %10s %s\n", modeText(n.Mode), n.UID, n.GID, size, name)
	}
	if _, err := io.WriteString(c.stdout, out.String()); err != nil {
		return c.fail(1, "%v", err)
	}
	return 0
}

// modeText is a mode as ls -l has it.
func modeText(mode uint32) string {
	kinds := map[uint32]byte{
		initramfs.TypeFile: '-', initramfs.TypeFolder: 'd', initramfs.TypeSymlink: 'l', initramfs.TypeChar: 'c',
		initramfs.TypeBlock: 'b', initramfs.TypeFIFO: 'p', initramfs.TypeSocket: 's',
	}
	b := []byte("?rwxrwxrwx")
	if k := kinds[mode&initramfs.TypeMask]; k != 0 {
		b[0] = k
	}
	for i := range 9 {
		if mode&(1<<(8-i)) == 0 {
			b[1+i] = '-'
		}
	}
	for i, special := range []byte("sst") {
		if at := 3 * (i + 1); mode&(0o4000>>i) != 0 {
			if b[at] == '-' {
				special -= 'a' - 'A'
			}
			b[at] = special
		}
	}
	return string(b)
}

// verifyImage says what is wrong with an image.
func (c *command) verifyImage(file string) int {
	a, err := readImage(file, false)
	if err != nil {
		return c.fail(1, "%v", err)
	}
	problems := slices.Concat(a.Problems, a.Image.Check())
	if i := slices.IndexFunc(a.Parts, func(p initramfs.Part) bool { return p.Microcode }); i > 0 || i == 0 && a.Parts[0].Compression != "" {
		problems = append(problems, initramfs.Problem{Name: "/kernel/x86/microcode", What: "microcode counts only in the first archive, uncompressed"})
	}
	for _, p := range problems {
		fmt.Fprintf(c.stdout, "%s: %s\n", file, p)
	}
	if len(problems) > 0 {
		return 1
	}
	fmt.Fprintf(c.stdout, "%s: good, %d names\n", file, len(a.Image.Names()))
	return 0
}

// isThere says whether a file of this machine is there.
func isThere(file string) bool {
	_, err := os.Lstat(file)
	return !errors.Is(err, fs.ErrNotExist)
}
