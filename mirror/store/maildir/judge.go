package maildir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// missingMail is a known message whose file is not there.
type missingMail struct {
	uid  mail.UID
	guid mail.GUID128
	file string
	lost bool // without a witness, and not found elsewhere
}

// missingBox is what is missing from one mailbox.
type missingBox struct {
	rec   store.MailboxRecord
	mails []missingMail
	sig   signature
	hurry bool
	gone  bool  // the mailbox itself is gone
	late  *look // its scan waits; what is missing is not recorded one by one

	witnessed bool  // that the mailbox is gone
	when      int64 // when it was deleted, as far as known
	restore   bool  // forget instead of expunge
	lost      int   // how many of mails are
	waits     bool  // others are missing, and it is too early to decide
	lately    store.Lost
}

// judge finds out which of what is missing has a witness or only moved, asks the guard about the rest, and records all of it
// if that accepts.
func (r *refresh) judge(ctx context.Context) error {
	if err := r.collect(ctx); err != nil {
		return err
	}
	if len(r.missing) == 0 {
		return nil
	}
	if err := r.findMoved(ctx); err != nil {
		return err
	}
	if err := r.findWitnesses(ctx); err != nil {
		return err
	}
	if err := r.waitForQuiet(); err != nil {
		return err
	}
	if r.o.Guard != nil {
		if err := r.loadLost(); err != nil {
			return err
		}
		if losses := r.losses(); len(losses) > 0 {
			if err := r.o.Guard(losses); err != nil {
				return err
			}
		}
		if err := r.rememberLost(); err != nil {
			return err
		}
	}
	for _, m := range r.missing {
		if err := r.record(m); err != nil {
			return err
		}
	}
	if err := r.w.flush(); err != nil {
		return err
	}
	return r.scanLate(ctx)
}

// collect adds the mailboxes that are gone or in doubt to those from which mails are missing.
func (r *refresh) collect(ctx context.Context) error {
	for _, rec := range r.gone {
		m := &missingBox{rec: rec, gone: true}
		if err := r.addMails(m, func(string) bool { return true }); err != nil {
			return err
		}
		r.missing = append(r.missing, m)
	}
	for _, l := range r.late {
		if l.replaced {
			m := &missingBox{rec: *l.displaced, gone: true, late: l}
			if err := r.addMails(m, func(string) bool { return true }); err != nil {
				return err
			}
			r.missing = append(r.missing, m)
			continue
		}
		// Another UIDVALIDITY with mails missing.
		files, err := r.list(ctx, l.dir)
		if err != nil {
			return err
		}
		m := &missingBox{rec: *l.rec, late: l}
		if err := r.addMails(m, func(base string) bool { return files.find([]byte(base)) < 0 }); err != nil {
			return err
		}
		r.missing = append(r.missing, m)
	}
	slices.SortFunc(r.missing, func(a, b *missingBox) int { return compareNames(a.rec.Name, b.rec.Name) })
	for _, m := range r.missing {
		m.restore = r.o.Restore != nil && r.o.Restore(m.rec.Name)
	}
	return nil
}

func (r *refresh) list(ctx context.Context, dir string) (*listing, error) {
	d, err := openDirs(r.s.fs, dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.scan(ctx)
}

// addMails adds the messages of a mailbox whose base names are chosen.
func (r *refresh) addMails(m *missingBox, chosen func(base string) bool) error {
	c := newCursor(r.s.cat, m.rec.Status.GUID, 0)
	for {
		rec, ok, err := c.next()
		if err != nil || !ok {
			return err
		}
		if chosen(baseOf(rec.File)) {
			m.mails = append(m.mails, missingMail{uid: rec.UID, guid: rec.GUID.Hash128(), file: rec.File})
		}
	}
}

// findWitnesses counts what nobody saw going.
func (r *refresh) findWitnesses(ctx context.Context) error {
	elsewhere := make(map[uint64]bool) // by key of the name: of what has no witness, whether it turned up
	for _, m := range r.missing {
		if m.restore {
			continue
		}
		seen, err := r.s.witnesses(m)
		if err != nil {
			return err
		}
		m.witnessed = m.gone && (!seen.deleted.IsZero() || r.s.held.wasTrashed(m.rec.Status.GUID) || r.o.Witness != nil && r.o.Witness(m.rec.Name, ""))
		if !seen.deleted.IsZero() {
			m.when = seen.deleted.Unix()
		}
		if m.witnessed {
			continue
		}
		for i := range m.mails {
			mm := &m.mails[i]
			base := baseOf(mm.file)
			if seen.expunged(*mm) || r.s.held.wasHeld(m.rec.Status.GUID, mm.uid) || r.o.Witness != nil && r.o.Witness(m.rec.Name, base) {
				continue
			}
			mm.lost = true
			elsewhere[mm.key()] = false
		}
	}
	if err := r.findElsewhere(ctx, elsewhere); err != nil {
		return err
	}
	for _, m := range r.missing {
		for i := range m.mails {
			mm := &m.mails[i]
			if mm.lost = mm.lost && !elsewhere[mm.key()]; mm.lost {
				m.lost++
			}
		}
	}
	return nil
}

// key is what a mail is known by if it moved.
func (mm *missingMail) key() uint64 { return moveKey([]byte(baseOf(mm.file))) }

// findElsewhere marks the keys of mails that are in another mailbox now. It reads the whole catalog, so it is not done for
// nothing.
func (r *refresh) findElsewhere(ctx context.Context, keys map[uint64]bool) error {
	if len(keys) == 0 || r.o.Guard == nil {
		return nil
	}
	var boxes []mail.MailboxGUID
	err := r.s.cat.View(func(tx store.CatalogTx) error {
		for rec, err := range tx.Mailboxes() {
			if err != nil {
				return err
			}
			boxes = append(boxes, rec.Status.GUID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, box := range boxes {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.findIn(box, keys); err != nil {
			return err
		}
	}
	return r.findInDoubt(ctx, keys)
}

// findInDoubt is findElsewhere for directories that have yet to be scanned: the catalog does not have what came into them.
func (r *refresh) findInDoubt(ctx context.Context, keys map[uint64]bool) error {
	for _, l := range r.late {
		files, err := r.list(ctx, l.dir)
		if err != nil {
			return err
		}
		for i := range files.entries {
			key := moveKey(files.base(int32(i)))
			if _, wanted := keys[key]; wanted {
				keys[key] = true
			}
		}
	}
	return nil
}

func (r *refresh) findIn(box mail.MailboxGUID, keys map[uint64]bool) error {
	absent := make(map[mail.UID]struct{})
	for _, m := range r.missing {
		if m.rec.Status.GUID != box {
			continue
		}
		for _, mm := range m.mails {
			absent[mm.uid] = struct{}{}
		}
	}
	c := newCursor(r.s.cat, box, 0)
	for {
		rec, ok, err := c.next()
		if err != nil || !ok {
			return err
		}
		if _, gone := absent[rec.UID]; gone {
			continue
		}
		if key := moveKey([]byte(baseOf(rec.File))); !keys[key] {
			if _, wanted := keys[key]; wanted {
				keys[key] = true
			}
		}
	}
}

func (r *refresh) losses() (out []store.Loss) {
	for _, m := range r.missing {
		if m.restore || m.witnessed || m.lost == 0 && !m.gone {
			continue
		}
		lately := m.lately.Since(r.s.o.Clock(), r.o.Lately)
		out = append(out, store.Loss{Mailbox: m.rec.Name, Known: int(m.rec.Status.Messages) + lately, Missing: m.lost + lately, Gone: m.gone})
	}
	return out
}

// record records the expunges from one mailbox, or its end.
func (r *refresh) record(m *missingBox) error {
	r.changed[m.rec.Name] = struct{}{}
	switch {
	case m.gone:
		return r.recordDeletion(m)
	case m.late != nil:
		return nil // the scan drops them all
	}
	if m.restore {
		if err := r.forgetExpunges(m); err != nil {
			return err
		}
	}
	box, st, now := m.rec.Status.GUID, &m.rec.Status, r.s.now()
	for _, mm := range m.mails {
		st.Messages--
		st.HighestModSeq++
		entry := store.LogEntry{ModSeq: st.HighestModSeq, Kind: store.LogExpunge, UID: mm.uid, GUID128: mm.guid, Time: now}
		err := r.w.add(func(tx store.CatalogTx) error {
			if err := tx.DropMessage(box, entry.UID); err != nil || m.restore {
				return err
			}
			return tx.AppendLog(box, entry)
		})
		if err != nil {
			return err
		}
	}
	if m.restore {
		m.rec.LogStart = st.HighestModSeq
		r.note("%s: %d missing mails are to be restored", describe(m.rec.Name), len(m.mails))
	} else {
		r.report.Expunged += len(m.mails)
	}
	m.sig.dirty = m.hurry || m.waits
	m.rec.Signature = m.sig.encode()
	return r.w.putMailbox(m.rec)
}

// forgetExpunges drops from the log the expunges of mails that are to be restored: of one that had got a new UID it has the end of
// the old one. They would go at a peer that has yet to hear of it. A crash in between brings back what else was expunged.
func (r *refresh) forgetExpunges(m *missingBox) error {
	wanted := make(map[mail.GUID128]struct{}, len(m.mails))
	for _, mm := range m.mails {
		wanted[mm.guid] = struct{}{}
	}
	if err := r.w.flush(); err != nil {
		return err
	}
	box, dropped := m.rec.Status.GUID, false
	var kept []store.LogEntry
	err := r.s.cat.Update(func(tx store.CatalogTx) error {
		for e, err := range tx.Log(box, 0) {
			if err != nil {
				return err
			}
			if _, back := wanted[e.GUID128]; back && e.Kind == store.LogExpunge {
				dropped = true
				continue
			}
			kept = append(kept, e)
		}
		if !dropped {
			return nil
		}
		m.rec.LogStart = m.rec.Status.HighestModSeq
		return errors.Join(tx.TrimLog(box, m.rec.LogStart), tx.PutMailbox(m.rec))
	})
	if err != nil || !dropped {
		return err
	}
	return r.s.cat.Update(func(tx store.CatalogTx) error {
		for _, e := range kept {
			if err := tx.AppendLog(box, e); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *refresh) recordDeletion(m *missingBox) error {
	guid, when := m.rec.Status.GUID, cmp.Or(m.when, r.s.now())
	if err := r.s.noteValidity(m.rec.Status.UIDValidity); err != nil {
		return err
	}
	r.w.unsynced++
	return r.w.add(func(tx store.CatalogTx) error {
		if err := tx.DropMailbox(guid); err != nil {
			return err
		}
		if m.restore {
			return forgetDeletion(tx, guid) // an index of before has it of a mailbox that came back
		}
		if m.rec.Name == mail.Inbox {
			return nil
		}
		return putDeletion(tx, mail.Deletion{Kind: mail.DeletedMailbox, ID: mail.GUID128(guid), Time: when})
	})
}

// scanLate scans the mailboxes whose identity was in doubt, now that the guard has accepted.
func (r *refresh) scanLate(ctx context.Context) error {
	for _, l := range r.late {
		l.displaced = nil
		if l.replaced && l.rec != nil {
			l.rec.Name = l.name
			if err := r.w.putMailbox(*l.rec); err != nil {
				return err
			}
		}
		if _, err := r.scan(ctx, l, true); err != nil {
			return fmt.Errorf("%s: %w", describe(l.name), err)
		}
	}
	return nil
}
