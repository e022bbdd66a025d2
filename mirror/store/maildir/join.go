package maildir

import (
	"context"
	"io"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// This file has what a scan concludes from a line of the uidlist and a record of the catalog, side by side.

// join walks through the uidlist and the catalog side by side, by UID.
func (b *boxScan) join(ctx context.Context) error {
	u, err := b.list.read()
	if err != nil {
		return err
	}
	c := newCursor(b.s.cat, b.rec.Status.GUID, 0)
	row, listed, err := nextRow(u)
	if err != nil {
		return err
	}
	r, known, err := c.next()
	for steps := 1; err == nil && (listed || known); steps++ {
		if steps%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		useRow := listed && (!known || row.uid <= r.UID)
		useKnown := known && (!listed || r.UID <= row.uid)
		switch {
		case useRow && useKnown:
			err = b.listedAndKnown(row, r)
		case useRow:
			err = b.listedOnly(row)
		default:
			err = b.knownOnly(r)
		}
		if useRow && err == nil {
			row, listed, err = nextRow(u)
		}
		if useKnown && err == nil {
			r, known, err = c.next()
		}
	}
	return err
}

// nextRow is uidlistReader.next in another form.
func nextRow(u *uidlistReader) (row uidRecord, ok bool, err error) {
	row, err = u.next()
	if err == io.EOF {
		return row, false, nil
	}
	return row, err == nil, err
}

// entryOf returns the entry of a line of the uidlist, -1 if its file is not there or another line has it.
func (b *boxScan) entryOf(row uidRecord) int32 {
	i := b.files.find(row.base)
	if i >= 0 && b.files.entries[i].uid != row.uid {
		return -1
	}
	return i
}

// listedOnly treats a UID that the catalog does not have.
func (b *boxScan) listedOnly(row uidRecord) error {
	i := b.entryOf(row)
	if i < 0 {
		return nil
	}
	was := b.kin[i]
	note, key, noted := b.noteOf(row.base)
	if noted { // another program gave it its UID before we could
		was = note.identity()
	}
	id := b.identityAt(i, row, was)
	if !b.isNew && row.uid < b.rec.Status.UIDNext {
		// Its expunge was seen and told to others, so it comes back as another message (as in Dovecot: "expunged message
		// reappeared").
		b.renew(i, id)
		return nil
	}
	b.listed = true
	if err := b.add(i, row.uid, id, virtualOf(row)); err != nil || !noted {
		return err
	}
	return b.dropNote(key, note, row.uid)
}

// renew lets a file have a new UID.
func (b *boxScan) renew(i int32, id identity) {
	e := &b.files.entries[i]
	e.uid = 0
	e.mark |= markDrop
	b.inherited[i] = id
	b.rewrite = true
}

// knownOnly treats a message of the catalog that the uidlist does not have.
func (b *boxScan) knownOnly(r store.MessageRecord) error {
	base := baseOf(r.File)
	i := b.files.find([]byte(base))
	if i < 0 {
		b.missing = append(b.missing, missingMail{uid: r.UID, guid: r.GUID.Hash128(), file: r.File})
		b.noteMoved(r)
		return nil
	}
	if b.r.o.Full && b.files.entries[i].mark&(markDrop|markKnown) == 0 {
		if replaced, err := b.replacedInPlace(i, r); err != nil || replaced {
			return err
		}
	}
	if b.files.entries[i].uid == 0 {
		if _, ok := b.inherited[i]; !ok {
			b.inherited[i] = identityIn(r)
			if err := b.denyNote(i); err != nil {
				return err
			}
		}
		if r.UID >= b.listNext && b.files.entries[i].mark&markDrop == 0 {
			b.files.entries[i].uid = r.UID
			b.files.entries[i].mark |= markKnown
			b.kept = append(b.kept, i)
			return b.update(i, r, false)
		}
	}
	if b.renumbered == nil {
		b.renumbered = make(map[mail.UID]int32)
	}
	b.renumbered[r.UID] = i
	return b.expunge(r) // the mail itself has another UID now, or gets one
}

// listedAndKnown treats the usual case.
func (b *boxScan) listedAndKnown(row uidRecord, r store.MessageRecord) error {
	i := b.entryOf(row)
	if i < 0 {
		return b.knownOnly(r)
	}
	b.files.entries[i].mark |= markKnown
	changed, same := false, baseOf(r.File) == string(row.base)
	if b.sig.list.ino != b.old.list.ino || !same {
		was := identity{}
		if same {
			was = identityIn(r)
		}
		changed = b.sameIdentity(b.identityAt(i, row, was), &r)
	}
	if b.r.o.Full {
		replaced, err := b.replacedInPlace(i, r)
		if err != nil || replaced {
			return err
		}
	}
	return b.update(i, r, changed)
}

// cutLog makes the log begin after everything that was told so far.
func (b *boxScan) cutLog() {
	b.rec.Status.HighestModSeq++
	b.rec.LogStart = b.rec.Status.HighestModSeq
	b.r.changed[b.l.name] = struct{}{}
}

// replacedInPlace reports whether the bytes of a file are not those of the message any more, which then is expunged and
// comes back as another one.
func (b *boxScan) replacedInPlace(i int32, r store.MessageRecord) (bool, error) {
	replaced, err := b.renewReplaced(i, r)
	if err != nil || !replaced {
		return false, err
	}
	return true, b.expunge(r)
}

// renewReplaced makes the file of a message another mail if its size or time are not the message's.
func (b *boxScan) renewReplaced(i int32, r store.MessageRecord) (bool, error) {
	info, there, err := b.stat(i)
	if err != nil || !there || info.Size == r.Size && info.Mtime.Unix() == r.Received {
		return false, err
	}
	guid, err := b.s.randomGUID()
	if err != nil {
		return false, err
	}
	b.renew(i, identity{guid: mail.GUID(guid.String())})
	return true, b.denyNote(i)
}

// update takes over the flags that the file name shows.
func (b *boxScan) update(i int32, r store.MessageRecord, changed bool) error {
	sameName := b.files.isFile(i, r.File)
	if sameName && !b.newKeys && !changed {
		return nil
	}
	f, _ := mail.ParseFileName(string(b.files.name(i)))
	flags, keywords := f.Flags, b.keys.keywords(f.Letters, r.Keywords)
	delta := mail.DeltaBetween(r.Flags, r.Keywords, flags, keywords)
	if delta.IsZero() && sameName && !changed {
		return nil
	}
	if !sameName {
		r.File = b.files.file(i)
	}
	if delta.IsZero() {
		return b.r.w.putMessage(b.rec.Status.GUID, r)
	}
	b.r.report.Flags++
	r.Flags, r.Keywords, r.ModSeq = flags, keywords, b.nextModSeq()
	if err := b.r.w.putMessage(b.rec.Status.GUID, r); err != nil {
		return err
	}
	return b.log(store.LogEntry{ModSeq: r.ModSeq, Kind: store.LogFlags, UID: r.UID, Delta: delta})
}

func (b *boxScan) nextModSeq() mail.ModSeq {
	b.r.changed[b.l.name] = struct{}{}
	b.rec.Status.HighestModSeq++
	return b.rec.Status.HighestModSeq
}

func (b *boxScan) log(e store.LogEntry) error {
	e.Time = b.s.now()
	box := b.rec.Status.GUID
	return b.r.w.add(func(tx store.CatalogTx) error { return tx.AppendLog(box, e) })
}

// expunge records the end of a message under its UID.
func (b *boxScan) expunge(r store.MessageRecord) error {
	b.r.report.Expunged++
	b.rec.Status.Messages--
	box, uid := b.rec.Status.GUID, r.UID
	if err := b.r.w.add(func(tx store.CatalogTx) error { return tx.DropMessage(box, uid) }); err != nil {
		return err
	}
	return b.log(store.LogEntry{ModSeq: b.nextModSeq(), Kind: store.LogExpunge, UID: uid, GUID128: r.GUID.Hash128()})
}
