package maildir

import (
	"encoding/json"
	"fmt"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// pendingMail is the note that Apply makes of a mail before its file appears under a name that does not say its GUID. After
// a crash between the two the next refresh finds a file without a UID, and here who it is. It makes one too of a mail that
// took the place of another one.
type pendingMail struct {
	GUID  mail.GUID
	UIDL  string `json:",omitempty"`
	Order uint32 `json:",omitempty"`
	Saved int64  `json:",omitempty"`
}

func (p pendingMail) identity() identity {
	return identity{guid: p.GUID, uidl: p.UIDL, order: p.Order, saved: p.Saved}
}

func pendingKey(box mail.MailboxGUID, base string) string { return box.String() + "/" + base }

func loadPending(tx store.CatalogTx, into map[string]pendingMail) error {
	for key, value := range tx.Values(bucketPending) {
		var p pendingMail
		if err := json.Unmarshal(value, &p); err != nil {
			return fmt.Errorf("note on %q: %w", key, err)
		}
		into[key] = p
	}
	return nil
}
