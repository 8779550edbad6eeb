package appimage

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pazinit/pazinit/initramfs"
)

// A Command is what a container image would run.
type Command struct {
	App        string   // the application's name
	Argv       []string // the program and its arguments
	Env        []string // KEY=VALUE
	Dir        string   // where it starts; "" is the root
	User       string   // USER, USER:GROUP, by name or number; "" is root
	StopSignal string   // "" is TERM
}

// Add writes a Procfile with one worker, main, for the command.
func (c *Command) Add(m *Maker) error {
	if len(c.Argv) == 0 {
		return fmt.Errorf("the image has no command, and no Procfile is given: -f PROCFILE or -c CONFIG")
	}
	var line, yaml strings.Builder
	for i, arg := range c.Argv {
		if strings.ContainsAny(arg, "\n\r\x00") {
			return fmt.Errorf("the image's command %q has a line's end in it, which a Procfile cannot have: -f PROCFILE", arg)
		}
		if i > 0 {
			line.WriteString(" ")
		}
		line.WriteString(quoted(arg))
	}
	app := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r|0x20 >= 'a' && r|0x20 <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, c.App)
	if app = strings.Trim(app, "-_"); app == "" {
		app = "app"
	}
	dir := path.Join("/", c.Dir)
	fmt.Fprintf(&yaml, "# Written by %s, of the container image's configuration.\napplications:\n  %s:\n    procfile: Procfile\n    cwd: %s\n    essential: true\n    retry_after: off\n", m.Program, app, strconv.Quote(dir))
	if c.User != "" {
		user, group, both := strings.Cut(c.User, ":")
		if user != "" {
			fmt.Fprintf(&yaml, "    user: %s\n", strconv.Quote(user))
		}
		if both && group != "" {
			fmt.Fprintf(&yaml, "    group: %s\n", strconv.Quote(group))
		}
		for file, name := range map[string]string{"/etc/passwd": user, "/etc/group": group} {
			if _, err := strconv.ParseUint(name, 10, 32); err == nil || name == "" || m.hasAccount(file, name) {
				continue
			}
			return fmt.Errorf("the image's command runs as %s, which its %s does not have", c.User, file)
		}
	}
	if c.StopSignal != "" {
		fmt.Fprintf(&yaml, "    stop_signal: %s\n", strconv.Quote(c.StopSignal))
	}
	s := initramfs.Search{Root: m.root, Path: strings.Split(initramfs.DefaultPath, ":")}
	if len(c.Env) > 0 {
		yaml.WriteString("    env:\n")
	}
	for _, kv := range c.Env {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || !utf8.ValidString(kv) {
			return fmt.Errorf("the image's variable %q is no text KEY=VALUE", kv)
		}
		fmt.Fprintf(&yaml, "      %s: %s\n", strconv.Quote(name), strconv.Quote(value))
		if name == "PATH" {
			s.Path = strings.Split(value, ":")
		}
	}
	if err := m.image.MakeFolder(dir); err != nil {
		return err
	}
	name := c.Argv[0]
	if strings.Contains(name, "/") {
		name = path.Join("/", name)
		if !path.IsAbs(c.Argv[0]) {
			name = path.Join(dir, c.Argv[0])
		}
	}
	p, err := m.image.AddProgram(name, s)
	if err != nil {
		return fmt.Errorf("the image's command: %w", err)
	}
	m.say("%s:main: %s", app, describeProgram(p))
	if err := m.addText(etcPazinit+"/Procfile", "main: "+line.String()+"\n"); err != nil {
		return err
	}
	m.say("configuration: the image's command, as user %s in %s", cmpOr(c.User, "root"), dir)
	if err := m.addText(etcConfig, yaml.String()); err != nil {
		return err
	}
	return m.addAccounts(usualUsers, usualGroups)
}

func cmpOr(s, or string) string {
	if s == "" {
		return or
	}
	return s
}

// quoted is a word as a shell and a Procfile take it.
func quoted(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// hasAccount says whether a file of users or groups of the image has a name.
func (m *Maker) hasAccount(file, name string) bool {
	text, err := m.content(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, name+":") {
			return true
		}
	}
	return false
}
