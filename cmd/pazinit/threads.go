package main

import (
	"runtime"
	"sync"
)

// spareThreads has the runtime make n threads that it keeps and hands out
// later. When the machine or the container has no process number left, Go ends
// the program for want of a thread; a fork bomb must not end PID 1.
func spareThreads(n int) {
	var all, out sync.WaitGroup
	all.Add(n)
	for range n {
		out.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait() // none gives its thread back before each has one
		})
	}
	out.Wait()
}
