package maildir

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"golang.org/x/sync/errgroup"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// apply is one run of [mailbox.Apply]. Its steps, and what a crash after each leaves:
//
//  1. The staged mails are made durable, without the lock. After a crash: files in tmp/ that Open or Stage removes.
//  2. Notes of mails whose file name will not say all about them; of staged mails at the same time as the first step. After a
//     crash: notes without a file, which do nothing.
//  3. The keyword table. After a crash: keywords that no mail has.
//  4. Renames for flags. After a crash: Refresh finds the new flags and takes them for a user's.
//  5. Expunges: a link in tmp/, then the unlink. After a crash: Refresh misses the mail and finds the link as a witness.
//  6. New mails appear, tmp/ to cur/ or new/, and the directories are synced. After a crash: Refresh (or a Dovecot) finds
//     files without a UID and gives them one; their GUID is the base name or in a note, so that the next round recognises
//     them.
//  7. The uidlist, by one append or one rewrite, durably. After a crash: Refresh takes the UIDs over.
//  8. One transaction of the catalog. Nothing is left to do.
type apply struct {
	m      *mailbox
	s      *Store
	b      store.Batch
	rec    store.MailboxRecord
	list   *uidlistState
	keys   *keywordTable
	known  map[mail.UID]store.MessageRecord // of the UIDs that the batch names, as they are
	before map[mail.UID]store.MessageRecord // the same as they were
	files  *listing                         // by base name, once a remembered name was wrong
	edits  uidEdits
	next   mail.UID                // effective next UID, raised with each that is given
	first  mail.UID                // what it was before the batch
	taken  map[mail.UID]struct{}   // UIDs that Realign gives
	dates  []store.MessageRecord   // messages whose date changes
	cut    bool                    // the log cannot tell what happens
	simple bool                    // what is remembered of the mailbox holds, but for what is done
	sync   struct{ cur, new bool } // directories in which names appeared
	unseen bool                    // a mail went that was in new/
	adds   []*addition
	ops    []func(store.CatalogTx) error
	notes  []string            // keys of pending notes to be dropped
	noted  map[string]struct{} // keys of those that were written without the lock

	gone       map[mail.UID]struct{}  // what was expunged
	expunging  map[mail.UID]mail.GUID // what the batch expunges
	renumbered map[mail.UID]struct{}  // of these, the messages whose files get another UID
	uids       store.NewUIDs          // what becomes of UIDs
	sources    map[mail.MailboxGUID]*mailbox
	heldDirs   map[string]vfs.Dir

	done  []store.Staged
	quota struct{ bytes, count int64 } // what the batch adds to the account
	res   store.Result
}

// smallBatch is how many staged mails are synced one by one; beyond it one sync of the file system is cheaper.
const smallBatch = 4

// Apply implements [store.Mailbox].
func (m *mailbox) Apply(ctx context.Context, b store.Batch) (store.Result, error) {
	a := &apply{m: m, s: m.s, b: b, expunging: make(map[mail.UID]mail.GUID), renumbered: make(map[mail.UID]struct{}), gone: make(map[mail.UID]struct{}),
		sources: make(map[mail.MailboxGUID]*mailbox), heldDirs: make(map[string]vfs.Dir)}
	for _, e := range b.Expunges {
		a.expunging[e.UID] = e.GUID
	}
	res, err := a.run(ctx)
	if err != nil {
		delete(m.s.lists, m.rec.Status.GUID)
		m.s.o.Memory.forget(m.dir)
		return store.Result{}, fmt.Errorf("%s: %w", describe(m.rec.Name), noSpace(err))
	}
	return res, nil
}

func (a *apply) run(ctx context.Context) (res store.Result, err error) {
	if a.b.UIDNext > mail.MaxUID {
		return res, fmt.Errorf("UIDNEXT %d is too high", a.b.UIDNext)
	}
	var g errgroup.Group
	g.Go(a.syncStaged)
	g.Go(a.noteStaged) // the disk does both in one go
	if err := g.Wait(); err != nil {
		return res, err
	}
	a.m.mu.Lock()
	err = a.m.openMissing()
	a.m.mu.Unlock()
	if err != nil {
		return res, err
	}
	release, err := a.s.locks.acquireExclusive(ctx, a.m.d.box)
	if err != nil {
		return res, err
	}
	defer func() {
		if rerr := errors.Join(a.closeSources(), release()); err == nil {
			err = rerr
		}
	}()
	if err := a.load(); err != nil {
		return res, err
	}
	for _, step := range []func(context.Context) error{
		a.realign, a.prepareAdds, a.writeNotes, a.writeKeywords, a.redate, a.changeFlags, a.expunge, a.add, a.syncDirs, a.writeList, a.commit, a.noteQuota,
	} {
		if err := step(ctx); err != nil {
			return res, err
		}
	}
	return a.res, nil
}

// syncStaged makes the content of the staged mails durable, before anyone waits for the lock.
func (a *apply) syncStaged() error {
	var names []string
	for _, add := range a.b.Adds {
		if add.Staged != "" {
			names = append(names, string(add.Staged))
		}
	}
	if len(names) > smallBatch {
		return a.s.fs.Sync()
	}
	for _, name := range names {
		f, err := a.m.d.tmp.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// load reads what the batch is about: the mailbox, its uidlist and keywords, and the messages that it names.
func (a *apply) load() (err error) {
	if a.rec, err = a.s.record(a.m.rec.Status.GUID); err != nil {
		return err
	}
	a.simple = a.s.o.Memory.fits(a.m.dir, a.rec)
	if a.list, err = a.m.listState(); err != nil {
		return err
	}
	head := a.list.header
	if head.validity != a.rec.Status.UIDValidity || !head.guid.IsZero() && head.guid != a.rec.Status.GUID {
		return errors.Join(fmt.Errorf("another program changed the identity of the mailbox: %w", store.ErrNotFound), a.lookAgain())
	}
	head.version, head.guid = 3, a.rec.Status.GUID
	a.edits = uidEdits{header: head, raise: a.list.torn, drop: make(map[mail.UID]struct{}), fields: make(map[mail.UID]map[byte]string)}
	a.next = max(a.list.next, a.rec.Status.UIDNext)
	a.first, a.taken = a.next, make(map[mail.UID]struct{})
	if a.keys, err = loadKeywords(a.m.d.box); err != nil {
		return err
	}
	return a.loadMessages()
}

// lookAgain has the next refresh find out what the mailbox is now, though it may look as it did.
func (a *apply) lookAgain() error {
	rec := a.rec
	rec.Signature = nil
	return a.s.cat.Update(func(tx store.CatalogTx) error { return tx.PutMailbox(rec) })
}

func (a *apply) loadMessages() error {
	a.known = make(map[mail.UID]store.MessageRecord)
	want := func(tx store.CatalogTx, uid mail.UID) error {
		r, found, err := tx.Message(a.rec.Status.GUID, uid)
		if found {
			a.known[uid] = r
		}
		return err
	}
	err := a.s.cat.View(func(tx store.CatalogTx) error {
		var err error
		for _, c := range a.b.Realign {
			err = errors.Join(err, want(tx, c.UID))
		}
		for _, c := range a.b.Deltas {
			err = errors.Join(err, want(tx, c.UID))
		}
		for _, c := range a.b.Expunges {
			err = errors.Join(err, want(tx, c.UID))
		}
		for _, c := range a.b.Adds {
			if c.From.Mailbox == a.rec.Status.GUID {
				err = errors.Join(err, want(tx, c.From.UID))
			}
		}
		return err
	})
	a.before = maps.Clone(a.known)
	return err
}

func (a *apply) nextModSeq(atLeast mail.ModSeq) mail.ModSeq {
	a.rec.Status.HighestModSeq = max(a.rec.Status.HighestModSeq+1, atLeast)
	return a.rec.Status.HighestModSeq
}

func (a *apply) op(f func(store.CatalogTx) error) { a.ops = append(a.ops, f) }

func (a *apply) put(r store.MessageRecord) {
	box := a.rec.Status.GUID
	a.op(func(tx store.CatalogTx) error { return tx.PutMessage(box, r) })
}

func (a *apply) log(e store.LogEntry) {
	e.Time = a.s.now()
	box := a.rec.Status.GUID
	a.op(func(tx store.CatalogTx) error { return tx.AppendLog(box, e) })
}

// forget removes a message from the catalog and logs its expunge.
func (a *apply) forget(r store.MessageRecord, log bool) {
	box := a.rec.Status.GUID
	a.op(func(tx store.CatalogTx) error { return tx.DropMessage(box, r.UID) })
	if log {
		a.log(store.LogEntry{ModSeq: a.nextModSeq(0), Kind: store.LogExpunge, UID: r.UID, GUID128: r.GUID.Hash128(), Origin: a.b.Origin})
	}
}

// commit records everything in the catalog, in one transaction.
func (a *apply) commit(context.Context) error {
	st := &a.rec.Status
	if a.b.HighestModSeq > st.HighestModSeq {
		st.HighestModSeq = a.b.HighestModSeq
		a.res.Changed = true
	}
	if a.next > st.UIDNext || a.b.Restart {
		a.res.Changed = a.res.Changed || a.next != st.UIDNext
		st.UIDNext = a.next
	}
	if a.cut {
		// What the log said before is about other UIDs or misses something: whoever asks compares everything.
		a.rec.LogStart = a.nextModSeq(0)
	}
	if first := min(a.b.FirstRecent, st.UIDNext); first > st.FirstRecent {
		st.FirstRecent = first
		a.res.Changed = true
	}
	st.FirstRecent = min(st.FirstRecent, st.UIDNext)
	a.res.Status = *st
	a.forgetStaged()
	if !a.res.Changed && len(a.ops) == 0 {
		return nil
	}
	sig := decodeSignature(a.rec.Signature)
	sig.dirty = true // others may have changed something at the same time
	a.rec.Signature = sig.encode()
	a.s.preserve(a.rec.Status.GUID, a.before, a.edits.inserts)
	err := a.s.cat.Update(func(tx store.CatalogTx) error {
		for _, op := range a.ops {
			if err := op(tx); err != nil {
				return err
			}
		}
		for _, key := range a.notes {
			if err := tx.SetValue(bucketPending, key, nil); err != nil {
				return err
			}
		}
		if err := a.noteUnsettled(tx); err != nil {
			return err
		}
		if a.newUIDs() {
			if err := tx.TrimLog(a.rec.Status.GUID, a.rec.LogStart); err != nil {
				return err
			}
		}
		return tx.PutMailbox(a.rec)
	})
	if err == nil {
		a.remember()
	}
	return err
}

// noteUnsettled has the last common state with the peer say which UIDs the batch gave.
func (a *apply) noteUnsettled(tx store.CatalogTx) error {
	a.uids.Anew = a.newUIDs()
	return noteUnsettled(tx, a.b.Peer, a.rec.Status.GUID, a.uids)
}

// remember keeps what is remembered of the mailbox up to date with the batch, unless that did more than to add, flag and expunge.
func (a *apply) remember() {
	if !a.simple || a.cut || len(a.edits.drop)+len(a.edits.fields) > 0 || a.edits.raise {
		a.s.o.Memory.forget(a.m.dir)
		return
	}
	a.s.o.Memory.update(a.m.dir, a.rec, a.list)
}

// noteQuota adds a line to the quota file of Maildir++, if the account has one. Like other writers it only appends; what is
// wrong there, for lack of a line say, is right again with the next recalculation.
func (a *apply) noteQuota(context.Context) error {
	if a.quota.bytes == 0 && a.quota.count == 0 {
		return nil
	}
	f, err := a.s.root.OpenAppend("maildirsize")
	if err != nil {
		return ignoreGone(err)
	}
	_, err = fmt.Fprintf(f, "%d %d\n", a.quota.bytes, a.quota.count)
	if err := errors.Join(err, f.Close()); err != nil {
		a.s.log.Warn("write the quota file", "path", "maildirsize", "err", err)
	}
	return nil
}

func (a *apply) forgetStaged() {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	for _, name := range a.done {
		delete(a.m.staged, name)
	}
}
