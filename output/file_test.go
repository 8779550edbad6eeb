package output

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Q-20, CI-23: many instances in one file, each writing its lines in pieces.
func TestSharedFileKeepsLines(t *testing.T) {
	const writers, lines = 100, 200
	h, _ := newHub(t, Options{})
	path := filepath.Join(t.TempDir(), "log")
	var wg sync.WaitGroup
	for w := range writers {
		src := newSource(t, h, Config{Name: fmt.Sprintf("shop:web.%d", w), Stdout: Target{Kind: "file", Path: path, RotateSize: 100 << 10, RotateKeep: 100}})
		out, _ := src.Files()
		wg.Go(func() {
			for i := range lines {
				line := fmt.Sprintf("writer %d line %d %s\n", w, i, strings.Repeat("x", i%150))
				k := len(line) / 3
				_ = sayAll(out, []byte(line[:k]))
				_ = sayAll(out, []byte(line[k:]))
			}
		})
	}
	wg.Wait()
	closeHub(t, h)
	next := make([]int, writers)
	total := 0
	for n := 100; n >= 0; n-- {
		name := path
		if n > 0 {
			name = fmt.Sprintf("%s.%d", path, n)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if len(b) > 100<<10 {
			t.Errorf("size of %s = %d, want at most %d", name, len(b), 100<<10)
		}
		for l := range strings.Lines(string(b)) {
			var w, i int
			var rest string
			fmt.Sscanf(l, "writer %d line %d %s", &w, &i, &rest)
			if want := fmt.Sprintf("writer %d line %d %s\n", w, i, strings.Repeat("x", i%150)); l != want || next[w] != i {
				t.Fatalf("line = %q, want line %d of writer %d", l, next[w], w)
			}
			next[w]++
			total++
		}
	}
	if total != writers*lines {
		t.Errorf("lines = %d, want %d", total, writers*lines)
	}
}

func TestRotation(t *testing.T) {
	for _, tc := range []struct{ size, keep, lines int }{
		{1000, 3, 5000}, {1000, 0, 5000}, {7, 2, 100}, {1 << 20, 5, 400_000},
	} {
		t.Run(fmt.Sprintf("%d,%d", tc.size, tc.keep), func(t *testing.T) {
			h, _ := newHub(t, Options{})
			path := filepath.Join(t.TempDir(), "log")
			src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: path, RotateSize: int64(tc.size), RotateKeep: tc.keep}})
			out, _ := src.Files()
			all := numbers(1, tc.lines)
			say(t, out, all)
			closeHub(t, h)
			got := ""
			for n := tc.keep + 3; n >= 0; n-- {
				name := path
				if n > 0 {
					name = fmt.Sprintf("%s.%d", path, n)
				}
				b, err := os.ReadFile(name)
				if err != nil {
					continue
				}
				if n > tc.keep {
					t.Errorf("%s exists, want at most .%d", name, tc.keep)
				}
				if len(b) > tc.size && strings.Count(string(b), "\n") > 1 {
					t.Errorf("size of %s = %d, want at most %d", name, len(b), tc.size)
				}
				got += string(b)
			}
			if got == "" || !strings.HasSuffix(all, got) || got[:5] != "line " {
				t.Errorf("files = %s", differ(got, all))
			}
			if tc.keep == 5 && got != all {
				t.Errorf("files = %s", differ(got, all))
			}
		})
	}
}

func TestFileBytesAreExact(t *testing.T) {
	h, _ := newHub(t, Options{})
	path := filepath.Join(t.TempDir(), "log")
	src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: path}})
	out, _ := src.Files()
	data := strings.Repeat("\x00\xff\xfe", 100_000) + "\n" + strings.Repeat("y", 70_000)
	say(t, out, data)
	await(t, "flush", src.Flush())
	if got := read(t, path); got != data {
		t.Errorf("file = %s", differ(got, data))
	}
	// The next run's first line is not glued to the last run's words.
	say(t, out, "again\n")
	await(t, "flush", src.Flush())
	if got, want := read(t, path), data+"\nagain\n"; got != want {
		t.Errorf("file = %s", differ(got, want))
	}
}

// What was cut off is not glued to what comes, whoever was killed while it wrote.
func TestFileOfBefore(t *testing.T) {
	for before, want := range map[string]string{
		"":                "new\n",
		"whole\n":         "whole\nnew\n",
		"whole\nha":       "whole\nha\nnew\n",
		"whole\n\x00\x00": "whole\n\x00\x00\nnew\n",
	} {
		h, _ := newHub(t, Options{})
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: path}})
		out, _ := src.Files()
		say(t, out, "new\n")
		await(t, "flush", src.Flush())
		if got := read(t, path); got != want {
			t.Errorf("file with %q before = %q, want %q", before, got, want)
		}
	}
}

func TestDir(t *testing.T) {
	h, _ := newHub(t, Options{})
	dir := filepath.Join(t.TempDir(), "logs")
	to := Target{Kind: "dir", Path: dir}
	src := newSource(t, h, Config{Stdout: to, Stderr: to})
	out, err := src.Files()
	say(t, out, "one\n")
	say(t, err, "two\n")
	await(t, "flush", src.Flush())
	for name, want := range map[string]string{"shop.web.1.stdout.log": "one\n", "shop.web.1.stderr.log": "two\n"} {
		if got := read(t, filepath.Join(dir, name)); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

func TestReopen(t *testing.T) {
	h, _ := newHub(t, Options{})
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: path}})
	out, _ := src.Files()
	say(t, out, "one\n")
	await(t, "flush", src.Flush())
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	say(t, out, "two\n")
	await(t, "flush", src.Flush())
	if err := h.Reopen(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "" {
		t.Errorf("new file = %q, want it there and empty", got)
	}
	say(t, out, "three\n")
	await(t, "flush", src.Flush())
	if got, want := read(t, path+".old"), "one\ntwo\n"; got != want {
		t.Errorf("old file = %q, want %q", got, want)
	}
	if got, want := read(t, path), "three\n"; got != want {
		t.Errorf("new file = %q, want %q", got, want)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := h.Reopen(time.Now().Add(patience)); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Reopen without the folder = %v, want an error that names %s", err, path)
	}
}

// notices collects what a Hub says.
type notices struct {
	mu  sync.Mutex
	all []string
}

func (n *notices) add(msg string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, msg)
}

func (n *notices) get() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.all...)
}

func TestFullDisk(t *testing.T) {
	var said notices
	h, _ := newHub(t, Options{Notice: said.add})
	src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: "/dev/full"}})
	out, _ := src.Files()
	for range 10 {
		say(t, out, numbers(1, 1000))
		await(t, "flush", src.Flush())
	}
	if got, want := h.Lost().Files, uint64(10*len(numbers(1, 1000))); got != want {
		t.Errorf("Lost().Files = %d, want %d", got, want)
	}
	if got := said.get(); len(got) != 1 || !strings.Contains(got[0], "/dev/full: disk full: ") {
		t.Errorf("notices = %q, want one of a full disk", got)
	}
	if got, want := text(src.Tail(Query{Lines: 1})), "line 1000\n"; got != want {
		t.Errorf("Tail(1) = %q, want %q", got, want)
	}
}

// Needs root: mounts a tmpfs of 64 KiB.
func TestFullDiskRecovers(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		if err == unix.EPERM && os.Getenv("PAZINIT_TEST_MUST") == "" {
			t.Skip("mount tmpfs: needs root")
		}
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	var said notices
	h, _ := newHub(t, Options{Notice: said.add})
	path := filepath.Join(dir, "log")
	src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: path}})
	out, _ := src.Files()
	say(t, out, numbers(1, 10_000))
	await(t, "flush", src.Flush())
	kept := read(t, path)
	if got, want := int(h.Lost().Files)+len(kept), len(numbers(1, 10_000)); got != want || len(kept) == want {
		t.Errorf("lost and kept = %d, want %d, and some lost", got, want)
	}
	if err := src.Clear(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	say(t, out, "room again\n")
	await(t, "flush", src.Flush())
	if got, want := read(t, path), "room again\n"; got != want {
		t.Errorf("file = %q, want %q", got, want)
	}
	closeHub(t, h)
}

func TestVanishedFolder(t *testing.T) {
	var said notices
	h, _ := newHub(t, Options{Notice: said.add})
	dir := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "log")
	src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: path}})
	out, _ := src.Files()
	say(t, out, "one\n")
	await(t, "flush", src.Flush())
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.files[path].checked = 0 // a second has passed
	h.mu.Unlock()
	say(t, out, "two\n")
	await(t, "flush", src.Flush())
	if got := h.Lost().Files; got != 4 {
		t.Errorf("Lost().Files = %d, want 4", got)
	}
	if got := said.get(); len(got) != 1 || !strings.Contains(got[0], path) {
		t.Errorf("notices = %q, want one that names %s", got, path)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	say(t, out, "three\n")
	await(t, "flush", src.Flush())
	if got, want := read(t, path), "three\n"; got != want {
		t.Errorf("file = %q, want %q", got, want)
	}
}

func TestClear(t *testing.T) {
	h, _ := newHub(t, Options{})
	path := filepath.Join(t.TempDir(), "log")
	src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: path, RotateSize: 1000, RotateKeep: 3}})
	out, _ := src.Files()
	say(t, out, numbers(1, 500))
	await(t, "flush", src.Flush())
	if err := src.Clear(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if got := src.Tail(Query{Lines: -1}); len(got) != 0 {
		t.Errorf("Tail after Clear = %q, want nothing", text(got))
	}
	ents, _ := os.ReadDir(filepath.Dir(path))
	if len(ents) != 1 || read(t, path) != "" {
		t.Errorf("files after Clear = %v, want one empty", ents)
	}
	say(t, out, "new\n")
	await(t, "flush", src.Flush())
	if got, want := read(t, path), "new\n"; got != want {
		t.Errorf("file = %q, want %q", got, want)
	}

	other := newSource(t, h, Config{Name: "shop:web.2", Stdout: Target{Kind: "file", Path: path}})
	if err := src.Clear(time.Now().Add(patience)); err == nil || read(t, path) != "new\n" {
		t.Errorf("Clear of a shared file = %v, want an error and the file untouched", err)
	}
	await(t, "close", other.Close())
}

// A file whose disk is stuck stops only its own stream.
func TestStalledFile(t *testing.T) {
	h, _ := newHub(t, Options{})
	dir := t.TempDir()
	slow := newSource(t, h, Config{Name: "shop:slow.1", Stdout: Target{Kind: "file", Path: filepath.Join(dir, "slow")}})
	await(t, "flush", slow.Flush())
	if err := h.Reopen(time.Now().Add(patience)); err != nil { // its opening turn is over
		t.Fatal(err)
	}
	f := slow.streams[isStdout].sink.(*file)
	for got := false; !got; { // as a writer that hangs in write(2)
		h.mu.Lock()
		got = f.acquire(&stream{src: slow, state: gone})
		h.mu.Unlock()
	}
	fast := newSource(t, h, Config{Name: "shop:fast.1", Stdout: Target{Kind: "file", Path: filepath.Join(dir, "fast")}})
	so, _ := slow.Files()
	fo, _ := fast.Files()
	say(t, so, "one\n")
	say(t, fo, numbers(1, 100_000))
	await(t, "flush", fast.Flush())
	if got, want := read(t, filepath.Join(dir, "fast")), numbers(1, 100_000); got != want {
		t.Errorf("fast = %s", differ(got, want))
	}
	if got := read(t, filepath.Join(dir, "slow")); got != "" {
		t.Errorf("slow = %q, want nothing yet", got)
	}
	h.mu.Lock()
	f.release(nil)
	h.mu.Unlock()
	await(t, "flush", slow.Flush())
	if got := read(t, filepath.Join(dir, "slow")); got != "one\n" {
		t.Errorf("slow = %q, want %q", got, "one\n")
	}
}
