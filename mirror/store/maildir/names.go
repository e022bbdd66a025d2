package maildir

import (
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// BaseNames calls f with every message and the base name of its file, by ascending UID: what a view of the directory needs to
// tell which mail a file is.
func (m *mailbox) BaseNames(f func(msg mail.Message, base string)) error {
	return m.s.cat.View(func(tx store.CatalogTx) error {
		for r, err := range tx.Messages(m.rec.Status.GUID, 0) {
			if err != nil {
				return err
			}
			f(r.Message, baseOf(r.File))
		}
		return nil
	})
}
