package brain

import (
	"errors"
	"fmt"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/tree"
)

// A stock destination of a backup makes a mailbox anew whose UIDs are in the way of the source's, as only that lowers its UIDNEXT.
// Its INBOX it cannot delete: it expunges every mail of it and fails, in this run and in all that follow (dovecot 2.3
// dsync-mailbox-import.c: dsync_mailbox_revert_missing, delete_mailbox). A mail that is missing there could come back only under
// a new UID, which the source would have to take over. So these backups are refused before anything is lost.

// errInbox says what a user can do about it.
var errInbox = errors.New("a Dovecot would empty its INBOX and could not fill it again: use mirror, or remove the copy's mail first")

// backsUpToStock reports whether a stock slave is to become equal to this side.
func (r *round) backsUpToStock() bool {
	return r.stock != nil && r.master && r.dir == exportOnly && !r.h.NoBackupOverwrite && !r.h.DryRun
}

// checkInboxAhead refuses a backup into an INBOX that gave out UIDs which the own one did not.
func (r *round) checkInboxAhead(boxes []mail.Mailbox, remote *tree.Tree) error {
	there, ok := remote.Lookup(mail.Inbox)
	if !ok || !r.backsUpToStock() {
		return nil
	}
	for _, box := range boxes {
		if s := box.Status; s.GUID == there.Status.GUID && there.Status.UIDNext > s.UIDNext {
			return fmt.Errorf("mailbox %s: UIDNEXT is %d there and %d here: %w", box.Name, there.Status.UIDNext, s.UIDNext, errInbox)
		}
	}
	return nil
}

// checkInboxWhole refuses a backup into an INBOX that has fewer mails than it once got. One that lacks some and has as many
// others is not noticed.
func (x *exchange) checkInboxWhole(theirs *item.Mailbox) error {
	if x.mb.Name() != mail.Inbox || !x.r.backsUpToStock() {
		return nil
	}
	n := uint32(0)
	for m, err := range x.mb.Messages(0) {
		if err != nil {
			return err
		}
		if m.UID >= theirs.UIDNext {
			break
		}
		n++
	}
	if theirs.Messages >= n {
		return nil
	}
	return fmt.Errorf("mails missing there: %d: %w", n-theirs.Messages, errInbox)
}
