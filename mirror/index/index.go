// Package index is the durable memory of stores: a [store.Catalog] in one bbolt file. Start from [Open].
//
// What it holds can always be rebuilt from the mail itself and one full sync, so it is never repaired and never trusted:
// each record has a checksum, whatever does not add up condemns the file, which is set aside under another name, and the
// next [Open] begins a new one with a new epoch.
//
// The file belongs to one process at a time and to nobody but its user. The package refuses to know what the records mean;
// [CheckConsistency] lists what must hold between them.
//
// Locks: the lock file is held from Open to Close. A transaction must not be opened while the same goroutine has another
// one open: an Update that lets the file grow beyond its mapping waits for every View to end.
package index

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"dsyncfs/mirror/store"
)

// version of the format. A file of any other version is set aside.
const version = 1

// Sizes of the mapping and of growth. A mapping costs address space, not memory; one that is ample spares Updates the
// remapping, for which they would have to wait for all Views. bbolt rounds it up to a power of two.
const (
	minMapping = 64 << 20
	growth     = 1 << 20
)

// ErrCorrupt says that the file is damaged. It was set aside: closing and opening again gives an empty index with a new
// epoch.
var ErrCorrupt = fmt.Errorf("index is %w", store.ErrCorrupt)

var (
	errVersion  = errors.New("index has another version")
	errClosed   = errors.New("index is closed")
	errReadOnly = errors.New("write in a View")
	errEnded    = errors.New("transaction has ended")
)

// Options say how to open an index.
type Options struct {
	Timeout time.Duration // how long to wait for another process; 0: not at all
	Logger  *slog.Logger  // nil: the default logger. It hears of files that are set aside, and of nothing else
}

// Index is an open index. All methods are safe for concurrent use.
type Index struct {
	path   string
	logger *slog.Logger
	lock   *ownerLock
	epoch  uint64
	db     *bolt.DB
	file   *os.File // of db

	mu     sync.Mutex
	closed bool
	cause  error // why the file is condemned; nil: it is not
	stuck  bool  // db was left with its locks held and cannot be closed
}

var _ store.Catalog = (*Index)(nil)

// Open opens the index at path, or makes it with its directory. If another process has it open and keeps it for longer than
// the timeout, the error is an [*InUseError]. A file that is damaged, of another version, or no index at all is set aside
// as path.corrupt-N or path.version-N.
func Open(path string, o Options) (*Index, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	lock, err := lockOwner(path, o.Timeout)
	if err != nil {
		return nil, err
	}
	x := &Index{path: path, logger: o.Logger, lock: lock}
	if err := x.openOrReplace(); err != nil {
		return nil, errors.Join(fmt.Errorf("open index %s: %w", path, err), lock.release())
	}
	return x, nil
}

// Crashed reports whether the process that had the index before ended without closing it.
func (x *Index) Crashed() bool { return x.lock.crashed }

// openOrReplace opens the file. One that cannot be used gives way to a new one.
func (x *Index) openOrReplace() error {
	err := x.openFile()
	switch {
	case errors.Is(err, ErrCorrupt):
		err = x.setAside("corrupt", err)
	case errors.Is(err, errVersion):
		err = x.setAside("version", err)
	default:
		return err
	}
	if err != nil {
		return err
	}
	return x.openFile()
}

// firstPages is how many pages bbolt writes into a new file at once; a full disk may leave fewer.
const firstPages = 4

// openFile opens the file as it is. The list of free pages is kept in it: working it out anew would read every page, and a
// run that finds nothing changed has to be quick.
func (x *Index) openFile() error {
	mapping := minMapping
	if info, err := os.Stat(x.path); err == nil {
		if n := info.Size(); n > 0 && n < firstPages*int64(os.Getpagesize()) {
			return fmt.Errorf("%w: %d bytes, its making was broken off", ErrCorrupt, n)
		}
		mapping = max(mapping, int(2*info.Size()))
	}
	err := guard("open", func() (err error) {
		x.db, err = bolt.Open(x.path, 0o600, &bolt.Options{
			Timeout:         time.Second, // the lock file was taken, so only a stranger can hold this one
			FreelistType:    bolt.FreelistMapType,
			InitialMmapSize: mapping,
			NoStatistics:    true,
			OpenFile: func(name string, flag int, perm fs.FileMode) (*os.File, error) {
				x.file, err = os.OpenFile(name, flag, perm)
				return x.file, err
			},
		})
		return classify(err)
	})
	if err != nil {
		if x.file != nil {
			_ = x.file.Close() // bbolt did, unless it panicked
		}
		return err
	}
	x.db.AllocSize = growth
	if err := x.prepare(); err != nil {
		return errors.Join(err, x.db.Close())
	}
	return nil
}

// classify tells damage from trouble with the file system.
func classify(err error) error {
	for _, damage := range []error{berrors.ErrInvalid, berrors.ErrVersionMismatch, berrors.ErrChecksum, berrors.ErrInvalidMapping} {
		if errors.Is(err, damage) {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", store.ErrNoSpace, err)
	}
	return err
}

// prepare checks the file's mode, length and head, and writes the head of a new one.
func (x *Index) prepare() error {
	info, err := x.file.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm() != 0o600 {
		if err := x.file.Chmod(0o600); err != nil {
			return err
		}
	}
	fresh := false
	err = x.transact(false, func(t *bolt.Tx) error {
		if t.Size() > info.Size() {
			return fmt.Errorf("%w: %d bytes of %d are left", ErrCorrupt, info.Size(), t.Size())
		}
		return guard("read head", func() error {
			if k, _ := t.Cursor().First(); k == nil {
				fresh = true
				return nil
			}
			return x.readHead(t)
		})
	})
	if err != nil || !fresh {
		return err
	}
	return x.transact(true, x.writeHead)
}

// Top-level buckets. Those of messages and log hold one bucket per mailbox, that of values one per bucket of values.
var (
	bucketHead     = []byte("head")     // key "head": version, epoch
	bucketNames    = []byte("names")    // name NUL GUID: mailbox record
	bucketGUIDs    = []byte("guids")    // GUID: name
	bucketMessages = []byte("messages") // mailbox ID / UID: message record
	bucketLog      = []byte("log")      // mailbox ID / modseq: log entry
	bucketValues   = []byte("values")   // name / key: value
)

func (x *Index) readHead(t *bolt.Tx) error {
	head := t.Bucket(bucketHead)
	if head == nil {
		return fmt.Errorf("%w: it has no head", errVersion)
	}
	payload, err := unseal(kindHead, 0, bucketHead, head.Get(bucketHead))
	if err != nil {
		return err
	}
	d := decoder{rest: payload}
	if v := d.uint(); v != version {
		return fmt.Errorf("%w: %d instead of %d", errVersion, v, version)
	}
	x.epoch = d.uint()
	if err := d.end(); err != nil || x.epoch == 0 {
		return fmt.Errorf("%w: head", ErrCorrupt)
	}
	for _, name := range [][]byte{bucketNames, bucketGUIDs, bucketMessages, bucketLog, bucketValues} {
		if t.Bucket(name) == nil {
			return fmt.Errorf("%w: bucket %s is missing", ErrCorrupt, name)
		}
	}
	return nil
}

func (x *Index) writeHead(t *bolt.Tx) error {
	for _, name := range [][]byte{bucketHead, bucketNames, bucketGUIDs, bucketMessages, bucketLog, bucketValues} {
		if _, err := t.CreateBucket(name); err != nil {
			return err
		}
	}
	for x.epoch = 0; x.epoch == 0; {
		var random [8]byte
		_, _ = rand.Read(random[:]) // never fails
		x.epoch = binary.BigEndian.Uint64(random[:])
	}
	payload := binary.AppendUvarint(binary.AppendUvarint(nil, version), x.epoch)
	return t.Bucket(bucketHead).Put(bucketHead, seal(kindHead, 0, bucketHead, payload))
}

// Epoch implements [store.Catalog].
func (x *Index) Epoch() uint64 { return x.epoch }

// View implements [store.Catalog].
func (x *Index) View(f func(store.CatalogTx) error) error { return x.run(false, f) }

// Update implements [store.Catalog]. Until it ends it keeps what it writes in memory, about three times over.
func (x *Index) Update(f func(store.CatalogTx) error) error { return x.run(true, f) }

func (x *Index) run(writable bool, f func(store.CatalogTx) error) error {
	if err := x.usable(); err != nil {
		return err
	}
	err := x.transact(writable, func(bt *bolt.Tx) error {
		t, err := newTx(bt, writable)
		if err != nil {
			return err
		}
		defer t.finish()
		if err := f(t); err != nil {
			return err
		}
		return t.broken // what an iterator could not tell, or f did not pass on
	})
	if errors.Is(err, ErrCorrupt) {
		return x.condemn(err)
	}
	return err
}

// transact runs f in a transaction of bbolt's. Damage that shows as a panic or a fault within bbolt becomes [ErrCorrupt]; a
// panic of f passes.
func (x *Index) transact(writable bool, f func(*bolt.Tx) error) error {
	var t *bolt.Tx
	err := guard("begin", func() (err error) {
		t, err = x.db.Begin(writable)
		return err
	})
	if err != nil {
		x.setStuck(errors.Is(err, ErrCorrupt))
		return err
	}
	defer func() { // also when f panics
		err := guard("roll back", func() error { return t.Rollback() })
		x.setStuck(errors.Is(err, ErrCorrupt))
	}()
	if err := f(t); err != nil || !writable {
		return err
	}
	return classify(guard("commit", t.Commit))
}

func (x *Index) setStuck(stuck bool) {
	if stuck {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.stuck = true
	}
}

func (x *Index) usable() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return errClosed
	}
	return x.cause
}

// condemn sets the file aside at once, so that no later start trusts it, and makes everything else fail with cause.
func (x *Index) condemn(cause error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cause != nil {
		return cause
	}
	x.cause = cause
	return errors.Join(cause, x.setAside("corrupt", cause))
}

// maxAside bounds how many files are kept aside; then the last one is replaced.
const maxAside = 9

// setAside renames the file to the first free name of path.WHY-1, path.WHY-2 and so on.
func (x *Index) setAside(why string, cause error) error {
	var aside string
	for n := 1; n <= maxAside; n++ {
		aside = fmt.Sprintf("%s.%s-%d", x.path, why, n)
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err := os.Rename(x.path, aside); err != nil {
		return fmt.Errorf("set the index aside: %w", err)
	}
	x.logger.Warn("index cannot be used and was set aside; it will be rebuilt", "path", x.path, "aside", aside, "err", cause)
	return nil
}

// Close implements [store.Catalog]. It waits for open transactions.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	var err error
	if x.stuck {
		err = x.file.Close()
	} else {
		err = x.db.Close()
	}
	return errors.Join(err, x.lock.release())
}
