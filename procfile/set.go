package procfile

import (
	"path/filepath"
	"slices"
	"strings"
)

// setFile is what the position of a setting that no file has begins with.
const setFile = "pazinit.set="

// applySets puts Options.Set over the tree of the files. Each is PATH=VALUE, the
// value as in the configuration. PATH is a key with what it stands in, with dots
// between: machine.hostname, applications.shop.user; or it begins with the name of
// an application: shop.user, shop.env.MODE, shop.web.num_instances.
func (l *loader) applySets(r *reader, tree *node) {
	for _, s := range l.opts.Set {
		path, value, ok := strings.Cut(s, "=")
		at := Position{File: setFile + s}
		keys := strings.Split(path, ".")
		if !ok || strings.Contains("."+path+".", "..") || len(keys) > maxNesting {
			l.errs.add(at, "pazinit.set=shop.web.num_instances=2", "no key and value")
			continue
		}
		if keys[0] == "include" {
			l.errs.add(at, "", "include stands in files only")
			continue
		}
		keys, meant := l.setPath(tree, keys)
		if keys == nil {
			l.errs.add(at, meant, "no application %s, and no such key", quote(strings.Split(path, ".")[0]))
			continue
		}
		v := r.parseValue(at, value)
		if v == nil {
			continue
		}
		for i := len(keys) - 1; i >= 0; i-- {
			v = &node{kind: mapping, pos: at, keys: []entry{{keys[i], at, v}}}
		}
		merge(tree, v, 0)
	}
}

// setPath completes keys from the top; nil if the first names nothing.
func (l *loader) setPath(tree *node, keys []string) (path []string, meant string) {
	top := keyNames(table, AtTop)
	if slices.Contains(top, keys[0]) {
		return keys, ""
	}
	known := top
	var app *node
	if apps := tree.get("applications"); apps != nil {
		for _, e := range apps.value.keys {
			known = append(known, e.key)
			if e.key == keys[0] {
				app = e.value
			}
		}
	}
	if app == nil {
		return nil, didYouMean(keys[0], known)
	}
	path = []string{"applications", keys[0]}
	// A worker may be called like a key.
	if len(keys) > 2 && !sectionKey(keys[1]) {
		path = append(path, "workers")
	}
	return append(path, keys[1:]...), ""
}

var maps = []Type{TypeMap, TypeSection, TypeSections, TypeOutput, TypeVerbs}

// sectionKey reports whether an application's key has keys in it.
func sectionKey(name string) bool {
	for i := range table {
		k := &table[i]
		if k.At&AtApplication != 0 && k.Name == name && slices.Contains(maps, k.Type) {
			return true
		}
	}
	return false
}

// parseValue reads a value that stands alone.
func (r *reader) parseValue(at Position, text string) *node {
	tree := r.parse(at.File, []byte("v: "+text+"\n"))
	if tree == nil {
		return nil
	}
	e := tree.get("v")
	if e == nil || len(tree.keys) != 1 {
		r.errs.add(at, "", "no single value")
		return nil
	}
	e.value.move(at)
	return e.value
}

// move has n and all in it stand at pos.
func (n *node) move(pos Position) {
	n.pos = pos
	for _, i := range n.items {
		i.move(pos)
	}
	for i := range n.keys {
		n.keys[i].pos = pos
		n.keys[i].value.move(pos)
	}
}

// dirOf is the folder of the file that n stands in, where relative paths begin.
func (l *loader) dirOf(n *node) string {
	if strings.HasPrefix(n.pos.File, setFile) {
		return "/"
	}
	return filepath.Dir(n.pos.File)
}
