package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir/dovecotlog"
	"dsyncfs/mirror/vfs"
)

// Delete implements [store.Store]. The directory is renamed away first, so that readers see it go in one step, and removed
// by EndRound: until then its mails serve moves.
func (s *Store) Delete(ctx context.Context, guid mail.MailboxGUID) error {
	rec, err := s.record(guid)
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if rec.Name == mail.Inbox {
		return s.emptyInbox(ctx, rec)
	}
	dir, err := s.o.Layout.DirOf(rec.Name)
	if err != nil {
		return err
	}
	if err := s.trash(ctx, rec, dir); err != nil {
		return fmt.Errorf("delete %s: %w", describe(rec.Name), gone(err))
	}
	now := s.now()
	if err := s.noteValidity(rec.Status.UIDValidity); err != nil {
		return err
	}
	s.logMailbox(dovecotlog.DeleteMailbox, mail.GUID128(guid), now)
	delete(s.lists, guid)
	return s.cat.Update(func(tx store.CatalogTx) error {
		if err := tx.DropMailbox(guid); err != nil {
			return err
		}
		return putDeletion(tx, mail.Deletion{Kind: mail.DeletedMailbox, ID: mail.GUID128(guid), Time: now})
	})
}

// emptyInbox expunges all messages of INBOX.
func (s *Store) emptyInbox(ctx context.Context, rec store.MailboxRecord) error {
	box, err := s.Open(ctx, rec.Status.GUID)
	if err != nil {
		return err
	}
	defer box.Close()
	var b store.Batch
	for m, err := range box.Messages(0) {
		if err != nil {
			return err
		}
		b.Expunges = append(b.Expunges, store.Expunge{UID: m.UID, GUID: m.GUID})
	}
	_, err = box.Apply(ctx, b)
	return err
}

// DeleteDirectory implements [store.Store].
func (s *Store) DeleteDirectory(ctx context.Context, name mail.Name) error {
	dir, err := s.o.Layout.DirOf(name)
	if err != nil {
		return fmt.Errorf("delete directory %q: %w", string(name), err)
	}
	known, err := s.records()
	if err != nil {
		return err
	}
	for other := range known {
		if other == name || other.IsBelow(name) {
			return fmt.Errorf("delete directory %q: mailbox %q is there: %w", string(name), string(other), store.ErrExists)
		}
	}
	there, err := s.dropDirectory(name)
	if err != nil {
		return err
	}
	if s.o.Layout == FS {
		removed, err := s.removeLevel(dir)
		if err != nil {
			return fmt.Errorf("delete directory %q: %w", string(name), err)
		}
		there = there || removed
	}
	if !there {
		return fmt.Errorf("delete directory %q: %w", string(name), store.ErrNotFound)
	}
	now := s.now()
	s.logName(dovecotlog.DeleteDirectory, name, now)
	return s.cat.Update(func(tx store.CatalogTx) error {
		return putDeletion(tx, mail.Deletion{Kind: mail.DeletedDirectory, ID: s.nameHash(name), Time: now})
	})
}

// removeLevel removes the directory of a level of the hierarchy, with what a crash may have left there of a mailbox. One in
// which somebody keeps other things stays, and the next Refresh finds it.
func (s *Store) removeLevel(dir string) (there bool, err error) {
	parent, base, err := s.openParent(dir)
	if err != nil {
		return false, err
	}
	defer parent.Close()
	err = parent.RemoveDir(base)
	if errors.Is(err, fs.ErrExist) { // it is not empty
		if err = s.clearRemains(dir); err == nil {
			err = parent.RemoveDir(base)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		s.log.Warn("a directory that is to be deleted holds other files, and stays", "path", dir)
		return true, nil
	}
	return err == nil, ignoreGone(err)
}

// clearRemains removes what a crash may have left of a mailbox that somebody removed: without cur, new and uidlist it is none,
// and its index, keywords and an empty tmp are in the way of the directory.
func (s *Store) clearRemains(dir string) error {
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return ignoreGone(err)
	}
	defer d.Close()
	if hasMailboxMarks(d) {
		return nil
	}
	var files []string
	err = d.Names(func(name string, typ vfs.Type) error {
		if typ == vfs.Regular && (name == keywordsName || name == lockName || strings.HasPrefix(name, "dovecot.index") || isReplacement(name)) {
			files = append(files, name)
		}
		return nil
	})
	for i := 0; i < len(files) && err == nil; i++ {
		err = ignoreGone(d.Remove(files[i]))
	}
	if err != nil {
		return err
	}
	if err := d.RemoveDir("tmp"); err != nil && !errors.Is(err, fs.ErrExist) {
		return ignoreGone(err)
	}
	return nil
}

// dropDirectory forgets a level of the hierarchy and reports whether it was known.
func (s *Store) dropDirectory(name mail.Name) (there bool, err error) {
	err = s.cat.Update(func(tx store.CatalogTx) error {
		v, err := tx.Value(bucketDirectories, string(name))
		if err != nil || v == nil {
			return err
		}
		there = true
		return tx.SetValue(bucketDirectories, string(name), nil)
	})
	return there, err
}
