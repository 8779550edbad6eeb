// Command library is a program that has workers of its own: three trainers,
// without any file. It says what became of them when its context ended.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	pazinit "github.com/pazinit/pazinit/init"
)

// output counts the lines that came.
type output struct{ lines chan string }

func (o output) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		o.lines <- strings.TrimSpace(line)
	}
	return len(p), nil
}

func main() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR2) // os/signal keeps one goroutine for good
	before := runtime.NumGoroutine()
	out := output{make(chan string, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	s, err := pazinit.New(pazinit.Options{LogWriter: io.Discard})
	check(err)
	w, err := pazinit.NewWorker("trainer", os.Args[1]+" double-fork")
	check(err)
	w.NumInstances, w.Stdout = 3, out
	check(s.Add(w))
	ended := make(chan int)
	go func() {
		code, err := s.Run(ctx)
		check(err)
		ended <- code
	}()
	var pids []int
	for range 3 {
		var pid int
		_, err := fmt.Sscanf(<-out.lines, "grandchild %d", &pid)
		check(err)
		pids = append(pids, pid)
	}
	for events := s.Events(0); len(pids) < 6; {
		e, _, err := events.Next(ctx)
		check(err)
		if e.To == "RUNNING" {
			pids = append(pids, e.PID)
		}
	}
	cancel()
	fmt.Println("code", <-ended)
	left := 0
	for _, pid := range pids {
		if pid == 0 || syscall.Kill(pid, 0) == nil {
			left++
		}
	}
	fmt.Println("processes", len(pids), "left", left)
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("goroutines", runtime.NumGoroutine()-before)
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
