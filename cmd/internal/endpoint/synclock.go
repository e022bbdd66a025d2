package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"dsyncfs/mirror/brain"
)

// syncLockName is the file in a user's home that keeps syncs with option -l apart, ours and Dovecot's: whoever has an fcntl
// lock on it works. The holder removes it before it lets go (dovecot 2.3 dsync-brain.c, file-create-locked.c).
const syncLockName = ".dovecot-sync.lock"

// syncLockPoll is how often a held lock is looked at. The call that waits cannot be interrupted by a context.
const syncLockPoll = 20 * time.Millisecond

// SyncLock waits up to wait for the lock in a home directory and returns how to give it back. The error wraps
// brain.ErrLocked if somebody else had it all the time.
func SyncLock(ctx context.Context, home string, wait time.Duration) (unlock func() error, err error) {
	path := filepath.Join(home, syncLockName)
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	tick := time.NewTicker(syncLockPoll)
	defer tick.Stop()
	for {
		f, err := trySyncLock(path)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if f != nil {
			return func() error { return errors.Join(os.Remove(path), f.Close()) }, nil
		}
		select {
		case <-tick.C:
		case <-timeout.C:
			return nil, fmt.Errorf("lock %s: held for %s: %w", path, wait, brain.ErrLocked)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// trySyncLock returns the locked file, or nil if somebody else has it or it is not the one at path any more.
func trySyncLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	// Of the open file, not of the process: two stores of one process exclude each other too.
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	switch err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINTR):
		return nil, f.Close()
	case err != nil:
		return nil, errors.Join(err, f.Close())
	}
	own, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if there, err := os.Stat(path); err != nil || !os.SameFile(own, there) {
		return nil, f.Close() // the holder before removed it
	}
	return f, nil
}
