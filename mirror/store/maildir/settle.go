package maildir

import (
	"errors"
	"fmt"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// settle decides which mailbox of the catalog this is and brings its record and the head of the uidlist together. It
// returns false if that has to wait for the guard.
func (b *boxScan) settle(final bool) (bool, error) {
	l := b.l
	if l.rec != nil && b.list == nil && !l.replaced {
		recognized, err := b.recognize(*l.rec)
		if err != nil {
			return false, err
		}
		if recognized {
			b.restoreList()
		} else {
			l.displaced, l.rec, l.replaced = l.rec, nil, true
		}
	}
	if l.displaced != nil && !l.replaced {
		recognized, err := b.recognize(*l.displaced)
		if err != nil {
			return false, err
		}
		if recognized {
			return b.rekey(final)
		}
		l.replaced = true
	}
	if l.replaced && !final {
		b.r.late = append(b.r.late, l)
		return false, nil
	}
	if l.rec == nil {
		renamed, err := b.renamedWithoutList()
		if err != nil {
			return false, err
		}
		if !renamed {
			return true, b.begin()
		}
	}
	b.rec = *l.rec
	b.rec.Name = l.name
	if b.header.guid.IsZero() {
		b.header.guid = b.rec.Status.GUID
	}
	if b.header.validity != b.rec.Status.UIDValidity {
		return b.changeValidity(final)
	}
	b.next = max(b.next, b.rec.Status.UIDNext)
	return true, nil
}

// recognize reports whether the files here are those of a mailbox that is known: the same directory, or at least one mail
// in common. A directory of the same inode that has another UIDVALIDITY may be a new one, as numbers of inodes that were
// deleted are given out again at once.
func (b *boxScan) recognize(rec store.MailboxRecord) (bool, error) {
	old := decodeSignature(rec.Signature)
	if old.cur.ino != 0 && old.cur.ino == b.sig.cur.ino && (b.list == nil || b.header.validity == rec.Status.UIDValidity) {
		return true, nil
	}
	return b.hasMailOf(rec)
}

// renamedWithoutList finds the mailbox that this one was before it was renamed and its uidlist lost: the one of this directory, or of what a
// removal left of it, among those that are gone, if it has a mail in common.
func (b *boxScan) renamedWithoutList() (bool, error) {
	if b.list != nil {
		return false, nil
	}
	for i, rec := range b.r.gone {
		old := decodeSignature(rec.Signature)
		if !old.sharesDirectory(b.sig) {
			continue
		}
		if common, err := b.hasMailOf(rec); err != nil || !common {
			return false, err
		}
		b.r.gone = slices.Delete(b.r.gone, i, i+1)
		rec.Name, rec.Renamed = b.l.name, max(b.s.now(), rec.Renamed+1)
		b.l.rec, b.l.old, b.old = &rec, old, old
		b.r.changed[b.l.name] = struct{}{}
		b.restoreList()
		return true, b.r.w.putMailbox(rec)
	}
	return false, nil
}

// hasMailOf reports whether a mail of a mailbox is here.
func (b *boxScan) hasMailOf(rec store.MailboxRecord) (bool, error) {
	c := newCursor(b.s.cat, rec.Status.GUID, 0)
	for {
		r, ok, err := c.next()
		if err != nil || !ok {
			return false, err
		}
		if b.files.find([]byte(baseOf(r.File))) >= 0 {
			return true, nil
		}
	}
}

// restoreList lets a lost uidlist be made again from what the catalog knows: with an empty list every message keeps what it
// has.
func (b *boxScan) restoreList() {
	st := b.l.rec.Status
	b.header = uidHeader{version: 3, validity: st.UIDValidity, next: 1, guid: st.GUID}
	b.listNext, b.next, b.rewrite = 1, 1, true
	b.r.note("mailbox %q: its %s was lost and made again", string(b.l.name), uidlistName)
}

// rekey lets the mailbox that is known under this name have the GUID that its uidlist has now.
func (b *boxScan) rekey(final bool) (bool, error) {
	rec := *b.l.displaced
	from := rec.Status.GUID
	if b.l.newGUID || b.header.guid.IsZero() {
		// It is a copy over the old directory, and the GUID is another mailbox's: ours stays.
		b.header.guid, b.rewrite = from, true
	}
	to := b.header.guid
	if to != from {
		if err := errors.Join(b.r.w.flush(), b.syncList()); err != nil {
			return false, err
		}
		if err := b.s.cat.Update(func(tx store.CatalogTx) error { return rekey(tx, rec, to) }); err != nil {
			return false, err
		}
	}
	rec.Status.GUID = to
	b.rec, b.l.rec, b.l.displaced = rec, &rec, nil
	b.cutLog()
	if b.header.validity != rec.Status.UIDValidity {
		return b.changeValidity(final)
	}
	b.next = max(b.next, rec.Status.UIDNext)
	return true, nil
}

// begin makes the record of a mailbox that is new, and draws what its uidlist does not have.
func (b *boxScan) begin() (err error) {
	b.isNew = true
	if b.list == nil {
		if b.header.validity, err = b.s.newValidity(b.r.o.DryRun); err != nil {
			return err
		}
		b.header.version, b.header.next, b.listNext, b.next, b.rewrite = 3, 1, 1, 1, true
	}
	if b.header.guid.IsZero() || b.l.newGUID {
		if b.header.guid, err = b.s.randomGUID(); err != nil {
			return err
		}
		b.rewrite = true
	}
	b.rec = store.MailboxRecord{Name: b.l.name, LogStart: 1, Signature: signature{dirty: true}.encode()}
	b.rec.Status = mail.Status{GUID: b.header.guid, UIDValidity: b.header.validity, UIDNext: 1, FirstRecent: 1, HighestModSeq: 1}
	guid := b.rec.Status.GUID
	if err := b.r.w.add(func(tx store.CatalogTx) error { return cameBack(tx, guid) }); err != nil {
		return err
	}
	return b.r.w.putMailbox(b.rec)
}

// changeValidity takes over another UIDVALIDITY: no UID that was known means anything any more, so all messages are new and
// the log begins here. If mails are missing besides, that has to wait for the guard.
func (b *boxScan) changeValidity(final bool) (bool, error) {
	if !final {
		missing, err := b.countMissing()
		if err != nil {
			return false, err
		}
		if missing > 0 {
			b.r.late = append(b.r.late, b.l)
			return false, nil
		}
	}
	if err := errors.Join(b.r.w.flush(), b.syncList()); err != nil {
		return false, err
	}
	b.cutLog()
	if err := b.dropMessages(); err != nil {
		return false, err
	}
	st := &b.rec.Status
	b.r.note("mailbox %q: UIDVALIDITY is %d and was %d", string(b.l.name), b.header.validity, st.UIDValidity)
	st.UIDValidity, st.UIDNext, st.Messages, st.FirstRecent = b.header.validity, 1, 0, 1
	b.isNew = true
	box, upTo := st.GUID, st.HighestModSeq
	if err := b.r.w.add(func(tx store.CatalogTx) error { return tx.TrimLog(box, upTo) }); err != nil {
		return false, err
	}
	return true, b.r.w.putMailbox(b.rec)
}

func (b *boxScan) countMissing() (n int, err error) {
	c := newCursor(b.s.cat, b.rec.Status.GUID, 0)
	for {
		r, ok, err := c.next()
		if err != nil || !ok {
			return n, err
		}
		if b.files.find([]byte(baseOf(r.File))) < 0 {
			n++
		}
	}
}

// dropMessages forgets all messages, a transaction at a time. A crash in between leaves the old UIDVALIDITY in the record,
// so that the next refresh goes on here.
func (b *boxScan) dropMessages() error {
	box := b.rec.Status.GUID
	b.kin = make(map[int32]identity)
	b.r.w.progress = func() store.MailboxRecord { return b.rec }
	defer func() { b.r.w.progress = nil }()
	for c := newCursor(b.s.cat, box, 0); ; {
		r, ok, err := c.next()
		if err != nil {
			return err
		}
		if !ok {
			return b.r.w.flush()
		}
		b.rec.Status.Messages--
		if err := b.r.w.add(func(tx store.CatalogTx) error { return tx.DropMessage(box, r.UID) }); err != nil {
			return err
		}
		// This is the last chance to see that the file is not that mail any more.
		if i := b.files.find([]byte(baseOf(r.File))); i >= 0 {
			replaced, err := b.renewReplaced(i, r)
			if err != nil {
				return err
			}
			if replaced {
				if err := b.note(i, b.inherited[i].guid); err != nil {
					return err
				}
				continue
			}
			if err := b.denyNote(i); err != nil {
				return err
			}
			if string(r.GUID) != baseOf(r.File) {
				b.kin[i] = identityIn(r)
			}
		}
	}
}

// describe names a mailbox in messages.
func describe(name mail.Name) string { return fmt.Sprintf("mailbox %q", string(name)) }
