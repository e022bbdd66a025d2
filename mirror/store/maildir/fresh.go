package maildir

import (
	"context"
	"errors"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// This file has what becomes of the files of a mailbox that the catalog did not have.

// stat stats a file, by its new name if it was renamed since the scan. there is false if it is gone.
func (b *boxScan) stat(i int32) (info vfs.Info, there bool, err error) {
	for try := 0; ; try++ {
		dir := b.d.new
		if b.files.entries[i].inCur {
			dir = b.d.cur
		}
		info, err = dir.Stat(string(b.files.name(i)))
		if err == nil {
			return info, info.Type == vfs.Regular, nil
		}
		if !notExist(err) || try == 3 {
			return info, false, ignoreGone(err)
		}
		b.hurry = true
		if err := b.lookAgain(context.Background(), try > 0); err != nil {
			return info, false, err
		}
		j := b.again.find(b.files.base(i))
		if j < 0 {
			return info, false, nil
		}
		b.files.replace(i, string(b.again.name(j)), b.again.entries[j].inCur)
	}
}

// virtualOf returns the virtual size that a line of the uidlist gives, -1 if none.
func virtualOf(row uidRecord) int64 {
	text, ok := row.field('W')
	if !ok {
		return -1
	}
	return mustSize(text)
}

func mustSize(text string) int64 {
	f, ok := mail.ParseFileName("x,W=" + text)
	if !ok {
		return -1
	}
	_, w := f.Sizes()
	return w
}

// add records a message that is new.
func (b *boxScan) add(i int32, uid mail.UID, id identity, virtual int64) error {
	info, there, err := b.stat(i)
	if err != nil || !there {
		return err
	}
	f, _ := mail.ParseFileName(string(b.files.name(i)))
	if _, w := f.Sizes(); w >= 0 {
		virtual = w
	}
	if virtual < info.Size {
		virtual = -1 // what is in the file cannot be more than what is sent
	}
	r := store.MessageRecord{File: b.files.file(i)}
	r.UID, r.GUID, r.Flags, r.Keywords = uid, id.guid, f.Flags, b.keys.keywords(f.Letters, id.keywords)
	r.Received, r.Saved, r.Size, r.VirtualSize = info.Mtime.Unix(), id.saved, info.Size, virtual
	r.POP3UIDL, r.POP3Order = id.uidl, id.order
	r.ModSeq = b.nextModSeq()
	b.files.entries[i].mark |= markKnown
	b.rec.Status.Messages++
	b.r.report.Added++
	b.fresh = append(b.fresh, i)
	b.r.w.unsynced++
	return b.r.w.putMessage(b.rec.Status.GUID, r)
}

// syncList makes the uidlist as it was found durable, and that it has the name if it took another one's place: who put it there may
// not have got that far.
func (b *boxScan) syncList() error {
	if b.list == nil || b.r.o.DryRun {
		return nil
	}
	if err := b.list.f.Sync(); err != nil || b.sig.list.ino == b.old.list.ino {
		return err
	}
	return b.d.box.Sync()
}

// syncFresh makes what is told to others from now on durable. Not all who deliver do: a mail that the other side has and that
// a power cut takes here would look like one that a user removed, and its UID would come again if the line was lost.
func (b *boxScan) syncFresh() error {
	if b.r.o.DryRun {
		return nil
	}
	if len(b.fresh) > smallBatch {
		return nil // all at once, before they are recorded
	}
	// A UIDNEXT that mails had raised which went again is told, too.
	if b.list != nil && (b.listed || b.listNext > b.rec.Status.UIDNext) {
		if err := b.syncList(); err != nil {
			return err
		}
	}
	if len(b.fresh) == 0 {
		return nil
	}
	for _, i := range b.fresh {
		dir := b.d.new
		if b.files.entries[i].inCur {
			dir = b.d.cur
		}
		f, err := dir.Open(string(b.files.name(i)))
		if notExist(err) {
			continue // renamed or removed meanwhile
		}
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	for _, dir := range []vfs.Dir{b.d.new, b.d.cur} {
		if dir == nil {
			continue
		}
		if err := dir.Sync(); err != nil {
			return err
		}
	}
	b.r.w.unsynced = max(0, b.r.w.unsynced-len(b.fresh))
	return nil
}
