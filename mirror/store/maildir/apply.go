package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// apply is one run of [mailbox.Apply]. Its steps, and what a crash after each leaves:
//
//  1. The staged mails are made durable, without the lock. After a crash: files in tmp/ that Open or Stage removes.
//  2. Notes of mails whose file name will not say who they are. After a crash: notes without a file, which do nothing.
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
	sync   struct{ cur, new bool } // directories in which names appeared
	adds   []*addition
	ops    []func(store.CatalogTx) error
	notes  []string // keys of pending notes to be dropped

	gone       map[mail.UID]struct{}  // what was expunged
	expunging  map[mail.UID]mail.GUID // what the batch expunges
	renumbered map[mail.UID]struct{}  // of these, the messages whose files get another UID
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
		return store.Result{}, fmt.Errorf("%s: %w", describe(m.rec.Name), noSpace(err))
	}
	return res, nil
}

func (a *apply) run(ctx context.Context) (res store.Result, err error) {
	if a.b.UIDNext > mail.MaxUID {
		return res, fmt.Errorf("UIDNEXT %d is too high", a.b.UIDNext)
	}
	if err := a.syncStaged(); err != nil {
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
	if a.list, err = a.s.listState(a.rec.Status.GUID, a.m.d.box); err != nil {
		return err
	}
	head := a.list.header
	if head.validity != a.rec.Status.UIDValidity || !head.guid.IsZero() && head.guid != a.rec.Status.GUID {
		return fmt.Errorf("another program changed the identity of the mailbox: %w", store.ErrNotFound)
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

// newUIDs reports whether UIDs below UIDNEXT may be given.
func (a *apply) newUIDs() bool {
	return a.b.Restart || a.b.UIDValidity != 0 && a.b.UIDValidity != a.list.header.validity
}

// forget removes a message from the catalog and logs its expunge.
func (a *apply) forget(r store.MessageRecord, log bool) {
	box := a.rec.Status.GUID
	a.op(func(tx store.CatalogTx) error { return tx.DropMessage(box, r.UID) })
	if log {
		a.log(store.LogEntry{ModSeq: a.nextModSeq(0), Kind: store.LogExpunge, UID: r.UID, GUID128: r.GUID.Hash128(), Origin: a.b.Origin})
	}
}

// writeKeywords gives letters to the keywords that the batch brings.
func (a *apply) writeKeywords(context.Context) error {
	added := false
	for _, c := range a.b.Deltas {
		added = a.keys.add(c.Delta.AddKeywords) || added
	}
	for _, add := range a.adds {
		added = a.keys.add(add.Message.Keywords) || added
	}
	if !added {
		return nil
	}
	return saveKeywords(a.m.d.box, a.s.fileMode(a.m.d.box), a.keys, a.s.o.Clock())
}

// realign gives messages new UIDs and GUIDs, in the catalog and in the uidlist; the files stay.
func (a *apply) realign(context.Context) error {
	if v := a.b.UIDValidity; v != 0 && v != a.rec.Status.UIDValidity {
		a.edits.header.validity, a.rec.Status.UIDValidity = v, v
		a.edits.raise, a.cut, a.res.Changed = true, true, true
	}
	if a.b.Restart {
		a.edits.raise, a.cut, a.res.Changed = true, true, true
	}
	var moved []store.MessageRecord
	for _, c := range a.b.Realign {
		r, ok := a.known[c.UID]
		if !ok {
			a.res.Vanished = append(a.res.Vanished, c.UID)
			continue
		}
		to := r
		if c.NewGUID != "" {
			to.GUID = c.NewGUID
		}
		if c.NewUID != 0 {
			to.UID = c.NewUID
		}
		if to.UID != r.UID && (!a.newUIDs() && to.UID < a.first || to.UID > mail.MaxUID) {
			return fmt.Errorf("UID %d cannot become %d: UIDNEXT is %d", r.UID, to.UID, a.first)
		}
		if !storableGUID(to.GUID) {
			return fmt.Errorf("UID %d: the GUID %.40q cannot be stored", r.UID, string(to.GUID))
		}
		if c.Received != 0 && c.Received != r.Received {
			to.Received = c.Received
			a.dates = append(a.dates, to)
		}
		if to.UID != r.UID || to.GUID != r.GUID || to.Received != r.Received {
			a.move(r, &to)
			moved = append(moved, to)
		}
	}
	for _, r := range moved {
		a.put(r)
		a.known[r.UID] = r
	}
	return a.edits.sort()
}

// move notes that a message has another UID, GUID or date.
func (a *apply) move(r store.MessageRecord, to *store.MessageRecord) {
	a.res.Changed = true
	base := baseOf(r.File)
	if to.UID == r.UID {
		if to.GUID != r.GUID {
			guid := string(to.GUID)
			if guid == base {
				guid = ""
			}
			a.edits.fields[r.UID] = map[byte]string{'G': guid}
		}
		to.ModSeq = a.nextModSeq(0)
		a.cut = true // nothing in the log can say this
		return
	}
	a.edits.drop[r.UID] = struct{}{}
	fields := recordFields{guid: to.GUID, uidl: to.POP3UIDL, order: to.POP3Order, size: -1, virtual: -1}
	a.edits.inserts = append(a.edits.inserts, uidLine{uid: to.UID, fields: fields.encode(base), base: base})
	a.forget(r, !a.newUIDs())
	to.ModSeq = a.nextModSeq(0)
	a.next = max(a.next, to.UID+1)
	a.taken[to.UID] = struct{}{}
	delete(a.known, r.UID)
}

// redate gives the files of messages other dates.
func (a *apply) redate(ctx context.Context) error {
	for _, r := range a.dates {
		err := a.onFile(ctx, r.File, func(file string) error { return a.setDate(ctx, file, r.Received) })
		if err != nil && !errors.Is(err, errGone) {
			return err
		}
	}
	return nil
}

// setDate sets the mtime of a mail. A file that is also in another mailbox is copied first: only this mailbox's has the new
// date.
func (a *apply) setDate(ctx context.Context, file string, received int64) error {
	dir, name := a.m.d.of(file)
	if dir == nil {
		return errGone
	}
	info, err := dir.Stat(name)
	if err != nil {
		return err
	}
	if info.Nlink <= 1 {
		return dir.SetTimes(name, time.Unix(received, 0))
	}
	b, err := openBody(dir, name)
	if err != nil {
		return err
	}
	defer b.Close()
	staged, err := a.m.Stage(ctx, mail.Message{Received: received}, b)
	if err != nil {
		return err
	}
	a.done = append(a.done, staged)
	f, err := a.m.d.tmp.Open(string(staged))
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	to, name := a.m.ns.of(file)
	return a.m.ns.tmp.Rename(string(staged), to, name)
}

// changeFlags applies the differences of flags and keywords.
func (a *apply) changeFlags(ctx context.Context) error {
	for _, c := range a.b.Deltas {
		r, ok := a.known[c.UID]
		if !ok {
			a.res.Vanished = append(a.res.Vanished, c.UID)
			continue
		}
		if err := a.changeOne(ctx, r, c); err != nil {
			return err
		}
	}
	return nil
}

func (a *apply) changeOne(ctx context.Context, r store.MessageRecord, c store.FlagChange) error {
	before := r
	changed, there, err := a.rename(ctx, &r, c.Delta)
	if err != nil {
		return err
	}
	if !there {
		a.res.Vanished = append(a.res.Vanished, c.UID)
		return nil
	}
	if changed.IsZero() && before.File == r.File && before.ModSeq == r.ModSeq && c.MinModSeq <= r.ModSeq {
		return nil
	}
	if !changed.IsZero() {
		r.ModSeq = a.nextModSeq(c.MinModSeq)
		a.log(store.LogEntry{ModSeq: r.ModSeq, Kind: store.LogFlags, UID: r.UID, Delta: changed, Origin: a.b.Origin})
		a.res.Changed = true
	} else if c.MinModSeq > r.ModSeq {
		r.ModSeq = c.MinModSeq
		a.rec.Status.HighestModSeq = max(a.rec.Status.HighestModSeq, r.ModSeq)
	}
	a.put(r)
	a.known[r.UID] = r
	return nil
}

// expunge removes messages, but for those whose file gets another UID in the same batch.
func (a *apply) expunge(ctx context.Context) error {
	for _, e := range a.b.Expunges {
		r, ok := a.known[e.UID]
		if !ok || e.GUID != "" && r.GUID != e.GUID {
			a.res.Vanished = append(a.res.Vanished, e.UID)
			continue
		}
		if _, stays := a.renumbered[e.UID]; !stays {
			there, err := a.unlink(ctx, r)
			if err != nil {
				return err
			}
			if !there {
				a.res.Vanished = append(a.res.Vanished, e.UID)
			}
		}
		a.forget(r, !a.newUIDs())
		delete(a.known, e.UID)
		a.gone[e.UID] = struct{}{}
		a.rec.Status.Messages--
		a.res.Changed = true
	}
	// What was only moved aside needs no line any more.
	a.edits.inserts = slices.DeleteFunc(a.edits.inserts, func(l uidLine) bool { _, gone := a.gone[l.uid]; return gone })
	return nil
}

// unlink removes the file of a message and keeps a link to it for the rest of the round.
func (a *apply) unlink(ctx context.Context, r store.MessageRecord) (there bool, err error) {
	tmp, err := a.s.openTmp(a.s.fs)
	if err != nil {
		return false, err
	}
	defer tmp.Close()
	err = a.onFile(ctx, r.File, func(file string) error {
		dir, name := a.m.d.of(file)
		if dir == nil {
			return errGone
		}
		held := a.s.heldName(a.rec.Status.GUID, r.UID)
		if err := dir.Link(name, tmp, held); err == nil {
			a.s.held.add(r.Message, held)
		} else if notExist(err) {
			return err
		} // a file system without links keeps none
		dir, name = a.m.ns.of(file)
		a.touched(file)
		return dir.Remove(name)
	})
	if errors.Is(err, errGone) {
		return false, nil
	}
	if err == nil {
		a.quota.bytes -= r.Size
		a.quota.count--
	}
	return err == nil, err
}

// touched notes that the directory of a file has to be synced.
func (a *apply) touched(file string) {
	if file[:4] == "cur/" {
		a.sync.cur = true
	} else {
		a.sync.new = true
	}
}

// errGone says that a file is not there under any name.
var errGone = fmt.Errorf("file is gone: %w", store.ErrNotFound)

// onFile does something to the file of a message by its remembered name or, if that is wrong, by the one that it has now.
func (a *apply) onFile(ctx context.Context, file string, f func(file string) error) error {
	for try := 0; ; try++ {
		err := f(file)
		if !notExist(err) {
			return err
		}
		if try == 5 {
			return errGone
		}
		if a.files == nil || try > 0 {
			if a.files, err = a.m.d.scan(ctx); err != nil {
				return err
			}
		}
		i := a.files.find([]byte(baseOf(file)))
		if i < 0 {
			return errGone
		}
		file = a.files.file(i)
	}
}

// rename gives a message's file the name that says its flags after a change, and returns what that really changed. What
// another program changed meanwhile stays and is logged as a change of its own.
func (a *apply) rename(ctx context.Context, r *store.MessageRecord, delta mail.Delta) (changed mail.Delta, there bool, err error) {
	err = a.onFile(ctx, r.File, func(file string) error {
		name, ok := mail.ParseFileName(file[4:])
		if !ok {
			return errGone
		}
		if file != r.File {
			a.noticeFlags(r, name)
			r.File = file
		}
		flags, keywords := delta.Apply(r.Flags, r.Keywords)
		name.Letters = name.Letters&^a.keys.known(name.Letters) | a.keys.letters(keywords)
		name.Flags = flags
		target := file
		if file[:4] == "cur/" || name.Flags != 0 || name.Letters != 0 {
			name.HasInfo = true
			target = "cur/" + name.String()
		}
		dir, from := a.m.ns.of(file)
		if dir == nil {
			return errGone
		}
		if target == file {
			if _, err := dir.Stat(from); err != nil {
				return err
			}
		} else {
			if err := dir.Rename(from, a.m.ns.cur, target[4:]); err != nil {
				return err
			}
			a.sync.cur = true
			a.touched(file)
		}
		changed = mail.DeltaBetween(r.Flags, r.Keywords, flags, keywords)
		r.File, r.Flags, r.Keywords = target, flags, keywords
		return nil
	})
	if errors.Is(err, errGone) {
		return changed, false, nil
	}
	return changed, err == nil, err
}

// noticeFlags logs what another program did to the flags since the last refresh.
func (a *apply) noticeFlags(r *store.MessageRecord, name mail.FileName) {
	flags, keywords := name.Flags, a.keys.keywords(name.Letters, r.Keywords)
	delta := mail.DeltaBetween(r.Flags, r.Keywords, flags, keywords)
	if delta.IsZero() {
		return
	}
	r.Flags, r.Keywords, r.ModSeq = flags, keywords, a.nextModSeq(0)
	a.log(store.LogEntry{ModSeq: r.ModSeq, Kind: store.LogFlags, UID: r.UID, Delta: delta})
	a.res.Changed = true
}

// syncDirs makes the new names durable.
func (a *apply) syncDirs(context.Context) error {
	if a.sync.cur {
		if err := a.m.d.cur.Sync(); err != nil {
			return err
		}
	}
	if a.sync.new {
		return a.m.d.new.Sync()
	}
	return nil
}

// writeList brings the uidlist up to date: by an append if there are only new mails.
func (a *apply) writeList(ctx context.Context) error {
	if err := a.edits.sort(); err != nil {
		return err
	}
	if a.b.Restart {
		if err := a.restart(); err != nil {
			return err
		}
	} else if a.b.UIDNext > a.next {
		a.next, a.edits.raise = a.b.UIDNext, true
	}
	box := a.m.d.box
	if a.edits.mustRewrite(a.list.next) {
		a.edits.header.next = max(a.next, 1)
		if err := a.rewriteList(); err != nil {
			return err
		}
		a.res.Changed = true
		// A running Dovecot looks at the uidlist only when a directory has changed.
		if err := a.s.touchCur(box); err != nil {
			return err
		}
		return a.noteList()
	}
	if len(a.edits.inserts) == 0 {
		return nil
	}
	var lines bytes.Buffer
	if _, err := a.edits.lines(&uidlistWriter{w: &lines}, a.edits.inserts, mail.MaxUID+1); err != nil {
		return err
	}
	if err := appendUIDList(box, lines.Bytes()); err != nil {
		return errors.Join(err, a.healList())
	}
	return a.noteList()
}

// restart lets only the messages of the catalog keep their lines, and UIDNEXT be what it has to be. If UIDVALIDITY stays,
// Dovecot's index goes as well: it would take the low UIDs for expunged messages that came back.
func (a *apply) restart() error {
	c := newCursor(a.s.cat, a.rec.Status.GUID, 0)
	kept := make(map[mail.UID]struct{})
	highest := mail.UID(0)
	for {
		r, ok, err := c.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		_, gone := a.gone[r.UID]
		_, moved := a.edits.drop[r.UID]
		if !gone && !moved {
			kept[r.UID] = struct{}{}
			highest = max(highest, r.UID)
		}
	}
	if n := len(a.edits.inserts); n > 0 {
		highest = max(highest, a.edits.inserts[n-1].uid)
	}
	a.next = max(a.b.UIDNext, highest+1)
	a.edits.stays = func(uid mail.UID) (bool, error) {
		_, ok := kept[uid]
		return ok, nil
	}
	if a.rec.Status.UIDValidity != a.list.header.validity {
		return nil // Dovecot makes its index anew by itself
	}
	for _, name := range []string{"dovecot.index", "dovecot.index.log", "dovecot.index.log.2", "dovecot.index.cache"} {
		if err := ignoreGone(a.m.d.box.Remove(name)); err != nil {
			return err
		}
	}
	return nil
}

func (a *apply) rewriteList() error {
	list, err := openUIDList(a.m.d.box)
	if err != nil {
		return err
	}
	defer list.Close()
	u, err := list.read()
	if err != nil {
		return err
	}
	return replaceUIDList(a.m.d.box, a.s.fileMode(a.m.d.box), func(w *uidlistWriter) error { return a.edits.write(w, u) })
}

// healList removes the half line that an append on a full disk may have left: a Dovecot would glue its next line to it.
func (a *apply) healList() error {
	list, err := openUIDList(a.m.d.box)
	if err != nil {
		return err
	}
	defer list.Close()
	u, err := list.read()
	if err != nil {
		return err
	}
	e := uidEdits{header: a.edits.header}
	return replaceUIDList(a.m.d.box, a.s.fileMode(a.m.d.box), func(w *uidlistWriter) error { return e.write(w, u) })
}

// noteList keeps what is known of the uidlist up to date with what was written.
func (a *apply) noteList() (err error) {
	st := a.list
	if st.sig, err = fileSignatureOf(a.m.d.box, uidlistName); err != nil {
		return err
	}
	st.header, st.next, st.torn = a.edits.header, a.next, false
	for _, l := range a.edits.inserts {
		st.bases[hashBase([]byte(l.base))] = struct{}{}
	}
	a.s.lists[a.rec.Status.GUID] = st
	return nil
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
	return a.s.cat.Update(func(tx store.CatalogTx) error {
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
		if a.newUIDs() {
			if err := tx.TrimLog(a.rec.Status.GUID, a.rec.LogStart); err != nil {
				return err
			}
		}
		return tx.PutMailbox(a.rec)
	})
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
