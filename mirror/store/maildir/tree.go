package maildir

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir/dovecotlog"
	"dsyncfs/mirror/vfs"
)

// Tree implements [store.Store].
func (s *Store) Tree(ctx context.Context) ([]mail.Mailbox, []mail.Deletion, error) {
	nodes := make(map[mail.Name]mail.Mailbox)
	var deletions []mail.Deletion
	err := s.cat.View(func(tx store.CatalogTx) error {
		for rec, err := range tx.Mailboxes() {
			if err != nil {
				return err
			}
			nodes[rec.Name] = mail.Mailbox{Name: rec.Name, Existence: mail.Exists, Status: rec.Status, Renamed: rec.Renamed}
		}
		for name, value := range tx.Values(bucketDirectories) {
			if _, there := nodes[mail.Name(name)]; !there {
				nodes[mail.Name(name)] = mail.Mailbox{Name: mail.Name(name), Existence: mail.Exists, Renamed: decodeTime(value)}
			}
		}
		for name, value := range tx.Values(bucketSubscriptions) {
			n, ok := nodes[mail.Name(name)]
			n.Subscribed, n.SubscriptionChanged = decodeSubscription(value)
			if !ok && !n.Subscribed {
				continue
			}
			n.Name = mail.Name(name)
			nodes[n.Name] = n
		}
		for key, value := range tx.Values(bucketDeleted) {
			d, err := parseDeletion(key, value)
			if err != nil {
				return err
			}
			deletions = append(deletions, d)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for name := range maps.Clone(nodes) {
		for p := name.Parent(); p != ""; p = p.Parent() {
			if _, there := nodes[p]; !there {
				nodes[p] = mail.Mailbox{Name: p}
			}
		}
	}
	return sortedTree(nodes), deletions, nil
}

// sortedTree lists parents before children and siblings in byte order.
func sortedTree(nodes map[mail.Name]mail.Mailbox) []mail.Mailbox {
	out := slices.Collect(maps.Values(nodes))
	slices.SortFunc(out, func(a, b mail.Mailbox) int {
		return slices.Compare(a.Name.Parts(), b.Name.Parts())
	})
	return out
}

// record returns what the catalog knows of a mailbox; the error is store.ErrNotFound if it is nothing.
func (s *Store) record(guid mail.MailboxGUID) (rec store.MailboxRecord, err error) {
	err = s.cat.View(func(tx store.CatalogTx) error {
		var found bool
		rec, found, err = tx.Mailbox(guid)
		if err == nil && !found {
			err = fmt.Errorf("mailbox %s: %w", guid, store.ErrNotFound)
		}
		return err
	})
	return rec, err
}

// records returns all mailboxes by name.
func (s *Store) records() (map[mail.Name]store.MailboxRecord, error) {
	out := make(map[mail.Name]store.MailboxRecord)
	err := s.cat.View(func(tx store.CatalogTx) error {
		for rec, err := range tx.Mailboxes() {
			if err != nil {
				return err
			}
			out[rec.Name] = rec
		}
		return nil
	})
	return out, err
}

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
		return fmt.Errorf("create %s: %w", describe(name), err)
	}
	rec := store.MailboxRecord{Name: name, Renamed: s.now(), LogStart: 1, Signature: signature{dirty: true}.encode()}
	rec.Status = mail.Status{GUID: guid, UIDValidity: validity, UIDNext: 1, FirstRecent: 1, HighestModSeq: 1}
	return s.cat.Update(func(tx store.CatalogTx) error {
		for _, d := range []mail.Deletion{{Kind: mail.DeletedMailbox, ID: mail.GUID128(guid)}, {Kind: mail.DeletedDirectory, ID: s.nameHash(name)}} {
			if err := tx.SetValue(bucketDeleted, deletionKey(d), nil); err != nil {
				return err
			}
		}
		if err := tx.SetValue(bucketDirectories, string(name), nil); err != nil {
			return err
		}
		return tx.PutMailbox(rec)
	})
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
		return fmt.Errorf("delete %s: %w", describe(rec.Name), err)
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
			return s.trashParts(rec, dir, tmp, temp)
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
	if err := s.holdAll(rec, "tmp/"+temp); err != nil {
		return err
	}
	return parent.Sync()
}

// trashParts moves what makes a directory a mailbox away.
func (s *Store) trashParts(rec store.MailboxRecord, dir string, tmp vfs.Dir, temp string) error {
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
		if name == "cur" || name == "new" || name == "tmp" || strings.HasPrefix(name, "dovecot") && name != lockName {
			parts = append(parts, name)
		}
		return nil
	})
	slices.Sort(parts) // cur first: without it this is no mailbox
	for i := 0; i < len(parts) && err == nil; i++ {
		err = ignoreGone(from.Rename(parts[i], to, parts[i]))
	}
	if err != nil {
		return err
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

// Rename implements [store.Store]. With Maildir++ each mailbox below moves by a rename of its own, children first, so that a
// crash leaves every mailbox under one of its two names; Refresh finds them by their GUIDs.
func (s *Store) Rename(ctx context.Context, from, to mail.Name) error {
	from, to = from.FoldInbox(), to.FoldInbox()
	if err := s.rename(from, to); err != nil {
		return fmt.Errorf("rename %q to %q: %w", string(from), string(to), err)
	}
	return nil
}

func (s *Store) rename(from, to mail.Name) error {
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
	now := s.now()
	s.logName(dovecotlog.Rename, to, now)
	return s.cat.Update(func(tx store.CatalogTx) error {
		for _, m := range moves {
			m.rec.Name = m.to
			if m.to == to {
				m.rec.Renamed = now
			}
			if err := tx.PutMailbox(m.rec); err != nil {
				return err
			}
		}
		for _, l := range levels {
			if err := tx.SetValue(bucketDirectories, string(l), nil); err != nil {
				return err
			}
			if err := tx.SetValue(bucketDirectories, string(to+l[len(from):]), encodeTime(now)); err != nil {
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
		if name != from && !name.IsBelow(from) {
			continue
		}
		m := boxMove{rec: rec, to: to + name[len(from):]}
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
	if err := source.RenameNew(oldBase, target, newBase); err != nil {
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
		return fmt.Errorf("set GUID of %s: %w", describe(rec.Name), err)
	}
	// A crash here leaves a mailbox with another GUID than the catalog knows; Refresh recognises it by its mails.
	delete(s.lists, from)
	return s.cat.Update(func(tx store.CatalogTx) error {
		if err := tx.Rekey(from, to); err != nil {
			return err
		}
		rec.Status.GUID = to
		sig := decodeSignature(rec.Signature)
		sig.dirty = true
		rec.Signature = sig.encode()
		return tx.PutMailbox(rec)
	})
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
	if err != nil {
		return err
	}
	return s.touchCur(d)
}

// touchCur makes a running Dovecot look at the uidlist again.
func (s *Store) touchCur(box vfs.Dir) error {
	return ignoreGone(box.SetTimes("cur", s.o.Clock()))
}

func decodeSubscription(value []byte) (subscribed bool, changed int64) {
	if len(value) != 9 {
		return false, 0
	}
	return value[0] == '1', int64(binary.BigEndian.Uint64(value[1:]))
}

func encodeSubscription(subscribed bool, changed int64) []byte {
	flag := byte('0')
	if subscribed {
		flag = '1'
	}
	return binary.BigEndian.AppendUint64([]byte{flag}, uint64(changed))
}
