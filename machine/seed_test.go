package machine

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pool is a kernel's, seen from outside.
type pool struct {
	ready   bool
	credit  int
	added   []byte
	content func() []byte // the file's, at the moment of adding
	during  []byte
}

func (p *pool) add(bits int, b []byte) error {
	p.credit += bits
	p.added = append(p.added, b...)
	p.during = p.content()
	p.ready = p.ready || bits >= 256
	return nil
}

func (p *pool) bytes(n int) ([]byte, bool) {
	if !p.ready {
		return make([]byte, n), false
	}
	return readyChance(n)
}

func yes(string) bool { return true }

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSeedOverBoots follows a seed from one machine's life to the next.
func TestSeedOverBoots(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed")
	boot := func() *pool { return &pool{content: func() []byte { return read(t, path) }} }
	isGood := func(b []byte) bool { return bytes.HasSuffix(b, []byte(seedGood)) }

	// The first boot has none, and a pool that is not ready gives none that is
	// worth a credit.
	p := boot()
	if err := loadSeed(path, p.add, p.bytes, yes); err != nil {
		t.Fatal(err)
	}
	if p.credit != 0 || len(p.added) != 0 || isGood(read(t, path)) {
		t.Errorf("the first boot credits %d bits of %d bytes, good %t, want nothing", p.credit, len(p.added), isGood(read(t, path)))
	}
	p.ready = true
	if err := saveSeed(path, p.bytes); err != nil {
		t.Fatal(err)
	}
	one := read(t, path)
	if len(one) != seedSize+len(seedGood) || !isGood(one) {
		t.Errorf("the saved seed has %d bytes, good %t", len(one), isGood(one))
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the seed's mode is %v, %v, want 0600", st.Mode(), err)
	}

	// The second credits it, after it was replaced by one that is worth nothing.
	p = boot()
	if err := loadSeed(path, p.add, p.bytes, yes); err != nil {
		t.Fatal(err)
	}
	two := read(t, path)
	if p.credit != 256 || !bytes.Equal(p.added, one) {
		t.Errorf("the second boot credits %d bits, want 256 for what the first saved", p.credit)
	}
	if isGood(p.during) || bytes.Equal(p.during[:seedSize], one[:seedSize]) {
		t.Error("while the seed is used the file still has it")
	}
	if !isGood(two) || bytes.Equal(two[:seedSize], one[:seedSize]) || bytes.Equal(two[:seedSize], p.during[:seedSize]) {
		t.Error("the second boot did not keep a new seed, once its pool was ready")
	}

	// A machine that died while it used its seed: the next one credits nothing.
	if err := os.WriteFile(path, p.during, 0o600); err != nil {
		t.Fatal(err)
	}
	p = boot()
	if err := loadSeed(path, p.add, p.bytes, yes); err != nil || p.credit != 0 || len(p.added) != seedSize {
		t.Errorf("after a crash: %v, %d bits credited for %d bytes, want 0 for all", err, p.credit, len(p.added))
	}
}

func TestSeedNotCredited(t *testing.T) {
	good := func(t *testing.T) (path string, p *pool) {
		path = filepath.Join(t.TempDir(), "seed")
		p = &pool{ready: true, content: func() []byte { return nil }}
		if err := saveSeed(path, p.bytes); err != nil {
			t.Fatal(err)
		}
		return path, p
	}
	t.Run("readable", func(t *testing.T) {
		path, p := good(t)
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := loadSeed(path, p.add, p.bytes, yes); err != nil || p.credit != 0 || len(p.added) == 0 {
			t.Errorf("%v, %d bits credited, want 0", err, p.credit)
		}
	})
	t.Run("in memory", func(t *testing.T) {
		path, p := good(t)
		no := func(string) bool { return false }
		if err := loadSeed(path, p.add, p.bytes, no); err != nil || p.credit != 0 || len(p.added) == 0 {
			t.Errorf("%v, %d bits credited, want 0", err, p.credit)
		}
	})
	t.Run("not replaced", func(t *testing.T) {
		path, p := good(t)
		if err := os.MkdirAll(path+".new/x", 0o700); err != nil { // in the way
			t.Fatal(err)
		}
		err := loadSeed(path, p.add, p.bytes, yes)
		if err == nil || !strings.Contains(err.Error(), "not credited") || p.credit != 0 || len(p.added) == 0 {
			t.Errorf("%v, %d bits credited, want 0 and an error", err, p.credit)
		}
	})
	t.Run("another program's", func(t *testing.T) {
		path, p := good(t)
		if err := os.WriteFile(path, make([]byte, 2000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := loadSeed(path, p.add, p.bytes, yes); err != nil || p.credit != 0 || len(p.added) != 2000 {
			t.Errorf("%v, %d bits credited for %d bytes, want 0 for 2000", err, p.credit, len(p.added))
		}
	})
	t.Run("a link", func(t *testing.T) {
		path, p := good(t)
		if err := errors.Join(os.Rename(path, path+".x"), os.Symlink(path+".x", path)); err != nil {
			t.Fatal(err)
		}
		if err := loadSeed(path, p.add, p.bytes, yes); err == nil || p.credit != 0 {
			t.Errorf("%v, %d bits credited, want 0 and an error", err, p.credit)
		}
	})
	t.Run("a FIFO", func(t *testing.T) {
		_, p := good(t)
		if err := loadSeed("/dev/null", p.add, p.bytes, yes); err == nil || !strings.Contains(err.Error(), "is no file") {
			t.Errorf("%v, want it refused", err)
		}
	})
}

func TestStaysOnDisk(t *testing.T) {
	if staysOnDisk("/dev/shm") {
		t.Error("/dev/shm stays")
	}
	if staysOnDisk(filepath.Join(t.TempDir(), "none")) {
		t.Error("what is not there stays")
	}
}

// What others may have read as well is no secret, whoever serves it.
func TestIsLocalDisk(t *testing.T) {
	for name, c := range map[string]struct {
		magic uint32
		want  bool
	}{
		"ext4": {0xef53, true}, "xfs": {0x58465342, true}, "btrfs": {0x9123683e, true}, "f2fs": {0xf2f52010, true}, "vfat": {0x4d44, true},
		"9p": {0x01021997, false}, "virtiofs and FUSE": {0x65735546, false}, "nfs": {0x6969, false}, "cifs": {0xff534d42, false},
		"smb3": {0xfe534d42, false}, "ceph": {0x00c36400, false}, "tmpfs": {0x01021994, false}, "ramfs": {0x858458f6, false},
		"overlay": {0x794c7630, false}, "squashfs": {0x73717368, false}, "unknown": {0x12345678, false},
	} {
		if got := isLocalDisk(c.magic); got != c.want {
			t.Errorf("%s: isLocalDisk(%#x) = %v, want %v", name, c.magic, got, c.want)
		}
	}
}

// TestAddEntropy adds some to this kernel's pool, and credits none.
func TestAddEntropy(t *testing.T) {
	needRoot(t)
	if err := addEntropy(0, []byte("a test")); err != nil {
		t.Error(err)
	}
}
