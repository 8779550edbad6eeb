package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/pazinit/pazinit/initramfs"
	"github.com/pazinit/pazinit/procfile"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An item is an entry of a tar archive: "x" a file, "x/" a folder, "x -> y" a
// symbolic link, "x => y" a hard link.
type item struct {
	name, data string
	header     tar.Header // what else it has
}

func archive(t testing.TB, items ...item) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		h := i.header
		h.Name, h.Size = i.name, int64(len(i.data))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if name, target, ok := strings.Cut(i.name, " -> "); ok {
			h.Name, h.Linkname, h.Typeflag = name, target, tar.TypeSymlink
		} else if name, target, ok := strings.Cut(i.name, " => "); ok {
			h.Name, h.Linkname, h.Typeflag = name, target, tar.TypeLink
		} else if strings.HasSuffix(i.name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, i.data)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func packed(t testing.TB, how string, data []byte) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zstd":
		w, err = zstd.NewWriter(&b)
	case "xz":
		w, err = xz.NewWriter(&b)
	default:
		return data
	}
	must(t, err)
	_, err = w.Write(data)
	must(t, errors.Join(err, w.Close()))
	return b.Bytes()
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func encode(t testing.TB, v any) []byte {
	b, err := json.Marshal(v)
	must(t, err)
	return b
}

type object = map[string]any

// layout is an OCI layout, as files by name: one image with these layers.
func layout(t testing.TB, config object, how []string, layers ...[]byte) map[string][]byte {
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion": "1.0.0"}`)}
	blob := func(kind string, b []byte) object {
		files["blobs/sha256/"+strings.TrimPrefix(digest(b), "sha256:")] = b
		return object{"mediaType": "application/vnd.oci.image." + kind, "digest": digest(b), "size": len(b)}
	}
	var descriptors []any
	var ids []string
	for i, l := range layers {
		ids = append(ids, digest(l))
		descriptors = append(descriptors, blob("layer.v1.tar", packed(t, how[i%len(how)], l)))
	}
	c := blob("config.v1+json", encode(t, object{"os": "linux", "architecture": "amd64", "config": config, "rootfs": object{"type": "layers", "diff_ids": ids}}))
	m := blob("manifest.v1+json", encode(t, object{"schemaVersion": 2, "config": c, "layers": descriptors}))
	m["annotations"] = object{refName: "example.org/shop:1.0"}
	files["index.json"] = encode(t, object{"schemaVersion": 2, "manifests": []any{m}})
	return files
}

// docker is the same as docker save writes it, the older way: a layer that is there
// twice is a link.
func docker(t testing.TB, config object, layers ...[]byte) []byte {
	var items []item
	var names []string
	seen := map[string]string{}
	for i, l := range layers {
		name := fmt.Sprintf("%d/layer.tar", i)
		names = append(names, name)
		if first := seen[digest(l)]; first != "" {
			items = append(items, item{name: name + " -> ../" + first})
			continue
		}
		seen[digest(l)] = name
		items = append(items, item{name: name, data: string(l)})
	}
	c := encode(t, object{"os": "linux", "architecture": "amd64", "config": config})
	items = append(items, item{name: "c.json", data: string(c)},
		item{name: "manifest.json", data: string(encode(t, []object{{"Config": "c.json", "RepoTags": []string{"shop:1.0"}, "Layers": names}}))})
	return archive(t, items...)
}

func tarOf(t testing.TB, files map[string][]byte) []byte {
	var items []item
	for name, data := range files {
		items = append(items, item{name: name, data: string(data)})
	}
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.name, b.name) })
	return archive(t, items...)
}

// open opens an image that is the content of a file.
func open(t *testing.T, data []byte, o ociOptions) (*ociImage, string, error) {
	t.Helper()
	o.file = filepath.Join(t.TempDir(), "image.tar")
	must(t, os.WriteFile(o.file, data, 0o644))
	if o.platform == "" {
		o.platform = "linux/amd64"
	}
	var said strings.Builder
	i, err := openOCI(o, func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) })
	if err == nil {
		t.Cleanup(func() { i.Close() })
	}
	return i, said.String(), err
}

// text is what an image holds, one line.
func text(t testing.TB, m *initramfs.Image) string {
	t.Helper()
	var out []string
	for _, name := range m.Names() {
		n := m.Get(name)
		switch n.Type() {
		case initramfs.TypeFolder:
			name += "/"
		case initramfs.TypeSymlink:
			name += "->" + n.Target
		case initramfs.TypeFile:
			r, err := n.Open()
			must(t, err)
			b, err := io.ReadAll(r)
			must(t, err)
			name += "=" + string(b)
		default:
			name += fmt.Sprintf("=%o:%d,%d", n.Mode, n.Major, n.Minor)
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func TestLayers(t *testing.T) {
	lower := []item{{name: "etc/"}, {name: "etc/a", data: "1"}, {name: "etc/b", data: "2"}, {name: "etc/sub/"}, {name: "etc/sub/c", data: "3"}, {name: "bin -> usr/bin"}, {name: "usr/bin/"}, {name: "usr/bin/x", data: "x"}}
	const all = "/bin->usr/bin /etc/ /etc/a=1 /etc/b=2 /etc/sub/ /etc/sub/c=3 /usr/ /usr/bin/ /usr/bin/x=x"
	for _, tt := range []struct {
		what  string
		upper []item
		want  string // what there is then, or the error
	}{
		{"nothing", nil, all},
		{"a new file", []item{{name: "./etc/a", data: "new"}}, strings.Replace(all, "a=1", "a=new", 1)},
		{"an absolute name", []item{{name: "/etc/a", data: "new"}}, strings.Replace(all, "a=1", "a=new", 1)},
		{"a whiteout", []item{{name: "etc/.wh.a"}}, strings.Replace(all, "/etc/a=1 ", "", 1)},
		{"a folder's whiteout", []item{{name: "etc/.wh.sub"}}, strings.Replace(all, "/etc/sub/ /etc/sub/c=3 ", "", 1)},
		{"a whiteout and the file anew", []item{{name: "etc/.wh.a"}, {name: "etc/a", data: "n"}}, strings.Replace(all, "a=1", "a=n", 1)},
		{"the file anew and its whiteout", []item{{name: "etc/a", data: "n"}, {name: "etc/.wh.a"}}, strings.Replace(all, "a=1", "a=n", 1)},
		{"a whiteout of nothing", []item{{name: "etc/.wh.none"}, {name: "none/.wh.x"}}, all},
		{"a whiteout through a link", []item{{name: "bin/.wh.x"}}, strings.Replace(all, " /usr/bin/x=x", "", 1)},
		{"opaque", []item{{name: "etc/.wh..wh..opq"}, {name: "etc/n", data: "n"}}, "/bin->usr/bin /etc/ /etc/n=n /usr/ /usr/bin/ /usr/bin/x=x"},
		{"opaque, told last", []item{{name: "etc/"}, {name: "etc/sub/"}, {name: "etc/sub/n", data: "n"}, {name: "etc/.wh..wh..opq"}}, "/bin->usr/bin /etc/ /etc/sub/ /etc/sub/n=n /usr/ /usr/bin/ /usr/bin/x=x"},
		{"an opaque root", []item{{name: ".wh..wh..opq"}, {name: "n", data: "n"}}, "/n=n"},
		{"AUFS's own", []item{{name: ".wh..wh.plnk"}, {name: ".wh..wh.aufs"}}, all},
		{"a whiteout of no name", []item{{name: "etc/.wh."}}, "hides no name"},
		{"a whiteout that leads up", []item{{name: "etc/.wh..."}}, "hides no name"},
		{"through a link", []item{{name: "bin/y", data: "y"}}, all + " /usr/bin/y=y"},
		{"a folder over a link", []item{{name: "bin/"}, {name: "bin/y", data: "y"}}, strings.Replace(all, "/bin->usr/bin", "/bin/ /bin/y=y", 1)},
		{"a file over a folder", []item{{name: "etc", data: "f"}}, "/bin->usr/bin /etc=f /usr/ /usr/bin/ /usr/bin/x=x"},
		{"a link over a folder", []item{{name: "etc -> usr"}}, "/bin->usr/bin /etc->usr /usr/ /usr/bin/ /usr/bin/x=x"},
		{"a folder over a file", []item{{name: "etc/a/"}, {name: "etc/a/x", data: "x"}}, strings.Replace(all, "/etc/a=1", "/etc/a/ /etc/a/x=x", 1)},
		{"a folder over a folder", []item{{name: "etc/"}}, all},
		{"a hard link", []item{{name: "hard => etc/a"}}, "/bin->usr/bin /etc/ /etc/a=1 /etc/b=2 /etc/sub/ /etc/sub/c=3 /hard=1 /usr/ /usr/bin/ /usr/bin/x=x"},
		{"a hard link to nothing", []item{{name: "hard => none"}}, "entry /hard: hard link to none, which is not there"},
		{"a hard link to a folder", []item{{name: "hard => etc"}}, "which is not there"},
		{"outside", []item{{name: "../x", data: "x"}}, `entry "../x" leads outside`},
		{"outside, hidden", []item{{name: "etc/../../x", data: "x"}}, "leads outside"},
		{"a link outside stays within", []item{{name: "out -> ../../../.."}, {name: "out/etc/n", data: "n"}}, strings.Replace(all, "/etc/sub/ ", "/etc/n=n /etc/sub/ ", 1)},
		{"a device", []item{{name: "dev/null", header: tar.Header{Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}}}, strings.Replace(all, "/etc/ ", "/dev/ /dev/null=20666:1,3 /etc/ ", 1)},
		{"an unknown type", []item{{name: "x", header: tar.Header{Typeflag: 'Q'}}}, "type 'Q' is not known"},
	} {
		l, u := archive(t, lower...), archive(t, tt.upper...)
		for kind, data := range map[string][]byte{
			"OCI layout": tarOf(t, layout(t, object{}, []string{"gzip", "zstd", "none"}, l, u)), "docker-archive": docker(t, object{}, l, l, u),
		} {
			i, _, err := open(t, data, ociOptions{})
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s, %s: %v, want %s", kind, tt.what, err, tt.want)
				}
				continue
			}
			got := text(t, i.tree)
			want := tt.want
			if tt.what == "a link outside stays within" {
				want = strings.Replace(want, " /usr/ ", " /out->../../../.. /usr/ ", 1)
			}
			if got != want {
				t.Errorf("%s, %s: it has\n%s\nwant\n%s", kind, tt.what, got, want)
			}
		}
	}
}

func TestAttributes(t *testing.T) {
	l := archive(t, item{name: "bin/ping", data: "p", header: tar.Header{Mode: 0o4755, Uid: 5, Gid: 6, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01", "SCHILY.xattr.user.x": "y"}}})
	i, said, err := open(t, docker(t, object{}, l), ociOptions{})
	must(t, err)
	if n := i.tree.Get("/bin/ping"); n.Mode != initramfs.TypeFile|0o4755 || n.UID != 5 || n.GID != 6 {
		t.Errorf("it is %+v", n)
	}
	if !strings.Contains(said, "/bin/ping has file capabilities") || !strings.Contains(said, "attribute user.x") {
		t.Errorf("it said %s", said)
	}
}

func TestOpenErrors(t *testing.T) {
	l := archive(t, item{name: "a", data: "1"})
	change := func(do func(map[string][]byte)) []byte {
		files := layout(t, object{}, []string{"gzip"}, l)
		do(files)
		return tarOf(t, files)
	}
	biggest := func(files map[string][]byte) string {
		for name := range files { // the layer is the one that is compressed
			if bytes.HasPrefix(files[name], []byte("\x1f\x8b")) {
				return name
			}
		}
		return ""
	}
	// What a descriptor says of the layer, of the configuration and of the manifest.
	sized := func(kind string, size int) []byte {
		return change(func(f map[string][]byte) {
			for name, data := range f {
				var d map[string]any
				if json.Unmarshal(data, &d) != nil || d["layers"] == nil && d["manifests"] == nil {
					continue
				}
				switch {
				case kind == "manifest" && name == "index.json":
					d["manifests"].([]any)[0].(map[string]any)["size"] = size
				case kind == "layer" && name != "index.json":
					d["layers"].([]any)[0].(map[string]any)["size"] = size
				case kind == "config" && name != "index.json":
					d["config"].(map[string]any)["size"] = size
				default:
					continue
				}
				delete(f, name)
				b := encode(t, d)
				if name != "index.json" {
					name = "blobs/sha256/" + strings.TrimPrefix(digest(b), "sha256:")
					f["index.json"] = encode(t, object{"manifests": []any{object{"digest": digest(b), "size": len(b)}}})
				}
				f[name] = b
				return
			}
		})
	}
	bomb := tarOf(t, layout(t, object{}, []string{"gzip"}, l, archive(t, item{name: "big", data: strings.Repeat("x", 1<<20)})))
	two := archive(t, item{name: "c.json", data: "{}"}, item{name: "manifest.json", data: `[{"Config":"c.json","RepoTags":["a:1"]},{"Config":"c.json","RepoTags":["b:2"]}]`})
	for _, tt := range []struct {
		what string
		data []byte
		o    ociOptions
		want string
	}{
		{"no archive", []byte(strings.Repeat("text", 512)), ociOptions{}, "invalid tar header"},
		{"another archive", l, ociOptions{}, "neither index.json"},
		{"a damaged layer", change(func(f map[string][]byte) { n := biggest(f); f[n] = packed(t, "gzip", append(l, 0)) }), ociOptions{}, "it is damaged: its digest is"},
		{"another layer", change(func(f map[string][]byte) { n := biggest(f); f[n] = []byte("x") }), ociOptions{}, "layer 1"},
		{"a missing layer", change(func(f map[string][]byte) { delete(f, biggest(f)) }), ociOptions{}, "file does not exist"},
		{"another platform", change(func(map[string][]byte) {}), ociOptions{platform: "linux/arm64"}, "it is for linux/amd64, not for linux/arm64: --platform linux/amd64"},
		{"another name", change(func(map[string][]byte) {}), ociOptions{ref: "none"}, "it has no image none, but example.org/shop:1.0"},
		{"two images", two, ociOptions{}, "it has 2 images, choose one with --ref: a:1; b:2"},
		{"a digest that is none", change(func(f map[string][]byte) {
			f["index.json"] = []byte(`{"manifests":[{"digest":"sha256:../../x"}]}`)
		}), ociOptions{}, "is no sha256"},
		{"a layer that is larger than is said", sized("layer", 5), ociOptions{}, "the layer's file: "},
		{"a layer that is smaller than is said", sized("layer", 1<<40), ociOptions{}, "bytes, not the 1099511627776 that the manifest says"},
		{"a configuration of another size", sized("config", 5), ociOptions{}, "bytes, not the 5 that are said"},
		{"a manifest of another size", sized("manifest", -5), ociOptions{}, "bytes, not the -5 that are said"},
		{"a bomb", bomb, ociOptions{limit: 1 << 16}, "entry /big: with its 1048576 bytes the files of all layers have 1048577, and they may have 65536"},
		{"a bomb behind the archive's end", tarOf(t, layout(t, object{}, []string{"gzip"}, append(slices.Clone(l), make([]byte, 1<<20)...))), ociOptions{limit: 1 << 16}, "the layer unpacked: "},
		{"a bomb of an archive", packed(t, "zstd", bomb), ociOptions{limit: 1 << 10}, "the archive unpacked: "},
		{"no JSON", change(func(f map[string][]byte) { f["index.json"] = []byte("no") }), ociOptions{}, "read index.json"},
	} {
		if _, _, err := open(t, tt.data, tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.what, err, tt.want)
		}
	}
	if i, _, err := open(t, two, ociOptions{ref: "b:2"}); err != nil || i.command.App != "b" {
		t.Errorf("the chosen image: %+v, %v", i, err)
	}
	for _, how := range []string{"gzip", "zstd"} { // the whole archive compressed
		if _, _, err := open(t, packed(t, how, tarOf(t, layout(t, object{}, []string{"none"}, l))), ociOptions{}); err != nil {
			t.Errorf("an archive in %s: %v", how, err)
		}
	}
	dir := t.TempDir()
	for name, data := range layout(t, object{}, []string{"gzip"}, l) {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	i, err := openOCI(ociOptions{file: dir, platform: "linux/amd64"}, t.Logf)
	must(t, err)
	defer i.Close()
	if text(t, i.tree) != "/a=1" || i.command.App != "shop" {
		t.Errorf("a layout's folder has %s, %+v", text(t, i.tree), i.command)
	}
	must(t, os.Remove(filepath.Join(dir, "index.json")))
	must(t, syscall.Mkfifo(filepath.Join(dir, "index.json"), 0o644))
	if _, err := openOCI(ociOptions{file: dir, platform: "linux/amd64"}, t.Logf); err == nil || !strings.Contains(err.Error(), "read index.json: it is no file") {
		t.Errorf("a layout with a FIFO: %v", err)
	}
}

// aProgram is an ELF file without anything in it.
var aProgram = "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 57)

// pazimage runs the program, and reads the image that it wrote.
func pazimage(t *testing.T, args ...string) (*initramfs.Archive, string) {
	t.Helper()
	dir := t.TempDir()
	out, init := filepath.Join(dir, "x.img"), filepath.Join(dir, "pazinit")
	must(t, os.WriteFile(init, []byte(aProgram), 0o755))
	var stdout, stderr bytes.Buffer
	code := run(append([]string{"-o", out, "--init", init}, args...), &stdout, &stderr)
	said := stdout.String() + stderr.String()
	if code != 0 {
		return nil, said
	}
	f, err := os.Open(out)
	must(t, err)
	defer f.Close()
	a, err := initramfs.Read(f, initramfs.ReadOptions{Unpack: unpackers()})
	must(t, err)
	return a, said
}

func TestMachineOfImage(t *testing.T) {
	rootfs := archive(t, item{name: "bin/"}, item{name: "bin/app", data: aProgram, header: tar.Header{Mode: 0o755}}, item{name: "etc/passwd", data: "web:x:77:78::/srv:/bin/sh\n"}, item{name: "etc/group", data: "web:x:78:\n"}, item{name: "srv/x", data: "1"})
	config := object{"Entrypoint": []string{"app", "it's"}, "Cmd": []string{"$HOME", "a b"}, "Env": []string{"PATH=/usr/bin:/bin", `Q=say "hi"\n`}, "WorkingDir": "/srv/new", "User": "web:78", "StopSignal": "SIGQUIT", "Volumes": object{"/data": object{}}}
	file := filepath.Join(t.TempDir(), "i.tar")
	must(t, os.WriteFile(file, tarOf(t, layout(t, config, []string{"gzip"}, rootfs)), 0o644))
	args := []string{"--oci", file, "--platform", "linux/amd64"}
	a, said := pazimage(t, args...)
	if a == nil {
		t.Fatal(said)
	}
	all := text(t, a.Image)
	for _, want := range []string{
		"/etc/pazinit/Procfile=main: app 'it'\\''s' '$HOME' 'a b'\n", "/srv/x=1", "/etc/passwd=web:x:77:78::/srv:/bin/sh\n", "/srv/new/", "/data/", "/init=" + aProgram, "/dev/console=",
		"/etc/pazinit/pazinit.yaml=# Written by pazimage, of the container image's configuration.\napplications:\n  shop:\n    procfile: Procfile\n    cwd: \"/srv/new\"\n    essential: true\n    retry_after: off\n    user: \"web\"\n    group: \"78\"\n    stop_signal: \"SIGQUIT\"\n    env:\n      \"PATH\": \"/usr/bin:/bin\"\n      \"Q\": \"say \\\"hi\\\"\\\\n\"\n",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the image lacks %q: it has\n%s\nand it said %s", want, all, said)
		}
	}
	if a.Parts[0].Compression != "zstd" || len(a.Image.Check()) > 0 {
		t.Errorf("the parts are %+v, the problems %v", a.Parts, a.Image.Check())
	}
	// What it has is what pazinit reads.
	dir := t.TempDir()
	for _, name := range []string{"pazinit/Procfile", "pazinit/pazinit.yaml", "passwd", "group"} {
		r, err := a.Image.Get("/etc/" + name).Open()
		must(t, err)
		b, err := io.ReadAll(r)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o644))
	}
	cfg, err := procfile.Load(procfile.Options{Config: filepath.Join(dir, "pazinit.yaml"), Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group")})
	must(t, err)
	w := cfg.Applications[0].Workers[0]
	if !slices.Equal(w.Command.Argv, []string{"app", "it's", "$HOME", "a b"}) || w.User.UID != 77 || w.User.GID != 78 || w.Dir != "/srv/new" || !slices.Contains(w.Env, `Q=say "hi"\n`) || w.Stop[0].Signal != syscall.SIGQUIT {
		t.Errorf("pazinit reads %+v, user %+v", w, w.User)
	}
	// A Procfile goes before the image's command; programs are the image's alone.
	proc := filepath.Join(t.TempDir(), "Procfile")
	must(t, os.WriteFile(proc, []byte("one: app\n"), 0o644))
	if a, said := pazimage(t, append(args, "-f", proc, "--compress", "gzip")...); a == nil || !strings.Contains(said, ":one: /bin/app") || strings.Contains(text(t, a.Image), "main: app") {
		t.Errorf("with a Procfile it said %s", said)
	}
	must(t, os.WriteFile(proc, []byte("one: cp\n"), 0o644))
	if a, said := pazimage(t, append(args, "-f", proc)...); a != nil || !strings.Contains(said, "program cp not found") {
		t.Errorf("a program that only this machine has: %s", said)
	}
	if a, said := pazimage(t, append(args, "-f", proc, "--sysroot", "/")...); a == nil || !strings.Contains(said, ":one: /usr/bin/cp") {
		t.Errorf("a program of the sysroot: %s", said)
	}
	for what, tt := range map[string]struct {
		config object
		want   string
	}{
		"no command":         {object{}, "the image has no command"},
		"a missing program":  {object{"Cmd": []string{"none"}}, "the image's command: program none not found in /usr/local/sbin"},
		"an unknown user":    {object{"Cmd": []string{"/bin/app"}, "User": "nobody"}, "runs as nobody, which its /etc/passwd does not have"},
		"a new line":         {object{"Cmd": []string{"/bin/app", "a\nb"}}, "a line's end"},
		"a damaged variable": {object{"Cmd": []string{"/bin/app"}, "Env": []string{"X"}}, "no text KEY=VALUE"},
	} {
		must(t, os.WriteFile(file, tarOf(t, layout(t, tt.config, []string{"gzip"}, rootfs)), 0o644))
		if a, said := pazimage(t, args...); a != nil || !strings.Contains(said, tt.want) {
			t.Errorf("%s: it said %s, want %s", what, said, tt.want)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for args, want := range map[string]struct {
		code int
		text string
	}{
		"-h": {0, "--oci FILE"}, "--none": {2, "flag provided but not defined: -none; pazimage -h"}, "-o x --ref y": {2, "--ref is for --oci"}, "-o x --oci /none": {1, "read container image /none: stat /none: no such file"},
		"-o x --compress lz4": {2, "--compress is gzip, none, xz, zstd"}, "--list /none": {1, "read an image"}, "": {2, "no -o FILE"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(strings.Fields(args), &stdout, &stderr); code != want.code || !strings.Contains(stdout.String()+stderr.String(), want.text) {
			t.Errorf("pazimage %s: %d, %s%s, want %d, %s", args, code, &stdout, &stderr, want.code, want.text)
		}
	}
}

// All compressions are read again, with other archives behind zstd, and give the
// same bytes each time.
func TestFormats(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "data"), bytes.Repeat([]byte("some text that repeats "), 1<<16), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "Procfile"), []byte("a: /init\n"), 0o644))
	for _, how := range []string{"zstd", "xz", "gzip", "none"} {
		var sums []string
		for range 2 {
			out := filepath.Join(t.TempDir(), "x.img")
			init := filepath.Join(dir, "init")
			must(t, os.WriteFile(init, []byte(aProgram), 0o755))
			var stdout, stderr bytes.Buffer
			if code := run([]string{"-o", out, "--init", init, "--compress", how, dir, "-f", filepath.Join(dir, "Procfile")}, &stdout, &stderr); code != 0 {
				t.Fatalf("%s: %d, %s", how, code, &stderr)
			}
			b, err := os.ReadFile(out)
			must(t, err)
			sums = append(sums, digest(b))
			for what, more := range map[string][]byte{"alone": nil, "zeros behind": make([]byte, 512), "an archive behind": append(make([]byte, -len(b)&3), plainArchive(t)...)} {
				if how == "xz" && what != "alone" {
					continue
				}
				a, err := initramfs.Read(bytes.NewReader(slices.Concat(b, more)), initramfs.ReadOptions{Unpack: unpackers()})
				if err != nil {
					t.Errorf("%s, %s: %v", how, what, err)
					continue
				}
				if n := a.Image.Get("/data"); n == nil || n.Size != 23<<16 || (what == "an archive behind") != (a.Image.Get("/behind") != nil) {
					t.Errorf("%s, %s: it has %v", how, what, a.Image.Names())
				}
			}
			stdout.Reset()
			if code := run([]string{"--verify", out}, &stdout, &stderr); code != 0 {
				t.Errorf("%s: verify: %s%s", how, &stdout, &stderr)
			}
		}
		if sums[0] != sums[1] {
			t.Errorf("%s: the bytes differ", how)
		}
	}
	for what, data := range map[string][]byte{"cut": packed(t, "zstd", plainArchive(t))[:30], "a magic alone": []byte("\x28\xb5\x2f\xfd"), "xz cut": packed(t, "xz", plainArchive(t))[:30]} {
		if _, err := initramfs.Read(bytes.NewReader(data), initramfs.ReadOptions{Unpack: unpackers()}); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func plainArchive(t testing.TB) []byte {
	m := initramfs.New()
	must(t, m.Add("/behind", initramfs.Data(0o644, []byte("b"))))
	var b bytes.Buffer
	must(t, m.Write(&b))
	return b.Bytes()
}

func TestModules(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "6.12-test")
	must(t, os.MkdirAll(filepath.Join(dir, "kernel"), 0o755))
	const ko = "\x7fELF module"
	for name, data := range map[string][]byte{
		"modules.dep": []byte("kernel/a.ko.xz: kernel/b.ko.zst\nkernel/b.ko.zst:\n"), "kernel/a.ko.xz": packed(t, "xz", []byte(ko)), "kernel/b.ko.zst": packed(t, "zstd", []byte(ko)),
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	root := t.TempDir()
	a, said := pazimage(t, "--kernel-modules", dir, "--module", "a x=1", "--compress", "none", root)
	if a == nil {
		t.Fatal(said)
	}
	all := text(t, a.Image)
	for _, want := range []string{"/lib/modules/6.12-test/kernel/a.ko=" + ko, "/lib/modules/6.12-test/kernel/b.ko=" + ko, "/lib/modules/pazinit.load=/lib/modules/6.12-test/kernel/b.ko\n/lib/modules/6.12-test/kernel/a.ko x=1\n"} {
		if !strings.Contains(all, want) {
			t.Errorf("the image lacks %q: it has %s", want, all)
		}
	}
}

// What the usual tools write: umoci makes an image, skopeo copies it to the other
// formats.
func TestTools(t *testing.T) {
	for _, tool := range []string{"umoci", "skopeo"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("scripts/install-deps test brings it: %v", err)
		}
	}
	dir := t.TempDir()
	do := func(argv ...string) {
		t.Helper()
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	for name, data := range map[string]string{"one/bin/app": aProgram, "one/etc/a": "1", "one/etc/b": "2", "two/n": "n"} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o755))
	}
	do("umoci", "init", "--layout", "oci")
	do("umoci", "new", "--image", "oci:v1")
	rootless := []string{}
	if os.Geteuid() != 0 {
		rootless = append(rootless, "--rootless")
	}
	do(append(append([]string{"umoci", "insert", "--image", "oci:v1"}, rootless...), "one", "/")...)
	do(append(append([]string{"umoci", "insert", "--image", "oci:v1"}, rootless...), "--opaque", "two", "/etc")...)
	do(append(append([]string{"umoci", "insert", "--image", "oci:v1"}, rootless...), "--whiteout", "/bin/none")...)
	do("umoci", "config", "--image", "oci:v1", "--config.cmd", "/bin/app", "--config.cmd", "-x", "--config.env", "A=b c")
	do("skopeo", "--insecure-policy", "copy", "oci:oci:v1", "oci-archive:x.oci.tar:shop:v1")
	do("skopeo", "--insecure-policy", "copy", "oci:oci:v1", "docker-archive:x.docker.tar:shop:v1")
	do("skopeo", "--insecure-policy", "copy", "--dest-compress-format", "zstd", "oci:oci:v1", "oci:zstd:v1")
	for _, name := range []string{"oci", "x.oci.tar", "x.docker.tar", "zstd"} {
		i, err := openOCI(ociOptions{file: filepath.Join(dir, name), platform: "linux/amd64"}, t.Logf)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, want := text(t, i.tree), "/bin/ /bin/app="+aProgram+" /etc/ /etc/n=n"; got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
		if c := i.command; !slices.Equal(c.Argv, []string{"/bin/app", "-x"}) || !slices.Contains(c.Env, "A=b c") {
			t.Errorf("%s: the command is %+v", name, c)
		}
		i.Close()
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(packed(f, "zstd", []byte("hello")))
	f.Add(packed(f, "zstd", bytes.Repeat([]byte("x"), 1<<18)))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := io.ReadAll(&frame{r: bytes.NewReader(data)})
		if len(got) > len(data) || err == nil && !bytes.HasPrefix(data, got) {
			t.Fatalf("%d bytes of %d", len(got), len(data))
		}
	})
}
