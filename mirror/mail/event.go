package mail

// EventOp says what an [Event] means.
type EventOp uint8

// The operations of a mail program, as what they mean.
const (
	EventAppend        EventOp = iota + 1 // File appeared in Mailbox
	EventFlags                            // File became NewFile in the same mailbox
	EventExpunge                          // File went away
	EventMove                             // File of Mailbox became NewFile of To
	EventReplace                          // the bytes of File were changed in place: a new mail took its place
	EventMailboxCreate                    // Mailbox was created
	EventMailboxRename                    // Mailbox and everything below became To
	EventMailboxDelete                    // Mailbox was deleted
	EventSubscriptions                    // the list of subscriptions was written
	EventKeywords                         // the keyword table of Mailbox was written
	EventUIDs                             // the UID list of Mailbox was written by another program
)

var eventNames = [...]string{"", "append", "flags", "expunge", "move", "replace", "create", "rename", "delete", "subscriptions", "keywords", "uids"}

// String returns the word that the journal listing shows.
func (op EventOp) String() string {
	if int(op) < len(eventNames) && op > 0 {
		return eventNames[op]
	}
	return "unknown"
}

// Event is one change that a mail program made through the mount. File and NewFile are Maildir file names without their
// directory.
type Event struct {
	Op      EventOp
	Mailbox Name
	To      Name
	File    string
	NewFile string
}
