package maildir

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// newUIDs reports whether UIDs below UIDNEXT may be given.
func (a *apply) newUIDs() bool {
	return a.b.Restart || a.b.UIDValidity != 0 && a.b.UIDValidity != a.list.header.validity
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
		if to.UID != r.UID && to.UID < a.first && !a.newUIDs() {
			a.res.Vanished = append(a.res.Vanished, c.UID) // that UID was given to another mail since the plan was made
			continue
		}
		if to.UID > mail.MaxUID {
			return fmt.Errorf("UID %d cannot become %d", r.UID, to.UID)
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
	a.uids.Renumbered = append(a.uids.Renumbered, store.Renumbered{From: r.UID, To: to.UID})
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
