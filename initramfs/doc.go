// Package initramfs writes a bootable newc archive, byte for byte reproducible.
//
// An [Image] is a tree of names, made of folders, single files, programs with all
// that they need, device nodes and kernel modules. Nothing of it depends on who
// makes it: owners are root's unless said otherwise, times are zero, names are
// sorted behind /init, inodes are numbered from 1, and device nodes are entries,
// not files. The contents of files are read when the image is written; one that
// has changed since it was added is an error.
//
// [Read] reads such archives, those of others too, and [Image.Check] says why a
// kernel could not start what one holds.
package initramfs
