//go:build nobpf

package ebpf

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Load sends that this program was built without it.
func Load(socket, _ int) error {
	err := errors.New("this pazinit was built without BPF (-tags nobpf)")
	if sent := unix.Sendmsg(socket, []byte(lineError+err.Error()+"\n"), nil, nil, 0); sent != nil {
		return fmt.Errorf("answer: %w", sent)
	}
	return err
}
