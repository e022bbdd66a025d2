package maildir

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// trash moves a mailbox directory into the root's tmp/. One with mailboxes below it (LAYOUT=fs) stays as a level of the
// hierarchy, and only its own parts go.
func (s *Store) trash(ctx context.Context, rec store.MailboxRecord, dir string) error {
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return ignoreGone(err)
	}
	defer d.Close()
	release, err := s.locks.acquireExclusive(ctx, d)
	if err != nil {
		return err
	}
	defer release()
	tmp, err := s.openTmp(s.ns)
	if err != nil {
		return err
	}
	defer tmp.Close()
	temp := s.tempName("delete")
	if s.o.Layout == FS {
		below, err := s.hasSubdirs(d)
		if err != nil {
			return err
		}
		if below {
			return s.trashParts(ctx, rec, dir, tmp, temp)
		}
	}
	parent, base, err := s.openParent(dir)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := parent.Rename(base, tmp, temp); err != nil {
		return err
	}
	if err := s.checkTrash(ctx, rec, "tmp/"+temp); err != nil {
		return errors.Join(err, tmp.RenameNew(temp, parent, base))
	}
	if err := s.holdAll(rec, "tmp/"+temp); err != nil {
		return err
	}
	return parent.Sync()
}

// checkTrash refuses to delete a mailbox with mail that came since the last refresh: whoever decided that it can go did not
// know of it. It looks when nobody can deliver there any more.
func (s *Store) checkTrash(ctx context.Context, rec store.MailboxRecord, dir string) error {
	d, err := openDirs(s.fs, dir)
	if err != nil {
		return err
	}
	defer d.Close()
	files, err := d.scan(ctx)
	if err != nil {
		return err
	}
	unknown := len(files.entries)
	for c := newCursor(s.cat, rec.Status.GUID, 0); unknown > 0; {
		r, ok, err := c.next()
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%d mails came meanwhile: %w", unknown, store.ErrExists)
		}
		if files.find([]byte(baseOf(r.File))) >= 0 {
			unknown--
		}
	}
	return nil
}

// trashParts moves what makes a directory a mailbox away.
func (s *Store) trashParts(ctx context.Context, rec store.MailboxRecord, dir string, tmp vfs.Dir, temp string) error {
	info, err := tmp.Info()
	if err != nil {
		return err
	}
	if err := tmp.Mkdir(temp, info.Mode&0o777); err != nil {
		return noSpace(err)
	}
	to, err := s.ns.OpenDir("tmp/" + temp)
	if err != nil {
		return err
	}
	defer to.Close()
	from, err := s.ns.OpenDir(dir)
	if err != nil {
		return err
	}
	defer from.Close()
	var parts []string
	err = from.Names(func(name string, typ vfs.Type) error {
		if name == "cur" || name == "new" || name == "tmp" || strings.HasPrefix(name, "dovecot") && name != lockName || isReplacement(name) {
			parts = append(parts, name)
		}
		return nil
	})
	slices.Sort(parts) // cur first: without it this is no mailbox
	for i := 0; i < len(parts) && err == nil; i++ {
		err = ignoreGone(from.Rename(parts[i], to, parts[i]))
	}
	if err == nil {
		err = s.checkTrash(ctx, rec, "tmp/"+temp)
	}
	if err != nil {
		for _, part := range slices.Backward(parts) {
			err = errors.Join(err, ignoreGone(to.RenameNew(part, from, part)))
		}
		return errors.Join(err, tmp.RemoveDir(temp))
	}
	if err := s.holdAll(rec, "tmp/"+temp); err != nil {
		return err
	}
	return from.Sync()
}

// hasSubdirs reports whether there are directories for mailboxes below a mailbox directory.
func (s *Store) hasSubdirs(d vfs.Dir) (found bool, err error) {
	err = d.Names(func(name string, typ vfs.Type) error {
		if typ == vfs.Directory && name != "cur" && name != "new" && name != "tmp" {
			found = true
		}
		return nil
	})
	return found, err
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
		parent, base, err := s.openParent(dir)
		if err != nil {
			return err
		}
		defer parent.Close()
		if err := parent.RemoveDir(base); err == nil {
			there = true
		} else if !notExist(err) {
			return fmt.Errorf("delete directory %q: %w", string(name), err)
		}
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
