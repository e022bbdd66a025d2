package endpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/mirror/index"
	"dsyncfs/mirror/store"
)

// sharedIndex is the index of a store, open for as long as somebody of this process uses it. Other processes wait for it, so
// it is let go of between rounds.
type sharedIndex struct {
	path string
	sem  chan struct{} // guards what follows; held while the index is opened
	cat  store.Catalog // nil: not open
	refs int
}

func newSharedIndex(path string) *sharedIndex {
	return &sharedIndex{path: path, sem: make(chan struct{}, 1)}
}

// lockSlice is how long to wait for another process before the context is looked at again.
const lockSlice = 100 * time.Millisecond

// acquire opens the index or joins those who have it open. Another process may have it for as long as the lock timeout.
func (x *sharedIndex) acquire(ctx context.Context, l *Local) (store.Catalog, error) {
	select {
	case x.sem <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-x.sem }()
	if x.refs == 0 {
		if err := config.MakePrivate(l.cfg.StateDir); err != nil {
			return nil, err
		}
		cat, err := openIndex(ctx, x.path, l)
		if err != nil {
			return nil, fmt.Errorf("index of %s: %w", l.Path, err)
		}
		x.cat = cat
	}
	x.refs++
	return x.cat, nil
}

func openIndex(ctx context.Context, path string, l *Local) (store.Catalog, error) {
	deadline := time.Now().Add(l.cfg.LockTimeout)
	for {
		left := time.Until(deadline)
		cat, err := index.Open(path, index.Options{Timeout: max(0, min(left, lockSlice)), Logger: l.log})
		switch {
		case err == nil:
			return cat, nil
		case ctx.Err() != nil:
			return nil, errors.Join(context.Cause(ctx), err)
		case !errors.Is(err, index.ErrInUse) || left <= lockSlice:
			return nil, err
		}
	}
}

// release closes the index after the last of those who have it. With forget an index that knows nothing is removed: it was
// made by an attempt that came to nothing. Its lock file stays, as somebody may be waiting for it.
func (x *sharedIndex) release(forget bool) error {
	x.sem <- struct{}{} // nobody waits for another process while the index is open
	defer func() { <-x.sem }()
	if x.refs--; x.refs > 0 {
		return nil
	}
	var err error
	if forget && isEmpty(x.cat) {
		err = os.Remove(x.path)
	}
	return errors.Join(err, x.cat.Close())
}

func isEmpty(cat store.Catalog) bool {
	empty := true
	err := cat.View(func(tx store.CatalogTx) error {
		for _, err := range tx.Mailboxes() {
			empty = false
			return err
		}
		return nil
	})
	return err == nil && empty
}
