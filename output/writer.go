package output

import (
	"fmt"
	"io"
	"reflect"
)

// A writerSink hands whole lines to a library user's io.Writer.
type writerSink struct {
	hub     *Hub
	w       io.Writer
	refs    int
	busy    bool
	waiting []*stream
	trouble trouble
}

// attachWriter returns the sink of w: the same for the same writer, so that it
// is called by one goroutine at a time. Hub.mu is held.
func (h *Hub) attachWriter(w io.Writer) *writerSink {
	same := reflect.ValueOf(w).Comparable()
	for _, k := range h.writers {
		if same && k.w == w {
			k.refs++
			return k
		}
	}
	k := &writerSink{hub: h, w: w, refs: 1}
	k.trouble.what, k.trouble.total = "write to io.Writer", &h.lost.writers
	h.writers = append(h.writers, k)
	return k
}

func (k *writerSink) acquire(s *stream) bool {
	if k.busy {
		k.waiting = append(k.waiting, s)
		return false
	}
	k.busy = true
	return true
}

func (k *writerSink) release(*stream) {
	k.busy = false
	k.waiting = k.hub.wakeOne(k.waiting)
}

func (k *writerSink) waits() bool { return true }

func (k *writerSink) detach(*stream) {
	if k.refs--; k.refs > 0 {
		return
	}
	for i, o := range k.hub.writers {
		if o == k {
			k.hub.writers = append(k.hub.writers[:i], k.hub.writers[i+1:]...)
			return
		}
	}
}

func (k *writerSink) write(_ *stream, data []byte, _ int64, _ ending) {
	n, err := k.call(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err != nil {
		k.trouble.fail(k.hub, err, len(data)-min(max(n, 0), len(data)))
	}
}

// call survives a writer that panics: PID 1 may not end by it.
func (k *writerSink) call(data []byte) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return k.w.Write(data)
}
