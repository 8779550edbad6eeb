package pazinit_test

import (
	"bytes"
	"context"
	"fmt"
	"os"

	pazinit "github.com/pazinit/pazinit/init"
)

// until calls enough at the third line that is written to it.
type until struct {
	lines  int
	enough func()
}

func (u *until) Write(p []byte) (int, error) {
	if u.lines += bytes.Count(p, []byte("\n")); u.lines >= 3 {
		u.enough()
	}
	return os.Stdout.Write(p)
}

// Three workers from code, without any file. Their output comes to an io.Writer,
// what happens to them as events; when the context ends nothing of them is left.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	s, err := pazinit.New(pazinit.Options{LogWriter: os.Stderr})
	if err != nil {
		panic(err)
	}
	w, err := pazinit.NewWorker("trainer", "sh -c 'echo trained; exec sleep 1000'")
	if err != nil {
		panic(err)
	}
	w.NumInstances, w.Stdout = 3, &until{enough: cancel}
	if err := s.Add(w); err != nil {
		panic(err)
	}
	events := s.Events(0)
	code, err := s.Run(ctx)
	fmt.Println(code, err)
	first, _, _ := events.Next(context.Background())
	fmt.Println(first.From, first.To)
	// Unordered output:
	// trained
	// trained
	// trained
	// 0 <nil>
	// STOPPED STARTING
}
