package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Types of a node, as in stat(2).
const (
	TypeMask    = 0o170000
	TypeSocket  = 0o140000
	TypeSymlink = 0o120000
	TypeFile    = 0o100000
	TypeBlock   = 0o060000
	TypeFolder  = 0o040000
	TypeChar    = 0o020000
	TypeFIFO    = 0o010000
)

// What the kernel takes: init/initramfs.c skips longer names without a word, and no
// file system has longer parts of one.
const (
	maxPath = 4095 // PATH_MAX without its NUL
	maxName = 255
	maxSize = 1<<32 - 1 // newc has eight hexadecimal digits
	// maxLinks is how many symbolic links the kernel follows in one path.
	maxLinks = 40
)

// A Node is what a name stands for. One that is added under two names is a file
// with two hard links.
type Node struct {
	Mode         uint32 // as in stat(2): type and permissions
	UID, GID     uint32
	Major, Minor uint32 // of the device that it is
	Target       string // of a symbolic link
	Size         int64  // of a file, in bytes

	// Open gives the content of a file, nil for an empty one. It is called once for
	// each time that the image is written; the reader must give Size bytes, and
	// its error at their end counts too.
	Open func() (io.ReadCloser, error)

	// From says where the node came from, for messages: a path, or what made it.
	From string

	links []string // while writing: its names
	inode uint32
}

// Type is the type's bits of the mode.
func (n *Node) Type() uint32 { return n.Mode & TypeMask }

// Data is a file with this content.
func Data(mode uint32, content []byte) *Node {
	return &Node{
		Mode: TypeFile | mode&^TypeMask, Size: int64(len(content)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	}
}

// Folder is an empty folder.
func Folder(mode uint32) *Node { return &Node{Mode: TypeFolder | mode&^TypeMask} }

// Symlink is a symbolic link.
func Symlink(target string) *Node { return &Node{Mode: TypeSymlink | 0o777, Target: target} }

// Char is a character device.
func Char(mode, major, minor uint32) *Node {
	return &Node{Mode: TypeChar | mode&^TypeMask, Major: major, Minor: minor}
}

// Block is a block device.
func Block(mode, major, minor uint32) *Node {
	return &Node{Mode: TypeBlock | mode&^TypeMask, Major: major, Minor: minor}
}

// An Image is a tree of nodes by name. The zero value is not usable; see [New].
type Image struct {
	nodes   map[string]*Node  // by clean absolute path; "/" is not in it
	linkers map[uint16]string // the dynamic linkers that programs were found to have, by machine
}

// New is an image without anything.
func New() *Image { return &Image{nodes: make(map[string]*Node), linkers: make(map[uint16]string)} }

// Names are all names, sorted; a folder stands before what is in it.
func (m *Image) Names() []string {
	names := make([]string, 0, len(m.nodes))
	for name := range m.nodes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Get is the node of exactly this name, nil if there is none. Symbolic links are
// not followed; see [Image.Resolve].
func (m *Image) Get(name string) *Node {
	if name == "/" {
		return &Node{Mode: TypeFolder | 0o755}
	}
	return m.nodes[name]
}

// errLoop is what resolving a name of too many symbolic links says.
var errLoop = errors.New("too many levels of symbolic links")

// Resolve is the name that name stands for: without symbolic links on the way to
// its last part, and with last, without one there either. The name need not exist
// if the folder does; the error is [fs.ErrNotExist] if not even that, and says
// what is missing. Above the root is the root, as everywhere.
func (m *Image) Resolve(name string, last bool) (string, error) {
	todo, at, followed := parts(name), "/", 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		if part == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		n := m.nodes[next]
		switch {
		case n == nil && len(todo) > 0:
			return "", &fs.PathError{Op: "find", Path: next, Err: fs.ErrNotExist}
		case n == nil || len(todo) == 0 && !last:
			at = next
		case n.Type() == TypeSymlink:
			if followed++; followed > maxLinks {
				return "", fmt.Errorf("follow %s: %w", name, errLoop)
			}
			if path.IsAbs(n.Target) {
				at = "/"
			}
			todo = append(parts(n.Target), todo...)
		case n.Type() != TypeFolder && len(todo) > 0:
			return "", fmt.Errorf("find %s: %s is not a folder", name, next)
		default:
			at = next
		}
	}
	return at, nil
}

// parts are the parts of a path that mean something, ".." among them.
func parts(name string) []string {
	var out []string
	for part := range strings.SplitSeq(name, "/") {
		if part != "" && part != "." {
			out = append(out, part)
		}
	}
	return out
}

// checkName says what is wrong with a name for an image: it must be one that the
// kernel can make.
func checkName(name string) error {
	switch {
	case strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("name %q has a NUL byte", name)
	case len(name) > maxPath:
		return fmt.Errorf("name %.40q… has %d bytes, the kernel takes %d", name, len(name), maxPath)
	case strings.Trim(name, "/") == "TRAILER!!!":
		return fmt.Errorf("name %q is the mark of an archive's end", name)
	}
	for _, part := range parts(name) {
		if part == ".." {
			return fmt.Errorf("name %q leads outside: it has a part \"..\"", name)
		}
		if len(part) > maxName {
			return fmt.Errorf("name %.40q… has a part of %d bytes, file systems take %d", name, len(part), maxName)
		}
	}
	return nil
}

// check says what is wrong with a node.
func (n *Node) check() error {
	switch n.Type() {
	case TypeFile:
		if n.Size < 0 || n.Size > maxSize {
			return fmt.Errorf("file of %d bytes: the format ends at 4 GiB", n.Size)
		}
	case TypeSymlink:
		if n.Target == "" || len(n.Target) > maxPath || strings.IndexByte(n.Target, 0) >= 0 {
			return fmt.Errorf("symbolic link to %.40q: the target must have 1 to %d bytes and no NUL", n.Target, maxPath)
		}
	case TypeFolder, TypeChar, TypeBlock, TypeFIFO:
	case TypeSocket:
		return errors.New("it is a socket, which means nothing without its program")
	default:
		return fmt.Errorf("mode %o has no known type", n.Mode)
	}
	return nil
}

// Add puts a node under a name, with the folders above it that are missing.
// Symbolic links to folders on the way are followed within the image, and a folder
// over such a link is the folder that it leads to. What was there before is
// replaced, but no folder by something else and nothing else by a folder.
func (m *Image) Add(name string, n *Node) error {
	_, err := m.add(name, n)
	return err
}

// add is Add; it returns the name without symbolic links.
func (m *Image) add(name string, n *Node) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	if err := n.check(); err != nil {
		return "", fmt.Errorf("add %s: %w", name, err)
	}
	name = path.Join("/", name)
	if name == "/" {
		if n.Type() != TypeFolder {
			return "", errors.New("add /: the root is a folder")
		}
		return name, nil
	}
	dir, err := m.makeFolder(path.Dir(name), n.From)
	if err != nil {
		return "", fmt.Errorf("add %s: %w", name, err)
	}
	at := path.Join(dir, path.Base(name))
	if len(at) > maxPath {
		return "", fmt.Errorf("name %.40q… has %d bytes where its links lead, the kernel takes %d", at, len(at), maxPath)
	}
	old := m.nodes[at]
	if n.Type() == TypeFolder && old != nil && old.Type() == TypeSymlink {
		to, err := m.Resolve(at, true)
		if err != nil || to != "/" && (m.nodes[to] == nil || m.nodes[to].Type() != TypeFolder) {
			return "", fmt.Errorf("add %s: %s, and it is a folder in %s", name, describe(old), from(n))
		}
		return to, nil
	}
	if old != nil && (old.Type() == TypeFolder) != (n.Type() == TypeFolder) {
		return "", fmt.Errorf("add %s: %s, and in %s it is not: %s", name, describe(old), from(n), describe(n))
	}
	m.nodes[at] = n
	return at, nil
}

func describe(n *Node) string {
	what := map[uint32]string{
		TypeFolder: "a folder", TypeFile: "a file", TypeSymlink: "a symbolic link to " + n.Target,
		TypeChar: "a device", TypeBlock: "a device", TypeFIFO: "a FIFO",
	}[n.Type()]
	return "it is " + what + " in " + from(n)
}

func from(n *Node) string {
	if n.From == "" {
		return "the image"
	}
	return n.From
}

// makeFolder makes a folder with those above it, and returns its name without
// symbolic links.
func (m *Image) makeFolder(name, why string) (string, error) {
	at := "/"
	for _, part := range parts(name) {
		next := path.Join(at, part)
		n := m.nodes[next]
		if n == nil {
			m.nodes[next] = &Node{Mode: TypeFolder | 0o755, From: why}
			at = next
			continue
		}
		if n.Type() == TypeSymlink {
			to, err := m.Resolve(next, true)
			if err != nil {
				return "", err
			}
			if to != "/" && m.nodes[to] == nil {
				return "", fmt.Errorf("%s is a symbolic link to %s, which is not there", next, to)
			}
			next = to
		}
		if next != "/" && m.nodes[next].Type() != TypeFolder {
			return "", fmt.Errorf("%s is not a folder: %s", next, describe(m.nodes[next]))
		}
		at = next
	}
	return at, nil
}

// Remove takes a name out, and all below it. The last part of name is taken as it
// is; symbolic links above it are followed. Removing what is not there is no error.
func (m *Image) Remove(name string) error {
	at, err := m.Resolve(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	delete(m.nodes, at)
	for name := range m.nodes {
		if strings.HasPrefix(name, strings.TrimSuffix(at, "/")+"/") {
			delete(m.nodes, name)
		}
	}
	return nil
}
