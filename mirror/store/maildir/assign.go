package maildir

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// appendLimit is how many new lines are appended to a uidlist in one write; more are written as a new file.
const appendLimit = 10_000

// assign gives UIDs to the files that have none, in the order of their delivery, first in the uidlist and then in the
// catalog.
//
// A crash before the uidlist is written leaves everything as it was. A crash after it leaves UIDs in the list that the
// catalog does not have yet, all at or above the UIDNEXT that it knows: the next refresh takes them over.
func (b *boxScan) assign(ctx context.Context) error {
	fresh, err := b.unlisted()
	if err != nil {
		return err
	}
	if len(fresh)+len(b.kept) == 0 && !b.rewrite {
		return b.noteRenumbered()
	}
	if err := b.skipReserved(len(fresh)); err != nil {
		return err
	}
	if uint64(b.next)+uint64(len(fresh)) > uint64(mail.MaxUID) {
		return fmt.Errorf("%s: no UIDs left", describe(b.l.name))
	}
	for _, i := range fresh {
		b.files.entries[i].uid = b.next
		b.next++
	}
	if !b.r.o.DryRun {
		if err := b.translateKeywords(fresh); err != nil {
			return err
		}
		if err := b.writeList(slices.Concat(b.kept, fresh)); err != nil {
			return err
		}
	}
	if b.state != nil {
		for _, i := range slices.Concat(b.kept, fresh) {
			b.state.bases.add(hashBase(b.files.base(i)), b.files.entries[i].uid)
		}
	}
	for n, i := range fresh {
		if n%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := b.add(i, b.files.entries[i].uid, b.identityOf(i), -1); err != nil {
			return err
		}
	}
	if err := b.forgetPending(fresh); err != nil {
		return err
	}
	return b.noteRenumbered()
}

// skipReserved leaves out the UIDs that are reserved, if any are to be given.
func (b *boxScan) skipReserved(fresh int) error {
	if fresh == 0 {
		return nil
	}
	key := b.rec.Status.GUID.String()
	var value []byte
	err := b.s.cat.View(func(tx store.CatalogTx) (err error) {
		value, err = tx.Value(bucketReserved, key)
		return err
	})
	if err != nil || len(value) != 4 {
		return err
	}
	b.next = max(b.next, mail.UID(binary.BigEndian.Uint32(value)))
	return b.r.w.add(func(tx store.CatalogTx) error { return tx.SetValue(bucketReserved, key, nil) }) // UIDNEXT is above them now
}

// unlisted returns the entries without a UID whose files are really there.
func (b *boxScan) unlisted() ([]int32, error) {
	var fresh []int32
	for i := range b.files.entries {
		if b.files.entries[i].uid != 0 {
			continue
		}
		info, there, err := b.stat(int32(i))
		if err != nil {
			return nil, err
		}
		if !there {
			continue
		}
		fresh = append(fresh, int32(i))
		if m, ok := b.r.moved[moveKey(b.files.base(int32(i)))]; ok && m.size == info.Size && m.received == info.Mtime.Unix() {
			b.came[int32(i)] = m
		}
	}
	slices.SortFunc(fresh, func(x, y int32) int {
		return mail.CompareDelivery(string(b.files.base(x)), string(b.files.base(y)))
	})
	return fresh, nil
}

// identityOf returns what is known of a file that gets a UID.
func (b *boxScan) identityOf(i int32) identity {
	base := b.files.base(i)
	if p, _, ok := b.noteOf(base); ok {
		return p.identity()
	}
	if id, ok := b.inherited[i]; ok && storableGUID(id.guid) {
		return id
	}
	if m, ok := b.came[i]; ok && storableGUID(m.guid) {
		return identity{guid: m.guid, saved: m.saved, keywords: m.keywords}
	}
	return identity{guid: guidOfBase(base)}
}

// translateKeywords gives files that came from another mailbox the letters that their keywords have here. Without that a
// mail that a reader moved would show the keywords that happen to have its letters.
func (b *boxScan) translateKeywords(fresh []int32) error {
	table := *b.keys
	table.sets = nil
	added := false
	var wrong []int32
	for _, i := range fresh {
		m, ok := b.came[i]
		if !ok {
			continue
		}
		f, _ := mail.ParseFileName(string(b.files.name(i)))
		added = table.add(m.keywords) || added
		if table.letters(m.keywords) != f.Letters {
			wrong = append(wrong, i)
		}
	}
	if added {
		err := saveKeywords(b.d.box, b.s.fileMode(b.d.box), &table, b.s.o.Clock())
		if err := b.s.wrote(b.d.box, keywordsName, err); err != nil {
			return err
		}
	}
	b.keys = &table
	if len(wrong) == 0 {
		return nil
	}
	ns, err := openDirs(b.s.ns, b.l.dir)
	if err != nil {
		return err
	}
	defer ns.Close()
	for _, i := range wrong {
		f, _ := mail.ParseFileName(string(b.files.name(i)))
		f.Letters, f.HasInfo = table.letters(b.came[i].keywords), true
		from, name := ns.of(b.files.file(i))
		if from == nil || ns.cur == nil {
			continue
		}
		if err := from.Rename(name, ns.cur, f.String()); err != nil {
			if notExist(err) {
				b.hurry = true
				continue
			}
			return err
		}
		b.files.replace(i, f.String(), true)
		b.hurry = true // the directory is not as it was when it was read
	}
	return nil
}

// writeList brings the uidlist up to date with the entries that got UIDs.
func (b *boxScan) writeList(fresh []int32) error {
	writeFresh := func(w *uidlistWriter) error {
		for _, i := range fresh {
			id, base := b.identityOf(i), b.files.base(i)
			fields := recordFields{guid: id.guid, uidl: id.uidl, order: id.order, size: -1, virtual: -1}
			if err := w.write(b.files.entries[i].uid, fields.encode(string(base)), base); err != nil {
				return err
			}
		}
		return nil
	}
	if b.list != nil && !b.rewrite && len(fresh) <= appendLimit {
		var lines bytes.Buffer
		if err := writeFresh(&uidlistWriter{w: &lines}); err != nil {
			return err
		}
		return b.s.wrote(b.d.box, uidlistName, appendUIDList(b.d.box, lines.Bytes()))
	}
	err := replaceUIDList(b.d.box, b.s.fileMode(b.d.box), func(w *uidlistWriter) error {
		head := b.header
		head.next = max(b.next, 1)
		if err := w.writeHeader(head); err != nil {
			return err
		}
		if err := b.copyLines(w); err != nil {
			return err
		}
		return writeFresh(w)
	})
	return b.s.wrote(b.d.box, uidlistName, err)
}

// copyLines writes the lines of the old list but for those whose files got another UID.
func (b *boxScan) copyLines(w *uidlistWriter) error {
	if b.list == nil {
		return nil
	}
	u, err := b.list.read()
	if err != nil {
		return err
	}
	for {
		row, err := u.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if i := b.files.find(row.base); i >= 0 {
			if b.files.entries[i].uid != row.uid {
				continue
			}
			if id, lost := b.restored[i]; lost {
				row.fields = withFields(row.fields, id.fields())
			}
		}
		if err := w.write(row.uid, row.fields, row.base); err != nil {
			return err
		}
	}
}

// forgetPending drops the notes of a batch that was cut short, once the files that it made have their UIDs.
func (b *boxScan) forgetPending(fresh []int32) error {
	for _, i := range fresh {
		note, key, noted := b.noteOf(b.files.base(i))
		if !noted {
			continue
		}
		if err := b.dropNote(key, note, b.files.entries[i].uid); err != nil {
			return err
		}
	}
	return nil
}

// noteOf returns the note that was made of a file, and its key.
func (b *boxScan) noteOf(base []byte) (note pendingMail, key string, noted bool) {
	if len(b.r.pending) == 0 {
		return note, "", false
	}
	key = pendingKey(b.rec.Status.GUID, string(base))
	note, noted = b.r.pending[key]
	return note, key, noted
}

// dropNote drops the note of a file that has its UID.
func (b *boxScan) dropNote(key string, note pendingMail, uid mail.UID) error {
	box := b.rec.Status.GUID
	return b.r.w.add(func(tx store.CatalogTx) error {
		if err := noteUnsettled(tx, note.Peer, box, store.NewUIDs{Brought: []mail.UID{uid}}); err != nil {
			return err
		}
		return tx.SetValue(bucketPending, key, nil)
	})
}

// denyNote drops the note of a file that the catalog has. It is of a mail that was to get this name in a batch that was cut short,
// made before it was known whether the name is free.
func (b *boxScan) denyNote(i int32) error {
	_, key, noted := b.noteOf(b.files.base(i))
	if !noted {
		return nil
	}
	delete(b.r.pending, key)
	return b.r.w.add(func(tx store.CatalogTx) error { return tx.SetValue(bucketPending, key, nil) })
}

// noteRenumbered notes for every peer which messages got other UIDs, in a batch that was cut short or by another program.
func (b *boxScan) noteRenumbered() error {
	var n store.NewUIDs
	for from, i := range b.renumbered {
		n.Renumbered = append(n.Renumbered, store.Renumbered{From: from, To: b.files.entries[i].uid})
	}
	if len(n.Renumbered) == 0 {
		return nil
	}
	slices.SortFunc(n.Renumbered, func(x, y store.Renumbered) int { return cmp.Compare(x.From, y.From) })
	box := b.rec.Status.GUID
	return b.r.w.add(func(tx store.CatalogTx) error {
		for peer := range tx.Values(bucketPeers) {
			if err := noteUnsettled(tx, peer, box, n); err != nil {
				return err
			}
		}
		return nil
	})
}

// note makes a note of who a file is, for a refresh after this one if that does not get as far as to give it a UID.
func (b *boxScan) note(i int32, guid mail.GUID) error {
	key, note := pendingKey(b.rec.Status.GUID, string(b.files.base(i))), pendingMail{GUID: guid}
	b.r.pending[key] = note
	return b.r.w.add(func(tx store.CatalogTx) error { return putJSON(tx, bucketPending, key, note) })
}
