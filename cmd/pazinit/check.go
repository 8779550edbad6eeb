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

// check reads the configuration and says what is wrong with it. On a machine it
// does so as its init does, unless a file is named.
func (c *command) check(o options, asJSON bool) int {
	dir, err := os.Getwd()
	if err != nil {
		return c.fail(1, "find the current folder: %v", err)
	}
	cfg, words, err := o.read(dir, "/", func(e error) {
		fmt.Fprintf(c.stderr, "pazinit: kernel command line: %v\n", e)
	})
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
		fmt.Fprint(c.stdout, summary(cfg, words))
	}
	return 0
}

// read reads the configuration as run would, or on the machine at root as its init
// does, unless a file is named; words are what the kernel's command line adds to
// it, and say is told what is wrong with that but stops nobody.
func (o *options) read(dir, root string, say func(error)) (cfg *procfile.Config, words []string, err error) {
	if o.config == "" && o.procfile == "" {
		if b, ok := besideMachine(root); ok {
			for _, e := range b.line.Unknown {
				say(e)
			}
			cfg, _, note, err := loadWhole(b.opts, b.line.IP, true)
			if note != nil {
				say(note)
			}
			return cfg, b.words(), err
		}
	}
	opts := procfile.Options{Config: o.config, Procfile: o.procfile, Dir: dir, UID: os.Geteuid(), GID: os.Getegid()}
	cfg, _, _, err = loadWhole(opts, nil, false)
	return cfg, nil, err
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
func summary(cfg *procfile.Config, words []string) string {
	var b strings.Builder
	for _, w := range words {
		fmt.Fprintf(&b, "%s: good\n", w)
	}
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
