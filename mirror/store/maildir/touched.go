package maildir

import (
	"context"
	"maps"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// This file has the scan of a mailbox of which only the touched names are looked at; see [Memory]. It does what a whole scan
// would do if everything else was read and found to be as it was: what it cannot be sure of it leaves to one.

// scanTouched looks at the names of a mailbox that were touched since it was looked at last. Not done: it has to be scanned as a
// whole.
func (r *refresh) scanTouched(ctx context.Context, l *look) (done, again bool, err error) {
	b := &boxScan{r: r, s: r.s, l: l, old: l.old, rec: *l.rec, part: true, inherited: make(map[int32]identity), came: make(map[int32]movedMail)}
	touched, err := b.openTouched(ctx)
	if err != nil {
		return false, false, err
	}
	defer func() {
		if cerr := b.close(); err == nil {
			err = cerr
		}
	}()
	if touched == nil {
		return false, false, nil
	}
	known, ok, err := b.listTouched(touched)
	if err != nil || !ok {
		return false, false, err
	}
	if !l.deferred && len(known) < len(b.files.entries) {
		// Files will get UIDs: that has to wait until it is known what went away in the other mailboxes.
		for file := range touched {
			r.s.o.Memory.look(l.dir, file)
		}
		return true, true, nil
	}
	r.w.progress = func() store.MailboxRecord { return b.rec }
	defer func() { r.w.progress = nil }()
	for i, rec := range known {
		if err := b.update(int32(i), rec, false); err != nil {
			return false, false, err
		}
	}
	if err := b.confirmMissing(ctx); err != nil {
		return false, false, err
	}
	if err := b.assign(ctx); err != nil {
		return false, false, err
	}
	for _, m := range b.missing { // it may be too early to decide
		r.s.o.Memory.look(l.dir, m.file)
	}
	return true, false, b.finish()
}

// openTouched takes the lock and the touched names; nil if what is remembered of the mailbox does not hold.
func (b *boxScan) openTouched(ctx context.Context) (touched map[string]int, err error) {
	if b.d, err = openDirs(b.s.fs, b.l.dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.release, err = b.s.locks.acquireExclusive(ctx, b.d.box); err != nil {
		return nil, err
	}
	if b.sig, err = b.signature(); err != nil {
		return nil, err
	}
	memory := b.s.o.Memory
	if !memory.catchUp(b.l.dir) {
		return nil, nil
	}
	mem, _ := memory.recall(b.l.dir, b.l.rec, b.sig)
	if mem == nil || mem.list.torn {
		return nil, nil
	}
	if b.list, err = openUIDList(b.d.box); err != nil {
		return nil, ignoreGone(err)
	}
	if signatureOf(b.list.info) != mem.list.sig {
		return nil, nil
	}
	if b.keys, err = loadKeywords(b.d.box); err != nil {
		return nil, err
	}
	b.state = mem.list
	b.header, b.listNext = mem.list.header, mem.list.next
	b.next = max(b.listNext, b.rec.Status.UIDNext)
	return memory.take(mem), nil
}

// listTouched makes the listing of the touched names that are there, those of messages that the catalog has first, and returns
// these. Not ok: it takes a whole listing to tell.
func (b *boxScan) listTouched(touched map[string]int) (known []store.MessageRecord, ok bool, err error) {
	byBase := make(map[string][]string)
	for file := range touched {
		f, isMail := mail.ParseFileName(file[4:])
		if file[4] == '.' {
			continue
		}
		if !isMail || len(file)-4 > maxDirName {
			if _, there, err := b.statFile(file); err != nil || there {
				return nil, false, err
			}
			continue
		}
		byBase[f.Base] = append(byBase[f.Base], file)
	}
	b.files = &listing{}
	var fresh []string
	for _, base := range slices.Sorted(maps.Keys(byBase)) {
		r, isKnown, wasListed, err := b.recordOf(base)
		if err != nil {
			return nil, false, err
		}
		files := byBase[base]
		if isKnown && !slices.Contains(files, r.File) {
			files = append(files, r.File)
		}
		present, ok, err := b.present(files)
		switch {
		case err != nil || !ok:
			return nil, false, err
		case wasListed && !isKnown && present != "":
			return nil, false, nil // a mail that was expunged is here again, or never was recorded
		case isKnown && present == "":
			b.missing = append(b.missing, missingMail{uid: r.UID, guid: r.GUID.Hash128(), file: r.File})
			b.noteMoved(r)
		case isKnown:
			i, _ := b.files.add(present[4:], len(base), present[:4] == "cur/")
			b.files.entries[i].uid, b.files.entries[i].mark = r.UID, markKnown
			known = append(known, r)
		case present != "":
			fresh = append(fresh, present)
		}
	}
	for _, file := range fresh {
		f, _ := mail.ParseFileName(file[4:])
		b.files.add(file[4:], len(f.Base), file[:4] == "cur/")
	}
	return known, true, nil
}

// recordOf returns what the catalog has of a base name, and whether the uidlist had it.
func (b *boxScan) recordOf(base string) (r store.MessageRecord, known, wasListed bool, err error) {
	uids := b.state.bases.find(hashBase([]byte(base)))
	if len(uids) == 0 {
		return r, false, false, nil
	}
	err = b.s.cat.View(func(tx store.CatalogTx) error {
		for _, uid := range uids {
			found, there, err := tx.Message(b.rec.Status.GUID, uid)
			if err != nil {
				return err
			}
			if there && baseOf(found.File) == base {
				r, known = found, true
			}
		}
		return nil
	})
	return r, known, true, err
}

// present returns the one of the names of a mail that is there, "" if none is. Not ok: there are several, or it is no mail.
func (b *boxScan) present(files []string) (file string, ok bool, err error) {
	for _, f := range files {
		info, there, err := b.statFile(f)
		switch {
		case err != nil:
			return "", false, err
		case !there:
			continue
		case file != "" || info.Type != vfs.Regular:
			return "", false, nil
		}
		file = f
	}
	return file, true, nil
}

func (b *boxScan) statFile(file string) (info vfs.Info, there bool, err error) {
	dir, name := b.d.of(file)
	if dir == nil {
		return info, false, nil
	}
	info, err = dir.Stat(name)
	return info, err == nil, ignoreGone(err)
}

// remembered is what is to be remembered of a mailbox once the refresh has succeeded.
type remembered struct {
	dir  string
	guid mail.MailboxGUID
	sig  signature
	list *uidlistState
}

// remember notes how the mailbox is now. What moved while it was read is read again.
func (b *boxScan) remember(list fileSignature) {
	if b.state == nil || !b.part && (b.hurry || len(b.missing)+len(b.files.duplicates) > 0) {
		return
	}
	b.state.sig, b.state.header, b.state.next, b.state.torn = list, b.header, b.next, false
	b.state.header.version = 3
	sig := b.sig
	sig.list = list
	b.r.remembered = append(b.r.remembered, remembered{dir: b.l.dir, guid: b.rec.Status.GUID, sig: sig, list: b.state})
}

// settleMemory remembers the mailboxes that were looked at, and forgets those of which something went wrong.
func (r *refresh) settleMemory() error {
	memory := r.s.o.Memory
	if memory == nil {
		return nil
	}
	for _, m := range r.remembered {
		delete(r.begun, m.dir)
		err := r.s.cat.View(func(tx store.CatalogTx) error {
			rec, found, err := tx.Mailbox(m.guid)
			if found {
				memory.settle(m.dir, rec, m.sig, m.list)
			} else {
				memory.forget(m.dir)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	r.forgetBegun()
	return nil
}

// forgetBegun forgets the mailboxes whose look did not come to its end.
func (r *refresh) forgetBegun() {
	for dir := range r.begun {
		r.s.o.Memory.forget(dir)
	}
	clear(r.begun)
}
