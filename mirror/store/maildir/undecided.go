package maildir

import (
	"encoding/json"
	"slices"
	"time"

	"dsyncfs/mirror/store"
)

// undecided is how many mails of a mailbox are missing without a witness, and since when it is this number, in Unix
// milliseconds.
type undecided struct {
	Missing int
	Since   int64
}

// waitForQuiet takes the mailboxes from which mails are still vanishing out of what is judged: a guard that is asked in the
// middle of an rm would be shown a small loss, and then another one.
func (r *refresh) waitForQuiet() error {
	if r.o.Patience <= 0 {
		return nil
	}
	var err error
	r.missing = slices.DeleteFunc(r.missing, func(m *missingBox) bool {
		if err != nil || m.lost == 0 || m.gone || m.late != nil || m.restore {
			return false
		}
		var wait bool
		wait, err = r.isVanishing(m)
		r.report.Undecided = r.report.Undecided || wait
		return wait
	})
	return err
}

// isVanishing reports whether more was missing, or less, a moment ago, and remembers how much it is now.
func (r *refresh) isVanishing(m *missingBox) (bool, error) {
	key := m.rec.Status.GUID.String()
	var before undecided
	err := r.s.cat.View(func(tx store.CatalogTx) error {
		data, err := tx.Value(bucketUndecided, key)
		if err != nil || data == nil {
			return err
		}
		return json.Unmarshal(data, &before)
	})
	if err != nil {
		return false, err
	}
	now := r.s.o.Clock()
	if before.Missing == m.lost && now.Sub(time.UnixMilli(before.Since)) >= r.o.Patience {
		return false, r.w.add(func(tx store.CatalogTx) error { return tx.SetValue(bucketUndecided, key, nil) })
	}
	if before.Missing == m.lost && before.Since <= now.UnixMilli() {
		return true, nil
	}
	return true, r.w.add(func(tx store.CatalogTx) error {
		return putJSON(tx, bucketUndecided, key, undecided{Missing: m.lost, Since: now.UnixMilli()})
	})
}
