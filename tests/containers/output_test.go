package containers

import (
	"testing"

	"github.com/pazinit/pazinit/tests/bundle"
)

// TestStdout: a worker that is another user opens /dev/stdout and /dev/stderr
// itself.
func TestStdout(t *testing.T) {
	each(t, only{root: "busybox", places: []string{"default", "read-only", "below-tini", "tty"}}, func(t *testing.T, e engine, r root, p bundle.Place) {
		files := config("web: echo opened >/dev/stdout; echo erred >/dev/stderr; exec helper sleep\n", "    workers: {web: {user: 1000}}\n")
		c := e.start(t, p, spec(e, r, p, files, "pazinit"))
		c.until("| opened", 1)
		c.until("| erred", 1)
		c.stop()
		c.want(0)
	})
}
