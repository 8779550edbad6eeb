package initramfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// fromHost is the node of a file of this machine: type, permissions, size and
// device number, but not its owner nor its times. A file's content is read later.
func fromHost(file string) (*Node, *unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return nil, nil, &fs.PathError{Op: "read", Path: file, Err: err}
	}
	n := &Node{Mode: st.Mode, From: file}
	switch n.Type() {
	case TypeFile:
		n.Size = st.Size
		n.Open = func() (io.ReadCloser, error) { return openSame(file, &st) }
	case TypeSymlink:
		target, err := os.Readlink(file)
		if err != nil {
			return nil, nil, err
		}
		n.Mode, n.Target = TypeSymlink|0o777, target
	case TypeChar, TypeBlock:
		n.Major, n.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	if err := n.check(); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", file, err)
	}
	return n, &st, nil
}

// openSame opens a file that must still be what it was.
func openSame(file string, was *unix.Stat_t) (io.ReadCloser, error) {
	// Without waiting: a FIFO may have come in its place.
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: file, Err: err}
	}
	f := &sameFile{f: os.NewFile(uintptr(fd), file), was: was}
	if err := f.check(); err != nil {
		f.f.Close()
		return nil, err
	}
	return f, nil
}

// A sameFile is a file that is looked at again when it has been read.
type sameFile struct {
	f   *os.File
	was *unix.Stat_t
}

func (f *sameFile) Close() error { return f.f.Close() }

func (f *sameFile) Read(p []byte) (int, error) {
	n, err := f.f.Read(p)
	if errors.Is(err, io.EOF) {
		if changed := f.check(); changed != nil {
			err = changed
		}
	}
	return n, err
}

func (f *sameFile) check() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "look at", Path: f.f.Name(), Err: err}
	}
	if st.Dev != f.was.Dev || st.Ino != f.was.Ino || st.Mode != f.was.Mode || st.Size != f.was.Size || st.Mtim != f.was.Mtim || st.Ctim != f.was.Ctim {
		return fmt.Errorf("read %s: %w", f.f.Name(), ErrChanged)
	}
	return nil
}

// AddFolder lays what is in a folder of this machine over the folder at of the
// image. Permissions are kept; owners are root's. Files that are hard links of each
// other stay so. A symbolic link must not lead out of the image, nor to itself.
func (m *Image) AddFolder(folder, at string) error {
	st, err := os.Stat(folder)
	if err != nil {
		return fmt.Errorf("lay a folder: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("lay %s over %s: it is not a folder", folder, at)
	}
	if err := checkName(at); err != nil {
		return err
	}
	if _, err := m.makeFolder(at, folder); err != nil {
		return fmt.Errorf("lay %s over %s: %w", folder, at, err)
	}
	type file struct{ dev, inode uint64 }
	linked := make(map[file]*Node)
	var names []string
	var walk func(dir, at string) error
	walk = func(dir, at string) error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name, host := path.Join(at, e.Name()), filepath.Join(dir, e.Name())
			n, st, err := fromHost(host)
			if err != nil {
				return err
			}
			if st.Nlink > 1 && n.Type() != TypeFolder {
				id := file{st.Dev, st.Ino}
				if same := linked[id]; same != nil {
					n = same
				}
				linked[id] = n
			}
			if n.Type() == TypeSymlink {
				if err := checkTarget(name, n); err != nil {
					return err
				}
				names = append(names, name)
			}
			if name, err = m.add(name, n); err != nil {
				return err
			}
			if n.Type() == TypeFolder {
				if err := walk(host, name); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := walk(folder, at); err != nil {
		return err
	}
	for _, name := range names { // now that all of them are there
		if _, err := m.Resolve(name, true); errors.Is(err, errLoop) {
			n := m.Get(name)
			return fmt.Errorf("%s: symbolic link to %s: %w", from(n), n.Target, errLoop)
		}
	}
	return nil
}

// checkTarget says whether a relative symbolic link climbs above the root, where
// it would mean something else than in the folder that it comes from.
func checkTarget(name string, n *Node) error {
	if path.IsAbs(n.Target) {
		return nil
	}
	depth := len(parts(name)) - 1
	for _, part := range parts(n.Target) {
		if part != ".." {
			depth++
		} else if depth--; depth < 0 {
			return fmt.Errorf("%s: symbolic link to %s leads outside of the image", from(n), n.Target)
		}
	}
	return nil
}

// AddFile puts a file of this machine under a name; symbolic links to it are
// followed. A folder is laid there with all that is in it.
func (m *Image) AddFile(file, name string) error {
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	n, _, err := fromHost(real)
	if err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	if n.Type() == TypeFolder {
		return m.AddFolder(real, name)
	}
	return m.Add(name, n)
}

// A Root is a folder of this machine whose programs are looked for as if it were
// "/": symbolic links in it do not lead out of it. The zero value is "/" itself.
type Root struct{ Dir string }

// host is where a name is on this machine: symbolic links above its last part are
// followed within the root.
func (r Root) host(name string) (string, error) {
	if r.Dir == "" || r.Dir == "/" {
		return path.Join("/", name), nil
	}
	todo, at, followed := parts(name), "/", 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		if part == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		if len(todo) > 0 {
			target, err := os.Readlink(filepath.Join(r.Dir, next))
			if err == nil {
				if followed++; followed > maxLinks {
					return "", fmt.Errorf("follow %s in %s: %w", name, r.Dir, errLoop)
				}
				if path.IsAbs(target) {
					at = "/"
				}
				todo = slices.Concat(parts(target), todo)
				continue
			}
		}
		at = next
	}
	return filepath.Join(r.Dir, at), nil
}

// An addition is a node that an image would get.
type addition struct {
	name string
	node *Node
}

// A way is what a name leads to: the file's name without symbolic links, its node,
// and what the image has not yet of the way there.
type way struct {
	name  string
	node  *Node
	added []addition
}

func (m *Image) take(w way) {
	for _, a := range w.added {
		m.nodes[a.name] = a.node
	}
}

// find looks for what name leads to: in the image, and where that has nothing, in
// the root, unless that is nil. The error is fs.ErrNotExist if neither has it.
func (m *Image) find(r *Root, name string) (way, error) {
	w := way{node: m.Get("/")}
	get := func(name string) *Node {
		for _, a := range w.added {
			if a.name == name {
				return a.node
			}
		}
		return m.nodes[name]
	}
	todo, at, followed := parts(name), "/", 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		if part == ".." {
			at = path.Dir(at)
			w.node = m.Get("/")
			continue
		}
		next := path.Join(at, part)
		if err := checkName(next); err != nil {
			return way{}, err
		}
		if w.node = get(next); w.node == nil {
			if r == nil {
				return way{}, &fs.PathError{Op: "find", Path: name, Err: fs.ErrNotExist}
			}
			host, err := r.host(next)
			if err != nil {
				return way{}, err
			}
			if w.node, _, err = fromHost(host); err != nil {
				return way{}, err
			}
			if w.node.Type() == TypeFolder {
				w.node.Mode = TypeFolder | 0o755
			}
			w.added = append(w.added, addition{next, w.node})
		}
		switch {
		case w.node.Type() == TypeSymlink:
			if followed++; followed > maxLinks {
				return way{}, fmt.Errorf("follow %s: %w", name, errLoop)
			}
			if path.IsAbs(w.node.Target) {
				at = "/"
			}
			todo = slices.Concat(parts(w.node.Target), todo)
		case w.node.Type() != TypeFolder && len(todo) > 0:
			return way{}, &fs.PathError{Op: "find", Path: name, Err: unix.ENOTDIR}
		default:
			at = next
		}
	}
	w.name = at
	return w, nil
}

// FileNode is a file of this machine, whose content is read when the image is
// written.
func FileNode(file string) (*Node, error) {
	n, _, err := fromHost(file)
	return n, err
}
