package initramfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// An object is what the dynamic linker would read of an ELF file.
type object struct {
	class   byte // 1: 32 bits, 2: 64 bits
	order   byte // 1: little endian, 2: big endian
	machine uint16
	interp  string   // the dynamic linker, "" for none
	needed  []string // libraries, in order
	rpath   []string // where to look for them, as written
	runpath []string
}

// Machine names the processor that a program is for, as Go does (amd64), and "" for
// what is not an ELF file. See elf(5).
func Machine(n *Node) (string, error) {
	r, err := n.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	var id [20]byte
	switch _, err := io.ReadFull(r, id[:]); {
	case err == io.EOF || err == io.ErrUnexpectedEOF || err == nil && string(id[:4]) != "\x7fELF":
		return "", nil
	case err != nil:
		return "", err
	}
	var bo binary.ByteOrder = binary.LittleEndian
	if id[5] == 2 {
		bo = binary.BigEndian
	}
	class, order, machine := id[4], id[5], bo.Uint16(id[18:])
	for _, m := range machines {
		if m.class == class && m.order == order && m.machine == machine {
			return m.name, nil
		}
	}
	return fmt.Sprintf("machine %d of ELF class %d and byte order %d", machine, class, order), nil
}

// machines are those that Go has a name for.
var machines = [...]struct {
	class, order byte
	machine      uint16
	name         string
}{
	{1, 1, 3, "386"}, {2, 1, 62, "amd64"}, {1, 1, 40, "arm"}, {2, 1, 183, "arm64"},
	{2, 1, 243, "riscv64"}, {2, 1, 258, "loong64"}, {2, 2, 22, "s390x"},
	{2, 1, 21, "ppc64le"}, {2, 2, 21, "ppc64"},
	{1, 1, 8, "mipsle"}, {1, 2, 8, "mips"}, {2, 1, 8, "mips64le"}, {2, 2, 8, "mips64"},
}

// errNotELF is what readObject says of any other file.
var errNotELF = errors.New("not an ELF file")

const (
	maxHeaders = 1 << 10 // program headers
	maxDynamic = 1 << 16 // dynamic entries
	maxText    = 1 << 12 // bytes of a name in an ELF file
)

// readObject reads the program headers and the dynamic section, as the kernel
// and ld.so do: section headers may have been stripped. See elf(5).
func readObject(r io.ReaderAt) (*object, error) {
	var id [20]byte
	if _, err := r.ReadAt(id[:], 0); err != nil || string(id[:4]) != "\x7fELF" {
		if err != nil && err != io.EOF {
			return nil, err
		}
		return nil, errNotELF
	}
	o := &object{class: id[4], order: id[5]}
	var bo binary.ByteOrder = binary.LittleEndian
	if o.order == 2 {
		bo = binary.BigEndian
	}
	if o.class != 1 && o.class != 2 || o.order != 1 && o.order != 2 {
		return nil, fmt.Errorf("ELF of class %d and byte order %d", o.class, o.order)
	}
	o.machine = bo.Uint16(id[18:])
	wide := o.class == 2
	// word reads an address or an offset.
	word := func(b []byte) uint64 {
		if wide {
			return bo.Uint64(b)
		}
		return uint64(bo.Uint32(b))
	}
	var head [64]byte
	size := map[bool]int{false: 52, true: 64}[wide]
	if _, err := r.ReadAt(head[:size], 0); err != nil {
		return nil, fmt.Errorf("read the ELF header: %w", err)
	}
	var at uint64
	var each, count int
	if wide {
		at, each, count = word(head[32:]), int(bo.Uint16(head[54:])), int(bo.Uint16(head[56:]))
	} else {
		at, each, count = word(head[28:]), int(bo.Uint16(head[42:])), int(bo.Uint16(head[44:]))
	}
	least := map[bool]int{false: 32, true: 56}[wide]
	if count > 0 && (each < least || each > 4096) || count > maxHeaders {
		return nil, fmt.Errorf("%d program headers of %d bytes", count, each)
	}
	type segment struct{ kind, offset, addr, size uint64 }
	var segments []segment
	for i := range count {
		b := make([]byte, least)
		if _, err := r.ReadAt(b, int64(at)+int64(i)*int64(each)); err != nil {
			return nil, fmt.Errorf("read the program headers: %w", err)
		}
		s := segment{kind: uint64(bo.Uint32(b))}
		if wide {
			s.offset, s.addr, s.size = word(b[8:]), word(b[16:]), word(b[32:])
		} else {
			s.offset, s.addr, s.size = word(b[4:]), word(b[8:]), word(b[16:])
		}
		segments = append(segments, s)
	}
	var dynamic *segment
	const load, dyn, interp = 1, 2, 3
	for i := range segments {
		switch s := &segments[i]; s.kind {
		case dyn:
			dynamic = s
		case interp:
			text, err := textAt(r, s.offset, s.size)
			if err != nil {
				return nil, fmt.Errorf("read the interpreter's name: %w", err)
			}
			o.interp = text
		}
	}
	if dynamic == nil {
		return o, nil
	}
	const tagNeeded, tagStrings, tagRPath, tagRunPath, tagStringsSize = 1, 5, 15, 29, 10
	pair := map[bool]int{false: 8, true: 16}[wide]
	if dynamic.size/uint64(pair) > maxDynamic {
		return nil, fmt.Errorf("dynamic section of %d bytes", dynamic.size)
	}
	table := make([]byte, dynamic.size/uint64(pair)*uint64(pair))
	if _, err := r.ReadAt(table, int64(dynamic.offset)); err != nil {
		return nil, fmt.Errorf("read the dynamic section: %w", err)
	}
	var needed []uint64
	rpath, runpath, strs, strsSize := ^uint64(0), ^uint64(0), uint64(0), uint64(0)
	for ; len(table) > 0; table = table[pair:] {
		tag, val := word(table), word(table[pair/2:])
		if tag == 0 {
			break
		}
		switch tag {
		case tagNeeded:
			needed = append(needed, val)
		case tagStrings:
			strs = val
		case tagStringsSize:
			strsSize = val
		case tagRPath:
			rpath = val
		case tagRunPath:
			runpath = val
		}
	}
	offset := uint64(0)
	for _, s := range segments { // the strings are given by address
		if s.kind == load && strs >= s.addr && strs-s.addr < s.size {
			offset = strs - s.addr + s.offset
		}
	}
	read := func(i uint64) (string, error) {
		if offset == 0 || i >= strsSize {
			return "", errors.New("a name outside of the dynamic strings")
		}
		return textAt(r, offset+i, strsSize-i)
	}
	for _, i := range needed {
		name, err := read(i)
		if err != nil {
			return nil, fmt.Errorf("read the libraries' names: %w", err)
		}
		o.needed = append(o.needed, name)
	}
	for _, p := range []struct {
		at uint64
		to *[]string
	}{{rpath, &o.rpath}, {runpath, &o.runpath}} {
		if p.at == ^uint64(0) {
			continue
		}
		text, err := read(p.at)
		if err != nil {
			return nil, fmt.Errorf("read the libraries' folders: %w", err)
		}
		*p.to = strings.Split(text, ":")
	}
	return o, nil
}

// textAt reads a text that ends with a NUL or after size bytes.
func textAt(r io.ReaderAt, at, size uint64) (string, error) {
	b := make([]byte, min(size, maxText))
	n, err := r.ReadAt(b, int64(at))
	if n == 0 {
		return "", err
	}
	text, _, ended := strings.Cut(string(b[:n]), "\x00")
	if !ended && uint64(n) < size {
		return "", errors.New("a name has no end")
	}
	return text, nil
}
