package brain

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// extension is the version of the dsyncfs extension that this brain speaks.
const extension = aheadVersion

// Options is what a side brings to a round of its own; everything else is the master's to say in its handshake.
type Options struct {
	Hostname string // of this side, for messages of the other
	Side     string // how errors and log lines name this side, such as "local"
	PeerName string // under which the last common states are kept; stable for a pair of locations
	Live     bool   // keep the connection after a round, if the other end can
	Guard    guard.Policy
	Now      func() int64 // seconds since the epoch, for tree changes
	Logger   *slog.Logger
	Progress Progress // may be nil

	// Lock waits for the lock that keeps two syncs of one user apart, which option -l asks for, and returns how to give it
	// back. The error wraps ErrLocked if the time was not enough. Nil: nothing is locked here.
	Lock func(ctx context.Context, wait time.Duration) (unlock func() error, err error)

	// Witness reports whether someone saw a mail, or with an empty base the mailbox, go away; see store.RefreshOptions.
	Witness func(mailbox mail.Name, base string) bool

	// Spool makes room for a large body that the other side sends ahead. Nil: large bodies come by rounds.
	Spool func() (Spool, error)
	Kept  Kept // what was read beside the rounds; nil: nothing
	Slice int  // bytes of a body that are sent at once; larger bodies than some of these go ahead. 0: 64 KiB
}

// Progress is told how far a round is. Its methods may be called from two goroutines.
type Progress interface {
	Mailbox(name mail.Name, guid mail.MailboxGUID, done, total int) // one that is done
	Mails(n int, bytes int64)                                       // received and written
}

// Outcome is what a round did on this side and, as far as known, on the other.
type Outcome struct {
	Changed bool // either side's store
	Desync  bool // something changed or could not be done meanwhile; another round helps
	Added   int  // messages saved or copied here
	Flags   int
	Expunged,
	Renumbered,
	Matched int // messages adopted by content or GUID at first contact
	Sent              int // messages sent to the other side
	NewHere, NewThere int // a dry run: messages that would be added on each side
	Notes             []string
	Undecided         bool   // mails vanished on one side, and it is too early to tell whether that was all
	Untold            bool   // of a push that was taken: the look before it found something here that the other side was not told
	Peer              string // under which the common states with the other side are kept in the store
	// Plan lists what a dry run would do here, one line each.
	Plan []string
}

// Add adds up what two rounds did, or two parts of one. Of rounds, Desync and Undecided are those of the last; the caller sees
// to that.
func (o *Outcome) Add(b Outcome) {
	o.Changed = o.Changed || b.Changed
	o.Undecided = o.Undecided || b.Undecided
	o.Desync = o.Desync || b.Desync
	o.Added += b.Added
	o.Flags += b.Flags
	o.Expunged += b.Expunged
	o.Renumbered += b.Renumbered
	o.Matched += b.Matched
	o.Sent += b.Sent
	o.NewHere += b.NewHere
	o.NewThere += b.NewThere
	o.Notes = append(o.Notes, b.Notes...)
	o.Peer = cmp.Or(b.Peer, o.Peer)
	o.Plan = append(o.Plan, b.Plan...)
}

// direction says which halves a side has.
type direction uint8

const (
	twoWay     direction = iota
	exportOnly           // backup source
	importOnly           // backup destination
)

func (d direction) exports() bool { return d != importOnly }
func (d direction) imports() bool { return d != exportOnly }

// directionOf returns the direction of one side from the handshake in force. The backup flags are meant from the slave's
// point of view.
func directionOf(h *item.Handshake, master bool) direction {
	switch {
	case h.BackupSend && h.BackupReceive, !h.BackupSend && !h.BackupReceive:
		return twoWay
	case h.BackupSend == master:
		return importOnly
	}
	return exportOnly
}

// round is one round as one side sees it.
type round struct {
	*Options
	h      *item.Handshake // the master's: the options in force
	peer   *item.Handshake // what the other side said
	master bool
	hurry  bool // see Master.Hurry
	here   bool // see Master.Here
	dir    direction
	store  store.Store
	c      *conversation
	out    Outcome

	local    []mail.Mailbox // own tree, after the tree phase
	remote   map[mail.MailboxGUID]remoteNode
	spelling map[mail.Name][]string // names of the other side that could not be taken over as they are
	bases    map[mail.MailboxGUID]store.State
	newBases map[mail.MailboxGUID]store.State
	// agreed says up to where the own log was settled with a peer that does not know any more: it put a mailbox back from an older
	// copy, say. What was expunged before that, and is there again, somebody wanted back.
	agreed     map[mail.MailboxGUID]mail.ModSeq
	refused    map[mail.MailboxGUID]struct{} // as slave: told common states that this side does not know
	moved      moved
	aliases    map[mail.MailboxGUID]mail.MailboxGUID // a dry run: the own GUID of a mailbox that the other side knows by another
	boxesDone  int
	boxesTotal int
	buf        []byte
	thorough   bool   // the own store is looked at behind everybody's back
	stock      *stock // the other side is no dsyncfs
	link       *link  // of the kept connection
	ended      bool   // the other side takes the list of mailboxes for ended
}

// remoteNode is what the other side's tree says of a mailbox.
type remoteNode struct {
	name        mail.Name
	uidValidity mail.UIDValidity
	numbers     store.Numbers
}

// ours reports whether the other side is a dsyncfs too.
func (r *round) ours() bool { return r.peer.Dsyncfs > 0 && r.h.Dsyncfs > 0 }

func (r *round) desync(note string) {
	r.out.Desync = true
	r.out.Notes = append(r.out.Notes, note)
	r.Logger.Info("desync", "note", note)
}
