package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/pazinit/pazinit/initramfs"
)

// An applier lays layers over each other: image-spec/layer.md.
type applier struct {
	tree  *initramfs.Image
	spool *os.File // contents, one after the other
	end   int64
	limit int64 // of end
	count int   // entries of all layers
	say   func(format string, args ...any)
	own   map[string]bool // what the layer being applied has brought
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// layer applies one layer.
func (a *applier) layer(t *tar.Reader) error {
	a.own = map[string]bool{}
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read its archive: %w", err)
		}
		if a.count++; a.count > maxEntries {
			return fmt.Errorf("the layers have %d entries and more, and they may have %d", a.count, maxEntries)
		}
		if err := a.entry(h, t); err != nil {
			return err
		}
	}
}

// entry applies one entry of a layer.
func (a *applier) entry(h *tar.Header, content io.Reader) error {
	for part := range strings.SplitSeq(h.Name, "/") {
		if part == ".." {
			return fmt.Errorf("entry %q leads outside", h.Name)
		}
	}
	name := path.Join("/", h.Name)
	base := path.Base(name)
	if strings.HasPrefix(base, whiteout) {
		return a.hide(path.Dir(name), base)
	}
	n, err := a.node(h, content)
	if err != nil {
		return fmt.Errorf("entry %s: %w", name, err)
	}
	if n == nil || name == "/" {
		return nil
	}
	if err := a.tree.MakeFolder(path.Dir(name)); err != nil {
		return fmt.Errorf("entry %s: %w", name, err)
	}
	at, err := a.tree.Resolve(name, false)
	if err != nil {
		return fmt.Errorf("entry %s: %w", name, err)
	}
	if old := a.tree.Get(at); old != nil && (old.Type() != initramfs.TypeFolder || n.Type() != initramfs.TypeFolder) {
		if err := a.tree.Remove(at); err != nil {
			return fmt.Errorf("entry %s: %w", name, err)
		}
	}
	if err := a.tree.Add(at, n); err != nil {
		return err
	}
	for dir := at; dir != "/"; dir = path.Dir(dir) {
		a.own[dir] = true
	}
	return nil
}

// hide takes out what lower layers have: a name, or all that is in the folder.
func (a *applier) hide(dir, base string) error {
	at, err := a.tree.Resolve(dir, true)
	if err != nil {
		return nil //nolint:nilerr // there is nothing to hide
	}
	if base != opaque && strings.HasPrefix(base, whiteout+whiteout) {
		return nil // notes that AUFS makes for itself
	}
	below := strings.TrimSuffix(at, "/") + "/"
	hidden := ""
	if base != opaque {
		hidden = below + strings.TrimPrefix(base, whiteout)
		if part := path.Base(hidden); part == ".." || part == "." || hidden == below {
			return fmt.Errorf("entry %q hides no name", path.Join(dir, base))
		}
	}
	for _, name := range a.tree.Names() {
		switch {
		case a.own[name] || a.tree.Get(name) == nil:
		case hidden == "" && strings.HasPrefix(name, below), name == hidden, hidden != "" && strings.HasPrefix(name, hidden+"/"):
			if err := a.tree.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// node is what an entry says, nil if it is nothing.
func (a *applier) node(h *tar.Header, content io.Reader) (*initramfs.Node, error) {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "SCHILY.xattr.security.capability") {
			a.say("%s has file capabilities, which an initramfs cannot hold: who runs it needs them otherwise, or root", path.Join("/", h.Name))
		} else if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok && !strings.HasPrefix(attr, "user.overlay.") && !strings.HasPrefix(attr, "trusted.overlay.") {
			a.say("%s has the attribute %s, which an initramfs cannot hold", path.Join("/", h.Name), attr)
		}
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) > 1<<32-2 || int64(h.Gid) > 1<<32-2 {
		return nil, fmt.Errorf("its owner %d:%d is none", h.Uid, h.Gid)
	}
	n := &initramfs.Node{Mode: uint32(h.Mode) & 0o7777, UID: uint32(h.Uid), GID: uint32(h.Gid), From: "the container image"}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		n.Mode |= initramfs.TypeFile
		at := a.end
		if h.Size > a.limit-at { // of a sparse one little more than the size is in the archive
			return nil, fmt.Errorf("with its %d bytes the files of all layers have %d, and they may have %d", h.Size, at+h.Size, a.limit)
		}
		size, err := io.Copy(io.NewOffsetWriter(a.spool, at), content)
		if err != nil {
			return nil, err
		}
		a.end += size
		n.Size = size
		n.Open = func() (io.ReadCloser, error) { return section{io.NewSectionReader(a.spool, at, size)}, nil }
	case tar.TypeLink:
		to, err := a.tree.Resolve(path.Join("/", h.Linkname), false)
		if err != nil {
			return nil, fmt.Errorf("hard link to %s: %w", h.Linkname, err)
		}
		same := a.tree.Get(to)
		if same == nil || same.Type() == initramfs.TypeFolder {
			return nil, fmt.Errorf("hard link to %s, which is not there", h.Linkname)
		}
		return same, nil
	case tar.TypeSymlink:
		n.Mode, n.Target = initramfs.TypeSymlink|0o777, h.Linkname
	case tar.TypeDir:
		n.Mode |= initramfs.TypeFolder
	case tar.TypeChar, tar.TypeBlock:
		n.Mode |= initramfs.TypeChar
		if h.Typeflag == tar.TypeBlock {
			n.Mode = n.Mode&^initramfs.TypeMask | initramfs.TypeBlock
		}
		if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor > 1<<32-1 || h.Devminor > 1<<32-1 {
			return nil, errors.New("its device number is none")
		}
		n.Major, n.Minor = uint32(h.Devmajor), uint32(h.Devminor)
	case tar.TypeFifo:
		n.Mode |= initramfs.TypeFIFO
	case tar.TypeXGlobalHeader:
		return nil, nil
	default:
		return nil, fmt.Errorf("its type %q is not known", h.Typeflag)
	}
	return n, nil
}

// A section is a part of the spool.
type section struct{ *io.SectionReader }

func (section) Close() error { return nil }
