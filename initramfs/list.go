package initramfs

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
)

// AddList adds what a list says, line by line, in the words of the kernel's own
// usr/gen_init_cpio:
//
//	file NAME LOCATION MODE UID GID [NAME…]  a file of this machine, with hard links
//	dir NAME MODE UID GID
//	nod NAME MODE UID GID b|c MAJOR MINOR
//	slink NAME TARGET MODE UID GID
//	pipe NAME MODE UID GID
//
// and one of its own, which changes what is there already; NAME/** means all that
// is below NAME, too, and a MODE of - leaves it:
//
//	own NAME MODE UID GID
//
// Relative locations begin in dir. Errors begin with file and the line.
func (m *Image) AddList(r io.Reader, file, dir string) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for line := 1; in.Scan(); line++ {
		f := strings.Fields(in.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if err := m.addLine(f, dir); err != nil {
			return fmt.Errorf("%s:%d: %w", file, line, err)
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}

func (m *Image) addLine(f []string, dir string) error {
	// How many words each kind has, and where its mode stands.
	kinds := map[string]struct{ words, mode int }{
		"file": {6, 3}, "dir": {5, 2}, "nod": {8, 2}, "slink": {6, 3}, "pipe": {5, 2}, "own": {5, 2},
	}
	k, known := kinds[f[0]]
	switch {
	case f[0] == "sock":
		return fmt.Errorf("%s: a socket means nothing without its program", f[1%len(f)])
	case !known:
		return fmt.Errorf("%q is none of file, dir, nod, slink, pipe and own", f[0])
	case len(f) < k.words || len(f) > k.words && f[0] != "file":
		return fmt.Errorf("%s takes %d words, not %d", f[0], k.words-1, len(f)-1)
	}
	var n Node
	n.From = "the list"
	keep := f[0] == "own" && f[k.mode] == "-"
	mode, err := strconv.ParseUint(f[k.mode], 8, 32)
	if (err != nil || mode > 0o7777) && !keep {
		return fmt.Errorf("mode %q is no octal number of at most 7777", f[k.mode])
	}
	n.Mode = uint32(mode)
	for i, to := range []*uint32{&n.UID, &n.GID} {
		v, err := strconv.ParseUint(f[k.mode+1+i], 10, 32)
		if err != nil {
			return fmt.Errorf("owner %q is no number", f[k.mode+1+i])
		}
		*to = uint32(v)
	}
	switch f[0] {
	case "own":
		return m.own(f[1], n, keep)
	case "dir":
		n.Mode |= TypeFolder
	case "pipe":
		n.Mode |= TypeFIFO
	case "slink":
		n.Mode, n.Target = TypeSymlink|0o777, f[2]
	case "nod":
		switch f[5] {
		case "b":
			n.Mode |= TypeBlock
		case "c":
			n.Mode |= TypeChar
		default:
			return fmt.Errorf("a device is b or c, not %q", f[5])
		}
		for i, to := range []*uint32{&n.Major, &n.Minor} {
			v, err := strconv.ParseUint(f[6+i], 10, 32)
			if err != nil {
				return fmt.Errorf("device number %q is no number", f[6+i])
			}
			*to = uint32(v)
		}
	case "file":
		location := f[2]
		if !filepath.IsAbs(location) {
			location = filepath.Join(dir, location)
		}
		real, err := filepath.EvalSymlinks(location)
		if err != nil {
			return err
		}
		file, err := FileNode(real)
		if err != nil {
			return err
		}
		if file.Type() != TypeFile {
			return fmt.Errorf("%s is no file", real)
		}
		n.Mode, n.Size, n.Open, n.From = n.Mode|TypeFile, file.Size, file.Open, real
		for _, name := range f[k.words:] {
			if err := m.Add(name, &n); err != nil {
				return err
			}
		}
	}
	return m.Add(f[1], &n)
}

// own changes owner and permissions of what is there.
func (m *Image) own(name string, as Node, keepMode bool) error {
	name, all := strings.CutSuffix(name, "/**")
	at, err := m.Resolve(name, false)
	if err != nil {
		return err
	}
	if m.nodes[at] == nil && (!all || at != "/") {
		return fmt.Errorf("own %s: it is not in the image", name)
	}
	prefix := strings.TrimSuffix(at, "/") + "/"
	for other, n := range m.nodes {
		if other != at && (!all || !strings.HasPrefix(other, prefix)) {
			continue
		}
		n.UID, n.GID = as.UID, as.GID
		if !keepMode && n.Type() != TypeSymlink {
			n.Mode = n.Type() | as.Mode
		}
	}
	return nil
}
