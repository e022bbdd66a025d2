package maildir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

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
	return a.s.wrote(a.m.d.box, keywordsName, saveKeywords(a.m.d.box, a.s.fileMode(a.m.d.box), a.keys, a.s.o.Clock()))
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
			file, err := a.unlink(ctx, r)
			if err != nil {
				return err
			}
			if file == "" {
				a.res.Vanished = append(a.res.Vanished, e.UID)
			} else if delta := a.lateDelta(r, file); !delta.IsZero() {
				a.res.Late = append(a.res.Late, store.FlagChange{UID: r.UID, Delta: delta})
			}
		}
		a.forget(r, !a.newUIDs())
		delete(a.known, e.UID)
		a.gone[e.UID] = struct{}{}
		a.rec.Status.Messages--
		a.res.Changed = true
	}
	if a.unseen {
		// Where only new/ has changed a Dovecot looks for what came, not for what went (2.3.19 maildir-sync.c).
		if err := a.s.touchCur(a.m.d.box); err != nil {
			return err
		}
	}
	// What was only moved aside needs no line any more.
	a.edits.inserts = slices.DeleteFunc(a.edits.inserts, func(l uidLine) bool { _, gone := a.gone[l.uid]; return gone })
	return nil
}

// unlink removes the file of a message and keeps a link to it for the rest of the round. It returns the name that the file
// had, empty if there was none.
func (a *apply) unlink(ctx context.Context, r store.MessageRecord) (was string, err error) {
	tmp, err := a.s.openTmp(a.s.fs)
	if err != nil {
		return "", err
	}
	defer tmp.Close()
	err = a.onFile(ctx, r.File, func(file string) error {
		dir, name := a.m.d.of(file)
		if dir == nil {
			return errGone
		}
		held := a.s.heldName(a.rec.Status.GUID, r.UID)
		err := dir.Link(name, tmp, held)
		if notExist(err) {
			return err
		}
		linked := err == nil // a file system without links keeps none
		// Looked at last, as near to the unlink as can be: what is written in its place in between goes.
		if same, err := a.isStill(r, dir, name); err != nil || !same {
			if linked {
				err = errors.Join(err, ignoreGone(tmp.Remove(held)))
			}
			return cmp.Or(err, errGone)
		}
		if linked {
			a.s.held.add(r.Message, held)
		}
		dir, name = a.m.ns.of(file)
		a.touched(file)
		was = file
		a.unseen = a.unseen || file[:4] == "new/"
		takeBack := a.s.o.Memory.expect(a.m.dir, file)
		err = dir.Remove(name)
		if err != nil {
			takeBack()
		}
		return err
	})
	if errors.Is(err, errGone) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	a.quota.bytes -= r.Size
	a.quota.count--
	return was, nil
}

// lateDelta is what another program did to the flags of a message since the last refresh, if its file has that name.
func (a *apply) lateDelta(r store.MessageRecord, file string) mail.Delta {
	name, ok := mail.ParseFileName(file[4:])
	if !ok || file == r.File {
		return mail.Delta{}
	}
	return mail.DeltaBetween(r.Flags, r.Keywords, name.Flags, a.keys.keywords(name.Letters, r.Keywords))
}

// isStill reports whether a file has the bytes of the message, as far as size and time tell. What someone wrote in the place
// of a mail is another one, which nobody expunged: it gets a GUID of its own when the next refresh finds it.
func (a *apply) isStill(r store.MessageRecord, dir vfs.Dir, name string) (bool, error) {
	info, err := dir.Stat(name)
	if err != nil || info.Size == r.Size && info.Mtime.Unix() == r.Received {
		return true, err
	}
	guid, err := a.s.randomGUID()
	if err != nil {
		return false, err
	}
	key := pendingKey(a.rec.Status.GUID, baseOf(r.File))
	a.op(func(tx store.CatalogTx) error {
		return putJSON(tx, bucketPending, key, pendingMail{GUID: mail.GUID(guid.String())})
	})
	return false, nil
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
			takeBack := a.s.o.Memory.expect(a.m.dir, file, target)
			if err := dir.Rename(from, a.m.ns.cur, target[4:]); err != nil {
				takeBack()
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
	a.res.Changed, a.res.Noticed = true, true
}
