package bundle

// A Place is a kind of container that pazinit must work in.
type Place struct {
	Name string
	Set  func(*Spec) // makes it of another container
	// NoStdin: the container is to be started with its standard input closed.
	// ByUser: by the user and group Nobody, without any privilege.
	NoStdin, ByUser bool
}

// Nobody is an ordinary user that every host has.
const Nobody = 65534

// Places are all of them. Where the host is cgroup v2, "v1" is v2 as well.
func Places(tini string) []Place {
	return []Place{
		{Name: "default", Set: func(*Spec) {}},
		{Name: "cap-drop-all", Set: func(s *Spec) { s.Caps = []string{} }},
		{Name: "user", Set: func(s *Spec) { s.UID, s.GID = 1000, 1000 }},
		{Name: "read-only", Set: func(s *Spec) { s.ReadOnly = true }},
		{Name: "hardened", Set: func(s *Spec) { // as a careful pod
			s.ReadOnly, s.UID, s.GID, s.Caps, s.NoNewPrivs = true, 1000, 1000, []string{}, true
		}},
		{Name: "noexec", Set: func(s *Spec) { s.ReadOnly, s.Noexec = true, []string{"/run", "/tmp"} }},
		{Name: "userns", Set: func(s *Spec) { s.Users = []UserMap{{0, 100000, 65536}} }},
		{Name: "rootless", ByUser: true, Set: func(s *Spec) { s.Users = []UserMap{{0, Nobody, 1}} }},
		{Name: "host-pid", Set: func(s *Spec) { s.HostPID = true }},
		{Name: "below-tini", Set: func(s *Spec) {
			s.Files["/bin/tini-static"] = File{From: tini}
			s.Parent = []string{"tini-static", "--"}
		}},
		{Name: "limits", Set: func(s *Spec) { s.NoFile, s.Memory, s.PIDs = 64, 8<<20, 32 }},
		{Name: "tty", Set: func(s *Spec) { s.Terminal = true }},
		{Name: "no-stdin", NoStdin: true, Set: func(*Spec) {}},
		{Name: "cgroup-absent", Set: func(s *Spec) { s.Cgroups = CgroupsAbsent }},
		{Name: "cgroup-v1", Set: func(s *Spec) { s.Cgroups = CgroupsWritable }},
		{Name: "cgroup-v2", Set: func(s *Spec) { s.Cgroups = Cgroups2 }},
	}
}
