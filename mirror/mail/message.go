package mail

// Message is one message of a mailbox: everything about it but its bytes.
type Message struct {
	UID         UID
	GUID        GUID
	Flags       Flags
	Keywords    Keywords
	ModSeq      ModSeq
	Received    int64  // INTERNALDATE, seconds since the epoch
	Saved       int64  // save date, seconds since the epoch; 0 unknown
	POP3UIDL    string // empty: the store's default
	POP3Order   uint32 // 0: none, sorts last
	Size        int64  // physical size in bytes as stored; -1 unknown
	VirtualSize int64  // size with every line end counted as CRLF; -1 unknown
}

// Status is what a mailbox says of itself as a whole (RFC 9051 STATUS, RFC 7162 HIGHESTMODSEQ).
type Status struct {
	GUID          MailboxGUID
	UIDValidity   UIDValidity
	UIDNext       UID
	Messages      uint32
	FirstRecent   UID // first UID that is \Recent
	HighestModSeq ModSeq
}

// Existence says what stands behind a name in a mailbox tree.
type Existence uint8

// The states of a name (dovecot 2.3 dsync-mailbox-tree.h).
const (
	Absent  Existence = iota // only a parent of something, or only subscribed
	Exists                   // a mailbox, or a level of hierarchy of its own if the GUID is zero
	Deleted                  // known to have been deleted
)

// Mailbox is one node of an account's mailbox tree.
type Mailbox struct {
	Name                Name
	Existence           Existence
	Status              Status // zero GUID: a level of hierarchy that holds no messages
	Renamed             int64  // time of the last rename or directory creation, seconds; 0 unknown
	Subscribed          bool
	SubscriptionChanged int64 // time of the last change of Subscribed, seconds; 0 unknown
}

// DeletionKind says what a [Deletion] is about.
type DeletionKind uint8

// The kinds of deletion records (dovecot 2.3 dsync-mailbox-tree.h: dsync_mailbox_delete_type).
const (
	DeletedMailbox   DeletionKind = iota + 1 // ID is a mailbox GUID
	DeletedDirectory                         // ID is a name hash
	Unsubscribed                             // ID is a name hash
)

// Deletion remembers that a mailbox, a name or a subscription went away.
type Deletion struct {
	Kind DeletionKind
	ID   GUID128
	Time int64 // seconds since the epoch
}

// Delta is a change of flags and keywords: what to add and what to remove. The sets of one kind do not overlap.
type Delta struct {
	Add, Remove                 Flags
	AddKeywords, RemoveKeywords Keywords
}

// IsZero reports whether d changes nothing.
func (d Delta) IsZero() bool {
	return d.Add|d.Remove == 0 && len(d.AddKeywords)+len(d.RemoveKeywords) == 0
}

// Apply returns flags and keywords after d.
func (d Delta) Apply(f Flags, k Keywords) (Flags, Keywords) {
	return (f | d.Add) &^ d.Remove, k.Union(d.AddKeywords).Minus(d.RemoveKeywords)
}

// DeltaBetween returns the change that leads from one set of flags and keywords to another.
func DeltaBetween(f Flags, k Keywords, toFlags Flags, toKeywords Keywords) Delta {
	return Delta{
		Add: toFlags &^ f, Remove: f &^ toFlags,
		AddKeywords: toKeywords.Minus(k), RemoveKeywords: k.Minus(toKeywords),
	}
}

// Then returns the change that d followed by next amounts to: the later word on a flag wins.
func (d Delta) Then(next Delta) Delta {
	return Delta{
		Add:            d.Add&^next.Remove | next.Add,
		Remove:         d.Remove&^next.Add | next.Remove,
		AddKeywords:    d.AddKeywords.Minus(next.RemoveKeywords).Union(next.AddKeywords),
		RemoveKeywords: d.RemoveKeywords.Minus(next.AddKeywords).Union(next.RemoveKeywords),
	}
}
