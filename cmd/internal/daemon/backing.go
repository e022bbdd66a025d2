package daemon

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"

	"dsyncfs/cmd/internal/watch"
)

// watchBacking notices what others do to the backing directory behind the mount. Where it cannot be watched, the periodic
// full sync finds it.
func (m *mounted) watchBacking(ctx context.Context) error {
	// The path may be covered by the mount; the descriptor leads below it.
	root := fmt.Sprintf("/proc/self/fd/%d", m.backing.Fd())
	w, err := watch.Maildir(ctx, root, m.o.Logger, func(dir, name string) { m.changedBehind(root, dir, name) }, m.o.Local.Memory)
	if err != nil {
		m.o.Logger.Warn("the backing directory is only looked at periodically", "err", err)
		return nil
	}
	defer w.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.Changes:
			m.engine.Notify()
		}
	}
}

// changedBehind makes the mount show what was changed behind it; see watch.Seen.
func (m *mounted) changedBehind(root, dir, name string) {
	switch {
	case name != "":
		m.fuse.Invalidate(dir, name)
	case dir != "":
		m.fuse.Invalidate(dir)
	default:
		m.invalidateAll(root)
	}
}

// invalidateAll makes the mount look at every directory again.
func (m *mounted) invalidateAll(root string) {
	_ = filepath.WalkDir(root+"/.", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil // it went away meanwhile, which its directory shows
		}
		if dir, err := filepath.Rel(root, path); err == nil && dir != "." {
			m.fuse.Invalidate(dir)
		} else {
			m.fuse.Invalidate("")
		}
		if name := e.Name(); name == "cur" || name == "new" || name == "tmp" {
			return filepath.SkipDir
		}
		return nil
	})
}
