package initramfs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
)

// mounted are the folders whose contents come when the machine runs.
var mounted = [...]string{"/proc", "/sys", "/dev", "/run", "/tmp", "/var/run"}

// Check says why a machine could not start from the image, or something in it: no
// /init, symbolic links to nowhere, programs without their interpreters or
// libraries. The image must have its contents.
func (m *Image) Check() []Problem {
	var all []Problem
	add := func(name, format string, args ...any) {
		all = append(all, Problem{name, fmt.Sprintf(format, args...)})
	}
	switch at, err := m.Resolve("/init", true); {
	case err != nil:
		add("/init", "%v", err)
	case m.nodes[at] == nil:
		add("/init", "it is not there: the kernel would look for a root to mount instead")
	case m.nodes[at].Type() != TypeFile:
		add("/init", "it is no file")
	case m.nodes[at].Mode&0o111 == 0:
		add("/init", "it is not executable")
	}
	if n := m.nodes["/dev/console"]; n == nil || n.Type() != TypeChar || n.Major != 5 || n.Minor != 1 {
		add("/dev/console", "it is not the device 5:1: /init would start without a console")
	}
	// What would be added is what is missing.
	whole := &Image{nodes: maps.Clone(m.nodes), linkers: maps.Clone(m.linkers)}
	seen := make(map[*Node]bool) // a file with several names is one
	for _, name := range m.Names() {
		n := m.nodes[name]
		if seen[n] {
			continue
		}
		seen[n] = true
		switch {
		case n.Type() == TypeSymlink:
			if what := m.dangles(name); what != "" {
				add(name, "symbolic link to %s, which %s", n.Target, what)
			}
		case n.Type() == TypeFile && n.Mode&0o111 != 0 && n.Size > 0:
			if what := whole.lacks(name, n); what != "" {
				add(name, "%s", what)
			}
		}
	}
	for _, name := range whole.Names() {
		if n := whole.nodes[name]; m.nodes[name] == nil {
			add(name, "it is needed to find %s: the image has no /etc/ld.so.cache", n.Target)
		}
	}
	return all
}

// dangles says what is wrong with a symbolic link, "" if it leads somewhere.
func (m *Image) dangles(name string) string {
	at, err := m.Resolve(name, true)
	var missing *fs.PathError
	switch {
	case errors.As(err, &missing):
		at = missing.Path
	case err != nil:
		return "leads nowhere: " + err.Error()
	case at == "/" || m.nodes[at] != nil:
		return ""
	}
	for _, dir := range mounted {
		if at == dir || strings.HasPrefix(at, dir+"/") {
			return ""
		}
	}
	return "is not there"
}

// lacks says what an executable file needs and has not, "" for nothing.
func (m *Image) lacks(name string, n *Node) string {
	c, err := open(n)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	o, err := readObject(c)
	_, _, script := scriptLine(c)
	switch {
	case errors.Is(err, errNotELF) && !script:
		return "" // some other file that somebody made executable
	case err != nil && !errors.Is(err, errNotELF):
		return err.Error()
	case err == nil && o.interp == "":
		return "" // static, or a library
	}
	_, err = m.AddProgram(name, Search{Path: strings.Split(DefaultPath, ":")})
	var missing *MissingError
	switch {
	case errors.As(err, &missing):
		short := *missing
		short.Looked = nil
		if short.For == name {
			short.For = "it"
		}
		return short.Error()
	case err != nil:
		return err.Error()
	}
	return ""
}

// DefaultPath is where programs are looked for without PATH.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
