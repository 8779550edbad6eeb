package main

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pazinit/pazinit/machine"
	"github.com/pazinit/pazinit/machine/network"
	"github.com/pazinit/pazinit/procfile"
)

// machineOptions say how a machine's init reads its configuration: by the kernel's
// command line, and before that by its own arguments.
func machineOptions(line *machine.Cmdline, args []string) procfile.Options {
	opts := procfile.Options{
		Config: line.Config, Procfile: line.Procfile, Dir: "/", Set: slices.Clone(line.Set), Beside: true,
		UID: os.Geteuid(), GID: os.Getegid(),
	}
	if line.Log != "" {
		opts.Set = append(opts.Set, "log_path="+line.Log)
	}
	if o, _, ok := (&command{}).parseQuietly(args); ok {
		opts.Config, opts.Procfile = cmp.Or(o.config, opts.Config), cmp.Or(o.procfile, opts.Procfile)
	}
	return opts
}

// A booted is what the init of the machine was started with, for a process beside it.
type booted struct {
	line machine.Cmdline
	opts procfile.Options
}

// besideMachine finds out whether the init of the machine is this program, also
// while it is a shell's parent, which an emergency made of it. root has proc.
// Only root may see it.
func besideMachine(root string) (b booted, ok bool) {
	proc := filepath.Join(root, "proc")
	ns, err := os.Readlink(filepath.Join(proc, "self/ns/pid"))
	if err != nil || ns != initialPIDSpace || !firstIsOwn(root) {
		return b, false
	}
	b.line, err = machine.ReadCmdline(filepath.Join(proc, "cmdline"))
	if err != nil {
		return b, false
	}
	argv := strings.Split(strings.TrimSuffix(readSmall(filepath.Join(proc, "1/cmdline")), "\x00"), "\x00")
	if args := argv[1:]; isCommand(args) { // the shell
		b.opts = machineOptions(&b.line, nil)
	} else {
		b.opts = machineOptions(&b.line, args)
	}
	return b, true
}

// firstIsOwn reports whether process 1 runs this program, by whichever of its names:
// in an image /init and /bin/pazinit are one file.
func firstIsOwn(root string) bool {
	own, err1 := os.Stat(filepath.Join(root, "proc/self/exe"))
	first, err2 := os.Stat(filepath.Join(root, "proc/1/exe"))
	return err1 == nil && err2 == nil && os.SameFile(own, first)
}

// words are those of the kernel's command line that say something of the
// configuration.
func (b *booted) words() []string {
	var out []string
	for _, w := range [][2]string{{"config", b.line.Config}, {"procfile", b.line.Procfile}, {"log", b.line.Log}} {
		if w[1] != "" {
			out = append(out, "pazinit."+w[0]+"="+w[1])
		}
	}
	for _, s := range b.line.Set {
		out = append(out, "pazinit.set="+s)
	}
	return out
}

// loadWhole reads the whole configuration and checks what only a machine has of
// it, so that all that is wrong is said at once. net is the network that it and
// ip=, whose faults are note, ask for. here is where it is to run.
func loadWhole(opts procfile.Options, ip []string, here bool) (cfg *procfile.Config, net network.Config, note, err error) {
	cfg, err = procfile.Load(opts)
	var errs procfile.Errors
	if err != nil && !errors.As(err, &errs) {
		return nil, net, nil, err
	}
	known := cfg
	if known == nil {
		known, _ = procfile.LoadMachine(opts)
	}
	if known != nil {
		net, note = networkConfig(ip, known)
		if err := net.Check(); err != nil && asks(&net) {
			for _, e := range each(err) {
				errs = append(errs, &procfile.Error{What: "machine.network: " + e.Error(), Cause: e})
			}
		}
	}
	if cfg != nil && here {
		errs = append(errs, applications(cfg, asks(&net))...)
	}
	if len(errs) > 0 {
		return nil, net, note, errs
	}
	return cfg, net, note, nil
}

// applications says what is wrong with those of a machine.
func applications(cfg *procfile.Config, networked bool) (errs procfile.Errors) {
	workers := 0
	for _, a := range cfg.Applications {
		workers += len(a.Workers)
		if a.Name == ownApp && networked {
			errs = append(errs, &procfile.Error{Position: a.Pos, What: "the application " + ownApp + " is pazinit's own where it makes the network", Meant: "another name"})
		}
	}
	if workers == 0 {
		errs = append(errs, &procfile.Error{What: "there is no worker in " + strings.Join(cfg.Files, ", "), Meant: "applications: {NAME: {procfile: PATH}}"})
	}
	return errs
}

// withRest adds to what is wrong with a machine's part of the configuration what
// is wrong with the rest, but for files that are not there yet: nothing is mounted.
func withRest(opts procfile.Options, ip []string, err error) error {
	var errs, all procfile.Errors
	if !errors.As(err, &errs) {
		return err
	}
	known := map[string]bool{}
	for _, e := range errs {
		known[e.Error()] = true
	}
	_, _, _, whole := loadWhole(opts, ip, true)
	if !errors.As(whole, &all) {
		return err
	}
	all = slices.DeleteFunc(slices.Clone(all), func(e *procfile.Error) bool {
		return !known[e.Error()] && (errors.Is(e.Cause, fs.ErrNotExist) || errors.Is(e.Cause, procfile.ErrNotFound))
	})
	for _, e := range errs {
		if !slices.ContainsFunc(all, func(o *procfile.Error) bool { return o.Error() == e.Error() }) {
			all = append(all, e)
		}
	}
	return all
}
