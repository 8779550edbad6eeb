package control

import "slices"

// Access says who, besides root and the supervisor's own user, may use a verb.
// Its keys are [Request.AccessKey]s.
type Access map[string][]Principal

// A Principal is a user or a group, by number.
type Principal struct {
	Group bool // ID is a gid
	ID    uint32
}

// Allowed reports whether p may do what key names ([Request.AccessKey]). Root
// and the supervisor's own user may do all, which holds for the FIFO too, as
// only they can write to it; others what any of the levels (the whole
// configuration, the application, the worker) gives them.
//
// Being allowed to add a worker is not being allowed to choose whom it runs as:
// the caller has to see to it that it runs as p and nobody else.
func Allowed(key string, p Peer, ownUID uint32, levels ...Access) bool {
	if p.UID == 0 || p.UID == ownUID {
		return true
	}
	for _, level := range levels {
		for _, who := range level[key] {
			switch {
			case !who.Group && who.ID == p.UID,
				who.Group && (who.ID == p.GID || slices.Contains(p.Groups, who.ID)):
				return true
			}
		}
	}
	return false
}
