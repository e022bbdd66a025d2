package store

import (
	"iter"

	"dsyncfs/mirror/mail"
)

// Catalog is the durable memory of a store whose format has no change log: what was in each mailbox when it was last looked
// at, and what changed since when. It can always be rebuilt, at the price of a new epoch.
type Catalog interface {
	// View runs f on a consistent state; Update runs it as one durable transaction, undone if f fails. Update blocks other
	// Updates. Values that iterators yield stay valid after f. Whoever is in one must not begin another.
	View(f func(CatalogTx) error) error
	Update(f func(CatalogTx) error) error
	// Epoch is a random number that was drawn when the catalog was made.
	Epoch() uint64
	Close() error
}

// CatalogTx reads and writes a catalog. Writing in a View is an error.
type CatalogTx interface {
	// Mailboxes yields all records by ascending name.
	Mailboxes() iter.Seq2[MailboxRecord, error]
	Mailbox(mail.MailboxGUID) (MailboxRecord, bool, error)
	PutMailbox(MailboxRecord) error
	// DropMailbox forgets a mailbox with its messages, log and values: those in buckets whose name ends in its GUID.
	DropMailbox(mail.MailboxGUID) error
	// Rekey moves everything known of a mailbox to another GUID, its buckets of values too.
	Rekey(from, to mail.MailboxGUID) error

	// Messages yields the records above a UID by ascending UID.
	Messages(box mail.MailboxGUID, after mail.UID) iter.Seq2[MessageRecord, error]
	Message(box mail.MailboxGUID, uid mail.UID) (MessageRecord, bool, error)
	PutMessage(box mail.MailboxGUID, r MessageRecord) error
	DropMessage(box mail.MailboxGUID, uid mail.UID) error

	// Log yields the entries above a modseq by ascending modseq, AppendLog adds one; its ModSeq must be above all others.
	Log(box mail.MailboxGUID, since mail.ModSeq) iter.Seq2[LogEntry, error]
	AppendLog(box mail.MailboxGUID, e LogEntry) error
	// TrimLog drops entries up to a modseq.
	TrimLog(box mail.MailboxGUID, upTo mail.ModSeq) error

	// Values is a small space of values by bucket and key, for what belongs to the store as a whole (deletions, last common
	// states, attributes, the place in the journal).
	Value(bucket, key string) ([]byte, error)        // nil if there is none
	SetValue(bucket, key string, value []byte) error // nil removes it
	Values(bucket string) iter.Seq2[string, []byte]  // by ascending key
}

// MailboxRecord is what is known of one mailbox.
type MailboxRecord struct {
	Name      mail.Name
	Status    mail.Status
	Renamed   int64       // seconds; 0 unknown
	LogStart  mail.ModSeq // the log holds every change above it
	Signature []byte      // the adapter's own: how the mailbox's files looked when last read
}

// MessageRecord is what is known of one message.
type MessageRecord struct {
	mail.Message
	File string // the adapter's own: where the bytes are
}

// LogKind says what a LogEntry records.
type LogKind uint8

// The kinds of log entries.
const (
	LogAppend LogKind = iota + 1
	LogFlags
	LogExpunge
)

// LogEntry is one change of one message.
type LogEntry struct {
	ModSeq  mail.ModSeq
	Kind    LogKind
	UID     mail.UID
	GUID128 mail.GUID128 // LogExpunge
	Delta   mail.Delta   // LogFlags
	Origin  Origin
	Time    int64 // seconds
}
