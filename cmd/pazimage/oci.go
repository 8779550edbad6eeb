package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"github.com/pazinit/pazinit/cmd/internal/appimage"
	"github.com/pazinit/pazinit/initramfs"
)

type ociOptions struct {
	file, ref, platform string
	limit               int64 // bytes that all may have unpacked; 0 is maxImage
}

const (
	// maxJSON is how many bytes a manifest or a configuration may have.
	maxJSON = 16 << 20
	// maxImage is far more than a machine would unpack into its memory.
	maxImage = 16 << 30
	// maxEntries are the files of an archive, or of all layers together.
	maxEntries = 1 << 20
)

// A bounded reader ends with an error where there is more than there may be. What
// is compressed says nothing of its size.
type bounded struct {
	r     io.Reader
	what  string
	n     int64
	limit int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.n += int64(n); b.n > b.limit {
		return 0, fmt.Errorf("%s: %d bytes and more, and it may have %d", b.what, b.n, b.limit)
	}
	return n, err
}

// An ociImage is a container image with its layers applied.
type ociImage struct {
	tree    *initramfs.Image
	command *appimage.Command
	spool   *os.File // the contents of all files; without a name
}

func (i *ociImage) Close() error { return i.spool.Close() }

// A store gives the files of an archive or of a layout's folder by name.
type store interface {
	open(name string) (io.ReadCloser, error)
	io.Closer
}

// openOCI reads a container image and applies its layers. say is told what an
// initramfs cannot hold.
func openOCI(o ociOptions, say func(format string, args ...any)) (_ *ociImage, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read container image %s: %w", o.file, err)
		}
	}()
	if o.limit == 0 {
		o.limit = maxImage
	}
	s, err := openStore(o.file, o.limit)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	m, err := findManifest(s, o)
	if err != nil {
		return nil, err
	}
	spool, err := temporary()
	if err != nil {
		return nil, err
	}
	img := &ociImage{tree: initramfs.New(), spool: spool}
	a := &applier{tree: img.tree, spool: spool, say: say, limit: o.limit}
	if n := len(m.config.RootFS.DiffIDs); n != 0 && n != len(m.layers) {
		spool.Close()
		return nil, fmt.Errorf("it has %d layers, and its configuration names %d", len(m.layers), n)
	}
	for i, l := range m.layers {
		diffID := ""
		if len(m.config.RootFS.DiffIDs) > 0 {
			diffID = m.config.RootFS.DiffIDs[i]
		}
		if err := applyLayer(s, l, diffID, a); err != nil {
			spool.Close()
			return nil, fmt.Errorf("layer %d, %s: %w", i+1, l.name, err)
		}
	}
	c := m.config.Config
	img.command = &appimage.Command{
		App: m.name, Argv: append(append([]string{}, c.Entrypoint...), c.Cmd...), Env: c.Env, Dir: c.WorkingDir, User: c.User, StopSignal: c.StopSignal,
	}
	for volume := range c.Volumes {
		if err := img.tree.MakeFolder(volume); err != nil {
			spool.Close()
			return nil, fmt.Errorf("volume %s: %w", volume, err)
		}
	}
	return img, nil
}

// temporary is a file that is gone when it is closed.
func temporary() (*os.File, error) {
	f, err := os.CreateTemp("", "pazimage-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// A descriptor is OCI's reference to a blob; see image-spec/descriptor.md.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
	Platform    *struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Variant      string `json:"variant"`
	} `json:"platform"`
}

// A configuration is what is used of an image's configuration.
type configuration struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Config       struct {
		User       string
		Env        []string
		Entrypoint []string
		Cmd        []string
		WorkingDir string
		StopSignal string
		Volumes    map[string]struct{}
	} `json:"config"`
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// A layer is a tar archive, perhaps compressed.
type layer struct {
	name   string // in the store
	digest string // of the file, "" if nothing says it
	size   int64  // of the file, 0 if nothing says it
}

type manifest struct {
	name   string
	config configuration
	layers []layer
}

func findManifest(s store, o ociOptions) (*manifest, error) {
	for _, kind := range []struct {
		name string
		find func(store, ociOptions) (*manifest, error)
	}{{"index.json", findOCI}, {"manifest.json", findDocker}} {
		f, err := s.open(kind.name)
		if err == nil {
			f.Close()
			return kind.find(s, o)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, errors.New("it has neither index.json (OCI layout) nor manifest.json (docker-archive)")
}

// findDocker reads what docker save writes.
func findDocker(s store, o ociOptions) (*manifest, error) {
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := readJSON(s, "manifest.json", "", 0, &list); err != nil {
		return nil, err
	}
	var names []string
	for _, i := range list {
		names = append(names, strings.Join(i.RepoTags, ", "))
		if o.ref == "" && len(list) > 1 {
			continue
		}
		if o.ref != "" && !hasName(i.RepoTags, o.ref) {
			continue
		}
		m := &manifest{}
		if len(i.RepoTags) > 0 {
			m.name = shortName(i.RepoTags[0])
		}
		if err := readJSON(s, i.Config, "", 0, &m.config); err != nil {
			return nil, err
		}
		if err := fits(m.config, o.platform); err != nil {
			return nil, err
		}
		for _, l := range i.Layers {
			m.layers = append(m.layers, layer{name: l})
		}
		return m, nil
	}
	return nil, choose(names, o)
}

func hasName(names []string, ref string) bool {
	for _, n := range names {
		if n == ref || n == ref+":latest" || strings.HasSuffix(n, "/"+ref) || strings.HasSuffix(n, "/"+ref+":latest") {
			return true
		}
	}
	return false
}

// shortName is the name of an image without registry and tag.
func shortName(ref string) string {
	ref, _, _ = strings.Cut(path.Base(ref), "@")
	ref, _, _ = strings.Cut(ref, ":")
	return ref
}

func choose(names []string, o ociOptions) error {
	if o.ref != "" {
		return fmt.Errorf("it has no image %s, but %s", o.ref, strings.Join(names, "; "))
	}
	return fmt.Errorf("it has %d images, choose one with --ref: %s", len(names), strings.Join(names, "; "))
}

const (
	refName       = "org.opencontainers.image.ref.name"
	containerName = "io.containerd.image.name"
)

// findOCI reads an OCI layout: image-spec/image-layout.md.
func findOCI(s store, o ociOptions) (*manifest, error) {
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	if err := readJSON(s, "index.json", "", 0, &index); err != nil {
		return nil, err
	}
	var names []string
	var chosen []descriptor
	for _, d := range index.Manifests {
		own := []string{d.Annotations[refName], d.Annotations[containerName]}
		names = append(names, strings.TrimSpace(strings.Join(own, " ")+" "+d.Digest))
		if o.ref == "" || hasName(own, o.ref) || d.Digest == o.ref {
			chosen = append(chosen, d)
		}
	}
	// One image for several platforms may stand here without an index of its own.
	if len(chosen) > 1 {
		chosen = onPlatform(chosen, o.platform)
	}
	if len(chosen) != 1 {
		return nil, choose(names, o)
	}
	d := chosen[0]
	m := &manifest{name: shortName(cmpOr(d.Annotations[containerName], d.Annotations[refName]))}
	for depth := 0; ; depth++ {
		var document struct {
			Manifests []descriptor `json:"manifests"`
			Config    descriptor   `json:"config"`
			Layers    []descriptor `json:"layers"`
		}
		if err := readBlob(s, d, &document); err != nil {
			return nil, err
		}
		if len(document.Manifests) > 0 {
			fit := onPlatform(document.Manifests, o.platform)
			if len(fit) == 0 || depth > 4 {
				return nil, fmt.Errorf("it has no image for %s", o.platform)
			}
			d = fit[0]
			continue
		}
		if err := readBlob(s, document.Config, &m.config); err != nil {
			return nil, err
		}
		if err := fits(m.config, o.platform); err != nil {
			return nil, err
		}
		for _, l := range document.Layers {
			name, err := blobName(l.Digest)
			if err != nil {
				return nil, err
			}
			m.layers = append(m.layers, layer{name, l.Digest, l.Size})
		}
		return m, nil
	}
}

func cmpOr(s, or string) string {
	if s == "" {
		return or
	}
	return s
}

// onPlatform are the images for a platform, and those that do not say for which.
func onPlatform(list []descriptor, platform string) []descriptor {
	var out []descriptor
	for _, d := range list {
		if p := d.Platform; p == nil || p.OS+"/"+p.Architecture == platform || p.OS+"/"+p.Architecture+"/"+p.Variant == platform {
			out = append(out, d)
		}
	}
	return out
}

// fits says whether an image is for the platform; one that does not say is.
func fits(c configuration, platform string) error {
	is := c.OS + "/" + c.Architecture
	if c.Architecture == "" || is == platform || strings.HasPrefix(platform, is+"/") {
		return nil
	}
	return fmt.Errorf("it is for %s, not for %s: --platform %s takes it, with a pazinit for that by --init", is, platform, is)
}

func blobName(digest string) (string, error) {
	algorithm, sum, _ := strings.Cut(digest, ":")
	if b, err := hex.DecodeString(sum); algorithm != "sha256" || err != nil || len(b) != sha256.Size {
		return "", fmt.Errorf("digest %q is no sha256", digest)
	}
	return "blobs/sha256/" + sum, nil
}

func readBlob(s store, d descriptor, to any) error {
	name, err := blobName(d.Digest)
	if err != nil {
		return err
	}
	return readJSON(s, name, d.Digest, d.Size, to)
}

// readJSON reads a document that must have this digest and size, unless they are
// "" and 0.
func readJSON(s store, name, digest string, size int64, to any) error {
	r, err := s.open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxJSON+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxJSON {
		return fmt.Errorf("read %s: it has %d bytes and more, and may have %d", name, len(b), maxJSON)
	}
	if size != 0 && int64(len(b)) != size {
		return fmt.Errorf("read %s: it has %d bytes, not the %d that are said", name, len(b), size)
	}
	if is := fmt.Sprintf("sha256:%x", sha256.Sum256(b)); digest != "" && is != digest {
		return fmt.Errorf("read %s: it is damaged: its digest is %s", name, is)
	}
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// applyLayer applies one layer, and checks the digests of the file and of the
// archive in it.
func applyLayer(s store, l layer, diffID string, a *applier) error {
	f, err := s.open(l.name)
	if err != nil {
		return err
	}
	defer f.Close()
	packed := sha256.New()
	most := a.limit
	if l.size != 0 {
		most = l.size
	}
	file := &bounded{r: f, what: "the layer's file", limit: most}
	in := bufio.NewReaderSize(io.TeeReader(file, packed), 1<<16)
	plain, err := decompressed(in)
	if err != nil {
		return err
	}
	sum := sha256.New()
	out := io.TeeReader(&bounded{r: plain, what: "the layer unpacked", limit: a.limit}, sum)
	if err := a.layer(tar.NewReader(out)); err != nil {
		return err
	}
	// What stands behind the end counts for the digests, too.
	if _, err := io.Copy(io.Discard, out); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	if l.size != 0 && file.n != l.size {
		return fmt.Errorf("it has %d bytes, not the %d that the manifest says", file.n, l.size)
	}
	if is := fmt.Sprintf("sha256:%x", packed.Sum(nil)); l.digest != "" && is != l.digest {
		return fmt.Errorf("it is damaged: its digest is %s", is)
	}
	if is := fmt.Sprintf("sha256:%x", sum.Sum(nil)); diffID != "" && is != diffID {
		return fmt.Errorf("it is not what the configuration names: its archive's digest is %s, not %s", is, diffID)
	}
	return nil
}

// decompressed is what is in a stream that may be compressed by gzip or zstd.
func decompressed(in *bufio.Reader) (io.Reader, error) {
	magic, err := in.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch text := string(magic); {
	case strings.HasPrefix(text, "\x1f\x8b"):
		return gzip.NewReader(in)
	case text == "\x28\xb5\x2f\xfd":
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return in, nil
}

// openStore opens a layout's folder or an archive, which may be compressed.
func openStore(file string, limit int64) (store, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		root, err := os.OpenRoot(file)
		if err != nil {
			return nil, err
		}
		return folderStore{root}, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	in := bufio.NewReader(f)
	plain, err := decompressed(in)
	if err != nil {
		return nil, err
	}
	if plain != io.Reader(in) { // it must be read anywhere
		whole, err := temporary()
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(whole, &bounded{r: plain, what: "the archive unpacked", limit: limit}); err != nil {
			whole.Close()
			return nil, err
		}
		f.Close()
		f = whole
	}
	s := &archiveStore{f: f, files: map[string]span{}, links: map[string]string{}}
	if err = s.index(); err != nil {
		return nil, err
	}
	return s, nil
}

type folderStore struct{ *os.Root }

func (s folderStore) open(name string) (io.ReadCloser, error) {
	// Without waiting: a FIFO may be there.
	f, err := s.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("read %s: it is no file", name))
	}
	return f, nil
}

// An archiveStore is a tar archive of which every file can be read.
type archiveStore struct {
	f     *os.File
	files map[string]span
	links map[string]string // older docker save has layers that are links
}

type span struct{ at, size int64 }

func (s *archiveStore) Close() error { return s.f.Close() }

func (s *archiveStore) index() error {
	if _, err := s.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	t := tar.NewReader(s.f)
	for n := 1; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if n > maxEntries {
			return fmt.Errorf("read the archive: %d entries and more, and it may have %d", n, maxEntries)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := s.f.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			s.files[name] = span{at, h.Size}
		case tar.TypeSymlink:
			s.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			s.links[name] = path.Clean(h.Linkname)
		}
	}
}

func (s *archiveStore) open(name string) (io.ReadCloser, error) {
	name = path.Clean(name)
	for range 8 {
		if f, ok := s.files[name]; ok {
			return io.NopCloser(io.NewSectionReader(s.f, f.at, f.size)), nil
		}
		next, ok := s.links[name]
		if !ok {
			break
		}
		name = next
	}
	return nil, &fs.PathError{Op: "find in the archive", Path: name, Err: fs.ErrNotExist}
}
