package merge

import (
	"cmp"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// NeedsComparison says whether the messages of a mailbox have to be looked at, given what both sides say of it. For a
// "changed" sync equal numbers mean equal mailboxes, which is not safe: both sides may have made the same number of
// changes.
func NeedsComparison(t item.SyncType, local, remote mail.Status) bool {
	if t != item.SyncChanged {
		return true
	}
	local.GUID = remote.GUID
	return local != remote
}

// UIDValidityWinner returns the UIDVALIDITY that a mailbox gets on both sides: that of the side with more messages, else
// the greater one.
func UIDValidityWinner(local, remote mail.Status) mail.UIDValidity {
	switch c := cmp.Compare(local.Messages, remote.Messages); {
	case c > 0:
		return local.UIDValidity
	case c < 0:
		return remote.UIDValidity
	}
	return max(local.UIDValidity, remote.UIDValidity)
}

// Winner says whose mails keep their identity when two copies of a mailbox are aligned: above 0 the local side's, below 0
// the remote side's. More messages win, then the greater UIDVALIDITY, mailbox GUID, UIDNEXT and modseq, at last the greater
// epoch (a random number of each side's index, so that identical copies have a winner too). 0 means that even the epochs
// are equal: the master wins then. Who wins by UIDVALIDITY is the side of [UIDValidityWinner].
func Winner(local, remote mail.Status, localEpoch, remoteEpoch uint64) int {
	return cmp.Or(
		cmp.Compare(local.Messages, remote.Messages),
		cmp.Compare(local.UIDValidity, remote.UIDValidity),
		local.GUID.Compare(remote.GUID),
		cmp.Compare(local.UIDNext, remote.UIDNext),
		cmp.Compare(local.HighestModSeq, remote.HighestModSeq),
		cmp.Compare(localEpoch, remoteEpoch),
	)
}

// BaseFits says whether what is saved of a mailbox can be true: an incremental exchange since uid and modseq is possible
// as far as numbers tell (dovecot 2.3.19 dsync-mailbox-import.c). The log must also reach back to modseq.
func BaseFits(s mail.Status, uid mail.UID, modSeq mail.ModSeq) bool {
	return s.UIDNext > uid && (uid == 0 || s.HighestModSeq >= modSeq)
}
