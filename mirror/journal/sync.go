package journal

import (
	"context"
	"fmt"
)

// Sync makes all records up to number seq durable. Callers at the same time share one fdatasync: while one of them is in it,
// the others wait, and then one of those syncs for all of them. ErrUnknown if seq was not given out yet.
//
// Once a sync has failed, the journal takes no more records: Linux forgets which pages were not written, so that a second
// attempt would succeed without writing them. A new Open finds out what is there.
func (j *Journal) Sync(ctx context.Context, seq uint64) error {
	for {
		done, err := j.syncOnce(seq)
		if done == nil {
			if err != nil {
				return fmt.Errorf("sync journal to %d: %w", seq, err)
			}
			return nil
		}
		select {
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// syncOnce returns a channel if another caller is in fdatasync, which closes when that one is done.
func (j *Journal) syncOnce(seq uint64) (wait <-chan struct{}, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case seq <= j.durable:
		return nil, nil
	case j.closed:
		return nil, ErrClosed
	case j.failed != nil:
		return nil, j.failed
	case seq > j.last():
		return nil, ErrUnknown
	case j.syncing:
		return j.synced, nil
	}
	target, file := j.last(), j.active
	j.syncing = true
	j.mu.Unlock()
	err = file.Sync()
	j.mu.Lock()
	j.syncing = false
	close(j.synced)
	j.synced = make(chan struct{})
	// A rotation or Close in the meantime has synced the file, and closed it, so that our error means nothing.
	if target <= j.durable {
		return nil, nil
	}
	if err != nil {
		j.failed = err
		return nil, err
	}
	j.durable = target
	return nil, nil
}
