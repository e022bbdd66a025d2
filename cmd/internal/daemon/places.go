package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/fusefs"
)

// Recover removes a mount of ours whose daemon died, and reports whether there was one: it may cover the Maildir that is to
// be opened. Another dead file system is left to its owner.
func Recover(cfg *config.Config, mountpoint string) (found bool, err error) {
	if err := unstick(cfg, mountpoint); err != nil {
		return false, fmt.Errorf("mount point %s: its daemon was killed and does not end: %w", mountpoint, err)
	}
	if !fusefs.Dead(mountpoint) {
		return false, nil
	}
	if err := fusefs.UnmountPath(mountpoint, true); err != nil {
		return true, fmt.Errorf("mount point %s: a dead mount is there and cannot be removed (run: fusermount3 -uz %s): %w", mountpoint, mountpoint, err)
	}
	return true, nil
}

// Mounted reports whether a FUSE file system is at a path.
func Mounted(path string) bool {
	d, err := os.Open(path)
	if err != nil {
		return false
	}
	defer d.Close()
	return isMount(d)
}

// Check refuses a mount point that cannot work, before anything is made.
func Check(o Options) error {
	if err := checkMountpoint(o); err != nil {
		return fmt.Errorf("mount point %s: %w", o.Mountpoint, err)
	}
	point, backing := config.Canonical(o.Mountpoint), config.Canonical(o.Local.Path)
	apart := func(what, path string) error {
		path = config.Canonical(path)
		switch {
		case config.Within(path, point):
			return fmt.Errorf("mount point %s: %s is inside it and would be hidden: %w", o.Mountpoint, what, fusefs.ErrMountpoint)
		case config.Within(point, path):
			return fmt.Errorf("mount point %s: it is inside %s, which would contain itself: %w", o.Mountpoint, what, fusefs.ErrMountpoint)
		}
		return nil
	}
	if point != backing && !samePath(point, backing) {
		if err := apart("mail_location maildir:"+o.Local.Path, backing); err != nil {
			return err
		}
	}
	if o.RemotePath != "" {
		if err := apart("maildir:"+o.RemotePath, o.RemotePath); err != nil {
			return err
		}
	}
	return apart("state_dir "+o.Config.StateDir, o.Config.StateDir)
}

func checkMountpoint(o Options) error {
	d, err := os.Open(o.Mountpoint)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is no such directory; make it first: %w", fusefs.ErrMountpoint)
	case errors.Is(err, os.ErrPermission):
		return nil // fusefs says what is wrong, or root may mount all the same
	case err != nil:
		return fmt.Errorf("%w: %w", fusefs.ErrMountpoint, err)
	}
	defer d.Close()
	info, err := d.Stat()
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("not a directory: %w", fusefs.ErrMountpoint)
	}
	if samePath(o.Mountpoint, o.Local.Path) {
		return nil
	}
	if isMount(d) {
		return nil // fusefs says what is mounted there
	}
	if _, err := d.Readdirnames(1); !errors.Is(err, io.EOF) {
		return fmt.Errorf("not empty: %w", fusefs.ErrMountpoint)
	}
	return nil
}

// isMount reports whether a directory is the root of a FUSE file system.
func isMount(d *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(d.Fd()), &st) == nil && st.Type == unix.FUSE_SUPER_MAGIC
}

func samePath(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
