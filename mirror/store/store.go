// Package store declares what the engine needs of a place that holds mail: the [Store] and [Mailbox] ports, the [Catalog]
// in which a store without a change log of its own remembers what it saw, and their errors. Adapters live in the
// directories below and are held to one suite, storetest.
package store

import (
	"context"
	"io"
	"iter"
	"time"

	"dsyncfs/mirror/mail"
)

// Store is one account at one location.
//
// A Store is used by one goroutine at a time, except where a method says otherwise. Names and GUIDs refer to the state
// after the last Refresh, corrected by the Store's own changes since.
type Store interface {
	Capabilities() Capabilities

	// Refresh takes notice of what others did to the store since the last time: new mail gets UIDs, changed flags and
	// vanished mails get modseqs. It is cheap where nothing changed. It returns the error of o.Guard unchanged, and then has
	// recorded no expunge and no deletion. A listing that fails is an error and never counts as absence.
	Refresh(ctx context.Context, o RefreshOptions) (Report, error)

	// Tree returns every node of the mailbox tree, parents before children and siblings in byte order, and what was deleted
	// as far as remembered.
	Tree(ctx context.Context) ([]mail.Mailbox, []mail.Deletion, error)

	// Create makes an empty mailbox, with missing parents. An existing mailbox of that name is ErrExists; a level of
	// hierarchy of that name becomes the mailbox.
	Create(ctx context.Context, name mail.Name, guid mail.MailboxGUID, validity mail.UIDValidity) error
	CreateDirectory(ctx context.Context, name mail.Name) error
	// Delete removes the mailbox of that GUID with all its messages (never INBOX: its messages only) and remembers it.
	Delete(ctx context.Context, guid mail.MailboxGUID) error
	DeleteDirectory(ctx context.Context, name mail.Name) error
	// Rename moves a mailbox or directory and everything below it. at is when that was done where it was done first, in
	// seconds, 0 for now: all stores have to remember the same, or two names of one mailbox chase each other round three of them.
	Rename(ctx context.Context, from, to mail.Name, at int64) error
	Subscribe(ctx context.Context, name mail.Name, subscribed bool) error
	// SetGUID gives the mailbox another GUID; its messages and UIDs stay.
	SetGUID(ctx context.Context, from, to mail.MailboxGUID) error
	// Reserve keeps the UIDs below next for the mails that the other side gave them to: a mail that turns up here by itself gets
	// none of them. UIDNEXT stays, so that those mails can get theirs. A mailbox that is not there is ErrNotFound.
	Reserve(ctx context.Context, guid mail.MailboxGUID, next mail.UID) error

	// Open returns the mailbox of that GUID, ErrNotFound if there is none.
	Open(ctx context.Context, guid mail.MailboxGUID) (Mailbox, error)

	// Find looks in all mailboxes for one instance of each wanted GUID that fits (nil: any does), also among the mails that this
	// round expunged. It saves asking the peer for a body that is here already.
	Find(ctx context.Context, want map[mail.GUID]struct{}, fits func(Location) bool) (map[mail.GUID]Location, error)

	// EndRound lets go of what was kept for Find and makes the round's changes durable.
	EndRound(ctx context.Context) error

	// Epoch identifies the memory behind modseqs: it changes when that memory was lost.
	Epoch() uint64

	// Base returns the last common states with the peer of that name, by mailbox; SetBase replaces one (a zero State drops
	// it).
	Base(ctx context.Context, peer string) (map[mail.MailboxGUID]State, error)
	SetBase(ctx context.Context, peer string, states map[mail.MailboxGUID]State) error

	Close() error
}

// Capabilities says what a store can keep.
type Capabilities struct {
	Separator    byte // of the store's own names
	Keywords     int  // how many different keywords per mailbox survive without us; -1: any number
	SaveGUIDs    bool // a GUID can be given when saving
	SaveUIDs     bool // a UID can be given when saving
	OnlyGUID128  bool // only GUIDs of 32 hex digits
	NamePartMax  int  // longest part of a name in bytes, as stored
	HasSaveDates bool
}

// RefreshOptions says what to look at.
type RefreshOptions struct {
	Mailboxes []mail.Name // only these; nil: all
	Full      bool        // trust no timestamps: read every directory and stat every mail
	DryRun    bool        // write nothing into the store itself; only the memory of it changes

	// Patience: vanished mails without a witness are left undecided, neither expunged nor an error, until their number has
	// not changed for so long. For a store that is looked at while somebody may be in the middle of removing. 0: decide now.
	Patience time.Duration

	// Guard is asked once, when everything was looked at, before what vanished without a witness counts as expunged. An error
	// stops the refresh. Nil accepts everything.
	Guard func([]Loss) error
	// Lately: what Guard accepted as lost from a mailbox within so long before counts again with what is lost now, whoever
	// accepted it; many small losses in a row amount to a large one. 0: this refresh stands alone and leaves nothing to be
	// counted.
	Lately time.Duration
	// Confirmed reports whether the user confirmed the losses of a mailbox: they count for no other refresh, nor do those
	// before. Nil: none.
	Confirmed func(mail.Name) bool
	// Witness reports whether someone saw the mail of this base name being expunged from, or the mailbox (base "") being
	// deleted. Nil: nobody.
	Witness func(mailbox mail.Name, base string) bool
	// Restore reports whether vanished mails of a mailbox are to be forgotten instead of counted as expunged, so that the
	// peer's copies come back. Nil: never.
	Restore func(mail.Name) bool
}

// Loss is what vanished from one mailbox without a witness.
type Loss struct {
	Mailbox mail.Name
	Known   int  // messages that were known, with those that were lost lately
	Missing int  // of these, how many are gone without a witness and did not turn up in another mailbox
	Gone    bool // the mailbox itself is gone, or its directories are
}

// Report says what a Refresh found.
type Report struct {
	Added, Flags, Expunged int         // messages
	Changed                []mail.Name // mailboxes in which anything changed, in byte order
	Notes                  []string    // what could not be read or was repaired, one line each
	Undecided              bool        // mails vanished, and Patience was not over
}

// Location is one instance of a message.
type Location struct {
	Mailbox mail.MailboxGUID
	UID     mail.UID // 0: kept from an expunge of this round
	Held    string   // the store's name for a kept one
}

// State is the last common state of one mailbox with one peer.
type State struct {
	UIDValidity   mail.UIDValidity
	LastCommonUID mail.UID
	Local, Remote Numbers
	RemoteEpoch   uint64
	Unsettled     Unsettled `json:",omitzero"`
}

// Numbers are the parts of a mailbox's status that tell whether it changed.
type Numbers struct {
	UIDNext       mail.UID
	Messages      uint32
	HighestModSeq mail.ModSeq
}

// NumbersOf extracts the Numbers of a status.
func NumbersOf(s mail.Status) Numbers {
	return Numbers{UIDNext: s.UIDNext, Messages: s.Messages, HighestModSeq: s.HighestModSeq}
}

// Origin names the peer that a change came from, so that it is not sent back there. Empty: a local user.
type Origin string

// Change is what happened to one message since some modseq: all entries of the log about it, put together.
type Change struct {
	UID      mail.UID
	Expunged bool
	GUID128  mail.GUID128 // of an expunged message
	ModSeq   mail.ModSeq  // of the expunge
	Origin   Origin       // of the expunge
	Message  mail.Message // as it is now, unless expunged
	Delta    mail.Delta   // what the log says was added and removed; may be zero
}

// Body is the content of a message. Size is exact. A Body that is also an *os.File underneath says so with File, for
// in-kernel copies.
type Body interface {
	io.ReadCloser
	Size() int64
}

// Mailbox is one mailbox, as it was when it was opened. Readers see that state; Apply changes the store.
type Mailbox interface {
	Name() mail.Name
	Status() mail.Status

	// Messages yields the messages with a UID above after, by ascending UID.
	Messages(after mail.UID) iter.Seq2[mail.Message, error]

	// Changes yields what the log holds above since, by ascending UID, without what came from skip and without appends. ok is
	// false if the log does not reach back that far; what it still holds comes all the same.
	Changes(since mail.ModSeq, skip Origin) (changes iter.Seq2[Change, error], ok bool)

	// Body opens the bytes of a message; ErrNotFound if it is gone. Safe for concurrent use.
	Body(ctx context.Context, uid mail.UID) (Body, error)

	// Stage writes a mail where no reader sees it; Apply makes it appear. Dates and POP3 fields of m are kept with it. What
	// is never applied vanishes with Close. Safe for concurrent use. The error is ErrNoSpace if the disk is full.
	Stage(ctx context.Context, m mail.Message, body io.Reader) (Staged, error)

	// Apply carries out a batch under the store's lock and makes it durable. Each part that no longer fits what is there is
	// reported in the Result and not an error.
	Apply(ctx context.Context, b Batch) (Result, error)

	Attributes(ctx context.Context, since mail.ModSeq) ([]Attribute, error)
	SetAttribute(ctx context.Context, a Attribute) error

	Close() error
}

// Staged names a mail that was written by Stage.
type Staged string

// Attribute is one mailbox attribute (RFC 5464). Value is bounded by what a peer may send.
type Attribute struct {
	Shared     bool
	Key, Value string
	Deleted    bool
	LastChange int64 // seconds; 0 unknown
	ModSeq     mail.ModSeq
}

// Batch is what Apply does, in this order. The new UIDs of Realign and Adds are all different; without Restart and a new
// UIDVALIDITY each has to be at or above the UIDNEXT from before the batch, whatever the order in which they come.
type Batch struct {
	Origin Origin
	// Peer is the name of a last common state in which the UIDs are to be noted that the batch gives, if there is one: see
	// [Unsettled]. Empty: none.
	Peer string

	UIDValidity mail.UIDValidity // set to this if not 0; UIDs stay but for Realign
	// Restart: the UIDs start anew, for a backup destination that got ahead of its source or a side that takes over another
	// UIDVALIDITY. UIDNext is set and not raised, and Realign and Adds may use any UID that is free once Realign and Expunges
	// are done. What others cached of the mailbox's UIDs must be made invalid.
	Restart bool
	Realign []Realign // new identities for messages that stay, before everything else

	Deltas   []FlagChange
	Expunges []Expunge
	Adds     []Add // by ascending UID; one may copy a message that Expunges of this batch removes

	UIDNext       mail.UID // raise to at least this
	FirstRecent   mail.UID
	HighestModSeq mail.ModSeq
}

// Realign gives a message another UID, GUID or date. All of a batch happen at once, so that messages can change places.
type Realign struct {
	UID      mail.UID
	NewUID   mail.UID
	NewGUID  mail.GUID // empty: as it is
	Received int64     // new INTERNALDATE; 0: as it is
}

// FlagChange changes the flags of one message. It is a difference, so that what a user changed meanwhile stays.
type FlagChange struct {
	UID       mail.UID
	Delta     mail.Delta
	MinModSeq mail.ModSeq
}

// Expunge removes one message. It is skipped if the message of that UID has another GUID.
type Expunge struct {
	UID  mail.UID
	GUID mail.GUID
}

// Add makes a message appear. Exactly one of Staged, Held, From is its source.
type Add struct {
	Message mail.Message // UID, GUID, flags, dates as they shall be
	Staged  Staged
	From    Location // copy of a message that is here already (another mailbox, or another UID of this one); dates and POP3 fields that are zero in Message are the copied one's
}

// Result says what Apply did.
type Result struct {
	Changed    bool       // anything at all
	Vanished   []mail.UID // in Deltas, Expunges or Realign, but not there any more, or with a new UID that was taken meanwhile
	Reassigned []Assigned // Adds whose UID was taken meanwhile and that got another one
	// Late are flags that others changed since the last Refresh on messages of Expunges: they went with them.
	Late    []FlagChange
	Noticed bool // flags that others changed since the last Refresh were found and recorded; the peer does not know of them
	Status  mail.Status
}

// Assigned is a message that got another UID than wanted.
type Assigned struct{ Wanted, Got mail.UID }
