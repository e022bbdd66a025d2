package maildir

import (
	"errors"
	"fmt"
	"syscall"

	"dsyncfs/mirror/store"
)

// noSpace makes the ways in which a file system says that it is full recognisable to callers.
func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", store.ErrNoSpace, err)
	}
	if errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w: %w", store.ErrReadOnly, err)
	}
	return err
}

// gone makes that a mailbox went away while it was worked on recognisable to callers: the next round sees what became of it.
func gone(err error) error {
	if notExist(err) && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %w", store.ErrNotFound, err)
	}
	return err
}

// ErrLink refuses what would lead out of the Maildir, or is no mail at all. To ignore it could pass for a mail or mailbox
// that is gone.
var ErrLink = errors.New("a symbolic link or special file, which is not followed; put the real thing in its place or remove it")
