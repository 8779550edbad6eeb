#!/bin/sh
# Makes the files *.gz here: the first 256 KiB of file systems and disks, for
# superblock_test.go. It needs Debian's e2fsprogs, xfsprogs, btrfs-progs,
# dosfstools, f2fs-tools, erofs-utils, squashfs-tools, genisoimage, gdisk, fdisk.
set -e
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
uuid=0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0
mkdir files
echo hello >files/hello
disk() { truncate -s "$2" "$1"; }

disk ext2 1M && mkfs.ext2 -q -L two -U $uuid ext2
disk ext3 8M && mkfs.ext3 -q -L three -U $uuid ext3
disk ext4 4M && mkfs.ext4 -q -L four -U $uuid ext4
disk xfs 300M && mkfs.xfs -q -L ex -m uuid=$uuid xfs
disk btrfs 128M && mkfs.btrfs -q -L bee -U $uuid btrfs
disk fat12 1M && mkfs.fat -F 12 -n TWELVE -i 1234abcd fat12 >/dev/null
disk fat16 16M && mkfs.fat -F 16 -n SIXTEEN -i 1234abcd fat16 >/dev/null
disk fat32 64M && mkfs.fat -F 32 -s 8 -n THIRTYTWO -i 1234abcd fat32 >/dev/null
disk f2fs 64M && mkfs.f2fs -q -l grüße -U $uuid f2fs >/dev/null
mkfs.erofs -U $uuid erofs files >/dev/null
mksquashfs files squashfs -quiet -noappend -no-progress >/dev/null
# The time in it is its UUID in superblock_test.go.
genisoimage -quiet -V ISO -o iso9660 files
disk swap 1M && mkswap -q -L swp -U $uuid swap
disk swap64 1M && mkswap -q -p 65536 -L swp -U $uuid swap64
disk gpt 256K && sgdisk -a 1 -n 1:40:99 -u 1:$uuid -c 1:"my data" \
	-n 2:100:199 -u 2:11111111-2222-3333-4444-555566667777 -c 2:wörld gpt >/dev/null
disk mbr 256K && printf 'label: dos\nlabel-id: 0xdeadbeef\nstart=8,size=8,type=83\nstart=16,type=83\n' | sfdisk -q mbr

for f in *; do
	[ -f "$f" ] && head -c 256K "$f" | gzip -9n >"$here/$f.gz"
done
