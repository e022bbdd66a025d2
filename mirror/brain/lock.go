package brain

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrLocked is wrapped by errors about the lock of option -l, on either side: another sync of the user has it. Trying later
// helps.
var ErrLocked = errors.New("another sync of this user is running")

// lock takes the lock that the master asked for, if it is this side's turn, and returns how to give it back.
func (r *round) lock(ctx context.Context) (unlock func(), err error) {
	if r.h.LockTimeout == 0 || r.Lock == nil || !r.locksHere() {
		return func() {}, nil
	}
	release, err := r.Lock(ctx, time.Duration(r.h.LockTimeout)*time.Second)
	if err != nil {
		return nil, err
	}
	return func() {
		if err := release(); err != nil {
			r.Logger.Warn("giving the lock back", "err", err)
		}
	}, nil
}

// locksHere reports which side takes the lock: the one whose host name is the smaller string, the master if they are equal
// (dovecot 2.3 dsync-brain.c: dsync_brain_lock).
func (r *round) locksHere() bool {
	order := strings.Compare(r.Hostname, r.peer.Hostname)
	return order < 0 || order == 0 && r.master
}

// lockedThere says what it means that a stock slave gave up before it told its tree, although it had a lock to take: that
// is the first thing it does.
func (r *round) lockedThere(err error) error {
	if r.stock == nil || r.h.LockTimeout == 0 || r.locksHere() || !errors.Is(err, ErrGaveUp) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrLocked, err)
}

// mailErrorInUse is how a finish item says that the slave did not get the lock (dovecot 2.3 mail-error.h: MAIL_ERROR_INUSE).
const mailErrorInUse = 10
