package maildir

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir/dovecotlog"
	"dsyncfs/mirror/vfs"
)

// Rename implements [store.Store]. With Maildir++ each mailbox below moves by a rename of its own, children first, so that a
// crash leaves every mailbox under one of its two names; Refresh finds them by their GUIDs.
func (s *Store) Rename(ctx context.Context, from, to mail.Name, at int64) error {
	from, to = from.FoldInbox(), to.FoldInbox()
	if err := s.rename(from, to, cmp.Or(at, s.now())); err != nil {
		return fmt.Errorf("rename %q to %q: %w", string(from), string(to), err)
	}
	return nil
}

func (s *Store) rename(from, to mail.Name, at int64) error {
	if from == mail.Inbox || to == mail.Inbox || to.IsBelow(from) || from == to {
		return store.ErrName
	}
	moves, levels, err := s.movesOf(from, to)
	if err != nil {
		return err
	}
	if s.o.Layout == FS {
		err = s.renameDir(from, to)
	} else {
		for _, m := range moves {
			if err = s.renameDir(m.rec.Name, m.to); err != nil {
				break
			}
		}
	}
	if err != nil {
		return err
	}
	s.logName(dovecotlog.Rename, to, at)
	return s.cat.Update(func(tx store.CatalogTx) error {
		for _, m := range moves {
			m.rec.Name = m.to
			if m.to == to {
				m.rec.Renamed = at
			}
			if err := tx.PutMailbox(m.rec); err != nil {
				return err
			}
		}
		for _, l := range levels {
			if err := tx.SetValue(bucketDirectories, string(l), nil); err != nil {
				return err
			}
			if err := tx.SetValue(bucketDirectories, string(to+l[len(from):]), encodeTime(at)); err != nil {
				return err
			}
		}
		return nil
	})
}

// boxMove is one mailbox that a rename moves.
type boxMove struct {
	rec store.MailboxRecord
	to  mail.Name
}

// movesOf lists what a rename moves, children before parents, after checking that all of it can be.
func (s *Store) movesOf(from, to mail.Name) (moves []boxMove, levels []mail.Name, err error) {
	if _, err := s.o.Layout.DirOf(to); err != nil {
		return nil, nil, err
	}
	known, err := s.records()
	if err != nil {
		return nil, nil, err
	}
	for name, rec := range known {
		if name == to || name.IsBelow(to) {
			return nil, nil, store.ErrExists
		}
		name, moved := name.Moved(from, to)
		if !moved {
			continue
		}
		m := boxMove{rec: rec, to: name}
		if _, err := s.o.Layout.DirOf(m.to); err != nil {
			return nil, nil, err
		}
		moves = append(moves, m)
	}
	err = s.cat.View(func(tx store.CatalogTx) error {
		for l := range tx.Values(bucketDirectories) {
			if n := mail.Name(l); n == from || n.IsBelow(from) {
				levels = append(levels, n)
			}
		}
		return nil
	})
	if err == nil && len(moves)+len(levels) == 0 {
		err = store.ErrNotFound
	}
	slices.SortFunc(moves, func(a, b boxMove) int { return compareNames(b.rec.Name, a.rec.Name) })
	return moves, levels, err
}

func (s *Store) renameDir(from, to mail.Name) error {
	fromDir, err := s.o.Layout.DirOf(from)
	if err != nil {
		return err
	}
	toDir, err := s.o.Layout.DirOf(to)
	if err != nil {
		return err
	}
	source, oldBase, err := s.openParent(fromDir)
	if err != nil {
		return err
	}
	defer source.Close()
	target, newBase, err := s.openParent(toDir)
	if err != nil {
		return err
	}
	defer target.Close()
	err = source.RenameNew(oldBase, target, newBase)
	if errors.Is(err, fs.ErrExist) {
		if err = s.clearTarget(toDir); err == nil {
			err = source.RenameNew(oldBase, target, newBase)
		}
	}
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("%w: %w", store.ErrExists, err)
		}
		if notExist(err) {
			err = fmt.Errorf("%w: %w", store.ErrNotFound, err)
		}
		return err
	}
	return errors.Join(source.Sync(), target.Sync())
}

// clearTarget removes a directory that is in the way of a mailbox and is none. What it cannot remove stays in the way.
func (s *Store) clearTarget(dir string) error {
	if err := s.clearRemains(dir); err != nil {
		return err
	}
	parent, base, err := s.openParent(dir)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := parent.RemoveDir(base); err != nil && !errors.Is(err, fs.ErrExist) {
		return ignoreGone(err)
	}
	return nil
}

// Reserve implements [store.Store].
func (s *Store) Reserve(_ context.Context, guid mail.MailboxGUID, next mail.UID) error {
	if _, err := s.record(guid); err != nil {
		return fmt.Errorf("reserve UIDs: %w", err)
	}
	return s.cat.Update(func(tx store.CatalogTx) error {
		return tx.SetValue(bucketReserved, guid.String(), binary.BigEndian.AppendUint32(nil, uint32(next)))
	})
}

// SetGUID implements [store.Store].
func (s *Store) SetGUID(ctx context.Context, from, to mail.MailboxGUID) error {
	rec, err := s.record(from)
	if err != nil {
		return fmt.Errorf("set GUID: %w", err)
	}
	if _, err := s.record(to); err == nil || to.IsZero() {
		return fmt.Errorf("set GUID of %s to %s: %w", describe(rec.Name), to, store.ErrExists)
	}
	dir, err := s.o.Layout.DirOf(rec.Name)
	if err != nil {
		return err
	}
	if err := s.writeGUID(ctx, dir, to); err != nil {
		return fmt.Errorf("set GUID of %s: %w", describe(rec.Name), gone(err))
	}
	// A crash here leaves a mailbox with another GUID than the catalog knows; Refresh recognises it by its mails.
	delete(s.lists, from)
	return s.cat.Update(func(tx store.CatalogTx) error { return rekey(tx, rec, to) })
}

// rekey gives a mailbox another GUID. Its uidlist has to be read again: a power cut may bring back the one with the GUID that it had,
// if the name of that which took its place was not on disk, and so what the record says of the file.
func rekey(tx store.CatalogTx, rec store.MailboxRecord, to mail.MailboxGUID) error {
	from, sig := rec.Status.GUID, decodeSignature(rec.Signature)
	sig.dirty, sig.list = true, fileSignature{}
	rec.Status.GUID, rec.Signature = to, sig.encode()
	return errors.Join(tx.Rekey(from, to), cameBack(tx, to), tx.PutMailbox(rec))
}

// writeGUID rewrites the uidlist of a mailbox with another mailbox GUID.
func (s *Store) writeGUID(ctx context.Context, dir string, guid mail.MailboxGUID) error {
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	release, err := s.locks.acquireExclusive(ctx, d)
	if err != nil {
		return err
	}
	defer release()
	list, err := openUIDList(d)
	if err != nil {
		return err
	}
	defer list.Close()
	err = replaceUIDList(d, s.fileMode(d), func(w *uidlistWriter) error {
		u, err := list.read()
		if err != nil {
			return err
		}
		head := u.header
		head.guid = guid
		if err := w.writeHeader(head); err != nil {
			return err
		}
		for {
			row, ok, err := nextRow(u)
			if err != nil || !ok {
				return err
			}
			if err := w.write(row.uid, row.fields, row.base); err != nil {
				return err
			}
		}
	})
	if err := s.wrote(d, uidlistName, err); err != nil {
		return err
	}
	return s.touchCur(d)
}

// touchCur makes a running Dovecot look at the uidlist again.
func (s *Store) touchCur(box vfs.Dir) error {
	return s.wrote(box, "cur", ignoreGone(box.SetTimes("cur", s.o.Clock())))
}
