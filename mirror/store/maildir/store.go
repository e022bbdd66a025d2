package maildir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// Options are the settings of a Store. Zero values are sensible but for the layout's being Maildir++.
type Options struct {
	Layout   Layout
	Hostname string           // in file names and locks; default: this host's
	PID      int              // in file names and locks; default: this process
	Clock    func() time.Time // default: time.Now
	Rand     io.Reader        // for GUIDs; default: crypto/rand
	Logger   *slog.Logger     // default: none
	Locks    *Locks           // shared by all in this process that act on the location; default: its own

	Memory *Memory // likewise; nil: each Store reads what changed as a whole

	// MailNamespace is a view of the same tree through which the last step of each visible change goes (rename, link and
	// unlink of mails and mailboxes), so that who watches that view sees it. Default: the tree itself.
	MailNamespace vfs.FS

	Create bool // make a Maildir where an empty directory is
}

// Follower may be implemented by a MailNamespace: it is told of files of the store's own that were written in the tree itself, and of
// directories that got another time there.
type Follower interface {
	Follow(dir, name string)
}

// wrote has the view of programs follow a file of the store's own that was written, in whole or in part; err is how that ended. A
// Dovecot that finds a mail, and an old uidlist, gives it a UID of its own.
func (s *Store) wrote(dir vfs.Dir, name string, err error) error {
	if f, ok := s.ns.(Follower); ok {
		f.Follow(dir.Path(), name)
	}
	return err
}

// Store is a Maildir account. It implements [store.Store].
type Store struct {
	o      Options
	fs, ns vfs.FS
	cat    store.Catalog
	log    *slog.Logger
	locks  *Locks
	root   vfs.Dir

	randMu sync.Mutex

	held   heldMails
	looked bool // a Refresh of this store has looked at all mailboxes
	opened map[mail.MailboxGUID]map[*mailbox]struct{}
	lists  map[mail.MailboxGUID]*uidlistState // what Apply knows of uidlists, within a round
}

var _ store.Store = (*Store)(nil)

// Open opens the Maildir at the root of fsys, which stays the caller's, as does cat. The error wraps [store.ErrLocation] if
// there is no Maildir: nothing that looks like one, or nothing at all and no o.Create.
func Open(ctx context.Context, fsys vfs.FS, cat store.Catalog, o Options) (*Store, error) {
	o.setDefaults()
	s := &Store{o: o, fs: fsys, ns: o.MailNamespace, cat: cat, log: o.Logger, locks: o.Locks, lists: make(map[mail.MailboxGUID]*uidlistState), opened: make(map[mail.MailboxGUID]map[*mailbox]struct{})}
	s.held.past, s.held.pastTrash = make(map[heldID]string), make(map[string]mail.MailboxGUID)
	if s.ns == nil {
		s.ns = fsys
	}
	root, err := fsys.OpenDir("")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrLocation, err)
	}
	s.root = root
	if err := s.checkRoot(); err != nil {
		root.Close()
		return nil, err
	}
	if err := s.removeLeftovers(ctx); err != nil {
		root.Close()
		return nil, err
	}
	return s, nil
}

func (o *Options) setDefaults() {
	if o.Hostname == "" {
		o.Hostname = localHostname()
	}
	if o.PID == 0 {
		o.PID = os.Getpid()
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Locks == nil {
		o.Locks = NewLocks(LockOptions{Hostname: o.Hostname, PID: o.PID, Logger: o.Logger})
	}
}

// checkRoot refuses a root that is no Maildir, so that an unmounted disk is not taken for an empty account. A tmp alone is
// what a power cut may leave of a Maildir that was being made, and like nothing at all.
func (s *Store) checkRoot() error {
	empty, isMaildir := true, false
	err := s.root.Names(func(name string, typ vfs.Type) error {
		empty = empty && name == "tmp" && typ != vfs.Regular
		switch {
		case name == "cur" || name == "new" || name == uidlistName || name == subscriptionsName || name == "dovecot-uidvalidity":
			isMaildir = true
		case typ == vfs.Directory || typ == vfs.Unknown:
			if s.looksLikeMailbox(name) {
				isMaildir = true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if isMaildir {
		if s.o.Create {
			return s.root.Sync() // perhaps an earlier attempt made it and did not get here
		}
		return nil
	}
	if !s.o.Create {
		if empty {
			return fmt.Errorf("%w: the directory is empty", store.ErrLocation)
		}
		return fmt.Errorf("%w: no cur, new or mailbox in the directory", store.ErrLocation)
	}
	if !empty {
		return fmt.Errorf("%w: the directory holds other things", store.ErrLocation)
	}
	if err := s.makeSubdirs(s.root); err != nil {
		return err
	}
	// Once the state of a round is kept, an empty directory is taken for a disk that is away.
	return s.root.Sync()
}

// looksLikeMailbox reports whether a directory below the root has the marks of a mailbox.
func (s *Store) looksLikeMailbox(dir string) bool {
	if _, ok := s.o.Layout.MailboxOf(dir); !ok {
		return false
	}
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	return hasMailboxMarks(d)
}

func hasMailboxMarks(d vfs.Dir) bool {
	for _, mark := range []string{"cur", "new", "maildirfolder", uidlistName} {
		if _, err := d.Stat(mark); err == nil {
			return true
		}
	}
	return false
}

// makeSubdirs makes what is missing of cur, new and tmp, with the mode of their parent. What an error leaves of them is a
// Maildir, by its cur.
func (s *Store) makeSubdirs(d vfs.Dir) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := d.Mkdir(sub, info.Mode&0o777); err != nil && !errors.Is(err, os.ErrExist) {
			return noSpace(err)
		}
	}
	return nil
}

// Capabilities implements [store.Store].
func (s *Store) Capabilities() store.Capabilities {
	return store.Capabilities{
		Separator: s.o.Layout.separator(), Keywords: maxKeywords, SaveGUIDs: true, SaveUIDs: true, NamePartMax: maxDirName,
	}
}

// Epoch implements [store.Store].
func (s *Store) Epoch() uint64 { return s.cat.Epoch() }

// Close implements [store.Store]. Neither the file system nor the catalog is closed.
func (s *Store) Close() error {
	return errors.Join(s.dropHeld(), s.root.Close())
}

// uniqueName returns a base name that is in use nowhere: seconds, microseconds, process, a counter, host.
func (s *Store) uniqueName() string {
	now := s.o.Clock()
	return fmt.Sprintf("%d.M%dP%dQ%d.%s", now.Unix(), now.Nanosecond()/1000, s.o.PID, s.locks.names.Add(1), s.nameHost())
}

var hostEscaper = strings.NewReplacer("/", `\057`, ":", `\072`, ",", `\054`, " ", "_")

// nameHost is the host name as it can be part of a file name.
func (s *Store) nameHost() string {
	host := hostEscaper.Replace(s.o.Hostname)
	return host[:min(len(host), 100)]
}

func (s *Store) randomGUID() (g mail.MailboxGUID, err error) {
	s.randMu.Lock()
	defer s.randMu.Unlock()
	for g.IsZero() {
		if _, err := io.ReadFull(s.o.Rand, g[:]); err != nil {
			return g, fmt.Errorf("draw a GUID: %w", err)
		}
	}
	return g, nil
}

func (s *Store) now() int64 { return s.o.Clock().Unix() }

// tempPrefix marks what is ours in the tmp directory of the root.
const tempPrefix = "dsyncfs-"

// tempName returns a name for something in tmp/ that only we use.
func (s *Store) tempName(kind string) string { return tempPrefix + kind + "-" + s.uniqueName() }

func (s *Store) isOurTemp(name string) bool {
	return strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, "."+s.nameHost())
}

// isDead reports whether something of ours in tmp/ is of a process of this host that is gone. Its name ends in a unique name of ours.
func (s *Store) isDead(name string) bool {
	rest, ours := strings.CutSuffix(name, "."+s.nameHost())
	if !ours || !strings.HasPrefix(name, tempPrefix) {
		return false
	}
	_, numbers, _ := strings.Cut(rest[strings.LastIndexByte(rest, '-')+1:], ".")
	_, numbers, _ = strings.Cut(numbers, "P")
	number, _, _ := strings.Cut(numbers, "Q")
	pid, err := strconv.Atoi(number)
	return err == nil && pid > 0 && pid != s.o.PID && !alive(pid)
}

// removeLeftovers removes what crashes of ours left in the root's tmp/, and puts mailboxes back that were not deleted yet.
func (s *Store) removeLeftovers(ctx context.Context) error {
	if c, ok := s.cat.(interface{ Crashed() bool }); ok && c.Crashed() {
		if err := s.sweepBoxes(ctx); err != nil {
			return err
		}
	}
	tmp, err := s.fs.OpenDir("tmp")
	if err != nil {
		return ignoreGone(err)
	}
	defer tmp.Close()
	var names, trying []string
	err = tmp.Names(func(name string, _ vfs.Type) error {
		if _, ok := parseBoxTemp(tryingKind, name); ok {
			trying = append(trying, name) // whoever's it is: there is mail in it
		} else if s.isOurTemp(name) {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.putBackAll(ctx, trying); err != nil {
		return err
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if id, ok := parseHeldName(name); ok {
			s.held.past[id] = name // see dropPast
			continue
		}
		if guid, ok := parseBoxTemp(trashKind, name); ok {
			s.held.pastTrash[name] = guid
			continue
		}
		if err := s.removeLeftover(tmp, name); err != nil {
			s.log.Warn("remove a leftover", "path", joinPath(tmp.Path(), name), "err", err)
		}
	}
	return nil
}

// sweepBoxes removes what the process before, which was killed, left in mailboxes.
func (s *Store) sweepBoxes(ctx context.Context) error {
	dirs := []string{""}
	err := s.cat.View(func(tx store.CatalogTx) error {
		for rec, err := range tx.Mailboxes() {
			if err != nil {
				return err
			}
			if dir, err := s.o.Layout.DirOf(rec.Name); err == nil && dir != "" {
				dirs = append(dirs, dir)
			}
		}
		return nil
	})
	for _, dir := range dirs {
		if err = errors.Join(err, context.Cause(ctx)); err != nil {
			return err
		}
		box, err := s.fs.OpenDir(dir)
		if notExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(s.sweepBox(box), s.sweepTmpOf(box), box.Close()); err != nil {
			return err
		}
	}
	return nil
}

// sweepTmpOf is sweepTmp of a mailbox in which nothing else may happen for a long time.
func (s *Store) sweepTmpOf(box vfs.Dir) error {
	tmp, err := s.fs.OpenDir(joinPath(box.Path(), "tmp"))
	if err != nil {
		return ignoreGone(err)
	}
	return errors.Join(s.sweepTmp(tmp), tmp.Close())
}

// leftoverAge is how old a temporary file must be to belong to nobody, if its name does not tell.
const leftoverAge = 24 * time.Hour

// isYoung reports whether a temporary file may be in use. One from far in the future was made before the clock was set.
func (s *Store) isYoung(info vfs.Info) bool { return s.o.Clock().Sub(info.Ctime).Abs() < leftoverAge }

func (s *Store) removeLeftover(dir vfs.Dir, name string) error {
	info, err := dir.Stat(name)
	orphan := orphaned(name) || info.Type == vfs.Regular && s.isDead(name)
	if err != nil || !orphan && s.isYoung(info) {
		return ignoreGone(err)
	}
	if info.Type == vfs.Directory {
		return s.removeTree(joinPath(dir.Path(), name))
	}
	return ignoreGone(dir.Remove(name))
}

// removeTree removes a directory below the root with everything in it. It follows no link.
func (s *Store) removeTree(path string) error {
	dir, err := s.fs.OpenDir(path)
	if err != nil {
		return ignoreGone(err)
	}
	var files, subdirs []string
	err = dir.Names(func(name string, typ vfs.Type) error {
		if typ == vfs.Unknown {
			info, err := dir.Stat(name)
			if err != nil {
				return ignoreGone(err)
			}
			typ = info.Type
		}
		if typ == vfs.Directory {
			subdirs = append(subdirs, name)
		} else {
			files = append(files, name)
		}
		return nil
	})
	for i := 0; i < len(files) && err == nil; i++ {
		err = ignoreGone(dir.Remove(files[i]))
	}
	err = errors.Join(err, dir.Close())
	for i := 0; i < len(subdirs) && err == nil; i++ {
		err = s.removeTree(joinPath(path, subdirs[i]))
	}
	if err != nil {
		return err
	}
	parent, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent, name = path[:i], path[i+1:]
	}
	up, err := s.fs.OpenDir(parent)
	if err != nil {
		return err
	}
	defer up.Close()
	return ignoreGone(up.RemoveDir(name))
}
