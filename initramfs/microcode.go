package initramfs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const maxMicrocode = 256 << 20

// microcodeNames are what the kernel looks for in the first archive, see
// Documentation/arch/x86/microcode.rst; by the folder of the firmware package too.
var microcodeNames = [...]struct{ file, folder string }{
	{"GenuineIntel.bin", "intel-ucode"},
	{"AuthenticAMD.bin", "amd-ucode"},
}

// Microcode is the archive that must stand first in an image, uncompressed, for
// the kernel to load it into the processor before anything else: made of such an
// archive, of GenuineIntel.bin or AuthenticAMD.bin, or of the folder intel-ucode or
// amd-ucode of the firmware package.
func Microcode(source string) ([]byte, error) {
	st, err := os.Stat(source)
	if err != nil {
		return nil, fmt.Errorf("read microcode: %w", err)
	}
	base := filepath.Base(source)
	var data []byte
	name := ""
	for _, n := range microcodeNames {
		if base == n.file || base == n.folder {
			name = n.file
		}
	}
	switch {
	case st.IsDir() && name == "":
		return nil, fmt.Errorf("read microcode: %s is neither intel-ucode nor amd-ucode", source)
	case st.IsDir():
		entries, err := os.ReadDir(source) // sorted
		if err != nil {
			return nil, fmt.Errorf("read microcode: %w", err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || name == microcodeNames[1].file && !strings.HasSuffix(e.Name(), ".bin") {
				continue // signatures and README lie there, too
			}
			b, err := readBounded(filepath.Join(source, e.Name()))
			if err != nil {
				return nil, err
			}
			data = append(data, b...)
		}
	default:
		if data, err = readBounded(source); err != nil {
			return nil, err
		}
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("read microcode: %s has nothing in it", source)
	}
	if bytes.HasPrefix(data, []byte(magic)) {
		a, err := Read(bytes.NewReader(data), ReadOptions{Names: true})
		if err != nil {
			return nil, fmt.Errorf("read microcode %s: %w", source, err)
		}
		if !slices.ContainsFunc(a.Parts, func(p Part) bool { return p.Microcode && p.Compression == "" && p.Offset == 0 }) {
			return nil, fmt.Errorf("read microcode: %s does not begin with an archive of kernel/x86/microcode", source)
		}
		return append(data, make([]byte, -len(data)&(blockSize-1))...), nil
	}
	if name == "" {
		return nil, fmt.Errorf("read microcode: %s is no archive, and not called GenuineIntel.bin or AuthenticAMD.bin", source)
	}
	m := New()
	if err := m.Add("/kernel/x86/microcode/"+name, Data(0o644, data)); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = m.Write(&out)
	return out.Bytes(), err
}

func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read microcode: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMicrocode+1))
	if err == nil && len(b) > maxMicrocode {
		err = fmt.Errorf("%s has more than %d bytes", file, maxMicrocode)
	}
	if err != nil {
		return nil, fmt.Errorf("read microcode: %w", err)
	}
	return b, nil
}
