package network

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/signal"
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
		err = Run(ctx, c, Options{Say: func(line string) { fmt.Fprintln(stdout, "network: "+oneLine(line)) }})
	}
	if err != nil {
		fmt.Fprintf(stderr, "pazinit: %s\n", oneLine(err.Error()))
		return 1
	}
	return 0
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }

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
