package maildir

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// Kinds of what was a mailbox and lies in the root's tmp/ now. Whether it may be deleted is known only when nobody can deliver
// there any more, so it is moved away first, as trying, and looked at. What held no mail that came meanwhile becomes trash. A
// crash before that leaves what the next Open puts back, a crash after it a witness of the deletion.
const (
	tryingKind = "trying"
	trashKind  = "delete"
)

// boxTempName returns the name in tmp/ for what was a mailbox.
func (s *Store) boxTempName(kind string, guid mail.MailboxGUID) string {
	return s.tempName(kind + "-" + guid.String())
}

// parseBoxTemp is the reverse of boxTempName.
func parseBoxTemp(kind, name string) (mail.MailboxGUID, bool) {
	rest, ok := strings.CutPrefix(name, tempPrefix+kind+"-")
	text, _, unique := strings.Cut(rest, "-")
	guid, err := mail.ParseMailboxGUID(text)
	return guid, ok && unique && err == nil
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
	trying := s.boxTempName(tryingKind, rec.Status.GUID)
	below := false
	if s.o.Layout == FS {
		if below, err = s.hasSubdirs(d); err != nil {
			return err
		}
	}
	if below {
		err = s.tryParts(ctx, rec, dir, tmp, trying)
	} else {
		err = s.tryWhole(ctx, rec, dir, tmp, trying)
	}
	if err != nil {
		return err
	}
	s.held.addTrash("tmp/" + trashName(trying))
	return s.holdAll(rec, "tmp/"+trashName(trying))
}

// trashName is the name of what was trying.
func trashName(trying string) string {
	return tempPrefix + trashKind + strings.TrimPrefix(trying, tempPrefix+tryingKind)
}

// tryWhole makes a mailbox directory trash, or leaves it where it is.
func (s *Store) tryWhole(ctx context.Context, rec store.MailboxRecord, dir string, tmp vfs.Dir, trying string) error {
	parent, base, err := s.openParent(dir)
	if err != nil {
		return err
	}
	defer parent.Close()
	err = parent.Rename(base, tmp, trying)
	if err == nil {
		err = s.checkTrash(ctx, rec, "tmp/"+trying)
	}
	if err == nil {
		err = tmp.Rename(trying, tmp, trashName(trying))
	}
	if err != nil {
		return errors.Join(err, s.putBack(ctx, tmp, trying, rec.Name))
	}
	return errors.Join(parent.Sync(), tmp.Sync())
}

// tryParts is tryWhole for what makes a directory a mailbox.
func (s *Store) tryParts(ctx context.Context, rec store.MailboxRecord, dir string, tmp vfs.Dir, trying string) error {
	info, err := tmp.Info()
	if err != nil {
		return err
	}
	if err := tmp.Mkdir(trying, info.Mode&0o777); err != nil {
		return noSpace(err)
	}
	if err := tmp.Sync(); err != nil { // before mail is in it
		return errors.Join(err, tmp.RemoveDir(trying))
	}
	to, err := s.ns.OpenDir("tmp/" + trying)
	if err != nil {
		return err
	}
	defer to.Close()
	from, err := s.ns.OpenDir(dir)
	if err != nil {
		return err
	}
	defer from.Close()
	err = moveParts(from, to)
	if err == nil {
		err = s.checkTrash(ctx, rec, "tmp/"+trying)
	}
	if err == nil {
		err = tmp.Rename(trying, tmp, trashName(trying))
	}
	if err != nil {
		return errors.Join(err, s.returnParts(tmp, trying, from, rec.Name))
	}
	return errors.Join(from.Sync(), to.Sync(), tmp.Sync())
}

// moveParts moves the parts of a mailbox from one directory to another: cur first, without which it is no mailbox.
func moveParts(from, to vfs.Dir) error {
	var parts []string
	err := from.Names(func(name string, _ vfs.Type) error {
		if name == "cur" || name == "new" || name == "tmp" || strings.HasPrefix(name, "dovecot") && name != lockName || isReplacement(name) {
			parts = append(parts, name)
		}
		return nil
	})
	slices.Sort(parts)
	for i := 0; i < len(parts) && err == nil; i++ {
		err = ignoreGone(from.Rename(parts[i], to, parts[i]))
	}
	return err
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
