package brain

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"slices"

	"dsyncfs/mirror/item"
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
	r.stock.toldAs, r.stock.unclear = make(map[mail.MailboxGUID]mail.MailboxGUID), nil
	for i := range told {
		s := &told[i].Status
		base, known := r.baseOf(s.GUID)
		if known && here[s.GUID] && base.RemoteEpoch != doubtful && base.UIDValidity != s.UIDValidity && len(alone[s.UIDValidity]) == 1 {
			r.stock.unclear = append(r.stock.unclear, s.GUID)
		}
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

// clearUp leaves the trees as they are, because one mailbox was deleted there and another one took its name, and has the other
// side open it: then its GUID is known there. Once for each last common state, as it may be the same mailbox after all.
func (r *round) clearUp(own []mail.Mailbox) error {
	r.local = nil
	for _, box := range own {
		if slices.Contains(r.stock.unclear, box.Status.GUID) {
			r.local = append(r.local, box)
			delete(r.stock.told, box.Status.GUID)
			r.doubt(box.Status.GUID)
			r.desync(fmt.Sprintf("%s: mailbox %s may be another one on the other side", r.Side, box.Name))
		}
	}
	for _, n := range r.stock.nodes {
		if err := r.c.send(n); err != nil {
			return err
		}
	}
	return r.sendNow(&item.EndOfList{}, &item.Deletes{Separator: r.stock.separator, Escape: r.stock.escape})
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
