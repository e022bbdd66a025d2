// Package endpoint makes stores and peers of locations: it joins the adapters of mirror/store with their index, and the
// transports of remote with the wire format or with a brain in this process.
//
// Start from [OpenLocal] and [NewRemote]. It is the one place where a location's kind decides which code runs.
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
	"time"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/mirror/index"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/vfs"
	"dsyncfs/remote"
)

// Local is a mail store on this machine. It is opened anew for each round, so that other programs of ours can use it in
// between.
type Local struct {
	Path   string
	Layout maildir.Layout
	FS     vfs.FS
	Locks  *maildir.Locks
	// Namespace, if set, is the view through which visible changes go; see maildir.Options.
	Namespace vfs.FS

	indexPath string
	known     bool // mail was there in an earlier run or round
	create    bool
	cfg       *config.Config
	log       *slog.Logger
}

// ErrNotYet is what formats answer that a later version will know.
var ErrNotYet = errors.New("not supported yet")

// OpenLocal opens the directory of a location. mayCreate allows to make a Maildir where nothing is, unless one was known
// there before: then its disk is away.
func OpenLocal(cfg *config.Config, loc remote.Location, mayCreate bool, log *slog.Logger) (*Local, error) {
	switch loc.Kind {
	case remote.KindMaildir:
	case remote.KindMbox, remote.KindSdbox, remote.KindMdbox:
		return nil, fmt.Errorf("%s: %s locations are %w; convert it to maildir: first", loc, loc.Kind, ErrNotYet)
	default:
		return nil, fmt.Errorf("%s: not a mail store on this machine", loc)
	}
	if loc.Inbox != "" {
		return nil, fmt.Errorf("%s: INBOX= is %w", loc, ErrNotYet)
	}
	l := &Local{
		Path: loc.Path, cfg: cfg, log: log,
		Locks: maildir.NewLocks(maildir.LockOptions{Timeout: cfg.LockTimeout, Logger: log}),
	}
	if loc.Layout == "fs" {
		l.Layout = maildir.FS
	}
	l.indexPath = filepath.Join(StatePath(cfg.StateDir, "stores", l.canonicalPath()), "index.db")
	_, err := os.Stat(l.indexPath)
	l.known = err == nil
	l.create = mayCreate && !l.known
	if l.FS, err = vfs.Open(l.Path); err == nil {
		return l, nil
	}
	if !errors.Is(err, fs.ErrNotExist) || !l.create {
		return nil, l.explain(fmt.Errorf("%w: %w", store.ErrLocation, err))
	}
	// Only the last level may be made, and only when something is to be written: a missing parent is a typing error or a disk
	// that is away.
	if _, err := os.Stat(filepath.Dir(l.Path)); err != nil {
		return nil, fmt.Errorf("maildir:%s: %w", l.Path, err)
	}
	return l, nil
}

// canonicalPath names the store in the state directory: the same one by whatever way it is reached.
func (l *Local) canonicalPath() string {
	if p, err := filepath.EvalSymlinks(l.Path); err == nil {
		return p
	}
	return l.Path
}

// stateName makes a directory name for what is known of something.
func stateName(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:12])
}

// makeDir makes the directory of a new Maildir.
func (l *Local) makeDir() (err error) {
	if err := os.Mkdir(l.Path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("maildir:%s: %w", l.Path, err)
	}
	if l.FS, err = vfs.Open(l.Path); err != nil {
		return fmt.Errorf("maildir:%s: %w", l.Path, err)
	}
	return nil
}

// Rehearse makes a location that does not exist yet an empty Maildir in memory, so that a dry run can say what would come
// there. It returns how to clean up.
func (l *Local) Rehearse() (func() error, error) {
	if l.FS != nil {
		return func() error { return nil }, nil
	}
	dir, err := os.MkdirTemp("", "dsyncfs-dry-run-")
	if err != nil {
		return nil, err
	}
	l.FS, l.create = vfs.NewMem(time.Now), true
	l.indexPath = filepath.Join(dir, "index.db")
	return func() error { return os.RemoveAll(dir) }, nil
}

// StatePath is the directory of what is known of the pair of this store and another location.
func StatePath(stateDir, kind, name string) string {
	return filepath.Join(stateDir, kind, stateName(name))
}

// UseFS replaces the tree by one that was opened before, when a mount is about to cover the path.
func (l *Local) UseFS(f vfs.FS) { l.FS = f }

// Store opens the store for one round. The error wraps store.ErrLocation if there is no Maildir.
func (l *Local) Store(ctx context.Context) (store.Store, error) { return l.open(ctx, l.Namespace) }

// StoreBehind is Store without the Namespace: changes do not go through a mount.
func (l *Local) StoreBehind(ctx context.Context) (store.Store, error) { return l.open(ctx, nil) }

func (l *Local) open(ctx context.Context, namespace vfs.FS) (store.Store, error) {
	if l.FS == nil {
		if err := l.makeDir(); err != nil {
			return nil, err
		}
	}
	cat, err := index.Open(l.indexPath, index.Options{Timeout: l.cfg.LockTimeout, Logger: l.log})
	if err != nil {
		return nil, fmt.Errorf("index of %s: %w", l.Path, err)
	}
	s, err := maildir.Open(ctx, l.FS, cat, maildir.Options{
		Layout: l.Layout, Logger: l.log, Locks: l.Locks, MailNamespace: namespace, Create: l.create,
	})
	if err == nil {
		l.known = true
		return &indexedStore{s, cat}, nil
	}
	err = errors.Join(l.explain(err), cat.Close())
	if !l.known { // nothing was ever there, so nothing is known of it
		err = errors.Join(err, os.RemoveAll(filepath.Dir(l.indexPath)))
	}
	return nil, err
}

// explain adds what to do to an error about a missing Maildir.
func (l *Local) explain(err error) error {
	if !errors.Is(err, store.ErrLocation) {
		return fmt.Errorf("maildir:%s: %w", l.Path, err)
	}
	if l.known {
		return fmt.Errorf("maildir:%s: %w; mail was there before: is its disk mounted? (if it is to start anew, remove %s)",
			l.Path, err, filepath.Dir(l.indexPath))
	}
	return fmt.Errorf("maildir:%s: %w", l.Path, err)
}

// Close lets go of the directory.
func (l *Local) Close() error {
	if l.FS == nil {
		return nil
	}
	return l.FS.Close()
}

// indexedStore closes the index with the store.
type indexedStore struct {
	store.Store
	cat store.Catalog
}

func (s *indexedStore) Close() error {
	return errors.Join(s.Store.Close(), s.cat.Close())
}
