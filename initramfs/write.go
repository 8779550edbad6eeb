package initramfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

const (
	magic   = "070701" // newc
	trailer = "TRAILER!!!"
	// blockSize is what an archive's length is a multiple of, as cpio(1) has it:
	// another one can then stand behind it.
	blockSize = 512
)

// Write writes the archive: the newc format that the kernel unpacks, see
// Documentation/driver-api/early-userspace/buffer-format.rst of the kernel. The
// same nodes give the same bytes.
func (m *Image) Write(w io.Writer) error {
	out := &counter{w: bufio.NewWriterSize(w, 1<<16)}
	names := m.order()
	subfolders := make(map[string]int)
	for _, n := range m.nodes {
		n.links, n.inode = nil, 0
	}
	for _, name := range names {
		n := m.nodes[name]
		n.links = append(n.links, name)
		if n.Type() == TypeFolder {
			subfolders[parent(name)]++
		}
	}
	inode := uint32(0)
	for _, name := range names {
		n := m.nodes[name]
		if n.inode == 0 {
			inode++
			n.inode = inode
		}
		h := header{inode: n.inode, mode: n.Mode, uid: n.UID, gid: n.GID, links: len(n.links), major: n.Major, minor: n.Minor, name: name[1:]}
		switch n.Type() {
		case TypeFolder:
			h.links = 2 + subfolders[name]
		case TypeSymlink:
			h.size = int64(len(n.Target))
		case TypeFile:
			// The content goes with the last of its names, as cpio(1) does it.
			if n.links[len(n.links)-1] == name {
				h.size = n.Size
			}
		}
		out.header(h)
		if n.Type() == TypeSymlink {
			out.text(n.Target)
		} else if h.size > 0 {
			if err := out.content(n); err != nil {
				return fmt.Errorf("write %s: %w", name, err)
			}
		}
		out.pad(4)
	}
	out.header(header{links: 1, name: trailer})
	out.pad(blockSize)
	if out.err == nil {
		out.err = out.w.Flush()
	}
	return out.err
}

// An image that has these two says of itself whether it is there whole: the kernel
// unpacks until its memory is full or the image is damaged, and starts /init all
// the same. WholeMark is a symbolic link to EndMark, and nothing stands behind that.
const (
	WholeMark = "/.pazinit-whole"
	EndMark   = "/.pazinit-end"
)

// AddMarks adds the two marks.
func (m *Image) AddMarks() error {
	for name, n := range map[string]*Node{WholeMark: Symlink(EndMark[1:]), EndMark: Data(0o444, nil)} {
		n.From = "every image"
		if err := m.Add(name, n); err != nil {
			return err
		}
	}
	return nil
}

// order are the names as they are written: /init and WholeMark, which can tell of
// what is missing, then what has no place of its own, sorted, and EndMark.
func (m *Image) order() []string {
	names := m.Names()
	out := make([]string, 0, len(names))
	done := make(map[string]bool)
	var put func(name string)
	put = func(name string) {
		if m.nodes[name] != nil && !done[name] {
			put(parent(name))
			done[name] = true
			out = append(out, name)
		}
	}
	if at, err := m.Resolve("/init", true); err == nil && m.nodes[at] != nil {
		for _, name := range names {
			if m.nodes[name] == m.nodes[at] {
				put(name)
			}
		}
	}
	put("/init")
	put(WholeMark)
	for _, name := range names {
		if name != EndMark {
			put(name)
		}
	}
	put(EndMark)
	return out
}

// Memory is how many bytes of a machine's memory the files take when the kernel has
// unpacked them, in pages of 4096 bytes, and how many all of it takes with the
// kernel's own notes of each name.
func (m *Image) Memory() (files, all int64) {
	const page, note = 4096, 1024
	seen := make(map[*Node]bool)
	for _, n := range m.nodes {
		all += note
		if !seen[n] && n.Type() == TypeFile {
			files += (n.Size + page - 1) / page * page
		}
		seen[n] = true
	}
	return files, files + all
}

func parent(name string) string {
	for i := len(name) - 1; i > 0; i-- {
		if name[i] == '/' {
			return name[:i]
		}
	}
	return "/"
}

// A header is what stands before a name in the archive.
type header struct {
	inode, mode, uid, gid uint32
	links                 int
	size                  int64
	major, minor          uint32
	name                  string
}

// A counter writes, knows how much, and remembers the first error.
type counter struct {
	w   *bufio.Writer
	n   int64
	err error
}

func (c *counter) text(s string) {
	if c.err == nil {
		_, c.err = c.w.WriteString(s)
		c.n += int64(len(s))
	}
}

func (c *counter) pad(to int64) {
	const zeros = "\x00\x00\x00\x00\x00\x00\x00\x00"
	for over := c.n % to; over != 0 && c.err == nil; over = c.n % to {
		c.text(zeros[:min(to-over, int64(len(zeros)))])
	}
}

func (c *counter) header(h header) {
	c.text(magic)
	for _, v := range [...]uint32{
		h.inode, h.mode, h.uid, h.gid, uint32(h.links), 0 /* mtime */, uint32(h.size),
		0, 0 /* the device it is on */, h.major, h.minor, uint32(len(h.name) + 1), 0, /* checksum */
	} {
		var b [8]byte
		for i := range b {
			b[i] = "0123456789abcdef"[v>>(28-4*i)&15]
		}
		c.text(string(b[:]))
	}
	c.text(h.name)
	c.text("\x00")
	c.pad(4)
}

// content writes exactly what the node says that it has.
func (c *counter) content(n *Node) error {
	if c.err != nil {
		return c.err
	}
	if n.Open == nil {
		return errors.New("its content is not known")
	}
	r, err := n.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := io.CopyN(c.w, r, n.Size)
	c.n += got
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("it has %d bytes, not %d: %w", got, n.Size, ErrChanged)
	}
	if err != nil {
		return err
	}
	var one [1]byte
	switch got, err := io.ReadFull(r, one[:]); {
	case got > 0:
		return fmt.Errorf("it has more than %d bytes: %w", n.Size, ErrChanged)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// ErrChanged is what reading a file says that is not what it was when it was added.
var ErrChanged = errors.New("it changed while the image was made")
