package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// binaries are pazinit for amd64 and for arm64, archive the image of them.
var binaries = map[string]string{}
var archive string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pazinit-image-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for _, arch := range []string{"amd64", "arm64"} {
		binaries[arch] = filepath.Join(dir, arch)
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X=main.commit=0123456789ab", "-o", binaries[arch], "./cmd/pazinit")
		build.Dir = "../../.." // another module
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build for %s: %v\n%s", arch, err, out)
			return 1
		}
	}
	archive = filepath.Join(dir, "pazinit.oci.tar")
	if err := run(archive, []string{binaries["amd64"], binaries["arm64"]}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// A file is an entry of a tar.
type file struct {
	header tar.Header
	data   []byte
}

func untar(t *testing.T, data []byte) map[string]file {
	t.Helper()
	files := map[string]file{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := files[header.Name]; twice {
			t.Errorf("%s is in the tar twice", header.Name)
		}
		files[header.Name] = file{*header, body}
	}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// A descriptor is what points at a blob.
type descriptor struct {
	MediaType   string
	Digest      string
	Size        int
	Platform    map[string]string
	Annotations map[string]string
}

// A content is what is in a layout, as the OCI image specification has it.
type content struct {
	t     *testing.T
	files map[string]file
	used  map[string]bool
}

// get reads a blob, which must be what its descriptor says, as JSON into v.
func (c content) get(d descriptor, mediaType string, v any) []byte {
	c.t.Helper()
	if d.MediaType != "application/vnd.oci.image."+mediaType {
		c.t.Errorf("media type = %q, want %s", d.MediaType, mediaType)
	}
	name := "blobs/" + strings.Replace(d.Digest, ":", "/", 1)
	blob, ok := c.files[name]
	if !ok {
		c.t.Fatalf("%s is not in the archive", name)
	}
	c.used[name] = true
	if got := digest(blob.data); got != d.Digest || len(blob.data) != d.Size {
		c.t.Errorf("%s has digest %s and %d bytes, want %d", name, got, len(blob.data), d.Size)
	}
	if v != nil {
		c.json(blob.data, v)
	}
	return blob.data
}

func (c content) json(data []byte, v any) {
	c.t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		c.t.Fatalf("%v in %s", err, data)
	}
}

type indexJSON struct {
	SchemaVersion int
	MediaType     string
	Manifests     []descriptor
	Annotations   map[string]string
}

var wantLabels = map[string]string{
	"org.opencontainers.image.title":       "pazinit",
	"org.opencontainers.image.description": "An init for containers: one command as with tini, or the workers of a Procfile",
	"org.opencontainers.image.source":      "https://github.com/pazinit/pazinit",
	"org.opencontainers.image.licenses":    "MIT",
	"org.opencontainers.image.revision":    "0123456789ab",
}

func checkLabels(t *testing.T, what string, labels map[string]string) {
	t.Helper()
	rest := maps.Clone(labels)
	if rest["org.opencontainers.image.version"] == "" {
		t.Errorf("%s has no version", what)
	}
	delete(rest, "org.opencontainers.image.version")
	if !maps.Equal(rest, wantLabels) {
		t.Errorf("%s = %q, want %q", what, rest, wantLabels)
	}
}

func TestArchive(t *testing.T) {
	data, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	c := content{t, untar(t, data), map[string]bool{"oci-layout": true, "index.json": true, "blobs/": true, "blobs/sha256/": true}}
	var version struct{ ImageLayoutVersion string }
	c.json(c.files["oci-layout"].data, &version)
	if version.ImageLayoutVersion != "1.0.0" {
		t.Errorf("imageLayoutVersion = %q, want 1.0.0", version.ImageLayoutVersion)
	}
	var outer, index indexJSON
	c.json(c.files["index.json"].data, &outer)
	if len(outer.Manifests) != 1 {
		t.Fatalf("index.json has %d entries, want 1", len(outer.Manifests))
	}
	c.get(outer.Manifests[0], "index.v1+json", &index)
	checkLabels(t, "annotations of the index", index.Annotations)
	name := "pazinit:" + index.Annotations["org.opencontainers.image.version"]
	if got := outer.Manifests[0].Annotations["org.opencontainers.image.ref.name"]; got != name {
		t.Errorf("ref.name = %q, want %q", got, name)
	}
	want := []map[string]string{{"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64"}}
	var platforms []map[string]string
	for _, d := range index.Manifests {
		platforms = append(platforms, d.Platform)
		c.checkImage(d)
	}
	if !slices.EqualFunc(platforms, want, maps.Equal) {
		t.Errorf("platforms = %v, want %v", platforms, want)
	}
	for name := range c.files {
		if !c.used[name] {
			t.Errorf("nothing refers to %s", name)
		}
	}
}

func (c content) checkImage(d descriptor) {
	t, arch := c.t, d.Platform["architecture"]
	var manifest struct {
		MediaType   string
		Config      descriptor
		Layers      []descriptor
		Annotations map[string]string
	}
	c.get(d, "manifest.v1+json", &manifest)
	checkLabels(t, arch+"'s annotations", manifest.Annotations)
	if manifest.MediaType != d.MediaType || len(manifest.Layers) != 1 {
		t.Fatalf("%s: media type %s, %d layers, want 1", arch, manifest.MediaType, len(manifest.Layers))
	}
	var config struct {
		Architecture, OS string
		Created          time.Time
		Config           struct {
			Env, Entrypoint, Cmd []string
			User, WorkingDir     string
			Labels               map[string]string
		}
		RootFS struct {
			Type    string
			DiffIDs []string `json:"diff_ids"`
		}
		History []struct{ Created time.Time }
	}
	c.get(manifest.Config, "config.v1+json", &config)
	if config.Architecture != arch || config.OS != "linux" {
		t.Errorf("%s's configuration is for %s/%s", arch, config.OS, config.Architecture)
	}
	if got := config.Config.Entrypoint; !slices.Equal(got, []string{"/usr/bin/pazinit"}) || config.Config.Cmd != nil {
		t.Errorf("%s: entrypoint %q, cmd %q, want /usr/bin/pazinit alone", arch, got, config.Config.Cmd)
	}
	if got := config.Config.Env; !slices.Equal(got, []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}) {
		t.Errorf("%s: environment %q, want PATH alone", arch, got)
	}
	checkLabels(t, arch+"'s labels", config.Config.Labels)
	if !config.Created.Equal(time.Unix(0, 0)) || len(config.History) != 1 || !config.History[0].Created.Equal(time.Unix(0, 0)) {
		t.Errorf("%s: created %v, history %v, want 1970 and one entry of it", arch, config.Created, config.History)
	}
	r, err := gzip.NewReader(bytes.NewReader(c.get(manifest.Layers[0], "layer.v1.tar+gzip", nil)))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := []string{digest(layer)}; config.RootFS.Type != "layers" || !slices.Equal(got, config.RootFS.DiffIDs) {
		t.Errorf("%s: the layer is %q, its configuration says %v", arch, got, config.RootFS)
	}
	checkLayer(t, arch, untar(t, layer))
}

func checkLayer(t *testing.T, arch string, files map[string]file) {
	if got, want := slices.Sorted(maps.Keys(files)), []string{"usr/", "usr/bin/", "usr/bin/pazinit"}; !slices.Equal(got, want) {
		t.Errorf("%s's layer holds %q, want %q", arch, got, want)
	}
	for name, f := range files {
		h := f.header
		if h.Mode != 0o755 || h.Uid != 0 || h.Gid != 0 || h.Uname+h.Gname != "" || !h.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s: %s has mode %o, owner %d:%d %q, time %v", arch, name, h.Mode, h.Uid, h.Gid, h.Uname+h.Gname, h.ModTime)
		}
	}
	program := files["usr/bin/pazinit"].data
	want, err := os.ReadFile(binaries[arch])
	if err != nil || !bytes.Equal(program, want) {
		t.Errorf("%s's program is not the one that was built (%v)", arch, err)
	}
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	if machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; f.Machine != machine {
		t.Errorf("%s's program is for %v", arch, f.Machine)
	}
}

// TestValid asks the library, which reads the unpacked archive as engines do.
func TestValid(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-C", dir, "-xf", archive).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err == nil {
		err = validate.Index(index)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestReproducible writes the archive again: of other files with the same bytes,
// with other modes and times, in another folder, over an older archive.
func TestReproducible(t *testing.T) {
	dir := t.TempDir()
	var copies []string
	for _, arch := range []string{"amd64", "arm64"} {
		data, err := os.ReadFile(binaries[arch])
		path := filepath.Join(dir, "copy-"+arch)
		if err == nil {
			err = os.WriteFile(path, data, 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
		copies = append(copies, path)
	}
	again := filepath.Join(dir, "again.tar")
	if err := os.WriteFile(again, []byte("an older one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(again, copies); err != nil {
		t.Fatal(err)
	}
	a, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(again)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Errorf("written again it is %s, want %s", digest(b), digest(a))
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 {
		t.Errorf("%v and %v are left, want the archive and two binaries", left, err)
	}
}

func TestEpoch(t *testing.T) {
	for _, test := range []struct {
		in   string
		want int64
		err  string
	}{
		{"", 0, ""},
		{"1790000000", 1790000000, ""},
		{"-1", 0, `read SOURCE_DATE_EPOCH: "-1" is no number of seconds`},
		{"today", 0, `read SOURCE_DATE_EPOCH: "today" is no number of seconds`},
	} {
		got, err := epoch(test.in)
		if err == nil && (got.Unix() != test.want || test.err != "") || err != nil && err.Error() != test.err {
			t.Errorf("epoch(%q) = %v, %v, want %d, %q", test.in, got, err, test.want, test.err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dynamic, err := exec.LookPath("tar")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		paths []string
		want  string
	}{
		{[]string{binaries["amd64"]}, "no binary is for arm64"},
		{[]string{binaries["amd64"], binaries["amd64"]}, binaries["amd64"] + " and " + binaries["amd64"] + " are both for amd64"},
		{[]string{dynamic}, dynamic + " is not static"},
		{[]string{"image.go"}, "read image.go: bad magic number '[112 97 99 107]' in record at byte 0x0"},
		{[]string{"none"}, "open none: no such file or directory"},
	} {
		if _, err := open(test.paths); err == nil || err.Error() != test.want {
			t.Errorf("open(%q) = %v, want %s", test.paths, err, test.want)
		}
	}
}

func TestDescribe(t *testing.T) {
	for _, test := range []struct{ in, version, revision, err string }{
		{"pazinit 0.1.0 (6ec8f74b5e51) go1.26.8", "0.1.0", "6ec8f74b5e51", ""},
		{"pazinit 0.1.0 (unknown) go1.26.8", "0.1.0", "", ""},
		{"pazinit 0.1.0 go1.26.8", "0.1.0", "", ""},
		{"tini 0.19", "", "", `read the version: "tini 0.19" does not begin with pazinit and a number`},
		{"pazinit", "", "", `read the version: "pazinit" does not begin with pazinit and a number`},
	} {
		labels, err := describe(test.in)
		if err != nil {
			if err.Error() != test.err {
				t.Errorf("describe(%q) = %v, want %q", test.in, err, test.err)
			}
			continue
		}
		revision, has := labels["org.opencontainers.image.revision"]
		if test.err != "" || labels["org.opencontainers.image.version"] != test.version || revision != test.revision || has != (revision != "") {
			t.Errorf("describe(%q) = %q, want version %s, revision %q", test.in, labels, test.version, test.revision)
		}
	}
}
