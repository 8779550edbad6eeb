// Command goref is the reference loop in plain Go: what a supervisor costs that
// does the least and uses nothing but the standard library.
//
//	goref loop N CMD...   keeps N of CMD running until TERM
//	goref exec CMD...     runs CMD, hands signals on, ends as it does
package main

import (
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
)

func main() {
	if len(os.Args) < 3 {
		os.Exit(2)
	}
	if os.Args[1] == "exec" {
		execMode(os.Args[2:])
	}
	n, _ := strconv.Atoi(os.Args[2])
	loop(n, os.Args[3:])
}

func spawn(argv []string) int {
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		os.Exit(111)
	}
	return pid
}

func loop(n int, argv []string) {
	var mu sync.Mutex
	stopping := false
	pids := make(map[int]bool, n)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		<-term
		mu.Lock()
		defer mu.Unlock()
		stopping = true
		for pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	}()
	start := func() {
		mu.Lock()
		defer mu.Unlock()
		if !stopping {
			pids[spawn(argv)] = true
		}
	}
	for range n {
		start()
	}
	for {
		pid, err := syscall.Wait4(-1, nil, 0, nil)
		if err == syscall.ECHILD {
			return
		}
		if err != nil {
			continue
		}
		mu.Lock()
		ours := pids[pid]
		delete(pids, pid)
		mu.Unlock()
		if ours {
			start()
		}
	}
}

func execMode(argv []string) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals)
	pid := spawn(argv)
	for sig := range signals {
		if sig == syscall.SIGURG {
			continue
		}
		if sig != syscall.SIGCHLD {
			_ = syscall.Kill(pid, sig.(syscall.Signal))
			continue
		}
		for {
			var ws syscall.WaitStatus
			p, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
			if p <= 0 || err != nil {
				break
			}
			if p == pid {
				os.Exit(ws.ExitStatus())
			}
		}
	}
}
