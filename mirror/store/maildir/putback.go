package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// This file has what becomes of a mailbox whose deletion does not come to its end: it goes back to where it was, with all that
// is in it. If its name was taken meanwhile, it is joined with what has it, or gets another name. It is safe to be killed
// anywhere here, and to put back what another process is about to delete: that finds it gone and gives up.

// putBackAll puts back what earlier processes, or attempts, left in tmp/.
func (s *Store) putBackAll(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	tmp, err := s.openTmp(s.ns)
	if err != nil {
		return err
	}
	defer tmp.Close()
	for _, trying := range names {
		guid, _ := parseBoxTemp(tryingKind, trying)
		name, err := s.nameOf(ctx, guid)
		if err == nil {
			err = s.putBack(ctx, tmp, trying, name)
		}
		if err != nil {
			return fmt.Errorf("put back the mailbox in tmp/%s: %w", trying, err)
		}
	}
	return nil
}

// nameOf returns the name of a mailbox that lies in tmp/: the one that the catalog knows, or, if that was lost, the one of a
// directory that still has its uidlist, or a new one.
func (s *Store) nameOf(ctx context.Context, guid mail.MailboxGUID) (mail.Name, error) {
	rec, err := s.record(guid)
	if err == nil {
		return rec.Name, nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return "", err
	}
	tree, err := s.walk(ctx, func(mail.Name) bool { return false })
	if err != nil {
		return "", err
	}
	for _, p := range tree.boxes {
		if same, err := s.hasGUID(p.dir, guid); err != nil || same {
			return p.name, err
		}
	}
	return "Recovered", nil
}

// hasGUID reports whether the uidlist in a directory is that of a mailbox.
func (s *Store) hasGUID(dir string, guid mail.MailboxGUID) (bool, error) {
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return false, ignoreGone(err)
	}
	defer d.Close()
	head, err := readHeader(d)
	return head != nil && head.guid == guid, err
}

// putBack gives what is trying in tmp/ its place again.
func (s *Store) putBack(ctx context.Context, tmp vfs.Dir, trying string, name mail.Name) error {
	if err := tmp.RemoveDir(trying); err == nil || notExist(err) {
		return nil // it had nothing in it yet, or is back already
	}
	dir, err := s.o.Layout.DirOf(name)
	if err != nil {
		return err
	}
	parent, base, err := s.openParent(dir)
	if err != nil {
		return err
	}
	defer parent.Close()
	err = tmp.RenameNew(trying, parent, base)
	switch {
	case err == nil:
		s.log.Warn("put back a mailbox whose deletion was cut short", "mailbox", string(name))
		return errors.Join(parent.Sync(), tmp.Sync())
	case !errors.Is(err, fs.ErrExist):
		return ignoreGone(err)
	}
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
	to, err := s.ns.OpenDir(dir)
	if err != nil {
		return err
	}
	defer to.Close()
	return s.returnParts(tmp, trying, to, name)
}

// returnParts moves what is trying into the directory that has its name, whose lock is held, and what does not fit there to
// another name.
func (s *Store) returnParts(tmp vfs.Dir, trying string, to vfs.Dir, name mail.Name) error {
	from, err := s.ns.OpenDir("tmp/" + trying)
	if err != nil {
		return ignoreGone(err)
	}
	defer from.Close()
	guid, _ := parseBoxTemp(tryingKind, trying)
	fit, err := fits(from, to, guid)
	if err != nil {
		return err
	}
	if fit {
		s.log.Warn("put back the parts of a mailbox whose deletion was cut short", "mailbox", string(name))
		if err := s.mergeBox(from, to); err != nil {
			return err
		}
		if err := errors.Join(to.Sync(), from.Sync()); err != nil {
			return err
		}
		if err := tmp.RemoveDir(trying); err == nil || notExist(err) {
			return tmp.Sync()
		}
	}
	return s.putAside(tmp, trying, name)
}

// fits reports whether the directory to is, or can be, that of the mailbox of which from has parts.
func fits(from, to vfs.Dir, guid mail.MailboxGUID) (bool, error) {
	for _, name := range []string{uidlistName, keywordsName} {
		_, err := from.Stat(name)
		_, terr := to.Stat(name)
		if err == nil && terr == nil {
			return false, nil
		}
		if err := errors.Join(ignoreGone(err), ignoreGone(terr)); err != nil {
			return false, err
		}
	}
	head, err := readHeader(to)
	return head == nil || head.guid == guid, err
}

// mergeBox moves what is in one directory into another, cur last. What has its name there already stays, but for what a
// mailbox can do without.
func (s *Store) mergeBox(from, to vfs.Dir) error {
	parts := make(map[string]vfs.Type)
	var names []string
	err := from.Names(func(name string, typ vfs.Type) error {
		parts[name] = typ
		names = append(names, name)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(b, a) })
	if i := slices.Index(names, "cur"); i >= 0 {
		names = append(slices.Delete(names, i, i+1), "cur")
	}
	for _, name := range names {
		err := from.RenameNew(name, to, name)
		if errors.Is(err, fs.ErrExist) {
			switch {
			case parts[name] == vfs.Directory:
				err = s.mergeDir(from, to, name)
			case strings.HasPrefix(name, "dovecot") || name == "maildirfolder":
				err = from.Remove(name)
			default:
				err = nil
			}
		}
		if err := ignoreGone(err); err != nil {
			return err
		}
	}
	return nil
}

// mergeDir moves the files of one of the directories of a mailbox into that of another one.
func (s *Store) mergeDir(from, to vfs.Dir, name string) error {
	source, err := s.ns.OpenDir(joinPath(from.Path(), name))
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := s.ns.OpenDir(joinPath(to.Path(), name))
	if err != nil {
		return err
	}
	defer target.Close()
	var files []string
	if err := source.Names(func(file string, _ vfs.Type) error { files = append(files, file); return nil }); err != nil {
		return err
	}
	left := false
	for _, file := range files {
		err := source.RenameNew(file, target, file)
		if errors.Is(err, fs.ErrExist) {
			left, err = true, nil
		}
		if err := ignoreGone(err); err != nil {
			return err
		}
	}
	if err := errors.Join(target.Sync(), source.Sync()); err != nil || left {
		return err
	}
	return from.RemoveDir(name)
}

// putAside makes what is trying a mailbox of another name.
func (s *Store) putAside(tmp vfs.Dir, trying string, name mail.Name) error {
	guid, _ := parseBoxTemp(tryingKind, trying)
	for n := 1; ; n++ {
		other := mail.Name(fmt.Sprintf("%s-recovered-%.8s-%d", name, guid, n))
		dir, err := s.o.Layout.DirOf(other)
		if errors.Is(err, store.ErrName) && name != "Recovered" { // too long
			name = "Recovered"
			continue
		}
		if err != nil {
			return err
		}
		parent, base, err := s.openParent(dir)
		if err != nil {
			return err
		}
		err = tmp.RenameNew(trying, parent, base)
		if err == nil {
			s.log.Warn("put back a mailbox whose name was taken", "mailbox", string(name), "as", string(other))
			err = errors.Join(parent.Sync(), tmp.Sync())
		}
		if cerr := parent.Close(); !errors.Is(err, fs.ErrExist) {
			return errors.Join(ignoreGone(err), cerr)
		}
	}
}
