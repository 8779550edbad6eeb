package containers

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/pazinit/pazinit/tests/bundle"
)

// a diagnosis is what doctor says, as far as a container's settings tell what it
// must be.
type diagnosis struct {
	Place struct {
		Text    string
		PID1    bool
		Initial bool `json:"initial_pid_ns"`
		Entered bool
	}
	Process    struct{ Parent string }
	Namespaces struct{ PID, User, UTS, IPC, Net, Cgroup string }
	User       struct {
		UID, GID   int
		Name       string
		NoNewPrivs bool      `json:"no_new_privs"`
		UIDMap     []idRange `json:"uid_map"`
		GIDMap     []idRange `json:"gid_map"`
	}
	Capabilities struct{ Effective, Bounding, Ambient []string }
	Limits       struct {
		NoFile struct{ Soft, Hard int }
		PIDs   struct{ Max int64 } `json:"cgroup_pids"`
		Memory struct{ Max int64 } `json:"cgroup_memory"`
	}
	Paths []struct {
		Path             string
		Writable, NoExec bool
	}
	Socket struct {
		Path            string
		Usable, Answers bool
	}
	Supervisor *struct{ PID int }
	Cgroups    struct {
		Mount        string
		MountVersion int  `json:"mount_version"`
		ReadOnly     bool `json:"read_only"`
		Usable       bool
	}
	Stdio    []struct{ Kind string }
	Terminal struct{ Controlling bool }
}

type idRange struct{ Inside, Outside, Count int }

// facts are comparable.
func (d diagnosis) facts() map[string]any {
	m := map[string]any{
		"place": d.Place.Text, "pid 1": d.Place.PID1, "initial pid ns": d.Place.Initial, "parent": d.Process.Parent,
		"namespaces": d.Namespaces, "uid": d.User.UID, "gid": d.User.GID, "name": d.User.Name,
		"no_new_privs": d.User.NoNewPrivs, "uid_map": d.User.UIDMap, "gid_map": d.User.GIDMap,
		"effective": sorted(d.Capabilities.Effective), "bounding": sorted(d.Capabilities.Bounding), "ambient": d.Capabilities.Ambient,
		"nofile": d.Limits.NoFile, "socket": d.Socket.Path, "socket usable": d.Socket.Usable,
		"cgroup mounted": d.Cgroups.Mount != "", "cgroup version": d.Cgroups.MountVersion, "cgroups usable": d.Cgroups.Usable,
		"cgroups read-only": d.Cgroups.ReadOnly, "terminal": d.Terminal.Controlling,
	}
	for _, p := range d.Paths {
		m[p.Path] = fmt.Sprintf("writable %v, noexec %v", p.Writable, p.NoExec)
	}
	m["processes"], m["memory"] = d.Limits.PIDs.Max, d.Limits.Memory.Max
	for i, s := range d.Stdio {
		m[fmt.Sprintf("fd %d", i)] = s.Kind
	}
	return m
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

// expected is what doctor must say of a container.
func expected(e engine, s bundle.Spec) map[string]any {
	initial := func(shared bool) string {
		if shared {
			return "initial"
		}
		return "own"
	}
	caps := s.Caps
	if caps == nil {
		caps = bundle.DefaultCaps
	}
	var d diagnosis
	d.Place.Text, d.Place.PID1, d.Place.Initial = place(s), !s.HostPID && s.Parent == nil, s.HostPID
	switch {
	case s.Parent != nil:
		d.Process.Parent = s.Parent[0]
	case s.HostPID:
		d.Process.Parent = e.name
		switch e.name {
		case "podman":
			d.Process.Parent = "conmon"
		case "crun": // it executes a copy of itself
			d.Process.Parent = "memfd:crun_clon"
		}
	}
	d.Namespaces.PID, d.Namespaces.User = initial(s.HostPID), initial(s.Users == nil)
	d.Namespaces.UTS, d.Namespaces.IPC, d.Namespaces.Net = "own", "own", "own"
	d.Namespaces.Cgroup = initial(s.Cgroups != bundle.Cgroups2)
	d.User.UID, d.User.GID, d.User.NoNewPrivs = s.UID, s.GID, s.NoNewPrivs
	d.User.UIDMap = []idRange{{0, 0, 1<<32 - 1}}
	if s.Users != nil {
		d.User.UIDMap = nil
		for _, m := range s.Users {
			d.User.UIDMap = append(d.User.UIDMap, idRange{m.Inside, m.Outside, m.Size})
		}
	}
	d.User.GIDMap = d.User.UIDMap
	d.Capabilities.Bounding, d.Capabilities.Ambient = caps, []string{}
	if s.UID == 0 {
		d.Capabilities.Effective = caps
	}
	d.Limits.NoFile.Soft, d.Limits.NoFile.Hard = 1024, 1024
	if s.NoFile != 0 {
		d.Limits.NoFile.Soft, d.Limits.NoFile.Hard = s.NoFile, s.NoFile
	}
	d.Socket.Path, d.Socket.Usable = "/run/pazinit/pazinit.sock", !s.ReadOnly || s.Noexec != nil
	if s.UID != 0 {
		d.Socket.Path = fmt.Sprintf("/tmp/pazinit-%d/pazinit.sock", s.UID)
	}
	host := 1
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		host = 2
	}
	switch s.Cgroups {
	case bundle.CgroupsReadOnly:
		d.Cgroups.Mount, d.Cgroups.MountVersion, d.Cgroups.ReadOnly = "/", host, true
	case bundle.CgroupsWritable:
		d.Cgroups.Mount, d.Cgroups.MountVersion, d.Cgroups.Usable = "/", host, true
	case bundle.Cgroups2:
		d.Cgroups.Mount, d.Cgroups.MountVersion, d.Cgroups.Usable = "/", 2, true
	case bundle.CgroupsAbsent:
	}
	d.Terminal.Controlling = s.Terminal
	m := d.facts()
	path := func(writable bool) string { return fmt.Sprintf("writable %v, noexec false", writable) }
	owner := !s.ReadOnly && s.UID == 0
	m["/"], m["/run"], m["/tmp"] = path(owner), path(owner), path(!s.ReadOnly)
	if e.name == "podman" { // makes it 0555
		m["/"] = path(owner && slices.Contains(caps, "CAP_DAC_OVERRIDE"))
	}
	for _, at := range s.Noexec {
		m[at] = "writable true, noexec true"
	}
	if m["processes"], m["memory"] = s.PIDs, s.Memory; s.PIDs == 0 { // podman has one by default
		delete(m, "processes")
		delete(m, "memory")
	}
	m["fd 0"], m["fd 1"], m["fd 2"] = "null", "pipe", "pipe"
	switch {
	case s.Terminal:
		m["fd 0"], m["fd 1"], m["fd 2"] = "tty", "tty", "tty"
	case e.name == "runc": // it copies its own
		m["fd 0"] = "pipe"
	}
	return m
}

// TestDoctor: what it says of each place is what the container was made as.
func TestDoctor(t *testing.T) {
	each(t, only{root: "scratch"}, func(t *testing.T, e engine, r root, p bundle.Place) {
		s := spec(e, r, p, nil, "pazinit", "doctor", "--json")
		c := e.start(t, p, s)
		c.want(0)
		var d diagnosis
		c.json(&d)
		got := d.facts()
		for key, want := range expected(e, s) {
			if g, w := fmt.Sprintf("%+v", got[key]), fmt.Sprintf("%+v", want); g != w {
				t.Errorf("%s = %s, want %s", key, g, w)
			}
		}

		// Whoever enters sees the supervisor that is there.
		s = spec(e, r, p, config("web: helper sleep\n", settings), "pazinit")
		if !d.Socket.Usable {
			return
		}
		c = e.start(t, p, s)
		c.until("web.1 is RUNNING", 1)
		inside := c.exec("pazinit", "doctor", "--json")
		inside.want(0)
		inside.json(&d)
		if want := !s.HostPID; !d.Socket.Answers || d.Place.Entered != want || d.Supervisor == nil || !s.HostPID && s.Parent == nil && d.Supervisor.PID != 1 {
			t.Errorf("answers %v, entered %v, supervisor %+v, want an answer, %v and its pid", d.Socket.Answers, d.Place.Entered, d.Supervisor, want)
		}
		c.stop()
		c.want(0)
	})
}
