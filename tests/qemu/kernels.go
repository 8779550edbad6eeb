package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Releases are those of Debian whose cloud kernels are booted; what each stands for
// is 5.10, 6.1, 6.12 and the backport of the day.
var Releases = []string{"bullseye", "bookworm", "trixie", "trixie-backports"}

// A Kernel is one that can be booted.
type Kernel struct {
	Release string // one of Releases, or "own"
	Version string // as uname -r prints it
	Image   string // the file's path
	Modules string // the folder with its modules, "" for none
	Err     error  // why it is not here
}

// Cache is the folder that scripts/fetch-kernel fills: vm in PAZINIT_CACHE, or in
// pazinit of the user's cache folder.
func Cache() (string, error) {
	dir := os.Getenv("PAZINIT_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the kernels: %w; PAZINIT_CACHE can say it", err)
		}
		dir = filepath.Join(user, "pazinit")
	}
	return filepath.Join(dir, "vm"), nil
}

// Kernels are those that scripts/fetch-kernel has put into the cache, one a release,
// also when it is missing. PAZINIT_KERNELS names others instead: paths, with colons
// between.
func Kernels(cache string, arch Arch) []Kernel {
	var all []Kernel
	if list := os.Getenv("PAZINIT_KERNELS"); list != "" && arch.Name == AMD64.Name {
		for image := range strings.SplitSeq(list, ":") {
			k := Kernel{Release: "own", Version: strings.TrimPrefix(filepath.Base(image), "vmlinuz-"), Image: image}
			for _, modules := range []string{filepath.Join(filepath.Dir(image), "../lib/modules", k.Version), "/lib/modules/" + k.Version} {
				if _, err := os.Stat(filepath.Join(modules, "modules.dep")); err == nil && k.Modules == "" {
					k.Modules = modules
				}
			}
			all = append(all, k)
		}
		return all
	}
	releases := Releases
	if arch.Name == ARM64.Name {
		releases = []string{"bookworm"}
	}
	for _, release := range releases {
		all = append(all, kernel(filepath.Join(cache, arch.Name), release))
	}
	return all
}

// Bookworm is its kernel, or the first of PAZINIT_KERNELS.
func Bookworm(cache string) (Kernel, error) {
	all := Kernels(cache, AMD64)
	for _, k := range all {
		if k.Release == "bookworm" {
			return k, k.Err
		}
	}
	return all[0], all[0].Err
}

func kernel(dir, release string) Kernel {
	k := Kernel{Release: release}
	found, err := filepath.Glob(filepath.Join(dir, release, "boot/vmlinuz-*"))
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("find the kernel of %s below %s: %w; scripts/fetch-kernel brings it", release, dir, fs.ErrNotExist)
		if why, e := os.ReadFile(filepath.Join(dir, release+".missing")); e == nil {
			err = fmt.Errorf("scripts/fetch-kernel: %s", strings.TrimSpace(string(why)))
		}
	}
	if err != nil {
		k.Err = err
		return k
	}
	k.Image = found[0]
	k.Version = strings.TrimPrefix(filepath.Base(k.Image), "vmlinuz-")
	k.Modules = filepath.Join(dir, release, "lib/modules", k.Version)
	return k
}

// A FeatureError says what a kernel does not have. It is [errors.ErrUnsupported].
type FeatureError struct{ Kernel, Feature string }

func (e *FeatureError) Error() string { return fmt.Sprintf("Linux %s has no %s", e.Kernel, e.Feature) }

// Unwrap makes it one of the kind that it is.
func (e *FeatureError) Unwrap() error { return errors.ErrUnsupported }

// Cgroups says whether the machine can have control groups of a version: the memory
// and the cpuset controllers of v1 are an option since 6.11 and 6.12, and Debian
// does not choose them.
func (k Kernel) Cgroups(version string) error {
	if version != "v1" && version != "hybrid" {
		return nil
	}
	for _, option := range []string{"MEMCG_V1", "CPUSETS_V1"} {
		if k.lacks(option) {
			return &FeatureError{k.Version, "cgroup v1 with memory and cpuset (CONFIG_" + option + ")"}
		}
	}
	return nil
}

// lacks reports whether the kernel was configured without an option that it knows.
func (k Kernel) lacks(option string) bool {
	for _, name := range []string{filepath.Join(filepath.Dir(k.Image), "config-"+k.Version), filepath.Join(k.Modules, "config")} {
		if config, err := os.ReadFile(name); err == nil {
			return regexp.MustCompile(`(?m)^# CONFIG_` + option + ` is not set$`).Match(config)
		}
	}
	// Those since 6.12 whose configuration is not there are Debian's, too.
	var major, minor int
	_, err := fmt.Sscanf(k.Version, "%d.%d", &major, &minor)
	return err == nil && (major > 6 || major == 6 && minor >= 12)
}

// Busybox is a static one: PAZINIT_BUSYBOX, or that of scripts/fetch-kernel.
func Busybox(cache string, arch Arch) string {
	if name := os.Getenv("PAZINIT_BUSYBOX"); name != "" && arch.Name == AMD64.Name {
		return name
	}
	return filepath.Join(cache, arch.Name, "busybox/bin/busybox")
}
