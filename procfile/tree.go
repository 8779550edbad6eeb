package procfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"
)

// The bounds of a configuration, all its files together where nothing else is
// said. They are far above what a machine can run.
const (
	maxNodes    = 300_000  // values and keys, those of aliases counted each time
	maxNesting  = 32       // of one file
	maxIncludes = 1000     // files
	maxDepth    = 16       // of includes
	maxTotal    = 10 << 20 // bytes
)

// A kind is what a node is.
type kind int

const (
	scalar kind = iota
	list
	mapping
)

var kindNames = [...]string{scalar: "a single value", list: "a list", mapping: "a map"}

// A node is a value of the configuration with its place.
type node struct {
	kind  kind
	pos   Position
	text  string // scalar: as written, without quotes
	null  bool   // scalar: null, ~ or nothing at all, without quotes
	plain bool   // scalar: not in quotes
	items []*node
	keys  []entry // mapping, in the order of the file
}

// An entry is a key of a mapping and what stands behind it.
type entry struct {
	key   string
	pos   Position
	value *node
}

// get finds a key; nil if it is not there.
func (n *node) get(key string) *entry {
	if n == nil {
		return nil
	}
	for i := range n.keys {
		if n.keys[i].key == key {
			return &n.keys[i]
		}
	}
	return nil
}

// A reader reads the configuration and what it includes into one tree.
type reader struct {
	errs  *errorList
	files *[]string
	nodes int
	bytes int
}

// readFile reads one regular file of at most maxFile bytes and one. A FIFO is
// refused rather than waited for, and a device before it is opened: opening is
// all that a watchdog waits for.
func readFile(path string) ([]byte, os.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, bare(err)
	}
	if info.IsDir() {
		return nil, info, syscall.EISDIR
	}
	if !info.Mode().IsRegular() {
		return nil, info, errors.New("not a regular file")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, bare(err)
	}
	defer f.Close()
	// The file may be another one by now.
	if info, err = f.Stat(); err != nil {
		return nil, nil, bare(err)
	}
	if !info.Mode().IsRegular() {
		return nil, info, errors.New("not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	return data, info, bare(err)
}

// bare takes the verb and the path off an error: ours names both.
func bare(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// read reads path with everything it includes. from is where it is named;
// stack holds the files that include it.
func (r *reader) read(path string, from Position, stack []os.FileInfo) *node {
	data, info, err := readFile(path)
	if err != nil {
		r.errs.put(&Error{Position: from, What: fmt.Sprintf("read configuration %s: %v", path, err), Cause: err})
		return nil
	}
	for _, above := range stack {
		if os.SameFile(above, info) {
			r.errs.add(from, "", "%s includes itself", path)
			return nil
		}
	}
	*r.files = append(*r.files, path)
	if r.bytes += len(data); r.bytes > maxTotal {
		r.errs.add(from, "", "all files together are longer than %d MiB", maxTotal>>20)
		return nil
	}
	if len(*r.files) > maxIncludes {
		r.errs.add(from, "", "more than %d files", maxIncludes)
		return nil
	}
	tree := r.parse(path, data)
	if tree == nil {
		return nil
	}
	return r.include(tree, path, append(stack, info))
}

// include merges into tree what its key include names, and takes the key away.
func (r *reader) include(tree *node, path string, stack []os.FileInfo) *node {
	e := tree.get("include")
	if e == nil {
		return tree
	}
	value := e.value
	tree.keys = slices.DeleteFunc(tree.keys, func(e entry) bool { return e.key == "include" })
	names := value.items
	switch {
	case value.kind == scalar && !value.null:
		names = []*node{value}
	case value.kind != list:
		r.errs.add(value.pos, "a file name, a glob or a list of them", "include is %s", value.describe())
		return tree
	}
	if len(stack) > maxDepth {
		r.errs.add(value.pos, "", "includes are nested more than %d deep", maxDepth)
		return tree
	}
	for _, n := range names {
		if n.kind != scalar || n.text == "" {
			r.errs.add(n.pos, "a file name or a glob", "include has %s", n.describe())
			continue
		}
		dir := filepath.Dir(path)
		files := []string{absolute(n.text, dir)}
		if strings.ContainsAny(n.text, "*?[") {
			// The folder's own name is no glob.
			plain := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir)
			found, err := filepath.Glob(absolute(n.text, plain))
			if err != nil {
				r.errs.add(n.pos, "", "bad glob %s: %v", quote(n.text), err)
				continue
			}
			files = found
			slices.Sort(files)
		}
		for _, file := range files {
			if sub := r.read(file, n.pos, stack); sub != nil {
				merge(tree, sub, 0)
			}
		}
	}
	return tree
}

// merge puts src over dst: maps key by key, everything else as a whole. Level is
// the number of maps around them; at the levels of applications.NAME and
// applications.NAME.workers.NAME, stdout and stderr are one value.
func merge(dst, src *node, level int) {
	index := make(map[string]int, len(dst.keys))
	for i, e := range dst.keys {
		index[e.key] = i
	}
	for _, e := range src.keys {
		i, ok := index[e.key]
		if !ok {
			dst.keys = append(dst.keys, e)
			continue
		}
		was := &dst.keys[i]
		whole := (level == 2 || level == 4) && (e.key == "stdout" || e.key == "stderr")
		switch {
		case e.value.null && was.value.kind == mapping && !whole:
			// An empty section takes nothing away.
		case !whole && was.value.kind == mapping && e.value.kind == mapping:
			merge(was.value, e.value, level+1)
		default:
			*was = e
		}
	}
}

// parse turns one file into a tree; nil if that is not possible.
func (r *reader) parse(file string, data []byte) (tree *node) {
	at := Position{File: file}
	if !checkBytes(r.errs, file, data) {
		return nil
	}
	defer func() {
		// A fault of the parser must not end the supervisor.
		if fault := recover(); fault != nil {
			r.errs.add(at, "", "cannot parse it: %v", fault)
			tree = nil
		}
	}()
	lines := &lineReader{rest: data}
	dec := yaml.NewDecoder(lines)
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return &node{kind: mapping, pos: at}
	case err != nil:
		r.errs.put(lines.error(file, err))
		return nil
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		r.errs.add(Position{file, second.Line, second.Column}, "", "a second document begins here")
		return nil
	} else if !errors.Is(err, io.EOF) {
		r.errs.put(lines.error(file, err))
		return nil
	}
	tree = r.convert(file, doc.Content[0], 0)
	switch {
	case tree == nil:
		return nil
	case tree.null:
		return &node{kind: mapping, pos: at}
	case tree.kind != mapping:
		r.errs.add(tree.pos, "keys and values, as in \"log_path: syslog\"", "the file holds %s", tree.describe())
		return nil
	}
	return tree
}

// A lineReader hands out a line at a time, so that the last one is where the
// parser stopped. Its own errors name the beginning of what it was in, or nothing.
type lineReader struct {
	rest, last []byte
	line       int
	within     bool // the last line is not yet read to its end
}

func (l *lineReader) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		return 0, io.EOF
	}
	end := bytes.IndexByte(l.rest, '\n') + 1
	if end == 0 {
		end = len(l.rest)
	}
	if !l.within {
		l.line++
		l.last = l.rest[:end]
	}
	n := copy(p, l.rest[:end])
	l.rest, l.within = l.rest[n:], n < end
	return n, nil
}

// error gives the parser's error the place where it stopped.
func (l *lineReader) error(file string, err error) *Error {
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(what, "line "); ok {
		if number, rest, ok := strings.Cut(rest, ": "); ok && strings.Trim(number, "0123456789") == "" {
			what = rest
		}
	}
	blanks := len(l.last) - len(bytes.TrimLeft(l.last, " "))
	meant := ""
	if strings.Contains(what, "cannot start any token") {
		meant = "indent with blanks, not tabs; put quotes around a value that begins with @, ` or %"
	}
	return &Error{Position: Position{file, max(l.line, 1), blanks + 1}, What: "YAML: " + what, Meant: meant}
}

// describe names a node in an error.
func (n *node) describe() string {
	switch {
	case n.kind != scalar:
		return kindNames[n.kind]
	case n.null:
		return "empty"
	}
	return quote(n.text)
}

// convert makes our node of the parser's, without aliases and merge keys.
// It returns nil after an error.
func (r *reader) convert(file string, y *yaml.Node, depth int) *node {
	pos := Position{file, y.Line, y.Column}
	if r.nodes++; r.nodes == maxNodes {
		r.errs.add(pos, "", "more than %d values", maxNodes)
	}
	if r.nodes >= maxNodes {
		return nil
	}
	if depth > maxNesting {
		r.errs.add(pos, "", "nested more than %d deep", maxNesting)
		return nil
	}
	if y.Style&yaml.TaggedStyle != 0 {
		r.errs.add(pos, "", "tag %s is not used here", quote(y.Tag))
		return nil
	}
	switch y.Kind {
	case yaml.AliasNode:
		return r.convert(file, y.Alias, depth+1)
	case yaml.ScalarNode:
		plain := y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
		if strings.IndexByte(y.Value, 0) >= 0 {
			r.errs.add(pos, "", "value has a NUL byte")
			return nil
		}
		return &node{kind: scalar, pos: pos, text: y.Value, null: plain && y.Tag == "!!null", plain: plain}
	case yaml.SequenceNode:
		n := &node{kind: list, pos: pos}
		for _, item := range y.Content {
			if c := r.convert(file, item, depth+1); c != nil {
				n.items = append(n.items, c)
			}
		}
		return n
	case yaml.MappingNode:
		return r.convertMapping(file, y, depth)
	case yaml.DocumentNode: // never inside another
	}
	r.errs.add(pos, "", "cannot read this value")
	return nil
}

func (r *reader) convertMapping(file string, y *yaml.Node, depth int) *node {
	n := &node{kind: mapping, pos: Position{file, y.Line, y.Column}}
	index := make(map[string]Position)
	var merged []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		pos := Position{file, k.Line, k.Column}
		if k.Kind != yaml.ScalarNode {
			r.errs.add(pos, "", "a key is a single value")
			continue
		}
		if k.Tag == "!!merge" && k.Value == "<<" {
			merged = append(merged, v)
			continue
		}
		r.nodes++
		if first, ok := index[k.Value]; ok {
			r.errs.add(pos, "", "key %s is already on line %d", quote(k.Value), first.Line)
			continue
		}
		index[k.Value] = pos
		if c := r.convert(file, v, depth+1); c != nil {
			n.keys = append(n.keys, entry{k.Value, pos, c})
		}
	}
	for _, v := range merged {
		r.mergeKey(file, n, index, v, depth+1)
	}
	return n
}

// mergeKey adds what "<<" names to n, but for keys that n has.
func (r *reader) mergeKey(file string, n *node, index map[string]Position, v *yaml.Node, depth int) {
	from := r.convert(file, v, depth)
	if from == nil {
		return
	}
	maps := from.items
	if from.kind == mapping {
		maps = []*node{from}
	}
	for _, m := range maps {
		if m.kind != mapping {
			r.errs.add(m.pos, "a map or a list of maps", "<< merges %s", m.describe())
			continue
		}
		for _, e := range m.keys {
			if _, ok := index[e.key]; !ok {
				index[e.key] = e.pos
				n.keys = append(n.keys, e)
			}
		}
	}
	if from.kind == scalar {
		r.errs.add(from.pos, "a map or a list of maps", "<< merges %s", from.describe())
	}
}
