package main

import (
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/pazinit/pazinit/initramfs"
	"github.com/pazinit/pazinit/procfile"
)

// An imageOrder is what pazinit initramfs is asked for.
type imageOrder struct {
	config, procfile, output string
	compress                 string
	init, busybox, sysroot   string
	files, folders           []string
}

// initramfs is the verb: it makes the first file system of a machine.
func (c *command) initramfs(args []string) int {
	var o imageOrder
	fs := flag.NewFlagSet("pazinit initramfs", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.config, "c", "", "")
	fs.StringVar(&o.config, "config", "", "")
	fs.StringVar(&o.procfile, "f", "", "")
	fs.StringVar(&o.procfile, "procfile", "", "")
	fs.StringVar(&o.output, "o", "", "")
	fs.StringVar(&o.output, "output", "", "")
	fs.StringVar(&o.compress, "compress", "gzip", "")
	fs.StringVar(&o.init, "init", "", "")
	fs.StringVar(&o.busybox, "busybox", "", "")
	fs.StringVar(&o.sysroot, "sysroot", "", "")
	fs.Func("file", "", func(s string) error { o.files = append(o.files, s); return nil })
	err := fs.Parse(args)
	for err == nil && fs.NArg() > 0 { // flags may stand behind folders
		o.folders = append(o.folders, fs.Arg(0))
		err = fs.Parse(fs.Args()[1:])
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return c.help([]string{"initramfs"})
	case err != nil:
		return c.fail(exitUsage, "initramfs: %v%s; pazinit help initramfs explains it", err, meantFlag(fs, args))
	case o.output == "":
		return c.fail(exitUsage, "initramfs: no -o FILE: where to write the image")
	case o.compress != "gzip" && o.compress != "none":
		return c.fail(exitUsage, "initramfs: --compress is gzip or none, not %q", o.compress)
	}
	b := &builder{command: c, order: &o, image: initramfs.New()}
	if err := b.build(); err != nil {
		return c.failLines(1, err.Error())
	}
	return 0
}

// A builder makes one image.
type builder struct {
	*command
	order *imageOrder
	image *initramfs.Image
	cfg   *procfile.Config
	home  string // the folder whose place is /etc/pazinit in the image
}

const inImage = "/etc/pazinit"

func (b *builder) build() error {
	o := b.order
	for _, f := range o.folders {
		if err := b.image.AddFolder(f, "/"); err != nil {
			return err
		}
	}
	for _, f := range o.files {
		host, name, _ := strings.Cut(f, ":")
		if name == "" {
			name = host
		}
		if err := b.image.AddFile(host, name); err != nil {
			return err
		}
	}
	if o.config != "" || o.procfile != "" {
		if err := b.workers(); err != nil {
			return err
		}
	}
	program := o.init
	if program == "" {
		program = "/proc/self/exe"
	}
	real, err := filepath.EvalSymlinks(program)
	if err != nil {
		return err
	}
	self, err := initramfs.FileNode(real)
	if err != nil {
		return err
	}
	self.Mode = initramfs.TypeFile | 0o755
	if err := b.image.AddInit(self); err != nil {
		return err
	}
	if err := b.image.AddBase(); err != nil {
		return err
	}
	return b.write()
}

func (b *builder) workers() error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	o := b.order
	b.cfg, err = procfile.Load(procfile.Options{Config: o.config, Procfile: o.procfile, Dir: dir})
	if err != nil {
		return err
	}
	b.home = filepath.Dir(b.cfg.Files[0])
	for _, f := range b.cfg.Files {
		if err := b.image.AddFile(f, b.place(f)); err != nil {
			return err
		}
	}
	for _, a := range b.cfg.Applications {
		for _, w := range a.Workers {
			if err := b.worker(a, w); err != nil {
				return fmt.Errorf("%s:%s: %w", a.Name, w.Name, err)
			}
		}
	}
	return nil
}

// place is where a file of this machine lies in the image.
func (b *builder) place(file string) string {
	rel, err := filepath.Rel(b.home, file)
	if err != nil {
		return file
	}
	return filepath.Join(inImage, rel)
}

func (b *builder) worker(a *procfile.Application, w *procfile.Worker) error {
	s := initramfs.Search{Root: initramfs.Root{Dir: b.order.sysroot}, Path: strings.Split("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", ":")}
	p, err := b.image.AddProgram(w.Command.Argv[0], s)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.stdout, "%s:%s: %s\n", a.Name, w.Name, p.Name)
	return nil
}

// write writes the image beside its place and then moves it there.
func (b *builder) write() (err error) {
	output := b.order.output
	f, err := os.CreateTemp(filepath.Dir(output), "."+filepath.Base(output)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", output, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	var to io.WriteCloser = f
	if b.order.compress == "gzip" {
		to, _ = gzip.NewWriterLevel(f, gzip.BestCompression)
	}
	if err := b.image.Write(to); err != nil {
		return err
	}
	if to != io.WriteCloser(f) {
		if err := to.Close(); err != nil {
			return err
		}
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), output)
}
