// Package item holds the typed items of a dsync conversation: what two brains say to each other, whatever carries it.
//
// The kinds and fields are those of dovecot 2.3 dsync-ibc.h and dsync-ibc-stream.c; fields marked "ours" are an extension
// that only two dsyncfs ends use and that a stock Dovecot ignores. Start from [Item] and [Change]. The package is pure; how
// items look on a wire is the business of remote/dsync, their order that of mirror/brain.
package item

import (
	"io"

	"dsyncfs/mirror/mail"
)

// Item is one item of a conversation: a pointer to one of the types of this package.
type Item interface{ isItem() }

// SyncType says how much of the mailboxes is looked at and sent.
type SyncType byte

// The sync types of the handshake.
const (
	SyncFull    SyncType = 'f' // every message of every mailbox
	SyncChanged SyncType = 'c' // every message of mailboxes whose numbers differ
	SyncState   SyncType = 's' // what changed since the saved states
)

// Handshake opens a round. Each side sends one; all but the host name and what is marked "ours" is the master's to say.
type Handshake struct {
	Hostname              string
	NamespacePrefixes     []string // -n; nil: the default namespaces. One empty prefix is a choice too
	VisibleNamespaces     bool     // -N
	Box                   string   // -m: only this mailbox, in the master's separator; empty: all
	BoxGUID               string   // -g: only this mailbox, 32 hex digits
	Type                  SyncType
	Debug                 bool
	Exclude               []string // -x: patterns or \Special-use
	SendMailRequests      bool     // bodies are asked for with Request
	BackupSend            bool     // the receiver of this handshake is the source
	BackupReceive         bool     // the receiver of this handshake is the destination
	LockTimeout           uint32   // -l, seconds; 0: no lock
	NoMailSync            bool     // mailboxes only
	NoBackupOverwrite     bool     // -1: two-way rules in one direction
	PurgeRemote           bool     // -P
	NoNotify              bool
	Since, Until          int64 // -t, -e: seconds since the epoch; 0: no limit
	MaxSize               uint64
	Flag                  string // -O
	VirtualAllBox         string // -a
	EmptyHeaderWorkaround bool
	CommitInterval        uint32
	HashedHeaders         []string
	AltChar               string // replacement for what a name cannot hold; one character or empty

	// Ours.
	Dsyncfs      uint32   // version of the extension that this side speaks; 0: it is not a dsyncfs
	Hurry        bool     // somebody waits for the round: it is decided at once what became of mails that just vanished
	Live         bool     // the sender would keep the connection after the round and watch its store
	DryRun       bool     // the receiver says what it would do and does nothing
	Verify       bool     // messages are described with everything that must be equal, and nothing is changed
	AllowExpunge []string // mailboxes for which the user allowed a mass expunge; "*": all
	Restore      []string // mailboxes whose missing mails are to be fetched back; "*": all
	Boxes        []string // only these mailboxes (names with '/'); nil: all
	Epoch        uint64   // identifies the sender's index; a rebuilt index has another one
}

// State is a saved state of a mailbox (at the start of a state sync) or the new one (at the end of a mailbox).
type State struct {
	GUID                mail.MailboxGUID
	UIDValidity         mail.UIDValidity // of the sender when it began the mailbox; 0: a full resync is required
	LastCommonUID       mail.UID
	LastCommonModSeq    mail.ModSeq // in the numbers of the side whose changes are to be found with it
	LastCommonPvtModSeq mail.ModSeq
	Messages            uint32
	ChangesDuringSync   bool

	// Ours.
	Epoch         uint64      // of the index that LastCommonModSeq belongs to
	UIDNext       mail.UID    // of the sender now
	HighestModSeq mail.ModSeq // of the sender now, its own part in this mailbox done
}

// Node is one node of the mailbox tree.
type Node struct {
	Parts               []string // name, level by level, in UTF-8; not empty
	Existence           mail.Existence
	GUID                mail.MailboxGUID // zero: a directory only
	UIDValidity         mail.UIDValidity
	UIDNext             mail.UID
	Renamed             int64 // last_renamed_or_created, seconds; 0 unknown
	Subscribed          bool
	SubscriptionChanged int64 // seconds; 0 unknown

	// Ours: so that mailboxes unchanged on both sides need no round trip of their own.
	Messages      uint32
	HighestModSeq mail.ModSeq
	// Ours, of the slave: it does not know of the common state that the master told. Its mailbox was made anew since.
	NoState bool
}

// Deletes ends a tree: what its side deleted.
type Deletes struct {
	Separator byte // in which the hashed names were written
	Escape    byte // escape character of the hashed names; 0: none
	Deletions []mail.Deletion
}

// Mailbox announces a mailbox, or answers such an announcement.
type Mailbox struct {
	mail.Status
	HighestPvtModSeq mail.ModSeq
	Lost             bool // the answering side has no mailbox of this GUID, or needs a full resync
	Ignore           bool // as Lost, but harmless
	CacheFields      string
	HaveGUIDs        bool // messages have GUIDs
	HaveSaveGUIDs    bool // a GUID can be given when saving
	HaveOnlyGUID128  bool // only GUIDs of 32 hex digits survive

	// Ours.
	NoBase bool             // the sender does not start from a common state with this peer: contents are to be matched
	Since  mail.ModSeq      // the sender's modseq at the last common state that it knows, also with NoBase; 0: it knows none
	Digest mail.ContentHash // over the GUIDs and sizes of all messages, with NoBase: equal digests make matching contents needless; zero: not sent
}

// Attribute is one mailbox attribute (RFC 5464 metadata, Sieve scripts).
type Attribute struct {
	Shared     bool   // else private
	Key        string // without /private/ or /shared/
	Value      string
	Stream     io.ReadCloser // value that follows as a stream; the receiver reads it to its end before the next item, then closes it
	Deleted    bool
	LastChange int64 // seconds; 0 unknown
	ModSeq     mail.ModSeq
}

// ChangeType says what became of a message.
type ChangeType byte

// The types of changes.
const (
	ChangeSave    ChangeType = 's' // an existing message
	ChangeExpunge ChangeType = 'e'
	ChangeFlags   ChangeType = 'f'
)

// KeywordChange says what the sender knows of one keyword of a message. Its zero Op is invalid.
type KeywordChange struct {
	Op   KeywordOp
	Name string
}

// KeywordOp is the type character in front of a keyword.
type KeywordOp byte

// The keyword operations.
const (
	KeywordAdded    KeywordOp = '+' // added, but not set now
	KeywordRemoved  KeywordOp = '-'
	KeywordSet      KeywordOp = '=' // set now and not in the log
	KeywordAddedSet KeywordOp = '&' // added and set now
)

// Change describes one message to the other side. Within a mailbox they come in strictly ascending order of UID.
type Change struct {
	Type          ChangeType
	UID           mail.UID
	GUID          mail.GUID    // ChangeSave, ChangeFlags; empty: unknown
	GUID128       mail.GUID128 // ChangeExpunge; zero: unknown
	HeaderHash    string       // 32 hex digits when header hashes are in use
	HasHeaderHash bool
	ModSeq        mail.ModSeq
	PvtModSeq     mail.ModSeq
	Add, Remove   mail.Flags // changed since the last common state, by the sender's log
	Final         mail.Flags // all that are set now
	Keywords      []KeywordChange
	KeywordsReset bool
	Received      int64  // only if a filter needs it; 0: not sent
	VirtualSize   uint64 // UnknownSize: not known
	HasSize       bool

	// Ours.
	Content mail.ContentHash // sent when contents are to be matched; zero: not sent
	POP3    string           // "ORDER UIDL", only with Verify
	Size    int64            // in bytes, only in a preview
	Past    Past             // of ChangeSave and ChangeExpunge
}

// Past says what exchanges since the last common state that did not end as planned had to do with a message of the sender's.
type Past byte

// The kinds of it.
const (
	PastNone       Past = 0
	PastMet        Past = 'm' // it was there when the two first met
	PastBrought    Past = 'b' // it came from the receiver
	PastRenumbered Past = 'r' // only ChangeExpunge: it got another UID, and nobody expunged it
	PastTold       Past = 't' // only ChangeExpunge: the receiver had told it
)

// UnknownSize is what a Dovecot sends as virtual size when nobody asked for it.
const UnknownSize = ^uint64(0)

// Request asks for the body of a message.
type Request struct {
	GUID mail.GUID // decides if set
	UID  mail.UID  // the exporter's UID of one instance

	// Ours.
	Have    uint64    // so many bytes of the body came ahead
	Mailbox mail.Name // in a preview: where the mail is; else empty
}

// Mail answers a Request.
type Mail struct {
	GUID      mail.GUID // as requested by GUID; empty if requested by UID
	UID       mail.UID  // only if requested by UID
	POP3UIDL  string
	POP3Order uint32
	Received  int64         // seconds
	Saved     int64         // seconds; 0 unknown
	Body      io.ReadCloser // nil: every instance was expunged meanwhile. Read to its end before the next item, then closed by the receiver

	// Ours.
	Offset uint64 // Body lacks so many bytes at its start, which came ahead
}

// Finish ends a round, slave to master.
type Finish struct {
	Error             string // empty: success
	MailError         uint32 // dovecot 2.3 mail-error.h
	RequireFullResync bool

	// Ours.
	Desync  bool   // something changed or could not be done meanwhile; run again
	Guard   bool   // Error comes from the deletion guard
	Changed bool   // this side changed its store in this round
	Plan    string // a dry run: what this side would do, one line each
	New     uint32 // a dry run: messages that this side would add
	Matched uint32 // messages of this side that were found to be the other side's, at first contact
	// Undecided: mails vanished on this side, and it is too early to tell whether that was all.
	Undecided bool
}

// EndOfList ends the list that is due at this place.
type EndOfList struct{}

// Done is the abort of a conversation, or its last word after Finish.
type Done struct{}

// Wake is ours: between two rounds of a kept connection, either side says that its store changed.
type Wake struct {
	Mailboxes []string // names with '/' of what changed, as far as known; nil: unknown
}

// Parcel is ours: a slice of a body that goes ahead of the push that tells of its mail.
type Parcel struct {
	GUID   mail.GUID
	Offset uint64 // of Data in the body; 0 begins a body, and ends one that was not told of
	Size   uint64 // of the body
	Data   string // not empty
}

// Receipt is ours: the receiver of parcels has so many bytes of a body.
type Receipt struct {
	GUID mail.GUID
	Got  uint64
}

// Preview is ours: instead of a Handshake it opens a conversation in which the receiver says what it holds, without comparing
// anything, and then answers Requests for single mails. See brain.Viewer.
type Preview struct {
	Version uint32 // of this conversation; at least 1
	Bodies  bool   // what is held was told before: only mails are asked for
}

func (*Handshake) isItem() {}
func (*State) isItem()     {}
func (*Node) isItem()      {}
func (*Deletes) isItem()   {}
func (*Mailbox) isItem()   {}
func (*Attribute) isItem() {}
func (*Change) isItem()    {}
func (*Request) isItem()   {}
func (*Mail) isItem()      {}
func (*Finish) isItem()    {}
func (*EndOfList) isItem() {}
func (*Done) isItem()      {}
func (*Wake) isItem()      {}
func (*Parcel) isItem()    {}
func (*Receipt) isItem()   {}
func (*Preview) isItem()   {}
