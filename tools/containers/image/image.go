package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// place is where the program is in the image. /usr/bin is a real folder in every
// distribution, /sbin and /bin are links in many: a layer with a folder /sbin
// would replace that link.
const place = "usr/bin/pazinit"

// path is what engines take when an image says nothing, said for those that do
// not.
const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const label = "org.opencontainers.image."

// machines are the architectures by their ELF machines.
var machines = map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}

// A program is a static binary for one architecture.
type program struct {
	path, arch string
	data       []byte
}

// open reads the binaries. Their architectures are what their ELF headers say;
// each must be there once.
func open(paths []string) ([]program, error) {
	var out []program
	seen := map[string]string{}
	for _, path := range paths {
		p, err := openOne(path)
		if err != nil {
			return nil, err
		}
		if seen[p.arch] != "" {
			return nil, fmt.Errorf("%s and %s are both for %s", seen[p.arch], path, p.arch)
		}
		seen[p.arch] = path
		out = append(out, p)
	}
	for _, arch := range machines {
		if seen[arch] == "" {
			return nil, fmt.Errorf("no binary is for %s", arch)
		}
	}
	return out, nil
}

func openOne(path string) (program, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return program{}, err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return program{}, fmt.Errorf("read %s: %w", path, err)
	}
	for _, segment := range f.Progs {
		if segment.Type == elf.PT_INTERP {
			return program{}, fmt.Errorf("%s is not static", path)
		}
	}
	arch := machines[f.Machine]
	if arch == "" {
		return program{}, fmt.Errorf("%s is for %v", path, f.Machine)
	}
	return program{path: path, arch: arch, data: data}, nil
}

// describe makes the labels from what pazinit --version prints:
// "pazinit 0.1.0 (6ec8f74b5e51) go1.26.8", the commit "unknown" or not there.
func describe(version string) (map[string]string, error) {
	f := strings.Fields(version)
	if len(f) < 2 || f[0] != "pazinit" {
		return nil, fmt.Errorf("read the version: %q does not begin with pazinit and a number", version)
	}
	labels := map[string]string{
		label + "title":       "pazinit",
		label + "description": "An init for containers: one command as with tini, or the workers of a Procfile",
		label + "source":      "https://github.com/pazinit/pazinit",
		label + "licenses":    "MIT",
		label + "version":     f[1],
	}
	if len(f) > 2 && strings.HasPrefix(f[2], "(") {
		if commit := strings.Trim(f[2], "()"); commit != "unknown" {
			labels[label+"revision"] = commit
		}
	}
	return labels, nil
}

// build makes an index with an image for each program.
func build(programs []program, labels map[string]string, created time.Time) (v1.ImageIndex, error) {
	var images []mutate.IndexAddendum
	for _, p := range programs {
		image, err := buildOne(p, labels, created)
		if err != nil {
			return nil, fmt.Errorf("build the image for %s: %w", p.arch, err)
		}
		images = append(images, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: p.arch}},
		})
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), images...)
	return mutate.Annotations(index, maps.Clone(labels)).(v1.ImageIndex), nil
}

func buildOne(p program, labels map[string]string, created time.Time) (v1.Image, error) {
	content, err := layerTar(p.data, created)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS:           "linux",
		Architecture: p.arch,
		Created:      v1.Time{Time: created},
		RootFS:       v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Env:        []string{path},
			Entrypoint: []string{"/" + place},
			Labels:     maps.Clone(labels),
		},
	})
	if err != nil {
		return nil, err
	}
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "COPY pazinit /" + place},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Annotations(image, maps.Clone(labels)).(v1.Image), nil
}

// layerTar is the layer: the program and the folders above it, all root's, 0755.
func layerTar(data []byte, created time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	header := tar.Header{Mode: 0o755, ModTime: created, Format: tar.FormatUSTAR}
	for i, c := range place {
		if c == '/' {
			header.Typeflag, header.Name = tar.TypeDir, place[:i+1]
			if err := w.WriteHeader(&header); err != nil {
				return nil, err
			}
		}
	}
	header.Typeflag, header.Name, header.Size = tar.TypeReg, place, int64(len(data))
	if err := w.WriteHeader(&header); err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

// write puts the index into an image layout and that into the archive out, which
// is replaced in one step. Its index.json has one entry, named as engines are to
// name what they load: with the two images themselves in it they would not know
// which one is meant.
func write(out string, index v1.ImageIndex, labels map[string]string) (err error) {
	dir, err := os.MkdirTemp(filepath.Dir(out), ".image-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	blobs := filepath.Join(dir, "layout")
	outer := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{
		Add: index,
		Descriptor: v1.Descriptor{Annotations: map[string]string{
			label + "ref.name": "pazinit:" + labels[label+"version"],
		}},
	})
	if _, err := layout.Write(blobs, outer); err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	archive := filepath.Join(dir, "tar")
	if err := pack(archive, blobs); err != nil {
		return fmt.Errorf("pack the layout: %w", err)
	}
	return os.Rename(archive, out)
}

// pack writes the files below dir into a tar, in the order of their names, with
// nothing in it of when and by whom they were written.
func pack(archive, dir string) error {
	f, err := os.OpenFile(archive, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		header := tar.Header{Format: tar.FormatUSTAR, ModTime: time.Unix(0, 0)}
		if entry.IsDir() {
			header.Typeflag, header.Name, header.Mode = tar.TypeDir, name+"/", 0o755
			return w.WriteHeader(&header)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		header.Typeflag, header.Name, header.Mode, header.Size = tar.TypeReg, name, 0o644, int64(len(data))
		if err := w.WriteHeader(&header); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	return errors.Join(err, w.Close(), f.Close())
}
