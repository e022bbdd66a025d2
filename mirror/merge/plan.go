package merge

import "dsyncfs/mirror/mail"

// Plan is what one side does to one mailbox. All parts are sorted by UID. It is carried out in the order of the fields:
// Realign is one simultaneous renaming, and every later part speaks of the UIDs after it.
type Plan struct {
	// Resync: the records do not fit the base that they were sent for. Nothing else is in the plan; the base must be
	// forgotten, so that the next round compares everything.
	Resync bool

	// Again: mails were kept that the peer does not have, or will give up, and hears of in the next exchange (Doubt).
	Again bool

	// Unmerged: a mail that both sides have beyond the common part gets other flags than the peer's has now. A Dovecot leaves
	// its own there as they are (2.3 dsync-mailbox-import.c: dsync_mailbox_try_save_cur) and merges them in the next exchange
	// without a base.
	Unmerged bool

	// UIDValidity is the mailbox's new UIDVALIDITY, 0 for none (also with Restart, where an alignment was carried out before).
	// It may equal the present one.
	UIDValidity mail.UIDValidity
	// Restart: the UIDs start anew. UIDNext is set and not raised, and Realign and Adds may use any UID that is free once
	// Realign and Expunges are done. Only a backup destination that had got ahead of its source, and a side that was
	// aligned to another UIDVALIDITY, have such a plan.
	Restart bool

	Realign  []Realign
	Deltas   []FlagChange
	Expunges []Expunge
	Adds     []Add

	LastCommon    mail.UID    // both sides are equal up to here once both have carried out their plans
	UIDNext       mail.UID    // raise to at least this (Restart: set to this)
	FirstRecent   mail.UID    // raise to at least this
	HighestModSeq mail.ModSeq // raise to at least this
}

// Realign gives a message that stays another UID or GUID.
type Realign struct {
	UID     mail.UID
	NewUID  mail.UID
	NewGUID mail.GUID // empty: as it is
}

// FlagChange changes flags and keywords of one message. With a zero Delta it only raises the modseq, to where the peer's
// will be when it has carried out its half.
type FlagChange struct {
	UID       mail.UID
	Delta     mail.Delta
	MinModSeq mail.ModSeq
}

// Expunge removes one message.
type Expunge struct {
	UID       mail.UID
	GUID      mail.GUID
	Witnessed bool // the peer saw it being expunged; false: it only has no such mail, or (backup) never had
	// Logged is what was changed here since the base and the peer does not know: it belongs to the mail where it was moved to.
	Logged mail.Delta
}

// Add makes instances of one mail appear.
type Add struct {
	GUID      mail.GUID
	RemoteUID mail.UID   // an instance at the peer, for a request; 0: none
	Copy      mail.UID   // an instance here, by its UID after Realign; 0: none in this mailbox that is known of
	Instances []Instance // at least one, by ascending UID
}

// Instance is one message that an Add makes.
type Instance struct {
	UID      mail.UID
	Flags    mail.Flags
	Keywords mail.Keywords
	ModSeq   mail.ModSeq // its modseq becomes at least this
}

// Empty reports whether the plan changes no message and no UIDVALIDITY. What only has to be raised may still differ.
func (p *Plan) Empty() bool {
	return !p.Resync && p.UIDValidity == 0 && !p.Restart && len(p.Realign)+len(p.Deltas)+len(p.Expunges)+len(p.Adds) == 0
}

// Unwitnessed counts the expunges that nobody saw: what a deletion guard has to judge.
func (p *Plan) Unwitnessed() int {
	n := 0
	for i := range p.Expunges {
		if !p.Expunges[i].Witnessed {
			n++
		}
	}
	return n
}

// Requests yields the bodies that have to be asked for: the adds that have no instance here.
func (p *Plan) Requests(yield func(*Add) bool) {
	for i := range p.Adds {
		if a := &p.Adds[i]; a.Copy == 0 && !yield(a) {
			return
		}
	}
}
