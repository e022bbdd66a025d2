package endpoint

import (
	"errors"
	"fmt"
	"os"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/mirror/brain"
)

// Spool returns what makes room below a state directory for a large body that comes ahead of its mail: files without a name.
func Spool(stateDir string) func() (brain.Spool, error) {
	return func() (brain.Spool, error) {
		if err := config.MakePrivate(stateDir); err != nil {
			return nil, err
		}
		f, err := os.CreateTemp(stateDir, "spool-*")
		if err != nil {
			return nil, err
		}
		if err := os.Remove(f.Name()); err != nil {
			return nil, fmt.Errorf("spool: %w", errors.Join(err, f.Close()))
		}
		return f, nil
	}
}
