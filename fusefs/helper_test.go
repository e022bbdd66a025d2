package fusefs_test

import (
	"fmt"
	"os"
	"path/filepath"
)

// helpers are what tests let another process do.
var helpers = map[string]func(args []string) error{
	"deliver": helpDeliver,
}

// helpDeliver delivers mails: root, number, "rename" or "link".
func helpDeliver(args []string) error {
	root, n, how := args[0], atoi(args[1]), args[2]
	for i := range n {
		name := fmt.Sprintf("%d.M%dP%d.host", 1700000000+i, i, os.Getpid())
		tmp, dest := filepath.Join(root, "tmp", name), filepath.Join(root, "new", name)
		if err := os.WriteFile(tmp, fmt.Appendf(nil, "Subject: %d\n\nbody\n", i), 0o600); err != nil {
			return err
		}
		if how == "rename" {
			if err := os.Rename(tmp, dest); err != nil {
				return err
			}
			continue
		}
		if err := os.Link(tmp, dest); err != nil {
			return err
		}
		if err := os.Remove(tmp); err != nil {
			return err
		}
	}
	return nil
}
