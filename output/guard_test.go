package output

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestPanics: a panic costs what was being read or written, and nothing that
// comes after it: no stream, file, console or flush is stuck.
func TestPanics(t *testing.T) {
	for _, place := range []string{"loop", "turn", "console", "file"} {
		t.Run(place, func(t *testing.T) {
			var on atomic.Bool
			var count, told atomic.Int64
			on.Store(true)
			h, console := newHub(t, Options{
				RingSize: 1 << 20,
				faults: func(at string) {
					if at == place && on.Load() && (count.Load() == 0 || rand.IntN(3) == 0) {
						count.Add(1)
						panic("a fault at " + at)
					}
				},
				Panicked: func(where string, v any) {
					told.Add(1)
					if s := fmt.Sprint(v); s != "a fault at "+place {
						t.Errorf("panic in %s: %s", where, s)
					}
				},
			})
			path := filepath.Join(t.TempDir(), "log")
			var sources []*Source
			for i := range 5 {
				cfg := Config{Name: fmt.Sprintf("shop:web.%d", i+1)}
				if i%2 == 1 {
					cfg.Stdout = Target{Kind: "file", Path: path}
				}
				sources = append(sources, newSource(t, h, cfg))
			}
			var work sync.WaitGroup
			for _, src := range sources {
				out, errs := src.Files()
				work.Go(func() {
					for i := range 200 {
						_ = sayAll(out, []byte(fmt.Sprintf("line %d\n", i)))
						_ = sayAll(errs, []byte(fmt.Sprintf("error %d\nhalf", i)))
						src.Say("info", "said")
						if i%50 == 0 {
							await(t, "flush", src.Flush())
							h.Log("info", "own")
							_ = h.Reopen(time.Now().Add(patience))
						}
					}
				})
			}
			work.Wait()
			for end := time.Now().Add(patience); count.Load() == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
				h.Log("info", "more") // the console may not have had its turn yet
			}
			on.Store(false)
			for _, src := range sources {
				out, errs := src.Files()
				say(t, out, "\nlast of stdout\n")
				say(t, errs, "\nlast of stderr\n")
				src.Say("info", "last said")
				await(t, "flush", src.Flush())
				await(t, "flush", src.Flush())
				var text strings.Builder
				for _, l := range src.Tail(Query{Lines: -1}) {
					text.Write(l.Bytes)
					text.WriteByte('\n')
				}
				for _, want := range []string{"last of stdout", "last of stderr", "last said"} {
					if !strings.Contains(text.String(), want) {
						t.Errorf("%s: %q is not in %q", src.Name(), want, text.String())
					}
				}
			}
			h.Log("info", "the end")
			closeHub(t, h)
			if text := read(t, console); !strings.Contains(text, "the end\n") || strings.Count(text, "last of stdout") != 3 || strings.Count(text, "last of stderr") != 5 {
				t.Errorf("console ends with %q", text[max(0, len(text)-500):])
			}
			if n := strings.Count(read(t, path), "last of stdout"); n != 2 {
				t.Errorf("%d last lines in the file, want 2", n)
			}
			if count.Load() == 0 || count.Load() != told.Load() {
				t.Errorf("%d panics, %d told", count.Load(), told.Load())
			}
		})
	}
}
