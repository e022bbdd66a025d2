package maildir

import (
	"context"
	"errors"
	"io"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
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

	list      *uidlistFile // nil: none
	header    uidHeader
	listNext  mail.UID // effective next UID of the file
	next      mail.UID
	kept      []int32             // files that are not in the uidlist and keep the UID that the catalog knows, by UID
	rewrite   bool                // the uidlist cannot just be appended to
	isNew     bool                // the catalog knows nothing of the messages
	inherited map[int32]identity  // by entry: of files that get a new UID
	came      map[int32]movedMail // by entry: of fresh files that were in another mailbox
	kin       map[int32]identity  // by entry: of mails with a GUID of their own whose UIDVALIDITY changed
	restored  map[int32]identity  // by entry: what their lines of the uidlist have lost
	missing   []missingMail       // known and not there
	fresh     []int32             // files that the catalog did not have
	listed    bool                // some of these had lines in the uidlist
	hurry     bool                // something moved while we looked: look again next time
}

// scan looks at one mailbox. again asks to be called again after the others. Before the guard has spoken (final is false)
// nothing that is missing is recorded, and a mailbox whose identity is in doubt is left as it is.
func (r *refresh) scan(ctx context.Context, l *look, final bool) (again bool, err error) {
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
	if b.sig, err = takeSignature(b.d.box); err != nil {
		return err
	}
	b.sig.setRacy(taken)
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
	id := b.identityAt(i, row, b.kin[i])
	if !b.isNew && row.uid < b.rec.Status.UIDNext {
		// Its expunge was seen and told to others, so it comes back as another message (as in Dovecot: "expunged message
		// reappeared").
		b.renew(i, id)
		return nil
	}
	b.listed = true
	return b.add(i, row.uid, id, virtualOf(row))
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
		}
		if r.UID >= b.listNext && b.files.entries[i].mark&markDrop == 0 {
			b.files.entries[i].uid = r.UID
			b.files.entries[i].mark |= markKnown
			b.kept = append(b.kept, i)
			return b.update(i, r, false)
		}
	}
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
	return true, nil
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
	return b.r.w.putMessage(b.rec.Status.GUID, r)
}

// syncFresh makes what is told to others from now on durable. Not all who deliver do: a mail that the other side has and that
// a power cut takes here would look like one that a user removed, and its UID would come again if the line was lost.
func (b *boxScan) syncFresh() error {
	if len(b.fresh) == 0 || b.r.o.DryRun {
		return nil
	}
	if len(b.fresh) > smallBatch {
		b.r.syncAll = true
		return nil
	}
	if b.listed {
		if err := b.list.f.Sync(); err != nil {
			return err
		}
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
