package maildir

import (
	"encoding/json"
	"fmt"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// pendingMail is the note that Apply makes of a mail before its file appears, if the name does not say its GUID or it matters
// which peer it comes from. After a crash between the two the next refresh finds a file without a UID, or with one that it does
// not know, and here who it is. It makes one too of a mail that took the place of another one.
type pendingMail struct {
	GUID  mail.GUID
	UIDL  string `json:",omitempty"`
	Order uint32 `json:",omitempty"`
	Saved int64  `json:",omitempty"`
	Peer  string `json:",omitempty"` // see store.Unsettled
}

func (p pendingMail) identity() identity {
	return identity{guid: p.GUID, uidl: p.UIDL, order: p.Order, saved: p.Saved}
}

func pendingKey(box mail.MailboxGUID, base string) string { return box.String() + "/" + base }

func loadPending(tx store.CatalogTx, into map[string]pendingMail) error {
	for key, value := range tx.Values(bucketPending) {
		p, err := decodeNote(key, value)
		if err != nil {
			return err
		}
		into[key] = p
	}
	return nil
}

func loadNote(tx store.CatalogTx, key string) (p pendingMail, found bool, err error) {
	value, err := tx.Value(bucketPending, key)
	if err != nil || value == nil {
		return p, false, err
	}
	p, err = decodeNote(key, value)
	return p, true, err
}

func decodeNote(key string, value []byte) (p pendingMail, err error) {
	if err = json.Unmarshal(value, &p); err != nil {
		err = fmt.Errorf("note on %q: %w", key, err)
	}
	return p, err
}

// noteUnsettled notes what became of UIDs of a mailbox in its last common state with a peer, if there is one.
func noteUnsettled(tx store.CatalogTx, peer string, box mail.MailboxGUID, n store.NewUIDs) error {
	if peer == "" || !n.Anew && len(n.Brought)+len(n.Renumbered) == 0 {
		return nil
	}
	value, err := tx.Value(bucketBase+peer, box.String())
	if err != nil || value == nil {
		return err
	}
	st, err := decodeState(box.String(), value)
	if err == nil {
		err = st.Unsettled.Note(n)
	}
	if err != nil {
		return err
	}
	return putJSON(tx, bucketBase+peer, box.String(), st)
}
