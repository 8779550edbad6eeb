package reaper

import "golang.org/x/sys/unix"

// A fork copies the table of descriptors, and with 4,000 open ones that is two
// thirds of a start. So the child shares the table at first and then copies its
// low end alone (CLOSE_RANGE_UNSHARE, Linux 5.9): what it needs from above is
// lent a low number before. It also keeps a child that hangs before its exec
// from holding the other end of everybody's pipes.

// A place is three low descriptors of ours, for the 0, 1 and 2 of one child.
// They stand for null while they are free.
type place [3]int

// scarce is a limit of open files under which all are left to the workers.
const scarce = 128

// makePlaces reserves the low numbers. Without them forks copy the whole table.
func (r *Reaper) makePlaces() {
	r.low = r.null
	for _, fd := range r.std {
		r.low = max(r.low, fd)
	}
	defer func() { r.low++ }()
	places := maxSpawners
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && limit.Cur < scarce {
		places = 0
	}
	for range places {
		p := new(place)
		for i := range p {
			fd, err := unix.FcntlInt(uintptr(r.null), unix.F_DUPFD_CLOEXEC, 3)
			if err != nil {
				for _, fd := range p[:i] {
					unix.Close(fd)
				}
				return
			}
			p[i] = fd
			r.low = max(r.low, fd)
		}
		r.places = append(r.places, p)
	}
}

// lend gives the descriptors above the low end a place there, if there is one,
// and says so in f. The caller hands f to takeBack after the fork.
func (r *Reaper) lend(f *flight, files *[3]int) {
	if !r.shares {
		return
	}
	if files[0] < r.low && files[1] < r.low && files[2] < r.low {
		f.share = true
		return
	}
	r.mu.Lock()
	if n := len(r.places); n > 0 {
		f.place, r.places = r.places[n-1], r.places[:n-1]
	}
	r.mu.Unlock()
	if f.place == nil {
		return // the others hang
	}
	moved := *files
	for i, fd := range files {
		if fd < r.low {
			continue
		}
		if unix.Dup3(fd, f.place[i], unix.O_CLOEXEC) != nil {
			return // the child will say why
		}
		moved[i] = f.place[i]
	}
	*files, f.share = moved, true
}

// takeBack frees the place of f. Called with mu held.
func (r *Reaper) takeBack(f *flight) {
	if f == nil || f.place == nil {
		return
	}
	for _, fd := range f.place {
		_ = unix.Dup3(r.null, fd, unix.O_CLOEXEC)
	}
	r.places = append(r.places, f.place)
	f.place = nil
}
