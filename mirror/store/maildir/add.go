package maildir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// addition is one mail that a batch adds, and where it comes from.
type addition struct {
	store.Add
	uid  mail.UID
	base string
	own  *store.MessageRecord // a message of this mailbox that is expunged by the batch: its file stays and gets the new UID

	staged        string // in tmp/ of the mailbox; also a copy that we had to make
	dir           vfs.Dir
	name          string // what is to be linked, in dir
	size, virtual int64
}

// prepareAdds finds the sources of the new mails and chooses their UIDs and base names. A mail whose source is gone is
// reported as vanished; the next round brings it again.
func (a *apply) prepareAdds(ctx context.Context) error {
	top := a.next
	for _, add := range a.b.Adds {
		top = max(top, add.Message.UID+1)
	}
	taken := make(map[string]struct{})
	for _, add := range a.b.Adds {
		d := &addition{Add: add, uid: add.Message.UID}
		err := a.findSource(ctx, d)
		if errors.Is(err, store.ErrNotFound) || notExist(err) {
			a.res.Vanished = append(a.res.Vanished, add.Message.UID)
			continue
		}
		if err != nil {
			return err
		}
		if _, taken := a.taken[d.uid]; taken && !a.expunges(d.uid) || d.uid == 0 || d.uid < a.first && !a.newUIDs() {
			d.uid = top
			a.res.Reassigned = append(a.res.Reassigned, store.Assigned{Wanted: add.Message.UID, Got: d.uid})
		}
		if d.uid > mail.MaxUID {
			return fmt.Errorf("UID %d is too high", d.uid)
		}
		a.taken[d.uid] = struct{}{}
		top = max(top, d.uid+1)
		if !storableGUID(d.Message.GUID) {
			d.Message.GUID = "" // becomes the base name
		}
		if d.own != nil {
			d.base = baseOf(d.own.File)
		} else {
			d.base = a.chooseBase(d, taken)
		}
		if d.Message.GUID == "" {
			d.Message.GUID = guidOfBase([]byte(d.base))
		}
		a.adds = append(a.adds, d)
	}
	return nil
}

// inherit fills in what the batch leaves open and the copied message has.
func (d *addition) inherit(m mail.Message) {
	d.Message.Received = cmp.Or(d.Message.Received, m.Received)
	d.Message.Saved = cmp.Or(d.Message.Saved, m.Saved)
	d.Message.POP3UIDL = cmp.Or(d.Message.POP3UIDL, m.POP3UIDL)
	d.Message.POP3Order = cmp.Or(d.Message.POP3Order, m.POP3Order)
}

// chooseBase picks the base name of a new file: its GUID, so that a crash cannot part the two, if that can be a file name,
// tells no wrong sizes, and was never used in this mailbox; else a fresh one.
func (a *apply) chooseBase(d *addition, taken map[string]struct{}) string {
	guid := string(d.Message.GUID)
	used := len(a.list.bases.find(hashBase([]byte(guid)))) > 0
	_, again := taken[guid]
	if !used && !again && usableBase(guid, d.size, d.virtual) {
		taken[guid] = struct{}{}
		return guid
	}
	return a.freshBase(d)
}

func (a *apply) freshBase(d *addition) string {
	base := a.s.uniqueName()
	if d.size >= 0 {
		base += fmt.Sprintf(",S=%d", d.size)
	}
	if d.virtual >= 0 {
		base += fmt.Sprintf(",W=%d", d.virtual)
	}
	return base
}

// usableBase reports whether a GUID can be the base name of a file of these sizes. A GUID that comes from a Maildir often is
// a name with sizes in it, which must be true here as well.
func usableBase(guid string, size, virtual int64) bool {
	f, ok := mail.ParseFileName(guid)
	if !ok || f.Base != guid || f.HasInfo || len(guid) > mail.MaxGUID {
		return false
	}
	for i := 0; i < len(guid); i++ {
		if guid[i] <= ' ' || guid[i] >= 0x7f {
			return false
		}
	}
	s, w := f.Sizes()
	return (s < 0 || s == size) && (w < 0 || w == virtual)
}

// findSource opens what an addition is made from.
func (a *apply) findSource(ctx context.Context, d *addition) error {
	switch {
	case d.Staged != "":
		a.m.mu.Lock()
		st, ok := a.m.staged[d.Staged]
		a.m.mu.Unlock()
		if !ok {
			return fmt.Errorf("staged mail %q: %w", string(d.Staged), store.ErrNotFound)
		}
		d.staged, d.size, d.virtual = string(d.Staged), st.size, st.virtual
		return nil
	case d.From.Held != "":
		path, name, err := splitHeld(d.From.Held)
		if err != nil {
			return err
		}
		dir, err := a.heldDir(path)
		if err != nil {
			return err
		}
		a.s.held.mu.Lock()
		d.inherit(a.s.held.mails[d.Message.GUID].message)
		a.s.held.mu.Unlock()
		return a.linkFrom(ctx, d, dir, name, -1)
	case d.From.Mailbox == a.rec.Status.GUID && a.expunges(d.From.UID):
		r := a.known[d.From.UID]
		d.inherit(r.Message)
		if _, again := a.renumbered[r.UID]; !again {
			d.own, d.size, d.virtual = &r, r.Size, r.VirtualSize
			a.renumbered[r.UID] = struct{}{}
			return nil
		}
	}
	return a.fromMailbox(ctx, d)
}

// expunges reports whether the batch expunges a message.
func (a *apply) expunges(uid mail.UID) bool {
	guid, named := a.expunging[uid]
	r, ok := a.known[uid]
	return named && ok && (guid == "" || guid == r.GUID)
}

// fromMailbox finds the file of a message that is here already.
func (a *apply) fromMailbox(ctx context.Context, d *addition) error {
	from, err := a.source(d.From.Mailbox)
	if err != nil {
		return err
	}
	r, found := a.known[d.From.UID]
	if d.From.Mailbox != a.rec.Status.GUID {
		err = a.s.cat.View(func(tx store.CatalogTx) (err error) {
			r, found, err = tx.Message(d.From.Mailbox, d.From.UID)
			return err
		})
	}
	if err == nil && !found {
		err = store.ErrNotFound
	}
	if err != nil {
		return err
	}
	d.inherit(r.Message)
	b, err := from.openFile(ctx, r.File) // also finds its present name
	if err != nil {
		return err
	}
	file := b.path
	if err := b.Close(); err != nil {
		return err
	}
	dir, name := from.ns.of(file)
	if dir == nil {
		return store.ErrNotFound
	}
	return a.linkFrom(ctx, d, dir, name, r.VirtualSize)
}

// source returns a mailbox that mails are taken from. It is closed with the batch.
func (a *apply) source(guid mail.MailboxGUID) (*mailbox, error) {
	if m, ok := a.sources[guid]; ok {
		return m, nil
	}
	m, err := a.s.open(guid)
	if err == nil {
		a.sources[guid] = m
	}
	return m, err
}

// heldDir returns the directory of a kept mail. It is closed with the batch.
func (a *apply) heldDir(path string) (vfs.Dir, error) {
	if d, ok := a.heldDirs[path]; ok {
		return d, nil
	}
	d, err := a.s.ns.OpenDir(path)
	if err == nil {
		a.heldDirs[path] = d
	}
	return d, err
}

func (a *apply) closeSources() error {
	var errs []error
	for _, m := range a.sources {
		errs = append(errs, m.Close())
	}
	for _, d := range a.heldDirs {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// linkFrom lets the addition be a hard link of a file. A link shares the date, so a mail with another one is copied.
func (a *apply) linkFrom(ctx context.Context, d *addition, dir vfs.Dir, name string, virtual int64) error {
	info, err := dir.Stat(name)
	if err == nil && info.Type != vfs.Regular {
		err = store.ErrNotFound
	}
	if err != nil {
		return err
	}
	if info.Mtime.Unix() != d.Message.Received {
		return a.copyFrom(ctx, d, dir, name)
	}
	d.dir, d.name, d.size, d.virtual = dir, name, info.Size, virtual
	return nil
}

// copyFrom stages a copy of a file.
func (a *apply) copyFrom(ctx context.Context, d *addition, dir vfs.Dir, name string) error {
	b, err := openBody(dir, name)
	if err != nil {
		return err
	}
	defer b.Close()
	staged, err := a.m.Stage(ctx, d.Message, b)
	if err != nil {
		return err
	}
	f, err := a.m.d.tmp.Open(string(staged))
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	d.Staged, d.From = staged, store.Location{}
	return a.findSource(ctx, d)
}

// noteStaged is writeNotes for the staged mails of a peer, before it is known whether they will get the names that they should.
func (a *apply) noteStaged() error {
	if a.b.Peer == "" {
		return nil
	}
	notes := make(map[string]pendingMail)
	for _, add := range a.b.Adds {
		a.m.mu.Lock()
		st, ok := a.m.staged[add.Staged]
		a.m.mu.Unlock()
		if guid := string(add.Message.GUID); ok && storableGUID(add.Message.GUID) && usableBase(guid, st.size, st.virtual) {
			notes[pendingKey(a.m.rec.Status.GUID, guid)] = a.noteOn(add.Message)
		}
	}
	if len(notes) == 0 {
		return nil
	}
	err := a.s.cat.Update(func(tx store.CatalogTx) error {
		for key, p := range notes {
			// A note of another mail under this name is of a file that is there: the name is taken.
			other, found, err := loadNote(tx, key)
			switch {
			case err != nil:
				return err
			case found && other.GUID != p.GUID:
				delete(notes, key)
			default:
				if err := putJSON(tx, bucketPending, key, p); err != nil {
					return err
				}
			}
		}
		return nil
	})
	a.noted = make(map[string]struct{}, len(notes))
	for key := range notes {
		a.noted[key] = struct{}{}
		a.notes = append(a.notes, key)
	}
	return err
}

// writeNotes makes the notes of mails whose file does not say all that a refresh after a crash would have to know, and drops those
// of noteStaged that are of names which the mails did not get. See pendingMail.
func (a *apply) writeNotes(context.Context) error {
	notes := make(map[string]pendingMail)
	for _, d := range a.adds {
		key := pendingKey(a.rec.Status.GUID, d.base)
		if _, done := a.noted[key]; done {
			delete(a.noted, key)
			continue
		}
		m := d.Message
		if string(m.GUID) != d.base || m.POP3UIDL != "" || m.POP3Order != 0 || a.b.Peer != "" && d.own == nil {
			notes[key] = a.noteOn(m)
			a.notes = append(a.notes, key)
		}
	}
	if len(notes)+len(a.noted) == 0 {
		return nil
	}
	return a.s.cat.Update(func(tx store.CatalogTx) error {
		for key := range a.noted {
			if err := tx.SetValue(bucketPending, key, nil); err != nil {
				return err
			}
		}
		for key, p := range notes {
			if err := putJSON(tx, bucketPending, key, p); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *apply) noteOn(m mail.Message) pendingMail {
	return pendingMail{GUID: m.GUID, UIDL: m.POP3UIDL, Order: m.POP3Order, Saved: m.Saved, Peer: a.b.Peer}
}

// add makes the new mails appear.
func (a *apply) add(ctx context.Context) error {
	// Files that get another UID come last: until then they can be copied under their old names.
	for _, own := range []bool{false, true} {
		for n, d := range a.adds {
			if n%64 == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if own != (d.own != nil) {
				continue
			}
			if err := a.addOne(ctx, d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *apply) addOne(ctx context.Context, d *addition) error {
	m := d.Message
	m.UID = d.uid
	file := ""
	if d.own != nil {
		r := *d.own
		_, there, err := a.rename(ctx, &r, mail.DeltaBetween(r.Flags, r.Keywords, m.Flags, m.Keywords))
		if err != nil {
			return err
		}
		if !there {
			a.res.Vanished = append(a.res.Vanished, d.own.UID)
			return nil
		}
		a.edits.drop[d.own.UID] = struct{}{}
		file, m.Flags, m.Keywords = r.File, r.Flags, r.Keywords // with what others changed meanwhile
		if m.Received != d.own.Received {
			if err := a.setDate(ctx, file, m.Received); err != nil {
				return err
			}
		}
	} else {
		f := mail.FileName{Base: d.base, Flags: m.Flags, Letters: a.keys.letters(m.Keywords)}
		f.HasInfo = f.Flags != 0 || f.Letters != 0
		var err error
		file, err = a.appear(d, f)
		if notExist(err) { // what it was to be made from went away since it was found
			a.res.Vanished = append(a.res.Vanished, m.UID)
			return nil
		}
		if err != nil {
			return err
		}
		a.quota.bytes += d.size
		a.quota.count++
	}
	if d.staged != "" {
		a.done = append(a.done, store.Staged(d.staged))
	}
	a.enter(d, m, file)
	return nil
}

// appear gives the file of an addition its place and returns it.
func (a *apply) appear(d *addition, f mail.FileName) (file string, err error) {
	to, sub := a.m.ns.new, "new/"
	if f.HasInfo {
		to, sub = a.m.ns.cur, "cur/"
	}
	for try := 0; ; try++ {
		takeBack := a.s.o.Memory.expect(a.m.dir, sub+f.String())
		if d.staged != "" {
			err = a.m.ns.tmp.RenameNew(d.staged, to, f.String())
		} else {
			err = d.dir.Link(d.name, to, f.String())
		}
		if err != nil {
			takeBack()
		}
		if !errors.Is(err, fs.ErrExist) || try == 3 {
			break
		}
		// Someone put a file of that name there.
		d.base = a.freshBase(d)
		f.Base = d.base
	}
	if err != nil {
		return "", fmt.Errorf("add UID %d: %w", d.uid, err)
	}
	if f.HasInfo {
		a.sync.cur = true
	} else {
		a.sync.new = true
	}
	return sub + f.String(), nil
}

// enter adds the line and the record of a mail that has its place.
func (a *apply) enter(d *addition, m mail.Message, file string) {
	fields := recordFields{guid: m.GUID, uidl: m.POP3UIDL, order: m.POP3Order, size: -1, virtual: -1}
	name := mail.FileName{Base: d.base}
	if s, w := name.Sizes(); s < 0 && w < 0 && d.own == nil {
		fields.size, fields.virtual = d.size, d.virtual
	}
	a.edits.inserts = append(a.edits.inserts, uidLine{uid: d.uid, fields: fields.encode(d.base), base: d.base})
	a.next = max(a.next, d.uid+1)
	if d.own == nil {
		a.uids.Brought = append(a.uids.Brought, d.uid)
	} else {
		a.uids.Renumbered = append(a.uids.Renumbered, store.Renumbered{From: d.own.UID, To: d.uid})
	}
	m.Size, m.VirtualSize = d.size, d.virtual
	m.ModSeq = a.nextModSeq(m.ModSeq)
	a.put(store.MessageRecord{Message: m, File: file})
	a.rec.Status.Messages++
	a.res.Changed = true
}
