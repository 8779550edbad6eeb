package machine

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample unpacks a file of testdata; superblocks.sh there made it.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const sampleUUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"

// The values are those of blkid -p.
var samples = map[string]content{
	"ext2":     {Type: "ext2", Label: "two", UUID: sampleUUID},
	"ext3":     {Type: "ext3", Label: "three", UUID: sampleUUID},
	"ext4":     {Type: "ext4", Label: "four", UUID: sampleUUID},
	"xfs":      {Type: "xfs", Label: "ex", UUID: sampleUUID},
	"btrfs":    {Type: "btrfs", Label: "bee", UUID: sampleUUID},
	"fat12":    {Type: "vfat", Label: "TWELVE", UUID: "1234-ABCD"},
	"fat16":    {Type: "vfat", Label: "SIXTEEN", UUID: "1234-ABCD"},
	"fat32":    {Type: "vfat", Label: "THIRTYTWO", UUID: "1234-ABCD"},
	"f2fs":     {Type: "f2fs", Label: "grüße", UUID: sampleUUID},
	"erofs":    {Type: "erofs", UUID: sampleUUID},
	"squashfs": {Type: "squashfs"},
	"iso9660":  {Type: "iso9660", Label: "ISO", UUID: "2026-11-22-18-39-07-00"},
	"swap":     {Type: "swap", Label: "swp", UUID: sampleUUID},
	"swap64":   {Type: "swap", Label: "swp", UUID: sampleUUID},
	"gpt":      {},
	"mbr":      {},
}

func TestReadContent(t *testing.T) {
	for name, want := range samples {
		got, err := readContent(bytes.NewReader(sample(t, name)))
		if err != nil || got != want {
			t.Errorf("readContent(%s) = %+v, %v, want %+v", name, got, err, want)
		}
	}
	if files, _ := filepath.Glob("testdata/*.gz"); len(files) != len(samples) {
		t.Errorf("%d samples in testdata, %d in the table", len(files), len(samples))
	}
}

// A sample cut anywhere is known or unknown, and never more than that.
func TestReadContentShort(t *testing.T) {
	for name, want := range samples {
		b := sample(t, name)
		for _, n := range []int{0, 1, 511, 512, 1023, 1024, 1080, 2047, 4086, 4096, 32768, 65536, 65600, headSize} {
			got, err := readContent(bytes.NewReader(b[:min(n, len(b))]))
			if err != nil || got.Type != "" && got.Type != want.Type && want.Type != "ext4" {
				t.Errorf("readContent(%s[:%d]) = %+v, %v", name, n, got, err)
			}
		}
	}
}

func TestDirty(t *testing.T) {
	for _, c := range []struct {
		sample string
		change func(b []byte)
		want   string
	}{
		{"ext4", func(b []byte) { b[1024+0x60] |= 4 }, "journal will be replayed"},
		{"ext4", func(b []byte) { b[1024+0x3a] |= 2 }, "errors"},
		{"ext2", func(b []byte) { b[1024+0x3a] = 0 }, "has no journal"},
		{"ext2", func(b []byte) { b[1024+0x3a] |= 4 }, "deleted files"},
		{"fat16", func(b []byte) { b[37] |= 1 }, "fsck.vfat"},
		{"fat32", func(b []byte) { b[65] |= 1 }, "fsck.vfat"},
		{"btrfs", func(b []byte) { b[65536+0x60] = 1 }, "log will be replayed"},
	} {
		b := sample(t, c.sample)
		c.change(b)
		if got, _ := readContent(bytes.NewReader(b)); !strings.Contains(got.Dirty, c.want) || c.want == "" {
			t.Errorf("%s: Dirty = %q, want %q in it", c.sample, got.Dirty, c.want)
		}
	}
}

func TestReadPartition(t *testing.T) {
	gpt, mbr := sample(t, "gpt"), sample(t, "mbr")
	broken := bytes.Clone(gpt) // the second header is good
	broken[512+56]++
	both := bytes.Clone(broken)
	both[len(both)-512+56]++
	swapped := bytes.Clone(gpt) // a row that the sum does not cover
	swapped[1024+16]++
	swapped[len(swapped)-512] = 'X'
	for _, c := range []struct {
		name string
		disk []byte
		part int
		want partition
	}{
		{"gpt", gpt, 1, partition{sampleUUID, "my data"}},
		{"gpt", gpt, 2, partition{"11111111-2222-3333-4444-555566667777", "wörld"}},
		{"gpt", gpt, 3, partition{}},
		{"gpt", gpt, 129, partition{}},
		{"gpt", gpt, 0, partition{}},
		{"gpt, second header", broken, 1, partition{sampleUUID, "my data"}},
		{"gpt, no header", both, 1, partition{}},
		{"gpt, wrong table", swapped, 1, partition{}},
		{"mbr", mbr, 1, partition{UUID: "deadbeef-01"}},
		{"mbr", mbr, 2, partition{UUID: "deadbeef-02"}},
		{"ext4", sample(t, "ext4"), 1, partition{}},
	} {
		if got := readPartition(bytes.NewReader(c.disk), 512, int64(len(c.disk)), c.part); got != c.want {
			t.Errorf("readPartition(%s, %d) = %+v, want %+v", c.name, c.part, got, c.want)
		}
	}
}

// Disks with sectors of 4096 bytes have the header at 4096.
func TestReadPartitionLargeSectors(t *testing.T) {
	gpt := sample(t, "gpt")
	disk := make([]byte, 1<<20)
	copy(disk[4096:], gpt[512:1024])
	h := disk[4096:]
	binary.LittleEndian.PutUint32(h[16:], 0)
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
	copy(disk[2*4096:], gpt[1024:1024+128*128])
	if got := readPartition(bytes.NewReader(disk), 4096, int64(len(disk)), 1); got.UUID != sampleUUID {
		t.Errorf("readPartition of large sectors = %+v, want %s", got, sampleUUID)
	}
}

func FuzzReadContent(f *testing.F) {
	for name := range samples {
		b := sample(f, name)
		f.Add(b[:min(len(b), headSize)])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readContent(bytes.NewReader(b))
		if err != nil && len(b) > 0 {
			t.Errorf("readContent: %v", err)
		}
		if c.Type == "" && c != (content{}) {
			t.Errorf("readContent = %+v without a type", c)
		}
		_ = c.String()
	})
}

func FuzzReadPartition(f *testing.F) {
	f.Add(sample(f, "gpt")[:34*512], 1, false)
	f.Add(sample(f, "mbr")[:512], 2, false)
	f.Fuzz(func(t *testing.T, b []byte, part int, sum bool) {
		if sum && len(b) >= 1024 { // let it come behind the sums
			binary.LittleEndian.PutUint32(b[512+16:], 0)
			n := min(512, binary.LittleEndian.Uint32(b[512+12:]))
			binary.LittleEndian.PutUint32(b[512+16:], crc32.ChecksumIEEE(b[512:512+n]))
		}
		if p := readPartition(bytes.NewReader(b), 512, int64(len(b)), part); p.UUID == "" && p.Name != "" {
			t.Logf("a name without an id: %q", p.Name)
		}
	})
}
