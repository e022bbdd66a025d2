package index

import (
	"errors"
	"fmt"
	"math"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// CheckConsistency reports every breach of what must hold in a catalog:
//
//   - mailboxes come by ascending name, no two have one GUID, none has a zero GUID;
//   - UIDs ascend, are not 0 and below UIDNEXT;
//   - modseqs of messages are not 0 and at most HIGHESTMODSEQ;
//   - the status counts the messages there are;
//   - modseqs of the log ascend and are at most HIGHESTMODSEQ; what is left from before its start is true, but not all there was;
//   - a log entry speaks of a UID below UIDNEXT, an expunge of one that is not there any more, unless a later entry appends it.
func CheckConsistency(c store.Catalog) error {
	return c.View(func(t store.CatalogTx) error {
		var errs []error
		seen := map[mail.MailboxGUID]bool{}
		var last mail.Name
		for r, err := range t.Mailboxes() {
			if err != nil {
				return err
			}
			if r.Status.GUID.IsZero() || seen[r.Status.GUID] || r.Name < last {
				errs = append(errs, fmt.Errorf("mailbox %q %v: zero or second GUID, or not in order", r.Name, r.Status.GUID))
			}
			last = r.Name
			seen[r.Status.GUID] = true
			if err := checkMailbox(t, r); err != nil {
				errs = append(errs, fmt.Errorf("mailbox %q: %w", r.Name, err))
			}
		}
		return errors.Join(errs...)
	})
}

func checkMailbox(t store.CatalogTx, r store.MailboxRecord) error {
	return errors.Join(checkMessages(t, r), checkLog(t, r))
}

func checkMessages(t store.CatalogTx, r store.MailboxRecord) error {
	var errs []error
	var last mail.UID
	var n uint32
	for m, err := range t.Messages(r.Status.GUID, 0) {
		if err != nil {
			return err
		}
		n++
		if m.UID <= last || m.UID >= r.Status.UIDNext {
			errs = append(errs, fmt.Errorf("UID %d after %d, UIDNEXT %d", m.UID, last, r.Status.UIDNext))
		}
		if m.ModSeq == 0 || m.ModSeq > r.Status.HighestModSeq {
			errs = append(errs, fmt.Errorf("UID %d: modseq %d, HIGHESTMODSEQ %d", m.UID, m.ModSeq, r.Status.HighestModSeq))
		}
		last = m.UID
	}
	if n != r.Status.Messages {
		errs = append(errs, fmt.Errorf("%d messages, the status says %d", n, r.Status.Messages))
	}
	return errors.Join(errs...)
}

func checkLog(t store.CatalogTx, r store.MailboxRecord) error {
	var errs []error
	var last mail.ModSeq
	expunged := map[mail.UID]bool{}
	for e, err := range t.Log(r.Status.GUID, 0) {
		if err != nil {
			return err
		}
		if e.ModSeq <= last || e.ModSeq > r.Status.HighestModSeq {
			errs = append(errs, fmt.Errorf("log: modseq %d after %d, HIGHESTMODSEQ %d", e.ModSeq, last, r.Status.HighestModSeq))
		}
		if e.UID == 0 || e.UID >= r.Status.UIDNext && r.Status.UIDNext < math.MaxUint32 {
			errs = append(errs, fmt.Errorf("log: UID %d, UIDNEXT %d", e.UID, r.Status.UIDNext))
		}
		last = e.ModSeq
		switch e.Kind {
		case store.LogExpunge:
			expunged[e.UID] = true
		case store.LogAppend:
			delete(expunged, e.UID)
		}
	}
	for uid := range expunged {
		if _, there, err := t.Message(r.Status.GUID, uid); err != nil || there {
			errs = append(errs, errors.Join(err, fmt.Errorf("log: UID %d was expunged and is there", uid)))
		}
	}
	return errors.Join(errs...)
}
