package brain

import (
	"crypto/sha1"
	"encoding/binary"

	"dsyncfs/mirror/mail"
)

// A Dovecot that deletes a mailbox with others below keeps its GUID with the name (2.3.19 mailbox-list-index.h: struct
// mailbox_list_index_record). A mailbox that is created there or renamed to there later is told of under that GUID, until
// somebody opens it: as if the deleted one was back, for us to delete again.

// trueGUIDs gives mailboxes that the other side told of under the GUID of a deleted one another GUID: if they were renamed
// there, that of the own mailbox with their UIDVALIDITY, else a new one, which gives way when theirs is known.
func (r *round) trueGUIDs(told, own []mail.Mailbox) {
	there := make(map[mail.MailboxGUID]bool, len(told))
	for _, box := range told {
		there[box.Status.GUID] = true
	}
	here := make(map[mail.MailboxGUID]bool, len(own))
	alone := make(map[mail.UIDValidity][]mail.MailboxGUID) // own mailboxes that the other side does not tell of
	for _, box := range own {
		guid := box.Status.GUID
		here[guid] = true
		if base, known := r.baseOf(guid); known && !there[guid] && box.Name != mail.Inbox && base.UIDValidity == box.Status.UIDValidity {
			alone[base.UIDValidity] = append(alone[base.UIDValidity], guid)
		}
	}
	r.stock.toldAs = make(map[mail.MailboxGUID]mail.MailboxGUID)
	for i := range told {
		s := &told[i].Status
		base, known := r.baseOf(s.GUID)
		if s.GUID.IsZero() || !known || here[s.GUID] || base.UIDValidity == 0 || base.UIDValidity == s.UIDValidity {
			continue
		}
		stale := s.GUID
		if s.GUID = newGUID(stale, s.UIDValidity); len(alone[s.UIDValidity]) == 1 {
			s.GUID = alone[s.UIDValidity][0]
		}
		r.stock.toldAs[s.GUID] = stale
	}
}

// newGUID is for a mailbox that was told of under a GUID that is not its own.
func newGUID(stale mail.MailboxGUID, validity mail.UIDValidity) mail.MailboxGUID {
	sum := sha1.Sum(binary.BigEndian.AppendUint32(append([]byte("dsyncfs new mailbox "), stale[:]...), uint32(validity)))
	return mail.MailboxGUID(sum[:16])
}

// guidFor returns the GUID under which the other side told of a mailbox, as which it takes it for the same.
func (r *round) guidFor(guid mail.MailboxGUID) mail.MailboxGUID {
	if r.stock != nil {
		if told, stale := r.stock.toldAs[guid]; stale {
			return told
		}
	}
	return guid
}
