package maildir

import (
	"encoding/json"
	"fmt"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// Known reads what the catalog of a store knows of a mailbox: f gets every message with the base name of its file, by ascending
// UID, which a view of the directory needs to tell which mail a file is. It returns the last common state with a peer, a zero
// one if there is none, and ok false if the mailbox is not known. It needs no Store and disturbs none that is at work.
func Known(tx store.CatalogTx, name mail.Name, peer string, f func(msg mail.Message, base string)) (common store.State, ok bool, err error) {
	var guid mail.MailboxGUID
	for rec, err := range tx.Mailboxes() {
		if err != nil {
			return common, false, err
		}
		if rec.Name == name {
			guid, ok = rec.Status.GUID, true
		}
	}
	if !ok {
		return common, false, nil
	}
	value, err := tx.Value(bucketBase+peer, guid.String())
	if err != nil {
		return common, false, err
	}
	if value != nil {
		if err := json.Unmarshal(value, &common); err != nil {
			return common, false, fmt.Errorf("last common state of %s: %w: %w", guid, store.ErrCorrupt, err)
		}
	}
	for r, err := range tx.Messages(guid, 0) {
		if err != nil {
			return common, false, err
		}
		f(r.Message, baseOf(r.File))
	}
	return common, true, nil
}
