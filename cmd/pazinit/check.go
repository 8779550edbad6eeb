package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pazinit/pazinit/control"
	pazinit "github.com/pazinit/pazinit/init"
	"github.com/pazinit/pazinit/procfile"
)

// A finding is one error of `check --json`.
type finding struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
	Meant   string `json:"meant"`
}

// check reads the configuration and says what is wrong with it.
func (c *command) check(o options, asJSON bool) int {
	dir, err := os.Getwd()
	if err != nil {
		return c.fail(1, "find the current folder: %v", err)
	}
	cfg, err := procfile.Load(procfile.Options{Config: o.config, Procfile: o.procfile, Dir: dir, UID: os.Geteuid(), GID: os.Getegid()})
	if err == nil {
		err = pazinit.Check(cfg, nil)
	}
	if asJSON {
		_, _ = c.stdout.Write(control.AppendJSON(nil, findings(err)))
	}
	if err != nil {
		if asJSON {
			return exitUsage
		}
		return c.failLines(exitUsage, err.Error())
	}
	if !asJSON {
		fmt.Fprint(c.stdout, summary(cfg))
	}
	return 0
}

func findings(err error) []finding {
	out := []finding{}
	var errs procfile.Errors
	switch {
	case errors.As(err, &errs):
		for _, e := range errs {
			out = append(out, finding{e.File, e.Line, e.Column, e.What, e.Meant})
		}
	case err != nil:
		out = append(out, finding{Message: err.Error()})
	}
	return out
}

// summary says what a good configuration has.
func summary(cfg *procfile.Config) string {
	var b strings.Builder
	for _, f := range cfg.Files {
		fmt.Fprintf(&b, "%s: good\n", f)
	}
	for _, a := range cfg.Applications {
		var workers []string
		for _, w := range a.Workers {
			text := w.Name
			switch {
			case w.PerCPU:
				text += " (one for each CPU)"
			case w.NumInstances != 1:
				text += fmt.Sprintf(" (%d instances)", w.NumInstances)
			}
			workers = append(workers, text)
		}
		fmt.Fprintf(&b, "%s: %s\n", a.Name, strings.Join(workers, ", "))
	}
	return b.String()
}
