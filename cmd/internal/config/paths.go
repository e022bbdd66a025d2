package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// makeAbsolute expands "~/" and makes the paths of the settings absolute, as a daemon leaves the directory it was started in.
// Those of a settings file are relative to its directory, those of -o to the working directory.
func (c *Config) makeAbsolute(dir string) error {
	paths := []*string{&c.StateDir, &c.SSHConfig, &c.Identity, &c.KnownHosts}
	for _, p := range paths {
		abs, err := Expand(*p, dir)
		if err != nil {
			return err
		}
		*p = abs
	}
	for name, m := range c.Mirrors {
		var err error
		if m.Mountpoint, err = Expand(m.Mountpoint, dir); err != nil {
			return err
		}
		c.Mirrors[name] = m
	}
	return nil
}

// Expand makes a path absolute: "~/" is the home directory, everything else is relative to dir. An empty one stays.
func Expand(path, dir string) (string, error) {
	if path == "" {
		return "", nil
	}
	if rest, ok := strings.CutPrefix(path, "~/"); ok || path == "~" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("path %q: %w", path, err)
		}
		return filepath.Join(home, rest), nil
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path), nil
	}
	return filepath.Abs(filepath.Join(dir, path))
}

// MakePrivate makes a directory that only its owner may look into, or makes one of ours so. One that belongs to somebody
// else is refused: who can write there decides what we believe of the mail.
func MakePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	// By a descriptor, so that what is checked is what is changed.
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("state directory: %w", &fs.PathError{Op: "open", Path: dir, Err: err})
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("state directory: %w", &fs.PathError{Op: "stat", Path: dir, Err: err})
	}
	if me := unix.Geteuid(); int(st.Uid) != me {
		return fmt.Errorf("state directory %s belongs to user %d and not to %d: %w", dir, st.Uid, me, errNotOurs)
	}
	if st.Mode&0o077 == 0 {
		return nil
	}
	if err := unix.Fchmod(fd, st.Mode&0o7700); err != nil {
		return fmt.Errorf("state directory: %w", &fs.PathError{Op: "chmod", Path: dir, Err: err})
	}
	return nil
}

var errNotOurs = errors.New("set state_dir to a directory of your own")

// Canonical names a path without symbolic links, as far as it exists: what is to be made later, or is covered by a dead mount,
// has the same name then as when it is there. The path is absolute. No file system but those that the path leads through is
// asked: that of a mount point may never answer.
func Canonical(path string) string { return canonical(filepath.Clean(path), maxLinks) }

// maxLinks bounds how many links are followed, as the kernel does (path_resolution(7)).
const maxLinks = 40

func canonical(path string, links int) string {
	dir, base := filepath.Split(path)
	if base == "" || links == 0 {
		return path
	}
	parent := canonical(filepath.Clean(dir), links)
	path = filepath.Join(parent, base)
	target, err := os.Readlink(path)
	if err != nil {
		return path // no link, or nothing
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(parent, target)
	}
	return canonical(filepath.Clean(target), links-1)
}

// Within reports whether a canonical path is that of dir or of something below it.
func Within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
