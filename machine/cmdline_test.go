package machine

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseCmdline(t *testing.T) {
	for _, c := range []struct {
		line string
		want Cmdline
	}{
		{"", Cmdline{}},
		{"BOOT_IMAGE=/vmlinuz quiet splash foo.bar=1 -- pazinit.shell", Cmdline{}},
		{"pazinit.config=/etc/a.yaml pazinit.procfile=/P pazinit.log=debug pazinit.shell\n",
			Cmdline{Config: "/etc/a.yaml", Procfile: "/P", Log: "debug", Shell: true}},
		{"pazinit.shell=0", Cmdline{}},
		{`pazinit.set=shop.env=A=B pazinit.set="shop.command_line=sleep 1"  "pazinit.set=a.b=c d"`,
			Cmdline{Set: []string{"shop.env=A=B", "shop.command_line=sleep 1", "a.b=c d"}}},
		{"pazinit.debug-exit=0xf4", Cmdline{DebugExit: 0xf4}},
		{"root=LABEL=data rootfstype=ext4 rootflags=noatime,data=ordered ro rw rootwait rootdelay=3",
			Cmdline{RootDevice: "LABEL=data", RootType: "ext4", RootFlags: "noatime,data=ordered", RootRW: true,
				RootWait: -1, RootDelay: 3 * time.Second}},
		{"rw ro rootwait=7", Cmdline{RootRO: true, RootWait: 7 * time.Second}},
		{"rootdelay=soon", Cmdline{}},
		{"init=/bin/init", Cmdline{Init: []string{"/bin/init"}}},
		{`pazinit.init="/sbin/pazinit -c /x" init=/bin/init`, Cmdline{Init: []string{"/sbin/pazinit", "-c", "/x"}}},
		{"ip=dhcp ip=10.0.0.2::10.0.0.1:255.255.255.0:vm:eth0:off", Cmdline{IP: []string{"dhcp", "10.0.0.2::10.0.0.1:255.255.255.0:vm:eth0:off"}}},
		{"console=tty0 console=ttyS0,115200n8 panic=1", Cmdline{Consoles: []string{"tty0", "ttyS0"}, Panic: true}},
		{"a=\x00pazinit.shell", Cmdline{}},
	} {
		if got := ParseCmdline(c.line); !reflect.DeepEqual(got, c.want) {
			t.Errorf("ParseCmdline(%q) =\n%+v, want\n%+v", c.line, got, c.want)
		}
	}
}

func TestUnknownParameters(t *testing.T) {
	for line, want := range map[string]string{
		"pazinit.confg=/a":                    `pazinit."confg" is not known, pazinit.config is`,
		"pazinit.=1":                          `pazinit."" is not known`,
		"pazinit.config":                      "pazinit.config has no value",
		"pazinit.config=":                     "pazinit.config has no value",
		"pazinit.init=\"  \"":                 "pazinit.init has no value",
		"pazinit.shell=perhaps":               `pazinit.shell "perhaps" is neither on nor off`,
		"pazinit.set=x":                       `pazinit.set "x" is not app.key=value`,
		"pazinit.set==x":                      `pazinit.set "=x" is not app.key=value`,
		"pazinit.debug_exit=70000":            `"70000" is no I/O port`,
		"pazinit." + strings.Repeat("x", 999): "is not known",
	} {
		c := ParseCmdline("quiet " + line + " pazinit.log=a")
		if len(c.Unknown) != 1 || !strings.Contains(c.Unknown[0].Error(), want) {
			t.Errorf("ParseCmdline(%.40q).Unknown = %v, want one with %q", line, c.Unknown, want)
		}
		if c.Log != "a" {
			t.Errorf("ParseCmdline(%.40q): the parameter after it is lost", line)
		}
	}
}

// TestNextArg has what next_arg of Linux 6.12 (lib/cmdline.c) answers.
func TestNextArg(t *testing.T) {
	for _, c := range []struct {
		args, name, value string
		has               bool
		rest              string
	}{
		{`a b`, "a", "", false, "b"},
		{`a=b   c`, "a", "b", true, "c"},
		{`a="b c" d`, "a", "b c", true, "d"},
		{`"a=b c" d`, "a", "b c", true, "d"},
		{`"a b" c`, "a b", "", false, "c"},
		{`a="b`, "a", "b", true, ""},
		{`a="`, "a", "", true, ""},
		{`"`, "", "", false, ""},
		{`"a="b c" d`, "a", "b", true, `c" d`},
		{`a=b"c d"e f`, "a", `b"c d"e`, true, "f"},
		{`a=b"c d" f`, "a", `b"c d"`, true, "f"},
		{`a" "b=c d`, `a" "b`, "c", true, "d"},
		{`=a=b`, "=a", "b", true, ""},
		{`=a b`, "=a", "", false, "b"},
		{`a==b`, "a", "=b", true, ""},
		{"a=b\tc\n", "a", "b", true, "c\n"},
	} {
		name, value, has, rest := nextArg(c.args)
		if name != c.name || value != c.value || has != c.has || rest != c.rest {
			t.Errorf("nextArg(%q) = %q, %q, %t, %q, want %q, %q, %t, %q",
				c.args, name, value, has, rest, c.name, c.value, c.has, c.rest)
		}
	}
}

func TestReadCmdline(t *testing.T) {
	dir := t.TempDir()
	if c, err := ReadCmdline(filepath.Join(dir, "none")); err != nil || !reflect.DeepEqual(c, Cmdline{}) {
		t.Errorf("ReadCmdline of a missing file = %+v, %v, want nothing", c, err)
	}
	file := filepath.Join(dir, "cmdline")
	if err := os.WriteFile(file, []byte("quiet pazinit.log=x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := ReadCmdline(file); err != nil || c.Log != "x" {
		t.Errorf("ReadCmdline = %+v, %v, want log x", c, err)
	}
	if err := os.WriteFile(file, make([]byte, maxCmdline+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadCmdline(file); err == nil {
		t.Error("ReadCmdline of too much: no error")
	}
	if _, err := ReadCmdline(dir); err == nil {
		t.Error("ReadCmdline of a folder: no error")
	}
}

func FuzzParseCmdline(f *testing.F) {
	f.Add(`root=/dev/vda ro "a=b c" pazinit.set=a.b="c d" pazinit.shell=x -- e`)
	f.Add(`"pazinit.config="/x`)
	f.Fuzz(func(t *testing.T, line string) {
		c := ParseCmdline(line)
		for _, set := range c.Set {
			if !strings.Contains(line, strings.TrimRight(set, `"`)) {
				t.Errorf("ParseCmdline(%q): %q is not in it", line, set)
			}
		}
		for rest, n := strings.TrimLeft(line, spaces), 0; rest != ""; n++ {
			var next string
			if _, _, _, next = nextArg(rest); len(next) >= len(rest) || n > len(line) {
				t.Fatalf("nextArg(%q) leaves %q", rest, next)
			}
			rest = next
		}
		if strings.IndexByte(line, 0) < 0 && !strings.Contains(line, "--") && strings.Count(line, `"`) == 0 {
			if got := ParseCmdline(line + " pazinit.log=last"); got.Log != "last" {
				t.Errorf("ParseCmdline(%q + log) = %+v", line, got)
			}
		}
	})
}
