package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// Create implements [store.Store]. The mailbox is built in the root's tmp/ and appears by one rename: a crash before that
// leaves a directory that a later Open removes, a crash after it a mailbox that the next Refresh finds.
func (s *Store) Create(ctx context.Context, name mail.Name, guid mail.MailboxGUID, validity mail.UIDValidity) error {
	name = name.FoldInbox()
	dir, err := s.o.Layout.DirOf(name)
	if err != nil {
		return fmt.Errorf("create %s: %w", describe(name), err)
	}
	if err := s.checkFree(name, guid); err != nil {
		return fmt.Errorf("create %s: %w", describe(name), err)
	}
	if validity == 0 {
		if validity, err = s.newValidity(false); err != nil {
			return fmt.Errorf("create %s: %w", describe(name), err)
		}
	} else if err := s.noteValidity(validity); err != nil {
		return err
	}
	head := uidHeader{validity: validity, next: 1, guid: guid}
	if err := s.makeMailbox(ctx, dir, head); err != nil {
		return fmt.Errorf("create %s: %w", describe(name), gone(err))
	}
	sig, err := s.signatureOfNew(dir)
	if err != nil {
		return fmt.Errorf("create %s: %w", describe(name), gone(err))
	}
	rec := store.MailboxRecord{Name: name, LogStart: 1, Signature: sig.encode()}
	rec.Status = mail.Status{GUID: guid, UIDValidity: validity, UIDNext: 1, FirstRecent: 1, HighestModSeq: 1}
	return s.cat.Update(func(tx store.CatalogTx) error {
		level := mail.Deletion{Kind: mail.DeletedDirectory, ID: s.nameHash(name)}
		return errors.Join(
			cameBack(tx, guid), tx.SetValue(bucketDeleted, deletionKey(level), nil), tx.SetValue(bucketDirectories, string(name), nil),
			tx.PutMailbox(rec),
		)
	})
}

// signatureOfNew is that of a mailbox that was just made, to be looked at by the next refresh. By the directory it is known again
// should its uidlist get lost before that.
func (s *Store) signatureOfNew(dir string) (signature, error) {
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return signature{}, err
	}
	defer d.Close()
	sig, err := takeSignature(d)
	sig.dirty = true
	return sig, err
}

func (s *Store) nameHash(name mail.Name) mail.GUID128 { return name.NameHash(s.o.Layout.separator()) }

// checkFree refuses a name or a GUID that a mailbox has already.
func (s *Store) checkFree(name mail.Name, guid mail.MailboxGUID) error {
	if guid.IsZero() {
		return errors.New("no GUID given")
	}
	known, err := s.records()
	if err != nil {
		return err
	}
	if _, taken := known[name]; taken {
		return store.ErrExists
	}
	for _, rec := range known {
		if rec.Status.GUID == guid {
			return fmt.Errorf("%w: GUID %s is that of %q", store.ErrExists, guid, string(rec.Name))
		}
	}
	return nil
}

// makeMailbox makes the directories and the uidlist of a mailbox.
func (s *Store) makeMailbox(ctx context.Context, dir string, head uidHeader) error {
	if existing, err := s.fs.OpenDir(dir); err == nil {
		// A level of the hierarchy, or a directory that someone made just now.
		defer existing.Close()
		return s.fillMailbox(ctx, existing, head)
	} else if !notExist(err) {
		return err
	}
	tmp, err := s.openTmp(s.fs)
	if err != nil {
		return err
	}
	defer tmp.Close()
	temp := s.tempName("create")
	info, err := s.root.Info()
	if err != nil {
		return err
	}
	if err := tmp.Mkdir(temp, info.Mode&0o777); err != nil {
		return noSpace(err)
	}
	err = s.buildAndMove(ctx, temp, dir, head)
	if err != nil {
		if rerr := s.removeTree("tmp/" + temp); rerr != nil {
			s.log.Warn("remove a directory", "path", "tmp/"+temp, "err", rerr)
		}
	}
	return err
}

func (s *Store) buildAndMove(ctx context.Context, temp, dir string, head uidHeader) error {
	d, err := s.fs.OpenDir("tmp/" + temp)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := s.fillMailbox(ctx, d, head); err != nil {
		return err
	}
	if s.o.Layout == MaildirPlusPlus {
		f, err := d.Create("maildirfolder", s.fileMode(d))
		if err != nil {
			return noSpace(err)
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	if err := d.Sync(); err != nil {
		return err
	}
	from, err := s.openTmp(s.ns)
	if err != nil {
		return err
	}
	defer from.Close()
	parent, base, err := s.openParent(dir)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := from.RenameNew(temp, parent, base); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("%w: %w", store.ErrExists, err)
		}
		return err
	}
	return parent.Sync()
}

// fillMailbox makes the parts of a mailbox in a directory that has none yet.
func (s *Store) fillMailbox(ctx context.Context, d vfs.Dir, head uidHeader) error {
	release, err := s.locks.acquireExclusive(ctx, d)
	if err != nil {
		return err
	}
	defer release()
	if _, err := d.Stat(uidlistName); err == nil {
		return store.ErrExists
	} else if !notExist(err) {
		return err
	}
	if err := s.makeSubdirs(d); err != nil {
		return err
	}
	return replaceUIDList(d, s.fileMode(d), func(w *uidlistWriter) error { return w.writeHeader(head) })
}

// openTmp opens the tmp directory of the root, which is made if it is missing.
func (s *Store) openTmp(in vfs.FS) (vfs.Dir, error) {
	tmp, err := in.OpenDir("tmp")
	if notExist(err) {
		info, ierr := s.root.Info()
		if ierr != nil {
			return nil, ierr
		}
		if err := s.root.Mkdir("tmp", info.Mode&0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, noSpace(err)
		}
		tmp, err = in.OpenDir("tmp")
	}
	return tmp, err
}

// openParent opens the directory that holds a mailbox directory, in the namespace of visible changes, and makes missing
// levels of the hierarchy.
func (s *Store) openParent(dir string) (parent vfs.Dir, base string, err error) {
	i := strings.LastIndexByte(dir, '/')
	if i < 0 {
		parent, err = s.ns.OpenDir("")
		return parent, dir, err
	}
	parent, err = s.ns.OpenDir(dir[:i])
	if notExist(err) {
		if err := s.mkdir(dir[:i]); err != nil {
			return nil, "", err
		}
		parent, err = s.ns.OpenDir(dir[:i])
	}
	return parent, dir[i+1:], err
}

// mkdir makes a level of the hierarchy with its parents.
func (s *Store) mkdir(dir string) error {
	parent, base, err := s.openParent(dir)
	if err != nil {
		return err
	}
	defer parent.Close()
	info, err := parent.Info()
	if err != nil {
		return err
	}
	if err := parent.Mkdir(base, info.Mode&0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return noSpace(err)
	}
	return parent.Sync()
}

// CreateDirectory implements [store.Store]. Maildir++ has no directories for levels of the hierarchy; there the catalog
// remembers them.
func (s *Store) CreateDirectory(ctx context.Context, name mail.Name) error {
	dir, err := s.o.Layout.DirOf(name)
	if err != nil {
		return fmt.Errorf("create directory %q: %w", string(name), err)
	}
	name = name.FoldInbox()
	known, err := s.records()
	if err != nil {
		return err
	}
	if _, taken := known[name]; taken || name == mail.Inbox {
		return fmt.Errorf("create directory %q: %w", string(name), store.ErrExists)
	}
	var exists bool
	err = s.cat.View(func(tx store.CatalogTx) error {
		v, err := tx.Value(bucketDirectories, string(name))
		exists = v != nil
		return err
	})
	if err != nil {
		return err
	}
	if exists {
		return fmt.Errorf("create directory %q: %w", string(name), store.ErrExists)
	}
	if s.o.Layout == FS {
		if err := s.mkdir(dir); err != nil {
			return fmt.Errorf("create directory %q: %w", string(name), err)
		}
	}
	return s.cat.Update(func(tx store.CatalogTx) error {
		d := mail.Deletion{Kind: mail.DeletedDirectory, ID: s.nameHash(name)}
		if err := tx.SetValue(bucketDeleted, deletionKey(d), nil); err != nil {
			return err
		}
		return tx.SetValue(bucketDirectories, string(name), encodeTime(s.now()))
	})
}
