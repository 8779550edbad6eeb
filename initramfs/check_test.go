package initramfs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		what string
		do   func(*Image)
		want []string // each problem's beginning
	}{
		{"good", func(*Image) {}, nil},
		{"no /init", func(m *Image) { _ = m.Remove("/init") }, []string{"/init: it is not there"}},
		{"/init that cannot be executed", func(m *Image) { m.Get("/init").Mode = TypeFile | 0o644 }, []string{"/init: it is not executable"}},
		{"a folder /init", func(m *Image) { _ = m.Remove("/init"); _ = m.Add("/init", Folder(0o755)) }, []string{"/init: it is no file"}},
		{"a link /init", func(m *Image) {
			_ = m.Remove("/init")
			_ = m.Add("/init", Symlink("sbin/pazinit"))
		}, nil},
		{"a link /init to nowhere", func(m *Image) {
			_ = m.Remove("/init")
			_ = m.Add("/init", Symlink("lib/x/y"))
		}, []string{"/init: ", "/init: symbolic link to lib/x/y, which is not there"}},
		{"no console", func(m *Image) { _ = m.Remove("/dev/console") }, []string{"/dev/console: "}},
		{"a wrong console", func(m *Image) { m.Get("/dev/console").Major = 4 }, []string{"/dev/console: it is not the device 5:1"}},
		{"links", func(m *Image) {
			for name, to := range map[string]string{"/a": "/etc", "/b": "etc/none", "/c": "/proc/self/mounts", "/d": "../run/x", "/e": "f", "/f": "e", "/g": "/etc/../dev/pts"} {
				_ = m.Add(name, Symlink(to))
			}
		}, []string{"/b: symbolic link to etc/none, which is not there", "/e: symbolic link to f, which leads nowhere", "/f: symbolic link"}},
		{"scripts", func(m *Image) {
			for name, text := range map[string]string{"/bin/a": "#!/bin/sh\n", "/bin/b": "#! /sbin/pazinit -x", "/bin/c": "#!/usr/bin/env python3", "/bin/d": "no script", "/bin/e": "#!"} {
				_ = m.Add(name, Data(0o755, []byte(text)))
			}
			_ = m.Add("/etc/f", Data(0o644, []byte("#!/none")))
		}, []string{"/bin/a: it needs interpreter /bin/sh", "/bin/c: it needs interpreter /usr/bin/env"}},
	} {
		m := New()
		must(t, m.AddInit(Data(0o755, elfFile(t, 62, "", nil, "", ""))))
		must(t, m.AddBase())
		tt.do(m)
		got := m.Check()
		ok := slices.EqualFunc(got, tt.want, func(p Problem, want string) bool { return strings.HasPrefix(p.String(), want) })
		if !ok {
			t.Errorf("%s: the problems are %q, want %q", tt.what, fmt.Sprint(got), tt.want)
		}
	}
}
