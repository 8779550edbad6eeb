package machine

import (
	"path/filepath"
	"slices"
	"strings"
)

// SplitNetwork parts what can be mounted at once from what has to wait for the
// network: a mount that needs it itself (see [Mount.Network]), and every other one
// that lies on such a one: with its target, or with what it binds, makes a loop
// device of, or has as a layer of an overlay. Both keep their order. The root is
// there already, whatever it comes over.
func SplitNetwork(list []Mount) (local, over []Mount) {
	late := make([]bool, len(list))
	for again := true; again; { // a later row may be one that an earlier one needs
		again = false
		for i, m := range list {
			if !late[i] && filepath.Clean(m.Target) != "/" && (m.Network() || slices.ContainsFunc(m.paths(), func(path string) bool { return onLate(path, list, late) })) {
				late[i], again = true, true
			}
		}
	}
	for i, m := range list {
		if late[i] {
			over = append(over, m)
		} else {
			local = append(local, m)
		}
	}
	return local, over
}

// paths are where a mount touches what may be mounted itself.
func (m Mount) paths() []string {
	paths := []string{m.Target}
	if strings.HasPrefix(m.Source, "/") {
		paths = append(paths, m.Source)
	}
	for _, word := range splitOptions(strings.Join(m.Options, ",")) {
		switch k, v, _ := strings.Cut(word, "="); k {
		case "lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir":
			paths = append(paths, strings.Split(v, ":")...)
		}
	}
	return paths
}

// onLate reports whether path is at or below the target of a mount that is late.
func onLate(path string, list []Mount, late []bool) bool {
	path = filepath.Clean(path)
	for i, m := range list {
		if target := filepath.Clean(m.Target); late[i] && (path == target || liesBelow(path, []string{target}) != "") {
			return true
		}
	}
	return false
}

// SwapNeedsNetwork reports whether a swap, as [SwapOn] takes it, has the option
// _netdev, or is a file on one of the mounts that wait for the network.
func SwapNeedsNetwork(spec string, over []Mount) bool {
	fields := strings.Fields(spec)
	if len(fields) == 0 {
		return false
	}
	file := filepath.Clean(unescape(fields[0]))
	return len(fields) == 2 && slices.Contains(splitOptions(fields[1]), "_netdev") ||
		slices.ContainsFunc(over, func(m Mount) bool { return liesBelow(file, []string{m.Target}) != "" })
}
