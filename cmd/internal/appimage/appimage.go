// Package appimage makes and reads the images of machines for the command line: an
// initramfs with the workers of a Procfile and what they need. pazinit initramfs is
// the whole of it; pazimage adds formats and container images.
package appimage

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pazinit/pazinit/initramfs"
	"github.com/pazinit/pazinit/procfile"
)

// A Maker makes or reads one image.
type Maker struct {
	Program        string // the name in front of notes
	Stdout, Stderr io.Writer
	Terminal       bool // Stderr is one: writing that takes long shows how far it is

	// Base is what the folders are laid over; programs are then looked for in it and
	// in the folders alone, unless --sysroot names another place. It may be nil.
	Base *initramfs.Image
	// Init is the pazinit that becomes /init; "" is the running program.
	Init string
	// Otherwise makes a configuration when there is none, such as [Command.Add]; it
	// may be nil.
	Otherwise func(*Maker) error
	// Compression is the one without --compress; "" is gzip.
	Compression string
	// Compress are compressions besides gzip and none, by the names of --compress.
	Compress map[string]func(io.Writer) (io.WriteCloser, error)
	// Unpack is for images and modules that are compressed by other means than gzip,
	// see [initramfs.ReadOptions].
	Unpack map[string]func(io.Reader) (io.Reader, error)

	order     order
	image     *initramfs.Image
	root      *initramfs.Root // where programs are that the folders do not have
	busybox   *initramfs.Node
	microcode []byte
	cwd       string

	cfg     *procfile.Config
	text    string            // of all files of the configuration, together
	home    string            // the folder of the configuration on this machine
	homeAt  string            // and in the image
	done    map[string]string // what was said of a program, by its name
	said    map[string]bool
	lacking []string // notes of what files need, see lack
	errs    []error
}

// An order is what a command line asks for.
type order struct {
	config, procfile, output string
	list, verify             string // images to read instead of making one
	compress                 string
	init, busybox, sysroot   string
	entries, microcode       string
	moduleDir                string
	modules, files, missing  []string
	noProcfile               bool // it only leads to the root= of the kernel's command line
	folders                  []laidFolder
}

// A laidFolder is a folder of this machine, and where its contents go.
type laidFolder struct{ host, at string }

// A UsageError is about the command line.
type UsageError struct{ text string }

func (e *UsageError) Error() string { return e.text }

func usage(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// Flags are the flags of the command line, which the arguments of Parse set.
func (m *Maker) Flags() *flag.FlagSet {
	o := &m.order
	fs := flag.NewFlagSet(m.Program, flag.ContinueOnError)
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
	fs.StringVar(&o.compress, "compress", cmpOr(m.Compression, "gzip"), "")
	fs.BoolVar(&o.noProcfile, "no-procfile", false, "")
	for name, to := range map[string]*[]string{"file": &o.files, "module": &o.modules, "allow-missing": &o.missing} {
		fs.Func(name, "", func(s string) error { *to = append(*to, s); return nil })
	}
	return fs
}

// Parse reads a command line by these flags. Its error is [flag.ErrHelp], one of
// the flags, or a UsageError.
func (m *Maker) Parse(fs *flag.FlagSet, args []string) error {
	o := &m.order
	err := fs.Parse(args)
	for err == nil && fs.NArg() > 0 { // flags may stand behind folders
		host, at, _ := strings.Cut(fs.Arg(0), ":")
		o.folders = append(o.folders, laidFolder{host, "/" + at})
		err = fs.Parse(fs.Args()[1:])
	}
	reads, given := 0, 0
	fs.Visit(func(f *flag.Flag) {
		given++
		if f.Name == "list" || f.Name == "verify" {
			reads++
		}
	})
	kinds := append([]string{"gzip", "none"}, slices.Sorted(maps.Keys(m.Compress))...)
	switch {
	case err != nil:
		return err
	case reads > 0 && (given > 1 || len(o.folders) > 0):
		return usage("--list and --verify read an image, and go with nothing else")
	case reads > 0:
		return nil
	case o.noProcfile && o.config+o.procfile != "":
		return usage("--no-procfile is for an image without -c and -f")
	case o.output == "":
		return usage("no -o FILE: where to write the image")
	case !slices.Contains(kinds, o.compress):
		return usage("--compress is %s, not %q", strings.Join(kinds, ", "), o.compress)
	}
	return nil
}

// Run does what the command line asks for. Names in its output and in its errors,
// which others may have chosen, do not steer a terminal.
func (m *Maker) Run() error {
	do := m.build
	switch {
	case m.order.list != "":
		do = m.list
	case m.order.verify != "":
		do = m.verify
	}
	if err := do(); err != nil {
		return printableError{err}
	}
	return nil
}

// Printable keeps names that others chose from steering the terminal.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// A printableError is an error of lines whose text is printable.
type printableError struct{ error }

func (e printableError) Unwrap() error { return e.error }

func (e printableError) Error() string {
	lines := strings.Split(e.error.Error(), "\n")
	for i := range lines {
		lines[i] = Printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// write writes the image beside its place, and moves it there when it is whole.
func (m *Maker) write() (err error) {
	output := m.order.output
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
	if _, err := f.Write(m.microcode); err != nil {
		return err
	}
	var z io.WriteCloser = open{f}
	switch m.order.compress {
	case "none":
	case "gzip":
		z = newGzip(f)
	default:
		z, err = m.Compress[m.order.compress](f)
	}
	if err != nil {
		return err
	}
	show := m.progress(z)
	err = m.image.Write(show)
	err = errors.Join(err, z.Close())
	show.clear()
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
	files, all := m.image.Memory()
	m.say("%s: %d names, %s, %s of memory when unpacked: for a machine of %d MiB and more", output, len(m.image.Names()), mebibytes(st.Size()), mebibytes(all), least(files, all, st.Size(), m.order.noProcfile))
	return nil
}

// least is about how many MiB of memory a machine must have to unpack an image.
// Its first file system is a tmpfs, which files may fill to one half of what the
// kernel and the image leave; with root= it is a ramfs, which has no such bound
// (init_rootfs of init/do_mounts.c, shmem_default_max_blocks of mm/shmem.c).
func least(files, all, image int64, root bool) int64 {
	const kernel = 80 << 20 // Debian's 6.1, and pazinit
	const step = 16 << 20
	if !root {
		all = max(2*files, all)
	}
	return (all + image + kernel + step - 1) / step * (step >> 20)
}

// open is a writer that is closed by somebody else.
type open struct{ io.Writer }

func (open) Close() error { return nil }

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// A progress passes on what is written, and shows on a terminal how far it is when
// that takes long.
type progress struct {
	w     io.Writer
	to    io.Writer // nil: to nobody
	what  string
	n, of int64
	next  time.Time
	shown bool
}

// progressAfter is when it is shown first, and progressEach how often then.
const (
	progressAfter = 2 * time.Second
	progressEach  = 250 * time.Millisecond
)

func (m *Maker) progress(w io.Writer) *progress {
	p := &progress{w: w, what: Printable(m.order.output), next: time.Now().Add(progressAfter)}
	for _, name := range m.image.Names() {
		p.of += m.image.Get(name).Size
	}
	if m.Terminal {
		p.to = m.Stderr
	}
	return p
}

// IsTerminal says whether a descriptor is one.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

func (p *progress) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.n += int64(n)
	if now := time.Now(); p.to != nil && p.of > 0 && now.After(p.next) {
		p.next, p.shown = now.Add(progressEach), true
		fmt.Fprintf(p.to, "\r\x1b[Kwriting %s: %d %%", p.what, min(100*p.n/p.of, 100))
	}
	return n, err
}

// clear takes it from the terminal.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}

// read reads an image; without names alone its contents, too.
func (m *Maker) read(file string, names bool) (*initramfs.Archive, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read an image: %w", err)
	}
	defer f.Close()
	a, err := initramfs.Read(f, initramfs.ReadOptions{Names: names, Unpack: m.Unpack})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return a, nil
}

// list prints what is in an image, as cpio -tv would.
func (m *Maker) list() error {
	file := m.order.list
	a, err := m.read(file, true)
	if err != nil {
		return err
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
		fmt.Fprintf(&out, "%s %5d %5d %10s %s\n", modeText(n.Mode), n.UID, n.GID, size, Printable(name))
	}
	_, err = io.WriteString(m.Stdout, out.String())
	return err
}

// modeText is a mode as ls -l has it.
func modeText(mode uint32) string {
	b := []byte("?rwxrwxrwx")
	switch mode & initramfs.TypeMask {
	case initramfs.TypeFile:
		b[0] = '-'
	case initramfs.TypeFolder:
		b[0] = 'd'
	case initramfs.TypeSymlink:
		b[0] = 'l'
	case initramfs.TypeChar:
		b[0] = 'c'
	case initramfs.TypeBlock:
		b[0] = 'b'
	case initramfs.TypeFIFO:
		b[0] = 'p'
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

// ErrProblems is what Run says when it has printed what is wrong with an image.
var ErrProblems = errors.New("the image has problems")

// verify says what is wrong with an image.
func (m *Maker) verify() error {
	file := m.order.verify
	a, err := m.read(file, false)
	if err != nil {
		return err
	}
	problems := slices.Concat(a.Problems, a.Image.Check())
	if i := slices.IndexFunc(a.Parts, func(p initramfs.Part) bool { return p.Microcode }); i > 0 || i == 0 && a.Parts[0].Compression != "" {
		problems = append(problems, initramfs.Problem{Name: "/kernel/x86/microcode", What: "microcode counts only in the first archive, uncompressed"})
	}
	for _, p := range problems {
		fmt.Fprintln(m.Stdout, Printable(file+": "+p.String()))
	}
	if len(problems) > 0 {
		return ErrProblems
	}
	fmt.Fprintf(m.Stdout, "%s: good, %d names\n", file, len(a.Image.Names()))
	return nil
}

// isThere says whether a file of this machine is there.
func isThere(file string) bool {
	_, err := os.Lstat(file)
	return !errors.Is(err, fs.ErrNotExist)
}
