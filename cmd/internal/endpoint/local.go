// Package endpoint makes stores and peers of locations: it joins the adapters of mirror/store with their index, and the
// transports of remote with the wire format or with a brain in this process.
//
// Start from [OpenLocal] and [NewRemote]. It is the one place where a location's kind decides which code runs.
//
// Lock order: a Local's turn, which the user of its Store holds, before its index's.
package endpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/watch"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/vfs"
	"dsyncfs/remote"
)

// Local is a mail store on this machine. Directory and index are opened anew for each round, so that other programs of ours
// can use them in between and the directory is the one that is there now.
type Local struct {
	Path   string
	Layout maildir.Layout
	Locks  *maildir.Locks
	Memory *maildir.Memory // counts while the directory is watched
	// Namespace, if set, is the view through which visible changes go; see maildir.Options.
	Namespace vfs.FS

	cfg *config.Config
	log *slog.Logger

	index    *sharedIndex
	watchers sync.WaitGroup
	turn     chan struct{} // held by the user of the store; guards what follows
	pinned   vfs.FS        // instead of opening Path
	known    bool          // mail was there in an earlier run or round
	create   bool
}

// ErrNotYet is what formats answer that a later version will know.
var ErrNotYet = errors.New("not supported yet")

// OpenLocal prepares the store at a location. mayCreate allows to make a Maildir where nothing is, unless one was known there
// before: then its disk is away.
func OpenLocal(cfg *config.Config, loc remote.Location, mayCreate bool, log *slog.Logger) (*Local, error) {
	if err := supported(loc); err != nil {
		return nil, err
	}
	l := &Local{
		Path: loc.Path, cfg: cfg, log: log, turn: make(chan struct{}, 1),
		Locks: maildir.NewLocks(maildir.LockOptions{Timeout: cfg.LockTimeout, Logger: log}), Memory: maildir.NewMemory(),
	}
	if loc.Layout == "fs" {
		l.Layout = maildir.FS
	}
	canonical := l.Canonical()
	if config.Within(config.Canonical(cfg.StateDir), canonical) {
		return nil, fmt.Errorf("setting state_dir=%s: it is inside maildir:%s; set it to a directory elsewhere", cfg.StateDir, l.Path)
	}
	indexPath := filepath.Join(StatePath(cfg.StateDir, "stores", canonical), "index.db")
	l.index = newSharedIndex(indexPath)
	_, err := os.Stat(indexPath)
	l.known = err == nil
	l.create = mayCreate && !l.known
	return l, l.check()
}

func supported(loc remote.Location) error {
	switch loc.Kind {
	case remote.KindMaildir:
	case remote.KindMbox, remote.KindSdbox, remote.KindMdbox:
		return fmt.Errorf("%s: %s locations are %w; convert it to maildir: first", loc, loc.Kind, ErrNotYet)
	default:
		return fmt.Errorf("%s: not a mail store on this machine", loc)
	}
	if loc.Inbox != "" {
		return fmt.Errorf("%s: INBOX= is %w", loc, ErrNotYet)
	}
	return nil
}

// Apart returns an error if two mail stores are one, or one is inside the other: a mirror of those would never end.
func Apart(here, there remote.Location) error {
	if here.Path == "" || there.Path == "" {
		return nil
	}
	a, b := config.Canonical(here.Path), config.Canonical(there.Path)
	switch {
	case a == b, sameFile(a, b):
		return fmt.Errorf("both locations are %s", here)
	case config.Within(a, b), config.Within(b, a):
		return fmt.Errorf("one of %s and %s is inside the other", here, there)
	}
	return nil
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// check reports whether the directory is there or may be made.
func (l *Local) check() error {
	f, err := vfs.Open(l.Path)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) || !l.create {
		return l.explain(fmt.Errorf("%w: %w", store.ErrLocation, err))
	}
	// Only the last level may be made, and only when something is to be written: a missing parent is a typing error or a disk
	// that is away.
	if _, err := os.Stat(filepath.Dir(l.Path)); err != nil {
		return fmt.Errorf("maildir:%s: %w; make the directory above it first", l.Path, err)
	}
	return nil
}

// stateName makes a directory name for what is known of something.
func stateName(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:12])
}

// StatePath is the directory of what is known of something of that kind and name.
func StatePath(stateDir, kind, name string) string {
	return filepath.Join(stateDir, kind, stateName(name))
}

// Canonical is the path without symbolic links, which names the store in the state directory.
func (l *Local) Canonical() string { return config.Canonical(l.Path) }

// Make makes the directory of a new Maildir, if it may be made and is not there.
func (l *Local) Make() error {
	_, err := os.Stat(l.Path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) || !l.create {
		return nil // who opens it says what is wrong
	}
	if err := os.Mkdir(l.Path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("maildir:%s: %w", l.Path, err)
	}
	return nil
}

// Rehearse makes a location that does not exist yet an empty Maildir in memory, so that a dry run can say what would come
// there. It returns how to clean up.
func (l *Local) Rehearse() (func() error, error) {
	nothing := func() error { return nil }
	if f, err := vfs.Open(l.Path); err == nil {
		empty, err := isEmptyDir(f)
		if err = errors.Join(err, f.Close()); err != nil || !empty || !l.create {
			return nothing, err
		}
	}
	dir, err := os.MkdirTemp("", "dsyncfs-dry-run-")
	if err != nil {
		return nothing, err
	}
	l.pinned, l.create = vfs.NewMem(time.Now), true
	l.index = newSharedIndex(filepath.Join(dir, "index.db"))
	return func() error { return os.RemoveAll(dir) }, nil
}

// isEmptyDir reports whether a directory has no entries.
func isEmptyDir(f vfs.FS) (bool, error) {
	d, err := f.OpenDir("")
	if err != nil {
		return false, err
	}
	defer d.Close()
	empty := true
	err = d.Names(func(string, vfs.Type) error {
		empty = false
		return nil
	})
	return empty, err
}

// Pin makes the store stay in an open directory, when a mount is about to cover the path. The Local closes it. It is called
// before the store is used.
func (l *Local) Pin(f vfs.FS) { l.pinned = f }

// Store opens the store for one round and waits for another user of it in this process. The error wraps store.ErrLocation if
// there is no Maildir.
func (l *Local) Store(ctx context.Context) (store.Store, error) { return l.open(ctx, l.Namespace) }

// StoreBehind is Store without the Namespace: changes do not go through a mount.
func (l *Local) StoreBehind(ctx context.Context) (store.Store, error) { return l.open(ctx, nil) }

// View reads what is known of the store, also while somebody else uses it.
func (l *Local) View(ctx context.Context, f func(store.CatalogTx) error) error {
	cat, err := l.index.acquire(ctx, l)
	if err != nil {
		return err
	}
	return errors.Join(cat.View(f), l.index.release(false))
}

func (l *Local) open(ctx context.Context, namespace vfs.FS) (_ store.Store, err error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s := &openStore{l: l}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	tree, err := l.tree(s)
	if err != nil {
		return nil, err
	}
	if s.cat, err = l.index.acquire(ctx, l); err != nil {
		return nil, err
	}
	s.Store, err = maildir.Open(ctx, tree, s.cat, maildir.Options{
		Layout: l.Layout, Logger: l.log, Locks: l.Locks, Memory: l.Memory, MailNamespace: namespace, Create: l.create,
	})
	if err != nil {
		s.Store = nil
		return nil, l.explain(err)
	}
	// From now on an empty directory is a disk that is away.
	l.known, l.create = true, false
	return s, nil
}

// tree is the directory as it is now.
func (l *Local) tree(s *openStore) (vfs.FS, error) {
	if l.pinned != nil {
		return l.pinned, nil
	}
	if err := l.Make(); err != nil {
		return nil, err
	}
	f, err := vfs.Open(l.Path)
	if err != nil {
		return nil, l.explain(fmt.Errorf("%w: %w", store.ErrLocation, err))
	}
	s.tree = f
	return f, nil
}

// explain adds what to do to an error about a missing Maildir.
func (l *Local) explain(err error) error {
	if !errors.Is(err, store.ErrLocation) {
		return fmt.Errorf("maildir:%s: %w", l.Path, err)
	}
	if l.known {
		return fmt.Errorf("maildir:%s: %w; mail was there before: is its disk mounted? (if it is to start anew, remove %s)",
			l.Path, err, filepath.Dir(l.index.path))
	}
	return fmt.Errorf("maildir:%s: %w", l.Path, err)
}

// Close lets go of a pinned directory and waits for watchers, whose contexts have ended. The store must not be in use.
func (l *Local) Close() error {
	l.watchers.Wait()
	if l.pinned == nil {
		return nil
	}
	return l.pinned.Close()
}

// openStore closes with the store what was opened for it.
type openStore struct {
	store.Store
	l    *Local
	cat  store.Catalog
	tree vfs.FS
	once sync.Once
}

func (s *openStore) Close() (err error) {
	s.once.Do(func() {
		if s.Store != nil {
			err = s.Store.Close()
		}
		if s.cat != nil {
			err = errors.Join(err, s.l.index.release(!s.l.known))
		}
		if s.tree != nil {
			err = errors.Join(err, s.tree.Close())
		}
		<-s.l.turn
	})
	return err
}

// NewSlave returns a slave for the store, which can be watched between rounds.
func (l *Local) NewSlave(o brain.Options) *brain.Slave {
	s := brain.NewSlave(o, l.Store, l.watch)
	s.Shelf = l.Shelf
	return s
}

// watch tells of changes to the store until ctx ends.
func (l *Local) watch(ctx context.Context) (<-chan struct{}, error) {
	if err := l.Make(); err != nil {
		return nil, err
	}
	w, err := watch.Maildir(ctx, l.Path, l.log, nil, l.Memory)
	if err != nil {
		return nil, err
	}
	l.watchers.Go(w.Wait)
	return w.Changes, nil
}
