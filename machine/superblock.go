package machine

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
)

// content is what a device says of itself.
type content struct {
	Type  string // as mount(2) has it; also swap, crypto_LUKS
	Label string
	UUID  string // as blkid(8) writes it
	Dirty string // why it is not clean, "" if it does not say so
}

// headSize reaches to the end of the btrfs superblock, the last one on a disk.
const headSize = 68 << 10

// Where superblocks are and how they look: blkid's list in libblkid(3) and
// Documentation/filesystems of the kernel. What else holds a file system comes
// first, for a label inside is not to be found from outside.
var probes = [...]func(head []byte, r io.ReaderAt) (content, bool){
	probeLUKS, probeExt, probeXFS, probeBtrfs, probeF2FS, probeErofs, probeSquashfs, probeSwap, probeISO, probeExFAT, probeFAT,
}

// readContent reads what a device holds; the zero value is nothing known. Bytes
// that cannot be read count as zeros.
func readContent(r io.ReaderAt) (content, error) {
	head := make([]byte, headSize)
	n, err := r.ReadAt(head, 0)
	if n == 0 && err != nil && err != io.EOF {
		return content{}, err
	}
	for _, probe := range probes {
		if c, ok := probe(head, r); ok {
			return c, nil
		}
	}
	return content{}, nil
}

func has(b []byte, at int, magic string) bool {
	return len(b) >= at+len(magic) && string(b[at:at+len(magic)]) == magic
}

func le16(b []byte, at int) uint16 { return binary.LittleEndian.Uint16(b[at:]) }
func le32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
func le64(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }

// text is a field that ends at a zero byte or is filled with blanks.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.TrimRight(string(b), " ")
}

// uuid writes 16 bytes in their order; all zeros are none.
func uuid(b []byte) string {
	if len(bytes.Trim(b, "\x00")) == 0 {
		return ""
	}
	return hex.EncodeToString(b[:4]) + "-" + hex.EncodeToString(b[4:6]) + "-" + hex.EncodeToString(b[6:8]) + "-" + hex.EncodeToString(b[8:10]) + "-" + hex.EncodeToString(b[10:16])
}

// serial writes the four bytes of a FAT's serial number.
func serial(b []byte) string {
	return strings.ToUpper(hex.EncodeToString([]byte{b[3], b[2]}) + "-" + hex.EncodeToString([]byte{b[1], b[0]}))
}

func probeLUKS(b []byte, _ io.ReaderAt) (content, bool) {
	if !has(b, 0, "LUKS\xba\xbe") {
		return content{}, false
	}
	c := content{Type: "crypto_LUKS", UUID: text(b[168:208])}
	if le16(b, 6) == 0x0200 { // version 2, big endian
		c.Label = text(b[24:72])
	}
	return c, true
}

// fs/ext4/ext4.h, struct ext4_super_block.
func probeExt(b []byte, _ io.ReaderAt) (content, bool) {
	const (
		compatJournal    = 0x4
		incompatRecover  = 0x4
		incompatJournal  = 0x8
		incompatExt4     = 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
		readOnlyExt4     = 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200 | 0x400 | 0x2000
		stateClean       = 1
		stateErrors      = 2
		stateOrphanFiles = 4
	)
	sb := b[1024:2048]
	if le16(sb, 0x38) != 0xEF53 {
		return content{}, false
	}
	compat, incompat, readOnly, state := le32(sb, 0x5c), le32(sb, 0x60), le32(sb, 0x64), le16(sb, 0x3a)
	c := content{Type: "ext2", UUID: uuid(sb[0x68:0x78]), Label: text(sb[0x78:0x88])}
	switch {
	case incompat&incompatJournal != 0:
		c.Type = "jbd"
		return c, true
	case incompat&incompatExt4 != 0 || readOnly&readOnlyExt4 != 0:
		c.Type = "ext4"
	case compat&compatJournal != 0:
		c.Type = "ext3"
	}
	switch {
	case state&stateErrors != 0:
		c.Dirty = "the kernel found errors in it: it needs e2fsck"
	case incompat&incompatRecover != 0:
		c.Dirty = "it was not unmounted: its journal will be replayed"
	case state&stateClean == 0:
		c.Dirty = "it was not unmounted and has no journal: it needs e2fsck"
	case state&stateOrphanFiles != 0:
		c.Dirty = "deleted files are to be removed from it"
	}
	return c, true
}

// fs/xfs/libxfs/xfs_format.h, struct xfs_dsb. Whether the log is empty is not
// in the superblock.
func probeXFS(b []byte, _ io.ReaderAt) (content, bool) {
	if !has(b, 0, "XFSB") {
		return content{}, false
	}
	return content{Type: "xfs", UUID: uuid(b[32:48]), Label: text(b[108:120])}, true
}

// fs/btrfs, struct btrfs_super_block.
func probeBtrfs(b []byte, _ io.ReaderAt) (content, bool) {
	sb := b[64<<10:]
	if !has(sb, 0x40, "_BHRfS_M") {
		return content{}, false
	}
	c := content{Type: "btrfs", UUID: uuid(sb[0x20:0x30]), Label: text(sb[0x12b:0x22b])}
	if le64(sb, 0x60) != 0 {
		c.Dirty = "it was not unmounted: its log will be replayed"
	}
	return c, true
}

// include/linux/f2fs_fs.h, struct f2fs_super_block.
func probeF2FS(b []byte, _ io.ReaderAt) (content, bool) {
	sb := b[1024:]
	if le32(sb, 0) != 0xF2F52010 {
		return content{}, false
	}
	return content{Type: "f2fs", UUID: uuid(sb[0x6c:0x7c]), Label: utf16Text(sb[0x7c : 0x7c+1024])}, true
}

func utf16Text(b []byte) string {
	var u []uint16
	for i := 0; i+1 < len(b); i += 2 {
		c := le16(b, i)
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return string(utf16.Decode(u))
}

// fs/erofs/erofs_fs.h, struct erofs_super_block.
func probeErofs(b []byte, _ io.ReaderAt) (content, bool) {
	sb := b[1024:]
	if le32(sb, 0) != 0xE0F5E1E2 {
		return content{}, false
	}
	return content{Type: "erofs", UUID: uuid(sb[48:64]), Label: text(sb[64:80])}, true
}

func probeSquashfs(b []byte, _ io.ReaderAt) (content, bool) {
	if !has(b, 0, "hsqs") || le16(b, 28) != 4 {
		return content{}, false
	}
	return content{Type: "squashfs"}, true
}

// include/linux/swap.h, union swap_header: the magic ends the first page,
// whatever the machine's pages are.
func probeSwap(b []byte, _ io.ReaderAt) (content, bool) {
	for page := 4 << 10; page <= 64<<10; page *= 2 {
		if has(b, page-10, "SWAPSPACE2") {
			return content{Type: "swap", UUID: uuid(b[1036:1052]), Label: text(b[1052:1068])}, true
		}
	}
	return content{}, false
}

// ECMA-119, the primary volume descriptor; the time of the last change, or else
// of the making, serves as UUID.
func probeISO(b []byte, _ io.ReaderAt) (content, bool) {
	d := b[32<<10:]
	if !has(d, 0, "\x01CD001") {
		return content{}, false
	}
	c := content{Type: "iso9660", Label: text(d[40:72])}
	for _, at := range [...]int{830, 813} {
		t := string(d[at : at+16])
		if strings.Trim(t, "0\x00 ") != "" && strings.Trim(t, "0123456789") == "" {
			c.UUID = t[:4] + "-" + t[4:6] + "-" + t[6:8] + "-" + t[8:10] + "-" + t[10:12] + "-" + t[12:14] + "-" + t[14:16]
			break
		}
	}
	return c, true
}

func probeExFAT(b []byte, _ io.ReaderAt) (content, bool) {
	if !has(b, 3, "EXFAT   ") {
		return content{}, false
	}
	c := content{Type: "exfat", UUID: serial(b[100:104])}
	if le16(b, 106)&2 != 0 {
		c.Dirty = "it was not unmounted: it needs fsck.exfat"
	}
	return c, true
}

// Documentation/filesystems/vfat.rst; the byte of the state is
// fs/fat/inode.c's.
func probeFAT(b []byte, r io.ReaderAt) (content, bool) {
	if !has(b, 510, "\x55\xaa") {
		return content{}, false
	}
	var at int
	switch {
	case has(b, 82, "FAT32   "):
		at = 65
	case has(b, 54, "FAT12   "), has(b, 54, "FAT16   "), has(b, 54, "FAT     "):
		at = 37
	default:
		return content{}, false
	}
	c := content{Type: "vfat", UUID: serial(b[at+2 : at+6]), Label: text(b[at+6 : at+17])}
	if l := fatLabel(b, r, at == 65); l != "" { // the one that is kept up to date
		c.Label = l
	}
	if c.Label == "NO NAME" {
		c.Label = ""
	}
	if b[at]&1 != 0 {
		c.Dirty = "it was not unmounted: it needs fsck.vfat"
	}
	return c, true
}

// fatLabel is the label among the first entries of the root folder.
func fatLabel(b []byte, r io.ReaderAt, fat32 bool) string {
	sector, perCluster := int64(le16(b, 11)), int64(b[13])
	at, fats := int64(le16(b, 14)), int64(b[16])
	if sector < 512 || sector > 4096 || perCluster == 0 {
		return ""
	}
	if fat32 {
		at += fats * int64(le32(b, 36))
		cluster := int64(le32(b, 44))
		if cluster < 2 {
			return ""
		}
		at += (cluster - 2) * perCluster
	} else {
		at += fats * int64(le16(b, 22))
	}
	dir := make([]byte, 4096)
	n, _ := r.ReadAt(dir, at*sector)
	for dir = dir[:n]; len(dir) >= 32 && dir[0] != 0; dir = dir[32:] {
		if attr := dir[11]; dir[0] != 0xe5 && attr&0x08 != 0 && attr&0x3f != 0x0f {
			return text(dir[:11])
		}
	}
	return ""
}

// partition is what a partition table says of one.
type partition struct{ UUID, Name string }

// readPartition reads the row of a partition, counted from 1, of a disk of size
// bytes. It is the zero value if there is no table that the kernel would believe.
func readPartition(disk io.ReaderAt, sector, size int64, number int) partition {
	if sector < 512 || sector > 64<<10 || number < 1 {
		return partition{}
	}
	if p, ok := readGPT(disk, sector, 1, number); ok {
		return p
	}
	if p, ok := readGPT(disk, sector, size/sector-1, number); ok {
		return p
	}
	mbr := make([]byte, 512)
	if n, _ := disk.ReadAt(mbr, 0); n < 512 || !has(mbr, 510, "\x55\xaa") || le32(mbr, 440) == 0 {
		return partition{}
	}
	for at := 446; at < 510; at += 16 {
		if mbr[at+4] == 0xee { // a GPT that is broken
			return partition{}
		}
	}
	return partition{UUID: hex.EncodeToString([]byte{mbr[443], mbr[442], mbr[441], mbr[440]}) + "-" + hex.EncodeToString([]byte{byte(number)})}
}

// readGPT reads one row of the table whose header is at lba. UEFI
// specification, 5.3; both sums are checked as in the kernel's
// block/partitions/efi.c.
func readGPT(disk io.ReaderAt, sector, lba int64, number int) (partition, bool) {
	if lba < 1 {
		return partition{}, false
	}
	h := make([]byte, 512)
	if n, _ := disk.ReadAt(h, lba*sector); n < 512 || !has(h, 0, "EFI PART") || le64(h, 24) != uint64(lba) {
		return partition{}, false
	}
	length, sum := le32(h, 12), le32(h, 16)
	if length < 92 || length > 512 {
		return partition{}, false
	}
	copy(h[16:20], "\x00\x00\x00\x00")
	if crc32.ChecksumIEEE(h[:length]) != sum {
		return partition{}, false
	}
	rows, width := le32(h, 80), le32(h, 84)
	if width < 128 || width > 4096 || rows > 4096 || rows*width > 1<<20 || uint32(number) > rows || le64(h, 72) > 1<<48 {
		return partition{}, false
	}
	table := make([]byte, rows*width)
	if n, _ := disk.ReadAt(table, int64(le64(h, 72))*sector); n < len(table) || crc32.ChecksumIEEE(table) != le32(h, 88) {
		return partition{}, false
	}
	row := table[uint32(number-1)*width:][:width]
	if uuid(row[:16]) == "" { // no type: unused
		return partition{}, false
	}
	// The first three fields are little endian.
	id := []byte{row[19], row[18], row[17], row[16], row[21], row[20], row[23], row[22]}
	return partition{UUID: uuid(append(id, row[24:32]...)), Name: utf16Text(row[56:128])}, true
}

// String is the content in blkid's words.
func (c content) String() string {
	s := c.Type
	if s == "" {
		s = "unknown content"
	}
	if c.Label != "" {
		s += " LABEL=" + strconv.Quote(c.Label)
	}
	if c.UUID != "" {
		s += " UUID=" + c.UUID
	}
	return s
}
