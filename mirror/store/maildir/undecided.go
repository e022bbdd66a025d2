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

// waitForQuiet takes what is still vanishing from mailboxes out of what is judged: a guard that is asked in the middle of an rm
// would be shown a small loss, and then another one. What has a witness, or is in another mailbox now, does not wait with it: until
// its expunge is logged the other side takes it for a mail that is there, and for the one that a user puts there in its place.
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
		if wait, err = r.isVanishing(m); !wait {
			return false
		}
		r.report.Undecided, m.waits, m.lost = true, true, 0
		m.mails = slices.DeleteFunc(m.mails, func(mm missingMail) bool { return mm.lost })
		return len(m.mails) == 0
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
	u := undecided{Missing: m.lost, Since: now.UnixMilli()}
	return true, r.w.add(func(tx store.CatalogTx) error { return putJSON(tx, bucketUndecided, key, u) })
}
