package network

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Main is the process: args are the path of a file that holds a [Config] as
// JSON. What it says goes to stdout, a line each. It ends at SIGTERM or SIGINT
// and leaves the network as it is. It returns the exit status: 0, 1 when the
// network could not be begun, 2 for arguments that are none.
func Main(args []string, stdout, stderr io.Writer) int {
	if len(args) != 1 {
		fmt.Fprintln(stderr, "pazinit: machine-network: the path of a configuration is missing")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	c, err := readConfig(args[0])
	if err == nil {
		dropOlder(args[0])
		err = Run(ctx, c, Options{Say: func(line string) { fmt.Fprintln(stdout, "network: "+oneLine(line)) }})
	}
	if err != nil {
		fmt.Fprintf(stderr, "pazinit: %s\n", oneLine(err.Error()))
		return 1
	}
	return 0
}

// oneLine keeps what is said on its line, and names that others gave from steering
// a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ReplaceAll(s, "\n", "; "))
}

// dropOlder removes the configurations beside file that are older than it: nobody
// starts with them any more, while a newer one may be that of a reload which is
// under way.
func dropOlder(file string) {
	own, err := os.Stat(file)
	name := filepath.Base(file)
	if err != nil || !isConfig(name) {
		return
	}
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Name() == name || !isConfig(e.Name()) {
			continue
		}
		if info, err := e.Info(); err == nil && info.ModTime().Before(own.ModTime()) {
			_ = os.Remove(filepath.Join(filepath.Dir(file), e.Name()))
		}
	}
}

func isConfig(name string) bool {
	return strings.HasPrefix(name, ConfigPrefix) && strings.HasSuffix(name, ConfigSuffix)
}

func readConfig(path string) (c Config, err error) {
	b, err := readAtMost(path, maxState)
	if err != nil {
		return c, fmt.Errorf("read network configuration: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("read network configuration %s: %w", path, err)
	}
	return c, nil
}
