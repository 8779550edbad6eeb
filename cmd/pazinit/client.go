package main

import (
	"context"
	"encoding/json"

	"github.com/pazinit/pazinit/control"
)

// client carries out a verb.
func (c *command) client(args []string) int {
	req, local, err := control.ParseArgs(args)
	if err != nil {
		return c.fail(exitUsage, "%v", err)
	}
	o := options{socket: local["socket"]}
	cl, err := control.Dial(o.socketPath(nil))
	if err != nil {
		return c.fail(control.ExitNoServer, "%v", err)
	}
	defer cl.Close()
	enc := json.NewEncoder(c.stdout)
	r, err := cl.Do(context.Background(), req, func(r *control.Reply) error { return enc.Encode(r) })
	if err != nil {
		return c.fail(1, "%v", err)
	}
	_ = enc.Encode(r)
	return r.Code
}
