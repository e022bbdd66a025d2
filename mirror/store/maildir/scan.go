package maildir

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// Marks of list entries.
const (
	markDrop  = 1 << iota // its line leaves the uidlist, and it gets a new UID
	markKnown             // the catalog has it
)

// boxScan is the scan of one mailbox. The lock is held from open to close.
type boxScan struct {
	r   *refresh
	s   *Store
	l   *look
	d   dirs
	rec store.MailboxRecord

	release  func() error
	sig, old signature // how it looks and how it looked
	files    *listing
	again    *listing // a second look, if there was need for one
	keys     *keywordTable
	newKeys  bool // the table changed

	list       *uidlistFile // nil: none
	header     uidHeader
	listNext   mail.UID // effective next UID of the file
	next       mail.UID
	kept       []int32             // files that are not in the uidlist and keep the UID that the catalog knows, by UID
	rewrite    bool                // the uidlist cannot just be appended to
	isNew      bool                // the catalog knows nothing of the messages
	inherited  map[int32]identity  // by entry: of files that get a new UID
	came       map[int32]movedMail // by entry: of fresh files that were in another mailbox
	kin        map[int32]identity  // by entry: of mails with a GUID of their own whose UIDVALIDITY changed
	restored   map[int32]identity  // by entry: what their lines of the uidlist have lost
	missing    []missingMail       // known and not there
	renumbered map[mail.UID]int32  // by UID: entries of messages that are under another one now, or will be
	fresh      []int32             // files that the catalog did not have
	listed     bool                // some of these had lines in the uidlist
	hurry      bool                // something moved while we looked: look again next time
	part       bool                // only touched names are looked at
	state      *uidlistState       // what is to be remembered of the uidlist; nil: nothing
}

// scan looks at one mailbox. again asks to be called again after the others. Before the guard has spoken (final is false)
// nothing that is missing is recorded, and a mailbox whose identity is in doubt is left as it is.
func (r *refresh) scan(ctx context.Context, l *look, final bool) (again bool, err error) {
	if l.touched {
		r.begun[l.dir] = struct{}{}
		done, again, err := r.scanTouched(ctx, l)
		if err != nil || done {
			return again, err
		}
		l.touched = false
	}
	b := &boxScan{r: r, s: r.s, l: l, old: l.old, inherited: make(map[int32]identity), came: make(map[int32]movedMail)}
	if err := b.open(ctx); err != nil {
		return false, err
	}
	defer func() {
		if cerr := b.close(); err == nil {
			err = cerr
		}
	}()
	if !final && !l.deferred {
		if wait, err := b.shouldWait(); err != nil || wait {
			return wait, err
		}
	}
	settled, err := b.settle(final)
	if err != nil || !settled {
		return false, err
	}
	r.w.progress = func() store.MailboxRecord { return b.rec }
	defer func() { r.w.progress = nil }()
	if err := b.join(ctx); err != nil {
		return false, err
	}
	if err := b.confirmMissing(ctx); err != nil {
		return false, err
	}
	if err := b.assign(ctx); err != nil {
		return false, err
	}
	return false, b.finish()
}

// open takes the lock and reads the directories, the keywords and the head of the uidlist.
func (b *boxScan) open(ctx context.Context) (err error) {
	if b.d, err = openDirs(b.s.fs, b.l.dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	taken := b.s.o.Clock()
	if !b.r.o.DryRun {
		if b.release, err = b.s.locks.acquireExclusive(ctx, b.d.box); err != nil {
			return err
		}
		lock, err := b.d.box.Stat(lockName)
		if err != nil {
			return err
		}
		taken = lock.Mtime // by the clock of the file system
	}
	if b.sig, err = b.signature(); err != nil {
		return err
	}
	b.sig.setRacy(taken)
	if !b.r.o.DryRun && b.s.o.Memory.begin(b.l.dir) {
		b.r.begun[b.l.dir] = struct{}{}
		b.state = &uidlistState{}
	}
	if b.keys, err = loadKeywords(b.d.box); err != nil {
		return err
	}
	b.newKeys = b.sig.keys != b.old.keys
	if b.files, err = b.d.scan(ctx); err != nil {
		return err
	}
	if err := b.separate(); err != nil {
		return err
	}
	for _, n := range b.files.notes {
		b.r.note("%s", n)
	}
	if err := b.sweep(); err != nil {
		return err
	}
	return b.readList()
}

// signature takes the signature of the directories that are open. One that was made since they were, while the lock was waited for,
// has the refresh begin anew: its time would stand for what was not read.
func (b *boxScan) signature() (signature, error) {
	s, err := takeSignature(b.d.box)
	if err == nil && (b.d.cur == nil && s.cur.ino != 0 || b.d.new == nil && s.new.ino != 0) {
		err = fmt.Errorf("%s: its directories were made meanwhile: %w", describe(b.l.name), fs.ErrNotExist)
	}
	return s, err
}

func (b *boxScan) close() error {
	var err error
	if b.list != nil {
		err = b.list.Close()
	}
	if b.release != nil {
		if rerr := b.release(); err == nil {
			err = rerr
		}
	}
	if cerr := b.d.Close(); err == nil {
		err = cerr
	}
	return err
}

// readList reads the uidlist once and enters its UIDs into the listing: of two lines for one file the later one counts.
func (b *boxScan) readList() error {
	list, err := openUIDList(b.d.box)
	if err != nil {
		return ignoreGone(err)
	}
	b.list = list
	u, err := list.read()
	if err != nil {
		return err
	}
	for i := range b.files.entries {
		b.files.entries[i].uid = 0
	}
	for {
		rec, err := u.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if b.state != nil {
			b.state.bases.add(hashBase(rec.base), rec.uid)
		}
		if i := b.files.find(rec.base); i >= 0 {
			e := &b.files.entries[i]
			b.rewrite = b.rewrite || e.uid != 0
			e.uid = rec.uid
		}
	}
	b.header, b.listNext, b.next = u.header, u.effectiveNext(), u.effectiveNext()
	b.rewrite = b.rewrite || u.torn || u.header.version != 3 || u.header.guid.IsZero()
	return nil
}

// shouldWait reports whether files of the mailbox will get new UIDs, so that it has to wait until it is known what went away
// in the other mailboxes. What went away here is noted for them first.
func (b *boxScan) shouldWait() (bool, error) {
	if b.l.rec == nil {
		return len(b.files.entries) > 0, nil
	}
	next := b.l.rec.Status.UIDNext
	settled := 0 // files whose UID is known or too new to be
	for i := range b.files.entries {
		if b.files.entries[i].uid >= next {
			settled++
		}
	}
	c := newCursor(b.s.cat, b.l.rec.Status.GUID, 0)
	for {
		r, ok, err := c.next()
		if err != nil || !ok {
			return settled < len(b.files.entries), err
		}
		switch i := b.files.find([]byte(baseOf(r.File))); {
		case i < 0:
			b.noteMoved(r)
		case b.files.entries[i].uid == r.UID:
			settled++
		}
	}
}

// movedMail is what a mail that went away had and that is not to be had from its file alone: another mailbox has other
// letters for the keywords.
type movedMail struct {
	guid     mail.GUID
	saved    int64
	keywords mail.Keywords

	size, received int64 // what tells it from a copy of another mail that had its name
}

// noteMoved remembers a mail that went away, if its file name does not say everything.
func (b *boxScan) noteMoved(r store.MessageRecord) {
	base := baseOf(r.File)
	if string(r.GUID) != base || len(r.Keywords) > 0 || r.Saved != 0 {
		b.r.moved[moveKey([]byte(base))] = movedMail{guid: r.GUID, saved: r.Saved, keywords: r.Keywords, size: r.Size, received: r.Received}
	}
}

// lookAgain makes a second listing if there is none yet, or a newer one.
func (b *boxScan) lookAgain(ctx context.Context, newer bool) (err error) {
	if b.again == nil || newer {
		b.again, err = b.d.scan(ctx)
	}
	return err
}

// confirmMissing looks a second time for what was not there: mail programs rename files without taking the lock, and a
// listing made at that moment may show neither name. What turns up is left for the next refresh.
func (b *boxScan) confirmMissing(ctx context.Context) error {
	if len(b.missing) == 0 {
		return nil
	}
	if err := b.lookAgain(ctx, true); err != nil {
		return err
	}
	kept := b.missing[:0]
	for _, m := range b.missing {
		if b.again.find([]byte(baseOf(m.file))) >= 0 {
			b.hurry = true
			continue
		}
		kept = append(kept, m)
	}
	b.missing = kept
	return nil
}

// finish records the mailbox itself.
func (b *boxScan) finish() error {
	if err := b.syncFresh(); err != nil {
		return err
	}
	st := &b.rec.Status
	st.UIDNext = max(st.UIDNext, b.next)
	st.FirstRecent = max(st.FirstRecent, 1)
	if b.isNew {
		if st.UIDNext > 1 && st.HighestModSeq == 1 {
			st.HighestModSeq++ // there was something before, of which the log does not know
		}
		b.rec.LogStart = st.HighestModSeq
		b.r.changed[b.l.name] = struct{}{}
	}
	after, err := takeSignature(b.d.box)
	if err != nil {
		return err
	}
	b.sig.list = after.list
	b.remember(after.list)
	if b.part && b.rec.Status == b.l.rec.Status && b.rec.LogStart == b.l.rec.LogStart && len(b.missing) == 0 {
		return nil
	}
	b.hurry = b.hurry || b.part // the catalog must not say that the directories were read
	// A keyword table that we changed just now gives a meaning to letters that had none, so it counts as changed next time.
	unwritten := b.r.o.DryRun && (b.rewrite || len(b.kept) > 0 || st.UIDNext > b.listNext)
	b.sig.dirty = b.hurry || unwritten || len(b.missing) > 0
	b.rec.Signature = b.sig.encode()
	if err := b.trimLog(); err != nil {
		return err
	}
	if len(b.missing) > 0 {
		b.r.missing = append(b.r.missing, &missingBox{rec: b.rec, mails: b.missing, sig: b.sig, hurry: b.hurry})
	}
	return b.r.w.putMailbox(b.rec)
}

// How long the log remembers. Peers that were away for longer compare everything.
const (
	logKeep = 90 * 24 * time.Hour
	logTrim = 60 * 24 * time.Hour
)

// trimLog drops what is older than logTrim once the oldest entry is older than logKeep.
func (b *boxScan) trimLog() error {
	now := b.s.o.Clock()
	var upTo mail.ModSeq
	err := b.s.cat.View(func(tx store.CatalogTx) error {
		for e, err := range tx.Log(b.rec.Status.GUID, 0) {
			if err != nil {
				return err
			}
			age := now.Sub(time.Unix(e.Time, 0))
			if upTo == 0 && age < logKeep || age < logTrim {
				return nil
			}
			upTo = e.ModSeq
		}
		return nil
	})
	if err != nil || upTo == 0 {
		return err
	}
	b.rec.LogStart = max(b.rec.LogStart, upTo)
	box := b.rec.Status.GUID
	return b.r.w.add(func(tx store.CatalogTx) error { return tx.TrimLog(box, upTo) })
}
