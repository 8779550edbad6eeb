package machine

import "path/filepath"

// ParentsFirst returns the list as it is, but that what lies below a mount point
// comes after what is mounted there, which would hide it. Several mounts on one
// target keep their order.
func ParentsFirst(list []Mount) []Mount {
	at := make(map[string][]int)
	for i, m := range list {
		target := filepath.Clean(m.Target)
		at[target] = append(at[target], i)
	}
	out := make([]Mount, 0, len(list))
	done := make(map[string]bool)
	var put func(target string)
	put = func(target string) { // as deep as a path at most
		if done[target] {
			return
		}
		done[target] = true
		if above := filepath.Dir(target); above != target {
			put(above)
		}
		for _, i := range at[target] {
			out = append(out, list[i])
		}
	}
	for _, m := range list {
		put(filepath.Clean(m.Target))
	}
	return out
}
