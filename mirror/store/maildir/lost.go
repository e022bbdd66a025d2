package maildir

import (
	"encoding/json"
	"fmt"

	"dsyncfs/mirror/store"
)

// lostKey is the only key of a mailbox's bucketLost.
const lostKey = "lately"

// loadLost reads what was lost lately from the mailboxes of which something is missing. It is kept in the catalog and not by
// the process: who is stopped at the other end of a connection comes back in another process, with a fresh memory.
func (r *refresh) loadLost() error {
	return r.s.cat.View(func(tx store.CatalogTx) error {
		for _, m := range r.missing {
			data, err := tx.Value(bucketLost+m.rec.Status.GUID.String(), lostKey)
			if err != nil {
				return err
			}
			if data == nil {
				continue
			}
			if err := json.Unmarshal(data, &m.lately); err != nil {
				return fmt.Errorf("%s: what was lost lately: %w: %w", describe(m.rec.Name), store.ErrCorrupt, err)
			}
		}
		return nil
	})
}

// rememberLost notes what the guard accepted, before that is recorded: a crash in between counts it twice and never not at
// all. What the user confirmed is forgotten.
func (r *refresh) rememberLost() error {
	for _, m := range r.missing {
		if m.lost == 0 || m.gone || m.restore {
			continue
		}
		bucket := bucketLost + m.rec.Status.GUID.String()
		var add func(store.CatalogTx) error
		switch {
		case r.o.Confirmed != nil && r.o.Confirmed(m.rec.Name):
			add = func(tx store.CatalogTx) error { return tx.SetValue(bucket, lostKey, nil) }
		case r.o.Lately > 0:
			lost := m.lately.With(m.lost, r.s.o.Clock(), r.o.Lately)
			add = func(tx store.CatalogTx) error { return putJSON(tx, bucket, lostKey, lost) }
		default:
			continue
		}
		if err := r.w.add(add); err != nil {
			return err
		}
	}
	return nil
}
