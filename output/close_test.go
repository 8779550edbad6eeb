package output

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestCloseOfQueuedStream: a stream that Close finds in the queue gives its file
// back once, and what waits behind it is not forgotten.
func TestCloseOfQueuedStream(t *testing.T) {
	for name, behind := range map[string]func(f *file, s *stream){
		"alone": func(_ *file, s *stream) { s.src.hub.enqueue(s) },
		"the file waits for it": func(f *file, s *stream) {
			s.state, f.self.state = parked, parked
			f.waiting = f.hub.wakeOne([]*stream{s, &f.self})
		},
		"the file waits for its folder": func(f *file, s *stream) {
			s.state, f.self.state = parked, parked
			f.gate.waiting = f.hub.wakeOne([]*stream{s, &f.self})
		},
		"it waits for the folder, the file for it": func(f *file, s *stream) {
			s.state, f.self.state = parked, parked
			f.gate.waiting, f.waiting = []*stream{s}, []*stream{&f.self}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := newHub(t, Options{})
			path := filepath.Join(t.TempDir(), "log")
			src := newSource(t, h, Config{Stdout: Target{Kind: "file", Path: path}})
			if err := h.Reopen(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			h.mu.Lock()
			for h.running > 0 || h.qhead < len(h.queue) || h.files[path].busy {
				h.mu.Unlock()
				time.Sleep(time.Millisecond)
				h.mu.Lock()
			}
			f, s := h.files[path], src.streams[isStdout]
			h.running = maxRunners // nobody takes the queue
			behind(f, s)
			h.mu.Unlock()

			_ = h.Close(time.Now()) // gives up at once

			h.mu.Lock()
			state, refs, closed := s.state, f.refs, h.noFiles
			h.running = 0
			h.startRunner()
			h.mu.Unlock()
			if state != gone || refs != 0 || closed == nil {
				t.Fatalf("after Close: state %d, %d users of the file", state, refs)
			}
			await(t, "the file", closed)
			h.mu.Lock()
			defer h.mu.Unlock()
			if f.refs != 0 || f.fd >= 0 {
				t.Errorf("%d users of the file, descriptor %d, want it closed", f.refs, f.fd)
				_ = os.NewFile(uintptr(f.fd), path).Close()
			}
		})
	}
}
