package main

import (
	"errors"
	"flag"

	"github.com/pazinit/pazinit/cmd/internal/appimage"
)

// initramfs is the verb: it makes the first file system of a machine, or reads one.
func (c *command) initramfs(args []string) int {
	m := &appimage.Maker{Program: "pazinit", Stdout: c.stdout, Stderr: c.stderr}
	if _, own := c.stderr.(stderr); own {
		m.Terminal = appimage.IsTerminal(2)
	}
	fs := m.Flags()
	var usage *appimage.UsageError
	switch err := m.Parse(fs, args); {
	case errors.Is(err, flag.ErrHelp):
		return c.help([]string{"initramfs"})
	case errors.As(err, &usage):
		return c.fail(exitUsage, "initramfs: %v", err)
	case err != nil:
		return c.fail(exitUsage, "initramfs: %v%s; pazinit help initramfs explains it", err, meantFlag(fs, args))
	}
	switch err := m.Run(); {
	case errors.Is(err, appimage.ErrProblems):
		return 1 // they are printed
	case err != nil:
		return c.failLines(1, err.Error())
	}
	return 0
}
