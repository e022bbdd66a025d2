package endpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrClaimed is wrapped when a store is mounted by another process.
var ErrClaimed = errors.New("mounted already")

// maxClaim bounds the text of a claim, in bytes: a process number and a path.
const maxClaim = 64 + unix.PathMax

// Claim makes this process the one that mounts the store, at a mount point: two mounts of one Maildir would each take what goes
// through the other for changes behind its back. It ends with the process, or with release.
func (l *Local) Claim(mountpoint string) (release func() error, err error) {
	path := filepath.Join(filepath.Dir(l.index.path), "mounted")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("maildir:%s: %w", l.Path, readClaim(f))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintf(f, "%d %s", os.Getpid(), mountpoint)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f.Close, nil
}

// readClaim says who has the store.
func readClaim(f *os.File) error {
	text, err := io.ReadAll(io.LimitReader(f, maxClaim))
	pid, point, ok := strings.Cut(string(text), " ")
	if err != nil || !ok {
		return ErrClaimed
	}
	return fmt.Errorf("%w, at %s by process %s (end it with: dsyncfs umount %s)", ErrClaimed, point, pid, point)
}
