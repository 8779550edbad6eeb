package main

import "github.com/pazinit/pazinit/procfile"

// network is what workers with wait_for: network wait for.
type network struct {
	up chan struct{} // closed when it is there
}

// conditions are those of wait_for; nil: all hold.
func (h *host) conditions() map[string]<-chan struct{} {
	if h == nil || len(h.cfg.Machine.Network) == 0 && len(h.line.IP) == 0 {
		return nil
	}
	return map[string]<-chan struct{}{"network": h.up.up}
}

// load reads the whole configuration, and adds what this program itself runs on a
// machine.
func (h *host) load() (*procfile.Config, error) {
	cfg, err := procfile.Load(h.opts)
	if err != nil {
		return nil, err
	}
	if len(cfg.Applications) == 0 {
		return nil, procfile.Errors{{What: "the configuration has no application"}}
	}
	return cfg, nil
}
