//go:build !amd64

package machine

import (
	"errors"
	"fmt"
)

func out(port uint16, _ byte) error {
	return fmt.Errorf("I/O port %#x: %w", port, errors.ErrUnsupported)
}
