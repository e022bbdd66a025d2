package brain

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// moved are the mails that the other side moved while their flags were changed here: seen from one mailbox they were
// expunged, from the other one they are new, and the change must not get lost in between.
type moved struct {
	deltas map[mail.GUID]mail.Delta     // changed here, before or during the round, and expunged by the other side
	places map[mail.GUID]store.Location // copied in this round from another mailbox of this side
}

// lost notes a change. \Deleted is none: it was to get rid of the instance that is gone.
func (m *moved) lost(guid mail.GUID, d mail.Delta) {
	if d.Add &^= mail.FlagDeleted; d.IsZero() {
		return
	}
	if m.deltas == nil {
		m.deltas = make(map[mail.GUID]mail.Delta)
	}
	m.deltas[guid] = m.deltas[guid].Then(d)
}

func (m *moved) found(guid mail.GUID, at store.Location) {
	if m.places == nil {
		m.places = make(map[mail.GUID]store.Location)
	}
	m.places[guid] = at
}

// findMoved looks for the mails that an earlier round copied, because it saw the one half of the move only.
func (r *round) findMoved(ctx context.Context) error {
	want := make(map[mail.GUID]struct{})
	for guid := range r.moved.deltas {
		if _, known := r.moved.places[guid]; !known {
			want[guid] = struct{}{}
		}
	}
	if len(want) == 0 {
		return nil
	}
	found, err := r.store.Find(ctx, want, nil)
	for guid, at := range found {
		if at.Held == "" {
			r.moved.found(guid, at)
		}
	}
	return err
}

// carryFlags makes the changes of moved mails again where they are now. To the other side they are changes of this round's
// user, which the next round tells.
func (r *round) carryFlags(ctx context.Context) error {
	if err := r.findMoved(ctx); err != nil {
		return err
	}
	changes := make(map[mail.MailboxGUID][]store.FlagChange)
	for guid, delta := range r.moved.deltas {
		if at, ok := r.moved.places[guid]; ok {
			changes[at.Mailbox] = append(changes[at.Mailbox], store.FlagChange{UID: at.UID, Delta: delta})
		}
	}
	for _, box := range sortedGUIDs(changes) {
		b := store.Batch{Deltas: changes[box]}
		slices.SortFunc(b.Deltas, func(a, b store.FlagChange) int { return int(int64(a.UID) - int64(b.UID)) })
		mb, err := r.store.Open(ctx, box)
		if err != nil {
			return err
		}
		_, err = mb.Apply(ctx, b)
		if err = errors.Join(err, mb.Close()); err != nil {
			return fmt.Errorf("flags of moved messages in %s: %w", mb.Name(), err)
		}
		r.out.Changed = true
		r.desync(fmt.Sprintf("%s: the flags of %d moved messages of %s follow", r.Side, len(b.Deltas), mb.Name()))
	}
	return nil
}
