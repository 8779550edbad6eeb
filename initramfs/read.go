package initramfs

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// ReadOptions say how much of an image is read.
type ReadOptions struct {
	// Unpack opens what is compressed otherwise than by gzip, by the name of the
	// format: zstd, xz, bzip2, lz4, lzma or lzo. It must not read more of its input,
	// which is an io.ByteReader, than belongs to it.
	Unpack map[string]func(io.Reader) (io.Reader, error)
	// Names alone: the contents are not kept, and the nodes have none.
	Names bool
	// Limit is how many bytes the unpacked image may have; 0 is 16 GiB.
	Limit int64
	// Memory is how many bytes of it may be kept: names, targets, and contents unless
	// it is Names alone; 0 is 2 GiB.
	Memory int64
}

// A Part is one archive of an image: the kernel unpacks all that stand one after
// the other.
type Part struct {
	Offset      int64  // where it begins in the file, of a compressed one the compressed data
	Compression string // "" for none
	Names       int    // without its trailer
	Microcode   bool   // it holds what the kernel loads into the processor before it unpacks anything
}

// An Archive is what [Read] found.
type Archive struct {
	Image    *Image // what the kernel makes of all parts
	Parts    []Part
	Problems []Problem // what the kernel passes over in silence
}

// A Problem is one thing that is wrong with an image that can be read.
type Problem struct {
	Name string // of the file
	What string
}

func (p Problem) String() string { return p.Name + ": " + p.What }

// An ArchiveError says where an archive is damaged.
type ArchiveError struct {
	Offset int64  // in the archive as unpacked
	Name   string // of the entry, or of the one before; may be ""
	Err    error
}

func (e *ArchiveError) Error() string {
	text := "at byte " + strconv.FormatInt(e.Offset, 10)
	if e.Name != "" {
		text += ", " + strconv.Quote(e.Name)
	}
	return text + ": " + e.Err.Error()
}

func (e *ArchiveError) Unwrap() error { return e.Err }

// compressions are how compressed data begin, as lib/decompress.c of the kernel
// tells them apart.
var compressions = [...]struct{ name, magic string }{
	{"gzip", "\x1f\x8b"}, {"gzip", "\x1f\x9e"}, {"bzip2", "BZh"}, {"lzma", "\x5d\x00"}, {"xz", "\xfd7zXZ\x00"},
	{"lzo", "\x89LZO"}, {"lz4", "\x02\x21\x4c\x18"}, {"zstd", "\x28\xb5\x2f\xfd"},
}

const (
	headerSize    = 110
	defaultMax    = 16 << 30
	defaultMemory = 2 << 30
	// nodeMemory is what an entry costs beside its name and its content.
	nodeMemory = 512
)

// Read reads an image as the kernel unpacks it: newc archives, with checksums or
// without, one after the other, as they are or compressed, zeros between them.
// What is damaged is an [ArchiveError]; what the kernel would pass over is a
// Problem.
func Read(r io.Reader, opts ReadOptions) (*Archive, error) {
	if opts.Limit == 0 {
		opts.Limit = defaultMax
	}
	if opts.Memory == 0 {
		opts.Memory = defaultMemory
	}
	d := &decoder{archive: &Archive{Image: New()}, opts: opts, left: opts.Limit}
	raw := &position{r: bufio.NewReaderSize(r, 1<<16)}
	if err := d.members(raw, false); err != nil {
		return nil, err
	}
	if len(d.archive.Parts) == 0 {
		return nil, errors.New("there is no archive in it")
	}
	return d.archive, nil
}

// A position is a reader that knows how far it is.
type position struct {
	r  *bufio.Reader
	at int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.at += int64(n)
	return n, err
}

func (p *position) ReadByte() (byte, error) {
	b, err := p.r.ReadByte()
	if err == nil {
		p.at++
	}
	return b, err
}

// A decoder reads one image.
type decoder struct {
	archive *Archive
	opts    ReadOptions
	left    int64  // bytes that may still come
	kept    int64  // bytes in memory
	name    string // of the last entry
}

func (d *decoder) fail(p *position, format string, args ...any) error {
	return &ArchiveError{Offset: p.at, Name: d.name, Err: fmt.Errorf(format, args...)}
}

// members reads archives and what is between them; within compressed data there is
// nothing else compressed.
func (d *decoder) members(p *position, inside bool) error {
	first := true
	for {
		next, err := p.r.Peek(6)
		if len(next) == 0 {
			switch {
			case !errors.Is(err, io.EOF):
				return d.fail(p, "%w", err)
			case inside && first:
				return d.fail(p, "there is nothing in the compressed data")
			}
			return nil
		}
		switch {
		case next[0] == 0:
			_, _ = p.ReadByte()
			if err := d.take(p, 1); err != nil {
				return err
			}
			continue
		case next[0] == '0':
			if p.at%4 != 0 {
				return d.fail(p, "an archive begins at no multiple of 4")
			}
			if err := d.member(p); err != nil {
				return err
			}
		case inside:
			return d.fail(p, "junk within the compressed data")
		default:
			if err := d.compressed(p, next); err != nil {
				return err
			}
		}
		first = false
	}
}

// compressed reads a compressed part.
func (d *decoder) compressed(p *position, magic []byte) error {
	name := ""
	for _, c := range compressions {
		if strings.HasPrefix(string(magic), c.magic) {
			name = c.name
			break
		}
	}
	var r io.Reader
	begin, parts := p.at, len(d.archive.Parts)
	switch unpack := d.opts.Unpack[name]; {
	case name == "":
		return d.fail(p, "neither an archive nor a compression that the kernel knows begins with %q", magic)
	case name == "gzip":
		z, err := gzip.NewReader(p)
		if err != nil {
			return d.fail(p, "gzip: %w", err)
		}
		z.Multistream(false)
		r = z
	case unpack == nil:
		return d.fail(p, "it is compressed by %s, which only pazimage reads", name)
	default:
		var err error
		if r, err = unpack(p); err != nil {
			return d.fail(p, "%s: %w", name, err)
		}
	}
	if err := d.members(&position{r: bufio.NewReaderSize(r, 1<<16)}, true); err != nil {
		return fmt.Errorf("%s at byte %d: %w", name, begin, err)
	}
	for i := parts; i < len(d.archive.Parts); i++ {
		d.archive.Parts[i].Compression, d.archive.Parts[i].Offset = name, begin
	}
	return nil
}

// hardLink is what entries of the same file have in common.
type hardLink struct{ inode, mode, major, minor uint32 }

// member reads one archive up to its trailer.
func (d *decoder) member(p *position) error {
	part := Part{Offset: p.at}
	linked := make(map[hardLink]*Node)
	d.name = ""
	for {
		var head [headerSize]byte
		begin := p.at
		if err := d.full(p, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return d.fail(p, "it ends without %s", trailer)
			}
			return err
		}
		switch m := string(head[:6]); m {
		case magic, magicSums:
		case "070707":
			return &ArchiveError{begin, d.name, errors.New("a header of the old format: the kernel takes newc alone (cpio -H newc)")}
		default:
			return &ArchiveError{begin, d.name, fmt.Errorf("no header of newc: it begins with %q", m)}
		}
		var f [13]uint32
		for i := range f {
			v, err := strconv.ParseUint(string(head[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				return &ArchiveError{begin, d.name, fmt.Errorf("the header's field %d is no number: %q", i+1, head[6+8*i:14+8*i])}
			}
			f[i] = uint32(v)
		}
		n := &Node{Mode: f[1], UID: f[2], GID: f[3], Size: int64(f[6]), Major: f[9], Minor: f[10]}
		if f[11] == 0 || f[11] > maxPath+1 {
			return d.fail(p, "a name of %d bytes: the kernel takes 1 to %d", f[11], maxPath+1)
		}
		raw := make([]byte, f[11])
		if err := d.full(p, raw); err != nil {
			return err
		}
		name, _, ended := strings.Cut(string(raw), "\x00")
		if !ended || len(name) != len(raw)-1 {
			return d.fail(p, "the name %q does not end with its only NUL", raw)
		}
		d.name = name
		if err := d.pad(p, p.at-begin); err != nil {
			return err
		}
		if name == trailer {
			d.archive.Parts = append(d.archive.Parts, part)
			return nil
		}
		if err := d.keep(p, nodeMemory+int64(len(name))); err != nil {
			return err
		}
		part.Names++
		part.Microcode = part.Microcode || strings.HasPrefix(path.Join("/", name), "/kernel/x86/microcode/")
		data, sum, err := d.body(p, n)
		if err != nil {
			return err
		}
		if string(head[:6]) == magicSums && n.Type() == TypeFile && n.Size > 0 && sum != f[12] {
			return d.fail(p, "its checksum is %08x, not %08x: the content is damaged", sum, f[12])
		}
		if err := d.pad(p, n.Size); err != nil {
			return err
		}
		if !d.node(n, data) {
			continue
		}
		if links := f[4]; links > 1 && n.Type() == TypeFile {
			id := hardLink{f[0], f[1], f[7], f[8]}
			if same := linked[id]; same != nil {
				if n.Size > 0 {
					same.Size, same.Open = n.Size, n.Open
				}
				n = same
			}
			linked[id] = n
		}
		d.place(name, n)
	}
}

// magicSums begins the headers of newc with checksums.
const magicSums = "070702"

// take counts what comes next.
func (d *decoder) take(p *position, size int64) error {
	if size > d.left {
		return d.fail(p, "the image has %d bytes and more, an image may have %d", d.opts.Limit-d.left+size, d.opts.Limit)
	}
	d.left -= size
	return nil
}

// keep counts what stays in memory.
func (d *decoder) keep(p *position, size int64) error {
	if d.kept += size; d.kept > d.opts.Memory {
		return d.fail(p, "up to here it takes %d bytes of memory, and may take %d", d.kept, d.opts.Memory)
	}
	return nil
}

// full reads exactly that much.
func (d *decoder) full(p *position, b []byte) error {
	if err := d.take(p, int64(len(b))); err != nil {
		return err
	}
	if _, err := io.ReadFull(p, b); err != nil {
		return d.fail(p, "%w", err)
	}
	return nil
}

// pad reads the zeros after so many bytes.
func (d *decoder) pad(p *position, size int64) error {
	var b [3]byte
	zeros := b[:(4-size%4)%4]
	if err := d.full(p, zeros); err != nil {
		return err
	}
	if b != [3]byte{} {
		d.problem(d.name, "the bytes up to the next multiple of 4 are not zero")
	}
	return nil
}

func (d *decoder) problem(name, format string, args ...any) {
	d.archive.Problems = append(d.archive.Problems, Problem{name, fmt.Sprintf(format, args...)})
}

// body reads the content of an entry, and adds its bytes up. Only that of a file
// and the target of a link are kept, and not more of a target than the kernel
// takes (PATH_MAX, do_header of init/initramfs.c).
func (d *decoder) body(p *position, n *Node) (data []byte, sum uint32, err error) {
	if err := d.take(p, n.Size); err != nil {
		return nil, 0, err
	}
	var keep bytes.Buffer // grows with what comes, not with what is said to come
	w := io.Writer((*summer)(&sum))
	if n.Type() == TypeFile && !d.opts.Names || n.Type() == TypeSymlink && n.Size <= maxPath {
		if err := d.keep(p, n.Size); err != nil {
			return nil, 0, err
		}
		w = io.MultiWriter(&keep, w)
	}
	if _, err := io.CopyN(w, p, n.Size); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, 0, d.fail(p, "%w", err)
	}
	return keep.Bytes(), sum, nil
}

// A summer is the checksum of newc: the sum of the bytes.
type summer uint32

func (s *summer) Write(p []byte) (int, error) {
	for _, b := range p {
		*s += summer(b)
	}
	return len(p), nil
}

// node makes a node whole with what followed its header, and reports whether the
// kernel takes it.
func (d *decoder) node(n *Node, data []byte) bool {
	switch n.Type() {
	case TypeFile:
		n.From = "the image"
		if !d.opts.Names {
			n.Open = func() (io.ReadCloser, error) { return inMemory{bytes.NewReader(data)}, nil }
		}
	case TypeSymlink:
		if n.Size > maxPath {
			d.problem(d.name, "it is a symbolic link with a target of %d bytes: the kernel takes %d, and leaves it out", n.Size, maxPath)
			return false
		}
		n.Target, n.Size = string(data), 0
	default:
		if n.Size > 0 {
			d.problem(d.name, "it is no file and has a content of %d bytes", n.Size)
		}
		n.Size = 0
	}
	return true
}

// place puts a node where the kernel would: over what is there, but not into a
// folder that is missing.
func (d *decoder) place(name string, n *Node) {
	m := d.archive.Image
	if err := checkName(name); err != nil {
		d.problem(name, "%v", err)
		return
	}
	if err := n.check(); err != nil && n.Type() != TypeFile {
		d.problem(name, "%v", err)
		return
	}
	clean := path.Join("/", name)
	if clean == "/" {
		return
	}
	dir, err := m.Resolve(path.Dir(clean), true)
	if err == nil && dir != "/" && (m.nodes[dir] == nil || m.nodes[dir].Type() != TypeFolder) {
		err = fs.ErrNotExist
	}
	if err != nil {
		d.problem(name, "the folder %s is not there before it: the kernel leaves it out", path.Dir(clean))
		return
	}
	at := path.Join(dir, path.Base(clean))
	if old := m.nodes[at]; old != nil && old.Type() == TypeFolder && n.Type() != TypeFolder {
		prefix := at + "/"
		for other := range m.nodes {
			if strings.HasPrefix(other, prefix) {
				d.problem(name, "there is a folder of that name with files in it: the kernel leaves this out")
				return
			}
		}
	}
	m.nodes[at] = n
}
