package memstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// writer carries out one batch.
type writer struct {
	m   *mailbox
	a   *Account
	b   *box
	d   *diskBox
	o   store.Origin
	now int64
	res store.Result

	// going are the messages that this batch expunges, by UID: an add of the same batch may give one of them another UID.
	going map[mail.UID]*file
	start mail.UID // UIDNEXT before the batch
	uids  store.NewUIDs
}

// Apply implements [store.Mailbox].
func (m *mailbox) Apply(ctx context.Context, batch store.Batch) (store.Result, error) {
	var res store.Result
	err := m.s.update(ctx, func(a *Account) error {
		b := a.memory.boxes[m.guid]
		_, d := a.disk.find(m.guid)
		if b == nil || d == nil {
			return fmt.Errorf("change mailbox %q: %w", m.name, store.ErrNotFound)
		}
		if err := checkBatch(batch); err != nil {
			return fmt.Errorf("change mailbox %q: %w", m.name, err)
		}
		w := &writer{m: m, a: a, b: b, d: d, o: batch.Origin, now: a.now().Unix(), going: make(map[mail.UID]*file), start: b.status.UIDNext}
		before := b.status
		w.apply(batch)
		if err := w.noteUnsettled(batch.Peer); err != nil {
			return err
		}
		w.res.Changed = w.res.Changed || b.status != before
		w.res.Status = b.status
		res = w.res
		return nil
	})
	return res, err
}

func checkBatch(batch store.Batch) error {
	for _, add := range batch.Adds {
		if add.Message.UID > mail.MaxUID {
			return fmt.Errorf("UID %d: %w", add.Message.UID, store.ErrCorrupt)
		}
	}
	if batch.UIDNext > mail.MaxUID {
		return fmt.Errorf("UIDNEXT %d: %w", batch.UIDNext, store.ErrCorrupt)
	}
	return nil
}

func (w *writer) apply(batch store.Batch) {
	w.identify(batch)
	for _, c := range batch.Deltas {
		w.changeFlags(c)
	}
	for _, e := range batch.Expunges {
		w.expunge(e)
	}
	for _, add := range batch.Adds {
		w.add(add, batch.Restart)
	}
	s := &w.b.status
	if batch.Restart { // what was only moved aside to be expunged does not count
		s.UIDNext = w.b.above()
	}
	s.UIDNext = max(s.UIDNext, batch.UIDNext)
	s.FirstRecent = max(s.FirstRecent, batch.FirstRecent)
	s.HighestModSeq = max(s.HighestModSeq, batch.HighestModSeq)
}

// present returns the message of uid if it is there, and else reports it.
func (w *writer) present(uid mail.UID) (*message, *file) {
	if msg := w.b.message(uid); msg != nil {
		if f := w.d.files[msg.base]; f != nil {
			return msg, f
		}
	}
	w.vanished(uid)
	return nil, nil
}

func (w *writer) vanished(uid mail.UID) { w.res.Vanished = append(w.res.Vanished, uid) }

func (w *writer) log(kind store.LogKind, uid mail.UID, e store.LogEntry, min mail.ModSeq) mail.ModSeq {
	e.Kind, e.UID, e.Origin, e.Time = kind, uid, w.o, w.now
	w.res.Changed = true
	return w.b.record(e, min)
}

// identify gives the mailbox a new UIDVALIDITY and messages new UIDs and GUIDs. Under a new UIDVALIDITY, or with Restart,
// the UIDs may be any free ones, and the log, which speaks of the old ones, is void. Restart also makes UIDNEXT start anew.
func (w *writer) identify(batch store.Batch) {
	anew := batch.Restart
	if batch.UIDValidity != 0 && batch.UIDValidity != w.b.status.UIDValidity {
		w.d.validity, w.b.status.UIDValidity = batch.UIDValidity, batch.UIDValidity
		anew = true
	}
	w.uids.Anew = anew
	moves := w.takeOut(batch.Realign)
	if batch.Restart {
		w.b.status.UIDNext, w.b.status.FirstRecent = w.b.above(), 1
	}
	for _, m := range moves {
		if !anew {
			w.log(store.LogExpunge, m.msg.UID, store.LogEntry{GUID128: m.msg.GUID.Hash128()}, 0)
		}
		msg := *m.msg
		msg.UID = w.assign(m.want, anew)
		w.uids.Renumbered = append(w.uids.Renumbered, store.Renumbered{From: m.msg.UID, To: msg.UID})
		msg.ModSeq = w.log(store.LogAppend, msg.UID, store.LogEntry{}, 0)
		w.b.put(&msg)
	}
	if anew {
		w.b.tick(0)
		w.b.dropLog()
	}
}

// move is a message on its way to another UID.
type move struct {
	msg  *message
	want mail.UID
}

// takeOut gives new GUIDs and takes the messages with new UIDs out of the mailbox, so that they can change places.
func (w *writer) takeOut(realign []store.Realign) (moves []move) {
	for _, r := range realign {
		msg, _ := w.present(r.UID)
		if msg == nil {
			continue
		}
		if r.NewGUID != "" && r.NewGUID != msg.GUID || r.Received != 0 && r.Received != msg.Received {
			msg = w.setIdentity(msg, cmp.Or(r.NewGUID, msg.GUID), cmp.Or(r.Received, msg.Received))
		}
		if r.NewUID != 0 && r.NewUID != r.UID {
			moves = append(moves, move{msg, r.NewUID})
		}
	}
	for _, m := range moves {
		w.b.drop(m.msg.UID)
	}
	return moves
}

func (w *writer) setIdentity(msg *message, guid mail.GUID, received int64) *message {
	f := *w.d.files[msg.base]
	f.guid, f.received = guid, received
	w.d.files[msg.base] = &f
	m := *msg
	m.GUID, m.Received = guid, received
	m.ModSeq = w.log(store.LogFlags, m.UID, store.LogEntry{}, 0)
	w.b.put(&m)
	return &m
}

// assign returns the wanted UID, or the next one if it is taken. anyFree accepts UIDs below UIDNEXT.
func (w *writer) assign(want mail.UID, anyFree bool) mail.UID {
	next := w.b.status.UIDNext
	if want != 0 && (want >= w.start || anyFree) && w.b.message(want) == nil {
		return want
	}
	if want != 0 {
		w.res.Reassigned = append(w.res.Reassigned, store.Assigned{Wanted: want, Got: next})
	}
	return next
}

// changeFlags changes the flags on disk and what is known of them by the same difference, so that what a user changed and
// no Refresh saw yet stays a change of the user's.
func (w *writer) changeFlags(c store.FlagChange) {
	msg, f := w.present(c.UID)
	if msg == nil {
		return
	}
	onDisk := *f
	onDisk.flags, onDisk.keywords = c.Delta.Apply(f.flags, f.keywords)
	w.d.files[msg.base] = &onDisk
	m := *msg
	m.Flags, m.Keywords = c.Delta.Apply(msg.Flags, msg.Keywords)
	effective := mail.DeltaBetween(msg.Flags, msg.Keywords, m.Flags, m.Keywords)
	if onDisk.flags != f.flags || !onDisk.keywords.Equal(f.keywords) {
		w.res.Changed = true
	}
	switch {
	case !effective.IsZero():
		m.ModSeq = w.log(store.LogFlags, c.UID, store.LogEntry{Delta: effective}, c.MinModSeq)
	case c.MinModSeq > m.ModSeq:
		m.ModSeq = c.MinModSeq
		w.b.status.HighestModSeq = max(w.b.status.HighestModSeq, c.MinModSeq)
	default:
		return
	}
	w.b.put(&m)
}

func (w *writer) expunge(e store.Expunge) {
	msg, f := w.present(e.UID)
	if msg == nil {
		return
	}
	if e.GUID != "" && e.GUID != msg.GUID {
		w.vanished(e.UID)
		return
	}
	if late := mail.DeltaBetween(msg.Flags, msg.Keywords, f.flags, f.keywords); !late.IsZero() {
		w.res.Late = append(w.res.Late, store.FlagChange{UID: e.UID, Delta: late})
	}
	w.m.s.hold(msg, f)
	w.going[e.UID] = f
	delete(w.d.files, msg.base)
	w.log(store.LogExpunge, e.UID, store.LogEntry{GUID128: msg.GUID.Hash128()}, 0)
	w.b.drop(e.UID)
}

func (w *writer) add(add store.Add, anyFree bool) {
	content, details, ok := w.source(add)
	if !ok {
		w.vanished(add.Message.UID)
		return
	}
	m := add.Message
	if details != nil { // of the copied message, where nothing else is said
		m.Received, m.Saved = cmp.Or(m.Received, details.received), cmp.Or(m.Saved, details.saved)
		m.POP3UIDL, m.POP3Order = cmp.Or(m.POP3UIDL, details.uidl), cmp.Or(m.POP3Order, details.order)
	}
	base := w.a.newBase()
	if m.GUID == "" {
		m.GUID = mail.GUID(base)
	}
	if m.Saved == 0 {
		m.Saved = w.now
	}
	f := &file{
		guid: m.GUID, body: content, flags: m.Flags, keywords: m.Keywords,
		received: m.Received, saved: m.Saved, uidl: m.POP3UIDL, order: m.POP3Order,
	}
	w.d.files[base] = f
	msg := messageOf(base, f, w.assign(m.UID, anyFree))
	msg.ModSeq = w.log(store.LogAppend, msg.UID, store.LogEntry{}, m.ModSeq)
	if gone := w.going[add.From.UID]; gone != nil && add.From.Mailbox == w.m.guid && add.Staged == "" && add.From.Held == "" {
		w.uids.Renumbered = append(w.uids.Renumbered, store.Renumbered{From: add.From.UID, To: msg.UID})
	} else {
		w.uids.Brought = append(w.uids.Brought, msg.UID)
	}
	w.b.put(msg)
}

// noteUnsettled has the last common state with the peer say which UIDs the batch gave.
func (w *writer) noteUnsettled(peer string) error {
	st, known := w.a.memory.bases[peer][w.m.guid]
	if !known {
		return nil
	}
	err := st.Unsettled.Note(w.uids)
	w.a.memory.bases[peer][w.m.guid] = st
	return err
}

// source returns the bytes to add, and the message that is copied if there is one. A staged mail is used up.
func (w *writer) source(add store.Add) ([]byte, *file, bool) {
	switch {
	case add.Staged != "":
		content, ok := w.m.staged[add.Staged]
		delete(w.m.staged, add.Staged)
		return content, nil, ok
	case add.From.Held != "":
		held, ok := w.m.s.held[add.From.Held]
		if !ok {
			return nil, nil, false
		}
		return held.file.body, held.file, true
	}
	_, f := w.a.file(add.From.Mailbox, add.From.UID)
	if gone := w.going[add.From.UID]; gone != nil && add.From.Mailbox == w.m.guid {
		f = gone
	}
	if f == nil {
		return nil, nil, false
	}
	return slices.Clip(f.body), f, true
}
