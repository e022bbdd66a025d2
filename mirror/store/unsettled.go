package store

import (
	"errors"
	"fmt"

	"dsyncfs/mirror/mail"
)

// Unsettled is what exchanges since a last common state did here that did not end as planned. Only one side may know of it: the
// other one's log tells of a message under a UID that means nothing here.
type Unsettled struct {
	// Met, of a state that says only that the two met, are the messages that were here then. The peer may have had them, too.
	Met        mail.UIDSet `json:",omitempty"`
	Brought    mail.UIDSet `json:",omitempty"` // messages that came from the peer
	Renumbered mail.UIDSet `json:",omitempty"` // UIDs whose messages got others, so that their expunges in the log are nobody's
}

// NewUIDs is what a batch did to the UIDs of a mailbox.
type NewUIDs struct {
	Anew       bool       // those from before mean nothing any more
	Brought    []mail.UID // messages that appeared
	Renumbered []Renumbered
}

// Renumbered is a message that got another UID.
type Renumbered struct{ From, To mail.UID }

// Note adds what a batch did. A message that gets another UID stays what it was.
func (u *Unsettled) Note(n NewUIDs) error {
	if n.Anew {
		*u = Unsettled{}
	}
	met, merr := u.Met.Parse()
	brought, berr := u.Brought.Parse()
	renumbered, rerr := u.Renumbered.Parse()
	if err := errors.Join(merr, berr, rerr); err != nil {
		return fmt.Errorf("unsettled messages: %w: %w", ErrCorrupt, err)
	}
	for _, uid := range n.Brought {
		brought.Add(uid)
	}
	for _, r := range n.Renumbered {
		renumbered.Add(r.From)
		if met.Has(r.From) {
			met.Add(r.To)
		}
		if brought.Has(r.From) {
			brought.Add(r.To)
		}
	}
	u.Met, u.Brought, u.Renumbered = met.Set(), brought.Set(), renumbered.Set()
	return nil
}
